// SPDX-License-Identifier: Apache-2.0

/// \file
/// Made rows that boosting can learn: a product of two columns, a third one, noise, and a column
/// with missing values.

#ifndef QUERN_TESTS_BOOSTING_MADE_DATA_HPP
#define QUERN_TESTS_BOOSTING_MADE_DATA_HPP

#include "quern/core/random.hpp"
#include "quern/tree/dataset.hpp"
#include "quern/tree/eigen_dataset.hpp"

#include <cstdint>
#include <limits>

#include <Eigen/Core>

namespace quern::test {

struct MadeData {
  Eigen::MatrixXf x;
  Eigen::VectorXf y;

  /// \p classes: 2, 3, or 0 for numbers.
  MadeData(std::int64_t rows, int classes, std::uint64_t seed, int columns = 6, float noise = 0.3f,
           const char* purpose = "made data")
      : x(rows, columns), y(rows) {
    Philox rng(seed, purpose);
    for (std::int64_t i = 0; i < rows; ++i) {
      for (int j = 0; j < columns; ++j) x(i, j) = rng.normal<float>();
      if (rng.bernoulli(0.1)) x(i, 2) = std::numeric_limits<float>::quiet_NaN();
      const float t = x(i, 0) * x(i, 1) + x(i, 3) + noise * rng.normal<float>();
      if (classes == 0) y(i) = t;
      if (classes == 2) y(i) = t > 0 ? 1.0f : 0.0f;
      if (classes == 3) y(i) = t > 0.5f ? 2.0f : t > -0.5f ? 1.0f : 0.0f;
    }
  }
  [[nodiscard]] tree::Dataset dataset() const { return tree::make_dataset(x, y); }
};

}  // namespace quern::test

#endif  // QUERN_TESTS_BOOSTING_MADE_DATA_HPP
