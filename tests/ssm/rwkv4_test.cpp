// SPDX-License-Identifier: Apache-2.0

/// \file
/// RWKV-4's recurrence against references with gradients (also where e^k overflows), differences,
/// and itself in steps, pieces and packed sequences.

#include "quern/ssm/rwkv4.hpp"

#include "ssm/differences.hpp"
#include "ssm/reference.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

namespace quern::test::rwkv4 {
namespace {

using ssm::Rwkv4Inputs;
using ssm::RwkvOptions;

void expect_reference(const std::string& name) {
  SCOPED_TRACE(name);
  const auto get = [&](const char* array) { return ssm_reference<double>(name + "__" + array); };
  const auto k = get("k"), v = get("v"), w = get("w"), u = get("u"), gy = get("gy");
  const Rwkv4Inputs<double> in{k.view<3>(), v.view<3>(), w.view<1>(), u.view<1>()};
  const Shape<3> shape = in.k.extents();
  NdArray<double, 3> y(shape), last({shape[0], 3, shape[2]}), gk(shape), gv(shape);
  NdArray<double, 1> gw({shape[2]}), gu({shape[2]});
  ssm::rwkv4(in, y.view(), last.view());
  ssm::rwkv4_vjp(in, gy.view<3>(), {}, {gk.view(), gv.view(), gw.view(), gu.view()});
  // Double on both sides, and the gradient of w sums 40 steps.
  const double tolerance = 1e-12;
  const auto expect = [&](const double* got, const char* array) {
    const SsmArray<double> want = get(array);
    expect_close(got, want.values, want.size(), tolerance, array);
  };
  expect(y.data(), "y");
  expect(gk.data(), "gk");
  expect(gv.data(), "gv");
  expect(gw.data(), "gw");
  expect(gu.data(), "gu");
  const auto p = get("p"), q = get("q"), o = get("o");
  for (Index b = 0; b < shape[0]; ++b) {
    for (Index i = 0; i < shape[2]; ++i) {
      EXPECT_NEAR(last(b, 0, i), p.view<2>()(b, i), tolerance);
      EXPECT_NEAR(last(b, 1, i), q.view<2>()(b, i), tolerance);
      EXPECT_NEAR(last(b, 2, i), o.view<2>()(b, i), tolerance * 100);
    }
  }
}

TEST(Rwkv4, Reference) {
  expect_reference("rwkv4_wkv");
  expect_reference("rwkv4_wkv_bigk");
}

template <class T>
struct Arrays {
  NdArray<T, 3> k, v, state;
  NdArray<T, 1> w, u;

  Arrays(Index batch, Index length, Index channels, Index sequences)
      : k(normal_array<T, 3>({batch, length, channels}, 1, 2)),
        v(normal_array<T, 3>({batch, length, channels}, 2)),
        state(normal_array<T, 3>({sequences, 3, channels}, 3)),
        w(normal_array<T, 1>({channels}, 4)),
        u(normal_array<T, 1>({channels}, 5)) {
    for (T& x : w) x = -std::exp(x);
    for (Index s = 0; s < sequences; ++s) {
      for (Index i = 0; i < channels; ++i) state(s, 1, i) = std::exp(state(s, 1, i));
    }
  }
  [[nodiscard]] Rwkv4Inputs<T> inputs() const {
    return {k.view(), v.view(), w.view(), u.view(), state.view()};
  }
};

TEST(Rwkv4, GradientsAreTheDifferences) {
  const std::vector<std::int64_t> offsets = {0, 3, 3, 70};
  for (const bool packed : {false, true}) {
    RwkvOptions options;
    if (packed) options.offsets = offsets;
    const Index batch = packed ? 1 : 2, sequences = packed ? 3 : 2, length = 70, channels = 5;
    Arrays<double> x(batch, length, channels, sequences), g = x;
    g.w.fill(0);
    g.u.fill(0);
    NdArray<double, 3> dstate({sequences, 2, channels});
    const auto dy = normal_array<double, 3>({batch, length, channels}, 20);
    const auto dlast = normal_array<double, 3>({sequences, 2, channels}, 21);
    ssm::rwkv4_vjp(x.inputs(), dy.view(), dlast.view(),
                   {g.k.view(), g.v.view(), g.w.view(), g.u.view(), dstate.view()}, options);
    NdArray<double, 3> out(dy.extents()), last({sequences, 3, channels});
    ssm::rwkv4(x.inputs(), out.view(), last.view(), options);
    NdArray<double, 3> fixed = last;
    const auto loss = [&] {  // states as they would be with o where it was
      ssm::rwkv4(x.inputs(), out.view(), last.view(), options);
      double sum = dot(out, dy);
      for (Index s = 0; s < sequences; ++s) {
        for (Index i = 0; i < channels; ++i) {
          const double unit = std::exp(last(s, 2, i) - fixed(s, 2, i));
          sum += unit * (last(s, 0, i) * dlast(s, 0, i) + last(s, 1, i) * dlast(s, 1, i));
        }
      }
      return sum;
    };
    expect_gradient("k", span_of(x.k), span_of(g.k), loss);
    expect_gradient("v", span_of(x.v), span_of(g.v), loss);
    expect_gradient("w", span_of(x.w), span_of(g.w), loss);
    expect_gradient("u", span_of(x.u), span_of(g.u), loss);
    for (Index s = 0; s < sequences; ++s) {
      for (Index j = 0; j < 2; ++j) {
        for (Index i = 0; i < channels; ++i) {
          double& at = x.state(s, j, i);
          const double before = at;
          at = before + 1e-5;
          const double up = loss();
          at = before - 1e-5;
          const double down = loss();
          at = before;
          EXPECT_NEAR((up - down) / 2e-5, dstate(s, j, i), 1e-6);
        }
      }
    }
  }
}

TEST(Rwkv4, StepsAndPacksAreTheWhole) {
  constexpr Index length = 45, channels = 19;
  const Arrays<float> x(2, length, channels, 2);
  NdArray<float, 3> whole(x.k.extents()), last({2, 3, channels}), state = x.state,
                                                                  out(x.k.extents());
  ssm::rwkv4(x.inputs(), whole.view(), last.view());
  for (Index t = 0; t < length; ++t) {
    ssm::rwkv4_step<float>(x.k.view().subview(t, 1), x.v.view().subview(t, 1), x.w.view(),
                           x.u.view(), state.view(), out.view().subview(t, 1));
  }
  for (Index i = 0; i < out.size(); ++i) ASSERT_EQ(out.data()[i], whole.data()[i]);
  for (Index i = 0; i < last.size(); ++i) ASSERT_EQ(state.data()[i], last.data()[i]);

  // Both rows as one batch entry of packed sequences, on several threads.
  const std::vector<std::int64_t> offsets = {0, length, 2 * length};
  for (const int threads : {1, 2, 3}) {
    RwkvOptions options;
    options.offsets = offsets;
    options.threads = threads;
    const Shape<3> flat = {1, 2 * length, channels};
    const Rwkv4Inputs<float> in{NdView<const float, 3>(x.k.data(), flat),
                                NdView<const float, 3>(x.v.data(), flat), x.w.view(), x.u.view(),
                                x.state.view()};
    ssm::rwkv4(in, NdView<float, 3>(out.data(), flat), {}, options);
    for (Index i = 0; i < out.size(); ++i) ASSERT_EQ(out.data()[i], whole.data()[i]);
  }
}

TEST(Rwkv4, FloatIsSafeForAnyKey) {
  Arrays<float> x(1, 200, 6, 1);
  const auto scale = normal_array<float, 3>({1, 200, 6}, 9, 300);
  x.k = scale;
  Arrays<double> exact(1, 200, 6, 1);
  exact.k = converted<double>(x.k), exact.v = converted<double>(x.v);
  exact.w = converted<double>(x.w), exact.u = converted<double>(x.u);
  NdArray<float, 3> out({1, 200, 6}), g({1, 200, 6});
  NdArray<double, 3> want({1, 200, 6}), dwant({1, 200, 6});
  const Rwkv4Inputs<float> in{x.k.view(), x.v.view(), x.w.view(), x.u.view()};
  const Rwkv4Inputs<double> in64{exact.k.view(), exact.v.view(), exact.w.view(), exact.u.view()};
  ssm::rwkv4(in, out.view());
  ssm::rwkv4(in64, want.view());
  // Exponents of up to 1000 are rounded to 2^-15 before e^x is taken, on the way back at each step.
  expect_close(out.data(), want.data(), 1200, 1e-4, "out");
  ssm::rwkv4_vjp(in, out.view(), {}, {g.view()});
  ssm::rwkv4_vjp(in64, want.view(), {}, {dwant.view()});
  expect_close(g.data(), dwant.data(), 1200, 1e-3, "dk");
}

TEST(Rwkv4, WrongInputIsNamed) {
  Arrays<float> x(2, 20, 5, 2);
  NdArray<float, 3> out(x.k.extents()), none({2, 0, 5}), last({2, 3, 5});
  ssm::rwkv4<float>({none.view(), none.view(), x.w.view(), x.u.view(), x.state.view()}, none.view(),
                    last.view());
  EXPECT_EQ(last(1, 0, 3), x.state(1, 0, 3)) << "no step keeps the state";
  const auto expect = [&](const std::string& part, const RwkvOptions& options = {}) {
    try {
      ssm::rwkv4(x.inputs(), out.view(), {}, options);
      ADD_FAILURE() << part;
    } catch (const Error& e) {
      EXPECT_NE(std::string(e.what()).find(part), std::string::npos) << e.what();
    }
  };
  x.k(1, 7, 3) = std::numeric_limits<float>::quiet_NaN();
  expect("k: expected finite numbers, got NaN or infinity at (1, 7, 3)");
  x.k(1, 7, 3) = 0;
  x.w(2) = 0.25F;
  expect("w: expected finite logarithms of decays, not above 0, got 0.25 at 2");
  RwkvOptions clip;
  clip.clip_decay = true;
  ssm::rwkv4(x.inputs(), out.view(), {}, clip);
  NdArray<float, 3> state = x.state;
  NdArray<float, 2> y({2, 5});
  ssm::rwkv4_step<float>(x.k.view().subview(0, 1), x.v.view().subview(0, 1), x.w.view(), x.u.view(),
                         state.view(), y.view(), clip);
  for (Index i = 0; i < 5; ++i) EXPECT_EQ(y(1, i), out(1, 0, i)) << i;
  x.w(2) = -1;
  x.state = NdArray<float, 3>({1, 3, 5});
  expect("initial_state: expected 2 x 3 x 5, got 1 x 3 x 5");
}

TEST(Rwkv4, LongSequencesInFloatAndAnyDecay) {
  constexpr Index length = 16384;
  for (const double size : {1e-8, 1e-4, 1e-2, 1.0, 1e3}) {
    SCOPED_TRACE(size);
    Arrays<float> x(1, length, 3, 1);
    Arrays<double> wide(1, length, 3, 1);
    for (float& w : x.w) w *= static_cast<float>(size);
    wide.k = converted<double>(x.k), wide.v = converted<double>(x.v);
    wide.w = converted<double>(x.w), wide.u = converted<double>(x.u);
    NdArray<float, 3> out(x.k.extents()), g(x.k.extents());
    NdArray<double, 3> want(x.k.extents());
    const Rwkv4Inputs<float> in{x.k.view(), x.v.view(), x.w.view(), x.u.view()};
    ssm::rwkv4(in, out.view());
    ssm::rwkv4<double>({wide.k.view(), wide.v.view(), wide.w.view(), wide.u.view()}, want.view());
    expect_close(out.data(), want.data(), static_cast<std::size_t>(out.size()), 1e-5, "out");
    ssm::rwkv4_vjp(in, out.view(), {}, {g.view()});
    for (const float d : g) ASSERT_TRUE(std::isfinite(d));
  }
}

}  // namespace
}  // namespace quern::test::rwkv4
