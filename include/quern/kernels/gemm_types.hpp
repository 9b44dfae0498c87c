// SPDX-License-Identifier: Apache-2.0

/// \file
/// What the matrix product passes to its kernels: operands, tasks, and the epilogues that say what
/// becomes of each element's sum. An epilogue is a plain struct that any code may make; what it
/// does to a vector of sums is written once per SIMD target, as `TileEpilogue<Name>` of
/// gemm_epilogue-inl.hpp. Add one by adding a struct here and its specialisation there.

#ifndef QUERN_KERNELS_GEMM_TYPES_HPP
#define QUERN_KERNELS_GEMM_TYPES_HPP

#include "quern/core/config.hpp"
#include "quern/kernels/functors.hpp"

#include <cstddef>
#include <cstdint>

QUERN_NAMESPACE_BEGIN
namespace kernels {

/// A matrix in memory; any signed strides, in elements.
template <class T>
struct GemmOperand {
  const T* data = nullptr;
  std::ptrdiff_t row_stride = 0;
  std::ptrdiff_t col_stride = 0;
};

/// How a level cuts products: a register tile is `rows` x `cols`, sums run over blocks of `depth`.
struct GemmLayout {
  std::ptrdiff_t rows = 0;
  std::ptrdiff_t cols = 0;
  std::ptrdiff_t depth = 0;
  std::ptrdiff_t lanes = 0;
};

/// One piece of a product A (m x depth) times B (depth x n): rows [row_begin, row_end) times
/// columns [col_begin, col_end), where col_begin is a multiple of the tile's columns.
template <class T>
struct GemmTask {
  GemmOperand<T> a;
  const T* packed_b = nullptr;     ///< all of B, packed; null: read `b` as it lies
  std::ptrdiff_t packed_cols = 0;  ///< columns of the packed B, a multiple of the tile's
  GemmOperand<T> b;                ///< col_stride 1 where it is read as it lies
  std::ptrdiff_t depth = 0;
  std::ptrdiff_t row_begin = 0, row_end = 0;
  std::ptrdiff_t col_begin = 0, col_end = 0;
  bool pack_a = true;            ///< copy A into panels first: worth it for many columns
  T* a_scratch = nullptr;        ///< gemm_a_scratch() elements
  T* edge_scratch = nullptr;     ///< depth * tile columns, when B is not packed
  T* partial_scratch = nullptr;  ///< rounded rows * rounded columns, when depth needs blocks
  T* state_scratch = nullptr;    ///< rows * 3 * lanes, for epilogues that keep a state
};

/// c = alpha * sum + beta * c. With beta = 0 nothing is read, so c may hold anything.
template <class T>
struct StoreScaled {
  T* c = nullptr;
  std::ptrdiff_t row_stride = 0;
  std::ptrdiff_t col_stride = 0;
  T alpha = T{1};
  T beta = T{0};
  static constexpr bool keeps_state = false;
};

/// c = f(alpha * sum + (row_bias[row] + col_bias[column])); a null bias is left out. F is a name of
/// functors.hpp.
template <class T, class F = Identity>
struct StoreActivated {
  T* c = nullptr;
  std::ptrdiff_t row_stride = 0;
  std::ptrdiff_t col_stride = 0;
  T alpha = T{1};
  const T* row_bias = nullptr;
  const T* col_bias = nullptr;
  F f{};
  static constexpr bool keeps_state = false;
};

/// Keeps, for each row, the smallest alpha * sum + offsets[column] and its column, and stores no
/// product at all. Of equal values the lowest column counts; NaN is never the smallest; a row
/// without any finite value gives infinity and column 0. A task must span all columns.
template <class T>
struct StoreArgMin {
  T alpha = T{1};
  const T* offsets = nullptr;       ///< one a column, or null for zeros
  T* values = nullptr;              ///< one a row, or null
  std::int64_t* columns = nullptr;  ///< one a row, or null
  static constexpr bool keeps_state = true;
};

/// The same, and the second smallest value of each row (infinity where there is none), which says
/// how sure the smallest is. Of codes-inl.hpp.
template <class T>
struct StoreArgMinTwo {
  StoreArgMin<T> best;
  T* seconds = nullptr;  ///< one a row
  static constexpr bool keeps_state = true;
};

}  // namespace kernels
QUERN_NAMESPACE_END

#endif  // QUERN_KERNELS_GEMM_TYPES_HPP
