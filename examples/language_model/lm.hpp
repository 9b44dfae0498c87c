// SPDX-License-Identifier: Apache-2.0

/// \file
/// Parts of the example: settings, models by the name of their mixer, training, measuring.

#ifndef QUERN_EXAMPLES_LANGUAGE_MODEL_LM_HPP
#define QUERN_EXAMPLES_LANGUAGE_MODEL_LM_HPP

#include "quern/attention/language_model.hpp"

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace lm {

using quern::Index;
using Model = quern::attention::LanguageModel<float>;
using Layer = quern::nn::SequenceLayer<float>;

struct Settings {
  std::string mixer = "flash";
  Index dim = 128;
  Index blocks = 4;  ///< transformer blocks, or pairs of gated units
  Index heads = 4;
  Index context = 256;
  Index batch = 8;
  Index window = 64;  ///< of local attention, and the group of FLASH
  std::int64_t steps = 600;
  double lr = 2e-3;
  std::uint64_t seed = 1;
  std::int64_t report_every = 50;
  Index held_out_bytes = 1 << 16;
  std::string folder;  ///< where the model is kept; empty: nowhere
  bool resume = false;
};

/// A text, cut into what is learnt and what is held out (its last twentieth).
struct Text {
  std::vector<std::uint8_t> train, held_out;
};
Text read_text(const std::string& path);

/// What mixes positions, by name.
struct Mixer {
  const char* name;
  const char* about;
  std::function<std::unique_ptr<Layer>(const Settings&, Index block)> make;
  bool whole_block = false;  ///< no feed-forward network beside it: two stand for a block
};
const std::vector<Mixer>& mixers();
/// That of these settings; ValueError where there is none.
const Mixer& mixer_of(const Settings& settings);
std::unique_ptr<Model> make_model(const Settings& settings);

/// What a training run gave.
struct Report {
  std::string mixer;
  Index weights = 0;
  std::vector<double> steps, train_bits;  ///< bits per byte along the way
  double held_out_bits = 0;
  double train_rate = 0;   ///< tokens a second
  double decode_rate = 0;  ///< tokens a second, one sequence
  double peak_mib = 0;     ///< of the process while training; 0 where the system does not say
};

/// Trains (or goes on with) a model; prints as it goes.
Report train(Model& model, const Settings& settings, const Text& text);

/// Bits per byte of held-out text.
double held_out_bits(const Model& model, const Settings& settings, const Text& text);

/// Continues a prompt; `rate` becomes the tokens a second of decoding.
std::string continue_text(const Model& model, const std::string& prompt, Index tokens,
                          double temperature, Index top_k, std::uint64_t seed, double* rate);

/// Weights to and from a safetensors file.
void save_model(Model& model, const Settings& settings, const std::string& path);
void load_model(Model& model, const std::string& path);

}  // namespace lm

#endif  // QUERN_EXAMPLES_LANGUAGE_MODEL_LM_HPP
