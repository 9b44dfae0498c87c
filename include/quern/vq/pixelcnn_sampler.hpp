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
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace vq {

struct SamplingOptions {
  double temperature = 1;  ///< divides the logits; 0: the likeliest code
  Index top_k = 0;         ///< draw from the k likeliest codes only; 0: from all
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

/// Draws grids from a model; makes the model's weights ready once. The model must not change
/// meanwhile.
template <class T>
class PixelCnnSampler {
 public:
  explicit PixelCnnSampler(const PixelCnn<T>& model) : model_(&model) {
    const PixelCnnOptions& o = model.options();
    first_ = MaskedProduct(model.first(), true);
    for (Index k = 0; k < o.layers; ++k) {
      gates_.emplace_back(model.gate(k), false);
      outs_.emplace_back(model.gated_out(k), false);
    }
    logits_ = MaskedProduct(model.logits(), false);
  }

  /// One grid for each class (any number, such as 0, where the model has none): codes N x (H W).
  /// ValueError for a class that there is not, a negative temperature or top_k.
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
    for (const std::int64_t c : classes) {
      if (o.classes > 0) expect_in_range(function, "classes", Index{c}, Index{0}, o.classes - 1);
    }
    if (n == 0) return;
    Grids grids(o, n);
    for (Index p = 0; p < model_->pixels(); ++p) {
      draw_pixel(p, classes, codes, options, grids);
      report(options.progress, function, {"sampling", p + 1, model_->pixels()});
    }
  }

 private:
  /// A masked convolution at one pixel as a product: neighbours side by side times weights.
  struct MaskedProduct {
    MaskedProduct() = default;
    MaskedProduct(const nn::Conv2d<T>& conv, bool without_centre) {
      const nn::TensorView<const T> w = conv.weight();
      outputs = w.extent(0);
      inputs = w.extent(1);
      const Index all = w.extent(2) * w.extent(3);
      taps = all / 2 + (without_centre ? 0 : 1);  // those before the centre, in raster order
      above = w.extent(2) / 2;
      left = w.extent(3) / 2;
      side = w.extent(3);
      NdArray<T, 2> matrix({taps * inputs, outputs});
      for (Index t = 0; t < taps; ++t) {
        for (Index c = 0; c < inputs; ++c) {
          for (Index f = 0; f < outputs; ++f) {
            matrix(t * inputs + c, f) = w[(f * inputs + c) * all + t];
          }
        }
      }
      packed = kernels::PackedMatrix<T>(matrix.view());
      if (!conv.bias().null()) bias.assign(conv.bias().begin(), conv.bias().end());
    }
    Index inputs = 0, outputs = 0, taps = 0, above = 0, left = 0, side = 1;
    kernels::PackedMatrix<T> packed;
    std::vector<T> bias;
  };

  /// What has been worked out so far: maps (N, H, W, C) of each layer's input, and scratch.
  struct Grids {
    Grids(const PixelCnnOptions& o, Index n) : count(n), height(o.height), width(o.width) {
      for (Index k = 0; k <= o.layers + 1; ++k)
        maps.emplace_back(Shape<4>{n, height, width, o.channels});
      gate.resize({n, 2 * o.channels}, core::Fill::none);
      gated.resize({n, o.channels}, core::Fill::none);
      logits.resize({n, o.codes}, core::Fill::none);
      const Index taps = (std::max)(o.first_kernel * o.first_width, o.kernel * o.kernel) / 2 + 1;
      around.resize({n, taps * o.channels}, core::Fill::none);
    }
    Index count, height, width;
    std::vector<NdArray<T, 4>> maps;
    NdArray<T, 2> gate, gated, logits, around;

    /// Map k at pixel p, all grids.
    [[nodiscard]] MatrixView<T> pixel(Index k, Index p) {
      NdArray<T, 4>& map = maps[static_cast<std::size_t>(k)];
      const Index c = map.extent(3);
      return {map.data() + p * c, {count, c}, {height * width * c, 1}};
    }
  };

  /// out = product at pixel p of map k.
  static void apply(const MaskedProduct& m, Index k, Index p, Grids& grids, MatrixView<T> out,
                    int threads) {
    const NdArray<T, 4>& map = grids.maps[static_cast<std::size_t>(k)];
    const Index y = p / grids.width, x = p % grids.width, c = m.inputs;
    for (Index i = 0; i < grids.count; ++i) {
      T* to = grids.around.data() + i * m.taps * c;
      for (Index t = 0; t < m.taps; ++t, to += c) {
        const Index v = y + t / m.side - m.above, u = x + t % m.side - m.left;
        if (v < 0 || u < 0 || u >= grids.width) {
          std::fill_n(to, c, T(0));
        } else {
          std::copy_n(map.data() + ((i * grids.height + v) * grids.width + u) * c, c, to);
        }
      }
    }
    multiply(m, MatrixView<const T>(grids.around.data(), {grids.count, m.taps * c}), out, threads);
  }
  static void multiply(const MaskedProduct& m, MatrixView<const T> in, MatrixView<T> out,
                       int threads) {
    const kernels::StoreActivated<T> store{
        out.data(), out.row_stride(), 1, T(1), nullptr, m.bias.empty() ? nullptr : m.bias.data(),
        {}};
    if (m.taps == 0) {
      for (Index i = 0; i < out.rows(); ++i) {
        for (Index j = 0; j < out.cols(); ++j) {
          out(i, j) = m.bias.empty() ? T(0) : m.bias[static_cast<std::size_t>(j)];
        }
      }
      return;
    }
    m.packed.multiply(in, store, threads);
  }

  void draw_pixel(Index p, std::span<const std::int64_t> classes, MatrixView<std::int64_t> codes,
                  const SamplingOptions& options, Grids& grids) const {
    const PixelCnnOptions& o = model_->options();
    const Index n = grids.count, c = o.channels;
    MatrixView<T> h = grids.pixel(1, p);
    apply(first_, 0, p, grids, h, options.threads);
    for (Index k = 0; k < o.layers; ++k) {
      apply(gates_[static_cast<std::size_t>(k)], k + 1, p, grids, grids.gate.view(),
            options.threads);
      for (Index i = 0; i < n; ++i) {
        const T* const add = o.classes == 0 ? nullptr
                                            : model_->class_rows(k).data() +
                                                  classes[static_cast<std::size_t>(i)] * 2 * c;
        QUERN_DISPATCH(tanh_gate<T>(std::size_t{1}, static_cast<std::size_t>(c),
                                    grids.gate.data() + i * 2 * c, add,
                                    grids.gated.data() + i * c));
      }
      const MatrixView<T> next = grids.pixel(k + 2, p);
      multiply(outs_[static_cast<std::size_t>(k)], grids.gated.view(), next, options.threads);
      for (Index i = 0; i < n; ++i) {
        QUERN_DISPATCH(axpy<T>(T(1), h.row_data(i), static_cast<std::size_t>(c), next.row_data(i)));
      }
      h = next;
    }
    for (Index i = 0; i < n; ++i) {
      for (Index j = 0; j < c; ++j) grids.gated(i, j) = h(i, j) > T(0) ? h(i, j) : T(0);
    }
    multiply(logits_, grids.gated.view(), grids.logits.view(), options.threads);
    draw(p, codes, options, grids);
  }

  /// Codes of pixel p from its logits, and their embeddings where the next pixels look for them.
  void draw(Index p, MatrixView<std::int64_t> codes, const SamplingOptions& options,
            Grids& grids) const {
    const PixelCnnOptions& o = model_->options();
    const MatrixView<T> embedded = grids.pixel(0, p);
    for (Index i = 0; i < grids.count; ++i) {
      Philox random(options.seed, "pixelcnn", options.first + static_cast<std::uint64_t>(i));
      random.seek(2 * static_cast<std::uint64_t>(p));
      const std::span<const T> row(grids.logits.data() + i * o.codes,
                                   static_cast<std::size_t>(o.codes));
      const std::int64_t code = draw_code<T>(row, random.template uniform<double>(), options);
      codes(i, p) = code;
      std::copy_n(model_->embedding().weight().data() + code * o.channels, o.channels,
                  embedded.row_data(i));
    }
  }

  const PixelCnn<T>* model_;
  MaskedProduct first_, logits_;
  std::vector<MaskedProduct> gates_, outs_;
};

}  // namespace vq
QUERN_NAMESPACE_END

#endif  // QUERN_VQ_PIXELCNN_SAMPLER_HPP
