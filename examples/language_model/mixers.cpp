// SPDX-License-Identifier: Apache-2.0
//
// Mixers by their names.

#include "lm.hpp"

#include "quern/attention/attention_layers.hpp"
#include "quern/attention/gated_layers.hpp"
#include "quern/attention/sparse_layers.hpp"
#include "quern/core/error.hpp"
#include "quern/ssm/mamba.hpp"
#include "quern/ssm/mamba2.hpp"
#include "quern/ssm/retnet.hpp"
#include "quern/ssm/rwkv4_mixing.hpp"
#include "quern/ssm/rwkv6_mixing.hpp"
#include "quern/ssm/rwkv7_mixing.hpp"
#include "quern/ssm/s4_layers.hpp"
#include "quern/ssm/scan_layers.hpp"

#include <algorithm>
#include <utility>

namespace lm {
namespace {

namespace attention = quern::attention;
namespace ssm = quern::ssm;
using attention::Feature;
using attention::PerformerKernel;
using attention::SparsePattern;
using Made = std::unique_ptr<Layer>;

template <class L, class... Arguments>
Made made(Arguments&&... arguments) {
  return std::make_unique<L>(std::forward<Arguments>(arguments)...);
}

/// Half of each head's channels turn with the position.
attention::MultiHeadSizes sizes_of(const Settings& s) {
  return {.dim = s.dim, .heads = s.heads, .rotary_dims = s.dim / s.heads / 2 / 2 * 2};
}

Made over_pattern(const Settings& s, const SparsePattern& pattern) {
  return made<attention::SparseSelfAttention<float>>(sizes_of(s), pattern);
}
Made linear(const Settings& s, const attention::LinearLayerOptions& options) {
  return made<attention::LinearSelfAttention<float>>(sizes_of(s), options);
}
Made performer(const Settings& s, PerformerKernel kernel) {
  return made<attention::PerformerSelfAttention<float>>(
      sizes_of(s), attention::PerformerLayerOptions{.kernel = kernel, .seed = s.seed});
}

/// A gated unit: attention and feed-forward in one, so two of them stand for a block.
template <class L>
Made gated(const Settings& s, attention::GateActivation activation) {
  const attention::GatedSizes sizes{.dim = s.dim, .qk = (std::max)(Index{16}, s.dim / 2)};
  attention::GatedUnitOptions<float> options{.causal = true, .rotary_dims = 16};
  options.activation = activation;
  options.group = s.window;
  options.length_scale = s.context;
  return made<L>(sizes, options);
}
template <attention::GateActivation activation>
Made gau(const Settings& s, Index /*block*/) {
  return gated<attention::GauLayer<float>>(s, activation);
}

ssm::RwkvDepth depth_of(const Settings& s, Index block) {
  return {.layer = block, .layers = s.blocks};
}

}  // namespace

const std::vector<Mixer>& mixers() {
  using attention::GateActivation;
  static const std::vector<Mixer> all = {
      {"softmax", "softmax attention and a feed-forward network, rotary positions",
       [](auto& s, Index) { return made<attention::SoftmaxSelfAttention<float>>(sizes_of(s)); }},
      {"local", "the same with a window",
       [](auto& s, Index) {
         return over_pattern(s, SparsePattern::local(s.window, {.causal = true, .exact = true}));
       }},
      {"strided", "the same with a stride",
       [](auto& s, Index) { return over_pattern(s, SparsePattern::strided(s.window / 4 + 1)); }},
      {"fixed", "the same with blocks and their last keys",
       [](auto& s, Index) { return over_pattern(s, SparsePattern::fixed(s.window, 4)); }},
      {"linear-identity", "linear attention, no feature map and no normaliser",
       [](auto& s, Index) {
         return linear(s, {.feature = Feature::identity, .normalise = false});
       }},
      {"linear-elu1", "linear attention, elu + 1",
       [](auto& s, Index) { return linear(s, {.feature = Feature::elu1}); }},
      {"linear-relu", "linear attention, ReLU",
       [](auto& s, Index) { return linear(s, {.feature = Feature::relu}); }},
      {"linear-exp", "linear attention, exp",
       [](auto& s, Index) { return linear(s, {.feature = Feature::exp}); }},
      {"retention", "linear attention whose heads forget at fixed rates",
       [](auto& s, Index) {
         return linear(s, {.feature = Feature::identity, .normalise = false, .retention = true});
       }},
      {"performer", "softmax attention by random features",
       [](auto& s, Index) { return performer(s, PerformerKernel::exp); }},
      {"performer-elu1", "random directions, elu + 1",
       [](auto& s, Index) { return performer(s, PerformerKernel::elu1); }},
      {"performer-relu", "random directions, ReLU",
       [](auto& s, Index) { return performer(s, PerformerKernel::relu); }},
      {"gau", "gated attention units, squared ReLU", gau<GateActivation::squared_relu>, true},
      {"gau-laplace", "gated attention units, Laplace", gau<GateActivation::laplace>, true},
      {"gau-softmax", "gated attention units, softmax-plus", gau<GateActivation::softmax_plus>,
       true},
      {"flash", "gated units in linear time: quadratic within groups, linear between",
       [](auto& s, Index) {
         return gated<attention::FlashLayer<float>>(s, GateActivation::squared_relu);
       },
       true},
      {"s4", "state space by NPLR matrices",
       [](auto& s, Index) { return made<ssm::S4Layer<float>>(s.dim); }},
      {"s4d", "the same, diagonal",
       [](auto& s, Index) { return made<ssm::S4dLayer<float>>(s.dim); }},
      {"s5", "one state space over all channels",
       [](auto& s, Index) { return made<ssm::S5Layer<float>>(s.dim); }},
      {"lru", "linear recurrent unit",
       [](auto& s, Index) { return made<ssm::LruLayer<float>>(s.dim); }},
      {"retnet", "multi-scale retention with its gate",
       [](auto& s, Index) {
         return made<ssm::MultiScaleRetention<float>>(
             s.dim, ssm::MultiScaleRetentionOptions{.heads = s.heads});
       }},
      {"mamba", "selective state space",
       [](auto& s, Index) { return made<ssm::Mamba<float>>(s.dim); }},
      {"mamba2", "state space duality",
       [](auto& s, Index) {
         return made<ssm::Mamba2<float>>(
             s.dim, ssm::Mamba2Options{.states = 64, .head_dim = 2 * s.dim / s.heads});
       }},
      {"rwkv4", "RWKV-4's time mixing",
       [](auto& s, Index block) {
         return made<ssm::Rwkv4Mixing<float>>(s.dim, depth_of(s, block));
       }},
      {"rwkv6", "RWKV-6's time mixing",
       [](auto& s, Index block) {
         return made<ssm::Rwkv6Mixing<float>>(
             s.dim, ssm::Rwkv6Options{.head_dim = s.dim / s.heads, .depth = depth_of(s, block)});
       }},
      {"rwkv7", "RWKV-7's time mixing", [](auto& s, Index block) {
         return made<ssm::Rwkv7Mixing<float>>(
             s.dim, ssm::Rwkv7Options{.head_dim = s.dim / s.heads, .depth = depth_of(s, block)});
       }}};
  return all;
}

const Mixer& mixer_of(const Settings& s) {
  for (const Mixer& m : mixers()) {
    if (s.mixer == m.name) return m;
  }
  throw quern::ValueError("no such mixer: " + s.mixer);
}

}  // namespace lm
