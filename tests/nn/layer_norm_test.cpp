// SPDX-License-Identifier: Apache-2.0

/// \file
/// Layer norm and RMS norm: PyTorch's values, gradients, statistics far from the origin, threads.

#include "quern/nn/layer_norm.hpp"

#include "nn/gradients.hpp"
#include "nn/reference.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <string>

namespace quern::test::nn_layer_norm {
namespace {

TEST(NnLayerNorm, Gradients) {
  nn::LayerNorm<double> layer(7), plain(7, {.gain = false}), wide(nn::Extents{3, 7});
  nn::RMSNorm<double> rms(7);
  for (auto& p : nn::parameters_of<double>(layer)) p.values[2] += 0.5;
  for (auto& p : nn::parameters_of<double>(rms)) p.values[2] += 0.5;
  nn::Tensor<double> x = random_tensor<double>({4, 3, 7}, 1);
  check_gradients(layer, x);
  check_gradients(plain, x);
  check_gradients(wide, x);
  check_gradients(rms, x);
  EXPECT_EQ(nn::parameter_count<double>(layer), 2u);
  EXPECT_EQ(nn::parameter_count<double>(rms), 1u);
  EXPECT_FALSE(nn::parameters_of<double>(layer)[0].decay);
}

TEST(NnLayerNorm, PyTorchsValuesAndGradients) {
  for (const bool rms : {false, true}) {
    const std::string name = rms ? "rms_norm" : "layer_norm";
    SCOPED_TRACE(name);
    std::unique_ptr<nn::Layer<double>> layer;
    if (rms) {
      layer = std::make_unique<nn::RMSNorm<double>>(20);
    } else {
      layer = std::make_unique<nn::LayerNorm<double>>(20);
    }
    check_reference(*layer, name, 1e-12);
  }
}

/// Deviations of 1 at a mean of 4096 keep 12 bits of the float's 24.
TEST(NnLayerNorm, FarFromTheOrigin) {
  nn::LayerNorm<float> layer(64);
  nn::Tensor<float> x = random_tensor<float>({2, 64}, 3);
  const nn::Tensor<float> near = nn::apply(layer, x.view());
  for (float& value : x.span()) value += 4096;
  const nn::Tensor<float> far = nn::apply(layer, x.view());
  for (Index i = 0; i < x.size(); ++i) EXPECT_NEAR(far[i], near[i], 1e-3);
}

TEST(NnLayerNorm, SameBitsForAnyThreads) {
  nn::LayerNorm<float> layer(100);
  check_threads(layer, random_tensor<float>({3000, 100}, 2));
}

TEST(NnLayerNorm, WrongInput) {
  EXPECT_THROW(nn::LayerNorm<float>(0), ValueError);
  EXPECT_THROW(nn::LayerNorm<float>(nn::Extents{}), ValueError);
  EXPECT_THROW(nn::RMSNorm<float>(3, {.eps = -1}), ValueError);
  nn::LayerNorm<float> layer(nn::Extents{3, 7});
  EXPECT_THROW(static_cast<void>(layer.output_shape({7})), ShapeError);
  EXPECT_THROW(static_cast<void>(layer.output_shape({3, 8})), ShapeError);
}

}  // namespace
}  // namespace quern::test::nn_layer_norm
