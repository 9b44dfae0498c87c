// SPDX-License-Identifier: Apache-2.0

/// \file
/// Metrics of predictions, by XGBoost's names; docs/boosting/objectives.md has a table of all.

#ifndef QUERN_BOOSTING_METRIC_HPP
#define QUERN_BOOSTING_METRIC_HPP

#include "quern/boosting/metrics/base.hpp"
#include "quern/boosting/metrics/ranking.hpp"
#include "quern/boosting/metrics/row_losses.hpp"
#include "quern/boosting/metrics/survival.hpp"
#include "quern/boosting/objective.hpp"
#include "quern/core/config.hpp"
#include "quern/core/error.hpp"

#include <charconv>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace boosting {

namespace detail {

/// A metric's name in its parts: "ndcg@5-" is ndcg, 5, minus.
struct MetricName {
  std::string_view base;
  std::optional<double> at;
  bool minus = false;
  bool sound = true;  ///< whether what follows @ is a number

  explicit MetricName(std::string_view text) : base(text) {
    const std::size_t place = text.find('@');
    if (place == std::string_view::npos) {
      if (text == "ndcg-" || text == "map-") {
        minus = true;
        base.remove_suffix(1);
      }
      return;
    }
    base = text.substr(0, place);
    std::string_view number = text.substr(place + 1);
    if (number.ends_with('-')) {
      minus = true;
      number.remove_suffix(1);
    }
    double value = 0;
    const auto end = number.data() + number.size();
    const auto result = std::from_chars(number.data(), end, value);
    sound = result.ec == std::errc() && result.ptr == end;
    at = value;
  }
};

using Predictions = std::span<const float>;

/// Metrics without a parameter.
template <class = void>
inline std::optional<EvalMetric> plain_metric(std::string_view name, bool single) {
  struct Plain {
    std::string_view name;
    double (*value)(Predictions, std::int32_t, const Targets&);
    bool larger_is_better;
  };
  static constexpr Plain of_one[] = {{"rmse", rmse, false},
                                     {"rmsle", rmsle, false},
                                     {"mae", mae, false},
                                     {"mape", mape, false},
                                     {"logloss", logloss, false},
                                     {"error", error, false},
                                     {"poisson-nloglik", poisson_nloglik, false},
                                     {"gamma-nloglik", gamma_nloglik, false},
                                     {"gamma-deviance", gamma_deviance, false},
                                     {"cox-nloglik", cox_nloglik, false}};
  static constexpr Plain of_many[] = {{"mlogloss", mlogloss, false}, {"merror", merror, false}};
  static constexpr Plain of_any[] = {
      {"auc", auc, true}, {"aucpr", aucpr, true}, {"average_precision", average_precision, true}};
  const auto find = [&](std::span<const Plain> list) -> std::optional<EvalMetric> {
    for (const Plain& m : list) {
      if (m.name == name) return EvalMetric{std::string(m.name), m.value, m.larger_is_better};
    }
    return std::nullopt;
  };
  if (auto found = find(of_any)) return found;
  return single ? find(of_one) : find(of_many);
}

/// Metrics of one output with a parameter, in the name or from the objective.
template <class = void>
inline EvalMetric::Function metric_with_parameter(const MetricName& name,
                                                  const ObjectiveParams& params) {
  if (name.base == "error" && name.at && *name.at > 0 && *name.at < 1) {
    return [at = static_cast<float>(*name.at)](Predictions p, std::int32_t, const Targets& t) {
      return error_at(p, t, at);
    };
  }
  if (name.base == "tweedie-nloglik") {
    const double power = name.at.value_or(params.tweedie_variance_power);
    if (!(power > 1 && power < 2)) return nullptr;
    return [power](Predictions p, std::int32_t, const Targets& t) {
      return tweedie_nloglik(p, t, power);
    };
  }
  if (name.at) return nullptr;
  if (name.base == "mphe") {
    return [slope = params.huber_slope](Predictions p, std::int32_t, const Targets& t) {
      return mphe(p, t, slope);
    };
  }
  if (name.base == "aft-nloglik") {
    return [params](Predictions p, std::int32_t, const Targets& t) {
      return aft_nloglik(p, t, params.aft_loss_distribution, params.aft_loss_distribution_scale);
    };
  }
  return nullptr;
}

/// ndcg, map and pre, with or without @k and the minus.
template <class = void>
inline EvalMetric::Function ranking_metric(const MetricName& name, const ObjectiveParams& params) {
  RankCut cut;
  if (name.at) {
    if (!(*name.at >= 1 && *name.at <= 1e9)) return nullptr;
    cut.top = static_cast<std::size_t>(*name.at);
    if (static_cast<double>(cut.top) != *name.at) return nullptr;
  }
  cut.without_relevant = name.minus ? 0 : 1;
  if (name.base == "ndcg") {
    return
        [cut, exponential = params.ndcg_exp_gain](Predictions p, std::int32_t, const Targets& t) {
          return ndcg(p, t, cut, exponential);
        };
  }
  if (name.base == "map") {
    return [cut](Predictions p, std::int32_t, const Targets& t) {
      return mean_average_precision(p, t, cut);
    };
  }
  if (name.base == "pre" && !name.minus) {
    return [top = cut.top](Predictions p, std::int32_t, const Targets& t) {
      return precision_at(p, t, top);
    };
  }
  return nullptr;
}

}  // namespace detail

/// The metric of a name, for predictions with \p outputs columns; ValueError where it is unknown or
/// does not fit. Parameters that a name does not tell are the objective's.
template <class = void>
[[nodiscard]] inline EvalMetric make_metric(std::string_view name, std::int32_t outputs,
                                            const ObjectiveParams& params = {}) {
  if (auto plain = detail::plain_metric(name, outputs == 1)) return *std::move(plain);
  const detail::MetricName parts(name);
  if (name == "quantile") {
    std::vector<double> alpha = detail::quantile_levels(params, outputs);
    if (alpha.size() == static_cast<std::size_t>(outputs)) {
      return {std::string(name), [alpha](std::span<const float> p, std::int32_t, const Targets& t) {
                return pinball(p, t, alpha);
              }};
    }
  }
  if (outputs == 1 && parts.sound) {
    if (auto f = detail::metric_with_parameter(parts, params))
      return {std::string(name), std::move(f), false};
    if (auto f = detail::ranking_metric(parts, params))
      return {std::string(name), std::move(f), true};
  }
  throw ValueError(error_text(
      "quern::boosting::make_metric", "eval_metric",
      outputs == 1
          ? "rmse, rmsle, mae, mape, mphe, quantile, logloss, error, error@t, auc, aucpr, "
            "average_precision, poisson-nloglik, gamma-nloglik, gamma-deviance, tweedie-nloglik, "
            "cox-nloglik, aft-nloglik, ndcg, map or pre (with @k)"
          : "mlogloss, merror, auc, aucpr, average_precision or (of quantiles) quantile, as there "
            "are several outputs",
      name));
}

/// A metric of the user's own, as a metric.
template <class = void>
[[nodiscard]] inline EvalMetric metric_of(const CustomMetric& custom) {
  if (!custom.value || custom.name.empty())
    throw ValueError(error_text("quern::boosting::metric_of", "custom_metrics",
                                "a name and a callable", custom.name));
  return {custom.name,
          [value = custom.value](std::span<const float> p, std::int32_t outputs, const Targets& t) {
            std::vector<float> ones;
            return value(ConstRowArrayMap(p.data(), t.rows(), outputs),
                         ConstColumnMap(t.labels.data(), t.rows()), detail::weights_of(t, ones));
          },
          custom.larger_is_better};
}

}  // namespace boosting
QUERN_NAMESPACE_END

#endif  // QUERN_BOOSTING_METRIC_HPP
