// SPDX-License-Identifier: Apache-2.0

/// \file
/// Lanes and leaf sums at every level against what their definitions say, a value at a time.

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

TEST(TreeFullBytes, FindTheLeafByUnsignedBytes) {
  std::mt19937 random(8);
  std::vector<std::uint8_t> codes(4 * 64);
  for (std::uint8_t& c : codes) c = static_cast<std::uint8_t>(random());
  std::vector<kernels::SplitNode> nodes;
  const auto fill = [&](const auto& self, int first, int below) -> void {
    if (below == 0) return;
    nodes.push_back({static_cast<std::uint32_t>(random() % 4 * 64),
                     four(static_cast<int>(1 + random() % 255)), four(first + 1)});
    self(self, first, below - 1);
    self(self, first + (1 << (below - 1)), below - 1);
  };
  fill(fill, 0, kernels::full_tree_levels);
  at_every_level([&] {
    std::vector<std::uint8_t> found(64);
    QUERN_DISPATCH(tree_full_bytes<std::uint8_t>(codes.data(), nodes.data(), 64, found.data()));
    for (std::size_t r = 0; r < 64; ++r) {
      std::size_t node = 0, leaf = 0;
      for (std::size_t half = 32; half > 0; half /= 2) {
        const bool left = codes[nodes[node].offset + r] < (nodes[node].code & 0xff);
        leaf += left ? 0 : half;
        node += left ? 1 : half;
      }
      ASSERT_EQ(found[r], leaf);
    }
  });
}

}  // namespace
}  // namespace quern::test::tree_predict
