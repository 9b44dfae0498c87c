// SPDX-License-Identifier: Apache-2.0

/// \file
/// Codebook and commitment loss and the straight-through gradient against torch and sonnet.

#include "quern/vq/loss.hpp"

#include "quern/vq/usage.hpp"
#include "reference.hpp"

#include <gtest/gtest.h>

namespace quern::test::vq_losses {
namespace {

template <class T>
NdArray<T, 2> scaled(NdArray<T, 2> a, double factor) {
  for (T& value : a) value = static_cast<T>(static_cast<double>(value) * factor);
  return a;
}

template <class T>
void expect_torch() {
  const auto x = vq_matrix<T>("x"), book = vq_matrix<T>("codebook");
  const auto codes = vq_codes("idx");
  NdArray<T, 2> q({200, 16});
  vq::lookup_codes<T>(book.view(), codes, q.view());
  const vq::VqLoss loss = vq::vq_loss<T>(x.view(), q.view());
  EXPECT_NEAR(loss.codebook, 0.8098064661, 8e-7);
  EXPECT_NEAR(loss.commitment, 0.8098064661, 8e-7);
  EXPECT_NEAR(loss.total, 1.0122580528, 1e-6);
  EXPECT_NEAR((vq::vq_loss<T>(x.view(), q.view(), {.beta = 1}).total), 1.6196129322, 2e-6);
  for (const int threads : {1, 2, 3}) {
    NdArray<T, 2> dx({200, 16}), dbook({50, 16});
    const auto w = scaled(vq_matrix<T>("ste_beta0.25_w"), 1.0 / 200);
    vq::vq_loss_vjp<T>(x.view(), q.view(), codes, w.view(), 1, dx.view(), dbook.view(),
                       {.threads = threads});
    expect_close(dx, vq_matrix<T>("ste_beta0.25_grad_x"));
    expect_close(dbook, vq_matrix<T>("ste_beta0.25_grad_codebook"));
  }
  NdArray<T, 2> dx = scaled(vq_matrix<T>("ste_beta1.0_w"), 1.0 / 200), dbook({50, 16});
  vq::vq_loss_vjp<T>(x.view(), q.view(), codes, dx.view(), 1, dx.view(), {}, {.beta = 1});
  expect_close(dx, vq_matrix<T>("ste_beta1.0_grad_x"));
  vq::vq_loss_vjp<T>(x.view(), q.view(), codes, {}, 1, dx.view(), dbook.view());
  expect_close(dx, vq_matrix<T>("sonnet_grad_x_of_loss"));
  expect_close(dbook, vq_matrix<T>("sonnet_grad_codebook_of_loss"));
  const auto once = dbook;
  vq::vq_loss_vjp<T>(x.view(), q.view(), codes, {}, 1, {}, dbook.view());
  expect_close(dbook, scaled(once, 2));  // gradients of parameters accumulate
}

TEST(VqLosses, OfTorchAndSonnet) {
  expect_torch<float>();
  expect_torch<double>();
}

TEST(VqLosses, PerplexityAndUsage) {
  vq::CodeUsage usage(50);
  EXPECT_EQ(usage.perplexity(), 1);
  usage.add(vq_codes("idx"));
  EXPECT_NEAR(usage.perplexity(), 34.46656, 1e-4);
  EXPECT_EQ(usage.total(), 200);
  EXPECT_GT(usage.used(), 34);
  vq::CodeUsage even(4);
  even.add(std::vector<std::int64_t>{0, 1, 2, 3});
  EXPECT_NEAR(even.perplexity(), 4, 1e-7);
  EXPECT_NEAR(even.bits(), 2, 1e-7);
  EXPECT_EQ(even.used(), 4);
  EXPECT_THROW(even.add(std::vector<std::int64_t>{4}), ValueError);
  EXPECT_THROW(vq::CodeUsage(0), ValueError);
}

TEST(VqLosses, WrongShapes) {
  const auto x = normal_matrix<float>(4, 3, 1);
  NdArray<float, 2> q({4, 2}), dbook({5, 3});
  EXPECT_THROW((void)vq::vq_loss<float>(x.view(), q.view()), ShapeError);
  const std::vector<std::int64_t> codes = {0, 1, 2, 7};
  EXPECT_THROW(vq::vq_loss_vjp<float>(x.view(), x.view(), codes, {}, 1, {}, dbook.view()),
               ValueError);
}

}  // namespace
}  // namespace quern::test::vq_losses
