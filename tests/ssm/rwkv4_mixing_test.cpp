// SPDX-License-Identifier: Apache-2.0

/// \file
/// RWKV-4's time mixing as a layer: gradients, steps, states, initial values, wrong sizes.

#include "quern/ssm/rwkv4_mixing.hpp"

#include "ssm/layer_checks.hpp"

#include <gtest/gtest.h>

namespace quern::test::rwkv4_mixing {
namespace {

TEST(Rwkv4Layer, KeepsWhatLayersOwe) {
  ssm::Rwkv4Mixing<double> layer(6, {.layer = 1, .layers = 3});
  check_layer(layer, 6);
}

TEST(Rwkv4Layer, StartsAsTheReference) {
  ssm::Rwkv4Mixing<double> layer(5, {.layer = 1, .layers = 3});
  const auto list = nn::parameters_of(layer);
  // time_decay: -5 + 8 (i / 4)^(0.7 + 1.3 / 2).
  EXPECT_NEAR(list[0].values[0], -5, 1e-12);
  EXPECT_NEAR(list[0].values[2], -5 + 8 * std::pow(0.5, 1.35), 1e-12);
  EXPECT_NEAR(list[0].values[4], 3, 1e-12);
  EXPECT_NEAR(list[1].values[0], std::log(0.3), 1e-12);
  EXPECT_NEAR(list[1].values[1], std::log(0.3) + 0.5, 1e-12);
  EXPECT_NEAR(list[1].values[2], std::log(0.3) - 0.5, 1e-12);
  EXPECT_NEAR(list[3].values[2], std::pow(0.4, 2.0 / 3) + 0.15, 1e-12);
  for (std::size_t k = 0; k < 5; ++k) EXPECT_FALSE(list[k].decay);
}

TEST(Rwkv4Layer, WrongSizes) {
  EXPECT_THROW(ssm::Rwkv4Mixing<double>(0), ValueError);
  EXPECT_THROW(ssm::Rwkv4Mixing<double>(4, {.layer = 2, .layers = 2}), ValueError);
  expect_other_states_refused(ssm::Rwkv4Mixing<double>(64), ssm::Rwkv4Mixing<double>(4), 64);
}

}  // namespace
}  // namespace quern::test::rwkv4_mixing
