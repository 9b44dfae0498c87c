// SPDX-License-Identifier: Apache-2.0

#include "quern/core/random.hpp"
#include "quern/kernels/kernels.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>
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
