// SPDX-License-Identifier: Apache-2.0

/// \file
/// The transpose of a matrix, out of place: images with planes of channels become images with their
/// channels side by side, and back.
///
/// By squares of 4 x 4 floats (2 x 2 doubles) within blocks of 32 x 32, so that reads and writes
/// stay in lines that are in L1.

#if defined(QUERN_KERNELS_TRANSPOSE_INL_HPP) == defined(HWY_TARGET_TOGGLE)
#ifdef QUERN_KERNELS_TRANSPOSE_INL_HPP
#undef QUERN_KERNELS_TRANSPOSE_INL_HPP
#else
#define QUERN_KERNELS_TRANSPOSE_INL_HPP
#endif

#include "quern/core/config.hpp"
#include "quern/kernels/gemm_pack-inl.hpp"

#include "hwy/highway.h"

#include <cstddef>

HWY_BEFORE_NAMESPACE();
QUERN_NAMESPACE_BEGIN
namespace kernels {
namespace HWY_NAMESPACE {

namespace detail {

/// A block of at most 32 x 32.
template <class T>
HWY_INLINE void transpose_block(const T* HWY_RESTRICT x, std::ptrdiff_t x_stride,
                                std::ptrdiff_t rows, std::ptrdiff_t cols, T* HWY_RESTRICT y,
                                std::ptrdiff_t y_stride) {
  std::ptrdiff_t whole_rows = 0, whole_cols = 0;
#if HWY_TARGET != HWY_SCALAR
  constexpr std::ptrdiff_t kSquare = 16 / static_cast<std::ptrdiff_t>(sizeof(T));
  whole_rows = rows / kSquare * kSquare;
  whole_cols = cols / kSquare * kSquare;
  for (std::ptrdiff_t i = 0; i < whole_rows; i += kSquare) {
    const T* from[kSquare];
    for (std::ptrdiff_t r = 0; r < kSquare; ++r) from[r] = x + (i + r) * x_stride;
    for (std::ptrdiff_t j = 0; j < whole_cols; j += kSquare) {
      pack_square(from, j, y + j * y_stride + i, y_stride);
    }
  }
#endif
  for (std::ptrdiff_t i = 0; i < rows; ++i) {
    for (std::ptrdiff_t j = i < whole_rows ? whole_cols : 0; j < cols; ++j) {
      y[j * y_stride + i] = x[i * x_stride + j];
    }
  }
}

}  // namespace detail

/// y[j y_stride + i] = x[i x_stride + j] for i < rows, j < cols. No overlap.
template <class T>
void transpose(const T* x, std::ptrdiff_t x_stride, std::ptrdiff_t rows, std::ptrdiff_t cols, T* y,
               std::ptrdiff_t y_stride) {
  constexpr std::ptrdiff_t kBlock = 32;
  for (std::ptrdiff_t i = 0; i < rows; i += kBlock) {
    const std::ptrdiff_t high = rows - i < kBlock ? rows - i : kBlock;
    for (std::ptrdiff_t j = 0; j < cols; j += kBlock) {
      const std::ptrdiff_t wide = cols - j < kBlock ? cols - j : kBlock;
      detail::transpose_block(x + i * x_stride + j, x_stride, high, wide, y + j * y_stride + i,
                              y_stride);
    }
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace kernels
QUERN_NAMESPACE_END
HWY_AFTER_NAMESPACE();

#endif  // QUERN_KERNELS_TRANSPOSE_INL_HPP
