// SPDX-License-Identifier: Apache-2.0

/// \file
/// How much each feature mattered, under XGBoost's names and with its values.

#ifndef QUERN_BOOSTING_IMPORTANCE_HPP
#define QUERN_BOOSTING_IMPORTANCE_HPP

#include "quern/boosting/model.hpp"
#include "quern/core/config.hpp"
#include "quern/core/error.hpp"

#include <cstdint>
#include <string_view>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace boosting {

/// What is counted over a feature's splits.
enum class Importance : std::uint8_t {
  weight,       ///< their number
  gain,         ///< mean gain
  cover,        ///< mean cover (sum of hessians)
  total_gain,   ///< summed gain
  total_cover,  ///< summed cover
};

/// ValueError for a name other than "weight", "gain", "cover", "total_gain", "total_cover".
[[nodiscard]] inline Importance importance_from_name(std::string_view name) {
  if (name == "weight") return Importance::weight;
  if (name == "gain") return Importance::gain;
  if (name == "cover") return Importance::cover;
  if (name == "total_gain") return Importance::total_gain;
  if (name == "total_cover") return Importance::total_cover;
  throw ValueError(error_text("quern::boosting::importance_from_name", "name",
                              "weight, gain, cover, total_gain or total_cover", name));
}

/// One number a feature, (model.features); 0 for features that no tree splits on (XGBoost leaves
/// those out). All trees of the model count, also those after the best round.
[[nodiscard]] inline std::vector<double> importance(const Model& model, Importance kind) {
  const auto features = static_cast<std::size_t>(model.features);
  std::vector<double> splits(features, 0.0);
  std::vector<double> total(features, 0.0);
  const bool gains = kind == Importance::gain || kind == Importance::total_gain;
  for (const tree::Tree& tree : model.trees) {
    for (const tree::Node& n : tree.nodes) {
      if (n.is_leaf()) continue;
      splits[static_cast<std::size_t>(n.feature)] += 1.0;
      total[static_cast<std::size_t>(n.feature)] += gains ? n.gain : n.cover;
    }
  }
  if (kind == Importance::weight) return splits;
  if (kind == Importance::gain || kind == Importance::cover) {
    for (std::size_t f = 0; f < features; ++f) total[f] /= splits[f] > 0 ? splits[f] : 1.0;
  }
  return total;
}

}  // namespace boosting
QUERN_NAMESPACE_END

#endif  // QUERN_BOOSTING_IMPORTANCE_HPP
