// SPDX-License-Identifier: Apache-2.0

/// \file
/// FSQ, LFQ and Gumbel-softmax as layers: against their references and their functions, gradients
/// of what is smooth against finite differences, samples that do not depend on shards.

#include "quern/vq/code_layers.hpp"

#include "../nn/gradients.hpp"
#include "reference.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <utility>
#include <vector>

namespace quern::test::vq_code_layers {
namespace {

using Layer = vq::QuantizerLayer<double>;

nn::Tensor<double> tensor_of(const NdArray<double, 2>& values, const nn::Extents& shape) {
  nn::Tensor<double> x(shape);
  std::copy(values.begin(), values.end(), x.data());
  return x;
}

std::vector<std::int64_t> codes_of(nn::Cache<double>& cache) {
  const auto codes = Layer::codes_of(cache);
  return {codes.begin(), codes.end()};
}

TEST(VqCodeLayers, FiniteScalarOfTheReference) {
  vq::ScalarQuantizer<double> layer({.levels = {8, 5, 5, 5}});
  EXPECT_EQ(layer.codes(), 1000);
  const auto z = vq_matrix<double>("fsq_a_z", 4), gout = vq_matrix<double>("fsq_a_gout", 4);
  const Index n = z.extent(0);
  const auto x = tensor_of(z, {1, n, 4});
  nn::Cache<double> cache;
  nn::Tensor<double> out(x.shape()), back(x.shape()), din(x.shape());
  layer.forward(x.view(), out.view(), cache, nn::Mode::training);
  EXPECT_EQ(codes_of(cache), vq_codes("fsq_a_idx"));
  layer.decode(Layer::codes_of(cache), back.view().rows());
  EXPECT_TRUE(std::equal(out.span().begin(), out.span().end(), back.span().begin()));
  layer.backward(tensor_of(gout, x.shape()).view(), din.view(), cache, {});
  NdArray<double, 2> dz({n, 4});
  std::copy(din.span().begin(), din.span().end(), dz.begin());
  expect_close(dz, vq_matrix<double>("fsq_a_gz", 4));
  EXPECT_THROW((void)layer.output_shape({4, 3}), ShapeError);
}

TEST(VqCodeLayers, LookupFreeOfTheReference) {
  const auto z = vq_matrix<double>("lfq_z", 8);
  vq::LookupFreeQuantizer<double> layer(8);
  EXPECT_EQ(layer.codes(), 256);
  const auto x = tensor_of(z, {4, 16, 8});
  nn::Cache<double> cache;
  nn::Tensor<double> out(x.shape()), din(x.shape()), zero(x.shape()), back(x.shape());
  layer.forward(x.view(), out.view(), cache, nn::Mode::training);
  EXPECT_EQ(codes_of(cache), vq_codes("lfq_idx"));
  EXPECT_NEAR(Layer::loss_of(cache), -0.30137768387794495, 4e-6);
  layer.decode(Layer::codes_of(cache), back.view().rows());
  EXPECT_TRUE(std::equal(out.span().begin(), out.span().end(), back.span().begin()));
  NdArray<double, 2> dz({64, 8});
  layer.backward(zero.view(), din.view(), cache, {});
  std::copy(din.span().begin(), din.span().end(), dz.begin());
  expect_close(dz, vq_matrix<double>("lfq_gz_of_aux_loss", 8), 1e-4);
  // Straight through, and half the own loss.
  const auto dout = normal_matrix<double>(64, 8, 3);
  nn::Tensor<double> both(x.shape());
  Layer::set_weight(cache, 0.5);
  layer.backward(tensor_of(dout, x.shape()).view(), both.view(), cache, {});
  for (Index i = 0; i < both.size(); ++i) {
    ASSERT_NEAR(both[i], dout.data()[i] + 0.5 * din[i], 1e-12);
  }
  EXPECT_THROW(vq::LookupFreeQuantizer<double>(21), ValueError);
}

vq::GumbelQuantizer<double> gumbel(bool hard, double kl) {
  vq::GumbelQuantizer<double> layer(
      {.codes = 6, .dim = 4, .gumbel = {.temperature = 0.8, .hard = hard}, .kl_weight = kl});
  layer.initialize(4);
  for (auto& p : nn::parameters_of<double>(layer)) {
    for (double& value : p.values) value *= 2;
  }
  return layer;
}

// The soft form is smooth once its noise is drawn.
TEST(VqCodeLayers, GumbelSoftGradients) {
  auto layer = gumbel(false, 0);
  auto x = random_tensor<double>({2, 3, 4}, 5);
  check_gradients(layer, x);
  check_threads(layer, x);
}

// The own loss alone: of the projection and the input.
TEST(VqCodeLayers, GumbelLossGradient) {
  auto layer = gumbel(false, 0.7);
  auto x = random_tensor<double>({2, 3, 4}, 5);
  nn::Cache<double> cache;
  nn::Tensor<double> out(x.shape()), zero(x.shape()), din(x.shape());
  nn::Gradients<double> gradients(nn::parameters_of<double>(layer));
  layer.forward(x.view(), out.view(), cache, nn::Mode::training);
  layer.backward(zero.view(), din.view(), cache, gradients);
  const auto loss = [&] {
    nn::Cache<double> other;
    layer.forward(x.view(), out.view(), other, nn::Mode::training);
    return Layer::loss_of(other);
  };
  EXPECT_GT(loss(), 0);
  expect_derivatives(x.span(), din.span(), 1e-5, 1e-9, "input", loss);
  expect_derivatives(nn::parameters_of<double>(layer)[0].values.span(), gradients[0], 1e-5, 1e-9,
                     "projection", loss);
}

// Hard: rows of the codebook forward, the soft form's gradient of the logits backward.
TEST(VqCodeLayers, GumbelHardIsStraightThrough) {
  auto hard = gumbel(true, 0), soft = gumbel(false, 0);
  const auto x = random_tensor<double>({3, 2, 4}, 6), dout = random_tensor<double>({3, 2, 4}, 7);
  nn::Cache<double> one, other;
  one.context.seed = other.context.seed = 11;
  nn::Tensor<double> out(x.shape()), mixed(x.shape()), back(x.shape()), d1(x.shape()),
      d2(x.shape());
  hard.forward(x.view(), out.view(), one, nn::Mode::training);
  soft.forward(x.view(), mixed.view(), other, nn::Mode::training);
  EXPECT_EQ(codes_of(one), codes_of(other));
  hard.decode(Layer::codes_of(one), back.view().rows());
  EXPECT_TRUE(std::equal(out.span().begin(), out.span().end(), back.span().begin()));
  nn::Gradients<double> g1(nn::parameters_of<double>(hard)), g2(nn::parameters_of<double>(soft));
  hard.backward(dout.view(), d1.view(), one, g1);
  soft.backward(dout.view(), d2.view(), other, g2);
  for (Index i = 0; i < d1.size(); ++i) ASSERT_NEAR(d1[i], d2[i], 1e-14);
  for (std::size_t i = 0; i < g1[0].size(); ++i) ASSERT_NEAR(g1[0][i], g2[0][i], 1e-14);
  std::vector<double> by_code(24, 0.0);
  const auto codes = codes_of(one);
  for (std::size_t r = 0; r < 6; ++r) {
    for (std::size_t j = 0; j < 4; ++j) {
      by_code[static_cast<std::size_t>(codes[r]) * 4 + j] += dout[static_cast<Index>(r * 4 + j)];
    }
  }
  for (std::size_t i = 0; i < 24; ++i) ASSERT_NEAR(g1[2][i], by_code[i], 1e-14);
}

TEST(VqCodeLayers, GumbelNoiseOfAShardIsTheBatchs) {
  auto layer = gumbel(true, 0);
  const auto x = random_tensor<double>({4, 5, 4}, 8);
  nn::Cache<double> whole, part;
  whole.context.seed = part.context.seed = 3;
  part.context.first_row = 2;
  nn::Tensor<double> out(x.shape()), some({2, 5, 4});
  layer.forward(x.view(), out.view(), whole, nn::Mode::training);
  layer.forward(x.view().slice(2, 2), some.view(), part, nn::Mode::training);
  EXPECT_TRUE(std::equal(some.span().begin(), some.span().end(), out.data() + 40));
  // Inference draws nothing, and a copy is the same layer.
  nn::Cache<double> quiet, again;
  nn::Tensor<double> first(x.shape()), second(x.shape());
  layer.forward(x.view(), first.view(), quiet, nn::Mode::inference);
  again.context.seed = 99;
  layer.clone()->forward(x.view(), second.view(), again, nn::Mode::inference);
  EXPECT_TRUE(std::equal(first.span().begin(), first.span().end(), second.span().begin()));
  EXPECT_THROW(layer.set_temperature(0), ValueError);
  EXPECT_THROW(vq::GumbelQuantizer<double>({.codes = 0}), ValueError);
}

}  // namespace
}  // namespace quern::test::vq_code_layers
