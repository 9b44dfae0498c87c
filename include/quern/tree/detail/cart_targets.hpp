// SPDX-License-Identifier: Apache-2.0

/// \file
/// What CART trees predict, as the search for splits sees it: samples, and sums that move sample by
/// sample from the right child to the left.
///
/// A target has a Sample, outputs(), and Sums with: set(samples) of a node; start() with all on the
/// right; add(sample) to the left; left_weight(), right_weight(); score() of the present division,
/// larger is better; impurity() and values() of the node.

#ifndef QUERN_TREE_DETAIL_CART_TARGETS_HPP
#define QUERN_TREE_DETAIL_CART_TARGETS_HPP

#include "quern/core/config.hpp"
#include "quern/tree/cart_options.hpp"

#include <algorithm>
#include <cmath>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <span>
#include <type_traits>
#include <utility>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace tree::detail {

/// Classes. \p W: std::uint32_t where all weights are whole numbers (then all sums are exact), else
/// double.
template <class W>
class ClassTarget {
 public:
  using Sum = std::conditional_t<std::integral<W>, std::int64_t, double>;
  using Weight = W;
  /// A row, or rows of one class and one code together.
  struct Sample {
    W weight;
    std::uint32_t label;
  };
  static constexpr bool joins = true;  ///< samples of one code may be added together
  static constexpr bool counts = true;

  ClassTarget(std::span<const std::int32_t> labels, std::int32_t classes, Criterion criterion)
      : labels_(labels), classes_(classes), criterion_(criterion) {}

  [[nodiscard]] std::int32_t outputs() const noexcept { return classes_; }
  [[nodiscard]] Sample sample(std::size_t row, W weight) const noexcept {
    return {weight, static_cast<std::uint32_t>(labels_[row])};
  }

  class Sums {
   public:
    explicit Sums(const ClassTarget& target)
        : gini_(target.criterion_ == Criterion::gini),
          total_(static_cast<std::size_t>(target.classes_)),
          left_(total_.size()) {}

    void set(std::span<const Sample> samples) {
      std::fill(total_.begin(), total_.end(), Sum{0});
      weight_ = 0;
      for (const Sample& s : samples) total_[s.label] += static_cast<Sum>(s.weight);
      for (const Sum w : total_) weight_ += w;
      total_squares_ = squares(total_);
    }
    [[nodiscard]] double weight() const noexcept { return static_cast<double>(weight_); }

    void start() noexcept {
      std::fill(left_.begin(), left_.end(), Sum{0});
      left_weight_ = 0;
      left_squares_ = 0;
      right_squares_ = total_squares_;
    }
    void add(const Sample& s) noexcept {
      const auto w = static_cast<Sum>(s.weight);
      const Sum l = left_[s.label];
      left_[s.label] = l + w;
      left_weight_ += w;
      if constexpr (std::integral<W>) {  // rounding would gather in the squares
        left_squares_ += w * (2 * l + w);
        right_squares_ -= w * (2 * (total_[s.label] - l) - w);
      }
    }
    /// Weight of each class.
    [[nodiscard]] const std::vector<Sum>& totals() const noexcept { return total_; }
    /// Takes over the weight of a class on the left.
    void set_left(std::size_t label, Sum weight) noexcept {
      const Sum r = total_[label] - weight;
      left_[label] = weight;
      left_weight_ += weight;
      left_squares_ += weight * weight;
      right_squares_ += r * r - total_[label] * total_[label];
    }
    [[nodiscard]] double left_weight() const noexcept { return static_cast<double>(left_weight_); }
    [[nodiscard]] double right_weight() const noexcept {
      return static_cast<double>(weight_ - left_weight_);
    }
    /// Of whole numbers, splits that are equally good have equal scores: but for huge nodes all
    /// that is rounded is the quotient.
    [[nodiscard]] double score() const noexcept {
      const double wl = left_weight(), wr = right_weight();
      if (!gini_) return -wr * right_entropy(wr) - wl * entropy(left_, wl);
      const double l = static_cast<double>(std::integral<W> ? left_squares_ : squares(left_));
      const double r = static_cast<double>(std::integral<W> ? right_squares_ : right_squares());
      return (l * wr + r * wl) / (wl * wr);
    }
    [[nodiscard]] double impurity() const noexcept {
      const double w = weight();
      return gini_ ? 1.0 - static_cast<double>(total_squares_) / (w * w) : entropy(total_, w);
    }
    void values(double* out) const noexcept {
      for (std::size_t k = 0; k < total_.size(); ++k)
        out[k] = static_cast<double>(total_[k]) / weight();
    }

   private:
    [[nodiscard]] static Sum squares(const std::vector<Sum>& of) noexcept {
      Sum sum = 0;
      for (const Sum w : of) sum += w * w;
      return sum;
    }
    [[nodiscard]] static double entropy(const std::vector<Sum>& of, double weight) noexcept {
      double sum = 0;
      for (const Sum w : of) {
        if (!(w > 0)) continue;
        const double p = static_cast<double>(w) / weight;
        sum -= p * std::log2(p);
      }
      return sum;
    }

    [[nodiscard]] Sum right_squares() const noexcept {
      Sum sum = 0;
      for (std::size_t k = 0; k < total_.size(); ++k)
        sum += (total_[k] - left_[k]) * (total_[k] - left_[k]);
      return sum;
    }
    [[nodiscard]] double right_entropy(double weight) const {
      double sum = 0;
      for (std::size_t k = 0; k < total_.size(); ++k) {
        const double p = static_cast<double>(total_[k] - left_[k]) / weight;
        if (p > 0) sum -= p * std::log2(p);
      }
      return sum;
    }

    bool gini_;
    Sum weight_ = 0, left_weight_ = 0, total_squares_ = 0, left_squares_ = 0, right_squares_ = 0;
    std::vector<Sum> total_, left_;
  };

 private:
  std::span<const std::int32_t> labels_;
  std::int32_t classes_;
  Criterion criterion_;
};

/// Numbers by squared error, taken from their mean so that sums of squares keep their digits.
class NumberTarget {
 public:
  using Weight = double;
  struct Sample {
    double weight;
    double weighted;  ///< weight times (y - offset)
  };
  static constexpr bool joins = true;
  static constexpr bool counts = false;

  explicit NumberTarget(std::span<const float> y) : y_(y) {
    double sum = 0;
    for (const float v : y) sum += static_cast<double>(v);
    offset_ = y.empty() ? 0 : sum / static_cast<double>(y.size());
  }

  [[nodiscard]] std::int32_t outputs() const noexcept { return 1; }
  [[nodiscard]] Sample sample(std::size_t row, double weight) const noexcept {
    return {weight, weight * (static_cast<double>(y_[row]) - offset_)};
  }

  class Sums {
   public:
    explicit Sums(const NumberTarget& target) : offset_(target.offset_) {}
    void set(std::span<const Sample> samples) {
      weight_ = sum_ = 0;
      double squares = 0;
      for (const Sample& s : samples) {
        weight_ += s.weight;
        sum_ += s.weighted;
      }
      const double mean = sum_ / weight_;
      for (const Sample& s : samples) {
        const double d = s.weighted / s.weight - mean;
        squares += s.weight * d * d;
      }
      impurity_ = squares / weight_;
    }
    [[nodiscard]] double weight() const noexcept { return weight_; }
    void start() noexcept { left_weight_ = left_sum_ = 0; }
    void add(const Sample& s) noexcept {
      left_weight_ += s.weight;
      left_sum_ += s.weighted;
    }
    [[nodiscard]] double left_weight() const noexcept { return left_weight_; }
    [[nodiscard]] double right_weight() const noexcept { return weight_ - left_weight_; }
    [[nodiscard]] double score() const noexcept {
      const double r = sum_ - left_sum_;
      return left_sum_ * left_sum_ / left_weight_ + r * r / right_weight();
    }
    [[nodiscard]] double impurity() const noexcept { return impurity_; }
    void values(double* out) const noexcept { out[0] = offset_ + sum_ / weight_; }

   private:
    double offset_;
    double weight_ = 0, sum_ = 0, impurity_ = 0, left_weight_ = 0, left_sum_ = 0;
  };

 private:
  std::span<const float> y_;
  double offset_ = 0;
};

/// Numbers by absolute error. Both children keep their weights by y in a tree of partial sums
/// (P. Fenwick, Software: Practice and Experience 24 (1994)), so that a median costs log n.
class MedianTarget {
 public:
  using Weight = double;
  struct Sample {
    double weight;
    std::uint32_t rank;  ///< of y
  };
  static constexpr bool joins = false;
  static constexpr bool counts = false;

  explicit MedianTarget(std::span<const float> y) : values_(y.begin(), y.end()) {
    std::sort(values_.begin(), values_.end());
    values_.erase(std::unique(values_.begin(), values_.end()), values_.end());
    ranks_.reserve(y.size());
    for (const float v : y)
      ranks_.push_back(static_cast<std::uint32_t>(
          std::lower_bound(values_.begin(), values_.end(), v) - values_.begin()));
  }

  [[nodiscard]] std::int32_t outputs() const noexcept { return 1; }
  [[nodiscard]] Sample sample(std::size_t row, double weight) const noexcept {
    return {weight, ranks_[row]};
  }

  class Sums {
   public:
    explicit Sums(const MedianTarget& target)
        : values_(&target.values_), local_(target.values_.size()) {}

    void set(std::span<const Sample> samples) {
      std::vector<std::uint32_t> ranks;
      for (const Sample& s : samples) ranks.push_back(s.rank);
      std::sort(ranks.begin(), ranks.end());
      ranks.erase(std::unique(ranks.begin(), ranks.end()), ranks.end());
      y_.clear();
      for (std::size_t i = 0; i < ranks.size(); ++i) {
        local_[ranks[i]] = static_cast<std::uint32_t>(i);
        y_.push_back(static_cast<double>((*values_)[ranks[i]]));
      }
      left_.reset(y_.size());
      all_.reset(y_.size());
      for (const Sample& s : samples) move(all_, s, s.weight);
      right_ = all_;
      impurity_ = all_.deviation(y_) / all_.weight;
    }
    [[nodiscard]] double weight() const noexcept { return all_.weight; }
    void start() {
      left_.reset(y_.size());
      right_ = all_;
    }
    void add(const Sample& s) noexcept {
      move(left_, s, s.weight);
      move(right_, s, -s.weight);
    }
    [[nodiscard]] double left_weight() const noexcept { return left_.weight; }
    [[nodiscard]] double right_weight() const noexcept { return right_.weight; }
    [[nodiscard]] double score() const { return -left_.deviation(y_) - right_.deviation(y_); }
    [[nodiscard]] double impurity() const noexcept { return impurity_; }
    void values(double* out) const { out[0] = all_.median(y_); }

   private:
    struct Side {
      double weight = 0, sum = 0;
      std::vector<std::pair<double, double>> nodes;  ///< weight, weight times y; from 1

      void reset(std::size_t size) {
        weight = sum = 0;
        nodes.assign(size + 1, {0.0, 0.0});
      }
      /// The first place up to which at least half of the weight lies, and the sums up to it.
      [[nodiscard]] std::size_t middle(double& weight_to, double& sum_to) const noexcept {
        // Sums that are added and taken away again carry rounding: half, but for that.
        const double half = 0.5 * weight * (1 - 1e-12);
        std::size_t at = 0, step = 1;
        while (step * 2 < nodes.size()) step *= 2;
        weight_to = sum_to = 0;
        for (; step > 0; step /= 2) {
          if (at + step >= nodes.size() || weight_to + nodes[at + step].first >= half) continue;
          at += step;
          weight_to += nodes[at].first;
          sum_to += nodes[at].second;
        }
        return (std::min)(at, nodes.size() - 2);
      }
      [[nodiscard]] double deviation(const std::vector<double>& y) const noexcept {
        double w = 0, s = 0;  // below the median
        const double median = y[middle(w, s)];
        return (std::max)(0.0, median * w - s + (sum - s) - median * (weight - w));
      }
      [[nodiscard]] double median(const std::vector<double>& y) const noexcept {
        double w = 0, s = 0;
        const std::size_t at = middle(w, s);
        // Exactly half below: the middle of the two.
        double through = 0;
        for (std::size_t i = at + 1; i > 0; i &= i - 1) through += nodes[i].first;
        if (through > 0.5 * weight * (1 + 1e-12) || at + 1 >= y.size()) return y[at];
        return (y[at] + y[at + 1]) / 2;
      }
    };

    void move(Side& side, const Sample& s, double weight) noexcept {
      const std::size_t place = local_[s.rank];
      const double weighted = weight * y_[place];
      side.weight += weight;
      side.sum += weighted;
      for (std::size_t i = place + 1; i < side.nodes.size(); i += i & (~i + 1)) {
        side.nodes[i].first += weight;
        side.nodes[i].second += weighted;
      }
    }

    const std::vector<float>* values_;
    std::vector<std::uint32_t> local_;  ///< place of a rank within the node
    std::vector<double> y_;             ///< of the node, ascending
    Side all_, left_, right_;
    double impurity_ = 0;
  };

 private:
  std::vector<float> values_;
  std::vector<std::uint32_t> ranks_;
};

}  // namespace tree::detail
QUERN_NAMESPACE_END

#endif  // QUERN_TREE_DETAIL_CART_TARGETS_HPP
