// SPDX-License-Identifier: Apache-2.0

/// \file
/// The root of E g(w) = level, seen through noise: Robbins and Monro's method for scalars and
/// vectors, projected, truncated (Chen), averaged (Polyak, Ruppert).
///
/// H. Robbins, S. Monro, "A stochastic approximation method", Ann. Math. Stat. 22 (1951);
/// J. R. Blum (1954) for vectors; H.-F. Chen, L. Guo, A. J. Gao, "Convergence and robustness of the
/// Robbins-Monro algorithm truncated at randomly varying bounds", Stoch. Proc. Appl. 27 (1988).

#ifndef QUERN_STOCHASTIC_ROBBINS_MONRO_HPP
#define QUERN_STOCHASTIC_ROBBINS_MONRO_HPP

#include "quern/core/checks.hpp"
#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/stochastic/averaging.hpp"
#include "quern/stochastic/conditions.hpp"
#include "quern/stochastic/run.hpp"
#include "quern/stochastic/step_size.hpp"

#include <algorithm>
#include <cmath>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace stochastic {

/// Chen's truncation at expanding bounds: an iterate whose length passes the bound is replaced by
/// the start, and the bound grows. So g may grow faster than linearly.
struct Truncation {
  double bound = 0;   ///< the first; 0: no truncation
  double growth = 2;  ///< factor after each, above 1
};

template <std::floating_point T = double>
struct RobbinsMonroOptions {
  StepSize step = StepSize::power(1, 0.75);
  Conditions conditions = Conditions::enforce;  ///< of Robbins and Monro, on the steps
  T level = T{0};                               ///< seek E g(w) = level
  Projection<T> projection = {};                ///< onto where the root is known to be
  Truncation truncation = {};
  bool average = true;       ///< keep the average of the iterates
  std::int64_t burn_in = 0;  ///< iterates left out of it
};

/// w <- w - a_k (g - level), for a g that increases through its root (give -g where it decreases).
template <std::floating_point T = double>
class RobbinsMonro {
 public:
  explicit RobbinsMonro(std::span<const T> start, RobbinsMonroOptions<T> options = {})
      : options_(std::move(options)),
        start_(start.begin(), start.end()),
        w_(start_),
        next_(start_),
        average_(static_cast<Index>(checked(start)), options_.burn_in),
        bound_(options_.truncation.bound) {
    constexpr const char* function = "quern::stochastic::RobbinsMonro";
    if (options_.conditions == Conditions::enforce) {
      expect_conditions(function, check_robbins_monro(options_.step));
    }
    expect_finite(function, "level", options_.level);
    detail::expect_not_negative(function, "truncation.bound", bound_);
    if (bound_ > 0 && (!(options_.truncation.growth > 1) || norm(w_) > bound_)) {
      throw ValueError(error_text(
          function, "truncation", "growth above 1 and a bound that the start keeps",
          detail::number_text(bound_) + " for a start of length " + detail::number_text(norm(w_))));
    }
  }
  explicit RobbinsMonro(const std::vector<T>& start, RobbinsMonroOptions<T> options = {})
      : RobbinsMonro(std::span<const T>(start), std::move(options)) {}

  /// Where g is to be observed next.
  [[nodiscard]] std::span<const T> current() const noexcept { return w_; }
  /// An observation of g there. ShapeError for another length, ValueError for values that are not
  /// finite and a step that overflows; the state is then as it was.
  void step(std::span<const T> observation) {
    constexpr const char* function = "quern::stochastic::RobbinsMonro::step";
    detail::expect_observation(function, observation, w_.size(), steps_ + 1);
    const T a = static_cast<T>(options_.step(steps_ + 1));
    for (std::size_t j = 0; j < w_.size(); ++j) {
      next_[j] =
          w_[j] - a * (options_.level == T{0} ? observation[j] : observation[j] - options_.level);
    }
    if (options_.projection) options_.projection(next_);
    const bool outside = bound_ > 0 && !(norm(next_) <= bound_);
    if (!outside) detail::expect_iterate<T>(function, next_, steps_ + 1);
    ++steps_;
    std::copy(next_.begin(), next_.end(), w_.begin());
    if (outside) {
      w_ = start_;
      bound_ *= options_.truncation.growth;
      ++truncations_;
    }
    if (options_.average) average_.step(std::span<const T>(w_));
  }
  void step(const std::vector<T>& observation) { step(std::span<const T>(observation)); }

  [[nodiscard]] std::int64_t steps() const noexcept { return steps_; }
  [[nodiscard]] std::int64_t truncations() const noexcept { return truncations_; }
  /// Of the iterates, with intervals; empty where the options say no average.
  [[nodiscard]] const PolyakAverage& average() const noexcept { return average_; }
  [[nodiscard]] const RobbinsMonroOptions<T>& options() const noexcept { return options_; }

 private:
  static std::size_t checked(std::span<const T> start) {
    detail::expect_start("quern::stochastic::RobbinsMonro", start);
    return start.size();
  }
  [[nodiscard]] static double norm(const std::vector<T>& w) {
    double squares = 0;
    for (const T x : w) squares += static_cast<double>(x) * static_cast<double>(x);
    return std::sqrt(squares);
  }

  RobbinsMonroOptions<T> options_;
  std::vector<T> start_;
  std::vector<T> w_;
  std::vector<T> next_;
  PolyakAverage average_;
  double bound_;
  std::int64_t steps_ = 0;
  std::int64_t truncations_ = 0;
};

/// What a run returns.
template <class T>
struct RunResult {
  std::vector<T> w;       ///< the last iterate
  PolyakAverage average;  ///< of all iterates
  Path<T> path;           ///< as RunOptions::record_every says
  std::int64_t truncations = 0;
};

/// Runs Robbins and Monro's method: g(w, out) writes one noisy observation of g at w.
template <std::floating_point T, class G>
requires std::invocable<G&, std::span<const T>, std::span<T>>
[[nodiscard]] RunResult<T> robbins_monro(G&& g, const std::vector<T>& start,
                                         const RobbinsMonroOptions<T>& options = {},
                                         const RunOptions& run = {}) {
  RobbinsMonro<T> state(std::span<const T>(start), options);
  std::vector<T> observation(start.size());
  const auto body = [&] {
    g(state.current(), std::span<T>(observation));
    state.step(std::span<const T>(observation));
  };
  Path<T> path = detail::run_steps<T>("quern::stochastic::robbins_monro", "Robbins-Monro steps",
                                      run, body, [&] { return state.current(); });
  const std::span<const T> w = state.current();
  return {{w.begin(), w.end()}, state.average(), std::move(path), state.truncations()};
}
/// The same for one number: g(w) is one noisy observation.
template <std::floating_point T, class G>
requires std::invocable<G&, T>
[[nodiscard]] RunResult<T> robbins_monro(G&& g, T start, const RobbinsMonroOptions<T>& options = {},
                                         const RunOptions& run = {}) {
  const auto vector = [&](std::span<const T> w, std::span<T> out) { out[0] = g(w[0]); };
  return robbins_monro<T>(vector, std::vector<T>{start}, options, run);
}

}  // namespace stochastic
QUERN_NAMESPACE_END

#endif  // QUERN_STOCHASTIC_ROBBINS_MONRO_HPP
