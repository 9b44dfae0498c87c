// SPDX-License-Identifier: Apache-2.0

/// \file
/// Options of boosting, by the names that XGBoost's users know.

#ifndef QUERN_BOOSTING_OPTIONS_HPP
#define QUERN_BOOSTING_OPTIONS_HPP

#include "quern/boosting/objective.hpp"
#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/tree/grow.hpp"

#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace boosting {

/// What to learn and how. Defaults are XGBoost's, except max_bin 255 (its 256) so that a code is a
/// byte, missing values included.
struct Options {
  std::string objective = "reg:squarederror";  ///< also reg:logistic, binary:logistic,
                                               ///< multi:softmax, multi:softprob
  std::int32_t num_class = 0;    ///< classes of multi:*; 0: one more than the largest label
  std::int32_t num_round = 100;  ///< rounds of boosting, one tree for each output
  double learning_rate = 0.3;    ///< in (0, 1]; XGBoost's eta
  std::int32_t max_depth = 6;    ///< longest path, 0: no limit
  std::int32_t max_leaves = 0;   ///< 0: no limit
  tree::GrowPolicy grow_policy = tree::GrowPolicy::depthwise;
  double min_child_weight = 1;  ///< least sum of hessians in a child
  double gamma = 0;             ///< least gain of a split (without the factor 1/2)
  double reg_lambda = 1;        ///< L2 of leaf weights
  double reg_alpha = 0;         ///< L1 of leaf weights
  double max_delta_step = 0;    ///< bound of |leaf weight|, 0: none
  double subsample = 1;         ///< share of rows drawn for each tree, (0, 1]
  double colsample_bytree = 1;  ///< shares of features, (0, 1]; they multiply
  double colsample_bylevel = 1;
  double colsample_bynode = 1;
  std::int32_t max_bin = 255;                          ///< bins of a feature, 2..255
  std::vector<std::int8_t> monotone_constraints = {};  ///< by feature: -1, 0, +1; empty: none
  /// Groups of features that may meet on a path, as XGBoost reads them: below a path that tests the
  /// features P, a feature may be tested if it is in P or some group holds it and all of P.
  std::vector<std::vector<std::int32_t>> interaction_constraints = {};
  double scale_pos_weight = 1;                ///< factor of the weights of positive rows (logistic)
  std::optional<double> base_score = {};      ///< prediction to start from; none: the best constant
  std::vector<std::string> eval_metric = {};  ///< rmse, mae, logloss, error, auc, mlogloss, merror;
                                              ///< empty: the objective's own
  std::int32_t early_stopping_rounds = 0;  ///< stop after so many rounds in which the last metric
                                           ///< of the last evaluation set got no better; 0: never
  SoftmaxHessian softmax_hessian = SoftmaxHessian::doubled;
  tree::HistogramPrecision histogram_precision = tree::HistogramPrecision::automatic;
  std::uint64_t seed = 0;  ///< of row and column sampling
  int nthread = 0;         ///< 0: default_threads(); never changes results

  /// Throws ValueError that names the first option outside its range.
  void check(const std::string& function) const;
  /// What a tree needs to know of these.
  [[nodiscard]] tree::GrowOptions grow() const;
};

namespace detail {

inline void expect_option(bool holds, const std::string& function, const char* name,
                          const char* expected, double got) {
  if (!holds) throw ValueError(error_text(function, name, expected, got));
}

inline bool is_share(double x) { return x > 0 && x <= 1; }
inline bool is_nonnegative(double x) { return x >= 0 && x <= (std::numeric_limits<double>::max)(); }

}  // namespace detail

inline void Options::check(const std::string& function) const {
  using detail::expect_option;
  const auto share = [&](const char* name, double x) {
    expect_option(detail::is_share(x), function, name, "a share in (0, 1]", x);
  };
  const auto nonnegative = [&](const char* name, double x) {
    expect_option(detail::is_nonnegative(x), function, name, "a finite number >= 0", x);
  };
  expect_option(num_round >= 0, function, "num_round", ">= 0", num_round);
  expect_option(num_class >= 0, function, "num_class", ">= 0", num_class);
  share("learning_rate", learning_rate);
  expect_option(max_depth >= 0 && max_depth <= 60, function, "max_depth", "0..60", max_depth);
  expect_option(max_leaves >= 0, function, "max_leaves", ">= 0", max_leaves);
  expect_option(max_depth > 0 || max_leaves > 0, function, "max_depth",
                "a limit, or one by max_leaves", 0);
  expect_option(
      grow_policy != tree::GrowPolicy::symmetric || max_depth <= tree::symmetric_max_depth,
      function, "max_depth", "at most 16 with grow_policy symmetric", max_depth);
  nonnegative("min_child_weight", min_child_weight);
  nonnegative("gamma", gamma);
  nonnegative("reg_lambda", reg_lambda);
  nonnegative("reg_alpha", reg_alpha);
  nonnegative("max_delta_step", max_delta_step);
  share("subsample", subsample);
  share("colsample_bytree", colsample_bytree);
  share("colsample_bylevel", colsample_bylevel);
  share("colsample_bynode", colsample_bynode);
  expect_option(max_bin >= 2 && max_bin <= 255, function, "max_bin", "2..255", max_bin);
  for (const std::int8_t m : monotone_constraints)
    expect_option(m >= -1 && m <= 1, function, "monotone_constraints", "-1, 0 or 1", m);
  for (const auto& group : interaction_constraints) {
    expect_option(!group.empty(), function, "interaction_constraints", "no empty group", 0);
    for (const std::int32_t f : group)
      expect_option(f >= 0, function, "interaction_constraints", "numbers of features, >= 0", f);
  }
  nonnegative("scale_pos_weight", scale_pos_weight);
  if (base_score) {
    const bool finite = detail::is_nonnegative(*base_score < 0 ? -*base_score : *base_score);
    expect_option(finite && *base_score >= -1e30 && *base_score <= 1e30, function, "base_score",
                  "a number within 1e30 of 0", *base_score);
  }
  expect_option(nthread >= 0 && nthread <= 1024, function, "nthread", "0..1024", nthread);
  expect_option(early_stopping_rounds >= 0, function, "early_stopping_rounds", ">= 0",
                early_stopping_rounds);
}

inline tree::GrowOptions Options::grow() const {
  tree::GrowOptions g;
  g.split = {reg_lambda, reg_alpha, gamma, min_child_weight, max_delta_step};
  g.learning_rate = learning_rate;
  g.max_depth = max_depth;
  g.max_leaves = max_leaves;
  g.policy = grow_policy;
  g.precision = histogram_precision;
  g.columns = {colsample_bytree, colsample_bylevel, colsample_bynode};
  g.monotone = monotone_constraints;
  g.interaction = interaction_constraints;
  g.threads = nthread;
  return g;
}

}  // namespace boosting
QUERN_NAMESPACE_END

#endif  // QUERN_BOOSTING_OPTIONS_HPP
