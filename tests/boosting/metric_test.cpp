// SPDX-License-Identifier: Apache-2.0

#include "quern/boosting/metric.hpp"
#include "quern/core/random.hpp"

#include <gtest/gtest.h>

#include <cmath>
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
  EXPECT_THROW((void)boosting::make_metric("aucc", 1), ValueError);
  EXPECT_THROW((void)boosting::make_metric("auc", 3), ValueError);
  EXPECT_THROW((void)boosting::make_metric("merror", 1), ValueError);
}

}  // namespace
}  // namespace quern::test::metric
