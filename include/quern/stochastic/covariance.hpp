// SPDX-License-Identifier: Apache-2.0

/// \file
/// Running means and covariances of vectors: one row at a time, many at once, with weights, merged,
/// with any sequence of steps.

#ifndef QUERN_STOCHASTIC_COVARIANCE_HPP
#define QUERN_STOCHASTIC_COVARIANCE_HPP

#include "quern/core/checks.hpp"
#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/core/nd_array.hpp"
#include "quern/core/nd_view.hpp"
#include "quern/core/parallel.hpp"
#include "quern/kernels/gemm.hpp"
#include "quern/stochastic/run.hpp"
#include "quern/stochastic/running.hpp"
#include "quern/stochastic/step_size.hpp"

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace stochastic {

/// Mean and covariance of weighted rows; sums are kept in double.
class RunningCovariance {
 public:
  /// ShapeError unless dimensions >= 1.
  explicit RunningCovariance(Index dimensions)
      : mean_(checked(dimensions)), delta_(mean_.size()), squares_({dimensions, dimensions}) {}

  /// One more row. ShapeError when its length is another, ValueError for values that are not
  /// finite and weights below 0.
  void step(std::span<const double> x, double weight = 1) {
    constexpr const char* function = "quern::stochastic::RunningCovariance::step";
    detail::expect_observation(function, x, mean_.size(), count_ + 1);
    detail::expect_weight(function, weight);
    ++count_;
    if (weight == 0) return;
    const double before = weights_;
    weights_ += weight;
    squared_weights_ += weight * weight;
    for (std::size_t j = 0; j < x.size(); ++j) {
      delta_[j] = x[j] - mean_[j];
      mean_[j] += delta_[j] * (weight / weights_);
    }
    add_outer(delta_, weight * (before / weights_));
  }
  /// Many rows at once, by blocks of 1024: each block's products of centred columns are one matrix
  /// product, and blocks are merged in order. The same bits for any number of threads.
  /// ShapeError for another number of columns, ValueError for values that are not finite; nothing
  /// changes then.
  template <class T>
  void step_rows(const MatrixView<T>& rows, int threads = 0) {
    constexpr const char* function = "quern::stochastic::RunningCovariance::step_rows";
    const Index d = dimensions();
    if (rows.cols() != d)
      throw ShapeError(error_text(function, "rows", columns_text(), rows.cols()));
    for (Index i = 0; i < rows.rows(); ++i) {
      for (Index j = 0; j < d; ++j) {
        const auto x = static_cast<double>(rows(i, j));
        if (is_finite_bits(x)) continue;
        throw ValueError(error_text(function, "rows", "finite values",
                                    std::string(is_nan_bits(x) ? "NaN" : "infinity") + " in row " +
                                        std::to_string(i) + ", column " + std::to_string(j)));
      }
    }
    for (Index begin = 0; begin < rows.rows(); begin += 1024) {
      const Index n = rows.rows() - begin < 1024 ? rows.rows() - begin : Index{1024};
      NdArray<double, 2> centred({n, d}, core::Fill::none);
      RunningCovariance part(d);
      for (Index i = 0; i < n; ++i) {
        for (Index j = 0; j < d; ++j) {
          const auto x = static_cast<double>(rows(begin + i, j));
          centred(i, j) = x;
          part.mean_[static_cast<std::size_t>(j)] += x;
        }
      }
      for (double& m : part.mean_) m /= static_cast<double>(n);
      for (Index i = 0; i < n; ++i) {
        for (Index j = 0; j < d; ++j) centred(i, j) -= part.mean_[static_cast<std::size_t>(j)];
      }
      const MatrixView<const double> z = std::as_const(centred).view();
      kernels::gemm<double>(z.transposed(), z, part.squares_.view(), {.threads = threads});
      part.count_ = n;
      part.weights_ = part.squared_weights_ = static_cast<double>(n);
      merge(part);
    }
  }
  /// Adds what another one has seen, as if it had been seen here. ShapeError for another dimension.
  void merge(const RunningCovariance& other) {
    expect_size("quern::stochastic::RunningCovariance::merge", "other", other.dimensions(),
                dimensions(), "dimensions");
    count_ += other.count_;
    if (other.weights_ == 0) return;
    const double sum = weights_ + other.weights_;
    for (std::size_t j = 0; j < mean_.size(); ++j) {
      delta_[j] = other.mean_[j] - mean_[j];
      mean_[j] += delta_[j] * (other.weights_ / sum);
    }
    const double* more = other.squares_.data();
    for (double& s : squares_) s += *more++;
    add_outer(delta_, (weights_ / sum) * other.weights_);
    weights_ = sum;
    squared_weights_ += other.squared_weights_;
  }

  [[nodiscard]] Index dimensions() const noexcept { return static_cast<Index>(mean_.size()); }
  [[nodiscard]] std::int64_t count() const noexcept { return count_; }
  [[nodiscard]] double weight() const noexcept { return weights_; }
  [[nodiscard]] std::span<const double> mean() const noexcept { return mean_; }
  /// Divided by the sum of weights; zeros without observations.
  [[nodiscard]] NdArray<double, 2> covariance() const { return divided(weights_); }
  /// Unbiased: divided by W - sum w^2 / W (n - 1 for weights of 1); zeros below two observations.
  [[nodiscard]] NdArray<double, 2> sample_covariance() const {
    return divided(weights_ > 0 ? weights_ - squared_weights_ / weights_ : 0.0);
  }

 private:
  static std::size_t checked(Index dimensions) {
    if (dimensions < 1) {
      throw ShapeError(error_text("quern::stochastic::RunningCovariance", "dimensions",
                                  "at least 1", dimensions));
    }
    return static_cast<std::size_t>(dimensions);
  }
  [[nodiscard]] std::string columns_text() const {
    return std::to_string(mean_.size()) + " columns";
  }
  void add_outer(const std::vector<double>& d, double factor) {
    double* out = squares_.data();
    for (const double a : d) {
      for (const double b : d) *out++ += factor * (a * b);  // in this order symmetric to the bit
    }
  }
  [[nodiscard]] NdArray<double, 2> divided(double by) const {
    NdArray<double, 2> out(squares_);
    for (double& x : out) x = by > 0 ? x / by : 0.0;
    return out;
  }

  std::int64_t count_ = 0;
  double weights_ = 0;
  double squared_weights_ = 0;
  std::vector<double> mean_;
  std::vector<double> delta_;
  NdArray<double, 2> squares_;
};

/// Mean and covariance under any sequence of steps: with d = x - m, m <- m + a_k d and
/// C <- (1 - a_k)(C + a_k d d'). A constant step fades exponentially. The first row is taken whole.
class StepCovariance {
 public:
  StepCovariance(Index dimensions, StepSize step) : step_(std::move(step)) {
    if (dimensions < 1) {
      throw ShapeError(
          error_text("quern::stochastic::StepCovariance", "dimensions", "at least 1", dimensions));
    }
    mean_.resize(static_cast<std::size_t>(dimensions));
    covariance_.resize({dimensions, dimensions});
  }
  void step(std::span<const double> x) {
    constexpr const char* function = "quern::stochastic::StepCovariance::step";
    detail::expect_observation(function, x, mean_.size(), count_ + 1);
    const double a = count_ == 0 ? 1.0 : step_(count_ + 1);
    if (a > 1) throw ValueError(error_text(function, "step", "steps of at most 1", a));
    ++count_;
    double* out = covariance_.data();
    for (std::size_t i = 0; i < x.size(); ++i) {
      const double di = x[i] - mean_[i];
      for (std::size_t j = 0; j < x.size(); ++j, ++out) {
        *out = (1 - a) * (*out + a * (di * (x[j] - mean_[j])));
      }
    }
    for (std::size_t i = 0; i < x.size(); ++i) mean_[i] += a * (x[i] - mean_[i]);
  }
  [[nodiscard]] std::int64_t count() const noexcept { return count_; }
  [[nodiscard]] std::span<const double> mean() const noexcept { return mean_; }
  [[nodiscard]] const NdArray<double, 2>& covariance() const noexcept { return covariance_; }

 private:
  StepSize step_;
  std::int64_t count_ = 0;
  std::vector<double> mean_;
  NdArray<double, 2> covariance_;
};

}  // namespace stochastic
QUERN_NAMESPACE_END

#endif  // QUERN_STOCHASTIC_COVARIANCE_HPP
