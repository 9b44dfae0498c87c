// SPDX-License-Identifier: Apache-2.0

/// \file
/// Retention against a reference, in its three forms, with gradients against differences.

#include "quern/ssm/retention.hpp"

#include "ssm/differences.hpp"
#include "ssm/recurrences.hpp"
#include "ssm/reference.hpp"

#include <gtest/gtest.h>

#include <cstdint>
#include <limits>
#include <string>
#include <vector>

namespace quern::test::retention {
namespace {

using ssm::RetentionInputs;
using ssm::RetentionOptions;

TEST(Retention, ReferenceInAllForms) {
  const auto get = [](const char* array) {
    return ssm_reference<double>(std::string("retention__") + array);
  };
  const auto q = get("q"), k = get("k"), v = get("v"), gamma = get("gamma"), o = get("o");
  const auto last = get("S_last");
  const RetentionInputs<double> in{q.view<4>(), k.view<4>(), v.view<4>(), gamma.view<1>()};
  NdArray<double, 4> out(in.v.extents()), state({2, 4, 8, 12}), parallel(in.v.extents());
  NdArray<double, 4> steps(in.v.extents()), moving({2, 4, 8, 12});
  ssm::retention(in, out.view(), state.view());
  ssm::retention_parallel(in, parallel.view());
  for (Index t = 0; t < in.v.extent(2); ++t) {
    ssm::retention_step<double>(in.q.subview(t, 2), in.k.subview(t, 2), in.v.subview(t, 2),
                                in.gamma, moving.view(), steps.view().subview(t, 2));
  }
  expect_close(out.data(), o.values, o.size(), 1e-13, "recurrence");
  expect_close(parallel.data(), o.values, o.size(), 1e-13, "parallel");
  expect_close(steps.data(), o.values, o.size(), 1e-13, "steps");
  expect_close(state.data(), last.values, last.size(), 1e-13, "state");
  expect_close(moving.data(), last.values, last.size(), 1e-13, "state of steps");
}

TEST(Retention, GradientsAreTheDifferences) {
  const std::vector<std::int64_t> offsets = {0, 3, 3, 70};
  for (const bool packed : {false, true}) {
    RetentionOptions options;
    if (packed) options.offsets = offsets;
    const Index batch = packed ? 1 : 2, sequences = packed ? 3 : 2;
    auto q = normal_array<double, 4>({batch, 2, 70, 3}, 1);
    auto k = normal_array<double, 4>({batch, 2, 70, 3}, 2);
    auto v = normal_array<double, 4>({batch, 2, 70, 5}, 3);
    auto state = normal_array<double, 4>({sequences, 2, 3, 5}, 4);
    const auto gamma = ssm::retention_decays<double>(2);
    const auto dy = normal_array<double, 4>(v.extents(), 5);
    const auto dlast = normal_array<double, 4>(state.extents(), 6);
    NdArray<double, 4> gq(q.extents()), gk(k.extents()), gv(v.extents()), gs(state.extents());
    const RetentionInputs<double> in{q.view(), k.view(), v.view(), gamma.view(), state.view()};
    ssm::retention_vjp(in, dy.view(), dlast.view(), {gq.view(), gk.view(), gv.view(), gs.view()},
                       options);
    NdArray<double, 4> out(v.extents()), last(state.extents());
    const auto loss = [&] {
      ssm::retention(in, out.view(), last.view(), options);
      return dot(out, dy) + dot(last, dlast);
    };
    expect_gradient("q", span_of(q), span_of(gq), loss);
    expect_gradient("k", span_of(k), span_of(gk), loss);
    expect_gradient("v", span_of(v), span_of(gv), loss);
    expect_gradient("state", span_of(state), span_of(gs), loss);
  }
}

TEST(Retention, PiecesThreadsAndFloats) {
  const auto q = normal_array<float, 4>({1, 3, 600, 16}, 1),
             k = normal_array<float, 4>({1, 3, 600, 16}, 2);
  const auto v = normal_array<float, 4>({1, 3, 600, 24}, 3);
  const auto gamma = ssm::retention_decays<float>(3);
  const RetentionInputs<float> in{q.view(), k.view(), v.view(), gamma.view()};
  NdArray<float, 4> whole(v.extents()), last({1, 3, 16, 24}), parallel(v.extents());
  ssm::retention(in, whole.view(), last.view());
  ssm::retention_parallel(in, parallel.view());
  expect_same(parallel, whole, 1e-5, "parallel");
  NdArray<float, 4> out(v.extents()), state({1, 3, 16, 24});
  RetentionInputs<float> part = in;
  part.initial_state = state.view();
  for (const auto& [at, count] : {std::pair<Index, Index>{0, 129}, {129, 1}, {130, 470}}) {
    part.q = in.q.slice(2, at, count);
    part.k = in.k.slice(2, at, count);
    part.v = in.v.slice(2, at, count);
    RetentionOptions options;
    options.threads = 1 + static_cast<int>(at % 3);
    ssm::retention(part, out.view().slice(2, at, count), state.view(), options);
  }
  expect_same(out, whole, 1e-6, "pieces");
  expect_same(state, last, 1e-6, "state");
}

TEST(Retention, WrongInputIsNamed) {
  auto q = normal_array<float, 4>({1, 2, 9, 4}, 1), v = normal_array<float, 4>({1, 2, 9, 5}, 3);
  auto gamma = ssm::retention_decays<float>(2);
  NdArray<float, 4> out(v.extents());
  const auto run = [&] {
    ssm::retention<float>({q.view(), q.view(), v.view(), gamma.view()}, out.view());
  };
  v(0, 1, 8, 2) = std::numeric_limits<float>::quiet_NaN();
  expect_words("v: expected finite numbers, got NaN or infinity at (0, 1, 8, 2)", run);
  v(0, 1, 8, 2) = 0;
  gamma(1) = 1.01F;
  expect_words("gamma: expected decays above 0, at most 1, got 1.01 at 1", run);
  gamma = ssm::retention_decays<float>(3);
  expect_words("gamma: expected 2, got 3", run);
  gamma = ssm::retention_decays<float>(2);
  q = normal_array<float, 4>({1, 2, 8, 4}, 1);
  expect_words("quern::ssm::retention: q: expected 1 x 2 x 9 x 4, got 1 x 2 x 8 x 4", run);
}

TEST(Retention, LongSequencesInFloat) {
  constexpr Index length = 16384;
  const auto q = normal_array<float, 4>({1, 2, length, 4}, 1),
             k = normal_array<float, 4>({1, 2, length, 4}, 2);
  const auto v = normal_array<float, 4>({1, 2, length, 3}, 3);
  const auto q64 = converted<double>(q), k64 = converted<double>(k), v64 = converted<double>(v);
  for (const float decay : {1.0F, 1 - 0x1p-20F, 1 - 0x1p-12F, 0.97F, 1e-3F}) {
    NdArray<float, 1> gamma({2});
    gamma.fill(decay);
    const auto gamma64 = converted<double>(gamma);
    NdArray<float, 4> out(v.extents()), dq(q.extents());
    NdArray<double, 4> want(v.extents()), dq64(q.extents());
    const RetentionInputs<float> in{q.view(), k.view(), v.view(), gamma.view()};
    const RetentionInputs<double> in64{q64.view(), k64.view(), v64.view(), gamma64.view()};
    ssm::retention(in, out.view());
    ssm::retention(in64, want.view());
    expect_close(out.data(), want.data(), static_cast<std::size_t>(out.size()), 1e-5, "out");
    ssm::retention_vjp(in, v.view(), {}, {dq.view()});
    ssm::retention_vjp(in64, v64.view(), {}, {dq64.view()});
    expect_close(dq.data(), dq64.data(), static_cast<std::size_t>(dq.size()), 1e-5, "dq");
  }
}

TEST(Retention, NoStepAndOneKeepOrTakeTheState) {
  const auto gamma = ssm::retention_decays<double>(2);
  const auto q = normal_array<double, 4>({1, 2, 1, 3}, 1),
             v = normal_array<double, 4>({1, 2, 1, 4}, 2);
  const auto state = normal_array<double, 4>({1, 2, 3, 4}, 3);
  NdArray<double, 4> out(v.extents()), none({1, 2, 0, 4}), last(state.extents());
  RetentionInputs<double> in{q.view().slice(2, 0, 0), q.view().slice(2, 0, 0),
                             v.view().slice(2, 0, 0), gamma.view(), state.view()};
  ssm::retention(in, none.view(), last.view());
  expect_same(last, state, 0, "no step");
  in.q = in.k = q.view(), in.v = v.view();
  ssm::retention(in, out.view(), last.view());
  EXPECT_NEAR(last(0, 1, 2, 3), gamma(1) * state(0, 1, 2, 3) + q(0, 1, 0, 2) * v(0, 1, 0, 3),
              1e-14);
  auto wrong = NdArray<double, 4>({1, 2, 4, 3});
  in.initial_state = wrong.view();
  expect_words("initial_state: expected 1 x 2 x 3 x 4, got 1 x 2 x 4 x 3",
               [&] { ssm::retention(in, out.view()); });
  wrong = state;
  wrong(0, 1, 0, 0) = std::numeric_limits<double>::quiet_NaN();
  in.initial_state = wrong.view();
  expect_words("initial_state: expected finite numbers, got NaN or infinity at (0, 1, 0, 0)",
               [&] { ssm::retention(in, out.view()); });
}

}  // namespace
}  // namespace quern::test::retention
