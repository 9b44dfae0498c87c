// SPDX-License-Identifier: Apache-2.0

/// \file
/// The gated attention unit and FLASH as layers: GauLayer, FlashLayer.

#ifndef QUERN_ATTENTION_GATED_LAYERS_HPP
#define QUERN_ATTENTION_GATED_LAYERS_HPP

#include "quern/attention/detail/layer_state.hpp"
#include "quern/attention/flash.hpp"
#include "quern/attention/gated_decode.hpp"
#include "quern/attention/gated_unit.hpp"
#include "quern/attention/gau.hpp"
#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/nn/init.hpp"
#include "quern/nn/sequence_layer.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <utility>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace attention {

/// Sizes of a gated unit.
struct GatedSizes {
  Index dim = 0;              ///< of inputs and outputs
  Index expanded = 0;         ///< of values and gates; 0: twice dim, as in the paper
  Index qk = 128;             ///< of queries and keys
  bool relative_bias = true;  ///< learn one; never with softmax-plus
  Index buckets = 32;         ///< of the relative bias
};

/// A decode state of a gated unit as a layer's.
template <class T, bool kFlash>
class GatedLayerState final : public nn::SequenceState<T> {
 public:
  using Inner = std::conditional_t<kFlash, FlashState<T>, GauState<T>>;
  explicit GatedLayerState(Inner inner) : inner_(std::move(inner)) {}
  [[nodiscard]] Inner& inner() noexcept { return inner_; }
  /// type() of the layers that make it.
  [[nodiscard]] static std::string_view layer() noexcept {
    return kFlash ? "quern::attention::FlashLayer" : "quern::attention::GauLayer";
  }
  void reset() override { inner_.reset(); }
  [[nodiscard]] std::unique_ptr<nn::SequenceState<T>> clone() const override {
    return std::make_unique<GatedLayerState>(*this);
  }
  void save(std::vector<std::byte>& out) const override { inner_.save(out); }
  void load(std::span<const std::byte> bytes) override { inner_.load(bytes); }

 private:
  Inner inner_;
};

/// GAU (kFlash false) or FLASH over (batch, length, dim); use the aliases below. Norm and residual
/// belong to it: a stack of these is a network, two for each transformer block. Parameters have
/// FLASH-pytorch's names. Mask, lengths, cumulative and causal_offset of the options are not a
/// layer's; ValueError for these and for what gau or flash would refuse.
template <class T, bool kFlash>
class GatedLayer final : public nn::SequenceLayer<T> {
 public:
  GatedLayer(const GatedSizes& sizes, const GatedUnitOptions<T>& options)
      : sizes_(sizes), options_(options) {
    const auto need = [&](bool holds, const char* what, const char* expected, Index got) {
      if (!holds) throw ValueError(error_text(type(), what, expected, got));
    };
    need(sizes.dim >= 1, "dim", "at least 1", sizes.dim);
    if (sizes_.expanded == 0) sizes_.expanded = 2 * sizes.dim;
    need(sizes_.expanded >= 1, "expanded", "at least 1", sizes_.expanded);
    need(sizes.qk >= 1, "qk", "at least 1", sizes.qk);
    need(options.mask.is_null() && options.lengths.empty() && options.cumulative.empty(), "options",
         "no mask, no lengths and no cumulative", 1);
    need(!options.causal_offset.has_value(), "causal_offset", "none", 1);
    need(
        options.rotary_dims % 2 == 0 && options.rotary_dims >= 0 && options.rotary_dims <= sizes.qk,
        "rotary_dims", "an even number up to qk", options.rotary_dims);
    need(options.length_scale >= 0, "length_scale", "0 or more", options.length_scale);
    need(options.window >= -1, "window", "-1 or more", options.window);
    const bool softmax = options.activation == GateActivation::softmax_plus;
    if constexpr (kFlash) {
      need(options.group >= 1 && options.group <= Index{1} << 30, "group", "1..1073741824",
           options.group);
      need(!softmax, "activation", "squared_relu or laplace, softmax_plus is GAU's", 1);
      need(options.window < 0, "window", "none: groups are FLASH's windows", options.window);
    }
    if (softmax) sizes_.relative_bias = false;
    need(!sizes_.relative_bias || (sizes.buckets >= 4 && sizes.buckets % 4 == 0), "buckets",
         "a multiple of 4", sizes.buckets);
    const Index e = sizes_.expanded, rows = kFlash ? 4 : 2;
    if (options.norm == GateNorm::layer) norm_weight_.resize({sizes.dim});
    if (options.norm == GateNorm::layer) norm_bias_.resize({sizes.dim});
    if (options.norm == GateNorm::scale) norm_weight_.resize({1});
    hidden_weight_.resize({2 * e, sizes.dim});
    hidden_bias_.resize({2 * e});
    qk_weight_.resize({sizes.qk, sizes.dim});
    qk_bias_.resize({sizes.qk});
    gamma_.resize({rows, sizes.qk});
    beta_.resize({rows, sizes.qk});
    if (sizes_.relative_bias) table_.resize({sizes.buckets, 1});
    out_weight_.resize({sizes.dim, e});
    out_bias_.resize({sizes.dim});
    this->initialize(0);
  }
  GatedLayer(const GatedLayer& other) : GatedLayer(other.sizes_, other.options_) {
    auto& from = const_cast<GatedLayer&>(other);
    const auto theirs = nn::parameters_of(static_cast<nn::Layer<T>&>(from));
    const auto mine = nn::parameters_of(static_cast<nn::Layer<T>&>(*this));
    for (std::size_t k = 0; k < mine.size(); ++k) {
      std::copy(theirs[k].values.begin(), theirs[k].values.end(), mine[k].values.begin());
    }
  }

  [[nodiscard]] const GatedSizes& sizes() const noexcept { return sizes_; }
  [[nodiscard]] const GatedUnitOptions<T>& options() const noexcept { return options_; }

  [[nodiscard]] std::string_view type() const override {
    return kFlash ? "quern::attention::FlashLayer" : "quern::attention::GauLayer";
  }
  [[nodiscard]] nn::Extents output_shape(const nn::Extents& in) const override {
    if (in.size() != 3 || in[2] != sizes_.dim) {
      throw ShapeError(error_text(type(), "in", "batch x length x " + std::to_string(sizes_.dim),
                                  nn::shape_text(in)));
    }
    return in;
  }
  void parameters(nn::ParameterList<T>& out, const std::string& prefix) override {
    const std::string offset = prefix + (kFlash ? "qk_offset_scale." : "offsetscale.");
    const std::string back = prefix + (kFlash ? "to_out." : "to_out.0.");
    const auto add = [&](const std::string& name, nn::Tensor<T>& values, bool decay) {
      out.push_back({.name = name, .values = values.view(), .decay = decay});
    };
    if (options_.norm == GateNorm::layer) {
      add(prefix + "norm.weight", norm_weight_, false);
      add(prefix + "norm.bias", norm_bias_, false);
    } else if (options_.norm == GateNorm::scale) {
      add(prefix + "norm.g", norm_weight_, false);
    }
    add(prefix + "to_hidden.0.weight", hidden_weight_, true);
    add(prefix + "to_hidden.0.bias", hidden_bias_, false);
    add(prefix + "to_qk.0.weight", qk_weight_, true);
    add(prefix + "to_qk.0.bias", qk_bias_, false);
    add(offset + "gamma", gamma_, false);
    add(offset + "beta", beta_, false);
    if (sizes_.relative_bias) {
      add(prefix + "rel_pos_bias.relative_attention_bias.weight", table_, false);
    }
    add(back + "weight", out_weight_, true);
    add(back + "bias", out_bias_, false);
  }
  /// As FLASH-pytorch: projections uniform in ±1 / sqrt(inputs), gamma normal with deviation 0.02,
  /// the relative bias standard normal, the norm as if it were not there.
  void initialize(std::uint64_t seed, const std::string& prefix = {}) override {
    nn::init::constant(norm_weight_.view(), T{1});
    nn::init::constant(norm_bias_.view(), T{0});
    nn::init::pytorch_default(hidden_weight_.view(), hidden_bias_.view(), seed,
                              prefix + "to_hidden.0.");
    nn::init::pytorch_default(qk_weight_.view(), qk_bias_.view(), seed, prefix + "to_qk.0.");
    nn::init::normal(gamma_.view(), Philox(seed, prefix + "gamma"), 0, 0.02);
    nn::init::constant(beta_.view(), T{0});
    nn::init::normal(table_.view(), Philox(seed, prefix + "rel_pos_bias"));
    nn::init::pytorch_default(out_weight_.view(), out_bias_.view(), seed, prefix + "to_out.");
  }
  [[nodiscard]] std::unique_ptr<nn::Layer<T>> clone() const override {
    return std::make_unique<GatedLayer>(*this);
  }

  /// ValueError where the unit is not causal, or a GAU does not know its length_scale.
  [[nodiscard]] std::unique_ptr<nn::SequenceState<T>> make_state(Index batch) const override {
    if (!options_.causal) {
      throw ValueError(error_text(type(), "causal", "true for decoding", "false"));
    }
    if constexpr (kFlash) {
      return std::make_unique<GatedLayerState<T, true>>(
          FlashState<T>(batch, weights(), options_.group));
    } else {
      if (options_.length_scale < 1 && options_.activation != GateActivation::softmax_plus) {
        throw ValueError(
            error_text(type(), "length_scale", "at least 1 for decoding", options_.length_scale));
      }
      return std::make_unique<GatedLayerState<T, false>>(GauState<T>(batch, weights()));
    }
  }
  void step(nn::TensorView<const T> in, nn::TensorView<T> out,
            nn::SequenceState<T>& state) const override {
    auto& s = detail::layer_state<GatedLayerState<T, kFlash>>(type(), state).inner();
    this->check_step(in, out, s.batch(), sizes_.dim, sizes_.dim);
    if constexpr (kFlash) {
      flash_step<T>(in.rows(), weights(), out.rows(), s, options_);
    } else {
      gau_step<T>(in.rows(), weights(), out.rows(), s, options_);
    }
  }

 protected:
  void compute(nn::TensorView<const T> in, nn::TensorView<T> out,
               nn::Cache<T>& cache) const override {
    auto& saved = cache.template saved<GatedUnitSaved<T>>();
    if constexpr (kFlash) {
      flash<T>(in.template as<3>(), weights(), out.template as<3>(), of_call(cache), &saved);
    } else {
      gau<T>(in.template as<3>(), weights(), out.template as<3>(), of_call(cache), &saved);
    }
  }
  void differentiate(nn::TensorView<const T> dout, nn::TensorView<T> din, nn::Cache<T>& cache,
                     nn::GradientsView<T> gradients) const override {
    const auto& saved = cache.template saved<GatedUnitSaved<T>>();
    const NdView<T, 3> dx = din.null() ? NdView<T, 3>() : din.template as<3>();
    const NdView<const T, 3> x = cache.input.template as<3>();
    if constexpr (kFlash) {
      flash_vjp<T>(x, weights(), saved, dout.template as<3>(), dx, views_of(gradients),
                   of_call(cache));
    } else {
      gau_vjp<T>(x, weights(), saved, dout.template as<3>(), dx, views_of(gradients),
                 of_call(cache));
    }
  }

 private:
  static NdView<const T, 1> flat(const nn::Tensor<T>& t) {
    const nn::TensorView<const T> v = t.view();
    if (v.size() == 0) return {};
    return NdView<const T, 1>(v.data(), {v.size()});
  }
  [[nodiscard]] GatedUnitWeights<T> weights() const {
    GatedUnitWeights<T> w;
    w.norm_weight = flat(norm_weight_), w.norm_bias = flat(norm_bias_);
    w.hidden_weight = hidden_weight_.view().rows(), w.hidden_bias = flat(hidden_bias_);
    w.qk_weight = qk_weight_.view().rows(), w.qk_bias = flat(qk_bias_);
    w.gamma = gamma_.view().rows(), w.beta = beta_.view().rows();
    w.bias_table = flat(table_);
    w.out_weight = out_weight_.view().rows(), w.out_bias = flat(out_bias_);
    return w;
  }
  /// The gradients in the order of parameters().
  [[nodiscard]] GatedUnitGradients<T> views_of(const nn::GradientsView<T>& gradients) const {
    GatedUnitGradients<T> g;
    if (gradients.null()) return g;
    std::size_t k = 0;
    const auto one = [&](NdView<T, 1>& to) {
      const std::span<T> values = gradients[k++];
      to = NdView<T, 1>(values.data(), {static_cast<Index>(values.size())});
    };
    const auto two = [&](MatrixView<T>& to, const nn::Tensor<T>& like) {
      to = MatrixView<T>(gradients[k++].data(), like.view().rows().extents());
    };
    if (options_.norm != GateNorm::none) one(g.norm_weight);
    if (options_.norm == GateNorm::layer) one(g.norm_bias);
    two(g.hidden_weight, hidden_weight_);
    one(g.hidden_bias);
    two(g.qk_weight, qk_weight_);
    one(g.qk_bias);
    two(g.gamma, gamma_);
    two(g.beta, beta_);
    if (sizes_.relative_bias) one(g.bias_table);
    two(g.out_weight, out_weight_);
    one(g.out_bias);
    return g;
  }
  [[nodiscard]] GatedUnitOptions<T> of_call(const nn::Cache<T>& cache) const {
    GatedUnitOptions<T> options = options_;
    options.threads = cache.context.threads;
    return options;
  }

  GatedSizes sizes_;
  GatedUnitOptions<T> options_;
  nn::Tensor<T> norm_weight_, norm_bias_, hidden_weight_, hidden_bias_, qk_weight_, qk_bias_;
  nn::Tensor<T> gamma_, beta_, table_, out_weight_, out_bias_;
};

template <class T>
using GauLayer = GatedLayer<T, false>;
template <class T>
using FlashLayer = GatedLayer<T, true>;

}  // namespace attention
QUERN_NAMESPACE_END

#endif  // QUERN_ATTENTION_GATED_LAYERS_HPP
