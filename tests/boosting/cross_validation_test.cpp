// SPDX-License-Identifier: Apache-2.0

/// \file
/// Metrics over folds: against training by hand on gathered rows; dense and sparse.

#include "quern/boosting/cross_validation.hpp"

#include "quern/boosting/booster.hpp"

#include <cmath>
#include <cstdint>
#include <limits>
#include <set>
#include <string>
#include <vector>

#include <gtest/gtest.h>

namespace quern::test::cross_validation {
namespace {

using boosting::cross_validate;
using boosting::Options;

struct Data {
  Eigen::MatrixXf x;
  Eigen::VectorXf y;

  explicit Data(std::int64_t rows) : x(rows, 4), y(rows) {
    Philox rng(4, "cross validation test");
    for (std::int64_t i = 0; i < rows; ++i) {
      for (int j = 0; j < 4; ++j) x(i, j) = rng.normal<float>();
      y(i) = x(i, 0) + 0.5f * rng.normal<float>() > 0.8f ? 1.0f : 0.0f;
    }
  }
  [[nodiscard]] tree::Dataset dataset() const { return tree::make_dataset(x, y); }
};

TEST(CrossValidation, IsTrainingByHandOnTheOtherRows) {
  const Data data(300);
  const tree::Dataset d = data.dataset();
  const Options o{.objective = "binary:logistic",
                  .num_round = 8,
                  .max_depth = 3,
                  .eval_metric = {"error", "logloss"}};
  const auto cv = cross_validate(o, d, {.folds = 3, .stratified = true, .keep_models = true});
  ASSERT_EQ(cv.curves.size(), 4u);
  EXPECT_EQ(cv.curves[3].set, "test");
  EXPECT_EQ(cv.curves[3].metric, "logloss");
  std::vector<double> last;
  for (const Fold& fold : cv.folds) {
    const tree::RowSubset test(d, fold);
    const tree::RowSubset train(d, other_rows(fold, 300));
    boosting::Booster b(o);
    b.fit(train.data());
    const auto p = b.predict(test.data());
    last.push_back(boosting::logloss({p.data(), fold.size()}, 1, {test.data().labels, {}}));
  }
  const double mean = (last[0] + last[1] + last[2]) / 3;
  EXPECT_NEAR(cv.curves[3].mean.back(), mean, 1e-6);
  double squares = 0;
  for (const double v : last) squares += (v - mean) * (v - mean);
  EXPECT_NEAR(cv.curves[3].sd.back(), std::sqrt(squares / 3), 1e-6);
  EXPECT_EQ(cv.models.size(), 3u);
}

TEST(CrossValidation, StopsWhereTheMeanIsBest) {
  const Data data(200);
  const tree::Dataset d = data.dataset();
  Options o{.objective = "binary:logistic", .num_round = 40, .learning_rate = 0.8};
  const auto all = cross_validate(o, d);
  o.early_stopping_rounds = 5;
  const auto stopped = cross_validate(o, d);
  ASSERT_GE(stopped.best_round, 0);
  EXPECT_LT(stopped.best_round, 39);
  ASSERT_EQ(stopped.curves[1].mean.size(), static_cast<std::size_t>(stopped.best_round + 1));
  EXPECT_EQ(stopped.curves[1].mean.back(),
            all.curves[1].mean[static_cast<std::size_t>(stopped.best_round)]);
}

TEST(CrossValidation, SparseGroupsAndRefusals) {
  const Data data(90);
  std::vector<std::int64_t> offsets = {0};
  std::vector<std::int32_t> columns;
  std::vector<float> values;
  for (Index i = 0; i < 90; ++i) {
    for (Index j = 0; j < 4; ++j) {
      columns.push_back(static_cast<std::int32_t>(j));
      values.push_back(data.x(i, j));
    }
    offsets.push_back(static_cast<std::int64_t>(columns.size()));
  }
  tree::Dataset sparse = tree::make_dataset(tree::CsrView<float>{offsets, columns, values, 4});
  tree::Dataset dense = data.dataset();
  sparse.labels = dense.labels;
  sparse.weights.assign(90, 2.0f);
  dense.weights.assign(90, 2.0f);
  const Options o{.num_round = 3, .max_depth = 2};
  const auto a = cross_validate(o, dense), b = cross_validate(o, sparse);
  EXPECT_EQ(a.curves[1].mean, b.curves[1].mean);
  EXPECT_EQ(a.curves[1].sd, b.curves[1].sd);

  dense.group_offsets = {0, 20, 20, 50, 60, 90};
  const auto grouped = cross_validate(o, dense, {.folds = 2});
  std::set<std::int32_t> tested;
  for (const Fold& fold : grouped.folds) tested.insert(fold.begin(), fold.end());
  EXPECT_EQ(tested.size(), 90u);
  const std::vector<std::int32_t> half = {0, 1, 2};
  EXPECT_THROW(tree::RowSubset(dense, half), ShapeError);
  std::vector<std::int32_t> group;
  for (int i = 50; i < 60; ++i) group.push_back(i);
  EXPECT_EQ(tree::RowSubset(dense, group).data().group_offsets, (std::vector<std::int64_t>{0, 10}));
  EXPECT_THROW((void)cross_validate(o, dense, {.folds = 1}), ValueError);
  EXPECT_THROW((void)cross_validate(o, sparse, {.given_folds = {{1}, {90}}}), ValueError);
  EXPECT_THROW((void)cross_validate(o, sparse, {.given_folds = {{1}, {}}}), ShapeError);
  EXPECT_THROW((void)cross_validate(o, sparse, {.groups = {1, 2}}), ShapeError);
  EXPECT_THROW((void)cross_validate(o, sparse, {.progress = [](const Progress&) { return false; }}),
               Cancelled);
}

}  // namespace
}  // namespace quern::test::cross_validation
