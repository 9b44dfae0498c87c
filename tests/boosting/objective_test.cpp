// SPDX-License-Identifier: Apache-2.0

#include "quern/boosting/objective.hpp"
#include "quern/core/random.hpp"
#include "reference.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <memory>
#include <string>
#include <vector>

namespace quern::test::objective {
namespace {

using boosting::AftDistribution;
using boosting::make_objective;
using boosting::ObjectiveParams;
using boosting::Targets;

using Pairs = std::vector<tree::GradientPair>;

Pairs all_gradients(const boosting::Objective& objective, const std::vector<float>& margins,
                    const Targets& targets, int threads = 1) {
  Pairs out(margins.size());
  objective.all_gradients(margins.data(), targets, 0, out.data(), threads);
  return out;
}

/// Loss of one row, in double, from its definition.
struct Loss {
  std::string name;
  std::function<double(const std::vector<double>& margin, double y)> value;
  std::function<float(Philox&)> label;
  double h_factor = 1;  ///< of the second derivative that the objective reports
  bool has_h = true;    ///< whether it reports the loss's own
  std::int32_t outputs = 1;
};

std::vector<Loss> losses() {
  const auto real = [](Philox& r) { return 2 * r.normal<float>(); };
  const auto positive = [](Philox& r) { return std::exp(r.normal<float>()); };
  const auto count = [](Philox& r) { return static_cast<float>(r.integer(6)); };
  const auto binary = [](Philox& r) { return r.bernoulli(0.5) ? 1.0f : 0.0f; };
  const auto one_of_four = [](Philox& r) { return static_cast<float>(r.integer(4)); };
  using M = const std::vector<double>&;
  const auto logistic = [](M m, double y) { return std::log1p(std::exp(m[0])) - y * m[0]; };
  const auto ova = [](M m, double y) {
    double sum = 0;
    for (std::size_t k = 0; k < m.size(); ++k)
      sum += std::log1p(std::exp(m[k])) - (static_cast<double>(k) == y ? m[k] : 0);
    return sum;
  };
  const auto softmax = [](M m, double y) {
    double sum = 0;
    for (const double v : m) sum += std::exp(v);
    return std::log(sum) - m[static_cast<std::size_t>(y)];
  };
  return {
      {"reg:squarederror", [](M m, double y) { return (m[0] - y) * (m[0] - y) / 2; }, real},
      {"reg:absoluteerror", [](M m, double y) { return std::fabs(m[0] - y); }, real, 1, false},
      {"reg:quantileerror",
       [](M m, double y) {
         double sum = 0;
         for (std::size_t k = 0; k < 3; ++k) {
           const double a = 0.25 * static_cast<double>(k + 1), e = y - m[k];
           sum += e >= 0 ? a * e : (a - 1) * e;
         }
         return sum;
       },
       real, 1, false, 3},
      {"reg:pseudohubererror",
       [](M m, double y) { return 0.64 * (std::sqrt(1 + (m[0] - y) * (m[0] - y) / 0.64) - 1); },
       real},
      {"count:poisson", [](M m, double y) { return std::exp(m[0]) - y * m[0]; }, count,
       std::exp(0.7)},
      {"reg:gamma", [](M m, double y) { return y * std::exp(-m[0]) + m[0]; }, positive},
      {"reg:tweedie",
       [](M m, double y) { return std::exp(0.7 * m[0]) / 0.7 + y * std::exp(-0.3 * m[0]) / 0.3; },
       count},
      {"reg:logistic", logistic, binary},
      {"binary:logistic", logistic, binary},
      {"binary:logitraw", logistic, binary},
      {"binary:hinge", [](M m, double y) { return (std::max)(0.0, 1 - m[0] * (2 * y - 1)); },
       binary, 1, false},
      {"multi:softprob", softmax, one_of_four, 1, true, 4},
      {"multi:softmax", softmax, one_of_four, 1, true, 4},
      {"multi:ova", ova, one_of_four, 1, true, 4},
  };
}

ObjectiveParams test_params() {
  ObjectiveParams params;
  params.softmax_hessian = boosting::SoftmaxHessian::exact;
  params.huber_slope = 0.8;
  params.tweedie_variance_power = 1.3;
  params.quantile_alpha = {};
  return params;
}

void expect_derivatives(const Loss& loss, std::int64_t rows) {
  const auto objective = make_objective(loss.name, loss.outputs, test_params());
  ASSERT_EQ(objective->outputs(), loss.outputs) << loss.name;
  Philox rng(static_cast<std::uint64_t>(rows), "objective test");
  std::vector<float> margins, labels, weights;
  for (std::int64_t i = 0; i < rows; ++i) {
    for (int k = 0; k < loss.outputs; ++k) margins.push_back(rng.normal<float>());
    labels.push_back(loss.label(rng));
    weights.push_back(0.5f + rng.uniform<float>());
  }
  const Targets targets{labels, weights};
  objective->check(targets);
  const Pairs out = all_gradients(*objective, margins, targets);
  for (std::int64_t i = 0; i < rows; ++i) {
    std::vector<double> at(margins.begin() + i * loss.outputs,
                           margins.begin() + (i + 1) * loss.outputs);
    const auto y = static_cast<double>(labels[static_cast<std::size_t>(i)]);
    const auto w = static_cast<double>(weights[static_cast<std::size_t>(i)]);
    for (std::int32_t k = 0; k < loss.outputs; ++k) {
      const auto c = static_cast<std::size_t>(k);
      const double eps = 1e-4, middle = loss.value(at, y);
      at[c] += eps;
      const double above = loss.value(at, y);
      at[c] -= 2 * eps;
      const double below = loss.value(at, y);
      at[c] += eps;
      const tree::GradientPair p = out[static_cast<std::size_t>(k * rows + i)];
      const double g = w * (above - below) / (2 * eps);
      const double h = loss.h_factor * w * (above - 2 * middle + below) / (eps * eps);
      EXPECT_NEAR(p.g, g, 3e-6 * (1 + std::fabs(g))) << loss.name << " row " << i;
      if (loss.has_h) {
        EXPECT_NEAR(p.h, h, 2e-5 * (1 + std::fabs(h))) << loss.name << " row " << i;
      }
    }
  }
}

TEST(Objective, GradientsAreThoseOfTheLoss) {
  for (const Loss& loss : losses()) {
    for (const std::int64_t rows : {1, 7, 16, 33}) expect_derivatives(loss, rows);
  }
}

TEST(Objective, BlocksAndThreadsDoNotChangeABit) {
  for (const Loss& loss : losses()) {
    const std::int64_t rows = 9001;
    Philox rng(3, "objective blocks");
    std::vector<float> margins, labels;
    for (std::int64_t i = 0; i < rows; ++i) {
      for (int k = 0; k < loss.outputs; ++k) margins.push_back(rng.normal<float>());
      labels.push_back(loss.label(rng));
    }
    const auto objective = make_objective(loss.name, loss.outputs, test_params());
    const Targets targets{labels, {}};
    const Pairs one = all_gradients(*objective, margins, targets, 1);
    for (const int threads : {2, 3}) {
      const Pairs other = all_gradients(*objective, margins, targets, threads);
      for (std::size_t i = 0; i < one.size(); ++i) {
        ASSERT_EQ(one[i].g, other[i].g) << loss.name;
        ASSERT_EQ(one[i].h, other[i].h) << loss.name;
      }
    }
  }
}

/// Objective and case, as the keys of objectives.txt have them: "rank:ndcg.top2".
void expect_reference(const ReferenceText& reference, const std::string& key,
                      const ObjectiveParams& params, double tolerance = 3e-6) {
  SCOPED_TRACE(key);
  const std::string name = key.substr(0, key.find('.'));
  const auto objective = make_objective(name, name.starts_with("multi:") ? 3 : 1, params);
  const std::vector<float> margins = reference.floats(key + ".margin");
  const std::vector<float> labels = reference.floats(key + ".label");
  std::vector<float> weights;
  if (reference.has(key + ".weight")) weights = reference.floats(key + ".weight");
  std::vector<std::int64_t> groups;
  if (reference.has(key + ".group")) groups = reference.offsets(key + ".group");
  const Targets targets{labels, weights, groups};
  objective->check(targets);
  const Pairs out = all_gradients(*objective, margins, targets);
  const std::vector<double>&g = reference[key + ".g"], &h = reference[key + ".h"];
  for (std::size_t i = 0; i < out.size(); ++i) {
    if (g[i] == 1e30) continue;  // not to be had
    EXPECT_NEAR(out[i].g, g[i], tolerance * (1 + std::fabs(g[i]))) << i;
    EXPECT_NEAR(out[i].h, h[i], tolerance * (1 + std::fabs(h[i]))) << i;
  }
}

TEST(Objective, GradientsAreXgboosts) {
  const ReferenceText reference("objectives.txt");
  ObjectiveParams params;
  params.huber_slope = 0.8;
  params.scale_pos_weight = 1;
  params.tweedie_variance_power = 1.3;
  for (const char* name : {"reg:squarederror", "reg:squaredlogerror", "reg:pseudohubererror",
                           "reg:logistic", "binary:logitraw", "binary:hinge", "count:poisson",
                           "reg:gamma", "reg:tweedie", "multi:softprob", "survival:cox"}) {
    for (const char* weighted : {"", ".w"})
      expect_reference(reference, std::string(name) + weighted, params);
  }
  params.scale_pos_weight = 1.5;
  expect_reference(reference, "binary:logistic", params);
  expect_reference(reference, "binary:logistic.w", params);
}

TEST(Objective, LambdasAreXgboosts) {
  const ReferenceText reference("objectives.txt");
  for (const std::string name : {"rank:pairwise", "rank:ndcg", "rank:map"}) {
    ObjectiveParams params;
    for (const char* key : {"", ".w", ".tied"}) expect_reference(reference, name + key, params);
    params.lambdarank_num_pair_per_sample = 2;
    expect_reference(reference, name + ".top2", params);
    params = {};
    params.lambdarank_normalization = params.lambdarank_score_normalization = false;
    expect_reference(reference, name + ".plain", params);
  }
}

TEST(Objective, SurvivalTimesWithBoundsAreXgboosts) {
  const ReferenceText reference("objectives.txt");
  const std::pair<const char*, AftDistribution> kinds[] = {{"normal", AftDistribution::normal},
                                                           {"logistic", AftDistribution::logistic},
                                                           {"extreme", AftDistribution::extreme}};
  for (const auto& [name, kind] : kinds) {
    SCOPED_TRACE(name);
    const std::string key = std::string("survival:aft.") + name;
    ObjectiveParams params;
    params.aft_loss_distribution = kind;
    params.aft_loss_distribution_scale = 1.2;
    const auto objective = make_objective("survival:aft", 1, params);
    const std::vector<float> margins = reference.floats(key + ".margin");
    const std::vector<float> lower = reference.floats(key + ".lower");
    std::vector<float> upper = reference.floats(key + ".upper");
    for (float& u : upper) u = u < 0 ? std::numeric_limits<float>::infinity() : u;
    const Targets targets{lower, {}, {}, lower, upper};
    objective->check(targets);
    const Pairs out = all_gradients(*objective, margins, targets);
    for (std::size_t i = 0; i < out.size(); ++i) {
      EXPECT_NEAR(out[i].g, reference[key + ".g"][i], 1e-5) << i;
      EXPECT_NEAR(out[i].h, reference[key + ".h"][i], 1e-5) << i;
    }
  }
}

TEST(Objective, DrawnPairsOfRankingFollowTheSeedAndTheRound) {
  ObjectiveParams params;
  params.lambdarank_pair_method = boosting::LambdarankPairs::mean;
  const auto objective = make_objective("rank:ndcg", 1, params);
  Philox rng(5, "rank test");
  std::vector<float> margins, labels;
  for (int i = 0; i < 300; ++i) {
    margins.push_back(rng.normal<float>());
    labels.push_back(static_cast<float>(rng.integer(4)));
  }
  const std::vector<std::int64_t> groups = {0, 100, 100, 130, 300};
  const Targets targets{labels, {}, groups};
  const Pairs one = all_gradients(*objective, margins, targets, 1);
  double sum = 0;
  for (const tree::GradientPair& p : one) sum += static_cast<double>(p.g);
  EXPECT_NEAR(sum, 0, 1e-5);  // pairs push and pull alike
  for (const int threads : {2, 3}) {
    const Pairs other = all_gradients(*objective, margins, targets, threads);
    for (std::size_t i = 0; i < one.size(); ++i) ASSERT_EQ(one[i].g, other[i].g);
  }
  Pairs later(margins.size());
  objective->all_gradients(margins.data(), targets, 1, later.data(), 1);
  EXPECT_FALSE(
      std::equal(one.begin(), one.end(), later.begin(), [](auto a, auto b) { return a.g == b.g; }));
}

TEST(Objective, SoftmaxHessianIsDoubledByDefault) {
  const std::vector<float> margins = {0.1f, 0.7f, -0.3f}, labels = {1};
  Pairs doubled(3), exact(3);
  make_objective("multi:softprob", 3)
      ->gradients(margins.data(), {labels, {}}, 0, 1, doubled.data());
  ObjectiveParams params;
  params.softmax_hessian = boosting::SoftmaxHessian::exact;
  make_objective("multi:softprob", 3, params)
      ->gradients(margins.data(), {labels, {}}, 0, 1, exact.data());
  Pairs friedman(3);  // K / (K - 1) times the exact one
  params.softmax_hessian = boosting::SoftmaxHessian::friedman;
  make_objective("multi:softprob", 3, params)
      ->gradients(margins.data(), {labels, {}}, 0, 1, friedman.data());
  for (std::size_t k = 0; k < 3; ++k) {
    EXPECT_FLOAT_EQ(doubled[k].h, 2 * exact[k].h);
    EXPECT_FLOAT_EQ(friedman[k].h, 1.5f * exact[k].h);
  }
}

TEST(Objective, StartsWhereTheMeanGradientVanishes) {
  const std::vector<float> weights = {1, 2, 3, 4, 5, 6};
  for (const std::string name :
       {"reg:squarederror", "reg:squaredlogerror", "reg:pseudohubererror", "count:poisson",
        "reg:gamma", "reg:tweedie", "binary:logistic", "binary:logitraw", "multi:softprob",
        "multi:ova", "survival:aft"}) {
    const std::int32_t outputs = name.starts_with("multi:") ? 3 : 1;
    std::vector<float> labels = {1, 2, 3, 0.5f, 1, 2};
    if (name.starts_with("binary:")) labels = {0, 1, 1, 0, 1, 1};
    if (outputs == 3) labels = {0, 1, 2, 2, 1, 1};
    const auto objective = make_objective(name, outputs);
    const std::vector<double> start = objective->start({labels, weights});
    ASSERT_EQ(start.size(), static_cast<std::size_t>(outputs));
    std::vector<float> margins;
    for (int i = 0; i < 6; ++i) {
      for (const double m : start) margins.push_back(static_cast<float>(m));
    }
    const Pairs out = all_gradients(*objective, margins, {labels, weights});
    for (std::int32_t k = 0; k < outputs; ++k) {
      double sum = 0;
      for (int i = 0; i < 6; ++i)
        sum += static_cast<double>(out[static_cast<std::size_t>(k * 6 + i)].g);
      EXPECT_NEAR(sum, 0, 2e-5) << name;
    }
  }
}

TEST(Objective, StartsAreXgboostsWhereItsAreTheBestConstants) {
  const ReferenceText reference("objectives.txt");
  for (const char* name :
       {"reg:squarederror", "reg:absoluteerror", "reg:quantileerror", "count:poisson", "reg:gamma",
        "reg:tweedie", "reg:logistic", "binary:logistic"}) {
    for (const char* weighted : {"", ".w"}) {
      const std::string key = std::string(name) + weighted;
      SCOPED_TRACE(key);
      ObjectiveParams params;
      params.quantile_alpha = {0.1, 0.5, 0.8};
      params.scale_pos_weight = key.starts_with("binary:logistic") ? 1.5 : 1;
      const auto objective = make_objective(name, 3, params);
      const std::vector<float> labels = reference.floats(key + ".label");
      std::vector<float> weights;
      if (reference.has(key + ".weight")) weights = reference.floats(key + ".weight");
      const std::vector<double> start = objective->start({labels, weights});
      const std::vector<double>& expected = reference[key + ".start"];
      ASSERT_EQ(start.size(), expected.size());
      // With scale_pos_weight XGBoost stops after one of Newton's steps.
      const double tolerance = params.scale_pos_weight == 1 ? 1e-5 : 1e-3;
      for (std::size_t k = 0; k < start.size(); ++k)
        EXPECT_NEAR(start[k], objective->margin_of(expected[k]), tolerance);
    }
  }
}

TEST(Objective, QuantilesOfRisingLevelsDoNotCross) {
  ObjectiveParams params;
  params.quantile_alpha = {0.1, 0.5, 0.9};
  std::vector<float> m = {3, 1, 2, -1, 0, 5};
  make_objective("reg:quantileerror", 3, params)->transform(m.data(), 2);
  EXPECT_EQ(m, (std::vector<float>{1, 2, 3, -1, 0, 5}));
}

TEST(Objective, BaseScoresAreInTheSpaceOfPredictions) {
  for (const std::string_view name : boosting::objective_names) {
    if (name == "binary:hinge" || name == "custom") continue;
    const std::int32_t outputs = name.starts_with("multi:") ? 3 : 1;
    const auto objective = make_objective(name, outputs);
    const bool shares = name == "multi:softmax" || name == "multi:softprob";
    std::vector<float> m(static_cast<std::size_t>(outputs),
                         static_cast<float>(objective->margin_of(0.3)));
    if (!shares) objective->transform(m.data(), 1);
    EXPECT_NEAR(m[0], 0.3, 1e-6) << name;
  }
  EXPECT_THROW((void)make_objective("reg:gamma", 1)->margin_of(-1), ValueError);
  EXPECT_THROW((void)make_objective("binary:logistic", 1)->margin_of(1), ValueError);
}

TEST(Objective, LabelsOutsideTheDomainAreRefused) {
  const auto refuses = [](const char* name, std::vector<float> labels) {
    try {
      make_objective(name, 3)->check(Targets{labels, {}});
      FAIL() << name;
    } catch (const ValueError& e) {
      const std::string row = "row " + std::to_string(labels.size() - 1);
      EXPECT_NE(std::string(e.what()).find(row), std::string::npos) << e.what();
      EXPECT_NE(std::string(e.what()).find(name), std::string::npos) << e.what();
    }
  };
  refuses("binary:logistic", {0, 1, 2});
  refuses("binary:logitraw", {-0.5f});
  refuses("binary:hinge", {0.5f});
  refuses("multi:softprob", {3});
  refuses("multi:softprob", {0.5f});
  refuses("multi:ova", {0, -1});
  refuses("count:poisson", {0, -1});
  refuses("reg:gamma", {1, 0});
  refuses("reg:tweedie", {-0.1f});
  refuses("reg:squaredlogerror", {0, -1});
  refuses("rank:ndcg", {31, 32});
  refuses("rank:map", {0, 2});
  refuses("survival:cox", {-1, 0});
  refuses("survival:aft", {-1});
  EXPECT_NO_THROW(make_objective("reg:logistic", 1)->check_labels(std::vector<float>{0.5f}));
}

TEST(Objective, ParametersOutOfRangeAreRefused) {
  EXPECT_THROW((void)make_objective("multi:softprob", 1), ValueError);
  EXPECT_THROW((void)make_objective("reg:squared", 1), ValueError);
  ObjectiveParams params;
  params.huber_slope = 0;
  params.tweedie_variance_power = 2;
  params.quantile_alpha = {0.5, 1};
  params.aft_loss_distribution_scale = -1;
  for (const char* name :
       {"reg:pseudohubererror", "reg:tweedie", "reg:quantileerror", "survival:aft"})
    EXPECT_THROW((void)make_objective(name, 1, params), ValueError) << name;
  const std::vector<float> labels = {0, 1, 1}, weights = {1, 2, 1};
  const std::vector<std::int64_t> groups = {0, 2, 3};
  EXPECT_THROW(make_objective("rank:ndcg", 1)->check({labels, weights, groups}), ValueError);
}

}  // namespace
}  // namespace quern::test::objective
