// SPDX-License-Identifier: Apache-2.0

#include "quern/boosting/permutation.hpp"

#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "sample_model.hpp"

namespace quern::test::permutation {
namespace {

using boosting::permutation_importance;
using boosting::PermutationImportance;

/// margin = 2 x_0 - x_2 of three features.
boosting::Model linear_model() {
  boosting::Model m;
  m.features = 3;
  m.linear_weights = {2, 0, -1, 0};
  return m;
}

struct Rows {
  std::vector<float> x;
  std::vector<float> labels;
  std::int64_t rows = 1300;

  Rows() {
    Philox random(3, "rows");
    for (std::int64_t r = 0; r < rows; ++r) {
      for (int f = 0; f < 3; ++f) x.push_back(random.normal<float>());
      const std::size_t at = static_cast<std::size_t>(3 * r);
      labels.push_back(2 * x[at] - x[at + 2]);
    }
  }
  [[nodiscard]] tree::Dataset set() const {
    return tree::make_dataset(MatrixView<const float>(x.data(), {rows, 3}), labels);
  }
};

TEST(Permutation, IsTheErrorThatAShuffleMakes) {
  const Rows rows;
  const PermutationImportance got =
      permutation_importance(linear_model(), rows.set(), "rmse", {.repeats = 8, .seed = 1});
  EXPECT_NEAR(got.score, 0, 1e-6);
  // Shuffling x moves w x by w times the difference of two normal numbers: sqrt(2) w on average.
  EXPECT_NEAR(got.mean[0], 2 * std::sqrt(2.0), 0.1);
  EXPECT_EQ(got.mean[1], 0.0);
  EXPECT_NEAR(got.mean[2], std::sqrt(2.0), 0.05);
  double mean = 0, squares = 0;
  for (std::int64_t i = 0; i < 8; ++i) mean += got.drops(0, i) / 8;
  for (std::int64_t i = 0; i < 8; ++i) squares += std::pow(got.drops(0, i) - mean, 2) / 8;
  EXPECT_DOUBLE_EQ(got.mean[0], mean);
  EXPECT_DOUBLE_EQ(got.deviation[0], std::sqrt(squares));
  EXPECT_GT(got.deviation[0], 0);
}

TEST(Permutation, HasItsSeedsBits) {
  const Rows rows;
  const auto drops = [&](std::uint64_t seed, int threads) {
    const PermutationImportance got = permutation_importance(
        linear_model(), rows.set(), "mae", {.repeats = 3, .seed = seed, .threads = threads});
    return std::vector<double>(got.drops.data(), got.drops.data() + got.drops.size());
  };
  const std::vector<double> one = drops(5, 1);
  EXPECT_EQ(one, drops(5, 2));
  EXPECT_EQ(one, drops(5, 3));
  EXPECT_NE(one, drops(6, 1));
}

/// Two classes told by the sign of feature 0 (0.5 where it is missing), from CSR.
TEST(Permutation, TakesSparseRowsAndAnyMetric) {
  boosting::Model m;
  m.objective = "binary:logistic";
  m.features = 40;
  m.tree_outputs = {0};
  m.trees.resize(1);
  m.trees[0].split(0);
  m.trees[0].node(0).feature = 7;
  m.trees[0].node(1).value = -3;
  m.trees[0].node(2).value = 3;
  std::vector<std::int64_t> offsets = {0};
  std::vector<std::int32_t> columns;
  std::vector<float> values, labels;
  for (int r = 0; r < 600; ++r) {
    if (r % 2 == 0) {
      columns.push_back(7);
      values.push_back(-1);
    }
    columns.push_back(30);
    values.push_back(1);
    offsets.push_back(static_cast<std::int64_t>(columns.size()));
    labels.push_back(r % 2 == 0 ? 0.0f : 1.0f);
  }
  const tree::CsrView<float> csr{offsets, columns, values, 40};
  const tree::Dataset data = tree::make_dataset(csr, labels);
  const PermutationImportance got = permutation_importance(m, data, "auc");
  EXPECT_EQ(got.score, 1.0);
  EXPECT_NEAR(got.mean[7], 0.5, 0.05);
  EXPECT_EQ(got.mean[30], 0.0);
  // A metric of one's own: the share of rows above 0.9.
  const auto sure = [](std::span<const float> p, std::int32_t, const boosting::Targets&) {
    double n = 0;
    for (const float q : p) n += q > 0.9f ? 1 : 0;
    return n / static_cast<double>(p.size());
  };
  const PermutationImportance own = permutation_importance(m, data, sure, true);
  EXPECT_EQ(own.score, 0.5);
  EXPECT_EQ(own.mean[7], 0.0);  // as many as before, only others
}

TEST(Permutation, KnowsSeveralOutputsAndBaseMargins) {
  const boosting::Model m = sample_model();
  const std::vector<float> x = {0.05f, 1, 1, 0.2f, 2, 0, 0.3f, 5, 1, -1, 5, 0};
  tree::Dataset data = tree::make_dataset(MatrixView<const float>(x.data(), {4, 3}), {0, 1, 0, 1});
  const double plain = permutation_importance(m, data, "mlogloss").score;
  for (int r = 0; r < 4; ++r) {
    data.base_margin.push_back(0.1f);
    data.base_margin.push_back(-0.2f);
  }
  EXPECT_NEAR(permutation_importance(m, data, "mlogloss").score, plain, 1e-6);
}

TEST(Permutation, NamesWhatIsWrong) {
  const Rows rows;
  const boosting::Model m = linear_model();
  tree::Dataset data = rows.set();
  EXPECT_THROW((void)permutation_importance(m, data, "rmse", {.repeats = 0}), ValueError);
  EXPECT_THROW((void)permutation_importance(m, data, "no such"), ValueError);
  EXPECT_THROW((void)permutation_importance(
                   m, data, "rmse", {.progress = [](const Progress& p) { return p.done < 1; }}),
               Cancelled);
  data.labels.clear();
  EXPECT_THROW((void)permutation_importance(m, data, "rmse"), ShapeError);
  data = tree::make_dataset(MatrixView<const float>(rows.x.data(), {6, 2}));
  EXPECT_THROW((void)permutation_importance(m, data, "rmse"), ShapeError);
}

}  // namespace
}  // namespace quern::test::permutation
