// SPDX-License-Identifier: Apache-2.0

/// \file
/// A linear map of features, x W + b, in double: what the linear learners and multinomial naive
/// Bayes have learnt.

#ifndef QUERN_ENSEMBLE_DETAIL_LINEAR_MAP_HPP
#define QUERN_ENSEMBLE_DETAIL_LINEAR_MAP_HPP

#include "quern/core/archive.hpp"
#include "quern/core/checks.hpp"
#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/core/nd_array.hpp"
#include "quern/core/parallel.hpp"
#include "quern/ensemble/learner.hpp"
#include "quern/kernels/gemm.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace ensemble::detail {

/// Rows that are looked at together; as doubles they stay in the cache.
inline constexpr Index row_block = 256;

/// Some rows as doubles, row-major.
template <class = void>
inline NdArray<double, 2> double_rows(Features x, BlockRange rows) {
  NdArray<double, 2> out({rows.size(), x.cols()}, core::Fill::none);
  double* to = out.data();
  for (Index i = rows.begin; i < rows.end; ++i)
    for (Index f = 0; f < x.cols(); ++f) *to++ = static_cast<double>(x(i, f));
  return out;
}

/// ValueError before fit(), ShapeError for other features than it was fitted to.
inline void check_fitted(std::string_view function, Features x, Index features) {
  if (features == 0)
    throw ValueError(error_text(function, "learner", "one that was fitted", "one that was not"));
  expect_size(function, "x", x.cols(), features, "columns");
}

/// Scores (rows, outputs) of features (rows, features).
template <class = void>
struct BasicLinearMap {
  NdArray<double, 2> weights;      ///< (features, outputs)
  std::vector<double> intercepts;  ///< (outputs)

  BasicLinearMap() = default;
  BasicLinearMap(Index features, Index outputs)
      : weights({features, outputs}), intercepts(static_cast<std::size_t>(outputs)) {}

  [[nodiscard]] Index features() const noexcept { return weights.extent(0); }
  [[nodiscard]] Index outputs() const noexcept { return weights.extent(1); }

  /// Scores of rows that are doubles already.
  [[nodiscard]] NdArray<double, 2> scores(const NdArray<double, 2>& rows) const {
    NdArray<double, 2> out({rows.extent(0), outputs()});
    kernels::gemm<double>(rows.view(), weights.view(), out.view());
    for (Index i = 0; i < out.extent(0); ++i)
      for (Index c = 0; c < outputs(); ++c) out(i, c) += intercepts[static_cast<std::size_t>(c)];
    return out;
  }

  /// Calls use(row, scores of it) for every row, on several threads. ValueError for a feature that
  /// is not finite.
  template <class Use>
  void for_each_row(std::string_view function, Features x, const Use& use) const {
    check_fitted(function, x, features());
    check_finite_features(function, x);
    parallel_for(block_count(x.rows(), row_block), [&](std::int64_t b) {
      const BlockRange rows = block_range(x.rows(), row_block, b);
      const NdArray<double, 2> block = scores(double_rows(x, rows));
      for (Index i = rows.begin; i < rows.end; ++i)
        use(i, std::span<const double>(block.data() + (i - rows.begin) * outputs(),
                                       static_cast<std::size_t>(outputs())));
    });
  }

  void save(ArchiveWriter& out) const {
    out.array("weights",
              std::span<const double>(weights.data(), static_cast<std::size_t>(weights.size())));
    out.array("intercepts", intercepts);
  }
  void load(const ArchiveReader& in) {
    BasicLinearMap loaded;
    loaded.intercepts = in.array<double>("intercepts");
    const auto outputs = loaded.intercepts.size();
    const std::size_t all = in.count("weights");
    if (outputs == 0 ? all != 0 : all % outputs != 0)
      in.fail_section("weights", "a multiple of the intercepts", std::to_string(all));
    if (outputs > 0)
      loaded.weights =
          NdArray<double, 2>({static_cast<Index>(all / outputs), static_cast<Index>(outputs)});
    in.array_into("weights", std::span<double>(loaded.weights.data(), all));
    *this = std::move(loaded);
  }
};
/// (A template, so that a program compiles it only where it uses it.)
using LinearMap = BasicLinearMap<>;

/// Scores to probabilities, in place; the largest is taken off, so that nothing overflows.
inline void softmax(std::span<double> scores) {
  const double most = *std::max_element(scores.begin(), scores.end());
  double sum = 0;
  for (double& s : scores) sum += s = std::exp(s - most);
  for (double& s : scores) s /= sum;
}

inline double sigmoid(double x) {
  const double e = std::exp(-std::abs(x));
  return x >= 0 ? 1 / (1 + e) : e / (1 + e);
}

/// Saves the map of a classifier: one score for two classes, else one for each.
inline void save_class_map(ArchiveWriter& out, const LinearMap& map, std::int32_t classes) {
  out.scalar("classes", classes);
  map.save(out);
}
inline void load_class_map(const ArchiveReader& in, LinearMap& map, std::int32_t& classes) {
  LinearMap loaded;
  loaded.load(in);
  const auto count = in.scalar<std::int32_t>("classes");
  if (count < 0 || (count == 2 ? 1 : count) != loaded.outputs())
    in.fail_section("classes", "the number that the scores are for", std::to_string(count));
  map = std::move(loaded);
  classes = count;
}

}  // namespace ensemble::detail
QUERN_NAMESPACE_END

#endif  // QUERN_ENSEMBLE_DETAIL_LINEAR_MAP_HPP
