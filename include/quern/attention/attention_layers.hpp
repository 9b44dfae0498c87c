// SPDX-License-Identifier: Apache-2.0

/// \file
/// Self-attention layers of several heads whose cost is linear in the length, and softmax's, their
/// exact sibling: SoftmaxSelfAttention, LinearSelfAttention, PerformerSelfAttention.

#ifndef QUERN_ATTENTION_ATTENTION_LAYERS_HPP
#define QUERN_ATTENTION_ATTENTION_LAYERS_HPP

#include "quern/attention/detail/layer_state.hpp"
#include "quern/attention/detail/state_bytes.hpp"
#include "quern/attention/feature_map.hpp"
#include "quern/attention/linear.hpp"
#include "quern/attention/linear_state.hpp"
#include "quern/attention/multi_head.hpp"
#include "quern/attention/performer.hpp"
#include "quern/attention/softmax.hpp"
#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/core/nd_array.hpp"
#include "quern/nn/sequence_layer.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace attention {

/// Softmax attention of several heads. Causal, it decodes with a cache of keys and values, which
/// with a window stays of constant size.
template <class T>
class SoftmaxSelfAttention final : public MultiHead<T> {
 public:
  /// `window`: how many positions before its own a query sees (and, not causal, as many after);
  /// -1: all.
  explicit SoftmaxSelfAttention(const MultiHeadSizes& sizes, bool causal = true, Index window = -1)
      : MultiHead<T>("quern::attention::SoftmaxSelfAttention", sizes) {
    if (window < -1) throw ValueError(error_text(type(), "window", "-1 or more", window));
    options_.visible.causal = causal;
    options_.visible.left = options_.visible.right = window;
    this->initialize(0);
  }
  [[nodiscard]] std::string_view type() const override {
    return "quern::attention::SoftmaxSelfAttention";
  }
  [[nodiscard]] std::unique_ptr<nn::Layer<T>> clone() const override {
    return std::make_unique<SoftmaxSelfAttention>(*this);
  }
  /// ValueError where it is not causal.
  [[nodiscard]] std::unique_ptr<nn::SequenceState<T>> make_state(Index batch) const override {
    if (!options_.visible.causal) {
      throw ValueError(error_text(type(), "causal", "true for decoding", "false"));
    }
    return std::make_unique<KeyValueState<T>>(type(), batch, this->sizes().kv_heads,
                                              this->sizes().head_dim);
  }
  void step(nn::TensorView<const T> in, nn::TensorView<T> out,
            nn::SequenceState<T>& state) const override {
    auto& s = detail::layer_state<KeyValueState<T>>(type(), state);
    this->check_step(in, out, s.batch(), this->sizes().dim, this->sizes().dim);
    if (in.empty()) return;
    this->step_with(in, out, s,
                    [&](NdView<const T, 4> q, NdView<T, 4> to) { s.attend(q, to, options_); });
    s.evict(options_.visible.left);
  }

 protected:
  void attend(NdView<const T, 4> q, NdView<const T, 4> k, NdView<const T, 4> v, NdView<T, 4> out,
              nn::Cache<T>& cache) const override {
    NdArray<T, 3>& sums = cache.template saved<NdArray<T, 3>>();
    sums.resize({q.extent(0), q.extent(1), q.extent(2)}, core::Fill::none);
    softmax_attention<T>(q, k, v, out, sums.view(), options(cache));
  }
  void attend_vjp(NdView<const T, 4> q, NdView<const T, 4> k, NdView<const T, 4> v,
                  NdView<const T, 4> out, NdView<const T, 4> dout, NdView<T, 4> dq, NdView<T, 4> dk,
                  NdView<T, 4> dv, nn::Cache<T>& cache, nn::GradientsView<T>) const override {
    const NdArray<T, 3>& sums = cache.template saved<NdArray<T, 3>>();
    softmax_attention_vjp<T>(q, k, v, {out, sums.view()}, dout, dq, dk, dv, options(cache));
  }

 private:
  [[nodiscard]] SoftmaxOptions options(const nn::Cache<T>& cache) const {
    SoftmaxOptions options = options_;
    options.threads = cache.context.threads;
    return options;
  }
  SoftmaxOptions options_;
};

/// A LinearState as a layer's, with the position that comes next.
template <class T>
class LinearLayerState final : public nn::SequenceState<T> {
 public:
  /// `layer` is the type() of the layer that makes it.
  LinearLayerState(std::string_view layer, Index batch, Index heads, Index features,
                   Index value_dim)
      : layer_(layer), state_(batch, heads, features, value_dim) {}
  [[nodiscard]] std::string_view layer() const noexcept { return layer_; }
  [[nodiscard]] LinearState<T>& state() noexcept { return state_; }
  [[nodiscard]] Index batch() const noexcept { return state_.sums.extent(0); }
  [[nodiscard]] Index position() const noexcept { return position_; }
  void advance() noexcept { ++position_; }

  void reset() override {
    state_.reset();
    position_ = 0;
  }
  [[nodiscard]] std::unique_ptr<nn::SequenceState<T>> clone() const override {
    return std::make_unique<LinearLayerState>(*this);
  }
  void save(std::vector<std::byte>& out) const override {
    detail::StateWriter to(out);
    for (int r = 0; r < 4; ++r) to.number(state_.sums.extent(r));
    to.number(position_);
    const auto array = [&](const auto& a) {
      to.array(a.data(), static_cast<std::size_t>(a.size()));
    };
    array(state_.sums), array(state_.normaliser), array(state_.log_scale);
  }
  void load(std::span<const std::byte> bytes) override {
    detail::StateReader from("quern::attention::LinearLayerState::load", bytes);
    static constexpr const char* names[] = {"batch", "heads", "features", "value_dim"};
    for (int r = 0; r < 4; ++r) from.expect(names[r], state_.sums.extent(r));
    LinearLayerState read = *this;
    read.position_ = from.number_in("position", 0, (std::numeric_limits<Index>::max)());
    const auto array = [&](auto& a) { from.array(a.data(), static_cast<std::size_t>(a.size())); };
    array(read.state_.sums), array(read.state_.normaliser), array(read.state_.log_scale);
    from.finish();
    *this = std::move(read);
  }

 private:
  std::string layer_;
  LinearState<T> state_;
  Index position_ = 0;
};

/// How a layer of linear attention works.
struct LinearLayerOptions {
  Feature feature = Feature::elu1;
  bool causal = true;
  /// Not with Feature::identity, always with Feature::exp; without, outputs are over
  /// sqrt(head_dim).
  bool normalise = true;
  /// Retention: key head h of H fades by 1 - 2^(-5 - 3 h / (H - 1)) a step; causal only.
  bool retention = false;
};

/// Linear attention of several heads with a map by name. Causal, it decodes in constant memory.
template <class T>
class LinearSelfAttention final : public MultiHead<T> {
 public:
  explicit LinearSelfAttention(const MultiHeadSizes& sizes, const LinearLayerOptions& options = {})
      : MultiHead<T>("quern::attention::LinearSelfAttention", sizes),
        map_(options.feature),
        causal_(options.causal) {
    if (options.normalise && options.feature == Feature::identity) {
      throw ValueError(error_text(type(), "normalise", "false with the identity", "true"));
    }
    if (!options.normalise && map_.scaled()) {
      throw ValueError(error_text(type(), "normalise", "true with Feature::exp", "false"));
    }
    if (options.retention && !options.causal) {
      throw ValueError(error_text(type(), "retention", "causal attention with it", "full"));
    }
    options_.visible.causal = options.causal;
    options_.normalise = options.normalise;
    if (!options.normalise) {
      options_.scale = 1 / std::sqrt(static_cast<double>(this->sizes().head_dim));
    }
    if (options.retention) {
      const Index heads = this->sizes().kv_heads;
      decay_.resize({heads});
      for (Index h = 0; h < heads; ++h) {
        const double part = heads > 1 ? static_cast<double>(h) / static_cast<double>(heads - 1) : 0;
        decay_(h) = static_cast<T>(std::log1p(-std::exp2(-5 - 3 * part)));
      }
    }
    this->initialize(0);
  }
  [[nodiscard]] std::string_view type() const override {
    return "quern::attention::LinearSelfAttention";
  }
  [[nodiscard]] std::unique_ptr<nn::Layer<T>> clone() const override {
    return std::make_unique<LinearSelfAttention>(*this);
  }
  /// ValueError where it is not causal.
  [[nodiscard]] std::unique_ptr<nn::SequenceState<T>> make_state(Index batch) const override {
    if (!causal_) throw ValueError(error_text(type(), "causal", "true for decoding", "false"));
    const Index d = this->sizes().head_dim;
    return std::make_unique<LinearLayerState<T>>(type(), batch, this->sizes().heads, d, d);
  }
  void step(nn::TensorView<const T> in, nn::TensorView<T> out,
            nn::SequenceState<T>& state) const override {
    auto& s = detail::layer_state<LinearLayerState<T>>(type(), state);
    this->check_step(in, out, s.batch(), this->sizes().dim, this->sizes().dim);
    if (in.empty()) return;
    this->step_at(
        in, out, s.position(),
        [&](NdView<const T, 4> q, NdView<const T, 4> k, NdView<const T, 4> v, NdView<T, 4> to) {
          linear_attention<T>(inputs(q, k, v), to, &s.state(), {}, options_);
        });
    s.advance();
  }

 protected:
  void attend(NdView<const T, 4> q, NdView<const T, 4> k, NdView<const T, 4> v, NdView<T, 4> out,
              nn::Cache<T>& cache) const override {
    NdArray<T, 3>& sums = cache.template saved<NdArray<T, 3>>();
    sums.resize({q.extent(0), q.extent(1), q.extent(2)}, core::Fill::none);
    linear_attention<T>(inputs(q, k, v), out, nullptr, sums.view(), options(cache));
  }
  void attend_vjp(NdView<const T, 4> q, NdView<const T, 4> k, NdView<const T, 4> v,
                  NdView<const T, 4> out, NdView<const T, 4> dout, NdView<T, 4> dq, NdView<T, 4> dk,
                  NdView<T, 4> dv, nn::Cache<T>& cache, nn::GradientsView<T>) const override {
    const NdArray<T, 3>& sums = cache.template saved<NdArray<T, 3>>();
    LinearGradients<T> to;
    to.q = dq, to.k = dk, to.v = dv;
    linear_attention_vjp<T>(inputs(q, k, v), {out, sums.view()}, dout, to, options(cache));
  }

 private:
  [[nodiscard]] LinearInputs<T> inputs(NdView<const T, 4> q, NdView<const T, 4> k,
                                       NdView<const T, 4> v) const {
    LinearInputs<T> in;
    in.q = q, in.k = k, in.v = v, in.query_map = &map_;
    if (!decay_.empty()) in.head_decay = decay_.view();
    return in;
  }
  [[nodiscard]] LinearOptions options(const nn::Cache<T>& cache) const {
    LinearOptions options = options_;
    options.threads = cache.context.threads;
    return options;
  }

  NamedFeature<T> map_;
  bool causal_;
  LinearOptions options_;
  NdArray<T, 1> decay_;
};

/// How a Performer layer works.
struct PerformerLayerOptions {
  PerformerKernel kernel = PerformerKernel::exp;
  Index features =
      0;  ///< random directions a head; 0: dim ln(dim), rounded; ignored if not projected
  bool projected = true;
  bool causal = true;
  double eps = 1e-3;  ///< of kernels other than exp
  std::uint64_t seed = 0;
};

/// Performer of several heads, which share their random directions. These are a buffer, saved with
/// the layer: redraw() between steps of training, if at all.
template <class T>
class PerformerSelfAttention final : public MultiHead<T> {
 public:
  explicit PerformerSelfAttention(const MultiHeadSizes& sizes,
                                  const PerformerLayerOptions& options = {})
      : MultiHead<T>("quern::attention::PerformerSelfAttention", sizes), layer_(options) {
    const auto d = static_cast<double>(this->sizes().head_dim);
    if (layer_.features == 0) {
      layer_.features = static_cast<Index>((std::max)(1.0, std::floor(d * std::log(d))));
    }
    if (layer_.features < 1) {
      throw ValueError(error_text(type(), "features", "1 or more", layer_.features));
    }
    options_.visible.causal = options.causal;
    redraw(0);
    this->initialize(0);
  }
  PerformerSelfAttention(const PerformerSelfAttention& other)
      : MultiHead<T>(other),
        layer_(other.layer_),
        options_(other.options_),
        directions_(other.directions_.clone()) {}

  [[nodiscard]] std::string_view type() const override {
    return "quern::attention::PerformerSelfAttention";
  }
  [[nodiscard]] std::unique_ptr<nn::Layer<T>> clone() const override {
    return std::make_unique<PerformerSelfAttention>(*this);
  }
  /// Other directions: those of this draw of the layer's seed.
  void redraw(std::uint64_t draw) {
    if (!layer_.projected) return;
    const NdArray<T, 2> w =
        performer_projection<T>(layer_.features, this->sizes().head_dim, layer_.seed, draw);
    directions_.resize({w.extent(0), w.extent(1)});
    std::copy(w.begin(), w.end(), directions_.data());
  }
  /// How far its weights are from softmax's, for queries and keys of one head: see performer_error.
  [[nodiscard]] PerformerError error(MatrixView<const T> q, MatrixView<const T> k,
                                     Index samples = 64) const {
    return performer_error<T>(q, k, map(), samples);
  }
  void buffers(nn::ParameterList<T>& out, const std::string& prefix) override {
    if (layer_.projected) out.push_back({prefix + "projection_matrix", directions_.view()});
  }
  /// ValueError where it is not causal.
  [[nodiscard]] std::unique_ptr<nn::SequenceState<T>> make_state(Index batch) const override {
    if (!options_.visible.causal) {
      throw ValueError(error_text(type(), "causal", "true for decoding", "false"));
    }
    const Index d = this->sizes().head_dim;
    return std::make_unique<LinearLayerState<T>>(type(), batch, this->sizes().heads,
                                                 layer_.projected ? layer_.features : d, d);
  }
  void step(nn::TensorView<const T> in, nn::TensorView<T> out,
            nn::SequenceState<T>& state) const override {
    auto& s = detail::layer_state<LinearLayerState<T>>(type(), state);
    this->check_step(in, out, s.batch(), this->sizes().dim, this->sizes().dim);
    if (in.empty()) return;
    const PerformerFeatures<T> features = map();
    this->step_at(
        in, out, s.position(),
        [&](NdView<const T, 4> q, NdView<const T, 4> k, NdView<const T, 4> v, NdView<T, 4> to) {
          linear_attention<T>(inputs(features, q, k, v), to, &s.state(), {}, options_);
        });
    s.advance();
  }

 protected:
  void attend(NdView<const T, 4> q, NdView<const T, 4> k, NdView<const T, 4> v, NdView<T, 4> out,
              nn::Cache<T>& cache) const override {
    NdArray<T, 3>& sums = cache.template saved<NdArray<T, 3>>();
    sums.resize({q.extent(0), q.extent(1), q.extent(2)}, core::Fill::none);
    linear_attention<T>(inputs(map(), q, k, v), out, nullptr, sums.view(), options(cache));
  }
  void attend_vjp(NdView<const T, 4> q, NdView<const T, 4> k, NdView<const T, 4> v,
                  NdView<const T, 4> out, NdView<const T, 4> dout, NdView<T, 4> dq, NdView<T, 4> dk,
                  NdView<T, 4> dv, nn::Cache<T>& cache, nn::GradientsView<T>) const override {
    const NdArray<T, 3>& sums = cache.template saved<NdArray<T, 3>>();
    LinearGradients<T> to;
    to.q = dq, to.k = dk, to.v = dv;
    linear_attention_vjp<T>(inputs(map(), q, k, v), {out, sums.view()}, dout, to, options(cache));
  }

 private:
  [[nodiscard]] PerformerFeatures<T> map() const {
    PerformerOptions<T> options;
    options.kernel = layer_.kernel;
    if (layer_.kernel != PerformerKernel::exp) options.eps = layer_.eps;
    NdArray<T, 2> w;
    if (layer_.projected) {
      w = NdArray<T, 2>(
          NdView<const T, 2>(directions_.data(), {directions_.shape()[0], directions_.shape()[1]}));
    }
    return PerformerFeatures<T>(std::move(w), options);
  }
  [[nodiscard]] static LinearInputs<T> inputs(const PerformerFeatures<T>& map, NdView<const T, 4> q,
                                              NdView<const T, 4> k, NdView<const T, 4> v) {
    LinearInputs<T> in;
    in.q = q, in.k = k, in.v = v, in.query_map = &map;
    return in;
  }
  [[nodiscard]] LinearOptions options(const nn::Cache<T>& cache) const {
    LinearOptions options = options_;
    options.threads = cache.context.threads;
    return options;
  }

  PerformerLayerOptions layer_;
  LinearOptions options_;
  nn::Tensor<T> directions_;
};

}  // namespace attention
QUERN_NAMESPACE_END

#endif  // QUERN_ATTENTION_ATTENTION_LAYERS_HPP
