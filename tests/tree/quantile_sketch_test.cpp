// SPDX-License-Identifier: Apache-2.0

#include "quern/tree/quantile_sketch.hpp"

#include "quern/tree/float_key.hpp"

#include <gtest/gtest.h>
#include <rapidcheck/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <limits>
#include <random>
#include <vector>

namespace quern::test::quantile_sketch {
namespace {

template <class T>
using Sketch = tree::QuantileSketch<tree::KeyOf<T>, std::uint64_t>;

/// Cuts of a column whose rows went to \p parts sketches, merged before each advance.
template <class T>
std::vector<T> cuts_of(const std::vector<T>& x, const std::vector<std::uint64_t>& weights,
                       int max_bin, std::size_t parts = 1) {
  using Key = tree::KeyOf<T>;
  const auto rows = static_cast<std::int64_t>(x.size());
  std::vector<Sketch<T>> sketches;
  for (std::size_t p = 0; p < parts; ++p) sketches.emplace_back(max_bin, rows);
  for (bool again = true; again;) {
    for (std::size_t i = 0; i < x.size(); ++i) {
      const Key key = tree::float_key(x[i]);
      const Key bits = key == kernels::missing_key<Key> ? Key{0} : key;
      sketches[(i * 7 + i / 3) % parts].add(&key, weights.empty() ? nullptr : &weights[i], 1, bits);
    }
    // Merge into every sketch, as processes that exchange their counts would.
    std::vector<Sketch<T>> before = sketches;
    for (std::size_t p = 0; p < parts; ++p)
      for (std::size_t q = 0; q < parts; ++q)
        if (p != q) sketches[p].merge(before[q]);
    again = false;
    for (std::size_t p = 0; p < parts; ++p) {
      const bool more = sketches[p].advance();
      EXPECT_TRUE(p == 0 || more == again);
      again = more;
    }
  }
  std::vector<T> cuts;
  for (const Key key : sketches[0].cuts()) cuts.push_back(tree::float_of_key<T>(key));
  for (const Sketch<T>& sketch : sketches) EXPECT_EQ(sketch.cuts(), sketches[0].cuts());
  return cuts;
}

template <class T>
std::vector<T> column(std::size_t rows, int kind) {
  std::mt19937 generator(static_cast<unsigned>(rows) + static_cast<unsigned>(kind));
  std::normal_distribution<double> normal;
  std::vector<T> x(rows);
  for (T& v : x) {
    const double z = normal(generator);
    switch (kind) {
      case 0:
        v = static_cast<T>(z);
        break;
      case 1:
        v = static_cast<T>(std::exp(9 * z));
        break;
      case 2:
        v = static_cast<T>(1e9 + 1e-3 * z);
        break;
      case 3:
        v = generator() % 4 != 0 ? T(0) : static_cast<T>(z);
        break;
      case 4:
        v = static_cast<T>(generator() % 700);
        break;
      default:
        v = generator() % 3 == 0 ? std::numeric_limits<T>::quiet_NaN() : static_cast<T>(z);
    }
  }
  return x;
}

template <class T>
class QuantileSketchTest : public ::testing::Test {};
using Scalars = ::testing::Types<float, double>;
TYPED_TEST_SUITE(QuantileSketchTest, Scalars);

TYPED_TEST(QuantileSketchTest, MergedPartsEqualTheWhole) {
  for (const std::size_t rows : {std::size_t{500}, std::size_t{6000}})
    for (int kind = 0; kind < 6; ++kind) {
      const auto x = column<TypeParam>(rows, kind);
      std::vector<std::uint64_t> weights(rows);
      for (std::size_t i = 0; i < rows; ++i) weights[i] = i * 31 % 17;
      EXPECT_EQ(cuts_of(x, {}, 63, 3), cuts_of(x, {}, 63)) << rows << " rows, kind " << kind;
      EXPECT_EQ(cuts_of(x, weights, 63, 2), cuts_of(x, weights, 63));
    }
}

TYPED_TEST(QuantileSketchTest, OrderOfRowsDoesNotMatter) {
  for (int kind = 0; kind < 6; ++kind) {
    auto x = column<TypeParam>(9000, kind);
    const auto cuts = cuts_of(x, {}, 255);
    std::reverse(x.begin(), x.end());
    EXPECT_EQ(cuts_of(x, {}, 255), cuts);
  }
}

TYPED_TEST(QuantileSketchTest, ContinuousColumnsAreCutWithinARow) {
  for (const int kind : {0, 1}) {
    auto x = column<TypeParam>(50000, kind);
    for (const int max_bin : {2, 8, 255}) {
      const auto cuts = cuts_of(x, {}, max_bin);
      ASSERT_EQ(cuts.size(), static_cast<std::size_t>(max_bin) - 1);
      std::sort(x.begin(), x.end());
      for (std::size_t j = 0; j < cuts.size(); ++j) {
        const auto rank = std::lower_bound(x.begin(), x.end(), cuts[j]) - x.begin();
        const double wanted = static_cast<double>(j + 1) * 50000.0 / max_bin;
        EXPECT_NEAR(static_cast<double>(rank), wanted, 3.0);
      }
    }
  }
}

TYPED_TEST(QuantileSketchTest, HeavyValuesGetABinOfTheirOwn) {
  const auto x = column<TypeParam>(40000, 3);
  const auto cuts = cuts_of(x, {}, 64);
  const auto zero = std::lower_bound(cuts.begin(), cuts.end(), TypeParam(0));
  ASSERT_NE(zero, cuts.end());
  EXPECT_EQ(*zero, TypeParam(0));
  TypeParam smallest = 1;
  for (const TypeParam v : x)
    if (v > 0) smallest = (std::min)(smallest, v);
  EXPECT_EQ(*(zero + 1), smallest);
}

TYPED_TEST(QuantileSketchTest, FewValuesAreAllCuts) {
  std::vector<TypeParam> x(5000);
  for (std::size_t i = 0; i < x.size(); ++i)
    x[i] = static_cast<TypeParam>(0.1 * static_cast<double>(i % 255) - 7);
  auto distinct = x;
  std::sort(distinct.begin(), distinct.end());
  distinct.erase(std::unique(distinct.begin(), distinct.end()), distinct.end());
  distinct.erase(distinct.begin());
  EXPECT_EQ(cuts_of(x, {}, 255), distinct);
  EXPECT_LT(cuts_of(x, {}, 254).size(), 254u);
}

TYPED_TEST(QuantileSketchTest, NothingToCut) {
  const TypeParam nan = std::numeric_limits<TypeParam>::quiet_NaN();
  for (const std::size_t rows :
       {std::size_t{0}, std::size_t{1}, std::size_t{2}, std::size_t{3000}}) {
    EXPECT_TRUE(cuts_of(std::vector<TypeParam>(rows, nan), {}, 255).empty());
    EXPECT_TRUE(cuts_of(std::vector<TypeParam>(rows, TypeParam(3)), {}, 255).empty());
    std::vector<TypeParam> zeros(rows, TypeParam(0));
    if (rows > 1) zeros[1] = TypeParam(-0.0);
    EXPECT_TRUE(cuts_of(zeros, {}, 2).empty());
    EXPECT_TRUE(
        cuts_of(column<TypeParam>(rows, 0), std::vector<std::uint64_t>(rows, 0), 2).empty());
  }
}

/// The bound that the class states, for any values and weights.
RC_GTEST_PROP(QuantileSketchTest, RankErrorIsBounded, ()) {
  const int max_bin = *rc::gen::inRange(2, 256);
  const auto rows = *rc::gen::inRange<std::size_t>(1, 3000);
  const auto distinct = *rc::gen::inRange<std::uint32_t>(1, 5000);
  const auto seed = *rc::gen::arbitrary<std::uint32_t>();
  std::mt19937 generator(seed);
  std::vector<float> x(rows);
  std::vector<std::uint64_t> weights(rows);
  for (std::size_t i = 0; i < rows; ++i) {
    x[i] = static_cast<float>(generator() % distinct) * 0.37f - 100.0f;
    weights[i] = generator() % 100;
  }
  const std::vector<float> cuts = cuts_of(x, weights, max_bin);
  RC_ASSERT(cuts.size() < static_cast<std::size_t>(max_bin));
  RC_ASSERT(std::adjacent_find(cuts.begin(), cuts.end(), std::greater_equal<>()) == cuts.end());
  std::vector<std::pair<float, double>> sorted;
  double total = 0;
  for (std::size_t i = 0; i < rows; ++i) {
    sorted.emplace_back(x[i], static_cast<double>(weights[i]));
    total += sorted.back().second;
  }
  std::sort(sorted.begin(), sorted.end());
  const auto weight_below = [&](float cut) {
    double sum = 0;
    for (const auto& [value, w] : sorted) sum += value < cut ? w : 0.0;
    return sum;
  };
  std::vector<double> ranks;
  for (const float cut : cuts) ranks.push_back(weight_below(cut));
  double heaviest = 0, here = 0;
  for (std::size_t i = 0; i < rows; ++i) {
    here = i > 0 && sorted[i].first == sorted[i - 1].first ? here + sorted[i].second
                                                           : sorted[i].second;
    heaviest = (std::max)(heaviest, here);
  }
  for (int j = 1; j < max_bin && !cuts.empty(); ++j) {
    const double wanted = j * total / max_bin;
    double nearest = total;
    for (const double rank : ranks) nearest = (std::min)(nearest, std::abs(rank - wanted));
    RC_ASSERT(nearest <= (std::max)(heaviest, total / (16.0 * max_bin)) + 1);
  }
}

}  // namespace
}  // namespace quern::test::quantile_sketch
