// SPDX-License-Identifier: Apache-2.0

/// \file
/// The Mamba block: projection, causal convolution, selective scan, gate, projection.
///
/// A. Gu, T. Dao, "Mamba: linear-time sequence modeling with selective state spaces", 2023, section
/// 3.4; names, shapes and initial values of parameters as in its reference implementation, so that
/// its weights load.

#ifndef QUERN_SSM_MAMBA_HPP
#define QUERN_SSM_MAMBA_HPP

#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/core/nd_view.hpp"
#include "quern/core/random.hpp"
#include "quern/nn/init.hpp"
#include "quern/nn/linear.hpp"
#include "quern/nn/sequence_layer.hpp"
#include "quern/ssm/causal_conv.hpp"
#include "quern/ssm/detail/mixer_state.hpp"
#include "quern/ssm/selective_scan.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

QUERN_NAMESPACE_BEGIN
namespace ssm {

/// Sizes of a Mamba block; the paper's defaults.
struct MambaOptions {
  Index states = 16;     ///< N, numbers a channel remembers
  Index expand = 2;      ///< inner channels as a multiple of the outer ones
  Index taps = 4;        ///< of the convolution
  Index dt_rank = 0;     ///< of the steps' projection; 0: dim / 16, rounded up
  double dt_low = 1e-3;  ///< steps start between these, evenly in their logarithm
  double dt_high = 1e-1;
};

namespace detail {

/// What softplus takes to a step drawn evenly in its logarithm.
template <class T>
void initial_dt_bias(nn::TensorView<T> bias, Philox random, double low, double high) {
  for (T& x : bias) {
    const double drawn = std::exp(random.uniform(std::log(low), std::log(high)));
    const double dt = (std::max)(drawn, 1e-4);
    x = static_cast<T>(dt + std::log(-std::expm1(-dt)));
  }
}

inline void expect_at_least_one(std::string_view owner, const char* what, Index value) {
  if (value < 1) throw ValueError(error_text(owner, what, "at least 1", value));
}

}  // namespace detail

/// (batch, length, dim) to the same. A_log, D and the bias of steps take no weight decay.
template <class T>
class Mamba final : public nn::SequenceLayer<T> {
 public:
  /// ValueError for sizes below 1 (a dt_rank of 0 is dim / 16, rounded up).
  explicit Mamba(Index dim, const MambaOptions& options = {})
      : dim_(dim), options_(options), inner_(dim * options.expand) {
    detail::expect_at_least_one(type(), "dim", dim);
    detail::expect_at_least_one(type(), "options.states", options.states);
    detail::expect_at_least_one(type(), "options.expand", options.expand);
    detail::expect_at_least_one(type(), "options.taps", options.taps);
    if (options.dt_rank < 0) {
      throw ValueError(error_text(type(), "options.dt_rank", "0 or more", options.dt_rank));
    }
    rank_ = options.dt_rank > 0 ? options.dt_rank : (dim + 15) / 16;
    in_proj_.resize({2 * inner_, dim});
    conv_.resize({inner_, 1, options.taps});
    conv_bias_.resize({inner_});
    x_proj_.resize({rank_ + 2 * options.states, inner_});
    dt_proj_.resize({inner_, rank_});
    dt_bias_.resize({inner_});
    a_log_.resize({inner_, options.states});
    skip_.resize({inner_});
    out_proj_.resize({dim, inner_});
    this->initialize(0);
  }

  [[nodiscard]] std::string_view type() const override { return "quern::ssm::Mamba"; }
  [[nodiscard]] nn::Extents output_shape(const nn::Extents& in) const override {
    detail::expect_sequence(type(), in, dim_);
    return in;
  }
  void parameters(nn::ParameterList<T>& out, const std::string& prefix) override {
    out.push_back({.name = prefix + "A_log", .values = a_log_.view(), .decay = false});
    out.push_back({.name = prefix + "D", .values = skip_.view(), .decay = false});
    out.push_back({prefix + "in_proj.weight", in_proj_.view()});
    out.push_back({prefix + "conv1d.weight", conv_.view()});
    out.push_back({.name = prefix + "conv1d.bias", .values = conv_bias_.view(), .decay = false});
    out.push_back({prefix + "x_proj.weight", x_proj_.view()});
    out.push_back({prefix + "dt_proj.weight", dt_proj_.view()});
    out.push_back({.name = prefix + "dt_proj.bias", .values = dt_bias_.view(), .decay = false});
    out.push_back({prefix + "out_proj.weight", out_proj_.view()});
  }
  void initialize(std::uint64_t seed, const std::string& prefix = {}) override {
    const auto draw = [&](const char* name) { return Philox(seed, prefix + name); };
    nn::init::pytorch_default(in_proj_.view(), nn::TensorView<T>(), seed, prefix + "in_proj.");
    nn::init::pytorch_default(conv_.view(), conv_bias_.view(), seed, prefix + "conv1d.");
    nn::init::pytorch_default(x_proj_.view(), nn::TensorView<T>(), seed, prefix + "x_proj.");
    nn::init::pytorch_default(out_proj_.view(), nn::TensorView<T>(), seed, prefix + "out_proj.");
    const double bound = 1 / std::sqrt(static_cast<double>(rank_));
    nn::init::uniform(dt_proj_.view(), draw("dt_proj.weight"), -bound, bound);
    detail::initial_dt_bias(dt_bias_.view(), draw("dt_proj.bias"), options_.dt_low,
                            options_.dt_high);
    for (Index i = 0; i < a_log_.size(); ++i) {
      a_log_[i] = static_cast<T>(std::log(static_cast<double>(i % options_.states + 1)));
    }
    nn::init::constant(skip_.view(), T{1});
  }
  [[nodiscard]] std::unique_ptr<nn::Layer<T>> clone() const override {
    auto copy = std::make_unique<Mamba>(dim_, options_);
    detail::copy_parameters(*this, *copy);
    return copy;
  }

  [[nodiscard]] std::unique_ptr<nn::SequenceState<T>> make_state(Index batch) const override {
    auto state = std::make_unique<detail::MixerState<T>>(type(), batch);
    state->add({batch, options_.taps - 1, inner_});
    state->add({batch, options_.states, inner_});
    state->constants.push_back(poles());
    nn::Tensor<T> taps({options_.taps, inner_});
    for (Index i = 0; i < inner_; ++i) {
      for (Index k = 0; k < options_.taps; ++k) {
        taps[k * inner_ + i] = conv_[i * options_.taps + k];
      }
    }
    state->constants.push_back(std::move(taps));
    for (const Index width : {2 * inner_, inner_, projected(), inner_, inner_}) {
      state->scratch.emplace_back(nn::Extents{batch, width});
    }
    return state;
  }
  void step(nn::TensorView<const T> in, nn::TensorView<T> out,
            nn::SequenceState<T>& state) const override {
    auto& s = detail::mixer_state(type(), state,
                                  {{options_.taps - 1, inner_}, {options_.states, inner_}});
    this->check_step(in, out, s.batch(), dim_, dim_);
    if (s.scratch[2].shape()[1] != projected()) {
      throw ShapeError(
          error_text(type(), "state of step", "one of this layer's dt_rank", "another"));
    }
    const MatrixView<T> xz = s.scratch[0].view().rows(), x = s.scratch[1].view().rows();
    const MatrixView<T> dbl = s.scratch[2].view().rows(), delta = s.scratch[3].view().rows();
    const MatrixView<T> y = s.scratch[4].view().rows();
    const Index batch = s.batch(), n = options_.states;
    nn::detail::linear_forward<T>(in.rows(), weight(in_proj_), {}, xz, 1);
    const MatrixView<const T> taps = std::as_const(s.constants[1]).view().rows().transposed();
    causal_conv_step<T>(xz.block(0, 0, batch, inner_), taps, vector(conv_bias_),
                        s[0].template as<3>(), x, {.silu = true, .threads = 1});
    nn::detail::linear_forward<T>(x, weight(x_proj_), {}, dbl, 1);
    nn::detail::linear_forward<T>(dbl.block(0, 0, batch, rank_), weight(dt_proj_), {}, delta, 1);
    SelectiveScanStepInputs<T> step_in;
    step_in.u = x;
    step_in.delta = delta;
    step_in.a = std::as_const(s.constants[0]).view().rows().transposed();
    step_in.b = dbl.block(0, rank_, batch, n);
    step_in.c = dbl.block(0, rank_ + n, batch, n);
    step_in.skip = vector(skip_);
    step_in.delta_bias = vector(dt_bias_);
    step_in.z = xz.block(0, inner_, batch, inner_);
    selective_scan_step(step_in, s[1].template as<3>().permuted({0, 2, 1}), y);
    nn::detail::linear_forward<T>(y, weight(out_proj_), {}, out.rows(), 1);
    ++s.position;
  }

 protected:
  enum Kept : std::size_t { kept_xz, kept_x, kept_dbl, kept_delta, kept_y, kept_poles };
  enum Scratch : std::size_t { dxz_ = 8, dx_, ddbl_, ddelta_, dy_, dpoles_ };

  void compute(nn::TensorView<const T> in, nn::TensorView<T> out,
               nn::Cache<T>& cache) const override {
    const Index batch = in.extent(0), length = in.extent(1);
    const int threads = cache.context.threads;
    nn::Tensor<T>& xz = cache.tensor(kept_xz, {batch, length, 2 * inner_});
    nn::Tensor<T>& x = cache.tensor(kept_x, {batch, length, inner_});
    nn::Tensor<T>& dbl = cache.tensor(kept_dbl, {batch, length, projected()});
    nn::Tensor<T>& delta = cache.tensor(kept_delta, {batch, length, inner_});
    nn::Tensor<T>& y = cache.tensor(kept_y, {batch, length, inner_});
    nn::detail::linear_forward<T>(in.rows(), weight(in_proj_), {}, xz.view().rows(), threads);
    causal_conv<T>(conv_inputs(xz), x.view().template as<3>(), {},
                   {.silu = true, .threads = threads});
    nn::detail::linear_forward<T>(x.view().rows(), weight(x_proj_), {}, dbl.view().rows(), threads);
    nn::detail::linear_forward<T>(dbl.view().rows().block(0, 0, batch * length, rank_),
                                  weight(dt_proj_), {}, delta.view().rows(), threads);
    cache.tensor(kept_poles) = poles();
    SelectiveScanOptions options;
    options.threads = threads;
    auto& saved = cache.template saved<SelectiveScanSaved<T>>();
    selective_scan<T>(scan_inputs(cache), y.view().template as<3>(), {}, options,
                      cache.keep() ? &saved : nullptr);
    nn::detail::linear_forward<T>(y.view().rows(), weight(out_proj_), {}, out.rows(), threads);
  }

  void differentiate(nn::TensorView<const T> dout, nn::TensorView<T> din, nn::Cache<T>& cache,
                     nn::GradientsView<T> gradients) const override {
    const Index batch = dout.extent(0), length = dout.extent(1), n = options_.states;
    const int threads = cache.context.threads;
    const nn::TensorView<T> dxz = cache.tensor(dxz_, {batch, length, 2 * inner_}).view();
    const nn::TensorView<T> dx = cache.tensor(dx_, {batch, length, inner_}).view();
    const nn::TensorView<T> ddbl = cache.tensor(ddbl_, {batch, length, projected()}).view();
    const nn::TensorView<T> ddelta = cache.tensor(ddelta_, {batch, length, inner_}).view();
    const nn::TensorView<T> dy = cache.tensor(dy_, {batch, length, inner_}).view();
    nn::Tensor<T>& dpoles = cache.tensor(dpoles_);
    dpoles.resize({n, inner_}, core::Fill::zero);
    nn::detail::linear_backward<T>(cache.tensor(kept_y).view().rows(), weight(out_proj_),
                                   dout.rows(), dy.rows(), gradients[8], {}, threads);

    const SelectiveScanInputs<T> in = scan_inputs(cache);
    SelectiveScanGradients<T> g;
    g.u = dx.template as<3>();
    g.delta = ddelta.template as<3>();
    g.a = dpoles.view().rows().transposed();
    g.b = detail::columns(ddbl, rank_, n);
    g.c = detail::columns(ddbl, rank_ + n, n);
    g.z = detail::columns(dxz, inner_, inner_);
    g.skip = vector_of(gradients[1]);
    g.delta_bias = vector_of(gradients[7]);
    SelectiveScanOptions options;
    options.threads = threads;
    selective_scan_vjp<T>(in, dy.template as<3>(), {}, g, options,
                          &cache.template saved<SelectiveScanSaved<T>>());
    add_pole_gradient(cache.tensor(kept_poles), dpoles, gradients[0]);

    const MatrixView<const T> dbl = cache.tensor(kept_dbl).view().rows();
    const MatrixView<T> dlow = ddbl.rows().block(0, 0, batch * length, rank_);
    nn::detail::linear_backward<T>(dbl.block(0, 0, batch * length, rank_), weight(dt_proj_),
                                   ddelta.rows(), dlow, gradients[6], {}, threads);
    const MatrixView<const T> x = cache.tensor(kept_x).view().rows();
    nn::detail::linear_backward<T>(x, weight(x_proj_), ddbl.rows(), {}, gradients[5], {}, threads);
    kernels::gemm<T>(ddbl.rows(), weight(x_proj_), dx.rows(), {.beta = T{1}, .threads = threads});

    CausalConvGradients<T> gc;
    gc.x = detail::columns(dxz, 0, inner_);
    if (!gradients.null()) {
      gc.weight = MatrixView<T>(gradients[3].data(), {inner_, options_.taps});
      gc.bias = vector_of(gradients[4]);
    }
    causal_conv_vjp<T>(conv_inputs(cache.tensor(kept_xz)), dx.template as<3>(), {}, gc,
                       {.silu = true, .threads = threads});
    nn::detail::linear_backward<T>(cache.input.rows(), weight(in_proj_), dxz.rows(),
                                   din.null() ? MatrixView<T>() : din.rows(), gradients[2], {},
                                   threads);
  }

 private:
  [[nodiscard]] Index projected() const { return rank_ + 2 * options_.states; }
  static MatrixView<const T> weight(const nn::Tensor<T>& w) { return w.view().rows(); }
  static NdView<const T, 1> vector(const nn::Tensor<T>& v) { return v.view().template as<1>(); }
  static NdView<T, 1> vector_of(std::span<T> v) { return v.empty() ? NdView<T, 1>() : view(v); }
  /// -e^A_log as (states, channels).
  [[nodiscard]] nn::Tensor<T> poles() const {
    const Index n = options_.states;
    nn::Tensor<T> a({n, inner_});
    for (Index i = 0; i < inner_; ++i) {
      for (Index k = 0; k < n; ++k) a[k * inner_ + i] = -std::exp(a_log_[i * n + k]);
    }
    return a;
  }
  void add_pole_gradient(const nn::Tensor<T>& a, const nn::Tensor<T>& da, std::span<T> to) const {
    const Index n = options_.states;
    for (Index i = 0; i < inner_ && !to.empty(); ++i) {
      for (Index k = 0; k < n; ++k) {
        to[static_cast<std::size_t>(i * n + k)] += da[k * inner_ + i] * a[k * inner_ + i];
      }
    }
  }
  [[nodiscard]] CausalConvInputs<T> conv_inputs(const nn::Tensor<T>& xz) const {
    return {detail::columns(xz.view(), 0, inner_),
            MatrixView<const T>(conv_.data(), {inner_, options_.taps}), vector(conv_bias_)};
  }
  [[nodiscard]] SelectiveScanInputs<T> scan_inputs(nn::Cache<T>& cache) const {
    const auto of = [&](std::size_t k) { return std::as_const(cache.tensor(k)).view(); };
    SelectiveScanInputs<T> in;
    in.u = of(kept_x).template as<3>();
    in.delta = of(kept_delta).template as<3>();
    in.a = of(kept_poles).rows().transposed();
    in.b = detail::columns(of(kept_dbl), rank_, options_.states);
    in.c = detail::columns(of(kept_dbl), rank_ + options_.states, options_.states);
    in.skip = vector(skip_);
    in.delta_bias = vector(dt_bias_);
    in.z = detail::columns(of(kept_xz), inner_, inner_);
    return in;
  }

  Index dim_;
  MambaOptions options_;
  Index inner_, rank_ = 0;
  nn::Tensor<T> in_proj_, conv_, conv_bias_, x_proj_, dt_proj_, dt_bias_, a_log_, skip_, out_proj_;
};

}  // namespace ssm
QUERN_NAMESPACE_END

#endif  // QUERN_SSM_MAMBA_HPP
