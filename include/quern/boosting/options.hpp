// SPDX-License-Identifier: Apache-2.0

/// \file
/// Options of boosting, by the names that XGBoost's users know.

#ifndef QUERN_BOOSTING_OPTIONS_HPP
#define QUERN_BOOSTING_OPTIONS_HPP

#include "quern/boosting/objective.hpp"
#include "quern/boosting/objective_params.hpp"
#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/tree/grow.hpp"

#include <cstddef>
#include <cstdint>
#include <initializer_list>
#include <limits>
#include <memory>
#include <optional>
#include <string>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace boosting {

/// A number whose default follows the booster. Until it is given it reads as the default of trees;
/// Options::settled() puts in that of the booster.
class BoosterDefault {
 public:
  constexpr BoosterDefault(double value) noexcept  // NOLINT: to be written as a number
      : value_(value), linear_(value) {}
  constexpr BoosterDefault(double trees, double linear) noexcept : value_(trees), linear_(linear) {}

  constexpr operator double() const noexcept { return value_; }  // NOLINT: reads as one
  /// The default of gblinear, or what was given.
  [[nodiscard]] constexpr double linear() const noexcept { return linear_; }

 private:
  double value_, linear_;
};

/// What to learn and how. Defaults are XGBoost's, except max_bin 255 (its 256) so that a code is a
/// byte, missing values included.
struct Options {
  std::string objective = "reg:squarederror";  ///< one of objective_names: see
                                               ///< docs/boosting/objectives.md
  std::string booster = "gbtree";              ///< gbtree, dart or gblinear
  std::int32_t num_class = 0;  ///< classes of multi:*, 0: one more than the largest label; outputs
                               ///< of "custom", 0: 1
  double huber_slope = 1;      ///< where reg:pseudohubererror turns from squares to lines, > 0
  std::vector<double> quantile_alpha = {0.5};  ///< levels of reg:quantileerror in (0, 1), rising;
                                               ///< one output each, whose predictions never cross
  double tweedie_variance_power = 1.5;  ///< of reg:tweedie, between 1 (Poisson) and 2 (gamma)
  AftDistribution aft_loss_distribution = AftDistribution::normal;  ///< of survival:aft
  double aft_loss_distribution_scale = 1;                           ///< its scale, > 0
  LambdarankPairs lambdarank_pair_method = LambdarankPairs::topk;   ///< of rank:*
  std::int32_t lambdarank_num_pair_per_sample = 0;  ///< first ranks that topk pairs with all below
                                                    ///< them, or pairs a row; 0: 32, or 1
  bool lambdarank_normalization = true;             ///< scale each group's lambdas
  bool lambdarank_score_normalization = true;       ///< scale pairs by their difference of scores
  bool lambdarank_unbiased = false;  ///< rank:*: labels are clicks, the rows of a group lie as they
                                     ///< were shown: correct for their positions
  double lambdarank_bias_norm = 1;   ///< positions' biases are taken to the power 1 / (1 + this)
  bool ndcg_exp_gain = true;         ///< gain 2^relevance - 1, else the relevance
  CustomGradients custom_objective = {};          ///< of objective "custom"
  std::vector<CustomMetric> custom_metrics = {};  ///< reported after those of eval_metric
  std::vector<double> class_weight = {};  ///< (classes) factors of the weights of rows by label, in
                                          ///< training only; empty: all 1
  std::int32_t num_round = 100;           ///< rounds of boosting, one tree for each output
  BoosterDefault learning_rate = {0.3, 0.5};  ///< in (0, 1]; XGBoost's eta; of gblinear 0.5
  std::int32_t max_depth = 6;                 ///< longest path, 0: no limit
  std::int32_t max_leaves = 0;                ///< 0: no limit
  std::string tree_method = "hist";  ///< hist: histograms of at most max_bin bins; exact: every
                                     ///< boundary between values (depthwise, numeric features)
  tree::GrowPolicy grow_policy = tree::GrowPolicy::depthwise;
  double min_child_weight = 1;         ///< least sum of hessians in a child
  double gamma = 0;                    ///< least gain of a split (without the factor 1/2)
  BoosterDefault reg_lambda = {1, 0};  ///< L2 of leaf weights, or of linear ones (default 0)
  double reg_alpha = 0;                ///< L1 of the same
  double max_delta_step = 0;  ///< bound of |leaf weight|, 0: none; for count:poisson also what
                              ///< damps its hessian, and 0 means XGBoost's default 0.7
  int gradient_order = 2;     ///< 2: trees of Newton steps (XGBoost); 1: trees fitted to the
                              ///< negative gradients by least squares, then a line search in
                              ///< each leaf (Friedman, 2001)
  std::int32_t num_parallel_tree = 1;  ///< trees of a round and output, each on rows and columns
                                       ///< of its own; their mean is added (a forest a round)
  double subsample = 1;                ///< share of rows drawn for each tree, (0, 1]
  /// uniform; gradient_based: rows with large sqrt(g^2 + lambda h^2) are likelier, subsample is the
  /// expected share; goss: those with the largest |g h| and some of the others, see top_rate.
  std::string sampling_method = "uniform";
  double top_rate = 0.2;        ///< goss: share of the rows that are always kept
  double other_rate = 0.1;      ///< goss: share of the rows that is drawn from the others
  double colsample_bytree = 1;  ///< shares of features, (0, 1]; they multiply
  double colsample_bylevel = 1;
  double colsample_bynode = 1;
  std::int32_t max_cat_to_onehot = 4;   ///< fewer categories than this are tried one by one
  std::int32_t max_cat_threshold = 64;  ///< most categories in a split's set
  std::int32_t max_bin = 255;           ///< bins of a feature, 2..255
  std::vector<std::int8_t> monotone_constraints = {};  ///< by feature: -1, 0, +1; empty: none
  /// Groups of features that may meet on a path, as XGBoost reads them: below a path that tests the
  /// features P, a feature may be tested if it is in P or some group holds it and all of P.
  std::vector<std::vector<std::int32_t>> interaction_constraints = {};
  /// Leaves that are linear functions of the numeric features on their path, by ridge regression.
  bool linear_tree = false;
  double linear_lambda = 0;             ///< L2 of the coefficients in linear leaves; small leaves
                                        ///< and missing values want some
  double rate_drop = 0;                 ///< dart: share of the trees that a round drops, [0, 1]
  double skip_drop = 0;                 ///< dart: probability of a round that drops none, [0, 1]
  bool one_drop = false;                ///< dart: drop at least one tree
  std::string sample_type = "uniform";  ///< dart: uniform, or weighted by the trees' weights
  std::string normalize_type = "tree";  ///< dart: weight of new trees, tree or forest
  /// gblinear: cyclic, shuffle, random (with replacement), greedy (the longest step next) or
  /// thrifty (by the length of the steps as the round begins).
  std::string feature_selector = "cyclic";
  std::int32_t top_k = 0;                 ///< greedy, thrifty: most steps of a round and output,
                                          ///< 0: as many as XGBoost takes, features - 1
  double scale_pos_weight = 1;            ///< factor of the weights of positive rows (logistic)
  std::optional<double> base_score = {};  ///< prediction to start from; none: the best constant
  std::vector<std::string> eval_metric = {};  ///< names that make_metric() knows; empty: the
                                              ///< objective's own
  std::int32_t early_stopping_rounds = 0;  ///< stop after so many rounds in which the last metric
                                           ///< of the last evaluation set got no better; 0: never
  SoftmaxHessian softmax_hessian = SoftmaxHessian::doubled;
  tree::HistogramPrecision histogram_precision = tree::HistogramPrecision::automatic;
  std::uint64_t seed = 0;  ///< of row and column sampling
  int nthread = 0;         ///< 0: default_threads(); never changes results

  /// Throws ValueError that names the first option outside its range.
  void check(const std::string& function) const;
  /// The bound of |leaf weight|, 0: none.
  [[nodiscard]] double step_bound() const {
    return objective == "count:poisson" && max_delta_step == 0 ? 0.7 : max_delta_step;
  }
  /// What the objective and its metrics need to know of these.
  [[nodiscard]] ObjectiveParams objective_params() const;
  /// The objective, of \p outputs classes or margins.
  template <class = void>
  [[nodiscard]] std::unique_ptr<Objective> make_objective(std::int32_t outputs) const {
    if (objective == "custom") return std::make_unique<Custom>(outputs, custom_objective);
    return boosting::make_objective(objective, outputs, objective_params());
  }
  /// Whether rounds add trees, whose weights may change later (dart) or not, or linear steps.
  [[nodiscard]] bool is_dart() const { return booster == "dart"; }
  [[nodiscard]] bool is_linear() const { return booster == "gblinear"; }
  /// Whether trees are grown on codes.
  [[nodiscard]] bool is_binned() const { return !is_linear() && tree_method != "exact"; }
  /// These, with the booster's own defaults where nothing was given.
  [[nodiscard]] Options settled() const {
    Options o = *this;
    if (!is_linear()) return o;
    o.learning_rate = learning_rate.linear();
    o.reg_lambda = reg_lambda.linear();
    return o;
  }
  /// What a tree needs to know of these.
  [[nodiscard]] tree::GrowOptions grow() const;
};

namespace detail {

inline void expect_option(bool holds, const std::string& function, const char* name,
                          const char* expected, double got) {
  if (!holds) throw ValueError(error_text(function, name, expected, got));
}

inline void expect_choice(const std::string& function, const char* name, const std::string& got,
                          std::initializer_list<const char*> choices) {
  std::string expected;
  for (const char* choice : choices) {
    if (got == choice) return;
    expected += (expected.empty() ? "" : " or ") + std::string(choice);
  }
  throw ValueError(error_text(function, name, expected, "'" + got + "'"));
}

inline bool is_share(double x) { return x > 0 && x <= 1; }
inline bool is_nonnegative(double x) { return x >= 0 && x <= (std::numeric_limits<double>::max)(); }

/// What exact trees do not have.
inline void check_exact(const Options& o, const std::string& function) {
  expect_choice(function, "tree_method", o.tree_method, {"hist", "exact"});
  if (o.tree_method != "exact") return;
  expect_option(o.grow_policy == tree::GrowPolicy::depthwise, function, "grow_policy",
                "depthwise with tree_method exact", static_cast<double>(o.grow_policy));
  expect_option(o.max_leaves == 0, function, "max_leaves", "0 with tree_method exact",
                o.max_leaves);
}

/// The options of boosters, forests, samples and linear leaves.
inline void check_boosters(const Options& o, const std::string& function) {
  const auto rate = [&](const char* name, double x) {
    expect_option(x >= 0 && x <= 1, function, name, "0..1", x);
  };
  expect_choice(function, "booster", o.booster, {"gbtree", "dart", "gblinear"});
  expect_choice(function, "sampling_method", o.sampling_method,
                {"uniform", "gradient_based", "goss"});
  expect_choice(function, "sample_type", o.sample_type, {"uniform", "weighted"});
  expect_choice(function, "normalize_type", o.normalize_type, {"tree", "forest"});
  expect_choice(function, "feature_selector", o.feature_selector,
                {"cyclic", "shuffle", "random", "greedy", "thrifty"});
  expect_option(o.top_k >= 0, function, "top_k", ">= 0", o.top_k);
  expect_option(o.num_parallel_tree >= 1 && o.num_parallel_tree <= 65536, function,
                "num_parallel_tree", "1..65536", o.num_parallel_tree);
  rate("rate_drop", o.rate_drop);
  rate("skip_drop", o.skip_drop);
  rate("top_rate", o.top_rate);
  rate("other_rate", o.other_rate);
  if (o.sampling_method == "goss") {
    expect_option(o.top_rate + o.other_rate <= 1, function, "other_rate", "at most 1 - top_rate",
                  o.other_rate);
    expect_option(o.top_rate + o.other_rate > 0, function, "top_rate", "more than 0", o.top_rate);
    expect_option(o.subsample >= 1, function, "subsample", "1 beside goss", o.subsample);
  }
  expect_option(is_nonnegative(o.linear_lambda), function, "linear_lambda", "a finite number >= 0",
                o.linear_lambda);
  expect_option(!o.linear_tree || o.monotone_constraints.empty(), function, "linear_tree",
                "false beside monotone_constraints, which linear leaves would break", 1);
  const bool refits = o.gradient_order == 1 || o.objective == "reg:absoluteerror" ||
                      o.objective == "reg:quantileerror";
  expect_option(!o.linear_tree || !refits, function, "linear_tree",
                "false where leaves are set after growth (gradient_order 1, absolute and quantile "
                "losses)",
                1);
}

}  // namespace detail

inline ObjectiveParams Options::objective_params() const {
  ObjectiveParams p;
  p.softmax_hessian = softmax_hessian;
  p.scale_pos_weight = scale_pos_weight;
  p.huber_slope = huber_slope;
  if (objective == "reg:quantileerror") p.quantile_alpha = quantile_alpha;
  p.poisson_max_delta_step = objective == "count:poisson" ? step_bound() : 0.7;
  p.tweedie_variance_power = tweedie_variance_power;
  p.aft_loss_distribution = aft_loss_distribution;
  p.aft_loss_distribution_scale = aft_loss_distribution_scale;
  p.lambdarank_pair_method = lambdarank_pair_method;
  p.lambdarank_num_pair_per_sample = lambdarank_num_pair_per_sample;
  p.lambdarank_normalization = lambdarank_normalization;
  p.lambdarank_score_normalization = lambdarank_score_normalization;
  p.lambdarank_unbiased = lambdarank_unbiased;
  p.lambdarank_bias_norm = lambdarank_bias_norm;
  p.ndcg_exp_gain = ndcg_exp_gain;
  p.seed = seed;
  return p;
}

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
  if (max_depth == 0 && max_leaves == 0 && !is_linear())
    throw ValueError(error_text(function, "max_depth", "1..60, or max_leaves above 0 beside it",
                                "0, and max_leaves 0: trees without any limit"));
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
  expect_option(max_cat_to_onehot >= 1, function, "max_cat_to_onehot", ">= 1", max_cat_to_onehot);
  expect_option(max_cat_threshold >= 1, function, "max_cat_threshold", ">= 1", max_cat_threshold);
  for (const std::int8_t m : monotone_constraints)
    expect_option(m >= -1 && m <= 1, function, "monotone_constraints", "-1, 0 or 1", m);
  for (const auto& group : interaction_constraints) {
    expect_option(!group.empty(), function, "interaction_constraints", "no empty group", 0);
    for (const std::int32_t f : group)
      expect_option(f >= 0, function, "interaction_constraints", "numbers of features, >= 0", f);
  }
  nonnegative("scale_pos_weight", scale_pos_weight);
  nonnegative("lambdarank_bias_norm", lambdarank_bias_norm);
  for (std::size_t i = 0; i < quantile_alpha.size(); ++i) {
    const double a = quantile_alpha[i];
    expect_option(a > 0 && a < 1, function, "quantile_alpha", "levels above 0 and below 1", a);
    if (i > 0 && !(a > quantile_alpha[i - 1]))
      throw ValueError(error_text(
          function, "quantile_alpha",
          "a level above " + std::to_string(quantile_alpha[i - 1]) + ", as they rise", a));
  }
  expect_option(!quantile_alpha.empty(), function, "quantile_alpha", "at least one level", 0);
  for (const double w : class_weight) nonnegative("class_weight", w);
  expect_option(gradient_order == 1 || gradient_order == 2, function, "gradient_order", "1 or 2",
                gradient_order);
  if (base_score) {
    const bool finite = detail::is_nonnegative(*base_score < 0 ? -*base_score : *base_score);
    expect_option(finite && *base_score >= -1e30 && *base_score <= 1e30, function, "base_score",
                  "a number within 1e30 of 0", *base_score);
  }
  detail::check_exact(*this, function);
  detail::check_boosters(*this, function);
  expect_option(nthread >= 0 && nthread <= 1024, function, "nthread", "0..1024", nthread);
  expect_option(early_stopping_rounds >= 0, function, "early_stopping_rounds", ">= 0",
                early_stopping_rounds);
}

inline tree::GrowOptions Options::grow() const {
  tree::GrowOptions g;
  g.split = {reg_lambda, reg_alpha, gamma, min_child_weight, step_bound()};
  g.learning_rate = learning_rate;
  g.max_depth = max_depth;
  g.max_leaves = max_leaves;
  g.policy = grow_policy;
  g.precision = histogram_precision;
  g.columns = {colsample_bytree, colsample_bylevel, colsample_bynode};
  g.monotone = monotone_constraints;
  g.interaction = interaction_constraints;
  g.max_cat_to_onehot = max_cat_to_onehot;
  g.max_cat_threshold = max_cat_threshold;
  g.threads = nthread;
  return g;
}

}  // namespace boosting
QUERN_NAMESPACE_END

#endif  // QUERN_BOOSTING_OPTIONS_HPP
