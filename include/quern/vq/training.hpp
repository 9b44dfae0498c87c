// SPDX-License-Identifier: Apache-2.0

/// \file
/// Training loops of the ready models: a VQ-VAE on images, a PixelCnn prior on its codes. Both are
/// nn::Trainer with what these models need; use that for anything else.

#ifndef QUERN_VQ_TRAINING_HPP
#define QUERN_VQ_TRAINING_HPP

#include "quern/core/checks.hpp"
#include "quern/core/config.hpp"
#include "quern/core/nd_array.hpp"
#include "quern/core/progress.hpp"
#include "quern/core/random.hpp"
#include "quern/kernels/gemm.hpp"
#include "quern/nn/loss.hpp"
#include "quern/nn/trainer.hpp"
#include "quern/optim/optimizer.hpp"
#include "quern/vq/pixelcnn.hpp"
#include "quern/vq/vq_vae.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <numbers>
#include <span>
#include <type_traits>
#include <utility>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace vq {

struct FitOptions {
  Index epochs = 5;
  Index batch = 128;
  double lr = 1e-3;       ///< of Adam
  bool cosine = true;     ///< the rate falls to zero along half a cosine; false: constant
  double drop_class = 0;  ///< of a prior: share of grids trained without their class, for guidance
  std::uint64_t seed = 0;
  int threads = 0;
  ProgressCallback progress = {};  ///< after each step: loss, perplexity (codebooks); false cancels
};

namespace detail {

inline std::function<double(std::int64_t)> cosine_to_zero(std::int64_t steps) {
  return [steps](std::int64_t step) {
    const double part = static_cast<double>(step) / static_cast<double>(steps);
    return 0.5 * (1 + std::cos(std::numbers::pi * (std::min)(part, 1.0)));
  };
}

inline nn::TrainerOptions trainer_options(const FitOptions& options, Index samples) {
  nn::TrainerOptions trainer{.epochs = options.epochs,
                             .batch = options.batch,
                             .seed = options.seed,
                             .threads = options.threads};
  const Index steps = options.epochs * block_count(samples, (std::max)(options.batch, Index{1}));
  if (options.cosine) trainer.schedule = cosine_to_zero(steps);
  return trainer;
}

}  // namespace detail

/// Codebooks' start: k-means++ on the latents of some images. Nothing happens without a codebook.
/// Latents that are not finite are left out. ValueError where fewer different ones are left than
/// there are codes.
template <class T>
void start_codebook(VqVae<T>& model, std::type_identity_t<nn::TensorView<const T>> images,
                    std::uint64_t seed = 0, int threads = 0) {
  QuantizerLayer<T>* const quantizer = model.quantizer();
  if (quantizer == nullptr || !quantizer->starts_from_data()) return;
  nn::Tensor<T> z = model.latents(images, threads);
  const MatrixView<T> rows = z.view().rows();
  Index kept = 0;
  for (Index i = 0; i < rows.rows(); ++i) {
    const T* const row = rows.row_data(i);
    const bool finite = std::all_of(row, row + rows.cols(), [](T v) { return is_finite_bits(v); });
    if (finite && kept < i) std::copy_n(row, rows.cols(), rows.row_data(kept));
    kept += finite ? 1 : 0;
  }
  quantizer->fit_codebook(rows.slice(0, 0, kept), seed);
}

/// Trains on images (N, H, W, C): mean squared error of a number plus the quantiser's own loss. The
/// codebook starts from the latents of the first images, see start_codebook. The report's loss is
/// that of the last epoch. Not-a-number stops it, and the weights are those of the last good epoch.
template <class T>
nn::TrainReport fit_vq_vae(VqVae<T>& model, std::type_identity_t<nn::TensorView<const T>> images,
                           const FitOptions& options = {}) {
  static_cast<void>(model.output_shape(images.shape()));
  const Index n = images.extent(0);
  const Index codes = model.quantizer() ? static_cast<Index>(model.quantizer()->codes()) : 0;
  const Index grid = images.extent(1) * images.extent(2) / model.stride() / model.stride();
  start_codebook(model, images.slice(0, (std::min)(n, (std::max)(Index{256}, 8 * codes / grid))),
                 options.seed, options.threads);
  nn::TrainerOptions settings = detail::trainer_options(options, n);
  settings.progress = [&](const Progress& p) {
    if (!options.progress) return true;
    const Metric metrics[] = {p.metrics[0], {"perplexity", model.perplexity()}, p.metrics[2]};
    return options.progress({"training", p.done, p.total, std::span<const Metric>(metrics)});
  };
  nn::Trainer<T> trainer(model, settings);
  optim::Optimizer<optim::Adam, T> adam;
  trainer.add_groups(adam, optim::Adam{.lr = options.lr});
  struct Memory {
    nn::Tensor<T> in, out, dout;
  };
  std::vector<Memory> memory(static_cast<std::size_t>(settings.shards));
  return trainer.fit_steps(
      adam, n, [&](const nn::Shard& shard, nn::Cache<T>& cache, nn::GradientsView<T> gradients) {
        Memory& m = memory[shard.number];
        nn::gather_samples<T>(images, shard.samples, m.in);
        m.out.resize(m.in.shape());
        m.dout.resize(m.in.shape());
        model.forward(m.in.view(), m.out.view(), cache, nn::Mode::training);
        const double share =
            static_cast<double>(shard.size()) / static_cast<double>(shard.batch_size);
        model.set_quantizer_weight(cache, share);
        const double each = static_cast<double>(m.in.size()) / share;  // numbers of the batch
        const double mse = nn::mse_loss<T>(m.out.view(), m.in.view(), m.dout.view(),
                                           {.divisor = each, .threads = options.threads});
        model.backward(m.dout.view(), {}, cache, gradients);
        return mse + share * model.quantizer_loss(cache);
      });
}

/// A prior's embeddings from the codes themselves (K x d): scaled to a mean square of 1 and, where
/// that is not the number of channels, turned by a random matrix. Codes that mean nearly the same
/// start out alike. ShapeError for another number of codes.
template <class T>
void start_embedding(PixelCnn<T>& model, std::type_identity_t<MatrixView<const T>> codebook,
                     std::uint64_t seed = 0) {
  const Index codes = model.options().codes, c = model.options().channels, d = codebook.cols();
  expect_shape("quern::vq::start_embedding", "codebook", codebook, {codes, d});
  double squares = 0;
  for (Index k = 0; k < codes; ++k) {
    for (Index j = 0; j < d; ++j) squares += std::pow(static_cast<double>(codebook(k, j)), 2);
  }
  const double scale = squares > 0 ? std::sqrt(static_cast<double>(codes * d) / squares) : 0;
  const MatrixView<T> to = model.embedding().weight().rows();
  NdArray<T, 2> turn({d, c});
  Philox random(seed, "embedding");
  for (Index i = 0; i < d; ++i) {
    for (Index j = 0; j < c; ++j) {
      turn(i, j) = static_cast<T>(d == c ? (i == j ? scale : 0)
                                         : scale * random.normal() / std::sqrt(double(d)));
    }
  }
  kernels::gemm<T>(codebook, turn.view(), to);
}

/// Trains a prior on grids of codes, \p classes one a grid (empty where the prior has none). The
/// report's loss is nats a code.
template <class T>
nn::TrainReport fit_pixelcnn(PixelCnn<T>& model, std::span<const std::int64_t> codes,
                             std::span<const std::int64_t> classes,
                             const FitOptions& options = {}) {
  constexpr const char* function = "quern::vq::fit_pixelcnn";
  expect_in_range(function, "drop_class", options.drop_class, 0.0, 1.0);
  const nn::Tensor<T> in = pixelcnn_inputs<T>(function, model, codes, classes);
  const Index n = in.shape()[0], pixels = model.pixels();
  nn::TrainerOptions settings = detail::trainer_options(options, n);
  settings.progress = options.progress;
  nn::Trainer<T> trainer(model, settings);
  optim::Optimizer<optim::Adam, T> adam;
  trainer.add_groups(adam, optim::Adam{.lr = options.lr});
  struct Memory {
    nn::Tensor<T> in, out, dout;
    std::vector<std::int64_t> targets;
  };
  std::vector<Memory> memory(static_cast<std::size_t>(settings.shards));
  return trainer.fit_steps(
      adam, n, [&](const nn::Shard& shard, nn::Cache<T>& cache, nn::GradientsView<T> gradients) {
        Memory& m = memory[shard.number];
        nn::gather_samples<T>(in.view(), shard.samples, m.in);
        m.targets.clear();
        for (const Index sample : shard.samples) {
          m.targets.insert(m.targets.end(), codes.begin() + sample * pixels,
                           codes.begin() + (sample + 1) * pixels);
        }
        for (Index i = 0; options.drop_class > 0 && !classes.empty() && i < shard.size(); ++i) {
          if (cache.context.random(i).template uniform<double>() < options.drop_class) {
            m.in[i * (pixels + 1) + pixels] = T(-1);
          }
        }
        const nn::Extents shape = model.output_shape(m.in.shape());
        m.out.resize(shape);
        m.dout.resize(shape);
        model.forward(m.in.view(), m.out.view(), cache, nn::Mode::training);
        const double loss = nn::cross_entropy_loss<T>(
            m.out.view(), m.targets, m.dout.view(),
            {.loss = {.divisor = static_cast<double>(shard.batch_size * pixels),
                      .threads = options.threads}});
        model.backward(m.dout.view(), {}, cache, gradients);
        return loss;
      });
}

/// Mean nats a code that the prior gives to grids: their description length.
template <class T>
[[nodiscard]] double pixelcnn_nats(const PixelCnn<T>& model, std::span<const std::int64_t> codes,
                                   std::span<const std::int64_t> classes, int threads = 0) {
  const nn::Tensor<T> in = pixelcnn_inputs<T>("quern::vq::pixelcnn_nats", model, codes, classes);
  const Index n = in.shape()[0], pixels = model.pixels();
  if (n == 0) return 0;
  constexpr Index each = 64;
  const double total = parallel_reduce(
      block_count(n, each), 0.0,
      [&](std::int64_t b) {
        const BlockRange r = block_range(n, each, b);
        nn::Cache<T> cache;
        const nn::Tensor<T> logits = nn::apply(model, in.view().slice(r.begin, r.size()), cache);
        nn::Tensor<T> gradient(logits.shape());
        return nn::cross_entropy_loss<T>(logits.view(),
                                         codes.subspan(static_cast<std::size_t>(r.begin * pixels),
                                                       static_cast<std::size_t>(r.size() * pixels)),
                                         gradient.view(), {.loss = {.mean = false}});
      },
      [](double a, double b) { return a + b; }, threads);
  return total / static_cast<double>(codes.size());
}

}  // namespace vq
QUERN_NAMESPACE_END

#endif  // QUERN_VQ_TRAINING_HPP
