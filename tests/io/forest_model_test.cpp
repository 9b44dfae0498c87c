// SPDX-License-Identifier: Apache-2.0

#include "quern/io/forest_model.hpp"

#include "quern/boosting/predictor.hpp"
#include "quern/ensemble/random_forest.hpp"
#include "quern/io/lightgbm_text.hpp"
#include "quern/io/xgboost_json.hpp"

#include <gtest/gtest.h>

#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <vector>

namespace quern::test::forest_model {
namespace {

/// The forest's probabilities come back out of both formats.
void expect_formats_hold(std::int32_t classes) {
  Philox rng(2, "forest model");
  std::vector<float> x;
  std::vector<std::int32_t> y;
  for (int r = 0; r < 120; ++r) {
    for (int f = 0; f < 4; ++f)
      x.push_back(rng.uniform() < 0.1 ? std::numeric_limits<float>::quiet_NaN()
                                      : rng.uniform<float>());
    y.push_back(static_cast<std::int32_t>(rng.integer(static_cast<std::uint64_t>(classes))));
  }
  const ensemble::Features view(x.data(), {120, 4});
  ensemble::RandomForestClassifier forest({.n_estimators = 6, .max_depth = 6});
  forest.fit(view, y, classes);
  std::vector<float> expected(static_cast<std::size_t>(120 * classes));
  forest.predict_proba(view, MatrixView<float>(expected.data(), {120, Index{classes}}));

  const boosting::Model model = io::forest_model(forest.forest());
  const Index outputs = classes == 2 ? 1 : classes;
  const auto check = [&](const boosting::Model& loaded) {
    std::vector<float> got(static_cast<std::size_t>(120 * outputs));
    boosting::Predictor(loaded).predict(view, MatrixView<float>(got.data(), {120, outputs}));
    for (std::size_t r = 0; r < 120; ++r) {
      for (std::size_t o = 0; o < static_cast<std::size_t>(outputs); ++o) {
        const std::size_t k = static_cast<std::size_t>(classes);
        EXPECT_NEAR(got[r * static_cast<std::size_t>(outputs) + o],
                    expected[r * k + (k == 2 ? 1 : o)], 2e-6f);
      }
    }
  };
  check(model);
  const std::string json = io::xgboost_json_text(model);
  check(io::xgboost_json_from_bytes(std::as_bytes(std::span(json))));
  check(io::lightgbm_from_text(io::lightgbm_text(model)));
}

TEST(ForestModel, FormatsHoldTheForest) {
  expect_formats_hold(2);
  expect_formats_hold(3);
}

TEST(ForestModel, WantsTrees) {
  EXPECT_THROW((void)io::forest_model(tree::CompactForest()), ValueError);
}

}  // namespace
}  // namespace quern::test::forest_model
