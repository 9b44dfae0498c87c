// SPDX-License-Identifier: Apache-2.0

/// \file
/// Multi-scale retention as a layer: gradients, steps, states, wrong sizes.

#include "quern/ssm/retnet.hpp"

#include "ssm/layer_checks.hpp"

#include <gtest/gtest.h>

namespace quern::test::retnet {
namespace {

TEST(RetNetLayer, KeepsWhatLayersOwe) {
  ssm::MultiScaleRetention<double> layer(12, {.heads = 3});
  check_layer(layer, 12);
}

// Rotations and decays depend on distances alone: later positions see the same as earlier ones.
TEST(RetNetLayer, OnlyDistancesCount) {
  ssm::MultiScaleRetention<double> layer(8, {.heads = 2});
  auto state = layer.make_state(1);
  const nn::Tensor<double> a = normal_tensor({1, 8}, 1), b = normal_tensor({1, 8}, 2);
  const nn::Tensor<double> zero({1, 8});
  nn::Tensor<double> out({1, 8}), early({1, 8}), late({1, 8});
  layer.step(a.view(), out.view(), *state);
  layer.step(b.view(), early.view(), *state);
  state->reset();
  for (int k = 0; k < 5; ++k) layer.step(zero.view(), out.view(), *state);
  layer.step(a.view(), out.view(), *state);
  layer.step(b.view(), late.view(), *state);
  for (Index i = 0; i < 8; ++i) EXPECT_NEAR(early[i], late[i], 1e-13);
}

TEST(RetNetLayer, WrongSizes) {
  EXPECT_THROW(ssm::MultiScaleRetention<double>(12, {.heads = 5}), ValueError);
  EXPECT_THROW(ssm::MultiScaleRetention<double>(6, {.heads = 2}), ValueError);
  EXPECT_THROW(ssm::MultiScaleRetention<double>(8, {.heads = 2, .value_factor = 0}), ValueError);
  expect_other_states_refused(ssm::MultiScaleRetention<double>(8, {.heads = 2}),
                              ssm::MultiScaleRetention<double>(4, {.heads = 2}), 8);
}

}  // namespace
}  // namespace quern::test::retnet
