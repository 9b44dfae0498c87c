// SPDX-License-Identifier: Apache-2.0

/// \file
/// Keys, codes and lanes at every level against what their definitions say, a value at a time.

#include "quern/kernels/kernels.hpp"
#include "quern/kernels/tree_predict_types.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cstdint>
#include <limits>
#include <random>
#include <type_traits>
#include <vector>

namespace quern::test::tree_predict {
namespace {

template <class Body>
void at_every_level(Body body) {
  for (simd::Level level : simd::attainable_levels()) {
    simd::ScopedLevel force(level);
    SCOPED_TRACE(simd::name(level));
    body();
  }
}

template <class T>
class TreePredict : public testing::Test {};
using Scalars = testing::Types<float, double>;
TYPED_TEST_SUITE(TreePredict, Scalars);

template <class T>
using Key = std::conditional_t<sizeof(T) == 4, std::int32_t, std::int64_t>;

TYPED_TEST(TreePredict, KeysOrderAsNumbersAndTellMissing) {
  using K = Key<TypeParam>;
  using Limits = std::numeric_limits<TypeParam>;
  const K infinity = std::bit_cast<K>(Limits::infinity());
  std::mt19937 random(1);
  std::vector<TypeParam> x = {0,
                              -TypeParam(0),
                              1,
                              -1,
                              Limits::infinity(),
                              -Limits::infinity(),
                              Limits::quiet_NaN(),
                              -Limits::quiet_NaN(),
                              Limits::denorm_min()};
  std::normal_distribution<double> normal;
  while (x.size() < 70) x.push_back(static_cast<TypeParam>(normal(random)));
  for (const std::size_t size : {0U, 1U, 3U, 8U, 16U, 17U, 70U}) {
    std::vector<K> bits, keys(size + 1, 7);
    for (std::size_t i = 0; i < size; ++i) bits.push_back(std::bit_cast<K>(x[i]));
    at_every_level([&] {
      QUERN_DISPATCH(
          tree_keys<K>(bits.data(), static_cast<std::int64_t>(size), infinity, keys.data()));
      EXPECT_EQ(keys[size], 7);
      for (std::size_t i = 0; i < size; ++i) {
        if (i == 6 || i == 7) {
          EXPECT_EQ(keys[i], kernels::missing_key<K>);
          continue;
        }
        EXPECT_NE(keys[i], kernels::missing_key<K>);
        for (std::size_t j = 0; j < size; ++j) {
          if (j != 6 && j != 7) {
            EXPECT_EQ(keys[i] < keys[j], x[i] < x[j]) << x[i] << " " << x[j];
          }
        }
      }
    });
  }
}

TYPED_TEST(TreePredict, CodesCountThresholds) {
  using K = Key<TypeParam>;
  std::mt19937 random(2);
  constexpr std::size_t room = 320;
  for (std::int32_t count : {0, 1, 15, 16, 17, 96, 97, 200, 254, 255}) {
    std::vector<K> thresholds(static_cast<std::size_t>(count));
    for (K& t : thresholds) t = static_cast<K>(random() % 400) - 200;
    std::sort(thresholds.begin(), thresholds.end());
    std::vector<K> table(kernels::code_table_size, (std::numeric_limits<K>::max)());
    std::transform(thresholds.begin(), thresholds.end(), table.begin(), [](K t) { return t - 1; });
    for (std::size_t i = 0; i < 16; ++i) table[256 + i] = table[16 * i + 15];
    std::vector<K> keys(room, 0);
    for (K& k : keys) k = static_cast<K>(random() % 420) - 210;
    keys[3] = kernels::missing_key<K>;
    keys[4] = (std::numeric_limits<K>::max)();
    for (std::int64_t rows : {0, 1, 33, 64, 256}) {
      at_every_level([&] {
        std::vector<std::uint8_t> codes(room, 1);
        QUERN_DISPATCH(tree_codes<K>(keys.data(), rows, table.data(), count, codes.data()));
        QUERN_DISPATCH(tree_codes_missing_right<K>(keys.data(), rows, codes.data()));
        for (std::size_t r = 0; r < static_cast<std::size_t>(rows); ++r) {
          auto expected =
              std::upper_bound(thresholds.begin(), thresholds.end(), keys[r]) - thresholds.begin();
          if (keys[r] == kernels::missing_key<K>) expected = 255;
          ASSERT_EQ(static_cast<std::int8_t>(codes[r]), static_cast<int>(expected) - 128)
              << count << " thresholds, row " << r;
        }
      });
    }
  }
}

std::uint32_t four(int byte) { return static_cast<std::uint32_t>(byte & 0xff) * 0x01010101u; }

/// Splits the leaves [first, first + leaves) at random, parents first.
void grow(std::vector<kernels::LaneNode>& nodes, int first, int leaves, std::mt19937& random) {
  if (leaves < 2) return;
  const int left = 1 + static_cast<int>(random() % static_cast<unsigned>(leaves - 1));
  nodes.push_back({static_cast<std::uint32_t>(random() % 4),
                   four(static_cast<int>(random() % 255) - 128), four(first), four(first + left)});
  grow(nodes, first, left, random);
  grow(nodes, first + left, leaves - left, random);
}

TEST(TreeLanes, FindTheLeaf) {
  std::mt19937 random(3);
  constexpr std::int64_t stride = 640;
  std::vector<std::uint8_t> codes(4 * stride);
  for (std::uint8_t& c : codes) c = static_cast<std::uint8_t>(random());
  for (int leaves : {1, 2, 3, 64, 255, 256}) {
    std::vector<kernels::LaneNode> nodes;
    grow(nodes, 0, leaves, random);
    const auto count = static_cast<std::int64_t>(nodes.size());
    for (std::int64_t rows : {0, 1, 31, 32, 33, 256, 257, 576}) {
      at_every_level([&] {
        std::vector<std::uint8_t> found(stride, 0);
        QUERN_DISPATCH(tree_lanes<std::uint8_t>(codes.data(), stride, nodes.data(), count, rows,
                                                found.data()));
        for (std::int64_t r = 0; r < rows; ++r) {
          std::uint8_t leaf = 0;
          for (const kernels::LaneNode& n : nodes) {
            const auto code =
                static_cast<std::int8_t>(codes[static_cast<std::size_t>(n.column * stride + r)]);
            if (leaf == (n.first_leaf & 0xff) && code > static_cast<std::int8_t>(n.code & 0xff)) {
              leaf = static_cast<std::uint8_t>(n.right_first_leaf & 0xff);
            }
          }
          ASSERT_EQ(found[static_cast<std::size_t>(r)], leaf) << leaves << " leaves, row " << r;
        }
      });
    }
  }
}

TEST(TreeKeysOfRows, AreTheKeysOfEachValue) {
  std::mt19937 random(4);
  std::normal_distribution<float> normal;
  constexpr std::int64_t stride = 64;
  for (const std::int64_t columns : {1, 3, 4, 7, 8, 13}) {
    std::vector<std::int32_t> slots;
    for (std::int64_t c = 0; c < columns; ++c)
      slots.push_back(c % 5 == 2 ? -1 : static_cast<std::int32_t>(columns - 1 - c));
    const std::int64_t row_stride = columns + 2;
    for (const std::int64_t rows : {0, 1, 7, 8, 9, 33}) {
      std::vector<std::int32_t> bits;
      for (std::int64_t i = 0; i < rows * row_stride + 1; ++i) {
        const float x =
            random() % 40 == 0 ? std::numeric_limits<float>::quiet_NaN() : normal(random);
        bits.push_back(std::bit_cast<std::int32_t>(random() % 40 == 0 ? -0.0f : x));
      }
      at_every_level([&] {
        std::vector<std::int32_t> keys(static_cast<std::size_t>(columns * stride), 7);
        std::vector<std::uint8_t> missing(static_cast<std::size_t>(columns), 9);
        QUERN_DISPATCH(tree_keys_of_rows<std::int32_t>(bits.data(), row_stride, rows, columns,
                                                       slots.data(), 0x7f800000, stride,
                                                       keys.data(), missing.data()));
        for (std::int64_t c = 0; c < columns; ++c) {
          const std::int32_t slot = slots[static_cast<std::size_t>(c)];
          if (slot < 0) continue;
          std::vector<std::int32_t> column, expected(static_cast<std::size_t>(rows));
          for (std::int64_t r = 0; r < rows; ++r)
            column.push_back(bits[static_cast<std::size_t>(r * row_stride + c)]);
          const bool any = QUERN_DISPATCH(
              tree_keys<std::int32_t>(column.data(), rows, 0x7f800000, expected.data()));
          EXPECT_TRUE(!any || missing[static_cast<std::size_t>(slot)] == 1);
          EXPECT_LE(missing[static_cast<std::size_t>(slot)], 1);
          for (std::int64_t r = 0; r < rows; ++r)
            EXPECT_EQ(keys[static_cast<std::size_t>(slot * stride + r)],
                      expected[static_cast<std::size_t>(r)]);
        }
      });
    }
  }
}

TEST(TreeFull, FindsTheLeafOfFullAndSymmetricTrees) {
  std::mt19937 random(5);
  constexpr std::int64_t stride = 256;
  std::vector<std::uint8_t> codes(4 * stride);
  for (std::uint8_t& c : codes) c = static_cast<std::uint8_t>(random());
  const auto node = [&](int right_leaf) {
    return kernels::SplitNode{static_cast<std::uint32_t>(random() % 4 * stride),
                              four(static_cast<int>(random() % 255) - 127), four(right_leaf)};
  };
  const auto goes_left = [&](const kernels::SplitNode& n, std::int64_t r) {
    return static_cast<std::int8_t>(codes[static_cast<std::size_t>(n.offset + r)]) <
           static_cast<std::int8_t>(n.code & 0xff);
  };
  for (int levels = 1; levels <= 8; ++levels) {
    // In preorder a node's place says its level: filled in by descent to every leaf.
    std::vector<kernels::SplitNode> nodes(static_cast<std::size_t>(1 << levels) - 1), level;
    for (int leaf = 0; leaf < 1 << levels; leaf += 2) {
      std::size_t at = 0;
      for (int half = 1 << (levels - 1); half > 0; half /= 2) {
        if (half == 1)
          nodes[at] = node(leaf + 1);
        else if (leaf % (2 * half) == 0)
          nodes[at] = node(0);
        at += (leaf & half) != 0 ? static_cast<std::size_t>(half) : 1;
      }
    }
    for (int l = 0; l < levels; ++l) level.push_back(node(0));
    for (const std::int64_t rows : {0, 1, 31, 64, 65, 256}) {
      at_every_level([&] {
        std::vector<std::uint8_t> full(stride, 0), symmetric(stride, 0);
        const bool has_full = levels >= 3 && levels <= kernels::full_tree_levels;
        if (has_full)
          QUERN_DISPATCH(
              tree_full<std::uint8_t>(codes.data(), nodes.data(), levels, rows, full.data()));
        QUERN_DISPATCH(tree_symmetric<std::uint8_t>(codes.data(), level.data(), levels, rows,
                                                    symmetric.data()));
        for (std::int64_t r = 0; r < rows; ++r) {
          int leaf = 0, other = 0;
          std::size_t at = 0;
          for (int l = 0; l < levels; ++l) {
            const int half = 1 << (levels - 1 - l);
            const bool left = goes_left(nodes[at], r);
            leaf += left ? 0 : half;
            at += left ? 1 : static_cast<std::size_t>(half);
            other += goes_left(level[static_cast<std::size_t>(l)], r) ? 0 : half;
          }
          if (has_full) {
            ASSERT_EQ(full[static_cast<std::size_t>(r)], leaf) << levels << " levels, row " << r;
          }
          ASSERT_EQ(symmetric[static_cast<std::size_t>(r)], other)
              << levels << " levels, row " << r;
        }
      });
    }
  }
}

TEST(TreeAddLeaves, AddsInOrder) {
  std::mt19937 random(6);
  std::normal_distribution<double> normal;
  constexpr std::int64_t stride = 256;
  std::vector<std::uint8_t> leaves(8 * stride);
  for (std::uint8_t& l : leaves) l = static_cast<std::uint8_t>(random());
  std::vector<double> values(8 * 256);
  for (double& v : values) v = normal(random);
  const double* tables[8];
  for (std::size_t t = 0; t < 8; ++t) tables[t] = values.data() + 256 * t;
  for (const std::int64_t rows : {0, 1, 15, 16, 17, 256}) {
    at_every_level([&] {
      std::vector<double> sums(stride, 0.5);
      QUERN_DISPATCH(tree_add_leaves<double>(leaves.data(), stride, tables, rows, sums.data()));
      for (std::size_t r = 0; r < sums.size(); ++r) {
        double expected = 0.5;
        for (std::size_t t = 0; t < 8 && r < static_cast<std::size_t>(rows); ++t)
          expected += tables[t][leaves[t * stride + r]];
        ASSERT_EQ(sums[r], expected) << "row " << r;
      }
    });
  }
}

}  // namespace
}  // namespace quern::test::tree_predict
