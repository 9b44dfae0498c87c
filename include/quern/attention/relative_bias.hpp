// SPDX-License-Identifier: Apache-2.0

/// \file
/// T5's relative position bias: a learnt number for each bucket of distances, few and fine near by,
/// wide far away. C. Raffel et al., "Exploring the limits of transfer learning with a unified
/// text-to-text transformer" (arXiv:1910.10683).

#ifndef QUERN_ATTENTION_RELATIVE_BIAS_HPP
#define QUERN_ATTENTION_RELATIVE_BIAS_HPP

#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/core/nd_view.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <span>
#include <string>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace attention {

/// Which bucket the distance from a key to a query falls into.
struct RelativeBuckets {
  Index buckets = 32;        ///< even, at least 4
  Index max_distance = 128;  ///< from here on all distances share a bucket
  bool causal = false;       ///< keys after the query count as distance 0

  /// The bucket of key - query = `ahead`.
  [[nodiscard]] Index operator()(Index ahead) const {
    const Index count = causal ? buckets : buckets / 2;
    const Index base = !causal && ahead > 0 ? count : 0;
    const Index n = causal ? (std::max)(-ahead, Index{0}) : (ahead < 0 ? -ahead : ahead);
    const Index exact = count / 2;
    if (n < exact) return base + n;
    const double steps = std::log(static_cast<double>(n) / static_cast<double>(exact)) /
                         std::log(static_cast<double>(max_distance) / static_cast<double>(exact)) *
                         static_cast<double>(count - exact);
    // Whole values (distances 16, 32, 64) may come out a rounding too low.
    return base + (std::min)(count - 1, exact + static_cast<Index>(std::floor(steps + 1e-9)));
  }
};

namespace detail {

inline RelativeBuckets relative_buckets(const char* function, Index table, bool causal) {
  if (table < 4 || table % 4 != 0) {
    throw ShapeError(error_text(function, "bias_table", "a multiple of 4 buckets", table));
  }
  return {.buckets = table, .causal = causal};
}

/// The bias of key - query = -(length - 1), …, length - 1, times a factor.
template <class T>
std::vector<T> bias_by_distance(NdView<const T, 1> table, Index length, bool causal, T factor,
                                const char* function) {
  const RelativeBuckets bucket = relative_buckets(function, table.extent(0), causal);
  std::vector<T> bias;
  for (Index ahead = 1 - length; ahead < length; ++ahead) {
    bias.push_back(factor * table(bucket(ahead)));
  }
  return bias;
}

/// Adds the gradient of bias_by_distance to that of the table.
template <class T>
void add_bias_gradient(std::span<const double> dbias, Index length, bool causal, double factor,
                       NdView<T, 1> dtable, const char* function) {
  const RelativeBuckets bucket = relative_buckets(function, dtable.extent(0), causal);
  std::vector<double> sums(static_cast<std::size_t>(dtable.extent(0)), 0.0);
  for (Index ahead = 1 - length; ahead < length; ++ahead) {
    sums[static_cast<std::size_t>(bucket(ahead))] +=
        dbias[static_cast<std::size_t>(ahead + length - 1)];
  }
  for (Index b = 0; b < dtable.extent(0); ++b) {
    dtable(b) += static_cast<T>(factor * sums[static_cast<std::size_t>(b)]);
  }
}

}  // namespace detail
}  // namespace attention
QUERN_NAMESPACE_END

#endif  // QUERN_ATTENTION_RELATIVE_BIAS_HPP
