// SPDX-License-Identifier: Apache-2.0

/// \file
/// Routes rows by the code of one feature, keeping their order.

#if defined(QUERN_KERNELS_TREE_PARTITION_INL_HPP) == defined(HWY_TARGET_TOGGLE)
#ifdef QUERN_KERNELS_TREE_PARTITION_INL_HPP
#undef QUERN_KERNELS_TREE_PARTITION_INL_HPP
#else
#define QUERN_KERNELS_TREE_PARTITION_INL_HPP
#endif

#include "quern/core/config.hpp"
#include "quern/kernels/tree_types.hpp"

#include "hwy/cache_control.h"
#include "hwy/highway.h"

#include <cstdint>

HWY_BEFORE_NAMESPACE();
QUERN_NAMESPACE_BEGIN
namespace kernels {
namespace HWY_NAMESPACE {

/// Routes rows whose code lies in [first, first + count), modulo 256, to the left: they fill \p out
/// from its front in order, the others from its end backwards. Returns how many went left. The
/// modulus lets the missing code 0 join either side: [0, t) sends it left, [1, 1 + t - 1) right.
/// Both ends are always written, since a branch would be mispredicted every other row; where they
/// meet, both write the same row.
template <class Index>
std::int64_t partition_rows(const std::uint8_t* HWY_RESTRICT column, std::uint8_t first,
                            std::int32_t count, const RowList& rows, Index* out) {
  if (rows.size == 0) return 0;
  const auto last = static_cast<std::uint8_t>(count - 1);
  std::int64_t lefts = 0;
  Index* right = out + rows.size - 1;  // where the row would go if none before it had gone left
  const auto place = [&](std::uint32_t row, bool goes_left) HWY_ATTR {
    out[lefts] = static_cast<Index>(row);
    right[lefts] = static_cast<Index>(row);
    --right;
    lefts += goes_left;
  };
  const auto place_by_code = [&](std::uint32_t row) HWY_ATTR {
    place(row, static_cast<std::uint8_t>(column[row] - first) <= last);
  };
  const auto number = [&](std::int64_t i) HWY_ATTR {
    return static_cast<std::uint32_t>(rows.index == nullptr ? rows.first + i : rows.index[i]);
  };
  if (count <= 0) {
    for (std::int64_t i = 0; i < rows.size; ++i) place(number(i), false);
  } else if (rows.index == nullptr) {
    const auto from = static_cast<std::uint32_t>(rows.first);
    const auto to = static_cast<std::uint32_t>(rows.first + rows.size);
    for (std::uint32_t row = from; row != to; ++row) place_by_code(row);
  } else {
    for (std::int64_t i = 0; i < rows.size; ++i)
      place_by_code(static_cast<std::uint32_t>(rows.index[i]));
  }
  return lefts;
}

/// The same by a feature of a sparse block, which owns the cells [test.first, test.end): rows go
/// left that list a cell of [test.left_first, test.left_end), and those that list none of the
/// feature's where the default code goes left. Rows of few entries are compared whole, since a
/// search would be mispredicted at every step.
template <class Index>
std::int64_t partition_sparse_rows(const SparseCodes& block, const SparseTest& test,
                                   const RowList& rows, Index* out) {
  namespace hn = hwy::HWY_NAMESPACE;
  if (rows.size == 0) return 0;
  constexpr std::int64_t kAhead = 16;
  const hn::ScalableTag<std::uint16_t> d;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  const auto first = static_cast<std::uint16_t>(test.first);
  const auto cells = static_cast<std::uint16_t>(test.end - test.first);
  const auto left_first = static_cast<std::uint16_t>(test.left_first);
  const auto left_cells = static_cast<std::uint16_t>(test.left_end - test.left_first);
  const auto v_first = hn::Set(d, first), v_left_first = hn::Set(d, left_first);
  const auto v_cells = hn::Set(d, cells), v_left_cells = hn::Set(d, left_cells);
  Index* left = out;
  Index* right = out + rows.size - 1;
  for (std::int64_t i = 0; i < rows.size; ++i) {
    const std::int64_t row = rows.index == nullptr ? rows.first + i : rows.index[i];
    if (rows.index != nullptr && i + kAhead < rows.size) {
      if (i + 2 * kAhead < rows.size) hwy::Prefetch(block.row_offsets + rows.index[i + 2 * kAhead]);
      hwy::Prefetch(block.entries + block.row_offsets[rows.index[i + kAhead]]);
    }
    const std::uint16_t* HWY_RESTRICT entry = block.entries + block.row_offsets[row];
    const std::uint16_t* const end = block.entries + block.row_offsets[row + 1];
    // An entry e is in [a, a + n) where min(e - a, n) != n, in arithmetic modulo 2^16.
    auto any = hn::Zero(d), any_left = hn::Zero(d);
    for (; entry + lanes <= end; entry += lanes) {
      const auto e = hn::LoadU(d, entry);
      any = hn::Or(any, hn::Xor(hn::Min(hn::Sub(e, v_first), v_cells), v_cells));
      any_left =
          hn::Or(any_left, hn::Xor(hn::Min(hn::Sub(e, v_left_first), v_left_cells), v_left_cells));
    }
    bool stored = !hn::AllTrue(d, hn::Eq(any, hn::Zero(d)));
    bool goes_left = !hn::AllTrue(d, hn::Eq(any_left, hn::Zero(d)));
    for (; entry < end; ++entry) {
      stored |= static_cast<std::uint16_t>(*entry - first) < cells;
      goes_left |= static_cast<std::uint16_t>(*entry - left_first) < left_cells;
    }
    goes_left |= !stored & test.default_left;
    *left = static_cast<Index>(row);
    *right = static_cast<Index>(row);
    left += goes_left;
    right -= !goes_left;
  }
  return left - out;
}

/// As partition_rows, but rows go left whose code c has goes_left[c] == 1 (else 0): 256 entries.
template <class Index>
std::int64_t partition_rows_by_table(const std::uint8_t* HWY_RESTRICT column,
                                     const std::uint8_t* HWY_RESTRICT goes_left,
                                     const RowList& rows, Index* out) {
  if (rows.size == 0) return 0;
  Index* left = out;
  Index* right = out + rows.size - 1;
  const auto place = [&](Index row) HWY_ATTR {
    const std::uint8_t to_left = goes_left[column[row]];
    *left = row;
    *right = row;
    left += to_left;
    right -= 1 - to_left;
  };
  if (rows.index == nullptr) {
    for (std::int64_t i = 0; i < rows.size; ++i) place(static_cast<Index>(rows.first + i));
  } else {
    for (std::int64_t i = 0; i < rows.size; ++i) place(rows.index[i]);
  }
  return left - out;
}

/// The same by one byte of rows that are \p stride bytes apart: row \p first_row is at \p codes.
template <class Index>
std::int64_t partition_strided_rows(const std::uint8_t* HWY_RESTRICT codes, std::int64_t stride,
                                    std::int64_t first_row,
                                    const std::uint8_t* HWY_RESTRICT goes_left, const RowList& rows,
                                    Index* out) {
  if (rows.size == 0) return 0;
  Index* left = out;
  Index* right = out + rows.size - 1;
  for (std::int64_t i = 0; i < rows.size; ++i) {
    const std::int64_t row = rows.index == nullptr ? rows.first + i : rows.index[i];
    const std::uint8_t to_left = goes_left[codes[(row - first_row) * stride]];
    *left = static_cast<Index>(row);
    *right = static_cast<Index>(row);
    left += to_left;
    right -= 1 - to_left;
  }
  return left - out;
}

/// out[i] = last[-1 - i]: the \p n elements before \p last, backwards. Not by Highway's Reverse,
/// which without optimisation calls a function that would have to be linked.
template <class T>
void copy_backwards(const T* HWY_RESTRICT last, std::int64_t n, T* HWY_RESTRICT out) {
  for (std::int64_t i = 0; i < n; ++i) out[i] = *--last;
}

}  // namespace HWY_NAMESPACE
}  // namespace kernels
QUERN_NAMESPACE_END
HWY_AFTER_NAMESPACE();

#endif  // QUERN_KERNELS_TREE_PARTITION_INL_HPP
