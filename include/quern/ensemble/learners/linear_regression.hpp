// SPDX-License-Identifier: Apache-2.0

/// \file
/// Linear and ridge regression by least squares.

#ifndef QUERN_ENSEMBLE_LEARNERS_LINEAR_REGRESSION_HPP
#define QUERN_ENSEMBLE_LEARNERS_LINEAR_REGRESSION_HPP

#include "quern/core/archive.hpp"
#include "quern/core/checks.hpp"
#include "quern/core/config.hpp"
#include "quern/core/nd_array.hpp"
#include "quern/core/parallel.hpp"
#include "quern/ensemble/detail/linear_map.hpp"
#include "quern/ensemble/learner.hpp"
#include "quern/kernels/gemm.hpp"

#include <Eigen/Core>
#include <Eigen/Eigenvalues>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <string_view>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace ensemble {

struct LinearRegressionOptions {
  double l2 = 0;  ///< >= 0: ridge; added to the weighted sum of squares as l2 * |coefficients|^2
};

/// Minimises sum_i w_i (y_i - x_i . a - b)^2 + l2 |a|^2; the intercept b is not penalised. Of many
/// minimisers (l2 = 0, dependent features) the one with the shortest a, as least squares by
/// pseudo-inverse gives.
template <class = void>
class BasicLinearRegression {
 public:
  explicit BasicLinearRegression(LinearRegressionOptions options = {}) : options_(options) {
    expect_in_range(name, "l2", options.l2, 0.0, (std::numeric_limits<double>::max)());
  }

  void fit(Features x, std::span<const float> y, std::span<const float> weights = {},
           std::uint64_t /*seed*/ = 0) {
    detail::check_rows(name, x, y.size(), weights);
    detail::check_targets(name, y);
    detail::check_finite_features(name, x);
    const std::vector<double> means = centre(x, y, weights);
    solve(products(x, y, weights, means), means);
  }

  void predict(Features x, std::span<float> out) const {
    expect_size(name, "out", static_cast<Index>(out.size()), x.rows(), "(the rows)");
    map_.for_each_row(name, x, [&](Index i, std::span<const double> score) {
      out[static_cast<std::size_t>(i)] = static_cast<float>(score[0]);
    });
  }

  /// (features)
  [[nodiscard]] std::span<const double> coefficients() const noexcept {
    return {map_.weights.data(), static_cast<std::size_t>(map_.features())};
  }
  [[nodiscard]] double intercept() const noexcept {
    return map_.intercepts.empty() ? 0 : map_.intercepts[0];
  }

  static constexpr std::string_view kind() { return "ensemble.linear_regression"; }
  void save(ArchiveWriter& out) const { map_.save(out); }
  void load(const ArchiveReader& in) { map_.load(in); }

 private:
  static constexpr std::string_view name = "quern::ensemble::LinearRegression";

  /// Weighted means of the features and, last, of the targets.
  static std::vector<double> centre(Features x, std::span<const float> y,
                                    std::span<const float> weights) {
    const auto p = static_cast<std::size_t>(x.cols());
    std::vector<double> means(p + 1);
    double all = 0;
    for (std::size_t i = 0; i < y.size(); ++i) {
      const double w = detail::weight_of(weights, i);
      for (std::size_t f = 0; f < p; ++f)
        means[f] += w * static_cast<double>(x(static_cast<Index>(i), static_cast<Index>(f)));
      means[p] += w * static_cast<double>(y[i]);
      all += w;
    }
    for (double& m : means) m /= all;
    return means;
  }

  /// Weighted products of the centred columns, targets last: (features + 1, features + 1).
  static NdArray<double, 2> products(Features x, std::span<const float> y,
                                     std::span<const float> weights,
                                     const std::vector<double>& means) {
    constexpr Index block = 8 * detail::row_block;
    const Index p = x.cols();
    NdArray<double, 2> sums({p + 1, p + 1});
    for (Index b = 0; b < block_count(x.rows(), block); ++b) {
      const BlockRange rows = block_range(x.rows(), block, b);
      NdArray<double, 2> z({rows.size(), p + 1}, core::Fill::none);
      for (Index i = rows.begin; i < rows.end; ++i) {
        const auto row = static_cast<std::size_t>(i);
        const double root = std::sqrt(detail::weight_of(weights, row));
        for (Index f = 0; f <= p; ++f) {
          const auto value = static_cast<double>(f < p ? x(i, f) : y[row]);
          z(i - rows.begin, f) = root * (value - means[static_cast<std::size_t>(f)]);
        }
      }
      kernels::gemm<double>(MatrixView<const double>(z.view()).transposed(), z.view(), sums.view(),
                            {.beta = 1.0});
    }
    return sums;
  }

  /// By the eigenvectors of the products; directions without any spread get nothing.
  void solve(const NdArray<double, 2>& products, const std::vector<double>& means) {
    using Matrix = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
    const Index p = products.extent(0) - 1;
    const Eigen::Map<const Matrix> all(products.data(), p + 1, p + 1);
    map_ = detail::LinearMap(p, 1);
    if (p > 0) {
      const Eigen::SelfAdjointEigenSolver<Eigen::MatrixXd> eigen(all.topLeftCorner(p, p));
      const Eigen::VectorXd& values = eigen.eigenvalues();
      const double none =
          std::numeric_limits<double>::epsilon() * static_cast<double>(p) * std::abs(values[p - 1]);
      Eigen::VectorXd along = eigen.eigenvectors().transpose() * all.col(p).head(p);
      for (Index i = 0; i < p; ++i)
        along[i] = values[i] > none ? along[i] / (values[i] + options_.l2) : 0.0;
      Eigen::Map<Eigen::VectorXd>(map_.weights.data(), p) = eigen.eigenvectors() * along;
    }
    double at_means = 0;
    for (Index f = 0; f < p; ++f)
      at_means += map_.weights(f, 0) * means[static_cast<std::size_t>(f)];
    map_.intercepts[0] = means[static_cast<std::size_t>(p)] - at_means;
  }

  LinearRegressionOptions options_;
  detail::LinearMap map_;
};
/// (A template, so that a program compiles it only where it uses it.)
using LinearRegression = BasicLinearRegression<>;

}  // namespace ensemble
QUERN_NAMESPACE_END

#endif  // QUERN_ENSEMBLE_LEARNERS_LINEAR_REGRESSION_HPP
