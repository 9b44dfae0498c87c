// SPDX-License-Identifier: Apache-2.0

/// \file
/// S5 and the linear recurrent unit as layers: gradients, steps, clones, parameter groups, threads.

#include "quern/ssm/scan_layers.hpp"

#include "../nn/gradients.hpp"
#include "layers_check.hpp"

#include <gtest/gtest.h>

namespace quern::test::ssm_scan_layers {
namespace {

TEST(SsmScanLayers, Gradients) {
  auto in = random_tensor<double>({2, 6, 2}, 1);
  for (const bool both : {false, true}) {
    ssm::S5Layer<double> s5(
        2, {.states = 4, .blocks = 2, .dt_min = 0.1, .dt_max = 0.3, .bidirectional = both});
    check_gradients(s5, in, {.tolerance = 2e-7});
  }
  ssm::LruLayer<double> lru(2, {.states = 3, .r_min = 0.2, .r_max = 0.95});
  check_gradients(lru, in, {.tolerance = 2e-7});
}

TEST(SsmScanLayers, StepsClonesAndThreads) {
  const auto in = random_tensor<float>({2, 40, 12}, 2);
  ssm::S5Layer<float> s5(12, {.states = 8});
  ssm::LruLayer<float> lru(12, {.states = 9});
  check_steps(s5, in, 1e-5);
  check_steps(lru, in, 1e-5);
  check_clone(s5, in);
  check_clone(lru, in);
  check_threads(s5, in);
  check_threads(lru, in);
}

TEST(SsmScanLayers, LruKeepsTheVarianceOfItsInputs) {
  // At the start states have about the variance of white inputs, for poles of any modulus.
  ssm::LruLayer<double> lru(8, {.states = 64, .r_min = 0.5, .r_max = 0.99});
  const auto in = random_tensor<double>({4, 600, 8}, 3);
  const auto out = nn::apply<double>(lru, in.view());
  double sum = 0;
  for (const double y : out.span()) sum += y * y;
  EXPECT_NEAR(sum / static_cast<double>(out.size()), 1.5, 0.8);
}

TEST(SsmScanLayers, ParameterGroupsAndBadInput) {
  ssm::S5Layer<float> s5(3, {.states = 4});
  ssm::LruLayer<float> lru(3, {.states = 4});
  for (nn::Layer<float>* layer :
       {static_cast<nn::Layer<float>*>(&s5), static_cast<nn::Layer<float>*>(&lru)}) {
    for (const auto& p : nn::parameters_of(*layer)) {
      const bool slow = p.name != "C" && p.name != "D";
      EXPECT_EQ(p.decay, !slow) << p.name;
      EXPECT_EQ(p.lr_scale, slow ? 0.25 : 1) << p.name;
    }
  }
  EXPECT_THROW(ssm::S5Layer<float>(0), ValueError);
  EXPECT_THROW(ssm::S5Layer<float>(2, {.states = 5, .blocks = 2}), ValueError);
  EXPECT_THROW(ssm::S5Layer<float>(2, {.dt_min = -1}), ValueError);
  EXPECT_THROW(ssm::LruLayer<float>(2, {.r_min = 0.9, .r_max = 0.8}), ValueError);
  EXPECT_THROW(static_cast<void>(lru.output_shape({2, 3, 4})), ShapeError);
  const ssm::S5Layer<float> both(3, {.states = 2, .bidirectional = true});
  EXPECT_THROW(static_cast<void>(both.make_state(1)), ValueError);
}

}  // namespace
}  // namespace quern::test::ssm_scan_layers
