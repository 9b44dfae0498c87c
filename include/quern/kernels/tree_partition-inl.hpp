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
  Index* left = out;
  Index* right = out + rows.size - 1;
  const auto place = [&](Index row) HWY_ATTR {
    const bool goes_left = static_cast<std::uint8_t>(column[row] - first) < count;
    *left = row;
    *right = row;
    left += goes_left;
    right -= !goes_left;
  };
  if (rows.index == nullptr) {
    for (std::int64_t i = 0; i < rows.size; ++i) place(static_cast<Index>(rows.first + i));
  } else {
    for (std::int64_t i = 0; i < rows.size; ++i) place(rows.index[i]);
  }
  return left - out;
}

}  // namespace HWY_NAMESPACE
}  // namespace kernels
QUERN_NAMESPACE_END
HWY_AFTER_NAMESPACE();

#endif  // QUERN_KERNELS_TREE_PARTITION_INL_HPP
