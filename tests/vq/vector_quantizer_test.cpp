// SPDX-License-Identifier: Apache-2.0

/// \file
/// Quantiser layers: what backward returns is the surrogate's definition; EMA from shards equals
/// EMA from the batch; buffers, copies, wrong input.

#include "quern/vq/vector_quantizer.hpp"

#include "reference.hpp"

#include <gtest/gtest.h>

#include <cmath>
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

// The surrogate: <dout, u + sg(q - u)> + weight loss(u, q) with u = x / |x|, q = c / |c| and codes
// held; its derivatives by finite differences.
TEST(VqLayers, CosineOfTheReferenceAndItsGradient) {
  const auto x = vq_matrix<double>("x"), book = vq_matrix<double>("codebook");
  const Index n = x.extent(0), k = book.extent(0);
  vq::VectorQuantizerOptions options;
  options.codes = k;
  options.dim = 16;
  options.learning = CodebookLearning::gradient;
  options.nearest.metric = vq::Distance::cosine;
  Quantizer layer(options);
  const auto codebook = nn::parameters_of<double>(layer)[0].values;
  std::copy(book.begin(), book.end(), codebook.begin());
  auto in = tensor_of(x, {n, 16});
  nn::Cache<double> cache;
  nn::Tensor<double> out(in.shape()), din(in.shape());
  layer.forward(in.view(), out.view(), cache, nn::Mode::training);
  const std::vector<std::int64_t> codes(Quantizer::codes_of(cache).begin(),
                                        Quantizer::codes_of(cache).end());
  EXPECT_EQ(codes, vq_codes("cosine_idx"));
  NdArray<double, 2> got({n, 16}), again({n, 16});
  std::copy(out.span().begin(), out.span().end(), got.begin());
  expect_close(got, vq_matrix<double>("cosine_out"));
  layer.decode(codes, again.view());
  expect_close(again, got, 1e-15);
  const auto dout = normal_matrix<double>(n, 16, 8);
  nn::Gradients<double> gradients(nn::parameters_of<double>(layer));
  layer.backward(tensor_of(dout, {n, 16}).view(), din.view(), cache, gradients);
  const auto unit = [](const double* v) {
    std::vector<double> u(v, v + 16);
    double square = 0;
    for (const double value : u) square += value * value;
    for (double& value : u) value /= std::sqrt(square);
    return u;
  };
  const auto start = [&](Index i) { return unit(x.data() + i * 16); };
  const double each = 1 / static_cast<double>(n * 16);
  const auto row_value = [&](Index i, const std::vector<double>& c0) {
    const auto u = unit(in.data() + i * 16), u0 = start(i);
    const auto c = unit(codebook.data() + codes[static_cast<std::size_t>(i)] * 16);
    double sum = 0;
    for (std::size_t j = 0; j < 16; ++j) {
      sum += dout(i, static_cast<Index>(j)) * u[j];
      sum += each * (0.25 * (u[j] - c0[j]) * (u[j] - c0[j]) + (u0[j] - c[j]) * (u0[j] - c[j]));
    }
    return sum;
  };
  for (const Index i : {Index{0}, n / 2, n - 1}) {
    const auto code = codes[static_cast<std::size_t>(i)];
    const auto c0 = unit(codebook.data() + code * 16);
    for (Index j = 0; j < 16; ++j) {
      double& value = in[i * 16 + j];
      const double before = value;
      value = before + 1e-6;
      const double above = row_value(i, c0);
      value = before - 1e-6;
      const double below = row_value(i, c0);
      value = before;
      ASSERT_NEAR(din[i * 16 + j], (above - below) / 2e-6, 1e-8);
      double& weight = codebook[code * 16 + j];
      const double had = weight;
      double apart = 0;
      for (const double step : {1e-6, -1e-6}) {
        weight = had + step;
        for (Index r = 0; r < n; ++r) {
          if (codes[static_cast<std::size_t>(r)] == code) apart += row_value(r, c0) / (2 * step);
        }
      }
      weight = had;
      ASSERT_NEAR(gradients[0][static_cast<std::size_t>(code * 16 + j)], apart, 1e-7);
    }
  }
}

TEST(VqLayers, CosineAveragesKeepLengthOne) {
  const auto rows = normal_matrix<double>(60, 3, 5, 1);
  const auto x = tensor_of(rows, {60, 3});
  auto options = options_of(CodebookLearning::ema, false);
  options.nearest.metric = vq::Distance::cosine;
  Quantizer layer(options);
  layer.fit_codebook(rows.view(), 1);
  nn::Cache<double> cache;
  nn::Tensor<double> out({60, 3});
  double last = 0, first = 0;
  for (int step = 0; step < 40; ++step) {
    layer.forward(x.view(), out.view(), cache, nn::Mode::training);
    last = Quantizer::loss_of(cache);
    if (step == 0) first = last;
    nn::Cache<double>* const shards[] = {&cache};
    layer.update(shards);
    for (Index k = 0; k < 6; ++k) {
      double length = 0;
      for (Index j = 0; j < 3; ++j) length += layer.codebook()(k, j) * layer.codebook()(k, j);
      ASSERT_NEAR(length, 1, 1e-12);
    }
  }
  EXPECT_LE(last, first + 1e-12);
  EXPECT_THROW(Quantizer(vq::VectorQuantizerOptions{.codes = 0}), ValueError);
  EXPECT_THROW((void)Quantizer().output_shape({2, 3}), ShapeError);
}

}  // namespace
}  // namespace quern::test::vq_layers
