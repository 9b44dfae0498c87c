// SPDX-License-Identifier: Apache-2.0

/// \file
/// Which convolutions run on kernels/conv_minimal-inl.hpp, and how their taps are told to it.

#ifndef QUERN_NN_DETAIL_CONV_MINIMAL_HPP
#define QUERN_NN_DETAIL_CONV_MINIMAL_HPP

#include "quern/core/config.hpp"
#include "quern/kernels/conv_minimal_types.hpp"
#include "quern/kernels/conv_types.hpp"
#include "quern/nn/detail/conv_geometry.hpp"
#include "quern/nn/tensor.hpp"

#include <algorithm>
#include <cstddef>
#include <tuple>
#include <utility>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace nn {
namespace detail {

/// The taps of one phase as grids of taps x taps over every step-th pixel.
struct MinimalTaps {
  Index taps = 0;                         ///< along an axis, 2 or 3; 0: they are none such
  std::vector<kernels::ConvTap> all;      ///< grid by grid
  std::vector<kernels::ConvTap> corners;  ///< the first of each grid
};

[[nodiscard]] inline MinimalTaps minimal_taps(const std::vector<kernels::ConvTap>& taps,
                                              Size2 step) {
  MinimalTaps result;
  const Index parts = step.h * step.w, count = static_cast<Index>(taps.size());
  const Index side = count == 4 * parts ? 2 : count == 9 * parts ? 3 : 0;
  if (side == 0) return {};
  const auto rest = [](Index a, Index b) { return a - floor_div(a, b) * b; };
  const auto place = [&](const kernels::ConvTap& t) {
    return std::tuple(rest(t.dh, step.h), rest(t.dw, step.w), t.dh, t.dw);
  };
  result.all = taps;
  std::sort(result.all.begin(), result.all.end(),
            [&](const auto& a, const auto& b) { return place(a) < place(b); });
  for (Index t = 0; t < count; ++t) {
    const kernels::ConvTap& tap = result.all[static_cast<std::size_t>(t)];
    const Index u = t % (side * side) / side, v = t % side;
    if (u == 0 && v == 0) result.corners.push_back(tap);
    const kernels::ConvTap& corner = result.corners.back();
    if (tap.dh != corner.dh + u * step.h || tap.dw != corner.dw + v * step.w) return {};
  }
  result.taps = side;
  return result;
}

/// Points for `outputs` along an axis.
[[nodiscard]] inline Index minimal_points(Index outputs, Index taps) {
  const Index each = 5 - taps, left = outputs % each;
  return outputs / each * 4 + (left > 0 ? left + taps - 1 : 0);
}

/// Whether minimal filtering of a grid of outputs is faster: by what was measured
/// (docs/nn/conv.md). Numbers of images and threads have no part in it, so an image's bits do not
/// depend on them.
[[nodiscard]] inline bool minimal_pays(Size2 grid, Index taps, Index depth, Index outputs) {
  if (depth < 16 || outputs < 16 || depth * outputs < 512) return false;
  const Index products = minimal_points(grid.h, taps) * minimal_points(grid.w, taps);
  const Index direct = grid.h * grid.w * taps * taps;
  return grid.h * grid.w >= 36 && 2 * direct >= 3 * products;
}

/// Tiles of a block: `most` rows of one channel, as many as leave room for weights in L2.
[[nodiscard]] inline Index minimal_tiles(Index depth, Index outputs, Index most) {
  constexpr Index each = kernels::kMinimalTiles;
  return (std::clamp)(most / (depth + outputs) / each, Index{1}, Index{4}) * each;
}

}  // namespace detail
}  // namespace nn
QUERN_NAMESPACE_END

#endif  // QUERN_NN_DETAIL_CONV_MINIMAL_HPP
