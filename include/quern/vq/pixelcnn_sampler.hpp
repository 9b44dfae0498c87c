// SPDX-License-Identifier: Apache-2.0

/// \file
/// Grids of codes drawn from a PixelCnn, pixel by pixel. Each layer's output is kept, and only the
/// new pixel's is worked out: one product a layer and pixel for all grids at once, over the mask's
/// taps alone. A grid of P pixels costs what one pass of the network over it does, not P passes.

#ifndef QUERN_VQ_PIXELCNN_SAMPLER_HPP
#define QUERN_VQ_PIXELCNN_SAMPLER_HPP

#include "quern/core/checks.hpp"
#include "quern/core/config.hpp"
#include "quern/core/nd_array.hpp"
#include "quern/core/parallel.hpp"
#include "quern/core/progress.hpp"
#include "quern/core/random.hpp"
#include "quern/kernels/gemm.hpp"
#include "quern/kernels/kernels.hpp"
#include "quern/vq/pixelcnn.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <span>
#include <string>
#include <utility>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace vq {

struct SamplingOptions {
  double temperature = 1;  ///< divides the logits; 0: the likeliest code
  Index top_k = 0;         ///< draw from the k likeliest codes only; 0: from all
  /// w: logits become (1 + w) those given the class - w those given none (J. Ho, T. Salimans,
  /// "Classifier-free diffusion guidance", 2022). For models with classes that were also trained
  /// without (FitOptions::drop_class); twice the work.
  double guidance = 0;
  std::uint64_t seed = 0;
  std::uint64_t first = 0;  ///< number of the first grid: grid i does not depend on the others
  int threads = 0;
  ProgressCallback progress = {};  ///< after every pixel; false cancels
};

/// A code drawn from a row of logits with \p u uniform in [0, 1). Of equal logits at the edge of
/// the top k the lower codes stay.
template <class T>
[[nodiscard]] std::int64_t draw_code(std::span<const T> row, double u,
                                     const SamplingOptions& options) {
  const std::size_t n = row.size();
  if (options.temperature == 0) {
    return static_cast<std::int64_t>(QUERN_DISPATCH(arg_max<T>(row.data(), n)));
  }
  std::vector<bool> out(n, false);
  if (options.top_k > 0 && options.top_k < static_cast<Index>(n)) {
    std::vector<std::size_t> order(n);
    std::iota(order.begin(), order.end(), std::size_t{0});
    const auto k = static_cast<std::ptrdiff_t>(options.top_k);
    std::nth_element(order.begin(), order.begin() + k - 1, order.end(),
                     [&](std::size_t a, std::size_t b) {
                       return row[a] > row[b] || (row[a] == row[b] && a < b);
                     });
    for (auto i = static_cast<std::size_t>(k); i < n; ++i) out[order[i]] = true;
  }
  const T largest = QUERN_DISPATCH(max_value<T>(row.data(), n));
  double total = 0;
  std::vector<double> p(n, 0.0);
  for (std::size_t i = 0; i < n; ++i) {
    if (out[i]) continue;
    p[i] = std::exp((static_cast<double>(row[i]) - static_cast<double>(largest)) /
                    options.temperature);
    total += p[i];
  }
  double left = u * total;
  std::size_t code = 0;
  for (std::size_t i = 0; i < n; ++i) {
    if (p[i] == 0) continue;
    code = i;
    left -= p[i];
    if (left < 0) break;
  }
  return static_cast<std::int64_t>(code);
}

namespace detail {

/// A masked convolution at some pixels as a product: neighbours side by side times weights.
template <class T>
struct MaskedProduct {
  MaskedProduct() = default;
  /// \p count taps, the first in raster order.
  MaskedProduct(const nn::Conv2d<T>& conv, Index count) : taps(count) {
    const nn::TensorView<const T> w = conv.weight();
    outputs = w.extent(0);
    inputs = w.extent(1);
    side = w.extent(3);
    above = w.extent(2) / 2;
    left = side / 2;
    const Index all = w.extent(2) * side;
    NdArray<T, 2> matrix({taps * inputs, outputs});
    for (Index t = 0; t < taps; ++t) {
      for (Index c = 0; c < inputs; ++c) {
        for (Index f = 0; f < outputs; ++f) {
          matrix(t * inputs + c, f) = w[(f * inputs + c) * all + t];
        }
      }
    }
    packed = kernels::PackedMatrix<T>(matrix.view());
    bias.assign(static_cast<std::size_t>(outputs), T(0));
    if (!conv.bias().null()) std::copy(conv.bias().begin(), conv.bias().end(), bias.begin());
  }

  /// out = the product with these neighbours.
  void multiply(MatrixView<const T> in, MatrixView<T> out, int threads) const {
    if (taps == 0) {
      for (Index i = 0; i < out.rows(); ++i) {
        std::copy(bias.begin(), bias.end(), out.row_data(i));
      }
      return;
    }
    packed.multiply(
        in,
        kernels::StoreActivated<T>{out.data(), out.row_stride(), 1, T(1), nullptr, bias.data(), {}},
        threads);
  }

  Index inputs = 0, outputs = 0, taps = 0, above = 0, left = 0, side = 1;
  kernels::PackedMatrix<T> packed;
  std::vector<T> bias;
};

}  // namespace detail

/// Draws grids from a model; makes the model's weights ready once. The model must not change
/// meanwhile. Of two stacks the vertical one is worked out once a row, for all of its pixels.
template <class T>
class PixelCnnSampler {
  using Product = detail::MaskedProduct<T>;

 public:
  explicit PixelCnnSampler(const PixelCnn<T>& model) : model_(&model) {
    const PixelCnnOptions& o = model.options();
    const bool two = o.stacks == 2;
    const Index first = o.first_kernel / 2 * o.first_width, half = o.kernel / 2;
    if (!two) first_ = Product(model.first(), first + o.first_width / 2);
    for (Index k = 0; k < model.gated_layers(); ++k) {
      if (two) {
        verticals_.emplace_back(model.vertical(k), k == 0 ? first : (half + 1) * o.kernel);
        links_.emplace_back(model.link(k), 1);
        gates_.emplace_back(model.horizontal(k), k == 0 ? o.first_width / 2 : half + 1);
      } else {
        gates_.emplace_back(model.gate(k), half * o.kernel + half + 1);
      }
      outs_.emplace_back(model.gated_out(k), 1);
    }
    logits_ = Product(model.logits(), 1);
    for (const auto* list : {&verticals_, &gates_}) {
      for (const Product& m : *list) most_taps_ = (std::max)(most_taps_, m.taps);
    }
    most_taps_ = (std::max)(most_taps_, first_.taps);
  }

  /// One grid for each class (-1: none; any number where the model has no classes): codes N x (H
  /// W). ValueError for a class that there is not, a negative temperature, top_k or guidance, and
  /// for guidance without classes.
  void sample(std::span<const std::int64_t> classes, MatrixView<std::int64_t> codes,
              const SamplingOptions& options = {}) const {
    constexpr const char* function = "quern::vq::PixelCnnSampler::sample";
    const PixelCnnOptions& o = model_->options();
    const Index n = static_cast<Index>(classes.size());
    expect_shape(function, "codes", codes, {n, model_->pixels()});
    if (!(options.temperature >= 0) || options.top_k < 0) {
      throw ValueError(
          error_text(function, "temperature, top_k", "at least 0",
                     (std::min)(options.temperature, static_cast<double>(options.top_k))));
    }
    if (!(options.guidance >= 0) || (options.guidance > 0 && o.classes == 0)) {
      throw ValueError(error_text(function, "guidance", "at least 0, 0 for a model without classes",
                                  options.guidance));
    }
    std::vector<std::int64_t> labels(classes.begin(), classes.end());
    for (std::int64_t& c : labels) {
      if (o.classes == 0) c = -1;
      expect_in_range(function, "classes", Index{c}, Index{-1}, o.classes - 1);
    }
    if (n == 0) return;
    // Guided: the same grids again, without a class.
    if (options.guidance > 0) labels.resize(2 * labels.size(), -1);
    Grids grids(*model_, std::move(labels), most_taps_);
    for (Index p = 0; p < model_->pixels(); ++p) {
      if (o.stacks == 2 && p % o.width == 0) start_row(p / o.width, options, grids);
      draw_pixel(p, codes, options, grids);
      report(options.progress, function, {"sampling", p + 1, model_->pixels()});
    }
  }

 private:
  /// What has been worked out so far: maps (N, H, W, C) of the embedding and of each layer's
  /// output, the vertical stack's, its links of the row at hand (layer, N W, 2 C), and scratch.
  struct Grids {
    Grids(const PixelCnn<T>& model, std::vector<std::int64_t> labels, Index taps)
        : classes(std::move(labels)),
          count(static_cast<Index>(classes.size())),
          height(model.options().height),
          width(model.options().width) {
      const Index n = count, c = model.options().channels, layers = model.gated_layers();
      const bool two = model.options().stacks == 2;
      const Shape<4> map{n, height, width, c};
      // The embedding, one stack's first convolution, then the layers.
      for (Index k = 0; k < layers + (two ? 1 : 2); ++k) maps.emplace_back(map);
      for (Index k = 0; two && k + 1 < layers; ++k) verticals.emplace_back(map);
      const Index across = two ? width : 1;
      if (two) links.resize({layers, n * width, 2 * c}, core::Fill::none);
      gate.resize({n * across, 2 * c}, core::Fill::none);
      gated.resize({n, c}, core::Fill::none);
      logits.resize({n, model.options().codes}, core::Fill::none);
      around.resize({n * across, taps * c}, core::Fill::none);
    }
    std::vector<std::int64_t> classes;  ///< -1: none
    Index count, height, width;
    std::vector<NdArray<T, 4>> maps, verticals;
    NdArray<T, 3> links;
    NdArray<T, 2> gate, gated, logits, around;

    /// Map k at pixel p, all grids.
    [[nodiscard]] MatrixView<T> pixel(Index k, Index p) {
      NdArray<T, 4>& map = maps[static_cast<std::size_t>(k)];
      const Index c = map.extent(3);
      return {map.data() + p * c, {count, c}, {height * width * c, 1}};
    }
  };

  /// out = product at the pixels from p on, `across` of one row, grid by grid.
  static void apply(const Product& m, const NdArray<T, 4>& map, Index p, Index across, Grids& grids,
                    MatrixView<T> out, int threads) {
    const Index y = p / grids.width, c = m.inputs, rows = grids.count * across;
    parallel_for(
        block_count(rows, Index{16}),
        [&](std::int64_t b) {
          const BlockRange r = block_range(rows, Index{16}, b);
          T* to = grids.around.data() + r.begin * m.taps * c;
          for (Index row = r.begin; row < r.end; ++row) {
            const Index i = row / across, x = p % grids.width + row % across;
            for (Index t = 0; t < m.taps; ++t, to += c) {
              const Index v = y + t / m.side - m.above, u = x + t % m.side - m.left;
              if (v < 0 || u < 0 || u >= grids.width) {
                std::fill_n(to, c, T(0));
              } else {
                std::copy_n(map.data() + ((i * grids.height + v) * grids.width + u) * c, c, to);
              }
            }
          }
        },
        threads);
    m.multiply(MatrixView<const T>(grids.around.data(), {rows, m.taps * c}), out, threads);
  }

  /// Grid i's class row, or null.
  [[nodiscard]] static const T* class_row(const Grids& grids, Index i,
                                          nn::TensorView<const T> rows) {
    const std::int64_t label = grids.classes[static_cast<std::size_t>(i)];
    return rows.data() + label * rows.extent(1);
  }
  [[nodiscard]] static bool has_class(const Grids& grids, Index i) {
    return grids.classes[static_cast<std::size_t>(i)] >= 0;
  }

  /// The vertical stack along row y, and what its layers give to the other stack there.
  void start_row(Index y, const SamplingOptions& options, Grids& grids) const {
    const PixelCnnOptions& o = model_->options();
    const Index c = o.channels, rows = grids.count * grids.width;
    for (Index k = 0; k < model_->gated_layers(); ++k) {
      const auto layer = static_cast<std::size_t>(k);
      const NdArray<T, 4>& from = k == 0 ? grids.maps[0] : grids.verticals[layer - 1];
      apply(verticals_[layer], from, y * grids.width, grids.width, grids, grids.gate.view(),
            options.threads);
      const MatrixView<T> link(grids.links.data() + k * rows * 2 * c, {rows, 2 * c});
      links_[layer].multiply(grids.gate.view(), link, options.threads);
      if (layer == grids.verticals.size()) break;
      T* const to = grids.verticals[layer].data() + y * grids.width * c;
      for (Index i = 0; i < grids.count; ++i) {
        const T* const add =
            has_class(grids, i) ? class_row(grids, i, model_->vertical_class_rows(k)) : nullptr;
        QUERN_DISPATCH(tanh_gate<T>(
            static_cast<std::size_t>(grids.width), static_cast<std::size_t>(c),
            grids.gate.data() + i * grids.width * 2 * c, add, to + i * model_->pixels() * c));
      }
    }
  }

  void draw_pixel(Index p, MatrixView<std::int64_t> codes, const SamplingOptions& options,
                  Grids& grids) const {
    const PixelCnnOptions& o = model_->options();
    const Index n = grids.count, c = o.channels, begin = o.stacks == 2 ? 0 : 1;
    const MatrixView<T> gate(grids.gate.data(), {n, 2 * c});
    if (begin == 1) {
      apply(first_, grids.maps[0], p, 1, grids, grids.pixel(1, p), options.threads);
    }
    for (Index k = 0; k < model_->gated_layers(); ++k) {
      const auto layer = static_cast<std::size_t>(k);
      apply(gates_[layer], grids.maps[static_cast<std::size_t>(begin + k)], p, 1, grids, gate,
            options.threads);
      for (Index i = 0; i < n; ++i) {
        if (o.stacks == 2) {
          const T* const link =
              grids.links.data() + ((k * n + i) * grids.width + p % grids.width) * 2 * c;
          QUERN_DISPATCH(axpy<T>(T(1), link, static_cast<std::size_t>(2 * c), gate.row_data(i)));
        }
        const T* const add =
            has_class(grids, i) ? class_row(grids, i, model_->class_rows(k)) : nullptr;
        QUERN_DISPATCH(tanh_gate<T>(std::size_t{1}, static_cast<std::size_t>(c), gate.row_data(i),
                                    add, grids.gated.data() + i * c));
      }
      const MatrixView<T> h = grids.pixel(begin + k, p), next = grids.pixel(begin + k + 1, p);
      outs_[layer].multiply(grids.gated.view(), next, options.threads);
      for (Index i = 0; i < n && begin + k > 0; ++i) {
        QUERN_DISPATCH(axpy<T>(T(1), h.row_data(i), static_cast<std::size_t>(c), next.row_data(i)));
      }
    }
    const MatrixView<T> h = grids.pixel(begin + model_->gated_layers(), p);
    for (Index i = 0; i < n; ++i) {
      for (Index j = 0; j < c; ++j) grids.gated(i, j) = h(i, j) > T(0) ? h(i, j) : T(0);
    }
    logits_.multiply(grids.gated.view(), grids.logits.view(), options.threads);
    draw(p, codes, options, grids);
  }

  /// Codes of pixel p from its logits, and their embeddings where the next pixels look for them.
  void draw(Index p, MatrixView<std::int64_t> codes, const SamplingOptions& options,
            Grids& grids) const {
    const PixelCnnOptions& o = model_->options();
    const MatrixView<T> embedded = grids.pixel(0, p);
    const Index n = codes.rows();
    parallel_for(
        n,
        [&](std::int64_t i) {
          Philox random(options.seed, "pixelcnn", options.first + static_cast<std::uint64_t>(i));
          random.seek(2 * static_cast<std::uint64_t>(p));
          const std::span<T> row(grids.logits.data() + i * o.codes,
                                 static_cast<std::size_t>(o.codes));
          if (options.guidance > 0) {
            const T w = static_cast<T>(options.guidance);
            const T* const without = grids.logits.data() + (n + i) * o.codes;
            for (std::size_t k = 0; k < row.size(); ++k) row[k] += w * (row[k] - without[k]);
          }
          const std::int64_t code = draw_code<T>(row, random.template uniform<double>(), options);
          codes(i, p) = code;
          for (Index grid = i; grid < grids.count; grid += n) {
            std::copy_n(model_->embedding().weight().data() + code * o.channels, o.channels,
                        embedded.row_data(grid));
          }
        },
        options.threads);
  }

  const PixelCnn<T>* model_;
  Product first_, logits_;
  std::vector<Product> verticals_, links_, gates_, outs_;
  Index most_taps_ = 1;
};

}  // namespace vq
QUERN_NAMESPACE_END

#endif  // QUERN_VQ_PIXELCNN_SAMPLER_HPP
