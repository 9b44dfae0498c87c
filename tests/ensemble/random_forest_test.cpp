// SPDX-License-Identifier: Apache-2.0

#include "quern/ensemble/random_forest.hpp"

#include "quern/ensemble/extra_trees.hpp"
#include "quern/ensemble/saving.hpp"

#include "../boosting/reference.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <set>
#include <string>
#include <vector>

namespace quern::test::random_forest {
namespace {

using ensemble::ClassWeight;
using ensemble::ExtraTreesClassifier;
using ensemble::ExtraTreesRegressor;
using ensemble::Features;
using ensemble::RandomForestClassifier;
using ensemble::RandomForestRegressor;

static_assert(ensemble::Classifier<RandomForestClassifier>);
static_assert(ensemble::Classifier<ExtraTreesClassifier>);
static_assert(ensemble::Regressor<RandomForestRegressor>);
static_assert(ensemble::Regressor<ExtraTreesRegressor>);
static_assert(ensemble::Saveable<RandomForestClassifier>);

/// Three noisy clouds in six columns, whole numbers; some values are missing.
struct Clouds {
  std::vector<float> x, y;
  std::vector<std::int32_t> labels;
  std::int64_t rows;
  explicit Clouds(std::int64_t n, std::uint64_t seed) : rows(n) {
    Philox rng(seed, "clouds");
    for (std::int64_t r = 0; r < n; ++r) {
      const auto label = static_cast<std::int32_t>(rng.integer(3));
      labels.push_back(label);
      for (int f = 0; f < 6; ++f) {
        const double v = std::round(10 * rng.normal() + (f < 3 && f == label ? 14.0 : 0.0));
        x.push_back(rng.uniform() < 0.05 ? std::nanf("") : static_cast<float>(v));
      }
      y.push_back(static_cast<float>(label * label + 0.3 * rng.normal()));
    }
  }
  [[nodiscard]] Features view() const { return {x.data(), {rows, 6}}; }
};

template <class Forest>
std::vector<float> probabilities(const Forest& forest, const Clouds& c) {
  std::vector<float> p(static_cast<std::size_t>(c.rows) * 3);
  forest.predict_proba(c.view(), MatrixView<float>(p.data(), {c.rows, 3}));
  return p;
}

template <class Forest>
double accuracy(const Forest& forest, const Clouds& c) {
  std::vector<std::int32_t> got(c.labels.size());
  forest.predict(c.view(), got);
  double right = 0;
  for (std::size_t r = 0; r < got.size(); ++r) right += got[r] == c.labels[r] ? 1 : 0;
  return right / static_cast<double>(got.size());
}

template <class Forest>
void expect_threads_do_not_matter(typename Forest::Options options) {
  const Clouds c(500, 1);
  options.n_jobs = 1;
  Forest one(options);
  one.fit(c.view(), c.labels, 3, {}, 9);
  for (const int threads : {2, 3}) {
    options.n_jobs = threads;
    Forest more(options);
    more.fit(c.view(), c.labels, 3, {}, 9);
    EXPECT_EQ(probabilities(one, c), probabilities(more, c));
    EXPECT_EQ(one.feature_importances(), more.feature_importances());
    EXPECT_EQ(one.oob_score(), more.oob_score());
  }
}

TEST(RandomForest, ThreadsDoNotMatter) {
  expect_threads_do_not_matter<RandomForestClassifier>({.n_estimators = 13, .oob_score = true});
  expect_threads_do_not_matter<RandomForestClassifier>({.n_estimators = 2});
  expect_threads_do_not_matter<ExtraTreesClassifier>({.n_estimators = 13});
}

TEST(RandomForest, LearnsAndKnowsItsError) {
  const Clouds c(900, 2), held_out(2000, 3);
  RandomForestClassifier forest({.n_estimators = 150, .oob_score = true});
  forest.fit(c.view(), c.labels, 3, {}, 1);
  EXPECT_GT(accuracy(forest, c), 0.99);
  EXPECT_NEAR(forest.oob_score(), accuracy(forest, held_out), 0.04);
  const std::vector<double>& importances = forest.feature_importances();
  double sum = 0;
  for (const double v : importances) sum += v;
  EXPECT_NEAR(sum, 1, 1e-12);
  EXPECT_GT(importances[1], 2 * importances[4]);
  ExtraTreesClassifier extra({.n_estimators = 150});
  extra.fit(c.view(), c.labels, 3, {}, 1);
  EXPECT_NEAR(accuracy(extra, held_out), accuracy(forest, held_out), 0.04);
}

TEST(RandomForest, AsScikitLearns) {
  std::vector<float> x = reference_npy<float>("X");
  for (float& v : x) v = v != v ? -9.0f : v;
  std::vector<std::int32_t> y;
  for (const float v : reference_npy<float>("y_mc")) y.push_back(static_cast<std::int32_t>(v));
  const Features view(x.data(), {static_cast<Index>(y.size()), 9});
  RandomForestClassifier forest({.n_estimators = 400, .oob_score = true});
  forest.fit(view, y, 3, {}, 1);
  const ReferenceText reference("cart.txt");
  EXPECT_NEAR(forest.oob_score(), reference["forest.oob_score"][0], 0.05);
  for (std::size_t f = 0; f < 9; ++f)
    EXPECT_NEAR(forest.feature_importances()[f], reference["forest.importances"][f], 0.02);
}

TEST(RandomForest, Numbers) {
  const Clouds c(600, 4), held_out(1000, 5);
  RandomForestRegressor forest({.n_estimators = 60, .oob_score = true});
  forest.fit(c.view(), c.y, {}, 1);
  ExtraTreesRegressor extra({.n_estimators = 60});
  extra.fit(c.view(), c.y, {}, 1);
  std::vector<float> a(held_out.y.size()), b(held_out.y.size());
  forest.predict(held_out.view(), a);
  extra.predict(held_out.view(), b);
  double mean = 0, error = 0, extra_error = 0, spread = 0;
  for (const float v : held_out.y) mean += static_cast<double>(v) / 1000;
  const auto square = [](double v) { return v * v; };
  for (std::size_t r = 0; r < a.size(); ++r) {
    const auto y = static_cast<double>(held_out.y[r]);
    error += square(static_cast<double>(a[r]) - y);
    extra_error += square(static_cast<double>(b[r]) - y);
    spread += square(y - mean);
  }
  EXPECT_NEAR(1 - error / spread, forest.oob_score(), 0.06);
  EXPECT_NEAR(1 - extra_error / spread, forest.oob_score(), 0.08);
  EXPECT_EQ(forest.oob_prediction().size(), 600u);
}

TEST(RandomForest, SeedsAndWeights) {
  const Clouds c(300, 6);
  RandomForestClassifier a({.n_estimators = 5}), b({.n_estimators = 5});
  a.fit(c.view(), c.labels, 3, {}, 1);
  b.fit(c.view(), c.labels, 3, {}, 1);
  EXPECT_EQ(probabilities(a, c), probabilities(b, c));
  b.fit(c.view(), c.labels, 3, {}, 2);
  EXPECT_NE(probabilities(a, c), probabilities(b, c));
  // Weights of one are no weights, and rows of weight 0 are not there.
  b.fit(c.view(), c.labels, 3, std::vector<float>(300, 1.0f), 1);
  EXPECT_EQ(probabilities(a, c), probabilities(b, c));
  Clouds more = c;
  more.x.insert(more.x.end(), 6, 1000.0f);
  more.labels.push_back(0);
  more.rows = 301;
  std::vector<float> w(301, 1.0f);
  w.back() = 0;
  b.fit(more.view(), more.labels, 3, w, 1);
  EXPECT_EQ(probabilities(a, c), probabilities(b, c));
  // Halves take the way of real weights and find the same.
  b.fit(c.view(), c.labels, 3, std::vector<float>(300, 0.5f), 1);
  const std::vector<float> p = probabilities(a, c), q = probabilities(b, c);
  for (std::size_t i = 0; i < p.size(); ++i) EXPECT_NEAR(p[i], q[i], 1e-6f);
  EXPECT_EQ(a.forest().compact_trees()[4].nodes.size(), b.forest().compact_trees()[4].nodes.size());
}

TEST(RandomForest, WithoutSamplingItIsTheTree) {
  const Clouds c(200, 7);
  RandomForestClassifier bag(
      {.n_estimators = 3, .max_features = tree::MaxFeatures::all(), .bootstrap = false});
  bag.fit(c.view(), c.labels, 3, {}, 1);
  const auto& trees = bag.forest().compact_trees();
  EXPECT_EQ(trees[0].covers, trees[2].covers);
}

TEST(RandomForest, Options) {
  const Clouds c(300, 8);
  RandomForestClassifier small({.n_estimators = 4, .max_samples = 0.1});
  small.fit(c.view(), c.labels, 3);
  EXPECT_EQ(small.tree(0).node(0).cover, 30.0);
  RandomForestClassifier balanced(
      {.n_estimators = 20, .class_weight = ClassWeight::balanced_subsample(), .max_bins = 8});
  balanced.fit(c.view(), c.labels, 3);
  EXPECT_GT(accuracy(balanced, c), 0.9);
  std::int64_t told = 0;
  RandomForestClassifier cancelled(
      {.n_estimators = 9, .n_jobs = 1, .progress = [&](const Progress& p) {
         told = p.done;
         return p.done < 3;
       }});
  EXPECT_THROW(cancelled.fit(c.view(), c.labels, 3), Cancelled);
  EXPECT_EQ(told, 3);
  EXPECT_EQ(cancelled.size(), 0);
  const auto refused = [&](RandomForestClassifier::Options options) {
    EXPECT_THROW(RandomForestClassifier(options).fit(c.view(), c.labels, 3), ValueError);
  };
  refused({.n_estimators = 0});
  refused({.max_samples = 0});
  refused({.bootstrap = false, .oob_score = true});
  refused({.bootstrap = false, .class_weight = ClassWeight::balanced_subsample()});
  refused({.max_features = tree::MaxFeatures::count(7)});
  EXPECT_THROW(RandomForestRegressor({.class_weight = ClassWeight::balanced()}).fit(c.view(), c.y),
               ValueError);
}

TEST(RandomForest, SmallInput) {
  const std::vector<float> x(8, 2.0f);
  const std::vector<std::int32_t> y = {1, 0, 1, 1};
  RandomForestClassifier forest({.n_estimators = 50, .oob_score = true});
  forest.fit(Features(x.data(), {4, 2}), y, 2, {}, 3);  // constant columns
  std::vector<float> p(2);
  forest.predict_proba(Features(x.data(), {1, 2}), MatrixView<float>(p.data(), {1, 2}));
  EXPECT_NEAR(p[1], 0.75f, 0.1f);
  forest.fit(Features(x.data(), {1, 2}), std::span(y).first(1), 2);  // one row: none left out
  EXPECT_TRUE(std::isnan(forest.oob_decision_function()[0]));
  EXPECT_EQ(forest.oob_score(), 0.0);
  EXPECT_THROW(
      forest.predict_proba(Features(x.data(), {1, 1}), MatrixView<float>(p.data(), {1, 2})),
      ShapeError);
}

TEST(RandomForest, LeftOutRowsCountByTheirWeight) {
  Clouds c(200, 12);
  RandomForestClassifier forest({.n_estimators = 15, .oob_score = true});
  forest.fit(c.view(), c.labels, 3, {}, 1);
  Clouds more = c;
  for (int i = 0; i < 100; ++i) {  // rows of weight 0, all wrong
    more.x.insert(more.x.end(), c.x.begin(), c.x.begin() + 6);
    more.labels.push_back((c.labels[0] + 1) % 3);
    more.y.push_back(100.0f);
  }
  more.rows = 300;
  std::vector<float> w(300, 1.0f);
  std::fill(w.begin() + 200, w.end(), 0.0f);
  RandomForestClassifier same({.n_estimators = 15, .oob_score = true});
  RandomForestRegressor numbers({.n_estimators = 15, .oob_score = true});
  same.fit(more.view(), more.labels, 3, w, 1);
  numbers.fit(more.view(), more.y, w, 1);
  EXPECT_EQ(forest.oob_score(), same.oob_score());
  double mean = 0, known = 0, error = 0, spread = 0;
  const auto each = [&](const auto& use) {
    for (std::size_t r = 0; r < 200; ++r) {
      const double said = numbers.oob_prediction()[r];
      if (!std::isnan(said)) use(static_cast<double>(c.y[r]), said);
    }
  };
  each([&](double y, double) {
    mean += y;
    known += 1;
  });
  each([&](double y, double said) {
    error += (y - said) * (y - said);
    spread += (y - mean / known) * (y - mean / known);
  });
  EXPECT_NEAR(numbers.oob_score(), 1 - error / spread, 1e-12);
}

TEST(RandomForest, RefusesWhatNoFileHolds) {
  const Clouds c(20, 13);
  RandomForestClassifier forest({.n_estimators = 2});
  EXPECT_THROW(forest.fit(c.view(), c.labels, 70001), ValueError);
  EXPECT_THROW(forest.fit(c.view(), c.labels, 3, std::vector<float>(20, 1e38f)), ValueError);
  forest.fit(c.view(), c.labels, 3);
  EXPECT_THROW((void)forest.tree(2), ValueError);
  EXPECT_THROW((void)forest.tree(-1), ValueError);
  RandomForestRegressor steep({.n_estimators = 2}), back;  // gains beyond a float's range
  std::vector<float> y = c.y;
  for (float& v : y) v *= 1e30f;
  steep.fit(c.view(), y);
  ArchiveWriter out("box");
  ensemble::save_member(out, "model", steep);
  EXPECT_NO_THROW(ensemble::load_member(ArchiveReader(out.bytes()), "model", back));
}

TEST(RandomForest, Saves) {
  const Clouds c(150, 10);
  const std::string path = testing::TempDir() + "quern_random_forest.quern";
  RandomForestClassifier forest({.n_estimators = 7}), loaded;
  forest.fit(c.view(), c.labels, 3);
  ensemble::save_learner(forest, path);
  ensemble::load_learner(loaded, path);
  EXPECT_EQ(probabilities(forest, c), probabilities(loaded, c));
  EXPECT_EQ(forest.feature_importances(), loaded.feature_importances());
  ExtraTreesClassifier other;
  EXPECT_THROW(ensemble::load_learner(other, path), ParseError);
  std::remove(path.c_str());
}

}  // namespace
}  // namespace quern::test::random_forest
