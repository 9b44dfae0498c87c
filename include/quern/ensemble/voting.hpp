// SPDX-License-Identifier: Apache-2.0

/// \file
/// Voting: unlike learners, each fitted to all rows, agree on a prediction.

#ifndef QUERN_ENSEMBLE_VOTING_HPP
#define QUERN_ENSEMBLE_VOTING_HPP

#include "quern/core/archive.hpp"
#include "quern/core/checks.hpp"
#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/core/nd_array.hpp"
#include "quern/core/parallel.hpp"
#include "quern/ensemble/any_learner.hpp"
#include "quern/ensemble/learner.hpp"

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

enum class Vote : std::uint8_t {
  soft,  ///< the mean of probabilities (of numbers: of values)
  hard   ///< the share of the members that say a class; classes only
};

struct VotingOptions {
  Vote vote = Vote::soft;
  std::vector<double> weights = {};  ///< (members) >= 0, some above 0; none: all the same
  int threads = 0;                   ///< 0: the default number; never changes a result
};

/// Of classes with as many votes the lowest one wins.
template <class Task>
class Voting : public LearnerOf<Voting<Task>, Task> {
 public:
  explicit Voting(std::vector<AnyLearner<Task>> members = {}, VotingOptions options = {})
      : members_(std::move(members)), options_(std::move(options)) {
    if (options_.weights.empty()) options_.weights.assign(members_.size(), 1.0);
    expect_size(name, "weights", static_cast<Index>(options_.weights.size()),
                static_cast<Index>(members_.size()), "(the members)");
    for (const double w : options_.weights) {
      if (!is_finite_bits(w) || w < 0)
        throw ValueError(error_text(name, "weights", "finite numbers >= 0", w));
      total_ += w;
    }
    if (!is_finite_bits(total_))
      throw ValueError(error_text(name, "weights", "numbers of a finite sum", "larger ones"));
    if (!members_.empty() && !(total_ > 0))
      throw ValueError(error_text(name, "weights", "at least one above 0", "none"));
  }

  void fit_to(Features x, typename Task::Targets y, std::span<const float> weights,
              std::uint64_t seed) {
    detail::check_rows(name, x, y.size(), weights);
    Task::check(name, y);
    if (members_.empty()) throw ValueError(error_text(name, "members", "at least one", 0));
    std::vector<AnyLearner<Task>> members = members_;
    parallel_for(
        static_cast<std::int64_t>(members.size()),
        [&](std::int64_t i) {
          const auto m = static_cast<std::size_t>(i);
          members[m].fit_to(x, y, weights, detail::member_seed(seed, m));
        },
        options_.threads);
    members_ = std::move(members);
    outputs_ = Task::outputs(y);
  }

  void scores(Features x, MatrixView<float> out) const {
    expect_shape(name, "out", out, {x.rows(), outputs_});
    NdArray<double, 2> sums({x.rows(), outputs_});
    NdArray<float, 2> part({x.rows(), outputs_}, core::Fill::none);
    for (std::size_t m = 0; m < members_.size(); ++m) {
      members_[m].scores(x, part.view());
      if (options_.vote == Vote::hard && outputs_ > 1) to_votes(part.view());
      for (Index i = 0; i < part.size(); ++i)
        sums.data()[i] += options_.weights[m] * static_cast<double>(part.data()[i]);
    }
    for (Index i = 0; i < x.rows(); ++i)
      for (Index c = 0; c < outputs_; ++c) out(i, c) = static_cast<float>(sums(i, c) / total_);
  }

  [[nodiscard]] std::span<const AnyLearner<Task>> members() const noexcept { return members_; }

  [[nodiscard]] static constexpr std::string_view kind() {
    return Task::classes ? "ensemble.voting_classifier" : "ensemble.voting_regressor";
  }
  void save(ArchiveWriter& out) const {
    out.scalar("outputs", outputs_);
    out.scalar("vote", static_cast<std::uint8_t>(options_.vote));
    out.array("weights", options_.weights);
    detail::save_members<Task>(out, members_);
  }
  /// Into a vote of the same kinds and number of members. Weights and the way to vote are the
  /// file's; of a file without them this one's.
  void load(const ArchiveReader& in) {
    std::vector<AnyLearner<Task>> members = members_;
    detail::load_members<Task>(in, members);
    VotingOptions options = options_;
    const auto outputs = in.scalar<std::int64_t>("outputs");
    if (outputs < 0) in.fail_section("outputs", "at least 0", std::to_string(outputs));
    const auto vote = in.scalar_or<std::uint8_t>("vote", static_cast<std::uint8_t>(options.vote));
    if (vote > 1) in.fail_section("vote", "0 or 1", std::to_string(vote));
    options.vote = static_cast<Vote>(vote);
    if (in.has("weights")) options.weights = in.array<double>("weights", members.size());
    double total = 0;
    for (const double w : options.weights)
      total += w >= 0 ? w : (std::numeric_limits<double>::quiet_NaN)();
    if (!is_finite_bits(total) || (!members.empty() && !(total > 0)))
      in.fail_section("weights", "numbers >= 0 of a finite sum above 0", std::to_string(total));
    outputs_ = outputs;
    options_ = std::move(options);
    total_ = total;
    members_ = std::move(members);
  }

 private:
  static constexpr std::string_view name = "quern::ensemble::Voting";

  static void to_votes(MatrixView<float> scores) {
    std::vector<std::int32_t> classes(static_cast<std::size_t>(scores.rows()));
    most_likely(scores, classes);
    for (Index i = 0; i < scores.rows(); ++i)
      for (Index c = 0; c < scores.cols(); ++c)
        scores(i, c) = classes[static_cast<std::size_t>(i)] == c ? 1.0f : 0.0f;
  }

  std::vector<AnyLearner<Task>> members_;
  VotingOptions options_;
  double total_ = 0;
  Index outputs_ = 0;
};

using VotingClassifier = Voting<Classification>;
using VotingRegressor = Voting<Regression>;

}  // namespace ensemble
QUERN_NAMESPACE_END

#endif  // QUERN_ENSEMBLE_VOTING_HPP
