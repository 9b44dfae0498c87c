// SPDX-License-Identifier: Apache-2.0
//
// Models by the name of their mixer, and their files.

#include "lm.hpp"

#include "quern/attention/transformer.hpp"
#include "quern/core/error.hpp"
#include "quern/io/safetensors.hpp"

#include <algorithm>
#include <utility>

namespace lm {
namespace {

namespace attention = quern::attention;
namespace nn = quern::nn;

}  // namespace

std::unique_ptr<Model> make_model(const Settings& s) {
  Model::Blocks blocks;
  const Mixer& mixer = mixer_of(s);
  for (Index k = 0; k < s.blocks; ++k) {
    if (mixer.whole_block) {
      blocks.push_back(mixer.make(s, k));
      blocks.push_back(mixer.make(s, k));
    } else {
      blocks.push_back(
          std::make_unique<attention::TransformerBlock<float>>(s.dim, mixer.make(s, k)));
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
