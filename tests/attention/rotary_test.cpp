// SPDX-License-Identifier: Apache-2.0

/// \file
/// Rotary positions against their definition; products that depend on distances alone; gradients,
/// strides, positions that are given, bits, bad input.

#include "quern/attention/rotary.hpp"

#include "reference.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <vector>

namespace quern::test::rotary {
namespace {

using attention::RotaryLayout;
using attention::RotaryOptions;
using Array = NdArray<double, 4>;

/// The only places where this file's kernels are made.
Array turned(const NdView<const double, 4>& x, const RotaryOptions& options) {
  Array out(x.extents());
  attention::rotary<double>(x, out.view(), options);
  return out;
}
Array turned_back(const NdView<const double, 4>& x, const RotaryOptions& options) {
  Array out(x.extents());
  attention::rotary_vjp<double>(x, out.view(), options);
  return out;
}

TEST(Rotary, AgainstItsDefinition) {
  const auto x = attention_normal<double, 4>({2, 3, 40, 10}, 1);
  const std::vector<std::int64_t> given = {5, -3, 1000000};
  for (const auto layout : {RotaryLayout::adjacent, RotaryLayout::halves}) {
    const RotaryOptions options{.dims = 6, .base = 500, .layout = layout, .offset = 12345};
    const Array out = turned(x, options);
    const RotaryOptions by_position{.dims = 6, .base = 500, .layout = layout, .positions = given};
    const NdView<const double, 4> first = NdView<const double, 4>(x.view()).slice(2, 0, 3);
    const Array few = turned(first, by_position);
    const auto expected = [&](Index b, Index h, Index t, Index c, double position) {
      if (c >= 6) return x(b, h, t, c);
      const bool adjacent = layout == RotaryLayout::adjacent;
      const Index pair = adjacent ? c / 2 : c % 3;
      const bool second = adjacent ? c % 2 == 1 : c >= 3;
      const double angle = position * std::pow(500.0, -static_cast<double>(pair) / 3);
      const double u = x(b, h, t, adjacent ? 2 * pair : pair);
      const double v = x(b, h, t, adjacent ? 2 * pair + 1 : pair + 3);
      return second ? u * std::sin(angle) + v * std::cos(angle)
                    : u * std::cos(angle) - v * std::sin(angle);
    };
    for (Index t = 0; t < 40; ++t) {
      for (Index c = 0; c < 10; ++c) {
        ASSERT_NEAR(out(1, 2, t, c), expected(1, 2, t, c, static_cast<double>(12345 + t)), 1e-11);
        if (t >= 3) continue;
        const auto at = static_cast<double>(given[static_cast<std::size_t>(t)]);
        ASSERT_NEAR(few(1, 2, t, c), expected(1, 2, t, c, at), 1e-8);
      }
    }
  }
}

TEST(Rotary, ProductsDependOnDistancesAlone) {
  const auto q = attention_normal<double, 4>({1, 1, 1, 16}, 2);
  const auto k = attention_normal<double, 4>({1, 1, 1, 16}, 3);
  const auto product = [&](Index i, Index j) {
    const Array a = turned(q, {.offset = i}), b = turned(k, {.offset = j});
    double sum = 0;
    for (Index c = 0; c < 16; ++c) sum += a.data()[c] * b.data()[c];
    return sum;
  };
  EXPECT_NEAR(product(7, 3), product(104, 100), 1e-12);
}

TEST(Rotary, GradientTurnsBack) {
  auto x = attention_normal<double, 4>({1, 2, 9, 7}, 4);
  const auto dout = attention_normal<double, 4>({1, 2, 9, 7}, 5);
  for (const auto layout : {RotaryLayout::adjacent, RotaryLayout::halves}) {
    const RotaryOptions options{.dims = 6, .layout = layout, .offset = 3};
    const std::function<void(Array&)> f = [&](Array& out) { out = turned(x, options); };
    expect_attention_gradient(x, turned_back(dout, options), dout, f, "x");
    expect_attention_near(turned_back(turned(x, options), options), x, 1e-15, "there and back");
  }
}

TEST(Rotary, StridesPiecesThreadsAndPlaceChangeNothing) {
  const auto x = attention_normal<double, 4>({2, 3, 70, 8}, 6);
  for (const auto layout : {RotaryLayout::adjacent, RotaryLayout::halves}) {
    const Array out = turned(x, {.dims = 4, .layout = layout});
    Array own = x;
    attention::rotary<double>(own, own.view(), {.dims = 4, .layout = layout, .threads = 3});
    EXPECT_TRUE(std::equal(own.begin(), own.end(), out.begin()));
    Array other({8, 70, 3, 2});
    attention::rotary<double>(x, other.view().permuted({3, 2, 1, 0}),
                              {.dims = 4, .layout = layout});
    const Array mine(NdView<const double, 4>(other.view().permuted({3, 2, 1, 0})));
    EXPECT_TRUE(std::equal(mine.begin(), mine.end(), out.begin()));
    const Array again = turned(other.view().permuted({3, 2, 1, 0}), {.dims = 0});
    EXPECT_TRUE(std::equal(again.begin(), again.end(), out.begin())) << "no channels: a copy";
    const Array late = turned(NdView<const double, 4>(x.view()).slice(2, 50, 20),
                              {.dims = 4, .layout = layout, .offset = 50});
    EXPECT_EQ(late(1, 2, 19, 1), out(1, 2, 69, 1));
  }
}

TEST(Rotary, BadInput) {
  const Array x({1, 1, 4, 6}), narrow({1, 1, 4, 5}), none({1, 1, 0, 6});
  Array out({1, 1, 4, 6});
  const auto call = [&](const Array& in, const RotaryOptions& options) {
    attention::rotary<double>(in, out.view(), options);
  };
  EXPECT_THROW(call(narrow, {}), ShapeError);
  EXPECT_THROW(static_cast<void>(turned(narrow, {})), ValueError) << "an odd number of channels";
  EXPECT_THROW(call(x, {.dims = 3}), ValueError);
  EXPECT_THROW(call(x, {.dims = 8}), ValueError);
  EXPECT_THROW(call(x, {.base = 0}), ValueError);
  const std::vector<std::int64_t> three = {1, 2, 3};
  EXPECT_THROW(call(x, {.positions = three}), ShapeError);
  EXPECT_EQ(turned(none, {}).size(), 0);
}

}  // namespace
}  // namespace quern::test::rotary
