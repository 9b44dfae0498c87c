// SPDX-License-Identifier: Apache-2.0

/// \file
/// Arguments of the kernel that explains trees: plain numbers, the same for every target.
///
/// *The sum.* Let a leaf of value v have k features on its path; for feature i let z_i be the share
/// of the training rows that pass all of its tests there, and o_i 1 or 0 as the row at hand does or
/// does not. Shapley's weights are integrals, |S|! (k-1-|S|)! / k! = int_0^1 t^|S| (1-t)^(k-1-|S|)
/// dt, so the leaf gives feature j
///
///     v (o_j - z_j) int_0^1 prod_{i != j} (t o_i + (1-t) z_i) dt,
///
/// a polynomial of degree k-1, which Gauss-Legendre quadrature on ceil(k/2) points integrates
/// exactly. All factors are positive: nothing cancels, whatever the depth. With f_i the factors,
/// the product over all features is carried down the tree, one number a point, and v times it is
/// summed on the way up, where each step adds (o_j - z_j) / f_j times the sum below it to its
/// feature. That quotient has two values, 1 / -(1-t) at o = 0 and one at o = 1. A feature that
/// was tested before replaces its factor, and its former quotient is subtracted.
///
/// Interactions of i and j are the same with two quotients under the integral.

#ifndef QUERN_KERNELS_TREE_SHAP_TYPES_HPP
#define QUERN_KERNELS_TREE_SHAP_TYPES_HPP

#include "quern/core/config.hpp"

#include <cstdint>

QUERN_NAMESPACE_BEGIN
namespace kernels {

/// Rows that go through a tree together.
inline constexpr std::int64_t shap_rows = 16;

/// A test of a key (see tree_predict_types.hpp): left where key < threshold, which a missing
/// value's key always is, so that one is told by itself where it goes right.
template <class Key>
struct ShapTest {
  Key threshold = 0;
  std::int32_t slot = 0;  ///< row of the keys
  std::int32_t side = 0;  ///< row of the sides
  bool missing_right = false;
};

enum class ShapKind : std::int32_t {
  down,   ///< into an inner child
  leaf,   ///< into a child that is a leaf, and back
  twins,  ///< into two leaves below a feature that is new on the path, and back
  up,     ///< back from an inner child
};

/// One step of a program, which is a walk through all of a tree, left before right. With n points,
/// its constants are
///   down, leaf, up: z (1 - t) [n], (1-z) / (t + (1-t) z) + 1 / (1-t) [n], and where `previous` is
///                   not 0 also the first again of that step, inverted at o = 0 [n] and at o = 1
///                   [n], and its second [n];
///   twins:          sum of the leaves' v f where the row goes left [n], right minus left [n]; the
///                   same of v (o - z) [2].
struct ShapStep {
  ShapKind kind = ShapKind::down;
  std::int32_t side = 0;      ///< row of the sides: the test at the parent
  std::int32_t level = 0;     ///< depth of the parent; what is left behind there is `level`'s
  std::int32_t previous = 0;  ///< 1 + level of the step above on the same feature, 0: none
  std::int32_t slot = 0;      ///< row of the sums
  bool right = false;         ///< the child on the right
  bool first = false;         ///< leaf, up: nothing came back to the parent yet
  std::int64_t constants = 0;
  std::int64_t pairs = 0;  ///< first of `level` rows of the sums of pairs, by level; -1: no pair
  double value = 0;        ///< of the leaf
};

/// A tree as the kernel walks it. `constants` begin with the points t [n], their weights [n] and
/// 1 / (t-1) [n].
struct ShapProgram {
  const ShapStep* steps = nullptr;
  std::int64_t count = 0;
  const double* constants = nullptr;
  const std::int32_t* pairs = nullptr;
  std::int32_t points = 0;
  std::int32_t levels = 0;  ///< depth of the tree
};

/// Numbers of working memory that a program of so many points and levels needs.
constexpr std::int64_t shap_work_size(std::int64_t points, std::int64_t levels) {
  return shap_rows * ((levels + 1) * (3 * points + 1) + points);
}

}  // namespace kernels
QUERN_NAMESPACE_END

#endif  // QUERN_KERNELS_TREE_SHAP_TYPES_HPP
