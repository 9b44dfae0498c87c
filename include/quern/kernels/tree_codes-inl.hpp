// SPDX-License-Identifier: Apache-2.0

/// \file
/// Rows of features as prediction reads them: floats to keys that order as integers, keys to byte
/// codes (how many of a feature's thresholds are at most the value).

#if defined(QUERN_KERNELS_TREE_CODES_INL_HPP) == defined(HWY_TARGET_TOGGLE)
#ifdef QUERN_KERNELS_TREE_CODES_INL_HPP
#undef QUERN_KERNELS_TREE_CODES_INL_HPP
#else
#define QUERN_KERNELS_TREE_CODES_INL_HPP
#endif

#include "quern/core/config.hpp"
#include "quern/kernels/tree_predict_types.hpp"

#include "hwy/highway.h"

#include <cstdint>
#include <cstring>

HWY_BEFORE_NAMESPACE();
QUERN_NAMESPACE_BEGIN
namespace kernels {
namespace HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

/// keys[i] = key of the IEEE number whose bits are bits[i] (see tree_predict_types.hpp); in place
/// is allowed. \p infinity_bits are those of +infinity: magnitudes above are NaN. Returns whether
/// any is.
template <class Key>
bool tree_keys(const Key* bits, std::int64_t size, Key infinity_bits, Key* keys) {
  const hn::ScalableTag<Key> d;
  const std::int64_t lanes = static_cast<std::int64_t>(hn::Lanes(d));
  const auto magnitude_mask = hn::Set(d, hwy::LimitsMax<Key>());
  const auto infinity = hn::Set(d, infinity_bits);
  const auto missing = hn::Set(d, missing_key<Key>);
  auto largest = hn::Zero(d);
  Key largest_rest = 0;
  std::int64_t i = 0;
  for (; i + lanes <= size; i += lanes) {
    const auto b = hn::LoadU(d, bits + i);
    const auto sign = hn::BroadcastSignBit(b);
    const auto magnitude = hn::And(b, magnitude_mask);
    const auto number = hn::Sub(hn::Xor(magnitude, sign), sign);
    largest = hn::IfThenElse(hn::Gt(magnitude, largest), magnitude, largest);
    hn::StoreU(hn::IfThenElse(hn::Gt(magnitude, infinity), missing, number), d, keys + i);
  }
  for (; i < size; ++i) {
    const Key magnitude = bits[i] & hwy::LimitsMax<Key>();
    largest_rest = magnitude > largest_rest ? magnitude : largest_rest;
    keys[i] = magnitude > infinity_bits ? missing_key<Key> : bits[i] < 0 ? -magnitude : magnitude;
  }
  return largest_rest > infinity_bits || !hn::AllFalse(d, hn::Gt(largest, infinity));
}

namespace tree_detail {

#if HWY_TARGET != HWY_SCALAR
/// Four columns of row 0 and, in the upper half of a vector of eight, of row 4.
template <class D>
HWY_INLINE hn::Vec<D> load_rows(D d, const std::int32_t* HWY_RESTRICT from,
                                std::int64_t row_stride) {
  const hn::Full128<std::int32_t> d4;
  if constexpr (hn::MaxLanes(D()) == 8) {
    return hn::Combine(d, hn::LoadU(d4, from + 4 * row_stride), hn::LoadU(d4, from));
  } else {
    return hn::LoadU(d, from);
  }
}
#endif

}  // namespace tree_detail

/// keys[slots[c] * stride + r] = key of bits[r * row_stride + c] for rows r and columns c <
/// columns, where slots[c] >= 0. missing[slots[c]] = 1 where one of these keys, or of one of the
/// three columns beside, may be missing, else 0.
template <class Key>
void tree_keys_of_rows(const Key* HWY_RESTRICT bits, std::int64_t row_stride, std::int64_t rows,
                       std::int64_t columns, const std::int32_t* HWY_RESTRICT slots,
                       Key infinity_bits, std::int64_t stride, Key* HWY_RESTRICT keys,
                       std::uint8_t* HWY_RESTRICT missing) {
  static_assert(sizeof(Key) == 4);
  std::int64_t c = 0, whole = 0;
#if HWY_TARGET != HWY_SCALAR
  const hn::CappedTag<std::int32_t, 8> d;
  const hn::Repartition<std::int64_t, decltype(d)> d64;
  const std::int64_t lanes = static_cast<std::int64_t>(hn::Lanes(d));
  const auto magnitude_mask = hn::Set(d, hwy::LimitsMax<std::int32_t>());
  const auto infinity = hn::Set(d, infinity_bits);
  const auto nan = hn::Set(d, missing_key<std::int32_t>);
  whole = rows / lanes * lanes;
  for (; c + 4 <= columns; c += 4) {
    auto largest = hn::Zero(d);
    const auto put = [&](auto column, std::int32_t slot, std::int64_t r) {
      const auto b = hn::BitCast(d, column);
      const auto sign = hn::BroadcastSignBit(b);
      const auto magnitude = hn::And(b, magnitude_mask);
      const auto number = hn::Sub(hn::Xor(magnitude, sign), sign);
      largest = hn::Max(magnitude, largest);
      if (slot < 0) return;
      hn::StoreU(hn::IfThenElse(hn::Gt(magnitude, infinity), nan, number), d,
                 keys + slot * stride + r);
    };
    for (std::int64_t r = 0; r < whole; r += lanes) {
      const Key* HWY_RESTRICT from = bits + r * row_stride + c;
      const auto x0 = tree_detail::load_rows(d, from, row_stride);
      const auto x1 = tree_detail::load_rows(d, from + row_stride, row_stride);
      const auto x2 = tree_detail::load_rows(d, from + 2 * row_stride, row_stride);
      const auto x3 = tree_detail::load_rows(d, from + 3 * row_stride, row_stride);
      const auto low01 = hn::BitCast(d64, hn::InterleaveLower(d, x0, x1));
      const auto low23 = hn::BitCast(d64, hn::InterleaveLower(d, x2, x3));
      const auto high01 = hn::BitCast(d64, hn::InterleaveUpper(d, x0, x1));
      const auto high23 = hn::BitCast(d64, hn::InterleaveUpper(d, x2, x3));
      put(hn::InterleaveLower(d64, low01, low23), slots[c], r);
      put(hn::InterleaveUpper(d64, low01, low23), slots[c + 1], r);
      put(hn::InterleaveLower(d64, high01, high23), slots[c + 2], r);
      put(hn::InterleaveUpper(d64, high01, high23), slots[c + 3], r);
    }
    const std::uint8_t any = hn::AllFalse(d, hn::Gt(largest, infinity)) ? 0 : 1;
    for (std::int64_t i = 0; i < 4; ++i) {
      if (slots[c + i] >= 0) missing[slots[c + i]] = any;
    }
  }
#endif
  const std::int64_t in_vectors = c;
  for (c = 0; c < columns; ++c) {
    if (slots[c] < 0) continue;
    std::int32_t* HWY_RESTRICT to = keys + slots[c] * stride;
    bool any = c < in_vectors && missing[slots[c]] != 0;
    for (std::int64_t r = c < in_vectors ? whole : 0; r < rows; ++r) {
      Key b = 0;  // what lies there are floats
      std::memcpy(&b, bits + r * row_stride + c, sizeof(b));
      const std::int32_t magnitude = b & hwy::LimitsMax<std::int32_t>();
      any = any || magnitude > infinity_bits;
      to[r] = magnitude > infinity_bits ? missing_key<std::int32_t>
              : b < 0                   ? -magnitude
                                        : magnitude;
    }
    missing[slots[c]] = any ? 1 : 0;
  }
}

namespace tree_detail {

/// Number of the 16 table entries that are below \p key.
template <class D, class Key>
HWY_INLINE std::size_t count_below(D d, const Key* HWY_RESTRICT table, hn::Vec<D> key) {
  std::size_t count = 0;
  for (std::size_t i = 0; i < 16; i += hn::Lanes(d)) {
    count += hn::CountTrue(d, hn::Gt(key, hn::LoadU(d, table + i)));
  }
  return count;
}

/// Codes of many thresholds: which block of 16 by comparing vectors of rows with its ends, then
/// which of the block a row at a time.
template <class Key>
HWY_INLINE void codes_by_blocks(const Key* HWY_RESTRICT keys, std::int64_t rows,
                                const Key* HWY_RESTRICT table, std::uint8_t* HWY_RESTRICT codes) {
  const hn::CappedTag<Key, 16> d;
  const std::int64_t n = static_cast<std::int64_t>(hn::Lanes(d));
  HWY_ALIGN Key block[64];
  for (std::int64_t r = 0; r < rows; r += 4 * n) {
    const auto k0 = hn::LoadU(d, keys + r);
    const auto k1 = hn::LoadU(d, keys + r + n);
    const auto k2 = hn::LoadU(d, keys + r + 2 * n);
    const auto k3 = hn::LoadU(d, keys + r + 3 * n);
    auto c0 = hn::Zero(d), c1 = c0, c2 = c0, c3 = c0;
    // The last block ends in filling: no key is above it.
    for (std::size_t j = 256; j < 271; ++j) {
      const auto end = hn::Set(d, table[j]);
      c0 = hn::Sub(c0, hn::VecFromMask(d, hn::Gt(k0, end)));
      c1 = hn::Sub(c1, hn::VecFromMask(d, hn::Gt(k1, end)));
      c2 = hn::Sub(c2, hn::VecFromMask(d, hn::Gt(k2, end)));
      c3 = hn::Sub(c3, hn::VecFromMask(d, hn::Gt(k3, end)));
    }
    hn::Store(hn::ShiftLeft<4>(c0), d, block);
    hn::Store(hn::ShiftLeft<4>(c1), d, block + n);
    hn::Store(hn::ShiftLeft<4>(c2), d, block + 2 * n);
    hn::Store(hn::ShiftLeft<4>(c3), d, block + 3 * n);
    for (std::int64_t i = 0; i < 4 * n; ++i) {
      const std::size_t first = static_cast<std::size_t>(block[i]);
      const std::size_t inside = count_below(d, table + first, hn::Set(d, keys[r + i]));
      codes[r + i] = static_cast<std::uint8_t>((first + inside) ^ 0x80u);
    }
  }
}

/// Stores each lane's count in 0 .. 255, minus 128, as a byte.
template <class D>
HWY_INLINE void store_codes(D d, hn::Vec<D> count, std::uint8_t* HWY_RESTRICT codes) {
  const hn::Rebind<std::uint8_t, D> d8;
  hn::StoreU(hn::DemoteTo(d8, hn::Xor(count, hn::Set(d, 0x80))), d8, codes);
}

/// Codes of few thresholds: compare four vectors of rows with each.
HWY_INLINE void codes_by_compares(const std::int32_t* HWY_RESTRICT keys, std::int64_t rows,
                                  const std::int32_t* HWY_RESTRICT table, std::int32_t thresholds,
                                  std::uint8_t* HWY_RESTRICT codes) {
  const hn::CappedTag<std::int32_t, 16> d;
  const std::int64_t n = static_cast<std::int64_t>(hn::Lanes(d));
  for (std::int64_t r = 0; r < rows; r += 4 * n) {
    const auto k0 = hn::LoadU(d, keys + r);
    const auto k1 = hn::LoadU(d, keys + r + n);
    const auto k2 = hn::LoadU(d, keys + r + 2 * n);
    const auto k3 = hn::LoadU(d, keys + r + 3 * n);
    auto c0 = hn::Zero(d), c1 = c0, c2 = c0, c3 = c0;
    for (std::int32_t j = 0; j < thresholds; ++j) {
      const auto threshold = hn::Set(d, table[j]);
      c0 = hn::Sub(c0, hn::VecFromMask(d, hn::Gt(k0, threshold)));
      c1 = hn::Sub(c1, hn::VecFromMask(d, hn::Gt(k1, threshold)));
      c2 = hn::Sub(c2, hn::VecFromMask(d, hn::Gt(k2, threshold)));
      c3 = hn::Sub(c3, hn::VecFromMask(d, hn::Gt(k3, threshold)));
    }
    store_codes(d, c0, codes + r);
    store_codes(d, c1, codes + r + n);
    store_codes(d, c2, codes + r + 2 * n);
    store_codes(d, c3, codes + r + 3 * n);
  }
}

/// The same without vectors.
template <class Key>
HWY_INLINE void codes_by_steps(const Key* HWY_RESTRICT keys, std::int64_t rows,
                               const Key* HWY_RESTRICT table, std::uint8_t* HWY_RESTRICT codes) {
  for (std::int64_t r = 0; r < rows; ++r) {
    std::int32_t k = 0;
    for (std::int32_t step = 128; step > 0; step /= 2) {
      k += keys[r] > table[k + step - 1] ? step : 0;
    }
    codes[r] = static_cast<std::uint8_t>(k ^ 0x80);
  }
}

}  // namespace tree_detail

/// codes[r] = (number of thresholds at most keys[r]) - 128. \p table: see `code_table_size`;
/// \p thresholds in 0 .. 255. Reads and writes rows up to the next multiple of 64.
template <class Key>
void tree_codes(const Key* HWY_RESTRICT keys, std::int64_t rows, const Key* HWY_RESTRICT table,
                std::int32_t thresholds, std::uint8_t* HWY_RESTRICT codes) {
#if HWY_TARGET == HWY_SCALAR
  (void)thresholds;
  tree_detail::codes_by_steps(keys, rows, table, codes);
#else
  if constexpr (sizeof(Key) == 4) {
    // From about here on a searched block a row beats a compare a threshold and vector of rows.
    constexpr std::int32_t few = 48;
    if (thresholds <= few) {
      tree_detail::codes_by_compares(keys, rows, table, thresholds, codes);
      return;
    }
  }
  tree_detail::codes_by_blocks(keys, rows, table, codes);
#endif
}

namespace tree_detail {

#if HWY_TARGET != HWY_SCALAR
/// Bucket of each of the keys.
template <class D>
HWY_INLINE hn::Vec<D> bucket_of(D d, hn::Vec<D> key, const CodeBuckets& map) {
  const hn::RebindToUnsigned<D> du;
  const hn::RebindToFloat<D> df;
  const auto low = hn::Set(d, map.low);
  const auto clamped = hn::Min(hn::Max(key, low), hn::Set(d, map.high));
  if (map.scale == 0.0f) {
    // The difference of two keys can need all 32 bits.
    const auto above = hn::Sub(hn::BitCast(du, clamped), hn::BitCast(du, low));
    return hn::BitCast(d, hn::ShiftRightSame(above, map.shift));
  }
  const auto sign = hn::BroadcastSignBit(clamped);
  const auto magnitude = hn::Sub(hn::Xor(clamped, sign), sign);
  const auto bits = hn::Or(magnitude, hn::And(sign, hn::Set(d, missing_key<std::int32_t>)));
  const auto scaled = hn::Mul(hn::BitCast(df, bits), hn::Set(df, map.scale));
  return hn::Sub(hn::ConvertTo(d, scaled), hn::Set(d, map.base));
}
#endif

}  // namespace tree_detail

/// What tree_codes() does, by way of buckets.
template <class Key>
void tree_codes_by_buckets(const Key* HWY_RESTRICT keys, std::int64_t rows,
                           const Key* HWY_RESTRICT table, const CodeBuckets& map,
                           const std::uint8_t* HWY_RESTRICT starts,
                           std::uint8_t* HWY_RESTRICT codes) {
#if HWY_TARGET == HWY_SCALAR
  (void)map;
  (void)starts;
  tree_detail::codes_by_steps(keys, rows, table, codes);
#else
  const hn::CappedTag<Key, 16> d;
  const hn::CappedTag<Key, bucket_thresholds> d8;
  const std::int64_t n = static_cast<std::int64_t>(hn::Lanes(d));
  HWY_ALIGN Key bucket[64];
  for (std::int64_t r = 0; r < rows; r += 64) {
    for (std::int64_t i = 0; i < 64; i += n)
      hn::Store(tree_detail::bucket_of(d, hn::LoadU(d, keys + r + i), map), d, bucket + i);
    for (std::int64_t i = 0; i < 64; ++i) {
      const std::size_t first = starts[bucket[i]];
      const auto key = hn::Set(d8, keys[r + i]);
      std::size_t inside = 0;
      for (std::size_t j = 0; j < std::size_t{bucket_thresholds}; j += hn::Lanes(d8))
        inside += hn::CountTrue(d8, hn::Gt(key, hn::LoadU(d8, table + first + j)));
      codes[r + i] = static_cast<std::uint8_t>((first + inside) ^ 0x80u);
    }
  }
#endif
}

/// Codes of a missing value that goes right: 255 - 128 where keys[r] is missing.
template <class Key>
void tree_codes_missing_right(const Key* HWY_RESTRICT keys, std::int64_t rows,
                              std::uint8_t* HWY_RESTRICT codes) {
  for (std::int64_t r = 0; r < rows; ++r) {
    codes[r] = keys[r] == missing_key<Key> ? std::uint8_t{0x7f} : codes[r];
  }
}

namespace tree_detail {

/// One value as a byte; sets \p wrong where it is none.
template <class Byte>
HWY_INLINE Byte as_byte(float x, std::int32_t& wrong) {
  std::int32_t bits = 0;
  std::memcpy(&bits, &x, sizeof(bits));
  const std::int32_t magnitude = bits & hwy::LimitsMax<std::int32_t>();
  const bool in_range = magnitude == 0 || (bits > 0 && magnitude <= 0x437f0000);  // 255
  const std::int32_t number = in_range ? static_cast<std::int32_t>(x) : 0;
  const float back = static_cast<float>(number);
  std::int32_t back_bits = 0;
  std::memcpy(&back_bits, &back, sizeof(back_bits));
  wrong |= in_range ? back_bits ^ magnitude : 1;
  return static_cast<Byte>(number);
}

#if !QUERN_TARGET_IS_PORTABLE
/// 16 values of a row as bytes; what is none leaves bits in \p wrong.
template <class D, class V>
HWY_INLINE void row_as_bytes(D d, const float* HWY_RESTRICT from, V& wrong,
                             std::uint8_t* HWY_RESTRICT to) {
  const hn::RebindToSigned<D> di;
  const hn::Rebind<std::uint8_t, D> d8;
  const auto magnitude = hn::Set(di, hwy::LimitsMax<std::int32_t>());
  const auto beyond = hn::Set(di, ~255);
  for (std::size_t j = 0; j < 16; j += hn::Lanes(d)) {
    const auto x = hn::LoadU(d, from + j);
    const auto number = hn::ConvertTo(di, x);
    const auto back = hn::BitCast(di, hn::ConvertTo(d, number));
    // That of -0 differs in the sign alone.
    wrong = hn::Or(wrong, hn::And(hn::Xor(back, hn::BitCast(di, x)), magnitude));
    wrong = hn::Or(wrong, hn::And(number, beyond));
    hn::StoreU(hn::DemoteTo(d8, number), d8, to + j);
  }
}

/// Transposes 16 x 16 bytes; columns c < \p columns go to to[c * stride].
HWY_INLINE void transpose_bytes(const std::uint8_t* HWY_RESTRICT block, std::int64_t columns,
                                std::int64_t stride, std::uint8_t* HWY_RESTRICT to) {
  const hn::Full128<std::uint8_t> d;
  HWY_ALIGN std::uint8_t other[256];
  HWY_ALIGN std::uint8_t third[256];
  // Each round turns the eight bits of a byte's place by one.
  const auto round = [&](const std::uint8_t* HWY_RESTRICT in, std::uint8_t* HWY_RESTRICT out) {
    for (std::size_t i = 0; i < 8; ++i) {
      const auto a = hn::Load(d, in + 16 * i), b = hn::Load(d, in + 16 * i + 128);
      hn::Store(hn::InterleaveLower(d, a, b), d, out + 32 * i);
      hn::Store(hn::InterleaveUpper(d, a, b), d, out + 32 * i + 16);
    }
  };
  round(block, other);
  round(other, third);
  round(third, other);
  round(other, third);
  for (std::int64_t c = 0; c < columns; ++c)
    hn::StoreU(hn::Load(d, third + 16 * c), d, to + c * stride);
}
#endif

}  // namespace tree_detail

/// to[c * 64 + r] = x[r * row_stride + c] for r < rows <= 64 and c < columns, 0 for the other rows
/// up to 64. Returns whether all are whole numbers of 0..255; what is none may become any byte.
template <class Byte>
bool tree_bytes_of_rows(const float* HWY_RESTRICT x, std::int64_t row_stride, std::int64_t rows,
                        std::int64_t columns, Byte* HWY_RESTRICT to) {
  static_assert(sizeof(Byte) == 1);
#if QUERN_TARGET_IS_PORTABLE
  std::int32_t wrong = 0;
  for (std::int64_t r = 0; r < 64; ++r) {
    for (std::int64_t c = 0; c < columns; ++c)
      to[c * 64 + r] =
          r < rows ? tree_detail::as_byte<Byte>(x[r * row_stride + c], wrong) : Byte{0};
  }
  return wrong == 0;
#else
  const hn::CappedTag<float, 16> d;
  const hn::RebindToSigned<decltype(d)> di;
  auto wrong = hn::Zero(di);
  HWY_ALIGN std::uint8_t block[256];
  HWY_ALIGN float tail[16] = {};
  for (std::int64_t r = 0; r < 64; r += 16) {
    for (std::int64_t c = 0; c < columns; c += 16) {
      const std::int64_t some = columns - c < 16 ? columns - c : 16;
      for (std::int64_t i = 0; i < 16; ++i) {
        const float* HWY_RESTRICT from = x + (r + i) * row_stride + c;
        if (r + i >= rows || some < 16) {
          for (std::int64_t j = 0; j < 16; ++j) tail[j] = r + i < rows && j < some ? from[j] : 0.0f;
          from = tail;
        }
        tree_detail::row_as_bytes(d, from, wrong, block + 16 * i);
      }
      tree_detail::transpose_bytes(block, some, 64, to + c * 64 + r);
    }
  }
  return hn::AllTrue(di, hn::Eq(wrong, hn::Zero(di)));
#endif
}

}  // namespace HWY_NAMESPACE
}  // namespace kernels
QUERN_NAMESPACE_END
HWY_AFTER_NAMESPACE();

#endif  // QUERN_KERNELS_TREE_CODES_INL_HPP
