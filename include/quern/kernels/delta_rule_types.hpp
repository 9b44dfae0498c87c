// SPDX-License-Identifier: Apache-2.0

/// \file
/// What the delta rule passes to its kernel: one tile of steps.

#ifndef QUERN_KERNELS_DELTA_RULE_TYPES_HPP
#define QUERN_KERNELS_DELTA_RULE_TYPES_HPP

#include "quern/core/config.hpp"

#include <cstddef>

QUERN_NAMESPACE_BEGIN
namespace kernels {

/// Steps of a state of `rows` rows of `stride` columns (a multiple of the lanes). Keys and reads
/// lie [step][rows], arrays of columns [step][stride].
template <class T>
struct DeltaTile {
  std::ptrdiff_t steps = 0;
  std::ptrdiff_t rows = 0;
  std::ptrdiff_t stride = 0;
  const T* keys = nullptr;
  const T* reads = nullptr;
  const T* values = nullptr;  ///< forward: v; backward: the gradient by the output
  const T* beta = nullptr;    ///< [step]
  const T* decay = nullptr;   ///< [step], factors
  T* residuals = nullptr;     ///< forward: v - a S^T k; backward: G^T k
  T* writes = nullptr;        ///< beta times them
  T* out = nullptr;           ///< forward only, overwritten
  T* state = nullptr;         ///< [rows][stride]
};

}  // namespace kernels
QUERN_NAMESPACE_END

#endif  // QUERN_KERNELS_DELTA_RULE_TYPES_HPP
