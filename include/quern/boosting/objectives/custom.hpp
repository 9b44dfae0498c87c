// SPDX-License-Identifier: Apache-2.0

/// \file
/// Losses and metrics of the user's own: callables on Eigen arrays that hold all rows.

#ifndef QUERN_BOOSTING_OBJECTIVES_CUSTOM_HPP
#define QUERN_BOOSTING_OBJECTIVES_CUSTOM_HPP

#include "quern/boosting/objectives/base.hpp"
#include "quern/core/checks.hpp"
#include "quern/core/config.hpp"
#include "quern/core/error.hpp"

#include <Eigen/Core>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace boosting {

/// (rows, outputs), row-major.
using RowArray = Eigen::Array<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using ConstRowArrayMap = Eigen::Map<const RowArray>;
using RowArrayMap = Eigen::Map<RowArray>;
/// (rows)
using ConstColumnMap = Eigen::Map<const Eigen::ArrayXf>;

/// A loss: fills gradients and hessians (rows, outputs) from margins (rows, outputs), labels and
/// weights (rows; ones where the data have none). It applies the weights itself, and is called once
/// a round, with all rows, on one thread at a time. Hessians must be >= 0 and all finite.
///
///     options.objective = "custom";
///     options.custom_objective = [](const auto& margin, const auto& label, const auto& weight,
///                                   auto& g, auto& h) {
///       g.col(0) = weight * (margin.col(0) - label);
///       h.col(0) = weight;
///     };
using CustomGradients = std::function<void(
    const ConstRowArrayMap& margins, const ConstColumnMap& labels, const ConstColumnMap& weights,
    RowArrayMap& gradients, RowArrayMap& hessians)>;

/// A metric: one number from predictions (rows, outputs), labels and weights (rows).
struct CustomMetric {
  std::string name;
  std::function<double(const ConstRowArrayMap& predictions, const ConstColumnMap& labels,
                       const ConstColumnMap& weights)>
      value;
  bool larger_is_better = false;
};

namespace detail {

/// The weights, or ones in \p ones.
inline ConstColumnMap weights_of(const Targets& targets, std::vector<float>& ones) {
  if (!targets.weights.empty()) return {targets.weights.data(), targets.rows()};
  ones.assign(targets.labels.size(), 1.0f);
  return {ones.data(), targets.rows()};
}

}  // namespace detail

/// A loss of the user's. Predictions are the margins; learning starts from 0 unless base_score or
/// base_margin say otherwise.
template <class = void>
class BasicCustom final : public Objective {
 public:
  BasicCustom(std::int32_t outputs, CustomGradients function)
      : outputs_(outputs), function_(std::move(function)) {
    if (outputs < 1)
      throw ValueError(error_text("quern::boosting::custom", "outputs", ">= 1", outputs));
  }
  [[nodiscard]] std::string_view name() const override { return "custom"; }
  [[nodiscard]] std::int32_t outputs() const override { return outputs_; }
  [[nodiscard]] std::string_view default_metric() const override { return ""; }
  void check_labels(std::span<const float>) const override {}
  void check(const Targets&) const override {
    if (!function_)
      throw ValueError(
          error_text("quern::boosting::custom", "custom_objective", "a callable", "none"));
  }
  [[nodiscard]] std::vector<double> start(const Targets&) const override {
    return std::vector<double>(static_cast<std::size_t>(outputs_), 0.0);
  }
  [[nodiscard]] bool separable() const override { return false; }
  /// Of all rows, whatever the range.
  void gradients(const float* margins, const Targets& targets, std::int64_t, std::int64_t,
                 tree::GradientPair* out) const override {
    check(targets);
    const std::int64_t rows = targets.rows(), k = outputs_;
    std::vector<float> g(static_cast<std::size_t>(rows * k), 0.0f), h(g), ones;
    RowArrayMap g_map(g.data(), rows, k), h_map(h.data(), rows, k);
    function_(ConstRowArrayMap(margins, rows, k), ConstColumnMap(targets.labels.data(), rows),
              detail::weights_of(targets, ones), g_map, h_map);
    for (std::int64_t i = 0; i < rows; ++i) {
      for (std::int64_t c = 0; c < k; ++c) {
        const auto at = static_cast<std::size_t>(i * k + c);
        expect(is_finite_bits(g[at]), "gradient", "a finite number", i, g[at]);
        expect(is_finite_bits(h[at]) && h[at] >= 0, "hessian", "a finite number >= 0", i, h[at]);
        out[c * rows + i] = {g[at], h[at]};
      }
    }
  }
  void all_gradients(const float* margins, const Targets& targets, std::uint64_t,
                     tree::GradientPair* out, int) const override {
    gradients(margins, targets, 0, targets.rows(), out);
  }
  void transform(float*, std::int64_t) const override {}

 private:
  static void expect(bool holds, const char* what, const char* expected, std::int64_t row,
                     float got) {
    if (holds) return;
    throw ValueError(error_text("quern::boosting::custom",
                                std::string(what) + " of row " + std::to_string(row), expected,
                                got));
  }

  std::int32_t outputs_;
  CustomGradients function_;
};
/// (A template, so that a program compiles it only where it uses it.)
using Custom = BasicCustom<>;

}  // namespace boosting
QUERN_NAMESPACE_END

#endif  // QUERN_BOOSTING_OBJECTIVES_CUSTOM_HPP
