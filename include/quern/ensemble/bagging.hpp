// SPDX-License-Identifier: Apache-2.0

/// \file
/// Bagging: copies of a learner, each fitted to a sample of the rows and columns, averaged.
///
/// L. Breiman, "Bagging predictors", Machine Learning 24 (1996); columns: T. K. Ho, "The random
/// subspace method", IEEE PAMI 20 (1998); both: G. Louppe, P. Geurts, "Ensembles on random
/// patches", ECML 2012.

#ifndef QUERN_ENSEMBLE_BAGGING_HPP
#define QUERN_ENSEMBLE_BAGGING_HPP

#include "quern/core/archive.hpp"
#include "quern/core/checks.hpp"
#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/core/nd_array.hpp"
#include "quern/core/parallel.hpp"
#include "quern/core/random.hpp"
#include "quern/ensemble/any_learner.hpp"
#include "quern/ensemble/learner.hpp"
#include "quern/ensemble/scores.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace ensemble {

struct BaggingOptions {
  std::int32_t members = 10;  ///< >= 1
  double rows = 1;            ///< share of the rows in a sample, above 0, at most 1
  bool replace = true;        ///< draw rows with replacement
  double columns = 1;         ///< share of the columns
  bool replace_columns = false;
  bool out_of_bag = false;  ///< predict each row by the members that did not learn from it
  int threads = 0;          ///< 0: the default number; never changes a result
};

/// What members that had not seen the rows say of them.
struct OutOfBag {
  double score = 0;               ///< accuracy, of numbers r_squared; over the rows below
  std::int64_t rows = 0;          ///< rows that some member had not seen
  NdArray<float, 2> predictions;  ///< (rows, classes or 1); zeros where every member had seen it
};

/// A row that is drawn twice counts twice (it is weighted, not copied). The mean of the members'
/// probabilities or values is the prediction. One member that takes all rows and columns without
/// replacement is the learner itself.
///
///     BaggingClassifier bag(DecisionTreeClassifier(), {.members = 50, .out_of_bag = true});
///     bag.fit(x, labels.classes().codes, labels.count());
template <class Task>
class Bagging : public LearnerOf<Bagging<Task>, Task> {
 public:
  Bagging() : Bagging(AnyLearner<Task>(), {}) {}
  Bagging(AnyLearner<Task> learner, BaggingOptions options)
      : prototype_(std::move(learner)), options_(options) {
    expect_in_range(name, "members", options.members, 1, 1 << 20);
    for (const auto& [what, share] :
         {std::pair{"rows", options.rows}, {"columns", options.columns}}) {
      if (!(share > 0 && share <= 1))
        throw ValueError(error_text(name, what, "a share above 0, at most 1", share));
    }
  }

  void fit_to(Features x, typename Task::Targets y, std::span<const float> weights,
              std::uint64_t seed) {
    detail::check_rows(name, x, y.size(), weights);
    Task::check(name, y);
    const auto count = static_cast<std::size_t>(options_.members);
    std::vector<Member> members(count, Member{prototype_, {}});
    std::vector<std::vector<std::int32_t>> rows(count);
    parallel_for(
        options_.members,
        [&](std::int64_t i) {
          const auto m = static_cast<std::size_t>(i);
          rows[m] = fit_member(members[m], x, y, weights, seed, static_cast<std::uint64_t>(i));
        },
        options_.threads);
    Bagging fitted(prototype_, options_);  // an error leaves this one as it was
    fitted.members_ = std::move(members);
    fitted.features_ = x.cols();
    fitted.outputs_ = Task::outputs(y);
    if (options_.out_of_bag) fitted.find_out_of_bag(x, y, weights, rows);
    *this = std::move(fitted);
  }

  void scores(Features x, MatrixView<float> out) const {
    expect_size(name, "x", x.cols(), features_, "columns");
    expect_shape(name, "out", out, {x.rows(), outputs_});
    if (members_.size() == 1) return members_[0].scores(x, out);
    NdArray<double, 2> sums({x.rows(), outputs_});
    for (const Member& member : members_) {
      NdArray<float, 2> part({x.rows(), outputs_}, core::Fill::none);
      member.scores(x, part.view());
      for (Index i = 0; i < part.size(); ++i) sums.data()[i] += static_cast<double>(part.data()[i]);
    }
    const auto n = static_cast<double>(members_.size());
    for (Index i = 0; i < x.rows(); ++i)
      for (Index c = 0; c < outputs_; ++c) out(i, c) = static_cast<float>(sums(i, c) / n);
  }

  [[nodiscard]] const OutOfBag& out_of_bag() const noexcept { return out_of_bag_; }
  [[nodiscard]] std::int32_t size() const noexcept {
    return static_cast<std::int32_t>(members_.size());
  }

  [[nodiscard]] static constexpr std::string_view kind() {
    return Task::classes ? "ensemble.bagging_classifier" : "ensemble.bagging_regressor";
  }
  void save(ArchiveWriter& out) const {
    out.scalar("members", size());
    out.scalar("features", features_);
    out.scalar("outputs", outputs_);
    for (std::size_t i = 0; i < members_.size(); ++i) {
      save_member(out, "member " + std::to_string(i), members_[i].learner);
      out.array("columns " + std::to_string(i), members_[i].columns);
    }
  }
  /// Into a bag of the same kind of learner.
  void load(const ArchiveReader& in) {
    Bagging loaded(prototype_, options_);
    loaded.features_ = in.scalar<std::int64_t>("features");
    loaded.outputs_ = in.scalar<std::int64_t>("outputs");
    const auto count = in.scalar<std::int32_t>("members");
    if (count < 1 || loaded.outputs_ < 1)
      in.fail_section("members", "at least one, of one output or more", std::to_string(count));
    for (std::int32_t i = 0; i < count; ++i) {
      Member member{prototype_, in.array<std::int32_t>("columns " + std::to_string(i))};
      for (const std::int32_t c : member.columns)
        if (c < 0 || c >= loaded.features_)
          in.fail_section("columns " + std::to_string(i), "columns of the features",
                          std::to_string(c));
      load_member(in, "member " + std::to_string(i), member.learner);
      loaded.members_.push_back(std::move(member));
    }
    *this = std::move(loaded);
  }

 private:
  static constexpr std::string_view name = "quern::ensemble::Bagging";

  struct Member {
    AnyLearner<Task> learner;
    std::vector<std::int32_t> columns;  // none: all

    void scores(Features x, MatrixView<float> out) const {
      if (columns.empty()) return learner.scores(x, out);
      std::vector<std::int32_t> all(static_cast<std::size_t>(x.rows()));
      std::iota(all.begin(), all.end(), 0);
      const NdArray<float, 2> some = detail::picked(x, all, columns);
      learner.scores(some.view(), out);
    }
  };

  /// A share of the candidates, ascending, with replacement perhaps several times.
  static std::vector<std::int32_t> draw(Philox rng, const std::vector<std::int32_t>& candidates,
                                        double share, bool replace) {
    const auto n = static_cast<std::int64_t>(candidates.size());
    const auto wanted = (std::max)(
        std::int64_t{1}, static_cast<std::int64_t>(std::llround(share * static_cast<double>(n))));
    std::vector<std::int32_t> out;
    if (replace) {
      for (std::int64_t i = 0; i < wanted; ++i)
        out.push_back(candidates[rng.integer(static_cast<std::uint64_t>(n))]);
      std::sort(out.begin(), out.end());
    } else {
      for (const std::int64_t i : rng.sample(n, wanted))
        out.push_back(candidates[static_cast<std::size_t>(i)]);
      std::sort(out.begin(), out.end());
    }
    return out;
  }

  /// Fits a member; returns the rows that it saw, each once (none: all).
  std::vector<std::int32_t> fit_member(Member& member, Features x, typename Task::Targets y,
                                       std::span<const float> weights, std::uint64_t seed,
                                       std::uint64_t number) const {
    const std::uint64_t own = detail::member_seed(seed, number);
    if (options_.columns < 1 || options_.replace_columns) {
      std::vector<std::int32_t> all(static_cast<std::size_t>(x.cols()));
      std::iota(all.begin(), all.end(), 0);
      member.columns = draw(Philox(seed, "bagging columns", number), all, options_.columns,
                            options_.replace_columns);
    }
    const bool all_rows = !options_.replace && options_.rows == 1;
    if (all_rows && member.columns.empty()) {
      member.learner.fit_to(x, y, weights, own);
      return {};
    }
    // Rows of weight 0 are not there, so they are not drawn.
    std::vector<std::int32_t> rows;
    for (std::size_t i = 0; i < y.size(); ++i)
      if (weights.empty() || weights[i] > 0) rows.push_back(static_cast<std::int32_t>(i));
    if (!all_rows)
      rows = draw(Philox(seed, "bagging rows", number), rows, options_.rows, options_.replace);
    std::vector<std::int32_t> once;
    std::vector<float> times;
    for (const std::int32_t r : rows) {
      if (once.empty() || once.back() != r) {
        once.push_back(r);
        times.push_back(0);
      }
      times.back() += weights.empty() ? 1.0f : weights[static_cast<std::size_t>(r)];
    }
    typename Task::Memory memory;
    const NdArray<float, 2> sample = detail::picked(x, once, member.columns);
    member.learner.fit_to(sample.view(), Task::picked(y, once, memory), times, own);
    if (all_rows) once.clear();
    return once;
  }

  void find_out_of_bag(Features x, typename Task::Targets y, std::span<const float> weights,
                       const std::vector<std::vector<std::int32_t>>& seen) {
    out_of_bag_.predictions = NdArray<float, 2>({x.rows(), outputs_});
    NdArray<double, 2> sums({x.rows(), outputs_});
    std::vector<std::int32_t> members(y.size());
    for (std::size_t m = 0; m < seen.size(); ++m) {
      if (seen[m].empty()) continue;
      std::vector<std::int32_t> rest;
      for (std::size_t i = 0, at = 0; i < y.size(); ++i) {
        while (at < seen[m].size() && seen[m][at] < static_cast<std::int32_t>(i)) ++at;
        if (at == seen[m].size() || seen[m][at] != static_cast<std::int32_t>(i))
          rest.push_back(static_cast<std::int32_t>(i));
      }
      const NdArray<float, 2> rows = detail::picked(x, rest);
      NdArray<float, 2> part({rows.extent(0), outputs_});
      members_[m].scores(rows.view(), part.view());
      for (Index i = 0; i < part.extent(0); ++i) {
        const std::int32_t row = rest[static_cast<std::size_t>(i)];
        ++members[static_cast<std::size_t>(row)];
        for (Index c = 0; c < outputs_; ++c) sums(row, c) += static_cast<double>(part(i, c));
      }
    }
    std::vector<float> counted(y.size());  // rows that no member is left for do not count
    for (std::size_t i = 0; i < y.size(); ++i) {
      if (members[i] == 0) continue;
      ++out_of_bag_.rows;
      counted[i] = weights.empty() ? 1.0f : weights[i];
      const auto row = static_cast<Index>(i);
      for (Index c = 0; c < outputs_; ++c)
        out_of_bag_.predictions(row, c) = static_cast<float>(sums(row, c) / members[i]);
    }
    if (out_of_bag_.rows == 0)
      throw ValueError(error_text(name, "out_of_bag", "rows that some member has not seen",
                                  "none: draw with replacement, or a smaller share"));
    out_of_bag_.score = detail::score_of(Task{}, out_of_bag_.predictions.view(), y, counted);
  }

  AnyLearner<Task> prototype_;
  BaggingOptions options_;
  std::vector<Member> members_;
  std::int64_t features_ = 0;
  Index outputs_ = 0;
  OutOfBag out_of_bag_;
};

using BaggingClassifier = Bagging<Classification>;
using BaggingRegressor = Bagging<Regression>;

}  // namespace ensemble
QUERN_NAMESPACE_END

#endif  // QUERN_ENSEMBLE_BAGGING_HPP
