// SPDX-License-Identifier: Apache-2.0

/// \file
/// A tree of one split (Gini) in a few lines: a learner of somebody's own, and a weak one.

#ifndef QUERN_TESTS_ENSEMBLE_STUMP_HPP
#define QUERN_TESTS_ENSEMBLE_STUMP_HPP

#include "quern/core/archive.hpp"
#include "quern/ensemble/learner.hpp"

#include <algorithm>
#include <cstdint>
#include <numeric>
#include <span>
#include <string_view>
#include <vector>

namespace quern::test {

struct Stump {
  std::int64_t feature = 0;
  double threshold = 0;
  std::vector<double> below, above;  // shares of the classes

  void fit(ensemble::Features x, std::span<const std::int32_t> y, std::int32_t classes,
           std::span<const float> weights, std::uint64_t) {
    const auto k = static_cast<std::size_t>(classes);
    std::vector<double> all(k);
    for (std::size_t i = 0; i < y.size(); ++i) all[class_at(y, i)] += weight(weights, i);
    below = above = all;
    double best = purity(all);
    for (Index f = 0; f < x.cols(); ++f) {
      std::vector<std::size_t> order(y.size());
      std::iota(order.begin(), order.end(), std::size_t{0});
      const auto value = [&](std::size_t i) { return x(static_cast<Index>(order[i]), f); };
      std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) {
        return x(static_cast<Index>(a), f) < x(static_cast<Index>(b), f);
      });
      std::vector<double> left(k), right = all;
      for (std::size_t i = 0; i + 1 < order.size(); ++i) {
        left[class_at(y, order[i])] += weight(weights, order[i]);
        right[class_at(y, order[i])] -= weight(weights, order[i]);
        if (value(i) == value(i + 1) || purity(left) + purity(right) <= best + 1e-9) continue;
        best = purity(left) + purity(right);
        feature = f;
        threshold = (static_cast<double>(value(i)) + static_cast<double>(value(i + 1))) / 2;
        below = left;
        above = right;
      }
    }
    for (auto* part : {&below, &above}) {
      const double sum = std::accumulate(part->begin(), part->end(), 0.0);
      for (double& p : *part) p = sum > 0 ? p / sum : 0;
    }
  }

  void predict_proba(ensemble::Features x, MatrixView<float> out) const {
    for (Index i = 0; i < x.rows(); ++i) {
      const auto& leaf = static_cast<double>(x(i, feature)) <= threshold ? below : above;
      for (Index c = 0; c < out.cols(); ++c)
        out(i, c) = static_cast<float>(leaf[static_cast<std::size_t>(c)]);
    }
  }

  static std::string_view kind() { return "test stump"; }
  void save(ArchiveWriter& out) const {
    out.scalar("feature", feature);
    out.scalar("threshold", threshold);
    out.array("below", below);
    out.array("above", above);
  }
  void load(const ArchiveReader& in) {
    feature = in.scalar<std::int64_t>("feature");
    threshold = in.scalar<double>("threshold");
    below = in.array<double>("below");
    above = in.array<double>("above");
  }

 private:
  static std::size_t class_at(std::span<const std::int32_t> y, std::size_t i) {
    return static_cast<std::size_t>(y[i]);
  }
  static double weight(std::span<const float> weights, std::size_t i) {
    return weights.empty() ? 1.0 : static_cast<double>(weights[i]);
  }
  /// Sum of squares over the weight: splits that raise it most lower Gini's impurity most.
  static double purity(const std::vector<double>& sums) {
    double all = 0, squares = 0;
    for (const double s : sums) {
      all += s;
      squares += s * s;
    }
    return all > 1e-12 ? squares / all : 0;
  }
};

}  // namespace quern::test

#endif  // QUERN_TESTS_ENSEMBLE_STUMP_HPP
