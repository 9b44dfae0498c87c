// SPDX-License-Identifier: Apache-2.0

/// \file
/// Tensors of run-time rank: shapes, views, slices, memory that is kept, wrong input.

#include "quern/nn/tensor.hpp"

#include <gtest/gtest.h>

#include <limits>
#include <vector>

namespace quern::test::nn_tensor {
namespace {

TEST(NnTensor, ViewsKnowTheirShape) {
  std::vector<float> memory(24);
  const nn::TensorView<float> x(memory.data(), {2, 3, 4});
  EXPECT_EQ(x.rank(), 3);
  EXPECT_EQ(x.size(), 24);
  EXPECT_EQ(x.extent(1), 3);
  EXPECT_EQ(x.extent(-1), 4);
  EXPECT_EQ(x.count(1, 3), 12);
  EXPECT_EQ(x.rows().rows(), 6);
  EXPECT_EQ(x.rows().cols(), 4);
  EXPECT_EQ(&(x.as<3>()(1, 2, 3)), memory.data() + 23);
  EXPECT_EQ(x.reshaped({4, 6}).extent(1), 6);
  const nn::TensorView<float> part = x.slice(1, 1);
  EXPECT_EQ(part.data(), memory.data() + 12);
  EXPECT_EQ(part.size(), 12);
  const nn::TensorView<const float> read = x;
  EXPECT_TRUE(nn::same_shape(read, x));
  EXPECT_TRUE(nn::overlaps(read, part));
  EXPECT_FALSE(nn::overlaps(x.slice(0, 1), part));
  EXPECT_TRUE(nn::TensorView<float>().null());
  EXPECT_EQ(nn::shape_text(x.extents()), "2 x 3 x 4");
}

TEST(NnTensor, ScalarsAndEmptyShapes) {
  float one = 3;
  const nn::TensorView<float> scalar(&one, {});
  EXPECT_EQ(scalar.size(), 1);
  EXPECT_EQ(scalar.rows().rows(), 1);
  EXPECT_EQ(nn::shape_text(scalar.extents()), "scalar");
  const nn::TensorView<float> none(nullptr, {0, 5});
  EXPECT_TRUE(none.empty());
  EXPECT_EQ(nn::Tensor<double>().size(), 0);
}

TEST(NnTensor, ResizeKeepsMemoryThatFits) {
  nn::Tensor<double> x({4, 5});
  for (const double value : x.span()) EXPECT_EQ(value, 0);
  const double* const memory = x.data();
  x.resize({10});
  EXPECT_EQ(x.data(), memory);
  EXPECT_EQ(x.size(), 10);
  x[3] = 7;
  nn::Tensor<double> copy = x.clone();
  EXPECT_EQ(copy[3], 7);
  EXPECT_NE(copy.data(), x.data());
  x.resize({20}, core::Fill::zero);
  EXPECT_EQ(x[3], 0);
}

TEST(NnTensor, WrongInput) {
  std::vector<float> memory(6);
  float* const at = memory.data();
  const nn::TensorView<float> x(at, {2, 3});
  EXPECT_THROW(nn::TensorView<float>(at, {-1, 3}), ShapeError);
  EXPECT_THROW(nn::TensorView<float>(nullptr, {1}), ShapeError);
  EXPECT_THROW(nn::TensorView<float>(at, {1, 1, 1, 1, 1, 1, 1}), ShapeError);
  const Index huge = (std::numeric_limits<Index>::max)() / 2;
  EXPECT_THROW(nn::TensorView<float>(at, {huge, huge}), ShapeError);
  EXPECT_THROW(static_cast<void>(x.reshaped({7})), ShapeError);
  EXPECT_THROW(static_cast<void>(x.as<3>()), ShapeError);
  EXPECT_THROW(static_cast<void>(x.slice(1, 2)), ShapeError);
  const NdView<float, 2> gaps(at, {2, 2}, {3, 1});
  EXPECT_THROW(nn::TensorView<float>{gaps}, ShapeError);
  EXPECT_NO_THROW(nn::TensorView<float>{x.as<2>()});
}

}  // namespace
}  // namespace quern::test::nn_tensor
