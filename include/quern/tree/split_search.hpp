// SPDX-License-Identifier: Apache-2.0

/// \file
/// The best splits of nodes from their histograms: of each for itself, or one for a whole level.

#ifndef QUERN_TREE_SPLIT_SEARCH_HPP
#define QUERN_TREE_SPLIT_SEARCH_HPP

#include "quern/core/config.hpp"
#include "quern/core/parallel.hpp"
#include "quern/kernels/kernels.hpp"
#include "quern/tree/binned_matrix.hpp"
#include "quern/tree/category_split.hpp"
#include "quern/tree/column_sampler.hpp"
#include "quern/tree/gradient.hpp"
#include "quern/tree/grow_options.hpp"
#include "quern/tree/histogram.hpp"
#include "quern/tree/interaction.hpp"
#include "quern/tree/row_partition.hpp"
#include "quern/tree/split.hpp"

#include <algorithm>
#include <array>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace tree {

/// A leaf that may still be split.
struct Candidate {
  std::int32_t node = 0;
  std::int32_t depth = 0;
  RowRange range;
  GradientSum<std::int64_t> sum;  ///< in units of the histogram
  WeightBounds bounds;
  InteractionConstraints::Path path;  ///< features tested above, where constraints ask for them
  NodeHistogram histogram;            ///< no cells: it cannot be split
  Split best;
};

/// Searches the histograms of one binned matrix. Chunks of features are searched in parallel; equal
/// gains go to the feature that comes first, so threads change nothing.
template <class = void>
class BasicSplitSearch {
 public:
  BasicSplitSearch(const BinnedMatrix& data, const GrowOptions& options,
                   const HistogramBuilder& histograms)
      : data_(data),
        options_(options),
        histograms_(histograms),
        interaction_(options.interaction) {}

  /// Starts a tree. \p seed keys the sampling of columns, \p scale are fixed-point units per unit.
  void reset(std::uint64_t seed, const GradientSum<double>& scale) {
    columns_.reset(data_.features(), options_.columns, seed);
    scale_ = scale;
  }

  [[nodiscard]] const InteractionConstraints& interaction() const noexcept { return interaction_; }
  /// Whether a node's number decides which features it looks at.
  [[nodiscard]] bool samples_by_node() const noexcept { return options_.columns.by_node < 1; }

  /// A sum in the loss's own units.
  [[nodiscard]] GradientSum<double> in_units(const GradientSum<std::int64_t>& sum) const {
    return {static_cast<double>(sum.g) / scale_.g, static_cast<double>(sum.h) / scale_.h};
  }

  /// Puts into every candidate that has a histogram its best split.
  void best_of_each(std::vector<Candidate>& candidates) const {
    struct Task {
      std::size_t candidate;
      std::size_t begin, end;
      Split best;
    };
    std::vector<std::vector<std::int32_t>> features(candidates.size());
    std::vector<Task> tasks;
    for (std::size_t c = 0; c < candidates.size(); ++c) {
      if (candidates[c].histogram.cells.size() == 0) continue;
      features[c] = features_of(candidates[c]);
      const std::size_t chunk =
          features[c].size() > 4 * many_features_chunk ? many_features_chunk : feature_chunk;
      for (std::size_t b = 0; b < features[c].size(); b += chunk)
        tasks.push_back({c, b, (std::min)(features[c].size(), b + chunk), {}});
    }
    parallel_for(
        static_cast<std::int64_t>(tasks.size()),
        [&](std::int64_t t) {
          Task& task = tasks[static_cast<std::size_t>(t)];
          const std::span<const std::int32_t> all = features[task.candidate];
          search_features(candidates[task.candidate],
                          all.subspan(task.begin, task.end - task.begin), task.best);
        },
        options_.threads);
    for (const Task& task : tasks) keep_better(task.best, candidates[task.candidate].best);
  }

  /// The split with the largest sum of gains over all nodes of a level; nodes where it is not
  /// allowed, or that have no histogram, count nothing.
  [[nodiscard]] Split best_of_level(const std::vector<Candidate>& level) const {
    const std::vector<std::int32_t> features = features_of(level.front());
    std::vector<Split> found(features.size());
    parallel_for(
        static_cast<std::int64_t>(features.size()),
        [&](std::int64_t i) {
          const auto at = static_cast<std::size_t>(i);
          found[at] = search_level(level, features[at]);
        },
        options_.threads);
    Split best;
    for (const Split& split : found) keep_better(split, best);
    return best;
  }

 private:
  static constexpr std::size_t feature_chunk = 16;        ///< features a task
  static constexpr std::size_t many_features_chunk = 64;  ///< where there are many
  static constexpr std::size_t single_bins = 64;          ///< features of one bin searched at once

  static void keep_better(const Split& split, Split& best) {
    if (split.valid() && split.gain > best.gain) best = split;
  }

  [[nodiscard]] std::vector<std::int32_t> features_of(const Candidate& c) const {
    return interaction_.allowed(columns_.features(c.depth, c.node), c.path);
  }

  [[nodiscard]] double score_of(const Candidate& c) const {
    return node_score(in_units(c.sum), options_.split, c.bounds);
  }

  [[nodiscard]] const std::int64_t* cells_of(const Candidate& c, std::int32_t f) const {
    return c.histogram.cells.data() + histograms_.first_cell(f) * c.histogram.words;
  }

  void search_features(const Candidate& c, std::span<const std::int32_t> features,
                       Split& best) const {
    for (std::size_t i = 0; i < features.size();) {
      const std::size_t count = singles(features.subspan(i));
      if (count > 1)
        search_singles(c, features.subspan(i, count), best);
      else
        search_feature(c, features[i], best);
      i += (std::max)(count, std::size_t{1});
    }
  }

  /// How many features at the front have a single bin, such as one-hot columns.
  [[nodiscard]] std::size_t singles(std::span<const std::int32_t> features) const {
    if (!options_.monotone.empty()) return 0;
    const std::size_t most = (std::min)(features.size(), single_bins);
    std::size_t count = 0;
    while (count < most && data_.cuts.bins(features[count]) == 1 &&
           histograms_.first_cell(features[count]) >= 0)
      ++count;
    return count;
  }

  /// Features that only tell whether a value is there, several at once.
  void search_singles(const Candidate& c, std::span<const std::int32_t> features,
                      Split& best) const {
    std::array<std::int64_t, single_bins> first_cells;
    for (std::size_t i = 0; i < features.size(); ++i)
      first_cells[i] = histograms_.first_cell(features[i]);
    const double parent = score_of(c);
    const kernels::SplitScan scan = scan_of(c, features[0]);
    const std::int64_t* cells = c.histogram.cells.data();
    const auto count = static_cast<std::int32_t>(features.size());
    const kernels::SplitResult found =
        c.histogram.words == 1
            ? QUERN_DISPATCH(best_single_bin<1>(cells, first_cells.data(), count, scan))
            : QUERN_DISPATCH(best_single_bin<2>(cells, first_cells.data(), count, scan));
    if (found.bin > 0 && found.score - parent > best.gain)
      best = {found.score - parent, features[static_cast<std::size_t>(found.bin - 1)], 1, false};
  }

  void search_feature(const Candidate& c, std::int32_t f, Split& best) const {
    if (histograms_.first_cell(f) < 0) return;
    if (data_.cuts.is_categorical(f)) return keep_better(search_categories({&c, 1}, f), best);
    const double parent = score_of(c);
    const kernels::SplitScan scan = scan_of(c, f);
    const std::int64_t* cells = cells_of(c, f);
    const std::int32_t bins = data_.cuts.bins(f);
    const kernels::SplitResult found = c.histogram.words == 1
                                           ? QUERN_DISPATCH(best_split<1>(cells, bins, scan))
                                           : QUERN_DISPATCH(best_split<2>(cells, bins, scan));
    if (found.bin > 0 && found.score - parent > best.gain)
      best = {found.score - parent, f, found.bin, found.missing_left};
  }

  /// Best split of feature \p f for all nodes of \p level together.
  [[nodiscard]] Split search_level(const std::vector<Candidate>& level, std::int32_t f) const {
    Split best;
    if (histograms_.first_cell(f) < 0) return best;
    if (data_.cuts.is_categorical(f)) return search_categories(level, f);
    const std::int32_t bins = data_.cuts.bins(f);
    const bool missing = data_.cuts.has_missing[static_cast<std::size_t>(f)] != 0;
    double right[kernels::split_gain_capacity] = {}, left[kernels::split_gain_capacity] = {};
    for (const Candidate& c : level) {
      if (c.histogram.cells.size() == 0) continue;
      const kernels::SplitScan scan = scan_of(c, f);
      const std::int64_t* cells = cells_of(c, f);
      double* const to_left = missing ? left : nullptr;
      const double parent = score_of(c);
      if (c.histogram.words == 1)
        QUERN_DISPATCH(add_split_gains<1>(cells, bins, scan, parent, right, to_left));
      else
        QUERN_DISPATCH(add_split_gains<2>(cells, bins, scan, parent, right, to_left));
    }
    for (const bool missing_left : {false, true}) {
      const double* const gains = missing_left ? left : right;
      for (std::int32_t b = 1; b <= bins; ++b)
        if (gains[b - 1] > best.gain) best = {gains[b - 1], f, b, missing_left};
      if (!missing) break;
    }
    return best;
  }

  /// Best split by categorical feature \p f for all of \p nodes together.
  [[nodiscard]] Split search_categories(std::span<const Candidate> nodes, std::int32_t f) const {
    const std::int32_t bins = data_.cuts.bins(f);
    const std::int64_t first = histograms_.first_cell(f);
    CategorySearch search(f, bins, scale_, options_);
    for (const Candidate& c : nodes) {
      if (c.histogram.cells.size() == 0) continue;
      std::vector<GradientSum<std::int64_t>> sums(static_cast<std::size_t>(bins) + 1);
      for (std::int64_t code = 0; code <= bins; ++code)
        sums[static_cast<std::size_t>(code)] = c.histogram.sum(first + code, first + code + 1);
      search.add_node(std::move(sums), c.sum, c.bounds);
    }
    return search.best();
  }

  [[nodiscard]] kernels::SplitScan scan_of(const Candidate& c, std::int32_t f) const {
    const SplitOptions& o = options_.split;
    kernels::SplitScan scan{};
    scan.sum_g = static_cast<double>(c.sum.g);
    scan.sum_h = static_cast<double>(c.sum.h);
    scan.unit_g = 1 / scale_.g;
    scan.unit_h = 1 / scale_.h;
    scan.lambda = o.reg_lambda;
    scan.alpha = o.reg_alpha;
    scan.min_child_weight = o.min_child_weight;
    scan.max_delta_step = o.max_delta_step;
    scan.lower = c.bounds.lower;
    scan.upper = c.bounds.upper;
    if (o.max_delta_step > 0) {
      scan.lower = (std::max)(scan.lower, -o.max_delta_step);
      scan.upper = (std::min)(scan.upper, o.max_delta_step);
    }
    scan.monotone = options_.monotone_of(f);
    return scan;
  }

  const BinnedMatrix& data_;
  const GrowOptions& options_;
  const HistogramBuilder& histograms_;
  InteractionConstraints interaction_;
  ColumnSampler columns_;
  GradientSum<double> scale_;
};
/// (A template, so that a program compiles it only where it uses it.)
using SplitSearch = BasicSplitSearch<>;

}  // namespace tree
QUERN_NAMESPACE_END

#endif  // QUERN_TREE_SPLIT_SEARCH_HPP
