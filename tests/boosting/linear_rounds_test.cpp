// SPDX-License-Identifier: Apache-2.0

/// \file
/// gblinear: XGBoost's weights round by round and at the solution; sparse input, thread counts.

#include "quern/boosting/linear_rounds.hpp"

#include "quern/boosting/booster.hpp"

#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <limits>
#include <string>
#include <vector>

#include <gtest/gtest.h>

namespace quern::test::linear_rounds {
namespace {

using boosting::Booster;
using boosting::Options;

struct Reference {
  std::ifstream in{std::string(QUERN_TEST_REFERENCE_DIR) + "/boosting/gblinear.txt"};
  std::int64_t rows = 0, cols = 0;
  std::vector<float> x, reg, classes, weights;

  Reference() {
    in >> rows >> cols;
    x = read(rows * cols);
    reg = read(rows);
    classes = read(rows);
    weights = read(rows);
  }
  std::vector<float> read(std::int64_t n) {
    std::vector<float> out;
    std::string word;
    for (std::int64_t i = 0; i < n && in >> word; ++i)
      out.push_back(std::strtof(word.c_str(), nullptr));
    return out;
  }
  [[nodiscard]] tree::Dataset dataset(const std::string& objective) const {
    tree::Dataset d = tree::make_dataset(MatrixView<const float>(x.data(), {rows, cols}));
    d.labels = objective.starts_with("reg:") ? reg : classes;
    if (objective.starts_with("binary:")) {
      for (float& y : d.labels) y = y > 0 ? 1.0f : 0.0f;
    }
    d.weights = weights;
    return d;
  }
};

TEST(LinearRounds, XgboostsWeights) {
  Reference ref;
  ASSERT_EQ(ref.x.size(), static_cast<std::size_t>(ref.rows * ref.cols));
  Options o{.booster = "gblinear", .base_score = 0.5};
  int cases = 0;
  double rate = 0, lambda = 0;
  while (ref.in >> o.objective >> o.num_class >> o.num_round >> rate >> lambda >> o.reg_alpha >>
         o.feature_selector >> o.top_k) {
    o.learning_rate = rate;
    o.reg_lambda = lambda;
    const std::int32_t outputs = o.num_class;
    if (outputs == 1) o.num_class = 0;
    const std::vector<float> expected = ref.read((ref.cols + 1) * outputs);
    Booster b(o);
    b.fit(ref.dataset(o.objective));
    const std::vector<double>& got = b.model().linear_weights;
    ASSERT_EQ(got.size(), expected.size());
    for (std::size_t i = 0; i < got.size(); ++i)
      EXPECT_NEAR(got[i], static_cast<double>(expected[i]), 2e-4)
          << o.objective << ", " << o.feature_selector << ", " << o.num_round << " rounds, weight "
          << i;
    ++cases;
  }
  EXPECT_EQ(cases, 12);
}

/// The elastic net's optimum does not depend on the order of coordinates.
TEST(LinearRounds, AnyOrderFindsTheSameSolution) {
  const Reference ref;
  const tree::Dataset data = ref.dataset("reg:squarederror");
  Options o{.booster = "gblinear",
            .num_round = 300,
            .learning_rate = 0.5,
            .reg_lambda = 0.01,
            .reg_alpha = 0.1};
  Booster cyclic(o);
  cyclic.fit(data);
  o.seed = 9;
  for (const char* selector : {"shuffle", "random", "greedy", "thrifty"}) {
    o.feature_selector = selector;
    Booster other(o);
    other.fit(data);
    for (std::size_t i = 0; i < cyclic.model().linear_weights.size(); ++i)
      EXPECT_NEAR(cyclic.model().linear_weights[i], other.model().linear_weights[i], 1e-6)
          << selector;
  }
  EXPECT_NEAR(cyclic.model().linear_weights[2], 0, 1e-12);  // alpha holds it at nothing
}

TEST(LinearRounds, SparseInputAndAnyThreads) {
  const std::int64_t rows = 40000, cols = 6;  // several blocks
  Philox rng(3, "linear rounds test");
  std::vector<float> x(static_cast<std::size_t>(rows * cols)), y;
  std::vector<std::int64_t> offsets = {0};
  std::vector<std::int32_t> columns;
  std::vector<double> values;
  for (std::int64_t i = 0; i < rows; ++i) {
    for (std::int64_t j = 0; j < cols; ++j) {
      float& v = x[static_cast<std::size_t>(i * cols + j)];
      v = std::numeric_limits<float>::quiet_NaN();
      if (!rng.bernoulli(0.4)) continue;
      v = rng.normal<float>();
      columns.push_back(static_cast<std::int32_t>(j));
      values.push_back(static_cast<double>(v));
    }
    offsets.push_back(static_cast<std::int64_t>(columns.size()));
    y.push_back(rng.normal<float>());
  }
  Options o{.booster = "gblinear", .num_round = 3, .feature_selector = "shuffle", .nthread = 1};
  Booster dense(o), sparse(o);
  dense.fit(tree::make_dataset(MatrixView<const float>(x.data(), {rows, cols}), y));
  sparse.fit(tree::make_dataset(tree::CsrView<double>{offsets, columns, values, cols}, y));
  EXPECT_EQ(dense.model().linear_weights, sparse.model().linear_weights);
  for (const int threads : {2, 3}) {
    o.nthread = threads;
    Booster b(o);
    b.fit(tree::make_dataset(MatrixView<const float>(x.data(), {rows, cols}), y));
    EXPECT_EQ(b.model().linear_weights, dense.model().linear_weights);
  }
}

/// Of a single feature, too: XGBoost's greedy and thrifty would never step along it.
TEST(LinearRounds, ASingleFeatureIsLearnedByAnySelector) {
  const std::vector<float> x = {0, 1, 2, 3}, y = {1, 3, 5, 7};
  const tree::Dataset data = tree::make_dataset(MatrixView<const float>(x.data(), {4, 1}), y);
  for (const char* selector : {"cyclic", "shuffle", "random", "greedy", "thrifty"}) {
    Booster b({.booster = "gblinear", .num_round = 200, .feature_selector = selector});
    b.fit(data);
    EXPECT_NEAR(b.model().linear_weights[0], 2, 1e-4) << selector;
  }
}

TEST(LinearRounds, DefaultsAreThoseOfLinearBoosters) {
  const Reference ref;
  const tree::Dataset data = ref.dataset("reg:squarederror");
  Booster implied({.booster = "gblinear", .num_round = 3});
  Booster given({.booster = "gblinear", .num_round = 3, .learning_rate = 0.5, .reg_lambda = 0});
  EXPECT_EQ(implied.options().learning_rate, 0.5);
  implied.fit(data);
  given.fit(data);
  EXPECT_EQ(implied.model().linear_weights, given.model().linear_weights);
}

TEST(LinearRounds, EarlyStoppingKeepsTheBestWeightsAndTrainingGoesOn) {
  const Reference ref;
  const tree::Dataset data = ref.dataset("reg:squarederror");
  Options o{.booster = "gblinear",
            .num_round = 200,
            .learning_rate = 1,
            .reg_lambda = 0,
            .early_stopping_rounds = 2};
  Booster b(o);
  tree::Dataset other = data;
  for (float& label : other.labels) label = -label;  // gets worse as training goes on
  const auto& h = b.fit(data, {.eval_sets = {{"other", &other}}});
  EXPECT_EQ(h.curves[0].values.size(), static_cast<std::size_t>(h.best_round + 3));
  o.early_stopping_rounds = 0;
  o.num_round = static_cast<std::int32_t>(h.best_round + 1);
  Booster again(o);
  again.fit(data);
  EXPECT_EQ(b.model().linear_weights, again.model().linear_weights);
  again.fit(data, {.continue_training = true});
  Booster twice(
      {.booster = "gblinear", .num_round = 2 * o.num_round, .learning_rate = 1, .reg_lambda = 0});
  twice.fit(data);
  for (std::size_t i = 0; i < twice.model().linear_weights.size(); ++i)
    EXPECT_NEAR(twice.model().linear_weights[i], again.model().linear_weights[i], 1e-5);
  EXPECT_THROW(Booster(again.model(), {.num_round = 1}).fit(data, {.continue_training = true}),
               ValueError);
}

TEST(LinearRounds, CoordinateStepByHand) {
  using boosting::detail::coordinate_step;
  EXPECT_EQ(coordinate_step({-2, 4}, 0, 0, 0), 0.5);
  EXPECT_EQ(coordinate_step({-2, 4}, 0, 1, 0), 0.25);
  EXPECT_EQ(coordinate_step({-2, 4}, 0, 3, 0), 0);          // alpha holds it at 0
  EXPECT_EQ(coordinate_step({1.9, 4}, 0.5, 0.5, 0), -0.5);  // and stops it there
  EXPECT_EQ(coordinate_step({-2, 0}, 1, 0, 1), 0);          // nothing to see there
}

}  // namespace
}  // namespace quern::test::linear_rounds
