// SPDX-License-Identifier: Apache-2.0

/// \file
/// The matrix product on one thread: a register tile of sums, an epilogue for what becomes of them,
/// and the loops around it. kernels/gemm.hpp is the way in.
///
/// Numerics: an element is a sum over blocks of kGemmDepth products, in order; within a block each
/// product is added by one multiply-add to one sum that starts at zero. Nothing else (size, place,
/// packing, threads) has a part in it, so an element has the same bits whatever it is computed
/// along with.
///
/// Cost: the tile is bound by the two multiply-adds a cycle as long as a panel of B stays in L1,
/// a block of A in L2. Six rows by two vectors: 12 multiply-adds for 2 + 6 loads.

#if defined(QUERN_KERNELS_GEMM_INL_HPP) == defined(HWY_TARGET_TOGGLE)
#ifdef QUERN_KERNELS_GEMM_INL_HPP
#undef QUERN_KERNELS_GEMM_INL_HPP
#else
#define QUERN_KERNELS_GEMM_INL_HPP
#endif

#include "quern/core/config.hpp"
#include "quern/kernels/gemm_epilogue-inl.hpp"
#include "quern/kernels/gemm_pack-inl.hpp"
#include "quern/kernels/gemm_types.hpp"

#include "hwy/highway.h"

#include <cstddef>

HWY_BEFORE_NAMESPACE();
QUERN_NAMESPACE_BEGIN
namespace kernels {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

/// How this level cuts products.
template <class T>
GemmLayout gemm_layout() {
  return {kTileRows, kTileCols<T>, kGemmDepth,
          static_cast<std::ptrdiff_t>(hn::Lanes(GemmTag<T>()))};
}

/// Where one tile's operands are. `depth` counts this block only.
template <class T>
struct GemmTile {
  const T* a;
  std::ptrdiff_t a_row_stride;
  std::ptrdiff_t a_depth_stride;
  std::ptrdiff_t a_panel_stride;
  const T* b;
  std::ptrdiff_t b_stride;
  std::ptrdiff_t depth;
  T* partial;  ///< sums of the blocks so far, kTileRows x kTileCols; null for a single block
  std::ptrdiff_t partial_stride;  ///< from one row's sums to the next's: 0 where there are none
  bool first;                     ///< no blocks before this one
  bool last;                      ///< none after it
  std::ptrdiff_t row;
  std::ptrdiff_t col;
  std::ptrdiff_t cols;
};

// Sums are kept in arrays whose every index is a constant: templates recurse where a loop would be,
// since g++ at -O2 keeps an array in memory that is indexed in a loop.

template <int kRow, int kRows, bool kPacked, class D, class V, class T>
HWY_INLINE void add_products(D d, const T* HWY_RESTRICT a, std::ptrdiff_t a_row_stride,
                             const V (&b)[kTileVectors], V (&sums)[kRows * kTileVectors]) {
  const V x = hn::Set(d, kPacked ? a[kRow] : a[kRow * a_row_stride]);
  sums[kRow * kTileVectors] = hn::MulAdd(x, b[0], sums[kRow * kTileVectors]);
  sums[kRow * kTileVectors + 1] = hn::MulAdd(x, b[1], sums[kRow * kTileVectors + 1]);
  if constexpr (kTileVectors > 2) {
    sums[kRow * kTileVectors + 2] = hn::MulAdd(x, b[2], sums[kRow * kTileVectors + 2]);
  }
  static_assert(kTileVectors == 2 || kTileVectors == 3);
  if constexpr (kRow + 1 < kRows) {
    add_products<kRow + 1, kRows, kPacked>(d, a, a_row_stride, b, sums);
  }
}

template <int kRows, bool kPacked, class D, class V, class T>
HWY_INLINE void add_row_of_b(D d, const T* HWY_RESTRICT a, std::ptrdiff_t a_row_stride,
                             const T* HWY_RESTRICT b, V (&sums)[kRows * kTileVectors]) {
  const std::ptrdiff_t lanes = static_cast<std::ptrdiff_t>(hn::Lanes(d));
  V row[kTileVectors];
  row[0] = hn::LoadU(d, b);
  row[1] = hn::LoadU(d, b + lanes);
  if constexpr (kTileVectors > 2) row[2] = hn::LoadU(d, b + 2 * lanes);
  add_products<0, kRows, kPacked>(d, a, a_row_stride, row, sums);
}

template <int kIndex, int kCount, class D, class V>
HWY_INLINE void zero_sums(D d, V (&sums)[kCount]) {
  sums[kIndex] = hn::Zero(d);
  if constexpr (kIndex + 1 < kCount) zero_sums<kIndex + 1>(d, sums);
}

template <int kIndex, int kCount, class D, class V, class T>
HWY_INLINE void add_partial(D d, const T* HWY_RESTRICT partial, V (&sums)[kCount]) {
  const std::ptrdiff_t at = kIndex * static_cast<std::ptrdiff_t>(hn::Lanes(d));
  sums[kIndex] = hn::Add(hn::LoadU(d, partial + at), sums[kIndex]);
  if constexpr (kIndex + 1 < kCount) add_partial<kIndex + 1>(d, partial, sums);
}

template <int kIndex, int kCount, class D, class V, class T>
HWY_INLINE void store_partial(D d, T* HWY_RESTRICT partial, const V (&sums)[kCount]) {
  const std::ptrdiff_t at = kIndex * static_cast<std::ptrdiff_t>(hn::Lanes(d));
  hn::StoreU(sums[kIndex], d, partial + at);
  if constexpr (kIndex + 1 < kCount) store_partial<kIndex + 1>(d, partial, sums);
}

template <int kIndex, int kCount, class D, class V, class T, class E>
HWY_INLINE void finish_sums(D d, const GemmTile<T>& tile, const V (&sums)[kCount],
                            const E& epilogue) {
  const std::ptrdiff_t lanes = static_cast<std::ptrdiff_t>(hn::Lanes(d));
  epilogue.template operator()<true>(d, sums[kIndex], tile.row + kIndex / kTileVectors,
                                     tile.col + (kIndex % kTileVectors) * lanes, lanes);
  if constexpr (kIndex + 1 < kCount) finish_sums<kIndex + 1>(d, tile, sums, epilogue);
}

/// The same for epilogues that take a tile's row at once.
template <int kRow, int kCount, class D, class V, class T, class E>
HWY_INLINE void finish_rows(D d, const GemmTile<T>& tile, const V (&sums)[kCount],
                            const V (&offsets)[kTileVectors], const E& epilogue) {
  epilogue.template keep_row<kRow * kTileVectors>(d, sums, offsets, tile.row + kRow, tile.col);
  if constexpr ((kRow + 1) * kTileVectors < kCount) {
    finish_rows<kRow + 1>(d, tile, sums, offsets, epilogue);
  }
}

/// Sums of this block of depth, and those of the blocks before it.
template <int kRows, bool kPacked, class D, class V, class T>
HWY_INLINE void sum_products(D d, const GemmTile<T>& tile, V (&sums)[kRows * kTileVectors]) {
  zero_sums<0>(d, sums);
  const T* HWY_RESTRICT a = tile.a;
  const T* HWY_RESTRICT b = tile.b;
  const std::ptrdiff_t a_row_stride = tile.a_row_stride;
  const std::ptrdiff_t a_step = kPacked ? kTileRows : tile.a_depth_stride;
  const std::ptrdiff_t b_step = kPacked ? kTileCols<T> : tile.b_stride;
  // Not unrolled: g++ would load several steps ahead and spill sums for it (measured: 70 for 89
  // GFLOP/s at four steps a turn).
  for (std::ptrdiff_t p = tile.depth; p > 0; --p, a += a_step, b += b_step) {
    add_row_of_b<kRows, kPacked>(d, a, a_row_stride, b, sums);
  }
  if (!tile.first) add_partial<0>(d, tile.partial, sums);
}

/// `kRows` rows of a tile's sums into memory: scratch, or tile.partial itself, where the next block
/// of depth finds them (so `out` is not restricted).
template <int kRows, bool kPacked, class T>
HWY_NOINLINE void gemm_rows(const GemmTile<T>& tile, T* out) {
  const GemmTag<T> d;
  hn::VFromD<GemmTag<T>> sums[kRows * kTileVectors];
  sum_products<kRows, kPacked>(d, tile, sums);
  store_partial<0>(d, out, sums);
}

/// A whole tile from zero to epilogue without leaving the registers: the common case.
template <class T, class E>
HWY_NOINLINE void gemm_whole_tile(const GemmTile<T>& tile, const E& epilogue) {
  const GemmTag<T> d;
  hn::VFromD<GemmTag<T>> sums[kTileRows * kTileVectors];
  epilogue.template prefetch<kTileRows>(tile.row, tile.col);
  sum_products<kTileRows, true>(d, tile, sums);
  if constexpr (E::kByRows) {
    hn::VFromD<GemmTag<T>> offsets[kTileVectors];
    epilogue.begin_tile(d, tile.col, offsets);
    finish_rows<0>(d, tile, sums, offsets, epilogue);
  } else {
    finish_sums<0>(d, tile, sums, epilogue);
  }
}

/// Any `rows` up to kTileRows into `out`, a tile: those at the lower edge in pieces of 4, 2 and 1.
template <bool kPacked, class T>
HWY_INLINE void gemm_some_rows(GemmTile<T> tile, std::ptrdiff_t rows, T* out) {
  if (rows == kTileRows) return gemm_rows<kTileRows, kPacked>(tile, out);
  for (std::ptrdiff_t done = 0; rows > 0; rows -= done) {
    if (rows >= 4) {
      gemm_rows<4, kPacked>(tile, out);
      done = 4;
    } else if (rows >= 2) {
      gemm_rows<2, kPacked>(tile, out);
      done = 2;
    } else {
      gemm_rows<1, kPacked>(tile, out);
      done = 1;
    }
    tile.a += done * tile.a_row_stride;
    tile.partial += done * tile.partial_stride;
    out += done * kTileCols<T>;
  }
}

/// Epilogue of a tile whose sums are in memory.
template <class T, class E>
HWY_NOINLINE void finish_stored(const GemmTile<T>& tile, std::ptrdiff_t rows, const T* sums,
                                const E& epilogue) {
  const GemmTag<T> d;
  const std::ptrdiff_t lanes = static_cast<std::ptrdiff_t>(hn::Lanes(d));
  for (std::ptrdiff_t i = 0; i < rows; ++i, sums += kTileCols<T>) {
    std::ptrdiff_t j = 0;
    for (; j + lanes <= tile.cols; j += lanes) {
      epilogue.template operator()<true>(d, hn::LoadU(d, sums + j), tile.row + i, tile.col + j,
                                         lanes);
    }
    if (j < tile.cols) {
      epilogue.template operator()<false>(d, hn::LoadU(d, sums + j), tile.row + i, tile.col + j,
                                          tile.cols - j);
    }
  }
}

/// All rows of a task times one panel of B.
template <bool kPacked, class T, class E>
HWY_INLINE void gemm_panel(const GemmTask<T>& task, GemmTile<T> tile, const E& epilogue) {
  HWY_ALIGN T buffer[kTileRows * kTileCols<T>];
  const bool direct = kPacked && E::kInRegisters && tile.last && tile.cols == kTileCols<T>;
  for (std::ptrdiff_t i = task.row_begin; i < task.row_end; i += kTileRows) {
    tile.row = i;
    const std::ptrdiff_t left = task.row_end - i;
    const std::ptrdiff_t rows = left < kTileRows ? left : kTileRows;
    if (direct && rows == kTileRows) {
      if constexpr (kPacked && E::kInRegisters) gemm_whole_tile(tile, epilogue);
    } else if (tile.last) {
      gemm_some_rows<kPacked>(tile, rows, buffer);
      finish_stored(tile, rows, buffer, epilogue);
    } else {
      gemm_some_rows<kPacked>(tile, rows, tile.partial);
    }
    tile.a += tile.a_panel_stride;
    tile.partial += kTileRows * tile.partial_stride;
  }
}

/// One task of a product: see GemmTask. E is an epilogue of gemm_types.hpp.
template <class T, class E>
void gemm_task(const GemmTask<T>& task, const E& names) {
  constexpr int kCols = kTileCols<T>;
  const TileEpilogue<E> epilogue(names, task);
  const std::ptrdiff_t panel_tiles = (task.row_end - task.row_begin + kTileRows - 1) / kTileRows;
  const std::ptrdiff_t rest = (task.col_end - task.col_begin) % kCols;
  if (task.packed_b == nullptr && rest != 0) {
    gemm_pack_b(GemmOperand<T>{task.b.data + (task.col_end - rest) * task.b.col_stride,
                               task.b.row_stride, task.b.col_stride},
                task.depth, rest, 0, rest, kCols, task.edge_scratch);
  }
  std::ptrdiff_t p = 0;
  do {  // at least once: sums over nothing are finished too
    GemmTile<T> tile;
    tile.depth = task.depth - p < kGemmDepth ? task.depth - p : kGemmDepth;
    tile.first = p == 0;
    tile.last = p + tile.depth >= task.depth;
    if (task.pack_a) {
      gemm_pack_a(task.a, task.row_begin, task.row_end, p, tile.depth, task.a_scratch);
    }
    for (std::ptrdiff_t j = task.col_begin; j < task.col_end; j += kCols) {
      tile.col = j;
      tile.cols = task.col_end - j < kCols ? task.col_end - j : kCols;
      if (task.packed_b != nullptr) {
        tile.b = task.packed_b + p * task.packed_cols + j * tile.depth;
        tile.b_stride = kCols;
      } else if (tile.cols == kCols) {
        tile.b = task.b.data + p * task.b.row_stride + j;
        tile.b_stride = task.b.row_stride;
      } else {
        tile.b = task.edge_scratch + p * kCols;
        tile.b_stride = kCols;
      }
      tile.partial_stride = task.partial_scratch != nullptr ? kCols : 0;
      tile.partial = task.partial_scratch +
                     (j - task.col_begin) / kCols * panel_tiles * kTileRows * tile.partial_stride;
      if (task.pack_a) {
        tile.a = task.a_scratch;
        tile.a_row_stride = 1;
        tile.a_depth_stride = kTileRows;
        tile.a_panel_stride = kTileRows * tile.depth;
      } else {
        tile.a = task.a.data + task.row_begin * task.a.row_stride + p * task.a.col_stride;
        tile.a_row_stride = task.a.row_stride;
        tile.a_depth_stride = task.a.col_stride;
        tile.a_panel_stride = kTileRows * tile.a_row_stride;
      }
      if (task.pack_a && tile.b_stride == kCols) {
        gemm_panel<true>(task, tile, epilogue);
      } else {
        gemm_panel<false>(task, tile, epilogue);
      }
    }
    p += tile.depth;
  } while (p < task.depth);
  epilogue.finish();
}

}  // namespace HWY_NAMESPACE
}  // namespace kernels
QUERN_NAMESPACE_END
HWY_AFTER_NAMESPACE();

#endif  // QUERN_KERNELS_GEMM_INL_HPP
