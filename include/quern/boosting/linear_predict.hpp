// SPDX-License-Identifier: Apache-2.0

/// \file
/// Margins of linear models (booster gblinear).

#ifndef QUERN_BOOSTING_LINEAR_PREDICT_HPP
#define QUERN_BOOSTING_LINEAR_PREDICT_HPP

#include "quern/core/checks.hpp"
#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/core/nd_view.hpp"
#include "quern/core/parallel.hpp"
#include "quern/tree/dataset.hpp"
#include "quern/tree/tree.hpp"

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <variant>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace boosting {

/// A linear function by output: base + bias + sum of weight x, summed in double, features in
/// order. Missing values count as 0.
struct LinearFunction {
  std::vector<double> weights;  ///< (features + 1, outputs) row-major, biases last
  std::vector<double> base;     ///< (outputs)
  std::int64_t features = 0;
  tree::InputType input_type = tree::InputType::float32;

  [[nodiscard]] std::int64_t outputs() const noexcept {
    return static_cast<std::int64_t>(base.size());
  }
  /// Sums before the first feature.
  void start(double* sums) const noexcept {
    const std::size_t k = base.size();
    for (std::size_t c = 0; c < k; ++c)
      sums[c] = base[c] + weights[static_cast<std::size_t>(features) * k + c];
  }
  /// Adds feature \p f's share.
  template <class T>
  void add(std::int64_t f, T x, double* sums) const noexcept {
    if (is_nan_bits(x)) return;
    const double value = input_type == tree::InputType::float32
                             ? static_cast<double>(static_cast<float>(x))
                             : static_cast<double>(x);
    const std::size_t k = base.size();
    const double* w = weights.data() + static_cast<std::size_t>(f) * k;
    for (std::size_t c = 0; c < k; ++c) sums[c] += w[c] * value;
  }
};

namespace detail {

inline constexpr std::int64_t linear_block = std::int64_t{1} << 10;

template <class T>
void linear_row(const LinearFunction& f, const MatrixView<const T>& x, std::int64_t row,
                double* sums) {
  f.start(sums);
  for (std::int64_t j = 0; j < f.features; ++j) f.add(j, x(row, j), sums);
}

template <class T>
void linear_row(const LinearFunction& f, const tree::CsrView<T>& x, std::int64_t row,
                double* sums) {
  f.start(sums);
  const auto r = static_cast<std::size_t>(row);
  for (std::int64_t i = x.row_offsets[r]; i < x.row_offsets[r + 1]; ++i) {
    const auto at = static_cast<std::size_t>(i);
    f.add(x.columns[at], x.values[at], sums);
  }
}

}  // namespace detail

/// out(r, k): margins of every row. \p features: (rows, function.features), NaN is missing; \p out:
/// (rows, outputs). ShapeError where shapes do not fit.
template <class Out>
void predict_linear(const LinearFunction& function, const tree::FeatureView& features,
                    MatrixView<Out> out, int threads = 0) {
  static constexpr const char* name = "quern::boosting::predict_linear";
  std::visit(
      [&](const auto& x) {
        const std::int64_t rows = tree::detail::rows_of(x), cols = tree::detail::cols_of(x);
        if (cols != function.features)
          throw ShapeError(
              error_text(name, "features", std::to_string(function.features) + " columns", cols));
        if (out.rows() != rows || out.cols() != function.outputs())
          throw ShapeError(error_text(
              name, "out",
              std::to_string(rows) + " x " + std::to_string(function.outputs()) + " values",
              std::to_string(out.rows()) + " x " + std::to_string(out.cols())));
        tree::detail::check_features(name, x);
        parallel_for(
            block_count(rows, detail::linear_block),
            [&](std::int64_t b) {
              std::vector<double> sums(function.base.size());
              const BlockRange block = block_range(rows, detail::linear_block, b);
              for (std::int64_t r = block.begin; r < block.end; ++r) {
                detail::linear_row(function, x, r, sums.data());
                for (std::size_t k = 0; k < sums.size(); ++k)
                  out(r, static_cast<Index>(k)) = static_cast<Out>(sums[k]);
              }
            },
            threads);
      },
      features);
}

/// The same for one row, the same bits, without allocating.
template <class T, class Out>
void predict_linear_one(const LinearFunction& function, std::span<const T> row,
                        std::span<Out> out) {
  static constexpr const char* name = "quern::boosting::predict_linear_one";
  if (static_cast<std::int64_t>(row.size()) != function.features)
    throw ShapeError(
        error_text(name, "row", std::to_string(function.features) + " values", row.size()));
  if (static_cast<std::int64_t>(out.size()) != function.outputs())
    throw ShapeError(
        error_text(name, "out", std::to_string(function.outputs()) + " values", out.size()));
  const std::size_t k = out.size();
  const auto columns = static_cast<std::size_t>(function.features);
  for (std::size_t c = 0; c < k; ++c) {
    double sum = function.base[c] + function.weights[columns * k + c];
    for (std::size_t f = 0; f < columns; ++f) {
      if (is_nan_bits(row[f])) continue;
      const double x = function.input_type == tree::InputType::float32
                           ? static_cast<double>(static_cast<float>(row[f]))
                           : static_cast<double>(row[f]);
      sum += function.weights[f * k + c] * x;
    }
    out[c] = static_cast<Out>(sum);
  }
}

}  // namespace boosting
QUERN_NAMESPACE_END

#endif  // QUERN_BOOSTING_LINEAR_PREDICT_HPP
