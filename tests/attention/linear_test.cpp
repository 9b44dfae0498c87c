// SPDX-License-Identifier: Apache-2.0

/// \file
/// Linear attention against references, against its definition as an array of weights, gradients
/// against finite differences; states, lengths, feature maps, orders of products, bits.

#include "quern/attention/linear.hpp"

#include "reference.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <limits>
#include <string>
#include <vector>

namespace quern::test::linear_attention {
namespace {

using attention::Feature;
using attention::FeatureMap;
using attention::LinearGradients;
using attention::LinearInputs;
using attention::LinearOptions;
using attention::LinearState;
using attention::NamedFeature;

template <class T>
struct Arrays {
  NdArray<T, 4> q, k, v;
  [[nodiscard]] LinearInputs<T> inputs(const FeatureMap<T>* map) const {
    LinearInputs<T> in;
    in.q = q.view(), in.k = k.view(), in.v = v.view(), in.query_map = map;
    return in;
  }
};

// One instantiation each, called through these.
template <class T>
void forward(const LinearInputs<T>& in, NdArray<T, 4>& out, const LinearOptions& options,
             LinearState<T>* state = nullptr) {
  attention::linear_attention<T>(in, out.view(), state, {}, options);
}
template <class T>
void backward(const LinearInputs<T>& in, const NdArray<T, 4>& dout, const LinearGradients<T>& to,
              const LinearOptions& options) {
  attention::linear_attention_vjp<T>(in, {}, dout.view(), to, options);
}

template <class T>
void reference_case(const std::string& name, const FeatureMap<T>* map, const LinearOptions& options,
                    const std::function<void(LinearInputs<T>&)>& more = {}) {
  SCOPED_TRACE(name);
  const auto read = [&](const char* what) { return attention_reference<T, 4>(name, what); };
  const Arrays<T> x{read("q"), read("k"), read("v")};
  const NdArray<T, 4> dout = read("dout");
  LinearInputs<T> in = x.inputs(map);
  if (more) more(in);
  NdArray<T, 4> out(dout.extents()), dq(x.q.extents()), dk(x.k.extents()), dv(x.v.extents());
  forward(in, out, options);
  expect_attention_near(out, read("out"), attention_output_tolerance<T>, "out");
  NdArray<T, 4> dg(in.channel_decay.extents());
  LinearGradients<T> to;
  to.q = dq.view(), to.k = dk.view(), to.v = dv.view();
  if (!dg.empty()) to.channel_decay = dg.view();
  backward(in, dout, to, options);
  expect_attention_near(dq, read("dq"), attention_gradient_tolerance<T>, "dq");
  expect_attention_near(dk, read("dk"), attention_gradient_tolerance<T>, "dk");
  expect_attention_near(dv, read("dv"), attention_gradient_tolerance<T>, "dv");
  if (!dg.empty()) expect_attention_near(dg, read("dg"), attention_gradient_tolerance<T>, "dg");
}

template <class T>
class LinearAttention : public ::testing::Test {};
using Scalars = ::testing::Types<float, double>;
TYPED_TEST_SUITE(LinearAttention, Scalars);

TYPED_TEST(LinearAttention, References) {
  using T = TypeParam;
  const NamedFeature<T> elu1(Feature::elu1), relu(Feature::relu), relu2(Feature::relu2);
  for (const bool causal : {false, true}) {
    LinearOptions options;
    options.visible.causal = causal;
    const std::string end = causal ? "causal" : "full";
    reference_case<T>("linear_elu1_" + end, &elu1, options);
    options.eps = 1e-3;
    reference_case<T>("linear_relu_" + end, &relu, options);
    reference_case<T>("linear_relu2_" + end, &relu2, options);
  }
  LinearOptions padded;
  const std::vector<std::int64_t> lengths{48};
  padded.visible.key_sequences.lengths = lengths;
  reference_case<T>("linear_elu1_cross_padded", &elu1, padded);
}

TYPED_TEST(LinearAttention, RetentionAndGatesReferences) {
  using T = TypeParam;
  LinearOptions options;
  options.visible.causal = true;
  options.normalise = false;
  options.scale = 0.25;  // 1 / sqrt(16)
  NdArray<T, 1> gamma = attention_reference<T, 1>("retention", "gamma");
  for (T& x : gamma) x = std::log(x);
  reference_case<T>("retention", nullptr, options,
                    [&](LinearInputs<T>& in) { in.head_decay = gamma.view(); });
  const NdArray<T, 4> gates = attention_reference<T, 4>("gla", "g");
  reference_case<T>("gla", nullptr, options,
                    [&](LinearInputs<T>& in) { in.channel_decay = gates.view(); });
}

TYPED_TEST(LinearAttention, DecodeReference) {
  using T = TypeParam;
  const std::string name = "linear_elu1_decode";
  const auto read = [&](const char* what) { return attention_reference<T, 4>(name, what); };
  const Arrays<T> x{read("q"), read("k"), read("v")};
  const NamedFeature<T> elu1(Feature::elu1);
  LinearOptions options;
  options.visible.causal = true;
  LinearState<T> state(1, 2, 16, 16), copy;
  NdArray<T, 4> out(x.q.extents());
  for (Index t = 0; t < 70; ++t) {
    LinearInputs<T> in = x.inputs(&elu1);
    for (auto* a : {&in.q, &in.k, &in.v}) *a = a->slice(2, t, 1);
    attention::linear_attention<T>(in, out.view().slice(2, t, 1), &state, {}, options);
    if (t == 29) {
      expect_attention_near(state.sums, read("S_split"), attention_output_tolerance<T>, "S");
      expect_attention_near(state.normaliser, read("z_split"), attention_output_tolerance<T>, "z");
      copy = state;
    }
  }
  expect_attention_near(out, read("out"), attention_output_tolerance<T>, "out");
  expect_attention_near(state.sums, read("S_final"), attention_output_tolerance<T>, "S");
  // In one call, and resumed from the copy: the same bits.
  NdArray<T, 4> whole(out.extents()), rest({1, 2, 40, 16});
  forward(x.inputs(&elu1), whole, options);
  EXPECT_TRUE(std::equal(out.begin(), out.end(), whole.begin()));
  LinearInputs<T> in = x.inputs(&elu1);
  for (auto* a : {&in.q, &in.k, &in.v}) *a = a->slice(2, 30, 40);
  forward(in, rest, options, &copy);
  for (Index h = 0; h < 2; ++h) {
    for (Index t = 0; t < 40; ++t) ASSERT_EQ(rest(0, h, t, 3), whole(0, h, t + 30, 3));
  }
}

/// out by the array of weights, in double. `decays`: log factors by (key head, key), or empty.
struct Definition {
  bool causal = false, normalise = true;
  Index offset = 0;
  double eps = 1e-6, scale = 1;
  std::function<double(double)> phi = [](double x) { return x; };
  NdArray<double, 3> decays;

  template <class T>
  NdArray<double, 4> operator()(const Arrays<T>& x) const {
    const Index n = x.q.extent(2), keys = x.k.extent(2), d = x.q.extent(3), dv = x.v.extent(3);
    const Index share = x.q.extent(1) / x.k.extent(1);
    NdArray<double, 4> out({x.q.extent(0), x.q.extent(1), n, dv});
    for (Index b = 0; b < x.q.extent(0); ++b) {
      for (Index h = 0; h < x.q.extent(1); ++h) {
        for (Index i = 0; i < n; ++i) {
          double total = eps, gone = 0;
          const Index last = causal ? (std::min)(i + offset, keys - 1) : keys - 1;
          for (Index t = keys; causal && !decays.empty() && t <= i + offset; ++t) gone += 0;
          for (Index j = last; j >= 0; --j) {
            double w = 0;
            for (Index c = 0; c < d; ++c) {
              w += phi(static_cast<double>(x.q(b, h, i, c))) *
                   phi(static_cast<double>(x.k(b, h / share, j, c)));
            }
            w *= std::exp(gone);
            if (!decays.empty()) gone += decays(b, h / share, j);
            total += w;
            for (Index c = 0; c < dv; ++c) {
              out(b, h, i, c) += scale * w * static_cast<double>(x.v(b, h / share, j, c));
            }
          }
          for (Index c = 0; c < dv && normalise && total != 0; ++c) out(b, h, i, c) /= total;
        }
      }
    }
    return out;
  }
};

template <class T>
Arrays<T> random_arrays(Index heads, Index key_heads, Index n, Index keys, Index d, Index dv,
                        double deviation = 1) {
  return {attention_normal<T, 4>({2, heads, n, d}, 1, deviation),
          attention_normal<T, 4>({2, key_heads, keys, d}, 2, deviation),
          attention_normal<T, 4>({2, key_heads, keys, dv}, 3)};
}

TYPED_TEST(LinearAttention, AgainstItsDefinition) {
  using T = TypeParam;
  struct Map {
    Feature name;
    std::function<double(double)> phi;
  };
  const Map maps[] = {{Feature::elu1, [](double x) { return x > 0 ? x + 1 : std::exp(x); }},
                      {Feature::softplus, [](double x) { return std::log1p(std::exp(x)); }},
                      {Feature::exp, [](double x) { return std::exp(x); }}};
  struct Size {
    Index heads, key_heads, n, keys, d, dv;
    bool causal;
    Index offset;
  };
  for (const Size& s :
       {Size{2, 2, 1, 1, 1, 1, true, 0}, Size{4, 2, 150, 150, 20, 33, true, 0},
        Size{1, 1, 70, 90, 9, 70, true, 20}, Size{2, 1, 40, 25, 8, 4, true, -7},
        Size{2, 1, 200, 300, 5, 17, false, 0}, Size{2, 2, 9, 7, 30, 40, false, 0}}) {
    for (const Map& m : maps) {
      SCOPED_TRACE("n " + std::to_string(s.n) + " map " + std::to_string(static_cast<int>(m.name)));
      const Arrays<T> x = random_arrays<T>(s.heads, s.key_heads, s.n, s.keys, s.d, s.dv);
      const NamedFeature<T> map(m.name);
      LinearOptions options;
      options.visible.causal = s.causal;
      options.visible.offset = s.offset;
      Definition definition;
      definition.causal = s.causal, definition.offset = s.offset, definition.phi = m.phi;
      NdArray<T, 4> out({2, s.heads, s.n, s.dv}), again(out.extents());
      forward(x.inputs(&map), out, options);
      expect_attention_near(out, definition(x), attention_output_tolerance<T>, "out");
      options.chunk = 13, options.threads = 3;
      forward(x.inputs(&map), again, options);
      EXPECT_TRUE(std::equal(out.begin(), out.end(), again.begin())) << "chunk and threads";
    }
  }
}

TEST(LinearAttentionProperty, PlainestFormIsTwoProductsInEitherOrder) {
  // No map, no normaliser: (Q K^T) V = Q (K^T V).
  for (const Index n : {5, 130, 400}) {
    const Arrays<double> x = random_arrays<double>(2, 2, n, n, 24, 12);
    LinearOptions options;
    options.normalise = false;
    Definition definition;
    definition.normalise = false;
    const NdArray<double, 4> expected = definition(x);
    for (const auto order : {attention::LinearOrder::automatic, attention::LinearOrder::keys_first,
                             attention::LinearOrder::scores_first}) {
      options.order = order;
      NdArray<double, 4> out(expected.extents());
      forward(x.inputs(nullptr), out, options);
      expect_attention_near(out, expected, 1e-13, "order");
    }
  }
}

/// Gradients of everything at once.
void check_gradients(Feature name, bool causal, Index n, Index keys, Index offset, int decay,
                     bool normalise) {
  Arrays<double> x = random_arrays<double>(2, 1, n, keys, 4, 3, 0.7);
  const NamedFeature<double> map(name);
  LinearOptions options;
  options.visible.causal = causal;
  options.visible.offset = offset;
  options.normalise = normalise;
  options.eps = 1e-2;
  options.scale = 0.7;
  NdArray<double, 1> head_decay({1});
  NdArray<double, 3> steps({2, 1, keys});
  NdArray<double, 4> channels({2, 1, keys, 4});
  Philox random(1, "decays");
  head_decay(0) = -0.1;
  for (double& g : steps) g = random.uniform(-0.5, -0.01);
  for (double& g : channels) g = random.uniform(-0.5, -0.01);
  const auto inputs = [&] {
    LinearInputs<double> in = x.inputs(&map);
    if (decay == 1) in.head_decay = head_decay.view();
    if (decay == 2) in.step_decay = steps.view();
    if (decay == 3) in.channel_decay = channels.view();
    return in;
  };
  const NdArray<double, 4> dout = attention_normal<double, 4>({2, 2, n, 3}, 9);
  NdArray<double, 4> dq(x.q.extents()), dk(x.k.extents()), dv(x.v.extents());
  NdArray<double, 1> dhead({1});
  NdArray<double, 3> dsteps(steps.extents());
  NdArray<double, 4> dchannels(channels.extents());
  LinearGradients<double> to;
  to.q = dq.view(), to.k = dk.view(), to.v = dv.view();
  if (decay == 1) to.head_decay = dhead.view();
  if (decay == 2) to.step_decay = dsteps.view();
  if (decay == 3) to.channel_decay = dchannels.view();
  backward(inputs(), dout, to, options);
  const std::function<void(NdArray<double, 4>&)> f = [&](NdArray<double, 4>& out) {
    forward(inputs(), out, options);
  };
  expect_attention_gradient(x.q, dq, dout, f, "q");
  expect_attention_gradient(x.k, dk, dout, f, "k");
  expect_attention_gradient(x.v, dv, dout, f, "v");
  if (decay == 1) expect_attention_gradient(head_decay, dhead, dout, f, "head");
  if (decay == 2) expect_attention_gradient(steps, dsteps, dout, f, "steps");
  if (decay == 3) expect_attention_gradient(channels, dchannels, dout, f, "channels");
}

TEST(LinearAttentionGradients, AgainstFiniteDifferences) {
  for (const Feature name : {Feature::identity, Feature::elu1, Feature::relu2, Feature::softplus,
                             Feature::exp, Feature::softmax}) {
    SCOPED_TRACE(static_cast<int>(name));
    const bool positive = name != Feature::identity;
    check_gradients(name, false, 9, 12, 0, 0, positive);
    check_gradients(name, true, 12, 12, 0, 0, positive);
  }
  for (const int decay : {1, 2, 3}) {
    SCOPED_TRACE("decay " + std::to_string(decay));
    check_gradients(Feature::elu1, true, 9, 12, 3, decay, true);
    check_gradients(Feature::exp, true, 12, 9, -2, decay, true);
    check_gradients(Feature::identity, true, 12, 12, 0, decay, false);
  }
}

TEST(LinearAttentionStability, ExpIsExactWhereItWouldOverflow) {
  // Adding 200 to all keys and -300 to all queries changes nothing but what e^x could not hold.
  const Arrays<float> x = random_arrays<float>(2, 2, 90, 90, 8, 8);
  Arrays<float> far = x;
  for (float& value : far.k) value += 200;
  for (float& value : far.q) value -= 300;
  const NamedFeature<float> map(Feature::exp);
  for (const bool causal : {false, true}) {
    LinearOptions options;
    options.visible.causal = causal;
    options.eps = 0;
    NdArray<float, 4> near_out(x.v.extents()), far_out(x.v.extents());
    forward(x.inputs(&map), near_out, options);
    forward(far.inputs(&map), far_out, options);
    expect_attention_near(far_out, near_out, 1e-4, "shifted");  // 200 + x has lost bits of x
  }
}

TEST(LinearAttentionMaps, CustomMapsAndNegativeFeatures) {
  const Arrays<double> x = random_arrays<double>(1, 1, 20, 20, 3, 2);
  using View = MatrixView<const double>;
  // phi(x) = (1, x, x^2) of the first channel: another number of features than of inputs.
  const attention::CustomFeature<double> powers(
      [](View in, MatrixView<double> phi) {
        for (Index r = 0; r < in.rows(); ++r) {
          phi(r, 0) = 1, phi(r, 1) = in(r, 0) * in(r, 0), phi(r, 2) = phi(r, 1) * phi(r, 1);
          phi(r, 3) = 0.5;
        }
      },
      {}, 4);
  LinearOptions options;
  options.visible.causal = true;
  NdArray<double, 4> out(x.v.extents());
  forward(x.inputs(&powers), out, options);
  double total = 1e-6, expected = 0;
  for (Index j = 0; j <= 7; ++j) {
    const double a = x.q(0, 0, 7, 0), b = x.k(0, 0, j, 0);
    const double w = 1.25 + a * a * b * b + a * a * a * a * b * b * b * b;
    total += w;
    expected += w * x.v(0, 0, j, 1);
  }
  EXPECT_NEAR(out(0, 0, 7, 1), expected / total, 1e-12);
  LinearInputs<double> in = x.inputs(nullptr);
  EXPECT_THROW(forward(in, out, options), ValueError) << "negative features are not summed up";
  NdArray<double, 4> dq(x.q.extents());
  LinearGradients<double> to;
  to.q = dq.view();
  EXPECT_THROW(backward(x.inputs(&powers), out, to, options), ValueError) << "no gradient given";
}

TEST(LinearAttentionSequences, PackedEqualsEachAlone) {
  const std::vector<std::int64_t> cumulative{0, 5, 5, 45};
  const NamedFeature<float> map(Feature::exp);
  const Arrays<float> x{attention_normal<float, 4>({1, 2, 45, 8}, 1),
                        attention_normal<float, 4>({1, 2, 45, 8}, 2),
                        attention_normal<float, 4>({1, 2, 45, 8}, 3)};
  LinearOptions options;
  options.visible.causal = true;
  options.visible.sequences.cumulative = cumulative;
  NdArray<float, 4> packed(x.q.extents());
  LinearState<float> state(3, 2, 8, 8);
  forward(x.inputs(&map), packed, options, &state);
  options.visible.sequences = {};
  LinearInputs<float> in = x.inputs(&map);
  for (auto* a : {&in.q, &in.k, &in.v}) *a = a->slice(2, 5, 40);
  NdArray<float, 4> alone({1, 2, 40, 8});
  LinearState<float> own(1, 2, 8, 8);
  forward(in, alone, options, &own);
  for (Index h = 0; h < 2; ++h) {
    EXPECT_EQ(own.log_scale(0, h), state.log_scale(2, h));
    for (Index t = 0; t < 40; ++t) {
      for (Index c = 0; c < 8; ++c) ASSERT_EQ(alone(0, h, t, c), packed(0, h, t + 5, c));
    }
  }
}

TEST(LinearAttentionErrors, SayWhatDoesNotFit) {
  const Arrays<float> x = random_arrays<float>(2, 2, 6, 6, 4, 4);
  const NamedFeature<float> map(Feature::relu);
  NdArray<float, 4> out(x.q.extents()), wrong({2, 2, 6, 5});
  LinearOptions options;
  EXPECT_THROW(forward(x.inputs(&map), wrong, options), ShapeError);
  LinearState<float> state(2, 2, 4, 4), small_state(1, 2, 4, 4);
  EXPECT_THROW(forward(x.inputs(&map), out, options, &state), ValueError) << "not causal";
  options.visible.causal = true;
  EXPECT_THROW(forward(x.inputs(&map), out, options, &small_state), ShapeError);
  options.visible.left = 3;
  EXPECT_THROW(forward(x.inputs(&map), out, options), ValueError) << "window";
  options.visible.left = -1;
  options.eps = -1;
  EXPECT_THROW(forward(x.inputs(&map), out, options), ValueError);
  // All features zero and no eps: nothing is seen.
  Arrays<float> none = x;
  none.k.fill(-1);
  options.eps = 0;
  forward(none.inputs(&map), out, options);
  for (const float value : out) EXPECT_EQ(value, 0);
  NdArray<float, 4> empty({2, 2, 0, 4});
  LinearInputs<float> in;
  in.q = in.k = in.v = empty.view();
  EXPECT_NO_THROW(forward(in, empty, options));
}

}  // namespace
}  // namespace quern::test::linear_attention
