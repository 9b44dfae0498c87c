// SPDX-License-Identifier: Apache-2.0

/// \file
/// The minimum of E f(w) from noisy values alone: Kiefer and Wolfowitz's central differences, two
/// observations a coordinate and step.
///
/// J. Kiefer, J. Wolfowitz, "Stochastic estimation of the maximum of a regression function", Ann.
/// Math. Stat. 23 (1952); J. R. Blum (1954) for vectors.

#ifndef QUERN_STOCHASTIC_KIEFER_WOLFOWITZ_HPP
#define QUERN_STOCHASTIC_KIEFER_WOLFOWITZ_HPP

#include "quern/core/config.hpp"
#include "quern/core/nd_view.hpp"
#include "quern/stochastic/conditions.hpp"
#include "quern/stochastic/robbins_monro.hpp"
#include "quern/stochastic/run.hpp"
#include "quern/stochastic/step_size.hpp"

#include <concepts>
#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace stochastic {

template <std::floating_point T = double>
struct KieferWolfowitzOptions {
  StepSize step = StepSize::harmonic(1);
  StepSize span = StepSize::power(1, 1.0 / 6);  ///< c_k; with steps a/k the best rate, k^(-2/3)
  Conditions conditions = Conditions::enforce;  ///< of Kiefer and Wolfowitz
  Projection<T> projection = {};                ///< of iterates; points asked for may be outside
  Truncation truncation = {};
  bool average = true;
  std::int64_t burn_in = 0;
};

namespace detail {

template <class T, class Options>
RobbinsMonroOptions<T> descent_of(const Options& options) {
  RobbinsMonroOptions<T> inner;
  inner.step = options.step;
  inner.conditions = Conditions::ignore;  // the method has conditions of its own
  inner.projection = options.projection;
  inner.truncation = options.truncation;
  inner.average = options.average;
  inner.burn_in = options.burn_in;
  return inner;
}

}  // namespace detail

/// w_j <- w_j - a_k (f(w + c_k e_j) - f(w - c_k e_j)) / (2 c_k).
template <std::floating_point T = double>
class KieferWolfowitz {
 public:
  explicit KieferWolfowitz(std::span<const T> start, KieferWolfowitzOptions<T> options = {})
      : span_size_(options.span),
        descent_(start, detail::descent_of<T>(options)),
        points_(2 * start.size() * start.size()),
        gradient_(start.size()) {
    if (options.conditions == Conditions::enforce) {
      expect_conditions("quern::stochastic::KieferWolfowitz",
                        check_kiefer_wolfowitz(options.step, options.span));
    }
  }
  explicit KieferWolfowitz(const std::vector<T>& start, KieferWolfowitzOptions<T> options = {})
      : KieferWolfowitz(std::span<const T>(start), std::move(options)) {}

  /// The points where f is to be observed next, a row each: w + c e_1, w - c e_1, w + c e_2, …
  [[nodiscard]] MatrixView<const T> ask() {
    const std::span<const T> w = descent_.current();
    const T c = span_now();
    for (std::size_t j = 0; j < w.size(); ++j) {
      for (std::size_t side = 0; side < 2; ++side) {
        T* point = points_.data() + (2 * j + side) * w.size();
        for (std::size_t i = 0; i < w.size(); ++i) point[i] = w[i];
        point[j] = side == 0 ? w[j] + c : w[j] - c;
      }
    }
    const auto d = static_cast<Index>(w.size());
    return MatrixView<const T>(points_.data(), {2 * d, d});
  }
  /// The values of f at ask()'s rows. ShapeError for another number of them, ValueError for values
  /// that are not finite.
  void step(std::span<const T> values) {
    detail::expect_observation("quern::stochastic::KieferWolfowitz::step", values,
                               2 * gradient_.size(), steps() + 1);
    const T c = span_now();
    for (std::size_t j = 0; j < gradient_.size(); ++j) {
      gradient_[j] = (values[2 * j] - values[2 * j + 1]) / (2 * c);
    }
    descent_.step(std::span<const T>(gradient_));
  }
  void step(const std::vector<T>& values) { step(std::span<const T>(values)); }

  [[nodiscard]] std::span<const T> current() const noexcept { return descent_.current(); }
  [[nodiscard]] std::int64_t steps() const noexcept { return descent_.steps(); }
  [[nodiscard]] std::int64_t truncations() const noexcept { return descent_.truncations(); }
  [[nodiscard]] const PolyakAverage& average() const noexcept { return descent_.average(); }

 private:
  [[nodiscard]] T span_now() const { return static_cast<T>(span_size_(descent_.steps() + 1)); }

  StepSize span_size_;
  RobbinsMonro<T> descent_;
  std::vector<T> points_;
  std::vector<T> gradient_;
};

namespace detail {

/// Runs a state that asks for points and is told values of f(point).
template <class T, class State, class F>
RunResult<T> run_ask_and_tell(const char* function, const char* what, State& state, F& f,
                              const RunOptions& run) {
  std::vector<T> values;
  const auto body = [&] {
    const MatrixView<const T> points = state.ask();
    values.resize(static_cast<std::size_t>(points.rows()));
    for (Index i = 0; i < points.rows(); ++i) {
      const std::span<const T> point(points.row(i).data(), static_cast<std::size_t>(points.cols()));
      values[static_cast<std::size_t>(i)] = static_cast<T>(f(point));
    }
    state.step(std::span<const T>(values));
  };
  Path<T> path = run_steps<T>(function, what, run, body, [&] { return state.current(); });
  const std::span<const T> w = state.current();
  return {{w.begin(), w.end()}, state.average(), std::move(path), state.truncations()};
}

}  // namespace detail

/// Minimises E f: f(w) is one noisy value at a point.
template <std::floating_point T, class F>
requires std::invocable<F&, std::span<const T>>
[[nodiscard]] RunResult<T> kiefer_wolfowitz(F&& f, const std::vector<T>& start,
                                            const KieferWolfowitzOptions<T>& options = {},
                                            const RunOptions& run = {}) {
  KieferWolfowitz<T> state(std::span<const T>(start), options);
  return detail::run_ask_and_tell<T>("quern::stochastic::kiefer_wolfowitz",
                                     "Kiefer-Wolfowitz steps", state, f, run);
}

}  // namespace stochastic
QUERN_NAMESPACE_END

#endif  // QUERN_STOCHASTIC_KIEFER_WOLFOWITZ_HPP
