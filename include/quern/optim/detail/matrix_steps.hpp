// SPDX-License-Identifier: Apache-2.0

/// \file
/// Steps of the methods that see a matrix as one: Adafactor's and Muon's.

#ifndef QUERN_OPTIM_DETAIL_MATRIX_STEPS_HPP
#define QUERN_OPTIM_DETAIL_MATRIX_STEPS_HPP

#include "quern/core/buffer.hpp"
#include "quern/core/config.hpp"
#include "quern/core/nd_view.hpp"
#include "quern/core/parallel.hpp"
#include "quern/kernels/gemm.hpp"
#include "quern/kernels/kernels.hpp"
#include "quern/kernels/optim_types.hpp"
#include "quern/optim/matrix_methods.hpp"
#include "quern/optim/parameter.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace optim {
namespace detail {

/// A tensor as a matrix; a vector is one row.
template <class T>
struct MatrixStep {
  T* values = nullptr;
  const T* gradient = nullptr;
  std::size_t rows = 1;
  std::size_t cols = 0;
  kernels::OptimPrologue<T> prologue;
  std::int64_t step = 1;
  double lr = 0;
  int threads = 0;
};

/// Rows of a block of about 64k elements.
template <class T>
std::size_t block_rows(const MatrixStep<T>& m) {
  return (std::max)(std::size_t{1}, (std::size_t{1} << 16) / (std::max)(m.cols, std::size_t{1}));
}

/// One tensor's step of Adafactor. `row` is null for a vector, whose `column` is all of its second
/// moment.
template <class T>
class FactoredStep {
 public:
  FactoredStep(const Adafactor& method, const MatrixStep<T>& m, T* row, T* column)
      : method_(method), m_(m), row_(row), column_(column), scale_(m.rows, T{1}) {}

  void run() {
    if (m_.cols == 0 || m_.rows == 0) return;
    count_ = block_rows(m_);
    blocks_ = quern::block_count(static_cast<Index>(m_.rows), static_cast<Index>(count_));
    average();
    const kernels::OptimSums sizes = measure();
    const double n = static_cast<double>(m_.rows * m_.cols);
    const double t = static_cast<double>(m_.step);
    const double alpha =
        (std::max)(method_.eps, std::sqrt(sizes.values / n)) * (std::min)(m_.lr, 1 / std::sqrt(t));
    const double rms = std::sqrt(sizes.gradient / n);
    apply(static_cast<T>(alpha / (std::max)(1.0, rms / method_.clip_threshold)));
  }

 private:
  template <class F>
  void for_rows(F&& fn) const {
    parallel_for(
        blocks_,
        [&](std::int64_t b) {
          const BlockRange r =
              block_range(static_cast<Index>(m_.rows), static_cast<Index>(count_), b);
          fn(static_cast<std::size_t>(b), static_cast<std::size_t>(r.begin),
             static_cast<std::size_t>(r.size()));
        },
        m_.threads);
  }

  /// The running means of g^2 by row and by column.
  void average() {
    std::vector<double> rows(m_.rows);
    core::Buffer<T> columns(static_cast<std::size_t>(blocks_) * m_.cols, core::Fill::zero);
    for_rows([&](std::size_t b, std::size_t first, std::size_t count) {
      QUERN_DISPATCH(factored_squares(m_.gradient + first * m_.cols, count, m_.cols, m_.prologue,
                                      rows.data() + first, columns.data() + b * m_.cols));
    });
    const double beta = 1 - std::pow(static_cast<double>(m_.step), method_.beta2_decay);
    const double per_row = row_ == nullptr ? 1 : static_cast<double>(m_.rows);
    for (std::size_t j = 0; j < m_.cols; ++j) {
      double sum = 0;
      for (std::size_t b = 0; b < static_cast<std::size_t>(blocks_); ++b) {
        sum += static_cast<double>(columns[b * m_.cols + j]);
      }
      column_[j] = blend(beta, column_[j], sum / per_row);
    }
    if (row_ == nullptr) return;
    double mean = 0;
    for (std::size_t i = 0; i < m_.rows; ++i) {
      row_[i] = blend(beta, row_[i], rows[i] / static_cast<double>(m_.cols));
      mean += static_cast<double>(row_[i]);
    }
    mean = (std::max)(mean / static_cast<double>(m_.rows), tiny());
    for (std::size_t i = 0; i < m_.rows; ++i) {
      scale_[i] = static_cast<T>(static_cast<double>(row_[i]) / mean);
    }
  }
  static T blend(double beta, T before, double now) {
    return static_cast<T>(beta * static_cast<double>(before) + (1 - beta) * now);
  }
  static double tiny() { return static_cast<double>((std::numeric_limits<T>::epsilon)()); }
  static T floor() { return static_cast<T>(tiny() * tiny()); }

  kernels::OptimSums measure() {
    std::vector<kernels::OptimSums> parts(static_cast<std::size_t>(blocks_));
    for_rows([&](std::size_t b, std::size_t first, std::size_t count) {
      parts[b] = QUERN_DISPATCH(factored_sizes(
          m_.gradient + first * m_.cols, static_cast<const T*>(m_.values) + first * m_.cols, count,
          m_.cols, m_.prologue, static_cast<const T*>(scale_.data()) + first,
          static_cast<const T*>(column_), floor()));
    });
    kernels::OptimSums total;
    for (const kernels::OptimSums& part : parts) {
      total.gradient += part.gradient;
      total.values += part.values;
    }
    return total;
  }
  void apply(T step) {
    for_rows([&](std::size_t, std::size_t first, std::size_t count) {
      QUERN_DISPATCH(factored_step(m_.gradient + first * m_.cols, m_.values + first * m_.cols,
                                   count, m_.cols, m_.prologue,
                                   static_cast<const T*>(scale_.data()) + first,
                                   static_cast<const T*>(column_), floor(), step));
    });
  }

  const Adafactor& method_;
  const MatrixStep<T>& m_;
  T* row_;
  T* column_;
  std::vector<T> scale_;  ///< of each row: R / mean(R)
  std::size_t count_ = 1;
  std::int64_t blocks_ = 0;
};

/// c = alpha x y + beta c where that is symmetric: block rows up to the diagonal, then mirrored. On
/// large matrices three eighths of the product are saved.
template <class T>
void symmetric_product(MatrixView<const T> x, MatrixView<const T> y, MatrixView<T> c, T alpha,
                       T beta, int threads) {
  constexpr Index side = 256;
  const Index n = c.rows();
  for (Index begin = 0; begin < n; begin += side) {
    const Index rows = (std::min)(side, n - begin);
    kernels::gemm<T>(x.block(begin, 0, rows, x.cols()), y.block(0, 0, y.rows(), begin + rows),
                     c.block(begin, 0, rows, begin + rows),
                     {.alpha = alpha, .beta = beta, .threads = threads});
  }
  // The part above the blocks on the diagonal, by tiles that fit the cache.
  constexpr Index tile = 32;
  for (Index i0 = 0; i0 < n; i0 += tile) {
    for (Index j0 = i0 / side * side + side; j0 < n; j0 += tile) {
      for (Index i = i0; i < (std::min)(i0 + tile, n); ++i) {
        for (Index j = j0; j < (std::min)(j0 + tile, n); ++j) c(i, j) = c(j, i);
      }
    }
  }
}

/// Five steps of X = a X + (b A + c A A) X, A = X X^T, on a matrix of no more rows than columns.
template <class T>
void orthogonalise(MatrixView<T> x, int steps, int threads) {
  constexpr T a = T(3.4445), b = T(-4.7750), c = T(2.0315);
  const Index n = x.rows(), width = x.cols();
  core::Buffer<T> first(static_cast<std::size_t>(n * n)), second(static_cast<std::size_t>(n * n));
  core::Buffer<T> other(static_cast<std::size_t>(n * width));
  const MatrixView<T> gram(first.data(), {n, n}), mix(second.data(), {n, n});
  MatrixView<T> now = x, next(other.data(), {n, width});
  for (int k = 0; k < steps; ++k) {
    const MatrixView<const T> in = now;
    symmetric_product<T>(in, in.transposed(), gram, T(1), T(0), threads);
    std::copy(first.begin(), first.end(), second.begin());
    symmetric_product<T>(gram, gram, mix, c, b, threads);
    // a X is a diagonal of the factor.
    for (Index i = 0; i < n; ++i) mix(i, i) += a;
    kernels::gemm<T>(mix, in, next, {.threads = threads});
    std::swap(now, next);
  }
  if (now.data() == x.data()) return;
  std::copy(now.data(), now.data() + n * width, x.data());
}

}  // namespace detail
}  // namespace optim
QUERN_NAMESPACE_END

#endif  // QUERN_OPTIM_DETAIL_MATRIX_STEPS_HPP
