// SPDX-License-Identifier: Apache-2.0

/// \file
/// Stochastic gradient descent, SVRG and SAGA as states: what is asked for is a batch of rows, what
/// is told is its gradient. descent.hpp runs them.
///
/// R. Johnson, T. Zhang, "Accelerating stochastic gradient descent using predictive variance
/// reduction", NIPS 2013; A. Defazio, F. Bach, S. Lacoste-Julien, "SAGA: a fast incremental
/// gradient method with support for non-strongly convex composite objectives", NIPS 2014.

#ifndef QUERN_STOCHASTIC_VARIANCE_REDUCED_HPP
#define QUERN_STOCHASTIC_VARIANCE_REDUCED_HPP

#include "quern/core/checks.hpp"
#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/core/nd_array.hpp"
#include "quern/stochastic/finite_sum.hpp"
#include "quern/stochastic/run.hpp"
#include "quern/stochastic/step_size.hpp"

#include <algorithm>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace stochastic {

/// What the three states share.
template <std::floating_point T = double>
struct StateOptions {
  StepSize step = 0.1;  ///< k counts updates
  Index batch = 1;      ///< rows an update; 0: all
  RowOrder order = RowOrder::shuffled;
  std::uint64_t seed = 0;
  std::vector<std::int64_t> given_order = {};  ///< of each epoch, for RowOrder::given
  Projection<T> projection = {};
};

/// w <- w - a_k (gradient of a batch): stochastic, mini-batch or full, as the batch says.
template <std::floating_point T = double>
class StochasticGradient {
 public:
  StochasticGradient(Index rows, std::span<const T> start, StateOptions<T> options = {})
      : options_(std::move(options)),
        batches_(rows, options_.batch, options_.order, options_.seed, options_.given_order),
        w_(start.begin(), start.end()),
        next_(w_) {
    detail::expect_start("quern::stochastic::StochasticGradient", start);
  }
  /// The rows whose mean gradient at current() is wanted next.
  [[nodiscard]] std::span<const std::int64_t> batch() const { return batches_.current(); }
  [[nodiscard]] std::span<const T> current() const noexcept { return w_; }
  /// ShapeError for another length, ValueError for values that are not finite and a step that
  /// overflows; the state is then as it was.
  void step(std::span<const T> gradient) {
    detail::expect_observation("quern::stochastic::StochasticGradient::step", gradient, w_.size(),
                               steps_ + 1);
    move(gradient);
    batches_.advance();
  }
  [[nodiscard]] std::int64_t steps() const noexcept { return steps_; }
  [[nodiscard]] std::int64_t epoch() const noexcept { return batches_.epoch(); }

 protected:
  /// w <- w - a_k direction, projected.
  void move(std::span<const T> direction) {
    const T a = static_cast<T>(options_.step(steps_ + 1));
    for (std::size_t j = 0; j < w_.size(); ++j) next_[j] = w_[j] - a * direction[j];
    if (options_.projection) options_.projection(next_);
    detail::expect_iterate<T>("quern::stochastic::StochasticGradient::step", next_, steps_ + 1);
    ++steps_;
    std::copy(next_.begin(), next_.end(), w_.begin());
  }

  StateOptions<T> options_;
  Batches batches_;
  std::vector<T> w_;
  std::vector<T> next_;
  std::int64_t steps_ = 0;
};

/// Stochastic variance-reduced gradient: at each epoch's start the full gradient m at a snapshot,
/// then w <- w - a_k (g_batch(w) - g_batch(snapshot) + m).
template <std::floating_point T = double>
class Svrg : private StochasticGradient<T> {
  using Base = StochasticGradient<T>;

 public:
  Svrg(Index rows, std::span<const T> start, StateOptions<T> options = {})
      : Base(rows, start, std::move(options)), direction_(start.size()) {}
  using Base::batch;
  using Base::current;
  using Base::epoch;
  using Base::steps;

  /// True when snapshot() is to be called before the next step.
  [[nodiscard]] bool needs_snapshot() const noexcept { return needs_snapshot_; }
  /// Where the snapshot is; its gradient of batch() is wanted beside current()'s.
  [[nodiscard]] std::span<const T> snapshot() const noexcept { return snapshot_; }
  /// Makes current() the snapshot; `gradient` is the full one there.
  void take_snapshot(std::span<const T> gradient) {
    detail::expect_observation("quern::stochastic::Svrg::take_snapshot", gradient, this->w_.size(),
                               this->steps_ + 1);
    snapshot_ = this->w_;
    mean_.assign(gradient.begin(), gradient.end());
    needs_snapshot_ = false;
  }
  /// Gradients of batch() at current() and at snapshot(). ValueError while a snapshot is needed.
  void step(std::span<const T> gradient, std::span<const T> snapshot_gradient) {
    constexpr const char* function = "quern::stochastic::Svrg::step";
    detail::expect_observation(function, gradient, mean_size(), this->steps_ + 1);
    detail::expect_observation(function, snapshot_gradient, mean_size(), this->steps_ + 1);
    if (needs_snapshot_) {
      throw ValueError(error_text(function, "state", "a snapshot of this epoch", "none"));
    }
    for (std::size_t j = 0; j < direction_.size(); ++j) {
      direction_[j] = gradient[j] - snapshot_gradient[j] + mean_[j];
    }
    this->move(direction_);
    needs_snapshot_ = this->batches_.advance();
  }

 private:
  [[nodiscard]] std::size_t mean_size() const noexcept { return direction_.size(); }

  std::vector<T> direction_;
  std::vector<T> snapshot_;
  std::vector<T> mean_;
  bool needs_snapshot_ = true;
};

/// SAGA with a table of one gradient a row: w <- w - a_k (g_i(w) - table_i + mean of the table),
/// then table_i <- g_i(w). Rows come one at a time. (For linear models minimise() keeps one number
/// a row instead.)
template <std::floating_point T = double>
class Saga : private StochasticGradient<T> {
  using Base = StochasticGradient<T>;

 public:
  /// `options.batch` has no meaning here. The table begins with zeros, see set_table().
  Saga(Index rows, std::span<const T> start, StateOptions<T> options = {})
      : Base(rows, start, one_row(std::move(options))),
        table_({rows, static_cast<Index>(start.size())}),
        mean_(start.size()),
        direction_(start.size()) {}
  using Base::current;
  using Base::epoch;
  using Base::steps;

  /// The row whose gradient at current() is wanted next.
  [[nodiscard]] Index row() const { return this->batch()[0]; }
  /// Puts a row's gradient into the table and makes no step; for the start.
  void set_table(Index row, std::span<const T> gradient) {
    constexpr const char* function = "quern::stochastic::Saga::set_table";
    detail::expect_place(function, "row", row, table_.extent(0));
    detail::expect_observation(function, gradient, mean_.size(), this->steps_ + 1);
    replace(row, gradient);
  }
  void step(std::span<const T> gradient) {
    detail::expect_observation("quern::stochastic::Saga::step", gradient, mean_.size(),
                               this->steps_ + 1);
    const Index i = row();
    const T* old = &table_(i, 0);
    for (std::size_t j = 0; j < direction_.size(); ++j) {
      direction_[j] = gradient[j] - old[j] + mean_[j];
    }
    this->move(direction_);
    replace(i, gradient);
    this->batches_.advance();
  }

 private:
  static StateOptions<T> one_row(StateOptions<T> options) {
    options.batch = 1;
    return options;
  }
  void replace(Index i, std::span<const T> gradient) {
    T* old = &table_(i, 0);
    const T n = static_cast<T>(table_.extent(0));
    for (std::size_t j = 0; j < mean_.size(); ++j) {
      mean_[j] += (gradient[j] - old[j]) / n;
      old[j] = gradient[j];
    }
  }

  NdArray<T, 2> table_;
  std::vector<T> mean_;
  std::vector<T> direction_;
};

}  // namespace stochastic
QUERN_NAMESPACE_END

#endif  // QUERN_STOCHASTIC_VARIANCE_REDUCED_HPP
