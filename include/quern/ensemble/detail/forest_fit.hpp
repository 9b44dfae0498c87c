// SPDX-License-Identifier: Apache-2.0

/// \file
/// Growing a forest of CART trees, whatever kind: the same bits for any number of threads.

#ifndef QUERN_ENSEMBLE_DETAIL_FOREST_FIT_HPP
#define QUERN_ENSEMBLE_DETAIL_FOREST_FIT_HPP

#include "quern/core/checks.hpp"
#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/core/parallel.hpp"
#include "quern/core/progress.hpp"
#include "quern/core/random.hpp"
#include "quern/ensemble/class_weight.hpp"
#include "quern/ensemble/learner.hpp"
#include "quern/tree/cart.hpp"
#include "quern/tree/cart_prune.hpp"
#include "quern/tree/compact_forest.hpp"

#include <algorithm>
#include <cmath>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <span>
#include <string>
#include <utility>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace ensemble::detail {

/// What all forests are told, and a single tree (a forest of one without sampling).
struct ForestSettings {
  tree::CartOptions tree;
  std::int32_t n_estimators = 100;
  bool bootstrap = false;
  bool oob_score = false;
  double max_samples = 1;  ///< share of the rows that a bootstrap sample draws
  ClassWeight class_weight = ClassWeight::none();
  std::int32_t max_bins = 0;
  int threads = 0;
  ProgressCallback progress;
};

/// What a forest learns from. Classes where `y` has codes, else numbers.
struct ForestRows {
  Features x;
  Classes classes;
  std::span<const float> targets;
  std::span<const float> weights;
  [[nodiscard]] bool classifies() const noexcept { return classes.count > 0; }
};

struct ForestResult {
  tree::CompactForest forest;
  std::vector<double> importances;  ///< (features)
  std::vector<double> oob;          ///< (rows, outputs) means of the trees that left the row out
  std::vector<std::uint8_t> oob_known;  ///< (rows): whether any tree did
  tree::CartGrowth last;                ///< the last tree before it was made compact
};

/// Grows the trees; function names the public one.
template <class = void>
class BasicForestFit {
 public:
  BasicForestFit(std::string function, const ForestSettings& settings, const ForestRows& rows,
                 std::uint64_t seed)
      : function_(std::move(function)), settings_(settings), rows_(rows), seed_(seed) {
    settings.tree.check(function_);
    if (rows.x.cols() < 1)
      throw ShapeError(error_text(function_, "x", "at least one column", rows.x.cols()));
    if (settings.n_estimators < 1)
      throw ValueError(error_text(function_, "n_estimators", "at least 1", settings.n_estimators));
    if (!(settings.max_samples > 0 && settings.max_samples <= 1))
      throw ValueError(
          error_text(function_, "max_samples", "a share in (0, 1]", settings.max_samples));
    if (settings.oob_score && !settings.bootstrap)
      throw ValueError(error_text(function_, "oob_score", "bootstrap samples", "none"));
    if (settings.tree.classifies() != rows.classifies())
      throw ValueError(error_text(
          function_, "criterion",
          rows.classifies() ? "gini or entropy" : "squared_error or absolute_error", "another"));
    (void)settings.tree.max_features.of(function_, static_cast<std::int32_t>(rows.x.cols()));
    check_rows(function_, rows.x, rows.classifies() ? rows.classes.size() : rows.targets.size(),
               rows.weights);
    if (rows.classifies()) {
      check_classes(function_, rows.classes);
      expect_in_range(function_, "classes", rows.classes.count, 1,
                      tree::CompactForest::most_outputs);
    } else {
      check_targets(function_, rows.targets);
    }
    make_weights();
  }

  [[nodiscard]] ForestResult run() {
    const tree::CartColumns columns(rows_.x, settings_.max_bins, settings_.threads);
    columns_ = &columns;
    result_.forest = tree::CompactForest(rows_.x.cols(), outputs(), rows_.classifies());
    result_.importances.assign(static_cast<std::size_t>(rows_.x.cols()), 0.0);
    if (settings_.oob_score) {
      result_.oob.assign(weights_.size() * static_cast<std::size_t>(outputs()), 0.0);
      oob_trees_.assign(weights_.size(), 0);
    }
    if (!rows_.classifies()) {
      settings_.tree.criterion == tree::Criterion::absolute_error
          ? grow(tree::detail::MedianTarget(rows_.targets))
          : grow(tree::detail::NumberTarget(rows_.targets));
    } else if (whole_) {
      grow(tree::detail::ClassTarget<std::uint32_t>(rows_.classes.codes, rows_.classes.count,
                                                    settings_.tree.criterion));
    } else {
      grow(tree::detail::ClassTarget<double>(rows_.classes.codes, rows_.classes.count,
                                             settings_.tree.criterion));
    }
    finish();
    return std::move(result_);
  }

 private:
  /// A tree of the group in work.
  struct Grown {
    tree::CompactTree tree;
    std::vector<std::pair<std::int32_t, double>> decreases;  ///< of features
    std::vector<bool> used;  ///< (rows): drawn for it; only for out-of-bag predictions
  };

  [[nodiscard]] std::int32_t outputs() const noexcept {
    return rows_.classifies() ? rows_.classes.count : 1;
  }

  /// Weights of the rows times those of their classes.
  void make_weights() {
    const auto n = static_cast<std::size_t>(rows_.x.rows());
    weights_.resize(n);
    for (std::size_t r = 0; r < n; ++r) {
      weights_[r] = weight_of(rows_.weights, r);
      if (weights_[r] > 0) present_.push_back(static_cast<std::uint32_t>(r));
    }
    if (rows_.classifies()) {
      const bool later = settings_.class_weight.kind() == ClassWeight::Kind::balanced_subsample;
      std::vector<double> counts(static_cast<std::size_t>(outputs()), 0.0);
      for (const std::uint32_t r : present_) counts[label(r)] += 1;
      if (later && !settings_.bootstrap)
        throw ValueError(
            error_text(function_, "class_weight", "bootstrap for balanced_subsample", "none"));
      if (!later) multiply(weights_, settings_.class_weight.of(function_, counts));
    }
    std::erase_if(present_, [this](std::uint32_t r) { return !(weights_[r] > 0); });
    if (present_.empty())
      throw ValueError(error_text(function_, "weights", "one above 0, of class and row", "none"));
    double sum = 0;
    whole_ = settings_.class_weight.kind() != ClassWeight::Kind::balanced_subsample;
    double largest = 0;
    for (const double w : weights_) {
      sum += w;
      largest = (std::max)(largest, w);
      whole_ = whole_ && w == std::floor(w);
    }
    const double most = settings_.bootstrap ? largest * static_cast<double>(weights_.size()) : sum;
    if (most > static_cast<double>((std::numeric_limits<float>::max)()))
      throw ValueError(
          error_text(function_, "weights", "numbers whose sums are finite floats", most));
    // Sums of squares are to fit 64 bits, also where every draw takes the heaviest row.
    whole_ = whole_ && most < 2147483648.0;
  }
  [[nodiscard]] std::size_t label(std::size_t row) const {
    return static_cast<std::size_t>(rows_.classes.codes[row]);
  }
  void multiply(std::vector<double>& weights, const std::vector<double>& of_class) const {
    for (std::size_t r = 0; r < weights.size(); ++r) weights[r] *= of_class[label(r)];
  }

  /// Weights of the rows in tree \p t.
  void draw(std::uint64_t tree_seed, std::vector<double>& weights, std::vector<bool>& used) const {
    weights = weights_;
    if (!settings_.bootstrap) return;
    const auto n = present_.size();
    const auto draws = (std::max)(
        std::size_t{1},
        static_cast<std::size_t>(std::floor(settings_.max_samples * static_cast<double>(n) + 0.5)));
    Philox rng(tree_seed, "bootstrap");
    std::vector<std::uint32_t> times(weights.size(), 0);
    for (std::size_t i = 0; i < draws; ++i)
      ++times[present_[static_cast<std::size_t>(rng.integer(n))]];
    for (std::size_t r = 0; r < weights.size(); ++r) weights[r] *= static_cast<double>(times[r]);
    if (settings_.class_weight.kind() == ClassWeight::Kind::balanced_subsample) {
      std::vector<double> counts(static_cast<std::size_t>(outputs()), 0.0);
      for (std::size_t r = 0; r < times.size(); ++r)
        counts[label(r)] += static_cast<double>(times[r]);
      multiply(weights, settings_.class_weight.of(function_, counts));
    }
    if (!settings_.oob_score) return;
    used.resize(weights.size());
    for (std::size_t r = 0; r < weights.size(); ++r) used[r] = times[r] > 0;
  }

  template <class Target>
  struct Worker {
    Worker(const tree::CartColumns& columns, const Target& target, const tree::CartOptions& options,
           int threads)
        : grower(columns, target, options, threads) {}
    tree::detail::CartGrower<Target> grower;
    tree::CartGrowth growth;
    std::vector<double> drawn;
    std::vector<typename Target::Weight> weights;
  };

  /// Trees side by side where there are enough of them, else the features of each.
  template <class Target>
  void grow(const Target& target) {
    const int all = worker_count(settings_.threads);
    const std::int64_t trees = settings_.n_estimators;
    const bool side_by_side = all > 1 && trees >= 2 * std::int64_t{all};
    const int inside = side_by_side ? 1 : settings_.threads;
    const std::int64_t group = side_by_side ? 4 * std::int64_t{all} : 1;
    std::vector<std::unique_ptr<Worker<Target>>> workers;
    for (int w = 0; w < (side_by_side ? all : 1); ++w)
      workers.push_back(
          std::make_unique<Worker<Target>>(*columns_, target, settings_.tree, inside));
    for (std::int64_t first = 0; first < trees; first += group) {
      const std::int64_t count = (std::min)(group, trees - first);
      std::vector<Grown> grown(static_cast<std::size_t>(count));
      const auto one = [&](std::int64_t i) {
        const int w = side_by_side ? this_worker() : 0;
        grow_tree(*workers[static_cast<std::size_t>(w)], first + i,
                  grown[static_cast<std::size_t>(i)]);
      };
      if (side_by_side) {
        parallel_for(count, one, settings_.threads);
      } else {
        for (std::int64_t i = 0; i < count; ++i) one(i);
      }
      if (first + count == trees && !side_by_side) result_.last = std::move(workers[0]->growth);
      collect(grown);
      report(settings_.progress, function_,
             {.what = "trees", .done = first + count, .total = trees});
    }
  }

  template <class Target>
  void grow_tree(Worker<Target>& worker, std::int64_t t, Grown& out) const {
    using Weight = typename Target::Weight;
    // A tree without bootstrap is the seed's own: a forest of one is the single tree.
    const std::uint64_t tree_seed =
        Philox(seed_, "trees", static_cast<std::uint64_t>(t)).next_u64();
    draw(tree_seed, worker.drawn, out.used);
    worker.weights.resize(worker.drawn.size());
    for (std::size_t r = 0; r < worker.drawn.size(); ++r)
      worker.weights[r] = static_cast<Weight>(worker.drawn[r]);
    worker.grower.grow(worker.weights, tree_seed, worker.growth);
    if (settings_.tree.ccp_alpha > 0)
      worker.growth = tree::pruned(worker.growth, settings_.tree.ccp_alpha);
    out.tree = result_.forest.compact(worker.growth);
    for (const tree::CartNode& n : worker.growth.nodes)
      if (n.left >= 0) out.decreases.push_back({n.feature, n.decrease});
  }

  /// In the order of the trees, whoever grew them.
  void collect(std::vector<Grown>& grown) {
    for (const Grown& one : grown) {
      double sum = 0;
      for (const auto& [feature, decrease] : one.decreases) sum += decrease;
      if (!(sum > 0)) continue;
      for (const auto& [feature, decrease] : one.decreases)
        result_.importances[static_cast<std::size_t>(feature)] += decrease / sum;
    }
    if (settings_.oob_score) predict_left_out(grown);
    for (Grown& one : grown) result_.forest.add(std::move(one.tree));
  }

  void predict_left_out(const std::vector<Grown>& grown) {
    constexpr std::int64_t block = 256;
    const auto n = static_cast<std::int64_t>(weights_.size());
    parallel_for(
        block_count(n, block),
        [&](std::int64_t b) {
          const BlockRange range = block_range(n, block, b);
          for (const Grown& one : grown) {
            for (std::int64_t r = range.begin; r < range.end; ++r) {
              const auto row = static_cast<std::size_t>(r);
              if (one.used[row]) continue;
              ++oob_trees_[row];
              result_.forest.add_leaf(
                  rows_.x, r, one.tree,
                  result_.oob.data() + row * static_cast<std::size_t>(outputs()));
            }
          }
        },
        settings_.threads);
  }

  void finish() {
    double sum = 0;
    for (const double v : result_.importances) sum += v;
    for (double& v : result_.importances) v /= sum > 0 ? sum : 1.0;
    const auto k = static_cast<std::size_t>(outputs());
    result_.oob_known.resize(oob_trees_.size());
    for (std::size_t r = 0; r < oob_trees_.size(); ++r) {
      result_.oob_known[r] = oob_trees_[r] > 0 ? 1 : 0;
      for (std::size_t o = 0; o < k; ++o)
        result_.oob[r * k + o] /= (std::max)(1.0, static_cast<double>(oob_trees_[r]));
    }
  }

  std::string function_;
  const ForestSettings& settings_;
  ForestRows rows_;
  std::uint64_t seed_;
  const tree::CartColumns* columns_ = nullptr;
  std::vector<double> weights_;         ///< (rows)
  std::vector<std::uint32_t> present_;  ///< rows of weight > 0
  bool whole_ = false;                  ///< all weights are whole numbers, and not too many
  std::vector<std::int32_t> oob_trees_;
  ForestResult result_;
};
/// (A template, so that a program compiles it only where it uses it.)
using ForestFit = BasicForestFit<>;

}  // namespace ensemble::detail
QUERN_NAMESPACE_END

#endif  // QUERN_ENSEMBLE_DETAIL_FOREST_FIT_HPP
