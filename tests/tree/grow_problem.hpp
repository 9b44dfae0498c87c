// SPDX-License-Identifier: Apache-2.0

/// \file
/// A made problem to grow trees on, and the gain of one split by adding up its rows.

#ifndef QUERN_TESTS_TREE_GROW_PROBLEM_HPP
#define QUERN_TESTS_TREE_GROW_PROBLEM_HPP

#include "quern/core/random.hpp"
#include "quern/tree/binning.hpp"
#include "quern/tree/gradient.hpp"
#include "quern/tree/split.hpp"
#include "quern/tree/tree.hpp"

#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

namespace quern::test::grow_problem {

using tree::GradientPair;
using tree::GradientSum;
using Rows = std::vector<std::int32_t>;

/// Random features (some missing, some few-valued, one constant) and gradients.
struct Problem {
  Eigen::MatrixXf x;
  std::vector<GradientPair> gradients;
  tree::BinnedMatrix binned;

  Problem(std::int64_t rows, std::int64_t cols, int max_bin, std::uint64_t seed) : x(rows, cols) {
    Philox rng(seed, "grow test");
    for (std::int64_t i = 0; i < rows; ++i) {
      for (std::int64_t j = 0; j < cols; ++j) {
        float v = rng.normal<float>();
        if (j % 4 == 1) v = std::round(v);
        if (j % 4 == 2 && rng.bernoulli(0.4)) v = std::numeric_limits<float>::quiet_NaN();
        if (j % 4 == 3) v = rng.bernoulli(0.9) ? 0.0f : v;
        x(i, j) = j == 4 ? 1.5f : v;
      }
      const float first = x(i, 0) * (cols > 1 ? x(i, 1) : 1.0f);
      gradients.push_back({first + rng.normal<float>(), 0.5f + rng.uniform<float>()});
    }
    binned = tree::bin(tree::make_dataset(x), max_bin);
  }
};

inline GradientSum<double> sum_of(const Problem& p, const Rows& rows) {
  GradientSum<double> s;
  for (const std::int32_t r : rows) {
    s.g += static_cast<double>(p.gradients[static_cast<std::size_t>(r)].g);
    s.h += static_cast<double>(p.gradients[static_cast<std::size_t>(r)].h);
  }
  return s;
}

/// Gain of a split, -1e300 where a child would be too light.
inline double split_gain(const Problem& p, const Rows& rows, std::int32_t feature, double threshold,
                         bool default_left, const tree::SplitOptions& o) {
  Rows side[2];
  for (const std::int32_t r : rows) {
    const float v = p.x(r, feature);
    const bool left = std::isnan(v) ? default_left : static_cast<double>(v) < threshold;
    side[left ? 0 : 1].push_back(r);
  }
  const GradientSum<double> l = sum_of(p, side[0]), r = sum_of(p, side[1]);
  if (l.h < o.min_child_weight || r.h < o.min_child_weight || side[0].empty() || side[1].empty())
    return -1e300;
  return tree::node_score(l, o) + tree::node_score(r, o) - tree::node_score(sum_of(p, rows), o);
}

/// The rows of a node's children.
inline void route(const Problem& p, const tree::Tree& t, const tree::Node& n, const Rows& rows,
                  Rows (&side)[2]) {
  for (const std::int32_t r : rows) {
    const float v = p.x(r, n.feature);
    side[t.next(n, static_cast<double>(v), std::isnan(v)) == n.left ? 0 : 1].push_back(r);
  }
}

inline Rows all_rows(const Problem& p) {
  Rows rows;
  for (std::int32_t r = 0; r < p.x.rows(); ++r) rows.push_back(r);
  return rows;
}

/// Every threshold of feature \p f, the last one above all values.
inline std::vector<double> thresholds(const Problem& p, std::int32_t f) {
  std::vector<double> all;
  for (std::int32_t b = 1; b < p.binned.cuts.bins(f); ++b) all.push_back(p.binned.cuts.cut(f, b));
  all.push_back(static_cast<double>(std::numeric_limits<float>::max()));
  return all;
}

}  // namespace quern::test::grow_problem

#endif  // QUERN_TESTS_TREE_GROW_PROBLEM_HPP
