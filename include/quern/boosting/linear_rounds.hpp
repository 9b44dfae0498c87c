// SPDX-License-Identifier: Apache-2.0

/// \file
/// Rounds of coordinate descent on a linear model (booster gblinear).
///
/// As XGBoost's updater coord_descent, with its selectors of features: a round takes a Newton step
/// of each output's bias, then of each coefficient in turn with the elastic-net penalty (lambda and
/// alpha times the sum of row weights), each scaled by the learning rate, and moves the gradients
/// along. Gradients are kept in double, sums are over fixed blocks: the same bits for any number of
/// threads.

#ifndef QUERN_BOOSTING_LINEAR_ROUNDS_HPP
#define QUERN_BOOSTING_LINEAR_ROUNDS_HPP

#include "quern/boosting/predictor.hpp"
#include "quern/boosting/train_state.hpp"
#include "quern/core/checks.hpp"
#include "quern/core/config.hpp"
#include "quern/core/parallel.hpp"
#include "quern/core/random.hpp"
#include "quern/tree/dataset.hpp"
#include "quern/tree/tree.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <string>
#include <variant>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace boosting::detail {

/// Present values column by column.
template <class = void>
struct BasicColumnStore {
  std::vector<std::int64_t> offsets;  ///< (features + 1)
  std::vector<std::int32_t> rows;     ///< ascending in a column
  std::vector<double> values;

  BasicColumnStore(const tree::FeatureView& features, tree::InputType type) {
    std::visit([&](const auto& x) { fill(x, type); }, features);
  }

 private:
  template <class T>
  static double cast(T x, tree::InputType type) {
    return type == tree::InputType::float32 ? static_cast<double>(static_cast<float>(x))
                                            : static_cast<double>(x);
  }

  template <class T>
  void fill(const MatrixView<const T>& x, tree::InputType type) {
    offsets.push_back(0);
    for (Index f = 0; f < x.cols(); ++f) {
      for (Index r = 0; r < x.rows(); ++r) {
        if (is_nan_bits(x(r, f))) continue;
        rows.push_back(static_cast<std::int32_t>(r));
        values.push_back(cast(x(r, f), type));
      }
      offsets.push_back(static_cast<std::int64_t>(rows.size()));
    }
  }

  template <class T>
  void fill(const tree::CsrView<T>& x, tree::InputType type) {
    offsets.assign(static_cast<std::size_t>(x.cols) + 1, 0);
    for (std::size_t i = 0; i < x.values.size(); ++i) {
      if (!is_nan_bits(x.values[i])) ++offsets[static_cast<std::size_t>(x.columns[i]) + 1];
    }
    std::partial_sum(offsets.begin(), offsets.end(), offsets.begin());
    rows.resize(static_cast<std::size_t>(offsets.back()));
    values.resize(rows.size());
    std::vector<std::int64_t> next(offsets.begin(), offsets.end() - 1);
    for (std::int64_t r = 0; r < x.rows(); ++r) {
      const auto row = static_cast<std::size_t>(r);
      for (std::int64_t i = x.row_offsets[row]; i < x.row_offsets[row + 1]; ++i) {
        const auto at = static_cast<std::size_t>(i);
        if (is_nan_bits(x.values[at])) continue;
        const auto to = static_cast<std::size_t>(next[static_cast<std::size_t>(x.columns[at])]++);
        rows[to] = static_cast<std::int32_t>(r);
        values[to] = cast(x.values[at], type);
      }
    }
  }
};
/// (A template, so that a program compiles it only where it uses it.)
using ColumnStore = BasicColumnStore<>;

/// First and second derivative along a coordinate.
struct Slope {
  double g = 0;
  double h = 0;
};

/// Newton step of coefficient \p w with elastic net, which stops at 0 on its way through it.
[[nodiscard]] inline double coordinate_step(Slope s, double w, double alpha, double lambda) {
  if (s.h < 1e-5) return 0;
  const double g = s.g + lambda * w, h = s.h + lambda;
  if (w - g / h >= 0) return (std::max)(-(g + alpha) / h, -w);
  return (std::min)(-(g - alpha) / h, -w);
}

template <class = void>
class BasicLinearRounds final : public RoundMaker {
 public:
  explicit BasicLinearRounds(TrainState& state)
      : state_(state),
        columns_(state.train.data->features, state.model.input_type),
        slopes_(static_cast<std::size_t>(state.train.rows())) {
    const tree::Dataset& data = *state.train.data;
    for (std::int64_t c = 0; c < state.model.features; ++c) check_column(c);
    Model& model = state.model;
    const auto size = static_cast<std::size_t>((model.features + 1) * model.outputs);
    if (!model.is_linear()) model.linear_weights.assign(size, 0.0);
    double weight = static_cast<double>(data.rows());
    const std::span<const float> weights = state.train.targets.weights;
    if (!weights.empty()) weight = std::accumulate(weights.begin(), weights.end(), 0.0);
    alpha_ = state.options.reg_alpha * weight;
    lambda_ = state.options.reg_lambda * weight;
  }

  void round(std::uint64_t number) override {
    find_gradients(state_);
    start_order(number);
    for (std::int64_t c = 0; c < state_.model.outputs; ++c) {
      load(c);
      step_bias(c);
      if (selector() == "greedy") {
        greedy_steps(c);
      } else {
        for (const std::int32_t f : coordinates(c)) step(f, c);
      }
    }
    update_margins(state_.train);
    for (SetState& set : state_.evals) update_margins(set);
  }

  void mark_best() override { best_ = state_.model.linear_weights; }
  bool return_to_best(std::int64_t) override {
    if (!best_.empty()) state_.model.linear_weights = best_;
    return true;
  }

 private:
  static constexpr std::int64_t block = std::int64_t{1} << 13;

  void check_column(std::int64_t f) const {
    for (std::int64_t i = columns_.offsets[static_cast<std::size_t>(f)];
         i < columns_.offsets[static_cast<std::size_t>(f) + 1]; ++i) {
      const auto at = static_cast<std::size_t>(i);
      if (is_finite_bits(columns_.values[at])) continue;
      throw ValueError(error_text(
          "quern::boosting::Booster::fit",
          "feature " + std::to_string(f) + " of row " + std::to_string(columns_.rows[at]),
          "a finite number or NaN (missing)", "infinity"));
    }
  }

  [[nodiscard]] const std::string& selector() const { return state_.options.feature_selector; }

  void start_order(std::uint64_t number) {
    random_ = Philox(state_.options.seed, "coordinates", number);
    order_.resize(static_cast<std::size_t>(state_.model.features));
    std::iota(order_.begin(), order_.end(), 0);
    if (selector() == "shuffle") random_.shuffle(order_);
  }

  /// Features of output \p c in the order in which they are stepped along.
  [[nodiscard]] std::vector<std::int32_t> coordinates(std::int64_t c) {
    if (selector() == "random") {
      for (std::int32_t& f : order_)
        f = static_cast<std::int32_t>(
            random_.integer(static_cast<std::uint64_t>(state_.model.features)));
    }
    return selector() == "thrifty" ? thrifty_order(c) : order_;
  }

  /// Steps that greedy and thrifty take. XGBoost's leave out one feature even where top_k does not
  /// ask for it; a single feature is stepped along here.
  [[nodiscard]] std::int64_t most_steps() const {
    const std::int64_t all = (std::max)(state_.model.features - 1, std::int64_t{1});
    const std::int64_t top = state_.options.top_k;
    return top > 0 ? (std::min)(top, all) : all;
  }

  /// The features with the longest steps as the round begins, the longest first.
  [[nodiscard]] std::vector<std::int32_t> thrifty_order(std::int64_t c) {
    std::vector<double> length;
    for (const std::int32_t f : order_) length.push_back(std::abs(full_step(f, c)));
    std::vector<std::int32_t> order = order_;
    std::stable_sort(order.begin(), order.end(), [&](std::int32_t a, std::int32_t b) {
      return length[static_cast<std::size_t>(a)] > length[static_cast<std::size_t>(b)];
    });
    if (static_cast<std::int64_t>(order.size()) > most_steps())
      order.resize(static_cast<std::size_t>(most_steps()));
    return order;
  }

  /// Always along the feature with the longest step.
  void greedy_steps(std::int64_t c) {
    for (std::int64_t k = most_steps(); k > 0; --k) {
      std::int32_t best = -1;
      double longest = 0;
      for (const std::int32_t f : order_) {
        const double length = std::abs(full_step(f, c));
        if (length <= longest) continue;
        longest = length;
        best = f;
      }
      if (best < 0) return;
      step(best, c);
    }
  }

  /// Derivatives of output \p c by row.
  void load(std::int64_t c) {
    const auto pairs = state_.gradients_of(c);
    for (std::size_t i = 0; i < slopes_.size(); ++i)
      slopes_[i] = {static_cast<double>(pairs[i].g), static_cast<double>(pairs[i].h)};
  }

  /// Sum of of(i) for i in [begin, end), in blocks whatever the threads.
  template <class Of>
  [[nodiscard]] Slope sum(std::int64_t begin, std::int64_t end, const Of& of) const {
    const std::int64_t blocks = block_count(end - begin, block);
    std::vector<Slope> parts(static_cast<std::size_t>(blocks));
    const auto add = [&](std::int64_t b) {
      const BlockRange range = block_range(end - begin, block, b);
      Slope part;
      for (std::int64_t i = range.begin; i < range.end; ++i) of(begin + i, part);
      parts[static_cast<std::size_t>(b)] = part;
    };
    if (blocks == 1) {
      add(0);
    } else {
      parallel_for(blocks, add, state_.options.nthread);
    }
    Slope all;
    for (const Slope& part : parts) {
      all.g += part.g;
      all.h += part.h;
    }
    return all;
  }

  [[nodiscard]] double& weight(std::int64_t row, std::int64_t c) {
    return state_.model.linear_weights[static_cast<std::size_t>(row * state_.model.outputs + c)];
  }

  void step_bias(std::int64_t c) {
    const auto rows = static_cast<std::int64_t>(slopes_.size());
    const Slope s = sum(0, rows, [&](std::int64_t i, Slope& part) {
      part.g += slopes_[static_cast<std::size_t>(i)].g;
      part.h += slopes_[static_cast<std::size_t>(i)].h;
    });
    if (!(s.h > 0)) return;
    const double by = -state_.learning_rate * s.g / s.h;
    weight(state_.model.features, c) += by;
    for (Slope& row : slopes_) row.g += row.h * by;
  }

  /// The step of coefficient (\p f, \p c) before the learning rate.
  [[nodiscard]] double full_step(std::int32_t f, std::int64_t c) {
    const std::int64_t begin = columns_.offsets[static_cast<std::size_t>(f)];
    const std::int64_t end = columns_.offsets[static_cast<std::size_t>(f) + 1];
    if (begin == end) return 0;
    const Slope s = sum(begin, end, [&](std::int64_t i, Slope& part) {
      const auto at = static_cast<std::size_t>(i);
      const Slope& row = slopes_[static_cast<std::size_t>(columns_.rows[at])];
      const double x = columns_.values[at];
      part.g += row.g * x;
      part.h += row.h * x * x;
    });
    return coordinate_step(s, weight(f, c), alpha_, lambda_);
  }

  void step(std::int32_t f, std::int64_t c) {
    const double by = state_.learning_rate * full_step(f, c);
    if (by == 0) return;
    weight(f, c) += by;
    const std::int64_t begin = columns_.offsets[static_cast<std::size_t>(f)];
    const std::int64_t end = columns_.offsets[static_cast<std::size_t>(f) + 1];
    for (auto i = static_cast<std::size_t>(begin); i < static_cast<std::size_t>(end); ++i) {
      Slope& row = slopes_[static_cast<std::size_t>(columns_.rows[i])];
      row.g += row.h * columns_.values[i] * by;
    }
  }

  void update_margins(SetState& set) const {
    Predictor(state_.model)
        .margins(
            *set.data,
            MatrixView<float>(set.margins.data(), {set.rows(), std::int64_t{state_.model.outputs}}),
            {.threads = state_.options.nthread});
  }

  TrainState& state_;
  ColumnStore columns_;
  std::vector<Slope> slopes_;  // (rows) of the output in work
  double alpha_ = 0, lambda_ = 0;
  Philox random_;                    // of the round
  std::vector<std::int32_t> order_;  // features, as the selector begins with them
  std::vector<double> best_;         // weights of the best round
};
/// (A template, so that a program compiles it only where it uses it.)
using LinearRounds = BasicLinearRounds<>;

}  // namespace boosting::detail
QUERN_NAMESPACE_END

#endif  // QUERN_BOOSTING_LINEAR_ROUNDS_HPP
