// SPDX-License-Identifier: Apache-2.0

/// \file
/// Forests of CART trees: what random forests (random_forest.hpp) and extremely randomised trees
/// (extra_trees.hpp) share. They differ in their defaults alone.

#ifndef QUERN_ENSEMBLE_FOREST_HPP
#define QUERN_ENSEMBLE_FOREST_HPP

#include "quern/core/archive.hpp"
#include "quern/core/checks.hpp"
#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/core/nd_array.hpp"
#include "quern/core/progress.hpp"
#include "quern/ensemble/class_weight.hpp"
#include "quern/ensemble/detail/forest_fit.hpp"
#include "quern/ensemble/learner.hpp"
#include "quern/tree/cart_options.hpp"
#include "quern/tree/compact_forest.hpp"
#include "quern/tree/tree.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace ensemble {

/// Options of a forest; names are scikit-learn's. \p Defaults: criterion, max_features, bootstrap,
/// splitter and the learner's name.
template <class Defaults>
struct ForestOptions {
  std::int32_t n_estimators = 100;  ///< trees
  tree::Criterion criterion = Defaults::criterion;
  std::int32_t max_depth = 0;          ///< 0: until leaves are pure
  std::int64_t min_samples_split = 2;  ///< rows that a node needs to be split
  std::int64_t min_samples_leaf = 1;   ///< rows that each child needs
  double min_weight_fraction_leaf = 0;
  tree::MaxFeatures max_features = Defaults::max_features();  ///< that a node looks at
  std::int64_t max_leaf_nodes = 0;                            ///< 0: no bound
  double min_impurity_decrease = 0;
  double ccp_alpha = 0;
  bool bootstrap = Defaults::bootstrap;  ///< each tree learns from rows drawn with replacement
  double max_samples = 1;                ///< share of the rows that are drawn
  bool oob_score = false;  ///< predict each row by the trees that did not learn from it
  ClassWeight class_weight = ClassWeight::none();  ///< classifiers only
  std::int32_t max_bins = 0;  ///< 0: every distinct value may be a threshold; 2..255: so many codes
  int n_jobs = 0;             ///< threads; 0: the default number. No effect on results
  ProgressCallback progress = {};  ///< told after every few trees; may cancel (Cancelled)
};

namespace detail {

template <class Defaults>
[[nodiscard]] ForestSettings settings_of(const ForestOptions<Defaults>& o) {
  return {.tree = {.criterion = o.criterion,
                   .splitter = Defaults::splitter,
                   .max_depth = o.max_depth,
                   .min_samples_split = o.min_samples_split,
                   .min_samples_leaf = o.min_samples_leaf,
                   .min_weight_fraction_leaf = o.min_weight_fraction_leaf,
                   .min_impurity_decrease = o.min_impurity_decrease,
                   .max_features = o.max_features,
                   .max_leaf_nodes = o.max_leaf_nodes,
                   .ccp_alpha = o.ccp_alpha},
          .n_estimators = o.n_estimators,
          .bootstrap = o.bootstrap,
          .oob_score = o.oob_score,
          .max_samples = o.max_samples,
          .class_weight = o.class_weight,
          .max_bins = o.max_bins,
          .threads = o.n_jobs,
          .progress = o.progress};
}

inline void save_importances(ArchiveWriter& out, const tree::CompactForest& forest,
                             const std::vector<double>& importances) {
  forest.save(out);
  out.array<double>("importances", importances);
}
[[nodiscard]] inline std::vector<double> load_importances(const ArchiveReader& in,
                                                          const tree::CompactForest& forest) {
  return in.array<double>("importances", static_cast<std::size_t>(forest.features()));
}

}  // namespace detail

/// A forest that tells classes: the mean of its trees' class fractions. Const methods are
/// thread-safe. fit() and predict() are what ensemble/learner.hpp wants of a classifier.
template <class Defaults>
class ForestClassifier {
 public:
  using Options = ForestOptions<Defaults>;

  explicit ForestClassifier(Options options = {}) : options_(std::move(options)) {}

  /// Learns from \p x (rows, features; NaN is missing), codes 0..classes-1 and weights (rows, >= 0,
  /// or empty). The same seed gives the same forest for any number of threads. A row of weight 0
  /// counts as none. Errors (ShapeError, ValueError, Cancelled) leave the learner as it was.
  void fit(Features x, std::span<const std::int32_t> y, std::int32_t classes,
           std::span<const float> weights = {}, std::uint64_t seed = 0) {
    const std::string function = std::string("quern::ensemble::") + Defaults::classifier + "::fit";
    if (classes < 1) throw ValueError(error_text(function, "classes", "at least 1", classes));
    detail::ForestResult result = detail::ForestFit(function, detail::settings_of(options_),
                                                    {x, {y, classes}, {}, weights}, seed)
                                      .run();
    score_left_out(result, y, weights);
    forest_ = std::move(result.forest);
    importances_ = std::move(result.importances);
  }

  /// Each row's class: the one with the highest mean, the lowest on a tie. \p out: (rows).
  void predict(Features x, std::span<std::int32_t> out) const {
    NdArray<float, 2> scores({x.rows(), Index{classes()}});
    predict_proba(x, scores.view());
    most_likely(scores.view(), out);
  }
  /// \p out: (rows, classes).
  void predict_proba(Features x, MatrixView<float> out) const {
    forest_.predict(x, out, options_.n_jobs);
  }
  /// out(r, t) = the node of tree(t) that row r reaches.
  void apply(Features x, MatrixView<std::int32_t> out) const {
    forest_.apply(x, out, options_.n_jobs);
  }

  [[nodiscard]] std::int32_t classes() const noexcept { return forest_.outputs(); }
  [[nodiscard]] std::int64_t features() const noexcept { return forest_.features(); }
  [[nodiscard]] std::int64_t size() const noexcept { return forest_.size(); }
  [[nodiscard]] const tree::CompactForest& forest() const noexcept { return forest_; }
  /// Tree \p t with the class fractions of all its nodes, for whatever works on trees.
  [[nodiscard]] tree::Tree tree(std::int64_t t) const { return forest_.tree(t); }
  /// (features): share of the decrease of impurity that is a feature's, the mean over the trees.
  [[nodiscard]] const std::vector<double>& feature_importances() const noexcept {
    return importances_;
  }
  /// With Options::oob_score: weighted share of the rows whose class the trees that did not learn
  /// from them tell; rows that every tree learnt from do not count, nor do those of weight 0.
  [[nodiscard]] double oob_score() const noexcept { return oob_score_; }
  /// (rows, classes), NaN in rows that every tree learnt from.
  [[nodiscard]] const std::vector<double>& oob_decision_function() const noexcept { return oob_; }
  [[nodiscard]] const Options& options() const noexcept { return options_; }

  [[nodiscard]] std::string_view kind() const noexcept { return Defaults::classifier_kind; }
  void save(ArchiveWriter& out) const { detail::save_importances(out, forest_, importances_); }
  void load(const ArchiveReader& in) {
    tree::CompactForest forest;
    forest.load(in);
    importances_ = detail::load_importances(in, forest);
    forest_ = std::move(forest);
  }

 private:
  void score_left_out(detail::ForestResult& result, std::span<const std::int32_t> y,
                      std::span<const float> weights) {
    oob_ = std::move(result.oob);
    double right = 0, known = 0;
    const std::size_t k = y.empty() ? 0 : oob_.size() / y.size();
    for (std::size_t r = 0; r < result.oob_known.size(); ++r) {
      const auto begin = oob_.begin() + static_cast<std::ptrdiff_t>(r * k);
      const auto end = begin + static_cast<std::ptrdiff_t>(k);
      if (result.oob_known[r] == 0) {
        std::fill(begin, end, (std::numeric_limits<double>::quiet_NaN)());
        continue;
      }
      const double w = detail::weight_of(weights, r);
      known += w;
      right += std::max_element(begin, end) - begin == y[r] ? w : 0;
    }
    oob_score_ = known > 0 ? right / known : 0;
  }

  Options options_;
  tree::CompactForest forest_;
  std::vector<double> importances_;
  std::vector<double> oob_;
  double oob_score_ = 0;
};

/// A forest that tells numbers: the mean of its trees' leaves. As ForestClassifier otherwise.
template <class Defaults>
class ForestRegressor {
 public:
  using Options = ForestOptions<Defaults>;

  explicit ForestRegressor(Options options = {}) : options_(std::move(options)) {}

  /// \p y: (rows) finite numbers. See ForestClassifier::fit.
  void fit(Features x, std::span<const float> y, std::span<const float> weights = {},
           std::uint64_t seed = 0) {
    const std::string function = std::string("quern::ensemble::") + Defaults::regressor + "::fit";
    if (options_.class_weight.kind() != ClassWeight::Kind::none)
      throw ValueError(error_text(function, "class_weight", "none for numbers", "another"));
    detail::ForestResult result =
        detail::ForestFit(function, detail::settings_of(options_), {x, {}, y, weights}, seed).run();
    score_left_out(result, y, weights);
    forest_ = std::move(result.forest);
    importances_ = std::move(result.importances);
  }

  /// \p out: (rows).
  void predict(Features x, std::span<float> out) const {
    expect_size("quern::ensemble::ForestRegressor::predict", "out", static_cast<Index>(out.size()),
                x.rows(), "(the rows)");
    forest_.predict(x, MatrixView<float>(out.data(), {x.rows(), 1}), options_.n_jobs);
  }
  void apply(Features x, MatrixView<std::int32_t> out) const {
    forest_.apply(x, out, options_.n_jobs);
  }

  [[nodiscard]] std::int64_t features() const noexcept { return forest_.features(); }
  [[nodiscard]] std::int64_t size() const noexcept { return forest_.size(); }
  [[nodiscard]] const tree::CompactForest& forest() const noexcept { return forest_; }
  [[nodiscard]] tree::Tree tree(std::int64_t t) const { return forest_.tree(t); }
  [[nodiscard]] const std::vector<double>& feature_importances() const noexcept {
    return importances_;
  }
  /// With Options::oob_score: the weighted coefficient of determination R^2 of oob_prediction().
  [[nodiscard]] double oob_score() const noexcept { return oob_score_; }
  /// (rows), NaN for rows that every tree learnt from.
  [[nodiscard]] const std::vector<double>& oob_prediction() const noexcept { return oob_; }
  [[nodiscard]] const Options& options() const noexcept { return options_; }

  [[nodiscard]] std::string_view kind() const noexcept { return Defaults::regressor_kind; }
  void save(ArchiveWriter& out) const { detail::save_importances(out, forest_, importances_); }
  void load(const ArchiveReader& in) {
    tree::CompactForest forest;
    forest.load(in);
    if (forest.outputs() != 1) in.fail_section("outputs", "1", std::to_string(forest.outputs()));
    importances_ = detail::load_importances(in, forest);
    forest_ = std::move(forest);
  }

 private:
  void score_left_out(detail::ForestResult& result, std::span<const float> y,
                      std::span<const float> weights) {
    oob_ = std::move(result.oob);
    double sum = 0, known = 0;
    for (std::size_t r = 0; r < oob_.size(); ++r) {
      if (result.oob_known[r] == 0) continue;
      sum += detail::weight_of(weights, r) * static_cast<double>(y[r]);
      known += detail::weight_of(weights, r);
    }
    double error = 0, spread = 0;
    for (std::size_t r = 0; r < oob_.size(); ++r) {
      if (result.oob_known[r] == 0) {
        oob_[r] = (std::numeric_limits<double>::quiet_NaN)();
        continue;
      }
      const double d = static_cast<double>(y[r]) - oob_[r];
      const double m = static_cast<double>(y[r]) - sum / known;
      error += detail::weight_of(weights, r) * d * d;
      spread += detail::weight_of(weights, r) * m * m;
    }
    oob_score_ = spread > 0 ? 1 - error / spread : 0;
  }

  Options options_;
  tree::CompactForest forest_;
  std::vector<double> importances_;
  std::vector<double> oob_;
  double oob_score_ = 0;
};

}  // namespace ensemble
QUERN_NAMESPACE_END

#endif  // QUERN_ENSEMBLE_FOREST_HPP
