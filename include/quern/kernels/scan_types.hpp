// SPDX-License-Identifier: Apache-2.0

/// \file
/// What the scan kernels work on. Pointers are to T also where channels are complex (interleaved);
/// strides and counts are in channels' numbers, so twice as many T there.

#ifndef QUERN_KERNELS_SCAN_TYPES_HPP
#define QUERN_KERNELS_SCAN_TYPES_HPP

#include "quern/core/config.hpp"

#include <cstddef>

QUERN_NAMESPACE_BEGIN
namespace kernels {

/// h_t = a_t h_{t-1} + b_t over `steps` rows of `channels` adjacent numbers.
template <class T>
struct ScanTask {
  std::size_t steps = 0;
  std::size_t channels = 0;
  const T* a = nullptr;
  std::ptrdiff_t a_stride = 0;  ///< from a step to the next; 0: the same multipliers
  const T* b = nullptr;
  std::ptrdiff_t b_stride = 0;
  T* state = nullptr;  ///< channels numbers: h before the first step, after it the last h
  T* out = nullptr;    ///< may be b itself
  std::ptrdiff_t out_stride = 0;
  /// Complex channels: what rounding took from a, laid out as a is; null: nothing. A multiplier
  /// next to 1 is raised to the power of its memory, so the last bit of a float is not enough.
  const T* a_low = nullptr;
};

/// g_t = dout_t + conj(a_{t+1}) g_{t+1}; db_t = g_t, da_t = conj(h_{t-1}) g_t.
template <class T>
struct ScanVjpTask {
  std::size_t steps = 0;
  std::size_t channels = 0;
  const T* a = nullptr;
  std::ptrdiff_t a_stride = 0;
  const T* h = nullptr;  ///< what the scan gave
  std::ptrdiff_t h_stride = 0;
  const T* initial = nullptr;  ///< channels numbers: the state before the first step
  const T* dout = nullptr;
  std::ptrdiff_t dout_stride = 0;
  T* carry = nullptr;  ///< in: gradient of the last h by itself; out: of the initial state
  T* da = nullptr;     ///< null: left out
  std::ptrdiff_t da_stride = 0;  ///< 0: the sum over time is added to what is there
  T* db = nullptr;               ///< null: left out; may be dout itself
  std::ptrdiff_t db_stride = 0;
  const T* a_low = nullptr;  ///< see ScanTask
};

}  // namespace kernels
QUERN_NAMESPACE_END

#endif  // QUERN_KERNELS_SCAN_TYPES_HPP
