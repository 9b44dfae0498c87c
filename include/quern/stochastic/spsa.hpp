// SPDX-License-Identifier: Apache-2.0

/// \file
/// The minimum of E f(w) from two noisy values a step, whatever the dimension: simultaneous
/// perturbation (SPSA), with gains that are tuned by a few values at the start.
///
/// J. C. Spall, "Multivariate stochastic approximation using a simultaneous perturbation gradient
/// approximation", IEEE TAC 37 (1992); gains: "Implementation of the simultaneous perturbation
/// algorithm for stochastic optimization", IEEE TAES 34 (1998).

#ifndef QUERN_STOCHASTIC_SPSA_HPP
#define QUERN_STOCHASTIC_SPSA_HPP

#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/core/nd_view.hpp"
#include "quern/core/random.hpp"
#include "quern/stochastic/conditions.hpp"
#include "quern/stochastic/kiefer_wolfowitz.hpp"
#include "quern/stochastic/robbins_monro.hpp"
#include "quern/stochastic/run.hpp"
#include "quern/stochastic/running.hpp"
#include "quern/stochastic/step_size.hpp"

#include <algorithm>
#include <cmath>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <utility>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace stochastic {

/// Spall's gains: a_k = a / (k + A)^alpha, c_k = c / k^gamma.
struct SpsaGains {
  double a = 0.1;
  double c = 0.1;
  double stability = 0;  ///< A; a tenth of the steps to come is usual
  double alpha = 0.602;  ///< 1 is best asymptotically, .602 is the least that converges
  double gamma = 0.101;  ///< 1/6 is best asymptotically
  [[nodiscard]] StepSize step() const { return StepSize::power(a, alpha, stability); }
  [[nodiscard]] StepSize span() const { return StepSize::power(c, gamma); }
};

/// Fills one direction for step k >= 1; values +1 or -1 (any without mass near 0 are right).
template <class T>
using Directions = std::function<void(std::int64_t k, std::span<T> direction)>;

template <std::floating_point T = double>
struct SpsaOptions {
  StepSize step = SpsaGains{}.step();
  StepSize span = SpsaGains{}.span();
  Conditions conditions = Conditions::enforce;  ///< Spall's, on both
  int pairs = 1;                                ///< directions that a step averages over
  double max_move = 0;            ///< a coordinate's longest step; 0: as long as it comes
  std::uint64_t seed = 0;         ///< of the directions
  Directions<T> directions = {};  ///< of the caller's own; called `pairs` times a step
  Projection<T> projection = {};  ///< of iterates; points asked for may be outside
  Truncation truncation = {};
  bool average = true;
  std::int64_t burn_in = 0;
};

/// w <- w - a_k (f(w + c_k D) - f(w - c_k D)) / (2 c_k D), division per coordinate.
template <std::floating_point T = double>
class Spsa {
 public:
  explicit Spsa(std::span<const T> start, SpsaOptions<T> options = {})
      : options_(std::move(options)), descent_(start, detail::descent_of<T>(options_)) {
    constexpr const char* function = "quern::stochastic::Spsa";
    if (options_.pairs < 1) {
      throw ValueError(error_text(function, "pairs", "at least 1", options_.pairs));
    }
    detail::expect_not_negative(function, "max_move", options_.max_move);
    if (options_.conditions == Conditions::enforce) {
      expect_conditions(function, check_kiefer_wolfowitz(options_.step, options_.span, true));
    }
    const std::size_t pairs = static_cast<std::size_t>(options_.pairs);
    directions_.resize(pairs * start.size());
    points_.resize(2 * directions_.size());
    gradient_.resize(start.size());
    draw();
  }
  explicit Spsa(const std::vector<T>& start, SpsaOptions<T> options = {})
      : Spsa(std::span<const T>(start), std::move(options)) {}

  /// The points where f is to be observed next, a row each: w + c D_1, w - c D_1, w + c D_2, …
  [[nodiscard]] MatrixView<const T> ask() {
    const std::span<const T> w = descent_.current();
    const T c = span_now();
    const std::size_t d = w.size();
    for (std::size_t i = 0; i < directions_.size(); ++i) {
      const std::size_t pair = i / d, j = i % d;
      points_[2 * pair * d + j] = w[j] + c * directions_[i];
      points_[(2 * pair + 1) * d + j] = w[j] - c * directions_[i];
    }
    const auto columns = static_cast<Index>(d);
    return MatrixView<const T>(points_.data(), {Index{2} * options_.pairs, columns});
  }
  /// The values of f at ask()'s rows. ShapeError for another number of them, ValueError for values
  /// that are not finite.
  void step(std::span<const T> values) {
    detail::expect_observation("quern::stochastic::Spsa::step", values,
                               2 * static_cast<std::size_t>(options_.pairs), steps() + 1);
    const T c = span_now();
    const std::size_t d = gradient_.size();
    std::fill(gradient_.begin(), gradient_.end(), T{0});
    for (std::size_t p = 0; 2 * p < values.size(); ++p) {
      const T difference = values[2 * p] - values[2 * p + 1];
      for (std::size_t j = 0; j < d; ++j) {
        gradient_[j] += difference / (2 * c * directions_[p * d + j]);
      }
    }
    if (options_.pairs > 1) {
      for (T& g : gradient_) g /= static_cast<T>(options_.pairs);
    }
    if (options_.max_move > 0) {
      const T most = static_cast<T>(options_.max_move / options_.step(steps() + 1));
      for (T& g : gradient_) g = (std::clamp)(g, -most, most);
    }
    descent_.step(std::span<const T>(gradient_));
    draw();
  }
  void step(const std::vector<T>& values) { step(std::span<const T>(values)); }

  [[nodiscard]] std::span<const T> current() const noexcept { return descent_.current(); }
  [[nodiscard]] std::int64_t steps() const noexcept { return descent_.steps(); }
  [[nodiscard]] std::int64_t truncations() const noexcept { return descent_.truncations(); }
  [[nodiscard]] const PolyakAverage& average() const noexcept { return descent_.average(); }

 private:
  [[nodiscard]] T span_now() const { return static_cast<T>(options_.span(descent_.steps() + 1)); }
  /// The next step's directions.
  void draw() {
    const std::int64_t k = descent_.steps() + 1;
    const std::size_t d = gradient_.size();
    Philox random(options_.seed, "spsa directions", static_cast<std::uint64_t>(k));
    for (std::size_t p = 0; p < directions_.size(); p += d) {
      const std::span<T> direction = std::span<T>(directions_).subspan(p, d);
      if (options_.directions) {
        options_.directions(k, direction);
      } else {
        for (T& x : direction) x = random.next_u32() >> 31 ? T{1} : T{-1};
      }
      for (const T x : direction) {
        if (is_finite_bits(x) && x != T{0}) continue;
        throw ValueError(
            error_text("quern::stochastic::Spsa", "directions", "finite values other than 0", x));
      }
    }
  }

  SpsaOptions<T> options_;
  RobbinsMonro<T> descent_;
  std::vector<T> directions_;
  std::vector<T> points_;
  std::vector<T> gradient_;
};

/// How gains are tuned.
struct SpsaTuning {
  std::int64_t steps = 1000;  ///< of the run to come
  double initial_move = 0.1;  ///< about how far a coordinate should move in the first steps
  int repeats = 8;            ///< values at the start, for the noise's size
  int pairs = 8;              ///< directions, for the gradient's size
  double least_span = 0;      ///< c at least; 0: a tenth of initial_move
  std::uint64_t seed = 0;
};

/// Gains by Spall's guidelines, from repeats + 2 pairs values of f: A is a tenth of the steps, c
/// the deviation of the noise at the start (at least least_span), and a such that the first steps
/// move the coordinates by initial_move. ValueError where f gives values that are not finite, or is
/// flat.
template <std::floating_point T, class F>
requires std::invocable<F&, std::span<const T>>
[[nodiscard]] SpsaGains tune_spsa(F&& f, const std::vector<T>& start,
                                  const SpsaTuning& tuning = {}) {
  constexpr const char* function = "quern::stochastic::tune_spsa";
  detail::expect_positive(function, "initial_move", tuning.initial_move);
  if (tuning.steps < 1 || tuning.repeats < 2 || tuning.pairs < 1) {
    throw ValueError(error_text(function, "tuning", "steps >= 1, repeats >= 2, pairs >= 1",
                                std::to_string(tuning.steps) + ", " +
                                    std::to_string(tuning.repeats) + ", " +
                                    std::to_string(tuning.pairs)));
  }
  const auto value = [&](std::span<const T> w) {
    const double y = static_cast<double>(f(w));
    expect_finite(function, "f's value", y);
    return y;
  };
  RunningMoments noise;
  for (int i = 0; i < tuning.repeats; ++i) noise.step(value(start));
  SpsaGains gains;
  gains.stability = std::floor(0.1 * static_cast<double>(tuning.steps));
  const double least = tuning.least_span > 0 ? tuning.least_span : 0.1 * tuning.initial_move;
  gains.c = (std::max)(std::sqrt(noise.sample_variance()), least);
  RunningMoments slopes;
  std::vector<T> direction(start.size()), point(start.size());
  for (int p = 0; p < tuning.pairs; ++p) {
    Philox random(tuning.seed, "spsa tuning", static_cast<std::uint64_t>(p));
    for (T& x : direction) x = random.next_u32() >> 31 ? T{1} : T{-1};
    double difference = 0;
    for (const double side : {1.0, -1.0}) {
      for (std::size_t j = 0; j < point.size(); ++j) {
        point[j] = start[j] + static_cast<T>(side * gains.c) * direction[j];
      }
      difference += side * value(point);
    }
    slopes.step(std::fabs(difference) / (2 * gains.c));
  }
  if (!(slopes.mean() > 0)) {
    throw ValueError(
        error_text(function, "f", "values that differ around the start", "equal ones"));
  }
  gains.a = tuning.initial_move * std::pow(gains.stability + 1, gains.alpha) / slopes.mean();
  return gains;
}

/// Minimises E f: f(w) is one noisy value at a point.
template <std::floating_point T, class F>
requires std::invocable<F&, std::span<const T>>
[[nodiscard]] RunResult<T> spsa(F&& f, const std::vector<T>& start,
                                const SpsaOptions<T>& options = {}, const RunOptions& run = {}) {
  Spsa<T> state(std::span<const T>(start), options);
  return detail::run_ask_and_tell<T>("quern::stochastic::spsa", "SPSA steps", state, f, run);
}

}  // namespace stochastic
QUERN_NAMESPACE_END

#endif  // QUERN_STOCHASTIC_SPSA_HPP
