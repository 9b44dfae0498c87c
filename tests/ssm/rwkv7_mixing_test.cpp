// SPDX-License-Identifier: Apache-2.0

/// \file
/// RWKV-7's time mixing as a layer: gradients, steps, states, wrong sizes.

#include "quern/ssm/rwkv7_mixing.hpp"

#include "ssm/layer_checks.hpp"

#include <gtest/gtest.h>

namespace quern::test::rwkv7_mixing {
namespace {

TEST(Rwkv7Layer, KeepsWhatLayersOwe) {
  ssm::Rwkv7Mixing<double> layer(6, {.head_dim = 3,
                                     .decay_rank = 2,
                                     .rate_rank = 3,
                                     .gate_rank = 2,
                                     .depth = {.layer = 1, .layers = 3}});
  check_layer(layer, 6);
}

TEST(Rwkv7Layer, SizesOfTheReference) {
  ssm::Rwkv7Mixing<double> layer(256, {.head_dim = 64});
  for (const auto& p : nn::parameters_of(layer)) {
    if (p.name == "w1") {  // 1.8 * 16, to the nearest 32
      EXPECT_EQ(p.values.extent(1), 32);
    }
    if (p.name == "g1") {  // 0.6 * 84.4
      EXPECT_EQ(p.values.extent(1), 64);
    }
  }
}

TEST(Rwkv7Layer, WrongSizes) {
  EXPECT_THROW(ssm::Rwkv7Mixing<double>(6, {.head_dim = 4}), ValueError);
  EXPECT_THROW(ssm::Rwkv7Mixing<double>(6, {.head_dim = 3, .decay_rank = -1}), ValueError);
  expect_other_states_refused(ssm::Rwkv7Mixing<double>(6, {.head_dim = 3}),
                              ssm::Rwkv7Mixing<double>(3, {.head_dim = 3}), 6);
}

}  // namespace
}  // namespace quern::test::rwkv7_mixing
