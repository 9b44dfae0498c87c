// SPDX-License-Identifier: Apache-2.0

/// \file
/// Shapley values of trees: how much each feature moved a prediction away from the mean.
///
/// The path-dependent TreeSHAP of S. Lundberg et al., "From local explanations to global
/// understanding with explainable AI for trees", Nature Machine Intelligence 2 (2020): the value of
/// a set of features is the expectation when a test on any other feature sends the row both ways,
/// by the shares of the training rows (Node::cover) that went there. Exact, and the same numbers as
/// XGBoost's and LightGBM's. kernels/tree_shap_types.hpp says how it is computed here.

#ifndef QUERN_TREE_SHAP_HPP
#define QUERN_TREE_SHAP_HPP

#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/core/nd_view.hpp"
#include "quern/core/parallel.hpp"
#include "quern/tree/dataset.hpp"
#include "quern/tree/detail/shap_forest.hpp"
#include "quern/tree/detail/shap_tile.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <type_traits>
#include <variant>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace tree {

struct ShapOptions {
  std::int64_t trees = -1;  ///< only the first so many trees of the source; -1: all
  int threads = 0;          ///< 0: the default number
};

namespace detail {

inline std::int64_t shap_trees(const char* function, const ShapForest& forest, std::int64_t trees) {
  if (trees < -1 || trees > forest.trees())
    throw ValueError(
        error_text(function, "trees", "-1 (all) or 0.." + std::to_string(forest.trees()), trees));
  return trees < 0 ? forest.trees() : trees;
}

/// Checks shapes, then calls use(tile, first row, rows) for every tile, on several threads.
template <int Rank, class Use>
void for_each_shap_tile(const char* function, const ShapForest& forest, const FeatureView& features,
                        const NdView<double, Rank>& out, std::int64_t rows_a_tile,
                        std::int64_t pairs, int threads, const Use& use) {
  std::visit(
      [&](const auto& x) {
        using Value = typename SourceValue<std::remove_cvref_t<decltype(x)>>::type;
        const std::int64_t rows = rows_of(x);
        if (cols_of(x) != forest.features)
          throw ShapeError(error_text(function, "features",
                                      std::to_string(forest.features) + " columns", cols_of(x)));
        Shape<Rank> shape = {rows, forest.outputs()};
        for (std::size_t r = 2; r < static_cast<std::size_t>(Rank); ++r)
          shape[r] = forest.features + 1;
        expect_shape(function, "out", out, shape);
        check_features(function, x);
        const auto run = [&](auto compare) {
          parallel_for(
              block_count(rows, rows_a_tile),
              [&](std::int64_t b) {
                const BlockRange range = block_range(rows, rows_a_tile, b);
                const ScratchLease lease(*forest.scratch);
                ShapTile<decltype(compare)> tile(forest, lease.scratch(), range.size(), pairs);
                tile.load(x, range.begin);
                use(tile, range.begin, range.size());
              },
              threads);
        };
        if constexpr (sizeof(Value) == 8) {
          if (forest.compares_doubles()) return run(double{});
        }
        run(float{});
      },
      features);
}

}  // namespace detail

/// out(r, k, f) = what feature f adds to output k of row r; out(r, k, features) = the mean, that is
/// the base plus each tree's expected value. A row of \p out sums to the margin.
/// \p features: (rows, forest.features), NaN is missing; \p out: (rows, outputs, features + 1), any
/// strides. Throws ShapeError where shapes do not fit and ValueError for options out of range.
template <class = void>
inline void shap_values(const ShapForest& forest, const FeatureView& features,
                        NdView<double, 3> out, const ShapOptions& options = {}) {
  static constexpr const char* function = "quern::tree::shap_values";
  const std::int64_t trees = detail::shap_trees(function, forest, options.trees);
  detail::for_each_shap_tile(
      function, forest, features, out, detail::shap_tile_rows, 0, options.threads,
      [&](auto& tile, std::int64_t first, std::int64_t rows) {
        for (std::int64_t k = 0; k < forest.outputs(); ++k) {
          tile.sum(k, trees);
          const double mean = forest.mean(k, trees);
          for (std::int64_t r = 0; r < rows; ++r) {
            for (std::int64_t f = 0; f < forest.features; ++f) {
              const std::int32_t slot = forest.slot_of(static_cast<std::int32_t>(f));
              out(first + r, k, f) = slot < 0 ? 0.0 : tile.value(slot, r);
            }
            out(first + r, k, forest.features) = mean;
          }
        }
      });
}

/// Shapley interaction values. out(r, k, f, g) with f != g is half of the interaction of the two
/// (its other half is at (g, f)), out(r, k, f, f) what is left of the feature's own value, and
/// out(r, k, features, features) the mean: each row of the matrix sums to the feature's value.
/// \p out: (rows, outputs, features + 1, features + 1). Errors as shap_values().
template <class = void>
inline void shap_interactions(const ShapForest& forest, const FeatureView& features,
                              NdView<double, 4> out, const ShapOptions& options = {}) {
  static constexpr const char* function = "quern::tree::shap_interactions";
  const std::int64_t trees = detail::shap_trees(function, forest, options.trees);
  const auto pairs = static_cast<std::int64_t>(forest.pairs.size());
  detail::for_each_shap_tile(
      function, forest, features, out, kernels::shap_rows, pairs, options.threads,
      [&](auto& tile, std::int64_t first, std::int64_t rows) {
        for (std::int64_t k = 0; k < forest.outputs(); ++k) {
          tile.sum_pairs(k, trees);
          for (std::int64_t r = 0; r < rows; ++r) {
            const NdView<double, 2> matrix(&out(first + r, k, 0, 0),
                                           {forest.features + 1, forest.features + 1},
                                           {out.stride(2), out.stride(3)});
            tile.write_pairs(r, matrix);
            matrix(forest.features, forest.features) = forest.mean(k, trees);
          }
        }
      });
}

}  // namespace tree
QUERN_NAMESPACE_END

#endif  // QUERN_TREE_SHAP_HPP
