// SPDX-License-Identifier: Apache-2.0

/// \file
/// Features as tiles of ordered keys, whatever their layout: what cuts and codes are made from.

#ifndef QUERN_TREE_DETAIL_KEY_TILES_HPP
#define QUERN_TREE_DETAIL_KEY_TILES_HPP

#include "quern/core/buffer.hpp"
#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/core/nd_view.hpp"
#include "quern/core/parallel.hpp"
#include "quern/kernels/kernels.hpp"
#include "quern/kernels/tree_binning_types.hpp"
#include "quern/tree/dataset.hpp"
#include "quern/tree/float_key.hpp"

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <type_traits>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace tree::detail {

/// Rows of a tile. With 16 features of 4 bytes it fits the second-level cache beside counters.
inline constexpr std::int64_t tile_rows = 1024;
/// Keys from one feature of a tile to the next: no power of two, or all would share cache sets.
inline constexpr std::int64_t tile_stride = tile_rows + 16;

/// Features of a tile: those that share a cache line of a row-major matrix.
template <class T>
inline constexpr std::int64_t tile_features = 64 / static_cast<std::int64_t>(sizeof(T));

using kernels::KeySummary;

template <class T>
void summarize(KeyOf<T> key, KeySummary<KeyOf<T>>& summary) {
  using Key = KeyOf<T>;
  constexpr Key infinity = infinity_key<Key>;
  const bool missing = key == kernels::missing_key<Key>;
  summary.missing |= missing;
  summary.infinite |= key == infinity || key == -infinity;
  summary.bits |= missing ? 0 : key;
}

/// Keys of a tile: out[j * tile_stride + i] is that of row rows.begin + i and feature first + j.
template <class T>
void load_keys(const MatrixView<const T>& m, BlockRange rows, std::int64_t first,
               std::int64_t count, KeyOf<T>* out, KeySummary<KeyOf<T>>* summaries) {
  using Key = KeyOf<T>;
  const T* const x = m.data() + rows.begin * m.row_stride() + first * m.col_stride();
  // Keys are made from the bits in place; a column without gaps needs no copy before that.
  if (m.row_stride() != 1 && m.col_stride() == 1) {
    const Key* const words = reinterpret_cast<const Key*>(x);
    QUERN_DISPATCH(transpose_words(words, m.row_stride(), rows.size(), count, out, tile_stride));
  }
  for (std::int64_t j = 0; j < count; ++j) {
    Key* const keys = out + j * tile_stride;
    const Key* bits = keys;
    if (m.row_stride() == 1) {
      bits = reinterpret_cast<const Key*>(x + j * m.col_stride());
    } else if (m.col_stride() != 1) {
      for (std::int64_t i = 0; i < rows.size(); ++i)
        keys[i] = std::bit_cast<Key>(x[i * m.row_stride() + j * m.col_stride()]);
    }
    QUERN_DISPATCH(summarized_keys(bits, rows.size(), infinity_key<Key>, keys, summaries + j));
  }
}

[[noreturn]] inline void throw_infinite(const std::string& function, std::int64_t row,
                                        std::int64_t column) {
  throw ValueError(error_text(
      function, "features (row " + std::to_string(row) + ", column " + std::to_string(column) + ")",
      "a finite number, or NaN for a missing one", "an infinite one"));
}

/// Throws at the first infinite value of a tile that has one.
template <class T>
[[noreturn]] void throw_infinite_in(const std::string& function, const KeyOf<T>* keys,
                                    BlockRange rows, std::int64_t column) {
  KeySummary<KeyOf<T>> summary;
  std::int64_t row = rows.begin;
  for (; row + 1 < rows.end; ++row) {
    summarize<T>(keys[row - rows.begin], summary);
    if (summary.infinite) break;
  }
  throw_infinite(function, row, column);
}

/// The cuts of one feature as a kernels::CodeSearch. Buckets divide the range of the cuts, not of
/// all numbers, so cuts that differ in low bits alone are told apart too.
template <class Key>
class CodeTable {
 public:
  /// Takes \p count (<= 254) ascending cuts.
  void build(const Key* values, std::int32_t count) {
    std::copy(values, values + count, cuts_);
    std::fill(cuts_ + count, cuts_ + cut_capacity, (std::numeric_limits<Key>::max)());
    search_.first = count > 0 ? cuts_[0] : 0;
    search_.last = count > 0 ? cuts_[count - 1] : 0;
    const int width = static_cast<int>(
        std::bit_width(static_cast<Bits>(search_.last) - static_cast<Bits>(search_.first)));
    for (int bits = 8;; bits += 4) {  // the smallest table with at most one cut a bucket
      search_.shift = width > bits ? width - bits : 0;
      search_.steps = static_cast<int>(std::bit_width(most_in_bucket(count)));
      if (search_.steps <= 1 || bits == table_bits || search_.shift == 0) break;
    }
    below_.resize(std::size_t{1} << table_bits);
    below_[0] = 0;
    std::size_t next = 0;  // the first bucket that is not filled in
    for (std::int32_t c = 0; c < count; ++c) {
      const std::size_t here = bucket(cuts_[c]);
      if (here < next) continue;
      std::fill(below_.begin() + static_cast<std::ptrdiff_t>(next),
                below_.begin() + static_cast<std::ptrdiff_t>(here) + 1,
                static_cast<std::uint8_t>(c));
      next = here + 1;
    }
  }

  /// Valid until this is moved or built again.
  [[nodiscard]] kernels::CodeSearch<Key> search() const {
    kernels::CodeSearch<Key> result = search_;
    result.below = below_.data();
    result.cuts = cuts_;
    return result;
  }

 private:
  using Bits = std::make_unsigned_t<Key>;
  static constexpr int table_bits = 16;
  static constexpr int cut_capacity = 512;  ///< 254 cuts and as many as a search may read beyond

  [[nodiscard]] std::size_t bucket(Key cut) const {
    return static_cast<std::size_t>(static_cast<Bits>(cut) - static_cast<Bits>(search_.first)) >>
           search_.shift;
  }
  [[nodiscard]] std::uint32_t most_in_bucket(std::int32_t count) const {
    std::uint32_t most = 0, here = 0;
    for (std::int32_t c = 0; c < count; ++c) {
      here = c > 0 && bucket(cuts_[c]) == bucket(cuts_[c - 1]) ? here + 1 : 1;
      most = (std::max)(most, here);
    }
    return most;
  }

  kernels::CodeSearch<Key> search_;
  std::vector<std::uint8_t> below_;
  Key cuts_[cut_capacity];
};

/// Key of a cut for values of type T: x < cut holds exactly when key(x) < the result.
template <class T>
KeyOf<T> cut_key(double cut) {
  if constexpr (sizeof(T) == 4) {
    return float_key(round_up_to_float(cut));
  } else {
    return float_key(cut);
  }
}

}  // namespace tree::detail
QUERN_NAMESPACE_END

#endif  // QUERN_TREE_DETAIL_KEY_TILES_HPP
