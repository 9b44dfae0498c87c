// SPDX-License-Identifier: Apache-2.0

/// \file
/// What one run of training is given beside the data, and what it reports.

#ifndef QUERN_BOOSTING_HISTORY_HPP
#define QUERN_BOOSTING_HISTORY_HPP

#include "quern/boosting/model.hpp"
#include "quern/core/config.hpp"
#include "quern/core/progress.hpp"
#include "quern/tree/dataset.hpp"

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace boosting {

/// Values of one metric on one data set, by round.
struct Curve {
  std::string set;
  std::string metric;
  std::vector<double> values;
  bool larger_is_better = false;
};

/// What happened in training.
struct History {
  std::vector<Curve> curves;
  std::vector<double> seconds;  ///< by round
  double binning_seconds = 0;
  std::int64_t best_round = -1;  ///< of early stopping, else -1
};

/// A data set that metrics are reported on.
struct EvalSet {
  std::string name;
  const tree::Dataset* data = nullptr;
};

/// What early stopping follows. Options::early_stopping_rounds says for how long.
struct EarlyStopping {
  std::string set = {};               ///< name of an evaluation set; empty: the last one
  std::string metric = {};            ///< empty: the last one
  double min_delta = 0;               ///< a round is better only by more than this, >= 0
  std::optional<bool> maximize = {};  ///< none: as the metric says
  bool save_best = false;  ///< the model keeps the rounds up to the best one alone. Without it the
                           ///< later ones stay in it, and prediction leaves them out.
};

/// What a callback sees of a run.
struct RoundView {
  std::int64_t done = 0;   ///< rounds of this run that are finished
  std::int64_t total = 0;  ///< rounds that were asked for
  const Model& model;
  const History& history;
};

/// Called in every round; see callbacks.hpp for ready-made ones.
class Callback {
 public:
  Callback() = default;
  Callback(const Callback&) = delete;
  Callback& operator=(const Callback&) = delete;
  virtual ~Callback() = default;

  /// Before a round; \p learning_rate is this round's and may be changed (positive and finite).
  virtual void before_round(const RoundView& view, double& learning_rate) {
    (void)view;
    (void)learning_rate;
  }
  /// After a round and its metrics. False stops training: the rounds that are done are kept.
  virtual bool after_round(const RoundView& view) {
    (void)view;
    return true;
  }
};

/// What one call of fit is given beside the data.
struct FitOptions {
  std::vector<EvalSet> eval_sets = {};
  bool eval_train = false;           ///< report metrics on the training rows too, as "train"
  ProgressCallback progress = {};    ///< after each round; false cancels
  bool continue_training = false;    ///< add rounds to the present model
  bool keep_when_cancelled = false;  ///< keep the rounds that were finished, do not throw
  EarlyStopping early_stopping = {};
  std::vector<std::shared_ptr<Callback>> callbacks = {};  ///< called in this order
};

namespace detail {

/// Tells the progress callback what round \p done of \p total measured; false when it cancels.
inline bool tell_progress(const FitOptions& fit, const History& history, std::int64_t done,
                          std::int64_t total) {
  if (!fit.progress) return true;
  std::vector<std::string> names;
  std::vector<Metric> values;
  for (const Curve& c : history.curves) names.push_back(c.set + " " + c.metric);
  for (std::size_t i = 0; i < names.size(); ++i)
    values.push_back({names[i], history.curves[i].values.back()});
  return fit.progress({"boosting rounds", done, total, values});
}

}  // namespace detail

/// The result of a run.
struct Trained {
  Model model;
  History history;
  bool cancelled = false;
};

}  // namespace boosting
QUERN_NAMESPACE_END

#endif  // QUERN_BOOSTING_HISTORY_HPP
