// SPDX-License-Identifier: Apache-2.0

/// \file
/// EMA codebooks in both conventions against sonnet and vector-quantize-pytorch, k-means and
/// restarts.

#include "quern/vq/ema.hpp"

#include "quern/vq/kmeans.hpp"
#include "quern/vq/loss.hpp"
#include "quern/vq/usage.hpp"
#include "reference.hpp"

#include <gtest/gtest.h>

#include <limits>
#include <set>
#include <string>
#include <vector>

namespace quern::test::vq_ema {
namespace {

using vq::EmaConvention;

template <class T>
void expect_run(EmaConvention convention, int threads) {
  const bool sonnet = convention == EmaConvention::debiased;
  const std::string run = sonnet ? "ema_sonnetrun_" : "ema_vqpt_";
  const auto steps = vq_matrix<T>("ema_x_steps"), start = vq_matrix<T>("codebook");
  vq::EmaCodebook<T> book(start.view(), {.convention = convention, .threads = threads});
  for (int t = 1; t <= 3; ++t) {
    const std::string suffix = "_" + std::to_string(t);
    const MatrixView<const T> x = steps.view().slice(0, (t - 1) * 200, 200);
    std::vector<std::int64_t> codes(200);
    vq::nearest_codes<T>(x, book.codebook(), codes);
    EXPECT_EQ(codes, vq_codes(run + "idx" + suffix)) << t;
    NdArray<T, 2> q({200, 16});
    vq::lookup_codes<T>(book.codebook(), codes, q.view());
    const double loss = vq::vq_loss<T>(x, q.view(), {.codebook_weight = 0}).total;
    EXPECT_NEAR(loss, vq_elements<float>(run + "loss" + suffix)[0], 3e-6);
    if (sonnet) {
      vq::CodeUsage usage(50);
      usage.add(codes);
      EXPECT_NEAR(usage.perplexity(), vq_elements<float>(run + "perplexity" + suffix)[0], 4e-4);
    }
    book.update(x, codes);
    expect_close(NdArray<T, 2>(book.codebook()), vq_matrix<T>(run + "codebook" + suffix));
    const auto sizes = vq_elements<float>(
        (sonnet ? std::string("ema_sonnet_cluster_size_smoothed") : run + "cluster_size") + suffix);
    const auto smoothed = book.smoothed_sizes();
    for (std::size_t k = 0; k < 50; ++k) {
      const double got = sonnet ? smoothed[k] : static_cast<double>(book.cluster_sizes()[k]);
      EXPECT_NEAR(got, sizes[k], 1e-5 * static_cast<double>(sizes[k]));
    }
    if (!sonnet) {
      expect_close(NdArray<T, 2>(book.cluster_sums()), vq_matrix<T>(run + "embed_avg" + suffix));
    }
  }
}

TEST(VqEma, ThreeStepsOfBothConventions) {
  for (const int threads : {1, 3}) {
    expect_run<float>(EmaConvention::debiased, threads);
    expect_run<float>(EmaConvention::plain, threads);
  }
  expect_run<double>(EmaConvention::debiased, 1);
  expect_run<double>(EmaConvention::plain, 1);
}

TEST(VqEma, OptionsOutsideTheirRange) {
  const auto start = normal_matrix<float>(4, 2, 1);
  EXPECT_THROW(vq::EmaCodebook<float>(start.view(), {.decay = 1}), ValueError);
  EXPECT_THROW(vq::EmaCodebook<float>(start.view(), {.decay = -0.1}), ValueError);
  EXPECT_THROW(vq::EmaCodebook<float>(start.view(), {.epsilon = -1}), ValueError);
}

TEST(VqKmeans, LloydOfTheReference) {
  const auto x = vq_matrix<float>("x");
  NdArray<float, 2> means(x.view().slice(0, 0, 12));
  const auto counts = vq::lloyd<float>(x.view(), means.view());
  EXPECT_EQ(counts, vq_codes("kmeans_bins_of_last_assign"));
  expect_close(means, vq_matrix<float>("kmeans_start_is_first_rows_means10"));
}

TEST(VqKmeans, PlusPlusPicksDifferentRowsFarApart) {
  // Eight tight groups: one code in each is what k-means++ is for.
  NdArray<float, 2> x({800, 3});
  Philox random(5, "groups");
  for (Index i = 0; i < 800; ++i) {
    for (Index j = 0; j < 3; ++j) {
      x(i, j) = ((i % 8) >> j & 1 ? 10.0F : -10.0F) + 0.1F * random.normal<float>();
    }
  }
  NdArray<float, 2> first({8, 3}), again({8, 3});
  vq::kmeans_plus_plus<float>(x.view(), first.view(), 1, 1);
  vq::kmeans_plus_plus<float>(x.view(), again.view(), 1, 3);
  EXPECT_TRUE(std::equal(first.begin(), first.end(), again.begin()));
  std::set<int> groups;
  for (Index k = 0; k < 8; ++k) {
    groups.insert((first(k, 0) > 0 ? 1 : 0) + (first(k, 1) > 0 ? 2 : 0) +
                  (first(k, 2) > 0 ? 4 : 0));
  }
  EXPECT_EQ(groups.size(), 8U);
}

TEST(VqKmeans, CodebookLargerThanTheDataIsNamed) {
  NdArray<float, 2> x({6, 2});
  for (Index i = 0; i < 6; ++i) x(i, 0) = static_cast<float>(i % 3);  // three different rows
  NdArray<float, 2> book({4, 2}), large({7, 2});
  EXPECT_THROW(vq::kmeans_plus_plus<float>(x.view(), book.view()), ValueError);
  EXPECT_THROW(vq::kmeans_plus_plus<float>(x.view(), large.view()), ValueError);
  NdArray<float, 2> fits({3, 2});
  vq::kmeans_plus_plus<float>(x.view(), fits.view());
}

TEST(VqKmeans, DeadCodesRestartWithoutDuplicates) {
  NdArray<float, 2> x({50, 2});
  for (Index i = 0; i < 50; ++i) x(i, 0) = static_cast<float>(i % 10);  // ten different rows
  NdArray<float, 2> start({8, 2});
  for (Index k = 0; k < 8; ++k) start(k, 0) = k < 2 ? static_cast<float>(k) : 100.0F;
  vq::EmaCodebook<float> book(start.view(), {.decay = 0.5});
  std::vector<std::int64_t> codes(50);
  vq::nearest_codes<float>(x.view(), book.codebook(), codes);
  book.update(x.view(), codes);
  const float kept = book.codebook()(1, 0);
  EXPECT_EQ(vq::restart_dead_codes<float>(book, x.view(), 0.5, 7, 1), 6);
  std::set<float> places;
  for (Index k = 0; k < 8; ++k) places.insert(book.codebook()(k, 0));
  EXPECT_EQ(places.size(), 8U);
  EXPECT_EQ(book.codebook()(1, 0), kept);
  for (const float size : book.cluster_sizes()) EXPECT_GT(size, 0.0F);
  // More dead codes than rows: the rest stays dead.
  NdArray<float, 2> far({20, 2});
  far.fill(100);
  vq::EmaCodebook<float> wide(far.view());
  EXPECT_EQ(vq::restart_dead_codes<float>(wide, x.view(), 1, 7, 1), 10);
  // Rows that are not finite are no codes.
  x.fill(std::numeric_limits<float>::quiet_NaN());
  EXPECT_EQ(vq::restart_dead_codes<float>(wide, x.view(), 1, 7, 1), 0);
}

}  // namespace
}  // namespace quern::test::vq_ema
