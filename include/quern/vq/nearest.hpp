// SPDX-License-Identifier: Apache-2.0

/// \file
/// The code of a codebook that is nearest to each row: fused into the matrix product, so that no
/// rows x codes matrix exists (kernels::PackedMatrix with StoreArgMin).
///
/// |x - c|^2 = |x|^2 + 2 (|c|^2 / 2 - x.c), and the first term does not choose. That algebra loses
/// digits where rows and codes are far from the origin beside their differences; see Guard.

#ifndef QUERN_VQ_NEAREST_HPP
#define QUERN_VQ_NEAREST_HPP

#include "quern/core/buffer.hpp"
#include "quern/core/checks.hpp"
#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/core/nd_view.hpp"
#include "quern/core/parallel.hpp"
#include "quern/kernels/gemm.hpp"
#include "quern/kernels/kernels.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace vq {

/// What nearest means.
enum class Distance {
  euclidean,  ///< least |x - c|^2
  cosine      ///< greatest x.c of rows and codes of length 1
};

/// What is done about cancellation far from the origin (Euclidean only).
enum class Guard {
  none,    ///< nothing: exact enough where data is centred
  centre,  ///< rows and codes are moved by the codebook's mean where that is far out
  recheck  ///< centre, and rows whose two best codes are too close to tell are decided in double:
           ///< the code is that of double arithmetic throughout
};

struct NearestOptions {
  Distance metric = Distance::euclidean;
  Guard guard = Guard::centre;
  int threads = 0;
};

namespace detail {

template <class T>
using InputMatrix = std::type_identity_t<MatrixView<const T>>;

/// Rows of a block: enough for a task of the product, few enough for a core's cache.
inline constexpr Index search_rows = 512;

template <class T>
bool rows_contiguous(const MatrixView<const T>& x) {
  return x.last_stride_is_one();
}

/// Codes in [0, count); ValueError otherwise.
inline void expect_codes(const char* function, std::span<const std::int64_t> codes, Index count) {
  for (const std::int64_t code : codes) {
    if (code < 0 || code >= count) {
      throw ValueError(
          error_text(function, "codes", "codes of 0.." + std::to_string(count - 1), code));
    }
  }
}

}  // namespace detail

/// A codebook made ready for many searches: packed for the product, with half its squared lengths.
/// Keeps a copy of what it needs, so the codebook may change (make another one then).
template <class T>
class CodeSearch {
 public:
  /// \p codebook is K x d, any strides. ShapeError for K = 0 or d = 0.
  explicit CodeSearch(MatrixView<const T> codebook, const NearestOptions& options = {})
      : options_(options), codes_(codebook.rows()), cols_(codebook.cols()) {
    if (codes_ < 1 || cols_ < 1) {
      throw ShapeError(error_text("quern::vq::CodeSearch", "codebook",
                                  "at least one code of one number",
                                  shape_text(codebook.extents())));
    }
    table_ = core::Buffer<T>(static_cast<std::size_t>(codes_ * cols_));
    for (Index k = 0; k < codes_; ++k) {
      for (Index j = 0; j < cols_; ++j) table_[at(k * cols_ + j)] = codebook(k, j);
    }
    if (options.metric == Distance::cosine) {
      QUERN_DISPATCH(
          unit_rows<T>(table_.data(), cols_, at(codes_), at(cols_), table_.data(), cols_));
      packed_ = kernels::PackedMatrix<T>(table().transposed(), options.threads);
      return;
    }
    core::Buffer<T> moved = centred_codes();
    const T* const base = moved.empty() ? table_.data() : moved.data();
    std::vector<double> squares(at(codes_));
    QUERN_DISPATCH(row_squares<T>(base, cols_, at(codes_), at(cols_), squares.data()));
    half_ = core::Buffer<T>(at(codes_));
    for (Index k = 0; k < codes_; ++k) half_[at(k)] = static_cast<T>(squares[at(k)] / 2);
    longest_ = std::sqrt(*std::max_element(squares.begin(), squares.end()));
    packed_ = kernels::PackedMatrix<T>(MatrixView<const T>(base, {codes_, cols_}).transposed(),
                                       options.threads);
  }

  [[nodiscard]] Index codes() const noexcept { return codes_; }
  [[nodiscard]] Index cols() const noexcept { return cols_; }
  /// The codes searched, K x d: as given, or of length 1 for the cosine.
  [[nodiscard]] MatrixView<const T> table() const { return {table_.data(), {codes_, cols_}}; }

  /// codes[i] = nearest code of row i, the lowest of equals. \p x is N x d, any strides.
  /// \p distances, where given, are |x - c|^2, or the cosine itself. A row with NaN gets code 0.
  void find(MatrixView<const T> x, std::span<std::int64_t> codes,
            std::span<T> distances = {}) const {
    constexpr const char* function = "quern::vq::CodeSearch::find";
    expect_shape(function, "x", x, {x.rows(), cols_});
    expect_size(function, "codes", static_cast<Index>(codes.size()), x.rows(), "codes, one a row");
    if (!distances.empty()) {
      expect_size(function, "distances", static_cast<Index>(distances.size()), x.rows(),
                  "values, one a row, or none");
    }
    parallel_for(
        block_count(x.rows(), detail::search_rows),
        [&](std::int64_t b) {
          const BlockRange r = block_range(x.rows(), detail::search_rows, b);
          find_block(x.slice(0, r.begin, r.size()), codes.data() + r.begin,
                     distances.empty() ? nullptr : distances.data() + r.begin);
        },
        options_.threads);
  }

 private:
  static constexpr std::size_t at(Index i) { return static_cast<std::size_t>(i); }

  /// Codes minus their mean where that mean is longer than the codes' spread around it; else empty.
  core::Buffer<T> centred_codes() {
    if (options_.guard == Guard::none) return {};
    std::vector<double> sums(at(cols_), 0.0);
    double squares = 0;
    for (Index k = 0; k < codes_; ++k) {
      for (Index j = 0; j < cols_; ++j) {
        const double c = static_cast<double>(table_[at(k * cols_ + j)]);
        sums[at(j)] += c;
        squares += c * c;
      }
    }
    core::Buffer<T> centre(at(cols_));
    double length = 0;
    for (Index j = 0; j < cols_; ++j) {
      const double mean = sums[at(j)] / static_cast<double>(codes_);
      length += mean * mean;
      centre[at(j)] = static_cast<T>(mean);
    }
    const double spread = squares / static_cast<double>(codes_) - length;
    if (length <= spread) return {};
    centre_ = std::move(centre);
    core::Buffer<T> moved(at(codes_ * cols_));
    QUERN_DISPATCH(rows_minus<T>(table_.data(), cols_, at(codes_), at(cols_), centre_.data(),
                                 moved.data(), cols_));
    return moved;
  }

  void find_block(MatrixView<const T> x, std::int64_t* codes, T* distances) const {
    const Index rows = x.rows();
    core::Buffer<T> copy;
    const bool move = !centre_.empty() || options_.metric == Distance::cosine;
    const MatrixView<const T> given = x;
    if (!x.last_stride_is_one() || move) {
      copy = core::Buffer<T>(at(rows * cols_));
      x = moved_rows(x, copy.data());
    }
    if (options_.metric == Distance::cosine) {
      packed_.multiply(x, kernels::StoreArgMin<T>{T(-1), nullptr, distances, codes}, 1);
      if (distances != nullptr) {
        for (Index i = 0; i < rows; ++i) distances[i] = -distances[i];
      }
      return;
    }
    if (options_.guard == Guard::recheck) {
      find_surely(given, x, codes);
    } else {
      packed_.multiply(x, kernels::StoreArgMin<T>{T(-1), half_.data(), nullptr, codes}, 1);
    }
    if (distances == nullptr) return;
    if (given.last_stride_is_one()) {
      QUERN_DISPATCH(code_distances<T>(given.data(), given.row_stride(), table_.data(), cols_,
                                       codes, at(rows), at(cols_), distances));
    } else {
      std::vector<T> row(at(cols_));
      for (Index i = 0; i < rows; ++i) {
        for (Index j = 0; j < cols_; ++j) row[at(j)] = given(i, j);
        QUERN_DISPATCH(code_distances<T>(row.data(), cols_, table_.data(), cols_, codes + i,
                                         std::size_t{1}, at(cols_), distances + i));
      }
    }
  }

  /// The rows as the product wants them: contiguous, about the centre or of length 1.
  MatrixView<const T> moved_rows(MatrixView<const T> x, T* to) const {
    const std::size_t rows = at(x.rows());
    const T* from = x.data();
    Index stride = x.row_stride();
    if (!x.last_stride_is_one()) {
      for (Index i = 0; i < x.rows(); ++i) {
        for (Index j = 0; j < cols_; ++j) to[i * cols_ + j] = x(i, j);
      }
      from = to;
      stride = cols_;
    }
    if (options_.metric == Distance::cosine) {
      QUERN_DISPATCH(unit_rows<T>(from, stride, rows, at(cols_), to, cols_));
    } else if (!centre_.empty()) {
      QUERN_DISPATCH(rows_minus<T>(from, stride, rows, at(cols_), centre_.data(), to, cols_));
    }
    return {to, {x.rows(), cols_}};
  }

  /// Each value is a sum of d products and one addition, so it is off by at most
  /// (d + 8) u (|x| |c| + |c|^2), moving included; two values further apart than twice that keep
  /// their order.
  void find_surely(MatrixView<const T> given, MatrixView<const T> x, std::int64_t* codes) const {
    const Index rows = x.rows();
    std::vector<T> best(at(rows)), second(at(rows));
    packed_.multiply(
        x, kernels::StoreArgMinTwo<T>{{T(-1), half_.data(), best.data(), codes}, second.data()}, 1);
    std::vector<double> squares(at(rows));
    QUERN_DISPATCH(row_squares<T>(x.data(), x.row_stride(), at(rows), at(cols_), squares.data()));
    const double unit = static_cast<double>(std::numeric_limits<T>::epsilon()) / 2;
    std::vector<T> row(at(cols_));
    for (Index i = 0; i < rows; ++i) {
      const double reach = std::sqrt(squares[at(i)]) + longest_;
      const double error = static_cast<double>(cols_ + 8) * unit * reach * longest_;
      const double gap = static_cast<double>(second[at(i)]) - static_cast<double>(best[at(i)]);
      if (gap > 2.01 * error) continue;
      for (Index j = 0; j < cols_; ++j) row[at(j)] = given(i, j);
      codes[i] =
          QUERN_DISPATCH(nearest_in_double<T>(row.data(), table_.data(), cols_, codes_, at(cols_)));
    }
  }

  NearestOptions options_;
  Index codes_;
  Index cols_;
  core::Buffer<T> table_;
  core::Buffer<T> centre_;
  core::Buffer<T> half_;
  double longest_ = 0;
  kernels::PackedMatrix<T> packed_;
};

/// The nearest code of each row, and its distance where a span for it is given; see
/// CodeSearch::find. Call as nearest_codes<float>(x, codebook, codes).
template <class T>
void nearest_codes(detail::InputMatrix<T> x, detail::InputMatrix<T> codebook,
                   std::span<std::int64_t> codes, std::type_identity_t<std::span<T>> distances = {},
                   const NearestOptions& options = {}) {
  CodeSearch<T>(codebook, options).find(x, codes, distances);
}

/// The k nearest codes of each row (N x k, nearest first; of equal distances the lower code first)
/// and their squared distances, all in double. For looking at a codebook: rows x codes distances
/// are worked out one by one. ValueError unless 1 <= k <= K.
template <class T>
void nearest_k_codes(detail::InputMatrix<T> x, detail::InputMatrix<T> codebook,
                     MatrixView<std::int64_t> codes, MatrixView<double> distances,
                     int threads = 0) {
  constexpr const char* function = "quern::vq::nearest_k_codes";
  const Index k = codes.cols(), count = codebook.rows();
  expect_shape(function, "codebook", codebook, {count, x.cols()});
  expect_shape(function, "codes", codes, {x.rows(), k});
  expect_shape(function, "distances", distances, {x.rows(), k});
  expect_in_range(function, "columns of codes", k, Index{1}, count);
  parallel_for(
      x.rows(),
      [&](std::int64_t i) {
        std::vector<double> apart(static_cast<std::size_t>(count));
        std::vector<std::int64_t> order(static_cast<std::size_t>(count));
        for (Index c = 0; c < count; ++c) {
          double sum = 0;
          for (Index j = 0; j < x.cols(); ++j) {
            const double step = static_cast<double>(x(i, j)) - static_cast<double>(codebook(c, j));
            sum += step * step;
          }
          apart[static_cast<std::size_t>(c)] = sum;
          order[static_cast<std::size_t>(c)] = c;
        }
        const auto nearer = [&](std::int64_t a, std::int64_t b) {
          const double da = apart[static_cast<std::size_t>(a)];
          const double db = apart[static_cast<std::size_t>(b)];
          return da < db || (da == db && a < b);
        };
        std::partial_sort(order.begin(), order.begin() + k, order.end(), nearer);
        for (Index j = 0; j < k; ++j) {
          codes(i, j) = order[static_cast<std::size_t>(j)];
          distances(i, j) = apart[static_cast<std::size_t>(codes(i, j))];
        }
      },
      threads);
}

/// out row i = codebook row codes[i] (d numbers; any strides). ShapeError where sizes do not fit,
/// ValueError for a code outside the codebook.
template <class T>
void lookup_codes(detail::InputMatrix<T> codebook, std::span<const std::int64_t> codes,
                  MatrixView<T> out, int threads = 0) {
  constexpr const char* function = "quern::vq::lookup_codes";
  expect_shape(function, "out", out, {static_cast<Index>(codes.size()), codebook.cols()});
  detail::expect_codes(function, codes, codebook.rows());
  const auto cols = static_cast<std::size_t>(codebook.cols());
  const bool plain = codebook.last_stride_is_one() && out.last_stride_is_one();
  constexpr Index rows_each = 4096;
  parallel_for(
      block_count(out.rows(), rows_each),
      [&](std::int64_t b) {
        const BlockRange r = block_range(out.rows(), rows_each, b);
        if (plain) {
          QUERN_DISPATCH(fetch_rows<T>(codebook.data(), codebook.row_stride(),
                                       codes.data() + r.begin, static_cast<std::size_t>(r.size()),
                                       cols, out.row_data(r.begin), out.row_stride()));
          return;
        }
        for (Index i = r.begin; i < r.end; ++i) {
          const std::int64_t code = codes[static_cast<std::size_t>(i)];
          for (Index j = 0; j < out.cols(); ++j) out(i, j) = codebook(code, j);
        }
      },
      threads);
}

}  // namespace vq
QUERN_NAMESPACE_END

#endif  // QUERN_VQ_NEAREST_HPP
