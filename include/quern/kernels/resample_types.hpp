// SPDX-License-Identifier: Apache-2.0

/// \file
/// What resampling passes to its kernels: the weights of one axis, laid out for a SIMD level, and a
/// plane to work on.

#ifndef QUERN_KERNELS_RESAMPLE_TYPES_HPP
#define QUERN_KERNELS_RESAMPLE_TYPES_HPP

#include "quern/core/config.hpp"

#include <cstddef>
#include <cstdint>
#include <type_traits>

QUERN_NAMESPACE_BEGIN
namespace kernels {

/// A whole number as wide as T.
template <class T>
using LaneInt = std::conditional_t<sizeof(T) == 4, std::int32_t, std::int64_t>;

/// One axis: position o of the result is the sum over t < taps of weights[t * padded + o] times
/// position first[o] + t of the source. first never decreases, and every window lies inside the
/// source.
template <class T>
struct ResampleTable {
  std::ptrdiff_t in = 0, out = 0;
  std::ptrdiff_t taps = 0;
  std::ptrdiff_t padded = 0;  ///< columns of weights: `out` and up to a vector more, which are zero
  const std::ptrdiff_t* first = nullptr;
  const T* weights = nullptr;
  bool identity = false;  ///< the result is the source
  /// For a row that is resampled along itself: positions are those of single numbers, channels
  /// included. Vector b of the result takes tap t from lanes lane[...] of what lies from
  /// base[b] + t * tap_stride on.
  std::ptrdiff_t tap_stride = 1;
  const std::ptrdiff_t* base = nullptr;
  const LaneInt<T>* lane = nullptr;  ///< `padded` of them
  int reach = 0;  ///< vectors that they come from: 1 or 2; 0 where that is not enough: no vectors
};

/// Rows [row_begin, row_end) of a plane's result.
template <class T>
struct ResamplePlane {
  const T* in = nullptr;
  std::ptrdiff_t in_stride = 0;
  T* out = nullptr;
  std::ptrdiff_t out_stride = 0;
  std::ptrdiff_t row_begin = 0, row_end = 0;
  std::ptrdiff_t channels = 1;  ///< adjacent numbers of one pixel, where resampled together
  std::ptrdiff_t row_size = 0;  ///< numbers of a row of the result
  bool streams = false;         ///< the result is too large for the caches: write around them
  T* ring = nullptr;  ///< taps of the other axis x ring_stride, unless `across` is identity
  std::ptrdiff_t ring_stride = 0;
  const T** rows = nullptr;  ///< as many as the other axis has taps
  T* row_weights = nullptr;  ///< the same
};

}  // namespace kernels
QUERN_NAMESPACE_END

#endif  // QUERN_KERNELS_RESAMPLE_TYPES_HPP
