// SPDX-License-Identifier: Apache-2.0

/// \file
/// The two losses of vector quantisation (A. van den Oord, O. Vinyals, K. Kavukcuoglu, "Neural
/// discrete representation learning", 2017, equation 3) and the straight-through gradient of a
/// quantised layer. sg stops the gradient; means run over rows and columns:
///
/// codebook = mean (q - sg x)^2, commitment = mean (sg q - x)^2, q = codebook row of each x.
/// The weight beta belongs to the commitment, that is to the encoder.

#ifndef QUERN_VQ_LOSS_HPP
#define QUERN_VQ_LOSS_HPP

#include "quern/core/checks.hpp"
#include "quern/core/config.hpp"
#include "quern/core/nd_view.hpp"
#include "quern/core/parallel.hpp"
#include "quern/kernels/kernels.hpp"
#include "quern/vq/code_sums.hpp"
#include "quern/vq/nearest.hpp"

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace vq {

struct VqLossOptions {
  double beta = 0.25;          ///< weight of the commitment
  double codebook_weight = 1;  ///< 0 where an average keeps the codebook (EmaCodebook)
  int threads = 0;
};

struct VqLoss {
  double codebook = 0;
  double commitment = 0;
  double total = 0;  ///< codebook_weight * codebook + beta * commitment
};

namespace detail {

template <class T>
void expect_rows_contiguous(const char* function, const char* name, const MatrixView<T>& v) {
  if (v.last_stride_is_one()) return;
  throw ShapeError(error_text(function, name, "contiguous rows", "a column stride"));
}

}  // namespace detail

/// Both losses of rows \p x and their codes \p q, N x d each. 0 for no rows.
template <class T>
[[nodiscard]] VqLoss vq_loss(detail::InputMatrix<T> x, detail::InputMatrix<T> q,
                             const VqLossOptions& options = {}) {
  constexpr const char* function = "quern::vq::vq_loss";
  expect_shape(function, "q", q, x.extents());
  detail::expect_rows_contiguous(function, "x", x);
  detail::expect_rows_contiguous(function, "q", q);
  const auto cols = static_cast<std::size_t>(x.cols());
  const bool whole = x.row_stride() == x.cols() && q.row_stride() == q.cols();
  const double sum = parallel_reduce(
      block_count(x.rows(), detail::search_rows), 0.0,
      [&](std::int64_t b) {
        const BlockRange r = block_range(x.rows(), detail::search_rows, b);
        if (whole) {
          return QUERN_DISPATCH(squared_distance<T>(x.row_data(r.begin), q.row_data(r.begin),
                                                    static_cast<std::size_t>(r.size()) * cols));
        }
        double part = 0;
        for (Index i = r.begin; i < r.end; ++i) {
          part += QUERN_DISPATCH(squared_distance<T>(x.row_data(i), q.row_data(i), cols));
        }
        return part;
      },
      [](double a, double b) { return a + b; }, options.threads);
  const double mean = x.size() > 0 ? sum / static_cast<double>(x.size()) : 0;
  return {mean, mean, options.codebook_weight * mean + options.beta * mean};
}

/// Gradients of <dout, straight-through output> + dloss * total:
/// dx = dout + dloss beta 2 (x - q) / (N d) is overwritten; dcodebook row k (K x d, may be null)
/// gets dloss codebook_weight sum of 2 (q - x) / (N d) over the rows with code k added. \p dout may
/// be null (no gradient from above), and dx may be dout itself, or null.
template <class T>
void vq_loss_vjp(detail::InputMatrix<T> x, detail::InputMatrix<T> q,
                 std::span<const std::int64_t> codes, detail::InputMatrix<T> dout, double dloss,
                 std::type_identity_t<MatrixView<T>> dx,
                 std::type_identity_t<MatrixView<T>> dcodebook, const VqLossOptions& options = {}) {
  constexpr const char* function = "quern::vq::vq_loss_vjp";
  expect_shape(function, "q", q, x.extents());
  detail::expect_rows_contiguous(function, "x", x);
  detail::expect_rows_contiguous(function, "q", q);
  if (!dout.is_null()) expect_shape(function, "dout", dout, x.extents());
  const auto cols = static_cast<std::size_t>(x.cols());
  const double each = x.size() > 0 ? 2 * dloss / static_cast<double>(x.size()) : 0;
  if (!dx.is_null()) {
    expect_shape(function, "dx", dx, x.extents());
    detail::expect_rows_contiguous(function, "dx", dx);
    parallel_for(
        block_count(x.rows(), detail::search_rows),
        [&](std::int64_t b) {
          const BlockRange r = block_range(x.rows(), detail::search_rows, b);
          for (Index i = r.begin; i < r.end; ++i) {
            T* const to = dx.row_data(i);
            for (Index j = 0; j < x.cols(); ++j) to[j] = dout.is_null() ? T(0) : dout(i, j);
            QUERN_DISPATCH(add_difference<T>(static_cast<T>(each * options.beta), x.row_data(i),
                                             q.row_data(i), cols, to));
          }
        },
        options.threads);
  }
  if (dcodebook.is_null() || options.codebook_weight == 0) return;
  expect_shape(function, "dcodebook", dcodebook, {dcodebook.rows(), x.cols()});
  detail::expect_rows_contiguous(function, "dcodebook", dcodebook);
  expect_size(function, "codes", static_cast<Index>(codes.size()), x.rows(), "codes, one a row");
  const RowsByCode by_code(codes, dcodebook.rows());
  const T weight = static_cast<T>(each * options.codebook_weight);
  parallel_for(
      block_count(by_code.codes(), RowsByCode::codes_each),
      [&](std::int64_t b) {
        const BlockRange r = block_range(by_code.codes(), RowsByCode::codes_each, b);
        std::vector<T> sum(cols);
        for (Index k = r.begin; k < r.end; ++k) {
          std::fill(sum.begin(), sum.end(), T(0));
          const std::int64_t from = by_code.begin[static_cast<std::size_t>(k)];
          for (std::int64_t i = from; i < from + by_code.count(k); ++i) {
            const Index row = by_code.rows[static_cast<std::size_t>(i)];
            QUERN_DISPATCH(
                add_difference<T>(weight, q.row_data(row), x.row_data(row), cols, sum.data()));
          }
          T* const to = dcodebook.row_data(k);
          for (std::size_t j = 0; j < cols; ++j) to[j] += sum[j];
        }
      },
      options.threads);
}

}  // namespace vq
QUERN_NAMESPACE_END

#endif  // QUERN_VQ_LOSS_HPP
