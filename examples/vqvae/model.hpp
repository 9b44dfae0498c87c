// SPDX-License-Identifier: Apache-2.0

/// \file
/// Parts of the VQ-VAE example: data, the bar, the judge of samples, the page.

#ifndef QUERN_EXAMPLES_VQVAE_MODEL_HPP
#define QUERN_EXAMPLES_VQVAE_MODEL_HPP

#include "quern/core/progress.hpp"
#include "quern/nn/layer.hpp"
#include "quern/vq/training.hpp"
#include "quern/vq/vq_vae.hpp"

#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

namespace vqvae {

using quern::Index;
using Images = quern::nn::Tensor<float>;  ///< (N, 28, 28, 1), 0 to 1

inline constexpr const char* class_names[] = {"T-shirt", "trouser", "pullover", "dress", "coat",
                                              "sandal",  "shirt",   "sneaker",  "bag",   "boot"};

struct Pictures {
  Images images;
  std::vector<std::int64_t> labels;
};

struct Data {
  Pictures train, test;
};

/// Fashion-MNIST's four IDX files, as Debian's dataset-fashion-mnist has them. At most `limit`
/// pictures to train on; 0: all.
[[nodiscard]] Data load_fashion_mnist(const std::string& folder, Index limit);

/// One line that is drawn over: how far, how fast, the metrics.
class Bar {
 public:
  Bar(std::string what, Index images_a_step);
  ~Bar();
  Bar(const Bar&) = delete;
  Bar& operator=(const Bar&) = delete;
  bool operator()(const quern::Progress& progress);
  [[nodiscard]] double seconds() const;
  /// Loss and perplexity as they were told, some hundred of each.
  std::vector<double> steps, losses, perplexities;

 private:
  std::string what_;
  Index images_a_step_;
  std::chrono::steady_clock::time_point start_, drawn_;
  bool open_ = false;
};

[[nodiscard]] double mean_squared_error(const Images& a, const Images& b);

/// A small convolutional network that tells the ten classes apart.
class Judge {
 public:
  void train(const Pictures& pictures, Index epochs, std::uint64_t seed);
  /// Class of each image.
  [[nodiscard]] std::vector<std::int64_t> classes(const Images& images) const;
  /// Share of images that are given their label.
  [[nodiscard]] double accuracy(const Images& images,
                                const std::vector<std::int64_t>& labels) const;

 private:
  quern::nn::Sequential<float> net_;
};

/// What the run found.
struct Findings {
  double mse = 0, baseline_mse = 0, perplexity = 0;
  double seconds = 0, baseline_seconds = 0, prior_seconds = 0;
  Index codes = 0, used = 0, grid = 0, dim = 0;
  int bits_a_code = 0;
  double prior_bits_a_code = 0;
  double real = 0, reconstructed = 0, sampled = 0, sampled_guided = 0, guidance = 0;
  std::vector<double> sampled_by_class;
  std::vector<std::int64_t> counts;  ///< of codes on the test images
  std::vector<double> steps, losses, perplexities, prior_steps, prior_losses;
  Images originals, reconstructions, baseline, samples, guided;  ///< what is shown
};

[[nodiscard]] std::string page(const Findings& found);

}  // namespace vqvae

#endif  // QUERN_EXAMPLES_VQVAE_MODEL_HPP
