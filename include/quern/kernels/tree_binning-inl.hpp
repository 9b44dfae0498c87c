// SPDX-License-Identifier: Apache-2.0

/// \file
/// Features to bytes: transposed tiles, floats to ordered keys, and keys to bin codes.
///
/// A code is the number of cuts at most x, plus one. Comparing with all cuts, or with 16 and then
/// 16 of them, costs 2 to 3 ns a value. A table by the key's upper bits leaves one compare for
/// nearly all data, since a bucket rarely holds more than one cut; the bucket number is computed a
/// vector at a time, the two loads that follow are scalar, because gathers are no faster.

#if defined(QUERN_KERNELS_TREE_BINNING_INL_HPP) == defined(HWY_TARGET_TOGGLE)
#ifdef QUERN_KERNELS_TREE_BINNING_INL_HPP
#undef QUERN_KERNELS_TREE_BINNING_INL_HPP
#else
#define QUERN_KERNELS_TREE_BINNING_INL_HPP
#endif

#include "quern/core/config.hpp"
#include "quern/kernels/tree_binning_types.hpp"
#include "quern/kernels/tree_predict_types.hpp"

#include "hwy/highway.h"

#include <cstddef>
#include <cstdint>

HWY_BEFORE_NAMESPACE();
QUERN_NAMESPACE_BEGIN
namespace kernels {
namespace HWY_NAMESPACE {

/// out[c * out_stride + r] = x[r * row_stride + c] for \p rows x \p cols 32- or 64-bit words.
template <class Word>
void transpose_words(const Word* HWY_RESTRICT x, std::int64_t row_stride, std::int64_t rows,
                     std::int64_t cols, Word* HWY_RESTRICT out, std::int64_t out_stride) {
  std::int64_t done = 0;  // rows that the vector loop has done
#if HWY_TARGET != HWY_SCALAR
  namespace hn = hwy::HWY_NAMESPACE;
  constexpr std::int64_t n = 16 / static_cast<std::int64_t>(sizeof(Word));
  const hn::FixedTag<Word, 16 / sizeof(Word)> d;
  done = rows / n * n;
  for (std::int64_t r = 0; r < done; r += n) {
    const Word* HWY_RESTRICT from = x + r * row_stride;
    for (std::int64_t c = 0; c + n <= cols; c += n) {
      Word* HWY_RESTRICT to = out + c * out_stride + r;
      const auto r0 = hn::LoadU(d, from + c);
      const auto r1 = hn::LoadU(d, from + row_stride + c);
      if constexpr (n == 2) {
        hn::StoreU(hn::InterleaveLower(d, r0, r1), d, to);
        hn::StoreU(hn::InterleaveUpper(d, r0, r1), d, to + out_stride);
      } else {
        const auto r2 = hn::LoadU(d, from + 2 * row_stride + c);
        const auto r3 = hn::LoadU(d, from + 3 * row_stride + c);
        const auto even_lower = hn::InterleaveLower(d, r0, r2);
        const auto odd_lower = hn::InterleaveLower(d, r1, r3);
        const auto even_upper = hn::InterleaveUpper(d, r0, r2);
        const auto odd_upper = hn::InterleaveUpper(d, r1, r3);
        hn::StoreU(hn::InterleaveLower(d, even_lower, odd_lower), d, to);
        hn::StoreU(hn::InterleaveUpper(d, even_lower, odd_lower), d, to + out_stride);
        hn::StoreU(hn::InterleaveLower(d, even_upper, odd_upper), d, to + 2 * out_stride);
        hn::StoreU(hn::InterleaveUpper(d, even_upper, odd_upper), d, to + 3 * out_stride);
      }
    }
    for (std::int64_t c = cols / n * n; c < cols; ++c)
      for (std::int64_t i = 0; i < n; ++i) out[c * out_stride + r + i] = from[i * row_stride + c];
  }
#endif
  for (std::int64_t r = done; r < rows; ++r)
    for (std::int64_t c = 0; c < cols; ++c) out[c * out_stride + r] = x[r * row_stride + c];
}

/// keys[i] = key of the IEEE number whose bits are bits[i] (see tree_predict_types.hpp), in place
/// if the two are the same; adds what the numbers are to \p run.
template <class Key>
void summarized_keys(const Key* bits, std::int64_t size, Key infinity, Key* keys,
                     KeySummary<Key>* run) {
  namespace hn = hwy::HWY_NAMESPACE;
  std::int64_t i = 0;
#if HWY_TARGET != HWY_SCALAR
  const hn::ScalableTag<Key> d;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  const auto magnitude_bits = hn::Set(d, static_cast<Key>(~missing_key<Key>));
  const auto missing = hn::Set(d, missing_key<Key>);
  const auto limit = hn::Set(d, infinity);
  auto all_bits = hn::Zero(d);
  auto any_missing = hn::Zero(d);
  auto any_infinite = hn::Zero(d);
  for (; i + lanes <= size; i += lanes) {
    const auto x = hn::LoadU(d, bits + i);
    const auto magnitude = hn::And(x, magnitude_bits);
    const auto sign = hn::BroadcastSignBit(x);
    const auto number = hn::Sub(hn::Xor(magnitude, sign), sign);
    const auto is_missing = hn::Gt(magnitude, limit);
    all_bits = hn::Or(all_bits, hn::IfThenZeroElse(is_missing, number));
    any_missing = hn::Or(any_missing, hn::VecFromMask(d, is_missing));
    any_infinite = hn::Or(any_infinite, hn::VecFromMask(d, hn::Eq(magnitude, limit)));
    hn::StoreU(hn::IfThenElse(is_missing, missing, number), d, keys + i);
  }
  Key parts[HWY_MAX_BYTES / sizeof(Key)];
  hn::StoreU(all_bits, d, parts);
  for (std::int64_t k = 0; k < lanes; ++k) run->bits |= parts[k];
  run->missing |= !hn::AllFalse(d, hn::MaskFromVec(any_missing));
  run->infinite |= !hn::AllFalse(d, hn::MaskFromVec(any_infinite));
#endif
  for (; i < size; ++i) {
    const Key magnitude = bits[i] & static_cast<Key>(~missing_key<Key>);
    const Key number = bits[i] < 0 ? -magnitude : magnitude;
    const bool is_missing = magnitude > infinity;
    run->bits |= is_missing ? Key{0} : number;
    run->missing |= is_missing;
    run->infinite |= magnitude == infinity;
    keys[i] = is_missing ? missing_key<Key> : number;
  }
}

namespace tree_binning_detail {

/// Keys whose buckets are computed before any is looked up.
constexpr std::int64_t kBatch = 256;

/// Buckets of up to kBatch keys.
template <class Key>
HWY_INLINE void buckets_of(const Key* HWY_RESTRICT keys, std::int64_t size,
                           const CodeSearch<Key>& search, Key* HWY_RESTRICT buckets) {
  namespace hn = hwy::HWY_NAMESPACE;
  using Bits = hwy::MakeUnsigned<Key>;
  std::int64_t i = 0;
#if HWY_TARGET != HWY_SCALAR
  const hn::ScalableTag<Key> d;
  const hn::ScalableTag<Bits> du;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  const auto first = hn::Set(d, search.first);
  const auto last = hn::Set(d, search.last);
  for (; i + lanes <= size; i += lanes) {
    const auto inside = hn::Min(hn::Max(hn::LoadU(d, keys + i), first), last);
    const auto offset = hn::BitCast(du, hn::Sub(inside, first));
    hn::StoreU(hn::BitCast(d, hn::ShiftRightSame(offset, search.shift)), d, buckets + i);
  }
#endif
  for (; i < size; ++i) {
    const Key key = keys[i];
    const Key inside = key < search.first ? search.first : key > search.last ? search.last : key;
    buckets[i] = static_cast<Key>((static_cast<Bits>(inside) - static_cast<Bits>(search.first)) >>
                                  search.shift);
  }
}

/// kSteps halvings over the cuts from the bucket's first, after which code - 1 cuts are at most
/// key.
template <int kSteps, class Key>
HWY_INLINE void search_buckets(const Key* HWY_RESTRICT keys, const Key* HWY_RESTRICT buckets,
                               std::int64_t size, const CodeSearch<Key>& search,
                               std::uint8_t* HWY_RESTRICT codes) {
  const std::uint8_t* HWY_RESTRICT below = search.below;
  const Key* HWY_RESTRICT cuts = search.cuts;
  const int steps = kSteps >= 0 ? kSteps : search.steps;
  for (std::int64_t i = 0; i < size; ++i) {
    const Key key = keys[i];
    std::size_t at = below[static_cast<std::size_t>(buckets[i])];
    for (int s = steps; s-- > 0;) {
      const std::size_t half = std::size_t{1} << s;
      at += cuts[at + half - 1] <= key ? half : 0;
    }
    codes[i] = static_cast<std::uint8_t>(key == missing_key<Key> ? 0 : at + 1);
  }
}

}  // namespace tree_binning_detail

/// codes[i] = 0 where keys[i] is missing, else 1 + the number of cuts at most keys[i]; at most 254
/// cuts, so that all codes fit a byte.
template <class Key>
void bin_codes(const Key* HWY_RESTRICT keys, std::int64_t size, const CodeSearch<Key>& search,
               std::uint8_t* HWY_RESTRICT codes) {
  namespace own = tree_binning_detail;
  Key buckets[own::kBatch];
  for (std::int64_t i = 0; i < size; i += own::kBatch) {
    const std::int64_t n = size - i < own::kBatch ? size - i : own::kBatch;
    own::buckets_of(keys + i, n, search, buckets);
    switch (search.steps) {
      case 0:
        own::search_buckets<0>(keys + i, buckets, n, search, codes + i);
        break;
      case 1:
        own::search_buckets<1>(keys + i, buckets, n, search, codes + i);
        break;
      case 2:
        own::search_buckets<2>(keys + i, buckets, n, search, codes + i);
        break;
      default:
        own::search_buckets<-1>(keys + i, buckets, n, search, codes + i);
    }
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace kernels
QUERN_NAMESPACE_END
HWY_AFTER_NAMESPACE();

#endif  // QUERN_KERNELS_TREE_BINNING_INL_HPP
