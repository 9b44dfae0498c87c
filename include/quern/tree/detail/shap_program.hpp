// SPDX-License-Identifier: Apache-2.0

/// \file
/// Trees compiled for explaining: what depends on the tree alone is computed once.

#ifndef QUERN_TREE_DETAIL_SHAP_PROGRAM_HPP
#define QUERN_TREE_DETAIL_SHAP_PROGRAM_HPP

#include "quern/core/checks.hpp"
#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/kernels/tree_shap_types.hpp"
#include "quern/tree/tree.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace tree::detail {

/// Deepest tree that is explained: memory grows with depth times points.
inline constexpr std::int32_t deepest_explained = 1024;
/// Most features on one path: twice the points of the quadrature.
inline constexpr std::int32_t most_path_features = 256;

/// Gauss-Legendre points and weights on [0, 1], by Newton's method on the Legendre polynomial.
inline void gauss_legendre(std::int32_t n, double* points, double* weights) {
  for (std::int32_t i = 0; i < n; ++i) {
    double x = std::cos(3.14159265358979323846 * (i + 0.75) / (n + 0.5));
    double slope = 1;
    for (int iteration = 0; iteration < 20; ++iteration) {
      double p = x, before = 1;
      for (std::int32_t k = 2; k <= n; ++k) {
        const double next = ((2 * k - 1) * x * p - (k - 1) * before) / k;
        before = p;
        p = next;
      }
      slope = n * (x * p - before) / (x * x - 1);
      const double step = p / slope;
      x -= step;
      if (std::fabs(step) < 1e-16) break;
    }
    points[i] = (1 - x) / 2;
    weights[i] = 1 / ((1 - x * x) * slope * slope);
  }
}

/// Share of a node's training rows that go to a child. Where no row came, or the covers are no
/// numbers, the children share alike.
inline double cover_share(const Tree& tree, const Node& parent, std::int32_t child) {
  const auto cover = [&](std::int32_t i) {
    const double c = tree.node(i).cover;
    return is_finite_bits(c) && c > 0 ? c : 0.0;
  };
  const double both = cover(parent.left) + cover(parent.right);
  return both > 0 && is_finite_bits(both) ? cover(child) / both : 0.5;
}

/// A tree's steps; indices into vectors that all trees of a forest share.
struct ShapTree {
  std::int32_t source = 0;  ///< number of the tree it was made from
  std::int32_t output = 0;
  std::int32_t points = 0;
  std::int32_t levels = 0;
  std::int64_t step_begin = 0;
  std::int64_t step_count = 0;
  std::int64_t constant_begin = 0;
  std::int64_t test_begin = 0;
  std::int64_t test_count = 0;
  std::int64_t special_begin = 0;
  std::int64_t special_count = 0;
  double mean = 0;  ///< expected value: leaves by their share of the training rows
};

/// What is compiled for one tree and one output.
struct ShapCode {
  std::vector<kernels::ShapStep> steps;
  std::vector<double> constants;
  double mean = 0;
  std::int32_t points = 0;
  std::int32_t levels = 0;
  std::vector<std::int32_t> sides;  ///< (nodes): row of the sides, -1 for leaves
  std::int32_t tests = 0;
  /// (steps): features of the steps above, by level; only of steps that give something
  std::vector<std::vector<std::int32_t>> above;
};

/// Compiles one tree. `value(node)` is a leaf's, `slot(feature)` the row of its sums.
template <class Value, class Slot>
class ShapCompiler {
 public:
  ShapCompiler(const Tree& tree, const Value& value, const Slot& slot)
      : tree_(tree), value_(value), slot_(slot) {}

  ShapCode compile() {
    code_.levels = tree_.depth();
    if (code_.levels > deepest_explained)
      throw ValueError(error_text("quern::tree::ShapForest", "tree",
                                  "depth of at most " + std::to_string(deepest_explained),
                                  code_.levels));
    number_tests();
    code_.points = (std::max)(2, (longest_path() + 1) / 2);
    if (2 * code_.points > most_path_features)
      throw ValueError(
          error_text("quern::tree::ShapForest", "tree",
                     "at most " + std::to_string(most_path_features) + " features on a path",
                     2 * code_.points));
    const auto n = static_cast<std::size_t>(code_.points);
    code_.constants.resize(3 * n);
    gauss_legendre(code_.points, code_.constants.data(), code_.constants.data() + n);
    for (std::size_t i = 0; i < n; ++i) code_.constants[2 * n + i] = 1 / (points()[i] - 1);
    path_.reserve(static_cast<std::size_t>(code_.levels));
    if (tree_.node(0).is_leaf()) {
      code_.mean = value_(0);
    } else {
      visit(0, 1.0);
    }
    return std::move(code_);
  }

 private:
  /// A step on the way to the present node.
  struct Above {
    std::int32_t feature;
    double share;            ///< z, of all of the path's tests of the feature
    std::int64_t constants;  ///< of the step
  };

  [[nodiscard]] const double* points() const { return code_.constants.data(); }

  void number_tests() {
    code_.sides.assign(tree_.nodes.size(), -1);
    for (std::int32_t i = 0; i < tree_.size(); ++i) {
      if (!tree_.node(i).is_leaf()) code_.sides[static_cast<std::size_t>(i)] = code_.tests++;
    }
  }

  /// Most different features on a path.
  std::int32_t longest_path() const {
    std::int32_t most = 0;
    std::vector<std::int32_t> count(tree_.nodes.size(), 0);  // features tested at i and above
    for (std::int32_t i = 0; i < tree_.size(); ++i) {
      const Node& n = tree_.node(i);
      if (n.is_leaf()) continue;
      std::int32_t up = n.parent;
      const std::int32_t above = up >= 0 ? count[static_cast<std::size_t>(up)] : 0;
      while (up >= 0 && tree_.node(up).feature != n.feature) up = tree_.node(up).parent;
      count[static_cast<std::size_t>(i)] = above + (up >= 0 ? 0 : 1);
      most = (std::max)(most, count[static_cast<std::size_t>(i)]);
    }
    return most;
  }

  /// 1 + the level of the step above on that feature, 0: none.
  [[nodiscard]] std::int32_t previous(std::int32_t feature) const {
    for (std::size_t level = path_.size(); level > 0; --level) {
      if (path_[level - 1].feature == feature) return static_cast<std::int32_t>(level);
    }
    return 0;
  }

  std::int64_t begin_constants() const { return static_cast<std::int64_t>(code_.constants.size()); }

  /// Constants of down, leaf and up.
  void add_constants(double z, std::int32_t previous) {
    const auto n = static_cast<std::size_t>(code_.points);
    const std::size_t at = code_.constants.size();
    code_.constants.resize(at + (previous > 0 ? 5 : 2) * n);
    double* c = code_.constants.data() + at;
    for (std::size_t i = 0; i < n; ++i) {
      const double t = points()[i];
      c[i] = (std::max)(z, 1e-30) * (1 - t);  // not 0: it may have to be divided out again
      c[n + i] = (1 - z) / (t + (1 - t) * z) + 1 / (1 - t);
    }
    if (previous == 0) return;
    const double* former =
        code_.constants.data() + path_[static_cast<std::size_t>(previous - 1)].constants;
    for (std::size_t i = 0; i < n; ++i) {
      c[2 * n + i] = 1 / former[i];
      c[3 * n + i] = 1 / (points()[i] + former[i]);
      c[4 * n + i] = former[n + i];
    }
  }

  void add_twins_constants(double left, double right, double z_left, double z_right) {
    const auto n = static_cast<std::size_t>(code_.points);
    const std::size_t at = code_.constants.size();
    code_.constants.resize(at + 2 * n + 2);
    double* c = code_.constants.data() + at;
    for (std::size_t i = 0; i < n; ++i) {
      const double t = points()[i];
      const double neither = (1 - t) * (left * z_left + right * z_right);
      c[i] = neither + t * left;
      c[n + i] = t * (right - left);
    }
    const double when_left = left * (1 - z_left) - right * z_right;
    c[2 * n] = when_left;
    c[2 * n + 1] = right - left;
  }

  kernels::ShapStep step(const Node& parent, std::int32_t node, kernels::ShapKind kind) {
    kernels::ShapStep s;
    s.kind = kind;
    s.side = code_.sides[static_cast<std::size_t>(node)];
    s.level = static_cast<std::int32_t>(path_.size());
    s.slot = slot_(parent.feature);
    s.constants = begin_constants();
    return s;
  }

  void push(const kernels::ShapStep& s, std::int32_t feature) {
    std::vector<std::int32_t> above;
    if (s.kind != kernels::ShapKind::down) {
      for (const Above& a : path_) above.push_back(a.feature == feature ? -1 : slot_(a.feature));
    }
    code_.steps.push_back(s);
    code_.above.push_back(std::move(above));
  }

  /// Everything below an inner node, of which `share` of the training rows came here.
  void visit(std::int32_t node, double share) {
    const Node& n = tree_.node(node);
    const std::int32_t before = previous(n.feature);
    if (before == 0 && tree_.node(n.left).is_leaf() && tree_.node(n.right).is_leaf()) {
      visit_twins(node, share);
      return;
    }
    visit_child(node, false, before, share);
    visit_child(node, true, before, share);
  }

  void visit_twins(std::int32_t node, double share) {
    const Node& n = tree_.node(node);
    const double left = value_(n.left), right = value_(n.right);
    const double z = cover_share(tree_, n, n.left);
    kernels::ShapStep s = step(n, node, kernels::ShapKind::twins);
    s.right = true;  // so that o is 1 where the row goes right
    add_twins_constants(left, right, z, 1 - z);
    code_.mean += share * (z * left + (1 - z) * right);
    push(s, n.feature);
  }

  void visit_child(std::int32_t node, bool right, std::int32_t before, double share) {
    const Node& n = tree_.node(node);
    const std::int32_t child = right ? n.right : n.left;
    const bool leaf = tree_.node(child).is_leaf();
    const double own = cover_share(tree_, n, child);
    const double z = own * (before > 0 ? path_[static_cast<std::size_t>(before - 1)].share : 1.0);
    kernels::ShapStep s = step(n, node, leaf ? kernels::ShapKind::leaf : kernels::ShapKind::down);
    s.previous = before;
    s.right = right;
    s.first = !right;
    add_constants(z, before);
    if (leaf) {
      s.value = value_(child);
      code_.mean += share * own * s.value;
      push(s, n.feature);
      return;
    }
    push(s, n.feature);
    path_.push_back({n.feature, z, s.constants});
    visit(child, share * own);
    path_.pop_back();
    s.kind = kernels::ShapKind::up;
    push(s, n.feature);
  }

  const Tree& tree_;
  const Value& value_;
  const Slot& slot_;
  ShapCode code_;
  std::vector<Above> path_;
};

}  // namespace tree::detail
QUERN_NAMESPACE_END

#endif  // QUERN_TREE_DETAIL_SHAP_PROGRAM_HPP
