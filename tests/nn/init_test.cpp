// SPDX-License-Identifier: Apache-2.0

/// \file
/// Initial values: moments, bounds, orthogonality, the same draws for the same seed.

#include "quern/nn/init.hpp"

#include <gtest/gtest.h>

#include <cmath>

namespace quern::test::nn_init {
namespace {

struct Spread {
  double mean = 0, variance = 0, largest = 0;
};

Spread spread_of(const nn::Tensor<double>& w) {
  Spread s;
  const auto n = static_cast<double>(w.size());
  for (const double x : w.span()) {
    s.mean += x / n;
    s.variance += x * x / n;
    s.largest = (std::max)(s.largest, std::fabs(x));
  }
  return s;
}

/// 20,000 draws: a variance's deviation is about one in a hundred.
TEST(NnInit, Variances) {
  nn::Tensor<double> w({40, 50, 10});  // fans: in 500, out 400
  const Philox random(3, "init");
  const auto expect = [&](double variance, double bound) {
    const Spread s = spread_of(w);
    EXPECT_NEAR(s.mean, 0, 4 * std::sqrt(variance / 20000));
    EXPECT_NEAR(s.variance / variance, 1, 0.05);
    if (bound > 0) {
      EXPECT_LT(s.largest, bound);
      EXPECT_GT(s.largest, 0.99 * bound);
    }
  };
  nn::init::kaiming_uniform(w.view(), random);
  expect(2.0 / 500, std::sqrt(6.0 / 500));
  nn::init::kaiming_normal(w.view(), random, nn::init::gain_tanh, nn::init::Fan::out);
  expect(25.0 / 9 / 400, 0);
  nn::init::xavier_uniform(w.view(), random);
  expect(2.0 / 900, std::sqrt(6.0 / 900));
  nn::init::xavier_normal(w.view(), random, 2);
  expect(8.0 / 900, 0);
  nn::init::pytorch_default(w.view(), {}, 3, "layer.");
  expect(1.0 / 1500, 1 / std::sqrt(500.0));
  nn::init::truncated_normal(w.view(), random, 0, 0.5);
  EXPECT_LT(spread_of(w).largest, 1);
  EXPECT_DOUBLE_EQ(nn::init::gain_leaky_relu(std::sqrt(5.0)), std::sqrt(1.0 / 3));
}

TEST(NnInit, OrthogonalEitherWay) {
  for (const nn::Extents& shape : {nn::Extents{5, 12}, nn::Extents{12, 5}, nn::Extents{4, 2, 2}}) {
    nn::Tensor<double> w(shape);
    nn::init::orthogonal(w.view(), Philox(7, "init"), 3);
    const Index rows = shape[0], cols = w.size() / rows;
    const Index few = (std::min)(rows, cols), many = (std::max)(rows, cols);
    for (Index a = 0; a < few; ++a) {
      for (Index b = 0; b < few; ++b) {
        double dot = 0;
        for (Index k = 0; k < many; ++k) {
          dot +=
              rows <= cols ? w[a * cols + k] * w[b * cols + k] : w[k * cols + a] * w[k * cols + b];
        }
        EXPECT_NEAR(dot, a == b ? 9 : 0, 1e-13);
      }
    }
  }
}

TEST(NnInit, SameSeedSameWeights) {
  nn::Tensor<float> a({3, 4}), b({3, 4});
  nn::init::pytorch_default(a.view(), {}, 1, "x.");
  nn::init::pytorch_default(b.view(), {}, 1, "x.");
  for (Index i = 0; i < 12; ++i) EXPECT_EQ(a[i], b[i]);
  nn::init::pytorch_default(b.view(), {}, 1, "y.");
  EXPECT_NE(a[0], b[0]);
  nn::Tensor<float> flat({3});
  EXPECT_THROW(nn::init::xavier_uniform(flat.view(), Philox(1)), ShapeError);
}

}  // namespace
}  // namespace quern::test::nn_init
