// SPDX-License-Identifier: Apache-2.0

/// \file
/// Copies of matrices in the order in which the product's inner loop reads them: panels of `kWidth`
/// rows of A (or columns of B), and within a panel all of one depth side by side.

#if defined(QUERN_KERNELS_GEMM_PACK_INL_HPP) == defined(HWY_TARGET_TOGGLE)
#ifdef QUERN_KERNELS_GEMM_PACK_INL_HPP
#undef QUERN_KERNELS_GEMM_PACK_INL_HPP
#else
#define QUERN_KERNELS_GEMM_PACK_INL_HPP
#endif

#include "quern/core/config.hpp"
#include "quern/kernels/gemm_types.hpp"

#include "hwy/highway.h"

#include <cstddef>
#include <cstring>

HWY_BEFORE_NAMESPACE();
QUERN_NAMESPACE_BEGIN
namespace kernels {
namespace HWY_NAMESPACE {

// A tile fills the registers but for a few that hold a row of B and an element of A: 12 sums of 16
// registers, 24 of 32. Six rows of two vectors need 8 loads for 12 multiply-adds.
#if HWY_TARGET == HWY_SCALAR
inline constexpr int kTileRows = 4;
inline constexpr int kTileVectors = 3;
#elif HWY_TARGET == HWY_EMU128
inline constexpr int kTileRows = 4;
inline constexpr int kTileVectors = 2;
#elif HWY_CAP_GE512
inline constexpr int kTileRows = 8;
inline constexpr int kTileVectors = 3;
#elif HWY_ARCH_ARM
inline constexpr int kTileRows = 8;
inline constexpr int kTileVectors = 2;
#else
inline constexpr int kTileRows = 6;
inline constexpr int kTileVectors = 2;
#endif

/// Sums are finished every so many products: part of the result's definition, so it depends on
/// nothing but the level. A panel of B of this depth takes half of a small L1 cache.
inline constexpr std::ptrdiff_t kGemmDepth = 256;

template <class T>
using GemmTag = hwy::HWY_NAMESPACE::ScalableTag<T>;

/// Columns of a tile. (Not for vectors whose length is unknown: targets.hpp leaves those out.)
template <class T>
inline constexpr int kTileCols =
    kTileVectors* static_cast<int>(hwy::HWY_NAMESPACE::MaxLanes(GemmTag<T>()));

/// Element (i, p) of the panel is at source[i * width_stride + p * depth_stride].
template <int kWidth, class T>
HWY_INLINE void pack_strided(const T* source, std::ptrdiff_t width_stride,
                             std::ptrdiff_t depth_stride, int width, std::ptrdiff_t depth,
                             T* HWY_RESTRICT out) {
  for (std::ptrdiff_t p = 0; p < depth; ++p, out += kWidth) {
    const T* from = source + p * depth_stride;
    for (int i = 0; i < width; ++i) out[i] = from[i * width_stride];
    for (int i = width; i < kWidth; ++i) out[i] = T{0};
  }
}

#if HWY_TARGET != HWY_SCALAR

/// Four rows of four floats become four columns. Rows are `rows[0..3]` + p.
HWY_INLINE void pack_square(const float* const* rows, std::ptrdiff_t p, float* out,
                            std::ptrdiff_t step) {
  namespace hn = hwy::HWY_NAMESPACE;
  const hn::FixedTag<float, 4> d;
  const hn::FixedTag<double, 2> dd;
  const auto r0 = hn::LoadU(d, rows[0] + p), r1 = hn::LoadU(d, rows[1] + p);
  const auto r2 = hn::LoadU(d, rows[2] + p), r3 = hn::LoadU(d, rows[3] + p);
  const auto low01 = hn::BitCast(dd, hn::InterleaveLower(d, r0, r1));
  const auto low23 = hn::BitCast(dd, hn::InterleaveLower(d, r2, r3));
  const auto high01 = hn::BitCast(dd, hn::InterleaveUpper(d, r0, r1));
  const auto high23 = hn::BitCast(dd, hn::InterleaveUpper(d, r2, r3));
  hn::StoreU(hn::BitCast(d, hn::InterleaveLower(dd, low01, low23)), d, out);
  hn::StoreU(hn::BitCast(d, hn::InterleaveUpper(dd, low01, low23)), d, out + step);
  hn::StoreU(hn::BitCast(d, hn::InterleaveLower(dd, high01, high23)), d, out + 2 * step);
  hn::StoreU(hn::BitCast(d, hn::InterleaveUpper(dd, high01, high23)), d, out + 3 * step);
}

/// Two rows of two doubles become two columns.
HWY_INLINE void pack_square(const double* const* rows, std::ptrdiff_t p, double* out,
                            std::ptrdiff_t step) {
  namespace hn = hwy::HWY_NAMESPACE;
  const hn::FixedTag<double, 2> d;
  const auto r0 = hn::LoadU(d, rows[0] + p), r1 = hn::LoadU(d, rows[1] + p);
  hn::StoreU(hn::InterleaveLower(d, r0, r1), d, out);
  hn::StoreU(hn::InterleaveUpper(d, r0, r1), d, out + step);
}

/// A full panel of rows that are contiguous along depth, by small squares. A last square that
/// stands over the panel's edge is transposed into a place of its own.
template <int kWidth, class T>
HWY_INLINE std::ptrdiff_t pack_transposed(const T* source, std::ptrdiff_t width_stride,
                                          std::ptrdiff_t depth, T* HWY_RESTRICT out) {
  constexpr int kSquare = 16 / static_cast<int>(sizeof(T));
  constexpr int kRest = kWidth % kSquare;
  const std::ptrdiff_t whole = depth / kSquare * kSquare;
  for (std::ptrdiff_t p = 0; p < whole; p += kSquare, out += kSquare * kWidth) {
    const T* rows[kSquare];
    for (int i = 0; i + kSquare <= kWidth; i += kSquare) {
      for (int r = 0; r < kSquare; ++r) rows[r] = source + (i + r) * width_stride;
      pack_square(rows, p, out + i, kWidth);
    }
    if constexpr (kRest != 0) {
      HWY_ALIGN T edge[kSquare * kSquare];
      for (int r = 0; r < kSquare; ++r) {
        rows[r] = source + (kWidth - kRest + (r < kRest ? r : 0)) * width_stride;
      }
      pack_square(rows, p, edge, kSquare);
      for (int q = 0; q < kSquare; ++q) {
        std::memcpy(out + q * kWidth + (kWidth - kRest), edge + q * kSquare, kRest * sizeof(T));
      }
    }
  }
  return whole;
}

#endif  // HWY_TARGET != HWY_SCALAR

/// One panel of `width` <= kWidth (the rest is filled with zeros) and `depth`.
template <int kWidth, class T>
HWY_INLINE void pack_panel(const T* source, std::ptrdiff_t width_stride,
                           std::ptrdiff_t depth_stride, int width, std::ptrdiff_t depth,
                           T* HWY_RESTRICT out) {
  if (width == kWidth && width_stride == 1) {
    for (std::ptrdiff_t p = 0; p < depth; ++p) {
      std::memcpy(out + p * kWidth, source + p * depth_stride, kWidth * sizeof(T));
    }
    return;
  }
  std::ptrdiff_t done = 0;
#if HWY_TARGET != HWY_SCALAR
  if (width == kWidth && depth_stride == 1) {
    done = pack_transposed<kWidth>(source, width_stride, depth, out);
  }
#endif
  pack_strided<kWidth>(source + done * depth_stride, width_stride, depth_stride, width,
                       depth - done, out + done * kWidth);
}

/// Rows [row_begin, row_end) of A, depth [depth_begin, depth_begin + depth), as panels.
template <class T>
void gemm_pack_a(const GemmOperand<T>& a, std::ptrdiff_t row_begin, std::ptrdiff_t row_end,
                 std::ptrdiff_t depth_begin, std::ptrdiff_t depth, T* HWY_RESTRICT out) {
  for (std::ptrdiff_t i = row_begin; i < row_end; i += kTileRows, out += kTileRows * depth) {
    const std::ptrdiff_t left = row_end - i;
    pack_panel<kTileRows>(a.data + i * a.row_stride + depth_begin * a.col_stride, a.row_stride,
                          a.col_stride, left < kTileRows ? static_cast<int>(left) : kTileRows,
                          depth, out);
  }
}

/// Columns [col_begin, col_end) of B, whose first is a multiple of the tile's columns, into a
/// packed matrix of `packed_cols`: depth block by depth block, panel by panel within one. `cols` is
/// where B ends.
template <class T>
void gemm_pack_b(const GemmOperand<T>& b, std::ptrdiff_t depth, std::ptrdiff_t cols,
                 std::ptrdiff_t col_begin, std::ptrdiff_t col_end, std::ptrdiff_t packed_cols,
                 T* HWY_RESTRICT out) {
  constexpr int kCols = kTileCols<T>;
  for (std::ptrdiff_t p = 0; p < depth; p += kGemmDepth) {
    const std::ptrdiff_t deep = depth - p < kGemmDepth ? depth - p : kGemmDepth;
    T* const block = out + p * packed_cols;
    for (std::ptrdiff_t j = col_begin; j < col_end; j += kCols) {
      const std::ptrdiff_t left = cols - j;
      pack_panel<kCols>(b.data + p * b.row_stride + j * b.col_stride, b.col_stride, b.row_stride,
                        left < kCols ? static_cast<int>(left) : kCols, deep, block + j * deep);
    }
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace kernels
QUERN_NAMESPACE_END
HWY_AFTER_NAMESPACE();

#endif  // QUERN_KERNELS_GEMM_PACK_INL_HPP
