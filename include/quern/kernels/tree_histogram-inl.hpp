// SPDX-License-Identifier: Apache-2.0

/// \file
/// Histograms of gradients over binned rows: the hot loop of tree boosting.
///
/// Bound by one read-modify-write a (row, feature), about a cycle each: rows lie row-major so that
/// a row costs one cache line, both sums are in one 64-bit word, and rows to come are prefetched,
/// because deep in a tree they are scattered. With two words a row (full precision) the same loop
/// adds 128 bits.

#if defined(QUERN_KERNELS_TREE_HISTOGRAM_INL_HPP) == defined(HWY_TARGET_TOGGLE)
#ifdef QUERN_KERNELS_TREE_HISTOGRAM_INL_HPP
#undef QUERN_KERNELS_TREE_HISTOGRAM_INL_HPP
#else
#define QUERN_KERNELS_TREE_HISTOGRAM_INL_HPP
#endif

#include "quern/core/config.hpp"
#include "quern/kernels/tree_types.hpp"

#include "hwy/cache_control.h"
#include "hwy/highway.h"

#include <cstdint>
#include <cstring>

HWY_BEFORE_NAMESPACE();
QUERN_NAMESPACE_BEGIN
namespace kernels {
namespace HWY_NAMESPACE {

/// One row's gradient, held while its cells are updated.
template <int kWords>
struct RowGradient;

template <>
struct RowGradient<1> {
  std::int64_t value;
  explicit HWY_INLINE RowGradient(const std::int64_t* p) : value(*p) {}
  HWY_INLINE void add_to(std::int64_t* HWY_RESTRICT cells, std::int64_t cell) const {
    cells[cell] += value;
  }
};

template <>
struct RowGradient<2> {
#if HWY_TARGET == HWY_SCALAR
  std::int64_t g, h;
  explicit HWY_INLINE RowGradient(const std::int64_t* p) : g(p[0]), h(p[1]) {}
  HWY_INLINE void add_to(std::int64_t* HWY_RESTRICT cells, std::int64_t cell) const {
    cells[2 * cell] += g;
    cells[2 * cell + 1] += h;
  }
#else
  using Tag = hwy::HWY_NAMESPACE::FixedTag<std::int64_t, 2>;
  hwy::HWY_NAMESPACE::VFromD<Tag> value;
  explicit HWY_INLINE RowGradient(const std::int64_t* p)
      : value(hwy::HWY_NAMESPACE::LoadU(Tag(), p)) {}
  HWY_INLINE void add_to(std::int64_t* HWY_RESTRICT cells, std::int64_t cell) const {
    namespace hn = hwy::HWY_NAMESPACE;
    std::int64_t* to = cells + 2 * cell;
    hn::StoreU(hn::Add(hn::LoadU(Tag(), to), value), Tag(), to);
  }
#endif
};

/// Adds one dense row: a byte a feature, four at a time.
template <int kWords>
HWY_INLINE void add_dense_row(const std::uint8_t* HWY_RESTRICT codes,
                              const std::int32_t* HWY_RESTRICT offsets, std::int64_t features,
                              const RowGradient<kWords>& gradient,
                              std::int64_t* HWY_RESTRICT cells) {
  std::int64_t j = 0;
  for (; j + 4 <= features; j += 4) {
    std::uint32_t word;
    std::memcpy(&word, codes + j, 4);
    gradient.add_to(cells, offsets[j] + static_cast<std::int32_t>(word & 255u));
    gradient.add_to(cells, offsets[j + 1] + static_cast<std::int32_t>(word >> 8 & 255u));
    gradient.add_to(cells, offsets[j + 2] + static_cast<std::int32_t>(word >> 16 & 255u));
    gradient.add_to(cells, offsets[j + 3] + static_cast<std::int32_t>(word >> 24));
  }
  for (; j < features; ++j) gradient.add_to(cells, offsets[j] + codes[j]);
}

/// The same where every feature has 256 cells, so that no offset has to be loaded: what bounds the
/// loop is loads and stores, three a cell with offsets and two without. \p cells: of the first.
template <int kWords>
HWY_INLINE void add_even_row(const std::uint8_t* HWY_RESTRICT codes, std::int64_t features,
                             const RowGradient<kWords>& gradient,
                             std::int64_t* HWY_RESTRICT cells) {
  std::int64_t j = 0;
  for (; j + 4 <= features; j += 4, cells += 4 * 256 * kWords) {
    std::uint32_t word;
    std::memcpy(&word, codes + j, 4);
    gradient.add_to(cells, static_cast<std::int64_t>(word & 255u));
    gradient.add_to(cells + 256 * kWords, static_cast<std::int64_t>(word >> 8 & 255u));
    gradient.add_to(cells + 512 * kWords, static_cast<std::int64_t>(word >> 16 & 255u));
    gradient.add_to(cells + 768 * kWords, static_cast<std::int64_t>(word >> 24));
  }
  for (; j < features; ++j, cells += 256 * kWords) gradient.add_to(cells, codes[j]);
}

/// Whether all features have 256 cells.
HWY_INLINE bool even_cells(const DenseCodes& block) {
  bool even = true;
  for (std::int64_t j = 1; j < block.features; ++j)
    even &= block.offsets[j] - block.offsets[j - 1] == 256;
  return even;
}

/// Rows ahead that are asked for; about the time of one memory access at 28 features a row.
constexpr std::int64_t kHistogramPrefetch = 16;

/// Rows that all groups of features go through before the next rows: their codes stay in the
/// second-level cache.
constexpr std::int64_t kHistogramChunk = 2048;
/// Cells of a group of features: as many bytes as leave room in a first-level cache of 32 KiB.
template <int kWords>
constexpr std::int64_t kHistogramGroupCells = 3700 / kWords;

/// Adds the features of \p block to \p cells for at most kHistogramChunk rows.
template <int kWords, bool kEven>
HWY_INLINE void add_dense_chunk(const DenseCodes& block, const RowList& rows,
                                const std::int64_t* HWY_RESTRICT gradients, std::int64_t near,
                                std::int64_t* HWY_RESTRICT cells) {
  const std::uint8_t* HWY_RESTRICT codes = block.codes;
  const std::int32_t* HWY_RESTRICT offsets = block.offsets;
  const std::int64_t stride = block.stride, features = block.features;
  const auto add_row = [=](std::int64_t row) HWY_ATTR {
    const RowGradient<kWords> gradient(gradients + row * kWords);
    if constexpr (kEven)
      add_even_row(codes + row * stride, features, gradient, cells + offsets[0] * kWords);
    else
      add_dense_row(codes + row * stride, offsets, features, gradient, cells);
  };
  if (rows.index == nullptr) {
    for (std::int64_t row = rows.first; row < rows.first + rows.size; ++row) add_row(row);
    return;
  }
  for (std::int64_t i = 0; i < rows.size; ++i) {
    const std::int64_t row = rows.index[i];
    if (i < near) {
      const std::int64_t ahead = rows.index[i + kHistogramPrefetch];
      hwy::Prefetch(codes + ahead * stride);
      hwy::Prefetch(codes + ahead * stride + stride - 1);
      hwy::Prefetch(gradients + ahead * kWords);
    }
    add_row(row);
  }
}

/// First feature after group \p g of \p groups, from 1, that have about the same number of cells.
/// \p begin: its first one, \p all: cells of all groups.
HWY_INLINE std::int64_t group_end(const DenseCodes& block, std::int64_t all, std::int64_t groups,
                                  std::int64_t g, std::int64_t begin) {
  if (g >= groups) return block.features;
  std::int64_t end = begin + 1;
  while (end < block.features && block.offsets[end] - block.offsets[0] < all * g / groups) ++end;
  return end;
}

/// Features [begin, end) of a block.
HWY_INLINE DenseCodes feature_group(const DenseCodes& block, std::int64_t begin, std::int64_t end) {
  DenseCodes group = block;
  group.codes += begin;
  group.offsets += begin;
  group.features = end - begin;
  return group;
}

/// Adds \p features of one row.
template <int kWords, bool kEven>
HWY_INLINE void add_row_of(const DenseCodes& group, const std::uint8_t* HWY_RESTRICT codes,
                           const RowGradient<kWords>& gradient, std::int64_t* HWY_RESTRICT cells) {
  if constexpr (kEven)
    add_even_row(codes, group.features, gradient, cells + group.offsets[0] * kWords);
  else
    add_dense_row(codes, group.offsets, group.features, gradient, cells);
}

/// Rows that are copied at once, and bytes of their codes.
constexpr std::int64_t kCopiedRows = 1024;
constexpr std::int64_t kCopiedBytes = 32768;

/// Rows of a list that lie far apart, several groups of features. They are copied side by side, so
/// that each is read from memory once and the groups read it in order; while the first two groups
/// are added, the codes and gradients of the next rows are fetched into the second-level cache.
/// \p left: rows of the list from the first on, which may go on behind these.
template <int kWords, bool kEven>
HWY_INLINE void add_scattered_rows(const DenseCodes& block, const RowList& rows, std::int64_t left,
                                   std::int64_t all, std::int64_t groups,
                                   const std::int64_t* HWY_RESTRICT gradients,
                                   std::int64_t* HWY_RESTRICT cells) {
  HWY_ALIGN std::uint8_t codes[kCopiedBytes];
  HWY_ALIGN std::int64_t pairs[kCopiedRows * kWords];
  const std::int64_t stride = block.stride, fit = kCopiedBytes / stride;
  const std::int64_t most = fit < kCopiedRows ? fit : kCopiedRows;
  for (std::int64_t begin = 0; begin < rows.size; begin += most) {
    const std::int32_t* HWY_RESTRICT index = rows.index + begin;
    const std::int64_t n = rows.size - begin < most ? rows.size - begin : most;
    const std::int64_t near = left - begin - kHistogramPrefetch;
    for (std::int64_t i = 0; i < n; ++i) {
      if (i < near) {
        const std::int64_t ahead = index[i + kHistogramPrefetch];
        hwy::Prefetch(block.codes + ahead * stride);
        hwy::Prefetch(block.codes + ahead * stride + stride - 1);
        hwy::Prefetch(gradients + ahead * kWords);
      }
      const std::int64_t row = index[i];
      for (std::int64_t k = 0; k < stride; k += 8)
        std::memcpy(codes + i * stride + k, block.codes + row * stride + k, 8);
      for (std::int64_t w = 0; w < kWords; ++w) pairs[i * kWords + w] = gradients[row * kWords + w];
    }
    const std::int64_t next = left - begin - n < n ? left - begin - n : n;
    for (std::int64_t g = 1, j = 0; j < block.features; ++g) {
      const std::int64_t end = group_end(block, all, groups, g, j);
      const DenseCodes group = feature_group(block, j, end);
      for (std::int64_t i = 0; i < n; ++i) {
        if (g <= 2 && i < next) {
          const std::int64_t ahead = index[n + i];
          const std::uint8_t* const code = block.codes + ahead * stride;
          __builtin_prefetch(g == 1 ? static_cast<const void*>(code) : gradients + ahead * kWords,
                             0, 2);
          if (g == 1) __builtin_prefetch(code + stride - 1, 0, 2);
        }
        add_row_of<kWords, kEven>(group, codes + i * stride + j,
                                  RowGradient<kWords>(pairs + i * kWords), cells);
      }
      j = end;
    }
  }
}

/// cells[offsets[j] + code(r, j)] += gradient(r) for the rows r of \p rows and the features j of a
/// dense block. \p cells holds kWords words a cell. Features go in groups whose cells fit the
/// first-level cache, a chunk of rows after the other.
template <int kWords>
void histogram_dense(const DenseCodes& block, const RowList& rows,
                     const std::int64_t* HWY_RESTRICT gradients, std::int64_t* HWY_RESTRICT cells) {
  const std::int64_t features = block.features;
  const bool even = even_cells(block);
  // The last feature is counted with 256.
  const std::int64_t all = features == 0 ? 0 : block.offsets[features - 1] + 256 - block.offsets[0];
  const std::int64_t groups =
      (all + kHistogramGroupCells<kWords> - 1) / kHistogramGroupCells<kWords>;
  for (std::int64_t begin = 0; begin < rows.size; begin += kHistogramChunk) {
    RowList chunk = rows;
    chunk.first += begin;
    if (chunk.index != nullptr) chunk.index += begin;
    const std::int64_t left = rows.size - begin;
    chunk.size = left < kHistogramChunk ? left : kHistogramChunk;
    const bool near_by =
        chunk.index == nullptr || chunk.index[chunk.size - 1] - chunk.index[0] < 3 * chunk.size;
    if (!near_by && groups > 1) {
      if (even)
        add_scattered_rows<kWords, true>(block, chunk, left, all, groups, gradients, cells);
      else
        add_scattered_rows<kWords, false>(block, chunk, left, all, groups, gradients, cells);
      continue;
    }
    // Rows whose successors in the list are asked for; the first group does it for all.
    std::int64_t near =
        left - kHistogramPrefetch < chunk.size ? left - kHistogramPrefetch : chunk.size;
    for (std::int64_t g = 1, j = 0; j < features; ++g) {
      const std::int64_t end = group_end(block, all, groups, g, j);
      const DenseCodes group = feature_group(block, j, end);
      if (even)
        add_dense_chunk<kWords, true>(group, chunk, gradients, near, cells);
      else
        add_dense_chunk<kWords, false>(group, chunk, gradients, near, cells);
      near = 0;
      j = end;
    }
  }
}

/// The same for a sparse block, whose rows list the cells that are not their feature's default.
/// The rows' total goes to cells[total_cell], from which the default cells follow later.
template <int kWords>
void histogram_sparse(const SparseCodes& block, const RowList& rows,
                      const std::int64_t* HWY_RESTRICT gradients, std::int64_t total_cell,
                      std::int64_t* HWY_RESTRICT cells) {
  for (std::int64_t i = 0; i < rows.size; ++i) {
    const std::int64_t row = rows.index == nullptr ? rows.first + i : rows.index[i];
    if (rows.index != nullptr && i + kHistogramPrefetch < rows.size) {
      const std::int64_t ahead = rows.index[i + kHistogramPrefetch];
      hwy::Prefetch(block.entries + block.row_offsets[ahead]);
      hwy::Prefetch(gradients + ahead * kWords);
    }
    const RowGradient<kWords> gradient(gradients + row * kWords);
    const std::uint16_t* HWY_RESTRICT entry = block.entries + block.row_offsets[row];
    const std::uint16_t* const end = block.entries + block.row_offsets[row + 1];
    for (; entry + 4 <= end; entry += 4) {
      std::uint64_t word;
      std::memcpy(&word, entry, 8);
      gradient.add_to(cells, static_cast<std::int64_t>(word & 0xffffu));
      gradient.add_to(cells, static_cast<std::int64_t>(word >> 16 & 0xffffu));
      gradient.add_to(cells, static_cast<std::int64_t>(word >> 32 & 0xffffu));
      gradient.add_to(cells, static_cast<std::int64_t>(word >> 48));
    }
    for (; entry < end; ++entry) gradient.add_to(cells, *entry);
    gradient.add_to(cells, total_cell);
  }
}

/// Adds \p cells packed cells to full ones, or full ones to full ones.
template <int kWords>
void widen_histogram(const std::int64_t* HWY_RESTRICT from, std::int64_t cells,
                     std::int64_t* HWY_RESTRICT to) {
  if (kWords == 2) {
    for (std::int64_t i = 0; i < 2 * cells; ++i) to[i] += from[i];
    return;
  }
  for (std::int64_t i = 0; i < cells; ++i) {
    to[2 * i] += from[i] >> 32;
    to[2 * i + 1] += from[i] & 0xffffffff;
  }
}

/// sibling = parent - child, each with its own words a cell; \p sibling may be \p parent.
template <class Word>
void subtract_histogram(const Word* parent, int parent_words, const Word* child, int child_words,
                        std::int64_t cells, Word* sibling, int sibling_words) {
  namespace hn = hwy::HWY_NAMESPACE;
  if (parent_words == child_words && parent_words == sibling_words) {
    const hn::ScalableTag<Word> d;
    const std::int64_t words = cells * parent_words;
    const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
    std::int64_t i = 0;
    for (; i + lanes <= words; i += lanes)
      hn::StoreU(hn::Sub(hn::LoadU(d, parent + i), hn::LoadU(d, child + i)), d, sibling + i);
    for (; i < words; ++i) sibling[i] = parent[i] - child[i];
    return;
  }
  for (std::int64_t i = 0; i < cells; ++i) {  // the parent is full, its children need not be
    const Word g = parent[2 * i] - (child_words == 2 ? child[2 * i] : child[i] >> 32);
    const Word h =
        parent[2 * i + 1] - (child_words == 2 ? child[2 * i + 1] : child[i] & 0xffffffff);
    if (sibling_words == 2) {
      sibling[2 * i] = g;
      sibling[2 * i + 1] = h;
    } else {
      sibling[i] = g * (Word{1} << 32) + h;
    }
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace kernels
QUERN_NAMESPACE_END
HWY_AFTER_NAMESPACE();

#endif  // QUERN_KERNELS_TREE_HISTOGRAM_INL_HPP
