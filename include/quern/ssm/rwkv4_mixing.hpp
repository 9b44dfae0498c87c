// SPDX-License-Identifier: Apache-2.0

/// \file
/// RWKV-4's time mixing as a layer: a token shift for keys, values and receptance, the weighted
/// average of the past, a sigmoid gate.
///
/// B. Peng et al., "RWKV", 2023, equations 11-15; names and initial values as in its reference
/// implementation (RWKV-v4, time decays and mixes spread over channels and layers).

#ifndef QUERN_SSM_RWKV4_MIXING_HPP
#define QUERN_SSM_RWKV4_MIXING_HPP

#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/core/nd_view.hpp"
#include "quern/core/random.hpp"
#include "quern/kernels/functors.hpp"
#include "quern/nn/init.hpp"
#include "quern/nn/linear.hpp"
#include "quern/nn/sequence_layer.hpp"
#include "quern/ssm/detail/mixer_state.hpp"
#include "quern/ssm/detail/row_work.hpp"
#include "quern/ssm/rwkv4.hpp"

#include <cmath>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

QUERN_NAMESPACE_BEGIN
namespace ssm {

/// Place of a layer in its network: initial decays and mixes depend on it.
struct RwkvDepth {
  Index layer = 0;   ///< this one's number
  Index layers = 1;  ///< of the network

  /// 0 in the first layer … 1 in the last.
  [[nodiscard]] double rising() const {
    return layers > 1 ? static_cast<double>(layer) / static_cast<double>(layers - 1) : 0;
  }
  /// 1 in the first layer … almost 0 in the last.
  [[nodiscard]] double falling() const {
    return 1 - static_cast<double>(layer) / static_cast<double>(layers);
  }
};

/// (batch, length, dim) to the same. Decays, bonus and mixes take no weight decay; decays
/// learn at twice the rate, the bonus at three times, as in the reference.
template <class T>
class Rwkv4Mixing final : public nn::SequenceLayer<T> {
 public:
  /// ValueError for a dim below 1, or a layer that is not one of layers.
  explicit Rwkv4Mixing(Index dim, const RwkvDepth& depth = {}) : dim_(dim), depth_(depth) {
    if (dim < 1) throw ValueError(error_text(type(), "dim", "at least 1", dim));
    if (depth.layer < 0 || depth.layer >= depth.layers) {
      throw ValueError(error_text(
          type(), "depth.layer", "below " + std::to_string(depth.layers) + " layers", depth.layer));
    }
    for (nn::Tensor<T>* x : {&decay_, &first_, &mix_k_, &mix_v_, &mix_r_}) x->resize({dim});
    for (nn::Tensor<T>* x : {&k_, &v_, &r_, &out_}) x->resize({dim, dim});
    this->initialize(0);
  }

  [[nodiscard]] std::string_view type() const override { return "quern::ssm::Rwkv4Mixing"; }
  [[nodiscard]] nn::Extents output_shape(const nn::Extents& in) const override {
    detail::expect_sequence(type(), in, dim_);
    return in;
  }
  void parameters(nn::ParameterList<T>& out, const std::string& prefix) override {
    const auto plain = [&](const char* name, nn::Tensor<T>& x, double rate = 1) {
      out.push_back({.name = prefix + name, .values = x.view(), .decay = false, .lr_scale = rate});
    };
    plain("time_decay", decay_, 2);
    plain("time_first", first_, 3);
    plain("time_mix_k", mix_k_);
    plain("time_mix_v", mix_v_);
    plain("time_mix_r", mix_r_);
    out.push_back({prefix + "key.weight", k_.view()});
    out.push_back({prefix + "value.weight", v_.view()});
    out.push_back({prefix + "receptance.weight", r_.view()});
    out.push_back({prefix + "output.weight", out_.view()});
  }
  void initialize(std::uint64_t seed, const std::string& prefix = {}) override {
    const double rising = depth_.rising(), falling = depth_.falling();
    for (Index i = 0; i < dim_; ++i) {
      const double along = static_cast<double>(i) / static_cast<double>(dim_);
      const double spread = dim_ > 1 ? static_cast<double>(i) / static_cast<double>(dim_ - 1) : 0;
      decay_[i] = static_cast<T>(-5 + 8 * std::pow(spread, 0.7 + 1.3 * rising));
      first_[i] = static_cast<T>(std::log(0.3) + 0.5 * static_cast<double>((i + 1) % 3 - 1));
      mix_k_[i] = static_cast<T>(std::pow(along, falling));
      mix_v_[i] = static_cast<T>(std::pow(along, falling) + 0.3 * rising);
      mix_r_[i] = static_cast<T>(std::pow(along, 0.5 * falling));
    }
    // The reference starts from zero keys, receptances and outputs, values orthogonal.
    nn::init::constant(k_.view(), T{0});
    nn::init::constant(r_.view(), T{0});
    nn::init::constant(out_.view(), T{0});
    nn::init::orthogonal(v_.view(), Philox(seed, prefix + "value.weight"));
  }
  [[nodiscard]] std::unique_ptr<nn::Layer<T>> clone() const override {
    auto copy = std::make_unique<Rwkv4Mixing>(dim_, depth_);
    detail::copy_parameters(*this, *copy);
    return copy;
  }

  [[nodiscard]] std::unique_ptr<nn::SequenceState<T>> make_state(Index batch) const override {
    auto state = std::make_unique<detail::MixerState<T>>(type(), batch);
    state->add({batch, dim_});
    state->add({batch, 3, dim_});
    for (Index b = 0; b < batch; ++b) {
      for (Index i = 0; i < dim_; ++i) {
        state->start(1)[(b * 3 + 2) * dim_ + i] = rwkv4_nothing<T>;
      }
    }
    state->reset();
    return state;
  }
  void step(nn::TensorView<const T> in, nn::TensorView<T> out,
            nn::SequenceState<T>& state) const override {
    auto& s = detail::mixer_state(type(), state, {{dim_}, {3, dim_}});
    this->check_step(in, out, s.batch(), dim_, dim_);
    nn::Cache<T> cache;
    cache.context.threads = 1;
    forward_all(in.reshaped({s.batch(), 1, dim_}), out.reshaped({s.batch(), 1, dim_}), cache,
                s[0].data(), s[1].template as<3>());
    std::copy(in.begin(), in.end(), s[0].begin());
    ++s.position;
  }

 protected:
  enum Kept : std::size_t { xk, xv, xr, k, v, r, y, gated, w };
  enum Scratch : std::size_t { d_gated = 16, d_y, d_r, d_k, d_v, d_x, d_w };

  void compute(nn::TensorView<const T> in, nn::TensorView<T> out,
               nn::Cache<T>& cache) const override {
    forward_all(in, out, cache, nullptr, {});
  }
  void differentiate(nn::TensorView<const T> dout, nn::TensorView<T> din, nn::Cache<T>& cache,
                     nn::GradientsView<T> gradients) const override {
    const int threads = cache.context.threads;
    const auto room = [&](std::size_t n) {
      return cache.tensor(n, {dout.extent(0), dout.extent(1), dim_}).view();
    };
    const nn::TensorView<T> dgated = room(d_gated), dy = room(d_y), dr = room(d_r);
    const nn::TensorView<T> dk = room(d_k), dv = room(d_v);
    nn::Tensor<T>& dw = cache.tensor(d_w);
    dw.resize({dim_}, core::Fill::zero);
    nn::detail::linear_backward<T>(read(cache, gated).rows(), weight(out_), dout.rows(),
                                   dgated.rows(), gradients[8], {}, threads);
    detail::gate_rows_back<T>(kernels::Sigmoid{}, read(cache, y).rows(), read(cache, r).rows(),
                              dgated.rows(), dy.rows(), dr.rows(), threads);
    Rwkv4Gradients<T> g;
    g.k = dk.template as<3>();
    g.v = dv.template as<3>();
    g.w = dw.view().template as<1>();
    if (!gradients.null()) g.u = view(gradients[1]);
    RwkvOptions options;
    options.threads = threads;
    rwkv4_vjp<T>(inputs(cache), read(cache, d_y).template as<3>(), {}, g, options);
    for (Index i = 0; i < dim_ && !gradients.null(); ++i) {  // w = -e^decay
      gradients[0][static_cast<std::size_t>(i)] += dw[i] * cache.tensor(w)[i];
    }
    projection_back(cache, xk, k_, dk, mix_k_, din, true, gradients, 5, 2);
    projection_back(cache, xv, v_, dv, mix_v_, din, false, gradients, 6, 3);
    projection_back(cache, xr, r_, dr, mix_r_, din, false, gradients, 7, 4);
  }

 private:
  static MatrixView<const T> weight(const nn::Tensor<T>& m) { return m.view().rows(); }
  static nn::TensorView<const T> read(nn::Cache<T>& cache, std::size_t n) {
    return std::as_const(cache.tensor(n)).view();
  }
  [[nodiscard]] Rwkv4Inputs<T> inputs(nn::Cache<T>& cache) const {
    return {read(cache, k).template as<3>(), read(cache, v).template as<3>(),
            read(cache, w).template as<1>(), first_.view().template as<1>()};
  }
  void projection_back(nn::Cache<T>& cache, std::size_t mixed, const nn::Tensor<T>& m,
                       const nn::TensorView<T>& dy, const nn::Tensor<T>& mix,
                       const nn::TensorView<T>& din, bool first, nn::GradientsView<T> gradients,
                       std::size_t matrix, std::size_t vector) const {
    const int threads = cache.context.threads;
    const nn::TensorView<T> dx = cache.tensor(d_x, {dy.extent(0), dy.extent(1), dim_}).view();
    nn::detail::linear_backward<T>(read(cache, mixed).rows(), weight(m), dy.rows(), dx.rows(),
                                   gradients[matrix], {}, threads);
    detail::mix_with_before_back<T>(cache.input, mix.span(), read(cache, d_x), din, first,
                                    gradients[vector], threads);
  }
  /// Moves the state where there is one.
  void forward_all(nn::TensorView<const T> in, nn::TensorView<T> out, nn::Cache<T>& cache,
                   const T* before, const NdView<T, 3>& state) const {
    const int threads = cache.context.threads;
    const auto room = [&](std::size_t n) {
      return cache.tensor(n, {in.extent(0), in.extent(1), dim_}).view();
    };
    const auto project = [&](const nn::Tensor<T>& mix, std::size_t mixed, const nn::Tensor<T>& m,
                             std::size_t to) {
      detail::mix_with_before<T>(in, mix.span(), before, room(mixed), threads);
      nn::detail::linear_forward<T>(read(cache, mixed).rows(), weight(m), {}, room(to).rows(),
                                    threads);
    };
    project(mix_k_, xk, k_, k);
    project(mix_v_, xv, v_, v);
    project(mix_r_, xr, r_, r);
    nn::Tensor<T>& logs = cache.tensor(w, {dim_});
    for (Index i = 0; i < dim_; ++i) logs[i] = -std::exp(decay_[i]);
    Rwkv4Inputs<T> all = inputs(cache);
    all.initial_state = state;
    RwkvOptions options;
    options.threads = threads;
    rwkv4<T>(all, room(y).template as<3>(), state, options);
    detail::gate_rows<T>(kernels::Sigmoid{}, read(cache, y).rows(), read(cache, r).rows(),
                         room(gated).rows(), threads);
    nn::detail::linear_forward<T>(read(cache, gated).rows(), weight(out_), {}, out.rows(), threads);
  }

  Index dim_;
  RwkvDepth depth_;
  nn::Tensor<T> decay_, first_, mix_k_, mix_v_, mix_r_, k_, v_, r_, out_;
};

}  // namespace ssm
QUERN_NAMESPACE_END

#endif  // QUERN_SSM_RWKV4_MIXING_HPP
