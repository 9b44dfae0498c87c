// SPDX-License-Identifier: Apache-2.0

/// \file
/// Trees and features for tests: any shape, thresholds that values hit exactly, missing values.

#ifndef QUERN_TESTS_TREE_RANDOM_TREES_HPP
#define QUERN_TESTS_TREE_RANDOM_TREES_HPP

#include "quern/core/checks.hpp"
#include "quern/tree/tree.hpp"

#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <vector>

namespace quern::test {

struct TreeShape {
  std::int32_t leaves = 8;
  std::int32_t features = 5;
  bool chain = false;      ///< every split below the last one
  int grid = 16;           ///< thresholds are multiples of 1/16 (0: any double)
  double categorical = 0;  ///< share of splits on sets of categories
  std::int32_t outputs = 1;
  double other_missing = 0;  ///< share of splits with MissingRule::zero or none
};

inline double random_threshold(const TreeShape& shape, std::mt19937& random) {
  std::normal_distribution<double> normal;
  if (shape.grid == 0) return normal(random);
  return std::nearbyint(normal(random) * shape.grid) / shape.grid;
}

inline tree::Tree random_tree(const TreeShape& shape, std::mt19937& random) {
  tree::Tree tree;
  std::normal_distribution<double> normal;
  std::uniform_real_distribution<double> uniform;
  std::vector<std::int32_t> open = {0};
  for (std::int32_t leaves = 1; leaves < shape.leaves; ++leaves) {
    const std::size_t pick = shape.chain ? open.size() - 1 : random() % open.size();
    const std::int32_t at = open[pick];
    open[pick] = open.back();
    open.pop_back();
    const std::int32_t left = tree.split(at);
    tree::Node& n = tree.node(at);
    n.feature = static_cast<std::int32_t>(random() % static_cast<unsigned>(shape.features));
    n.threshold = random_threshold(shape, random);
    n.default_left = (random() & 1u) != 0;
    n.gain = uniform(random);
    n.cover = uniform(random) * 100;
    if (shape.other_missing > 0 && uniform(random) < shape.other_missing) {
      n.missing = (random() & 1u) != 0 ? tree::MissingRule::zero : tree::MissingRule::none;
    }
    if (uniform(random) < shape.categorical) {
      n.kind = tree::SplitKind::categorical;
      n.category_begin = static_cast<std::uint32_t>(tree.category_words.size());
      n.category_count = 1 + static_cast<std::uint32_t>(random() % 2);
      for (std::uint32_t w = 0; w < n.category_count; ++w)
        tree.category_words.push_back(static_cast<std::uint32_t>(random()));
    }
    open.push_back(left);
    open.push_back(left + 1);
  }
  for (tree::Node& n : tree.nodes) n.value = normal(random);
  tree.outputs = shape.outputs;
  if (shape.outputs > 1) {
    for (std::int64_t i = 0; i < tree.size() * shape.outputs; ++i) {
      tree.vector_values.push_back(normal(random));
    }
  }
  return tree;
}

inline std::vector<tree::Tree> random_trees(int count, const TreeShape& shape,
                                            std::mt19937& random) {
  std::vector<tree::Tree> trees;
  for (int t = 0; t < count; ++t) trees.push_back(random_tree(shape, random));
  return trees;
}

/// All leaves at \p levels but for a share \p cut of the subtrees; \p symmetric: one test a level.
inline tree::Tree random_full_tree(const TreeShape& shape, std::int32_t levels, bool symmetric,
                                   double cut, std::mt19937& random) {
  tree::Tree tree;
  std::normal_distribution<double> normal;
  std::uniform_real_distribution<double> uniform;
  std::vector<std::int32_t> level = {0};
  for (std::int32_t l = 0; l < levels; ++l) {
    std::vector<std::int32_t> next;
    tree::Node test;
    for (const std::int32_t at : level) {
      if (at > 0 && uniform(random) < cut) continue;
      if (!symmetric || at == level[0]) {
        test.feature = static_cast<std::int32_t>(random() % static_cast<unsigned>(shape.features));
        test.threshold = random_threshold(shape, random);
        test.default_left = (random() & 1u) != 0;
      }
      const std::int32_t left = tree.split(at);
      tree.node(at).feature = test.feature;
      tree.node(at).threshold = test.threshold;
      tree.node(at).default_left = test.default_left;
      next.push_back(left);
      next.push_back(left + 1);
    }
    level = next;
  }
  for (tree::Node& n : tree.nodes) n.value = normal(random);
  tree.symmetric = symmetric && cut == 0;
  return tree;
}

/// Values on and off the thresholds' grid, whole numbers, zeros of both signs, infinities, NaN.
template <class T>
std::vector<T> random_features(std::int64_t size, std::mt19937& random, double missing = 0.15) {
  std::normal_distribution<double> normal;
  std::uniform_real_distribution<double> uniform;
  std::vector<T> x(static_cast<std::size_t>(size));
  for (T& v : x) {
    const double kind = uniform(random);
    if (kind < missing)
      v = (random() & 1u) ? std::numeric_limits<T>::quiet_NaN()
                          : -std::numeric_limits<T>::quiet_NaN();
    else if (kind < missing + 0.3)
      v = static_cast<T>(std::nearbyint(normal(random) * 16) / 16);
    else if (kind < missing + 0.4)
      v = static_cast<T>(random() % 70);
    else if (kind < missing + 0.42)
      v = (random() & 1u) ? T(0) : -T(0);
    else if (kind < missing + 0.44)
      v = (random() & 1u) ? std::numeric_limits<T>::infinity()
                          : -std::numeric_limits<T>::infinity();
    else
      v = static_cast<T>(normal(random));
  }
  return x;
}

/// Leaf that a row reaches, step by step; C is the type that is compared in.
template <class C, class T>
std::int32_t naive_leaf(const tree::Tree& tree, const T* row) {
  std::int32_t i = 0;
  while (!tree.node(i).is_leaf()) {
    const T x = row[tree.node(i).feature];
    i = tree.next(tree.node(i), static_cast<double>(static_cast<C>(x)), is_nan_bits(x));
  }
  return i;
}

}  // namespace quern::test

#endif  // QUERN_TESTS_TREE_RANDOM_TREES_HPP
