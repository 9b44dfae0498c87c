// SPDX-License-Identifier: Apache-2.0

/// \file
/// What Layer, Cache, Gradients and Sequential promise, on linear layers and activations.

#include "quern/nn/layer.hpp"

#include "nn/gradients.hpp"
#include "quern/nn/activation.hpp"
#include "quern/nn/linear.hpp"
#include "quern/nn/sequential.hpp"

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <vector>

namespace quern::test::nn_layer {
namespace {

nn::Sequential<double> two_layers() {
  nn::Sequential<double> net;
  net.emplace<nn::Linear<double>>(4, 6);
  net.emplace<nn::Tanh<double>>();
  net.emplace<nn::Linear<double>>(6, 3, false);
  return net;
}

TEST(NnLayer, NamesAsPyTorch) {
  nn::Sequential<double> net = two_layers();
  net.initialize(5);
  const auto parameters = nn::parameters_of(net, "net.");
  ASSERT_EQ(parameters.size(), 3u);
  EXPECT_EQ(parameters[0].name, "net.0.weight");
  EXPECT_EQ(parameters[1].name, "net.0.bias");
  EXPECT_EQ(parameters[2].name, "net.2.weight");
  EXPECT_TRUE(parameters[0].decay);
  EXPECT_FALSE(parameters[1].decay);
  EXPECT_EQ(nn::weight_count(net), 24 + 6 + 18);
}

TEST(NnLayer, SequentialGradients) {
  nn::Sequential<double> net = two_layers();
  net.initialize(5);
  nn::Tensor<double> x = random_tensor<double>({5, 4}, 1);
  check_gradients(net, x);
}

TEST(NnLayer, SequentialInferenceEqualsTraining) {
  nn::Sequential<double> net = two_layers();
  const nn::Tensor<double> x = random_tensor<double>({3, 5, 4}, 1);
  nn::Cache<double> cache;
  nn::Tensor<double> y(net.output_shape(x.shape()));
  net.forward(x.view(), y.view(), cache, nn::Mode::training);
  const nn::Tensor<double> z = nn::apply(net, x.view());
  EXPECT_EQ(z.shape(), (nn::Extents{3, 5, 3}));
  for (Index i = 0; i < y.size(); ++i) EXPECT_EQ(y[i], z[i]);
}

TEST(NnLayer, EmptySequentialIsTheIdentity) {
  nn::Sequential<double> net;
  nn::Tensor<double> x = random_tensor<double>({5, 4}, 1);
  check_gradients(net, x);
}

TEST(NnLayer, ClonesHaveWeightsOfTheirOwn) {
  nn::Sequential<double> net = two_layers();
  const std::unique_ptr<nn::Layer<double>> copy = net.clone();
  const nn::Tensor<double> x = random_tensor<double>({2, 4}, 1);
  const nn::Tensor<double> before = nn::apply(*copy, x.view());
  for (auto& p : nn::parameters_of(net)) p.values[0] += 1;
  const nn::Tensor<double> after = nn::apply(*copy, x.view());
  for (Index i = 0; i < after.size(); ++i) EXPECT_EQ(after[i], before[i]);
  EXPECT_NE(nn::apply(net, x.view())[0], after[0]);
}

TEST(NnLayer, LayersOfANetworkDrawDifferently) {
  nn::Sequential<float> net;
  net.emplace<nn::Linear<float>>(4, 4);
  net.emplace<nn::Linear<float>>(4, 4);
  net.initialize(3);
  const auto p = nn::parameters_of(net);
  EXPECT_NE(p[0].values[0], p[2].values[0]);
  const float first = p[0].values[0];
  net.initialize(3);
  EXPECT_EQ(p[0].values[0], first);
  net.initialize(4);
  EXPECT_NE(p[0].values[0], first);
}

TEST(NnLayer, WrongInput) {
  nn::Linear<double> layer(4, 2);
  nn::Tensor<double> x({3, 4}), y({3, 2}), dx({3, 4});
  nn::Cache<double> cache;
  nn::Gradients<double> gradients(nn::parameters_of<double>(layer));
  EXPECT_THROW(layer.forward(x.view(), dx.view(), cache, nn::Mode::training), ShapeError);
  EXPECT_THROW(layer.forward(y.view(), y.view(), cache, nn::Mode::training), ShapeError);
  EXPECT_THROW(layer.backward(y.view(), dx.view(), cache, gradients), ValueError);
  layer.forward(x.view(), y.view(), cache, nn::Mode::inference);
  EXPECT_THROW(layer.backward(y.view(), dx.view(), cache, gradients), ValueError);
  layer.forward(x.view(), y.view(), cache, nn::Mode::training);
  EXPECT_THROW(layer.backward(dx.view(), dx.view(), cache, gradients), ShapeError);
  EXPECT_THROW(layer.backward(y.view(), y.view(), cache, gradients), ShapeError);
  nn::Sequential<double> net;
  EXPECT_THROW(net.add(nullptr), ValueError);
  net.add("head", layer.clone());
  EXPECT_THROW(net.add("head", layer.clone()), ValueError);
  try {
    static_cast<void>(layer.output_shape({3, 5}));
    FAIL();
  } catch (const ShapeError& e) {
    EXPECT_STREQ(e.what(), "quern::nn::Linear: in: expected last extent 4, got 3 x 5");
  }
  nn::ReLU<double> relu;
  EXPECT_THROW(relu.forward(x.view(), x.view(), cache, nn::Mode::training), ShapeError);
}

TEST(NnLayer, CachesHoldStructs) {
  struct Saved {
    int value = 3;
  };
  nn::Cache<float> cache;
  EXPECT_EQ(cache.saved<Saved>().value, 3);
  cache.saved<Saved>().value = 5;
  EXPECT_EQ(cache.saved<Saved>().value, 5);
  EXPECT_EQ(cache.saved<int>(), 0);
  EXPECT_EQ(cache.saved<Saved>().value, 3);
  nn::Tensor<float>& t = cache.tensor(0, {3});
  static_cast<void>(cache.tensor(9));
  EXPECT_EQ(&cache.tensor(0), &t);
  EXPECT_NE(cache.child(0).context.path, cache.child(1).context.path);
  EXPECT_NE(cache.child(0).context.path, cache.child(0).child(0).context.path);
}

}  // namespace
}  // namespace quern::test::nn_layer
