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
  expect_same(out, whole, 0, "pieces");
  expect_same(state, last, 0, "state");
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
}

}  // namespace
}  // namespace quern::test::retention
