// SPDX-License-Identifier: Apache-2.0

/// \file
/// Dropout: shares, scaling, what it depends on.

#include "quern/nn/dropout.hpp"

#include "nn/gradients.hpp"

#include <gtest/gtest.h>

#include <vector>

namespace quern::test::nn_dropout {
namespace {

nn::Tensor<double> dropped(const nn::Context& context, Index rows) {
  nn::Dropout<double> layer(0.25);
  nn::Tensor<double> x({rows, 1000}), y({rows, 1000});
  std::fill(x.span().begin(), x.span().end(), 1.0);
  nn::Cache<double> cache;
  cache.context = context;
  layer.forward(x.view(), y.view(), cache, nn::Mode::training);
  return y;
}

TEST(NnDropout, ShareAndScale) {
  const nn::Tensor<double> y = dropped({.seed = 3}, 20);
  int zeros = 0;
  for (const double value : y.span()) {
    zeros += value == 0 ? 1 : 0;
    EXPECT_TRUE(value == 0 || value == 1 / 0.75);
  }
  EXPECT_NEAR(zeros, 5000, 250) << "four deviations of a binomial count";
}

TEST(NnDropout, DependsOnSeedStepAndRowAlone) {
  const nn::Tensor<double> whole = dropped({.seed = 3, .step = 2}, 4);
  const nn::Tensor<double> half = dropped({.seed = 3, .step = 2, .first_row = 2, .threads = 2}, 2);
  for (Index i = 0; i < half.size(); ++i) ASSERT_EQ(half[i], whole[2000 + i]);
  const nn::Tensor<double> later = dropped({.seed = 3, .step = 3}, 4);
  const nn::Tensor<double> other = dropped({.seed = 4, .step = 2}, 4);
  int same_later = 0, same_other = 0;
  for (Index i = 0; i < whole.size(); ++i) {
    same_later += later[i] == whole[i] ? 1 : 0;
    same_other += other[i] == whole[i] ? 1 : 0;
  }
  EXPECT_NEAR(same_later, 2500, 200);
  EXPECT_NEAR(same_other, 2500, 200);
}

TEST(NnDropout, GradientsAndInference) {
  nn::Dropout<double> layer(0.4), off(0);
  nn::Tensor<double> x = random_tensor<double>({4, 9}, 2);
  check_gradients(layer, x);
  check_gradients(off, x);
  const nn::Tensor<double> y = nn::apply(layer, x.view());
  for (Index i = 0; i < x.size(); ++i) EXPECT_EQ(y[i], x[i]);
  EXPECT_THROW(nn::Dropout<float>(1), ValueError);
  EXPECT_THROW(nn::Dropout<float>(-0.1), ValueError);
}

}  // namespace
}  // namespace quern::test::nn_dropout
