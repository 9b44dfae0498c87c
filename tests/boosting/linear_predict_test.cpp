// SPDX-License-Identifier: Apache-2.0

/// \file
/// Margins of linear models and of trees with linear leaves, by hand.

#include "quern/boosting/linear_predict.hpp"

#include "quern/boosting/predictor.hpp"

#include <cstdint>
#include <limits>
#include <span>
#include <vector>

#include <gtest/gtest.h>

#include "sample_model.hpp"

namespace quern::test::linear_predict {
namespace {

template <class T>
std::vector<T> rows_of_three() {
  const T nan = std::numeric_limits<T>::quiet_NaN();
  std::vector<T> x = {T(0.0), T(1.0), T(2.0), T(0.5), nan, T(-1.0), nan, T(0.25), T(0.0)};
  for (int i = 0; i < 3000; ++i) x.push_back(T(i % 13) / T(7) - T(0.5));
  return x;
}

/// Margins (rows, 2) of a batch; every single row must have the same bits.
template <class T>
std::vector<double> margins(const boosting::Model& model, const std::vector<T>& x) {
  const boosting::Predictor predictor(model);
  const auto rows = static_cast<std::int64_t>(x.size() / 3);
  const std::int64_t k = model.outputs;
  std::vector<double> out(static_cast<std::size_t>(rows * k)), one(static_cast<std::size_t>(k));
  const tree::FeatureView view = MatrixView<const T>(x.data(), {rows, std::int64_t{3}});
  predictor.margins(view, MatrixView<double>(out.data(), {rows, k}), {.threads = 2});
  for (std::int64_t r = 0; r < rows; ++r) {
    predictor.margins_of_row(std::span<const T>(x.data() + 3 * r, 3), std::span<double>(one));
    for (std::int64_t c = 0; c < k; ++c)
      EXPECT_EQ(one[static_cast<std::size_t>(c)], out[static_cast<std::size_t>(r * k + c)]);
  }
  return out;
}

template <class T>
class LinearPredict : public ::testing::Test {};
using Scalars = ::testing::Types<float, double>;
TYPED_TEST_SUITE(LinearPredict, Scalars);

TYPED_TEST(LinearPredict, MissingCountsAsZero) {
  const std::vector<double> m = margins(linear_sample_model(), rows_of_three<TypeParam>());
  EXPECT_EQ(m[0], 0.5 + 0.25 + 3 * 1 + 5 * 2);
  EXPECT_EQ(m[1], -0.5 + 0.125 + 4 * 1 + 6 * 2);
  EXPECT_EQ(m[2], 0.5 + 0.25 + 1 * 0.5 - 5);
  EXPECT_EQ(m[3], -0.5 + 0.125 + 2 * 0.5 - 6);
  EXPECT_EQ(m[4], 0.5 + 0.25 + 3 * 0.25);
}

TYPED_TEST(LinearPredict, LinearLeaves) {
  boosting::Model model;
  model.features = 3;
  model.trees = {linear_leaf_tree(), linear_leaf_tree()};
  model.tree_outputs = {0, 0};
  model.tree_weights = {1, 0.5};
  const std::vector<double> m = margins(model, rows_of_three<TypeParam>());
  EXPECT_EQ(m[0], 1.5 * (1 + 2 * 1 - 0));
  EXPECT_EQ(m[1], 1.5 * 3);
  EXPECT_EQ(m[2], 1.5 * 3);  // missing x_0 goes right, to the constant
  model.trees[0].node(0).default_left = true;
  EXPECT_EQ(margins(model, rows_of_three<TypeParam>())[2], 0.25 + 0.5 * 3);
}

TEST(LinearPredictCsr, WhatIsNotStoredCountsAsZero) {
  const std::vector<std::int64_t> offsets = {0, 1, 1, 3};
  const std::vector<std::int32_t> columns = {2, 0, 1};
  const std::vector<float> values = {2, 1, -1};
  const boosting::Predictor predictor(linear_sample_model());
  std::vector<double> out(6);
  predictor.margins(tree::FeatureView(tree::CsrView<float>{offsets, columns, values, 3}),
                    MatrixView<double>(out.data(), {3, 2}));
  EXPECT_EQ(out, (std::vector<double>{10.75, 11.625, 0.75, -0.375, -1.25, -2.375}));
  EXPECT_THROW(
      predictor.margins(tree::FeatureView(tree::CsrView<float>{offsets, columns, values, 4}),
                        MatrixView<double>(out.data(), {3, 2})),
      ShapeError);
}

}  // namespace
}  // namespace quern::test::linear_predict
