// SPDX-License-Identifier: Apache-2.0

/// \file
/// AdaBoost of any weak learner: SAMME for two or many classes, R2 for numbers.
///
/// J. Zhu, H. Zou, S. Rosset, T. Hastie, "Multi-class AdaBoost", Statistics and Its Interface 2
/// (2009), algorithm 2; H. Drucker, "Improving regressors using boosting techniques", ICML 1997.

#ifndef QUERN_ENSEMBLE_ADABOOST_HPP
#define QUERN_ENSEMBLE_ADABOOST_HPP

#include "quern/core/archive.hpp"
#include "quern/core/checks.hpp"
#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/core/nd_array.hpp"
#include "quern/core/parallel.hpp"
#include "quern/core/progress.hpp"
#include "quern/ensemble/any_learner.hpp"
#include "quern/ensemble/detail/linear_map.hpp"
#include "quern/ensemble/learner.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace ensemble {

enum class RegressionLoss : std::uint8_t { linear, square, exponential };

struct AdaBoostOptions {
  std::int32_t rounds = 50;                      ///< >= 1; a learner without any error ends it
  double learning_rate = 1;                      ///< > 0: factor of the members' weights
  RegressionLoss loss = RegressionLoss::linear;  ///< of numbers: of errors over the largest one
  ProgressCallback progress = {};                ///< told after each round; false cancels
};

namespace detail {

/// Members, their weights, and the rows' weights from round to round.
template <class Task>
class AdaBoostRounds {
 public:
  static constexpr std::string_view name = "quern::ensemble::AdaBoost";

  std::vector<AnyLearner<Task>> members;
  std::vector<double> weights, errors;

  /// \p judge(learner, weights) tells (rows) errors 0..1 of a fitted one; \p weigh(mean error) the
  /// member's weight, 0 to stop without it; \p scale(weight, error) a wrong row's factor.
  template <class Judge, class Weigh, class Scale>
  void run(const AnyLearner<Task>& prototype, const AdaBoostOptions& options, Features x,
           typename Task::Targets y, std::span<const float> row_weights, std::uint64_t seed,
           const Judge& judge, const Weigh& weigh, const Scale& scale) {
    std::vector<double> w = start(y.size(), row_weights);
    std::vector<float> rounded(w.size());
    for (std::int32_t r = 0; r < options.rounds; ++r) {
      std::transform(w.begin(), w.end(), rounded.begin(),
                     [](double v) { return static_cast<float>(v); });
      AnyLearner<Task> learner = prototype;
      learner.fit_to(x, y, rounded, member_seed(seed, static_cast<std::uint64_t>(r)));
      const std::vector<double> wrong = judge(learner, w);
      double error = 0, all = 0;
      for (std::size_t i = 0; i < w.size(); ++i) {
        error += w[i] * wrong[i];
        all += w[i];
      }
      error /= all;
      const double weight = error > 0 ? weigh(error) : 1;
      if (!(weight > 0) && !members.empty()) return;
      members.push_back(std::move(learner));
      errors.push_back(error);
      weights.push_back(weight > 0 ? weight : 1);  // a lone member is better than none
      report(options.progress, name,
             {.what = "AdaBoost rounds", .done = r + 1, .total = options.rounds, .metrics = {}});
      if (!(error > 0) || !(weight > 0)) return;
      all = 0;
      for (std::size_t i = 0; i < w.size(); ++i) all += w[i] *= scale(weight, wrong[i]);
      if (!(all > 0) || !is_finite_bits(all))
        throw ValueError(error_text(name, "learning_rate",
                                    "one that keeps the rows' weights finite",
                                    options.learning_rate));
      for (double& v : w) v *= static_cast<double>(positive_) / all;
    }
  }

 private:
  /// Weights whose mean over the rows that are there is 1, the measure that learners expect.
  std::vector<double> start(std::size_t rows, std::span<const float> given) {
    std::vector<double> w(rows);
    double all = 0;
    for (std::size_t i = 0; i < rows; ++i) {
      all += w[i] = weight_of(given, i);
      positive_ += w[i] > 0 ? 1 : 0;
    }
    for (double& v : w) v *= static_cast<double>(positive_) / all;
    return w;
  }

  std::int64_t positive_ = 0;
};

inline void check_adaboost(const AdaBoostOptions& options) {
  constexpr std::string_view name = AdaBoostRounds<Classification>::name;
  expect_in_range(name, "rounds", options.rounds, 1, 1 << 20);
  expect_in_range(name, "learning_rate", options.learning_rate,
                  (std::numeric_limits<double>::min)(), (std::numeric_limits<double>::max)());
}

/// Saved members and weights.
template <class Task>
void save_boosted(ArchiveWriter& out, const AdaBoostRounds<Task>& rounds) {
  out.array("weights", rounds.weights);
  out.array("errors", rounds.errors);
  save_members<Task>(out, rounds.members);
}
template <class Task>
[[nodiscard]] AdaBoostRounds<Task> load_boosted(const ArchiveReader& in,
                                                const AnyLearner<Task>& prototype) {
  AdaBoostRounds<Task> rounds;
  rounds.weights = in.array<double>("weights");
  rounds.errors = in.array<double>("errors", rounds.weights.size());
  rounds.members.assign(rounds.weights.size(), prototype);
  load_members<Task>(in, rounds.members);
  return rounds;
}

}  // namespace detail

/// SAMME: a member's weight is learning_rate (log((1 - e) / e) + log(k - 1)) for its weighted share
/// e of wrong rows among k classes; wrong rows' weights grow by exp(weight). It stops before a
/// member that guesses.
template <class = void>
class BasicAdaBoostClassifier {
 public:
  BasicAdaBoostClassifier() : BasicAdaBoostClassifier(AnyClassifier(), {}) {}
  BasicAdaBoostClassifier(AnyClassifier learner, AdaBoostOptions options)
      : prototype_(std::move(learner)), options_(std::move(options)) {
    detail::check_adaboost(options_);
  }

  void fit(Features x, std::span<const std::int32_t> y, std::int32_t classes,
           std::span<const float> weights = {}, std::uint64_t seed = 0) {
    detail::check_rows(Rounds::name, x, y.size(), weights);
    detail::check_classes(Rounds::name, {y, classes});
    const double others = (std::max)(classes - 1, 1), rate = options_.learning_rate;
    Rounds rounds;
    NdArray<float, 2> scores({x.rows(), Index{classes}});
    rounds.run(
        prototype_, options_, x, Classes{y, classes}, weights, seed,
        [&](const AnyClassifier& learner, const std::vector<double>&) {
          const std::vector<std::int32_t> said = classes_of(learner, x, scores);
          std::vector<double> wrong(y.size());
          for (std::size_t i = 0; i < y.size(); ++i) wrong[i] = said[i] != y[i] ? 1 : 0;
          return wrong;
        },
        [&](double error) {
          return error < others / (others + 1)
                     ? rate * (std::log((1 - error) / error) + std::log(others))
                     : 0.0;
        },
        [](double weight, double wrong) { return wrong > 0 ? std::exp(weight) : 1.0; });
    rounds_ = std::move(rounds);
    classes_ = classes;
  }

  /// (rows, classes): the sum, over the members, of their weight for the class they say and of
  /// -weight / (classes - 1) for others, over the sum of the weights.
  [[nodiscard]] NdArray<double, 2> decision(Features x) const {
    if (rounds_.members.empty())
      throw ValueError(error_text(Rounds::name, "learner", "one that was fitted", "none"));
    NdArray<double, 2> out({x.rows(), Index{classes_}});
    NdArray<float, 2> scores({x.rows(), Index{classes_}});
    const double others = (std::max)(classes_ - 1, 1);
    double all = 0;
    for (const double w : rounds_.weights) all += w;
    for (std::size_t m = 0; m < rounds_.members.size(); ++m) {
      const std::vector<std::int32_t> said = classes_of(rounds_.members[m], x, scores);
      const double w = rounds_.weights[m] / all;
      for (Index i = 0; i < x.rows(); ++i)
        for (Index c = 0; c < classes_; ++c)
          out(i, c) += said[static_cast<std::size_t>(i)] == c ? w : -w / others;
    }
    return out;
  }

  /// softmax(decision / (classes - 1)).
  void predict_proba(Features x, MatrixView<float> out) const {
    expect_shape(Rounds::name, "out", out, {x.rows(), Index{classes_}});
    NdArray<double, 2> scores = decision(x);
    const double others = (std::max)(classes_ - 1, 1);
    for (Index i = 0; i < x.rows(); ++i) {
      const std::span<double> row(scores.data() + i * classes_, static_cast<std::size_t>(classes_));
      for (double& s : row) s /= others;
      detail::softmax(row);
      for (Index c = 0; c < classes_; ++c) out(i, c) = static_cast<float>(scores(i, c));
    }
  }

  [[nodiscard]] std::int32_t classes() const noexcept { return classes_; }
  [[nodiscard]] std::span<const AnyClassifier> members() const noexcept { return rounds_.members; }
  [[nodiscard]] std::span<const double> weights() const noexcept { return rounds_.weights; }
  /// Weighted shares of wrong rows, of each member.
  [[nodiscard]] std::span<const double> errors() const noexcept { return rounds_.errors; }

  [[nodiscard]] static constexpr std::string_view kind() { return "ensemble.adaboost_classifier"; }
  void save(ArchiveWriter& out) const {
    out.scalar("classes", classes_);
    detail::save_boosted(out, rounds_);
  }
  /// Into one of the same kind of learner.
  void load(const ArchiveReader& in) {
    const auto classes = in.scalar<std::int32_t>("classes");
    if (classes < 1) in.fail_section("classes", "at least 1", std::to_string(classes));
    rounds_ = detail::load_boosted(in, prototype_);
    classes_ = classes;
  }

 private:
  using Rounds = detail::AdaBoostRounds<Classification>;

  static std::vector<std::int32_t> classes_of(const AnyClassifier& learner, Features x,
                                              NdArray<float, 2>& scores) {
    std::vector<std::int32_t> out(static_cast<std::size_t>(x.rows()));
    learner.scores(x, scores.view());
    most_likely(scores.view(), out);
    return out;
  }

  AnyClassifier prototype_;
  AdaBoostOptions options_;
  std::int32_t classes_ = 0;
  Rounds rounds_;
};
/// (A template, so that a program compiles it only where it uses it.)
using AdaBoostClassifier = BasicAdaBoostClassifier<>;

/// R2: with L the mean loss of errors over the largest error, a member's weight is
/// learning_rate log((1 - L) / L), and a row's weight shrinks by ((1 - L) / L)^-(1 - its loss). The
/// weights go to the learner as they are, without drawing rows by them. It stops before a member
/// with L >= 1/2; predictions are weighted medians of the members'.
template <class = void>
class BasicAdaBoostRegressor {
 public:
  BasicAdaBoostRegressor() : BasicAdaBoostRegressor(AnyRegressor(), {}) {}
  BasicAdaBoostRegressor(AnyRegressor learner, AdaBoostOptions options)
      : prototype_(std::move(learner)), options_(std::move(options)) {
    detail::check_adaboost(options_);
  }

  void fit(Features x, std::span<const float> y, std::span<const float> weights = {},
           std::uint64_t seed = 0) {
    detail::check_rows(Rounds::name, x, y.size(), weights);
    detail::check_targets(Rounds::name, y);
    Rounds rounds;
    rounds.run(
        prototype_, options_, x, y, weights, seed,
        [&](const AnyRegressor& learner, const std::vector<double>& w) {
          return losses(ensemble::predict_values(learner, x), y, w);
        },
        [&](double error) {
          return error < 0.5 ? options_.learning_rate * std::log((1 - error) / error) : 0.0;
        },
        [](double weight, double loss) { return std::exp(-weight * (1 - loss)); });
    rounds_ = std::move(rounds);
  }

  void predict(Features x, std::span<float> out) const {
    expect_size(Rounds::name, "out", static_cast<Index>(out.size()), x.rows(), "(the rows)");
    if (rounds_.members.empty())
      throw ValueError(error_text(Rounds::name, "learner", "one that was fitted", "none"));
    std::vector<std::vector<float>> said;
    for (const AnyRegressor& member : rounds_.members)
      said.push_back(ensemble::predict_values(member, x));
    double all = 0;
    for (const double w : rounds_.weights) all += w;
    parallel_for(block_count(x.rows(), detail::row_block), [&](std::int64_t b) {
      const BlockRange rows = block_range(x.rows(), detail::row_block, b);
      for (std::int64_t i = rows.begin; i < rows.end; ++i) {
        const auto row = static_cast<std::size_t>(i);
        out[row] = median(said, row, all / 2);
      }
    });
  }

  [[nodiscard]] std::span<const AnyRegressor> members() const noexcept { return rounds_.members; }
  [[nodiscard]] std::span<const double> weights() const noexcept { return rounds_.weights; }
  /// Weighted mean losses, of each member.
  [[nodiscard]] std::span<const double> errors() const noexcept { return rounds_.errors; }

  [[nodiscard]] static constexpr std::string_view kind() { return "ensemble.adaboost_regressor"; }
  void save(ArchiveWriter& out) const { detail::save_boosted(out, rounds_); }
  void load(const ArchiveReader& in) { rounds_ = detail::load_boosted(in, prototype_); }

 private:
  using Rounds = detail::AdaBoostRounds<Regression>;

  [[nodiscard]] std::vector<double> losses(const std::vector<float>& said, std::span<const float> y,
                                           const std::vector<double>& w) const {
    std::vector<double> out(y.size());
    double most = 0;
    for (std::size_t i = 0; i < y.size(); ++i) {
      out[i] = std::abs(static_cast<double>(said[i]) - static_cast<double>(y[i]));
      if (w[i] > 0) most = (std::max)(most, out[i]);
    }
    for (double& e : out) {
      e = most > 0 ? (std::min)(e / most, 1.0) : 0.0;
      if (options_.loss == RegressionLoss::square) e *= e;
      if (options_.loss == RegressionLoss::exponential) e = 1 - std::exp(-e);
    }
    return out;
  }

  /// The first of the ascending values with which half of the weight is reached.
  [[nodiscard]] float median(const std::vector<std::vector<float>>& said, std::size_t row,
                             double half) const {
    std::vector<std::pair<float, double>> values;
    for (std::size_t m = 0; m < said.size(); ++m)
      values.emplace_back(said[m][row], rounds_.weights[m]);
    std::stable_sort(values.begin(), values.end(),
                     [](const auto& a, const auto& b) { return a.first < b.first; });
    double reached = 0;
    for (const auto& [value, weight] : values)
      if ((reached += weight) >= half) return value;
    return values.back().first;
  }

  AnyRegressor prototype_;
  AdaBoostOptions options_;
  Rounds rounds_;
};
/// (A template, so that a program compiles it only where it uses it.)
using AdaBoostRegressor = BasicAdaBoostRegressor<>;

}  // namespace ensemble
QUERN_NAMESPACE_END

#endif  // QUERN_ENSEMBLE_ADABOOST_HPP
