// SPDX-License-Identifier: Apache-2.0

/// \file
/// A cache of keys and values: any pieces give what the whole sequence gives; windows in constant
/// memory; copies, bytes; bad input.

#include "quern/attention/key_value_cache.hpp"

#include "reference.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string>
#include <vector>

namespace quern::test::key_value_cache {
namespace {

using attention::KeyValueCache;
using attention::SoftmaxOptions;
using Array = NdArray<double, 4>;

constexpr Index length = 120;

struct Arrays {
  Array q = attention_normal<double, 4>({2, 4, length, 6}, 1);
  Array k = attention_normal<double, 4>({2, 2, length, 6}, 2);
  Array v = attention_normal<double, 4>({2, 2, length, 5}, 3);
  Array out{{2, 4, length, 5}};
  /// Positions [first, first + count) by the cache, which forgets what a window does not need.
  void piece(KeyValueCache<double>& cache, Index first, Index count,
             const SoftmaxOptions& options) {
    const auto part = [&](const Array& a) {
      return NdView<const double, 4>(a.view()).slice(2, first, count);
    };
    cache.append(part(k), part(v));
    cache.attend(part(q), out.view().slice(2, first, count), options);
    cache.evict(options.visible.left);
  }
};

TEST(KeyValueCache, PiecesAreTheWhole) {
  for (const Index window : {-1, 9}) {
    Arrays x;
    SoftmaxOptions options;
    options.visible.left = window;
    SoftmaxOptions causal = options;
    causal.visible.causal = true;
    Array expected(x.out.extents());
    attention::softmax_attention<double>(x.q, x.k, x.v, expected.view(), {}, causal);
    KeyValueCache<double> cache(2, 2, 6, 5);
    x.piece(cache, 0, 30, options);
    Index most = 0;
    for (Index t = 30; t < 100; ++t) {
      x.piece(cache, t, 1, options);
      most = (std::max)(most, cache.kept());
    }
    KeyValueCache<double> copy = cache;
    std::vector<std::byte> bytes;
    cache.save(bytes);
    x.piece(cache, 100, 20, options);
    expect_attention_near(x.out, expected, 1e-14, "pieces");
    EXPECT_EQ(cache.position(), length);
    EXPECT_LE(most, window < 0 ? length : 2 * (window + 1) + 64 + 1);
    EXPECT_EQ(cache.kept() == length, window < 0);
    const Array first = x.out;
    x.piece(copy, 100, 20, options);
    EXPECT_TRUE(std::equal(first.begin(), first.end(), x.out.begin())) << "a copy";
    KeyValueCache<double> loaded(2, 2, 6, 5);
    loaded.load(bytes);
    EXPECT_EQ(loaded.position(), 100);
    x.piece(loaded, 100, 20, options);
    EXPECT_TRUE(std::equal(first.begin(), first.end(), x.out.begin())) << "loaded";
    loaded.reset();
    x.piece(loaded, 0, length, options);
    expect_attention_near(x.out, expected, 1e-14, "begun anew");
  }
}

TEST(KeyValueCache, BadInput) {
  KeyValueCache<double> cache(2, 2, 6, 5);
  const Array k({2, 2, 3, 6}), v({2, 2, 3, 5}), two({2, 2, 2, 5}), q({2, 4, 4, 6});
  Array out({2, 4, 4, 5});
  EXPECT_THROW(cache.append(k, two), ShapeError);
  EXPECT_THROW(cache.append(v, v), ShapeError);
  cache.append(k, v);
  EXPECT_THROW(cache.attend(q, out.view()), ValueError) << "more queries than positions";
  EXPECT_THROW(cache.drop(4), ValueError);
  EXPECT_THROW(KeyValueCache<double>(1, -1, 2), ValueError);
  std::vector<std::byte> bytes;
  cache.save(bytes);
  EXPECT_THROW(KeyValueCache<double>(2, 2, 6).load(bytes), ParseError);
  // A damaged number of positions asks for no more memory than the bytes can fill.
  std::vector<std::byte> damaged = bytes;
  const std::int64_t positions = 200;
  std::memcpy(damaged.data() + 4 * sizeof positions, &positions, sizeof positions);
  try {
    cache.load(damaged);
    ADD_FAILURE();
  } catch (const ParseError& e) {
    EXPECT_NE(std::string(e.what()).find("dropped"), std::string::npos) << e.what();
  }
  bytes.pop_back();
  EXPECT_THROW(cache.load(bytes), ParseError);
}

}  // namespace
}  // namespace quern::test::key_value_cache
