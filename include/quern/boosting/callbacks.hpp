// SPDX-License-Identifier: Apache-2.0

/// \file
/// Callbacks of training that are ready-made: learning rates by round, checkpoints, any function.

#ifndef QUERN_BOOSTING_CALLBACKS_HPP
#define QUERN_BOOSTING_CALLBACKS_HPP

#include "quern/boosting/history.hpp"
#include "quern/boosting/model_io.hpp"
#include "quern/core/config.hpp"
#include "quern/core/error.hpp"

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <utility>

QUERN_NAMESPACE_BEGIN
namespace boosting {

/// The learning rate of each round, as a function of its number, counted from 0 in this run.
class LearningRateSchedule final : public Callback {
 public:
  explicit LearningRateSchedule(std::function<double(std::int64_t round)> rate)
      : rate_(std::move(rate)) {}
  void before_round(const RoundView& view, double& learning_rate) override {
    learning_rate = rate_(view.done);
  }

 private:
  std::function<double(std::int64_t)> rate_;
};

/// Saves the model as it is after every so many rounds, and at the end of training's last round, to
/// one file that is always a whole model: each save is written aside and takes the other's place.
class Checkpoint final : public Callback {
 public:
  /// Throws ValueError unless \p every is at least 1; saving throws IoError.
  Checkpoint(std::string path, std::int64_t every) : path_(std::move(path)), every_(every) {
    if (every < 1)
      throw ValueError(error_text("quern::boosting::Checkpoint", "every", "at least 1", every));
  }
  bool after_round(const RoundView& view) override {
    if (view.done % every_ == 0 || view.done == view.total) save_model(view.model, path_);
    return true;
  }

 private:
  std::string path_;
  std::int64_t every_;
};

/// A function after each round; false stops training.
class AfterRound final : public Callback {
 public:
  explicit AfterRound(std::function<bool(const RoundView&)> function)
      : function_(std::move(function)) {}
  bool after_round(const RoundView& view) override { return function_(view); }

 private:
  std::function<bool(const RoundView&)> function_;
};

[[nodiscard]] inline std::shared_ptr<Callback> learning_rates(
    std::function<double(std::int64_t round)> rate) {
  return std::make_shared<LearningRateSchedule>(std::move(rate));
}
[[nodiscard]] inline std::shared_ptr<Callback> checkpoint(std::string path,
                                                          std::int64_t every = 1) {
  return std::make_shared<Checkpoint>(std::move(path), every);
}
[[nodiscard]] inline std::shared_ptr<Callback> after_round(
    std::function<bool(const RoundView&)> function) {
  return std::make_shared<AfterRound>(std::move(function));
}

}  // namespace boosting
QUERN_NAMESPACE_END

#endif  // QUERN_BOOSTING_CALLBACKS_HPP
