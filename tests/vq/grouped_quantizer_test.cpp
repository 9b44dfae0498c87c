// SPDX-License-Identifier: Apache-2.0

/// \file
/// Product and residual quantisation as layers: the references' codes, the surrogate's gradient by
/// finite differences, averages of shards, start from data, a VQ-VAE with them.

#include "quern/vq/grouped_quantizer.hpp"

#include "../nn/gradients.hpp"
#include "quern/vq/code_layers.hpp"
#include "quern/vq/product.hpp"
#include "quern/vq/training.hpp"
#include "reference.hpp"

#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace quern::test::vq_grouped {
namespace {

using vq::CodebookLearning;
using Grouped = vq::GroupedVectorQuantizer<double>;

Grouped grouped(Index groups, Index stages, Index codes, Index dim,
                CodebookLearning learning = CodebookLearning::gradient, bool rotation = false) {
  vq::GroupedVectorQuantizerOptions options{.groups = groups, .stages = stages};
  options.codebook.codes = codes;
  options.codebook.dim = dim;
  options.codebook.learning = learning;
  options.codebook.rotation = rotation;
  options.codebook.dead_below = 0;
  return Grouped(options);
}

void expect_reference(const std::string& name, Index groups, Index stages, Index codes) {
  const auto x = vq_matrix<double>("x");
  const auto books = vq_matrix<double>(name + "_codebooks", 16 / groups);
  auto layer = grouped(groups, stages, codes, 16);
  const auto parameters = nn::parameters_of<double>(layer);
  ASSERT_EQ(parameters.size(), static_cast<std::size_t>(groups * stages));
  const double* from = books.data();
  for (const auto& p : parameters) {
    std::copy_n(from, p.values.size(), p.values.data());
    from += p.values.size();
  }
  nn::Tensor<double> in({200, 16}), out({200, 16}), back({200, 16});
  std::copy(x.begin(), x.end(), in.data());
  nn::Cache<double> cache;
  layer.forward(in.view(), out.view(), cache, nn::Mode::training);
  const auto found = Grouped::codes_of(cache);
  EXPECT_EQ((std::vector<std::int64_t>(found.begin(), found.end())), vq_codes(name + "_idx"));
  NdArray<double, 2> quantized({200, 16});
  std::copy(out.span().begin(), out.span().end(), quantized.begin());
  expect_close(quantized, vq_matrix<double>(name + "_quantized"));
  layer.decode(found, back.view().rows());
  for (Index i = 0; i < out.size(); ++i) ASSERT_NEAR(back[i], out[i], 1e-14);
}

TEST(VqGrouped, ProductAndResidualOfTheReference) {
  expect_reference("pq", 4, 1, 25);
  expect_reference("rvq", 1, 4, 50);
}

// <dout, straight through> is <dout, x>; each stage's losses are means over rows and numbers of
// |c - sg r|^2 + beta |sg c - r|^2, r = x - sg(codes so far), codes held.
TEST(VqGrouped, BackwardIsTheSurrogatesGradient) {
  auto layer = grouped(2, 3, 4, 6);
  auto x = random_tensor<double>({7, 6}, 1);
  layer.fit_codebook(random_tensor<double>({60, 6}, 3).view().rows(), 2);
  const auto dout = random_tensor<double>({7, 6}, 2);
  nn::Cache<double> cache;
  nn::Tensor<double> out(x.shape()), din(x.shape());
  layer.forward(x.view(), out.view(), cache, nn::Mode::training);
  Grouped::set_weight(cache, 0.5);
  auto parameters = nn::parameters_of<double>(layer);
  nn::Gradients<double> gradients(parameters);
  layer.backward(dout.view(), din.view(), cache, gradients);
  const std::vector<std::int64_t> codes(Grouped::codes_of(cache).begin(),
                                        Grouped::codes_of(cache).end());
  std::vector<std::vector<double>> books;
  for (const auto& p : parameters) books.emplace_back(p.values.begin(), p.values.end());
  const nn::Tensor<double> x0 = x.clone();
  const auto surrogate = [&] {
    double sum = 0;
    for (Index i = 0; i < 7; ++i) {
      for (Index j = 0; j < 6; ++j) {
        sum += dout[i * 6 + j] * x[i * 6 + j];
        double rest0 = x0[i * 6 + j], rest = x[i * 6 + j];
        for (Index q = 0; q < 3; ++q) {
          const Index k = j / 3 * 3 + q;
          const auto at =
              static_cast<std::size_t>(codes[static_cast<std::size_t>(i * 6 + k)] * 3 + j % 3);
          const double c = parameters[static_cast<std::size_t>(k)].values[static_cast<Index>(at)];
          const double held = books[static_cast<std::size_t>(k)][at];
          sum += 0.5 / 42 * ((c - rest0) * (c - rest0) + 0.25 * (held - rest) * (held - rest));
          rest0 -= held;
          rest -= held;
        }
      }
    }
    return sum;
  };
  expect_derivatives(x.span(), din.span(), 1e-5, 1e-9, "input", surrogate);
  for (std::size_t k = 0; k < parameters.size(); ++k) {
    expect_derivatives(parameters[k].values.span(), gradients[k], 1e-5, 1e-9, parameters[k].name,
                       surrogate);
  }
  check_threads(layer, x);
}

TEST(VqGrouped, RotationOfEachGroup) {
  auto layer = grouped(2, 2, 4, 6, CodebookLearning::ema, true);
  const auto x = random_tensor<double>({9, 6}, 1), dout = random_tensor<double>({9, 6}, 2);
  layer.fit_codebook(random_tensor<double>({60, 6}, 3).view().rows(), 2);
  nn::Cache<double> cache;
  nn::Tensor<double> out(x.shape()), din(x.shape());
  layer.forward(x.view(), out.view(), cache, nn::Mode::training);
  Grouped::set_weight(cache, 0);
  layer.backward(dout.view(), din.view(), cache, {});
  for (Index g = 0; g < 2; ++g) {
    NdArray<double, 2> want({9, 3});
    vq::rotation_trick_vjp<double>(x.view().rows().slice(1, 3 * g, 3),
                                   std::as_const(out).view().rows().slice(1, 3 * g, 3),
                                   dout.view().rows().slice(1, 3 * g, 3), want.view());
    for (Index i = 0; i < 9; ++i) {
      for (Index j = 0; j < 3; ++j) ASSERT_NEAR(din[i * 6 + 3 * g + j], want(i, j), 1e-14);
    }
  }
}

TEST(VqGrouped, AveragesOfShardsLowerTheError) {
  auto layer = grouped(2, 2, 5, 6, CodebookLearning::ema);
  const auto rows = random_tensor<double>({80, 6}, 4);
  layer.fit_codebook(rows.view().rows(), 2);
  EXPECT_EQ(nn::buffers_of<double>(layer).size(), 16U);
  EXPECT_EQ(nn::buffers_of<double>(layer, "q.")[0].name, "q.codebooks.0.0.codebook");
  auto copy = layer.clone();
  nn::Tensor<double> out(rows.shape());
  nn::Cache<double> one, two, all;
  double first = 0, last = 0;
  for (int step = 0; step < 10; ++step) {
    layer.forward(rows.view().slice(0, 30), out.view().slice(0, 30), one, nn::Mode::training);
    layer.forward(rows.view().slice(30, 50), out.view().slice(30, 50), two, nn::Mode::training);
    last = 30 * Grouped::loss_of(one) + 50 * Grouped::loss_of(two);
    if (step == 0) first = last;
    nn::Cache<double>* const shards[] = {&one, &two};
    layer.update(shards);
    copy->forward(rows.view(), out.view(), all, nn::Mode::training);
    nn::Cache<double>* const whole[] = {&all};
    copy->update(whole);
  }
  EXPECT_LT(last, first);
  const auto a = nn::apply(layer, rows.view()), b = nn::apply(*copy, rows.view());
  for (Index i = 0; i < a.size(); ++i) ASSERT_NEAR(a[i], b[i], 1e-12);
}

TEST(VqGrouped, InAVqVae) {
  nn::Tensor<float> images({24, 8, 8, 1});
  Philox random(3, "noise");
  for (float& value : images.span()) value = random.uniform<float>();
  vq::VqVaeOptions options;
  options.widths = {4, 6};
  options.residual_blocks = 0;
  vq::GroupedVectorQuantizerOptions several{.groups = 2, .stages = 2};
  several.codebook.codes = 8;
  several.codebook.dim = 4;
  std::vector<std::unique_ptr<vq::QuantizerLayer<float>>> kinds;
  kinds.push_back(std::make_unique<vq::GroupedVectorQuantizer<float>>(several));
  kinds.push_back(std::make_unique<vq::LookupFreeQuantizer<float>>(5));
  kinds.push_back(std::make_unique<vq::GumbelQuantizer<float>>(
      vq::GumbelQuantizerOptions{.codes = 12, .dim = 4, .kl_weight = 1e-3}));
  for (auto& kind : kinds) {
    const Index each = kind->codes_each();
    vq::VqVae<float> model(options, std::move(kind));
    const auto report = vq::fit_vq_vae<float>(model, images.view(), {.epochs = 2, .batch = 8});
    EXPECT_EQ(report.status, nn::TrainStatus::finished);
    EXPECT_GE(model.perplexity(), 1);
    const auto codes = model.encode(images.view());
    ASSERT_EQ(static_cast<Index>(codes.size()), 24 * 4 * each);
    const auto again = model.decode(codes, 2, 2), whole = model.reconstruct(images.view());
    const auto copied = nn::apply(*model.clone(), images.view());
    for (Index i = 0; i < whole.size(); ++i) {
      ASSERT_NEAR(again[i], whole[i], 1e-5F);
      ASSERT_EQ(copied[i], whole[i]);
    }
  }
}

TEST(VqGrouped, WrongInput) {
  EXPECT_THROW(grouped(4, 1, 5, 6), ValueError);
  EXPECT_THROW(grouped(0, 1, 5, 6), ValueError);
  EXPECT_THROW(grouped(1, 0, 5, 6), ValueError);
  const auto layer = grouped(2, 2, 5, 6);
  nn::Tensor<double> out({1, 6});
  const std::vector<std::int64_t> bad = {0, 1, 2, 5}, few = {0, 1};
  EXPECT_THROW(layer.decode(bad, out.view().rows()), ValueError);
  EXPECT_THROW(layer.decode(few, out.view().rows()), ShapeError);
}

}  // namespace
}  // namespace quern::test::vq_grouped
