// SPDX-License-Identifier: Apache-2.0

/// \file
/// Linear layers: values, gradients, threads, both scalars.

#include "quern/nn/linear.hpp"

#include "nn/gradients.hpp"

#include <gtest/gtest.h>

namespace quern::test::nn_linear {
namespace {

TEST(NnLinear, Gradients) {
  nn::Linear<double> with(5, 3), without(5, 3, false);
  nn::Tensor<double> x = random_tensor<double>({2, 4, 5}, 2);
  check_gradients(with, x);
  check_gradients(without, x);
}

TEST(NnLinear, ValuesInFloat) {
  nn::Linear<float> layer(3, 2);
  layer.initialize(9);
  const nn::Tensor<float> x = random_tensor<float>({4, 3}, 2);
  const nn::Tensor<float> y = nn::apply(layer, x.view());
  for (Index i = 0; i < 4; ++i) {
    for (Index j = 0; j < 2; ++j) {
      double sum = static_cast<double>(layer.bias()[j]);
      for (Index k = 0; k < 3; ++k) {
        sum += static_cast<double>(x[3 * i + k]) * static_cast<double>(layer.weight()[3 * j + k]);
      }
      EXPECT_NEAR(y[2 * i + j], sum, 1e-6);
    }
  }
}

TEST(NnLinear, SameBitsForAnyThreads) {
  nn::Linear<float> layer(70, 90);
  check_threads(layer, random_tensor<float>({5000, 70}, 2));
}

TEST(NnLinear, WrongSizes) {
  EXPECT_THROW(nn::Linear<float>(0, 3), ValueError);
  EXPECT_THROW(nn::Linear<float>(3, -1), ValueError);
}

}  // namespace
}  // namespace quern::test::nn_linear
