// SPDX-License-Identifier: Apache-2.0

/// \file
/// Mamba-2's duality against ssd_minimal_discrete with its gradients, differences with groups and
/// packs, and steps.

#include "quern/ssm/ssd.hpp"

#include "ssm/differences.hpp"
#include "ssm/recurrences.hpp"
#include "ssm/reference.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

namespace quern::test::ssd {
namespace {

using ssm::SsdInputs;
using ssm::SsdOptions;

TEST(Ssd, ReferenceWithGradientsAndSteps) {
  const auto get = [](const char* array) {
    return ssm_reference<double>(std::string("ssd__") + array);
  };
  const auto x = get("X"), log_a = get("logA"), b = get("B"), c = get("C"), h0 = get("h0");
  const auto gy = get("gy");
  const SsdInputs<double> in{x.view<4>(), log_a.view<3>(), b.view<4>(), c.view<4>(), h0.view<4>()};
  NdArray<double, 4> y(in.x.extents()), last(in.initial_state.extents());
  ssm::ssd(in, y.view(), last.view());
  const double tolerance = 1e-13;
  const auto expect = [&](const double* got, const char* array) {
    const SsmArray<double> want = get(array);
    expect_close(got, want.values, want.size(), tolerance, array);
  };
  expect(y.data(), "y");
  expect(last.data(), "hT");
  NdArray<double, 4> gx(in.x.extents()), gb(in.b.extents()), gc(in.b.extents());
  NdArray<double, 4> gh0(last.extents());
  NdArray<double, 3> glog_a(in.log_a.extents());
  ssm::ssd_vjp(in, gy.view<4>(), {}, {gx.view(), glog_a.view(), gb.view(), gc.view(), gh0.view()});
  expect(gx.data(), "gX");
  expect(glog_a.data(), "glogA");
  expect(gb.data(), "gB");
  expect(gc.data(), "gC");
  expect(gh0.data(), "gh0");
  NdArray<double, 4> steps(in.x.extents()), moving(in.initial_state);
  for (Index t = 0; t < in.x.extent(1); ++t) {
    ssm::ssd_step<double>(in.x.subview(t, 1), in.log_a.subview(t, 1), in.b.subview(t, 1),
                          in.c.subview(t, 1), moving.view(), steps.view().subview(t, 1));
  }
  expect_same(steps, y, 1e-14, "steps");
  expect_same(moving, last, 1e-14, "state of steps");
}

TEST(Ssd, GradientsOfGroupsAndPacksAreTheDifferences) {
  const std::vector<std::int64_t> offsets = {0, 3, 3, 40};
  SsdOptions options;
  options.offsets = offsets;
  auto x = normal_array<double, 4>({1, 40, 4, 3}, 1);
  auto log_a = normal_array<double, 3>({1, 40, 4}, 2);
  auto b = normal_array<double, 4>({1, 40, 2, 5}, 3), c = normal_array<double, 4>({1, 40, 2, 5}, 4);
  auto state = normal_array<double, 4>({3, 4, 3, 5}, 5);
  for (double& e : log_a) e = -std::exp(e);
  const auto dy = normal_array<double, 4>(x.extents(), 6);
  const auto dlast = normal_array<double, 4>(state.extents(), 7);
  NdArray<double, 4> gx(x.extents()), gb(b.extents()), gc(c.extents()), gs(state.extents());
  NdArray<double, 3> ga(log_a.extents());
  const SsdInputs<double> in{x.view(), log_a.view(), b.view(), c.view(), state.view()};
  ssm::ssd_vjp(in, dy.view(), dlast.view(), {gx.view(), ga.view(), gb.view(), gc.view(), gs.view()},
               options);
  NdArray<double, 4> y(x.extents()), last(state.extents());
  const auto loss = [&] {
    ssm::ssd(in, y.view(), last.view(), options);
    return dot(y, dy) + dot(last, dlast);
  };
  expect_gradient("x", span_of(x), span_of(gx), loss);
  expect_gradient("log_a", span_of(log_a), span_of(ga), loss);
  expect_gradient("b", span_of(b), span_of(gb), loss);
  expect_gradient("c", span_of(c), span_of(gc), loss);
  expect_gradient("state", span_of(state), span_of(gs), loss);
}

TEST(Ssd, LongSequencesInFloatAndAnyDecay) {
  constexpr Index length = 16384;
  const auto x = normal_array<float, 4>({1, length, 1, 4}, 1);
  const auto b = normal_array<float, 4>({1, length, 1, 6}, 2);
  const auto c = normal_array<float, 4>({1, length, 1, 6}, 3);
  const auto x64 = converted<double>(x), b64 = converted<double>(b), c64 = converted<double>(c);
  for (const double size : {1e-8, 1e-6, 1e-3, 1e-1, 1e3}) {
    SCOPED_TRACE(size);
    auto log_a = normal_array<float, 3>({1, length, 1}, 4);
    for (float& e : log_a) e = -static_cast<float>(size) * std::exp(e);
    const auto log_a64 = converted<double>(log_a);
    NdArray<float, 4> y(x.extents());
    NdArray<double, 4> want(x.extents());
    ssm::ssd<float>({x.view(), log_a.view(), b.view(), c.view()}, y.view());
    ssm::ssd<double>({x64.view(), log_a64.view(), b64.view(), c64.view()}, want.view());
    expect_close(y.data(), want.data(), static_cast<std::size_t>(y.size()), 1e-5, "y");
    NdArray<float, 4> gx(x.extents());
    NdArray<float, 3> glog_a(log_a.extents());
    NdArray<double, 4> gx64(x.extents());
    ssm::ssd_vjp<float>({x.view(), log_a.view(), b.view(), c.view()}, x.view(), {},
                        {gx.view(), glog_a.view()});
    ssm::ssd_vjp<double>({x64.view(), log_a64.view(), b64.view(), c64.view()}, x64.view(), {},
                         {gx64.view()});
    expect_close(gx.data(), gx64.data(), static_cast<std::size_t>(gx.size()), 1e-5, "gx");
    for (const float g : glog_a) ASSERT_TRUE(std::isfinite(g));
  }
}

TEST(Ssd, WrongInputIsNamed) {
  auto x = normal_array<float, 4>({1, 9, 2, 4}, 1), b = normal_array<float, 4>({1, 9, 1, 3}, 2);
  auto log_a = normal_array<float, 3>({1, 9, 2}, 3, 0.1, -1);
  NdArray<float, 4> y(x.extents());
  const auto run = [&] { ssm::ssd<float>({x.view(), log_a.view(), b.view(), b.view()}, y.view()); };
  log_a(0, 8, 1) = 1;
  expect_words("log_a: expected logarithms of decays, not above 0, got 1 at (0, 8, 1)", run);
  log_a(0, 8, 1) = -1;
  b(0, 4, 0, 2) = std::numeric_limits<float>::infinity();
  expect_words("b: expected finite numbers, got NaN or infinity at (0, 4, 0, 2)", run);
  log_a = NdArray<float, 3>({1, 9, 3});
  expect_words("log_a: expected 1 x 9 x 2, got 1 x 9 x 3", run);
  log_a = normal_array<float, 3>({1, 9, 2}, 3, 0.1, -1);
  b = normal_array<float, 4>({1, 9, 3, 3}, 2);
  expect_words("quern::ssm::ssd: b: expected groups that divide heads, 2, got 3", run);
}

TEST(Ssd, NoStepAndOneAndStatesThatDoNotFit) {
  const auto x = normal_array<double, 4>({1, 1, 2, 4}, 1),
             b = normal_array<double, 4>({1, 1, 1, 3}, 2);
  const NdArray<double, 3> log_a = normal_array<double, 3>({1, 1, 2}, 3, 0.1, -1);
  auto state = normal_array<double, 4>({1, 2, 4, 3}, 4);
  NdArray<double, 4> y(x.extents()), none({1, 0, 2, 4}), last(state.extents());
  const auto cut = [](const auto& v) { return v.view().slice(1, 0, 0); };
  ssm::ssd<double>({cut(x), cut(log_a), cut(b), cut(b), state.view()}, none.view(), last.view());
  expect_same(last, state, 0, "no step");
  const auto run = [&] {
    ssm::ssd<double>({x.view(), log_a.view(), b.view(), b.view(), state.view()}, y.view(),
                     last.view());
  };
  run();
  EXPECT_NEAR(last(0, 1, 2, 1),
              std::exp(log_a(0, 0, 1)) * state(0, 1, 2, 1) + x(0, 0, 1, 2) * b(0, 0, 0, 1), 1e-14);
  state(0, 1, 3, 2) = std::numeric_limits<double>::quiet_NaN();
  expect_words("initial_state: expected finite numbers, got NaN or infinity at (0, 1, 3, 2)", run);
  state = NdArray<double, 4>({1, 2, 3, 4});
  expect_words("initial_state: expected 1 x 2 x 4 x 3, got 1 x 2 x 3 x 4", run);
}

}  // namespace
}  // namespace quern::test::ssd
