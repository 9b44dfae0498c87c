// SPDX-License-Identifier: Apache-2.0

/// \file
/// Resampling of images, signals and volumes to another size, and its gradient, into the caller's
/// memory. See resample_weights.hpp for what the kinds of interpolation are.

#ifndef QUERN_NN_RESAMPLE_HPP
#define QUERN_NN_RESAMPLE_HPP

#include "quern/core/buffer.hpp"
#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/nn/detail/resample_tables.hpp"
#include "quern/nn/resample_weights.hpp"
#include "quern/nn/tensor.hpp"

#include <array>
#include <cmath>
#include <cstddef>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace nn {

struct ResampleOptions {
  Interpolation mode = Interpolation::nearest;
  bool align_corners = false;
  bool antialias = false;
  double cubic = 0;  ///< Keys' a; 0: -0.75, or -0.5 with antialias (as PyTorch)
  /// Factors by which dimensions were enlarged, as they were given; 0: the ratio of the sizes. The
  /// two differ where a size was rounded (PyTorch: recompute_scale_factor unset).
  std::array<double, 3> scale = {0, 0, 0};
  bool channels_last = false;  ///< (N, …, C) instead of (N, C, …)
  int threads = 0;
};

/// floor(extent * scale), PyTorch's size for a scale.
[[nodiscard]] inline Index scaled_extent(Index extent, double scale) {
  return static_cast<Index>(std::floor(static_cast<double>(extent) * scale));
}

namespace detail {

/// Rank 3, 4 or 5; batch and channels equal. Returns the number of dimensions that change.
inline int expect_resampled(const char* function, std::span<const Index> in,
                            std::span<const Index> out, bool channels_last) {
  if (in.size() < 3 || in.size() > 5) {
    throw ShapeError(error_text(function, "in", "3, 4 or 5 dimensions", shape_text(in)));
  }
  const std::size_t c = channels_last ? in.size() - 1 : 1;
  if (out.size() != in.size() || out[0] != in[0] || out[c] != in[c]) {
    throw ShapeError(error_text(
        function, "out", "the dimensions of " + shape_text(in) + ", batch and channels equal",
        shape_text(out)));
  }
  return static_cast<int>(in.size()) - 2;
}

/// The axes' weights, outermost first, of source extents `in` and result extents `out`.
inline std::vector<AxisWeights> all_axes(std::span<const Index> in, std::span<const Index> out,
                                         const ResampleOptions& options, bool backward) {
  std::vector<AxisWeights> axes;
  const std::size_t first = options.channels_last ? 1 : 2;
  for (std::size_t d = 0; d + 2 < in.size(); ++d) {
    const AxisWeights w = axis_weights(in[first + d], out[first + d],
                                       {.mode = options.mode,
                                        .align_corners = options.align_corners,
                                        .antialias = options.antialias,
                                        .scale = options.scale[d],
                                        .cubic = options.cubic});
    axes.push_back(backward ? transposed(w) : w);
  }
  return axes;
}

inline AxisWeights identity_axis(Index extent) {
  AxisWeights w{extent, extent, 1, {}, std::vector<double>(static_cast<std::size_t>(extent), 1.0)};
  for (Index i = 0; i < extent; ++i) w.first.push_back(i);
  return w;
}

/// Planes of rows of numbers: `outer` blocks, resampled along `axes`, `inner` numbers a pixel.
template <class T>
void resample_axes(const T* in, T* out, Index outer, Index inner,
                   const std::vector<AxisWeights>& axes, int threads) {
  Index size = outer * inner;
  for (const AxisWeights& w : axes) size *= w.out;
  const bool streams = size * static_cast<Index>(sizeof(T)) >= resample_stream_bytes;
  if (axes.size() == 1) {
    // A batch of rows is one plane whose other axis stays.
    return resample_planes<T>(axes[0], identity_axis(outer), {in, out, 1, inner, streams}, threads);
  }
  if (axes.size() == 2) {
    return resample_planes<T>(axes[1], axes[0], {in, out, outer, inner, streams}, threads);
  }
  const Index plane = axes[1].out * axes[2].out * inner;
  core::Buffer<T> between(static_cast<std::size_t>(outer * axes[0].in * plane));
  resample_planes<T>(axes[2], axes[1], {in, between.data(), outer * axes[0].in, inner, false},
                     threads);
  // Its rows are planes: one pixel of so many numbers.
  resample_planes<T>(identity_axis(1), axes[0], {between.data(), out, outer, plane, streams},
                     threads);
}

template <class T>
void resample_any(const char* function, TensorView<const T> from, TensorView<T> to,
                  const ResampleOptions& options, bool backward) {
  const auto in = backward ? to.extents() : from.extents();
  const auto out = backward ? from.extents() : to.extents();
  expect_resampled(function, in, out, options.channels_last);
  expect_separate(function, backward ? "din" : "out", to, from);
  if (from.empty() && to.empty()) return;
  const Index channels = options.channels_last ? in.back() : in[1];
  const Index outer = options.channels_last ? in[0] : in[0] * channels;
  resample_axes<T>(from.data(), to.data(), outer, options.channels_last ? channels : 1,
                   all_axes(in, out, options, backward), options.threads);
}

}  // namespace detail

/// out = in at out's size. Shapes (N, C, W), (N, C, H, W) or (N, C, D, H, W), channels last where
/// the options say so. ShapeError where batch or channels differ, ValueError for extents of 0 and
/// options that do not go together. Results from 8 MiB on are written around the caches.
template <class T>
void resample(std::type_identity_t<TensorView<const T>> in, TensorView<T> out,
              const ResampleOptions& options = {}) {
  detail::resample_any<T>("quern::nn::resample", in, out, options, false);
}

/// din = gradient of resample's input for dout (its exact transpose); overwritten.
template <class T>
void resample_vjp(std::type_identity_t<TensorView<const T>> dout, TensorView<T> din,
                  const ResampleOptions& options = {}) {
  detail::resample_any<T>("quern::nn::resample_vjp", dout, din, options, true);
}

}  // namespace nn
QUERN_NAMESPACE_END

#endif  // QUERN_NN_RESAMPLE_HPP
