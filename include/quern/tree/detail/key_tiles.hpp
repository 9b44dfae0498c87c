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
#include "quern/tree/dataset.hpp"
#include "quern/tree/float_key.hpp"

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <type_traits>

QUERN_NAMESPACE_BEGIN
namespace tree::detail {

/// Rows of a tile. With 16 features of 4 bytes it fits the second-level cache beside counters.
inline constexpr std::int64_t tile_rows = 1024;

/// Features of a tile: those that share a cache line of a row-major matrix.
template <class T>
inline constexpr std::int64_t tile_features = 64 / static_cast<std::int64_t>(sizeof(T));

/// What a run of keys holds.
template <class Key>
struct KeySummary {
  Key bits = 0;  ///< bitwise or of the numbers' keys
  bool missing = false;
  bool infinite = false;
};

template <class T>
void summarize(KeyOf<T> key, KeySummary<KeyOf<T>>& summary) {
  using Key = KeyOf<T>;
  constexpr Key infinity = infinity_key<Key>;
  const bool missing = key == kernels::missing_key<Key>;
  summary.missing |= missing;
  summary.infinite |= key == infinity || key == -infinity;
  summary.bits |= missing ? 0 : key;
}

/// Keys of a tile: out[j * tile_rows + i] is that of row rows.begin + i and feature first + j.
template <class T>
void load_keys(const MatrixView<const T>& m, BlockRange rows, std::int64_t first,
               std::int64_t count, KeyOf<T>* out, KeySummary<KeyOf<T>>* summaries) {
  for (std::int64_t j = 0; j < count; ++j) {
    const T* x = m.data() + rows.begin * m.row_stride() + (first + j) * m.col_stride();
    KeyOf<T>* const keys = out + j * tile_rows;
    for (std::int64_t i = 0; i < rows.size(); ++i, x += m.row_stride()) {
      keys[i] = float_key(*x);
      summarize<T>(keys[i], summaries[j]);
    }
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

/// The table by which a key's code is found: a first look by the key's upper bits tells how many
/// cuts lie below the key's bucket, a search of `steps` halvings over the few cuts inside it does
/// the rest. Buckets divide the range of the cuts, not of all numbers, so nearby values that differ
/// in low bits alone get buckets too.
template <class Key>
struct CodeTable {
  using Bits = std::make_unsigned_t<Key>;
  static constexpr int cut_capacity = 512;  ///< 255 cuts and as many as a search may read beyond

  Key first = 0;
  Key last = 0;
  int shift = 0;
  int steps = 0;
  std::uint8_t below[65536];
  Key cuts[cut_capacity];

  std::size_t bucket(Key key) const noexcept {
    const Key inside = key < first ? first : key > last ? last : key;
    return static_cast<std::size_t>((static_cast<Bits>(inside) - static_cast<Bits>(first)) >>
                                    shift);
  }

  /// Builds the table of \p count ascending cuts.
  void build(const Key* values, std::int32_t count) {
    std::copy(values, values + count, cuts);
    std::fill(cuts + count, cuts + cut_capacity, (std::numeric_limits<Key>::max)());
    first = count > 0 ? cuts[0] : 0;
    last = count > 0 ? cuts[count - 1] : 0;
    const Bits range = static_cast<Bits>(last) - static_cast<Bits>(first);
    const int width = static_cast<int>(std::bit_width(range));
    for (int bits = 8;; bits += 4) {  // the smallest table with at most one cut a bucket
      shift = width > bits ? width - bits : 0;
      steps = std::bit_width(static_cast<std::uint32_t>(most_in_bucket(count)));
      if (steps <= 1 || bits == 16 || shift == 0) break;
    }
    below[0] = 0;
    std::size_t next = 0;  // the first bucket that is not filled in
    for (std::int32_t c = 0; c < count; ++c) {
      const std::size_t here = bucket(cuts[c]);
      if (here < next) continue;
      std::fill(below + next, below + here + 1, static_cast<std::uint8_t>(c));
      next = here + 1;
    }
  }

  std::uint8_t code(Key key) const noexcept {
    std::size_t at = below[bucket(key)];
    for (int s = steps; s-- > 0;) {
      const std::size_t half = std::size_t{1} << s;
      at += cuts[at + half - 1] <= key ? half : 0;
    }
    return key == kernels::missing_key<Key> ? std::uint8_t{0} : static_cast<std::uint8_t>(at + 1);
  }

 private:
  std::int32_t most_in_bucket(std::int32_t count) const {
    std::int32_t most = 0, here = 0;
    for (std::int32_t c = 0; c < count; ++c) {
      here = c > 0 && bucket(cuts[c]) == bucket(cuts[c - 1]) ? here + 1 : 1;
      most = (std::max)(most, here);
    }
    return most;
  }
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
