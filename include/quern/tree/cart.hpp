// SPDX-License-Identifier: Apache-2.0

/// \file
/// Growing CART trees on coded columns: depth first, or the best split of all leaves first.
///
/// A node owns a contiguous range of rows and of their samples (weight and label), which its split
/// parts stably. Codes are read from the columns where a node has many rows, from the rows where it
/// has few: then the rows of a whole subtree stay in the cache. What is drawn at random depends on
/// the seed and the nodes before, never on threads.

#ifndef QUERN_TREE_CART_HPP
#define QUERN_TREE_CART_HPP

#include "quern/core/config.hpp"
#include "quern/core/parallel.hpp"
#include "quern/core/random.hpp"
#include "quern/tree/cart_columns.hpp"
#include "quern/tree/cart_options.hpp"
#include "quern/tree/detail/cart_search.hpp"
#include "quern/tree/detail/cart_targets.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <numeric>
#include <queue>
#include <span>
#include <utility>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace tree {

/// A node as it is grown; its children are `left` and `left + 1`.
struct CartNode {
  std::int32_t left = -1;     ///< -1: a leaf
  std::int32_t feature = -1;  ///< -1: a leaf
  double threshold = 0;       ///< x <= threshold goes left
  double impurity = 0;
  double weight = 0;
  double decrease = 0;     ///< weight times impurity, less that of the children
  std::int64_t rows = 0;   ///< of weight > 0
  std::uint32_t code = 0;  ///< codes up to this go left
  bool missing_left = false;
  bool only_missing = false;  ///< all but missing values go left, whatever their code
};

/// A grown tree: node 0 is the root, children come after their parents.
struct CartGrowth {
  std::vector<CartNode> nodes;
  std::vector<double> values;  ///< (nodes, outputs): class fractions, mean or median
  std::int32_t outputs = 1;

  [[nodiscard]] const double* value(std::size_t node) const noexcept {
    return values.data() + node * static_cast<std::size_t>(outputs);
  }
};

namespace detail {

/// Grows trees of one kind, one after the other, with the same memory.
template <class Target>
class CartGrower {
 public:
  using Weight = typename Target::Weight;
  using Sample = typename Target::Sample;

  /// \p threads: for the features of large nodes; 1 where trees are grown side by side.
  CartGrower(const CartColumns& columns, const Target& target, const CartOptions& options,
             int threads)
      : columns_(columns),
        target_(target),
        options_(options),
        threads_(threads),
        max_features_(options.max_features.of("quern::tree::CartGrower", columns.features())),
        searches_(static_cast<std::size_t>(worker_count(threads)), CartSearch<Target>(target)) {}

  /// \p weights: (rows), 0 where a row is not in the tree; at least one is above 0.
  void grow(std::span<const Weight> weights, std::uint64_t seed, CartGrowth& out) {
    out_ = &out;
    out.nodes.clear();
    out.values.clear();
    out.outputs = target_.outputs();
    rng_ = Philox(seed, "cart");
    features_.resize(static_cast<std::size_t>(columns_.features()));
    std::iota(features_.begin(), features_.end(), 0);
    rows_.clear();
    samples_.clear();
    total_ = 0;
    alike_ = true;
    for (std::size_t r = 0; r < weights.size(); ++r) {
      if (!(weights[r] > 0)) continue;
      alike_ = alike_ && weights[r] == Weight{1};
      rows_.push_back(static_cast<std::uint32_t>(r));
      samples_.push_back(target_.sample(r, weights[r]));
      total_ += static_cast<double>(weights[r]);
    }
    if constexpr (Target::counts) {
      if (options_.splitter == Splitter::random) sort_by_label();
    }
    right_rows_.resize(rows_.size());
    right_samples_.resize(rows_.size());
    limits_ = {options_.min_samples_leaf, options_.min_weight_fraction_leaf * total_};
    add_nodes(1);
    const Range root{0, 0, rows_.size(), 0};
    options_.max_leaf_nodes > 0 ? best_first(root) : depth_first(root);
    for (CartNode& n : out.nodes) {
      if (n.left < 0) continue;
      const CartNode& l = out.nodes[static_cast<std::size_t>(n.left)];
      const CartNode& r = out.nodes[static_cast<std::size_t>(n.left) + 1];
      n.decrease = n.weight * n.impurity - l.weight * l.impurity - r.weight * r.impurity;
    }
  }

 private:
  struct Range {
    std::int32_t node;
    std::size_t begin, end;
    std::int32_t depth;
    [[nodiscard]] std::size_t size() const noexcept { return end - begin; }
  };
  /// A split that was found and by which the rows are parted already.
  struct Found {
    Range range;
    std::size_t middle = 0;
    CartSplit split;
    double improvement = 0;  ///< where it is asked for
    bool operator<(const Found& other) const noexcept {
      return improvement < other.improvement ||
             (improvement == other.improvement && range.node > other.range.node);
    }
  };
  /// What is drawn for a feature of a node.
  struct Draw {
    std::int32_t feature;
    double uniform = 0;
    bool missing_left = false;
  };
  /// Cells (rows times features) that are worth waking threads up for.
  static constexpr std::size_t parallel_cells = std::size_t{1} << 16;

  /// Parting keeps rows in order, so that they stay sorted in all nodes.
  void sort_by_label() {
    std::vector<std::size_t> place(static_cast<std::size_t>(target_.outputs()) + 1, 0);
    for (const Sample& s : samples_) ++place[s.label + 1];
    for (std::size_t k = 1; k < place.size(); ++k) place[k] += place[k - 1];
    right_rows_.resize(rows_.size());
    right_samples_.resize(rows_.size());
    for (std::size_t i = 0; i < rows_.size(); ++i) {
      const std::size_t to = place[samples_[i].label]++;
      right_rows_[to] = rows_[i];
      right_samples_[to] = samples_[i];
    }
    rows_.swap(right_rows_);
    samples_.swap(right_samples_);
  }

  void add_nodes(std::size_t count) {
    out_->nodes.resize(out_->nodes.size() + count);
    out_->values.resize(out_->nodes.size() * static_cast<std::size_t>(out_->outputs));
  }
  [[nodiscard]] CartNode& node(const Range& range) {
    return out_->nodes[static_cast<std::size_t>(range.node)];
  }

  void depth_first(const Range& root) {
    std::vector<Range> stack = {root};
    while (!stack.empty()) {
      const Range range = stack.back();
      stack.pop_back();
      Found found;
      if (!open(range, found)) continue;
      const auto [left, right] = apply(found);
      stack.push_back(right);
      stack.push_back(left);
    }
  }

  void best_first(const Range& root) {
    std::priority_queue<Found> waiting;
    const auto add = [&](const Range& range) {
      Found found;
      if (open(range, found)) waiting.push(found);
    };
    add(root);
    for (std::int64_t leaves = 1; leaves < options_.max_leaf_nodes && !waiting.empty(); ++leaves) {
      const Found best = waiting.top();
      waiting.pop();
      const auto [left, right] = apply(best);
      add(left);
      add(right);
    }
  }

  /// Makes the found split the tree's; returns the children.
  std::pair<Range, Range> apply(const Found& found) {
    const auto left = static_cast<std::int32_t>(out_->nodes.size());
    add_nodes(2);
    CartNode& n = node(found.range);
    n.left = left;
    n.feature = found.split.feature;
    n.code = found.split.below;
    n.missing_left = found.split.missing_left;
    n.only_missing = found.split.only_missing;
    n.threshold =
        found.split.only_missing ? (std::numeric_limits<double>::max)() : found.split.threshold;
    const std::int32_t depth = found.range.depth + 1;
    return {{left, found.range.begin, found.middle, depth},
            {left + 1, found.middle, found.range.end, depth}};
  }

  [[nodiscard]] std::span<const Sample> samples(std::size_t begin, std::size_t end) const {
    return std::span<const Sample>(samples_).subspan(begin, end - begin);
  }

  /// Describes the node and looks for its split; false: it stays a leaf.
  bool open(const Range& range, Found& found) {
    auto& sums = searches_[0].sums;
    sums.set(samples(range.begin, range.end));
    CartNode& n = node(range);
    n.impurity = sums.impurity();
    n.weight = sums.weight();
    n.rows = static_cast<std::int64_t>(range.size());
    sums.values(out_->values.data() +
                static_cast<std::size_t>(range.node) * static_cast<std::size_t>(out_->outputs));
    const bool leaf = (options_.max_depth > 0 && range.depth >= options_.max_depth) ||
                      n.rows < options_.min_samples_split ||
                      n.rows < 2 * options_.min_samples_leaf || n.weight < 2 * limits_.weight ||
                      n.impurity <= (std::numeric_limits<double>::epsilon)();
    if (leaf) return false;
    found.range = range;
    found.split = columns_.bytes() ? find<std::uint8_t>(range) : find<std::uint32_t>(range);
    if (found.split.feature < 0) return false;
    found.middle = columns_.bytes() ? part<std::uint8_t>(range, found.split)
                                    : part<std::uint32_t>(range, found.split);
    if (options_.max_leaf_nodes == 0 && options_.min_impurity_decrease == 0) return true;
    found.improvement = improvement(range, found.middle);
    return found.improvement + (std::numeric_limits<double>::epsilon)() >=
           options_.min_impurity_decrease;
  }

  [[nodiscard]] double improvement(const Range& range, std::size_t middle) {
    const CartNode& n = node(range);
    auto& sums = searches_[0].sums;
    double after = 0;
    sums.set(samples(range.begin, middle));
    after += sums.weight() / n.weight * sums.impurity();
    sums.set(samples(middle, range.end));
    after += sums.weight() / n.weight * sums.impurity();
    return n.weight / total_ * (n.impurity - after);
  }

  /// The next feature of the node: number \p i of a random order.
  [[nodiscard]] Draw draw(std::size_t i) {
    if (max_features_ < columns_.features()) {
      const std::size_t left = features_.size() - i;
      std::swap(features_[i], features_[i + static_cast<std::size_t>(rng_.integer(left))]);
    }
    Draw drawn{features_[i]};
    if (options_.splitter == Splitter::random) {
      drawn.uniform = rng_.uniform();
      drawn.missing_left = (rng_.next_u32() & 1u) != 0;
    }
    return drawn;
  }

  template <class Code>
  [[nodiscard]] CartSplit find(const Range& range) {
    const auto first = static_cast<std::size_t>(max_features_);
    draws_.clear();
    for (std::size_t i = 0; i < first; ++i) draws_.push_back(draw(i));
    const bool side_by_side = searches_.size() > 1 && range.size() * first >= parallel_cells;
    if (options_.splitter == Splitter::random) {
      for (std::size_t w = 0; w < (side_by_side ? searches_.size() : 1); ++w)
        searches_[w].begin_random(samples(range.begin, range.end), alike_);
    }
    CartSplit best;
    bool varies = false;
    if (side_by_side) {
      varies = try_side_by_side<Code>(range, best);
    } else {
      for (const Draw& d : draws_)
        varies = try_feature<Code>(searches_[0], range, d, best) || varies;
    }
    for (std::size_t i = first; !varies && i < features_.size(); ++i)
      varies = try_feature<Code>(searches_[0], range, draw(i), best);
    return best;
  }

  /// Every feature by itself, then the best in the order in which they were drawn.
  template <class Code>
  bool try_side_by_side(const Range& range, CartSplit& best) {
    for (std::size_t w = 1; w < searches_.size(); ++w) searches_[w].sums = searches_[0].sums;
    std::vector<CartSplit> splits(draws_.size());
    std::vector<std::uint8_t> varies(draws_.size());
    parallel_for(
        static_cast<std::int64_t>(draws_.size()),
        [&](std::int64_t block) {
          const auto i = static_cast<std::size_t>(block);
          auto& search = searches_[static_cast<std::size_t>(this_worker())];
          varies[i] = try_feature<Code>(search, range, draws_[i], splits[i]) ? 1 : 0;
        },
        threads_);
    bool any = false;
    for (std::size_t i = 0; i < splits.size(); ++i) {
      any = any || varies[i] != 0;
      if (splits[i].feature >= 0 && splits[i].score > best.score) best = splits[i];
    }
    return any;
  }

  template <class Code>
  bool try_feature(CartSearch<Target>& search, const Range& range, const Draw& drawn,
                   CartSplit& best) {
    Code* codes = search.template codes<Code>(range.size());
    gather(drawn.feature, range, codes);
    const std::span<const Sample> of_node = samples(range.begin, range.end);
    if (options_.splitter == Splitter::random) {
      std::fill(codes + range.size(), codes + search.padded(range.size()), codes[0]);
      return search.random_split(columns_, drawn.feature, codes, of_node, drawn.uniform,
                                 drawn.missing_left, limits_, best);
    }
    return search.best_split(columns_, drawn.feature, codes, of_node, limits_, best);
  }

  /// The codes of a node's rows.
  template <class Code>
  void gather(std::int32_t feature, const Range& range, Code* codes) const {
    const std::uint32_t* rows = rows_.data() + range.begin;
    const std::size_t n = range.size();
    if constexpr (sizeof(Code) == 1) {
      // A column's cache lines serve many rows of a large node, a row's many features of a small
      // one.
      if (static_cast<std::int64_t>(n) < columns_.rows() / 32) {
        const std::uint8_t* from = columns_.row(0) + feature;
        const auto stride = static_cast<std::size_t>(columns_.features());
        for (std::size_t i = 0; i < n; ++i) codes[i] = from[rows[i] * stride];
        return;
      }
    }
    const Code* from = columns_.template column<Code>(feature);
    for (std::size_t i = 0; i < n; ++i) codes[i] = from[rows[i]];
  }

  /// Parts the rows, keeping their order; returns where the right ones begin.
  template <class Code>
  std::size_t part(const Range& range, const CartSplit& split) {
    const std::size_t n = range.size();
    Code* codes = searches_[0].template codes<Code>(n);
    gather(split.feature, range, codes);
    const std::uint32_t missing = columns_.missing_code(split.feature);
    std::uint32_t* rows = rows_.data() + range.begin;
    Sample* of_node = samples_.data() + range.begin;
    std::size_t left = 0, right = 0;
    for (std::size_t i = 0; i < n; ++i) {
      const bool goes_left = codes[i] == missing ? split.missing_left : codes[i] <= split.below;
      const std::uint32_t row = rows[i];
      const Sample sample = of_node[i];
      rows[left] = row;
      of_node[left] = sample;
      right_rows_[right] = row;
      right_samples_[right] = sample;
      left += goes_left ? 1 : 0;
      right += goes_left ? 0 : 1;
    }
    std::copy_n(right_rows_.begin(), right, rows + left);
    std::copy_n(right_samples_.begin(), right, of_node + left);
    return range.begin + left;
  }

  const CartColumns& columns_;
  const Target& target_;
  CartOptions options_;
  int threads_;
  std::int32_t max_features_;
  std::vector<CartSearch<Target>> searches_;  ///< (workers)
  CartGrowth* out_ = nullptr;
  Philox rng_;
  ChildLimits limits_;
  double total_ = 0;
  bool alike_ = false;  ///< all weights are 1
  std::vector<std::int32_t> features_;
  std::vector<Draw> draws_;
  std::vector<std::uint32_t> rows_, right_rows_;
  std::vector<Sample> samples_, right_samples_;
};

}  // namespace detail

}  // namespace tree
QUERN_NAMESPACE_END

#endif  // QUERN_TREE_CART_HPP
