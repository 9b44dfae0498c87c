// SPDX-License-Identifier: Apache-2.0

/// \file
/// What a room passes to the kernels of the causal convolution: some steps of one sequence.

#ifndef QUERN_KERNELS_CAUSAL_CONV_TYPES_HPP
#define QUERN_KERNELS_CAUSAL_CONV_TYPES_HPP

#include "quern/core/config.hpp"
#include "quern/kernels/selective_scan_types.hpp"

#include <cstddef>

QUERN_NAMESPACE_BEGIN
namespace kernels {

/// Steps of a time tile on the way back.
inline constexpr std::ptrdiff_t causal_conv_tile = 64;

/// y_t = f(bias + sum over k of weight_k x_(t - taps + 1 + k)), f the identity or silu.
template <class T>
struct CausalConvTask {
  std::ptrdiff_t steps = 0;
  std::ptrdiff_t channels = 0;
  std::ptrdiff_t taps = 0;   ///< at least 1
  ScanRows<const T> x;       ///< (steps, channels)
  ScanRows<const T> before;  ///< (taps - 1, channels): what came before x, or null for zeros
  ScanRows<const T> weight;  ///< (taps, channels)
  const T* bias = nullptr;   ///< one a channel, or null
  bool silu = false;
  ScanRows<T> y;  ///< (steps, channels)
};

/// The way back; y of `conv` is unused.
template <class T>
struct CausalConvVjpTask {
  CausalConvTask<T> conv;
  ScanRows<const T> dy;  ///< (steps, channels)
  ScanRows<T> dx;        ///< (steps, channels), overwritten; or null
  ScanRows<T> dbefore;   ///< (taps - 1, channels), overwritten; or null
  ScanRows<T> dweight;   ///< (taps, channels), added to
  T* dbias = nullptr;    ///< one a channel, added to
  T* scratch = nullptr;  ///< (causal_conv_tile + taps) times channels, rounded up to vectors
};

}  // namespace kernels
QUERN_NAMESPACE_END

#endif  // QUERN_KERNELS_CAUSAL_CONV_TYPES_HPP
