// SPDX-License-Identifier: Apache-2.0

/// \file
/// Rows added up by code, with the same bits for any number of threads: rows are listed by code
/// first, and each code adds its own in row order. What k-means, EMA codebooks and a codebook's
/// gradient are made of.

#ifndef QUERN_VQ_CODE_SUMS_HPP
#define QUERN_VQ_CODE_SUMS_HPP

#include "quern/core/checks.hpp"
#include "quern/core/config.hpp"
#include "quern/core/nd_view.hpp"
#include "quern/core/parallel.hpp"
#include "quern/kernels/kernels.hpp"
#include "quern/vq/nearest.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace vq {

/// Rows grouped by their code.
struct RowsByCode {
  std::vector<std::int64_t> begin;  ///< rows of code k are rows[begin[k]] … rows[begin[k + 1] - 1]
  std::vector<std::int64_t> rows;   ///< ascending within a code

  /// ValueError for a code outside [0, count).
  RowsByCode(std::span<const std::int64_t> codes, Index count)
      : begin(static_cast<std::size_t>(count) + 1, 0), rows(codes.size()) {
    detail::expect_codes("quern::vq::RowsByCode", codes, count);
    for (const std::int64_t code : codes) ++begin[static_cast<std::size_t>(code) + 1];
    for (std::size_t k = 1; k < begin.size(); ++k) begin[k] += begin[k - 1];
    std::vector<std::int64_t> next(begin.begin(), begin.end() - 1);
    for (std::size_t i = 0; i < codes.size(); ++i) {
      const auto to = next[static_cast<std::size_t>(codes[i])]++;
      rows[static_cast<std::size_t>(to)] = static_cast<std::int64_t>(i);
    }
  }
  [[nodiscard]] Index codes() const noexcept { return static_cast<Index>(begin.size()) - 1; }
  [[nodiscard]] std::int64_t count(Index k) const {
    return begin[static_cast<std::size_t>(k) + 1] - begin[static_cast<std::size_t>(k)];
  }
  /// Codes are shared out among threads in blocks of about equal work.
  static constexpr Index codes_each = 16;
};

/// sums row k = sum of the rows of x with code k (zeros for none); N x d and K x d, any strides of
/// x, contiguous rows of \p sums.
template <class T>
void sum_by_code(detail::InputMatrix<T> x, const RowsByCode& by_code, MatrixView<T> sums,
                 int threads = 0) {
  constexpr const char* function = "quern::vq::sum_by_code";
  expect_size(function, "x", x.rows(), static_cast<Index>(by_code.rows.size()), "rows");
  expect_shape(function, "sums", sums, {by_code.codes(), x.cols()});
  if (!sums.last_stride_is_one()) {
    throw ShapeError(error_text(function, "sums", "contiguous rows", "another stride"));
  }
  const bool plain = x.last_stride_is_one();
  parallel_for(
      block_count(by_code.codes(), RowsByCode::codes_each),
      [&](std::int64_t b) {
        const BlockRange r = block_range(by_code.codes(), RowsByCode::codes_each, b);
        for (Index k = r.begin; k < r.end; ++k) {
          T* const out = sums.row_data(k);
          std::fill_n(out, x.cols(), T(0));
          const std::int64_t* const which =
              by_code.rows.data() + by_code.begin[static_cast<std::size_t>(k)];
          const std::int64_t count = by_code.count(k);
          if (plain) {
            QUERN_DISPATCH(add_rows<T>(x.data(), x.row_stride(), which,
                                       static_cast<std::size_t>(count),
                                       static_cast<std::size_t>(x.cols()), out));
          } else {
            for (std::int64_t i = 0; i < count; ++i) {
              for (Index j = 0; j < x.cols(); ++j) out[j] += x(which[i], j);
            }
          }
        }
      },
      threads);
}

}  // namespace vq
QUERN_NAMESPACE_END

#endif  // QUERN_VQ_CODE_SUMS_HPP
