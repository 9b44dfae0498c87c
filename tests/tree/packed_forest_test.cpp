// SPDX-License-Identifier: Apache-2.0

/// \file
/// How trees are packed: which form each takes, buckets of thresholds, what is refused.

#include "quern/tree/packed_forest.hpp"

#include "quern/kernels/kernels.hpp"
#include "quern/tree/detail/code_buckets.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <random>
#include <vector>

#include "random_trees.hpp"

namespace quern::test::packed_forest {
namespace {

using tree::PackedForest;
using tree::Tree;
using tree::detail::TreeForm;

TEST(PackedForest, EveryTreeGetsTheFormItIsFastestIn) {
  std::mt19937 random(1);
  std::vector<Tree> trees = {random_full_tree({}, 6, true, 0, random),
                             random_full_tree({}, 6, false, 0, random),
                             random_tree({.leaves = 200}, random),
                             random_tree({.leaves = 300}, random),
                             random_tree({.leaves = 9, .categorical = 1}, random),
                             Tree(),
                             random_full_tree({}, 9, true, 0, random),
                             random_full_tree({}, 4, false, 0.02, random)};
  const double base = 0;
  const PackedForest forest({.trees = trees, .base = std::span(&base, 1), .features = 5});
  const TreeForm expected[] = {TreeForm::symmetric, TreeForm::full,       TreeForm::lanes,
                               TreeForm::walk,      TreeForm::categories, TreeForm::lanes,
                               TreeForm::walk,      TreeForm::full};
  ASSERT_EQ(forest.packed.size(), trees.size());
  for (std::size_t t = 0; t < trees.size(); ++t) EXPECT_EQ(forest.packed[t].form, expected[t]) << t;
  EXPECT_TRUE(forest.any_walk);
  EXPECT_EQ(forest.packed[0].lane_count, 6);
  EXPECT_EQ(forest.packed[1].leaf_begin, 64);
  EXPECT_EQ(forest.packed[2].leaf_begin, 128);
}

TEST(PackedForest, RefusesWhatDoesNotFit) {
  std::mt19937 random(2);
  const std::vector<Tree> trees = random_trees(2, {}, random);
  const std::vector<double> base = {0, 0};
  const std::vector<std::int32_t> two = {0, 1}, one = {0}, outside = {0, 2};
  const std::vector<double> weight = {1};
  EXPECT_NO_THROW(PackedForest({.trees = trees, .tree_outputs = two, .base = base, .features = 5}));
  EXPECT_THROW(PackedForest({.trees = trees, .features = 5}), ShapeError);
  EXPECT_THROW(PackedForest({.trees = trees, .tree_outputs = one, .base = base, .features = 5}),
               ShapeError);
  EXPECT_THROW(PackedForest({.trees = trees, .tree_weights = weight, .base = base, .features = 5}),
               ShapeError);
  EXPECT_THROW(PackedForest({.trees = trees, .tree_outputs = outside, .base = base, .features = 5}),
               ValueError);
}

TEST(PackedForest, FeaturesThatNoTreeTestsCostNothing) {
  std::mt19937 random(3);
  const std::vector<Tree> trees = random_trees(2, {}, random);
  const double base = 0;
  const PackedForest forest({.trees = trees, .base = std::span(&base, 1), .features = 2147483647});
  EXPECT_LE(forest.feature_slots.size(), 5U);
  EXPECT_EQ(forest.slot_of(2147483646), -1);
}

/// Thresholds, as float, drawn from a law.
template <class Law>
std::vector<float> thresholds(int count, Law law) {
  std::vector<float> t;
  for (int i = 0; i < count; ++i) t.push_back(static_cast<float>(law()));
  std::sort(t.begin(), t.end());
  t.erase(std::unique(t.begin(), t.end()), t.end());
  return t;
}

void expect_codes(const std::vector<float>& t, std::mt19937& random, bool buckets_expected) {
  std::vector<double> values(t.begin(), t.end());
  std::vector<std::int32_t> table(kernels::code_table_size);
  const auto count = static_cast<std::int32_t>(t.size());
  tree::detail::fill_code_table<float>(values.data(), count, table.data());
  std::vector<std::uint8_t> starts(kernels::code_buckets);
  const kernels::CodeBuckets map = tree::detail::choose_buckets(table.data(), count, starts.data());
  EXPECT_TRUE(map.shift >= 0 || !buckets_expected);
  if (map.shift < 0) return;
  constexpr float inf = std::numeric_limits<float>::infinity();
  std::vector<float> x = {0, -0.0f, inf, -inf, 1e-42f, -1e-42f, 3e38f, -3e38f, NAN, 1};
  for (std::size_t i = 0; i < t.size(); ++i) {
    x.push_back(t[i]);
    x.push_back(std::nextafter(t[i], inf));
    x.push_back(std::nextafter(t[i], -inf));
    x.push_back(t[random() % t.size()] + (t[i] - t[0]) / 7);
  }
  const auto rows = static_cast<std::int64_t>(x.size());
  x.resize(x.size() + 64);
  std::vector<std::int32_t> keys;
  for (const float v : x) keys.push_back(tree::float_key(v));
  for (simd::Level level : simd::attainable_levels()) {
    simd::ScopedLevel force(level);
    SCOPED_TRACE(simd::name(level));
    std::vector<std::uint8_t> codes(x.size());
    QUERN_DISPATCH(tree_codes_by_buckets<std::int32_t>(keys.data(), rows, table.data(), map,
                                                       starts.data(), codes.data()));
    for (std::int64_t r = 0; r < rows; ++r) {
      const auto i = static_cast<std::size_t>(r);
      std::ptrdiff_t expected = 0;  // a missing value is below all
      if (!is_nan_bits(x[i])) expected = std::upper_bound(t.begin(), t.end(), x[i]) - t.begin();
      ASSERT_EQ(codes[i] ^ 0x80, expected) << x[i] << " of " << count << " thresholds";
    }
  }
}

TEST(CodeBuckets, CountThresholdsOfAnyLaw) {
  std::mt19937 random(4);
  std::normal_distribution<double> normal;
  std::lognormal_distribution<double> lognormal(0, 2);
  std::uniform_real_distribution<double> uniform;
  for (const int count : {1, 2, 8, 40, 254, 255}) {
    expect_codes(thresholds(count, [&] { return uniform(random); }), random, true);
    expect_codes(thresholds(count, [&] { return lognormal(random); }), random, false);
    expect_codes(thresholds(count, [&] { return -lognormal(random) * 1e30; }), random, false);
    expect_codes(thresholds(count, [&] { return normal(random); }), random, true);
    expect_codes(thresholds(count, [&] { return 1e9 + 1e5 * uniform(random); }), random, false);
    expect_codes(thresholds(count, [&] { return normal(random) * 1e-39; }), random, false);
    expect_codes(thresholds(count, [&] { return std::floor(1000 * uniform(random)); }), random,
                 true);
  }
  expect_codes(
      {-std::numeric_limits<float>::infinity(), 0, 1, std::numeric_limits<float>::infinity()},
      random, false);
}

}  // namespace
}  // namespace quern::test::packed_forest
