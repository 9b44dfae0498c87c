// SPDX-License-Identifier: Apache-2.0

/// \file
/// Random numbers: published vectors, golden values (the same on every platform), distributions.
///
/// Seeds are fixed, so the statistical tests give the same answer on every run.

#include "quern/core/random.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <numeric>
#include <set>
#include <vector>

namespace quern::test::random {
namespace {

using Words = std::array<std::uint32_t, 4>;
constexpr int draws = 200000;

/// Known-answer vectors published with Random123 (philox4x32, 10 rounds).
static_assert(philox4x32({0, 0, 0, 0}, {0, 0}) ==
              Words{0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8});
static_assert(philox4x32({0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff},
                         {0xffffffff, 0xffffffff}) ==
              Words{0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd});
static_assert(philox4x32({0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
                         {0xa4093822, 0x299f31d0}) ==
              Words{0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1});

/// A change here changes every seeded model there is: it needs a new version.
TEST(Random, GoldenValues) {
  Philox rng(2026, "golden", 3);
  std::uint64_t hash = 0;
  const auto add = [&](std::uint64_t bits) { hash = hash * 0x100000001B3ULL ^ bits; };
  for (int i = 0; i < 20000; ++i) {
    add(rng.next_u32());
    add(std::bit_cast<std::uint32_t>(rng.uniform<float>()));
    add(std::bit_cast<std::uint64_t>(rng.uniform<double>()));
    add(std::bit_cast<std::uint64_t>(rng.uniform(-1.5, 4.25)));
    add(rng.integer(10));
    add(rng.integer((std::uint64_t{1} << 40) + 5));
    add(std::bit_cast<std::uint64_t>(rng.normal()));
    add(std::bit_cast<std::uint32_t>(rng.normal<float>()));
    add(std::bit_cast<std::uint64_t>(rng.normal(0.1, 3.0)));
    add(std::bit_cast<std::uint64_t>(rng.exponential()));
  }
  for (std::int64_t i : rng.sample(1000, 100)) add(static_cast<std::uint64_t>(i));
  for (std::int64_t i : rng.sample(1000000, 10)) add(static_cast<std::uint64_t>(i));
  EXPECT_EQ(hash, 0x4e5faac9d7c19c62ULL);
  EXPECT_EQ(Philox(1, "a").next_u32(), 0x692dbb01U);
}

TEST(Random, PurposeSeedAndStreamSeparate) {
  std::set<std::uint64_t> firsts;
  for (std::uint64_t seed : {0U, 1U, 2U}) {
    for (std::uint64_t stream : {0U, 1U, 2U}) {
      firsts.insert(Philox(seed, "rows", stream).next_u64());
      firsts.insert(Philox(seed, "columns", stream).next_u64());
      firsts.insert(Philox(seed, 1, stream).next_u64());
      firsts.insert(Philox(seed, 0, stream).next_u64());
    }
  }
  EXPECT_EQ(firsts.size(), 36U);
  Philox a(5, "p", 9);
  EXPECT_EQ(Philox(5, "p").with_stream(9)(), a());
}

TEST(Random, AnyPlaceIsReachedAtOnce) {
  Philox rng(3, "seek");
  std::vector<std::uint32_t> words(50);
  for (std::uint32_t& w : words) w = rng.next_u32();
  EXPECT_EQ(rng.position(), 50U);
  for (std::size_t i : {49U, 0U, 7U, 8U, 1U, 30U}) {
    EXPECT_EQ(rng.at(i), words[i]);
    rng.seek(i);
    EXPECT_EQ(rng.next_u32(), words[i]);
    if (i + 1 < words.size()) {
      EXPECT_EQ(rng.next_u32(), words[i + 1]);
    }
  }
  rng.seek((std::uint64_t{1} << 63) + 1);
  const std::uint32_t far = rng.next_u32();
  EXPECT_EQ(far, rng.at((std::uint64_t{1} << 63) + 1));
  Philox tenth(3, "seek");
  tenth.seek(20);
  const double expected = tenth.normal();
  Philox sequential(3, "seek");
  for (int i = 0; i < 10; ++i) (void)sequential.normal();
  EXPECT_EQ(sequential.normal(), expected);
}

template <class T>
class RandomOf : public ::testing::Test {};
using Scalars = ::testing::Types<float, double>;
TYPED_TEST_SUITE(RandomOf, Scalars);

TYPED_TEST(RandomOf, UniformMomentsAndRange) {
  Philox rng(11, "uniform");
  const TypeParam above_five = std::nextafter(TypeParam{5}, TypeParam{6});
  double sum = 0;
  double squares = 0;
  for (int i = 0; i < draws; ++i) {
    const TypeParam u = rng.uniform<TypeParam>();
    ASSERT_GE(u, TypeParam{0});
    ASSERT_LT(u, TypeParam{1});
    sum += static_cast<double>(u);
    squares += static_cast<double>(u) * static_cast<double>(u);
    const TypeParam v = rng.uniform<TypeParam>(TypeParam{5}, above_five);
    ASSERT_GE(v, TypeParam{5});
    ASSERT_LT(v, above_five);
  }
  EXPECT_NEAR(sum / draws, 0.5, 4 * std::sqrt(1.0 / 12 / draws));
  EXPECT_NEAR(squares / draws, 1.0 / 3, 0.003);
  EXPECT_EQ(rng.uniform<TypeParam>(2, 2), TypeParam{2});
}

TYPED_TEST(RandomOf, NormalMomentsAndTails) {
  Philox rng(12, "normal");
  std::array<double, 5> moments{};
  int beyond_two = 0;
  for (int i = 0; i < draws; ++i) {
    const double z = static_cast<double>(rng.normal<TypeParam>());
    double power = 1;
    for (double& m : moments) m += (power *= z) / draws;
    beyond_two += std::fabs(z) > 2;
  }
  const double e = 4 / std::sqrt(static_cast<double>(draws));
  EXPECT_NEAR(moments[0], 0, e);
  EXPECT_NEAR(moments[1], 1, e * std::sqrt(2.0));
  EXPECT_NEAR(moments[2], 0, e * std::sqrt(15.0));
  EXPECT_NEAR(moments[3], 3, e * std::sqrt(96.0));
  const double p = std::erfc(2 / std::sqrt(2.0));
  EXPECT_NEAR(static_cast<double>(beyond_two) / draws, p, e * std::sqrt(p));
}

TYPED_TEST(RandomOf, ExponentialMoments) {
  Philox rng(13, "exponential");
  double sum = 0;
  double squares = 0;
  for (int i = 0; i < draws; ++i) {
    const double x = static_cast<double>(rng.exponential<TypeParam>());
    ASSERT_GE(x, 0);
    sum += x;
    squares += x * x;
  }
  EXPECT_NEAR(sum / draws, 1, 4 / std::sqrt(static_cast<double>(draws)));
  EXPECT_NEAR(squares / draws, 2, 4 * std::sqrt(20.0 / draws));
}

TEST(Random, LogarithmAndQuantileAreAccurate) {
  double worst_log = 0;
  double worst_quantile = 0;
  for (double p = 0x1p-53; p < 0.5; p *= 1.003) {
    worst_log = (std::max)(worst_log, std::fabs(detail::exact_log(p) / std::log(p) - 1));
    const double z = detail::normal_quantile(p - 0.5, p);
    EXPECT_EQ(detail::normal_quantile(0.5 - p, p), -z);
    // d p / p = z d z beyond the centre: what an error of z does to p.
    const double back = 0.5 * std::erfc(-z / std::sqrt(2.0));
    worst_quantile = (std::max)(worst_quantile, std::fabs(back / p - 1) / (1 + z * z));
  }
  EXPECT_LT(worst_log, 5e-16);
  EXPECT_LT(worst_quantile, 2e-15);
  EXPECT_EQ(detail::exact_log(1.0), 0.0);
  EXPECT_EQ(detail::normal_quantile(0.0, 0.5), 0.0);
  EXPECT_NEAR(detail::normal_quantile(0.475, 0.025), 1.959963984540054, 1e-15);
}

/// Chi-square over 10 cells: 27.9 is passed by chance once in a thousand.
TEST(Random, IntegersAreUniform) {
  Philox rng(14, "integer");
  for (std::uint64_t n : {std::uint64_t{10}, std::uint64_t{10} << 40}) {
    std::array<double, 10> cells{};
    for (int i = 0; i < draws; ++i) {
      const std::uint64_t x = rng.integer(n);
      ASSERT_LT(x, n);
      ++cells[static_cast<std::size_t>(x / (n / 10))];
    }
    double chi_square = 0;
    for (double c : cells) chi_square += (c - draws / 10.0) * (c - draws / 10.0) / (draws / 10.0);
    EXPECT_LT(chi_square, 27.9);
  }
  EXPECT_EQ(rng.integer(1), 0U);
  EXPECT_THROW((void)rng.integer(0), ValueError);
  // 3/4 of 2^32: without rejection a third of the values would come twice as often.
  int low = 0;
  for (int i = 0; i < draws; ++i) low += rng.integer(3ULL << 30) < (1ULL << 30);
  EXPECT_NEAR(low, draws / 3.0, 4 * std::sqrt(draws * 2.0 / 9));
  low = 0;
  for (int i = 0; i < draws; ++i) low += rng.integer(3ULL << 62) < (1ULL << 62);
  EXPECT_NEAR(low, draws / 3.0, 4 * std::sqrt(draws * 2.0 / 9));
}

TEST(Random, WideProductIsExact) {
  const auto all = ~std::uint64_t{0};
  EXPECT_EQ(detail::wide_product(all, all).high, all - 1);
  EXPECT_EQ(detail::wide_product(all, all).low, 1U);
  EXPECT_EQ(detail::wide_product(0x123456789abcdef0, 0xfedcba9876543210).high,
            0x121fa00ad77d7422ULL);
  EXPECT_EQ(detail::wide_product(0x123456789abcdef0, 0xfedcba9876543210).low,
            0x236d88fe5618cf00ULL);
}

TEST(Random, Bernoulli) {
  Philox rng(15, "bernoulli");
  int hits = 0;
  for (int i = 0; i < draws; ++i) {
    hits += rng.bernoulli(0.3);
    ASSERT_FALSE(rng.bernoulli(0));
    ASSERT_TRUE(rng.bernoulli(1));
  }
  EXPECT_NEAR(hits, draws * 0.3, 4 * std::sqrt(draws * 0.21));
}

TEST(Random, ShuffleReachesEveryOrderEqually) {
  Philox rng(16, "shuffle");
  std::array<int, 27> seen{};
  for (int i = 0; i < 60000; ++i) {
    std::vector<int> order = {0, 1, 2};
    rng.shuffle(order);
    ++seen[static_cast<std::size_t>(order[0] * 9 + order[1] * 3 + order[2])];
  }
  EXPECT_EQ(std::count(seen.begin(), seen.end(), 0), 21);
  for (int count : seen) {
    EXPECT_TRUE(count == 0 || std::abs(count - 10000) < 400) << count;
  }
  std::vector<int> none;
  rng.shuffle(none);
}

TEST(Random, SampleWithoutReplacement) {
  Philox rng(17, "sample");
  std::array<int, 20> seen{};
  for (int i = 0; i < 20000; ++i) {
    const std::vector<std::int64_t> s = rng.sample(20, 5);
    ASSERT_EQ(s.size(), 5U);
    ASSERT_TRUE(std::is_sorted(s.begin(), s.end()));
    ASSERT_EQ(std::adjacent_find(s.begin(), s.end()), s.end());
    for (std::int64_t x : s) ++seen.at(static_cast<std::size_t>(x));
  }
  for (int count : seen) EXPECT_NEAR(count, 5000, 300);
  const std::vector<std::int64_t> sparse = rng.sample(std::int64_t{1} << 50, 1000);
  EXPECT_EQ(std::set<std::int64_t>(sparse.begin(), sparse.end()).size(), 1000U);
  EXPECT_TRUE(rng.sample(0, 0).empty());
  std::vector<std::int64_t> all(8);
  std::iota(all.begin(), all.end(), 0);
  EXPECT_EQ(rng.sample(8, 8), all);
  EXPECT_THROW((void)rng.sample(3, 4), ValueError);
  EXPECT_THROW((void)rng.sample(3, -1), ValueError);
}

}  // namespace
}  // namespace quern::test::random
