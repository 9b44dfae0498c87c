// SPDX-License-Identifier: Apache-2.0

/// \file
/// Activation layers and gated units: values, gradients, shapes, threads.

#include "quern/nn/activation.hpp"

#include "nn/gradients.hpp"

#include <gtest/gtest.h>

#include <cmath>

namespace quern::test::nn_activation {
namespace {

template <class L>
void check_values(double (*exact)(double)) {
  L layer;
  const nn::Tensor<float> x = random_tensor<float>({5, 7}, 3, 3);
  const nn::Tensor<float> y = nn::apply(layer, x.view());
  for (Index i = 0; i < x.size(); ++i) {
    const auto at = static_cast<double>(x[i]);
    EXPECT_NEAR(y[i], exact(at), 4e-7 * (1 + std::fabs(at))) << layer.type() << ' ' << at;
  }
}

TEST(NnActivation, Values) {
  check_values<nn::ReLU<float>>([](double x) { return x > 0 ? x : 0; });
  check_values<nn::ELU<float>>([](double x) { return x > 0 ? x : std::expm1(x); });
  check_values<nn::GELU<float>>([](double x) { return x / 2 * (1 + std::erf(x / std::sqrt(2))); });
  check_values<nn::GELUTanh<float>>([](double x) {
    return x / 2 * (1 + std::tanh(std::sqrt(2 / 3.14159265358979) * (x + 0.044715 * x * x * x)));
  });
  check_values<nn::SiLU<float>>([](double x) { return x / (1 + std::exp(-x)); });
  check_values<nn::Softplus<float>>([](double x) { return std::log1p(std::exp(x)); });
}

template <class L>
void check_slope() {
  L layer;
  nn::Tensor<double> x = random_tensor<double>({3, 7}, 4, 2);
  check_gradients(layer, x);
}

TEST(NnActivation, Gradients) {
  check_slope<nn::ReLU<double>>();
  check_slope<nn::LeakyReLU<double>>();
  check_slope<nn::ELU<double>>();
  check_slope<nn::GELU<double>>();
  check_slope<nn::GELUTanh<double>>();
  check_slope<nn::SiLU<double>>();
  check_slope<nn::Softplus<double>>();
  check_slope<nn::Tanh<double>>();
  check_slope<nn::Sigmoid<double>>();
}

TEST(NnActivation, GatedUnits) {
  nn::Tensor<double> x = random_tensor<double>({2, 6, 5}, 5);
  nn::GLU<double> channels(1);
  check_gradients(channels, x);
  nn::Tensor<double> rows = random_tensor<double>({3, 10}, 5);
  nn::SwiGLU<double> last;
  check_gradients(last, rows);
  const nn::Tensor<double> y = nn::apply(last, rows.view());
  EXPECT_EQ(y.shape(), (nn::Extents{3, 5}));
  EXPECT_NEAR(y[6], rows[11] * rows[16] / (1 + std::exp(-rows[16])), 1e-14);
  EXPECT_THROW(static_cast<void>(last.output_shape({3, 5})), ShapeError);
  EXPECT_THROW(static_cast<void>(channels.output_shape({6})), ShapeError);
}

TEST(NnActivation, SameBitsForAnyThreads) {
  nn::GELU<float> layer;
  check_threads(layer, random_tensor<float>({3, 40000}, 2));
}

}  // namespace
}  // namespace quern::test::nn_activation
