// SPDX-License-Identifier: Apache-2.0

/// \file
/// Resizing of single images, height x width x channels, of bytes or numbers, by the rules of
/// Pillow, PyTorch and OpenCV.

#ifndef QUERN_NN_IMAGE_HPP
#define QUERN_NN_IMAGE_HPP

#include "quern/core/buffer.hpp"
#include "quern/core/checks.hpp"
#include "quern/core/config.hpp"
#include "quern/core/nd_view.hpp"
#include "quern/nn/detail/resample_tables.hpp"
#include "quern/nn/resample.hpp"
#include "quern/nn/resample_weights.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string>
#include <type_traits>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace nn {

/// Pillow: antialias (nearest_exact for its nearest). PyTorch: as its interpolate. OpenCV: no
/// antialias, round_between off; `overlap` is its area.
struct ImageResizeOptions {
  Interpolation mode = Interpolation::linear;
  bool antialias = true;  ///< ignored where the mode has none (nearest, area, overlap)
  double cubic = 0;       ///< Keys' a; 0: -0.75, or -0.5 with antialias
  /// Bytes: rows are resampled along themselves first and rounded to bytes (halves up), then the
  /// columns. False: rounded once, at the end.
  bool round_between = true;
  int threads = 0;
};

namespace detail {

/// OpenCV's area when enlarging: linear, but with steps as wide as the overlap.
inline AxisWeights area_enlarged(Index in, Index out) {
  WindowBuilder builder(in, out, 2);
  const double back = static_cast<double>(out) / static_cast<double>(in);
  for (Index o = 0; o < out; ++o) {
    const Index s = o * in / out;
    double f = static_cast<double>(o + 1) - static_cast<double>(s + 1) * back;
    f = f <= 0 ? 0 : f - std::floor(f);
    builder.begin(o, s);
    builder.add(s, 1 - f);
    builder.add(s + 1, f);
  }
  return builder.take();
}

inline std::vector<AxisWeights> image_axes(const Shape<3>& in, const Shape<3>& out,
                                           const ImageResizeOptions& options) {
  const Interpolation mode = options.mode;
  const bool filter = mode == Interpolation::box || mode == Interpolation::lanczos;
  const bool smooth = mode == Interpolation::linear || mode == Interpolation::cubic;
  const AxisResampling r{
      .mode = mode, .antialias = filter || (smooth && options.antialias), .cubic = options.cubic};
  const bool enlarges = out[0] > in[0] || out[1] > in[1];
  std::vector<AxisWeights> axes;
  for (std::size_t d = 0; d < 2; ++d) {
    if (mode == Interpolation::overlap && enlarges) {
      axes.push_back(area_enlarged(in[d], out[d]));
    } else {
      axes.push_back(axis_weights(in[d], out[d], r));
    }
  }
  return axes;
}

inline void round_to_bytes(float* values, Index count) {
  for (Index i = 0; i < count; ++i) {
    const float rounded = std::floor(values[i] + 0.5F);
    values[i] = rounded < 0 ? 0 : rounded > 255 ? 255 : rounded;
  }
}

template <class T>
void copy_image(const NdView<const T, 3>& in, core::Buffer<float>& to) {
  to = core::Buffer<float>(static_cast<std::size_t>(in.size()));
  float* at = to.data();
  for (Index h = 0; h < in.extent(0); ++h) {
    for (Index w = 0; w < in.extent(1); ++w) {
      for (Index c = 0; c < in.extent(2); ++c) *at++ = static_cast<float>(in(h, w, c));
    }
  }
}

}  // namespace detail

/// out = in at out's height and width; (height, width, channels), any strides. T: std::uint8_t or
/// float. ValueError for empty images.
template <class T>
void resize_image(std::type_identity_t<NdView<const T, 3>> in, NdView<T, 3> out,
                  const ImageResizeOptions& options = {}) {
  static_assert(std::is_same_v<T, std::uint8_t> || std::is_same_v<T, float>);
  constexpr const char* function = "quern::nn::resize_image";
  constexpr bool bytes = std::is_same_v<T, std::uint8_t>;
  expect_shape(function, "out", out, {out.extent(0), out.extent(1), in.extent(2)});
  expect_apart(function, "out", out, "in", in);
  const auto axes = detail::image_axes(in.extents(), out.extents(), options);
  const Index channels = in.extent(2);
  if (channels == 0) return;
  core::Buffer<float> source;
  detail::copy_image<T>(in, source);
  core::Buffer<float> wide(static_cast<std::size_t>(in.extent(0) * out.extent(1) * channels));
  core::Buffer<float> result(static_cast<std::size_t>(out.size()));
  detail::resample_planes<float>(axes[1], detail::identity_axis(in.extent(0)),
                                 {source.data(), wide.data(), 1, channels, false}, options.threads);
  if (bytes && options.round_between) {
    detail::round_to_bytes(wide.data(), static_cast<Index>(wide.size()));
  }
  detail::resample_planes<float>(detail::identity_axis(1), axes[0],
                                 {wide.data(), result.data(), 1, out.extent(1) * channels, false},
                                 options.threads);
  if (bytes) detail::round_to_bytes(result.data(), static_cast<Index>(result.size()));
  const float* from = result.data();
  for (Index h = 0; h < out.extent(0); ++h) {
    for (Index w = 0; w < out.extent(1); ++w) {
      for (Index c = 0; c < channels; ++c) out(h, w, c) = static_cast<T>(*from++);
    }
  }
}

}  // namespace nn
QUERN_NAMESPACE_END

#endif  // QUERN_NN_IMAGE_HPP
