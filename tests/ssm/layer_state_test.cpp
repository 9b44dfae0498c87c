// SPDX-License-Identifier: Apache-2.0

/// \file
/// The state that layers of ssm/ keep: saved, cloned, reset, and not another layer's.

#include "quern/ssm/layer_state.hpp"

#include <gtest/gtest.h>

#include <complex>
#include <cstddef>
#include <vector>

namespace quern::test::ssm_layer_state {
namespace {

TEST(SsmLayerState, SavesClonesResets) {
  ssm::LayerState<double, std::complex<double>> state("layer", 2, 3);
  state.values()(1, 2) = {4, 5};
  std::vector<std::byte> bytes;
  state.save(bytes);
  EXPECT_EQ(bytes.size(), 6 * sizeof(std::complex<double>));
  const auto copy = state.clone();
  state.reset();
  EXPECT_EQ(state.values()(1, 2), std::complex<double>(0));
  state.load(bytes);
  EXPECT_EQ(state.values()(1, 2), std::complex<double>(4, 5));
}

TEST(SsmLayerState, RefusesOtherBytesAndOtherStates) {
  ssm::LayerState<float, float> state("layer", 2, 3);
  const std::vector<std::byte> shorter(5);
  EXPECT_THROW(state.load(shorter), ParseError);
  nn::SequenceState<float>& any = state;
  EXPECT_EQ((ssm::detail::state_of<float, float>("layer", any, 3).batch()), 2);
  EXPECT_THROW((ssm::detail::state_of<float, std::complex<float>>("layer", any, 3)), ValueError);
  EXPECT_THROW((ssm::detail::state_of<float, float>("another", any, 3)), ValueError);
  EXPECT_THROW((ssm::detail::state_of<float, float>("layer", any, 4)), ShapeError);
}

}  // namespace
}  // namespace quern::test::ssm_layer_state
