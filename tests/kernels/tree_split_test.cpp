// SPDX-License-Identifier: Apache-2.0

#include "quern/core/random.hpp"
#include "quern/kernels/kernels.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>
#include <vector>

namespace quern::test::tree_split {
namespace {

constexpr double huge = 1e308;

/// Score of a child by the formula, in the loss's units.
double child_score(double g, double h, const kernels::SplitScan& s, double* weight) {
  const double shrunk = std::max(std::fabs(g) - s.alpha, 0.0);
  const double w = std::clamp(-std::copysign(shrunk, g) / (h + s.lambda), s.lower, s.upper);
  *weight = w;
  return -(2 * (g * w + s.alpha * std::fabs(w)) + (h + s.lambda) * w * w);
}

/// Score of the split "codes 1 .. bin go left", or -1e300 where it is not allowed.
double score_of(const std::vector<std::int64_t>& g, const std::vector<std::int64_t>& h,
                const kernels::SplitScan& s, std::int32_t bin, bool missing_left) {
  std::int64_t lg = missing_left ? g[0] : 0, lh = missing_left ? h[0] : 0;
  for (std::int32_t b = 1; b <= bin; ++b) {
    lg += g[static_cast<std::size_t>(b)];
    lh += h[static_cast<std::size_t>(b)];
  }
  const double left_h = static_cast<double>(lh) * s.unit_h;
  const double right_h = (s.sum_h - static_cast<double>(lh)) * s.unit_h;
  if (!(left_h > 0) || !(right_h > 0)) return -1e300;
  if (left_h < s.min_child_weight || right_h < s.min_child_weight) return -1e300;
  double lw, rw;
  const double left = child_score(static_cast<double>(lg) * s.unit_g, left_h, s, &lw);
  const double right = child_score((s.sum_g - static_cast<double>(lg)) * s.unit_g, right_h, s, &rw);
  return s.monotone * (rw - lw) < 0 ? -1e300 : left + right;
}

/// The best of all splits of the feature, one after the other.
kernels::SplitResult naive(const std::vector<std::int64_t>& g, const std::vector<std::int64_t>& h,
                           const kernels::SplitScan& s) {
  kernels::SplitResult best{-1e300, 0, false};
  for (const bool missing_left : {false, true}) {
    if (missing_left && h[0] == 0) continue;
    for (std::int32_t b = 1; b < static_cast<std::int32_t>(g.size()); ++b) {
      const double score = score_of(g, h, s, b, missing_left);
      if (score > best.score) best = {score, b, missing_left};
    }
  }
  return best;
}

struct Feature {
  std::vector<std::int64_t> g, h, packed, full;
  kernels::SplitScan scan{};

  Feature(std::int32_t bins, bool missing, std::uint64_t seed) {
    Philox rng(seed, "split test", static_cast<std::uint64_t>(bins));
    for (std::int32_t b = 0; b <= bins; ++b) {
      const bool empty = b == 0 ? !missing : rng.bernoulli(0.3);
      h.push_back(empty ? 0 : 1 + static_cast<std::int64_t>(rng.integer(1 << 20)));
      g.push_back(empty ? 0 : static_cast<std::int64_t>(rng.integer(1 << 21)) - (1 << 20));
    }
    for (std::size_t i = 0; i < g.size(); ++i) {
      packed.push_back(g[i] * (std::int64_t{1} << 32) + h[i]);
      full.push_back(g[i]);
      full.push_back(h[i]);
      scan.sum_g += static_cast<double>(g[i]);
      scan.sum_h += static_cast<double>(h[i]);
    }
    scan.unit_g = 1.0 / (1 << 16);
    scan.unit_h = 1.0 / (1 << 17);
    scan.lambda = 1;
    scan.min_child_weight = 1;
    scan.lower = -huge;
    scan.upper = huge;
  }
};

void check(const Feature& f) {
  const auto bins = static_cast<std::int32_t>(f.g.size()) - 1;
  const kernels::SplitResult expected = naive(f.g, f.h, f.scan);
  for (const simd::Level level : simd::attainable_levels()) {
    const simd::ScopedLevel force(level);
    SCOPED_TRACE(std::string(simd::name(level)));
    const kernels::SplitResult one = QUERN_DISPATCH(best_split<1>(f.packed.data(), bins, f.scan));
    const kernels::SplitResult two = QUERN_DISPATCH(best_split<2>(f.full.data(), bins, f.scan));
    for (const kernels::SplitResult& got : {one, two}) {
      EXPECT_EQ(got.bin > 0, expected.bin > 0);
      if (expected.bin == 0) continue;
      const double near = 1e-10 * (1 + std::fabs(expected.score));
      EXPECT_NEAR(got.score, expected.score, near);
      // Which of two mirrored splits is found depends on rounding: both are the best.
      EXPECT_NEAR(score_of(f.g, f.h, f.scan, got.bin, got.missing_left), expected.score, near);
    }
  }
}

TEST(TreeSplitKernel, FindsWhatAPlainLoopFinds) {
  for (const std::int32_t bins : {1, 2, 3, 4, 5, 7, 8, 9, 16, 31, 64, 254, 255}) {
    for (const bool missing : {false, true}) {
      for (std::uint64_t seed = 0; seed < 5; ++seed) check(Feature(bins, missing, seed));
    }
  }
}

TEST(TreeSplitKernel, RegularisationAndBounds) {
  for (std::uint64_t seed = 0; seed < 20; ++seed) {
    Feature f(40, seed % 2 == 0, seed);
    f.scan.alpha = 0.7;
    f.scan.lambda = 0.3;
    f.scan.min_child_weight = 20;
    check(f);
    f.scan.max_delta_step = 0.2;
    f.scan.lower = -0.2;
    f.scan.upper = 0.2;
    check(f);
    for (const int sign : {-1, 1}) {
      f.scan.monotone = sign;
      check(f);
    }
  }
}

TEST(TreeSplitKernel, NoSplitWhereAChildWouldBeEmpty) {
  Feature f(3, false, 1);
  f.scan.min_child_weight = 0;
  f.scan.lambda = 0;
  for (std::size_t i = 0; i < f.g.size(); ++i) {
    if (i != 2) f.g[i] = f.h[i] = f.packed[i] = f.full[2 * i] = f.full[2 * i + 1] = 0;
  }
  f.scan.sum_g = static_cast<double>(f.g[2]);
  f.scan.sum_h = static_cast<double>(f.h[2]);
  EXPECT_EQ(naive(f.g, f.h, f.scan).bin, 0);
  check(f);
}

TEST(TreeSplitKernel, EqualScoresGoToTheLowestBin) {
  Feature f(9, false, 1);
  for (std::size_t i = 1; i < f.g.size(); ++i) {  // bins 2 .. 8 hold nothing: equal splits
    const bool end = i == 1 || i == 9;
    f.g[i] = end ? (i == 1 ? 1 << 18 : -(1 << 18)) : 0;
    f.h[i] = end ? 1 << 20 : 0;
    f.packed[i] = f.g[i] * (std::int64_t{1} << 32) + f.h[i];
    f.full[2 * i] = f.g[i];
    f.full[2 * i + 1] = f.h[i];
  }
  f.scan.sum_g = 0;
  f.scan.sum_h = 2.0 * (1 << 20);
  for (const simd::Level level : simd::attainable_levels()) {
    const simd::ScopedLevel force(level);
    EXPECT_EQ(QUERN_DISPATCH(best_split<1>(f.packed.data(), 9, f.scan)).bin, 1);
    EXPECT_EQ(QUERN_DISPATCH(best_split<2>(f.full.data(), 9, f.scan)).bin, 1);
  }
}

}  // namespace
}  // namespace quern::test::tree_split
