// SPDX-License-Identifier: Apache-2.0

/// \file
/// What convolutions pass to conv_minimal-inl.hpp.

#ifndef QUERN_KERNELS_CONV_MINIMAL_TYPES_HPP
#define QUERN_KERNELS_CONV_MINIMAL_TYPES_HPP

#include "quern/core/config.hpp"
#include "quern/kernels/conv_types.hpp"

#include <cstddef>

QUERN_NAMESPACE_BEGIN
namespace kernels {

/// Points of a tile: four along each axis.
inline constexpr std::ptrdiff_t kMinimalPoints = 16;
/// Tiles of a block, those that are in scratch at a time, are a multiple of this: of every
/// product's rows.
inline constexpr std::ptrdiff_t kMinimalTiles = 24;

/// A convolution whose taps are `parts` grids of taps x taps, the source's steps apart.
template <class T>
struct ConvMinimalTask {
  /// As for conv_wide, but: source.taps is the first tap of each part, source.tap_count the number
  /// of parts, weights are conv_minimal_weights', and `pointers` is not used.
  ConvTask<T> conv;
  std::ptrdiff_t taps = 3;  ///< 2 or 3
  std::ptrdiff_t tiles = kMinimalTiles;
  T* source_panels = nullptr;  ///< scratch: conv_minimal_panels(tiles, parts * channels)
  T* output_panels = nullptr;  ///< scratch: conv_minimal_panels(tiles, outputs)
};

/// The gradient of such a convolution's weights.
template <class T>
struct ConvMinimalGradient {
  ConvTask<T> conv;  ///< strides of y are dy's; y, weights and bias have no part
  const T* dy = nullptr;
  std::ptrdiff_t taps = 3;
  std::ptrdiff_t tiles = kMinimalTiles;
  T* source_panels = nullptr;    ///< scratch: conv_minimal_panels(tiles, parts * channels)
  T* gradient_panels = nullptr;  ///< scratch: conv_minimal_panels(tiles, outputs)
  T* sums = nullptr;             ///< [point][part][channel][output], outputs in whole vectors
};

}  // namespace kernels
QUERN_NAMESPACE_END

#endif  // QUERN_KERNELS_CONV_MINIMAL_TYPES_HPP
