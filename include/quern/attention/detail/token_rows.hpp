// SPDX-License-Identifier: Apache-2.0

/// \file
/// What is done to rows of tokens by themselves: norms, SiLU, products of elements, rotation by
/// position, token shift; with gradients.

#ifndef QUERN_ATTENTION_DETAIL_TOKEN_ROWS_HPP
#define QUERN_ATTENTION_DETAIL_TOKEN_ROWS_HPP

#include "quern/attention/detail/block_attention.hpp"
#include "quern/attention/gated_unit.hpp"
#include "quern/core/config.hpp"
#include "quern/core/nd_array.hpp"
#include "quern/core/nd_view.hpp"
#include "quern/core/parallel.hpp"
#include "quern/kernels/activation_types.hpp"
#include "quern/kernels/functors.hpp"
#include "quern/kernels/kernels.hpp"
#include "quern/kernels/linear_rows_types.hpp"
#include "quern/nn/linear.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <span>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace attention {
namespace detail {

/// Rows of a task of what is done to each row by itself.
inline constexpr Index gated_rows = 64;
/// Rows whose sums are kept apart before they are added in order.
inline constexpr Index gated_sum_rows = 1024;

/// fn(first, count) over rows in blocks.
template <class F>
void for_rows(Index rows, int threads, const F& fn) {
  parallel_for(
      block_count(rows, gated_rows),
      [&](Index block) {
        const BlockRange range = block_range(rows, gated_rows, block);
        fn(range.begin, range.size());
      },
      threads);
}

/// A vector of weights side by side.
template <class T>
std::vector<T> dense_vector(const NdView<const T, 1>& v) {
  std::vector<T> values;
  for (Index i = 0; i < v.extent(0); ++i) values.push_back(v(i));
  return values;
}

/// y = gamma x + beta for rows.
template <class T>
void scale_offset(MatrixView<const T> x, const T* gamma, const T* beta, MatrixView<T> y,
                  int threads) {
  for_rows(x.rows(), threads, [&](Index first, Index count) {
    QUERN_DISPATCH(scale_offset_rows<T>(
        static_cast<std::size_t>(count), static_cast<std::size_t>(x.cols()), x.row_data(first),
        x.row_stride(), gamma, beta, y.row_data(first), y.row_stride()));
  });
}
/// dgamma += column sums of dy x, dbeta += those of dy (null: left out).
template <class T>
void scale_offset_sums(MatrixView<const T> x, MatrixView<const T> dy, NdView<T, 1> dgamma,
                       NdView<T, 1> dbeta, int threads) {
  if (dgamma.is_null() && dbeta.is_null()) return;
  const Index cols = x.cols(), blocks = block_count(x.rows(), gated_sum_rows);
  std::vector<T> parts(static_cast<std::size_t>(2 * blocks * cols));
  parallel_for(
      blocks,
      [&](Index block) {
        const BlockRange range = block_range(x.rows(), gated_sum_rows, block);
        T* const sums = parts.data() + 2 * block * cols;
        QUERN_DISPATCH(scale_offset_rows_gradient<T>(
            static_cast<std::size_t>(range.size()), static_cast<std::size_t>(cols),
            x.row_data(range.begin), x.row_stride(), dy.row_data(range.begin), dy.row_stride(),
            sums, sums + cols));
      },
      threads);
  for (Index j = 0; j < cols; ++j) {
    double gamma = 0, beta = 0;
    for (Index block = 0; block < blocks; ++block) {
      gamma += static_cast<double>(parts[static_cast<std::size_t>(2 * block * cols + j)]);
      beta += static_cast<double>(parts[static_cast<std::size_t>((2 * block + 1) * cols + j)]);
    }
    if (!dgamma.is_null()) dgamma(j) += static_cast<T>(gamma);
    if (!dbeta.is_null()) dbeta(j) += static_cast<T>(beta);
  }
}

/// y = a b, element by element, for rows.
template <class T>
void multiply_rows(MatrixView<const T> a, MatrixView<const T> b, MatrixView<T> y, int threads) {
  for_rows(a.rows(), threads, [&](Index first, Index count) {
    for (Index i = first; i < first + count; ++i) {
      QUERN_DISPATCH(multiply<T>(a.row_data(i), b.row_data(i), static_cast<std::size_t>(a.cols()),
                                 y.row_data(i)));
    }
  });
}

/// y = silu(x), or dx = dx silu'(x) where it is the backward pass's. Contiguous.
template <class T>
void silu(const NdArray<T, 2>& x, NdArray<T, 2>& y, int threads) {
  for_rows(x.extent(0), threads, [&](Index first, Index count) {
    const Index at = first * x.extent(1);
    QUERN_DISPATCH(transform<kernels::Silu, T>(kernels::Silu{}, x.data() + at,
                                               static_cast<std::size_t>(count * x.extent(1)),
                                               y.data() + at));
  });
}
template <class T>
void silu_gradient(const NdArray<T, 2>& x, NdArray<T, 2>& dx, int threads) {
  for_rows(x.extent(0), threads, [&](Index first, Index count) {
    const Index at = first * x.extent(1);
    QUERN_DISPATCH(transform_gradient<kernels::Silu, T>(
        kernels::Silu{}, x.data() + at, dx.data() + at,
        static_cast<std::size_t>(count * x.extent(1)), dx.data() + at));
  });
}

/// One row: y = (x - mean) / deviation, or x over its length; gives the factor.
template <class T>
T norm_row(const T* x, Index n, GateNorm norm, T epsilon, T* y) {
  const auto size = static_cast<std::size_t>(n);
  const double count = static_cast<double>((std::max)(n, Index{1}));
  std::copy_n(x, n, y);
  if (norm == GateNorm::none) return T{1};
  if (norm == GateNorm::layer) {
    const double mean = QUERN_DISPATCH(sum<T>(x, size)) / count;
    const kernels::Affine<T> shift{T{1}, static_cast<T>(-mean)};
    QUERN_DISPATCH(transform<kernels::Affine<T>, T>(shift, x, size, y));
  }
  const double square = QUERN_DISPATCH(squared_norm<T>(y, size)) / count;
  const double e = static_cast<double>(epsilon);
  const double factor =
      norm == GateNorm::layer ? 1 / std::sqrt(square + e) : 1 / (std::max)(std::sqrt(square), e);
  scale_row(static_cast<T>(factor), y, n);
  return static_cast<T>(factor);
}

/// dx += the gradient of norm_row, where `dy` is that of y; dy is overwritten.
template <class T>
void norm_row_vjp(const T* y, Index n, GateNorm norm, T epsilon, T factor, T* dy, T* dx) {
  const auto size = static_cast<std::size_t>(n);
  const double count = static_cast<double>((std::max)(n, Index{1}));
  // A length that was held up to epsilon is a constant.
  const bool held = norm == GateNorm::scale && factor >= T{1} / epsilon;
  if (norm != GateNorm::none && !held) {
    const double along = QUERN_DISPATCH(dot<T>(y, dy, size)) / count;
    QUERN_DISPATCH(axpy<T>(static_cast<T>(-along), y, size, dy));
    if (norm == GateNorm::layer) {
      // y has mean 0, so the mean of dy is what it was.
      const double mean = QUERN_DISPATCH(sum<T>(dy, size)) / count;
      const kernels::Affine<T> shift{T{1}, static_cast<T>(-mean)};
      QUERN_DISPATCH(transform<kernels::Affine<T>, T>(shift, dy, size, dy));
    }
  }
  QUERN_DISPATCH(axpy<T>(factor, dy, size, dx));
}

/// to = rows of `from`, the first half of the channels from the token before (0 before the first).
template <class T>
void shift_tokens(MatrixView<const T> from, Index length, MatrixView<T> to, int threads) {
  const Index half = from.cols() / 2;
  for_rows(from.rows(), threads, [&](Index first, Index count) {
    for (Index i = first; i < first + count; ++i) {
      if (i % length == 0) {
        std::fill_n(to.row_data(i), half, T{0});
      } else {
        std::copy_n(from.row_data(i - 1), half, to.row_data(i));
      }
      std::copy_n(from.row_data(i) + half, from.cols() - half, to.row_data(i) + half);
    }
  });
}
template <class T>
void unshift_tokens(MatrixView<const T> from, Index length, MatrixView<T> to, int threads) {
  const Index half = from.cols() / 2;
  for_rows(from.rows(), threads, [&](Index first, Index count) {
    for (Index i = first; i < first + count; ++i) {
      if (i % length == length - 1) {
        std::fill_n(to.row_data(i), half, T{0});
      } else {
        std::copy_n(from.row_data(i + 1), half, to.row_data(i));
      }
      std::copy_n(from.row_data(i) + half, from.cols() - half, to.row_data(i) + half);
    }
  });
}

/// y = rows of w times x.
template <class T>
void rows_times(MatrixView<const T> w, const T* x, T* y) {
  const kernels::RowSet<T> set{w.data(), w.row_stride(), nullptr,
                               static_cast<std::size_t>(w.rows()),
                               static_cast<std::size_t>(w.cols())};
  QUERN_DISPATCH(rows_times_vector<T>(set, x, y));
}
/// y += sum of r[i] times row i of x.
template <class T>
void add_weighted_rows(const T* r, MatrixView<const T> x, T* y) {
  const kernels::RowSet<T> set{x.data(), x.row_stride(), nullptr,
                               static_cast<std::size_t>(x.rows()),
                               static_cast<std::size_t>(x.cols())};
  QUERN_DISPATCH(add_vector_times_rows<T>(set, r, y));
}

/// y = x wᵀ + bias (empty: none) for the few rows of a decode step: weights are read once from
/// where they lie, which a product for many rows would copy first.
template <class T>
void step_linear(MatrixView<const T> x, MatrixView<const T> w, std::span<const T> bias,
                 MatrixView<T> y) {
  constexpr Index few = 8;
  const bool adjacent = w.last_stride_is_one() && x.last_stride_is_one() && y.last_stride_is_one();
  if (x.rows() > few || !adjacent) return nn::detail::linear_forward<T>(x, w, bias, y, 0);
  for (Index b = 0; b < x.rows(); ++b) {
    rows_times<T>(w, x.row_data(b), y.row_data(b));
    if (!bias.empty()) add_to_row(bias.data(), y.cols(), y.row_data(b));
  }
}

}  // namespace detail
}  // namespace attention
QUERN_NAMESPACE_END

#endif  // QUERN_ATTENTION_DETAIL_TOKEN_ROWS_HPP
