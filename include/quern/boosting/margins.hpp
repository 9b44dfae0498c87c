// SPDX-License-Identifier: Apache-2.0

/// \file
/// Adds new trees to the margins of data sets that lie there as codes.

#ifndef QUERN_BOOSTING_MARGINS_HPP
#define QUERN_BOOSTING_MARGINS_HPP

#include "quern/boosting/train_state.hpp"
#include "quern/core/config.hpp"
#include "quern/core/parallel.hpp"
#include "quern/tree/binned_matrix.hpp"
#include "quern/tree/binning.hpp"
#include "quern/tree/row_reader.hpp"
#include "quern/tree/split.hpp"
#include "quern/tree/tree.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace boosting::detail {

/// Finds leaves by codes: every threshold of the tree must be a cut.
class CodeWalker {
 public:
  CodeWalker(const tree::Tree& tree, const tree::Cuts& cuts) : tree_(&tree) {
    for (const tree::Node& node : tree.nodes) {
      const bool categories = !node.is_leaf() && node.kind == tree::SplitKind::categorical;
      limits_.push_back(categories ? static_cast<std::int32_t>(sets_.size())
                                   : limit_of(node, cuts));
      if (categories) sets_.push_back(set_of(node, cuts));
    }
  }

  /// The leaf that \p row of \p data reaches.
  [[nodiscard]] std::int32_t leaf(const tree::BinnedMatrix& data, std::int64_t row) const {
    return leaf_by([&](std::int32_t feature) { return tree::code(data, row, feature); });
  }

  /// The leaf that a row with the codes code_of(feature) reaches.
  template <class CodeOf>
  [[nodiscard]] std::int32_t leaf_by(const CodeOf& code_of) const {
    std::int32_t i = 0;
    while (!tree_->node(i).is_leaf()) {
      const tree::Node& n = tree_->node(i);
      const int c = code_of(n.feature);
      const std::int32_t limit = limits_[static_cast<std::size_t>(i)];
      bool left = c <= limit;
      if (n.kind == tree::SplitKind::categorical)
        left = !sets_[static_cast<std::size_t>(limit)].contains(c);
      if (c == tree::missing_code) left = n.default_left;
      i = left ? n.left : n.right;
    }
    return i;
  }

 private:
  /// Highest code that goes left.
  static std::int32_t limit_of(const tree::Node& node, const tree::Cuts& cuts) {
    if (node.is_leaf()) return 0;
    const auto f = static_cast<std::size_t>(node.feature);
    const auto begin = cuts.values.begin() + cuts.offsets[f];
    const auto end = cuts.values.begin() + cuts.offsets[f + 1];
    return static_cast<std::int32_t>(std::upper_bound(begin, end, node.threshold) - begin) +
           (node.threshold >= static_cast<double>((std::numeric_limits<float>::max)()) ? 1 : 0);
  }

  /// Codes of the categories that go right.
  [[nodiscard]] tree::CodeSet set_of(const tree::Node& node, const tree::Cuts& cuts) const {
    tree::CodeSet set;
    for (std::int32_t code = 1; code < cuts.bins(node.feature); ++code)
      if (tree_->in_category_set(node, cuts.category(node.feature, code))) set.insert(code);
    return set;
  }

  const tree::Tree* tree_;
  std::vector<std::int32_t> limits_;  ///< by node; of categories: the place in sets_
  std::vector<tree::CodeSet> sets_;
};

inline void add_to_margin(float& margin, double value) {
  margin = static_cast<float>(static_cast<double>(margin) + value);
}

/// add(row, value) with what \p tree gives for every row of \p set, by the values themselves;
/// blocks of rows in parallel.
template <class Add>
void for_each_foreign_value(const SetState& set, const tree::Tree& tree, tree::InputType type,
                            int threads, const Add& add) {
  const tree::RowReader reader(set.data->features, type);
  parallel_for(
      block_count(set.rows(), objective_block),
      [&](std::int64_t b) {
        const BlockRange block = block_range(set.rows(), objective_block, b);
        for (std::int64_t row = block.begin; row < block.end; ++row)
          add(row, reader.leaf_value(tree, reader.leaf(tree, row), row));
      },
      threads);
}

/// The same as for_each_leaf_value for rows in pages, which have no linear leaves.
template <class Add>
void for_each_paged_value(const SetState& set, const tree::Tree& tree, const CodeWalker& walker,
                          int threads, const Add& add) {
  const std::int64_t page_rows = set.binned.pages->page_rows();
  for (std::int64_t p = 0; p < block_count(set.rows(), page_rows); ++p) {
    const tree::PageCodes page = set.binned.pages->load(p);
    parallel_for(
        block_count(page.end - page.begin, objective_block),
        [&](std::int64_t b) {
          const BlockRange block = block_range(page.end - page.begin, objective_block, b);
          for (std::int64_t row = page.begin + block.begin; row < page.begin + block.end; ++row) {
            const std::int32_t leaf = walker.leaf_by(
                [&](std::int32_t feature) { return tree::code(set.binned, page, row, feature); });
            add(row, tree.node(leaf).value);
          }
        },
        threads);
  }
}

/// As for_each_foreign_value, by codes where the set has them: faster, but every threshold must be
/// a cut.
template <class Add>
void for_each_leaf_value(const SetState& set, const tree::Tree& tree, tree::InputType type,
                         int threads, const Add& add) {
  if (set.binned.rows != set.rows()) return for_each_foreign_value(set, tree, type, threads, add);
  const CodeWalker walker(tree, set.binned.cuts);
  if (set.binned.pages != nullptr) return for_each_paged_value(set, tree, walker, threads, add);
  const tree::RowReader reader(set.data->features, type);
  parallel_for(
      block_count(set.rows(), objective_block),
      [&](std::int64_t b) {
        const BlockRange block = block_range(set.rows(), objective_block, b);
        for (std::int64_t row = block.begin; row < block.end; ++row) {
          const std::int32_t leaf = walker.leaf(set.binned, row);
          add(row,
              tree.linear.empty() ? tree.node(leaf).value : reader.leaf_value(tree, leaf, row));
        }
      },
      threads);
}

}  // namespace boosting::detail
QUERN_NAMESPACE_END

#endif  // QUERN_BOOSTING_MARGINS_HPP
