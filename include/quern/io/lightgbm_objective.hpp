// SPDX-License-Identifier: Apache-2.0

/// \file
/// LightGBM's names of objectives and XGBoost's, which models here go by.

#ifndef QUERN_IO_LIGHTGBM_OBJECTIVE_HPP
#define QUERN_IO_LIGHTGBM_OBJECTIVE_HPP

#include "quern/boosting/transform.hpp"
#include "quern/core/config.hpp"

#include <algorithm>
#include <array>
#include <cstdint>
#include <string>
#include <string_view>

QUERN_NAMESPACE_BEGIN
namespace io::detail {

struct ObjectiveNames {
  std::string_view lightgbm;
  std::string_view xgboost;
};

/// Pairs that turn margins into the same predictions; of several, the first is written.
inline constexpr std::array<ObjectiveNames, 21> objective_names = {{
    {"regression", "reg:squarederror"},
    {"regression", "reg:linear"},
    {"regression", "reg:squaredlogerror"},
    {"regression_l1", "reg:absoluteerror"},
    {"mape", "reg:absoluteerror"},
    {"huber", "reg:pseudohubererror"},
    {"fair", "reg:pseudohubererror"},
    {"quantile", "reg:quantileerror"},
    {"poisson", "count:poisson"},
    {"gamma", "reg:gamma"},
    {"tweedie", "reg:tweedie"},
    {"binary", "binary:logistic"},
    {"cross_entropy", "reg:logistic"},
    {"xentropy", "reg:logistic"},
    {"multiclass", "multi:softprob"},
    {"multiclass", "multi:softmax"},
    {"multiclassova", "multi:ova"},
    {"lambdarank", "rank:ndcg"},
    {"lambdarank", "rank:map"},
    {"lambdarank", "rank:pairwise"},
    {"rank_xendcg", "rank:ndcg"},
}};

/// XGBoost's name for the value of LightGBM's `objective` line. Where there is none, or where an
/// option changes what becomes of margins (`sqrt`, a sigmoid other than 1), the line itself.
[[nodiscard]] inline std::string objective_from_lightgbm(std::string_view line) {
  const std::string_view name = line.substr(0, line.find(' '));
  const bool squares = (std::string(line) + " ").find(" sqrt ") != std::string::npos;
  const std::size_t sigmoid = line.find("sigmoid:");
  const bool scaled = sigmoid != std::string_view::npos &&
                      line.substr(sigmoid, line.find(' ', sigmoid) - sigmoid) != "sigmoid:1";
  const bool logistic = name == "binary" || name == "multiclassova";
  if (!squares && !(scaled && logistic)) {
    for (const ObjectiveNames& names : objective_names) {
      if (names.lightgbm == name) return std::string(names.xgboost);
    }
  }
  return std::string(line);
}

/// The value of LightGBM's `objective` line; empty where LightGBM has none that predicts the same,
/// and then it predicts margins.
[[nodiscard]] inline std::string objective_to_lightgbm(const std::string& objective,
                                                       std::int32_t outputs) {
  for (const ObjectiveNames& names : objective_names) {
    if (names.xgboost != objective) continue;
    std::string line(names.lightgbm);
    const bool classes = line == "multiclass" || line == "multiclassova";
    if (classes != (outputs > 1)) return "";
    if (classes) line += " num_class:" + std::to_string(outputs);
    if (line.starts_with("binary") || line.starts_with("multiclassova")) line += " sigmoid:1";
    return line;
  }
  const bool text = std::all_of(objective.begin(), objective.end(),
                                [](char c) { return static_cast<unsigned char>(c) >= 32; });
  // A name of XGBoost's without a fellow; others came from LightGBM's own files.
  return boosting::link_of(objective).has_value() || !text ? "" : objective;
}

}  // namespace io::detail
QUERN_NAMESPACE_END

#endif  // QUERN_IO_LIGHTGBM_OBJECTIVE_HPP
