// SPDX-License-Identifier: Apache-2.0

/// \file
/// Upsampling as layers: Upsample in one, two and three dimensions with any interpolation, by size
/// or by scale; UpsamplingNearest2d and UpsamplingBilinear2d by PyTorch's names.

#ifndef QUERN_NN_UPSAMPLE_HPP
#define QUERN_NN_UPSAMPLE_HPP

#include "quern/core/checks.hpp"
#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/nn/layer.hpp"
#include "quern/nn/layout.hpp"
#include "quern/nn/resample.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <memory>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace nn {

struct UpsampleOptions {
  std::vector<Index> size = {};    ///< of the result, outermost first; one number: for all axes
  std::vector<double> scale = {};  ///< instead of a size: factors; one number: for all axes
  Interpolation mode = Interpolation::nearest;
  bool align_corners = false;
  bool antialias = false;
  /// The step follows from the sizes even where a scale is given (PyTorch's
  /// recompute_scale_factor): they differ where extent times scale is not whole.
  bool recompute_scale = false;
  Layout layout = Layout::channels_first;
};

/// Resamples (N, C, W), (N, C, H, W) or (N, C, D, H, W) (channels last if so laid out) to a size or
/// by a scale; also to fewer samples. No parameters.
template <class T>
class Upsample final : public Layer<T> {
 public:
  /// ValueError unless exactly one of size and scale is given, with 1 to 3 positive numbers.
  explicit Upsample(UpsampleOptions options) : options_(std::move(options)) {
    const std::size_t given = (std::max)(options_.size.size(), options_.scale.size());
    if (options_.size.empty() == options_.scale.empty() || given > 3) {
      throw ValueError(error_text(type(), "size, scale", "one of them, of 1 to 3 numbers",
                                  std::to_string(options_.size.size()) + " and " +
                                      std::to_string(options_.scale.size()) + " numbers"));
    }
    for (const Index size : options_.size) {
      if (size < 1) throw ValueError(error_text(type(), "size", "at least 1", size));
    }
    for (const double scale : options_.scale) {
      expect_in_range(type(), "scale", scale, least_scale, most_scale);
    }
    // Options that do not go together are named here, not at the first batch.
    static_cast<void>(axis_weights(2, 3,
                                   {.mode = options_.mode,
                                    .align_corners = options_.align_corners,
                                    .antialias = options_.antialias}));
  }
  /// All axes by one factor.
  explicit Upsample(double scale, Interpolation mode = Interpolation::nearest,
                    Layout layout = Layout::channels_first)
      : Upsample(UpsampleOptions{.scale = {scale}, .mode = mode, .layout = layout}) {}

  [[nodiscard]] const UpsampleOptions& options() const noexcept { return options_; }
  [[nodiscard]] std::string_view type() const override { return "quern::nn::Upsample"; }
  [[nodiscard]] Extents output_shape(const Extents& in) const override {
    const std::size_t given = (std::max)(options_.size.size(), options_.scale.size());
    if (in.size() < 3 || in.size() > 5 || (given > 1 && given + 2 != in.size())) {
      throw ShapeError(
          error_text(type(), "in",
                     given > 1 ? std::to_string(given + 2) + " dimensions" : "3, 4 or 5 dimensions",
                     shape_text(in)));
    }
    Extents out = in;
    const std::size_t first = options_.layout == Layout::channels_last ? 1 : 2;
    for (std::size_t d = 0; d + 2 < in.size(); ++d) {
      out[first + d] = options_.size.empty() ? scaled_extent(in[first + d], of(options_.scale, d))
                                             : of(options_.size, d);
      if (out[first + d] < 1) {
        throw ShapeError(error_text(type(), "in", "extents that leave a sample", shape_text(in)));
      }
    }
    return out;
  }
  [[nodiscard]] std::unique_ptr<Layer<T>> clone() const override {
    return std::make_unique<Upsample>(*this);
  }

 protected:
  void compute(TensorView<const T> in, TensorView<T> out, Cache<T>& cache) const override {
    resample<T>(in, out, resampling(cache));
  }
  void differentiate(TensorView<const T> dout, TensorView<T> din, Cache<T>& cache,
                     GradientsView<T> /*gradients*/) const override {
    if (!din.null()) resample_vjp<T>(dout, din, resampling(cache));
  }

 private:
  template <class V>
  static V of(const std::vector<V>& values, std::size_t d) {
    return values[values.size() == 1 ? 0 : d];
  }
  [[nodiscard]] ResampleOptions resampling(const Cache<T>& cache) const {
    ResampleOptions r{.mode = options_.mode,
                      .align_corners = options_.align_corners,
                      .antialias = options_.antialias,
                      .channels_last = options_.layout == Layout::channels_last,
                      .threads = cache.context.threads};
    if (!options_.scale.empty() && !options_.recompute_scale) {
      for (std::size_t d = 0; d < 3; ++d) {
        r.scale[d] =
            d < options_.scale.size() || options_.scale.size() == 1 ? of(options_.scale, d) : 0;
      }
    }
    return r;
  }

  UpsampleOptions options_;
};

/// torch.nn.UpsamplingNearest2d: two dimensions, by size or scale.
template <class T>
[[nodiscard]] std::unique_ptr<Layer<T>> UpsamplingNearest2d(UpsampleOptions options) {
  options.mode = Interpolation::nearest;
  options.align_corners = options.antialias = false;
  return std::make_unique<Upsample<T>>(std::move(options));
}

/// torch.nn.UpsamplingBilinear2d: bilinear with aligned corners.
template <class T>
[[nodiscard]] std::unique_ptr<Layer<T>> UpsamplingBilinear2d(UpsampleOptions options) {
  options.mode = Interpolation::linear;
  options.align_corners = true;
  options.antialias = false;
  return std::make_unique<Upsample<T>>(std::move(options));
}

/// Fills the weight (inputs, outputs / groups, kh, kw) of a transposed convolution so that it
/// interpolates bilinearly: with groups equal to the channels, stride s, kernel 2 s - s % 2 and
/// padding ceil((s - 1) / 2) it enlarges by s (J. Long, E. Shelhamer, T. Darrell, "Fully
/// convolutional networks for semantic segmentation", CVPR 2015). Without groups, channel k feeds
/// channel k alone. ShapeError unless the weight has 4 dimensions.
template <class T>
void fill_bilinear(TensorView<T> weight) {
  if (weight.rank() != 4) {
    throw ShapeError(error_text("quern::nn::fill_bilinear", "weight", "4 dimensions",
                                shape_text(weight.extents())));
  }
  const auto hat = [](Index i, Index size) {
    const double half = static_cast<double>((size + 1) / 2);
    const double centre = size % 2 == 1 ? half - 1 : half - 0.5;
    return 1 - std::fabs(static_cast<double>(i) - centre) / half;
  };
  const Index kh = weight.extent(2), kw = weight.extent(3), outs = weight.extent(1);
  for (Index c = 0; c < weight.extent(0); ++c) {
    for (Index o = 0; o < outs; ++o) {
      for (Index i = 0; i < kh * kw; ++i) {
        const double value = o == c % outs ? hat(i / kw, kh) * hat(i % kw, kw) : 0;
        weight[(c * outs + o) * kh * kw + i] = static_cast<T>(value);
      }
    }
  }
}

}  // namespace nn
QUERN_NAMESPACE_END

#endif  // QUERN_NN_UPSAMPLE_HPP
