// SPDX-License-Identifier: Apache-2.0

/// \file
/// S4 and S4D as layers: gradients, steps, clones, parameter groups, starts of the poles, threads.

#include "quern/ssm/s4_layers.hpp"

#include "../nn/gradients.hpp"
#include "layers_check.hpp"
#include "reference.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <complex>
#include <cstddef>
#include <string>
#include <utility>

namespace quern::test::ssm_s4_layers {
namespace {

using ssm::S4dStart;

TEST(SsmS4Layers, PolesAgainstReferences) {
  const std::pair<const char*, S4dStart> starts[] = {{"lin", S4dStart::lin},
                                                     {"inv", S4dStart::inv},
                                                     {"legs", S4dStart::legs},
                                                     {"quad", S4dStart::quad},
                                                     {"real", S4dStart::real}};
  for (const auto& [name, start] : starts) {
    const auto want = ssm_reference<std::complex<double>>(std::string("s4d_") + name + "__A");
    auto poles = ssm::s4d_poles(start, 8);
    std::vector<std::complex<double>> first(want.values.begin(), want.values.begin() + 8);
    // The eigenvalues of LegS come in any order and may be of either half.
    for (auto* list : {&poles, &first}) {
      if (start == S4dStart::legs) {
        for (auto& z : *list) z = {z.real(), -std::abs(z.imag())};
        std::sort(list->begin(), list->end(), [](auto a, auto b) { return a.imag() < b.imag(); });
      }
    }
    expect_close(poles, first, 8, 1e-6, name);
  }
}

TEST(SsmS4Layers, Gradients) {
  auto in = random_tensor<double>({2, 6, 2}, 1);
  for (const bool both : {false, true}) {
    ssm::S4dLayer<double> s4d(2, {.modes = 2, .dt_min = 0.1, .dt_max = 0.3, .bidirectional = both});
    check_gradients(s4d, in, {.tolerance = 2e-7});
    ssm::S4Layer<double> s4(2, {.modes = 2,
                                .dt_min = 0.1,
                                .dt_max = 0.3,
                                .bidirectional = both,
                                .measure = both ? ssm::Measure::legt : ssm::Measure::legs});
    check_gradients(s4, in, {.tolerance = 2e-7});
  }
}

TEST(SsmS4Layers, StepsClonesAndThreads) {
  const auto in = random_tensor<float>({2, 40, 20}, 2);
  ssm::S4dLayer<float> s4d(20, {.modes = 4});
  ssm::S4Layer<float> s4(20, {.modes = 4});
  check_steps(s4d, in, 1e-5);
  check_steps(s4, in, 2e-5);
  check_clone(s4d, in);
  check_clone(s4, in);
  check_threads(s4d, in);
  check_threads(s4, in);
}

TEST(SsmS4Layers, ParameterGroupsAndBadInput) {
  ssm::S4Layer<float> s4(3, {.modes = 4});
  for (const auto& p : nn::parameters_of(s4, "0.")) {
    const bool slow = p.name != "0.C" && p.name != "0.D";
    EXPECT_EQ(p.decay, !slow) << p.name;
    EXPECT_EQ(p.lr_scale, slow ? 0.1 : 1) << p.name;
  }
  EXPECT_THROW(ssm::S4dLayer<float>(0), ValueError);
  EXPECT_THROW(ssm::S4dLayer<float>(2, {.modes = 0}), ValueError);
  EXPECT_THROW(ssm::S4Layer<float>(2, {.dt_min = 0}), ValueError);
  EXPECT_THROW(static_cast<void>(s4.output_shape({2, 3, 4})), ShapeError);
  const ssm::S4dLayer<float> both(3, {.bidirectional = true});
  EXPECT_THROW(static_cast<void>(both.make_state(1)), ValueError);
}

}  // namespace
}  // namespace quern::test::ssm_s4_layers
