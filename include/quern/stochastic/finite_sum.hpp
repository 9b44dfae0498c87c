// SPDX-License-Identifier: Apache-2.0

/// \file
/// Objectives that are means over rows, F(w) = 1/n sum f_i(w): the concept, one made of callables,
/// and the order in which rows are visited.

#ifndef QUERN_STOCHASTIC_FINITE_SUM_HPP
#define QUERN_STOCHASTIC_FINITE_SUM_HPP

#include "quern/core/checks.hpp"
#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/core/nd_view.hpp"
#include "quern/core/random.hpp"
#include "quern/stochastic/run.hpp"

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <span>
#include <string>
#include <utility>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace stochastic {

/// A mean over rows. value(w, rows) is the mean of f_i over a batch, gradient(w, rows, out) writes
/// the mean of their gradients; a batch without rows means all of them.
template <class F>
concept FiniteSum = requires(const F& f, std::span<const typename F::Scalar> w,
                             std::span<const std::int64_t> rows,
                             std::span<typename F::Scalar> out) {
  { f.rows() } -> std::convertible_to<Index>;
  { f.dimensions() } -> std::convertible_to<Index>;
  { f.value(w, rows) } -> std::convertible_to<double>;
  f.gradient(w, rows, out);
};

/// A finite sum of callables: value(w, i) is f_i(w), gradient(w, i, out) overwrites out with its
/// gradient. Rows are summed in the batch's order.
template <std::floating_point T, class Value, class Gradient>
class FunctionSum {
 public:
  using Scalar = T;

  /// ShapeError unless rows and dimensions are at least 1.
  FunctionSum(Index rows, Index dimensions, Value value, Gradient gradient)
      : rows_(rows),
        dimensions_(dimensions),
        value_(std::move(value)),
        gradient_(std::move(gradient)) {
    if (rows < 1 || dimensions < 1) {
      throw ShapeError(error_text("quern::stochastic::FunctionSum", "rows, dimensions",
                                  "at least 1", (std::min)(rows, dimensions)));
    }
  }
  [[nodiscard]] Index rows() const noexcept { return rows_; }
  [[nodiscard]] Index dimensions() const noexcept { return dimensions_; }

  [[nodiscard]] double value(std::span<const T> w, std::span<const std::int64_t> rows = {}) const {
    const std::int64_t n = rows.empty() ? rows_ : static_cast<std::int64_t>(rows.size());
    double sum = 0;
    for (std::int64_t k = 0; k < n; ++k) sum += static_cast<double>(value_(w, row(rows, k)));
    return sum / static_cast<double>(n);
  }
  void gradient(std::span<const T> w, std::span<const std::int64_t> rows, std::span<T> out) const {
    const std::int64_t n = rows.empty() ? rows_ : static_cast<std::int64_t>(rows.size());
    if (n == 1) return gradient_(w, row(rows, 0), out);
    std::vector<T> one(out.size());
    std::fill(out.begin(), out.end(), T{0});
    for (std::int64_t k = 0; k < n; ++k) {
      gradient_(w, row(rows, k), std::span<T>(one));
      for (std::size_t j = 0; j < out.size(); ++j) out[j] += one[j];
    }
    for (T& g : out) g /= static_cast<T>(n);
  }

 private:
  static Index row(std::span<const std::int64_t> rows, std::int64_t k) {
    return rows.empty() ? k : rows[static_cast<std::size_t>(k)];
  }
  Index rows_;
  Index dimensions_;
  Value value_;
  Gradient gradient_;
};

/// FunctionSum with its types deduced: finite_sum<double>(rows, dimensions, value, gradient).
template <std::floating_point T, class Value, class Gradient>
[[nodiscard]] FunctionSum<T, Value, Gradient> finite_sum(Index rows, Index dimensions, Value value,
                                                         Gradient gradient) {
  return {rows, dimensions, std::move(value), std::move(gradient)};
}

/// In which order the rows of an epoch come.
enum class RowOrder {
  shuffled,    ///< a new random order each epoch
  given,       ///< 0, 1, 2, …, or the order of the options, the same each epoch
  independent  ///< drawn with replacement, as the theorems have it
};

/// Batches of rows, epoch after epoch.
class Batches {
 public:
  /// `batch` rows at a time, the last of an epoch holds what is left; 0: all rows. `order`: rows of
  /// an epoch where RowOrder::given; empty: 0, 1, …. ValueError for a batch below 0 and fewer
  /// than 1 row, ShapeError for rows of the order that are none.
  Batches(Index rows, Index batch, RowOrder kind, std::uint64_t seed,
          std::vector<std::int64_t> order = {})
      : batch_(static_cast<std::size_t>(batch == 0 || batch > rows ? rows : batch)),
        kind_(kind),
        seed_(seed),
        order_(std::move(order)) {
    constexpr const char* function = "quern::stochastic::Batches";
    if (rows < 1) throw ValueError(error_text(function, "rows", "at least 1", rows));
    if (batch < 0) throw ValueError(error_text(function, "batch", "at least 0", batch));
    for (const std::int64_t row : order_) {
      if (row < 0 || row >= rows) {
        throw ShapeError(error_text(function, "order", "rows 0.." + std::to_string(rows - 1), row));
      }
    }
    if (order_.empty()) {
      order_.resize(static_cast<std::size_t>(rows));
      std::iota(order_.begin(), order_.end(), std::int64_t{0});
    }
    begin_epoch();
  }
  /// The rows of the next update.
  [[nodiscard]] std::span<const std::int64_t> current() const {
    const std::size_t left = order_.size() - at_;
    return std::span<const std::int64_t>(order_).subspan(at_, left < batch_ ? left : batch_);
  }
  /// Goes on; true when that begins a new epoch.
  bool advance() {
    at_ += current().size();
    if (at_ < order_.size()) return false;
    ++epoch_;
    begin_epoch();
    return true;
  }
  /// All rows of this epoch in their order.
  [[nodiscard]] std::span<const std::int64_t> epoch_rows() const noexcept { return order_; }
  /// Leaves what is left of this epoch.
  void next_epoch() {
    at_ = order_.size();
    ++epoch_;
    begin_epoch();
  }
  [[nodiscard]] std::int64_t epoch() const noexcept { return epoch_; }  ///< finished ones
  [[nodiscard]] std::int64_t per_epoch() const noexcept {
    return static_cast<std::int64_t>((order_.size() + batch_ - 1) / batch_);
  }

 private:
  void begin_epoch() {
    at_ = 0;
    if (kind_ == RowOrder::given) return;
    Philox random(seed_, "row order", static_cast<std::uint64_t>(epoch_));
    if (kind_ == RowOrder::shuffled) {
      random.shuffle(order_);
    } else {
      for (std::int64_t& row : order_) {
        row = static_cast<std::int64_t>(random.integer(order_.size()));
      }
    }
  }

  std::size_t batch_;
  RowOrder kind_;
  std::uint64_t seed_;
  std::vector<std::int64_t> order_;
  std::size_t at_ = 0;
  std::int64_t epoch_ = 0;
};

}  // namespace stochastic
QUERN_NAMESPACE_END

#endif  // QUERN_STOCHASTIC_FINITE_SUM_HPP
