// SPDX-License-Identifier: Apache-2.0

/// \file
/// What a room passes to the kernel that steps one channel's modes.

#ifndef QUERN_KERNELS_MODE_STEP_TYPES_HPP
#define QUERN_KERNELS_MODE_STEP_TYPES_HPP

#include "quern/core/config.hpp"

#include <cstddef>

QUERN_NAMESPACE_BEGIN
namespace kernels {

/// Complex modes x of one channel, driven by real inputs:
///   w_k = Re(sum of from_k x) + gain_k u,   x = x + less x + in u - sum of to_k w_k,
///   y = Re(sum of out x) + through u,
/// for every input in order. Complex arrays are two rows of `modes`: real parts, imaginary parts.
template <class T>
struct ModeStepTask {
  std::ptrdiff_t steps = 0;
  std::ptrdiff_t modes = 0;
  std::ptrdiff_t rank = 0;  ///< of what couples the modes: 0, 1 or 2
  const T* less = nullptr;  ///< (2, modes): multipliers, less 1
  const T* in = nullptr;    ///< (2, modes)
  const T* out = nullptr;   ///< (2, modes)
  const T* from = nullptr;  ///< (rank, 2, modes)
  const T* to = nullptr;    ///< (rank, 2, modes)
  const T* gain = nullptr;  ///< (rank)
  T through = T{0};
  T* x = nullptr;        ///< (2, modes), moves on
  const T* u = nullptr;  ///< (steps)
  T* y = nullptr;        ///< (steps), overwritten; may be u
};

}  // namespace kernels
QUERN_NAMESPACE_END

#endif  // QUERN_KERNELS_MODE_STEP_TYPES_HPP
