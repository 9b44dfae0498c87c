// SPDX-License-Identifier: Apache-2.0
//
// The networks: one mixer or another in the same surroundings.

#include "classifier.hpp"
#include "quern/attention/attention_layers.hpp"
#include "quern/core/error.hpp"
#include "quern/nn/activation.hpp"
#include "quern/nn/containers.hpp"
#include "quern/nn/layer_norm.hpp"
#include "quern/nn/linear.hpp"
#include "quern/nn/sequential.hpp"
#include "quern/ssm/mamba.hpp"
#include "quern/ssm/mamba2.hpp"
#include "quern/ssm/retnet.hpp"
#include "quern/ssm/rwkv4_mixing.hpp"
#include "quern/ssm/rwkv6_mixing.hpp"
#include "quern/ssm/rwkv7_mixing.hpp"
#include "quern/ssm/s4_layers.hpp"
#include "quern/ssm/scan_layers.hpp"

#include <algorithm>
#include <functional>
#include <string_view>
#include <utility>

namespace classifier {
namespace {

namespace ssm = quern::ssm;
namespace attention = quern::attention;

/// (batch, length, dim) to (batch, dim).
class MeanOverTime final : public nn::Layer<float> {
 public:
  [[nodiscard]] std::string_view type() const override { return "MeanOverTime"; }
  [[nodiscard]] nn::Extents output_shape(const nn::Extents& in) const override {
    if (in.size() != 3) throw quern::ShapeError("MeanOverTime: expected (batch, length, dim)");
    return {in[0], in[2]};
  }
  [[nodiscard]] std::unique_ptr<nn::Layer<float>> clone() const override {
    return std::make_unique<MeanOverTime>();
  }

 protected:
  void compute(nn::TensorView<const float> in, nn::TensorView<float> out,
               nn::Cache<float>& /*cache*/) const override {
    const Index length = in.extent(1), dim = in.extent(2);
    std::fill(out.begin(), out.end(), 0.0F);
    for (Index i = 0; i < in.extent(0) * length; ++i) {
      float* const sums = out.data() + i / length * dim;
      for (Index j = 0; j < dim; ++j) sums[j] += in[i * dim + j];
    }
    for (float& x : out) x /= static_cast<float>(length);
  }
  void differentiate(nn::TensorView<const float> dout, nn::TensorView<float> din,
                     nn::Cache<float>& cache, nn::GradientsView<float> /*none*/) const override {
    const Index length = cache.input.extent(1), dim = cache.input.extent(2);
    for (Index i = 0; i < cache.input.extent(0) * length && !din.null(); ++i) {
      for (Index j = 0; j < dim; ++j) {
        din[i * dim + j] = dout[i / length * dim + j] / static_cast<float>(length);
      }
    }
  }
};

using Made = std::unique_ptr<nn::Layer<float>>;
using Make = std::function<Made(const ModelOptions&, Index layer)>;

template <class L, class... Arguments>
Made made(Arguments&&... arguments) {
  return std::make_unique<L>(std::forward<Arguments>(arguments)...);
}

/// Mixers of one channel at a time need a nonlinearity and a product across channels after them.
Made with_channels(Made mixer, Index dim) {
  auto all = std::make_unique<nn::Sequential<float>>();
  all->add(std::move(mixer));
  all->emplace<nn::GELUTanh<float>>();
  all->emplace<nn::Linear<float>>(dim, dim);
  return all;
}

attention::MultiHeadSizes heads(const ModelOptions& o) {
  const Index each = o.dim / o.heads;
  return {.dim = o.dim, .heads = o.heads, .rotary_dims = each / 2 * 2};
}

const std::vector<std::pair<std::string, Make>>& mixers() {
  static const std::vector<std::pair<std::string, Make>> list = {
      {"s4", [](auto& o, Index) { return with_channels(made<ssm::S4Layer<float>>(o.dim), o.dim); }},
      {"s4d",
       [](auto& o, Index) { return with_channels(made<ssm::S4dLayer<float>>(o.dim), o.dim); }},
      {"s5", [](auto& o, Index) { return with_channels(made<ssm::S5Layer<float>>(o.dim), o.dim); }},
      {"lru",
       [](auto& o, Index) {
         return with_channels(
             made<ssm::LruLayer<float>>(
                 o.dim, ssm::LruLayerOptions{.r_min = 0.9, .r_max = 0.999, .max_phase = 0.628}),
             o.dim);
       }},
      {"retnet",
       [](auto& o, Index) {
         return made<ssm::MultiScaleRetention<float>>(
             o.dim, ssm::MultiScaleRetentionOptions{.heads = o.heads});
       }},
      {"mamba", [](auto& o, Index) { return made<ssm::Mamba<float>>(o.dim); }},
      {"mamba2",
       [](auto& o, Index) {
         return made<ssm::Mamba2<float>>(
             o.dim, ssm::Mamba2Options{.states = 32, .head_dim = 2 * o.dim / o.heads});
       }},
      {"rwkv4",
       [](auto& o, Index k) {
         return made<ssm::Rwkv4Mixing<float>>(o.dim,
                                              ssm::RwkvDepth{.layer = k, .layers = o.layers});
       }},
      {"rwkv6",
       [](auto& o, Index k) {
         return made<ssm::Rwkv6Mixing<float>>(
             o.dim, ssm::Rwkv6Options{.head_dim = o.dim / o.heads,
                                      .mix_rank = 8,
                                      .decay_rank = 16,
                                      .depth = {.layer = k, .layers = o.layers}});
       }},
      {"rwkv7",
       [](auto& o, Index k) {
         return made<ssm::Rwkv7Mixing<float>>(
             o.dim, ssm::Rwkv7Options{.head_dim = o.dim / o.heads,
                                      .decay_rank = 16,
                                      .rate_rank = 16,
                                      .gate_rank = 16,
                                      .depth = {.layer = k, .layers = o.layers}});
       }},
      {"linear",
       [](auto& o, Index) { return made<attention::LinearSelfAttention<float>>(heads(o)); }},
      {"softmax",
       [](auto& o, Index) { return made<attention::SoftmaxSelfAttention<float>>(heads(o)); }},
  };
  return list;
}

Made mixer_block(const ModelOptions& o, const Make& make, Index layer) {
  auto inner = std::make_unique<nn::Sequential<float>>();
  inner->emplace<nn::LayerNorm<float>>(o.dim);
  inner->add(make(o, layer));
  return made<nn::Residual<float>>(std::move(inner));
}
Made feed_forward(Index dim) {
  auto inner = std::make_unique<nn::Sequential<float>>();
  inner->emplace<nn::LayerNorm<float>>(dim);
  inner->emplace<nn::Linear<float>>(dim, 2 * dim);
  inner->emplace<nn::GELUTanh<float>>();
  inner->emplace<nn::Linear<float>>(2 * dim, dim);
  return made<nn::Residual<float>>(std::move(inner));
}

}  // namespace

const std::vector<std::string>& mixer_names() {
  static const std::vector<std::string> names = [] {
    std::vector<std::string> out;
    for (const auto& [name, make] : mixers()) out.push_back(name);
    return out;
  }();
  return names;
}

std::unique_ptr<nn::Layer<float>> make_network(const ModelOptions& options) {
  const auto found = std::find_if(mixers().begin(), mixers().end(),
                                  [&](const auto& m) { return m.first == options.mixer; });
  if (found == mixers().end()) {
    throw quern::ValueError("sequence_classifier: --mixer: no mixer " + options.mixer);
  }
  auto net = std::make_unique<nn::Sequential<float>>();
  net->emplace<nn::Linear<float>>(1, options.dim);
  for (Index k = 0; k < options.layers; ++k) {
    net->add(mixer_block(options, found->second, k));
    net->add(feed_forward(options.dim));
  }
  net->emplace<nn::LayerNorm<float>>(options.dim);
  net->emplace<MeanOverTime>();
  net->emplace<nn::Linear<float>>(options.dim, 10);
  net->initialize(options.seed);
  return net;
}

}  // namespace classifier
