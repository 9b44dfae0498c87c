// SPDX-License-Identifier: Apache-2.0

/// \file
/// The ready-made finite sum: linear models, f_i(w) = loss(x_i w, y_i) + l2/2 |w|^2, with the
/// logistic or the squared loss, over dense rows or compressed sparse ones.
///
/// There is no intercept: a column of ones is one. Derivatives of the losses are one number a row,
/// which is all that SVRG's and SAGA's passes keep of it; the l2 part is exact in every step.

#ifndef QUERN_STOCHASTIC_LINEAR_OBJECTIVE_HPP
#define QUERN_STOCHASTIC_LINEAR_OBJECTIVE_HPP

#include "quern/core/checks.hpp"
#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/core/nd_array.hpp"
#include "quern/core/nd_view.hpp"
#include "quern/core/parallel.hpp"
#include "quern/kernels/functors.hpp"
#include "quern/kernels/kernels.hpp"
#include "quern/kernels/linear_rows_types.hpp"
#include "quern/stochastic/run.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace stochastic {

enum class LinearLoss {
  logistic,  ///< log(1 + e^m) - y m, labels 0 or 1
  squared    ///< (m - y)^2 / 2
};

/// Rows in compressed sparse form: row i has values[k] in columns[k], offsets[i] <= k <
/// offsets[i + 1].
template <class T>
struct SparseRows {
  Index rows = 0;
  Index cols = 0;
  std::span<const std::int64_t> offsets;  ///< rows + 1
  std::span<const std::int32_t> columns;
  std::span<const T> values;
};

struct LinearObjectiveOptions {
  LinearLoss loss = LinearLoss::logistic;
  double l2 = 0;    ///< at least 0
  int threads = 0;  ///< of batches that are worth it; see parallel_for
};

/// Views its data, which must outlive it; dense rows that are not contiguous are copied.
template <std::floating_point T>
class LinearObjective {
 public:
  using Scalar = T;

  /// ShapeError where labels are not one a row; ValueError for labels outside the loss's domain,
  /// values that are not finite and l2 < 0.
  LinearObjective(MatrixView<const T> x, std::span<const T> y, LinearObjectiveOptions options = {})
      : options_(options), rows_(x.rows()), cols_(x.cols()), y_(y) {
    check();
    if (x.cols() > 1 && x.col_stride() != 1) {
      copy_ = NdArray<T, 2>(x);
      x = std::as_const(copy_).view();
    }
    set_.x = x.data();
    set_.stride = x.row_stride();
    set_.columns = static_cast<std::size_t>(cols_);
    for (Index i = 0; i < rows_; ++i) {
      const T* row = set_.x + i * set_.stride;
      measure({row, set_.columns});
    }
  }
  LinearObjective(const SparseRows<T>& x, std::span<const T> y, LinearObjectiveOptions options = {})
      : options_(options), rows_(x.rows), cols_(x.cols), y_(y), sparse_(x) {
    check();
    check_sparse();
    for (Index i = 0; i < rows_; ++i) measure(sparse_row(i).values);
  }
  LinearObjective(const LinearObjective&) = delete;
  LinearObjective& operator=(const LinearObjective&) = delete;

  [[nodiscard]] Index rows() const noexcept { return rows_; }
  [[nodiscard]] Index dimensions() const noexcept { return cols_; }
  [[nodiscard]] const LinearObjectiveOptions& options() const noexcept { return options_; }
  /// Largest curvature of a row's f_i: |x_i|^2 (a quarter of it for the logistic loss) + l2.
  [[nodiscard]] double smoothness() const noexcept {
    return (logistic() ? 0.25 : 1.0) * longest_ + options_.l2;
  }

  [[nodiscard]] double value(std::span<const T> w, std::span<const std::int64_t> rows = {}) const {
    check_weights("quern::stochastic::LinearObjective::value", w.size());
    check_rows("quern::stochastic::LinearObjective::value", rows);
    const std::int64_t n = count(rows);
    const double sum = parallel_reduce(
        block_count(n, chunk(n)), 0.0,
        [&](std::int64_t b) { return chunk_loss(w, rows, block_range(n, chunk(n), b)); },
        [](double a, double b) { return a + b; }, threads(n));
    double squares = 0;
    for (const T x : w) squares += static_cast<double>(x) * static_cast<double>(x);
    return sum / static_cast<double>(n) + 0.5 * options_.l2 * squares;
  }
  void gradient(std::span<const T> w, std::span<const std::int64_t> rows, std::span<T> out) const {
    constexpr const char* function = "quern::stochastic::LinearObjective::gradient";
    check_weights(function, w.size());
    check_weights(function, out.size());
    check_rows(function, rows);
    data_gradient(w, rows, out, {});
    const T l2 = static_cast<T>(options_.l2);
    if (l2 != T{0}) {
      for (std::size_t j = 0; j < out.size(); ++j) out[j] += l2 * w[j];
    }
  }
  /// The loss's derivative of every row, and the mean of derivative times row: the table and the
  /// mean that a variance-reduced pass begins with.
  void derivatives(std::span<const T> w, std::span<T> table, std::span<T> mean) const {
    constexpr const char* function = "quern::stochastic::LinearObjective::derivatives";
    check_weights(function, w.size());
    check_weights(function, mean.size());
    expect_size(function, "table", static_cast<Index>(table.size()), rows_, "values, one a row");
    data_gradient(w, {}, mean, table);
  }
  /// Mini-batch updates over the rows, in their order, `batch` at a time, with one step size each.
  /// ValueError for a batch outside 1..1024, ShapeError for rows that are none.
  void batch_pass(std::span<const std::int64_t> rows, Index batch, std::span<const T> steps,
                  std::span<T> w) const {
    constexpr const char* function = "quern::stochastic::LinearObjective::batch_pass";
    check_weights(function, w.size());
    check_rows(function, rows);
    expect_in_range(function, "batch", batch, Index{1}, max_batch);
    expect_size(function, "steps", static_cast<Index>(steps.size()),
                block_count(static_cast<std::int64_t>(rows.size()), batch), "steps, one a batch");
    if (is_sparse()) return sparse_batches(rows, batch, steps, w);
    kernels::BatchPass<T> pass;
    pass.rows = set_;
    pass.rows.rows = rows.data();
    pass.rows.count = rows.size();
    pass.labels = y_.data();
    pass.logistic = logistic();
    pass.batch = static_cast<std::size_t>(batch);
    pass.steps = steps.data();
    pass.l2 = static_cast<T>(options_.l2);
    pass.w = w.data();
    QUERN_DISPATCH(batch_pass<T>(pass));
  }
  /// Most rows of a batch that batch_pass takes.
  static constexpr Index max_batch = static_cast<Index>(kernels::BatchPass<T>::max_batch);
  /// One step of SVRG or SAGA for each of the rows, in their order (see VarianceReducedPass).
  void variance_reduced_pass(std::span<const std::int64_t> rows, T step, bool saga,
                             std::span<T> table, std::span<T> mean, std::span<T> w) const {
    check_rows("quern::stochastic::LinearObjective::variance_reduced_pass", rows);
    kernels::VarianceReducedPass<T> pass;
    pass.rows = set_;
    pass.rows.rows = rows.data();
    pass.rows.count = rows.size();
    pass.labels = y_.data();
    pass.logistic = logistic();
    pass.saga = saga;
    pass.step = step;
    pass.l2 = static_cast<T>(options_.l2);
    pass.share = T{1} / static_cast<T>(rows_);
    pass.table = table.data();
    pass.mean = mean.data();
    pass.w = w.data();
    if (!is_sparse()) {
      QUERN_DISPATCH(variance_reduced_pass<T>(pass));
    } else {
      sparse_pass(pass);
    }
  }

 private:
  struct SparseRow {
    std::span<const std::int32_t> columns;
    std::span<const T> values;
  };
  static constexpr std::int64_t margin_block = 256;

  [[nodiscard]] bool logistic() const noexcept { return options_.loss == LinearLoss::logistic; }
  [[nodiscard]] bool is_sparse() const noexcept { return set_.x == nullptr; }
  [[nodiscard]] std::int64_t count(std::span<const std::int64_t> rows) const {
    return rows.empty() ? rows_ : static_cast<std::int64_t>(rows.size());
  }
  /// Rows of one task: follows from the shape alone. At most 64 tasks.
  [[nodiscard]] static std::int64_t chunk(std::int64_t n) {
    return (std::max)(std::int64_t{4096}, block_count(n, 64));
  }
  [[nodiscard]] int threads(std::int64_t n) const { return n <= 4096 ? 1 : options_.threads; }

  void check() const {
    constexpr const char* function = "quern::stochastic::LinearObjective";
    if (rows_ < 1 || cols_ < 1) {
      throw ShapeError(error_text(function, "x", "at least one row and one column",
                                  shape_text(Shape<2>{rows_, cols_})));
    }
    expect_size(function, "y", static_cast<Index>(y_.size()), rows_, "labels, one a row");
    detail::expect_not_negative(function, "l2", options_.l2);
    for (const T label : y_) {
      expect_finite(function, "y", label);
      if (logistic() && label != T{0} && label != T{1}) {
        throw ValueError(error_text(function, "y", "labels 0 or 1", label));
      }
    }
  }
  void check_sparse() const {
    constexpr const char* function = "quern::stochastic::LinearObjective";
    const auto n = static_cast<std::int64_t>(sparse_.values.size());
    const auto& offsets = sparse_.offsets;
    expect_size(function, "offsets", static_cast<Index>(offsets.size()), rows_ + 1, "offsets");
    expect_size(function, "columns", static_cast<Index>(sparse_.columns.size()), n,
                "columns, one a value");
    bool good = offsets.front() == 0 && offsets.back() == n;
    for (std::size_t i = 1; i < offsets.size(); ++i) good = good && offsets[i - 1] <= offsets[i];
    if (!good)
      throw ShapeError(error_text(function, "offsets", "0, …, rising to " + std::to_string(n),
                                  "some that fall or end elsewhere"));
    for (const std::int32_t j : sparse_.columns) {
      detail::expect_place(function, "columns", j, cols_);
    }
  }
  void check_weights(const char* function, std::size_t size) const {
    expect_size(function, "w", static_cast<Index>(size), cols_, "values, one a column");
  }
  void check_rows(const char* function, std::span<const std::int64_t> rows) const {
    for (const std::int64_t row : rows) detail::expect_place(function, "rows", row, rows_);
  }
  /// Longest row so far.
  void measure(std::span<const T> row) {
    double squares = 0;
    for (const T v : row) squares += static_cast<double>(v) * static_cast<double>(v);
    if (!is_finite_bits(squares)) {
      constexpr const char* function = "quern::stochastic::LinearObjective";
      for (const T v : row) expect_finite(function, "x", v);
      throw ValueError(
          error_text(function, "x", "rows whose squared length is finite", "one that overflows"));
    }
    longest_ = (std::max)(longest_, squares);
  }
  [[nodiscard]] SparseRow sparse_row(Index i) const {
    const auto begin = static_cast<std::size_t>(sparse_.offsets[static_cast<std::size_t>(i)]);
    const auto end = static_cast<std::size_t>(sparse_.offsets[static_cast<std::size_t>(i) + 1]);
    return {sparse_.columns.subspan(begin, end - begin),
            sparse_.values.subspan(begin, end - begin)};
  }
  [[nodiscard]] static T product(const SparseRow& row, const T* w) {
    T sum{0};
    for (std::size_t k = 0; k < row.values.size(); ++k) {
      sum += row.values[k] * w[static_cast<std::size_t>(row.columns[k])];
    }
    return sum;
  }
  [[nodiscard]] T derivative(T margin, T label) const {
    if (!logistic()) return margin - label;
    return T{1} / (T{1} + std::exp(-margin)) - label;
  }

  /// Margins and labels of rows begin..end - 1 of a batch (at most margin_block).
  void margins(std::span<const T> w, std::span<const std::int64_t> rows, std::int64_t begin,
               std::int64_t end, T* out, T* labels) const {
    const auto row_at = [&](std::int64_t i) {
      return rows.empty() ? i : rows[static_cast<std::size_t>(i)];
    };
    for (std::int64_t i = begin; i < end; ++i) {
      labels[i - begin] = y_[static_cast<std::size_t>(row_at(i))];
    }
    if (is_sparse()) {
      for (std::int64_t i = begin; i < end; ++i) {
        out[i - begin] = product(sparse_row(row_at(i)), w.data());
      }
    } else {
      const kernels::RowSet<T> set = part(rows, begin, end);
      QUERN_DISPATCH(rows_times_vector<T>(set, w.data(), out));
    }
  }
  [[nodiscard]] kernels::RowSet<T> part(std::span<const std::int64_t> rows, std::int64_t begin,
                                        std::int64_t end) const {
    kernels::RowSet<T> set = set_;
    set.count = static_cast<std::size_t>(end - begin);
    if (rows.empty()) {
      set.x += begin * set.stride;
    } else {
      set.rows = rows.data() + begin;
    }
    return set;
  }
  [[nodiscard]] double chunk_loss(std::span<const T> w, std::span<const std::int64_t> rows,
                                  BlockRange range) const {
    std::array<T, margin_block> m, y;
    double sum = 0;
    for (std::int64_t at = range.begin; at < range.end; at += margin_block) {
      const std::int64_t end = (std::min)(at + margin_block, range.end);
      const auto n = static_cast<std::size_t>(end - at);
      margins(w, rows, at, end, m.data(), y.data());
      if (logistic()) {
        sum -= QUERN_DISPATCH(dot<T>(m.data(), y.data(), n));
        sum += QUERN_DISPATCH(sum_of(kernels::Softplus{}, m.data(), n));
      } else {
        QUERN_DISPATCH(loss_derivatives<T>(false, m.data(), y.data(), T{1}, n, m.data()));
        sum += 0.5 * QUERN_DISPATCH(dot<T>(m.data(), m.data(), n));
      }
    }
    return sum;
  }
  /// out += factor times the sum of derivative times row; table, where it is not empty, gets the
  /// derivatives of all rows.
  void chunk_gradient(std::span<const T> w, std::span<const std::int64_t> rows, BlockRange range,
                      T factor, T* out, std::span<T> table) const {
    std::array<T, margin_block> r, y;
    for (std::int64_t at = range.begin; at < range.end; at += margin_block) {
      const std::int64_t end = (std::min)(at + margin_block, range.end);
      const auto n = static_cast<std::size_t>(end - at);
      margins(w, rows, at, end, r.data(), y.data());
      const T first = table.empty() ? factor : T{1};
      QUERN_DISPATCH(loss_derivatives<T>(logistic(), r.data(), y.data(), first, n, r.data()));
      if (!table.empty()) {
        std::copy_n(r.data(), n, table.data() + at);
        for (std::size_t i = 0; i < n; ++i) r[i] *= factor;
      }
      if (is_sparse()) {
        for (std::int64_t i = at; i < end; ++i) {
          const SparseRow row = sparse_row(rows.empty() ? i : rows[static_cast<std::size_t>(i)]);
          const T f = r[static_cast<std::size_t>(i - at)];
          for (std::size_t k = 0; k < row.values.size(); ++k) {
            out[row.columns[k]] += f * row.values[k];
          }
        }
      } else {
        const kernels::RowSet<T> set = part(rows, at, end);
        QUERN_DISPATCH(add_vector_times_rows<T>(set, r.data(), out));
      }
    }
  }
  void data_gradient(std::span<const T> w, std::span<const std::int64_t> rows, std::span<T> out,
                     std::span<T> table) const {
    const std::int64_t n = count(rows), size = chunk(n), chunks = block_count(n, size);
    const T factor = T{1} / static_cast<T>(n);
    std::fill(out.begin(), out.end(), T{0});
    if (chunks == 1) return chunk_gradient(w, rows, {0, n}, factor, out.data(), table);
    NdArray<T, 2> parts({chunks, cols_});
    parallel_for(
        chunks,
        [&](std::int64_t b) {
          chunk_gradient(w, rows, block_range(n, size, b), factor, &parts(b, 0), table);
        },
        options_.threads);
    for (std::int64_t b = 0; b < chunks; ++b) {
      for (Index j = 0; j < cols_; ++j) out[static_cast<std::size_t>(j)] += parts(b, j);
    }
  }

  /// w is kept as scale times v, so that the l2 part of an update is one product.
  void sparse_batches(std::span<const std::int64_t> rows, Index batch, std::span<const T> steps,
                      std::span<T> w) const {
    std::array<T, static_cast<std::size_t>(max_batch)> r;
    T scale{1};
    const auto flush = [&] {
      for (T& x : w) x *= scale;
      scale = T{1};
    };
    for (std::size_t k = 0, begin = 0; begin < rows.size(); ++k) {
      const std::size_t size = (std::min)(static_cast<std::size_t>(batch), rows.size() - begin);
      const T factor = -steps[k] / static_cast<T>(size);
      for (std::size_t i = 0; i < size; ++i) {
        const Index row = rows[begin + i];
        r[i] = factor * derivative(scale * product(sparse_row(row), w.data()),
                                   y_[static_cast<std::size_t>(row)]);
      }
      scale *= T{1} - steps[k] * static_cast<T>(options_.l2);
      if (!(std::fabs(scale) > T(1e-6))) flush();
      for (std::size_t i = 0; i < size; ++i) {
        const SparseRow row = sparse_row(rows[begin + i]);
        const T f = scale == T{1} ? r[i] : r[i] / scale;
        for (std::size_t j = 0; j < row.values.size(); ++j) {
          w[static_cast<std::size_t>(row.columns[j])] += f * row.values[j];
        }
      }
      begin += size;
    }
    flush();
  }

  /// A coordinate that no row has touched for m steps is brought up to date when one does:
  /// w <- q^m w - step (1 + q + … + q^(m-1)) mean, q = 1 - step l2; its mean has not changed.
  void sparse_pass(const kernels::VarianceReducedPass<T>& pass) const {
    const std::size_t steps = pass.rows.count;
    const T q = T{1} - pass.step * pass.l2;
    std::vector<T> power(steps + 1), sum(steps + 1);
    power[0] = T{1};
    for (std::size_t m = 0; m < steps; ++m) {
      sum[m + 1] = sum[m] + power[m];
      power[m + 1] = power[m] * q;
    }
    std::vector<std::size_t> done(static_cast<std::size_t>(cols_));
    const auto catch_up = [&](std::size_t j, std::size_t k) {
      const std::size_t m = k - done[j];
      pass.w[j] = power[m] * pass.w[j] - pass.step * sum[m] * pass.mean[j];
      done[j] = k;
    };
    for (std::size_t k = 0; k < steps; ++k) {
      const auto at = static_cast<std::size_t>(
          pass.rows.rows == nullptr ? static_cast<std::int64_t>(k) : pass.rows.rows[k]);
      const SparseRow row = sparse_row(static_cast<Index>(at));
      for (const std::int32_t j : row.columns) catch_up(static_cast<std::size_t>(j), k);
      const T s = derivative(product(row, pass.w), y_[at]);
      const T delta = s - pass.table[at];
      // A column may stand in a row more than once: what all have in common comes first.
      for (const std::int32_t j : row.columns) catch_up(static_cast<std::size_t>(j), k + 1);
      for (std::size_t i = 0; i < row.values.size(); ++i) {
        const auto j = static_cast<std::size_t>(row.columns[i]);
        pass.w[j] -= pass.step * delta * row.values[i];
        if (pass.saga) pass.mean[j] += pass.share * delta * row.values[i];
      }
      if (pass.saga) pass.table[at] = s;
    }
    for (std::size_t j = 0; j < done.size(); ++j) catch_up(j, steps);
  }

  LinearObjectiveOptions options_;
  Index rows_;
  Index cols_;
  std::span<const T> y_;
  kernels::RowSet<T> set_;
  SparseRows<T> sparse_;
  NdArray<T, 2> copy_;
  double longest_ = 0;
};

}  // namespace stochastic
QUERN_NAMESPACE_END

#endif  // QUERN_STOCHASTIC_LINEAR_OBJECTIVE_HPP
