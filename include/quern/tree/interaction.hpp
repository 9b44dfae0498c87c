// SPDX-License-Identifier: Apache-2.0

/// \file
/// Which features may meet on a path from the root to a leaf.

#ifndef QUERN_TREE_INTERACTION_HPP
#define QUERN_TREE_INTERACTION_HPP

#include "quern/core/config.hpp"

#include <algorithm>
#include <cstdint>
#include <iterator>
#include <utility>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace tree {

/// Interaction constraints by XGBoost's rule: below a path that tests the features P, a feature may
/// be tested if it is in P, or if some group holds it and all of P. Nothing is excluded at the
/// root, so a feature of no group is used alone or not at all.
class InteractionConstraints {
 public:
  /// Sorted and without repetition.
  using Path = std::vector<std::int32_t>;

  /// \p groups of features, each >= 0; none: everything is allowed.
  explicit InteractionConstraints(std::vector<Path> groups) : groups_(std::move(groups)) {
    for (Path& group : groups_) std::sort(group.begin(), group.end());
  }

  [[nodiscard]] bool empty() const noexcept { return groups_.empty(); }

  /// Those of \p features that may be tested below \p path.
  [[nodiscard]] std::vector<std::int32_t> allowed(std::vector<std::int32_t> features,
                                                  const Path& path) const {
    if (groups_.empty() || path.empty()) return features;
    Path permitted = path;
    for (const Path& group : groups_) {
      if (std::includes(group.begin(), group.end(), path.begin(), path.end()))
        permitted.insert(permitted.end(), group.begin(), group.end());
    }
    std::sort(permitted.begin(), permitted.end());
    std::erase_if(features, [&](std::int32_t f) {
      return !std::binary_search(permitted.begin(), permitted.end(), f);
    });
    return features;
  }

  /// \p path with \p feature added; always empty where there are no constraints.
  [[nodiscard]] Path extended(Path path, std::int32_t feature) const {
    if (groups_.empty()) return path;
    const auto at = std::lower_bound(path.begin(), path.end(), feature);
    if (at == path.end() || *at != feature) path.insert(at, feature);
    return path;
  }

 private:
  std::vector<Path> groups_;
};

}  // namespace tree
QUERN_NAMESPACE_END

#endif  // QUERN_TREE_INTERACTION_HPP
