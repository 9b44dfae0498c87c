// SPDX-License-Identifier: Apache-2.0

/// \file
/// Operands of block_product-inl.hpp.

#ifndef QUERN_KERNELS_BLOCK_PRODUCT_TYPES_HPP
#define QUERN_KERNELS_BLOCK_PRODUCT_TYPES_HPP

#include "quern/core/config.hpp"

#include <cstddef>

QUERN_NAMESPACE_BEGIN
namespace kernels {

/// c (rows x cols) from a (rows x depth, any strides) times b (depth x cols). The columns of b and
/// of c are adjacent.
template <class T>
struct BlockProduct {
  const T* a = nullptr;
  std::ptrdiff_t a_row_stride = 0;
  std::ptrdiff_t a_depth_stride = 0;
  const T* b = nullptr;
  std::ptrdiff_t b_stride = 0;
  T* c = nullptr;
  std::ptrdiff_t c_stride = 0;
  std::ptrdiff_t rows = 0;
  std::ptrdiff_t cols = 0;
  std::ptrdiff_t depth = 0;
};

}  // namespace kernels
QUERN_NAMESPACE_END

#endif  // QUERN_KERNELS_BLOCK_PRODUCT_TYPES_HPP
