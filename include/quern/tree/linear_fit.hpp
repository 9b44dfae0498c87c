// SPDX-License-Identifier: Apache-2.0

/// \file
/// Fits linear functions in the leaves of a tree that has been grown.
///
/// Y. Shi, J. Li, Z. Li, "Gradient Boosting with Piece-Wise Linear Regression Trees", IJCAI 2019.

#ifndef QUERN_TREE_LINEAR_FIT_HPP
#define QUERN_TREE_LINEAR_FIT_HPP

#include "quern/core/checks.hpp"
#include "quern/core/config.hpp"
#include "quern/core/parallel.hpp"
#include "quern/kernels/kernels.hpp"
#include "quern/tree/gradient.hpp"
#include "quern/tree/row_partition.hpp"
#include "quern/tree/row_reader.hpp"
#include "quern/tree/tree.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <span>
#include <utility>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace tree {

struct LinearFit {
  double lambda = 0;         ///< L2 of the coefficients, not of the constant
  double learning_rate = 1;  ///< factor of constants and coefficients
  int threads = 0;
};

namespace detail {

/// A leaf's function while it is fitted.
struct LeafFunction {
  std::vector<std::int32_t> features;
  std::vector<double> coefficients;
  double constant = 0;
};

/// Numeric features on the way to a leaf, ascending, each once.
[[nodiscard]] inline std::vector<std::int32_t> path_features(const Tree& tree, std::int32_t leaf) {
  std::vector<std::int32_t> features;
  for (std::int32_t i = tree.node(leaf).parent; i >= 0; i = tree.node(i).parent) {
    if (tree.node(i).kind == SplitKind::numeric) features.push_back(tree.node(i).feature);
  }
  std::sort(features.begin(), features.end());
  features.erase(std::unique(features.begin(), features.end()), features.end());
  return features;
}

/// Rows of a leaf that miss none of its features: their values (features, rows) and gradients.
struct LeafRows {
  std::vector<double> values;
  std::vector<double> g, h;
};

template <class = void>
[[nodiscard]] inline LeafRows leaf_rows(const std::vector<std::int32_t>& features,
                                        const kernels::RowList& rows,
                                        std::span<const GradientPair> gradients,
                                        const RowReader& reader) {
  LeafRows out;
  for (std::int64_t k = 0; k < rows.size; ++k) {
    const std::int64_t row = rows.index == nullptr ? rows.first + k : rows.index[k];
    bool missing = false;
    const std::size_t before = out.values.size();
    for (std::size_t j = 0; j < features.size() && !missing; ++j)
      out.values.push_back(reader.value(row, features[j], missing));
    if (missing) {
      out.values.resize(before);
      continue;
    }
    const GradientPair p = gradients[static_cast<std::size_t>(row)];
    out.g.push_back(static_cast<double>(p.g));
    out.h.push_back(static_cast<double>(p.h));
  }
  return out;
}

/// Solves a x = b for a symmetric, positive semidefinite \p a (m, m) with ones or zeros on its
/// diagonal: elimination with the largest diagonal next. What is left without a diagonal above 1e-9
/// repeats what was solved for, and gets 0. Overwrites \p a; \p b becomes x.
template <class = void>
inline void solve_semidefinite(std::vector<double>& a, std::vector<double>& b) {
  const std::size_t m = b.size();
  std::vector<std::size_t> order(m);
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::size_t rank = 0;
  for (; rank < m; ++rank) {
    for (std::size_t k = rank + 1; k < m; ++k) {
      if (a[order[k] * (m + 1)] > a[order[rank] * (m + 1)]) std::swap(order[k], order[rank]);
    }
    const std::size_t p = order[rank];
    if (!(a[p * (m + 1)] > 1e-9)) break;
    for (std::size_t k = rank + 1; k < m; ++k) {
      const std::size_t r = order[k];
      const double factor = a[r * m + p] / a[p * (m + 1)];
      b[r] -= factor * b[p];
      for (std::size_t l = rank + 1; l < m; ++l)
        a[r * m + order[l]] -= factor * a[p * m + order[l]];
    }
  }
  for (std::size_t k = rank; k < m; ++k) b[order[k]] = 0;
  for (std::size_t k = rank; k-- > 0;) {
    const std::size_t p = order[k];
    for (std::size_t l = k + 1; l < rank; ++l) b[p] -= a[p * m + order[l]] * b[order[l]];
    b[p] /= a[p * (m + 1)];
  }
}

/// Minimises sum g f + h f^2 / 2 + lambda |b|^2 / 2 over f(x) = a + b x. With x centred at its mean
/// by h, a = -G / H stands alone and b solves (X' diag(h) X + lambda) b = -X' g. Features in which
/// the rows do not differ, or that repeat others, get no coefficient. False where there is nothing
/// to fit.
template <class = void>
inline bool fit_leaf(const LeafRows& rows, double lambda, LeafFunction& f) {
  const std::size_t m = f.features.size(), n = rows.g.size();
  double sum_g = 0, sum_h = 0;
  std::vector<double> mean(m, 0.0);
  for (std::size_t i = 0; i < n; ++i) {
    sum_g += rows.g[i];
    sum_h += rows.h[i];
    for (std::size_t j = 0; j < m; ++j) mean[j] += rows.h[i] * rows.values[i * m + j];
  }
  if (m == 0 || n <= m || !(sum_h > 0)) return false;
  for (double& x : mean) x /= sum_h;
  std::vector<double> a(m * m, 0.0), b(m, 0.0), x(m), scale(m);
  for (std::size_t i = 0; i < n; ++i) {
    for (std::size_t j = 0; j < m; ++j) x[j] = rows.values[i * m + j] - mean[j];
    for (std::size_t j = 0; j < m; ++j) {
      b[j] -= rows.g[i] * x[j];
      for (std::size_t k = 0; k <= j; ++k) a[j * m + k] += rows.h[i] * x[j] * x[k];
    }
  }
  // Features in units of their own spread: the rank must not depend on units.
  for (std::size_t j = 0; j < m; ++j) {
    a[j * (m + 1)] += lambda;
    scale[j] = a[j * (m + 1)] > 0 ? 1 / std::sqrt(a[j * (m + 1)]) : 0.0;
    b[j] *= scale[j];
    for (std::size_t k = 0; k <= j; ++k)
      a[k * m + j] = a[j * m + k] = a[j * m + k] * scale[j] * scale[k];
  }
  solve_semidefinite(a, b);
  f.constant = -sum_g / sum_h;
  for (std::size_t j = 0; j < m; ++j) {
    f.coefficients.push_back(scale[j] * b[j]);
    f.constant -= f.coefficients.back() * mean[j];
  }
  return is_finite_bits(f.constant) && std::all_of(f.coefficients.begin(), f.coefficients.end(),
                                                   [](double c) { return is_finite_bits(c); });
}

}  // namespace detail

/// Gives \p tree, grown on \p gradients (rows), linear leaves: in each leaf the second-order step
/// over functions of the numeric features on its path, over the rows that miss none of them. A leaf
/// with too few such rows keeps its constant, and so do rows that miss a feature (Node::value).
/// \p leaves and \p ranges: the leaves' nodes and rows in \p partition. One output.
template <class = void>
inline void fit_linear_leaves(Tree& tree, std::span<const std::int32_t> leaves,
                              std::span<const RowRange> ranges, const RowPartition& partition,
                              std::span<const GradientPair> gradients, const RowReader& reader,
                              const LinearFit& fit) {
  std::vector<detail::LeafFunction> functions(tree.nodes.size());
  for (std::size_t i = 0; i < functions.size(); ++i) functions[i].constant = tree.nodes[i].value;
  parallel_for(
      static_cast<std::int64_t>(leaves.size()),
      [&](std::int64_t at) {
        const std::int32_t leaf = leaves[static_cast<std::size_t>(at)];
        detail::LeafFunction f;
        f.features = detail::path_features(tree, leaf);
        const detail::LeafRows rows = detail::leaf_rows(
            f.features, partition.list(ranges[static_cast<std::size_t>(at)]), gradients, reader);
        if (!detail::fit_leaf(rows, fit.lambda, f)) return;
        f.constant *= fit.learning_rate;
        for (double& c : f.coefficients) c *= fit.learning_rate;
        functions[static_cast<std::size_t>(leaf)] = std::move(f);
      },
      fit.threads);
  LinearLeaves& linear = tree.linear;
  linear = LinearLeaves();
  linear.offsets.push_back(0);
  for (const detail::LeafFunction& f : functions) {
    linear.features.insert(linear.features.end(), f.features.begin(), f.features.end());
    linear.coefficients.insert(linear.coefficients.end(), f.coefficients.begin(),
                               f.coefficients.end());
    linear.constants.push_back(f.constant);
    linear.offsets.push_back(linear.terms());
  }
}

}  // namespace tree
QUERN_NAMESPACE_END

#endif  // QUERN_TREE_LINEAR_FIT_HPP
