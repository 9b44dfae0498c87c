// SPDX-License-Identifier: Apache-2.0

#include "quern/core/random.hpp"
#include "quern/kernels/kernels.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace quern::test::objective_kernel {
namespace {

TEST(ObjectiveKernel, LogisticGradients) {
  for (const simd::Level level : simd::attainable_levels()) {
    const simd::ScopedLevel force(level);
    SCOPED_TRACE(std::string(simd::name(level)));
    for (const std::int64_t n : {0, 1, 7, 8, 9, 31, 100}) {
      Philox rng(2, "logistic", static_cast<std::uint64_t>(n));
      std::vector<float> m, y, w;
      for (std::int64_t i = 0; i < n; ++i) {
        m.push_back(i % 10 == 3 ? 90.0f : i % 10 == 4 ? -90.0f : rng.normal<float>() * 3);
        y.push_back(rng.bernoulli(0.5) ? 1.0f : 0.0f);
        w.push_back(rng.uniform<float>());
      }
      for (const bool weighted : {false, true}) {
        std::vector<float> pairs(static_cast<std::size_t>(2 * n) + 2, -7);
        QUERN_DISPATCH(logistic_gradients<float>(m.data(), y.data(), weighted ? w.data() : nullptr,
                                                 n, pairs.data()));
        for (std::size_t i = 0; i < static_cast<std::size_t>(n); ++i) {
          const double p = 1 / (1 + std::exp(-static_cast<double>(m[i])));
          const double scale = weighted ? static_cast<double>(w[i]) : 1.0;
          const double h = std::max(p * (1 - p), 1e-16);
          EXPECT_NEAR(pairs[2 * i], scale * (p - static_cast<double>(y[i])), 2e-7);
          EXPECT_NEAR(pairs[2 * i + 1], scale * h, 2e-7);
          EXPECT_TRUE(pairs[2 * i + 1] > 0 || scale == 0);
        }
        EXPECT_EQ(pairs[static_cast<std::size_t>(2 * n)], -7);
      }
    }
  }
}

/// A loss of one margin: its kernel, and its derivatives in double.
template <class Kernel, class Exact>
void expect_row_loss(const char* name, const Kernel& kernel, const Exact& exact) {
  for (const simd::Level level : simd::attainable_levels()) {
    const simd::ScopedLevel force(level);
    SCOPED_TRACE(std::string(name) + " " + std::string(simd::name(level)));
    for (const std::int64_t n : {0, 1, 7, 8, 9, 31, 100}) {
      Philox rng(3, "row loss", static_cast<std::uint64_t>(n));
      std::vector<float> m, y, w;
      for (std::int64_t i = 0; i < n; ++i) {
        m.push_back(rng.normal<float>() * 2);
        y.push_back(std::floor(std::exp(rng.normal<float>()) * 2));
        w.push_back(rng.uniform<float>());
      }
      for (const bool weighted : {false, true}) {
        std::vector<float> pairs(static_cast<std::size_t>(2 * n) + 2, -7);
        kernel(m.data(), y.data(), weighted ? w.data() : nullptr, n, pairs.data());
        for (std::size_t i = 0; i < static_cast<std::size_t>(n); ++i) {
          const double scale = weighted ? static_cast<double>(w[i]) : 1.0;
          const auto [g, h] = exact(static_cast<double>(m[i]), static_cast<double>(y[i]));
          EXPECT_NEAR(pairs[2 * i], scale * g, 1e-6 * (1 + std::fabs(g) + std::fabs(h)));
          EXPECT_NEAR(pairs[2 * i + 1], scale * h, 1e-6 * (1 + std::fabs(h)));
        }
        EXPECT_EQ(pairs[static_cast<std::size_t>(2 * n)], -7);
      }
    }
  }
}

TEST(ObjectiveKernel, LossesOfRows) {
  using P = const float*;
  using Pair = std::pair<double, double>;
  expect_row_loss(
      "poisson",
      [](P m, P y, P w, std::int64_t n, float* out) {
        QUERN_DISPATCH(poisson_gradients<float>(m, y, w, n, 0.7, out));
      },
      [](double m, double y) { return Pair(std::exp(m) - y, std::exp(m + 0.7)); });
  expect_row_loss(
      "gamma",
      [](P m, P y, P w, std::int64_t n, float* out) {
        QUERN_DISPATCH(gamma_gradients<float>(m, y, w, n, out));
      },
      [](double m, double y) { return Pair(1 - y * std::exp(-m), y * std::exp(-m)); });
  expect_row_loss(
      "tweedie",
      [](P m, P y, P w, std::int64_t n, float* out) {
        QUERN_DISPATCH(tweedie_gradients<float>(m, y, w, n, 1.3, out));
      },
      [](double m, double y) {
        const double a = y * std::exp(-0.3 * m), b = std::exp(0.7 * m);
        return Pair(b - a, 0.7 * b + 0.3 * a);
      });
  expect_row_loss(
      "pseudo-Huber",
      [](P m, P y, P w, std::int64_t n, float* out) {
        QUERN_DISPATCH(pseudo_huber_gradients<float>(m, y, w, n, 0.8, out));
      },
      [](double m, double y) {
        const double z = m - y, r = 1 + z * z / 0.64;
        return Pair(z / std::sqrt(r), 1 / (r * std::sqrt(r)));
      });
}

TEST(ObjectiveKernel, RunawayMarginsGiveFiniteDerivatives) {
  for (const simd::Level level : simd::attainable_levels()) {
    const simd::ScopedLevel force(level);
    SCOPED_TRACE(std::string(simd::name(level)));
    const std::vector<float> m = {-1e4f, 1e4f, -1e4f, 90}, y = {1, 1, 0, 0};
    const auto check = [&](const std::vector<float>& pairs) {
      for (std::size_t i = 0; i < pairs.size(); ++i) {
        EXPECT_LE(std::fabs(pairs[i]), 2e18f) << i;
        EXPECT_TRUE(i % 2 == 0 || pairs[i] > 0);
      }
    };
    std::vector<float> pairs(8);
    QUERN_DISPATCH(poisson_gradients<float>(m.data(), y.data(), nullptr, 4, 0.7, pairs.data()));
    check(pairs);
    QUERN_DISPATCH(gamma_gradients<float>(m.data(), y.data(), nullptr, 4, pairs.data()));
    check(pairs);
    QUERN_DISPATCH(tweedie_gradients<float>(m.data(), y.data(), nullptr, 4, 1.5, pairs.data()));
    check(pairs);
    QUERN_DISPATCH(pseudo_huber_gradients<float>(m.data(), y.data(), nullptr, 4, 1, pairs.data()));
    check(pairs);
  }
}

TEST(ObjectiveKernel, SoftmaxProbabilities) {
  for (const simd::Level level : simd::attainable_levels()) {
    const simd::ScopedLevel force(level);
    SCOPED_TRACE(std::string(simd::name(level)));
    for (const std::int64_t rows : {0, 1, 3, 20}) {
      for (const std::int64_t classes : {2, 3, 10, 17}) {
        Philox rng(2, "softmax", static_cast<std::uint64_t>(rows * 100 + classes));
        std::vector<float> m(static_cast<std::size_t>(rows * classes)), p(m.size() + 1, -7);
        for (float& v : m) v = rng.normal<float>() * 20;
        QUERN_DISPATCH(softmax_probabilities<float>(m.data(), rows, classes, p.data()));
        for (std::int64_t r = 0; r < rows; ++r) {
          const float* row = m.data() + r * classes;
          const double top = static_cast<double>(*std::max_element(row, row + classes));
          double sum = 0;
          for (std::int64_t k = 0; k < classes; ++k)
            sum += std::exp(static_cast<double>(row[k]) - top);
          for (std::int64_t k = 0; k < classes; ++k)
            EXPECT_NEAR(p[static_cast<std::size_t>(r * classes + k)],
                        std::exp(static_cast<double>(row[k]) - top) / sum, 3e-7);
        }
        EXPECT_EQ(p.back(), -7);
      }
    }
  }
}

}  // namespace
}  // namespace quern::test::objective_kernel
