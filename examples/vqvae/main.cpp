// SPDX-License-Identifier: Apache-2.0
//
// A VQ-VAE learns pictures of clothes, a PixelCNN learns its codes, and new pictures are drawn.
// Writes a page and saves both models.

#include "model.hpp"
#include "quern/core/error.hpp"
#include "quern/core/file.hpp"
#include "quern/core/parallel.hpp"
#include "quern/io/network.hpp"
#include "quern/vq/bits.hpp"
#include "quern/vq/pixelcnn_sampler.hpp"
#include "quern/vq/usage.hpp"

#include <CLI/CLI.hpp>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <exception>
#include <functional>
#include <map>
#include <span>
#include <string>

namespace {

namespace nn = quern::nn;
namespace vq = quern::vq;
using namespace vqvae;

struct Settings {
  std::string data = "/usr/share/datasets/fashion-mnist", html = "vqvae.html", save;
  Index epochs = 3, prior_epochs = 3, judge_epochs = 3, rows = 0, samples = 200;
  Index prior_channels = 64, prior_layers = 4;
  double guidance = 1;
  std::uint64_t seed = 1;
  int threads = 0;
  vq::VqVaeOptions model = [] {
    vq::VqVaeOptions options;
    options.residual_blocks = 1;
    return options;
  }();
};

Images first(const Images& images, Index count) {
  Images some;
  some.assign(images.view().slice(0, (std::min)(count, images.shape()[0])));
  return some;
}

/// Trains and returns the seconds it took.
double fit(vq::VqVae<float>& model, const Data& data, const Settings& s, const char* what,
           Findings* found) {
  model.initialize(s.seed);
  Bar bar(what, 128);
  const auto report = vq::fit_vq_vae<float>(
      model, data.train.images.view(),
      {.epochs = s.epochs, .seed = s.seed, .threads = s.threads, .progress = std::ref(bar)});
  if (report.status != nn::TrainStatus::finished) {
    throw quern::ValueError("vqvae: training ended before its time: not a number");
  }
  if (found != nullptr) {
    found->steps = bar.steps;
    found->losses = bar.losses;
    found->perplexities = bar.perplexities;
  }
  return bar.seconds();
}

/// Grids of every class and their pictures, `each` a class, one class after the other.
Images draw(const vq::VqVae<float>& model, const vq::PixelCnn<float>& prior, Index each,
            const vq::SamplingOptions& options, std::vector<std::int64_t>& labels) {
  const vq::PixelCnnSampler<float> sampler(prior);
  labels.clear();
  for (std::int64_t c = 0; c < 10; ++c) {
    labels.insert(labels.end(), static_cast<std::size_t>(each), c);
  }
  quern::NdArray<std::int64_t, 2> codes({static_cast<Index>(labels.size()), prior.pixels()});
  sampler.sample(labels, codes.view(), options);
  return model.decode({codes.data(), static_cast<std::size_t>(codes.size())},
                      prior.options().height, prior.options().width);
}

/// Some of each class: `across` of the first of each run of `each`.
Images some_of_each(const Images& images, Index each, Index across) {
  const Index size = images.size() / images.shape()[0];
  Images out({10 * across, images.shape()[1], images.shape()[2], 1});
  for (Index c = 0; c < 10; ++c) {
    for (Index i = 0; i < across; ++i) {
      std::copy_n(images.data() + (c * each + i % each) * size, size,
                  out.data() + (c * across + i) * size);
    }
  }
  return out;
}

vq::PixelCnn<float> fit_prior(const vq::VqVae<float>& model, const Data& data, const Settings& s,
                              Findings& found) {
  const auto codes = model.encode(data.train.images.view());
  const Index side = data.train.images.shape()[1] / model.stride();
  vq::PixelCnn<float> prior({.codes = model.quantizer()->codes(),
                             .height = side,
                             .width = data.train.images.shape()[2] / model.stride(),
                             .classes = 10,
                             .channels = s.prior_channels,
                             .layers = s.prior_layers,
                             .first_kernel = 5});
  prior.initialize(s.seed);
  vq::start_embedding<float>(
      prior, dynamic_cast<const vq::VectorQuantizer<float>&>(*model.quantizer()).codebook(),
      s.seed);
  Bar bar("prior     ", 64);
  const auto report = vq::fit_pixelcnn<float>(prior, codes, data.train.labels,
                                              {.epochs = s.prior_epochs,
                                               .batch = 64,
                                               .lr = 1.5e-3,
                                               .drop_class = 0.1,
                                               .seed = s.seed,
                                               .threads = s.threads,
                                               .progress = std::ref(bar)});
  if (report.status != nn::TrainStatus::finished) {
    throw quern::ValueError("vqvae: the prior's training ended before its time: not a number");
  }
  found.prior_seconds = bar.seconds();
  found.prior_steps = bar.steps;
  found.prior_losses = bar.losses;
  const auto test = model.encode(data.test.images.view());
  vq::CodeUsage usage(found.codes);
  usage.add(test);
  found.counts = usage.counts();
  found.used = usage.used();
  found.perplexity = usage.perplexity();
  found.prior_bits_a_code = vq::pixelcnn_nats<float>(prior, test, data.test.labels) / std::log(2.0);
  return prior;
}

void judge_samples(const vq::VqVae<float>& model, const vq::PixelCnn<float>& prior,
                   const Data& data, const Settings& s, const Images& reconstructions,
                   Findings& found) {
  Judge judge;
  judge.train(data.train, s.judge_epochs, s.seed);
  found.real = judge.accuracy(data.test.images, data.test.labels);
  found.reconstructed = judge.accuracy(reconstructions, data.test.labels);
  std::vector<std::int64_t> labels;
  const Images samples = draw(model, prior, s.samples, {.seed = s.seed}, labels);
  found.sampled = judge.accuracy(samples, labels);
  const auto seen = judge.classes(samples);
  found.sampled_by_class.assign(10, 0);
  for (std::size_t i = 0; i < seen.size(); ++i) {
    const auto c = static_cast<std::size_t>(labels[i]);
    if (seen[i] == labels[i]) found.sampled_by_class[c] += 1 / static_cast<double>(s.samples);
  }
  const Images guided =
      draw(model, prior, s.samples, {.guidance = s.guidance, .seed = s.seed}, labels);
  found.sampled_guided = judge.accuracy(guided, labels);
  found.samples = some_of_each(samples, s.samples, 20);
  found.guided = some_of_each(guided, s.samples, 20);
  found.guidance = s.guidance;
}

int run(int argc, char** argv) {
  CLI::App app("A VQ-VAE and a PixelCNN prior on Fashion-MNIST.");
  Settings s;
  const std::map<std::string, vq::DecoderUpsampling> kinds = {
      {"transposed", vq::DecoderUpsampling::transposed},
      {"nearest", vq::DecoderUpsampling::nearest},
      {"bilinear", vq::DecoderUpsampling::bilinear},
      {"bicubic", vq::DecoderUpsampling::bicubic},
      {"pixel_shuffle", vq::DecoderUpsampling::pixel_shuffle}};
  app.add_option("--data", s.data, "folder with Fashion-MNIST's four files")->capture_default_str();
  app.add_option("--html", s.html, "page to write")->capture_default_str();
  app.add_option("--save", s.save, "folder for vqvae.safetensors and prior.safetensors");
  app.add_option("--epochs", s.epochs, "of the VQ-VAE")
      ->capture_default_str()
      ->check(CLI::Range(1, 10000));
  app.add_option("--prior-epochs", s.prior_epochs, "of the PixelCNN")
      ->capture_default_str()
      ->check(CLI::Range(1, 10000));
  app.add_option("--prior-channels", s.prior_channels, "of the PixelCNN")
      ->capture_default_str()
      ->check(CLI::Range(1, 4096));
  app.add_option("--prior-layers", s.prior_layers, "of the PixelCNN, after its first")
      ->capture_default_str()
      ->check(CLI::Range(0, 1000));
  app.add_option("--guidance", s.guidance, "of the guided samples: how far beyond no class")
      ->capture_default_str()
      ->check(CLI::NonNegativeNumber);
  app.add_option("--codes", s.model.codebook.codes, "in the codebook")
      ->capture_default_str()
      ->check(CLI::Range(2, 1 << 20));
  app.add_option("--upsampling", s.model.upsampling, "of the decoder")
      ->transform(CLI::CheckedTransformer(kinds))
      ->default_str("transposed");
  app.add_option("--rows", s.rows, "pictures to train on, 0 for all")
      ->check(CLI::NonNegativeNumber);
  app.add_option("--samples", s.samples, "a class, for the classifier")
      ->capture_default_str()
      ->check(CLI::Range(1, 100000));
  app.add_option("--seed", s.seed, "of weights, order and samples")->capture_default_str();
  app.add_option("--threads", s.threads, "0: all")->capture_default_str();
  CLI11_PARSE(app, argc, argv);
  quern::set_default_threads(s.threads);
  std::setvbuf(stdout, nullptr, _IOLBF, 1024);  // a line is there when it is known, also in a pipe

  const Data data = load_fashion_mnist(s.data, s.rows);
  Findings found;
  vq::VqVae<float> model(s.model);
  found.codes = model.quantizer()->codes();
  found.dim = s.model.codebook.dim;
  found.bits_a_code = vq::bits_for_codes(found.codes);
  found.grid =
      data.test.images.size() / data.test.images.shape()[0] / model.stride() / model.stride();
  found.seconds = fit(model, data, s, "VQ-VAE    ", &found);
  const Images again = model.reconstruct(data.test.images.view());
  found.mse = mean_squared_error(again, data.test.images);
  std::printf("VQ-VAE: test MSE %.5f after %.0f s\n", found.mse, found.seconds);

  vq::VqVaeOptions plain = s.model;
  plain.quantization = vq::Quantization::none;
  vq::VqVae<float> baseline(plain);
  found.baseline_seconds = fit(baseline, data, s, "baseline  ", nullptr);
  const Images smooth = baseline.reconstruct(data.test.images.view());
  found.baseline_mse = mean_squared_error(smooth, data.test.images);
  std::printf("without the quantiser: test MSE %.5f\n", found.baseline_mse);

  vq::PixelCnn<float> prior = fit_prior(model, data, s, found);
  std::printf("prior: %.2f bits a code of %d; %td of %td codes used, perplexity %.0f\n",
              found.prior_bits_a_code, found.bits_a_code, found.used, found.codes,
              found.perplexity);
  judge_samples(model, prior, data, s, again, found);
  std::printf("right class: real %.1f %%, reconstructed %.1f %%, samples %.1f %%, guided %.1f %%\n",
              100 * found.real, 100 * found.reconstructed, 100 * found.sampled,
              100 * found.sampled_guided);
  found.originals = first(data.test.images, 60);
  found.reconstructions = first(again, 60);
  found.baseline = first(smooth, 60);
  if (!s.save.empty()) {
    quern::io::save_network(s.save + "/vqvae.safetensors", model);
    quern::io::save_network(s.save + "/prior.safetensors", prior);
  }
  const std::string text = page(found);
  quern::write_file_atomically(s.html, std::as_bytes(std::span(text.data(), text.size())));
  std::printf("open %s\n", s.html.c_str());
  return 0;
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return run(argc, argv);
  } catch (const std::exception& e) {
    std::fprintf(stderr, "vqvae: %s\n", e.what());
    return 1;
  }
}
