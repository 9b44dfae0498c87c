// SPDX-License-Identifier: Apache-2.0

/// \file
/// The VQ-VAE model: shapes with every upsampling and quantiser, exact gradients without
/// quantisation, codes there and back, training that lowers the error and gives the same bits for
/// any number of threads.

#include "quern/vq/vq_vae.hpp"

#include "../nn/gradients.hpp"
#include "quern/vq/training.hpp"
#include "reference.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

namespace quern::test::vq_models {
namespace {

using vq::DecoderUpsampling;
using vq::Quantization;

vq::VqVaeOptions tiny() {
  vq::VqVaeOptions options;
  options.widths = {4, 6};
  options.residual_blocks = 1;
  options.residual_width = 3;
  options.codebook.codes = 8;
  options.codebook.dim = 5;
  return options;
}

/// Blurred spots on black.
template <class T>
nn::Tensor<T> spots(Index count, std::uint64_t seed) {
  nn::Tensor<T> images({count, 8, 8, 1});
  Philox random(seed, "spots");
  for (Index n = 0; n < count; ++n) {
    const double x = random.uniform() * 8, y = random.uniform() * 8;
    for (Index i = 0; i < 64; ++i) {
      const double far =
          std::pow(static_cast<double>(i % 8) - x, 2) + std::pow(static_cast<double>(i / 8) - y, 2);
      images[n * 64 + i] = static_cast<T>(std::exp(-far / 4));
    }
  }
  return images;
}

TEST(VqModels, EveryUpsamplingAndQuantiser) {
  const auto images = spots<float>(3, 1);
  for (const auto upsampling :
       {DecoderUpsampling::transposed, DecoderUpsampling::nearest, DecoderUpsampling::bilinear,
        DecoderUpsampling::bicubic, DecoderUpsampling::pixel_shuffle}) {
    for (const auto quantization :
         {Quantization::codebook, Quantization::scalar, Quantization::none}) {
      auto options = tiny();
      options.upsampling = upsampling;
      options.quantization = quantization;
      options.scalar.levels = {4, 3};
      vq::VqVae<float> model(options);
      const auto whole = model.reconstruct(images.view());
      if (quantization == Quantization::none) {
        EXPECT_THROW((void)model.encode(images.view()), ValueError);
        continue;
      }
      const auto codes = model.encode(images.view());
      ASSERT_EQ(codes.size(), 12U);
      const auto again = model.decode(codes, 2, 2);
      ASSERT_EQ(again.shape(), whole.shape());
      for (Index i = 0; i < again.size(); ++i) ASSERT_NEAR(again[i], whole[i], 1e-6F);
    }
  }
}

TEST(VqModels, GradientsWithoutQuantisation) {
  auto options = tiny();
  options.quantization = Quantization::none;
  options.upsampling = DecoderUpsampling::bilinear;
  vq::VqVae<double> model(options);
  model.initialize(7);
  auto x = random_tensor<double>({1, 4, 8, 1}, 3);
  check_gradients(model, x);
}

TEST(VqModels, TrainingLowersTheErrorWithEqualBitsForAnyThreads) {
  const auto images = spots<float>(192, 2);
  std::vector<std::vector<float>> results;
  for (const int threads : {1, 3}) {
    vq::VqVae<float> model(tiny());
    double first = 0, last = 0;
    const auto report = vq::fit_vq_vae<float>(model, images.view(),
                                              {.epochs = 20,
                                               .batch = 32,
                                               .lr = 5e-3,
                                               .seed = 4,
                                               .threads = threads,
                                               .progress = [&](const Progress& p) {
                                                 if (p.done == 1) first = p.metrics[0].value;
                                                 last = p.metrics[0].value;
                                                 EXPECT_EQ(p.metrics[1].name, "perplexity");
                                                 return true;
                                               }});
    EXPECT_EQ(report.status, nn::TrainStatus::finished);
    EXPECT_LT(last, 0.6 * first);
    EXPECT_GT(model.perplexity(), 1.2);
    std::vector<float> all;
    auto list = nn::parameters_of<float>(model);
    model.buffers(list, "");
    for (const auto& p : list) all.insert(all.end(), p.values.begin(), p.values.end());
    results.push_back(std::move(all));
    const auto copy = model.clone();
    const auto one = nn::apply<float>(*copy, images.view()),
               other = model.reconstruct(images.view());
    EXPECT_TRUE(std::equal(one.span().begin(), one.span().end(), other.span().begin()));
  }
  EXPECT_TRUE(results[0] == results[1]);
}

TEST(VqModels, APriorLearnsItsGrids) {
  // Grids of one code each, which their class says.
  vq::PixelCnn<float> prior({.codes = 4,
                             .height = 2,
                             .width = 3,
                             .classes = 4,
                             .channels = 8,
                             .layers = 1,
                             .first_kernel = 3});
  std::vector<std::int64_t> codes, classes;
  for (std::int64_t i = 0; i < 128; ++i) {
    classes.push_back(i % 4);
    codes.insert(codes.end(), 6, (i * 3) % 4);
  }
  const double before = vq::pixelcnn_nats<float>(prior, codes, classes);
  const auto report =
      vq::fit_pixelcnn<float>(prior, codes, classes, {.epochs = 40, .batch = 32, .lr = 2e-2});
  EXPECT_EQ(report.status, nn::TrainStatus::finished);
  EXPECT_GT(before, 1);
  EXPECT_LT(vq::pixelcnn_nats<float>(prior, codes, classes), 0.1);
  EXPECT_THROW((void)vq::pixelcnn_nats<float>(prior, codes, {}), ShapeError);
  // Half of the grids without their class: all four codes stay likely then.
  prior.initialize(0);
  NdArray<float, 2> codebook({4, 3});
  for (Index i = 0; i < 12; ++i) codebook.data()[i] = static_cast<float>(i % 5) - 2;
  vq::start_embedding<float>(prior, codebook.view());
  vq::fit_pixelcnn<float>(prior, codes, classes,
                          {.epochs = 40, .batch = 32, .lr = 2e-2, .drop_class = 0.5});
  const std::vector<std::int64_t> none(128, -1);
  EXPECT_LT(vq::pixelcnn_nats<float>(prior, codes, classes), 0.2);
  EXPECT_LT(vq::pixelcnn_nats<float>(prior, codes, none), 0.4) << "ln 4 / 6 is 0.23";
  EXPECT_THROW(vq::start_embedding<float>(prior, codebook.view().slice(0, 0, 3)), ShapeError);
}

TEST(VqModels, WrongImagesAndNotANumber) {
  vq::VqVae<float> model(tiny());
  EXPECT_THROW((void)model.output_shape({1, 8, 6, 1}), ShapeError);
  EXPECT_THROW((void)model.output_shape({1, 8, 8, 3}), ShapeError);
  EXPECT_THROW((void)model.decode(std::vector<std::int64_t>{0, 1, 2}, 2, 2), ShapeError);
  EXPECT_THROW((void)model.decode(std::vector<std::int64_t>{0, 1, 2, 8}, 2, 2), ValueError);
  EXPECT_THROW(vq::VqVae<float>({.widths = {}}), ValueError);
  // More codes than the data has different latents.
  auto options = tiny();
  options.codebook.codes = 64;
  vq::VqVae<float> large(options);
  nn::Tensor<float> black({2, 8, 8, 1});
  EXPECT_THROW(vq::fit_vq_vae<float>(large, black.view()), ValueError);
  auto images = spots<float>(64, 3);
  images[17 * 64] = std::numeric_limits<float>::quiet_NaN();
  for (const auto quantization : {Quantization::none, Quantization::codebook}) {
    auto plain = tiny();
    plain.quantization = quantization;
    vq::VqVae<float> broken(plain);
    const auto report = vq::fit_vq_vae<float>(broken, images.view(), {.epochs = 2, .batch = 16});
    EXPECT_EQ(report.status, nn::TrainStatus::not_finite);
    auto all = nn::parameters_of<float>(broken);
    broken.buffers(all, "");
    for (const auto& p : all) {
      for (const float v : p.values) ASSERT_TRUE(is_finite_bits(v)) << p.name;
    }
  }
}

}  // namespace
}  // namespace quern::test::vq_models
