// SPDX-License-Identifier: Apache-2.0

#include "model.hpp"

#include "quern/io/idx.hpp"
#include "quern/nn/activation.hpp"
#include "quern/nn/containers.hpp"
#include "quern/nn/conv.hpp"
#include "quern/nn/linear.hpp"
#include "quern/nn/loss.hpp"
#include "quern/nn/pooling.hpp"
#include "quern/nn/trainer.hpp"
#include "quern/optim/optimizer.hpp"

#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <functional>
#include <utility>

namespace vqvae {
namespace {

namespace nn = quern::nn;

Pictures load(const std::string& folder, const std::string& name, Index limit) {
  const auto pixels =
      quern::io::read_idx<std::uint8_t, 3>(folder + "/" + name + "-images-idx3-ubyte.gz");
  const auto labels =
      quern::io::read_idx<std::uint8_t, 1>(folder + "/" + name + "-labels-idx1-ubyte.gz");
  if (labels.extent(0) != pixels.extent(0) || pixels.extent(1) % 4 != 0 ||
      pixels.extent(2) % 4 != 0) {
    throw quern::ParseError("vqvae: " + folder + ": expected as many labels as images, of sizes " +
                            "that 4 divides");
  }
  const Index n = limit > 0 ? (std::min)(limit, pixels.extent(0)) : pixels.extent(0);
  Pictures p;
  p.images.resize({n, pixels.extent(1), pixels.extent(2), 1});
  for (Index i = 0; i < p.images.size(); ++i) {
    p.images[i] = static_cast<float>(pixels.data()[i]) / 255.0F;
  }
  p.labels.assign(labels.begin(), labels.begin() + n);
  return p;
}

}  // namespace

Data load_fashion_mnist(const std::string& folder, Index limit) {
  return {load(folder, "train", limit), load(folder, "t10k", 0)};
}

Bar::Bar(std::string what, Index images_a_step)
    : what_(std::move(what)),
      images_a_step_(images_a_step),
      start_(std::chrono::steady_clock::now()),
      drawn_(start_) {}

Bar::~Bar() {
  if (open_) std::fputc('\n', stderr);
}

double Bar::seconds() const {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start_).count();
}

bool Bar::operator()(const quern::Progress& p) {
  const Index every = (std::max)(Index{1}, p.total / 200);
  for (const quern::Metric& m : p.metrics) {
    if (p.done % every != 0) break;
    if (m.name == "loss") {
      steps.push_back(static_cast<double>(p.done));
      losses.push_back(m.value);
    }
    if (m.name == "perplexity") perplexities.push_back(m.value);
  }
  const auto now = std::chrono::steady_clock::now();
  const bool terminal = isatty(2) != 0;
  const double wait = terminal ? 0.1 : 10;
  if (p.done != p.total && std::chrono::duration<double>(now - drawn_).count() < wait) return true;
  drawn_ = now;
  const double share = static_cast<double>(p.done) / static_cast<double>(p.total);
  const double rate = static_cast<double>(p.done * images_a_step_) / seconds();
  std::string line = terminal ? "\r" : "";
  line += what_ + " [";
  for (int k = 0; k < 24; ++k) line += k < static_cast<int>(24 * share) ? '#' : '.';
  char text[96];
  std::snprintf(text, sizeof text, "] %3.0f %%  %.0f images/s", 100 * share, rate);
  line += text;
  for (const quern::Metric& m : p.metrics) {
    if (m.name == "epoch" || m.name == "batch loss") continue;
    std::snprintf(text, sizeof text, "  %s %.4g", std::string(m.name).c_str(), m.value);
    line += text;
  }
  std::fprintf(stderr, terminal ? "%s   " : "%s\n", line.c_str());
  std::fflush(stderr);
  open_ = terminal;
  return true;
}

double mean_squared_error(const Images& a, const Images& b) {
  double sum = 0;
  for (Index i = 0; i < a.size(); ++i) {
    const double apart = static_cast<double>(a[i]) - static_cast<double>(b[i]);
    sum += apart * apart;
  }
  return sum / static_cast<double>((std::max)(a.size(), Index{1}));
}

void Judge::train(const Pictures& pictures, Index epochs, std::uint64_t seed) {
  const nn::Conv2dOptions halves{
      .kernel = 3, .stride = 2, .padding = 1, .layout = nn::Layout::channels_last};
  net_ = {};
  net_.emplace<nn::Conv2d<float>>(1, 32, halves);
  net_.emplace<nn::ReLU<float>>();
  net_.emplace<nn::Conv2d<float>>(32, 64, halves);
  net_.emplace<nn::ReLU<float>>();
  net_.emplace<nn::Reshape<float>>(nn::Extents{7 * 7 * 64});
  net_.emplace<nn::Linear<float>>(7 * 7 * 64, 128);
  net_.emplace<nn::ReLU<float>>();
  net_.emplace<nn::Linear<float>>(128, 10);
  net_.initialize(seed, "judge.");
  Bar bar("classifier", 128);
  nn::Trainer<float> trainer(net_, {.epochs = epochs, .seed = seed, .progress = std::ref(bar)});
  quern::optim::Optimizer<quern::optim::Adam, float> adam;
  trainer.add_groups(adam, quern::optim::Adam{.lr = 1e-3});
  trainer.fit(
      adam, pictures.images.view(),
      [&](const nn::Shard& shard, nn::TensorView<const float> out, nn::TensorView<float> dout) {
        std::vector<std::int64_t> targets;
        for (const Index i : shard.samples) {
          targets.push_back(pictures.labels[static_cast<std::size_t>(i)]);
        }
        return nn::cross_entropy_loss<float>(
            out, targets, dout, {.loss = {.divisor = static_cast<double>(shard.batch_size)}});
      });
}

std::vector<std::int64_t> Judge::classes(const Images& images) const {
  std::vector<std::int64_t> found;
  nn::Cache<float> cache;
  const Index n = images.shape()[0], each = 500;
  for (Index at = 0; at < n; at += each) {
    const auto logits = nn::apply(net_, images.view().slice(at, (std::min)(each, n - at)), cache);
    for (Index i = 0; i < logits.shape()[0]; ++i) {
      const float* const row = logits.data() + i * 10;
      found.push_back(std::max_element(row, row + 10) - row);
    }
  }
  return found;
}

double Judge::accuracy(const Images& images, const std::vector<std::int64_t>& labels) const {
  const auto found = classes(images);
  double right = 0;
  for (std::size_t i = 0; i < found.size(); ++i) right += found[i] == labels[i] ? 1 : 0;
  return right / static_cast<double>((std::max)(found.size(), std::size_t{1}));
}

}  // namespace vqvae
