// SPDX-License-Identifier: Apache-2.0

/// \file
/// Quantiser layers: what backward returns is the surrogate's definition; EMA from shards equals
/// EMA from the batch; buffers, copies, wrong input.

#include "quern/vq/vector_quantizer.hpp"

#include "reference.hpp"

#include <gtest/gtest.h>

#include <memory>
#include <set>
#include <utility>
#include <vector>

namespace quern::test::vq_layers {
namespace {

using vq::CodebookLearning;
using Quantizer = vq::VectorQuantizer<double>;

nn::Tensor<double> tensor_of(const NdArray<double, 2>& values, const nn::Extents& shape) {
  nn::Tensor<double> x(shape);
  std::copy(values.begin(), values.end(), x.data());
  return x;
}

vq::VectorQuantizerOptions options_of(CodebookLearning learning, bool rotation) {
  vq::VectorQuantizerOptions options;
  options.codes = 6;
  options.dim = 3;
  options.learning = learning;
  options.rotation = rotation;
  options.dead_below = 0;
  return options;
}

TEST(VqLayers, BackwardIsTheSurrogatesGradient) {
  const auto x = tensor_of(normal_matrix<double>(10, 3, 1), {2, 5, 3});
  const auto dout = tensor_of(normal_matrix<double>(10, 3, 2), {2, 5, 3});
  for (const bool rotation : {false, true}) {
    for (const auto learning : {CodebookLearning::ema, CodebookLearning::gradient}) {
      Quantizer layer(options_of(learning, rotation));
      layer.fit_codebook(x.view().rows(), 3);
      nn::Cache<double> cache;
      nn::Tensor<double> out(x.shape()), din(x.shape());
      layer.forward(x.view(), out.view(), cache, nn::Mode::training);
      Quantizer::set_weight(cache, 0.5);
      nn::Gradients<double> gradients(nn::parameters_of<double>(layer));
      layer.backward(dout.view(), din.view(), cache, gradients);

      const MatrixView<const double> rows = x.view().rows(), q = std::as_const(out).view().rows();
      NdArray<double, 2> want({10, 3}), dcodebook({6, 3});
      if (rotation) {
        vq::rotation_trick_vjp<double>(rows, q, dout.view().rows(), want.view());
      } else {
        std::copy(dout.span().begin(), dout.span().end(), want.begin());
      }
      const double codebook_weight = learning == CodebookLearning::gradient ? 1 : 0;
      vq::vq_loss_vjp<double>(rows, q, Quantizer::codes_of(cache), want.view(), 0.5, want.view(),
                              dcodebook.view(), {.codebook_weight = codebook_weight});
      for (Index i = 0; i < 30; ++i) ASSERT_NEAR(din[i], want.data()[i], 1e-15);
      EXPECT_EQ(gradients.size(), learning == CodebookLearning::gradient ? 1U : 0U);
      for (std::size_t i = 0; i < (gradients.size() > 0 ? 18U : 0U); ++i) {
        ASSERT_NEAR(gradients[0][i], dcodebook.data()[i], 1e-15);
      }
      const double mse = vq::vq_loss<double>(rows, q).commitment;
      EXPECT_NEAR(Quantizer::loss_of(cache), (0.25 + codebook_weight) * mse, 1e-14);
    }
  }
}

TEST(VqLayers, AveragesOfShardsAreThoseOfTheBatch) {
  const auto rows = normal_matrix<double>(40, 3, 5);
  const auto x = tensor_of(rows, {40, 3});
  Quantizer layer(options_of(CodebookLearning::ema, false));
  layer.fit_codebook(rows.view(), 1);
  vq::EmaCodebook<double> expected(layer.codebook());
  nn::Cache<double> one, two;
  nn::Tensor<double> out({40, 3});
  layer.forward(x.view().slice(0, 15), out.view().slice(0, 15), one, nn::Mode::training);
  layer.forward(x.view().slice(15, 25), out.view().slice(15, 25), two, nn::Mode::training);
  nn::Cache<double>* const shards[] = {&one, &two};
  layer.update(shards);
  std::vector<std::int64_t> codes(40);
  vq::nearest_codes<double>(rows.view(), expected.codebook(), codes);
  expected.update(rows.view(), codes);
  for (Index i = 0; i < 18; ++i) {
    EXPECT_NEAR(layer.codebook().data()[i], expected.codebook().data()[i], 1e-13);
  }
  const auto buffers = nn::buffers_of<double>(layer, "q.");
  ASSERT_EQ(buffers.size(), 4U);
  EXPECT_EQ(buffers[0].name, "q.codebook");
  EXPECT_EQ(buffers[3].values[0], 1);
  const auto copy = layer.clone();
  const auto before = nn::apply(*copy, x.view());
  layer.update(shards);
  const auto after = nn::apply(*copy, x.view());
  EXPECT_TRUE(std::equal(before.span().begin(), before.span().end(), after.span().begin()));
}

TEST(VqLayers, DeadCodesOfALayerComeBack) {
  auto options = options_of(CodebookLearning::ema, false);
  options.dead_below = 0.05;
  Quantizer layer(options);  // all codes near 0, and rows far away: one code gets everything
  const auto x = tensor_of(normal_matrix<double>(64, 3, 6, 4), {64, 3});
  nn::Cache<double> cache;
  nn::Tensor<double> out({64, 3});
  std::set<std::int64_t> used;
  for (int step = 0; step < 3; ++step) {
    layer.forward(x.view(), out.view(), cache, nn::Mode::training);
    nn::Cache<double>* const shards[] = {&cache};
    layer.update(shards);
  }
  layer.forward(x.view(), out.view(), cache, nn::Mode::training);
  for (const std::int64_t code : Quantizer::codes_of(cache)) used.insert(code);
  EXPECT_EQ(used.size(), 6U);
}

TEST(VqLayers, ScalarQuantizer) {
  vq::ScalarQuantizer<double> layer({.levels = {5, 4}});
  EXPECT_EQ(layer.codes(), 20);
  const auto x = tensor_of(normal_matrix<double>(8, 2, 7), {4, 2, 2});
  nn::Cache<double> cache;
  nn::Tensor<double> out(x.shape()), back(x.shape()), din(x.shape());
  layer.forward(x.view(), out.view(), cache, nn::Mode::training);
  layer.decode(vq::QuantizerLayer<double>::codes_of(cache), back.view().rows());
  EXPECT_TRUE(std::equal(out.span().begin(), out.span().end(), back.span().begin()));
  layer.backward(out.view(), din.view(), cache, {});
  EXPECT_THROW((void)layer.output_shape({4, 3}), ShapeError);
  EXPECT_THROW(Quantizer(vq::VectorQuantizerOptions{.codes = 0}), ValueError);
  EXPECT_THROW((void)Quantizer().output_shape({2, 3}), ShapeError);
}

}  // namespace
}  // namespace quern::test::vq_layers
