// SPDX-License-Identifier: Apache-2.0

/// \file
/// What the parts of training share: data as codes, margins so far, gradients, the model.

#ifndef QUERN_BOOSTING_TRAIN_STATE_HPP
#define QUERN_BOOSTING_TRAIN_STATE_HPP

#include "quern/boosting/model.hpp"
#include "quern/boosting/objective.hpp"
#include "quern/boosting/options.hpp"
#include "quern/core/buffer.hpp"
#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/tree/binned_matrix.hpp"
#include "quern/tree/dataset.hpp"
#include "quern/tree/gradient.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace boosting::detail {

/// What losses and metrics need to know of a data set.
[[nodiscard]] inline Targets targets_of(const tree::Dataset& data) {
  Targets targets;
  targets.labels = data.labels.empty() ? data.label_lower_bound : data.labels;
  targets.weights = data.weights;
  targets.group_offsets = data.group_offsets;
  targets.lower = data.label_lower_bound;
  targets.upper = data.label_upper_bound;
  return targets;
}

/// Classes, or outputs of a custom objective.
[[nodiscard]] inline std::int32_t classes_of(const char* function, const Options& options,
                                             const Targets& targets) {
  if (options.objective == "custom") return (std::max)(options.num_class, 1);
  if (!options.objective.starts_with("multi:")) {
    if (options.num_class > 1)
      throw ValueError(
          error_text(function, "num_class", "0 or 1 for " + options.objective, options.num_class));
    return 1;
  }
  if (options.num_class > 0) return options.num_class;
  float top = 1;
  for (const float y : targets.labels) top = (std::max)(top, y);
  if (!(top < 65536)) throw ValueError(error_text(function, "labels", "classes below 65536", top));
  return static_cast<std::int32_t>(top) + 1;
}

/// One data set while a model grows.
struct SetState {
  std::string name;
  const tree::Dataset* data = nullptr;
  Targets targets;
  tree::BinnedMatrix binned;   ///< empty for boosters without trees
  std::vector<float> margins;  ///< (rows, outputs)

  [[nodiscard]] std::int64_t rows() const noexcept { return targets.rows(); }
};

/// All of a run.
struct TrainState {
  Options options;
  double learning_rate = 0;  ///< of this round
  std::uint64_t round = 0;   ///< of the model, counted from its first
  std::unique_ptr<Objective> objective;
  SetState train;                    ///< its targets with class weights
  std::vector<float> class_weights;  ///< (rows) what those weights point to
  std::vector<SetState> evals;
  core::Buffer<tree::GradientPair> gradients;  ///< (outputs, rows)
  Model model;

  [[nodiscard]] std::span<const tree::GradientPair> gradients_of(std::int64_t output) const {
    const std::int64_t rows = train.rows();
    return {gradients.data() + output * rows, static_cast<std::size_t>(rows)};
  }
};

/// Gradients at the training rows' margins, once a round.
inline void find_gradients(TrainState& state) {
  state.objective->all_gradients(state.train.margins.data(), state.train.targets, state.round,
                                 state.gradients.data(), state.options.nthread);
  state.objective->finish_round(state.train.margins.data(), state.train.targets, state.round,
                                state.options.nthread);
}

/// The part of training that differs between boosters.
class RoundMaker {
 public:
  RoundMaker() = default;
  RoundMaker(const RoundMaker&) = delete;
  RoundMaker& operator=(const RoundMaker&) = delete;
  virtual ~RoundMaker() = default;

  /// Round \p number of the model (counted from its first): changes the model and the margins of
  /// all sets.
  virtual void round(std::uint64_t number) = 0;
  /// The round that was just made is the best so far.
  virtual void mark_best() {}
  /// Training has ended, early stopping chose \p best (a round of the model). True where the
  /// model was brought back to that round here, because leaving later rounds out would not.
  virtual bool return_to_best(std::int64_t best) {
    (void)best;
    return false;
  }
};

}  // namespace boosting::detail
QUERN_NAMESPACE_END

#endif  // QUERN_BOOSTING_TRAIN_STATE_HPP
