// SPDX-License-Identifier: Apache-2.0

/// \file
/// RWKV-7's recurrence against a reference, differences, and itself in pieces and packs.

#include "quern/ssm/rwkv7.hpp"

#include "ssm/differences.hpp"
#include "ssm/reference.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

namespace quern::test::rwkv7 {
namespace {

using ssm::Rwkv7Inputs;
using ssm::RwkvOptions;

TEST(Rwkv7, Reference) {
  const auto get = [&](const char* array) {
    return ssm_reference<double>(std::string("rwkv7__") + array);
  };
  const auto r = get("r"), decay = get("decay"), k = get("k"), v = get("v"), a = get("a");
  const auto b = get("b"), h0 = get("h0"), o = get("o"), last = get("hT");
  const Rwkv7Inputs<double> in{r.view<4>(), decay.view<4>(), k.view<4>(), v.view<4>(),
                               a.view<4>(), b.view<4>(),     h0.view<4>()};
  NdArray<double, 4> out(v.view<4>().extents()), state(h0.view<4>().extents());
  ssm::rwkv7(in, out.view(), state.view());
  expect_close(out.data(), o.values, o.size(), 1e-13, "o");
  expect_close(state.data(), last.values, last.size(), 1e-13, "hT");
}

/// In (batch, length, heads, dim), seen as (batch, heads, length, dim).
template <class T>
struct Arrays {
  NdArray<T, 4> r, decay, k, v, a, b, state;

  Arrays(Index batch, Index heads, Index length, Index keys, Index values, Index sequences)
      : r(normal_array<T, 4>({batch, length, heads, keys}, 1)),
        decay(normal_array<T, 4>({batch, length, heads, keys}, 2)),
        k(normal_array<T, 4>({batch, length, heads, keys}, 3)),
        v(normal_array<T, 4>({batch, length, heads, values}, 4)),
        a(normal_array<T, 4>({batch, length, heads, keys}, 5)),
        b(normal_array<T, 4>({batch, length, heads, keys}, 6)),
        state(normal_array<T, 4>({sequences, heads, values, keys}, 7)) {
    for (T& x : decay) x = 1 / (1 + std::exp(x - 2));
    for (auto* x : {&a, &b}) {
      for (T& e : *x) e *= static_cast<T>(0.6 / std::sqrt(static_cast<double>(keys)));
    }
  }
  static NdView<T, 4> heads_first(NdArray<T, 4>& x) { return x.view().permuted({0, 2, 1, 3}); }
  [[nodiscard]] Rwkv7Inputs<T> inputs() {
    return {heads_first(r), heads_first(decay), heads_first(k), heads_first(v),
            heads_first(a), heads_first(b),     state.view()};
  }
};

TEST(Rwkv7, GradientsAreTheDifferences) {
  const std::vector<std::int64_t> offsets = {0, 2, 2, 37};
  for (const bool packed : {false, true}) {
    RwkvOptions options;
    if (packed) options.offsets = offsets;
    const Index batch = packed ? 1 : 2, sequences = packed ? 3 : 2, values = packed ? 70 : 5;
    Arrays<double> x(batch, 2, 37, 6, values, sequences), g = x;
    const auto dy = normal_array<double, 4>({batch, 2, 37, values}, 20);
    const auto dlast = normal_array<double, 4>({sequences, 2, values, 6}, 21);
    using A = Arrays<double>;
    ssm::rwkv7_vjp(x.inputs(), dy.view(), dlast.view(),
                   {A::heads_first(g.r), A::heads_first(g.decay), A::heads_first(g.k),
                    A::heads_first(g.v), A::heads_first(g.a), A::heads_first(g.b), g.state.view()},
                   options);
    NdArray<double, 4> out(dy.extents()), last(dlast.extents());
    const auto loss = [&] {
      ssm::rwkv7(x.inputs(), out.view(), last.view(), options);
      return dot(out, dy) + dot(last, dlast);
    };
    expect_gradient("r", span_of(x.r), span_of(g.r), loss);
    expect_gradient("decay", span_of(x.decay), span_of(g.decay), loss);
    expect_gradient("k", span_of(x.k), span_of(g.k), loss);
    expect_gradient("v", span_of(x.v), span_of(g.v), loss);
    expect_gradient("a", span_of(x.a), span_of(g.a), loss);
    expect_gradient("b", span_of(x.b), span_of(g.b), loss);
    expect_gradient("state", span_of(x.state), span_of(g.state), loss);
  }
}

TEST(Rwkv7, StepsPiecesAndThreadsAreTheWhole) {
  constexpr Index length = 40;
  Arrays<float> x(2, 3, length, 9, 33, 2);
  NdArray<float, 4> whole({2, 3, length, 33}), last(x.state.extents());
  ssm::rwkv7(x.inputs(), whole.view(), last.view());
  NdArray<float, 4> out(whole.extents()), state = x.state;
  Index cut = 0;
  for (const Index count : {Index{1}, Index{1}, Index{20}, Index{18}}) {
    Rwkv7Inputs<float> in = x.inputs();
    for (auto* v : {&in.r, &in.decay, &in.k, &in.v, &in.a, &in.b}) *v = v->slice(2, cut, count);
    in.initial_state = state.view();
    RwkvOptions options;
    options.threads = 1 + static_cast<int>(cut % 3);
    ssm::rwkv7(in, out.view().slice(2, cut, count), state.view(), options);
    cut += count;
  }
  for (Index i = 0; i < out.size(); ++i) ASSERT_EQ(out.data()[i], whole.data()[i]);
  for (Index i = 0; i < last.size(); ++i) ASSERT_EQ(state.data()[i], last.data()[i]);
}

TEST(Rwkv7, StepsAreTheWhole) {
  Arrays<float> x(2, 3, 20, 9, 33, 2);
  NdArray<float, 4> whole({2, 3, 20, 33}), last(x.state.extents()), out(whole.extents());
  ssm::rwkv7(x.inputs(), whole.view(), last.view());
  NdArray<float, 4> state = x.state;
  const Rwkv7Inputs<float> in = x.inputs();
  for (Index t = 0; t < 20; ++t) {
    const auto at = [t](const NdView<const float, 4>& v) { return v.subview(t, 2); };
    ssm::rwkv7_step<float>({at(in.r), at(in.decay), at(in.k), at(in.v), at(in.a), at(in.b)},
                           state.view(), out.view().subview(t, 2));
  }
  for (Index i = 0; i < out.size(); ++i) ASSERT_EQ(out.data()[i], whole.data()[i]);
  for (Index i = 0; i < last.size(); ++i) ASSERT_EQ(state.data()[i], last.data()[i]);
}

TEST(Rwkv7, WrongInputIsNamed) {
  Arrays<float> x(2, 2, 20, 4, 5, 2);
  NdArray<float, 4> out({2, 2, 20, 5});
  const auto expect = [&](const std::string& part) {
    try {
      ssm::rwkv7(x.inputs(), out.view());
      ADD_FAILURE() << part;
    } catch (const Error& e) {
      EXPECT_NE(std::string(e.what()).find(part), std::string::npos) << e.what();
    }
  };
  x.decay(1, 3, 0, 2) = 1.5F;
  expect("decay: expected multipliers in 0..1, got 1.5 at (1, 0, 3, 2)");
  RwkvOptions clip;
  clip.clip_decay = true;
  ssm::rwkv7(x.inputs(), out.view(), {}, clip);
  x.decay(1, 3, 0, 2) = std::numeric_limits<float>::quiet_NaN();
  expect("decay");
  x.decay(1, 3, 0, 2) = 0;
  x.v(0, 19, 1, 4) = std::numeric_limits<float>::infinity();
  expect("v: expected finite numbers, got NaN or infinity at (0, 1, 19, 4)");
  x.state = NdArray<float, 4>({2, 2, 4, 5});
  expect("initial_state: expected 2 x 2 x 5 x 4, got 2 x 2 x 4 x 5");
}

/// The delta rule as RWKV-7 has it: a = -k, b = k times a rate, |k| = 1.
template <class T>
Arrays<T> delta_rule(Index length, double decay) {
  Arrays<T> x(1, 1, length, 4, 3, 1);
  for (Index t = 0; t < length; ++t) {
    double norm = 0;
    for (Index c = 0; c < 4; ++c) norm += std::pow(static_cast<double>(x.k(0, t, 0, c)), 2);
    for (Index c = 0; c < 4; ++c) {
      const double k = static_cast<double>(x.k(0, t, 0, c)) / std::sqrt(norm);
      x.k(0, t, 0, c) = static_cast<T>(k);
      x.a(0, t, 0, c) = static_cast<T>(-k);
      x.b(0, t, 0, c) = static_cast<T>(0.1 * k);
    }
  }
  x.decay.fill(static_cast<T>(decay));
  return x;
}

TEST(Rwkv7, LongSequencesInFloatAndAnyDecay) {
  constexpr Index length = 16384;
  for (const double decay : {0.0, 1e-8, 0.5, 1 - 0x1p-10, 1 - 0x1p-20, 1.0}) {
    Arrays<float> x = delta_rule<float>(length, decay);
    Arrays<double> wide = delta_rule<double>(length, decay);
    wide.r = converted<double>(x.r), wide.decay = converted<double>(x.decay);
    wide.k = converted<double>(x.k), wide.v = converted<double>(x.v);
    wide.a = converted<double>(x.a), wide.b = converted<double>(x.b);
    wide.state = converted<double>(x.state);
    NdArray<float, 4> out({1, 1, length, 3});
    NdArray<double, 4> want(out.extents());
    ssm::rwkv7(x.inputs(), out.view());
    ssm::rwkv7(wide.inputs(), want.view());
    expect_close(out.data(), want.data(), static_cast<std::size_t>(out.size()), 1e-5, "out");
  }
}

TEST(Rwkv7, NoStepKeepsTheState) {
  Arrays<double> x(1, 2, 0, 3, 4, 1);
  NdArray<double, 4> none({1, 2, 0, 4}), last(x.state.extents());
  ssm::rwkv7(x.inputs(), none.view(), last.view());
  EXPECT_TRUE(std::equal(last.begin(), last.end(), x.state.begin()));
}

}  // namespace
}  // namespace quern::test::rwkv7
