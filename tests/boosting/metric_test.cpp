// SPDX-License-Identifier: Apache-2.0

#include "quern/boosting/metric.hpp"
#include "quern/core/random.hpp"
#include "reference.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>
#include <utility>
#include <vector>

namespace quern::test::metric {
namespace {

using boosting::Targets;

struct Rows {
  std::vector<float> p, y, w;
};

Rows random_rows(int n, bool ties) {
  Philox rng(4, "metric test");
  Rows r;
  for (int i = 0; i < n; ++i) {
    const float p = rng.uniform<float>();
    r.p.push_back(ties ? std::round(p * 8) / 8 : p);
    r.y.push_back(rng.bernoulli(0.4) ? 1.0f : 0.0f);
    r.w.push_back(rng.uniform<float>());
  }
  return r;
}

/// Area under the curve by counting all pairs.
double pairwise_auc(const Rows& r, bool weighted) {
  double wins = 0, pairs = 0;
  for (std::size_t i = 0; i < r.p.size(); ++i) {
    for (std::size_t j = 0; j < r.p.size(); ++j) {
      if (r.y[i] != 1.0f || r.y[j] != 0.0f) continue;
      const double w = weighted ? static_cast<double>(r.w[i]) * static_cast<double>(r.w[j]) : 1.0;
      pairs += w;
      wins += r.p[i] > r.p[j] ? w : r.p[i] == r.p[j] ? w / 2 : 0;
    }
  }
  return wins / pairs;
}

TEST(Metric, AucCountsPairsAndHalvesTies) {
  for (const bool ties : {false, true}) {
    const Rows r = random_rows(200, ties);
    EXPECT_NEAR(boosting::auc(r.p, 1, {r.y, {}}), pairwise_auc(r, false), 1e-12);
    EXPECT_NEAR(boosting::auc(r.p, 1, {r.y, r.w}), pairwise_auc(r, true), 1e-9);
  }
  EXPECT_TRUE(
      std::isnan(boosting::auc(std::vector<float>{0.5f}, 1, {std::vector<float>{1.0f}, {}})));
}

TEST(Metric, ByHand) {
  const std::vector<float> p = {0.9f, 0.2f, 0.6f}, y = {1, 0, 0}, w = {1, 2, 1};
  EXPECT_NEAR(boosting::error(p, 1, {y, {}}), 1.0 / 3, 1e-12);
  EXPECT_NEAR(boosting::error(p, 1, {y, w}), 0.25, 1e-12);
  EXPECT_NEAR(boosting::logloss(p, 1, {y, {}}),
              -(std::log(0.9) + std::log(0.8) + std::log(0.4)) / 3, 1e-6);
  EXPECT_NEAR(boosting::rmse(p, 1, {y, {}}), std::sqrt((0.01 + 0.04 + 0.36) / 3), 1e-6);
  EXPECT_NEAR(boosting::mae(p, 1, {y, w}), (0.1 + 0.4 + 0.6) / 4, 1e-6);
  const std::vector<float> rows = {0.7f, 0.2f, 0.1f, 0.3f, 0.3f, 0.4f}, classes = {0, 1};
  EXPECT_NEAR(boosting::merror(rows, 3, {classes, {}}), 0.5, 1e-12);
  EXPECT_NEAR(boosting::mlogloss(rows, 3, {classes, {}}), -(std::log(0.7) + std::log(0.3)) / 2,
              1e-6);
}

TEST(Metric, UnknownNamesAreRefused) {
  for (const char* name : {"aucc", "merror", "mlogloss", "ndcg@", "ndcg@0", "ndcg@1.5", "ndcg@x",
                           "rmse@2", "error@2", "tweedie-nloglik@3", "pre-", ""})
    EXPECT_THROW((void)boosting::make_metric(name, 1), ValueError) << name;
  for (const char* name : {"rmse", "ndcg", "error"})
    EXPECT_THROW((void)boosting::make_metric(name, 3), ValueError) << name;
}

/// The value of the reference, of the same predictions. "auc.w" is weighted.
void expect_reference(const ReferenceText& reference, const std::string& name,
                      const std::string& key, const boosting::ObjectiveParams& params,
                      bool grouped = false) {
  SCOPED_TRACE(key);
  const bool weighted = key.ends_with(".w");
  const std::vector<float> p = reference.floats(key + ".p"), y = reference.floats(key + ".y");
  const std::vector<float> w = reference.floats(grouped ? "group_weight" : "weight");
  const std::vector<std::int64_t> groups = reference.offsets("groups");
  Targets targets{y, {}};
  if (weighted) targets.weights = w;
  if (grouped) targets.group_offsets = groups;
  const auto outputs = static_cast<std::int32_t>(p.size() / y.size());
  const double value = boosting::make_metric(name, outputs, params).value(p, outputs, targets);
  const double expected = reference[key + ".value"][0];
  EXPECT_NEAR(value, expected, 2e-6 * (1 + std::fabs(expected)));
}

TEST(Metric, ValuesAreXgboosts) {
  const ReferenceText reference("metrics.txt");
  boosting::ObjectiveParams params;
  params.huber_slope = 0.8;
  params.quantile_alpha = {0.1, 0.5, 0.8};
  for (const std::string name :
       {"rmse", "mae", "mape", "rmsle", "mphe", "logloss", "error", "error@0.3", "auc", "aucpr",
        "poisson-nloglik", "tweedie-nloglik@1.3", "gamma-nloglik", "gamma-deviance", "quantile"}) {
    expect_reference(reference, name, name, params);
    expect_reference(reference, name, name + ".w", params);
  }
  for (const std::string name : {"mlogloss", "merror", "auc", "aucpr"}) {
    expect_reference(reference, name, "classes." + name, params);
    expect_reference(reference, name, "classes." + name + ".w", params);
  }
  expect_reference(reference, "cox-nloglik", "cox-nloglik", params);
  for (const std::string name :
       {"ndcg", "ndcg@3", "ndcg@5-", "map", "map@3", "map@3-", "pre@2", "pre"}) {
    expect_reference(reference, name, name, params, true);
    expect_reference(reference, name, name + ".w", params, true);
  }
}

TEST(Metric, ValuesAreScikitLearns) {
  const ReferenceText reference("metrics.txt");
  const std::vector<float> p = reference.floats("sklearn.p"), y = reference.floats("sklearn.y");
  const std::vector<float> w = reference.floats("sklearn.w");
  const Targets rows{y, {}}, weighted{y, w};
  const auto expected = [&](const char* name) {
    return reference[std::string("sklearn.") + name][0];
  };
  boosting::ObjectiveParams params;
  params.quantile_alpha = {0.8};
  EXPECT_NEAR(boosting::auc(p, 1, rows), expected("auc"), 1e-9);
  EXPECT_NEAR(boosting::auc(p, 1, weighted), expected("auc_w"), 1e-7);
  EXPECT_NEAR(boosting::logloss(p, 1, rows), expected("logloss"), 1e-6);
  EXPECT_NEAR(boosting::average_precision(p, 1, rows), expected("aucpr_sklearn_ap"), 1e-9);
  EXPECT_NEAR(boosting::make_metric("quantile", 1, params).value(p, 1, rows),
              expected("pinball_08"), 1e-7);
}

TEST(Metric, OfSurvivalTimesWithBoundsIsXgboosts) {
  const ReferenceText reference("objectives.txt");
  boosting::ObjectiveParams params;
  for (const auto& [name, kind] : {std::pair("normal", boosting::AftDistribution::normal),
                                   std::pair("logistic", boosting::AftDistribution::logistic),
                                   std::pair("extreme", boosting::AftDistribution::extreme)}) {
    const std::string key = std::string("survival:aft.") + name;
    params.aft_loss_distribution = kind;
    std::vector<float> p = reference.floats(key + ".margin");
    for (float& v : p) v = std::exp(v);
    const std::vector<float> lower = reference.floats(key + ".lower");
    std::vector<float> upper = reference.floats(key + ".upper");
    for (float& u : upper) u = u < 0 ? std::numeric_limits<float>::infinity() : u;
    EXPECT_NEAR(
        boosting::make_metric("aft-nloglik", 1, params).value(p, 1, {lower, {}, {}, lower, upper}),
        reference[key + ".metric"][0], 1e-5);
  }
}

TEST(Metric, OfGroupsIsTheMeanOverThem) {
  const std::vector<float> p = {0.9f, 0.1f, 0.5f, 0.2f, 0.8f}, y = {1, 0, 0, 0, 1};
  const std::vector<std::int64_t> groups = {0, 2, 3, 5};  // the second has one kind of row only
  EXPECT_NEAR(boosting::auc(p, 1, {y, {}, groups}), 1, 1e-12);
  const std::vector<float> w = {1, 1, 1, 3, 3}, q = {0.9f, 0.1f, 0.5f, 0.9f, 0.8f};
  EXPECT_NEAR(boosting::auc(q, 1, {y, w, groups}), 0.25, 1e-12);
  EXPECT_TRUE(std::isnan(boosting::ndcg({}, {})));
}

TEST(Metric, CustomOnesSeeWholeColumns) {
  boosting::CustomMetric mine{
      .name = "weighted bias",
      .value =
          [](const auto& p, const auto& y, const auto& w) {
            return static_cast<double>((w * (p.col(0) - y)).sum() / w.sum());
          },
      .larger_is_better = false};
  const boosting::EvalMetric m = boosting::metric_of(mine);
  const std::vector<float> p = {1, 2, 3}, y = {1, 1, 1}, w = {1, 1, 2};
  EXPECT_NEAR(m.value(p, 1, {y, {}}), 1, 1e-6);
  EXPECT_NEAR(m.value(p, 1, {y, w}), 1.25, 1e-6);
  EXPECT_THROW((void)boosting::metric_of({}), ValueError);
}

}  // namespace
}  // namespace quern::test::metric
