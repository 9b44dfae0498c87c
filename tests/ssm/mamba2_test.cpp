// SPDX-License-Identifier: Apache-2.0

/// \file
/// The Mamba2 block: gradients, steps, states, groups of parameters, wrong sizes.

#include "quern/ssm/mamba2.hpp"

#include "ssm/layer_checks.hpp"

#include <gtest/gtest.h>

#include <string>

namespace quern::test::mamba2_block {
namespace {

TEST(Mamba2Block, KeepsWhatLayersOwe) {
  ssm::Mamba2<double> layer(6, {.states = 5, .head_dim = 3, .groups = 2});
  check_layer(layer, 6);
}

TEST(Mamba2Block, ParameterGroups) {
  ssm::Mamba2<double> layer(64);
  for (const auto& p : nn::parameters_of(layer, "mixer.")) {
    const bool matrix = p.name.ends_with("weight") && p.name != "mixer.norm.weight";
    EXPECT_EQ(p.decay, matrix) << p.name;
  }
}

TEST(Mamba2Block, WrongSizes) {
  EXPECT_THROW(ssm::Mamba2<double>(8, {.head_dim = 3}), ValueError);
  EXPECT_THROW(ssm::Mamba2<double>(8, {.head_dim = 4, .groups = 3}), ValueError);
  expect_other_states_refused(ssm::Mamba2<double>(8, {.states = 4, .head_dim = 4}),
                              ssm::Mamba2<double>(8, {.states = 4, .head_dim = 8}), 8);
}

}  // namespace
}  // namespace quern::test::mamba2_block
