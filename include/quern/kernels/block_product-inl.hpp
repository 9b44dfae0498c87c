// SPDX-License-Identifier: Apache-2.0

/// \file
/// Products of blocks that lie in cache already: nothing is packed, no memory is asked for, and a
/// call costs a few dozen instructions. What attention over blocks multiplies is of this kind:
/// operands of 64 rows that were just written, one of them to be read along its columns.
///
/// Numerics: an element is one chain of fused multiply-adds in order of depth, begun at zero or at
/// what c held. Its bits depend on its row of a and its column of b alone.
///
/// Cost: kBlockRows rows by up to kBlockVectors vectors of sums stay in registers; a step of depth
/// loads the vectors of b and one element a row of a. Four vectors and six rows are 24
/// multiply-adds for 10 loads.

#if defined(QUERN_KERNELS_BLOCK_PRODUCT_INL_HPP) == defined(HWY_TARGET_TOGGLE)
#ifdef QUERN_KERNELS_BLOCK_PRODUCT_INL_HPP
#undef QUERN_KERNELS_BLOCK_PRODUCT_INL_HPP
#else
#define QUERN_KERNELS_BLOCK_PRODUCT_INL_HPP
#endif

#include "quern/core/config.hpp"
#include "quern/kernels/block_product_types.hpp"
#include "quern/kernels/partial-inl.hpp"

#include "hwy/highway.h"

#include <cstddef>

HWY_BEFORE_NAMESPACE();
QUERN_NAMESPACE_BEGIN
namespace kernels {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

#if HWY_TARGET == HWY_SCALAR || HWY_TARGET == HWY_EMU128
inline constexpr int kBlockRows = 4;
inline constexpr int kBlockVectors = 2;
#elif HWY_CAP_GE512
inline constexpr int kBlockRows = 6;
inline constexpr int kBlockVectors = 4;
#else
inline constexpr int kBlockRows = 6;
inline constexpr int kBlockVectors = 2;
#endif

namespace detail {

// Templates recurse where a loop would be, as in gemm-inl.hpp: g++ at -O2 keeps an array in memory
// that is indexed in a loop.

template <int kIndex, int kCount, class D, class V, class T>
HWY_INLINE void load_block_vectors(D d, const T* HWY_RESTRICT b, V (&row)[kCount]) {
  row[kIndex] = hn::LoadU(d, b + kIndex * static_cast<std::ptrdiff_t>(hn::Lanes(d)));
  if constexpr (kIndex + 1 < kCount) load_block_vectors<kIndex + 1>(d, b, row);
}

template <int kRow, int kIndex, int kVectors, int kSums, class V>
HWY_INLINE void multiply_add_row(V x, const V (&b)[kVectors], V (&sums)[kSums]) {
  sums[kRow * kVectors + kIndex] = hn::MulAdd(x, b[kIndex], sums[kRow * kVectors + kIndex]);
  if constexpr (kIndex + 1 < kVectors) multiply_add_row<kRow, kIndex + 1>(x, b, sums);
}

template <int kRow, int kRows, int kVectors, class D, class V, class T>
HWY_INLINE void multiply_add_rows(D d, const T* HWY_RESTRICT a, std::ptrdiff_t a_row_stride,
                                  const V (&b)[kVectors], V (&sums)[kRows * kVectors]) {
  multiply_add_row<kRow, 0>(hn::Set(d, a[kRow * a_row_stride]), b, sums);
  if constexpr (kRow + 1 < kRows) {
    multiply_add_rows<kRow + 1, kRows>(d, a, a_row_stride, b, sums);
  }
}

template <bool kAdd, int kIndex, int kVectors, int kCount, class D, class V, class T>
HWY_INLINE void begin_sums(D d, const T* c, std::ptrdiff_t c_stride, V (&sums)[kCount]) {
  const std::ptrdiff_t lanes = static_cast<std::ptrdiff_t>(hn::Lanes(d));
  if constexpr (kAdd) {
    sums[kIndex] = hn::LoadU(d, c + (kIndex / kVectors) * c_stride + (kIndex % kVectors) * lanes);
  } else {
    sums[kIndex] = hn::Zero(d);
  }
  if constexpr (kIndex + 1 < kCount) begin_sums<kAdd, kIndex + 1, kVectors>(d, c, c_stride, sums);
}

template <int kIndex, int kVectors, int kCount, class D, class V, class T>
HWY_INLINE void store_sums(D d, T* c, std::ptrdiff_t c_stride, const V (&sums)[kCount]) {
  const std::ptrdiff_t lanes = static_cast<std::ptrdiff_t>(hn::Lanes(d));
  hn::StoreU(sums[kIndex], d, c + (kIndex / kVectors) * c_stride + (kIndex % kVectors) * lanes);
  if constexpr (kIndex + 1 < kCount) store_sums<kIndex + 1, kVectors>(d, c, c_stride, sums);
}

/// kRows rows and kVectors whole vectors of columns.
template <bool kAdd, int kRows, int kVectors, class T>
HWY_NOINLINE void product_tile(const T* HWY_RESTRICT a, std::ptrdiff_t a_row_stride,
                               std::ptrdiff_t a_depth_stride, const T* HWY_RESTRICT b,
                               std::ptrdiff_t b_stride, std::ptrdiff_t depth, T* c,
                               std::ptrdiff_t c_stride) {
  const hn::ScalableTag<T> d;
  using V = hn::VFromD<hn::ScalableTag<T>>;
  V sums[kRows * kVectors];
  begin_sums<kAdd, 0, kVectors>(d, c, c_stride, sums);
  for (std::ptrdiff_t p = depth; p > 0; --p, a += a_depth_stride, b += b_stride) {
    V row[kVectors];
    load_block_vectors<0>(d, b, row);
    multiply_add_rows<0, kRows>(d, a, a_row_stride, row, sums);
  }
  store_sums<0, kVectors>(d, c, c_stride, sums);
}

/// kRows rows and the last columns, fewer than a vector holds.
template <bool kAdd, int kRows, class T>
HWY_NOINLINE void product_edge(const T* HWY_RESTRICT a, std::ptrdiff_t a_row_stride,
                               std::ptrdiff_t a_depth_stride, const T* HWY_RESTRICT b,
                               std::ptrdiff_t b_stride, std::ptrdiff_t depth, T* c,
                               std::ptrdiff_t c_stride, std::size_t cols) {
  const hn::ScalableTag<T> d;
  using V = hn::VFromD<hn::ScalableTag<T>>;
  HWY_ALIGN T first[kRows * hn::MaxLanes(hn::ScalableTag<T>())];
  const std::ptrdiff_t lanes = static_cast<std::ptrdiff_t>(hn::Lanes(d));
  for (int r = 0; r < kRows; ++r) {
    const V before = kAdd ? load_partial(d, c + r * c_stride, cols) : hn::Zero(d);
    hn::Store(before, d, first + r * lanes);
  }
  V sums[kRows];
  begin_sums<true, 0, 1>(d, first, lanes, sums);
  for (std::ptrdiff_t p = depth; p > 0; --p, a += a_depth_stride, b += b_stride) {
    const V row[1] = {load_partial(d, b, cols)};
    multiply_add_rows<0, kRows>(d, a, a_row_stride, row, sums);
  }
  store_sums<0, 1>(d, first, lanes, sums);
  for (int r = 0; r < kRows; ++r) {
    store_partial(hn::Load(d, first + r * lanes), d, c + r * c_stride, cols);
  }
}

/// All columns of kRows rows.
template <bool kAdd, int kRows, class T>
HWY_INLINE void product_strip(const BlockProduct<T>& p, std::ptrdiff_t row) {
  const hn::ScalableTag<T> d;
  const std::ptrdiff_t lanes = static_cast<std::ptrdiff_t>(hn::Lanes(d));
  const T* const a = p.a + row * p.a_row_stride;
  T* const c = p.c + row * p.c_stride;
  std::ptrdiff_t j = 0;
  for (; j + kBlockVectors * lanes <= p.cols; j += kBlockVectors * lanes) {
    product_tile<kAdd, kRows, kBlockVectors>(a, p.a_row_stride, p.a_depth_stride, p.b + j,
                                             p.b_stride, p.depth, c + j, p.c_stride);
  }
  if constexpr (kBlockVectors > 2) {
    for (; j + 2 * lanes <= p.cols; j += 2 * lanes) {
      product_tile<kAdd, kRows, 2>(a, p.a_row_stride, p.a_depth_stride, p.b + j, p.b_stride,
                                   p.depth, c + j, p.c_stride);
    }
  }
  for (; j + lanes <= p.cols; j += lanes) {
    product_tile<kAdd, kRows, 1>(a, p.a_row_stride, p.a_depth_stride, p.b + j, p.b_stride, p.depth,
                                 c + j, p.c_stride);
  }
  if (j < p.cols) {
    product_edge<kAdd, kRows>(a, p.a_row_stride, p.a_depth_stride, p.b + j, p.b_stride, p.depth,
                              c + j, p.c_stride, static_cast<std::size_t>(p.cols - j));
  }
}

}  // namespace detail

/// c = a b, or c += a b where kAdd.
template <bool kAdd, class T>
void block_product(const BlockProduct<T>& p) {
  std::ptrdiff_t row = 0;
  for (; row + kBlockRows <= p.rows; row += kBlockRows) {
    detail::product_strip<kAdd, kBlockRows>(p, row);
  }
  if constexpr (kBlockRows > 4) {
    for (; row + 3 <= p.rows; row += 3) detail::product_strip<kAdd, 3>(p, row);
  }
  for (; row < p.rows; ++row) detail::product_strip<kAdd, 1>(p, row);
}

}  // namespace HWY_NAMESPACE
}  // namespace kernels
QUERN_NAMESPACE_END
HWY_AFTER_NAMESPACE();

#endif  // QUERN_KERNELS_BLOCK_PRODUCT_INL_HPP
