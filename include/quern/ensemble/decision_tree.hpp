// SPDX-License-Identifier: Apache-2.0

/// \file
/// Single CART trees as learners (see tree/cart_options.hpp for what they are).

#ifndef QUERN_ENSEMBLE_DECISION_TREE_HPP
#define QUERN_ENSEMBLE_DECISION_TREE_HPP

#include "quern/core/archive.hpp"
#include "quern/core/checks.hpp"
#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/core/nd_array.hpp"
#include "quern/ensemble/class_weight.hpp"
#include "quern/ensemble/detail/forest_fit.hpp"
#include "quern/ensemble/learner.hpp"
#include "quern/tree/cart_options.hpp"
#include "quern/tree/cart_prune.hpp"
#include "quern/tree/compact_forest.hpp"
#include "quern/tree/tree.hpp"

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace ensemble {

/// Options of a tree; names are scikit-learn's. \p C: the default criterion.
template <tree::Criterion C>
struct DecisionTreeOptions {
  tree::Criterion criterion = C;
  tree::Splitter splitter = tree::Splitter::best;
  std::int32_t max_depth = 0;          ///< 0: until leaves are pure
  std::int64_t min_samples_split = 2;  ///< rows that a node needs to be split
  std::int64_t min_samples_leaf = 1;   ///< rows that each child needs
  double min_weight_fraction_leaf = 0;
  tree::MaxFeatures max_features = tree::MaxFeatures::all();  ///< that a node looks at
  std::int64_t max_leaf_nodes = 0;  ///< 0: no bound; else the best split of all leaves goes first
  double min_impurity_decrease = 0;
  ClassWeight class_weight = ClassWeight::none();  ///< classifiers only
  double ccp_alpha = 0;       ///< cost-complexity pruning: steps that cost at most so much
  std::int32_t max_bins = 0;  ///< 0: every distinct value may be a threshold; 2..255: so many codes
  int n_jobs = 0;             ///< threads; 0: the default number. No effect on results
};

namespace detail {

template <tree::Criterion C>
[[nodiscard]] ForestSettings settings_of(const DecisionTreeOptions<C>& o) {
  return {.tree = {.criterion = o.criterion,
                   .splitter = o.splitter,
                   .max_depth = o.max_depth,
                   .min_samples_split = o.min_samples_split,
                   .min_samples_leaf = o.min_samples_leaf,
                   .min_weight_fraction_leaf = o.min_weight_fraction_leaf,
                   .min_impurity_decrease = o.min_impurity_decrease,
                   .max_features = o.max_features,
                   .max_leaf_nodes = o.max_leaf_nodes,
                   .ccp_alpha = o.ccp_alpha},
          .n_estimators = 1,
          .class_weight = o.class_weight,
          .max_bins = o.max_bins,
          .threads = o.n_jobs,
          .progress = {}};
}

/// A fitted tree: as it was grown, and as it predicts.
template <class = void>
struct BasicFittedTree {
  tree::CompactForest forest;
  tree::Tree tree;
  std::vector<double> importances;

  void take(ForestResult result) {
    tree = tree::to_tree(result.last);
    forest = std::move(result.forest);
    importances = std::move(result.importances);
  }
  void save(ArchiveWriter& out) const {
    forest.save(out);
    out.array<double>("importances", importances);
  }
  void load(const ArchiveReader& in) {
    tree::CompactForest loaded;
    loaded.load(in);
    if (loaded.size() != 1)
      in.fail_section("node_sizes", "one tree", std::to_string(loaded.size()));
    const std::size_t nodes = loaded.compact_trees()[0].nodes.size();
    if (nodes * static_cast<std::size_t>(loaded.outputs()) > std::size_t{1} << 28)
      in.fail_section("node_sizes", "at most 2^28 values", std::to_string(nodes) + " nodes");
    importances = in.array<double>("importances", static_cast<std::size_t>(loaded.features()));
    forest = std::move(loaded);
    tree = forest.tree(0);
  }
};
/// (A template, so that a program compiles it only where it uses it.)
using FittedTree = BasicFittedTree<>;

}  // namespace detail

/// A tree that tells classes. Where nothing is drawn at random it is scikit-learn's tree, but that
/// of equally good splits the one on the first feature is taken.
template <class = void>
class BasicDecisionTreeClassifier {
 public:
  using Options = DecisionTreeOptions<tree::Criterion::gini>;

  explicit BasicDecisionTreeClassifier(Options options = {}) : options_(std::move(options)) {}

  /// As ForestClassifier::fit; the seed is for max_features and Splitter::random.
  void fit(Features x, std::span<const std::int32_t> y, std::int32_t classes,
           std::span<const float> weights = {}, std::uint64_t seed = 0) {
    fitted_.take(grow("fit", options_, x, y, classes, weights, seed));
  }
  /// The steps of pruning the whole tree, to choose a ccp_alpha from.
  [[nodiscard]] tree::PruningPath cost_complexity_pruning_path(Features x,
                                                               std::span<const std::int32_t> y,
                                                               std::int32_t classes,
                                                               std::span<const float> weights = {},
                                                               std::uint64_t seed = 0) const {
    Options whole = options_;
    whole.ccp_alpha = 0;
    return tree::pruning_path(
        grow("cost_complexity_pruning_path", whole, x, y, classes, weights, seed).last);
  }

  /// Each row's class: the most of its leaf's weight, the lowest on a tie. \p out: (rows).
  void predict(Features x, std::span<std::int32_t> out) const {
    NdArray<float, 2> scores({x.rows(), Index{classes()}});
    predict_proba(x, scores.view());
    most_likely(scores.view(), out);
  }
  /// Shares of the classes in the row's leaf. \p out: (rows, classes).
  void predict_proba(Features x, MatrixView<float> out) const {
    fitted_.forest.predict(x, out, options_.n_jobs);
  }

  [[nodiscard]] std::int32_t classes() const noexcept { return fitted_.forest.outputs(); }
  [[nodiscard]] std::int64_t features() const noexcept { return fitted_.forest.features(); }
  [[nodiscard]] const tree::CompactForest& forest() const noexcept { return fitted_.forest; }
  /// The tree; its leaves hold shares of the classes. (After loading, inner nodes' shares are the
  /// means of their leaves', and numbers that were not stored are rounded to floats.)
  [[nodiscard]] const tree::Tree& tree() const noexcept { return fitted_.tree; }
  /// (features): share of the decrease of impurity that is a feature's.
  [[nodiscard]] const std::vector<double>& feature_importances() const noexcept {
    return fitted_.importances;
  }
  [[nodiscard]] const Options& options() const noexcept { return options_; }

  [[nodiscard]] std::string_view kind() const noexcept {
    return "ensemble.decision_tree_classifier";
  }
  void save(ArchiveWriter& out) const { fitted_.save(out); }
  void load(const ArchiveReader& in) {
    detail::FittedTree loaded;
    loaded.load(in);
    fitted_ = std::move(loaded);
  }

 private:
  [[nodiscard]] static detail::ForestResult grow(const char* method, const Options& options,
                                                 Features x, std::span<const std::int32_t> y,
                                                 std::int32_t classes,
                                                 std::span<const float> weights,
                                                 std::uint64_t seed) {
    const std::string function = std::string("quern::ensemble::DecisionTreeClassifier::") + method;
    if (classes < 1) throw ValueError(error_text(function, "classes", "at least 1", classes));
    return detail::ForestFit(function, detail::settings_of(options), {x, {y, classes}, {}, weights},
                             seed)
        .run();
  }

  Options options_;
  detail::FittedTree fitted_;
};
/// (A template, so that a program compiles it only where it uses it.)
using DecisionTreeClassifier = BasicDecisionTreeClassifier<>;

/// A tree that tells numbers; as DecisionTreeClassifier otherwise.
template <class = void>
class BasicDecisionTreeRegressor {
 public:
  using Options = DecisionTreeOptions<tree::Criterion::squared_error>;

  explicit BasicDecisionTreeRegressor(Options options = {}) : options_(std::move(options)) {}

  void fit(Features x, std::span<const float> y, std::span<const float> weights = {},
           std::uint64_t seed = 0) {
    fitted_.take(grow("fit", options_, x, y, weights, seed));
  }
  [[nodiscard]] tree::PruningPath cost_complexity_pruning_path(Features x, std::span<const float> y,
                                                               std::span<const float> weights = {},
                                                               std::uint64_t seed = 0) const {
    Options whole = options_;
    whole.ccp_alpha = 0;
    return tree::pruning_path(
        grow("cost_complexity_pruning_path", whole, x, y, weights, seed).last);
  }

  /// The mean (absolute_error: median) of the row's leaf. \p out: (rows).
  void predict(Features x, std::span<float> out) const {
    expect_size("quern::ensemble::DecisionTreeRegressor::predict", "out",
                static_cast<Index>(out.size()), x.rows(), "(the rows)");
    fitted_.forest.predict(x, MatrixView<float>(out.data(), {x.rows(), 1}), options_.n_jobs);
  }

  [[nodiscard]] std::int64_t features() const noexcept { return fitted_.forest.features(); }
  [[nodiscard]] const tree::CompactForest& forest() const noexcept { return fitted_.forest; }
  [[nodiscard]] const tree::Tree& tree() const noexcept { return fitted_.tree; }
  [[nodiscard]] const std::vector<double>& feature_importances() const noexcept {
    return fitted_.importances;
  }
  [[nodiscard]] const Options& options() const noexcept { return options_; }

  [[nodiscard]] std::string_view kind() const noexcept {
    return "ensemble.decision_tree_regressor";
  }
  void save(ArchiveWriter& out) const { fitted_.save(out); }
  void load(const ArchiveReader& in) {
    detail::FittedTree loaded;
    loaded.load(in);
    if (loaded.forest.outputs() != 1)
      in.fail_section("outputs", "1", std::to_string(loaded.forest.outputs()));
    fitted_ = std::move(loaded);
  }

 private:
  [[nodiscard]] static detail::ForestResult grow(const char* method, const Options& options,
                                                 Features x, std::span<const float> y,
                                                 std::span<const float> weights,
                                                 std::uint64_t seed) {
    const std::string function = std::string("quern::ensemble::DecisionTreeRegressor::") + method;
    if (options.class_weight.kind() != ClassWeight::Kind::none)
      throw ValueError(error_text(function, "class_weight", "none for numbers", "another"));
    return detail::ForestFit(function, detail::settings_of(options), {x, {}, y, weights}, seed)
        .run();
  }

  Options options_;
  detail::FittedTree fitted_;
};
/// (A template, so that a program compiles it only where it uses it.)
using DecisionTreeRegressor = BasicDecisionTreeRegressor<>;

}  // namespace ensemble
QUERN_NAMESPACE_END

#endif  // QUERN_ENSEMBLE_DECISION_TREE_HPP
