// SPDX-License-Identifier: Apache-2.0
//
// Reading pictures, training, testing.

#include "classifier.hpp"
#include "quern/io/idx.hpp"
#include "quern/nn/loss.hpp"
#include "quern/nn/trainer.hpp"
#include "quern/optim/optimizer.hpp"
#include "quern/optim/schedule.hpp"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <numbers>

namespace classifier {
namespace {

namespace optim = quern::optim;

constexpr Index pixels = 784;

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

/// Share of pictures whose largest output is their label's.
double accuracy(const nn::Layer<float>& net, const Pictures& pictures, Index batch, int threads) {
  Index right = 0;
  nn::Cache<float> cache;
  cache.context.threads = threads;
  for (Index first = 0; first < pictures.size(); first += batch) {
    const Index count = (std::min)(batch, pictures.size() - first);
    const nn::Tensor<float> out = nn::apply(net, pictures.pixels.view().slice(first, count), cache);
    for (Index i = 0; i < count; ++i) {
      const float* const row = out.data() + i * 10;
      const auto best = std::max_element(row, row + 10) - row;
      if (best == pictures.labels[static_cast<std::size_t>(first + i)]) ++right;
    }
  }
  return static_cast<double>(right) / static_cast<double>((std::max)(Index{1}, pictures.size()));
}

/// Rises over the first twentieth, then falls along half a cosine.
double rate(std::int64_t step, std::int64_t steps) {
  const double along =
      static_cast<double>(step) / static_cast<double>((std::max)(steps, std::int64_t{1}));
  if (along < 0.05) return (along + 0.001) / 0.051;
  return 0.5 + 0.5 * std::cos(std::numbers::pi * (along - 0.05) / 0.95);
}

}  // namespace

Pictures load_pictures(const std::string& folder, const std::string& stem, Index limit) {
  const std::string path = folder + "/" + stem;
  const auto images = quern::io::read_idx<std::uint8_t, 3>(path + "-images-idx3-ubyte.gz");
  const auto labels = quern::io::read_idx<std::int64_t, 1>(path + "-labels-idx1-ubyte.gz");
  const Index n = limit > 0 ? (std::min)(limit, images.extent(0)) : images.extent(0);
  Pictures out;
  out.pixels.resize({n, pixels, 1});
  for (Index i = 0; i < n * pixels; ++i) {  // mean and deviation of the training pictures
    out.pixels[i] = (static_cast<float>(images.data()[i]) / 255.0F - 0.286F) / 0.353F;
  }
  out.labels.assign(labels.data(), labels.data() + n);
  return out;
}

Outcome train(const ModelOptions& model, const TrainOptions& options, const Pictures& pictures,
              const Pictures& test) {
  const std::unique_ptr<nn::Layer<float>> net = make_network(model);
  Outcome out;
  out.mixer = model.mixer;
  out.weights = nn::weight_count(*net);
  out.test_pictures = test.size();
  const std::int64_t steps =
      options.epochs * ((pictures.size() + options.batch - 1) / options.batch);
  nn::TrainerOptions how;
  how.epochs = options.epochs;
  how.batch = options.batch;
  how.seed = model.seed;
  how.threads = options.threads;
  how.schedule = [steps](std::int64_t step) { return rate(step, steps); };
  double loss = 0;
  how.progress = [&](const quern::Progress& p) {
    loss = p.metrics[0].value;
    if (p.done % 20 == 0 || p.done == p.total) {
      std::printf("\r%-8s %6lld of %lld batches, loss %.4f ", model.mixer.c_str(),
                  static_cast<long long>(p.done), static_cast<long long>(p.total), loss);
      std::fflush(stdout);
    }
    return true;
  };
  nn::Trainer<float> trainer(*net, how);
  optim::Optimizer<optim::AdamW, float> adamw;
  trainer.add_groups(adamw, optim::AdamW{.lr = options.lr, .weight_decay = options.weight_decay});
  auto start = std::chrono::steady_clock::now();
  trainer.validate = [&] {
    out.train_seconds += seconds_since(start);
    const auto begin = std::chrono::steady_clock::now();
    out.loss.push_back(loss);
    out.accuracy.push_back(accuracy(*net, test, options.batch, options.threads));
    out.test_seconds = seconds_since(begin);
    std::printf("\r%-8s epoch %zu: loss %.4f, test accuracy %.4f, %.0f s\n", model.mixer.c_str(),
                out.loss.size(), loss, out.accuracy.back(), out.train_seconds);
    std::fflush(stdout);
    start = std::chrono::steady_clock::now();
    return 1 - out.accuracy.back();
  };
  trainer.fit(adamw, pictures.pixels.view(),
              [&](const nn::Shard& shard, nn::TensorView<const float> scores,
                  nn::TensorView<float> gradient) {
                std::vector<std::int64_t> labels;
                for (const Index i : shard.samples) {
                  labels.push_back(pictures.labels[static_cast<std::size_t>(i)]);
                }
                return nn::cross_entropy_loss<float>(
                    scores, labels, gradient,
                    {.loss = {.divisor = static_cast<double>(shard.batch_size)}});
              });
  return out;
}

}  // namespace classifier
