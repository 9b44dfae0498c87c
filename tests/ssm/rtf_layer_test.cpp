// SPDX-License-Identifier: Apache-2.0

/// \file
/// Rational transfer functions as a layer: gradients, steps, clones, threads, bad input.

#include "quern/ssm/rtf_layer.hpp"

#include "../nn/gradients.hpp"
#include "layers_check.hpp"

#include <gtest/gtest.h>

#include <complex>
#include <cstddef>
#include <memory>
#include <vector>

namespace quern::test::ssm_rtf_layer {
namespace {

TEST(SsmRtfLayer, GradientsStepsClonesThreads) {
  auto in = random_tensor<double>({2, 7, 2}, 1);
  ssm::RtfLayer<double> layer(2, {.order = 3});
  // Poles that remember: at the start there are none.
  const auto parameters = nn::parameters_of(layer);
  for (double& a : parameters[0].values) a = 0.3;
  check_gradients(layer, in, {.tolerance = 2e-7});
  check_steps(layer, in, 1e-11);
  check_clone(layer, in);
  const auto wide = random_tensor<float>({3, 30, 20}, 2);
  ssm::RtfLayer<float> other(20, {.order = 4});
  check_threads(other, wide);
}

TEST(SsmRtfLayer, UnstableParametersStayFinite) {
  ssm::RtfLayer<float> layer(2, {.order = 2});
  nn::parameters_of(layer)[0].values[0] = -5;
  const auto in = random_tensor<float>({1, 500, 2}, 1);
  const auto out = nn::apply<float>(layer, in.view());
  for (const float y : out.span()) ASSERT_TRUE(std::isfinite(y));
}

TEST(SsmRtfLayer, GroupsAndBadInput) {
  ssm::RtfLayer<float> layer(2);
  for (const auto& p : nn::parameters_of(layer)) EXPECT_EQ(p.decay, p.name == "h0");
  EXPECT_THROW(ssm::RtfLayer<float>(2, {.order = 0}), ValueError);
  const auto state = layer.make_state(3);
  nn::Tensor<float> x({2, 2}), y({2, 2});
  EXPECT_THROW(layer.step(x.view(), y.view(), *state), ShapeError);
  ssm::LayerState<float, std::complex<float>> foreign("quern::ssm::RtfLayer", 2, 32);
  EXPECT_THROW(layer.step(x.view(), y.view(), foreign), ValueError);
}

}  // namespace
}  // namespace quern::test::ssm_rtf_layer
