// SPDX-License-Identifier: Apache-2.0

/// \file
/// What runs of stochastic approximation share: their options, their path, projections.

#ifndef QUERN_STOCHASTIC_RUN_HPP
#define QUERN_STOCHASTIC_RUN_HPP

#include "quern/core/checks.hpp"
#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/core/nd_view.hpp"
#include "quern/core/progress.hpp"
#include "quern/stochastic/step_size.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace stochastic {

/// Options of a run.
struct RunOptions {
  std::int64_t steps = 1000;       ///< updates to make
  std::int64_t record_every = 0;   ///< the path holds every so many steps; 0: no path
  ProgressCallback progress = {};  ///< may cancel (Cancelled is thrown)
  std::int64_t report_every = 0;   ///< steps between reports; 0: a hundredth of the run
};

/// The iterates that a run was asked to keep. The start is not among them.
template <class T>
class Path {
 public:
  Path() = default;
  explicit Path(Index dimensions) : dimensions_(dimensions) {}

  void record(std::int64_t step, std::span<const T> w) {
    steps_.push_back(step);
    values_.insert(values_.end(), w.begin(), w.end());
  }
  [[nodiscard]] Index size() const noexcept { return static_cast<Index>(steps_.size()); }
  [[nodiscard]] bool empty() const noexcept { return steps_.empty(); }
  /// Number of updates before each kept iterate.
  [[nodiscard]] const std::vector<std::int64_t>& steps() const noexcept { return steps_; }
  /// (kept iterates) x (dimensions).
  [[nodiscard]] MatrixView<const T> values() const {
    return MatrixView<const T>(values_.data(), {size(), dimensions_});
  }
  /// Row i of it.
  [[nodiscard]] std::span<const T> row(Index i) const {
    const auto d = static_cast<std::size_t>(dimensions_);
    return std::span<const T>(values_).subspan(static_cast<std::size_t>(i) * d, d);
  }

 private:
  Index dimensions_ = 0;
  std::vector<std::int64_t> steps_;
  std::vector<T> values_;
};

/// Puts a point back into the set of allowed ones, in place.
template <class T>
using Projection = std::function<void(std::span<T>)>;

/// Every coordinate into [low, high]. ValueError unless low <= high.
template <class T>
[[nodiscard]] Projection<T> project_on_box(T low, T high) {
  if (!(low <= high)) {
    throw ValueError(error_text("quern::stochastic::project_on_box", "high", "at least low", high));
  }
  return [low, high](std::span<T> w) {
    for (T& x : w) x = (std::clamp)(x, low, high);
  };
}

/// Into the ball around the origin. ValueError unless radius > 0.
template <class T>
[[nodiscard]] Projection<T> project_on_ball(T radius) {
  detail::expect_positive("quern::stochastic::project_on_ball", "radius",
                          static_cast<double>(radius));
  return [radius](std::span<T> w) {
    double squares = 0;
    for (const T x : w) squares += static_cast<double>(x) * static_cast<double>(x);
    const double norm = std::sqrt(squares);
    if (norm <= static_cast<double>(radius)) return;
    const double factor = static_cast<double>(radius) / norm;
    for (T& x : w) x = static_cast<T>(static_cast<double>(x) * factor);
  };
}

namespace detail {

/// ShapeError when an observation has another length than what is estimated; ValueError, naming
/// place and step, when one of its values is not finite.
template <class T>
void expect_observation(const char* function, std::span<const T> got, std::size_t wanted,
                        std::int64_t step) {
  if (got.size() != wanted) {
    throw ShapeError(error_text(function, "observation",
                                std::to_string(wanted) + " values, as at every step",
                                std::to_string(got.size()) + " at step " + std::to_string(step)));
  }
  for (std::size_t i = 0; i < got.size(); ++i) {
    if (is_finite_bits(got[i])) continue;
    throw ValueError(error_text(function, "observation", "finite values",
                                std::string(is_nan_bits(got[i]) ? "NaN" : "infinity") +
                                    " at place " + std::to_string(i) + " of step " +
                                    std::to_string(step)));
  }
}

/// ValueError when a step has led to an iterate that is not finite.
template <class T>
void expect_iterate(const char* function, std::span<const T> w, std::int64_t step) {
  for (std::size_t i = 0; i < w.size(); ++i) {
    if (is_finite_bits(w[i])) continue;
    throw ValueError(error_text(function, "options.step", "steps short enough",
                                "an iterate that is not finite at place " + std::to_string(i) +
                                    " after step " + std::to_string(step)));
  }
}

template <class T>
void expect_start(const char* function, std::span<const T> start) {
  if (start.empty()) throw ShapeError(error_text(function, "start", "at least one value", 0));
  for (const T x : start) expect_finite(function, "start", x);
}

template <class T>
void expect_point(const char* function, std::size_t got, std::span<const T> w) {
  if (got == w.size()) return;
  throw ShapeError(error_text(function, "w", std::to_string(w.size()) + " values", got));
}

inline void expect_place(const char* function, const char* argument, Index got, Index size) {
  if (got >= 0 && got < size) return;
  throw ShapeError(error_text(function, argument, "0.." + std::to_string(size - 1), got));
}

inline void expect_run(const char* function, const RunOptions& options) {
  const auto check = [&](const char* name, std::int64_t value) {
    if (value < 0) throw ValueError(error_text(function, name, "at least 0", value));
  };
  check("steps", options.steps);
  check("record_every", options.record_every);
  check("report_every", options.report_every);
}

/// Calls body() options.steps times; current() is what the path keeps.
template <class T, class Body, class Current>
Path<T> run_steps(const char* function, std::string_view what, const RunOptions& options,
                  Body&& body, Current&& current) {
  expect_run(function, options);
  Path<T> path(static_cast<Index>(std::span<const T>(current()).size()));
  const std::int64_t every = options.report_every > 0
                                 ? options.report_every
                                 : (std::max)(options.steps / 100, std::int64_t{1});
  for (std::int64_t k = 1; k <= options.steps; ++k) {
    body();
    if (options.record_every > 0 && k % options.record_every == 0) path.record(k, current());
    if (options.progress && (k % every == 0 || k == options.steps)) {
      const Progress progress{what, k, options.steps, {}};
      report(options.progress, function, progress);
    }
  }
  return path;
}

}  // namespace detail
}  // namespace stochastic
QUERN_NAMESPACE_END

#endif  // QUERN_STOCHASTIC_RUN_HPP
