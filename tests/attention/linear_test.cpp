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
              const LinearOptions& options, const LinearState<T>* before = nullptr,
              const LinearState<T>* dafter = nullptr) {
  attention::linear_attention_vjp<T>(in, {{}, {}, before}, dout.view(), to, options, dafter);
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

using Joint = NdArray<double, 1>;

/// Outputs, sums and normalisers in a row, the last two in units of e^levels.
Joint joint(const NdArray<double, 4>& out, const LinearState<double>& state,
            const NdArray<double, 2>& levels) {
  Joint all({out.size() + state.sums.size() + state.normaliser.size()});
  double* at = std::copy(out.begin(), out.end(), all.data());
  const auto append = [&](const double* from, Index size, Index head) {
    const double level = levels.data()[head], own = state.log_scale.data()[head];
    const double unit = own == level ? 1 : std::exp(own - level);
    for (Index i = 0; i < size; ++i) *at++ = unit * from[i];
  };
  const Index heads = levels.size(), sums = state.sums.size() / heads;
  const Index features = state.normaliser.size() / heads;
  for (Index h = 0; h < heads; ++h) append(state.sums.data() + h * sums, sums, h);
  for (Index h = 0; h < heads; ++h) append(state.normaliser.data() + h * features, features, h);
  return all;
}

/// Decays of all kinds for one key head.
struct Decays {
  NdArray<double, 1> head{{1}};
  NdArray<double, 3> steps;
  NdArray<double, 4> channels;
  explicit Decays(Index keys) : steps({2, 1, keys}), channels({2, 1, keys, 4}) {
    Philox random(5, "decays");
    head(0) = -0.1;
    for (double& g : steps) g = random.uniform(-0.5, -0.01);
    for (double& g : channels) g = random.uniform(-0.5, -0.01);
  }
  void give(int kind, LinearInputs<double>& in, Index first, Index count) const {
    if (kind == 1) in.head_decay = head.view();
    if (kind == 2) in.step_decay = steps.view().slice(2, first, count);
    if (kind == 3) in.channel_decay = channels.view().slice(2, first, count);
  }
};

LinearOptions state_options(bool normalise) {
  LinearOptions options;
  options.visible.causal = true;
  options.normalise = normalise;
  options.eps = 1e-2, options.scale = 0.7;
  return options;
}

/// A state in the middle of things, gradients by the one after, and all gradients.
void check_state_gradients(Feature name, int decay, bool normalise) {
  SCOPED_TRACE(std::to_string(static_cast<int>(name)) + " decay " + std::to_string(decay));
  Arrays<double> x = random_arrays<double>(2, 1, 9, 9, 4, 3, 0.7);
  const Arrays<double> past = random_arrays<double>(2, 1, 5, 5, 4, 3, 0.7);
  const NamedFeature<double> map(name);
  const LinearOptions options = state_options(normalise);
  Decays decays(9);
  LinearState<double> before(2, 2, 4, 3), dafter(before), dbefore(before);
  NdArray<double, 4> past_out({2, 2, 5, 3});
  forward(past.inputs(&map), past_out, options, &before);
  const auto run = [&](LinearState<double>& state) {
    LinearInputs<double> in = x.inputs(&map);
    decays.give(decay, in, 0, 9);
    NdArray<double, 4> out({2, 2, 9, 3});
    forward(in, out, options, &state);
    return out;
  };
  LinearState<double> after(before);
  run(after);
  const NdArray<double, 2> levels = after.log_scale;
  const NdArray<double, 4> dout = attention_normal<double, 4>({2, 2, 9, 3}, 9);
  dafter.sums = attention_normal<double, 4>(before.sums.extents(), 10);
  dafter.normaliser = attention_normal<double, 3>(before.normaliser.extents(), 11);
  dafter.log_scale = levels;
  NdArray<double, 4> dq(x.q.extents()), dk(x.k.extents()), dv(x.v.extents());
  NdArray<double, 3> dsteps(decays.steps.extents());
  LinearGradients<double> to;
  to.q = dq.view(), to.k = dk.view(), to.v = dv.view(), to.initial = &dbefore;
  if (decay == 2) to.step_decay = dsteps.view();
  LinearInputs<double> in = x.inputs(&map);
  decays.give(decay, in, 0, 9);
  backward(in, dout, to, options, &before, &dafter);
  const Joint slopes = joint(dout, dafter, levels);
  const std::function<void(Joint&)> f = [&](Joint& all) {
    LinearState<double> state(before);
    const NdArray<double, 4> out = run(state);
    all = joint(out, state, levels);
  };
  expect_attention_gradient(before.sums, dbefore.sums, slopes, f, "sums");
  expect_attention_gradient(before.normaliser, dbefore.normaliser, slopes, f, "normaliser");
  expect_attention_gradient(x.q, dq, slopes, f, "q");
  expect_attention_gradient(x.k, dk, slopes, f, "k");
  expect_attention_gradient(x.v, dv, slopes, f, "v");
  if (decay == 2) expect_attention_gradient(decays.steps, dsteps, slopes, f, "steps");
}

TEST(LinearAttentionGradients, OfTheStatesAtBothEnds) {
  check_state_gradients(Feature::elu1, 0, true);
  check_state_gradients(Feature::elu1, 1, true);
  check_state_gradients(Feature::softmax, 2, true);
  check_state_gradients(Feature::exp, 0, true);
  check_state_gradients(Feature::exp, 3, true);
  check_state_gradients(Feature::identity, 3, false);
}

TEST(LinearAttentionGradients, OfPiecesAreThoseOfTheWhole) {
  constexpr Index n = 70, cut = 33;
  const Arrays<double> x = random_arrays<double>(2, 1, n, n, 4, 3, 0.7);
  const NdArray<double, 4> dout = attention_normal<double, 4>({2, 2, n, 3}, 9);
  for (const Feature name : {Feature::elu1, Feature::exp}) {
    for (const int decay : {0, 1, 2, 3}) {
      SCOPED_TRACE("decay " + std::to_string(decay));
      const NamedFeature<double> map(name);
      const LinearOptions options = state_options(true);
      const Decays decays(n);
      NdArray<double, 4> d[2][3];  // of the whole, of pieces; by q, k, v
      for (auto& of : d) {
        of[0].resize(x.q.extents()), of[1].resize(x.k.extents()), of[2].resize(x.v.extents());
      }
      const auto piece = [&](int which, Index first, Index count, LinearState<double>* before,
                             LinearState<double>* dbefore, const LinearState<double>* dafter) {
        LinearInputs<double> in = x.inputs(&map);
        for (auto* a : {&in.q, &in.k, &in.v}) *a = a->slice(2, first, count);
        decays.give(decay, in, first, count);
        LinearGradients<double> to;
        to.q = d[which][0].view().slice(2, first, count);
        to.k = d[which][1].view().slice(2, first, count);
        to.v = d[which][2].view().slice(2, first, count);
        to.initial = dbefore;
        const NdArray<double, 4> slope(dout.view().slice(2, first, count));
        backward(in, slope, to, options, before, dafter);
      };
      piece(0, 0, n, nullptr, nullptr, nullptr);
      LinearState<double> middle(2, 2, 4, 3), dmiddle(middle), dstart(middle), start(middle);
      LinearInputs<double> in = x.inputs(&map);
      for (auto* a : {&in.q, &in.k, &in.v}) *a = a->slice(2, 0, cut);
      decays.give(decay, in, 0, cut);
      NdArray<double, 4> out({2, 2, cut, 3});
      forward(in, out, options, &middle);
      piece(1, cut, n - cut, &middle, &dmiddle, nullptr);
      piece(1, 0, cut, &start, &dstart, &dmiddle);
      for (int i = 0; i < 3; ++i) expect_attention_near(d[1][i], d[0][i], 1e-12, "qkv");
    }
  }
}

TYPED_TEST(LinearAttention, GradientsWithAndWithoutArraysInBetween) {
  using T = TypeParam;
  // From a state of nothing gradients take the way by arrays, without one that by tiles.
  const Arrays<T> x = random_arrays<T>(3, 3, 150, 150, 12, 21);
  const NdArray<T, 4> dout = attention_normal<T, 4>(x.v.extents(), 9);
  for (const Feature name : {Feature::elu1, Feature::softmax, Feature::identity}) {
    const NamedFeature<T> map(name);
    LinearOptions options;
    options.visible.causal = true;
    options.normalise = name != Feature::identity;
    options.scale = 0.7;
    const LinearState<T> nothing(2, 3, 12, 21);
    NdArray<T, 4> d[2][3];
    for (int way = 0; way < 2; ++way) {
      d[way][0].resize(x.q.extents()), d[way][1].resize(x.k.extents());
      d[way][2].resize(x.v.extents());
      LinearGradients<T> to;
      to.q = d[way][0].view(), to.k = d[way][1].view(), to.v = d[way][2].view();
      backward(x.inputs(&map), dout, to, options, way == 0 ? nullptr : &nothing);
    }
    for (int i = 0; i < 3; ++i) {
      expect_attention_near(d[0][i], d[1][i], sizeof(T) == 4 ? 1e-5 : 1e-13, "gradient");
    }
  }
}

TEST(LinearAttentionDecay, EndsWithTheKeys) {
  // Queries after the last key see what the last one left, whatever kind of decay it was.
  const Arrays<double> x = random_arrays<double>(2, 1, 40, 25, 8, 4);
  const NamedFeature<double> map(Feature::elu1);
  LinearOptions options;
  options.visible.causal = true, options.visible.offset = 5;
  options.normalise = false;
  NdArray<double, 1> head({1});
  NdArray<double, 3> steps({2, 1, 25});
  head.fill(-0.2), steps.fill(-0.2);
  NdArray<double, 4> a({2, 2, 40, 4}), b(a.extents());
  LinearInputs<double> in = x.inputs(&map);
  in.head_decay = head.view();
  forward(in, a, options);
  in.head_decay = {}, in.step_decay = steps.view();
  forward(in, b, options);
  EXPECT_TRUE(std::equal(a.begin(), a.end(), b.begin()));
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

TEST(LinearAttentionSequences, GradientsByDecayAreZeroOutside) {
  const std::vector<std::int64_t> cumulative{0, 3, 5};
  const Shape<4> shape{1, 2, 8, 4};
  const Arrays<float> x{attention_normal<float, 4>(shape, 1), attention_normal<float, 4>(shape, 2),
                        attention_normal<float, 4>(shape, 3)};
  NdArray<float, 3> steps({1, 2, 8}), dsteps({1, 2, 8});
  NdArray<float, 4> channels(shape), dchannels(shape);
  const NamedFeature<float> map(Feature::elu1);
  LinearOptions options;
  options.visible.causal = true;
  options.visible.sequences.cumulative = cumulative;
  dsteps.fill(7), dchannels.fill(7);
  LinearInputs<float> by_step = x.inputs(&map), by_channel = x.inputs(&map);
  by_step.step_decay = steps.view(), by_channel.channel_decay = channels.view();
  LinearGradients<float> to_step, to_channel;
  to_step.step_decay = dsteps.view(), to_channel.channel_decay = dchannels.view();
  backward(by_step, x.v, to_step, options);
  backward(by_channel, x.v, to_channel, options);
  for (Index t = 0; t < 8; ++t) {
    EXPECT_NE(dsteps(0, 0, t), 7) << t;
    if (t < 5) continue;
    EXPECT_EQ(dsteps(0, 1, t), 0) << t;
    EXPECT_EQ(dchannels(0, 1, t, 3), 0) << t;
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
  LinearGradients<float> to;
  to.initial = &small_state;
  EXPECT_THROW(backward(x.inputs(&map), out, to, options), ShapeError) << "gradient by the state";
  to.initial = nullptr;
  EXPECT_THROW(backward(x.inputs(&map), out, to, options, {}, &small_state), ShapeError);
  options.visible.left = 3;
  EXPECT_THROW(forward(x.inputs(&map), out, options), ValueError) << "window";
  options.visible.left = -1;
  // What a row's scale takes out comes back in the normaliser alone.
  options.normalise = false;
  const NamedFeature<float> scaled(Feature::exp);
  EXPECT_THROW(forward(x.inputs(&scaled), out, options), ValueError);
  LinearGradients<float> to_q;
  to_q.q = wrong.view();
  EXPECT_THROW(backward(x.inputs(&scaled), out, to_q, options), ValueError);
  options.normalise = true;
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

TEST(LinearAttentionErrors, HeadsLengthsAndSequencesThatDoNotFit) {
  const NamedFeature<float> map(Feature::elu1);
  const Arrays<float> x = random_arrays<float>(3, 2, 6, 6, 4, 4),
                      y = random_arrays<float>(2, 2, 6, 6, 4, 4);
  NdArray<float, 4> three({2, 3, 6, 4}), two({2, 2, 6, 4});
  EXPECT_THROW(forward(x.inputs(&map), three, {}), ShapeError) << "2 heads of keys for 3";
  LinearOptions options;
  const std::vector<std::int64_t> long_one{6, 7}, one{6}, cumulative{0, 6}, fits{6, 2};
  options.visible.sequences.lengths = long_one;
  EXPECT_THROW(forward(y.inputs(&map), two, options), ValueError);
  options.visible.sequences.lengths = one;
  EXPECT_THROW(forward(y.inputs(&map), two, options), ShapeError);
  options.visible.sequences.lengths = fits;
  options.visible.sequences.cumulative = cumulative;
  EXPECT_THROW(forward(y.inputs(&map), two, options), ValueError) << "both";
  options.visible.sequences.lengths = {};
  EXPECT_THROW(forward(y.inputs(&map), two, options), ShapeError) << "two rows";
}

/// Outputs of 4 MiB are written past the caches where they lie in whole vectors.
TEST(LinearAttentionSequences, LargeOutputsAreTheSame) {
  constexpr Index n = 1 << 15;
  const Arrays<float> x = random_arrays<float>(1, 1, n, n, 16, 16);
  const NamedFeature<float> map(Feature::elu1);
  const LinearInputs<float> in = x.inputs(&map);
  NdArray<float, 4> out({2, 1, n, 16}), apart({2, 1, n, 17});
  for (const bool causal : {false, true}) {
    LinearOptions options;
    options.visible.causal = causal;
    attention::linear_attention<float>(in, out.view(), nullptr, {}, options);
    attention::linear_attention<float>(in, apart.view().slice(3, 0, 16), nullptr, {}, options);
    for (Index i = 0; i < 2 * n; ++i) {
      for (Index c = 0; c < 16; ++c) ASSERT_EQ(out(i / n, 0, i % n, c), apart(i / n, 0, i % n, c));
    }
  }
}

TYPED_TEST(LinearAttention, NothingThereAndNotANumber) {
  using T = TypeParam;
  const NamedFeature<T> map(Feature::elu1);
  for (const bool causal : {false, true}) {
    LinearOptions options;
    options.visible.causal = causal;
    // No channels: all weights are 0. No values, no steps, no heads, no rows: nothing.
    for (const Shape<4>& s :
         {Shape<4>{2, 2, 6, 0}, Shape<4>{2, 2, 0, 4}, Shape<4>{2, 0, 6, 4}, Shape<4>{0, 2, 6, 4}}) {
      const NdArray<T, 4> x(s), v({s[0], s[1], s[2], 3});
      const Arrays<T> all{x, x, v};
      NdArray<T, 4> out(v.extents()), dq(s), dk(s), dv(v.extents());
      out.fill(T{7});
      forward(all.inputs(&map), out, options);
      LinearGradients<T> to;
      to.q = dq.view(), to.k = dk.view(), to.v = dv.view();
      backward(all.inputs(&map), v, to, options);
      for (const T value : out) EXPECT_EQ(value, T{0});
    }
    // A NaN among the keys reaches the queries that see it and no others.
    Arrays<T> x = random_arrays<T>(1, 1, 20, 20, 4, 4);
    x.k(0, 0, 10, 2) = std::numeric_limits<T>::quiet_NaN();
    NdArray<T, 4> out(x.v.extents());
    forward(x.inputs(&map), out, options);
    for (Index i = 0; i < 20; ++i) {
      EXPECT_EQ(std::isnan(out(0, 0, i, 0)), !causal || i >= 10) << i;
      EXPECT_FALSE(std::isnan(out(1, 0, i, 0)));
    }
  }
}

TYPED_TEST(LinearAttention, AStepIsALongerPiece) {
  using T = TypeParam;
  for (const Feature name : {Feature::elu1, Feature::exp, Feature::identity}) {
    for (const int decay : {0, 1, 2, 3}) {
      const Index n = 20, d = 12, dv = 21;
      SCOPED_TRACE(std::to_string(static_cast<int>(name)) + " " + std::to_string(decay));
      const Arrays<T> x = random_arrays<T>(4, 2, n, n, d, dv);
      const NamedFeature<T> map(name);
      NdArray<T, 1> head({2});
      NdArray<T, 3> steps = attention_normal<T, 3>({2, 2, n}, 4, 0.1);
      NdArray<T, 4> channels = attention_normal<T, 4>({2, 2, n, d}, 5, 0.1);
      head.fill(T(-0.1));
      LinearOptions options;
      options.visible.causal = true;
      options.normalise = name != Feature::identity;
      const auto piece = [&](Index first, Index count) {
        LinearInputs<T> in = x.inputs(&map);
        for (auto* a : {&in.q, &in.k, &in.v}) *a = a->slice(2, first, count);
        if (decay == 1) in.head_decay = head.view();
        if (decay == 2) in.step_decay = steps.view().slice(2, first, count);
        if (decay == 3) in.channel_decay = channels.view().slice(2, first, count);
        return in;
      };
      LinearState<T> whole_state(2, 4, d, dv), state(whole_state);
      NdArray<T, 4> whole({2, 4, n, dv}), out(whole.extents());
      forward(piece(0, n), whole, options, &whole_state);
      for (Index t = 0; t < n; ++t) {
        attention::linear_attention<T>(piece(t, 1), out.view().slice(2, t, 1), &state, {}, options);
      }
      const double rounding = sizeof(T) == 4 ? 2e-6 : 1e-14;
      expect_attention_near(out, whole, rounding, "out");
      expect_attention_near(state.sums, whole_state.sums, rounding, "sums");
      expect_attention_near(state.normaliser, whole_state.normaliser, rounding, "normaliser");
      if (decay > 0 || map.scaled()) continue;  // what fades is rounded in another order
      EXPECT_TRUE(std::equal(out.begin(), out.end(), whole.begin()));
      EXPECT_TRUE(std::equal(state.sums.begin(), state.sums.end(), whole_state.sums.begin()));
      EXPECT_TRUE(std::equal(state.normaliser.begin(), state.normaliser.end(),
                             whole_state.normaliser.begin()));
    }
  }
}

}  // namespace
}  // namespace quern::test::linear_attention
