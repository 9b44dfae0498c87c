// SPDX-License-Identifier: Apache-2.0

#include "quern/core/error.hpp"
#include "quern/nn/activation.hpp"
#include "quern/nn/channel_norm.hpp"
#include "quern/nn/containers.hpp"
#include "quern/nn/conv.hpp"
#include "quern/nn/loss.hpp"
#include "quern/nn/pooling.hpp"
#include "quern/nn/sequential.hpp"
#include "quern/nn/shuffle.hpp"
#include "quern/nn/trainer.hpp"
#include "quern/nn/upsample.hpp"
#include "quern/optim/optimizer.hpp"
#include "segment.hpp"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <utility>

namespace segment {
namespace {

constexpr nn::Layout last = nn::Layout::channels_last;
using Net = nn::Sequential<float>;
using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

void conv(Net& net, Index in, Index out, Index kernel = 3) {
  net.emplace<nn::Conv2d<float>>(
      in, out, nn::Conv2dOptions{.kernel = kernel, .padding = kernel / 2, .layout = last});
}
/// Convolution, norm, activation.
void block(Net& net, Index in, Index out) {
  conv(net, in, out);
  net.emplace<nn::BatchNorm<float>>(out, nn::ChannelNormOptions{.layout = last});
  net.emplace<nn::ReLU<float>>();
}
void halve(Net& net) { net.emplace<nn::MaxPool2d<float>>(nn::PoolOptions{.layout = last}); }

nn::Interpolation interpolation(const std::string& kind) {
  if (kind == "nearest") return nn::Interpolation::nearest;
  if (kind == "bilinear") return nn::Interpolation::linear;
  if (kind == "bicubic") return nn::Interpolation::cubic;
  throw quern::ValueError(quern::error_text("segment", "upsampling", "a kind of the list", kind));
}

/// Features `factor` times as large, with `out` channels. Interpolations bring the channels down
/// before, where there are fewer pixels.
void enlarge(Net& net, const std::string& kind, Index in, Index out, Index factor) {
  if (kind == "transposed" || kind == "transposed-bilinear") {
    auto& up = net.emplace<nn::ConvTranspose2d<float>>(
        in, out,
        nn::Conv2dOptions{
            .kernel = 2 * factor, .stride = factor, .padding = factor / 2, .layout = last});
    if (kind == "transposed-bilinear") nn::fill_bilinear(up.weight());
  } else if (kind == "shuffle") {
    conv(net, in, out * factor * factor);
    net.emplace<nn::PixelShuffle<float>>(factor, last);
  } else {
    conv(net, in, out, 1);
    net.emplace<nn::Upsample<float>>(static_cast<double>(factor), interpolation(kind), last);
  }
}

std::unique_ptr<nn::Layer<float>> owned(Net net) { return std::make_unique<Net>(std::move(net)); }

/// Classes of some scenes, a few at a time.
std::vector<std::int64_t> classify(const nn::Layer<float>& net, const Scenes& scenes) {
  std::vector<std::int64_t> out;
  nn::Cache<float> cache;
  constexpr Index some = 16;
  for (Index first = 0; first < scenes.count(); first += some) {
    const Index count = (std::min)(some, scenes.count() - first);
    const nn::Tensor<float> logits =
        nn::apply<float>(net, scenes.images.view().slice(first, count), cache);
    for (Index p = 0; p < logits.size(); p += class_count) {
      const float* const row = logits.data() + p;
      out.push_back(std::max_element(row, row + class_count) - row);
    }
  }
  return out;
}

void judge(Result& result, const Scenes& test, const std::vector<std::int64_t>& said) {
  std::vector<double> both(static_cast<std::size_t>(class_count)), either(both);
  double right = 0;
  for (std::size_t i = 0; i < said.size(); ++i) {
    const auto is = static_cast<std::size_t>(test.classes[i]);
    const auto told = static_cast<std::size_t>(said[i]);
    if (is == told) {
      ++right;
      ++both[is];
      ++either[is];
    } else {
      ++either[is];
      ++either[told];
    }
  }
  double sum = 0, present = 0;
  for (std::size_t c = 0; c < both.size(); ++c) {
    if (either[c] == 0) continue;
    sum += both[c] / either[c];
    ++present;
  }
  result.miou = present > 0 ? sum / present : 0;
  result.accuracy = right / static_cast<double>((std::max)(said.size(), std::size_t{1}));
}

}  // namespace

const std::vector<std::string>& upsampling_kinds() {
  static const std::vector<std::string> kinds = {
      "nearest", "bilinear", "bicubic", "transposed", "transposed-bilinear", "shuffle"};
  return kinds;
}

bool is_learned(const std::string& kind) {
  return kind == "shuffle" || kind.rfind("transposed", 0) == 0;
}

std::unique_ptr<nn::Layer<float>> make_unet(const std::string& kind, Index width) {
  Net bottom;
  halve(bottom);
  block(bottom, 2 * width, 4 * width);
  block(bottom, 4 * width, 4 * width);
  enlarge(bottom, kind, 4 * width, 2 * width, 2);
  Net middle;
  halve(middle);
  block(middle, width, 2 * width);
  middle.add(std::make_unique<nn::SkipConcat<float>>(owned(std::move(bottom)), -1));
  block(middle, 4 * width, 2 * width);
  enlarge(middle, kind, 2 * width, width, 2);
  Net top;
  block(top, 1, width);
  top.add(std::make_unique<nn::SkipConcat<float>>(owned(std::move(middle)), -1));
  block(top, 2 * width, width);
  conv(top, width, class_count, 1);
  return owned(std::move(top));
}

std::unique_ptr<nn::Layer<float>> make_fcn(const std::string& kind, Index width) {
  Net net;
  block(net, 1, width);
  halve(net);
  block(net, width, 2 * width);
  halve(net);
  block(net, 2 * width, 4 * width);
  block(net, 4 * width, 4 * width);
  enlarge(net, kind, 4 * width, class_count, 4);
  return owned(std::move(net));
}

Result train(const std::string& network, const std::string& kind, Index width, const Scenes& scenes,
             const Scenes& test, const TrainingOptions& options,
             const std::function<void(Index, Index, double)>& tell) {
  const auto net = network == "FCN" ? make_fcn(kind, width) : make_unet(kind, width);
  Result result{.network = network, .kind = kind, .weights = nn::weight_count(*net)};
  nn::TrainerOptions training{
      .epochs = options.epochs, .batch = options.batch, .seed = options.seed};
  const double steps =
      static_cast<double>(options.epochs * ((scenes.count() + options.batch - 1) / options.batch));
  training.schedule = [steps](std::int64_t step) {
    return 0.5 + 0.5 * std::cos(3.14159265358979 * static_cast<double>(step) / steps);
  };
  double loss = 0;
  training.progress = [&](const quern::Progress& p) {
    loss = p.metrics[0].value;
    tell(p.done, p.total, loss);
    return true;
  };
  nn::Trainer<float> trainer(*net, training);
  trainer.on_epoch = [&] { result.losses.push_back(loss); };
  quern::optim::Optimizer<quern::optim::AdamW, float> adamw;
  trainer.add_groups(adamw, quern::optim::AdamW{.lr = options.lr});
  const auto start = Clock::now();
  const nn::TrainReport report = trainer.fit(
      adamw, scenes.images.view(),
      [&](const nn::Shard& shard, nn::TensorView<const float> out, nn::TensorView<float> dout) {
        constexpr Index pixels = scene_size * scene_size;
        std::vector<std::int64_t> classes;
        for (const Index n : shard.samples) {
          const auto from = scenes.classes.begin() + n * pixels;
          classes.insert(classes.end(), from, from + pixels);
        }
        return nn::cross_entropy_loss<float>(
            out, classes, dout,
            {.loss = {.divisor = static_cast<double>(shard.batch_size * pixels)}});
      });
  result.epoch_seconds =
      seconds_since(start) / static_cast<double>((std::max)(options.epochs, Index{1}));
  if (report.status == nn::TrainStatus::not_finite) {
    throw quern::ValueError("segment: the training of " + network + ", " + kind +
                            " left the finite numbers; try a lower --lr");
  }
  const auto begin = Clock::now();
  const std::vector<std::int64_t> said = classify(*net, test);
  result.image_milliseconds = 1e3 * seconds_since(begin) / static_cast<double>(test.count());
  judge(result, test, said);
  const std::size_t shown = 8 * scene_size * scene_size;
  result.sample.assign(said.begin(),
                       said.begin() + static_cast<std::ptrdiff_t>((std::min)(shown, said.size())));
  return result;
}

}  // namespace segment
