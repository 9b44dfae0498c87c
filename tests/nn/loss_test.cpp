// SPDX-License-Identifier: Apache-2.0

/// \file
/// Losses: PyTorch's values and gradients, extreme logits, divisors of shards, wrong input.

#include "quern/nn/loss.hpp"

#include "nn/gradients.hpp"
#include "nn/reference.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

namespace quern::test::nn_loss {
namespace {

using View = nn::TensorView<const double>;

template <class F>
void check(const std::string& name, const nn::Tensor<double>& prediction, const F& loss) {
  nn::Tensor<double> gradient(prediction.shape());
  const double value = loss(View(prediction.view()), gradient.view());
  EXPECT_NEAR(value, nn_reference<double>(name + "_value")[0], 1e-13 * (1 + std::fabs(value)))
      << name;
  expect_near_all(gradient, nn_reference<double>(name + "_g"), 1e-13, name);
  EXPECT_EQ(loss(View(prediction.view()), nn::TensorView<double>()), value) << name;
}

std::vector<std::int64_t> classes_of(const std::string& name) {
  const nn::Tensor<double> read = nn_reference<double>(name);
  return {read.span().begin(), read.span().end()};
}

TEST(NnLoss, PairsAsPyTorch) {
  const auto p = nn_reference<double>("loss_p"), t = nn_reference<double>("loss_t");
  const auto unit = nn_reference<double>("loss_unit"), share = nn_reference<double>("loss_share");
  const auto logp = nn_reference<double>("loss_logp");
  check("mse", p, [&](View a, auto g) { return nn::mse_loss<double>(a, t, g); });
  check("l1", p, [&](View a, auto g) { return nn::l1_loss<double>(a, t, g); });
  check("huber", p, [&](View a, auto g) { return nn::huber_loss<double>(a, t, g, 0.7); });
  check("bce", p,
        [&](View a, auto g) { return nn::bce_with_logits_loss<double>(a, unit, g, 1.7); });
  check("kl", logp, [&](View a, auto g) { return nn::kl_div_loss<double>(a, share, g); });
  check("kl_log", logp, [&](View a, auto g) { return nn::kl_div_loss<double>(a, t, g, true); });
}

TEST(NnLoss, CrossEntropyAsPyTorch) {
  const auto p = nn_reference<double>("loss_p");
  const auto classes = classes_of("loss_classes");
  const auto weights = nn_reference<double>("loss_weights");
  const auto run = [&](nn::CrossEntropyOptions options) {
    return [&, options](View a, nn::TensorView<double> g) {
      return nn::cross_entropy_loss<double>(a, classes, g, options);
    };
  };
  check("ce", p, run({}));
  check("ce_smooth", p, run({.smoothing = 0.1}));
  check("ce_weights", p, run({.smoothing = 0.1, .weights = weights.span()}));
  check("ce_sum", p, run({.loss = {.mean = false}}));
  const auto where = classes_of("loss_where");
  check("ce_image", nn_reference<double>("loss_image"), [&](View a, nn::TensorView<double> g) {
    return nn::cross_entropy_loss<double>(a, where, g, {.channels_first = true});
  });
}

TEST(NnLoss, ShardsWithTheBatchsDivisorAddUp) {
  const nn::Tensor<float> p = random_tensor<float>({10, 40}, 1),
                          t = random_tensor<float>({10, 40}, 2);
  const double whole = nn::mse_loss<float>(p, t, {});
  double sum = 0;
  for (Index i = 0; i < 10; i += 5) {
    sum += nn::mse_loss<float>(p.view().slice(i, 5), t.view().slice(i, 5), {}, {.divisor = 400});
  }
  EXPECT_NEAR(sum, whole, 1e-6 * whole);
}

TEST(NnLoss, ExtremeLogits) {
  nn::Tensor<float> p({2, 3}), g({2, 3});
  const float values[] = {1000, -1000, 0, 1e4F, 1e4F, -1e4F};
  std::copy(std::begin(values), std::end(values), p.span().begin());
  const std::vector<std::int64_t> classes = {0, 1};
  EXPECT_NEAR(nn::cross_entropy_loss<float>(p, classes, g.view()), std::log(2.0) / 2, 1e-6);
  for (const float value : g.span()) EXPECT_TRUE(std::isfinite(value));
  nn::Tensor<float> target({2, 3});
  EXPECT_TRUE(std::isfinite(nn::bce_with_logits_loss<float>(p, target, g.view())));
}

TEST(NnLoss, AllIgnoredIsZero) {
  const nn::Tensor<float> p = random_tensor<float>({2, 3}, 1);
  nn::Tensor<float> g({2, 3});
  const std::vector<std::int64_t> classes = {-100, -100};
  EXPECT_EQ(nn::cross_entropy_loss<float>(p, classes, g.view()), 0);
  for (const float value : g.span()) EXPECT_EQ(value, 0);
}

TEST(NnLoss, WrongInput) {
  nn::Tensor<float> a({2, 3}), b({3, 2});
  EXPECT_THROW(nn::mse_loss<float>(a, b, {}), ShapeError);
  EXPECT_THROW(nn::mse_loss<float>(a, a, b.view()), ShapeError);
  EXPECT_THROW(nn::huber_loss<float>(a, a, {}, 0), ValueError);
  const std::vector<std::int64_t> one = {0}, bad = {0, 3};
  EXPECT_THROW(nn::cross_entropy_loss<float>(a, one, {}), ShapeError);
  EXPECT_THROW(nn::cross_entropy_loss<float>(a, bad, {}), ValueError);
  const std::vector<std::int64_t> fine = {0, 2};
  EXPECT_THROW(nn::cross_entropy_loss<float>(a, fine, {}, {.smoothing = 2}), ValueError);
  const double weights[] = {1, 2};
  EXPECT_THROW(nn::cross_entropy_loss<float>(a, fine, {}, {.weights = weights}), ShapeError);
  EXPECT_THROW(nn::mse_loss<float>(a, a, {}, {.divisor = -3}), ValueError);
  EXPECT_THROW(nn::mse_loss<float>(a, a, {}, {.divisor = std::nan("")}), ValueError);
}

}  // namespace
}  // namespace quern::test::nn_loss
