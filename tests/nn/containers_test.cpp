// SPDX-License-Identifier: Apache-2.0

/// \file
/// Residual and concatenating connections, shapes: gradients, names, shapes that do not fit.

#include "quern/nn/containers.hpp"

#include "nn/gradients.hpp"
#include "quern/nn/activation.hpp"
#include "quern/nn/linear.hpp"

#include <gtest/gtest.h>

#include <memory>

namespace quern::test::nn_containers {
namespace {

std::unique_ptr<nn::Layer<double>> block(Index in, Index out) {
  auto net = std::make_unique<nn::Sequential<double>>();
  net->emplace<nn::Linear<double>>(in, out);
  net->emplace<nn::Tanh<double>>();
  net->initialize(3);
  return net;
}

TEST(NnContainers, Gradients) {
  nn::Tensor<double> x = random_tensor<double>({3, 2, 4}, 1);
  nn::Residual<double> same(block(4, 4));
  check_gradients(same, x);
  nn::Residual<double> projected(block(4, 5), std::make_unique<nn::Linear<double>>(4, 5));
  check_gradients(projected, x);
  nn::SkipConcat<double> last(block(4, 3), -1);
  check_gradients(last, x);
  EXPECT_EQ(last.output_shape({3, 2, 4}), (nn::Extents{3, 2, 7}));
  nn::SkipConcat<double> middle(std::make_unique<nn::Tanh<double>>(), 1);
  check_gradients(middle, x);
  EXPECT_EQ(middle.output_shape({3, 2, 4}), (nn::Extents{3, 4, 4}));
  nn::Reshape<double> flatten, cut({2, -1}, 2);
  check_gradients(flatten, x);
  EXPECT_EQ(flatten.output_shape({3, 2, 4}), (nn::Extents{3, 8}));
  EXPECT_EQ(cut.output_shape({3, 2, 4}), (nn::Extents{3, 2, 2, 2}));
}

TEST(NnContainers, NamesAndClones) {
  nn::Residual<double> layer(block(4, 5), std::make_unique<nn::Linear<double>>(4, 5));
  const auto p = nn::parameters_of<double>(layer, "block.");
  ASSERT_EQ(p.size(), 4u);
  EXPECT_EQ(p[0].name, "block.inner.0.weight");
  EXPECT_EQ(p[3].name, "block.shortcut.bias");
  const auto copy = layer.clone();
  p[0].values[0] += 1;
  EXPECT_NE(nn::parameters_of(*copy)[0].values[0], p[0].values[0]);
}

TEST(NnContainers, WrongInput) {
  nn::Residual<double> residual(block(4, 5));
  EXPECT_THROW(static_cast<void>(residual.output_shape({3, 4})), ShapeError);
  nn::SkipConcat<double> skip(block(4, 3), 1);
  EXPECT_THROW(static_cast<void>(skip.output_shape({3, 2, 4})), ShapeError);
  EXPECT_THROW(nn::SkipConcat<double>(nullptr), ValueError);
  EXPECT_THROW(nn::Reshape<double>({-1, -1}), ValueError);
  nn::Reshape<double> cut({3, -1});
  EXPECT_THROW(static_cast<void>(cut.output_shape({2, 4})), ShapeError);
}

}  // namespace
}  // namespace quern::test::nn_containers
