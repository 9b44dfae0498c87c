// SPDX-License-Identifier: Apache-2.0

/// \file
/// The Mamba-2 block: one projection for everything, causal convolution, state space duality, gated
/// norm, projection.
///
/// T. Dao, A. Gu, "Transformers are SSMs", ICML 2024, section 7; names, order of the projection's
/// outputs (z, x, B, C, dt) and initial values as in its reference implementation.

#ifndef QUERN_SSM_MAMBA2_HPP
#define QUERN_SSM_MAMBA2_HPP

#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/core/nd_view.hpp"
#include "quern/core/random.hpp"
#include "quern/kernels/functors.hpp"
#include "quern/nn/init.hpp"
#include "quern/nn/layer_norm.hpp"
#include "quern/nn/linear.hpp"
#include "quern/nn/sequence_layer.hpp"
#include "quern/ssm/causal_conv.hpp"
#include "quern/ssm/detail/mixer_state.hpp"
#include "quern/ssm/detail/row_work.hpp"
#include "quern/ssm/mamba.hpp"
#include "quern/ssm/ssd.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>

QUERN_NAMESPACE_BEGIN
namespace ssm {

/// Sizes of a Mamba-2 block; the paper's defaults.
struct Mamba2Options {
  Index states = 128;    ///< N
  Index expand = 2;      ///< inner channels as a multiple of the outer ones
  Index head_dim = 64;   ///< channels of a head, which share one decay
  Index groups = 1;      ///< of heads that share B and C
  Index taps = 4;        ///< of the convolution
  double dt_low = 1e-3;  ///< steps start between these, evenly in their logarithm
  double dt_high = 1e-1;
  double norm_eps = 1e-5;
};

/// (batch, length, dim) to the same. A_log, D, dt_bias and the norm take no weight decay.
template <class T>
class Mamba2 final : public nn::SequenceLayer<T> {
 public:
  /// ValueError for sizes below 1, and unless head_dim divides the inner channels and groups the
  /// heads.
  explicit Mamba2(Index dim, const Mamba2Options& options = {})
      : dim_(dim), options_(options), inner_(dim * options.expand) {
    detail::expect_at_least_one(type(), "dim", dim);
    detail::expect_at_least_one(type(), "options.states", options.states);
    detail::expect_at_least_one(type(), "options.expand", options.expand);
    detail::expect_at_least_one(type(), "options.taps", options.taps);
    if (options.head_dim < 1 || inner_ % options.head_dim != 0) {
      throw ValueError(error_text(type(), "options.head_dim",
                                  "a divisor of " + std::to_string(inner_), options.head_dim));
    }
    heads_ = inner_ / options.head_dim;
    if (options.groups < 1 || heads_ % options.groups != 0) {
      throw ValueError(error_text(type(), "options.groups",
                                  "a divisor of " + std::to_string(heads_), options.groups));
    }
    mixed_ = inner_ + 2 * options.groups * options.states;
    in_proj_.resize({inner_ + mixed_ + heads_, dim});
    conv_.resize({mixed_, 1, options.taps});
    conv_bias_.resize({mixed_});
    dt_bias_.resize({heads_});
    a_log_.resize({heads_});
    skip_.resize({heads_});
    norm_.resize({inner_});
    out_proj_.resize({dim, inner_});
    this->initialize(0);
  }

  [[nodiscard]] std::string_view type() const override { return "quern::ssm::Mamba2"; }
  [[nodiscard]] nn::Extents output_shape(const nn::Extents& in) const override {
    detail::expect_sequence(type(), in, dim_);
    return in;
  }
  void parameters(nn::ParameterList<T>& out, const std::string& prefix) override {
    out.push_back({.name = prefix + "dt_bias", .values = dt_bias_.view(), .decay = false});
    out.push_back({.name = prefix + "A_log", .values = a_log_.view(), .decay = false});
    out.push_back({.name = prefix + "D", .values = skip_.view(), .decay = false});
    out.push_back({prefix + "in_proj.weight", in_proj_.view()});
    out.push_back({prefix + "conv1d.weight", conv_.view()});
    out.push_back({.name = prefix + "conv1d.bias", .values = conv_bias_.view(), .decay = false});
    out.push_back({.name = prefix + "norm.weight", .values = norm_.view(), .decay = false});
    out.push_back({prefix + "out_proj.weight", out_proj_.view()});
  }
  void initialize(std::uint64_t seed, const std::string& prefix = {}) override {
    nn::init::pytorch_default(in_proj_.view(), nn::TensorView<T>(), seed, prefix + "in_proj.");
    nn::init::pytorch_default(conv_.view(), conv_bias_.view(), seed, prefix + "conv1d.");
    nn::init::pytorch_default(out_proj_.view(), nn::TensorView<T>(), seed, prefix + "out_proj.");
    detail::initial_dt_bias(dt_bias_.view(), Philox(seed, prefix + "dt_bias"), options_.dt_low,
                            options_.dt_high);
    Philox random(seed, prefix + "A_log");
    for (Index h = 0; h < heads_; ++h)
      a_log_[h] = static_cast<T>(std::log(random.uniform(1.0, 16.0)));
    nn::init::constant(skip_.view(), T{1});
    nn::init::constant(norm_.view(), T{1});
  }
  [[nodiscard]] std::unique_ptr<nn::Layer<T>> clone() const override {
    auto copy = std::make_unique<Mamba2>(dim_, options_);
    detail::copy_parameters(*this, *copy);
    return copy;
  }

  [[nodiscard]] std::unique_ptr<nn::SequenceState<T>> make_state(Index batch) const override {
    auto state = std::make_unique<detail::MixerState<T>>(type(), batch);
    state->add({batch, options_.taps - 1, mixed_});
    state->add({batch, heads_, options_.states, options_.head_dim});
    return state;
  }
  void step(nn::TensorView<const T> in, nn::TensorView<T> out,
            nn::SequenceState<T>& state) const override {
    auto& s = detail::mixer_state(
        type(), state, {{options_.taps - 1, mixed_}, {heads_, options_.states, options_.head_dim}});
    this->check_step(in, out, s.batch(), dim_, dim_);
    nn::Cache<T> cache;
    cache.context.threads = 1;
    const NdView<T, 4> h = s[1].template as<4>().permuted({0, 1, 3, 2});
    forward_all(in.reshaped({s.batch(), 1, dim_}), out.reshaped({s.batch(), 1, dim_}), cache,
                s[0].template as<3>(), h);
    ++s.position;
  }

 protected:
  // Arrays of the cache.
  enum Kept : std::size_t { all, mixed, dt, log_a, xdt, y, gated, normed, means, scales };
  enum Scratch : std::size_t { d_all = 16, d_mixed, d_conv, d_xdt, d_y, d_dt, d_log_a, d_b, d_c };

  void compute(nn::TensorView<const T> in, nn::TensorView<T> out,
               nn::Cache<T>& cache) const override {
    forward_all(in, out, cache, {}, {});
  }
  void differentiate(nn::TensorView<const T> dout, nn::TensorView<T> din, nn::Cache<T>& cache,
                     nn::GradientsView<T> gradients) const override;

 private:
  static MatrixView<const T> weight(const nn::Tensor<T>& w) { return w.view().rows(); }
  static nn::TensorView<const T> read(nn::Cache<T>& cache, std::size_t k) {
    return std::as_const(cache.tensor(k)).view();
  }
  [[nodiscard]] CausalConvInputs<T> conv_inputs(nn::Cache<T>& cache,
                                                const NdView<const T, 3>& before) const {
    return {detail::columns(read(cache, all), inner_, mixed_),
            MatrixView<const T>(conv_.data(), {mixed_, options_.taps}),
            conv_bias_.view().template as<1>(), before};
  }
  [[nodiscard]] SsdInputs<T> ssd_inputs(nn::Cache<T>& cache) const {
    const Index g = options_.groups, n = options_.states;
    return {detail::head_columns(read(cache, xdt), 0, heads_, options_.head_dim),
            read(cache, log_a).template as<3>(),
            detail::head_columns(read(cache, mixed), inner_, g, n),
            detail::head_columns(read(cache, mixed), inner_ + g * n, g, n)};
  }
  /// Steps, decays and x dt of all positions.
  void discretise(nn::Cache<T>& cache, Index positions) const;
  /// Moves the states where they are given.
  void forward_all(nn::TensorView<const T> in, nn::TensorView<T> out, nn::Cache<T>& cache,
                   const NdView<T, 3>& conv_state, const NdView<T, 4>& state) const;
  void steps_back(nn::Cache<T>& cache, Index positions, nn::GradientsView<T> gradients) const;

  Index dim_;
  Mamba2Options options_;
  Index inner_, heads_ = 0, mixed_ = 0;
  nn::Tensor<T> in_proj_, conv_, conv_bias_, dt_bias_, a_log_, skip_, norm_, out_proj_;
};

template <class T>
void Mamba2<T>::discretise(nn::Cache<T>& cache, Index positions) const {
  const MatrixView<const T> raw = read(cache, all).rows();
  const MatrixView<const T> x = read(cache, mixed).rows();
  const MatrixView<T> step = cache.tensor(dt).view().rows();
  const MatrixView<T> decay = cache.tensor(log_a).view().rows();
  const MatrixView<T> scaled = cache.tensor(xdt).view().rows();
  const auto heads = static_cast<std::size_t>(heads_);
  const auto wide = static_cast<std::size_t>(options_.head_dim);
  detail::for_rows(positions, cache.context.threads, [&](Index i) {
    T* const s = step.row_data(i);
    for (Index h = 0; h < heads_; ++h) s[h] = raw(i, inner_ + mixed_ + h) + dt_bias_[h];
    const T* const before = s;
    QUERN_DISPATCH(transform(kernels::Softplus{}, before, heads, s));
    for (Index h = 0; h < heads_; ++h) {
      decay(i, h) = -std::exp(a_log_[h]) * s[h];
      const T* const from = x.row_data(i) + h * options_.head_dim;
      QUERN_DISPATCH(scale(s[h], from, wide, scaled.row_data(i) + h * options_.head_dim));
    }
  });
}

template <class T>
void Mamba2<T>::forward_all(nn::TensorView<const T> in, nn::TensorView<T> out, nn::Cache<T>& cache,
                            const NdView<T, 3>& conv_state, const NdView<T, 4>& state) const {
  const Index batch = in.extent(0), length = in.extent(1), positions = batch * length;
  const int threads = cache.context.threads;
  const auto room = [&](std::size_t k, Index width) {
    return cache.tensor(k, {batch, length, width}).view();
  };
  room(dt, heads_), room(log_a, heads_), room(xdt, inner_);
  nn::detail::linear_forward<T>(in.rows(), weight(in_proj_), {},
                                room(all, inner_ + mixed_ + heads_).rows(), threads);
  NdArray<T, 3> last;  // a state may not be read and written at once
  if (!conv_state.is_null()) last.resize(conv_state.extents());
  causal_conv<T>(conv_inputs(cache, conv_state), room(mixed, mixed_).template as<3>(),
                 last.empty() ? NdView<T, 3>() : last.view(), {.silu = true, .threads = threads});
  if (!last.empty()) detail::assign(last.view(), conv_state);
  discretise(cache, positions);
  SsdOptions options;
  options.threads = threads;
  SsdInputs<T> inputs = ssd_inputs(cache);
  inputs.initial_state = state;
  const nn::TensorView<T> ys = room(y, inner_);
  ssd<T>(inputs, detail::head_columns(ys, 0, heads_, options_.head_dim), state, options);
  const MatrixView<const T> x = read(cache, mixed).rows();
  const auto wide = static_cast<std::size_t>(options_.head_dim);
  detail::for_rows(positions, threads, [&](Index i) {
    for (Index h = 0; h < heads_; ++h) {
      const T* const from = x.row_data(i) + h * options_.head_dim;
      QUERN_DISPATCH(axpy(skip_[h], from, wide, ys.rows().row_data(i) + h * options_.head_dim));
    }
  });
  const nn::TensorView<T> g = room(gated, inner_), normal = room(normed, inner_);
  detail::gate_rows<T>(kernels::Silu{}, ys.rows(),
                       read(cache, all).rows().block(0, 0, positions, inner_), g.rows(), threads);
  nn::detail::row_norm_forward<T>(
      g.data(), positions, inner_, false, options_.norm_eps, norm_.data(), nullptr, normal.data(),
      cache.tensor(means, {positions}).data(), cache.tensor(scales, {positions}).data(), threads);
  nn::detail::linear_forward<T>(normal.rows(), weight(out_proj_), {}, out.rows(), threads);
}

/// From gradients of xdt and log_a to those of x (added to d_mixed), dt's projection and
/// parameters.
template <class T>
void Mamba2<T>::steps_back(nn::Cache<T>& cache, Index positions,
                           nn::GradientsView<T> gradients) const {
  const MatrixView<const T> raw = read(cache, all).rows(), x = read(cache, mixed).rows();
  const MatrixView<const T> step = read(cache, dt).rows(), dxdt = read(cache, d_xdt).rows();
  const MatrixView<const T> dlog_a = read(cache, d_log_a).rows(), dy = read(cache, d_y).rows();
  const MatrixView<T> dx = cache.tensor(d_mixed).view().rows();
  const MatrixView<T> ddt = cache.tensor(d_dt).view().rows();
  const MatrixView<T> draw = cache.tensor(d_all).view().rows();
  const Index p = options_.head_dim;
  const auto wide = static_cast<std::size_t>(p);
  nn::Tensor<T> dskip({positions, heads_}), dtime({positions, heads_});
  detail::for_rows(positions, cache.context.threads, [&](Index i) {
    for (Index h = 0; h < heads_; ++h) {
      const T *const gx = dxdt.row_data(i) + h * p, *const xs = x.row_data(i) + h * p;
      const T* const gy = dy.row_data(i) + h * p;
      T* const to = dx.row_data(i) + h * p;
      QUERN_DISPATCH(scale(step(i, h), gx, wide, to));
      QUERN_DISPATCH(axpy(skip_[h], gy, wide, to));
      dskip[i * heads_ + h] = static_cast<T>(QUERN_DISPATCH(dot(gy, xs, wide)));
      const T pole = -std::exp(a_log_[h]);
      const T g = static_cast<T>(QUERN_DISPATCH(dot(gx, xs, wide))) + pole * dlog_a(i, h);
      const T before = raw(i, inner_ + mixed_ + h) + dt_bias_[h];
      ddt(i, h) = g / (1 + std::exp(-before));
      draw(i, inner_ + mixed_ + h) = ddt(i, h);
      dtime[i * heads_ + h] = dlog_a(i, h) * pole * step(i, h);  // by A_log
    }
  });
  if (gradients.null()) return;
  nn::detail::add_column_sums<T>(ddt, gradients[0], cache.context.threads);
  nn::detail::add_column_sums<T>(dtime.view().rows(), gradients[1], cache.context.threads);
  nn::detail::add_column_sums<T>(dskip.view().rows(), gradients[2], cache.context.threads);
}

template <class T>
void Mamba2<T>::differentiate(nn::TensorView<const T> dout, nn::TensorView<T> din,
                              nn::Cache<T>& cache, nn::GradientsView<T> gradients) const {
  const Index batch = dout.extent(0), length = dout.extent(1), positions = batch * length;
  const Index g = options_.groups, n = options_.states;
  const int threads = cache.context.threads;
  const auto room = [&](std::size_t k, Index width) {
    return cache.tensor(k, {batch, length, width}).view();
  };
  const nn::TensorView<T> dall = room(d_all, inner_ + mixed_ + heads_);
  const nn::TensorView<T> dmixed = room(d_mixed, mixed_), dys = room(d_y, inner_);
  const nn::TensorView<T> dxdt = room(d_xdt, inner_), dlog_a = room(d_log_a, heads_);
  room(d_dt, heads_);
  // Output projection, norm, gate.
  nn::detail::linear_backward<T>(read(cache, normed).rows(), weight(out_proj_), dout.rows(),
                                 dys.rows(), gradients[7], {}, threads);
  T* const dgain = gradients.null() ? nullptr : gradients[6].data();
  nn::detail::row_norm_backward<T>(read(cache, gated).data(), dys.data(), positions, inner_, false,
                                   norm_.data(), cache.tensor(means).data(),
                                   cache.tensor(scales).data(), dxdt.data(), dgain, nullptr,
                                   threads);
  detail::gate_rows_back<T>(kernels::Silu{}, read(cache, y).rows(),
                            read(cache, all).rows().block(0, 0, positions, inner_), dxdt.rows(),
                            dys.rows(), dall.rows().block(0, 0, positions, inner_), threads);
  // The recurrence, its steps, the convolution.
  SsdOptions options;
  options.threads = threads;
  SsdGradients<T> gs;
  gs.x = detail::head_columns(dxdt, 0, heads_, options_.head_dim);
  gs.log_a = dlog_a.template as<3>();
  gs.b = detail::head_columns(dmixed, inner_, g, n);
  gs.c = detail::head_columns(dmixed, inner_ + g * n, g, n);
  ssd_vjp<T>(ssd_inputs(cache),
             detail::head_columns(read(cache, d_y), 0, heads_, options_.head_dim), {}, gs, options);
  steps_back(cache, positions, gradients);
  CausalConvGradients<T> gc;
  gc.x = detail::columns(dall, inner_, mixed_);
  if (!gradients.null()) {
    gc.weight = MatrixView<T>(gradients[4].data(), {mixed_, options_.taps});
    gc.bias = view(gradients[5]);
  }
  causal_conv_vjp<T>(conv_inputs(cache, {}), read(cache, d_mixed).template as<3>(), {}, gc,
                     {.silu = true, .threads = threads});
  nn::detail::linear_backward<T>(cache.input.rows(), weight(in_proj_), dall.rows(),
                                 din.null() ? MatrixView<T>() : din.rows(), gradients[3], {},
                                 threads);
}

}  // namespace ssm
QUERN_NAMESPACE_END

#endif  // QUERN_SSM_MAMBA2_HPP
