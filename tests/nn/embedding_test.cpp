// SPDX-License-Identifier: Apache-2.0

/// \file
/// Embeddings: rows, gradients, padding, numbers that are no rows.

#include "quern/nn/embedding.hpp"

#include "nn/gradients.hpp"

#include <gtest/gtest.h>

#include <limits>

namespace quern::test::nn_embedding {
namespace {

TEST(NnEmbedding, RowsAndGradients) {
  nn::Embedding<double> layer(5, 3, 2);
  nn::Tensor<double> x({2, 3});
  const double rows[] = {0, 4, 2, 4, 1, 0};
  std::copy(std::begin(rows), std::end(rows), x.span().begin());
  nn::Cache<double> cache;
  nn::Tensor<double> y(layer.output_shape(x.shape())), dx(x.shape());
  EXPECT_EQ(y.shape(), (nn::Extents{2, 3, 3}));
  layer.forward(x.view(), y.view(), cache, nn::Mode::training);
  for (Index i = 0; i < 6; ++i) {
    for (Index k = 0; k < 3; ++k) {
      EXPECT_EQ(y[3 * i + k], layer.weight()[3 * static_cast<Index>(rows[i]) + k]);
    }
  }
  EXPECT_EQ(layer.weight()[6], 0) << "padding";
  const nn::Tensor<double> dy = random_tensor<double>(y.shape(), 2);
  nn::Gradients<double> g(nn::parameters_of<double>(layer));
  layer.backward(dy.view(), dx.view(), cache, g);
  for (std::size_t k = 0; k < 3; ++k) {
    const auto at = static_cast<Index>(k);
    EXPECT_EQ(g[0][k], dy[at] + dy[15 + at]);
    EXPECT_EQ(g[0][12 + k], dy[3 + at] + dy[9 + at]);
    EXPECT_EQ(g[0][6 + k], 0) << "padding has no gradient";
    EXPECT_EQ(g[0][9 + k], 0) << "a row that is not there";
    EXPECT_EQ(dx[at], 0);
  }
}

TEST(NnEmbedding, WrongInput) {
  EXPECT_THROW(nn::Embedding<float>(0, 3), ValueError);
  EXPECT_THROW(nn::Embedding<float>(4, 3, 4), ValueError);
  nn::Embedding<float> layer(4, 3);
  for (const float bad : {-1.F, 4.F, 1.5F, 1e30F, std::numeric_limits<float>::quiet_NaN()}) {
    nn::Tensor<float> x({1});
    x[0] = bad;
    EXPECT_THROW(static_cast<void>(nn::apply(layer, x.view())), ValueError) << bad;
  }
}

}  // namespace
}  // namespace quern::test::nn_embedding
