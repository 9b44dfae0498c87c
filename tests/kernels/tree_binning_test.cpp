// SPDX-License-Identifier: Apache-2.0

#include "quern/kernels/kernels.hpp"
#include "quern/kernels/tree_binning_types.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <random>
#include <type_traits>
#include <vector>

namespace quern::test::tree_binning {
namespace {

template <class T>
class TreeBinningKernelTest : public ::testing::Test {};
using Scalars = ::testing::Types<float, double>;
TYPED_TEST_SUITE(TreeBinningKernelTest, Scalars);

template <class T>
using KeyFor = std::conditional_t<sizeof(T) == 4, std::int32_t, std::int64_t>;

/// Runs \p body on every level that this machine can run.
template <class F>
void on_every_level(F&& body) {
  for (const simd::Level level : simd::attainable_levels()) {
    const simd::ScopedLevel force(level);
    SCOPED_TRACE(simd::name(level));
    body();
  }
}

TYPED_TEST(TreeBinningKernelTest, TransposesAnySize) {
  using Key = KeyFor<TypeParam>;
  on_every_level([] {
    for (const std::int64_t rows : {0, 1, 3, 4, 5, 17})
      for (const std::int64_t cols : {0, 1, 2, 3, 4, 7, 16}) {
        const std::int64_t stride = cols + 3, out_stride = rows + 2;
        std::vector<Key> x(static_cast<std::size_t>(rows * stride + 1));
        std::vector<Key> out(static_cast<std::size_t>(cols * out_stride + 1), Key{-1});
        for (std::size_t i = 0; i < x.size(); ++i) x[i] = static_cast<Key>(i);
        QUERN_DISPATCH(transpose_words(x.data(), stride, rows, cols, out.data(), out_stride));
        for (std::int64_t c = 0; c < cols; ++c)
          for (std::int64_t r = 0; r < out_stride; ++r)
            ASSERT_EQ(out[static_cast<std::size_t>(c * out_stride + r)],
                      r < rows ? static_cast<Key>(r * stride + c) : Key{-1});
      }
  });
}

TYPED_TEST(TreeBinningKernelTest, KeysOrderAndSummarize) {
  using T = TypeParam;
  using Key = KeyFor<T>;
  using Limits = std::numeric_limits<T>;
  // Ascending; both zeros are equal.
  const std::vector<T> values = {-Limits::infinity(),
                                 -Limits::max(),
                                 T(-1),
                                 -Limits::min(),
                                 -Limits::denorm_min(),
                                 T(-0.0),
                                 T(0),
                                 Limits::denorm_min(),
                                 T(1),
                                 T(1.5),
                                 Limits::max(),
                                 Limits::infinity()};
  const Key infinity = std::bit_cast<Key>(Limits::infinity());
  on_every_level([&] {
    for (const std::size_t n : {std::size_t{0}, std::size_t{1}, std::size_t{11}, values.size()}) {
      for (const bool with_nan : {false, true}) {
        std::vector<Key> bits, keys(n + 1, 42);
        for (std::size_t i = 0; i < n; ++i) bits.push_back(std::bit_cast<Key>(values[i]));
        if (with_nan && n > 0) bits[n - 1] = std::bit_cast<Key>(-Limits::quiet_NaN());
        kernels::KeySummary<Key> run;
        QUERN_DISPATCH(summarized_keys(bits.data(), static_cast<std::int64_t>(n), infinity,
                                       keys.data(), &run));
        const std::size_t numbers = with_nan && n > 0 ? n - 1 : n;
        Key all = 0;
        for (std::size_t i = 0; i < numbers; ++i) all |= keys[i];
        for (std::size_t i = 1; i < numbers; ++i) EXPECT_EQ(keys[i - 1] < keys[i], i != 6) << i;
        EXPECT_TRUE(numbers == n || keys[n - 1] == kernels::missing_key<Key>);
        EXPECT_EQ(keys[n], 42);
        EXPECT_EQ(run.bits, all);
        EXPECT_EQ(run.missing, numbers < n);
        EXPECT_EQ(run.infinite, numbers > 0);
      }
    }
  });
}

TYPED_TEST(TreeBinningKernelTest, CodesEqualUpperBound) {
  using Key = KeyFor<TypeParam>;
  using Bits = std::make_unsigned_t<Key>;
  std::mt19937_64 generator(7);
  for (const int count : {0, 1, 2, 3, 15, 253, 254}) {
    for (const int spread : {0, 8, 20, 31}) {  // low bits that differ between keys
      std::vector<Key> cuts;
      for (int c = 0; c < 4 * count; ++c)
        cuts.push_back(static_cast<Key>(generator() >> (63 - spread)) - (Key{1} << (spread / 2)));
      std::sort(cuts.begin(), cuts.end());
      cuts.erase(std::unique(cuts.begin(), cuts.end()), cuts.end());
      if (cuts.size() > static_cast<std::size_t>(count))
        cuts.resize(static_cast<std::size_t>(count));
      std::vector<Key> keys = {kernels::missing_key<Key>, (std::numeric_limits<Key>::max)() - 1, 0};
      for (const Key c : cuts) keys.insert(keys.end(), {c, c - 1, c + 1});
      for (int i = 0; i < 500; ++i) keys.push_back(static_cast<Key>(generator()));

      kernels::CodeSearch<Key> search;
      std::vector<std::uint8_t> below(256, 0);
      search.first = cuts.empty() ? 0 : cuts.front();
      search.last = cuts.empty() ? 0 : cuts.back();
      const Bits range = static_cast<Bits>(search.last) - static_cast<Bits>(search.first);
      while ((range >> search.shift) > 255) ++search.shift;
      std::vector<int> inside(256, 0);
      const auto bucket = [&](Key key) {
        return static_cast<std::size_t>(
            (static_cast<Bits>(key) - static_cast<Bits>(search.first)) >> search.shift);
      };
      for (const Key c : cuts) ++inside[bucket(c)];
      for (std::size_t b = 1; b < 256; ++b)
        below[b] = static_cast<std::uint8_t>(below[b - 1] + inside[b - 1]);
      while ((1 << search.steps) <= *std::max_element(inside.begin(), inside.end())) ++search.steps;
      std::vector<Key> padded = cuts;
      padded.resize(512, (std::numeric_limits<Key>::max)());
      search.below = below.data();
      search.cuts = padded.data();

      on_every_level([&] {
        std::vector<std::uint8_t> codes(keys.size() + 1, 99);
        QUERN_DISPATCH(
            bin_codes(keys.data(), static_cast<std::int64_t>(keys.size()), search, codes.data()));
        for (std::size_t i = 0; i < keys.size(); ++i) {
          const auto at_most = std::upper_bound(cuts.begin(), cuts.end(), keys[i]) - cuts.begin();
          const bool missing = keys[i] == kernels::missing_key<Key>;
          ASSERT_EQ(codes[i], missing ? 0 : at_most + 1) << count << " cuts, key " << keys[i];
        }
        EXPECT_EQ(codes.back(), 99);
      });
    }
  }
}

}  // namespace
}  // namespace quern::test::tree_binning
