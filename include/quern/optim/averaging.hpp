// SPDX-License-Identifier: Apache-2.0

/// \file
/// Averages of the parameters beside their training: exponential (EMA) and plain (SWA, Polyak).

#ifndef QUERN_OPTIM_AVERAGING_HPP
#define QUERN_OPTIM_AVERAGING_HPP

#include "quern/core/buffer.hpp"
#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/kernels/optim_types.hpp"
#include "quern/optim/detail/tensor_list.hpp"
#include "quern/optim/parameter.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <utility>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace optim {

/// How an average forgets.
struct AverageOptions {
  /// Exponential: average = decay average + (1 - decay) p, from p at the start. Negative: the plain
  /// mean of all updates.
  double decay = 0.999;
  /// Exponential only: decay is at most (1 + t) / (10 + t) at update t, so that the start fades.
  bool warm_up = false;
  int threads = 0;
};

/// The average of some tensors. update() after a step; swap() puts the average into the tensors,
/// and again swaps back.
template <class T>
class WeightAverage {
 public:
  WeightAverage(const std::vector<Parameter<T>>& parameters, const AverageOptions& options)
      : options_(options) {
    if (!(options.decay < 1)) {
      throw ValueError(error_text("quern::optim::WeightAverage", "decay",
                                  "below 1 (negative: the plain mean)", options.decay));
    }
    std::size_t total = 0;
    for (const Parameter<T>& p : parameters) total += detail::padded(p.values.size());
    average_.reset(total, core::Fill::zero);
    std::vector<Parameter<T>> pairs;
    std::size_t at = 0;
    for (const Parameter<T>& p : parameters) {
      values_.push_back(p.values);
      const std::span<T> mean(average_.data() + at, p.values.size());
      std::copy(p.values.begin(), p.values.end(), mean.begin());
      pairs.push_back({p.name, mean, p.values, {}});
      at += detail::padded(p.values.size());
    }
    list_ = detail::TensorList<T>(std::move(pairs));
  }

  /// Takes the tensors as they are now into the average.
  void update() {
    ++updates_;
    kernels::OptimWork<T, T> work;
    work.prologue.clip = (std::numeric_limits<T>::infinity)();
    detail::run_rule(list_, kernels::LerpRule<T>{static_cast<T>(weight())}, work, options_.threads);
  }
  /// Exchanges the tensors' values with the average.
  void swap() {
    for (std::size_t k = 0; k < values_.size(); ++k) {
      const std::span<T> mean = list_.parameters()[k].values;
      std::swap_ranges(values_[k].begin(), values_[k].end(), mean.begin());
    }
  }
  /// The average of one tensor. ShapeError for a tensor that is none.
  [[nodiscard]] std::span<const T> average(std::size_t tensor) const {
    return list_.parameters()[place(tensor)].values;
  }
  [[nodiscard]] std::span<T> average(std::size_t tensor) {
    return list_.parameters()[place(tensor)].values;
  }
  /// Updates so far; to be set when a saved average is continued.
  [[nodiscard]] std::int64_t updates() const { return updates_; }
  void set_updates(std::int64_t updates) { updates_ = updates; }

 private:
  [[nodiscard]] std::size_t place(std::size_t tensor) const {
    return detail::checked_place("quern::optim::WeightAverage::average", "tensor", tensor,
                                 list_.size());
  }
  [[nodiscard]] double weight() const {
    const auto t = static_cast<double>(updates_);
    if (options_.decay < 0) return 1 / t;
    return 1 - (options_.warm_up ? (std::min)(options_.decay, (1 + t) / (10 + t)) : options_.decay);
  }

  AverageOptions options_;
  core::Buffer<T> average_;
  std::vector<std::span<T>> values_;
  detail::TensorList<T> list_;
  std::int64_t updates_ = 0;
};

}  // namespace optim
QUERN_NAMESPACE_END

#endif  // QUERN_OPTIM_AVERAGING_HPP
