// SPDX-License-Identifier: Apache-2.0

/// \file
/// Keys order as numbers do, and thresholds are rounded to the side that moves no float.

#include "quern/tree/float_key.hpp"

#include <cmath>
#include <limits>
#include <vector>

#include <gtest/gtest.h>
#include <rapidcheck.h>

namespace quern::test::float_key {
namespace {

template <class T>
class FloatKey : public testing::Test {};
using Scalars = testing::Types<float, double>;
TYPED_TEST_SUITE(FloatKey, Scalars);

TYPED_TEST(FloatKey, OrdersAsNumbers) {
  using Limits = std::numeric_limits<TypeParam>;
  const std::vector<TypeParam> ascending = {
      -Limits::infinity(),  (Limits::lowest)(), -1, -(Limits::min)(), -Limits::denorm_min(), 0,
      Limits::denorm_min(), (Limits::min)(),    1,  (Limits::max)(),  Limits::infinity()};
  for (std::size_t i = 0; i < ascending.size(); ++i) {
    for (std::size_t j = 0; j < ascending.size(); ++j) {
      EXPECT_EQ(tree::float_key(ascending[i]) < tree::float_key(ascending[j]), i < j);
    }
    EXPECT_EQ(tree::float_of_key<TypeParam>(tree::float_key(ascending[i])), ascending[i]);
  }
}

TYPED_TEST(FloatKey, ZerosAreEqualAndNansAreMissing) {
  using Key = tree::KeyOf<TypeParam>;
  EXPECT_EQ(tree::float_key(TypeParam(0)), Key{0});
  EXPECT_EQ(tree::float_key(-TypeParam(0)), Key{0});
  constexpr TypeParam nan = std::numeric_limits<TypeParam>::quiet_NaN();
  EXPECT_EQ(tree::float_key(nan), kernels::missing_key<Key>);
  EXPECT_EQ(tree::float_key(-nan), kernels::missing_key<Key>);
}

void expect_smallest_float_at_least(double t) {
  const float up = tree::round_up_to_float(t);
  EXPECT_GE(static_cast<double>(up), t);
  const float below = std::nextafter(up, -std::numeric_limits<float>::infinity());
  if (below != up) {
    EXPECT_LT(static_cast<double>(below), t) << t;
  }
}

TEST(RoundUpToFloat, IsTheSmallestFloatAtLeast) {
  constexpr double inf = std::numeric_limits<double>::infinity();
  const double largest = (std::numeric_limits<float>::max)();
  for (double t : {0.0, -0.0, 0.1, -0.1, 1.0, 1e-300, -1e-300, 1e-45, 1e300, -1e300, inf, -inf,
                   largest, -largest, std::nextafter(largest, inf), std::nextafter(-largest, -inf),
                   std::nextafter(1.0, 2.0), std::nextafter(1.0, 0.0)}) {
    expect_smallest_float_at_least(t);
  }
  EXPECT_TRUE(rc::check("any double", [](double t) { expect_smallest_float_at_least(t); }));
}

}  // namespace
}  // namespace quern::test::float_key
