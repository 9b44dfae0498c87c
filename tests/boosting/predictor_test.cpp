// SPDX-License-Identifier: Apache-2.0

/// \file
/// The predictor of a model: rounds, names, base margins of the data, single rows.

#include "quern/boosting/predictor.hpp"

#include <cstdint>
#include <limits>
#include <span>
#include <vector>

#include <gtest/gtest.h>

#include "sample_model.hpp"

namespace quern::test::predictor {
namespace {

constexpr float nan = std::numeric_limits<float>::quiet_NaN();
const std::vector<float> rows = {0, 0,        0, /**/ 1, 0,      33, /**/ 1, 0,
                                 2, /**/ nan, 0, nan,    /**/ 1, 0,  nan};

std::vector<double> margins(const boosting::Predictor& p, const boosting::PredictOptions& options) {
  std::vector<double> out(10);
  p.margins(MatrixView<const float>(rows.data(), {5, 3}), MatrixView<double>(out.data(), {5, 2}),
            options);
  return out;
}

TEST(Predictor, UsesTheBestRoundUnlessTold) {
  const boosting::Predictor p(sample_model());
  // Round 0: leaves 1 and 2 with weights 1 and 1/2; round 1: 3 and 4 with 1/3 and 1/4.
  EXPECT_EQ(margins(p, {})[0], 0.1 + 1.0);
  EXPECT_EQ(margins(p, {})[1], -0.2 + 0.5 * 2.0);
  EXPECT_EQ(margins(p, {.rounds = 2})[0], 0.1 + 1.0 + 1.0 / 3 * 3.0);
  EXPECT_EQ(margins(p, {.rounds = 0})[0], 0.1);
  EXPECT_THROW(margins(p, {.rounds = 3}), ValueError);
  EXPECT_THROW(margins(p, {.rounds = -2}), ValueError);
}

TEST(Predictor, RoutesCategoriesAndMissing) {
  const boosting::Predictor p(sample_model());
  const std::vector<double> out = margins(p, {});
  EXPECT_EQ(out[2], 0.1 + 0.7);       // 33 is in the set: right
  EXPECT_EQ(out[4], 0.1 + -1.0 / 3);  // 2 is not: left
  EXPECT_EQ(out[6], 0.1 + 1.0);       // missing goes left at the root
  EXPECT_EQ(out[8], 0.1 + 0.7);       // and right at the other
}

TEST(Predictor, OneRowIsARowOfABatch) {
  const boosting::Predictor p(sample_model());
  const std::vector<double> batch = margins(p, {.rounds = 2});
  for (std::size_t r = 0; r < 5; ++r) {
    double one[2];
    p.margins_of_row(std::span<const float>(rows.data() + 3 * r, 3), std::span<double>(one), 2);
    EXPECT_EQ(one[0], batch[2 * r]);
    EXPECT_EQ(one[1], batch[2 * r + 1]);
  }
}

TEST(Predictor, LeavesAreNodesOfTheTrees) {
  const boosting::Predictor p(sample_model());
  std::vector<std::int32_t> out(20);
  p.leaves(MatrixView<const float>(rows.data(), {5, 3}),
           MatrixView<std::int32_t>(out.data(), {5, 4}), {.rounds = 2});
  EXPECT_EQ(out[0], 1);
  EXPECT_EQ(out[4], 4);
  EXPECT_EQ(out[8], 3);
}

TEST(Predictor, DataSetsBringNamesAndBaseMargins) {
  const boosting::Predictor p(sample_model());
  tree::Dataset data;
  data.features = MatrixView<const float>(rows.data(), {5, 3});
  std::vector<double> out(10);
  const MatrixView<double> view(out.data(), {5, 2});
  p.margins(data, view);
  EXPECT_EQ(out, margins(p, {}));
  data.base_margin.assign(10, 100.0f);
  p.margins(data, view);
  EXPECT_DOUBLE_EQ(out[0], 100 + 1.0);
  data.base_margin.pop_back();
  EXPECT_THROW(p.margins(data, view), ShapeError);
  data.base_margin.clear();
  data.feature_names = {"a", "b \"quoted\"", "d"};
  EXPECT_THROW(p.margins(data, view), ValueError);
  data.feature_names = {"a"};
  EXPECT_THROW(p.margins(data, view), ShapeError);
  data.feature_names.clear();
  data.features = MatrixView<const float>(rows.data(), {7, 2});
  EXPECT_THROW(p.margins(data, view), ShapeError);
}

TEST(Predictor, PredictionsAreMarginsThroughTheLink) {
  for (const char* objective : {"multi:softprob", "multi:softmax", "binary:logistic"}) {
    SCOPED_TRACE(objective);
    boosting::Model m = sample_model();
    m.objective = objective;
    const boosting::Predictor p(m);
    std::vector<float> expected(10);
    p.margins(std::span<const float>(rows), 5, std::span<float>(expected));
    const boosting::Link link = boosting::link_of(objective).value();
    boosting::apply_link(link, expected.data(), 5, 2);
    const auto k = static_cast<std::size_t>(p.prediction_outputs());
    EXPECT_EQ(k, link == boosting::Link::argmax ? 1U : 2U);
    expected.resize(5 * k);
    std::vector<float> out(5 * k), strided(20, -1);
    p.predict(std::span<const float>(rows), 5, std::span<float>(out));
    EXPECT_EQ(out, expected);
    const auto columns = static_cast<Index>(k);
    const MatrixView<float> view(strided.data() + 1, {5, columns}, {4, 2});
    p.predict(MatrixView<const float>(rows.data(), {5, 3}), view, {.threads = 2});
    for (std::size_t r = 0; r < 5; ++r) {
      std::vector<float> one(k);
      p.predict_row(std::span<const float>(rows.data() + 3 * r, 3), std::span<float>(one));
      for (std::size_t i = 0; i < k; ++i) {
        EXPECT_EQ(one[i], expected[r * k + i]);
        EXPECT_EQ(view(static_cast<Index>(r), static_cast<Index>(i)), expected[r * k + i]);
      }
    }
  }
}

TEST(Predictor, RefusesSpansThatDoNotFitAndUnknownLinks) {
  const boosting::Predictor p(sample_model());
  std::vector<float> out(10);
  const std::span<const float> x(rows);
  EXPECT_THROW(p.predict(x, 4, std::span<float>(out)), ShapeError);
  EXPECT_THROW(p.predict(x, -1, std::span<float>(out)), ShapeError);
  EXPECT_THROW(p.predict(x, 5, std::span<float>(out).first(9)), ShapeError);
  EXPECT_THROW(p.margins(x, 5, std::span<float>(out).first(9)), ShapeError);
  EXPECT_THROW(p.predict_row(x.first(3), std::span<float>(out).first(1)), ShapeError);
  boosting::Model m = sample_model();
  m.objective = "mine";
  const boosting::Predictor own(m);
  EXPECT_THROW(own.predict(x, 5, std::span<float>(out)), ValueError);
  EXPECT_NO_THROW(own.margins(x, 5, std::span<float>(out)));
}

TEST(Predictor, RefusesAModelThatIsNone) {
  boosting::Model m = sample_model();
  m.trees[0].node(0).left = 0;
  EXPECT_THROW(boosting::Predictor{m}, ParseError);
}

}  // namespace
}  // namespace quern::test::predictor
