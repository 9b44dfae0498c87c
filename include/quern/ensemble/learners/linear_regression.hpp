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
#include <Eigen/QR>

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
/// pseudo-inverse gives. Features of any scale: they are brought to length one to solve for a.
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

  /// Weighted means of the features and, last, of the targets; of a constant feature the value
  /// itself, so that rounding gives it no spread.
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
    for (Index f = 0; f < x.cols(); ++f) {
      Index i = 1;
      while (i < x.rows() && x(i, f) == x(0, f)) ++i;
      if (i == x.rows()) means[static_cast<std::size_t>(f)] = static_cast<double>(x(0, f));
    }
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

  /// By the eigenvectors of the products of the features (and, below, the square roots of l2) at
  /// length one, where a direction without any spread is one that rounding cannot tell from none.
  void solve(const NdArray<double, 2>& products, const std::vector<double>& means) {
    using Matrix = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
    const Index p = products.extent(0) - 1;
    const Eigen::Map<const Matrix> all(products.data(), p + 1, p + 1);
    map_ = detail::LinearMap(p, 1);
    Eigen::VectorXd inverse(p);
    for (Index f = 0; f < p; ++f) {
      const double length = std::sqrt(products(f, f) + options_.l2);
      inverse[f] = length > 0 ? 1 / length : 1;
    }
    Eigen::MatrixXd scaled = inverse.asDiagonal() * all.topLeftCorner(p, p) * inverse.asDiagonal();
    for (Index f = 0; f < p; ++f) scaled(f, f) += options_.l2 * inverse[f] * inverse[f];
    const Eigen::SelfAdjointEigenSolver<Eigen::MatrixXd> eigen(scaled);
    const Eigen::VectorXd& values = eigen.eigenvalues();
    const double noise = std::numeric_limits<double>::epsilon() * static_cast<double>(p);
    Eigen::VectorXd along =
        eigen.eigenvectors().transpose() * inverse.cwiseProduct(all.col(p).head(p));
    Index empty = 0;  // directions, the first ones
    for (Index i = 0; i < p; ++i) {
      const bool none = !(values[i] > noise * std::abs(values[p - 1]));
      empty += none ? 1 : 0;
      along[i] = none ? 0.0 : along[i] / values[i];
    }
    Eigen::VectorXd a = inverse.cwiseProduct(eigen.eigenvectors() * along);
    if (empty > 0) shorten(a, inverse, eigen.eigenvectors().leftCols(empty), 8 * noise);
    Eigen::Map<Eigen::VectorXd>(map_.weights.data(), p) = a;
    double at_means = 0;
    for (Index f = 0; f < p; ++f) at_means += a[f] * means[static_cast<std::size_t>(f)];
    map_.intercepts[0] = means[static_cast<std::size_t>(p)] - at_means;
  }

  /// Takes what lies along the empty directions of the features at length one off the coefficients:
  /// the sums stay the same, and no others are shorter.
  static void shorten(Eigen::VectorXd& a, const Eigen::VectorXd& inverse, Eigen::MatrixXd empty,
                      double noise) {
    for (double& v : empty.reshaped()) v = std::abs(v) > noise ? v : 0.0;
    empty = inverse.asDiagonal() * empty;
    empty.colwise().normalize();
    const Eigen::ColPivHouseholderQR<Eigen::MatrixXd> basis(empty);
    a -= empty * basis.solve(a);
  }

  LinearRegressionOptions options_;
  detail::LinearMap map_;
};
/// (A template, so that a program compiles it only where it uses it.)
using LinearRegression = BasicLinearRegression<>;

}  // namespace ensemble
QUERN_NAMESPACE_END

#endif  // QUERN_ENSEMBLE_LEARNERS_LINEAR_REGRESSION_HPP
