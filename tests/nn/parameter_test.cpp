// SPDX-License-Identifier: Apache-2.0

/// \file
/// Gradients of parameters: their memory, and the parts that children get.

#include "quern/nn/parameter.hpp"
#include "quern/nn/linear.hpp"
#include "quern/nn/sequential.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>

namespace quern::test::nn_parameter {
namespace {

TEST(NnParameter, GradientsAreZerosOfEachParametersSizeOnLinesOfTheirOwn) {
  nn::Linear<float> layer(3, 5);
  nn::Gradients<float> gradients(nn::parameters_of<float>(layer));
  ASSERT_EQ(gradients.size(), 2U);
  EXPECT_EQ(gradients[0].size(), 15U);
  EXPECT_EQ(gradients[1].size(), 5U);
  for (std::size_t k = 0; k < 2; ++k) {
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(gradients[k].data()) % 64, 0U);
    EXPECT_EQ(std::count(gradients[k].begin(), gradients[k].end(), 0.0F),
              static_cast<std::ptrdiff_t>(gradients[k].size()));
  }
}

TEST(NnParameter, PartsAreAChildsAndStayInside) {
  nn::Sequential<float> net;
  net.emplace<nn::Linear<float>>(3, 4);
  net.emplace<nn::Linear<float>>(4, 2);
  nn::Gradients<float> gradients(nn::parameters_of<float>(net));
  const nn::GradientsView<float> all = gradients;
  ASSERT_EQ(all.size(), 4U);
  EXPECT_EQ(all.part(2, 2)[1].data(), gradients[3].data());
  EXPECT_EQ(all.part(4, 0).size(), 0U);
  EXPECT_THROW(static_cast<void>(all.part(3, 2)), ShapeError);
  EXPECT_THROW(static_cast<void>(all.part(5, 0)), ShapeError);
  EXPECT_TRUE(nn::GradientsView<float>().part(3, 2).null());
}

TEST(NnParameter, TooFewGradientsAreNamed) {
  nn::Sequential<float> net, other;
  net.emplace<nn::Linear<float>>(3, 4);
  net.emplace<nn::Linear<float>>(4, 2);
  other.emplace<nn::Linear<float>>(3, 4);
  nn::Gradients<float> gradients(nn::parameters_of<float>(other));
  nn::Tensor<float> x({2, 3}), y({2, 2});
  nn::Cache<float> cache;
  net.forward(x.view(), y.view(), cache, nn::Mode::training);
  EXPECT_THROW(net.backward(y.view(), {}, cache, gradients), ShapeError);
}

}  // namespace
}  // namespace quern::test::nn_parameter
