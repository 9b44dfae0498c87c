// SPDX-License-Identifier: Apache-2.0

/// \file
/// Layers of softmax, linear, Performer, gated and delta-rule attention: all gradients against
/// finite differences, threads, clones, decoding against the whole sequence, states.

#include "quern/attention/attention_layers.hpp"

#include "nn/gradients.hpp"
#include "quern/attention/recurrent_layers.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <memory>
#include <string>
#include <vector>

namespace quern::test::multi_head_layers {
namespace {

using attention::Feature;
using attention::MultiHeadSizes;
using Layer = nn::SequenceLayer<double>;

void check(Layer& layer, const nn::Extents& shape) {
  SCOPED_TRACE(std::string(layer.type()));
  Philox random(7, "multi-head layers test");
  for (const auto& p : nn::parameters_of(static_cast<nn::Layer<double>&>(layer))) {
    for (double& x : p.values.span()) x += 0.3 * random.normal();
  }
  auto in = random_tensor<double>(shape, 8);
  check_gradients(layer, in, {.tolerance = 1e-6});
  check_threads<double>(layer, in);
  const nn::Tensor<double> one = nn::apply<double>(layer, in.view());
  const nn::Tensor<double> two = nn::apply<double>(*layer.clone(), in.view());
  EXPECT_TRUE(std::ranges::equal(one.span(), two.span())) << "clone";
}

/// Steps, with a state that is saved and loaded half-way, give what forward gives.
void decode(const Layer& layer, const nn::Extents& shape) {
  SCOPED_TRACE(std::string(layer.type()));
  const Index batch = shape[0], length = shape[1], dim = shape[2];
  const auto in = random_tensor<double>(shape, 9);
  const nn::Tensor<double> whole = nn::apply<double>(layer, in.view());
  auto state = layer.make_state(batch);
  nn::Tensor<double> x({batch, dim}), y({batch, dim});
  for (Index t = 0; t < length; ++t) {
    for (Index b = 0; b < batch; ++b) {
      std::copy_n(in.data() + (b * length + t) * dim, dim, x.data() + b * dim);
    }
    if (t == length / 2) {
      std::vector<std::byte> bytes;
      state->save(bytes);
      state = layer.make_state(batch);
      state->load(bytes);
      state = state->clone();
      bytes.pop_back();
      EXPECT_THROW(layer.make_state(batch)->load(bytes), ParseError);
      EXPECT_THROW(layer.make_state(batch + 1)->load(bytes), ParseError);
    }
    layer.step(x.view(), y.view(), *state);
    for (Index b = 0; b < batch; ++b) {
      for (Index c = 0; c < dim; ++c) {
        ASSERT_NEAR(y[b * dim + c], whole[(b * length + t) * dim + c], 1e-10) << t;
      }
    }
  }
}

const MultiHeadSizes plain{.dim = 6, .heads = 2, .rotary_dims = 2};
const MultiHeadSizes grouped{.dim = 5, .heads = 4, .kv_heads = 2, .head_dim = 3, .bias = false};

TEST(MultiHeadLayers, Softmax) {
  attention::SoftmaxSelfAttention<double> causal(plain), window(grouped, true, 4),
      full(plain, false);
  check(causal, {2, 9, 6});
  check(window, {1, 9, 5});
  check(full, {2, 5, 6});
  decode(causal, {2, 20, 6});
  decode(window, {1, 120, 5});
  EXPECT_THROW(static_cast<void>(full.make_state(1)), ValueError);
}

TEST(MultiHeadLayers, Linear) {
  attention::LinearSelfAttention<double> elu1(plain), full(plain, {.causal = false});
  attention::LinearSelfAttention<double> exponential(grouped, {.feature = Feature::exp});
  attention::LinearSelfAttention<double> retention(
      plain, {.feature = Feature::identity, .normalise = false, .retention = true});
  check(elu1, {2, 9, 6});
  check(full, {2, 5, 6});
  check(exponential, {1, 9, 5});
  check(retention, {2, 9, 6});
  decode(elu1, {2, 20, 6});
  decode(exponential, {1, 20, 5});
  decode(retention, {2, 20, 6});
  EXPECT_THROW(attention::LinearSelfAttention<double>(plain, {.feature = Feature::identity}),
               ValueError);
  EXPECT_THROW(static_cast<void>(full.make_state(1)), ValueError);
}

TEST(MultiHeadLayers, StatesOfOthersAreRefused) {
  const attention::MultiHeadSizes two = {.dim = 8, .heads = 2}, four = {.dim = 8, .heads = 4};
  using Layers = std::vector<std::unique_ptr<Layer>>;
  const auto all = [](const attention::MultiHeadSizes& sizes) {
    Layers layers;
    layers.push_back(std::make_unique<attention::SoftmaxSelfAttention<double>>(sizes));
    layers.push_back(std::make_unique<attention::LinearSelfAttention<double>>(sizes));
    layers.push_back(std::make_unique<attention::PerformerSelfAttention<double>>(sizes));
    layers.push_back(std::make_unique<attention::GatedLinearSelfAttention<double>>(sizes));
    layers.push_back(std::make_unique<attention::DeltaSelfAttention<double>>(sizes));
    return layers;
  };
  const Layers layers = all(two), others = all(four);
  nn::Tensor<double> x({1, 8}), y({1, 8});
  for (std::size_t i = 0; i < layers.size(); ++i) {
    const Layer& layer = *layers[i];
    for (std::size_t j = 0; j < layers.size(); ++j) {
      if (i == j) continue;
      const auto theirs = layers[j]->make_state(1);
      EXPECT_THROW(layer.step(x.view(), y.view(), *theirs), ValueError) << layer.type();
    }
    const auto narrow = others[i]->make_state(1);
    EXPECT_THROW(layer.step(x.view(), y.view(), *narrow), ShapeError) << layer.type();
  }
}

TEST(MultiHeadLayers, ExpNeedsItsNormaliser) {
  EXPECT_THROW(
      attention::LinearSelfAttention<double>(plain, {.feature = Feature::exp, .normalise = false}),
      ValueError);
}

TEST(MultiHeadLayers, Performer) {
  attention::PerformerSelfAttention<double> layer(plain, {.features = 8}),
      relu(grouped, {.kernel = attention::PerformerKernel::relu, .projected = false});
  check(layer, {2, 7, 6});
  check(relu, {1, 7, 5});
  decode(layer, {2, 20, 6});
  decode(relu, {1, 20, 5});
  const auto in = random_tensor<double>({1, 4, 6}, 3);
  const nn::Tensor<double> before = nn::apply<double>(layer, in.view());
  layer.redraw(1);
  const nn::Tensor<double> after = nn::apply<double>(layer, in.view());
  EXPECT_FALSE(std::ranges::equal(before.span(), after.span()));
  EXPECT_EQ(nn::buffers_of(static_cast<nn::Layer<double>&>(layer)).size(), 1U);
}

TEST(MultiHeadLayers, GatesAndDeltaRule) {
  attention::GatedLinearSelfAttention<double> gates(plain), shared(grouped);
  attention::DeltaSelfAttention<double> delta(plain), gated(grouped, true);
  check(gates, {2, 9, 6});
  check(shared, {1, 9, 5});
  check(delta, {2, 9, 6});
  check(gated, {1, 9, 5});
  decode(gates, {2, 20, 6});
  decode(shared, {1, 20, 5});
  decode(delta, {2, 20, 6});
  decode(gated, {1, 20, 5});
}

}  // namespace
}  // namespace quern::test::multi_head_layers
