// SPDX-License-Identifier: Apache-2.0
//
// Models by the name of their mixer, and their files.

#include "lm.hpp"

#include "quern/attention/attention_layers.hpp"
#include "quern/attention/gated_layers.hpp"
#include "quern/attention/sparse_layers.hpp"
#include "quern/attention/transformer.hpp"
#include "quern/core/error.hpp"
#include "quern/io/safetensors.hpp"

#include <algorithm>
#include <utility>

namespace lm {
namespace {

namespace attention = quern::attention;
namespace nn = quern::nn;
using Layer = nn::SequenceLayer<float>;

/// Half of each head's channels turn with the position.
attention::MultiHeadSizes sizes_of(const Settings& s) {
  return {.dim = s.dim, .heads = s.heads, .rotary_dims = s.dim / s.heads / 2 / 2 * 2};
}

std::unique_ptr<Layer> over_pattern(const Settings& s, const attention::SparsePattern& pattern) {
  return std::make_unique<attention::SparseSelfAttention<float>>(sizes_of(s), pattern);
}

/// Linear attention by the name of its feature map.
std::unique_ptr<Layer> linear(const Settings& s) {
  using attention::Feature;
  attention::LinearLayerOptions options;
  if (s.mixer == "linear-identity") {
    options = {.feature = Feature::identity, .normalise = false};
  } else if (s.mixer == "linear-exp") {
    options.feature = Feature::exp;
  } else if (s.mixer == "retention") {
    options = {.feature = Feature::identity, .normalise = false, .retention = true};
  } else if (s.mixer != "linear-elu1") {
    throw quern::ValueError("no such mixer: " + s.mixer);
  }
  return std::make_unique<attention::LinearSelfAttention<float>>(sizes_of(s), options);
}

/// The part of a transformer block that mixes positions.
std::unique_ptr<Layer> mixer_of_block(const Settings& s) {
  using attention::SparsePattern;
  if (s.mixer == "softmax") {
    return std::make_unique<attention::SoftmaxSelfAttention<float>>(sizes_of(s));
  }
  if (s.mixer == "local") {
    return over_pattern(s, SparsePattern::local(s.window, {.causal = true, .exact = true}));
  }
  if (s.mixer == "strided") return over_pattern(s, SparsePattern::strided(s.window / 4 + 1));
  if (s.mixer == "fixed") return over_pattern(s, SparsePattern::fixed(s.window, 4));
  if (s.mixer == "performer") {
    return std::make_unique<attention::PerformerSelfAttention<float>>(
        sizes_of(s), attention::PerformerLayerOptions{.seed = s.seed});
  }
  return linear(s);
}

/// A gated unit: attention and feed-forward in one, so two of them stand for a block.
std::unique_ptr<Layer> gated_unit(const Settings& s) {
  const attention::GatedSizes sizes{.dim = s.dim, .qk = (std::max)(Index{16}, s.dim / 2)};
  attention::GatedUnitOptions<float> options{.causal = true, .rotary_dims = 16};
  options.group = s.window;
  options.length_scale = s.context;
  if (s.mixer == "flash") return std::make_unique<attention::FlashLayer<float>>(sizes, options);
  if (s.mixer == "gau-laplace") options.activation = attention::GateActivation::laplace;
  if (s.mixer == "gau-softmax") options.activation = attention::GateActivation::softmax_plus;
  return std::make_unique<attention::GauLayer<float>>(sizes, options);
}

}  // namespace

const std::vector<Mixer>& mixers() {
  static const std::vector<Mixer> all = {
      {"softmax", "softmax attention and a feed-forward network, rotary positions"},
      {"local", "the same with a window"},
      {"strided", "the same with a stride"},
      {"fixed", "the same with blocks and their last keys"},
      {"linear-identity", "linear attention, no feature map and no normaliser"},
      {"linear-elu1", "linear attention, elu + 1"},
      {"linear-exp", "linear attention, exp"},
      {"retention", "linear attention whose heads forget at fixed rates"},
      {"performer", "softmax attention by random features"},
      {"gau", "gated attention units, squared ReLU"},
      {"gau-laplace", "gated attention units, Laplace"},
      {"gau-softmax", "gated attention units, softmax-plus"},
      {"flash", "gated units in linear time: quadratic within groups, linear between"}};
  return all;
}

std::unique_ptr<Model> make_model(const Settings& s) {
  Model::Blocks blocks;
  const bool gated = s.mixer == "flash" || s.mixer.rfind("gau", 0) == 0;
  for (Index k = 0; k < s.blocks; ++k) {
    if (gated) {
      blocks.push_back(gated_unit(s));
      blocks.push_back(gated_unit(s));
    } else {
      blocks.push_back(
          std::make_unique<attention::TransformerBlock<float>>(s.dim, mixer_of_block(s)));
    }
  }
  auto model = std::make_unique<Model>(
      attention::LanguageModelSizes{.vocabulary = 256, .dim = s.dim}, std::move(blocks));
  model->initialize(s.seed);
  return model;
}

void save_model(Model& model, const Settings& s, const std::string& path) {
  quern::io::SafetensorsWriter writer;
  for (const auto& [key, value] : {std::pair<std::string, Index>{"dim", s.dim},
                                   {"blocks", s.blocks},
                                   {"heads", s.heads},
                                   {"context", s.context},
                                   {"window", s.window}}) {
    writer.set_metadata(key, std::to_string(value));
  }
  writer.set_metadata("mixer", s.mixer);
  for (const auto& p : nn::parameters_of<float>(model)) {
    writer.add(p.name, quern::io::SafetensorType::f32, p.values.shape(),
               std::as_bytes(p.values.span()));
  }
  writer.write(path);
}

void load_model(Model& model, const std::string& path) {
  const auto file = quern::io::Safetensors::read(path);
  for (const auto& p : nn::parameters_of<float>(model)) {
    const std::vector<float> values = file.values<float>(p.name);
    if (static_cast<Index>(values.size()) != p.values.size()) {
      throw quern::ShapeError(path + ": " + p.name + " has another size");
    }
    std::copy(values.begin(), values.end(), p.values.begin());
  }
}

}  // namespace lm
