// SPDX-License-Identifier: Apache-2.0

#include "quern/ensemble/decision_tree.hpp"

#include "quern/ensemble/saving.hpp"

#include "../boosting/reference.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <cstdio>
#include <limits>
#include <string>
#include <vector>

namespace quern::test::decision_tree {
namespace {

using ensemble::ClassWeight;
using ensemble::DecisionTreeClassifier;
using ensemble::DecisionTreeRegressor;
using tree::Criterion;

/// The training data of tests/reference/trees.
struct Data {
  std::vector<float> x = reference_npy<float>("X");
  std::vector<float> filled = x;
  std::vector<float> y = reference_npy<float>("y_reg");
  std::vector<float> w = reference_npy<float>("w");
  std::vector<std::int32_t> labels;
  Data() {
    for (float& v : filled) v = v != v ? -9.0f : v;
    for (const float v : reference_npy<float>("y_mc"))
      labels.push_back(static_cast<std::int32_t>(v));
  }
  [[nodiscard]] ensemble::Features view(const std::vector<float>& of) const {
    return {of.data(), {static_cast<Index>(y.size()), 9}};
  }
};

const Data& data() {
  static const Data d;
  return d;
}
const ReferenceText& reference() {
  static const ReferenceText text("cart.txt");
  return text;
}

/// The same tree, whatever its nodes' numbers are.
void expect_same(const std::string& name, const tree::Tree& tree, std::int32_t node,
                 std::size_t at) {
  const auto of = [&](const char* key, std::size_t i) { return reference()[name + "." + key][i]; };
  const tree::Node& n = tree.node(node);
  const auto k = static_cast<std::size_t>(tree.outputs);
  for (std::size_t o = 0; o < k; ++o) {
    const double value =
        k == 1 ? n.value : tree.vector_values[static_cast<std::size_t>(node) * k + o];
    ASSERT_NEAR(value, of("value", at * k + o), 1e-6) << name << " node " << at;
  }
  ASSERT_EQ(n.is_leaf(), of("left", at) < 0) << name << " node " << at;
  if (n.is_leaf()) return;
  ASSERT_EQ(n.feature, of("feature", at)) << name << " node " << at;
  ASSERT_NEAR(n.threshold, of("threshold", at), 1e-12 * std::abs(n.threshold)) << name << at;
  expect_same(name, tree, n.left, static_cast<std::size_t>(of("left", at)));
  expect_same(name, tree, n.right, static_cast<std::size_t>(of("right", at)));
}

void expect_importances(const std::string& name, const std::vector<double>& importances) {
  const std::vector<double>& expected = reference()[name + ".importances"];
  ASSERT_EQ(importances.size(), expected.size());
  for (std::size_t f = 0; f < expected.size(); ++f)
    EXPECT_NEAR(importances[f], expected[f], 1e-9) << name << " feature " << f;
}

std::int32_t depth_of(const std::string& name) {
  return static_cast<std::int32_t>(reference()[name + ".max_depth"][0]);
}

void expect_classifier(const std::string& name, DecisionTreeClassifier::Options options,
                       bool missing = false, bool weighted = false) {
  const Data& d = data();
  if (options.max_depth == 0) options.max_depth = depth_of(name);
  DecisionTreeClassifier learner(options);
  learner.fit(d.view(missing ? d.x : d.filled), d.labels, 3,
              weighted ? std::span<const float>(d.w) : std::span<const float>());
  expect_same(name, learner.tree(), 0, 0);
  if (reference().has(name + ".importances"))
    expect_importances(name, learner.feature_importances());
}

void expect_regressor(const std::string& name, DecisionTreeRegressor::Options options,
                      bool missing = false, bool weighted = false) {
  const Data& d = data();
  if (options.max_depth == 0) options.max_depth = depth_of(name);
  DecisionTreeRegressor learner(options);
  learner.fit(d.view(missing ? d.x : d.filled), d.y,
              weighted ? std::span<const float>(d.w) : std::span<const float>());
  expect_same(name, learner.tree(), 0, 0);
  if (reference().has(name + ".importances"))
    expect_importances(name, learner.feature_importances());
}

TEST(DecisionTree, ClassesAreScikitLearns) {
  expect_classifier("gini", {.min_samples_split = 20, .min_samples_leaf = 6});
  expect_classifier("gini_missing", {.min_samples_leaf = 9}, true);
  expect_classifier("entropy_weights", {.criterion = Criterion::entropy, .min_samples_leaf = 7},
                    false, true);
  expect_classifier("gini_balanced",
                    {.min_samples_leaf = 6, .class_weight = ClassWeight::balanced()}, true, true);
  expect_classifier("gini_best_first", {.min_samples_leaf = 5, .max_leaf_nodes = 11});
  expect_classifier("gini_limits",
                    {.min_weight_fraction_leaf = 0.04, .min_impurity_decrease = 0.004}, true, true);
  expect_classifier("gini_ccp", {.min_samples_leaf = 6, .ccp_alpha = 0.006});
}

TEST(DecisionTree, NumbersAreScikitLearns) {
  expect_regressor("mse", {.min_samples_leaf = 4});
  expect_regressor("mse_missing", {.min_samples_leaf = 4}, true, true);
  expect_regressor("mse_best_first", {.min_samples_leaf = 4, .max_leaf_nodes = 13}, true);
  expect_regressor("mae", {.criterion = Criterion::absolute_error, .min_samples_leaf = 8});
  expect_regressor("mae_weights", {.criterion = Criterion::absolute_error, .min_samples_leaf = 8},
                   false, true);
  expect_regressor("mse_ccp", {.min_samples_leaf = 4, .ccp_alpha = 0.02});
}

/// Of these trees one split is as good by three features, and scikit-learn drew one: the nodes
/// differ there, the training rows that they hold do not.
void expect_same_values(const std::string& name, DecisionTreeRegressor::Options options) {
  const Data& d = data();
  DecisionTreeRegressor learner(options);
  learner.fit(d.view(d.filled), d.y);
  std::vector<float> got(d.y.size());
  learner.predict(d.view(d.filled), std::span<float>(got));
  const auto of = [&](const char* key, std::size_t i) { return reference()[name + "." + key][i]; };
  for (std::size_t r = 0; r < got.size(); ++r) {
    std::size_t at = 0;
    while (of("left", at) >= 0) {
      const auto x =
          static_cast<double>(d.filled[9 * r + static_cast<std::size_t>(of("feature", at))]);
      at = static_cast<std::size_t>(of(x <= of("threshold", at) ? "left" : "right", at));
    }
    EXPECT_NEAR(static_cast<double>(got[r]), of("value", at), 1e-6) << name << " row " << r;
  }
}

TEST(DecisionTree, StoredTrees) {
  expect_classifier("sk_gini", {.max_depth = 4});
  expect_classifier("sk_entropy",
                    {.criterion = Criterion::entropy, .max_depth = 4, .min_samples_leaf = 4});
  expect_same_values("sk_mse", {.max_depth = 4});
  expect_same_values("sk_mse_ccp", {.max_depth = 99, .ccp_alpha = 0.02});
}

TEST(DecisionTree, PruningPathIsScikitLearns) {
  const Data& d = data();
  const auto same = [](const std::string& name, const tree::PruningPath& path) {
    const auto& alphas = reference()[name + ".alphas"];
    ASSERT_EQ(path.ccp_alphas.size(), alphas.size()) << name;
    for (std::size_t i = 0; i < alphas.size(); ++i) {
      EXPECT_NEAR(path.ccp_alphas[i], alphas[i], 1e-10) << name << i;
      EXPECT_NEAR(path.impurities[i], reference()[name + ".impurities"][i], 1e-10) << name << i;
    }
  };
  same("mse_path", DecisionTreeRegressor({.min_samples_leaf = 4})
                       .cost_complexity_pruning_path(d.view(d.filled), d.y));
  same("gini_path", DecisionTreeClassifier({.min_samples_leaf = 6})
                        .cost_complexity_pruning_path(d.view(d.filled), d.labels, 3));
}

TEST(DecisionTree, PredictsWhatItsTreeSays) {
  const Data& d = data();
  DecisionTreeClassifier learner({.min_samples_leaf = 3});
  learner.fit(d.view(d.x), d.labels, 3);
  NdArray<float, 2> p({static_cast<Index>(d.y.size()), 3});
  learner.predict_proba(d.view(d.x), p.view());
  std::vector<std::int32_t> classes(d.y.size());
  learner.predict(d.view(d.x), classes);
  for (std::size_t r = 0; r < d.y.size(); ++r) {
    std::int32_t i = 0;
    while (!learner.tree().node(i).is_leaf()) {
      const tree::Node& n = learner.tree().node(i);
      const float v = d.x[r * 9 + static_cast<std::size_t>(n.feature)];
      i = learner.tree().next(n, static_cast<double>(v), v != v);
    }
    std::int32_t best = 0;
    for (std::int32_t c = 0; c < 3; ++c) {
      const auto at = static_cast<std::size_t>(3 * i + c);
      EXPECT_EQ(p(static_cast<Index>(r), c), static_cast<float>(learner.tree().vector_values[at]));
      if (learner.tree().vector_values[at] >
          learner.tree().vector_values[static_cast<std::size_t>(3 * i + best)])
        best = c;
    }
    EXPECT_EQ(classes[r], best);
  }
}

TEST(DecisionTree, WeightTwoIsTwoRowsAndZeroIsNone) {
  const Data& d = data();
  std::vector<float> x, w;
  std::vector<std::int32_t> y;
  for (std::size_t r = 0; r < d.y.size(); ++r) {
    w.push_back(static_cast<float>(r % 3));
    for (std::size_t copy = 0; copy < r % 3; ++copy) {
      y.push_back(d.labels[r]);
      x.insert(x.end(), d.x.begin() + static_cast<std::ptrdiff_t>(r * 9),
               d.x.begin() + static_cast<std::ptrdiff_t>(r * 9 + 9));
    }
  }
  DecisionTreeClassifier weighted, copied;
  weighted.fit(d.view(d.x), d.labels, 3, w);
  copied.fit(ensemble::Features(x.data(), {static_cast<Index>(y.size()), 9}), y, 3);
  EXPECT_EQ(weighted.tree().vector_values, copied.tree().vector_values);
}

TEST(DecisionTree, Saves) {
  const Data& d = data();
  const std::string path = testing::TempDir() + "quern_decision_tree.quern";
  DecisionTreeRegressor learner({.min_samples_leaf = 3}), loaded;
  learner.fit(d.view(d.x), d.y);
  ensemble::save_learner(learner, path);
  ensemble::load_learner(loaded, path);
  std::vector<float> a(d.y.size()), b(d.y.size());
  learner.predict(d.view(d.x), a);
  loaded.predict(d.view(d.x), b);
  EXPECT_EQ(a, b);
  EXPECT_EQ(loaded.feature_importances(), learner.feature_importances());
  DecisionTreeClassifier other;
  EXPECT_THROW(ensemble::load_learner(other, path), ParseError);
  std::remove(path.c_str());
}

TEST(DecisionTree, SmallAndBadInput) {
  const std::vector<float> x = {1, 2, 2, 2, 3, 2}, y = {1, 2, 4};
  const ensemble::Features three(x.data(), {3, 2}), one(x.data(), {1, 2}), no(x.data(), {0, 2});
  const std::vector<std::int32_t> labels = {0, 2, 2};
  DecisionTreeClassifier classes;
  classes.fit(three, labels, 3);  // class 1 does not occur
  NdArray<float, 2> p({3, 3});
  classes.predict_proba(three, p.view());
  EXPECT_EQ(p(0, 0), 1.0f);
  EXPECT_EQ(p(2, 2), 1.0f);
  EXPECT_EQ(p(2, 1), 0.0f);
  DecisionTreeRegressor numbers;
  numbers.fit(one, std::span<const float>(y).first(1));
  std::vector<float> out(3);
  numbers.predict(three, out);
  EXPECT_EQ(out, std::vector<float>(3, 1.0f));
  EXPECT_THROW(numbers.fit(no, {}), ShapeError);
  EXPECT_THROW(numbers.fit(three, std::span<const float>(y).first(2)), ShapeError);
  EXPECT_THROW(numbers.fit(three, y, std::vector<float>{1, -1, 1}), ValueError);
  EXPECT_THROW(numbers.fit(three, y, std::vector<float>{0, 0, 0}), ValueError);
  const std::vector<float> bad = {1, std::numeric_limits<float>::quiet_NaN(), 2};
  EXPECT_THROW(numbers.fit(three, bad), ValueError);
  EXPECT_THROW(classes.fit(three, labels, 2), ValueError);
  EXPECT_THROW(classes.fit(three, labels, 0), ValueError);
  EXPECT_THROW(
      DecisionTreeClassifier({.criterion = Criterion::squared_error}).fit(three, labels, 3),
      ValueError);
  EXPECT_THROW(
      DecisionTreeClassifier({.class_weight = ClassWeight::given({1, 0})}).fit(three, labels, 3),
      ShapeError);
  EXPECT_THROW(
      DecisionTreeClassifier({.class_weight = ClassWeight::given({0, 1, 0})}).fit(three, labels, 3),
      ValueError);
  EXPECT_THROW(DecisionTreeClassifier().predict_proba(three, p.view()), ValueError);
  EXPECT_EQ(classes.classes(), 3);  // as it was
}

}  // namespace
}  // namespace quern::test::decision_tree
