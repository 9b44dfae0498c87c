// SPDX-License-Identifier: Apache-2.0

/// \file
/// Rows that a tree is grown on.

#ifndef QUERN_BOOSTING_SAMPLING_HPP
#define QUERN_BOOSTING_SAMPLING_HPP

#include "quern/boosting/options.hpp"
#include "quern/boosting/train_state.hpp"
#include "quern/core/config.hpp"
#include "quern/core/random.hpp"

#include <cstdint>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace boosting::detail {

/// Rows of one tree.
struct RowSample {
  std::vector<std::int32_t> rows;  ///< ascending; empty: all
  std::vector<float> factors;      ///< (rows) of their gradients, or empty: all one

  [[nodiscard]] bool all() const noexcept { return rows.empty(); }
};

/// Every row with the same probability, at least one.
[[nodiscard]] inline RowSample uniform_sample(const Options& options, std::int64_t rows,
                                              std::uint64_t stream) {
  RowSample sample;
  if (options.subsample >= 1) return sample;
  Philox rng(options.seed, "row sample", stream);
  for (std::int64_t i = 0; i < rows; ++i) {
    if (rng.bernoulli(options.subsample)) sample.rows.push_back(static_cast<std::int32_t>(i));
  }
  if (sample.rows.empty()) sample.rows.push_back(0);
  return sample;
}

/// The sample of a tree; \p stream numbers the trees that sample for themselves.
[[nodiscard]] inline RowSample draw_rows(const TrainState& state, std::uint64_t stream) {
  return uniform_sample(state.options, state.train.rows(), stream);
}

}  // namespace boosting::detail
QUERN_NAMESPACE_END

#endif  // QUERN_BOOSTING_SAMPLING_HPP
