// SPDX-License-Identifier: Apache-2.0

/// \file
/// Tests of keys against a plain loop, and programs written by hand against the leaves' sums. (Real
/// trees: tests/tree/shap_test.cpp, against the definition.)

#include "quern/kernels/kernels.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <random>
#include <string>
#include <vector>

namespace quern::test::tree_shap {
namespace {

using kernels::ShapKind;
using kernels::ShapStep;

constexpr std::int64_t rows = kernels::shap_rows;

template <class Key>
class ShapSides : public testing::Test {};
using Keys = testing::Types<std::int32_t, std::int64_t>;
TYPED_TEST_SUITE(ShapSides, Keys);

TYPED_TEST(ShapSides, AreAPlainLoops) {
  std::mt19937 random(1);
  const std::int64_t stride = rows + 5;
  std::vector<TypeParam> keys(static_cast<std::size_t>(3 * stride + 1));
  for (TypeParam& key : keys) {
    key = static_cast<TypeParam>(random() % 7) - 3;
    if (random() % 5 == 0) key = kernels::missing_key<TypeParam>;
  }
  std::vector<kernels::ShapTest<TypeParam>> tests;
  for (std::int32_t i = 0; i < 8; ++i)
    tests.push_back({static_cast<TypeParam>(i - 4), i % 3, 7 - i, i % 2 == 1});
  for (const simd::Level level : simd::attainable_levels()) {
    const simd::ScopedLevel force(level);
    SCOPED_TRACE(std::string(simd::name(level)));
    for (const std::int64_t count : {0, 1, 8}) {
      std::vector<std::int64_t> sides(8 * rows, 77);
      const TypeParam* from = keys.data() + 1;  // not aligned
      QUERN_DISPATCH(tree_shap_sides<TypeParam>(tests.data(), count, from, stride, sides.data()));
      std::vector<std::int64_t> expected(8 * rows, 77);
      for (std::int64_t i = 0; i < count; ++i) {
        const auto& test = tests[static_cast<std::size_t>(i)];
        for (std::int64_t r = 0; r < rows; ++r) {
          const TypeParam key = from[test.slot * stride + r];
          const bool missing = key == kernels::missing_key<TypeParam>;
          const bool left = missing ? !test.missing_right : key < test.threshold;
          expected[static_cast<std::size_t>(test.side * rows + r)] = left ? -1 : 0;
        }
      }
      EXPECT_EQ(sides, expected);
    }
  }
}

/// Root on feature 0 (share z to the left), below it on the left a leaf, on the right feature 0
/// again or feature 1 with two leaves. By hand: leaf values 1, 2, 4.
struct Small {
  std::vector<double> constants;
  std::vector<ShapStep> steps;
  std::vector<std::int32_t> pairs = {0};
  double z = 0.3, y = 0.6;  // shares that go left at the root and below
};

// Two points on [0, 1]: exact for polynomials of degree 3.
const double points[2] = {0.5 - std::sqrt(1 / 12.0), 0.5 + std::sqrt(1 / 12.0)};

void add_factors(std::vector<double>& c, double z) {
  for (const double t : points) c.push_back(z * (1 - t));
  for (const double t : points) c.push_back((1 - z) / (t + (1 - t) * z) + 1 / (1 - t));
}

Small small_program() {
  Small s;
  s.constants = {points[0], points[1], 0.5, 0.5, 1 / (points[0] - 1), 1 / (points[1] - 1)};
  ShapStep leaf{.kind = ShapKind::leaf, .first = true, .constants = 6, .pairs = 0, .value = 1};
  add_factors(s.constants, s.z);
  ShapStep down{.kind = ShapKind::down, .right = true, .constants = 10};
  add_factors(s.constants, 1 - s.z);
  ShapStep twins{.kind = ShapKind::twins, .side = 1, .level = 1, .slot = 1, .right = true};
  twins.constants = 14;
  for (const double t : points) s.constants.push_back(t * 2 + (1 - t) * (2 * s.y + 4 * (1 - s.y)));
  for (const double t : points) s.constants.push_back(t * (4.0 - 2.0));
  s.constants.push_back((2 - 4.0) * (1 - s.y));
  s.constants.push_back(4.0 - 2.0);
  ShapStep up = down;
  up.kind = ShapKind::up;
  s.steps = {leaf, down, twins, up};
  return s;
}

TEST(ShapKernel, GivesWhatTheLeavesGive) {
  const Small s = small_program();
  const kernels::ShapProgram program{s.steps.data(), 4, s.constants.data(), s.pairs.data(), 2, 2};
  std::vector<std::int64_t> sides(2 * rows);
  for (std::int64_t r = 0; r < rows; ++r) {
    sides[static_cast<std::size_t>(r)] = r % 2 == 0 ? -1 : 0;
    sides[static_cast<std::size_t>(rows + r)] = r % 4 < 2 ? -1 : 0;
  }
  for (const simd::Level level : simd::attainable_levels()) {
    const simd::ScopedLevel force(level);
    SCOPED_TRACE(std::string(simd::name(level)));
    std::vector<double> work(static_cast<std::size_t>(kernels::shap_work_size(2, 2)));
    std::vector<double> sums(2 * rows, 10.0), with_pairs(2 * rows, 10.0), pairs(rows, 5.0);
    QUERN_DISPATCH(tree_shap<double>(program, sides.data(), work.data(), sums.data()));
    QUERN_DISPATCH(tree_shap_pairs<double>(program, sides.data(), work.data(), with_pairs.data(),
                                           pairs.data()));
    for (std::int64_t r = 0; r < rows; ++r) {
      const double left0 = r % 2 == 0 ? 1 : 0, left1 = r % 4 < 2 ? 1 : 0;
      // One feature: v (o - z). Two: v (o_i - z_i) (o_j + z_j) / 2, together v (o_i - z_i)(o_j -
      // z_j).
      const double a = (1 - left0) - (1 - s.z), a_both = (1 - left0) + (1 - s.z);
      const double b2 = left1 - s.y, b4 = (1 - left1) - (1 - s.y);
      const double b2_both = left1 + s.y, b4_both = (1 - left1) + (1 - s.y);
      const double phi0 = (left0 - s.z) + a * (2 * b2_both + 4 * b4_both) / 2;
      const double phi1 = a_both * (2 * b2 + 4 * b4) / 2;
      const auto i = static_cast<std::size_t>(r);
      EXPECT_NEAR(sums[i], 10 + phi0, 1e-13);
      EXPECT_NEAR(sums[i + rows], 10 + phi1, 1e-13);
      EXPECT_NEAR(with_pairs[i], sums[i], 1e-13);
      EXPECT_NEAR(with_pairs[i + rows], sums[i + rows], 1e-13);
      EXPECT_NEAR(pairs[i], 5 + a * (2 * b2 + 4 * b4), 1e-13);
    }
  }
}

}  // namespace
}  // namespace quern::test::tree_shap
