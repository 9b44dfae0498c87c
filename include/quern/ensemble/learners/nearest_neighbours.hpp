// SPDX-License-Identifier: Apache-2.0

/// \file
/// k nearest neighbours by comparing with every row, on the matrix product.

#ifndef QUERN_ENSEMBLE_LEARNERS_NEAREST_NEIGHBOURS_HPP
#define QUERN_ENSEMBLE_LEARNERS_NEAREST_NEIGHBOURS_HPP

#include "quern/core/archive.hpp"
#include "quern/core/checks.hpp"
#include "quern/core/config.hpp"
#include "quern/core/nd_array.hpp"
#include "quern/core/parallel.hpp"
#include "quern/ensemble/detail/linear_map.hpp"
#include "quern/ensemble/learner.hpp"
#include "quern/kernels/gemm.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace ensemble {

enum class NeighbourVote : std::uint8_t {
  equal,            ///< every neighbour the same
  inverse_distance  ///< 1 / distance; where rows lie on the very place, these alone
};

struct NeighboursOptions {
  std::int32_t neighbours = 5;  ///< >= 1
  NeighbourVote vote = NeighbourVote::equal;
};

namespace detail {

/// Training rows, and what lies nearest to others. Of rows equally far the first one is nearer. A
/// row of weight w is w rows: rows are taken until their weights make up the neighbours, the last
/// one with what is left of its weight.
template <class = void>
class BasicNeighbours {
 public:
  struct Neighbour {
    double distance;  ///< squared
    std::int32_t row;
    double weight;
  };

  void fit(std::string_view name, Features x, std::span<const float> weights) {
    check_finite_features(name, x);
    rows_ = NdArray<float, 2>(x);
    weights_.assign(weights.begin(), weights.end());
    find_norms();
  }

  [[nodiscard]] Index rows() const noexcept { return rows_.extent(0); }

  /// Calls use(row, its neighbours, nearest first) for every row, on several threads.
  template <class Use>
  void for_each_row(std::string_view name, Features x, std::int32_t k, const Use& use) const {
    check_fitted(name, x, rows_.extent(1));
    check_finite_features(name, x);
    parallel_for(block_count(x.rows(), row_block), [&](std::int64_t b) {
      const BlockRange queries = block_range(x.rows(), row_block, b);
      std::vector<Nearest> nearest(static_cast<std::size_t>(queries.size()), Nearest(k));
      search(double_rows(x, queries), nearest);
      for (Index i = queries.begin; i < queries.end; ++i)
        use(i, nearest[static_cast<std::size_t>(i - queries.begin)].finish());
    });
  }

  void save(ArchiveWriter& out) const {
    out.scalar("features", rows_.extent(1));
    out.array("rows", std::span<const float>(rows_.data(), static_cast<std::size_t>(rows_.size())));
    out.array("weights", weights_);
  }
  void load(const ArchiveReader& in) {
    BasicNeighbours loaded;
    const auto features = in.scalar<std::int64_t>("features");
    const std::vector<float> all = in.array<float>("rows");
    const auto size = static_cast<Index>(all.size());
    if (features < 0 || (features == 0 ? size != 0 : size % features != 0))
      in.fail_section("rows", "a multiple of the features", std::to_string(size));
    if (features > 0 && size == 0) in.fail_section("rows", "at least one row", "none");
    for (const float v : all)
      if (!is_finite_bits(v)) in.fail_section("rows", "finite numbers", std::to_string(v));
    if (features > 0)
      loaded.rows_ =
          NdArray<float, 2>(MatrixView<const float>(all.data(), {size / features, features}));
    loaded.weights_ = in.array<float>("weights");
    if (!loaded.weights_.empty() && static_cast<Index>(loaded.weights_.size()) != loaded.rows())
      in.fail_section("weights", "one for each row", std::to_string(loaded.weights_.size()));
    bool some = loaded.weights_.empty();
    for (const float w : loaded.weights_) {
      if (!is_finite_bits(w) || w < 0)
        in.fail_section("weights", "finite numbers >= 0", std::to_string(w));
      some = some || w > 0;
    }
    if (!some) in.fail_section("weights", "at least one above 0", "none");
    loaded.find_norms();
    *this = std::move(loaded);
  }

 private:
  static constexpr Index train_block = 1024;

  /// The nearest so far, ascending; candidates come in the order of their rows.
  class Nearest {
   public:
    explicit Nearest(std::int32_t k) : wanted_(k) {}

    void offer(const Neighbour& n) {
      if (n.distance >= farthest_) return;
      const auto at = std::upper_bound(
          kept_.begin(), kept_.end(), n.distance,
          [](double distance, const Neighbour& other) { return distance < other.distance; });
      kept_.insert(at, n);
      mass_ += n.weight;
      while (mass_ - kept_.back().weight >= wanted_) {
        mass_ -= kept_.back().weight;
        kept_.pop_back();
      }
      if (mass_ >= wanted_) farthest_ = kept_.back().distance;
    }
    std::span<const Neighbour> finish() {
      if (mass_ > wanted_) kept_.back().weight -= mass_ - wanted_;
      return kept_;
    }

   private:
    double wanted_;
    double mass_ = 0;
    double farthest_ = (std::numeric_limits<double>::max)();
    std::vector<Neighbour> kept_;
  };

  void find_norms() {
    norms_.clear();
    for (Index b = 0; b < block_count(rows(), train_block); ++b) {
      const NdArray<double, 2> block =
          double_rows(rows_.view(), block_range(rows(), train_block, b));
      for (Index i = 0; i < block.extent(0); ++i) norms_.push_back(norm(block, i));
    }
  }
  static double norm(const NdArray<double, 2>& rows, Index i) {
    double sum = 0;
    for (Index f = 0; f < rows.extent(1); ++f) sum += rows(i, f) * rows(i, f);
    return sum;
  }

  static double direct(const NdArray<double, 2>& a, Index i, const NdArray<double, 2>& b, Index j) {
    double sum = 0;
    for (Index f = 0; f < a.extent(1); ++f) sum += (a(i, f) - b(j, f)) * (a(i, f) - b(j, f));
    return sum;
  }

  /// |q - r|^2 = |q|^2 - 2 q.r + |r|^2 in double; by the differences where that cancels.
  void search(const NdArray<double, 2>& queries, std::vector<Nearest>& nearest) const {
    NdArray<double, 2> products({queries.extent(0), train_block}, core::Fill::none);
    for (Index b = 0; b < block_count(rows(), train_block); ++b) {
      const BlockRange range = block_range(rows(), train_block, b);
      const NdArray<double, 2> block = double_rows(rows_.view(), range);
      const MatrixView<double> out(products.data(), {queries.extent(0), range.size()});
      kernels::gemm<double>(queries.view(), MatrixView<const double>(block.view()).transposed(),
                            out, {.alpha = -2.0});
      for (Index q = 0; q < queries.extent(0); ++q) {
        const double own = norm(queries, q);
        for (Index r = 0; r < range.size(); ++r) {
          const auto row = static_cast<std::size_t>(range.begin + r);
          const double weight = weight_of(weights_, row);
          if (weight == 0) continue;
          double distance = own + out(q, r) + norms_[row];
          if (distance < 1e-9 * (own + norms_[row])) distance = direct(queries, q, block, r);
          nearest[static_cast<std::size_t>(q)].offer(
              {distance, static_cast<std::int32_t>(row), weight});
        }
      }
    }
  }

  NdArray<float, 2> rows_;
  std::vector<float> weights_;
  std::vector<double> norms_;
};
/// (A template, so that a program compiles it only where it uses it.)
using Neighbours = BasicNeighbours<>;

/// What a neighbour's word is worth.
template <class = void>
inline std::vector<double> votes(std::span<const Neighbours::Neighbour> found, NeighbourVote vote) {
  const bool on_place = found.front().distance == 0;
  std::vector<double> out;
  for (const auto& n : found) {
    double v = 1;
    if (vote == NeighbourVote::inverse_distance && on_place) v = n.distance == 0 ? 1 : 0;
    if (vote == NeighbourVote::inverse_distance && !on_place) v = 1 / std::sqrt(n.distance);
    out.push_back(v * n.weight);
  }
  return out;
}

inline void check_neighbours(std::string_view name, const NeighboursOptions& options) {
  expect_in_range(name, "neighbours", options.neighbours, 1, 1 << 30);
}

inline void save_neighbours_options(ArchiveWriter& out, const NeighboursOptions& options) {
  out.scalar("neighbours", options.neighbours);
  out.scalar("vote", static_cast<std::uint8_t>(options.vote));
}
inline NeighboursOptions load_neighbours_options(const ArchiveReader& in) {
  const auto neighbours = in.scalar<std::int32_t>("neighbours");
  if (neighbours < 1) in.fail_section("neighbours", "at least 1", std::to_string(neighbours));
  const auto vote = in.scalar<std::uint8_t>("vote");
  if (vote > 1) in.fail_section("vote", "0 or 1", std::to_string(vote));
  return {neighbours, static_cast<NeighbourVote>(vote)};
}

}  // namespace detail

/// Probabilities are the classes' shares of the k nearest rows' votes. Where fewer rows were given,
/// all are neighbours.
template <class = void>
class BasicNeighboursClassifier {
 public:
  explicit BasicNeighboursClassifier(NeighboursOptions options = {}) : options_(options) {
    detail::check_neighbours(name, options);
  }

  void fit(Features x, std::span<const std::int32_t> y, std::int32_t classes,
           std::span<const float> weights = {}, std::uint64_t /*seed*/ = 0) {
    detail::check_rows(name, x, y.size(), weights);
    detail::check_classes(name, {y, classes});
    neighbours_.fit(name, x, weights);
    y_.assign(y.begin(), y.end());
    classes_ = classes;
  }

  void predict_proba(Features x, MatrixView<float> out) const {
    expect_shape(name, "out", out, {x.rows(), Index{classes_}});
    neighbours_.for_each_row(name, x, options_.neighbours, [&](Index i, auto found) {
      const std::vector<double> worth = detail::votes(found, options_.vote);
      std::vector<double> sums(static_cast<std::size_t>(classes_));
      double all = 0;
      for (std::size_t n = 0; n < worth.size(); ++n) {
        sums[static_cast<std::size_t>(y_[static_cast<std::size_t>(found[n].row)])] += worth[n];
        all += worth[n];
      }
      for (Index c = 0; c < out.cols(); ++c)
        out(i, c) = static_cast<float>(sums[static_cast<std::size_t>(c)] / all);
    });
  }

  [[nodiscard]] std::int32_t classes() const noexcept { return classes_; }

  static constexpr std::string_view kind() { return "ensemble.neighbours_classifier"; }
  void save(ArchiveWriter& out) const {
    out.scalar("classes", classes_);
    out.array("y", y_);
    detail::save_neighbours_options(out, options_);
    neighbours_.save(out);
  }
  void load(const ArchiveReader& in) {
    BasicNeighboursClassifier loaded(detail::load_neighbours_options(in));
    loaded.neighbours_.load(in);
    loaded.classes_ = in.scalar<std::int32_t>("classes");
    loaded.y_ = in.array<std::int32_t>("y", static_cast<std::size_t>(loaded.neighbours_.rows()));
    for (const std::int32_t code : loaded.y_)
      if (code < 0 || code >= loaded.classes_)
        in.fail_section("y", "codes of classes", std::to_string(code));
    *this = std::move(loaded);
  }

 private:
  static constexpr std::string_view name = "quern::ensemble::NeighboursClassifier";

  NeighboursOptions options_;
  std::int32_t classes_ = 0;
  std::vector<std::int32_t> y_;
  detail::Neighbours neighbours_;
};
/// (A template, so that a program compiles it only where it uses it.)
using NeighboursClassifier = BasicNeighboursClassifier<>;

/// The mean of the k nearest rows' targets, by their votes.
template <class = void>
class BasicNeighboursRegressor {
 public:
  explicit BasicNeighboursRegressor(NeighboursOptions options = {}) : options_(options) {
    detail::check_neighbours(name, options);
  }

  void fit(Features x, std::span<const float> y, std::span<const float> weights = {},
           std::uint64_t /*seed*/ = 0) {
    detail::check_rows(name, x, y.size(), weights);
    detail::check_targets(name, y);
    neighbours_.fit(name, x, weights);
    y_.assign(y.begin(), y.end());
  }

  void predict(Features x, std::span<float> out) const {
    expect_size(name, "out", static_cast<Index>(out.size()), x.rows(), "(the rows)");
    neighbours_.for_each_row(name, x, options_.neighbours, [&](Index i, auto found) {
      const std::vector<double> worth = detail::votes(found, options_.vote);
      double sum = 0, all = 0;
      for (std::size_t n = 0; n < worth.size(); ++n) {
        sum += worth[n] * static_cast<double>(y_[static_cast<std::size_t>(found[n].row)]);
        all += worth[n];
      }
      out[static_cast<std::size_t>(i)] = static_cast<float>(sum / all);
    });
  }

  static constexpr std::string_view kind() { return "ensemble.neighbours_regressor"; }
  void save(ArchiveWriter& out) const {
    out.array("y", y_);
    detail::save_neighbours_options(out, options_);
    neighbours_.save(out);
  }
  void load(const ArchiveReader& in) {
    BasicNeighboursRegressor loaded(detail::load_neighbours_options(in));
    loaded.neighbours_.load(in);
    loaded.y_ = in.array<float>("y", static_cast<std::size_t>(loaded.neighbours_.rows()));
    *this = std::move(loaded);
  }

 private:
  static constexpr std::string_view name = "quern::ensemble::NeighboursRegressor";

  NeighboursOptions options_;
  std::vector<float> y_;
  detail::Neighbours neighbours_;
};
/// (A template, so that a program compiles it only where it uses it.)
using NeighboursRegressor = BasicNeighboursRegressor<>;

}  // namespace ensemble
QUERN_NAMESPACE_END

#endif  // QUERN_ENSEMBLE_LEARNERS_NEAREST_NEIGHBOURS_HPP
