// SPDX-License-Identifier: Apache-2.0

/// \file
/// LambdaRank: losses of the order of rows within groups (queries).
///
/// C. Burges, "From RankNet to LambdaRank to LambdaMART", 2010. For a pair with label_i > label_j,
/// with s = sigmoid(m_i - m_j) and D what the metric would lose if the two changed places:
///
///     g_i -= (1 - s) D,  g_j += (1 - s) D,  h_i += 2 s (1 - s) D,  h_j += 2 s (1 - s) D
///
/// D is 1 for rank:pairwise, |change of NDCG| for rank:ndcg and |change of average precision| for
/// rank:map. As in XGBoost 3: D is divided by 0.01 + |m_i - m_j| where the group's margins are not
/// all the same (lambdarank_score_normalization), and a group's derivatives are multiplied by
/// log2(1 + S) / S with S the sum of 2 |g| over its pairs (lambdarank_normalization; by 1 / number
/// of drawn pairs a row for the mean method). Ties of margins keep the order of the rows.
///
/// With lambdarank_unbiased (Z. Hu et al., "Unbiased LambdaMART", 2019), rows lie in their groups
/// as they were shown, and a pair of positions i (the larger label) and j is divided by t+_i t-_j.
/// From the pairs' costs c = log(1 + e^(m_i - m_j)) D, with p = 1 / (1 + lambdarank_bias_norm),
/// each round finds for the next (equations 30 and 31)
///
///     t+_i = (L_i / L_0)^p, L_i = sum of c / t-_j;   t-_j = (M_j / M_0)^p, M_j = sum of c / t+_i
///
/// over all groups, for as many positions as topk has ranks, or up to 32. They start at 1.
///
/// Different from XGBoost: weights are the rows', and all rows of a group must have the same one;
/// groups weigh weight * groups / sum of group weights. Pairs of the mean method are drawn by
/// Philox from (seed, round, group).

#ifndef QUERN_BOOSTING_OBJECTIVES_RANKING_HPP
#define QUERN_BOOSTING_OBJECTIVES_RANKING_HPP

#include "quern/boosting/objectives/base.hpp"
#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/core/parallel.hpp"
#include "quern/core/random.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <numeric>
#include <span>
#include <string>
#include <string_view>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace boosting {

namespace detail {

/// Discount of NDCG at a rank from 0.
inline double ndcg_discount(std::size_t rank) {
  return 1 / std::log2(static_cast<double>(rank) + 2);
}

inline double ndcg_gain(double label, bool exponential) {
  return exponential ? std::exp2(label) - 1 : label;
}

/// Row numbers 0 .. size-1 by falling value; ties keep their order.
inline std::vector<std::size_t> ranked(std::span<const float> values) {
  std::vector<std::size_t> order(values.size());
  std::iota(order.begin(), order.end(), std::size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](std::size_t a, std::size_t b) { return values[a] > values[b]; });
  return order;
}

/// Throws where a group's rows have different weights.
inline void check_group_weights(std::string_view function, const Targets& targets) {
  if (targets.weights.empty()) return;
  for (std::int64_t g = 0; g < targets.groups(); ++g) {
    for (std::int64_t i = targets.group_begin(g); i < targets.group_end(g); ++i) {
      if (targets.weight(i) == targets.weight(targets.group_begin(g))) continue;
      throw ValueError(error_text("quern::boosting::" + std::string(function),
                                  "weight of row " + std::to_string(i),
                                  "the weight of its group's first row", targets.weight(i)));
    }
  }
}

/// groups / sum of group weights, by which XGBoost keeps the scale of derivatives.
inline double group_weight_norm(const Targets& targets) {
  if (targets.weights.empty()) return 1;
  double sum = 0, groups = 0;
  for (std::int64_t g = 0; g < targets.groups(); ++g) {
    if (targets.group_begin(g) == targets.group_end(g)) continue;
    sum += static_cast<double>(targets.weight(targets.group_begin(g)));
    groups += 1;
  }
  return sum > 0 ? groups / sum : 1;
}

/// What a swap of two ranks costs in one group.
template <class = void>
class BasicSwapCost {
 public:
  enum class Kind : std::uint8_t { one, ndcg, average_precision };

  /// \p labels by present rank; \p top: ranks that the ideal order counts.
  BasicSwapCost(Kind kind, const std::vector<double>& labels, std::size_t top, bool exponential)
      : kind_(kind) {
    if (kind == Kind::ndcg) prepare_ndcg(labels, top, exponential);
    if (kind == Kind::average_precision) prepare_map(labels);
  }

  /// \p high: rank of the row with the larger label.
  [[nodiscard]] double operator()(std::size_t high, std::size_t low) const {
    if (kind_ == Kind::one) return 1;
    if (kind_ == Kind::ndcg) {
      const double gain = gains_[high] - gains_[low];
      return std::fabs(gain * (ndcg_discount(high) - ndcg_discount(low))) * scale_;
    }
    // Average precision, where one of the two is relevant: the ranks between them shift by one.
    const std::size_t first = (std::min)(high, low), last = (std::max)(high, low);
    const double r_first = static_cast<double>(first) + 1, r_last = static_cast<double>(last) + 1;
    const double between = gains_[last - 1] - gains_[first];
    if (high < low)
      return std::fabs(hits_[last] / r_last - hits_[first] / r_first - between) * scale_;
    return std::fabs(hits_[last] / r_last - (hits_[first] + 1) / r_first - between) * scale_;
  }

 private:
  void prepare_ndcg(const std::vector<double>& labels, std::size_t top, bool exponential) {
    for (const double y : labels) gains_.push_back(ndcg_gain(y, exponential));
    std::vector<double> ideal = gains_;
    std::sort(ideal.begin(), ideal.end(), std::greater<>());
    double sum = 0;
    for (std::size_t i = 0; i < (std::min)(top, ideal.size()); ++i)
      sum += ideal[i] * ndcg_discount(i);
    scale_ = sum > 0 ? 1 / sum : 0;
  }

  /// Relevant rows up to each rank, and the sum of relevant / rank up to it.
  void prepare_map(const std::vector<double>& labels) {
    double hits = 0, sum = 0;
    for (std::size_t i = 0; i < labels.size(); ++i) {
      hits += labels[i];
      sum += labels[i] / (static_cast<double>(i) + 1);
      hits_.push_back(hits);
      gains_.push_back(sum);
    }
    scale_ = hits > 0 ? 1 / hits : 0;
  }

  Kind kind_;
  double scale_ = 1;
  std::vector<double> gains_;
  std::vector<double> hits_;
};
/// (A template, so that a program compiles it only where it uses it.)
using SwapCost = BasicSwapCost<>;

}  // namespace detail

/// rank:pairwise, rank:ndcg and rank:map; see the file's comment. Labels: any finite ones for
/// rank:pairwise, relevance 0 .. 31 (any number >= 0 without ndcg_exp_gain) for rank:ndcg, 0 or 1
/// for rank:map. Without group offsets all rows are one group.
template <class = void>
class BasicLambdaRank final : public Objective {
 public:
  BasicLambdaRank(std::string_view name, const ObjectiveParams& params)
      : name_(name), params_(params) {
    using Kind = detail::SwapCost::Kind;
    kind_ = name == "rank:ndcg"  ? Kind::ndcg
            : name == "rank:map" ? Kind::average_precision
                                 : Kind::one;
    if (params.lambdarank_num_pair_per_sample < 0)
      throw ValueError(error_text("quern::boosting::" + name_, "lambdarank_num_pair_per_sample",
                                  ">= 0", params.lambdarank_num_pair_per_sample));
    const bool top = params.lambdarank_pair_method == LambdarankPairs::topk;
    pairs_ = params.lambdarank_num_pair_per_sample > 0
                 ? static_cast<std::size_t>(params.lambdarank_num_pair_per_sample)
                 : std::size_t{top ? 32u : 1u};
  }

  [[nodiscard]] std::string_view name() const override { return name_; }
  [[nodiscard]] std::string_view default_metric() const override {
    return kind_ == detail::SwapCost::Kind::average_precision ? "map" : "ndcg";
  }
  void check_labels(std::span<const float> labels) const override {
    using Kind = detail::SwapCost::Kind;
    if (kind_ == Kind::average_precision)
      detail::expect_labels(name_, labels, "0 or 1", [](float y) { return y == 0 || y == 1; });
    if (kind_ == Kind::ndcg)
      detail::expect_labels(name_, labels,
                            params_.ndcg_exp_gain ? "a relevance 0..31" : "a number >= 0",
                            [&](float y) { return y >= 0 && (y <= 31 || !params_.ndcg_exp_gain); });
  }
  void check(const Targets& targets) const override {
    check_labels(targets.labels);
    detail::check_group_weights(name_, targets);
  }
  /// 0: a constant does not change any order.
  [[nodiscard]] std::vector<double> start(const Targets&) const override { return {0}; }
  [[nodiscard]] bool separable() const override { return false; }
  /// Rows [begin, end) must be whole groups.
  void gradients(const float* margins, const Targets& targets, std::int64_t begin, std::int64_t end,
                 tree::GradientPair* out) const override {
    const double norm = detail::group_weight_norm(targets);
    for (std::int64_t g = 0; g < targets.groups(); ++g) {
      if (targets.group_begin(g) >= begin && targets.group_end(g) <= end)
        group_gradients(margins, targets, g, 0, norm, out);
    }
  }
  void all_gradients(const float* margins, const Targets& targets, std::uint64_t round,
                     tree::GradientPair* out, int threads) const override {
    const double norm = detail::group_weight_norm(targets);
    parallel_for(
        targets.groups(),
        [&](std::int64_t g) { group_gradients(margins, targets, g, round, norm, out); }, threads);
  }
  void finish_round(const float* margins, const Targets& targets, std::uint64_t round,
                    int threads) override {
    if (!params_.lambdarank_unbiased) return;
    if (bias_.plus.empty()) bias_.plus = bias_.minus = Column(positions(targets), 1.0);
    Costs costs{Column(static_cast<std::size_t>(targets.rows()), 0.0), {}};
    costs.minus = costs.plus;
    parallel_for(
        targets.groups(),
        [&](std::int64_t g) { group_gradients(margins, targets, g, round, 1, nullptr, &costs); },
        threads);
    update_positions(targets, costs);
  }
  void transform(float*, std::int64_t) const override {}

  /// t+ of positions, and t-; empty before the first round and unless lambdarank_unbiased.
  [[nodiscard]] const std::vector<double>& bias_plus() const noexcept { return bias_.plus; }
  [[nodiscard]] const std::vector<double>& bias_minus() const noexcept { return bias_.minus; }

 private:
  using Column = std::vector<double>;
  static constexpr double least_bias = 1e-16;

  /// Sums of costs by row (plus: as the row with the larger label), or biases by position.
  struct Costs {
    Column plus, minus;
  };

  struct Sum {
    double g = 0;
    double h = 0;
  };

  /// One group while its pairs are visited.
  struct Group {
    std::span<const float> margins;
    std::vector<std::size_t> order;  ///< rows by present rank
    std::vector<double> labels;      ///< by present rank
    bool spread = false;             ///< whether the margins differ
    std::vector<Sum> sums;           ///< by row
    double total = 0;
    double* plus = nullptr;  ///< costs by row, or null: not asked for
    double* minus = nullptr;
  };

  void group_gradients(const float* margins, const Targets& targets, std::int64_t g,
                       std::uint64_t round, double norm, tree::GradientPair* out,
                       Costs* costs = nullptr) const {
    const std::int64_t begin = targets.group_begin(g);
    const auto size = static_cast<std::size_t>(targets.group_end(g) - begin);
    if (size == 0) return;
    Group group;
    group.margins = {margins + begin, size};
    group.order = detail::ranked(group.margins);
    for (const std::size_t row : group.order)
      group.labels.push_back(
          static_cast<double>(targets.label(begin + static_cast<std::int64_t>(row))));
    group.spread = group.margins[group.order.front()] != group.margins[group.order.back()];
    group.sums.resize(size);
    if (costs != nullptr) {
      group.plus = costs->plus.data() + begin;
      group.minus = costs->minus.data() + begin;
    }
    const bool topk = params_.lambdarank_pair_method == LambdarankPairs::topk;
    const detail::SwapCost cost(kind_, group.labels, topk ? pairs_ : size, params_.ndcg_exp_gain);
    if (topk)
      visit_top(group, cost);
    else
      visit_drawn(
          group, cost,
          Philox(params_.seed, "rank pairs", round * 0x100000000u + static_cast<std::uint64_t>(g)));
    if (costs != nullptr) return;
    const double scale = scale_of(group, topk) * norm * static_cast<double>(targets.weight(begin));
    for (std::size_t i = 0; i < size; ++i) {
      const double h = (std::max)(group.sums[i].h * scale, 0.0);
      out[begin + static_cast<std::int64_t>(i)] = {static_cast<float>(group.sums[i].g * scale),
                                                   static_cast<float>(h)};
    }
  }

  [[nodiscard]] double scale_of(const Group& group, bool topk) const {
    if (!params_.lambdarank_normalization) return 1;
    if (!topk) return 1 / static_cast<double>(pairs_);
    return group.total > 0 ? std::log2(1 + group.total) / group.total : 1;
  }

  void visit_top(Group& group, const detail::SwapCost& cost) const {
    const std::size_t size = group.order.size(), top = (std::min)(size, pairs_);
    for (std::size_t i = 0; i < top; ++i) {
      for (std::size_t j = i + 1; j < size; ++j) add_pair(group, cost, i, j);
    }
  }

  /// For every row, `pairs_` drawn rows with other labels.
  void visit_drawn(Group& group, const detail::SwapCost& cost, Philox rng) const {
    const std::size_t size = group.order.size();
    std::vector<std::size_t> by_label(size);
    std::iota(by_label.begin(), by_label.end(), std::size_t{0});
    std::stable_sort(by_label.begin(), by_label.end(), [&](std::size_t a, std::size_t b) {
      return group.labels[a] > group.labels[b];
    });
    for (std::size_t i = 0; i < size;) {
      std::size_t j = i + 1;
      while (j < size && group.labels[by_label[j]] == group.labels[by_label[i]]) ++j;
      const std::size_t others = i + size - j;  // before and after this run of equal labels
      for (std::size_t row = i; row < j && others > 0; ++row) {
        for (std::size_t s = 0; s < pairs_; ++s) {
          std::size_t other = static_cast<std::size_t>(rng.integer(others));
          if (other >= i) other += j - i;
          add_pair(group, cost, by_label[row], by_label[other]);
        }
      }
      i = j;
    }
  }

  void add_pair(Group& group, const detail::SwapCost& cost, std::size_t a, std::size_t b) const {
    if (group.labels[a] == group.labels[b]) return;
    const std::size_t high = group.labels[a] > group.labels[b] ? a : b, low = high == a ? b : a;
    const std::size_t winner = group.order[high], loser = group.order[low];
    const double difference =
        static_cast<double>(group.margins[winner]) - static_cast<double>(group.margins[loser]);
    double delta = cost(high, low);
    if (params_.lambdarank_score_normalization && group.spread)
      delta /= 0.01 + std::fabs(difference);
    if (group.plus != nullptr) return add_cost(group, winner, loser, difference, delta);
    delta /= bias_of(winner, loser);
    const double s = detail::sigmoid(difference);
    const double lambda = (1 - s) * delta;
    const double h = 2 * (std::max)(s * (1 - s), 1e-16) * delta;
    group.sums[winner].g -= lambda;
    group.sums[loser].g += lambda;
    group.sums[winner].h += h;
    group.sums[loser].h += h;
    group.total += 2 * lambda;
  }

  /// What a pair of positions is divided by.
  [[nodiscard]] double bias_of(std::size_t winner, std::size_t loser) const {
    const std::size_t k = bias_.plus.size();
    if (winner >= k || loser >= k) return 1;
    const double plus = bias_.plus[winner], minus = bias_.minus[loser];
    return plus >= least_bias && minus >= least_bias ? plus * minus : 1;
  }

  void add_cost(Group& group, std::size_t winner, std::size_t loser, double difference,
                double delta) const {
    const std::size_t k = bias_.plus.size();
    if (winner >= k || loser >= k) return;
    const double plus = bias_.plus[winner], minus = bias_.minus[loser];
    const double above = (std::max)(difference, 0.0);
    const double cost = (above + std::log1p(std::exp(-std::fabs(difference)))) * delta;
    if (minus >= least_bias) group.plus[winner] += cost / minus;
    if (plus >= least_bias) group.minus[loser] += cost / plus;
  }

  [[nodiscard]] std::size_t positions(const Targets& targets) const {
    const bool topk = params_.lambdarank_pair_method == LambdarankPairs::topk;
    std::int64_t largest = 0;
    for (std::int64_t g = 0; g < targets.groups(); ++g)
      largest = (std::max)(largest, targets.group_end(g) - targets.group_begin(g));
    return (std::min)(static_cast<std::size_t>(largest), topk ? pairs_ : std::size_t{32});
  }

  void update_positions(const Targets& targets, const Costs& costs) {
    const std::size_t k = bias_.plus.size();
    if (k == 0) return;
    const double power = 1 / (1 + params_.lambdarank_bias_norm);
    const auto update = [&](const Column& by_row, Column& bias) {
      Column sums(k, 0.0);
      for (std::int64_t g = 0; g < targets.groups(); ++g) {
        const std::int64_t begin = targets.group_begin(g);
        const auto size = static_cast<std::size_t>(targets.group_end(g) - begin);
        for (std::size_t i = 0; i < (std::min)(size, k); ++i)
          sums[i] += by_row[static_cast<std::size_t>(begin) + i];
      }
      for (std::size_t i = 0; i < k && sums[0] >= least_bias; ++i)
        bias[i] = std::pow(sums[i] / sums[0], power);
    };
    update(costs.plus, bias_.plus);
    update(costs.minus, bias_.minus);
  }

  std::string name_;
  ObjectiveParams params_;
  detail::SwapCost::Kind kind_;
  std::size_t pairs_;
  Costs bias_;  // by position
};
/// (A template, so that a program compiles it only where it uses it.)
using LambdaRank = BasicLambdaRank<>;

}  // namespace boosting
QUERN_NAMESPACE_END

#endif  // QUERN_BOOSTING_OBJECTIVES_RANKING_HPP
