// SPDX-License-Identifier: Apache-2.0

/// \file
/// Self-attention layers of several heads whose state forgets by what it reads:
/// GatedLinearSelfAttention (GLA) and DeltaSelfAttention (the delta rule, with or without gate).

#ifndef QUERN_ATTENTION_RECURRENT_LAYERS_HPP
#define QUERN_ATTENTION_RECURRENT_LAYERS_HPP

#include "quern/attention/attention_layers.hpp"
#include "quern/attention/delta.hpp"
#include "quern/attention/detail/layer_state.hpp"
#include "quern/attention/linear.hpp"
#include "quern/attention/multi_head.hpp"
#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/core/nd_view.hpp"
#include "quern/nn/init.hpp"
#include "quern/nn/linear.hpp"

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

QUERN_NAMESPACE_BEGIN
namespace attention {

/// MultiHead with one more projection of the inputs, whose outputs gate the state: parameters
/// gate.weight (gates, dim) and gate.bias (gates), after the others.
template <class T>
class GatedMultiHead : public MultiHead<T> {
 protected:
  GatedMultiHead(const char* function, const MultiHeadSizes& sizes, Index gates)
      : MultiHead<T>(function, sizes), gates_(gates) {
    gate_weight_.resize({gates, sizes.dim});
    gate_bias_.resize({gates});
  }
  GatedMultiHead(const GatedMultiHead& other)
      : MultiHead<T>(other),
        gates_(other.gates_),
        gate_weight_(other.gate_weight_.clone()),
        gate_bias_(other.gate_bias_.clone()) {}

  void more_parameters(nn::ParameterList<T>& out, const std::string& prefix) override {
    out.push_back({prefix + "gate.weight", gate_weight_.view()});
    out.push_back({.name = prefix + "gate.bias", .values = gate_bias_.view(), .decay = false});
  }
  void initialize_more(std::uint64_t seed, const std::string& prefix) override {
    nn::init::pytorch_default(gate_weight_.view(), gate_bias_.view(), seed, prefix + "gate.");
  }

  /// What the projection gave, (batch, length, gates), and where its gradient goes.
  [[nodiscard]] static nn::Tensor<T>& gates_of(nn::Cache<T>& cache) { return cache.tensor(4); }
  [[nodiscard]] static nn::Tensor<T>& gate_gradients_of(nn::Cache<T>& cache) {
    return cache.tensor(5);
  }
  void project_gates(MatrixView<const T> x, MatrixView<T> y, int threads) const {
    nn::detail::linear_forward<T>(x, weight().rows(), gate_bias_.span(), y, threads);
  }

  void compute(nn::TensorView<const T> in, nn::TensorView<T> out,
               nn::Cache<T>& cache) const override {
    nn::Tensor<T>& gates = cache.tensor(4, {in.extent(0), in.extent(1), gates_});
    if (!in.empty()) project_gates(in.rows(), gates.view().rows(), cache.context.threads);
    MultiHead<T>::compute(in, out, cache);
  }
  void differentiate(nn::TensorView<const T> dout, nn::TensorView<T> din, nn::Cache<T>& cache,
                     nn::GradientsView<T> gradients) const override {
    if (dout.empty()) return;
    nn::Tensor<T>& dgates = cache.tensor(5, gates_of(cache).shape());
    MultiHead<T>::differentiate(dout, din, cache, gradients);
    const std::size_t own = this->sizes().bias ? 4 : 2;
    MatrixView<T> dx;
    if (!din.null()) dx = cache.tensor(6, cache.input.shape()).view().rows();
    nn::detail::linear_backward<T>(cache.input.rows(), weight().rows(), dgates.view().rows(), dx,
                                   gradients[own], gradients[own + 1], cache.context.threads);
    if (din.null()) return;
    QUERN_DISPATCH(axpy<T>(T{1}, dx.data(), static_cast<std::size_t>(din.size()), din.data()));
  }

 private:
  [[nodiscard]] nn::TensorView<const T> weight() const { return gate_weight_.view(); }
  Index gates_;
  nn::Tensor<T> gate_weight_, gate_bias_;
};

namespace detail {

/// log sigmoid(y) / temperature, a log factor in (-infinity, 0).
template <class T>
T log_gate(T y, T temperature) {
  const T below = y < T{0} ? y : T{0};
  return (below - std::log1p(std::exp(y < T{0} ? y : -y))) / temperature;
}
/// Its derivative.
template <class T>
T log_gate_slope(T y, T temperature) {
  return T{1} / ((T{1} + std::exp(y)) * temperature);
}

/// Rows divided by their lengths.
template <class T>
void unit_rows(NdView<const T, 4> x, NdView<T, 4> out) {
  for (Index b = 0; b < x.extent(0); ++b) {
    for (Index h = 0; h < x.extent(1); ++h) {
      for (Index t = 0; t < x.extent(2); ++t) {
        double squares = 1e-12;
        for (Index c = 0; c < x.extent(3); ++c) {
          squares += static_cast<double>(x(b, h, t, c)) * static_cast<double>(x(b, h, t, c));
        }
        const T by = static_cast<T>(1 / std::sqrt(squares));
        for (Index c = 0; c < x.extent(3); ++c) out(b, h, t, c) = by * x(b, h, t, c);
      }
    }
  }
}
/// dx = (dy - y (y . dy)) / |x|, into dy.
template <class T>
void unit_rows_vjp(NdView<const T, 4> x, NdView<const T, 4> y, NdView<T, 4> dy) {
  for (Index b = 0; b < x.extent(0); ++b) {
    for (Index h = 0; h < x.extent(1); ++h) {
      for (Index t = 0; t < x.extent(2); ++t) {
        double squares = 1e-12, along = 0;
        for (Index c = 0; c < x.extent(3); ++c) {
          squares += static_cast<double>(x(b, h, t, c)) * static_cast<double>(x(b, h, t, c));
          along += static_cast<double>(y(b, h, t, c)) * static_cast<double>(dy(b, h, t, c));
        }
        const T by = static_cast<T>(1 / std::sqrt(squares));
        for (Index c = 0; c < x.extent(3); ++c) {
          dy(b, h, t, c) = by * (dy(b, h, t, c) - static_cast<T>(along) * y(b, h, t, c));
        }
      }
    }
  }
}

}  // namespace detail

/// Gated linear attention: a gate a key channel and step, sigmoid(W x + b)^(1/16), no normaliser.
/// S. Yang et al., ICML 2024 (with a full gate projection). Causal; decodes in constant memory.
template <class T>
class GatedLinearSelfAttention final : public GatedMultiHead<T> {
 public:
  explicit GatedLinearSelfAttention(const MultiHeadSizes& sizes)
      : GatedMultiHead<T>("quern::attention::GatedLinearSelfAttention", sizes, channels(sizes)) {
    options_.visible.causal = true;
    options_.normalise = false;
    options_.scale = 1 / std::sqrt(static_cast<double>(this->sizes().head_dim));
    this->initialize(0);
  }
  [[nodiscard]] std::string_view type() const override {
    return "quern::attention::GatedLinearSelfAttention";
  }
  [[nodiscard]] std::unique_ptr<nn::Layer<T>> clone() const override {
    return std::make_unique<GatedLinearSelfAttention>(*this);
  }
  [[nodiscard]] std::unique_ptr<nn::SequenceState<T>> make_state(Index batch) const override {
    const Index d = this->sizes().head_dim;
    return std::make_unique<LinearLayerState<T>>(type(), batch, this->sizes().heads, d, d);
  }
  void step(nn::TensorView<const T> in, nn::TensorView<T> out,
            nn::SequenceState<T>& state) const override {
    auto& s = detail::layer_state<LinearLayerState<T>>(type(), state);
    this->check_step(in, out, s.batch(), this->sizes().dim, this->sizes().dim);
    if (in.empty()) return;
    nn::Tensor<T> gates({in.extent(0), 1, channels(this->sizes())});
    this->project_gates(in.rows(), gates.view().rows(), 1);
    for (T& y : gates.span()) y = detail::log_gate(y, temperature);
    this->step_at(
        in, out, s.position(),
        [&](NdView<const T, 4> q, NdView<const T, 4> k, NdView<const T, 4> v, NdView<T, 4> to) {
          linear_attention<T>(inputs(q, k, v, gates.view()), to, &s.state(), {}, options_);
        });
    s.advance();
  }

 protected:
  void attend(NdView<const T, 4> q, NdView<const T, 4> k, NdView<const T, 4> v, NdView<T, 4> out,
              nn::Cache<T>& cache) const override {
    const nn::Tensor<T>& y = this->gates_of(cache);
    nn::Tensor<T>& log_gates = cache.tensor(7, y.shape());
    for (Index i = 0; i < y.size(); ++i) log_gates[i] = detail::log_gate(y[i], temperature);
    LinearOptions options = options_;
    options.threads = cache.context.threads;
    linear_attention<T>(inputs(q, k, v, log_gates.view()), out, nullptr, {}, options);
  }
  void attend_vjp(NdView<const T, 4> q, NdView<const T, 4> k, NdView<const T, 4> v,
                  NdView<const T, 4>, NdView<const T, 4> dout, NdView<T, 4> dq, NdView<T, 4> dk,
                  NdView<T, 4> dv, nn::Cache<T>& cache, nn::GradientsView<T>) const override {
    const nn::Tensor<T>& y = this->gates_of(cache);
    nn::Tensor<T>& dgates = this->gate_gradients_of(cache);
    LinearGradients<T> to;
    to.q = dq, to.k = dk, to.v = dv;
    to.channel_decay = heads_of(dgates.view());
    LinearOptions options = options_;
    options.threads = cache.context.threads;
    linear_attention_vjp<T>(inputs(q, k, v, cache.tensor(7).view()), {}, dout, to, options);
    for (Index i = 0; i < y.size(); ++i) dgates[i] *= detail::log_gate_slope(y[i], temperature);
  }

 private:
  static constexpr T temperature = T{16};
  static Index channels(const MultiHeadSizes& sizes) {
    const Index heads = sizes.kv_heads > 0 ? sizes.kv_heads : sizes.heads;
    const Index dim = sizes.head_dim > 0 ? sizes.head_dim
                      : sizes.heads > 0  ? sizes.dim / sizes.heads
                                         : 0;
    return heads * dim;
  }
  template <class U>
  NdView<U, 4> heads_of(nn::TensorView<U> x) const {
    const Index n = x.extent(1), columns = x.extent(2), d = this->sizes().head_dim;
    return {x.data(), {x.extent(0), this->sizes().kv_heads, n, d}, {n * columns, d, columns, 1}};
  }
  LinearInputs<T> inputs(NdView<const T, 4> q, NdView<const T, 4> k, NdView<const T, 4> v,
                         nn::TensorView<const T> gates) const {
    LinearInputs<T> in;
    in.q = q, in.k = k, in.v = v, in.channel_decay = heads_of(gates);
    return in;
  }
  LinearOptions options_;
};

/// The delta rule of several heads: queries and keys of length 1, beta = sigmoid(W x + b) a head
/// and step; with `gated`, the state also fades by sigmoid of one more output. S. Yang et al.,
/// NeurIPS 2024 and ICLR 2025. Causal; decodes in constant memory.
template <class T>
class DeltaSelfAttention final : public GatedMultiHead<T> {
 public:
  explicit DeltaSelfAttention(const MultiHeadSizes& sizes, bool gated = false)
      : GatedMultiHead<T>("quern::attention::DeltaSelfAttention", sizes,
                          (gated ? 2 : 1) * (sizes.kv_heads > 0 ? sizes.kv_heads : sizes.heads)),
        gated_(gated) {
    options_.scale = 1 / std::sqrt(static_cast<double>(this->sizes().head_dim));
    this->initialize(0);
  }
  [[nodiscard]] std::string_view type() const override {
    return "quern::attention::DeltaSelfAttention";
  }
  [[nodiscard]] std::unique_ptr<nn::Layer<T>> clone() const override {
    return std::make_unique<DeltaSelfAttention>(*this);
  }
  [[nodiscard]] std::unique_ptr<nn::SequenceState<T>> make_state(Index batch) const override {
    const Index d = this->sizes().head_dim;
    return std::make_unique<LinearLayerState<T>>(type(), batch, this->sizes().heads, d, d);
  }
  void step(nn::TensorView<const T> in, nn::TensorView<T> out,
            nn::SequenceState<T>& state) const override {
    auto& s = detail::layer_state<LinearLayerState<T>>(type(), state);
    this->check_step(in, out, s.batch(), this->sizes().dim, this->sizes().dim);
    if (in.empty()) return;
    Work w;
    nn::Tensor<T> gates({in.extent(0), 1, (gated_ ? 2 : 1) * this->sizes().kv_heads});
    this->project_gates(in.rows(), gates.view().rows(), 1);
    this->step_at(
        in, out, s.position(),
        [&](NdView<const T, 4> q, NdView<const T, 4> k, NdView<const T, 4> v, NdView<T, 4> to) {
          prepare(q, k, gates.view(), w);
          DeltaInputs<T> inputs = w.inputs(v, gated_);
          const NdArray<T, 4> before = s.state().sums;
          inputs.initial_state = before.view();
          delta_rule<T>(inputs, to, s.state().sums.view(), options_);
        });
    s.advance();
  }

 protected:
  void attend(NdView<const T, 4> q, NdView<const T, 4> k, NdView<const T, 4> v, NdView<T, 4> out,
              nn::Cache<T>& cache) const override {
    Work& w = cache.template saved<Work>();
    prepare(q, k, this->gates_of(cache).view(), w);
    DeltaOptions options = options_;
    options.threads = cache.context.threads;
    delta_rule<T>(w.inputs(v, gated_), out, {}, options);
  }
  void attend_vjp(NdView<const T, 4> q, NdView<const T, 4> k, NdView<const T, 4> v,
                  NdView<const T, 4>, NdView<const T, 4> dout, NdView<T, 4> dq, NdView<T, 4> dk,
                  NdView<T, 4> dv, nn::Cache<T>& cache, nn::GradientsView<T>) const override {
    Work& w = cache.template saved<Work>();
    NdArray<T, 3> dbeta(w.beta.extents()), ddecay(w.decay.extents());
    DeltaGradients<T> to;
    to.q = dq, to.k = dk, to.v = dv, to.beta = dbeta.view();
    if (gated_) to.step_decay = ddecay.view();
    DeltaOptions options = options_;
    options.threads = cache.context.threads;
    delta_rule_vjp<T>(w.inputs(v, gated_), dout, {}, to, options);
    detail::unit_rows_vjp<T>(q, w.q.view(), dq);
    detail::unit_rows_vjp<T>(k, w.k.view(), dk);
    const nn::TensorView<T> y = this->gates_of(cache).view(),
                            dy = this->gate_gradients_of(cache).view();
    const Index heads = this->sizes().kv_heads, n = y.extent(1), gates = y.extent(2);
    for (Index b = 0; b < y.extent(0); ++b) {
      for (Index t = 0; t < n; ++t) {
        for (Index h = 0; h < heads; ++h) {
          const Index at = (b * n + t) * gates + h;
          const T beta = w.beta(b, h, t);
          dy[at] = dbeta(b, h, t) * beta * (T{1} - beta);
          if (gated_) {
            dy[at + heads] = ddecay(b, h, t) * detail::log_gate_slope(y[at + heads], T{1});
          }
        }
      }
    }
  }

 private:
  /// What the rule takes: unit queries and keys, beta, decay.
  struct Work {
    NdArray<T, 4> q, k;
    NdArray<T, 3> beta, decay;
    [[nodiscard]] DeltaInputs<T> inputs(NdView<const T, 4> v, bool gated) const {
      DeltaInputs<T> in;
      in.q = q.view(), in.k = k.view(), in.v = v, in.beta = beta.view();
      if (gated) in.step_decay = decay.view();
      return in;
    }
  };
  void prepare(NdView<const T, 4> q, NdView<const T, 4> k, nn::TensorView<const T> y,
               Work& w) const {
    w.q.resize(q.extents(), core::Fill::none);
    w.k.resize(k.extents(), core::Fill::none);
    detail::unit_rows<T>(q, w.q.view());
    detail::unit_rows<T>(k, w.k.view());
    const Index heads = this->sizes().kv_heads, n = y.extent(1), gates = y.extent(2);
    w.beta.resize({y.extent(0), heads, n}, core::Fill::none);
    w.decay.resize({y.extent(0), heads, n}, core::Fill::none);
    for (Index b = 0; b < y.extent(0); ++b) {
      for (Index t = 0; t < n; ++t) {
        for (Index h = 0; h < heads; ++h) {
          const Index at = (b * n + t) * gates + h;
          w.beta(b, h, t) = T{1} / (T{1} + std::exp(-y[at]));
          w.decay(b, h, t) = gated_ ? detail::log_gate(y[at + heads], T{1}) : T{0};
        }
      }
    }
  }

  bool gated_;
  DeltaOptions options_;
};

}  // namespace attention
QUERN_NAMESPACE_END

#endif  // QUERN_ATTENTION_RECURRENT_LAYERS_HPP
