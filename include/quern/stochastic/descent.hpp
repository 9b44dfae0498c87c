// SPDX-License-Identifier: Apache-2.0

/// \file
/// One driver for finite sums: stochastic, mini-batch and full-batch gradient descent, SVRG, SAGA.
///
/// Any FiniteSum can be minimised. LinearObjective has passes of its own wherever no single update
/// is looked at (no path, average or projection): mini-batches of up to 1024 rows, and SVRG and
/// SAGA with constant steps and one row an update. SAGA's table is then one number a row, and the
/// l2 part of the gradient is exact instead of being in the table.

#ifndef QUERN_STOCHASTIC_DESCENT_HPP
#define QUERN_STOCHASTIC_DESCENT_HPP

#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/core/progress.hpp"
#include "quern/stochastic/averaging.hpp"
#include "quern/stochastic/finite_sum.hpp"
#include "quern/stochastic/run.hpp"
#include "quern/stochastic/step_size.hpp"
#include "quern/stochastic/variance_reduced.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace stochastic {

enum class Descent {
  gradient,  ///< the batch's gradient
  svrg,      ///< variance-reduced by a snapshot an epoch
  saga       ///< variance-reduced by a table
};

template <std::floating_point T = double>
struct DescentOptions {
  Descent method = Descent::gradient;
  Index batch = 1;  ///< rows an update, 0: all; SAGA takes 1
  Index epochs = 10;
  /// k counts updates. None: by the objective's smoothness L: 1 / (2 L + min(2 n l2, L)) for SVRG
  /// and SAGA, 1 / L for full batches and 1 / (2 L sqrt(epoch)) for smaller ones.
  std::optional<StepSize> step = {};
  RowOrder order = RowOrder::shuffled;
  std::uint64_t seed = 0;
  std::vector<std::int64_t> given_order = {};  ///< of each epoch, for RowOrder::given
  Projection<T> projection = {};
  bool average = false;            ///< keep the average of the iterates (PolyakAverage)
  std::int64_t burn_in = 0;        ///< iterates left out of it
  std::int64_t record_every = 0;   ///< the path holds every so many updates; 0: no path
  bool values = false;             ///< compute the objective after each epoch
  double tolerance = 0;            ///< stop when an epoch lowers the value by less; needs `values`
  ProgressCallback progress = {};  ///< once an epoch; may cancel (Cancelled is thrown)
};

template <std::floating_point T>
struct DescentResult {
  std::vector<T> w;
  std::optional<PolyakAverage> average;
  Path<T> path;
  std::vector<double> values;  ///< of the objective after each epoch
  std::int64_t updates = 0;
  std::int64_t epochs = 0;
};

namespace detail {

/// Objectives with passes of their own (LinearObjective).
template <class F>
concept HasPasses = requires(const F& f, std::span<typename F::Scalar> values,
                             std::span<const std::int64_t> rows, typename F::Scalar step) {
  f.derivatives(std::span<const typename F::Scalar>(values), values, values);
  f.variance_reduced_pass(rows, step, true, values, values, values);
  f.batch_pass(rows, Index{1}, std::span<const typename F::Scalar>(values), values);
};
template <class F>
concept HasSmoothness = requires(const F& f) {
  { f.smoothness() } -> std::convertible_to<double>;
  { f.options().l2 } -> std::convertible_to<double>;
};

inline constexpr const char* minimise_name = "quern::stochastic::minimise";

template <FiniteSum F, class T>
StepSize step_of(const F& f, const DescentOptions<T>& options) {
  if (options.step) return *options.step;
  if constexpr (HasSmoothness<F>) {
    const double smooth = f.smoothness(), n = static_cast<double>(f.rows());
    if (!(smooth > 0)) return 1.0;
    if (options.method != Descent::gradient) {
      return 1 / (2 * smooth + (std::min)(2 * n * f.options().l2, smooth));
    }
    const Index batch = options.batch;
    if (batch == 0 || batch >= f.rows()) return 1 / smooth;
    const double per_epoch = n / static_cast<double>(batch);
    return StepSize::power(0.5 * std::sqrt(per_epoch) / smooth, 0.5, per_epoch);
  }
  throw ValueError(error_text(minimise_name, "options.step",
                              "a step: this objective does not tell its smoothness", "none"));
}

/// A run in progress: what every method does after an update and after an epoch.
template <FiniteSum F, class T>
class DescentRun {
 public:
  DescentRun(const F& f, const DescentOptions<T>& options) : f_(f), options_(options) {
    const Index d = f.dimensions();
    result_.path = Path<T>(d);
    if (options.average) result_.average.emplace(d, options.burn_in);
  }
  void updated(std::span<const T> w) {
    const std::int64_t k = ++result_.updates;
    if (result_.average) result_.average->step(w);
    if (options_.record_every > 0 && k % options_.record_every == 0) result_.path.record(k, w);
  }
  void updated_many(std::int64_t count) { result_.updates += count; }
  /// False when the run is at its end.
  bool epoch_done(std::span<const T> w) {
    for (const T x : w) {
      if (!is_finite_bits(x)) {
        throw ValueError(error_text(
            minimise_name, "options.step", "steps short enough",
            "iterates that are not finite in epoch " + std::to_string(result_.epochs + 1)));
      }
    }
    ++result_.epochs;
    bool more = result_.epochs < options_.epochs;
    std::array<Metric, 1> metric = {Metric{"value", 0}};
    if (options_.values) {
      metric[0].value = f_.value(w, {});
      if (!result_.values.empty() && result_.values.back() - metric[0].value < options_.tolerance) {
        more = more && !(options_.tolerance > 0);
      }
      result_.values.push_back(metric[0].value);
    }
    if (options_.progress) {
      Progress progress{"epochs", result_.epochs, options_.epochs, {}};
      if (options_.values) progress.metrics = metric;
      report(options_.progress, minimise_name, progress);
    }
    return more;
  }
  [[nodiscard]] DescentResult<T> finish(std::span<const T> w) {
    result_.w.assign(w.begin(), w.end());
    return std::move(result_);
  }

 private:
  const F& f_;
  const DescentOptions<T>& options_;
  DescentResult<T> result_;
};

template <FiniteSum F, class T>
DescentResult<T> run_gradient(const F& f, std::span<const T> start, const StateOptions<T>& state,
                              const DescentOptions<T>& options) {
  DescentRun<F, T> run(f, options);
  StochasticGradient<T> method(f.rows(), start, state);
  std::vector<T> gradient(start.size());
  for (bool more = options.epochs > 0; more;) {
    const std::int64_t epoch = method.epoch();
    while (method.epoch() == epoch) {
      f.gradient(method.current(), method.batch(), std::span<T>(gradient));
      method.step(std::span<const T>(gradient));
      run.updated(method.current());
    }
    more = run.epoch_done(method.current());
  }
  return run.finish(method.current());
}

template <FiniteSum F, class T>
DescentResult<T> run_svrg(const F& f, std::span<const T> start, const StateOptions<T>& state,
                          const DescentOptions<T>& options) {
  DescentRun<F, T> run(f, options);
  Svrg<T> method(f.rows(), start, state);
  std::vector<T> gradient(start.size()), before(start.size());
  for (bool more = options.epochs > 0; more;) {
    f.gradient(method.current(), {}, std::span<T>(gradient));
    method.take_snapshot(gradient);
    while (!method.needs_snapshot()) {
      f.gradient(method.current(), method.batch(), std::span<T>(gradient));
      f.gradient(method.snapshot(), method.batch(), std::span<T>(before));
      method.step(gradient, before);
      run.updated(method.current());
    }
    more = run.epoch_done(method.current());
  }
  return run.finish(method.current());
}

template <FiniteSum F, class T>
DescentResult<T> run_saga(const F& f, std::span<const T> start, const StateOptions<T>& state,
                          const DescentOptions<T>& options) {
  DescentRun<F, T> run(f, options);
  Saga<T> method(f.rows(), start, state);
  std::vector<T> gradient(start.size());
  const auto row_gradient = [&](std::int64_t row) {
    f.gradient(method.current(), {&row, 1}, std::span<T>(gradient));
  };
  for (Index i = 0; i < f.rows() && options.epochs > 0; ++i) {
    row_gradient(i);
    method.set_table(i, gradient);
  }
  for (bool more = options.epochs > 0; more;) {
    const std::int64_t epoch = method.epoch();
    while (method.epoch() == epoch) {
      row_gradient(method.row());
      method.step(gradient);
      run.updated(method.current());
    }
    more = run.epoch_done(method.current());
  }
  return run.finish(method.current());
}

/// Mini-batches in whole passes.
template <HasPasses F, class T>
DescentResult<T> run_batch_passes(const F& f, std::span<const T> start,
                                  const StateOptions<T>& state, const DescentOptions<T>& options) {
  DescentRun<F, T> run(f, options);
  Batches batches(f.rows(), state.batch, state.order, state.seed, state.given_order);
  std::vector<T> w(start.begin(), start.end());
  std::vector<T> steps(static_cast<std::size_t>(batches.per_epoch()));
  std::int64_t k = 0;
  for (bool more = options.epochs > 0; more;) {
    for (T& step : steps) step = static_cast<T>(state.step(++k));
    f.batch_pass(batches.epoch_rows(), state.batch, std::span<const T>(steps), std::span<T>(w));
    run.updated_many(batches.per_epoch());
    more = run.epoch_done(w);
    if (more) batches.next_epoch();
  }
  return run.finish(w);
}

/// SVRG and SAGA in whole passes.
template <HasPasses F, class T>
DescentResult<T> run_passes(const F& f, std::span<const T> start, const StateOptions<T>& state,
                            const DescentOptions<T>& options) {
  DescentRun<F, T> run(f, options);
  const bool saga = options.method == Descent::saga;
  Batches batches(f.rows(), 1, state.order, state.seed, state.given_order);
  std::vector<T> w(start.begin(), start.end()), mean(start.size());
  std::vector<T> table(static_cast<std::size_t>(f.rows()));
  const T step = static_cast<T>(state.step(1));
  for (bool more = options.epochs > 0, first = true; more; first = false) {
    if (first || !saga)
      f.derivatives(std::span<const T>(w), std::span<T>(table), std::span<T>(mean));
    const std::span<const std::int64_t> rows = batches.epoch_rows();
    f.variance_reduced_pass(rows, step, saga, std::span<T>(table), std::span<T>(mean),
                            std::span<T>(w));
    run.updated_many(static_cast<std::int64_t>(rows.size()));
    more = run.epoch_done(w);
    if (more) batches.next_epoch();
  }
  return run.finish(w);
}

}  // namespace detail

/// Minimises a finite sum from `start`. ShapeError where it has another length than the objective
/// has dimensions; ValueError for options outside their domain, gradients that are not finite, and
/// steps so long that iterates overflow.
template <FiniteSum F, class T = typename F::Scalar>
[[nodiscard]] DescentResult<T> minimise(const F& f, const std::vector<T>& start,
                                        const DescentOptions<T>& options = {}) {
  const std::span<const T> from(start);
  detail::expect_start(detail::minimise_name, from);
  expect_size(detail::minimise_name, "start", static_cast<Index>(start.size()), f.dimensions(),
              "values, the objective's dimensions");
  const auto not_negative = [](const char* name, std::int64_t value) {
    if (value >= 0) return;
    throw ValueError(error_text(detail::minimise_name, name, "at least 0", value));
  };
  not_negative("epochs", options.epochs);
  not_negative("batch", options.batch);
  not_negative("record_every", options.record_every);
  StateOptions<T> state;
  state.step = detail::step_of(f, options);
  state.batch = options.batch;
  state.order = options.order;
  state.seed = options.seed;
  state.given_order = options.given_order;
  state.projection = options.projection;
  if constexpr (detail::HasPasses<F>) {
    const bool every_update = options.projection || options.average || options.record_every > 0;
    const bool one_row = options.method == Descent::saga || options.batch == 1;
    if (options.method == Descent::gradient) {
      if (!every_update && options.batch >= 1 && options.batch <= F::max_batch) {
        return detail::run_batch_passes(f, from, state, options);
      }
    } else if (!every_update && one_row && state.step.is_constant()) {
      return detail::run_passes(f, from, state, options);
    }
  }
  if (options.method == Descent::gradient) return detail::run_gradient(f, from, state, options);
  if (options.method == Descent::svrg) return detail::run_svrg(f, from, state, options);
  return detail::run_saga(f, from, state, options);
}

}  // namespace stochastic
QUERN_NAMESPACE_END

#endif  // QUERN_STOCHASTIC_DESCENT_HPP
