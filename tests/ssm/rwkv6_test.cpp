// SPDX-License-Identifier: Apache-2.0

/// \file
/// RWKV-6's recurrence against a reference, differences, and itself in steps.

#include "quern/ssm/rwkv6.hpp"

#include "ssm/differences.hpp"
#include "ssm/recurrences.hpp"
#include "ssm/reference.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

namespace quern::test::rwkv6 {
namespace {

using ssm::Rwkv6Inputs;
using ssm::RwkvOptions;

TEST(Rwkv6, ReferenceAndSteps) {
  const auto get = [](const char* array) {
    return ssm_reference<double>(std::string("rwkv6__") + array);
  };
  const auto r = get("r"), k = get("k"), v = get("v"), logw = get("logw"), u = get("u");
  const auto h0 = get("h0"), o = get("o"), last = get("hT");
  const Rwkv6Inputs<double> in{r.view<4>(),    k.view<4>(), v.view<4>(),
                               logw.view<4>(), u.view<2>(), h0.view<4>()};
  NdArray<double, 4> out(in.v.extents()), state(h0.view<4>().extents());
  ssm::rwkv6(in, out.view(), state.view());
  expect_close(out.data(), o.values, o.size(), 1e-13, "o");
  expect_close(state.data(), last.values, last.size(), 1e-13, "hT");
  NdArray<double, 4> steps(in.v.extents()), moving(h0.view<4>());
  for (Index t = 0; t < in.v.extent(2); ++t) {
    ssm::rwkv6_step<double>(in.r.subview(t, 2), in.k.subview(t, 2), in.v.subview(t, 2),
                            in.logw.subview(t, 2), in.u, moving.view(), steps.view().subview(t, 2));
  }
  expect_same(steps, out, 1e-14, "steps");
  expect_same(moving, state, 1e-14, "state of steps");
}

TEST(Rwkv6, GradientsAreTheDifferences) {
  const std::vector<std::int64_t> offsets = {0, 3, 3, 40};
  for (const bool packed : {false, true}) {
    RwkvOptions options;
    if (packed) options.offsets = offsets;
    const Index batch = packed ? 1 : 2, sequences = packed ? 3 : 2;
    const Shape<4> keys = {batch, 2, 40, 4}, values = {batch, 2, 40, 5};
    auto r = normal_array<double, 4>(keys, 1), k = normal_array<double, 4>(keys, 2);
    auto v = normal_array<double, 4>(values, 3), logw = normal_array<double, 4>(keys, 4);
    auto u = normal_array<double, 2>({2, 4}, 5);
    auto state = normal_array<double, 4>({sequences, 2, 4, 5}, 6);
    for (double& x : logw) x = -std::exp(x);
    const auto dy = normal_array<double, 4>(values, 7);
    const auto dlast = normal_array<double, 4>(state.extents(), 8);
    NdArray<double, 4> gr(keys), gk(keys), gv(values), gw(keys), gs(state.extents());
    NdArray<double, 2> gu({2, 4});
    const Rwkv6Inputs<double> in{r.view(), k.view(), v.view(), logw.view(), u.view(), state.view()};
    ssm::rwkv6_vjp(in, dy.view(), dlast.view(),
                   {gr.view(), gk.view(), gv.view(), gw.view(), gu.view(), gs.view()}, options,
                   0.5);
    NdArray<double, 4> out(values), last(state.extents());
    const auto loss = [&] {
      ssm::rwkv6(in, out.view(), last.view(), options, 0.5);
      return dot(out, dy) + dot(last, dlast);
    };
    expect_gradient("r", span_of(r), span_of(gr), loss);
    expect_gradient("k", span_of(k), span_of(gk), loss);
    expect_gradient("v", span_of(v), span_of(gv), loss);
    expect_gradient("logw", span_of(logw), span_of(gw), loss);
    expect_gradient("u", span_of(u), span_of(gu), loss);
    expect_gradient("state", span_of(state), span_of(gs), loss);
  }
}

TEST(Rwkv6, WrongInputIsNamed) {
  auto r = normal_array<float, 4>({1, 2, 9, 4}, 1), v = normal_array<float, 4>({1, 2, 9, 5}, 3);
  auto logw = normal_array<float, 4>({1, 2, 9, 4}, 4, 0.1, -1);
  const auto u = normal_array<float, 2>({2, 4}, 5);
  NdArray<float, 4> out(v.extents());
  RwkvOptions options;
  const auto run = [&] {
    ssm::rwkv6<float>({r.view(), r.view(), v.view(), logw.view(), u.view()}, out.view(), {},
                      options);
  };
  logw(0, 1, 3, 2) = 0.5F;
  expect_words("logw: expected logarithms of decays, not above 0, got 0.5 at (0, 1, 3, 2)", run);
  options.clip_decay = true;
  run();
  logw(0, 1, 3, 2) = std::numeric_limits<float>::quiet_NaN();
  expect_words("logw", run);
  logw(0, 1, 3, 2) = -std::numeric_limits<float>::infinity();  // forgets all
  run();
  r(0, 0, 2, 1) = std::numeric_limits<float>::infinity();
  expect_words("r: expected finite numbers, got NaN or infinity at (0, 0, 2, 1)", run);
  v = normal_array<float, 4>({1, 2, 8, 5}, 3);
  expect_words("quern::ssm::rwkv6: v: expected 1 x 2 x 9 x 5, got 1 x 2 x 8 x 5", run);
}

TEST(Rwkv6, LongSequencesInFloatAndAnyDecay) {
  constexpr Index length = 16384;
  const Shape<4> shape{1, 1, length, 4};
  const auto r = normal_array<float, 4>(shape, 1), k = normal_array<float, 4>(shape, 2);
  const auto v = normal_array<float, 4>(shape, 3);
  const auto u = normal_array<float, 2>({1, 4}, 5);
  const auto r64 = converted<double>(r), k64 = converted<double>(k), v64 = converted<double>(v);
  const auto u64 = converted<double>(u);
  for (const double size : {1e-8, 1e-6, 1e-3, 1.0, 1e3}) {
    SCOPED_TRACE(size);
    auto logw = normal_array<float, 4>(shape, 4);
    for (float& x : logw) x = -static_cast<float>(size) * std::exp(x);
    const auto logw64 = converted<double>(logw);
    NdArray<float, 4> out(shape), g(shape);
    NdArray<double, 4> want(shape), g64(shape);
    const Rwkv6Inputs<float> in{r.view(), k.view(), v.view(), logw.view(), u.view()};
    const Rwkv6Inputs<double> in64{r64.view(), k64.view(), v64.view(), logw64.view(), u64.view()};
    ssm::rwkv6(in, out.view());
    ssm::rwkv6(in64, want.view());
    expect_close(out.data(), want.data(), static_cast<std::size_t>(out.size()), 1e-5, "out");
    ssm::rwkv6_vjp<float>(in, v.view(), {}, {g.view()});
    ssm::rwkv6_vjp<double>(in64, v64.view(), {}, {g64.view()});
    expect_close(g.data(), g64.data(), static_cast<std::size_t>(g.size()), 1e-5, "dr");
  }
}

TEST(Rwkv6, NoStepAndOneAndStatesThatDoNotFit) {
  const auto r = normal_array<double, 4>({1, 2, 1, 3}, 1),
             v = normal_array<double, 4>({1, 2, 1, 4}, 2);
  const auto u = normal_array<double, 2>({2, 3}, 3);
  auto logw = normal_array<double, 4>({1, 2, 1, 3}, 4);
  for (double& x : logw) x = -std::exp(x);
  auto state = normal_array<double, 4>({1, 2, 3, 4}, 5);
  NdArray<double, 4> out(v.extents()), none({1, 2, 0, 4}), last(state.extents());
  const auto cut = [](const NdArray<double, 4>& x) { return x.view().slice(2, 0, 0); };
  ssm::rwkv6<double>({cut(r), cut(r), cut(v), cut(logw), u.view(), state.view()}, none.view(),
                     last.view());
  expect_same(last, state, 0, "no step");
  const auto run = [&] {
    ssm::rwkv6<double>({r.view(), r.view(), v.view(), logw.view(), u.view(), state.view()},
                       out.view(), last.view());
  };
  run();
  EXPECT_NEAR(last(0, 1, 2, 3),
              std::exp(logw(0, 1, 0, 2)) * state(0, 1, 2, 3) + r(0, 1, 0, 2) * v(0, 1, 0, 3),
              1e-14);
  state(0, 0, 1, 1) = std::numeric_limits<double>::infinity();
  expect_words("initial_state: expected finite numbers, got NaN or infinity at (0, 0, 1, 1)", run);
  state = NdArray<double, 4>({1, 2, 4, 3});
  expect_words("initial_state: expected 1 x 2 x 3 x 4, got 1 x 2 x 4 x 3", run);
}

}  // namespace
}  // namespace quern::test::rwkv6
