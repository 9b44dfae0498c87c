// SPDX-License-Identifier: Apache-2.0

/// \file
/// Product, residual and grouped quantisers, FSQ, LFQ, Gumbel-softmax and packed codes against
/// their references and definitions.

#include "quern/vq/bits.hpp"
#include "quern/vq/fsq.hpp"
#include "quern/vq/gumbel.hpp"
#include "quern/vq/lfq.hpp"
#include "quern/vq/product.hpp"
#include "reference.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <utility>
#include <vector>

namespace quern::test::vq_quantizers {
namespace {

template <class T>
void expect_several(const std::string& name, const Shape<4>& extents) {
  const auto x = vq_matrix<T>("x"), flat = vq_matrix<T>(name + "_codebooks", extents[3]);
  const vq::GroupedResidualQuantizer<T> quantizer(NdView<const T, 4>(flat.data(), extents));
  NdArray<std::int64_t, 2> codes({200, 4});
  NdArray<T, 2> out({200, 16}), again({200, 16});
  const auto left = quantizer.encode(x.view(), codes.view(), out.view());
  EXPECT_EQ((std::vector<std::int64_t>(codes.begin(), codes.end())), vq_codes(name + "_idx"));
  expect_close(out, vq_matrix<T>(name + "_quantized"));
  quantizer.decode(codes.view(), again.view());
  EXPECT_TRUE(std::equal(out.begin(), out.end(), again.begin()));
  if (extents[1] > 1) {
    const auto expected = vq_elements<double>(name + "_cum_residual_mse");
    for (std::size_t q = 0; q < expected.size(); ++q) EXPECT_NEAR(left[q], expected[q], 1e-6);
  }
  codes(0, 0) = extents[2];
  EXPECT_THROW(quantizer.decode(codes.view(), again.view()), ValueError);
}

TEST(VqQuantizers, ProductAndResidualOfTheReference) {
  expect_several<float>("pq", {4, 1, 25, 4});
  expect_several<double>("pq", {4, 1, 25, 4});
  expect_several<float>("rvq", {1, 4, 50, 16});
  expect_several<double>("rvq", {1, 4, 50, 16});
}

TEST(VqQuantizers, TrainedGroupsAndStagesEachHelp) {
  const auto x = normal_matrix<float>(400, 6, 1);
  const auto books = vq::train_codebooks<float>(x.view(), 2, 3, 16, 1);
  const vq::GroupedResidualQuantizer<float> quantizer(books.view());
  EXPECT_EQ(quantizer.groups(), 2);
  EXPECT_EQ(quantizer.stages(), 3);
  NdArray<std::int64_t, 2> codes({400, 6});
  NdArray<float, 2> out({400, 6});
  const auto left = quantizer.encode(x.view(), codes.view(), out.view());
  EXPECT_LT(left[0], 0.4);
  EXPECT_LT(left[1], 0.6 * left[0]);
  EXPECT_LT(left[2], 0.6 * left[1]);
  double error = 0;
  for (Index i = 0; i < x.size(); ++i) error += std::pow(x.data()[i] - out.data()[i], 2);
  EXPECT_NEAR(error / static_cast<double>(x.size()), left[2], 1e-6);
  EXPECT_THROW((void)vq::train_codebooks<float>(x.view(), 4, 1, 16), ShapeError);
}

template <class T>
void expect_fsq(const std::string& name, std::vector<int> levels, bool symmetric) {
  const auto width = static_cast<Index>(levels.size());
  const vq::FiniteScalarQuantizer<T> fsq(
      {.levels = std::move(levels), .preserve_symmetry = symmetric});
  const auto z = vq_matrix<T>("fsq_" + name + "_z", width);
  NdArray<T, 2> out(z.extents()), back(z.extents()), dz(z.extents());
  std::vector<std::int64_t> indices(static_cast<std::size_t>(z.extent(0)));
  fsq.quantize(z.view(), out.view(), indices);
  EXPECT_EQ(indices, vq_codes("fsq_" + name + "_idx"));
  expect_close(out, vq_matrix<T>("fsq_" + name + "_codes", width), 1e-6);
  fsq.decode(indices, back.view());
  EXPECT_TRUE(std::equal(out.begin(), out.end(), back.begin()));
  const auto gout = vq_matrix<T>("fsq_" + name + "_gout", width);
  fsq.quantize_vjp(z.view(), gout.view(), dz.view());
  expect_close(dz, vq_matrix<T>("fsq_" + name + "_gz", width));
}

TEST(VqQuantizers, FiniteScalarOfTheReference) {
  expect_fsq<float>("a", {8, 5, 5, 5}, false);
  expect_fsq<double>("a", {8, 5, 5, 5}, false);
  expect_fsq<float>("b", {8, 8, 8, 6, 5}, false);
  expect_fsq<float>("c", {5, 5, 5}, true);
  expect_fsq<double>("c", {5, 5, 5}, true);
  EXPECT_EQ(vq::FiniteScalarQuantizer<float>().codes(), 1000);
  EXPECT_THROW(vq::FiniteScalarQuantizer<float>({.levels = {}}), ValueError);
  EXPECT_THROW(vq::FiniteScalarQuantizer<float>({.levels = {1}}), ValueError);
  EXPECT_THROW(vq::FiniteScalarQuantizer<float>({.levels = std::vector<int>(30, 8)}), ValueError);
}

template <class T>
void expect_lfq() {
  const auto z = vq_matrix<T>("lfq_z", 8);
  NdArray<T, 2> out(z.extents()), back(z.extents()), dz(z.extents());
  std::vector<std::int64_t> indices(64);
  vq::lfq_quantize<T>(z.view(), out.view(), indices);
  EXPECT_EQ(indices, vq_codes("lfq_idx"));
  expect_close(out, vq_matrix<T>("lfq_quantized", 8), 0);
  vq::lfq_decode<T>(indices, back.view());
  expect_close(back, out, 0);
  for (const int threads : {1, 3}) {
    const vq::LfqLoss loss = vq::lfq_loss<T>(z.view(), {.threads = threads});
    EXPECT_NEAR(loss.total, -0.30137768387794495, 4e-6);
    EXPECT_NEAR(loss.per_sample_entropy, 0.03280189260840416, 1e-6);
    EXPECT_NEAR(loss.batch_entropy, 4.013256072998047, 4e-5);
    EXPECT_NEAR(loss.commitment, 0.3866709768772125, 4e-6);
    vq::lfq_loss_vjp<T>(z.view(), {}, 1, dz.view(), {.threads = threads});
    expect_close(dz, vq_matrix<T>("lfq_gz_of_aux_loss", 8), 1e-4);
  }
}

TEST(VqQuantizers, NanIsNotHidden) {
  NdArray<float, 2> z({1, 2}), out({1, 2});
  z(0, 0) = std::numeric_limits<float>::quiet_NaN();
  z(0, 1) = 0.25F;
  std::vector<std::int64_t> index(1);
  vq::FiniteScalarQuantizer<float>({.levels = {5, 5}}).quantize(z.view(), out.view(), index);
  EXPECT_TRUE(std::isnan(out(0, 0)) && !std::isnan(out(0, 1)));
  EXPECT_EQ(index[0] % 5, 0);
  vq::lfq_quantize<float>(z.view(), out.view(), index);
  EXPECT_TRUE(std::isnan(out(0, 0)));
  EXPECT_EQ(out(0, 1), 1);
  EXPECT_THROW(static_cast<void>(vq::lfq_loss<float>(z.view(), {.inverse_temperature = -1})),
               ValueError);
}

TEST(VqQuantizers, LookupFreeOfTheReference) {
  expect_lfq<float>();
  expect_lfq<double>();
}

TEST(VqQuantizers, LookupFreeGradientIsItsLossDerivative) {
  auto z = normal_matrix<double>(9, 4, 3);
  const vq::LfqOptions options{
      .inverse_temperature = 0.8, .entropy_weight = 0.7, .diversity_gamma = 1.3};
  NdArray<double, 2> dz(z.extents());
  vq::lfq_loss_vjp<double>(z.view(), {}, 1, dz.view(), options);
  for (Index i = 0; i < z.size(); ++i) {
    const double at = z.data()[i], step = 1e-5;
    z.data()[i] = at + step;
    const double above = vq::lfq_loss<double>(z.view(), options).total;
    z.data()[i] = at - step;
    const double below = vq::lfq_loss<double>(z.view(), options).total;
    z.data()[i] = at;
    EXPECT_NEAR(dz.data()[i], (above - below) / (2 * step), 1e-8);
  }
}

TEST(VqQuantizers, GumbelOfTheReference) {
  const auto logits = vq_matrix<float>("gumbel_logits", 50),
             noise = vq_matrix<float>("gumbel_noise", 50);
  NdArray<float, 2> soft({40, 50}), out({40, 50}), dlogits({40, 50});
  std::vector<std::int64_t> codes(40);
  const vq::GumbelOptions options{.temperature = 0.7};
  vq::gumbel_softmax<float>(logits.view(), noise.view(), soft.view(), codes, out.view(), options);
  EXPECT_EQ(codes, vq_codes("gumbel_idx"));
  expect_close(soft, vq_matrix<float>("gumbel_soft", 50));
  for (Index i = 0; i < 40; ++i) {
    for (Index j = 0; j < 50; ++j) {
      EXPECT_EQ(out(i, j), j == codes[static_cast<std::size_t>(i)] ? 1.0F : 0.0F);
    }
  }
  vq::gumbel_softmax_vjp<float>(soft.view(), vq_matrix<float>("gumbel_gout", 50).view(),
                                dlogits.view(), options);
  expect_close(dlogits, vq_matrix<float>("gumbel_glogits_straight_through", 50));
  EXPECT_THROW(
      vq::gumbel_softmax<float>(logits.view(), {}, soft.view(), codes, {}, {.temperature = 0}),
      ValueError);
}

TEST(VqQuantizers, GumbelNoiseDrawsByProbability) {
  NdArray<double, 2> logits({4000, 3}), noise({4000, 3}), soft({4000, 3}), rest({10, 3});
  const double p[3] = {0.2, 0.5, 0.3};
  for (Index i = 0; i < 4000; ++i) {
    for (Index j = 0; j < 3; ++j) logits(i, j) = std::log(p[j]);
  }
  vq::gumbel_noise<double>(noise.view(), 3);
  std::vector<std::int64_t> codes(4000);
  vq::gumbel_softmax<double>(logits.view(), noise.view(), soft.view(), codes, {});
  double count[3] = {0, 0, 0};
  for (const std::int64_t code : codes) count[code] += 1;
  for (int j = 0; j < 3; ++j) EXPECT_NEAR(count[j] / 4000, p[j], 0.03);
  vq::gumbel_noise<double>(rest.view(), 3, 100);
  for (Index j = 0; j < 3; ++j) EXPECT_EQ(rest(0, j), noise(100, j));
}

TEST(VqQuantizers, CodesPackToBits) {
  EXPECT_EQ(vq::bits_for_codes(1), 0);
  EXPECT_EQ(vq::bits_for_codes(2), 1);
  EXPECT_EQ(vq::bits_for_codes(512), 9);
  EXPECT_EQ(vq::bits_for_codes(513), 10);
  for (const int bits : {1, 3, 8, 9, 17, 62}) {
    Philox random(9, bits);
    std::vector<std::int64_t> codes(101), back(101);
    for (auto& code : codes) code = static_cast<std::int64_t>(random.next_u64() >> (64 - bits));
    const auto packed = vq::pack_codes(codes, bits);
    EXPECT_EQ(packed.size(), (101U * static_cast<unsigned>(bits) + 7) / 8);
    vq::unpack_codes(packed, bits, back);
    EXPECT_EQ(back, codes);
    EXPECT_THROW(vq::unpack_codes(packed, bits, std::span(back).first(50)), ShapeError);
  }
  EXPECT_EQ(vq::pack_codes(std::vector<std::int64_t>{1, 0, 2}, 2),
            (std::vector<std::uint8_t>{0x21}));
  EXPECT_THROW((void)vq::pack_codes(std::vector<std::int64_t>{4}, 2), ValueError);
  EXPECT_THROW((void)vq::pack_codes(std::vector<std::int64_t>{-1}, 2), ValueError);
}

}  // namespace
}  // namespace quern::test::vq_quantizers
