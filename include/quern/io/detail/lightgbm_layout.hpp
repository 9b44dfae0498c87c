// SPDX-License-Identifier: Apache-2.0

/// \file
/// A tree as LightGBM numbers and routes it: splits and leaves apart, x <= t, and categorical
/// splits that send NaN with the categories outside the set.

#ifndef QUERN_IO_DETAIL_LIGHTGBM_LAYOUT_HPP
#define QUERN_IO_DETAIL_LIGHTGBM_LAYOUT_HPP

#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/tree/float_key.hpp"
#include "quern/tree/tree.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace io::detail {

/// The largest double that a split at \p t sends left. Where input counts as float, that is the
/// largest double that rounds to a float below t, so that doubles go the same way, too.
[[nodiscard]] inline double last_left(double t, tree::InputType input) {
  constexpr double infinity = (std::numeric_limits<double>::infinity)();
  if (input == tree::InputType::float64) return std::nextafter(t, -infinity);
  const float at = tree::round_up_to_float(t);
  constexpr double largest = static_cast<double>((std::numeric_limits<float>::max)());
  constexpr double past = 0x1.ffffffp127;  // half way from the largest float to the next power
  if (static_cast<double>(at) > largest) return std::nextafter(past, -infinity);
  if (static_cast<double>(at) < -largest) return -infinity;
  if (static_cast<double>(at) == -largest) return -past;
  const float below = std::nextafter(at, -(std::numeric_limits<float>::infinity)());
  const double middle = (static_cast<double>(below) + static_cast<double>(at)) / 2;
  const bool to_below = (std::bit_cast<std::uint32_t>(below) & 1u) == 0;  // ties go to even
  return to_below ? middle : std::nextafter(middle, -infinity);
}

/// Such a tree whose categorical splits all send NaN left: where one sends it right, a split of NaN
/// from the rest comes before it, and the right branch is copied below that.
class MissingExpander {
 public:
  MissingExpander(const tree::Tree& from, const std::string& where) : from_(from) {
    to_.nodes.clear();
    to_.category_words = from.category_words;
    limit_ = from.nodes.size() * 64 + 4096;
    add(0, -1, {});
    for (std::size_t at = 0; at < open_.size(); ++at) {
      if (to_.nodes.size() > limit_)
        throw ValueError(error_text(where, "categorical splits",
                                    "few below each other that send missing values right",
                                    "more than LightGBM's rule has room for"));
      expand(open_[at]);
    }
  }

  [[nodiscard]] std::pair<tree::Tree, std::vector<std::int32_t>> take() {
    return {std::move(to_), std::move(sources_)};
  }

 private:
  struct Known {
    std::int32_t feature;
    bool missing;
  };
  struct Open {
    std::int32_t source;
    std::int32_t node;
    std::vector<Known> known;  // on the way here
  };

  static const Known* find(const std::vector<Known>& known, std::int32_t feature) {
    for (const Known& k : known)
      if (k.feature == feature) return &k;
    return nullptr;
  }

  std::int32_t add(std::int32_t source, std::int32_t parent, std::vector<Known> known) {
    while (!from_.node(source).is_leaf()) {
      const tree::Node& n = from_.node(source);
      const Known* k = find(known, n.feature);
      if (k == nullptr || !k->missing) break;
      source = n.missing_left() ? n.left : n.right;
    }
    const auto node = static_cast<std::int32_t>(to_.nodes.size());
    to_.nodes.push_back(from_.node(source));
    to_.nodes.back().parent = parent;
    sources_.push_back(source);
    open_.push_back({source, node, std::move(known)});
    return node;
  }

  void expand(const Open& at) {
    const tree::Node& n = from_.node(at.source);
    if (n.is_leaf()) return;
    const Open open = at;  // the list grows
    std::int32_t left = n.left;
    std::vector<Known> left_known = open.known;
    std::vector<Known> right_known = open.known;
    tree::Node& made = to_.node(open.node);
    if (n.kind == tree::SplitKind::categorical && !n.default_left) {
      made.default_left = true;
      if (find(open.known, n.feature) == nullptr) {
        made.kind = tree::SplitKind::numeric;
        made.threshold = (std::numeric_limits<double>::infinity)();
        made.default_left = false;
        made.missing = tree::MissingRule::nan;
        made.gain = 0;
        left = open.source;
        left_known.push_back({n.feature, false});
        right_known.push_back({n.feature, true});
      }
    }
    const std::int32_t l = add(left, open.node, std::move(left_known));
    const std::int32_t r = add(n.right, open.node, std::move(right_known));
    to_.node(open.node).left = l;
    to_.node(open.node).right = r;
  }

  const tree::Tree& from_;
  tree::Tree to_;
  std::vector<std::int32_t> sources_;
  std::vector<Open> open_;
  std::size_t limit_ = 0;
};

/// See the file comment.
class LightgbmLayout {
 public:
  LightgbmLayout(const tree::Tree& source, const std::string& where) : tree_(&source) {
    const bool fits =
        std::none_of(source.nodes.begin(), source.nodes.end(), [](const tree::Node& n) {
          return !n.is_leaf() && n.kind == tree::SplitKind::categorical && !n.default_left;
        });
    if (!fits) {
      std::tie(expanded_, sources_) = MissingExpander(source, where).take();
      tree_ = &expanded_;
    }
    numbers_.resize(tree_->nodes.size(), 0);
    for (std::int32_t i = 0; i < tree_->size(); ++i) {
      if (!tree_->in_use(i)) continue;
      std::vector<std::int32_t>& list = tree_->node(i).is_leaf() ? leaves_ : splits_;
      const auto rank = static_cast<std::int32_t>(list.size());
      numbers_[static_cast<std::size_t>(i)] = tree_->node(i).is_leaf() ? ~rank : rank;
      list.push_back(i);
    }
  }
  LightgbmLayout(const LightgbmLayout&) = delete;
  LightgbmLayout& operator=(const LightgbmLayout&) = delete;

  [[nodiscard]] const tree::Tree& tree() const noexcept { return *tree_; }
  /// Nodes of the tree in LightGBM's order.
  [[nodiscard]] const std::vector<std::int32_t>& splits() const noexcept { return splits_; }
  [[nodiscard]] const std::vector<std::int32_t>& leaves() const noexcept { return leaves_; }
  /// LightGBM's number of a node: of a split, or ~ of a leaf.
  [[nodiscard]] std::int32_t number(std::int32_t node) const {
    return numbers_[static_cast<std::size_t>(node)];
  }
  /// The node of the original tree that a node was made from.
  [[nodiscard]] std::int32_t source(std::int32_t node) const {
    return sources_.empty() ? node : sources_[static_cast<std::size_t>(node)];
  }

 private:
  const tree::Tree* tree_;
  tree::Tree expanded_;
  std::vector<std::int32_t> sources_;
  std::vector<std::int32_t> numbers_;
  std::vector<std::int32_t> splits_;
  std::vector<std::int32_t> leaves_;
};

}  // namespace io::detail
QUERN_NAMESPACE_END

#endif  // QUERN_IO_DETAIL_LIGHTGBM_LAYOUT_HPP
