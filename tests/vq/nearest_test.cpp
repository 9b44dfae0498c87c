// SPDX-License-Identifier: Apache-2.0

/// \file
/// Nearest codes against exact float64 arg-mins and faiss; ties, cancellation, strides, threads.

#include "quern/vq/nearest.hpp"

#include "reference.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

namespace quern::test::vq_nearest {
namespace {

using vq::Distance;
using vq::Guard;

std::vector<std::int64_t> exact_codes(const NdArray<float, 2>& x, const NdArray<float, 2>& book) {
  std::vector<std::int64_t> codes(static_cast<std::size_t>(x.extent(0)));
  NdArray<std::int64_t, 2> found({x.extent(0), 1});
  NdArray<double, 2> apart({x.extent(0), 1});
  vq::nearest_k_codes<float>(x.view(), book.view(), found.view(), apart.view());
  std::copy(found.begin(), found.end(), codes.begin());
  return codes;
}

template <class T>
void expect_reference_codes() {
  const NdArray<T, 2> x = vq_matrix<T>("x"), book = vq_matrix<T>("codebook");
  const std::vector<double> distance = vq_elements<double>("dist2_f64");
  for (const Guard guard : {Guard::none, Guard::centre, Guard::recheck}) {
    std::vector<std::int64_t> codes(200);
    std::vector<T> distances(200);
    vq::nearest_codes<T>(x.view(), book.view(), codes, distances, {.guard = guard});
    EXPECT_EQ(codes, vq_codes("idx"));
    for (std::size_t i = 0; i < 200; ++i) {
      EXPECT_NEAR(distances[i], distance[i], 2e-6 * distance[i]);
    }
  }
}

TEST(VqNearest, CodesAndDistancesOfTheReference) {
  expect_reference_codes<float>();
  expect_reference_codes<double>();
}

TEST(VqNearest, SeveralNearestAsFaiss) {
  const auto x = vq_matrix<float>("x"), book = vq_matrix<float>("codebook");
  NdArray<std::int64_t, 2> codes({200, 4});
  NdArray<double, 2> distances({200, 4});
  vq::nearest_k_codes<float>(x.view(), book.view(), codes.view(), distances.view());
  const auto expected = vq_codes("faiss_k4_idx");
  const auto apart = vq_elements<float>("faiss_k4_dist2");
  for (std::size_t i = 0; i < expected.size(); ++i) {
    EXPECT_EQ(codes.data()[i], expected[i]);
    EXPECT_NEAR(distances.data()[i], apart[i], 1e-5 * apart[i]);
  }
  EXPECT_THROW(vq::nearest_k_codes<float>(x.view(), book.view().slice(0, 0, 3), codes.view(),
                                          distances.view()),
               ValueError);
}

TEST(VqNearest, CosineOfTheReference) {
  const auto x = vq_matrix<float>("x"), book = vq_matrix<float>("codebook");
  const vq::CodeSearch<float> search(book.view(), {.metric = Distance::cosine});
  std::vector<std::int64_t> codes(200);
  std::vector<float> cosines(200);
  search.find(x.view(), codes, cosines);
  EXPECT_EQ(codes, vq_codes("cosine_idx"));
  NdArray<float, 2> out({200, 16});
  vq::lookup_codes<float>(search.table(), codes, out.view());
  expect_close(out, vq_matrix<float>("cosine_out"));
  for (const float cosine : cosines) {
    EXPECT_GT(cosine, 0.0F);
    EXPECT_LE(cosine, 1.000001F);
  }
}

TEST(VqNearest, TiesGoToTheLowestIndex) {
  NdArray<float, 2> book({70, 5});
  for (Index k = 0; k < 70; ++k) book(k, k % 5) = 1;  // fourteen copies of five codes
  const auto x = normal_matrix<float>(40, 5, 1);
  for (const Guard guard : {Guard::none, Guard::centre, Guard::recheck}) {
    std::vector<std::int64_t> codes(40);
    vq::nearest_codes<float>(x.view(), book.view(), codes, {}, {.guard = guard});
    for (const std::int64_t code : codes) EXPECT_LT(code, 5);
  }
}

TEST(VqNearest, FarFromTheOriginNothingIsLost) {
  // All data around 3000: the plain algebra is off by 3000^2 d 2^-24 = 8, and codes are about 8
  // apart.
  const auto x = normal_matrix<float>(600, 16, 2, 3000),
             book = normal_matrix<float>(64, 16, 3, 3000);
  const auto expected = exact_codes(x, book);
  std::vector<std::int64_t> codes(600);
  const auto wrong = [&](Guard guard) {
    vq::nearest_codes<float>(x.view(), book.view(), codes, {}, {.guard = guard});
    int count = 0;
    for (std::size_t i = 0; i < codes.size(); ++i) count += codes[i] != expected[i] ? 1 : 0;
    return count;
  };
  EXPECT_GT(wrong(Guard::none), 20);
  EXPECT_LE(wrong(Guard::centre), 1);
  EXPECT_EQ(wrong(Guard::recheck), 0);
}

TEST(VqNearest, FarGroupsAreRechecked) {
  // Two groups at +-2000, so that the mean is no help; codes within a group are close.
  auto x = normal_matrix<float>(600, 8, 4), book = normal_matrix<float>(64, 8, 5);
  for (Index i = 0; i < x.extent(0); ++i) x(i, 0) += i % 2 == 0 ? 2000.0F : -2000.0F;
  for (Index k = 0; k < book.extent(0); ++k) book(k, 0) += k % 2 == 0 ? 2000.0F : -2000.0F;
  std::vector<std::int64_t> codes(600);
  vq::nearest_codes<float>(x.view(), book.view(), codes, {}, {.guard = Guard::recheck});
  EXPECT_EQ(codes, exact_codes(x, book));
  vq::nearest_codes<float>(x.view(), book.view(), codes);
  EXPECT_NE(codes, exact_codes(x, book));
}

TEST(VqNearest, StridesAndThreadsDoNotMatter) {
  const auto x = normal_matrix<float>(1300, 7, 6), book = normal_matrix<float>(33, 7, 7);
  std::vector<std::int64_t> first(1300), codes(1300);
  std::vector<float> distances(1300), strided(1300);
  vq::nearest_codes<float>(x.view(), book.view(), first, distances, {.threads = 1});
  for (const int threads : {2, 3}) {
    vq::nearest_codes<float>(x.view(), book.view(), codes, strided, {.threads = threads});
    EXPECT_EQ(codes, first);
    EXPECT_EQ(strided, distances);
  }
  NdArray<float, 2> turned({7, 1300});
  for (Index i = 0; i < 1300; ++i) {
    for (Index j = 0; j < 7; ++j) turned(j, i) = x(i, j);
  }
  vq::nearest_codes<float>(turned.view().transposed(), book.view(), codes, strided);
  EXPECT_EQ(codes, first);
  EXPECT_EQ(strided, distances);
}

TEST(VqNearest, WrongInput) {
  const auto x = normal_matrix<float>(4, 3, 8), book = normal_matrix<float>(5, 3, 9);
  std::vector<std::int64_t> codes(4), few(3);
  EXPECT_THROW(vq::nearest_codes<float>(x.view(), book.view(), few), ShapeError);
  EXPECT_THROW(vq::nearest_codes<float>(x.view(), book.view().slice(0, 0, 0), codes), ShapeError);
  EXPECT_THROW(vq::nearest_codes<float>(x.view(), book.view().slice(1, 0, 2), codes), ShapeError);
  NdArray<float, 2> out({4, 3});
  codes = {0, 1, 5, 2};
  EXPECT_THROW(vq::lookup_codes<float>(book.view(), codes, out.view()), ValueError);
  auto bad = x;
  bad(1, 1) = std::numeric_limits<float>::quiet_NaN();
  vq::nearest_codes<float>(bad.view(), book.view(), codes);
  EXPECT_EQ(codes[1], 0);
}

}  // namespace
}  // namespace quern::test::vq_nearest
