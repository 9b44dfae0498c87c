// SPDX-License-Identifier: Apache-2.0

/// \file
/// Scenes of clothes with their masks, networks that tell each pixel's class, and their scores.

#ifndef QUERN_EXAMPLES_SEGMENT_SEGMENT_HPP
#define QUERN_EXAMPLES_SEGMENT_SEGMENT_HPP

#include "quern/core/nd_view.hpp"
#include "quern/nn/layer.hpp"
#include "quern/nn/tensor.hpp"

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

namespace segment {

using quern::Index;
namespace nn = quern::nn;

/// Height and width of a scene, and its classes: background, then the ten of Fashion-MNIST.
inline constexpr Index scene_size = 64;
inline constexpr Index class_count = 11;

/// Images (scenes, 64, 64, 1) from 0 to 1, and a class for each pixel.
struct Scenes {
  nn::Tensor<float> images;
  std::vector<std::int64_t> classes;

  [[nodiscard]] Index count() const { return images.shape()[0]; }
};

/// Up to four pictures on one canvas, at random places, mirrored or not, later ones in front, over
/// faint noise. `part`: "train" or "t10k".
Scenes make_scenes(const std::string& folder, const std::string& part, Index count,
                   std::uint64_t seed);

/// The kinds of upsampling that networks can be built with.
const std::vector<std::string>& upsampling_kinds();
/// Whether a kind has weights of its own.
bool is_learned(const std::string& kind);

/// A U-Net of three levels, or an FCN that enlarges its last features by four at once.
std::unique_ptr<nn::Layer<float>> make_unet(const std::string& kind, Index width);
std::unique_ptr<nn::Layer<float>> make_fcn(const std::string& kind, Index width);

struct TrainingOptions {
  Index epochs = 12;
  Index batch = 16;
  double lr = 6e-3;
  std::uint64_t seed = 1;
};

/// What a network came to.
struct Result {
  std::string network, kind;
  Index weights = 0;
  double miou = 0;      ///< mean over classes of intersection over union, test scenes
  double accuracy = 0;  ///< share of pixels
  double epoch_seconds = 0;
  double image_milliseconds = 0;          ///< inference
  std::vector<double> losses = {};        ///< of each epoch
  std::vector<std::int64_t> sample = {};  ///< classes of the first test scenes' pixels
};

/// Trains and judges. `tell` is called after every step with (steps done, steps in all, loss).
Result train(const std::string& network, const std::string& kind, Index width, const Scenes& scenes,
             const Scenes& test, const TrainingOptions& options,
             const std::function<void(Index, Index, double)>& tell);

/// A picture as a data URI: for the first `count` test scenes, what was seen, what was there, and
/// what each result says, side by side.
std::string sample_sheet(const Scenes& test, const std::vector<Result>& results, Index count);

}  // namespace segment

#endif  // QUERN_EXAMPLES_SEGMENT_SEGMENT_HPP
