// SPDX-License-Identifier: Apache-2.0

/// \file
/// Where XGBoost's base_score lives: in the space of predictions, not of margins, for some
/// objectives.

#ifndef QUERN_IO_XGBOOST_BASE_SCORE_HPP
#define QUERN_IO_XGBOOST_BASE_SCORE_HPP

#include "quern/core/config.hpp"

#include <algorithm>
#include <cmath>
#include <string_view>

QUERN_NAMESPACE_BEGIN
namespace io::detail {

/// What turns a margin into the base_score that XGBoost stores.
enum class BaseScoreLink { identity, logistic, exponential };

[[nodiscard]] inline BaseScoreLink base_score_link(std::string_view objective) {
  if (objective == "binary:logistic" || objective == "reg:logistic")
    return BaseScoreLink::logistic;  // that of binary:logitraw is its margin
  if (objective == "count:poisson" || objective == "reg:gamma" || objective == "reg:tweedie" ||
      objective == "survival:cox" || objective == "survival:aft")
    return BaseScoreLink::exponential;
  return BaseScoreLink::identity;
}

/// Whether \p score is in the link's range (false for NaN).
[[nodiscard]] inline bool is_base_score(BaseScoreLink link, double score) {
  if (link == BaseScoreLink::logistic) return score > 0 && score < 1;
  if (link == BaseScoreLink::exponential) return score > 0;
  return true;
}

[[nodiscard]] inline double margin_of_base_score(BaseScoreLink link, double score) {
  if (link == BaseScoreLink::logistic) return -std::log(1.0 / score - 1.0);
  if (link == BaseScoreLink::exponential) return std::log(score);
  return score;
}

/// The float that XGBoost stores; margins beyond +-15 or so have none that is near.
[[nodiscard]] inline float base_score_of_margin(BaseScoreLink link, double margin) {
  if (link == BaseScoreLink::logistic) {
    const double m = (std::clamp)(margin, -15.0, 15.0);
    return static_cast<float>(1.0 / (1.0 + std::exp(-m)));
  }
  if (link == BaseScoreLink::exponential) {
    return static_cast<float>(std::exp((std::clamp)(margin, -80.0, 80.0)));
  }
  return static_cast<float>(margin);
}

}  // namespace io::detail
QUERN_NAMESPACE_END

#endif  // QUERN_IO_XGBOOST_BASE_SCORE_HPP
