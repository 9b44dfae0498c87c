// SPDX-License-Identifier: Apache-2.0

/// \file
/// Prediction with trees on batches of byte codes (tree_codes-inl.hpp): trees of up to 256 leaves
/// evaluated for one row a byte lane.
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

/// Four: what a tile of 256 rows holds where vectors have 64 lanes. A step's chain, two compares
/// and a select, is as long there as four steps' work.
template <class D>
HWY_INLINE void lanes_by_4(D d, const std::int8_t* HWY_RESTRICT codes, std::int64_t stride,
                           const LaneNode* HWY_RESTRICT nodes, std::int64_t count,
                           std::int8_t* HWY_RESTRICT leaves) {
  const std::size_t n = hn::Lanes(d);
  auto v0 = hn::Zero(d), v1 = v0, v2 = v0, v3 = v0;
  for (std::int64_t i = 0; i < count; ++i) {
    const std::int8_t* HWY_RESTRICT c = codes + static_cast<std::int64_t>(nodes[i].column) * stride;
    const auto code = broadcast4(d, nodes[i].code);
    const auto first = broadcast4(d, nodes[i].first_leaf);
    const auto to = broadcast4(d, nodes[i].right_first_leaf);
    v0 = lane_step(d, c, v0, code, first, to);
    v1 = lane_step(d, c + n, v1, code, first, to);
    v2 = lane_step(d, c + 2 * n, v2, code, first, to);
    v3 = lane_step(d, c + 3 * n, v3, code, first, to);
  }
  hn::StoreU(v0, d, leaves);
  hn::StoreU(v1, d, leaves + n);
  hn::StoreU(v2, d, leaves + 2 * n);
  hn::StoreU(v3, d, leaves + 3 * n);
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
#if QUERN_TARGET_IS_PORTABLE
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
  for (; r + 4 * lanes <= rows; r += 4 * lanes) {
    tree_detail::lanes_by_4(d, signed_codes + r, stride, nodes, count, signed_leaves + r);
  }
  for (; r < rows; r += lanes) {
    tree_detail::lanes_by_1(d, signed_codes + r, stride, nodes, count, signed_leaves + r);
  }
#endif
}

namespace tree_detail {

#if QUERN_TARGET_IS_PORTABLE
template <class Code, class Byte>
void full_by_rows(const Byte* codes, const SplitNode* nodes, std::int32_t levels, std::int64_t rows,
                  Byte* leaves) {
  for (std::int64_t r = 0; r < rows; ++r) {
    std::int32_t leaf = 0;
    const SplitNode* node = nodes;
    for (std::int32_t half = 1 << (levels - 1); half > 0; half /= 2) {
      const bool left =
          static_cast<Code>(codes[std::int64_t{node->offset} + r]) < static_cast<Code>(node->code);
      leaf += left ? 0 : half;
      node += left ? 1 : half;
    }
    leaves[r] = static_cast<Byte>(leaf);
  }
}
#else
/// Leaves of two vectors of rows in the subtree of \p node. From below: a node chooses between what
/// its children chose, one compare and one select, and which node a row stands at is never asked.
template <int Levels, class D>
HWY_INLINE void full_subtree(D d, const hn::TFromD<D>* HWY_RESTRICT codes,
                             const SplitNode* HWY_RESTRICT node, hn::Vec<D>& a, hn::Vec<D>& b) {
  auto other_a = a, other_b = b;
  if constexpr (Levels > 1) {
    full_subtree<Levels - 1>(d, codes, node + 1, a, b);
    full_subtree<Levels - 1>(d, codes, node + (1 << (Levels - 1)), other_a, other_b);
  }
  const hn::TFromD<D>* HWY_RESTRICT c = codes + node->offset;
  const auto code = broadcast4(d, node->code);
  const auto left_a = hn::Gt(code, hn::LoadU(d, c));
  const auto left_b = hn::Gt(code, hn::LoadU(d, c + hn::Lanes(d)));
  if constexpr (Levels > 1) {
    a = hn::IfThenElse(left_a, a, other_a);
    b = hn::IfThenElse(left_b, b, other_b);
  } else {
    const auto right = broadcast4(d, node->right_leaf);
    a = hn::Add(right, hn::VecFromMask(d, left_a));
    b = hn::Add(right, hn::VecFromMask(d, left_b));
  }
}

/// Hides where a pointer comes from. What is read through it is then not loaded before the loop, to
/// be kept on the stack for want of registers.
template <class T>
HWY_INLINE const T* launder(const T* pointer) {
#if HWY_COMPILER_GCC || HWY_COMPILER_CLANG
  asm volatile("" : "+r"(pointer));
#endif
  return pointer;
}

template <int Levels, class Code>
void full_by_vectors(const Code* HWY_RESTRICT codes, const SplitNode* HWY_RESTRICT nodes,
                     std::int64_t rows, Code* HWY_RESTRICT leaves) {
  const hn::CappedTag<Code, 32> d;  // two of them: rows are padded to 64
  const std::int64_t n = static_cast<std::int64_t>(hn::Lanes(d));
  for (std::int64_t r = 0; r < rows; r += 2 * n) {
    auto a = hn::Zero(d), b = a;
    full_subtree<Levels>(d, codes + r, launder(nodes), a, b);
    hn::StoreU(a, d, leaves + r);
    hn::StoreU(b, d, leaves + r + n);
  }
}
#endif

}  // namespace tree_detail

/// leaves[r] = number, from the left, of the leaf that row r reaches in a full tree of 3 to
/// `full_tree_levels` levels, whose inner nodes lie in preorder. Buffers as for tree_lanes().
template <class Byte>
void tree_full(const Byte* HWY_RESTRICT codes, const SplitNode* HWY_RESTRICT nodes,
               std::int32_t levels, std::int64_t rows, Byte* HWY_RESTRICT leaves) {
#if QUERN_TARGET_IS_PORTABLE
  tree_detail::full_by_rows<std::int8_t>(codes, nodes, levels, rows, leaves);
#else
  const std::int8_t* signed_codes = reinterpret_cast<const std::int8_t*>(codes);
  std::int8_t* signed_leaves = reinterpret_cast<std::int8_t*>(leaves);
  if (levels == 6) {
    tree_detail::full_by_vectors<6>(signed_codes, nodes, rows, signed_leaves);
  } else if (levels == 5) {
    tree_detail::full_by_vectors<5>(signed_codes, nodes, rows, signed_leaves);
  } else if (levels == 4) {
    tree_detail::full_by_vectors<4>(signed_codes, nodes, rows, signed_leaves);
  } else {
    tree_detail::full_by_vectors<3>(signed_codes, nodes, rows, signed_leaves);
  }
#endif
}

/// The same for a full tree of `full_tree_levels` levels and codes of 0..255 that compare as such:
/// left where the column's byte is below the node's.
template <class Byte>
void tree_full_bytes(const Byte* HWY_RESTRICT codes, const SplitNode* HWY_RESTRICT nodes,
                     std::int64_t rows, Byte* HWY_RESTRICT leaves) {
#if QUERN_TARGET_IS_PORTABLE
  tree_detail::full_by_rows<std::uint8_t>(codes, nodes, full_tree_levels, rows, leaves);
#else
  tree_detail::full_by_vectors<full_tree_levels>(codes, nodes, rows, leaves);
#endif
}

/// leaves[r] = number, from the left, of the leaf that row r reaches in a symmetric tree of up to
/// eight \p levels. Buffers as for tree_lanes().
template <class Byte>
void tree_symmetric(const Byte* HWY_RESTRICT codes, const SplitNode* HWY_RESTRICT nodes,
                    std::int32_t levels, std::int64_t rows, Byte* HWY_RESTRICT leaves) {
  const hn::CappedTag<std::int8_t, 64> d;
  const std::int64_t n = static_cast<std::int64_t>(hn::Lanes(d));
  const std::int8_t* signed_codes = reinterpret_cast<const std::int8_t*>(codes);
  std::int8_t* signed_leaves = reinterpret_cast<std::int8_t*>(leaves);
  const auto last = hn::Set(d, static_cast<std::int8_t>((1 << levels) - 1));
  for (std::int64_t r = 0; r < rows; r += n) {
    auto leaf = hn::Zero(d);
    for (std::int32_t i = 0; i < levels; ++i) {
      const auto code = hn::Set(d, static_cast<std::int8_t>(nodes[i].code & 0xff));
      const auto left = hn::Gt(code, hn::LoadU(d, signed_codes + nodes[i].offset + r));
      leaf = hn::Add(hn::Add(leaf, leaf), hn::VecFromMask(d, left));
    }
    // So far -1 for each left turn: from the last leaf back.
    leaf = hn::Add(leaf, last);
    hn::StoreU(leaf, d, signed_leaves + r);
  }
}

/// For r < rows: sums[r] += values[0][leaves[r]], then += values[1][leaves[r + stride]], … of eight
/// trees, in this order. Reads leaves of rows up to the next multiple of 64.
template <class T>
void tree_add_leaves(const std::uint8_t* HWY_RESTRICT leaves, std::int64_t stride,
                     const T* const* values, std::int64_t rows, T* HWY_RESTRICT sums) {
  const T* const v0 = values[0];
  const T* const v1 = values[1];
  const T* const v2 = values[2];
  const T* const v3 = values[3];
  const T* const v4 = values[4];
  const T* const v5 = values[5];
  const T* const v6 = values[6];
  const T* const v7 = values[7];
#if QUERN_TARGET_IS_PORTABLE
  for (std::int64_t r = 0; r < rows; ++r) {
    const std::uint8_t* at = leaves + r;
    T sum = sums[r] + v0[at[0]];
    sum += v1[at[stride]];
    sum += v2[at[2 * stride]];
    sum += v3[at[3 * stride]];
    sum += v4[at[4 * stride]];
    sum += v5[at[5 * stride]];
    sum += v6[at[6 * stride]];
    sums[r] = sum + v7[at[7 * stride]];
  }
#else
  // The eight leaves of a row in one number: half the loads.
  const hn::Full128<std::uint8_t> d8;
  const hn::Repartition<std::uint16_t, decltype(d8)> d16;
  const hn::Repartition<std::uint32_t, decltype(d8)> d32;
  const hn::Repartition<std::uint64_t, decltype(d8)> d64;
  HWY_ALIGN std::uint64_t packed[16];
  for (std::int64_t r = 0; r < rows; r += 16) {
    const std::uint8_t* HWY_RESTRICT from = leaves + r;
    const auto a = hn::LoadU(d8, from), b = hn::LoadU(d8, from + stride);
    const auto c = hn::LoadU(d8, from + 2 * stride), e = hn::LoadU(d8, from + 3 * stride);
    const auto f = hn::LoadU(d8, from + 4 * stride), g = hn::LoadU(d8, from + 5 * stride);
    const auto h = hn::LoadU(d8, from + 6 * stride), i = hn::LoadU(d8, from + 7 * stride);
    const auto spread = [&](auto ab, auto ce, auto fg, auto hi, std::uint64_t* to) {
      const auto p0 = hn::BitCast(d16, ab), p1 = hn::BitCast(d16, ce);
      const auto p2 = hn::BitCast(d16, fg), p3 = hn::BitCast(d16, hi);
      const auto low0 = hn::BitCast(d32, hn::InterleaveLower(d16, p0, p1));
      const auto high0 = hn::BitCast(d32, hn::InterleaveUpper(d16, p0, p1));
      const auto low1 = hn::BitCast(d32, hn::InterleaveLower(d16, p2, p3));
      const auto high1 = hn::BitCast(d32, hn::InterleaveUpper(d16, p2, p3));
      hn::Store(hn::BitCast(d64, hn::InterleaveLower(d32, low0, low1)), d64, to);
      hn::Store(hn::BitCast(d64, hn::InterleaveUpper(d32, low0, low1)), d64, to + 2);
      hn::Store(hn::BitCast(d64, hn::InterleaveLower(d32, high0, high1)), d64, to + 4);
      hn::Store(hn::BitCast(d64, hn::InterleaveUpper(d32, high0, high1)), d64, to + 6);
    };
    spread(hn::InterleaveLower(d8, a, b), hn::InterleaveLower(d8, c, e),
           hn::InterleaveLower(d8, f, g), hn::InterleaveLower(d8, h, i), packed);
    spread(hn::InterleaveUpper(d8, a, b), hn::InterleaveUpper(d8, c, e),
           hn::InterleaveUpper(d8, f, g), hn::InterleaveUpper(d8, h, i), packed + 8);
    const std::int64_t count = rows - r < 16 ? rows - r : 16;
    for (std::int64_t j = 0; j < count; ++j) {
      const std::uint64_t at = packed[j];
      T sum = sums[r + j] + v0[at & 0xff];
      sum += v1[at >> 8 & 0xff];
      sum += v2[at >> 16 & 0xff];
      sum += v3[at >> 24 & 0xff];
      sum += v4[at >> 32 & 0xff];
      sum += v5[at >> 40 & 0xff];
      sum += v6[at >> 48 & 0xff];
      sums[r + j] = sum + v7[at >> 56];
    }
  }
#endif
}

}  // namespace HWY_NAMESPACE
}  // namespace kernels
QUERN_NAMESPACE_END
HWY_AFTER_NAMESPACE();

#endif  // QUERN_KERNELS_TREE_PREDICT_INL_HPP
