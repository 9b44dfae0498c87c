// SPDX-License-Identifier: Apache-2.0

/// \file
/// What attention passes to its kernels: small products whose operands are in cache, and tiles of
/// scores. Scores lie transposed, [key][query]: a vector holds one key's scores for many queries,
/// so that maxima, sums and masks of queries need nothing across lanes, and weights are at once the
/// right-hand operand of the product with the values.

#ifndef QUERN_KERNELS_ATTENTION_TYPES_HPP
#define QUERN_KERNELS_ATTENTION_TYPES_HPP

#include "quern/core/config.hpp"
#include "quern/kernels/decayed_recurrence_types.hpp"

#include <cstddef>

QUERN_NAMESPACE_BEGIN
namespace kernels {

/// How a level cuts tiles: columns come in vectors of `lanes`, of which `vectors` fill a register
/// tile together with `rows` rows.
struct TileLayout {
  std::ptrdiff_t rows = 0;
  std::ptrdiff_t lanes = 0;
  std::ptrdiff_t vectors = 0;
};

/// c = a b, or c += a b, on one thread: rows x depth times depth x cols. Rows of b and c are
/// contiguous and `cols`, a multiple of the lanes, wide; a has any strides.
template <class T>
struct TileProduct {
  std::ptrdiff_t rows = 0, cols = 0, depth = 0;
  const T* a = nullptr;
  std::ptrdiff_t a_row_stride = 0, a_depth_stride = 0;
  const T* b = nullptr;
  std::ptrdiff_t b_stride = 0;
  T* c = nullptr;
  std::ptrdiff_t c_stride = 0;
  bool add = false;
  Ahead ahead[2];
};

/// Scores of some keys, in units of log 2, for `cols` queries. Query lane i sees key r where
/// low + r <= i < high + r; `masked` says that this is not all of them.
template <class T>
struct ScoreTile {
  std::ptrdiff_t keys = 0, cols = 0;
  T* scores = nullptr;  ///< [key][cols], becomes weights
  bool masked = false;
  std::ptrdiff_t low = 0, high = 0;
};

}  // namespace kernels
QUERN_NAMESPACE_END

#endif  // QUERN_KERNELS_ATTENTION_TYPES_HPP
