// SPDX-License-Identifier: Apache-2.0

/// \file
/// The gated PixelCNN against torch, its gradients, nothing of what comes later, and cached
/// sampling against sampling that works everything out again.

#include "quern/vq/pixelcnn.hpp"

#include "../nn/gradients.hpp"
#include "quern/nn/loss.hpp"
#include "quern/vq/pixelcnn_sampler.hpp"
#include "reference.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <string>
#include <vector>

namespace quern::test::vq_pixelcnn {
namespace {

std::vector<float> numbers_of(const std::string& name) {
  return vq_elements<float>("pixelcnn_" + name);
}

TEST(VqPixelCnn, TheReferenceOfTorch) {
  const auto codes = vq_codes("pixelcnn_codes");
  const Index n = static_cast<Index>(codes.size()) / 25;
  vq::PixelCnn<float> model({.codes = 9,
                             .height = 5,
                             .width = 5,
                             .channels = 6,
                             .layers = 1,
                             .first_kernel = 3,
                             .first_width = 3,
                             .stacks = 1,
                             .bias = false});
  const auto fill = [](nn::TensorView<float> weight, const std::string& name) {
    const auto values = numbers_of(name);
    ASSERT_EQ(static_cast<std::size_t>(weight.size()), values.size()) << name;
    std::copy(values.begin(), values.end(), weight.begin());
  };
  fill(model.embedding().weight(), "emb");
  fill(model.first().weight(), "WA");
  fill(model.gate(0).weight(), "WB");
  fill(model.gated_out(0).weight(), "W1");
  fill(model.logits().weight(), "WO");
  const auto in = vq::pixelcnn_inputs<float>("test", model, codes, {});
  nn::Cache<float> cache;
  nn::Tensor<float> out(model.output_shape(in.shape())), dout(out.shape());
  model.forward(in.view(), out.view(), cache, nn::Mode::training);
  const auto want = numbers_of("logits");  // (n, 9, 5, 5)
  for (Index i = 0; i < n; ++i) {
    for (Index p = 0; p < 25; ++p) {
      for (Index k = 0; k < 9; ++k) {
        ASSERT_NEAR(out[(i * 25 + p) * 9 + k], want[static_cast<std::size_t>((i * 9 + k) * 25 + p)],
                    2e-6);
      }
    }
  }
  const double loss = nn::cross_entropy_loss<float>(out.view(), codes, dout.view());
  EXPECT_NEAR(loss, 2.275552749633789, 2e-6);
  nn::Gradients<float> gradients(nn::parameters_of<float>(model));
  model.backward(dout.view(), {}, cache, gradients);
  const std::string names[] = {"gWA", "gWB", "gW1", "gWO"};
  for (std::size_t g = 0; g < 4; ++g) {
    const auto expected = numbers_of(names[g]);
    float scale = 0;
    for (const float v : expected) scale = (std::max)(scale, std::fabs(v));
    for (std::size_t i = 0; i < expected.size(); ++i) {
      ASSERT_NEAR(gradients[g + 1][i], expected[i], 1e-5F * scale) << names[g] << ' ' << i;
    }
  }
}

vq::PixelCnn<double> made_model(Index classes, Index stacks = 2) {
  vq::PixelCnn<double> model({.codes = 5,
                              .height = 3,
                              .width = 4,
                              .classes = classes,
                              .channels = 4,
                              .layers = 2,
                              .first_kernel = 5,
                              .stacks = stacks});
  model.initialize(3);
  return model;
}

nn::Tensor<double> made_input(const vq::PixelCnn<double>& model, std::uint64_t seed) {
  Philox random(seed, "codes");
  std::vector<std::int64_t> codes(36), classes;
  for (auto& code : codes) code = static_cast<std::int64_t>(random.integer(5));
  if (model.options().classes > 0) classes = {1, 0, 2};
  return vq::pixelcnn_inputs<double>("test", model, codes, classes);
}

class VqPixelCnnStacks : public testing::TestWithParam<Index> {};
INSTANTIATE_TEST_SUITE_P(All, VqPixelCnnStacks, testing::Values(Index{1}, Index{2}));

TEST_P(VqPixelCnnStacks, GradientsByFiniteDifferences) {
  auto model = made_model(3, GetParam());
  const nn::Tensor<double> in = made_input(model, 1);
  const nn::Tensor<double> weights = random_tensor<double>(model.output_shape(in.shape()), 2);
  nn::Cache<double> cache;
  nn::Tensor<double> out(weights.shape());
  model.forward(in.view(), out.view(), cache, nn::Mode::training);
  const auto parameters = nn::parameters_of<double>(model);
  nn::Gradients<double> gradients(parameters);
  model.backward(weights.view(), {}, cache, gradients);
  const nn::Context context;
  for (std::size_t k = 0; k < parameters.size(); ++k) {
    expect_derivatives(parameters[k].values.span(), gradients[k], 1e-5, 2e-8, parameters[k].name,
                       [&] { return weighted_output(model, in, weights, context); });
  }
  check_threads(model, in);
  const auto copy = model.clone();
  const auto again = nn::apply(*copy, in.view());
  EXPECT_TRUE(std::equal(again.span().begin(), again.span().end(), out.span().begin()));
}

TEST_P(VqPixelCnnStacks, NothingOfWhatComesLater) {
  const auto model = made_model(0, GetParam());
  const nn::Tensor<double> in = made_input(model, 1);
  const auto before = nn::apply(model, in.view());
  for (Index p = 0; p < 12; ++p) {
    nn::Tensor<double> changed = in.clone();
    changed[p] = changed[p] == 0 ? 3 : 0;
    const auto after = nn::apply(model, changed.view());
    for (Index q = 0; q < 12; ++q) {
      const bool same =
          std::equal(before.data() + q * 5, before.data() + q * 5 + 5, after.data() + q * 5);
      if (q <= p) {
        EXPECT_TRUE(same) << p << ' ' << q;
      } else if (q == p + 1) {
        EXPECT_FALSE(same) << p;
      }
    }
  }
}

// With small kernels: one stack of these would not see past its kernels' right edges.
TEST(VqPixelCnn, TwoStacksSeeEverythingBefore) {
  vq::PixelCnn<double> model(
      {.codes = 3, .height = 4, .width = 5, .channels = 4, .layers = 4, .first_kernel = 3});
  model.initialize(5);
  nn::Tensor<double> in({1, 20});
  const auto before = nn::apply(model, in.view());
  for (Index p = 0; p < 19; ++p) {
    nn::Tensor<double> changed = in.clone();
    changed[p] = 2;
    const auto after = nn::apply(model, changed.view());
    for (Index q = 0; q < 20; ++q) {
      const bool same =
          std::equal(before.data() + q * 3, before.data() + q * 3 + 3, after.data() + q * 3);
      EXPECT_EQ(same, q <= p) << p << ' ' << q;
    }
  }
}

TEST_P(VqPixelCnnStacks, CachedSamplingIsSamplingFromTheWholeNetwork) {
  for (const Index classes : {0, 3}) {
    const auto model = made_model(classes, GetParam());
    const vq::PixelCnnSampler<double> sampler(model);
    const std::vector<std::int64_t> labels = {2, 0, 1, 1};
    for (const vq::SamplingOptions& options :
         {vq::SamplingOptions{.seed = 5}, vq::SamplingOptions{.temperature = 0.5, .top_k = 2},
          vq::SamplingOptions{.temperature = 0}}) {
      NdArray<std::int64_t, 2> codes({4, 12}), naive({4, 12}), last({2, 12});
      sampler.sample(labels, codes.view(), options);
      const std::span<const std::int64_t> given =
          classes > 0 ? std::span(labels) : std::span(labels).first(0);
      for (Index p = 0; p < 12; ++p) {
        const std::vector<std::int64_t> so_far(naive.begin(), naive.end());
        const auto in = vq::pixelcnn_inputs<double>("test", model, so_far, given);
        const auto logits = nn::apply(model, in.view());
        for (Index i = 0; i < 4; ++i) {
          Philox random(options.seed, "pixelcnn", static_cast<std::uint64_t>(i));
          random.seek(2 * static_cast<std::uint64_t>(p));
          naive(i, p) = vq::draw_code<double>({logits.data() + (i * 12 + p) * 5, 5},
                                              random.uniform<double>(), options);
        }
      }
      EXPECT_TRUE(std::equal(codes.begin(), codes.end(), naive.begin()));
      // A grid does not depend on the others.
      auto from = options;
      from.first = 2;
      sampler.sample(std::span(labels).subspan(2), last.view(), from);
      EXPECT_TRUE(std::equal(last.begin(), last.end(), codes.begin() + 24));
    }
  }
}

// Guided logits from two passes of the whole network, the likeliest code each time.
TEST_P(VqPixelCnnStacks, GuidanceIsThatOfTheWholeNetwork) {
  const auto model = made_model(3, GetParam());
  const vq::PixelCnnSampler<double> sampler(model);
  const std::vector<std::int64_t> labels = {2, 0}, none = {-1, -1};
  NdArray<std::int64_t, 2> codes({2, 12}), naive({2, 12});
  sampler.sample(labels, codes.view(), {.temperature = 0, .guidance = 1.5});
  for (Index p = 0; p < 12; ++p) {
    const std::vector<std::int64_t> so_far(naive.begin(), naive.end());
    const auto logits =
        nn::apply(model, vq::pixelcnn_inputs<double>("test", model, so_far, labels).view());
    const auto without =
        nn::apply(model, vq::pixelcnn_inputs<double>("test", model, so_far, none).view());
    for (Index i = 0; i < 2; ++i) {
      std::vector<double> row(5);
      for (Index k = 0; k < 5; ++k) {
        const Index at = (i * 12 + p) * 5 + k;
        row[static_cast<std::size_t>(k)] = 2.5 * logits[at] - 1.5 * without[at];
      }
      naive(i, p) = std::max_element(row.begin(), row.end()) - row.begin();
    }
  }
  EXPECT_TRUE(std::equal(codes.begin(), codes.end(), naive.begin()));
  EXPECT_THROW(sampler.sample(labels, codes.view(), {.guidance = -1}), ValueError);
  const auto plain = made_model(0, GetParam());
  EXPECT_THROW(vq::PixelCnnSampler<double>(plain).sample(labels, codes.view(), {.guidance = 1}),
               ValueError);
}

TEST(VqPixelCnn, DrawnCodesFollowTheirProbabilities) {
  const std::vector<double> logits = {0.0, std::log(3.0), std::log(2.0), std::log(2.0)};
  double counts[4] = {};
  for (int i = 0; i < 800; ++i) {
    counts[vq::draw_code<double>(logits, (i + 0.5) / 800, {})] += 1;
  }
  EXPECT_EQ(counts[0], 100);
  EXPECT_EQ(counts[1], 300);
  EXPECT_EQ(counts[3], 200);
  for (int i = 0; i < 100; ++i) {
    const auto code = vq::draw_code<double>(logits, (i + 0.5) / 100, {.top_k = 2});
    EXPECT_TRUE(code == 1 || code == 2);  // of equals the lower stays
  }
  EXPECT_EQ(vq::draw_code<double>(logits, 0.99, {.temperature = 0}), 1);
}

TEST(VqPixelCnn, WrongInput) {
  const auto model = made_model(3);
  const vq::PixelCnnSampler<double> sampler(model);
  NdArray<std::int64_t, 2> codes({1, 12});
  const std::vector<std::int64_t> bad = {3}, good = {0};
  EXPECT_THROW(sampler.sample(bad, codes.view()), ValueError);
  EXPECT_THROW(sampler.sample(good, codes.view(), {.temperature = -1}), ValueError);
  EXPECT_THROW(sampler.sample(good, codes.view().slice(1, 0, 3)), ShapeError);
  EXPECT_THROW((void)model.output_shape({1, 12}), ShapeError);
  EXPECT_THROW(vq::PixelCnn<float>({.kernel = 2}), ValueError);
  EXPECT_THROW(vq::PixelCnn<float>({.stacks = 3}), ValueError);
  int pixels = 0;
  EXPECT_THROW(sampler.sample(good, codes.view(),
                              {.progress = [&](const Progress&) { return ++pixels < 3; }}),
               Cancelled);
  EXPECT_EQ(pixels, 3);
}

}  // namespace
}  // namespace quern::test::vq_pixelcnn
