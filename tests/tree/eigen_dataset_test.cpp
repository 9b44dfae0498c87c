// SPDX-License-Identifier: Apache-2.0

/// \file
/// Data sets on Eigen's matrices: no copy, no temporaries.

#include "quern/tree/eigen_dataset.hpp"

#include <gtest/gtest.h>

#include <Eigen/Core>

#include <utility>
#include <variant>
#include <vector>

namespace quern::test::eigen_dataset {
namespace {

using tree::Dataset;

template <class T>
class EigenDataset : public ::testing::Test {};
using Scalars = ::testing::Types<float, double>;
TYPED_TEST_SUITE(EigenDataset, Scalars);

TYPED_TEST(EigenDataset, ViewsEitherOrderWithoutCopy) {
  using T = TypeParam;
  Eigen::Matrix<T, 3, 2> by_column;
  Eigen::Matrix<T, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor> by_row(3, 2);
  const Eigen::VectorXi labels = Eigen::VectorXi::LinSpaced(3, 0, 2);
  const Dataset a = tree::make_dataset(by_column, labels);
  const Dataset b = tree::make_dataset(by_row);
  const Dataset c = tree::make_dataset(by_row.bottomRows(2), {1.0f, 2.0f});
  const auto& va = std::get<MatrixView<const T>>(a.features);
  const auto& vb = std::get<MatrixView<const T>>(b.features);
  EXPECT_EQ(va.data(), by_column.data());
  EXPECT_EQ(va.col_stride(), 3);
  EXPECT_EQ(vb.data(), by_row.data());
  EXPECT_EQ(vb.row_stride(), 2);
  EXPECT_EQ(a.labels, (std::vector<float>{0, 1, 2}));
  EXPECT_EQ(c.rows(), 2);
  EXPECT_EQ(c.cols(), 2);
  a.check("f");
  c.check("f");
}

template <class M>
concept CanMake = requires(M&& m) {
  tree::make_dataset(std::forward<M>(m));
};

TEST(EigenDataset, RefusesTemporaryMatrices) {
  static_assert(CanMake<Eigen::MatrixXf&>);
  static_assert(CanMake<const Eigen::MatrixXd&>);
  static_assert(CanMake<Eigen::Map<Eigen::MatrixXf>>);
  static_assert(!CanMake<Eigen::MatrixXf>);
  static_assert(!CanMake<Eigen::ArrayXXd>);
}

}  // namespace
}  // namespace quern::test::eigen_dataset
