// SPDX-License-Identifier: Apache-2.0

/// \file
/// Prediction with trees on batches of rows: floats to keys, keys to byte codes, and trees of up to
/// 256 leaves evaluated for one row a byte lane.
///
/// Walking down a tree costs a dependent load a level and row. Here every node of a tree is
/// visited, but for 32 (AVX2) or 64 rows at once, in order of appearance, with two compares, an AND
/// and a select and without any dependent load: a row passes 254 nodes in the time of some 4 steps
/// of a walk. Rows that stand elsewhere in the tree fail the compare of their candidate leaf.

#if defined(QUERN_KERNELS_TREE_PREDICT_INL_HPP) == defined(HWY_TARGET_TOGGLE)
#ifdef QUERN_KERNELS_TREE_PREDICT_INL_HPP
#undef QUERN_KERNELS_TREE_PREDICT_INL_HPP
#else
#define QUERN_KERNELS_TREE_PREDICT_INL_HPP
#endif

#include "quern/core/config.hpp"
#include "quern/kernels/tree_predict_types.hpp"

#include "hwy/highway.h"

#include <cstdint>

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

/// Codes of a missing value that goes right: 255 - 128 where keys[r] is missing.
template <class Key>
void tree_codes_missing_right(const Key* HWY_RESTRICT keys, std::int64_t rows,
                              std::uint8_t* HWY_RESTRICT codes) {
  for (std::int64_t r = 0; r < rows; ++r) {
    codes[r] = keys[r] == missing_key<Key> ? std::uint8_t{0x7f} : codes[r];
  }
}

namespace tree_detail {

template <class D, class V>
HWY_INLINE V lane_step(D d, const std::int8_t* HWY_RESTRICT codes, V leaf, V code, V first,
                       V right_first) {
  const auto here = hn::Eq(leaf, first);
  const auto right = hn::Gt(hn::LoadU(d, codes), code);
  return hn::IfThenElse(hn::And(here, right), right_first, leaf);
}

template <class D>
HWY_INLINE hn::Vec<D> broadcast4(D d, std::uint32_t four) {
  const hn::Repartition<std::uint32_t, D> d32;
  return hn::BitCast(d, hn::Set(d32, four));
}

/// Eight vectors of rows: enough independent chains to hide the latency of a step.
template <class D>
HWY_INLINE void lanes_by_8(D d, const std::int8_t* HWY_RESTRICT codes, std::int64_t stride,
                           const LaneNode* HWY_RESTRICT nodes, std::int64_t count,
                           std::int8_t* HWY_RESTRICT leaves) {
  const std::size_t n = hn::Lanes(d);
  auto v0 = hn::Zero(d), v1 = v0, v2 = v0, v3 = v0, v4 = v0, v5 = v0, v6 = v0, v7 = v0;
  for (std::int64_t i = 0; i < count; ++i) {
    const std::int8_t* HWY_RESTRICT c = codes + static_cast<std::int64_t>(nodes[i].column) * stride;
    const auto code = broadcast4(d, nodes[i].code);
    const auto first = broadcast4(d, nodes[i].first_leaf);
    const auto to = broadcast4(d, nodes[i].right_first_leaf);
    v0 = lane_step(d, c, v0, code, first, to);
    v1 = lane_step(d, c + n, v1, code, first, to);
    v2 = lane_step(d, c + 2 * n, v2, code, first, to);
    v3 = lane_step(d, c + 3 * n, v3, code, first, to);
    v4 = lane_step(d, c + 4 * n, v4, code, first, to);
    v5 = lane_step(d, c + 5 * n, v5, code, first, to);
    v6 = lane_step(d, c + 6 * n, v6, code, first, to);
    v7 = lane_step(d, c + 7 * n, v7, code, first, to);
  }
  hn::StoreU(v0, d, leaves);
  hn::StoreU(v1, d, leaves + n);
  hn::StoreU(v2, d, leaves + 2 * n);
  hn::StoreU(v3, d, leaves + 3 * n);
  hn::StoreU(v4, d, leaves + 4 * n);
  hn::StoreU(v5, d, leaves + 5 * n);
  hn::StoreU(v6, d, leaves + 6 * n);
  hn::StoreU(v7, d, leaves + 7 * n);
}

template <class D>
HWY_INLINE void lanes_by_1(D d, const std::int8_t* HWY_RESTRICT codes, std::int64_t stride,
                           const LaneNode* HWY_RESTRICT nodes, std::int64_t count,
                           std::int8_t* HWY_RESTRICT leaves) {
  auto v = hn::Zero(d);
  for (std::int64_t i = 0; i < count; ++i) {
    v = lane_step(d, codes + static_cast<std::int64_t>(nodes[i].column) * stride, v,
                  broadcast4(d, nodes[i].code), broadcast4(d, nodes[i].first_leaf),
                  broadcast4(d, nodes[i].right_first_leaf));
  }
  hn::StoreU(v, d, leaves);
}

}  // namespace tree_detail

/// leaves[r] = number, from the left, of the leaf of one tree that row r reaches; \p nodes are its
/// \p count inner nodes, parents before children. Column c of the codes starts at codes[c *
/// stride]. Reads and writes rows up to the next multiple of 64: both buffers have room for them.
template <class Byte>
void tree_lanes(const Byte* HWY_RESTRICT codes, std::int64_t stride,
                const LaneNode* HWY_RESTRICT nodes, std::int64_t count, std::int64_t rows,
                Byte* HWY_RESTRICT leaves) {
#if HWY_TARGET == HWY_SCALAR
  for (std::int64_t r = 0; r < rows; ++r) {
    Byte leaf = 0;
    for (std::int64_t i = 0; i < count; ++i) {
      const auto c =
          static_cast<std::int8_t>(codes[static_cast<std::int64_t>(nodes[i].column) * stride + r]);
      const bool right = leaf == static_cast<Byte>(nodes[i].first_leaf) &&
                         c > static_cast<std::int8_t>(nodes[i].code);
      leaf = right ? static_cast<Byte>(nodes[i].right_first_leaf) : leaf;
    }
    leaves[r] = leaf;
  }
#else
  const hn::CappedTag<std::int8_t, 64> d;
  const std::int64_t lanes = static_cast<std::int64_t>(hn::Lanes(d));
  const std::int8_t* signed_codes = reinterpret_cast<const std::int8_t*>(codes);
  std::int8_t* signed_leaves = reinterpret_cast<std::int8_t*>(leaves);
  std::int64_t r = 0;
  for (; r + 8 * lanes <= rows; r += 8 * lanes) {
    tree_detail::lanes_by_8(d, signed_codes + r, stride, nodes, count, signed_leaves + r);
  }
  for (; r < rows; r += lanes) {
    tree_detail::lanes_by_1(d, signed_codes + r, stride, nodes, count, signed_leaves + r);
  }
#endif
}

}  // namespace HWY_NAMESPACE
}  // namespace kernels
QUERN_NAMESPACE_END
HWY_AFTER_NAMESPACE();

#endif  // QUERN_KERNELS_TREE_PREDICT_INL_HPP
