// SPDX-License-Identifier: Apache-2.0

/// \file
/// The options that shape trees, through the booster: the same bits for any number of threads,
/// constraints that hold, categories that predict as they were trained.

#include "quern/boosting/booster.hpp"

#include <gtest/gtest.h>
#include <rapidcheck.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <set>
#include <string>
#include <vector>

#include "reference.hpp"

namespace quern::test::growth {
namespace {

using boosting::Booster;
using boosting::Options;

/// Numbers with and without missing values, and two columns of categories.
struct Data {
  Eigen::MatrixXf x;
  Eigen::VectorXf y;

  Data(std::int64_t rows, int categories, std::uint64_t seed) : x(rows, 6), y(rows) {
    Philox rng(seed, "growth test");
    const auto n = static_cast<std::uint64_t>(categories);
    for (std::int64_t i = 0; i < rows; ++i) {
      for (int j = 0; j < 4; ++j) x(i, j) = rng.normal<float>();
      x(i, 4) = static_cast<float>(rng.integer(n));
      x(i, 5) = static_cast<float>(rng.integer(3));
      const float t = std::sin(3 * x(i, 4)) + x(i, 0) * x(i, 1) + (x(i, 5) > 0.5f ? x(i, 2) : 0);
      y(i) = t + 0.2f * rng.normal<float>();
      for (const int j : {1, 4})
        if (rng.bernoulli(0.1)) x(i, j) = std::numeric_limits<float>::quiet_NaN();
    }
  }
  [[nodiscard]] tree::Dataset dataset(bool categorical) const {
    tree::Dataset data = tree::make_dataset(x, y);
    if (categorical) {
      data.feature_kinds.assign(6, tree::FeatureKind::numeric);
      data.feature_kinds[4] = data.feature_kinds[5] = tree::FeatureKind::categorical;
    }
    return data;
  }
};

/// XGBoost's training table and what it made of it with tree_method exact.
TEST(Growth, ExactTrainsXGBoostsTrees) {
  const std::vector<float> x = reference_npy<float>("X"), xt = reference_npy<float>("Xt");
  const tree::Dataset test =
      tree::make_dataset(MatrixView<const float>(xt.data(), {std::int64_t{64}, std::int64_t{9}}));
  const ReferenceText curves("curves.txt");
  Options plain{.num_round = 6,
                .max_depth = 4,
                .tree_method = "exact",
                .gamma = 0.1,
                .reg_lambda = 2,
                .eval_metric = {"rmse"}};
  Options weighted{.num_round = 5,
                   .learning_rate = 0.5,
                   .max_depth = 3,
                   .tree_method = "exact",
                   .min_child_weight = 3,
                   .reg_alpha = 0.5,
                   .eval_metric = {"rmse"}};
  for (const std::string name : {"xgb_reg_exact", "xgb_reg_exact_w"}) {
    SCOPED_TRACE(name);
    tree::Dataset train =
        tree::make_dataset(MatrixView<const float>(x.data(), {std::int64_t{311}, std::int64_t{9}}),
                           reference_npy<float>("y_reg"));
    if (name == "xgb_reg_exact_w") train.weights = reference_npy<float>("w");
    Booster b(name == "xgb_reg_exact_w" ? weighted : plain);
    const auto& history = b.fit(train, {.eval_sets = {{"same", &train}}, .eval_train = true});
    const std::vector<double>& rmse = curves[name + ".rmse"];
    ASSERT_EQ(history.curves[0].values.size(), rmse.size());
    for (std::size_t r = 0; r < rmse.size(); ++r) {
      EXPECT_NEAR(history.curves[0].values[r], rmse[r], 1e-5);
      EXPECT_NEAR(history.curves[1].values[r], rmse[r], 1e-5);  // by walking
    }
    const std::vector<float> margins = reference_npy<float>(name + "_margin");
    const std::vector<float> leaves = reference_npy<float>(name + "_leaf");
    const NdArray<float, 2> p = b.predict_margin(test);
    const NdArray<std::int32_t, 2> l = b.predict_leaves(test);
    for (std::int64_t i = 0; i < 64; ++i) {
      EXPECT_NEAR(p(i, 0), margins[static_cast<std::size_t>(i)], 1e-5) << "row " << i;
      for (std::int64_t t = 0; t < l.extent(1); ++t)
        EXPECT_EQ(l(i, t),
                  static_cast<std::int32_t>(leaves[static_cast<std::size_t>(i * l.extent(1) + t)]));
    }
  }
}

/// Cuts are not XGBoost's, so the last round may be a little better or worse; on 311 rows.
TEST(Growth, CategoriesAndInteractionsLearnAsXGBoostsDo) {
  const std::vector<float> x = reference_npy<float>("X");
  const ReferenceText curves("curves.txt");
  const auto last = [&](Options o, const char* labels, bool categories) {
    o.num_round = 6;
    o.max_depth = 4;
    o.max_bin = 16;
    tree::Dataset train =
        tree::make_dataset(MatrixView<const float>(x.data(), {std::int64_t{311}, std::int64_t{9}}),
                           reference_npy<float>(labels));
    train.feature_kinds.assign(9, tree::FeatureKind::numeric);
    if (categories) train.feature_kinds[8] = tree::FeatureKind::categorical;
    Booster b(o);
    return b.fit(train, {.eval_train = true}).curves[0].values.back();
  };
  const auto expect_close = [&](double got, const char* curve) {
    const double theirs = curves[curve].back();
    EXPECT_LT(got, 1.05 * theirs) << curve;
    EXPECT_GT(got, 0.85 * theirs) << curve;
    RecordProperty(curve, std::to_string(got) + " / " + std::to_string(theirs));
  };
  expect_close(last({}, "y_reg", true), "xgb_cat.rmse");
  expect_close(last({.objective = "binary:logistic", .max_cat_to_onehot = 50}, "y_bin", true),
               "xgb_cat_onehot.logloss");
  expect_close(last({.interaction_constraints = {{0, 1}, {2, 3, 4}}}, "y_reg", false),
               "xgb_interact.rmse");
  expect_close(last({.monotone_constraints = {1, 0, -1, 0, 0, 0, 0, 0, 0}}, "y_reg", false),
               "xgb_mono.rmse");
}

Options any_options(bool categorical) {
  Options o;
  o.num_round = 3;
  o.grow_policy = *rc::gen::element(tree::GrowPolicy::depthwise, tree::GrowPolicy::lossguide,
                                    tree::GrowPolicy::symmetric);
  o.max_depth = *rc::gen::inRange(1, 8);
  const bool exact = !categorical && o.grow_policy == tree::GrowPolicy::depthwise;
  if (exact && *rc::gen::arbitrary<bool>()) o.tree_method = "exact";
  o.max_leaves = o.tree_method == "exact" ? 0 : *rc::gen::element(0, 5, 20);
  o.max_bin = *rc::gen::element(2, 16, 255);
  o.gamma = *rc::gen::element(0.0, 0.5);
  o.reg_alpha = *rc::gen::element(0.0, 0.3);
  o.reg_lambda = *rc::gen::element(0.0, 1.0);
  o.max_delta_step = *rc::gen::element(0.0, 0.2);
  o.min_child_weight = *rc::gen::element(0.0, 1.0, 20.0);
  o.subsample = *rc::gen::element(1.0, 0.6);
  o.colsample_bytree = *rc::gen::element(1.0, 0.7);
  o.colsample_bylevel = *rc::gen::element(1.0, 0.7);
  o.colsample_bynode = *rc::gen::element(1.0, 0.7);
  o.max_cat_to_onehot = *rc::gen::element(1, 4, 100);
  o.max_cat_threshold = *rc::gen::element(2, 64);
  o.seed = *rc::gen::inRange<std::uint64_t>(0, 100);
  if (*rc::gen::arbitrary<bool>()) o.interaction_constraints = {{0, 1, 4}, {2, 3}, {3, 5}};
  if (*rc::gen::arbitrary<bool>())
    o.monotone_constraints = categorical ? std::vector<std::int8_t>{1, 0, -1, 0, 0, 0}
                                         : std::vector<std::int8_t>{1, -1, 0, 0, 1, 0};
  return o;
}

TEST(Growth, AnyOptionsTrainToTheSameBitsForAnyThreads) {
  EXPECT_TRUE(rc::check([] {
    static const Data data(1500, 12, 1);
    const bool categorical = *rc::gen::arbitrary<bool>();
    Options o = any_options(categorical);
    std::vector<std::byte> first;
    for (const int threads : {1, 2, 3}) {
      o.nthread = threads;
      Booster booster(o);
      booster.fit(data.dataset(categorical));
      const std::vector<std::byte> bytes = boosting::model_to_bytes(booster.model());
      if (threads == 1) first = bytes;
      RC_ASSERT(bytes == first);
    }
  }));
}

TEST(Growth, MonotoneConstraintsHoldWithEverythingElse) {
  EXPECT_TRUE(rc::check([] {
    static const Data data(800, 6, 2);
    const bool categorical = *rc::gen::arbitrary<bool>();
    Options o = any_options(categorical);
    o.monotone_constraints = {1, 0, -1, 0, 0, 0};
    o.num_round = 5;
    Booster booster(o);
    booster.fit(data.dataset(categorical));
    Eigen::MatrixXf probe(41, 6);
    Eigen::MatrixXf row = data.x.row(*rc::gen::inRange(0, 800));
    for (const int feature : {0, 2}) {
      for (int i = 0; i < 41; ++i) {
        probe.row(i) = row;
        probe(i, feature) = 0.15f * static_cast<float>(i - 20);
      }
      const NdArray<float, 2> p = booster.predict_margin(tree::make_dataset(probe));
      for (int i = 1; i < 41; ++i) {
        const float rise = p(i, 0) - p(i - 1, 0);
        RC_ASSERT((feature == 0 ? rise : -rise) >= -1e-6f);
      }
    }
  }));
}

TEST(Growth, InteractionConstraintsHoldOnEveryPath) {
  EXPECT_TRUE(rc::check([] {
    static const Data data(800, 6, 3);
    Options o = any_options(true);
    o.interaction_constraints = {{0, 1, 4}, {2, 3}, {3, 5}};
    Booster booster(o);
    booster.fit(data.dataset(true));
    for (const tree::Tree& t : booster.model().trees) {
      for (std::int32_t leaf = 0; leaf < t.size(); ++leaf) {
        std::set<std::int32_t> path;
        for (std::int32_t i = t.node(leaf).parent; i >= 0; i = t.node(i).parent)
          path.insert(t.node(i).feature);
        bool allowed = path.size() <= 1;
        for (const auto& group : o.interaction_constraints) {
          const std::set<std::int32_t> members(group.begin(), group.end());
          allowed |= std::includes(members.begin(), members.end(), path.begin(), path.end());
        }
        RC_ASSERT(allowed);
      }
    }
  }));
}

TEST(Growth, CategoriesAreEvaluatedAsTheyArePredicted) {
  for (const int categories : {5, 40, 400}) {
    const Data train(4000, categories, 4), test(1000, categories + 30, 5);
    const tree::Dataset d = train.dataset(true), t = test.dataset(true);
    for (const auto policy : {tree::GrowPolicy::depthwise, tree::GrowPolicy::symmetric}) {
      Booster b({.num_round = 8, .grow_policy = policy, .subsample = 0.8});
      const auto& history = b.fit(d, {.eval_sets = {{"test", &t}}, .eval_train = true});
      std::size_t curve = 0;
      for (const tree::Dataset* set : {&d, &t}) {
        const NdArray<float, 2> p = b.predict(*set);
        double sum = 0;
        for (std::int64_t i = 0; i < set->rows(); ++i) {
          const double e = static_cast<double>(p(i, 0)) -
                           static_cast<double>(set->labels[static_cast<std::size_t>(i)]);
          sum += e * e;
        }
        EXPECT_NEAR(history.curves[curve++].values.back(),
                    std::sqrt(sum / static_cast<double>(set->rows())), 1e-5);
      }
    }
  }
}

TEST(Growth, CategoriesBeatTheirNumbers) {
  const Data train(4000, 30, 6), test(1000, 30, 7);
  double error[2];
  for (const bool categorical : {false, true}) {
    const tree::Dataset t = test.dataset(categorical);
    Booster b({.num_round = 20, .max_depth = 4});
    const auto& history = b.fit(train.dataset(categorical), {.eval_sets = {{"test", &t}}});
    error[categorical ? 1 : 0] = history.curves[0].values.back();
  }
  EXPECT_LT(error[1], 0.9 * error[0]);
}

TEST(Growth, WhatDoesNotFitIsRefusedByName) {
  const Data data(50, 5, 8);
  const auto refusal = [&](Options o) -> std::string {
    try {
      Booster(std::move(o)).fit(data.dataset(true));
    } catch (const Error& e) {
      return e.what();
    }
    return "accepted";
  };
  const auto contains = [](const std::string& text, const char* part) {
    EXPECT_NE(text.find(part), std::string::npos) << text;
  };
  contains(refusal({.num_round = 1, .monotone_constraints = {0, 0, 0, 0, 1, 0}}),
           "categorical feature 4");
  contains(refusal({.interaction_constraints = {{0, 6}}}), "interaction_constraints");
  contains(refusal({.interaction_constraints = {{0, -1}}}), "interaction_constraints");
  contains(refusal({.interaction_constraints = {{}}}), "interaction_constraints");
  contains(refusal({.max_depth = 17, .grow_policy = tree::GrowPolicy::symmetric}), "max_depth");
  contains(refusal({.tree_method = "approx"}), "tree_method");
  contains(refusal({.tree_method = "exact"}), "categorical feature 4");
  contains(refusal({.max_leaves = 4, .tree_method = "exact"}), "max_leaves");
  contains(refusal({.tree_method = "exact", .grow_policy = tree::GrowPolicy::symmetric}),
           "grow_policy");
  contains(refusal({.max_cat_to_onehot = 0}), "max_cat_to_onehot");
  contains(refusal({.max_cat_threshold = 0}), "max_cat_threshold");
}

}  // namespace
}  // namespace quern::test::growth
