// SPDX-License-Identifier: Apache-2.0

/// \file
/// Values of states learnt from transitions: TD(0), tabular and linear, and Q-learning.
///
/// All three are Robbins-Monro: TD(0) seeks the root of g(V) = E[(V(s) - r - gamma V(s')) e_s],
/// whose observations are single transitions; Q-learning has the greedy value in place of V(s'). R.
/// S. Sutton, Machine Learning 3 (1988); C. J. C. H. Watkins, P. Dayan, Machine Learning 8 (1992);
/// T. Jaakkola, M. I. Jordan, S. P. Singh, Neural Computation 6 (1994); linear: J. N. Tsitsiklis,
/// B. Van Roy, IEEE TAC 42 (1997).

#ifndef QUERN_STOCHASTIC_TEMPORAL_DIFFERENCE_HPP
#define QUERN_STOCHASTIC_TEMPORAL_DIFFERENCE_HPP

#include "quern/core/checks.hpp"
#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/core/nd_view.hpp"
#include "quern/stochastic/run.hpp"
#include "quern/stochastic/step_size.hpp"

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

/// One observed transition.
struct Transition {
  Index state = 0;
  double reward = 0;
  Index next = 0;
  bool terminal = false;  ///< the episode ends here: `next` counts as worth 0
  Index action = 0;       ///< Q-learning's
};

struct TdOptions {
  double discount = 0.9;                  ///< gamma, in [0, 1]
  StepSize step = StepSize::harmonic(1);  ///< meets Robbins and Monro's conditions per state
  bool by_visits = true;                  ///< k counts a state's visits, else all steps
};

namespace detail {

inline void expect_discount(const char* function, double discount) {
  expect_in_range(function, "discount", discount, 0.0, 1.0);
}
inline std::size_t expect_count(const char* function, const char* argument, Index count) {
  if (count >= 1) return static_cast<std::size_t>(count);
  throw ShapeError(error_text(function, argument, "at least 1", count));
}
inline std::size_t place(Index i) { return static_cast<std::size_t>(i); }

}  // namespace detail

/// TD(0) with a table: V(s) <- V(s) + a_k (r + gamma V(s') - V(s)), from zeros.
class TabularTd {
 public:
  explicit TabularTd(Index states, TdOptions options = {})
      : options_(std::move(options)),
        values_(detail::expect_count("quern::stochastic::TabularTd", "states", states)),
        visits_(values_.size()) {
    detail::expect_discount("quern::stochastic::TabularTd", options_.discount);
  }
  /// ShapeError for a state that is none, ValueError for a reward that is not finite.
  void step(const Transition& t) {
    constexpr const char* function = "quern::stochastic::TabularTd::step";
    const auto states = static_cast<Index>(values_.size());
    detail::expect_place(function, "state", t.state, states);
    if (!t.terminal) detail::expect_place(function, "next", t.next, states);
    detail::expect_observation<double>(function, {&t.reward, 1}, 1, steps_ + 1);
    const std::int64_t visit = visits_[detail::place(t.state)] + 1;
    const double a = options_.step(options_.by_visits ? visit : steps_ + 1);  // may throw
    ++steps_;
    ++visits_[detail::place(t.state)];
    const double ahead = t.terminal ? 0.0 : values_[detail::place(t.next)];
    double& value = values_[detail::place(t.state)];
    value += a * (t.reward + options_.discount * ahead - value);
  }
  [[nodiscard]] std::span<const double> current() const noexcept { return values_; }
  [[nodiscard]] std::span<const std::int64_t> visits() const noexcept { return visits_; }
  [[nodiscard]] std::int64_t steps() const noexcept { return steps_; }

 private:
  TdOptions options_;
  std::vector<double> values_;
  std::vector<std::int64_t> visits_;
  std::int64_t steps_ = 0;
};

/// One transition between states that are known by features.
struct FeatureTransition {
  std::span<const double> features = {};
  double reward = 0;
  std::span<const double> next = {};  ///< empty: the episode ends here
};

/// TD(0) with a linear value x(s)'w: w <- w + a_k (r + gamma x(s')'w - x(s)'w) x(s), from zeros.
class LinearTd {
 public:
  /// `by_visits` of the options has no meaning here: k counts all steps.
  explicit LinearTd(Index dimensions, TdOptions options = {})
      : options_(std::move(options)),
        w_(detail::expect_count("quern::stochastic::LinearTd", "dimensions", dimensions)) {
    detail::expect_discount("quern::stochastic::LinearTd", options_.discount);
  }
  void step(const FeatureTransition& t) {
    constexpr const char* function = "quern::stochastic::LinearTd::step";
    detail::expect_observation(function, t.features, w_.size(), steps_ + 1);
    if (!t.next.empty()) detail::expect_observation(function, t.next, w_.size(), steps_ + 1);
    detail::expect_observation<double>(function, {&t.reward, 1}, 1, steps_ + 1);
    const double a = options_.step(steps_ + 1);  // may throw
    ++steps_;
    const double ahead = t.next.empty() ? 0.0 : value(t.next);
    const double difference = t.reward + options_.discount * ahead - value(t.features);
    for (std::size_t j = 0; j < w_.size(); ++j) w_[j] += a * difference * t.features[j];
  }
  /// The value of a state by its features. ShapeError for another length.
  [[nodiscard]] double value(std::span<const double> features) const {
    detail::expect_point<double>("quern::stochastic::LinearTd::value", features.size(), w_);
    double sum = 0;
    for (std::size_t j = 0; j < w_.size(); ++j) sum += features[j] * w_[j];
    return sum;
  }
  [[nodiscard]] std::span<const double> current() const noexcept { return w_; }
  [[nodiscard]] std::int64_t steps() const noexcept { return steps_; }

 private:
  TdOptions options_;
  std::vector<double> w_;
  std::int64_t steps_ = 0;
};

/// Q(s, u) <- Q(s, u) + a_k (r + gamma max_v Q(s', v) - Q(s, u)), from zeros.
class QLearning {
 public:
  QLearning(Index states, Index actions, TdOptions options = {})
      : options_(std::move(options)), states_(states), actions_(actions) {
    constexpr const char* function = "quern::stochastic::QLearning";
    const std::size_t rows = detail::expect_count(function, "states", states);
    const std::size_t columns = detail::expect_count(function, "actions", actions);
    if (rows > values_.max_size() / columns) {
      throw ValueError(error_text(function, "states x actions",
                                  "at most " + std::to_string(values_.max_size()) + " values",
                                  std::to_string(states) + " x " + std::to_string(actions)));
    }
    values_.resize(rows * columns);
    visits_.resize(values_.size());
    detail::expect_discount(function, options_.discount);
  }
  /// ShapeError for a state or an action that is none, ValueError for a reward that is not finite.
  void step(const Transition& t) {
    constexpr const char* function = "quern::stochastic::QLearning::step";
    detail::expect_place(function, "state", t.state, states_);
    detail::expect_place(function, "action", t.action, actions_);
    if (!t.terminal) detail::expect_place(function, "next", t.next, states_);
    detail::expect_observation<double>(function, {&t.reward, 1}, 1, steps_ + 1);
    const std::size_t at = detail::place(t.state * actions_ + t.action);
    const std::int64_t visit = visits_[at] + 1;
    const double a = options_.step(options_.by_visits ? visit : steps_ + 1);  // may throw
    ++steps_;
    ++visits_[at];
    const double ahead = t.terminal ? 0.0 : stored(t.next, best_action(t.next));
    values_[at] += a * (t.reward + options_.discount * ahead - values_[at]);
  }
  /// The action of the largest value; the lowest of equals.
  [[nodiscard]] Index best_action(Index state) const {
    detail::expect_place("quern::stochastic::QLearning::best_action", "state", state, states_);
    Index best = 0;
    for (Index u = 1; u < actions_; ++u) {
      if (stored(state, u) > stored(state, best)) best = u;
    }
    return best;
  }
  /// ShapeError for a state or an action that is none.
  [[nodiscard]] double value(Index state, Index action) const {
    detail::expect_place("quern::stochastic::QLearning::value", "state", state, states_);
    detail::expect_place("quern::stochastic::QLearning::value", "action", action, actions_);
    return stored(state, action);
  }
  /// states x actions.
  [[nodiscard]] MatrixView<const double> values() const {
    return MatrixView<const double>(values_.data(), {states_, actions_});
  }
  /// The same, one row after the other.
  [[nodiscard]] std::span<const double> current() const noexcept { return values_; }
  [[nodiscard]] std::int64_t steps() const noexcept { return steps_; }

 private:
  [[nodiscard]] double stored(Index state, Index action) const {
    return values_[detail::place(state * actions_ + action)];
  }

  TdOptions options_;
  Index states_;
  Index actions_;
  std::vector<double> values_;
  std::vector<std::int64_t> visits_;
  std::int64_t steps_ = 0;
};

/// Runs a learner above on next(learner): a transition a step. Returns the path of its values.
template <class Learner, class Next>
requires std::invocable<Next&, const Learner&> Path<double> run_td(Learner& learner, Next&& next,
                                                                   const RunOptions& run = {}) {
  return detail::run_steps<double>(
      "quern::stochastic::run_td", "transitions", run,
      [&] { learner.step(next(std::as_const(learner))); }, [&] { return learner.current(); });
}

}  // namespace stochastic
QUERN_NAMESPACE_END

#endif  // QUERN_STOCHASTIC_TEMPORAL_DIFFERENCE_HPP
