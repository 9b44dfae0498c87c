// SPDX-License-Identifier: Apache-2.0

/// \file
/// The decayed recurrence against its definition, step by step in double; gradients against finite
/// differences; what must not change a bit (threads) and what changes rounding alone (chunks,
/// splitting a sequence).

#include "quern/kernels/decayed_recurrence.hpp"

#include "quern/core/random.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

namespace quern::test::decayed_recurrence {
namespace {

using kernels::RecurrenceGradients;
using kernels::RecurrenceOptions;
using kernels::RecurrenceViews;

enum class Kind { none, head, step, channel };

/// One problem with all that may be given.
template <class T>
struct Problem {
  Index batch = 2, heads = 2, length = 0, key_dim = 0, value_dim = 0;
  Kind kind = Kind::none;
  RecurrenceOptions options;
  NdArray<T, 4> q, k, v, channel, initial;
  NdArray<T, 3> step;
  NdArray<T, 1> head;
  NdArray<T, 2> bonus;

  Problem(Kind decay, bool old, Index n, Index dk, Index dv, std::uint64_t seed, Index shared = 2)
      : length(n), key_dim(dk), value_dim(dv), kind(decay) {
    Philox random(seed, "recurrence");
    const auto fill = [&](auto& a, auto extents, double low, double high) {
      a.resize(extents);
      for (T& x : a) x = static_cast<T>(random.uniform(low, high));
    };
    fill(q, Shape<4>{batch, heads, n, dk}, -1.0, 1.0);
    fill(k, Shape<4>{batch, shared, n, dk}, -1.0, 1.0);
    fill(v, Shape<4>{batch, heads, n, dv}, -1.0, 1.0);
    fill(initial, Shape<4>{batch, heads, dk, dv}, -1.0, 1.0);
    if (kind == Kind::head) fill(head, Shape<1>{heads}, -0.5, -0.01);
    if (kind == Kind::step) fill(step, Shape<3>{batch, shared, n}, -1.0, -0.01);
    if (kind == Kind::channel) fill(channel, Shape<4>{batch, heads, n, dk}, -1.5, -0.01);
    options.scale = 0.5;
    options.from_old_state = old;
    if (old) fill(bonus, Shape<2>{heads, dk}, -1.0, 1.0);
  }

  [[nodiscard]] RecurrenceViews<T> views() const {
    RecurrenceViews<T> in;
    in.q = q.view(), in.k = k.view(), in.v = v.view(), in.initial_state = initial.view();
    if (kind == Kind::head) in.head_decay = head.view();
    if (kind == Kind::step) in.step_decay = step.view();
    if (kind == Kind::channel) in.channel_decay = channel.view();
    if (!bonus.empty()) in.bonus = bonus.view();
    return in;
  }
  [[nodiscard]] double log_decay(Index b, Index h, Index t, Index c) const {
    if (kind == Kind::head) return static_cast<double>(head(h));
    if (kind == Kind::step) return static_cast<double>(step(b, h * step.extent(1) / heads, t));
    if (kind == Kind::channel) return static_cast<double>(channel(b, h, t, c));
    return 0;
  }
};

/// Output and last state, step by step.
template <class T>
void naive(const Problem<T>& p, NdArray<double, 4>& out, NdArray<double, 4>& state) {
  out.resize({p.batch, p.heads, p.length, p.value_dim});
  state.resize(p.initial.extents());
  for (Index b = 0; b < p.batch; ++b) {
    for (Index h = 0; h < p.heads; ++h) {
      const Index hk = h * p.k.extent(1) / p.heads;
      for (Index c = 0; c < p.key_dim; ++c) {
        for (Index e = 0; e < p.value_dim; ++e) {
          double s = static_cast<double>(p.initial(b, h, c, e));
          for (Index t = 0; t < p.length; ++t) {
            const double qt = static_cast<double>(p.q(b, h, t, c)) * p.options.scale;
            const double kv =
                static_cast<double>(p.k(b, hk, t, c)) * static_cast<double>(p.v(b, h, t, e));
            const double u = p.bonus.empty() ? 0.0 : static_cast<double>(p.bonus(h, c));
            if (p.options.from_old_state) out(b, h, t, e) += qt * (s + u * kv);
            s = std::exp(p.log_decay(b, h, t, c)) * s + kv;
            if (!p.options.from_old_state) out(b, h, t, e) += qt * s;
          }
          state(b, h, c, e) = s;
        }
      }
    }
  }
}

template <class A>
double largest(const A& a) {
  double most = 0;
  for (const auto x : a) most = (std::max)(most, std::fabs(static_cast<double>(x)));
  return most;
}
template <class A, class B>
void expect_near(const A& got, const B& expected, double tolerance) {
  ASSERT_EQ(got.size(), expected.size());
  const double bound = tolerance * (std::max)(1.0, largest(expected));
  for (Index i = 0; i < got.size(); ++i) {
    const double g = static_cast<double>(got.data()[i]),
                 e = static_cast<double>(expected.data()[i]);
    ASSERT_TRUE(std::fabs(g - e) <= bound) << i << ": " << g << " for " << e;
  }
}

template <class T>
class DecayedRecurrence : public ::testing::Test {};
using Scalars = ::testing::Types<float, double>;
TYPED_TEST_SUITE(DecayedRecurrence, Scalars);

TYPED_TEST(DecayedRecurrence, AgainstItsDefinitionAtEveryLevel) {
  using T = TypeParam;
  // Rounding: sums of up to key_dim + length terms of size about one.
  const double tolerance = 200 * static_cast<double>(std::numeric_limits<T>::epsilon());
  for (const Kind kind : {Kind::none, Kind::head, Kind::step, Kind::channel}) {
    for (const bool old : {false, true}) {
      for (const Shape<3>& size : {Shape<3>{1, 1, 1}, Shape<3>{5, 3, 2}, Shape<3>{70, 16, 17},
                                   Shape<3>{67, 9, 40}, Shape<3>{3, 0, 4}, Shape<3>{0, 4, 4}}) {
        Problem<T> p(kind, old, size[0], size[1], size[2], 7, 1);
        NdArray<double, 4> expected, last;
        naive(p, expected, last);
        for (const simd::Level level : simd::attainable_levels()) {
          const simd::ScopedLevel force(level);
          SCOPED_TRACE(std::string(simd::name(level)) + " kind " +
                       std::to_string(static_cast<int>(kind)) + " of " + shape_text(size));
          NdArray<T, 4> out(expected.extents()), state(p.initial.extents());
          kernels::decayed_recurrence<T>(p.views(), out.view(), state.view(), p.options);
          expect_near(out, expected, tolerance);
          expect_near(state, last, tolerance);
        }
      }
    }
  }
}

/// A scalar of all outputs: random weights of out and of the final state.
double objective(const Problem<double>& p, const NdArray<double, 4>& dout,
                 const NdArray<double, 4>& dstate) {
  NdArray<double, 4> out, state;
  naive(p, out, state);
  double sum = 0;
  for (Index i = 0; i < out.size(); ++i) sum += out.data()[i] * dout.data()[i];
  for (Index i = 0; i < state.size(); ++i) sum += state.data()[i] * dstate.data()[i];
  return sum;
}

template <class A, class G>
void check_gradient(Problem<double>& p, A& values, const G& gradient,
                    const NdArray<double, 4>& dout, const NdArray<double, 4>& dstate,
                    const char* what) {
  for (Index i = 0; i < values.size(); i += 1 + values.size() / 40) {
    const double before = values.data()[i], h = 1e-5;
    values.data()[i] = before + h;
    const double above = objective(p, dout, dstate);
    values.data()[i] = before - h;
    const double below = objective(p, dout, dstate);
    values.data()[i] = before;
    ASSERT_NEAR(gradient.data()[i], (above - below) / (2 * h), 1e-6) << what << " " << i;
  }
}

TEST(DecayedRecurrenceGradients, AgainstFiniteDifferences) {
  for (const Kind kind : {Kind::none, Kind::head, Kind::step, Kind::channel}) {
    for (const bool old : {false, true}) {
      for (const Index chunk : {4, 64}) {
        SCOPED_TRACE(std::to_string(static_cast<int>(kind)) + (old ? " old" : " new"));
        Problem<double> p(kind, old, 11, 5, 6, 3, 1);
        p.options.chunk = chunk;
        NdArray<double, 4> dout({2, 2, 11, 6}), dstate(p.initial.extents());
        Philox random(9, "cotangent");
        for (double& x : dout) x = random.uniform(-1.0, 1.0);
        for (double& x : dstate) x = random.uniform(-1.0, 1.0);
        Problem<double> g = p;
        for (double& x : g.head) x = 0;
        for (double& x : g.bonus) x = 0;
        RecurrenceGradients<double> to;
        to.q = g.q.view(), to.k = g.k.view(), to.v = g.v.view(),
        to.initial_state = g.initial.view();
        if (kind == Kind::head) to.head_decay = g.head.view();
        if (kind == Kind::step) to.step_decay = g.step.view();
        if (kind == Kind::channel) to.channel_decay = g.channel.view();
        if (old) to.bonus = g.bonus.view();
        kernels::decayed_recurrence_vjp<double>(p.views(), dout.view(), dstate.view(), to,
                                                p.options);
        check_gradient(p, p.q, g.q, dout, dstate, "q");
        check_gradient(p, p.k, g.k, dout, dstate, "k");
        check_gradient(p, p.v, g.v, dout, dstate, "v");
        check_gradient(p, p.initial, g.initial, dout, dstate, "initial");
        check_gradient(p, p.head, g.head, dout, dstate, "head");
        check_gradient(p, p.step, g.step, dout, dstate, "step");
        check_gradient(p, p.channel, g.channel, dout, dstate, "channel");
        check_gradient(p, p.bonus, g.bonus, dout, dstate, "bonus");
      }
    }
  }
}

/// Gradients of a long float sequence stay near those in double: the decay's sum starts anew.
TEST(DecayedRecurrenceGradients, LongSequencesInFloat) {
  for (const bool old : {false, true}) {
    for (const Kind kind : {Kind::step, Kind::channel}) {
      const Index n = 1500;
      Problem<float> p(kind, old, n, 6, 5, 4, 1);
      Problem<double> wide(kind, old, n, 6, 5, 4, 1);
      const auto widen = [](const auto& from, auto& to) {
        for (Index i = 0; i < from.size(); ++i) to.data()[i] = static_cast<double>(from.data()[i]);
      };
      widen(p.q, wide.q), widen(p.k, wide.k), widen(p.v, wide.v), widen(p.initial, wide.initial);
      widen(p.step, wide.step), widen(p.channel, wide.channel), widen(p.bonus, wide.bonus);
      NdArray<float, 4> dout({2, 2, n, 5});
      NdArray<double, 4> wide_dout(dout.extents());
      Philox random(5, "cotangent");
      for (float& x : dout) x = random.uniform(-1.0F, 1.0F);
      widen(dout, wide_dout);
      NdArray<float, 3> step(p.step.extents());
      NdArray<float, 4> channel(p.channel.extents());
      NdArray<double, 3> wide_step(p.step.extents());
      NdArray<double, 4> wide_channel(p.channel.extents());
      RecurrenceGradients<float> to;
      RecurrenceGradients<double> wide_to;
      if (kind == Kind::step) to.step_decay = step.view(), wide_to.step_decay = wide_step.view();
      if (kind == Kind::channel) {
        to.channel_decay = channel.view(), wide_to.channel_decay = wide_channel.view();
      }
      kernels::decayed_recurrence_vjp<float>(p.views(), dout.view(), {}, to, p.options);
      kernels::decayed_recurrence_vjp<double>(wide.views(), wide_dout.view(), {}, wide_to,
                                              wide.options);
      expect_near(step, wide_step, 1e-5);
      expect_near(channel, wide_channel, 1e-5);
    }
  }
}

TYPED_TEST(DecayedRecurrence, ThreadsChangeNoBitChunksAndSplitsRoundingAlone) {
  using T = TypeParam;
  const double tolerance = 100 * static_cast<double>(std::numeric_limits<T>::epsilon());
  for (const bool old : {false, true}) {
    const Index n = 150;
    Problem<T> p(Kind::channel, old, n, 20, 70, 2);
    NdArray<T, 4> out({2, 2, n, 70}), last(p.initial.extents());
    kernels::decayed_recurrence<T>(p.views(), out.view(), last.view(), p.options);
    for (const Index chunk : {64, 1, 7, 1000}) {
      p.options.chunk = chunk;
      p.options.threads = static_cast<int>(chunk % 3) + 1;
      NdArray<T, 4> again(out.extents()), state(p.initial.extents());
      kernels::decayed_recurrence<T>(p.views(), again.view(), state.view(), p.options);
      if (chunk == 64) {
        EXPECT_TRUE(std::equal(out.begin(), out.end(), again.begin()));
        EXPECT_TRUE(std::equal(last.begin(), last.end(), state.begin()));
      }
      expect_near(again, out, tolerance);
      expect_near(state, last, tolerance);
    }
    // In three calls, the state handed on; the last one a single step.
    NdArray<T, 4> again(out.extents()), state = p.initial;
    const Index cuts[] = {0, 61, n - 1, n};
    for (int i = 0; i < 3; ++i) {
      RecurrenceViews<T> in = p.views();
      const Index begin = cuts[i], count = cuts[i + 1] - begin;
      for (auto* x : {&in.q, &in.k, &in.v, &in.channel_decay}) *x = x->slice(2, begin, count);
      NdArray<T, 4> next(state.extents());
      in.initial_state = state.view();
      kernels::decayed_recurrence<T>(in, again.view().slice(2, begin, count), next.view(),
                                     p.options);
      state = next;
    }
    expect_near(again, out, tolerance);
    expect_near(state, last, tolerance);
  }
}

/// Steps that forget more than a folded chunk may, even everything, beside channels that hardly do.
TYPED_TEST(DecayedRecurrence, ForgetsAnythingAtAnyStep) {
  using T = TypeParam;
  for (const bool old : {false, true}) {
    Problem<T> p(Kind::channel, old, 90, 9, 20, 8);
    Philox random(3, "decays");
    for (T& x : p.channel) {
      const double kind = random.uniform(0.0, 1.0);
      x = static_cast<T>(kind < 0.01   ? -std::numeric_limits<double>::infinity()
                         : kind < 0.02 ? random.uniform(-90.0, -19.0)
                                       : random.uniform(-1.0, 0.0));
    }
    NdArray<double, 4> expected, last;
    naive(p, expected, last);
    NdArray<T, 4> out(expected.extents()), state(p.initial.extents()), dq(p.q.extents());
    kernels::decayed_recurrence<T>(p.views(), out.view(), state.view(), p.options);
    const double tolerance = 200 * static_cast<double>(std::numeric_limits<T>::epsilon());
    expect_near(out, expected, tolerance);
    expect_near(state, last, tolerance);
    // dq of an output's first channel is the state's column: the output of q = e_c.
    NdArray<T, 4> dout(out.extents());
    for (Index i = 0; i < dout.size(); i += 20) dout.data()[i] = T{1};
    p.bonus.fill(T{0});
    RecurrenceGradients<T> to;
    to.q = dq.view();
    kernels::decayed_recurrence_vjp<T>(p.views(), dout.view(), {}, to, p.options);
    p.q.fill(T{0});
    for (Index i = 0; i < p.q.size(); i += 9) p.q.data()[i] = T{1};
    naive(p, expected, last);
    for (Index i = 0; i < expected.size(); i += 20) {
      ASSERT_NEAR(static_cast<double>(dq.data()[i / 20 * 9]), expected.data()[i],
                  tolerance * largest(expected));
    }
  }
}

TEST(DecayedRecurrenceLong, FloatStaysNearDouble) {
  Problem<float> p(Kind::channel, false, 16384, 4, 3, 6);
  Philox random(7, "decays");
  for (float& x : p.channel) {
    x = random.uniform(0.0F, 1.0F) < 0.9F ? random.uniform(-2e-4F, -1e-5F) : -0.02F;
  }
  for (Index i = 0; i < p.channel.size(); i += 4) p.channel.data()[i] = -1e-4F;
  NdArray<double, 4> expected, last;
  naive(p, expected, last);
  NdArray<float, 4> out(expected.extents()), state(p.initial.extents());
  kernels::decayed_recurrence<float>(p.views(), out.view(), state.view(), p.options);
  expect_near(out, expected, 1e-5);
  expect_near(state, last, 1e-5);
}

/// Many heads that share keys or queries, rows far apart in memory.
TEST(DecayedRecurrenceGradients, OfSharedHeadsAreSums) {
  const Index heads = 24, n = 70, d = 8, dv = 16;
  Philox random(2, "shared");
  const auto drawn = [&](Index count) {
    NdArray<float, 4> x({1, n, count, count == heads ? dv : d});
    for (float& value : x) value = random.uniform(-1.0F, 1.0F);
    return x;
  };
  const NdArray<float, 4> q = drawn(1), k = drawn(2), v = drawn(heads), dout = drawn(heads);
  NdArray<float, 4> all_q({1, heads, n, d}), all_k(all_q.extents());
  for (Index h = 0; h < heads; ++h) {
    for (Index t = 0; t < n; ++t) {
      for (Index c = 0; c < d; ++c) {
        all_q(0, h, t, c) = q(0, t, 0, c), all_k(0, h, t, c) = k(0, t, h / 12, c);
      }
    }
  }
  NdArray<float, 3> decay({1, heads, n});
  for (float& x : decay) x = random.uniform(-0.3F, -0.01F);
  const std::array<int, 4> order{0, 2, 1, 3};
  RecurrenceViews<float> in;
  in.q = q.view().permuted(order), in.k = k.view().permuted(order);
  in.v = v.view().permuted(order), in.step_decay = decay.view();
  NdArray<float, 4> dq(q.extents()), dk(k.extents()), each_q(all_q.extents()), each_k = each_q;
  RecurrenceGradients<float> to;
  to.q = dq.view().permuted(order), to.k = dk.view().permuted(order);
  NdArray<float, 4> first_q, first_k;
  for (int threads = 1; threads <= 3; ++threads) {
    RecurrenceOptions options;
    options.threads = threads;
    kernels::decayed_recurrence_vjp<float>(in, dout.view().permuted(order), {}, to, options);
    if (threads == 1) first_q = dq, first_k = dk;
    EXPECT_TRUE(std::equal(dq.begin(), dq.end(), first_q.begin()));
    EXPECT_TRUE(std::equal(dk.begin(), dk.end(), first_k.begin()));
  }
  in.q = all_q.view(), in.k = all_k.view();
  to.q = each_q.view(), to.k = each_k.view();
  kernels::decayed_recurrence_vjp<float>(in, dout.view().permuted(order), {}, to, {});
  NdArray<double, 4> sum_q(dq.extents()), sum_k(dk.extents());
  for (Index h = 0; h < heads; ++h) {
    for (Index t = 0; t < n; ++t) {
      for (Index c = 0; c < d; ++c) {
        sum_q(0, t, 0, c) += static_cast<double>(each_q(0, h, t, c));
        sum_k(0, t, h / 12, c) += static_cast<double>(each_k(0, h, t, c));
      }
    }
  }
  expect_near(dq, sum_q, 3e-6);
  expect_near(dk, sum_k, 3e-6);
}

TEST(DecayedRecurrenceSequences, LengthsPackedAndStrided) {
  // Three sequences of 5, 0 and 9 steps: padded, packed, and each alone give the same bits.
  const std::vector<std::int64_t> lengths{5, 0, 9}, cumulative{0, 5, 5, 14};
  Philox random(1, "sequences");
  NdArray<float, 4> q({1, 2, 14, 4}), k({1, 2, 14, 4}), v({1, 2, 14, 3});
  for (auto* x : {&q, &k, &v}) {
    for (float& value : *x) value = random.uniform(-1.0F, 1.0F);
  }
  RecurrenceViews<float> in;
  in.q = q.view(), in.k = k.view(), in.v = v.view();
  RecurrenceOptions options;
  options.sequences.cumulative = cumulative;
  NdArray<float, 4> packed({1, 2, 14, 3}), states({3, 2, 4, 3});
  kernels::decayed_recurrence<float>(in, packed.view(), states.view(), options);
  // (batch, length, heads, dim), padded to 10 steps with what must not be read into anything.
  NdArray<float, 4> qp({3, 10, 2, 4}), kp({3, 10, 2, 4}), vp({3, 10, 2, 3}), out({3, 10, 2, 3});
  for (auto* x : {&qp, &kp, &vp, &out}) x->fill(std::numeric_limits<float>::quiet_NaN());
  for (std::size_t s = 0; s < 3; ++s) {
    for (Index t = 0; t < lengths[s]; ++t) {
      const Index b = static_cast<Index>(s), at = cumulative[s] + t;
      for (Index h = 0; h < 2; ++h) {
        for (Index c = 0; c < 4; ++c)
          qp(b, t, h, c) = q(0, h, at, c), kp(b, t, h, c) = k(0, h, at, c);
        for (Index c = 0; c < 3; ++c) vp(b, t, h, c) = v(0, h, at, c);
      }
    }
  }
  const std::array<int, 4> order{0, 2, 1, 3};
  in.q = NdView<const float, 4>(qp.view()).permuted(order);
  in.k = NdView<const float, 4>(kp.view()).permuted(order);
  in.v = NdView<const float, 4>(vp.view()).permuted(order);
  options.sequences = {};
  options.sequences.lengths = lengths;
  NdArray<float, 4> padded_states({3, 2, 4, 3});
  kernels::decayed_recurrence<float>(in, out.view().permuted(order), padded_states.view(), options);
  EXPECT_TRUE(std::equal(states.begin(), states.end(), padded_states.begin()));
  for (Index s = 0; s < 3; ++s) {
    for (Index t = 0; t < 10; ++t) {
      const Index n = lengths[static_cast<std::size_t>(s)];
      for (Index h = 0; h < 2; ++h) {
        for (Index c = 0; c < 3; ++c) {
          const float expected =
              t < n ? packed(0, h, cumulative[static_cast<std::size_t>(s)] + t, c) : 0.0F;
          ASSERT_EQ(out(s, t, h, c), expected);
        }
      }
    }
  }
}

TEST(DecayedRecurrenceErrors, SayWhatDoesNotFit) {
  Problem<float> p(Kind::step, false, 6, 4, 4, 1);
  NdArray<float, 4> out({2, 2, 6, 4}), wrong({2, 2, 5, 4});
  const auto run = [&](const RecurrenceViews<float>& in, NdView<float, 4> to) {
    kernels::decayed_recurrence<float>(in, to, {}, p.options);
  };
  EXPECT_THROW(run(p.views(), wrong.view()), ShapeError);
  RecurrenceViews<float> in = p.views();
  in.channel_decay = p.q.view();
  EXPECT_THROW(run(in, out.view()), ValueError);
  in = p.views();
  NdArray<float, 2> bonus({2, 4});
  in.bonus = bonus.view();
  EXPECT_THROW(run(in, out.view()), ValueError);
  in = p.views();
  NdArray<float, 4> three({2, 3, 6, 4});
  in.k = three.view();
  EXPECT_THROW(run(in, out.view()), ShapeError);
  p.options.chunk = 0;
  EXPECT_THROW(run(p.views(), out.view()), ValueError);
  p.options.chunk = 64;
  const std::vector<std::int64_t> lengths{3, 7};
  p.options.sequences.lengths = lengths;
  EXPECT_THROW(run(p.views(), out.view()), ValueError);
}

}  // namespace
}  // namespace quern::test::decayed_recurrence
