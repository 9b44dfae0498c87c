// SPDX-License-Identifier: Apache-2.0

#include "quern/boosting/booster.hpp"
#include "quern/core/random.hpp"
#include "quern/tree/paged_dataset.hpp"

#include <gtest/gtest.h>

#include <cstdint>
#include <limits>
#include <string>
#include <vector>

namespace quern::test::paged_training {
namespace {

using RowMajor = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

/// Rows, labels and weights, whole or in blocks of 777.
struct Rows {
  RowMajor x{6000, 7};
  tree::Dataset all;

  Rows() {
    Philox rng(8, "paged training");
    std::vector<float> labels, weights;
    for (std::int64_t i = 0; i < x.rows(); ++i) {
      for (std::int64_t j = 0; j < 7; ++j) x(i, j) = rng.normal<float>();
      if (rng.bernoulli(0.1)) x(i, 3) = std::numeric_limits<float>::quiet_NaN();
      const float t = x(i, 0) * x(i, 1) + x(i, 2);
      labels.push_back(t > 0.7f ? 2.0f : t > 0 ? 1.0f : 0.0f);
      weights.push_back(0.5f + rng.uniform<float>());
    }
    all = tree::make_dataset(x, std::move(labels));
    all.weights = std::move(weights);
  }

  [[nodiscard]] tree::RowBlocks blocks() const {
    return [this](std::int64_t number, tree::Dataset& block) {
      const std::int64_t begin = number * 777, end = (std::min)(begin + 777, std::int64_t{6000});
      if (begin >= end) return false;
      block.features = MatrixView<const float>(x.data() + begin * 7, {end - begin, 7});
      block.labels.assign(all.labels.begin() + begin, all.labels.begin() + end);
      block.weights.assign(all.weights.begin() + begin, all.weights.begin() + end);
      return true;
    };
  }
};

TEST(PagedTraining, GivesTheBitsOfTrainingInMemory) {
  const Rows rows;
  boosting::Options options{.objective = "multi:softprob", .num_round = 4};
  options.max_bin = 50;
  for (const double share : {1.0, 0.6}) {
    options.subsample = share;
    options.colsample_bynode = share;
    options.nthread = 1;
    boosting::Booster memory(options);
    memory.fit(rows.all, {.eval_train = true});
    const auto expected = memory.predict_margin(rows.all);
    for (const std::int64_t page : {500, 2048, 10000}) {
      options.nthread = page == 500 ? 3 : 2;
      const tree::PagedDataset paged =
          tree::page_rows(rows.blocks(), {.max_bin = 50, .page_rows = page});
      boosting::Booster booster(options);
      booster.fit(paged, {.eval_sets = {{"all", &rows.all}}, .eval_train = true});
      const auto got = booster.predict_margin(rows.all);
      for (std::int64_t i = 0; i < got.size(); ++i)
        ASSERT_EQ(got.data()[i], expected.data()[i]) << "page " << page << ", " << i;
      EXPECT_EQ(booster.history().curves[0].values, memory.history().curves[0].values);
    }
  }
}

TEST(PagedTraining, WhatNeedsValuesIsRefused) {
  const Rows rows;
  const tree::PagedDataset paged = tree::page_rows(rows.blocks());
  const auto refusal = [&](boosting::Options options, bool again = false) {
    options.num_round = 1;
    try {
      boosting::Booster booster(options);
      for (int times = again ? 2 : 1; times > 0; --times)
        booster.fit(paged, {.continue_training = again});
    } catch (const ValueError& e) {
      return std::string(e.what());
    }
    return std::string();
  };
  EXPECT_EQ(refusal({}), "");
  const char* booster = "booster: expected gbtree for rows in pages, got ";
  EXPECT_NE(refusal({.booster = "dart"}).find(booster + std::string("dart")), std::string::npos);
  EXPECT_NE(refusal({.booster = "gblinear"}).find(booster + std::string("gblinear")),
            std::string::npos);
  EXPECT_NE(refusal({.linear_tree = true}).find("linear_tree"), std::string::npos);
  EXPECT_NE(refusal({.tree_method = "exact"}).find("tree_method"), std::string::npos);
  EXPECT_NE(refusal({}, true).find("continue_training"), std::string::npos);
  const tree::RowBlocks blocks = rows.blocks();
  const auto categories = [&](std::int64_t number, tree::Dataset& block) {
    const bool more = blocks(number, block);
    block.feature_kinds.assign(7, tree::FeatureKind::categorical);
    return more;
  };
  EXPECT_THROW((void)tree::page_rows(categories), ValueError);
}

}  // namespace
}  // namespace quern::test::paged_training
