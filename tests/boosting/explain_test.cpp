// SPDX-License-Identifier: Apache-2.0

/// \file
/// Explaining models: what boosting adds to the trees. XGBoost's values are in tests/io.

#include "quern/boosting/explain.hpp"
#include "quern/boosting/predictor.hpp"
#include "quern/core/nd_array.hpp"

#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

#include <gtest/gtest.h>

#include "sample_model.hpp"

namespace quern::test::explain {
namespace {

using boosting::Explainer;

const float nan = std::numeric_limits<float>::quiet_NaN();
const std::vector<float> x = {0.05f, 1, 1, 0.2f, nan, 33, nan, 2, nan, 5, -1, 2};

TEST(Explain, SumsToTheMarginOfTheRoundsUsed) {
  boosting::Model m = sample_model();
  const Explainer explainer(m);
  const boosting::Predictor predictor(m);
  const MatrixView<const float> view(x.data(), {4, 3});
  NdArray<double, 3> values({4, 2, 4});
  NdArray<double, 4> pairs({4, 2, 4, 4});
  NdArray<double, 2> margins({4, 2});
  for (const std::int64_t rounds : {-1, 0, 1, 2}) {
    explainer.shap_values(view, values.view(), {.rounds = rounds});
    boosting::shap_interactions(explainer, view, pairs.view(), {.rounds = rounds});
    predictor.margins(view, margins.view(), {.rounds = rounds});
    for (std::int64_t r = 0; r < 4; ++r) {
      for (std::int64_t k = 0; k < 2; ++k) {
        double sum = 0;
        for (std::int64_t f = 0; f < 4; ++f) {
          sum += values(r, k, f);
          double row = 0;
          for (std::int64_t g = 0; g < 4; ++g) row += pairs(r, k, f, g);
          EXPECT_NEAR(row, values(r, k, f), 1e-14);
        }
        EXPECT_NEAR(sum, margins(r, k), 1e-14);
        EXPECT_EQ(values(r, k, 1), 0.0);
      }
    }
  }
  EXPECT_THROW(explainer.shap_values(view, values.view(), {.rounds = 3}), ValueError);
}

TEST(Explain, LinearModelsByTheirWeights) {
  boosting::Model m;
  m.features = 3;
  m.outputs = 2;
  m.base_margin = {0.5, 0.25};
  m.linear_weights = {1, 2, 3, 4, 5, 6, 7, 8};
  NdArray<double, 3> values({4, 2, 4});
  boosting::shap_values(m, MatrixView<const float>(x.data(), {4, 3}), values.view());
  EXPECT_EQ(values(0, 1, 0), 2 * static_cast<double>(0.05f));
  EXPECT_EQ(values(1, 0, 1), 0.0);  // missing
  EXPECT_EQ(values(1, 0, 2), 5 * 33.0);
  EXPECT_EQ(values(2, 1, 3), 8.25);
  NdArray<double, 4> pairs({4, 2, 4, 4});
  boosting::shap_interactions(m, MatrixView<const float>(x.data(), {4, 3}), pairs.view());
  for (std::int64_t f = 0; f < 4; ++f) {
    for (std::int64_t g = 0; g < 4; ++g)
      EXPECT_EQ(pairs(3, 1, f, g), f == g ? values(3, 1, f) : 0.0);
  }
  EXPECT_THROW(boosting::shap_values(m, MatrixView<const float>(x.data(), {6, 2}), values.view()),
               ShapeError);
  EXPECT_THROW(boosting::shap_values(m, MatrixView<const float>(x.data(), {3, 3}), values.view()),
               ShapeError);
}

TEST(Explain, RefusesLinearLeaves) {
  boosting::Model m = sample_model();
  m.trees[1].linear.offsets.assign(m.trees[1].nodes.size() + 1, 0);
  m.trees[1].linear.constants.assign(m.trees[1].nodes.size(), 0.0);
  EXPECT_THROW(Explainer{m}, ValueError);
}

}  // namespace
}  // namespace quern::test::explain
