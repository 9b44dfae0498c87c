// SPDX-License-Identifier: Apache-2.0

#include "quern/tree/detail/code_buckets.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <random>
#include <vector>

namespace quern::test::code_buckets {
namespace {

using kernels::CodeBuckets;
using tree::float_key;
using namespace tree::detail;

/// Keys of thresholds less one, as tables have them.
std::vector<std::int32_t> table_of(std::vector<float> thresholds) {
  std::sort(thresholds.begin(), thresholds.end());
  std::vector<std::int32_t> keys;
  for (const float t : thresholds) keys.push_back(float_key(t) - 1);
  keys.erase(std::unique(keys.begin(), keys.end()), keys.end());
  return keys;
}

TEST(CodeBucketMaps, BucketsRiseWithTheKeyAndStayInRange) {
  std::mt19937 random(1);
  std::normal_distribution<float> normal(3, 10);
  std::vector<float> values;
  for (int i = 0; i < 200; ++i) values.push_back(normal(random));
  const auto table = table_of(values);
  const std::int32_t low = table.front(), high = table.back() + 1;
  for (const CodeBuckets& map : {key_buckets(low, high), value_buckets(low, high)}) {
    std::int32_t before = 0;
    std::vector<std::int32_t> keys = table;
    keys.insert(keys.end(), {(std::numeric_limits<std::int32_t>::min)(), low - 1, high + 1,
                             (std::numeric_limits<std::int32_t>::max)()});
    std::sort(keys.begin(), keys.end());
    for (const std::int32_t key : keys) {
      const std::int32_t bucket = bucket_of_key(map, key);
      EXPECT_GE(bucket, before);
      EXPECT_LT(bucket, kernels::code_buckets);
      before = bucket;
    }
  }
}

TEST(CodeBucketMaps, TheFullestHasTheLongestRun) {
  const auto table = table_of({1, 1.0001f, 1.0002f, 50, 100});
  const CodeBuckets map = value_buckets(table.front(), table.back() + 1);
  ASSERT_NE(map.scale, 0);
  EXPECT_EQ(fullest_bucket(map, table.data(), 5), 3);
  EXPECT_EQ(fullest_bucket(map, table.data(), 0), 0);
}

/// A row's search begins at the number of thresholds in the buckets before its own.
TEST(CodeBucketMaps, StartsCountTheThresholdsBefore) {
  std::mt19937 random(2);
  std::uniform_real_distribution<float> uniform(-5, 5);
  std::vector<float> values;
  for (int i = 0; i < 60; ++i) values.push_back(uniform(random));
  const auto table = table_of(values);
  std::vector<std::uint8_t> starts(kernels::code_buckets);
  const auto count = static_cast<std::int32_t>(table.size());
  const CodeBuckets map = choose_buckets(table.data(), count, starts.data());
  ASSERT_GE(map.shift, 0);
  EXPECT_LE(fullest_bucket(map, table.data(), count), kernels::bucket_thresholds);
  for (std::int32_t b = 0; b < kernels::code_buckets; ++b) {
    const auto before = std::count_if(table.begin(), table.end(), [&](std::int32_t key) {
      return bucket_of_key(map, key + 1) < b;
    });
    EXPECT_EQ(starts[static_cast<std::size_t>(b)], before) << b;
  }
}

TEST(CodeBucketMaps, NoneWhereThresholdsCrowd) {
  std::vector<std::int32_t> table;
  for (std::int32_t i = 0; i < 200; ++i) table.push_back(float_key(1.0f) + i);
  table.push_back(float_key(1e30f));
  std::vector<std::uint8_t> starts(kernels::code_buckets);
  EXPECT_LT(choose_buckets(table.data(), 201, starts.data()).shift, 0);
}

}  // namespace
}  // namespace quern::test::code_buckets
