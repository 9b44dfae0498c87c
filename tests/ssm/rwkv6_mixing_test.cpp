// SPDX-License-Identifier: Apache-2.0

/// \file
/// RWKV-6's time mixing as a layer: gradients, steps, states, wrong sizes.

#include "quern/ssm/rwkv6_mixing.hpp"

#include "ssm/layer_checks.hpp"

#include <gtest/gtest.h>

namespace quern::test::rwkv6_mixing {
namespace {

TEST(Rwkv6Layer, KeepsWhatLayersOwe) {
  ssm::Rwkv6Mixing<double> layer(
      6, {.head_dim = 3, .mix_rank = 2, .decay_rank = 3, .depth = {.layer = 1, .layers = 3}});
  check_layer(layer, 6);
}

TEST(Rwkv6Layer, WrongSizes) {
  EXPECT_THROW(ssm::Rwkv6Mixing<double>(6, {.head_dim = 4}), ValueError);
  EXPECT_THROW(ssm::Rwkv6Mixing<double>(6, {.head_dim = 3, .mix_rank = 0}), ValueError);
  EXPECT_THROW(ssm::Rwkv6Mixing<double>(6, {.head_dim = 3, .depth = {.layer = 3, .layers = 3}}),
               ValueError);
  expect_other_states_refused(ssm::Rwkv6Mixing<double>(6, {.head_dim = 3}),
                              ssm::Rwkv6Mixing<double>(3, {.head_dim = 3}), 6);
}

}  // namespace
}  // namespace quern::test::rwkv6_mixing
