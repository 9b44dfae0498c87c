// SPDX-License-Identifier: Apache-2.0

/// \file
/// Networks that read a picture pixel by pixel, and how they were trained.

#ifndef QUERN_EXAMPLES_SEQUENCE_CLASSIFIER_CLASSIFIER_HPP
#define QUERN_EXAMPLES_SEQUENCE_CLASSIFIER_CLASSIFIER_HPP

#include "quern/nn/layer.hpp"
#include "quern/nn/tensor.hpp"

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace classifier {

using quern::Index;
namespace nn = quern::nn;

/// Pictures as sequences (count, 784, 1) of numbers around 0, labels 0..9.
struct Pictures {
  nn::Tensor<float> pixels;
  std::vector<std::int64_t> labels;

  [[nodiscard]] Index size() const { return static_cast<Index>(labels.size()); }
};
[[nodiscard]] Pictures load_pictures(const std::string& folder, const std::string& stem,
                                     Index limit);

/// Names of all mixers, in the order of the table.
[[nodiscard]] const std::vector<std::string>& mixer_names();

struct ModelOptions {
  std::string mixer = "s4d";
  Index dim = 64;
  Index layers = 2;
  Index heads = 4;
  std::uint64_t seed = 1;
};
/// pixel -> dim, `layers` blocks of a mixer and a feed-forward network, mean over time, 10 classes.
[[nodiscard]] std::unique_ptr<nn::Layer<float>> make_network(const ModelOptions& options);

struct TrainOptions {
  int epochs = 4;
  Index batch = 50;
  double lr = 4e-3;
  double weight_decay = 0.02;
  int threads = 0;
};

/// What came of one mixer.
struct Outcome {
  std::string mixer;
  Index weights = 0;
  std::vector<double> loss, accuracy;  ///< by epoch: training loss, share of test pictures right
  double train_seconds = 0;            ///< of all epochs
  double test_seconds = 0;             ///< of the last pass over the test pictures
  Index test_pictures = 0;
};
[[nodiscard]] Outcome train(const ModelOptions& model, const TrainOptions& options,
                            const Pictures& pictures, const Pictures& test);

[[nodiscard]] std::string page(const std::vector<Outcome>& outcomes, const ModelOptions& model,
                               const TrainOptions& options);

}  // namespace classifier

#endif  // QUERN_EXAMPLES_SEQUENCE_CLASSIFIER_CLASSIFIER_HPP
