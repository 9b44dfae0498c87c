// SPDX-License-Identifier: Apache-2.0

/// \file
/// Views of Eigen expressions of both orders.

#include "quern/core/eigen_view.hpp"

#include <gtest/gtest.h>

#include <Eigen/Core>

#include <type_traits>
#include <vector>

namespace quern::test::eigen_view {
namespace {

using RowMajor = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

template <class Matrix>
class EigenView : public ::testing::Test {};
using Matrices = ::testing::Types<Eigen::MatrixXf, Eigen::MatrixXd, RowMajor, Eigen::Matrix3f,
                                  Eigen::ArrayXXd, Eigen::ArrayXXi>;
TYPED_TEST_SUITE(EigenView, Matrices);

TYPED_TEST(EigenView, SeesEveryElement) {
  TypeParam m = TypeParam::Random(3, 3);
  const TypeParam& reading = m;
  const auto v = quern::view(m);
  const auto c = quern::view(reading);
  static_assert(std::is_same_v<decltype(v), const MatrixView<typename TypeParam::Scalar>>);
  static_assert(std::is_same_v<decltype(c), const MatrixView<const typename TypeParam::Scalar>>);
  for (Index i = 0; i < 3; ++i) {
    for (Index j = 0; j < 3; ++j) {
      EXPECT_EQ(v(i, j), m(i, j));
      EXPECT_EQ(c(i, j), m(i, j));
      EXPECT_EQ(quern::view(m.block(1, 1, 2, 2))(i / 2, j / 2), m(1 + i / 2, 1 + j / 2));
      EXPECT_EQ(quern::view(m.row(i))(0, j), m(i, j));
      EXPECT_EQ(quern::view(m.col(j))(i, 0), m(i, j));
      EXPECT_EQ(quern::view(m.transpose())(j, i), m(i, j));
      EXPECT_EQ(quern::vector_view(m.row(i))(j), m(i, j));
      EXPECT_EQ(quern::vector_view(m.col(j))(i), m(i, j));
    }
  }
  quern::view(m.row(1))(0, 2) = 5;
  EXPECT_EQ(m(1, 2), 5);
}

template <class Derived>
auto through_dense_base(const Eigen::DenseBase<Derived>& x) {
  return quern::view(x);
}

TEST(EigenView, MapsRefsAndDenseBase) {
  std::vector<double> values(20, 0.5);
  const double* reading = values.data();
  using Strides = Eigen::Stride<Eigen::Dynamic, Eigen::Dynamic>;
  Eigen::Map<Eigen::MatrixXd, 0, Strides> map(values.data(), 2, 3, Strides(6, 2));
  EXPECT_EQ(quern::view(map).row_stride(), 2);
  EXPECT_EQ(quern::view(map).col_stride(), 6);
  Eigen::Map<const RowMajor> constant(reading, 4, 5);
  static_assert(std::is_same_v<decltype(quern::view(constant)), MatrixView<const double>>);
  EXPECT_EQ(quern::view(constant).row_stride(), 5);
  EXPECT_EQ(through_dense_base(constant.block(1, 1, 2, 2)).data(), reading + 6);
  Eigen::VectorXd vector = Eigen::VectorXd::LinSpaced(5, 0, 4);
  EXPECT_EQ(quern::vector_view(vector)(3), 3);
  EXPECT_THROW((void)quern::vector_view(constant), ShapeError);
  EXPECT_EQ(quern::view(Eigen::MatrixXd(0, 3)).cols(), 3);
  EXPECT_EQ(quern::view(vector.segment(1, 3).reverse().eval())(0, 0), 3);
}

}  // namespace
}  // namespace quern::test::eigen_view
