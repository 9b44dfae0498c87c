// SPDX-License-Identifier: Apache-2.0

/// \file
/// The simple learners: what scikit-learn's make of the same data; weights, threads, files, input
/// that is not right.

#include "../boosting/reference.hpp"
#include "quern/ensemble/learners/linear_regression.hpp"
#include "quern/ensemble/learners/linear_svm.hpp"
#include "quern/ensemble/learners/logistic_regression.hpp"
#include "quern/ensemble/learners/naive_bayes.hpp"
#include "quern/ensemble/learners/nearest_neighbours.hpp"
#include "quern/ensemble/saving.hpp"

#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include <gtest/gtest.h>

namespace quern::test::learners {
namespace {

using ensemble::Features;

Features rows_of(const std::vector<float>& values, Index cols) {
  return Features(values.data(), {static_cast<Index>(values.size()) / cols, cols});
}
std::vector<std::int32_t> codes(const std::vector<double>& values) {
  return {values.begin(), values.end()};
}

class Learners : public ::testing::Test {
 protected:
  test::ReferenceText reference{"learners.txt", "ensemble"};
  std::vector<float> x = reference.floats("x"), xt = reference.floats("xt"),
                     w = reference.floats("w"), yr = reference.floats("yr");
  std::vector<std::int32_t> y2 = codes(reference["y2"]), y3 = codes(reference["y3"]);
  Features train = rows_of(x, 5), other = rows_of(xt, 5);

  template <class Values>
  void expect_near(const std::string& key, const Values& got, double tolerance) {
    const std::vector<double>& want = reference[key];
    std::size_t i = 0;
    for (const auto value : got) {
      ASSERT_LT(i, want.size()) << key;
      EXPECT_NEAR(static_cast<double>(value), want[i], tolerance) << key << ' ' << i;
      ++i;
    }
    EXPECT_EQ(i, want.size()) << key;
  }
};

TEST_F(Learners, LeastSquares) {
  for (const auto& [key, l2] : {std::pair{"linear", 0.0}, {"ridge", 2.5}}) {
    ensemble::LinearRegression model({.l2 = l2});
    model.fit(train, yr, w);
    std::vector<double> got(model.coefficients().begin(), model.coefficients().end());
    got.push_back(model.intercept());
    expect_near(key, got, 2e-8);
  }
}

TEST(LeastSquares, FeaturesOfAnyScale) {
  constexpr Index rows = 400;
  std::vector<float> x, y;
  Philox rng(11, "scales");
  for (Index i = 0; i < rows; ++i) {
    const double a = rng.uniform(), b = rng.uniform();
    x.insert(x.end(), {static_cast<float>(1e8 * a), static_cast<float>(b), 0.1f});
    y.push_back(3 * x[x.size() - 2] + 1e-8f * x[x.size() - 3]);
  }
  for (const double l2 : {0.0, 1e-6}) {
    ensemble::LinearRegression model({.l2 = l2});
    model.fit(rows_of(x, 3), y);
    EXPECT_NEAR(model.coefficients()[0], 1e-8, 1e-14);
    EXPECT_NEAR(model.coefficients()[1], 3, 1e-6);
    EXPECT_EQ(model.coefficients()[2], 0);  // constant
    EXPECT_NEAR(model.intercept(), 0, 1e-6);
  }
  // One feature is twice the other: the shortest coefficients lie along (1, 2).
  std::vector<float> twice, sum;
  for (int i = 0; i < 9; ++i) {
    twice.insert(twice.end(), {static_cast<float>(i), static_cast<float>(2 * i)});
    sum.push_back(static_cast<float>(5 * i));
  }
  for (const double l2 : {0.0, 1e-25}) {
    ensemble::LinearRegression model({.l2 = l2});
    model.fit(rows_of(twice, 2), sum);
    EXPECT_NEAR(model.coefficients()[0], 1, 1e-12);
    EXPECT_NEAR(model.coefficients()[1], 2, 1e-12);
  }
}

TEST_F(Learners, Logistic) {
  ensemble::LogisticRegression model({.l2 = 2, .tolerance = 1e-10});
  model.fit(train, y2, 2, w);
  expect_near("logistic2", ensemble::predict_proba(model, other, 2), 2e-6);
  model.fit(train, y3, 3, w);
  expect_near("logistic3", ensemble::predict_proba(model, other, 3), 2e-6);
}

TEST_F(Learners, SupportVectors) {
  const auto scaled = [](std::vector<float> values) {
    for (std::size_t i = 3; i < values.size(); i += 5) values[i] /= 32;
    return values;
  };
  const std::vector<float> a = scaled(x), b = scaled(xt);
  for (const auto& [key, loss] : {std::pair{"svm_hinge", ensemble::SvmLoss::hinge},
                                  {"svm_squared_hinge", ensemble::SvmLoss::squared_hinge}}) {
    ensemble::LinearSvm model(
        {.loss = loss, .c = 0.3, .tolerance = 1e-9, .max_iterations = 1 << 20});
    model.fit(rows_of(a, 5), y2, 2, w, 1);
    expect_near(std::string(key) + "2", model.decision(rows_of(b, 5)), 1e-6);
    model.fit(rows_of(a, 5), y3, 3, w, 1);
    expect_near(std::string(key) + "3", model.decision(rows_of(b, 5)), 1e-6);
  }
}

TEST_F(Learners, NaiveBayes) {
  ensemble::GaussianNaiveBayes normal;
  normal.fit(train, y3, 3);
  expect_near("gaussian", ensemble::predict_proba(normal, other, 3), 2e-6);
  const auto counted = [](std::vector<float> values) {
    for (float& v : values) v = std::floor(std::abs(v) * 3);
    return values;
  };
  const std::vector<float> a = counted(x), b = counted(xt);
  ensemble::MultinomialNaiveBayes counts({.alpha = 0.7});
  counts.fit(rows_of(a, 5), y3, 3, w);
  expect_near("multinomial", ensemble::predict_proba(counts, rows_of(b, 5), 3), 2e-6);
}

TEST_F(Learners, Neighbours) {
  using ensemble::NeighbourVote;
  for (const auto& [key, vote] : {std::pair{"uniform", NeighbourVote::equal},
                                  {"distance", NeighbourVote::inverse_distance}}) {
    ensemble::NeighboursClassifier classes({7, vote});
    classes.fit(train, y3, 3);
    expect_near(std::string("knn_") + key, ensemble::predict_proba(classes, other, 3), 2e-6);
    ensemble::NeighboursRegressor values({4, vote});
    values.fit(train, yr);
    expect_near(std::string("knn_regressor_") + key, ensemble::predict_values(values, other), 2e-6);
  }
}

TEST(NeighboursTies, TheFirstRowIsNearer) {
  const std::vector<float> x = {1e4f, 1e4f, -1, 1, 1e4f}, q = {0, 1e4f};
  ensemble::NeighboursRegressor model({1, ensemble::NeighbourVote::inverse_distance});
  model.fit(rows_of(x, 1), std::vector<float>{1, 2, 3, 4, 5});
  EXPECT_EQ(ensemble::predict_values(model, rows_of(q, 1)), (std::vector<float>{3, 1}));
}

/// Every other row twice, or weight 2; every fifth left out, or weight 0.
struct Repeated {
  std::vector<float> x, yr, weights;
  std::vector<std::int32_t> y;
};

TEST_F(Learners, AWeightOfTwoIsTwoRows) {
  Repeated twice;
  std::vector<float> weights;
  for (std::size_t i = 0; i < yr.size(); ++i) {
    const int times = i % 5 == 0 ? 0 : 1 + static_cast<int>(i % 2);
    weights.push_back(static_cast<float>(times));
    for (int t = 0; t < times; ++t) {
      for (std::size_t f = 0; f < 5; ++f) twice.x.push_back(std::abs(x[i * 5 + f]));
      twice.y.push_back(y3[i]);
      twice.yr.push_back(yr[i]);
    }
  }
  std::vector<float> once = x;
  for (float& v : once) v = std::abs(v);
  const auto expect_equal = [](const auto& a, const auto& b, double tolerance) {
    auto at = b.begin();
    for (const auto v : a) EXPECT_NEAR(v, *at++, tolerance);
  };
  const auto classifier = [&](auto model, double tolerance) {
    auto weighted = model;
    model.fit(rows_of(twice.x, 5), twice.y, 3, {}, 1);
    weighted.fit(rows_of(once, 5), y3, 3, weights, 1);
    expect_equal(ensemble::predict_proba(model, train, 3),
                 ensemble::predict_proba(weighted, train, 3), tolerance);
  };
  const auto regressor = [&](auto model) {
    auto weighted = model;
    model.fit(rows_of(twice.x, 5), twice.yr);
    weighted.fit(rows_of(once, 5), yr, weights);
    expect_equal(ensemble::predict_values(model, train), ensemble::predict_values(weighted, train),
                 1e-5);
  };
  classifier(ensemble::LogisticRegression({.tolerance = 1e-9}), 1e-5);
  classifier(ensemble::GaussianNaiveBayes(), 1e-5);
  classifier(ensemble::MultinomialNaiveBayes(), 1e-5);
  classifier(ensemble::NeighboursClassifier(), 1e-6);
  regressor(ensemble::LinearRegression({.l2 = 1}));
  regressor(ensemble::NeighboursRegressor({4}));
}

/// What a learner predicts, and predicts again when it was saved, loaded, fitted on other threads.
template <class Model, class Fit, class Predict>
void expect_same_bits(Model model, const Fit& fit, const Predict& predict) {
  set_default_threads(1);
  fit(model);
  const auto want = predict(model);
  for (const int threads : {2, 3}) {
    set_default_threads(threads);
    Model again = model;
    fit(again);
    const auto got = predict(again);
    EXPECT_TRUE(std::equal(want.begin(), want.end(), got.begin()));
  }
  set_default_threads(0);
  ArchiveWriter out("box");
  save_member(out, "model", model);
  Model back;
  load_member(ArchiveReader(out.bytes()), "model", back);
  const auto got = predict(back);
  EXPECT_TRUE(std::equal(want.begin(), want.end(), got.begin()));
}

TEST(LearnersBits, DoNotDependOnThreadsAndComeBackFromFiles) {
  constexpr Index rows = 1500;
  std::vector<float> x, yr;
  std::vector<std::int32_t> y;
  Philox rng(3, "learners test");
  for (Index i = 0; i < rows; ++i) {
    for (int f = 0; f < 4; ++f) x.push_back(std::abs(rng.normal<float>()));
    yr.push_back(x[x.size() - 4] - x.back() + rng.normal<float>());
    y.push_back(yr.back() > 0.7f ? 2 : yr.back() > 0 ? 1 : 0);
  }
  const Features all = rows_of(x, 4);
  const auto classifier = [&](auto model) {
    expect_same_bits(
        model, [&](auto& m) { m.fit(all, y, 3, {}, 5); },
        [&](const auto& m) { return ensemble::predict_proba(m, all, 3); });
  };
  const auto regressor = [&](auto model) {
    expect_same_bits(
        model, [&](auto& m) { m.fit(all, yr); },
        [&](const auto& m) { return ensemble::predict_values(m, all); });
  };
  classifier(ensemble::LogisticRegression());
  classifier(ensemble::LinearSvm());
  classifier(ensemble::GaussianNaiveBayes());
  classifier(ensemble::MultinomialNaiveBayes());
  classifier(ensemble::NeighboursClassifier());
  regressor(ensemble::LinearRegression());
  regressor(ensemble::NeighboursRegressor());
}

TEST_F(Learners, OneRowConstantFeaturesAndAClassThatIsMissing) {
  const std::vector<float> same(30, 2.0f);
  const Features constant = rows_of(same, 3);
  const std::vector<std::int32_t> y = {0, 2, 2, 0, 2, 2, 2, 0, 2, 2};
  const auto check = [&](auto model) {
    model.fit(constant, y, 3);
    for (const float p : ensemble::predict_proba(model, constant, 3)) EXPECT_TRUE(p >= 0 && p <= 1);
    EXPECT_EQ(ensemble::predict_classes(model, constant, 3)[0], 2);
    const std::vector<std::int32_t> one = {1};
    model.fit(rows_of({same.begin(), same.begin() + 3}, 3), one, 2);
    EXPECT_EQ(ensemble::predict_classes(model, constant, 2)[3], 1);
    model.fit(rows_of({same.begin(), same.begin() + 3}, 3), std::vector<std::int32_t>{0}, 1);
    EXPECT_EQ(ensemble::predict_classes(model, constant, 1)[3], 0);
    EXPECT_THROW(model.fit(constant, y, 2), ValueError);
    EXPECT_THROW(model.fit(constant, one, 2), ShapeError);
    EXPECT_THROW(model.fit(constant, y, 3, std::vector<float>(10, 0.0f)), ValueError);
    EXPECT_THROW(model.fit(constant, y, 3, std::vector<float>(10, -1.0f)), ValueError);
    EXPECT_THROW((void)ensemble::predict_proba(model, train, 1), ShapeError);
    decltype(model) fresh;
    EXPECT_THROW((void)ensemble::predict_classes(fresh, constant, 0), ValueError);
    std::vector<float> missing = same;
    missing[4] = std::numeric_limits<float>::quiet_NaN();
    EXPECT_THROW(model.fit(rows_of(missing, 3), y, 3), ValueError);
  };
  check(ensemble::LogisticRegression());
  check(ensemble::LinearSvm());
  check(ensemble::GaussianNaiveBayes());
  check(ensemble::MultinomialNaiveBayes());
  check(ensemble::NeighboursClassifier());
  ensemble::LinearRegression line;
  line.fit(constant, std::vector<float>(10, 7.0f));
  EXPECT_FLOAT_EQ(ensemble::predict_values(line, constant)[0], 7.0f);
  EXPECT_THROW(line.fit(constant, std::vector<float>(10, INFINITY)), ValueError);
  EXPECT_THROW(ensemble::LinearRegression({.l2 = -1}), ValueError);
  EXPECT_THROW(ensemble::NeighboursRegressor({0}), ValueError);
}

TEST_F(Learners, PredictFromFiniteFeaturesAlone) {
  std::vector<float> bad = xt;
  bad[7] = std::numeric_limits<float>::quiet_NaN();
  const auto check = [&](auto model) {
    model.fit(train, y3, 3);
    try {
      (void)ensemble::predict_proba(model, rows_of(bad, 5), 3);
      FAIL() << model.kind();
    } catch (const ValueError& e) {
      EXPECT_NE(std::string(e.what()).find("x(1, 2)"), std::string::npos) << e.what();
    }
  };
  check(ensemble::LogisticRegression());
  check(ensemble::LinearSvm());
  check(ensemble::GaussianNaiveBayes());
  check(ensemble::NeighboursClassifier());
  ensemble::LinearRegression line;
  line.fit(train, yr);
  EXPECT_THROW((void)ensemble::predict_values(line, rows_of(bad, 5)), ValueError);
  ensemble::LinearSvm svm;
  svm.fit(train, y3, 3);
  EXPECT_THROW((void)ensemble::predict_proba(svm, other, 2), ShapeError);
  EXPECT_THROW((void)ensemble::predict_proba(svm, other, 4), ShapeError);
}

TEST(Neighbours, FilesHaveRowsThatCount) {
  const auto load = [](const std::vector<float>& rows, const std::vector<float>& weights) {
    ArchiveWriter out("ensemble.neighbours_regressor", ensemble::learner_version);
    out.array("y", std::vector<float>(rows.size() / 2, 1.0f));
    out.scalar("neighbours", std::int32_t{2});
    out.scalar("vote", std::uint8_t{0});
    out.scalar("features", std::int64_t{2});
    out.array("rows", rows);
    out.array("weights", weights);
    ensemble::NeighboursRegressor model;
    model.load(ArchiveReader(out.bytes()));
  };
  EXPECT_NO_THROW(load({1, 2, 3, 4}, {0, 1}));
  EXPECT_THROW(load({}, {}), ParseError);
  EXPECT_THROW(load({1, 2, 3, 4}, {0, 0}), ParseError);
  EXPECT_THROW(load({1, 2, 3, 4}, {-1, 1}), ParseError);
  EXPECT_THROW(load({1, 2, 3, INFINITY}, {}), ParseError);
}

}  // namespace
}  // namespace quern::test::learners
