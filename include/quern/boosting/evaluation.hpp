// SPDX-License-Identifier: Apache-2.0

/// \file
/// Metrics by round, and when they say to stop.

#ifndef QUERN_BOOSTING_EVALUATION_HPP
#define QUERN_BOOSTING_EVALUATION_HPP

#include "quern/boosting/history.hpp"
#include "quern/boosting/metric.hpp"
#include "quern/boosting/options.hpp"
#include "quern/boosting/train_state.hpp"
#include "quern/core/checks.hpp"
#include "quern/core/config.hpp"
#include "quern/core/error.hpp"

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace boosting::detail {

/// Measures all sets after each round into a history's curves.
template <class = void>
class BasicEvaluation {
 public:
  /// Curves of the training rows, where asked for, come first; then those of \p state.evals.
  void prepare(const TrainState& state, bool eval_train, History& history) {
    std::vector<std::string> names = state.options.eval_metric;
    const std::vector<CustomMetric>& custom = state.options.custom_metrics;
    const std::string_view own = state.objective->default_metric();  // a custom loss has none
    if (names.empty() && custom.empty() && !own.empty()) names.emplace_back(own);
    for (const std::string& name : names)
      metrics_.push_back(make_metric(name, state.model.outputs, state.options.objective_params()));
    for (const CustomMetric& m : custom) metrics_.push_back(boosting::metric_of(m));
    eval_train_ = eval_train;
    if (eval_train_) add_curves("train", history);
    for (const SetState& set : state.evals) add_curves(set.name, history);
  }

  void measure(const TrainState& state, History& history) const {
    std::size_t curve = 0;
    if (eval_train_) measure(state, state.train, curve, history);
    for (const SetState& set : state.evals) measure(state, set, curve, history);
  }

  /// The metric of a curve.
  [[nodiscard]] const EvalMetric& metric_of(std::size_t curve) const {
    return metrics_[curve % metrics_.size()];
  }

 private:
  void add_curves(const std::string& set, History& history) const {
    for (const EvalMetric& m : metrics_)
      history.curves.push_back({set, m.name, {}, m.larger_is_better});
  }

  void measure(const TrainState& state, const SetState& set, std::size_t& curve,
               History& history) const {
    std::vector<float> predictions = set.margins;
    state.objective->transform_for_metrics(predictions.data(), set.rows());
    const Targets targets = targets_of(*set.data);  // without class weights
    for (const EvalMetric& m : metrics_)
      history.curves[curve++].values.push_back(m.value(predictions, state.model.outputs, targets));
  }

  std::vector<EvalMetric> metrics_;
  bool eval_train_ = false;
};
/// (A template, so that a program compiles it only where it uses it.)
using Evaluation = BasicEvaluation<>;

/// Follows one curve.
class StopWatch {
 public:
  /// \p larger: larger values are better.
  StopWatch(std::int64_t patience, double min_delta, bool larger)
      : patience_(patience), min_delta_(min_delta), larger_(larger) {}

  /// Takes the value of the next round; true when it is the best so far. A number, not NaN.
  bool take(double value) {
    const double gain = larger_ ? value - best_value_ : best_value_ - value;
    const bool better = best_ < 0 || gain > min_delta_ || (min_delta_ == 0 && gain > 0);
    if (better) {
      best_ = seen_;
      best_value_ = value;
    }
    ++seen_;
    return better;
  }
  /// Round, counted from 0, with the best value; -1 before the first.
  [[nodiscard]] std::int64_t best() const noexcept { return best_; }
  [[nodiscard]] bool done() const noexcept { return seen_ - 1 - best_ >= patience_; }

 private:
  std::int64_t patience_;
  double min_delta_;
  bool larger_;
  std::int64_t seen_ = 0;
  std::int64_t best_ = -1;
  double best_value_ = 0;
};

/// Number of the curve that early stopping follows: the last one, or what \p wanted names.
[[nodiscard]] inline std::size_t followed_curve(const std::string& function, const History& history,
                                                const EarlyStopping& wanted) {
  for (std::size_t c = history.curves.size(); c-- > 0;) {
    const Curve& curve = history.curves[c];
    if ((wanted.set.empty() || curve.set == wanted.set) &&
        (wanted.metric.empty() || curve.metric == wanted.metric))
      return c;
  }
  std::string known;
  for (const Curve& c : history.curves)
    known += (known.empty() ? "" : ", ") + c.set + " " + c.metric;
  throw ValueError(
      error_text(function, "early_stopping", "one of " + known, wanted.set + " " + wanted.metric));
}

}  // namespace boosting::detail
QUERN_NAMESPACE_END

#endif  // QUERN_BOOSTING_EVALUATION_HPP
