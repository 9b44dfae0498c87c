// SPDX-License-Identifier: Apache-2.0

/// \file
/// The Mamba block: gradients, steps, states, groups of parameters, wrong sizes.

#include "quern/ssm/mamba.hpp"

#include "ssm/layer_checks.hpp"

#include <gtest/gtest.h>

#include <string>

namespace quern::test::mamba_block {
namespace {

TEST(MambaBlock, KeepsWhatLayersOwe) {
  ssm::Mamba<double> layer(5, {.states = 3, .dt_rank = 2});
  check_layer(layer, 5);
}

TEST(MambaBlock, ParameterGroups) {
  ssm::Mamba<double> layer(64);
  for (const auto& p : nn::parameters_of(layer, "mixer.")) {
    const bool matrix = p.name.ends_with("weight") && p.name != "mixer.norm.weight";
    EXPECT_EQ(p.decay, matrix) << p.name;
  }
}

TEST(MambaBlock, WrongSizes) {
  EXPECT_THROW(ssm::Mamba<double>(0), ValueError);
  EXPECT_THROW(ssm::Mamba<double>(8, {.taps = 0}), ValueError);
  EXPECT_THROW(ssm::Mamba<double>(8, {.dt_rank = -1}), ValueError);
  const ssm::Mamba<double> layer(8);
  for (const ssm::MambaOptions other : {ssm::MambaOptions{.states = 4}, {.dt_rank = 3}}) {
    expect_other_states_refused(layer, ssm::Mamba<double>(8, other), 8);
  }
}

}  // namespace
}  // namespace quern::test::mamba_block
