// SPDX-License-Identifier: Apache-2.0

/// \file
/// Keys and codes at every level against what their definitions say, a value at a time.

#include "quern/kernels/kernels.hpp"
#include "quern/kernels/tree_predict_types.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cstdint>
#include <limits>
#include <random>
#include <type_traits>
#include <vector>

namespace quern::test::tree_codes {
namespace {

template <class Body>
void at_every_level(Body body) {
  for (simd::Level level : simd::attainable_levels()) {
    simd::ScopedLevel force(level);
    SCOPED_TRACE(simd::name(level));
    body();
  }
}

template <class T>
class TreeCodes : public testing::Test {};
using Scalars = testing::Types<float, double>;
TYPED_TEST_SUITE(TreeCodes, Scalars);

template <class T>
using Key = std::conditional_t<sizeof(T) == 4, std::int32_t, std::int64_t>;

TYPED_TEST(TreeCodes, KeysOrderAsNumbersAndTellMissing) {
  using K = Key<TypeParam>;
  using Limits = std::numeric_limits<TypeParam>;
  const K infinity = std::bit_cast<K>(Limits::infinity());
  std::mt19937 random(1);
  std::vector<TypeParam> x = {0,
                              -TypeParam(0),
                              1,
                              -1,
                              Limits::infinity(),
                              -Limits::infinity(),
                              Limits::quiet_NaN(),
                              -Limits::quiet_NaN(),
                              Limits::denorm_min()};
  std::normal_distribution<double> normal;
  while (x.size() < 70) x.push_back(static_cast<TypeParam>(normal(random)));
  for (const std::size_t size : {0U, 1U, 3U, 8U, 16U, 17U, 70U}) {
    std::vector<K> bits, keys(size + 1, 7);
    for (std::size_t i = 0; i < size; ++i) bits.push_back(std::bit_cast<K>(x[i]));
    at_every_level([&] {
      QUERN_DISPATCH(
          tree_keys<K>(bits.data(), static_cast<std::int64_t>(size), infinity, keys.data()));
      EXPECT_EQ(keys[size], 7);
      for (std::size_t i = 0; i < size; ++i) {
        if (i == 6 || i == 7) {
          EXPECT_EQ(keys[i], kernels::missing_key<K>);
          continue;
        }
        EXPECT_NE(keys[i], kernels::missing_key<K>);
        for (std::size_t j = 0; j < size; ++j) {
          if (j != 6 && j != 7) {
            EXPECT_EQ(keys[i] < keys[j], x[i] < x[j]) << x[i] << " " << x[j];
          }
        }
      }
    });
  }
}

TYPED_TEST(TreeCodes, CodesCountThresholds) {
  using K = Key<TypeParam>;
  std::mt19937 random(2);
  constexpr std::size_t room = 320;
  for (std::int32_t count : {0, 1, 15, 16, 17, 96, 97, 200, 254, 255}) {
    std::vector<K> thresholds(static_cast<std::size_t>(count));
    for (K& t : thresholds) t = static_cast<K>(random() % 400) - 200;
    std::sort(thresholds.begin(), thresholds.end());
    std::vector<K> table(kernels::code_table_size, (std::numeric_limits<K>::max)());
    std::transform(thresholds.begin(), thresholds.end(), table.begin(), [](K t) { return t - 1; });
    for (std::size_t i = 0; i < 16; ++i) table[256 + i] = table[16 * i + 15];
    std::vector<K> keys(room, 0);
    for (K& k : keys) k = static_cast<K>(random() % 420) - 210;
    keys[3] = kernels::missing_key<K>;
    keys[4] = (std::numeric_limits<K>::max)();
    for (std::int64_t rows : {0, 1, 33, 64, 256}) {
      at_every_level([&] {
        std::vector<std::uint8_t> codes(room, 1);
        QUERN_DISPATCH(tree_codes<K>(keys.data(), rows, table.data(), count, codes.data()));
        QUERN_DISPATCH(tree_codes_missing_right<K>(keys.data(), rows, codes.data()));
        for (std::size_t r = 0; r < static_cast<std::size_t>(rows); ++r) {
          auto expected =
              std::upper_bound(thresholds.begin(), thresholds.end(), keys[r]) - thresholds.begin();
          if (keys[r] == kernels::missing_key<K>) expected = 255;
          ASSERT_EQ(static_cast<std::int8_t>(codes[r]), static_cast<int>(expected) - 128)
              << count << " thresholds, row " << r;
        }
      });
    }
  }
}

TEST(TreeKeysOfRows, AreTheKeysOfEachValue) {
  std::mt19937 random(4);
  std::normal_distribution<float> normal;
  constexpr std::int64_t stride = 64;
  for (const std::int64_t columns : {1, 3, 4, 7, 8, 13}) {
    std::vector<std::int32_t> slots;
    for (std::int64_t c = 0; c < columns; ++c)
      slots.push_back(c % 5 == 2 ? -1 : static_cast<std::int32_t>(columns - 1 - c));
    const std::int64_t row_stride = columns + 2;
    for (const std::int64_t rows : {0, 1, 7, 8, 9, 33}) {
      std::vector<std::int32_t> bits;
      for (std::int64_t i = 0; i < rows * row_stride + 1; ++i) {
        const float x =
            random() % 40 == 0 ? std::numeric_limits<float>::quiet_NaN() : normal(random);
        bits.push_back(std::bit_cast<std::int32_t>(random() % 40 == 0 ? -0.0f : x));
      }
      at_every_level([&] {
        std::vector<std::int32_t> keys(static_cast<std::size_t>(columns * stride), 7);
        std::vector<std::uint8_t> missing(static_cast<std::size_t>(columns), 9);
        QUERN_DISPATCH(tree_keys_of_rows<std::int32_t>(bits.data(), row_stride, rows, columns,
                                                       slots.data(), 0x7f800000, stride,
                                                       keys.data(), missing.data()));
        for (std::int64_t c = 0; c < columns; ++c) {
          const std::int32_t slot = slots[static_cast<std::size_t>(c)];
          if (slot < 0) continue;
          std::vector<std::int32_t> column, expected(static_cast<std::size_t>(rows));
          for (std::int64_t r = 0; r < rows; ++r)
            column.push_back(bits[static_cast<std::size_t>(r * row_stride + c)]);
          const bool any = QUERN_DISPATCH(
              tree_keys<std::int32_t>(column.data(), rows, 0x7f800000, expected.data()));
          EXPECT_TRUE(!any || missing[static_cast<std::size_t>(slot)] == 1);
          EXPECT_LE(missing[static_cast<std::size_t>(slot)], 1);
          for (std::int64_t r = 0; r < rows; ++r)
            EXPECT_EQ(keys[static_cast<std::size_t>(slot * stride + r)],
                      expected[static_cast<std::size_t>(r)]);
        }
      });
    }
  }
}

TEST(TreeBytesOfRows, TakeWholeNumbersAndNothingElse) {
  std::mt19937 random(6);
  for (const std::int64_t columns : {1, 15, 16, 17, 40}) {
    const std::int64_t row_stride = columns + 3;
    for (const std::int64_t rows : {1, 16, 33, 64}) {
      std::vector<float> x(static_cast<std::size_t>(rows * row_stride), -1.5f);
      const auto at = [&](std::int64_t r, std::int64_t c) -> float& {
        return x[static_cast<std::size_t>(r * row_stride + c)];
      };
      for (std::int64_t r = 0; r < rows; ++r)
        for (std::int64_t c = 0; c < columns; ++c)
          at(r, c) = random() % 8 == 0 ? -0.0f : static_cast<float>(random() % 256);
      at_every_level([&] {
        std::vector<std::uint8_t> bytes(static_cast<std::size_t>(64 * columns), 9);
        const auto all_are_bytes = [&] {
          return QUERN_DISPATCH(
              tree_bytes_of_rows<std::uint8_t>(x.data(), row_stride, rows, columns, bytes.data()));
        };
        EXPECT_TRUE(all_are_bytes());
        for (std::int64_t c = 0; c < columns; ++c)
          for (std::int64_t r = 0; r < 64; ++r)
            ASSERT_EQ(static_cast<float>(bytes[static_cast<std::size_t>(64 * c + r)]),
                      r < rows ? at(r, c) : 0.0f);
        const float infinity = std::numeric_limits<float>::infinity();
        for (const float none : {-1.0f, 256.0f, 0.5f, 254.99998f, 1e-40f, 3e9f, -3e9f, infinity,
                                 -infinity, std::numeric_limits<float>::quiet_NaN()}) {
          float& one = at(rows - 1, columns - 1);
          const float was = one;
          one = none;
          EXPECT_FALSE(all_are_bytes()) << none;
          one = was;
        }
      });
    }
  }
}

}  // namespace
}  // namespace quern::test::tree_codes
