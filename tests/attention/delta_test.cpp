// SPDX-License-Identifier: Apache-2.0

/// \file
/// The delta rule against its reference, gradients against finite differences, states, bits.

#include "quern/attention/delta.hpp"

#include "reference.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <vector>

namespace quern::test::delta_rule {
namespace {

using attention::DeltaGradients;
using attention::DeltaInputs;
using attention::DeltaOptions;

template <class T>
void forward(const DeltaInputs<T>& in, NdArray<T, 4>& out, NdView<T, 4> state,
             const DeltaOptions& options) {
  attention::delta_rule<T>(in, out.view(), state, options);
}

template <class T>
class DeltaRule : public ::testing::Test {};
using Scalars = ::testing::Types<float, double>;
TYPED_TEST_SUITE(DeltaRule, Scalars);

TYPED_TEST(DeltaRule, Reference) {
  using T = TypeParam;
  const auto read = [](const char* what) { return attention_reference<T, 4>("delta_rule", what); };
  const NdArray<T, 4> q = read("q"), k = read("k"), v = read("v"), dout = read("dout");
  const NdArray<T, 3> beta = attention_reference<T, 3>("delta_rule", "beta");
  DeltaInputs<T> in;
  in.q = q.view(), in.k = k.view(), in.v = v.view(), in.beta = beta.view();
  DeltaOptions options;
  options.scale = 0.25;  // 1 / sqrt(16)
  NdArray<T, 4> out(dout.extents()), dq(q.extents()), dk(k.extents()), dv(v.extents());
  NdArray<T, 3> dbeta(beta.extents());
  forward<T>(in, out, {}, options);
  expect_attention_near(out, read("out"), attention_output_tolerance<T>, "out");
  DeltaGradients<T> to;
  to.q = dq.view(), to.k = dk.view(), to.v = dv.view(), to.beta = dbeta.view();
  attention::delta_rule_vjp<T>(in, dout.view(), {}, to, options);
  expect_attention_near(dq, read("dq"), attention_gradient_tolerance<T>, "dq");
  expect_attention_near(dk, read("dk"), attention_gradient_tolerance<T>, "dk");
  expect_attention_near(dv, read("dv"), attention_gradient_tolerance<T>, "dv");
  expect_attention_near(dbeta, attention_reference<T, 3>("delta_rule", "dbeta"),
                        attention_gradient_tolerance<T>, "dbeta");
}

/// One problem: grouped queries, decay, an initial state.
struct Problem {
  NdArray<double, 4> q, k, v, initial;
  NdArray<double, 3> beta, decay;
  DeltaOptions options;

  explicit Problem(Index n)
      : q(attention_normal<double, 4>({2, 2, n, 5}, 1)),
        k(attention_normal<double, 4>({2, 1, n, 5}, 2, 0.4)),
        v(attention_normal<double, 4>({2, 1, n, 3}, 3)),
        initial(attention_normal<double, 4>({2, 2, 5, 3}, 4)),
        beta({2, 1, n}),
        decay({2, 1, n}) {
    Philox random(1, "delta");
    for (double& x : beta) x = random.uniform(0.1, 0.9);
    for (double& x : decay) x = random.uniform(-0.4, -0.01);
    options.scale = 0.6;
  }
  [[nodiscard]] DeltaInputs<double> inputs() const {
    DeltaInputs<double> in;
    in.q = q.view(), in.k = k.view(), in.v = v.view(), in.beta = beta.view();
    in.step_decay = decay.view(), in.initial_state = initial.view();
    return in;
  }
};

TEST(DeltaRuleDefinition, StepByStep) {
  Problem p(90);
  NdArray<double, 4> out({2, 2, 90, 3}), state(p.initial.extents());
  forward<double>(p.inputs(), out, state.view(), p.options);
  for (Index h = 0; h < 2; ++h) {
    NdArray<double, 4> s = p.initial;
    for (Index t = 0; t < 90; ++t) {
      const double a = std::exp(p.decay(1, 0, t));
      for (Index e = 0; e < 3; ++e) {
        double answer = 0, read = 0;
        for (Index c = 0; c < 5; ++c) answer += a * s(1, h, c, e) * p.k(1, 0, t, c);
        const double u = p.beta(1, 0, t) * (p.v(1, 0, t, e) - answer);
        for (Index c = 0; c < 5; ++c) {
          s(1, h, c, e) = a * s(1, h, c, e) + p.k(1, 0, t, c) * u;
          read += s(1, h, c, e) * p.q(1, h, t, c);
        }
        ASSERT_NEAR(out(1, h, t, e), 0.6 * read, 1e-12);
      }
    }
    EXPECT_NEAR(state(1, h, 2, 1), s(1, h, 2, 1), 1e-12);
  }
}

TEST(DeltaRuleGradients, AgainstFiniteDifferences) {
  Problem p(70);
  const NdArray<double, 4> dout = attention_normal<double, 4>({2, 2, 70, 3}, 7);
  NdArray<double, 4> dq(p.q.extents()), dk(p.k.extents()), dv(p.v.extents());
  NdArray<double, 4> dinitial(p.initial.extents());
  NdArray<double, 3> dbeta(p.beta.extents()), ddecay(p.decay.extents());
  DeltaGradients<double> to;
  to.q = dq.view(), to.k = dk.view(), to.v = dv.view(), to.beta = dbeta.view();
  to.step_decay = ddecay.view(), to.initial_state = dinitial.view();
  attention::delta_rule_vjp<double>(p.inputs(), dout.view(), {}, to, p.options);
  const std::function<void(NdArray<double, 4>&)> f = [&](NdArray<double, 4>& out) {
    forward<double>(p.inputs(), out, {}, p.options);
  };
  expect_attention_gradient(p.q, dq, dout, f, "q");
  expect_attention_gradient(p.k, dk, dout, f, "k");
  expect_attention_gradient(p.v, dv, dout, f, "v");
  expect_attention_gradient(p.beta, dbeta, dout, f, "beta");
  expect_attention_gradient(p.decay, ddecay, dout, f, "decay");
  expect_attention_gradient(p.initial, dinitial, dout, f, "initial");
  // By the final state: it counts as one more output.
  const NdArray<double, 4> dstate = attention_normal<double, 4>(p.initial.extents(), 8);
  NdArray<double, 4> none(dout.extents());
  attention::delta_rule_vjp<double>(p.inputs(), none.view(), dstate.view(), to, p.options);
  const std::function<void(NdArray<double, 4>&)> last = [&](NdArray<double, 4>& state) {
    NdArray<double, 4> out(dout.extents());
    forward<double>(p.inputs(), out, state.view(), p.options);
  };
  expect_attention_gradient(p.k, dk, dstate, last, "k by state");
  expect_attention_gradient(p.v, dv, dstate, last, "v by state");
  expect_attention_gradient(p.decay, ddecay, dstate, last, "decay by state");
  expect_attention_gradient(p.initial, dinitial, dstate, last, "initial by state");
}

TEST(DeltaRuleStates, SplitsAndThreadsChangeNoBit) {
  Problem p(100);
  NdArray<double, 4> out({2, 2, 100, 3}), again(out.extents()), state = p.initial;
  forward<double>(p.inputs(), out, {}, p.options);
  p.options.threads = 3;
  const Index cuts[] = {0, 37, 99, 100};
  for (int i = 0; i < 3; ++i) {
    DeltaInputs<double> in = p.inputs();
    const Index begin = cuts[i], count = cuts[i + 1] - begin;
    for (auto* x : {&in.q, &in.k, &in.v}) *x = x->slice(2, begin, count);
    for (auto* x : {&in.beta, &in.step_decay}) *x = x->slice(2, begin, count);
    NdArray<double, 4> next(state.extents());
    in.initial_state = state.view();
    attention::delta_rule<double>(in, again.view().slice(2, begin, count), next.view(), p.options);
    state = next;
  }
  EXPECT_TRUE(std::equal(out.begin(), out.end(), again.begin()));
}

TEST(DeltaRuleErrors, SayWhatDoesNotFit) {
  Problem p(6);
  NdArray<double, 4> out({2, 2, 6, 3}), wrong({2, 2, 6, 2});
  EXPECT_THROW(forward<double>(p.inputs(), wrong, {}, p.options), ShapeError);
  DeltaInputs<double> in = p.inputs();
  in.beta = {};
  EXPECT_THROW(forward<double>(in, out, {}, p.options), ShapeError);
  const std::vector<std::int64_t> lengths{3, 9};
  p.options.sequences.lengths = lengths;
  EXPECT_THROW(forward<double>(p.inputs(), out, {}, p.options), ValueError);
  const std::vector<std::int64_t> fine{3, 0};
  p.options.sequences.lengths = fine;
  out.fill(7);
  forward<double>(p.inputs(), out, {}, p.options);
  EXPECT_EQ(out(0, 1, 4, 2), 0);
  EXPECT_NE(out(0, 1, 2, 2), 7);
  EXPECT_EQ(out(1, 0, 0, 0), 0);
}

}  // namespace
}  // namespace quern::test::delta_rule
