// SPDX-License-Identifier: Apache-2.0

/// \file
/// Objectives by XGBoost's names. Each loss stands in a header of `objectives/`;
/// docs/boosting/objectives.md has a table of all.

#ifndef QUERN_BOOSTING_OBJECTIVE_HPP
#define QUERN_BOOSTING_OBJECTIVE_HPP

#include "quern/boosting/objective_params.hpp"
#include "quern/boosting/objectives/base.hpp"
#include "quern/boosting/objectives/classification.hpp"
#include "quern/boosting/objectives/custom.hpp"
#include "quern/boosting/objectives/positive.hpp"
#include "quern/boosting/objectives/ranking.hpp"
#include "quern/boosting/objectives/regression.hpp"
#include "quern/boosting/objectives/survival.hpp"
#include "quern/core/config.hpp"
#include "quern/core/error.hpp"

#include <cstdint>
#include <memory>
#include <string_view>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace boosting {

/// Names that make_objective() knows.
inline constexpr std::string_view objective_names[] = {"reg:squarederror",
                                                       "reg:squaredlogerror",
                                                       "reg:absoluteerror",
                                                       "reg:pseudohubererror",
                                                       "reg:quantileerror",
                                                       "reg:logistic",
                                                       "reg:gamma",
                                                       "reg:tweedie",
                                                       "count:poisson",
                                                       "binary:logistic",
                                                       "binary:logitraw",
                                                       "binary:hinge",
                                                       "multi:softmax",
                                                       "multi:softprob",
                                                       "multi:ova",
                                                       "rank:pairwise",
                                                       "rank:ndcg",
                                                       "rank:map",
                                                       "survival:cox",
                                                       "survival:aft",
                                                       "custom"};

namespace detail {

/// Levels of \p outputs quantiles where none are given.
inline std::vector<double> quantile_levels(const ObjectiveParams& params, std::int32_t outputs) {
  std::vector<double> levels = params.quantile_alpha;
  for (std::int32_t k = 1; levels.empty() || (params.quantile_alpha.empty() && k <= outputs); ++k)
    levels.push_back(static_cast<double>(k) / (outputs + 1));
  return levels;
}

template <class Lazy = void>
inline std::unique_ptr<Objective> make_regression(std::string_view name, std::int32_t outputs,
                                                  const ObjectiveParams& params) {
  if (name == "reg:squarederror") return std::make_unique<SquaredError>();
  if (name == "reg:squaredlogerror") return std::make_unique<SquaredLogError>();
  if (name == "reg:absoluteerror") return std::make_unique<AbsoluteError>();
  if (name == "reg:pseudohubererror")
    return std::make_unique<BasicPseudoHuber<Lazy>>(params.huber_slope);
  if (name == "reg:quantileerror")
    return std::make_unique<QuantileError>(quantile_levels(params, outputs));
  if (name == "count:poisson")
    return std::make_unique<BasicPoisson<Lazy>>(params.poisson_max_delta_step);
  if (name == "reg:gamma") return std::make_unique<BasicGamma<Lazy>>();
  if (name == "reg:tweedie")
    return std::make_unique<BasicTweedie<Lazy>>(params.tweedie_variance_power);
  return nullptr;
}

}  // namespace detail

/// The objective of a name; ValueError for one that is not known, or whose parameters are out of
/// range. \p outputs: classes of multi:*, margins of "custom", levels of reg:quantileerror where
/// the parameters name none. `custom` without a function predicts margins and cannot learn.
template <class Lazy = void>
[[nodiscard]] inline std::unique_ptr<Objective> make_objective(std::string_view name,
                                                               std::int32_t outputs,
                                                               const ObjectiveParams& params = {}) {
  if (auto made = detail::make_regression(name, outputs, params)) return made;
  if (name == "binary:logistic" || name == "reg:logistic" || name == "binary:logitraw")
    return std::make_unique<BasicLogistic<Lazy>>(name, params.scale_pos_weight);
  if (name == "binary:hinge") return std::make_unique<Hinge>();
  if (name == "multi:softprob" || name == "multi:softmax")
    return std::make_unique<BasicSoftmax<Lazy>>(name, outputs, params.softmax_hessian);
  if (name == "multi:ova") return std::make_unique<BasicOneVsAll<Lazy>>(outputs);
  if (name == "rank:pairwise" || name == "rank:ndcg" || name == "rank:map")
    return std::make_unique<BasicLambdaRank<Lazy>>(name, params);
  if (name == "survival:cox") return std::make_unique<BasicCox<Lazy>>();
  if (name == "survival:aft") return std::make_unique<BasicAft<Lazy>>(params);
  if (name == "custom") return std::make_unique<BasicCustom<Lazy>>(outputs, nullptr);
  std::string known;
  for (const std::string_view n : objective_names)
    known += (known.empty() ? "" : ", ") + std::string(n);
  throw ValueError(
      error_text("quern::boosting::make_objective", "objective", "one of " + known, name));
}

}  // namespace boosting
QUERN_NAMESPACE_END

#endif  // QUERN_BOOSTING_OBJECTIVE_HPP
