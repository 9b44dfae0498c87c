// SPDX-License-Identifier: Apache-2.0

/// \file
/// Where codebooks start: k-means++ (D. Arthur, S. Vassilvitskii, SODA 2007) and Lloyd's rounds,
/// and where dead codes go: onto rows of the data that no code sits on.

#ifndef QUERN_VQ_KMEANS_HPP
#define QUERN_VQ_KMEANS_HPP

#include "quern/core/checks.hpp"
#include "quern/core/config.hpp"
#include "quern/core/nd_array.hpp"
#include "quern/core/nd_view.hpp"
#include "quern/core/parallel.hpp"
#include "quern/core/random.hpp"
#include "quern/kernels/kernels.hpp"
#include "quern/vq/code_sums.hpp"
#include "quern/vq/ema.hpp"
#include "quern/vq/nearest.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <set>
#include <span>
#include <string>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace vq {

namespace detail {

/// Compares rows of equal length by their numbers.
template <class T>
struct RowLess {
  std::size_t cols;
  bool operator()(const T* a, const T* b) const {
    return std::lexicographical_compare(a, a + cols, b, b + cols);
  }
};

/// Index drawn with probability proportional to its weight; the sum of weights is positive.
inline std::size_t draw_weighted(Philox& random, const std::vector<double>& weights) {
  double total = 0;
  for (const double w : weights) total += w;
  double left = random.uniform() * total;
  std::size_t last = 0;
  for (std::size_t i = 0; i < weights.size(); ++i) {
    if (!(weights[i] > 0)) continue;
    last = i;
    left -= weights[i];
    if (left < 0) break;
  }
  return last;
}

}  // namespace detail

/// Fills \p codebook (K x d) with K different rows of \p x (N x d, any strides): the first at
/// random, each further one with probability proportional to its squared distance from those
/// before. ValueError where x has fewer than K different rows (a codebook larger than the data).
template <class T>
void kmeans_plus_plus(detail::InputMatrix<T> x, MatrixView<T> codebook, std::uint64_t seed = 0,
                      int threads = 0) {
  constexpr const char* function = "quern::vq::kmeans_plus_plus";
  const Index n = x.rows(), k = codebook.rows();
  expect_shape(function, "codebook", codebook, {k, x.cols()});
  const auto too_few = [&](Index found) {
    throw ValueError(error_text(function, "x",
                                std::to_string(k) + " different rows, one a code at least",
                                std::to_string(found) + " of " + std::to_string(n)));
  };
  if (k == 0) return;
  if (n < k) too_few(n);
  const NdArray<T, 2> rows(x);
  const auto cols = static_cast<std::size_t>(x.cols());
  const auto row = [&](std::size_t i) { return rows.data() + i * cols; };
  Philox random(seed, "kmeans++");
  std::vector<double> nearest(static_cast<std::size_t>(n), 1.0);
  std::size_t chosen = static_cast<std::size_t>(random.integer(static_cast<std::uint64_t>(n)));
  for (Index c = 0; c < k; ++c) {
    if (c > 0) {
      if (*std::max_element(nearest.begin(), nearest.end()) == 0) too_few(c);
      chosen = detail::draw_weighted(random, nearest);
    }
    const T* const code = row(chosen);
    for (std::size_t j = 0; j < cols; ++j) codebook(c, static_cast<Index>(j)) = code[j];
    parallel_for(
        block_count(n, detail::search_rows),
        [&](std::int64_t b) {
          const BlockRange r = block_range(n, detail::search_rows, b);
          for (auto i = static_cast<std::size_t>(r.begin); i < static_cast<std::size_t>(r.end);
               ++i) {
            const double apart = QUERN_DISPATCH(squared_distance<T>(row(i), code, cols));
            if (c == 0 || apart < nearest[i]) nearest[i] = apart;
          }
        },
        threads);
  }
}

struct LloydOptions {
  int iterations = 10;
  NearestOptions nearest = {};
};

/// Rounds of assigning each row to its nearest code and moving codes to the mean of their rows; a
/// code without rows stays where it is. Returns the counts of the last assignment (made before the
/// last move). With Distance::cosine, codes are set to length 1 after each round.
template <class T>
std::vector<std::int64_t> lloyd(detail::InputMatrix<T> x, MatrixView<T> codebook,
                                const LloydOptions& options = {}) {
  constexpr const char* function = "quern::vq::lloyd";
  expect_shape(function, "codebook", codebook, {codebook.rows(), x.cols()});
  expect_in_range(function, "iterations", options.iterations, 0, 1 << 30);
  std::vector<std::int64_t> counts(static_cast<std::size_t>(codebook.rows()), 0);
  std::vector<std::int64_t> codes(static_cast<std::size_t>(x.rows()));
  NdArray<T, 2> sums(codebook.extents());
  for (int round = 0; round < options.iterations; ++round) {
    nearest_codes<T>(x, codebook, codes, {}, options.nearest);
    const RowsByCode by_code(codes, codebook.rows());
    sum_by_code<T>(x, by_code, sums.view(), options.nearest.threads);
    for (Index k = 0; k < codebook.rows(); ++k) {
      const std::int64_t count = by_code.count(k);
      counts[static_cast<std::size_t>(k)] = count;
      if (count == 0) continue;
      double length = static_cast<double>(count);
      if (options.nearest.metric == Distance::cosine) {
        double squares = 0;
        for (Index j = 0; j < codebook.cols(); ++j) {
          squares += static_cast<double>(sums(k, j)) * static_cast<double>(sums(k, j));
        }
        length = (std::max)(std::sqrt(squares), 1e-12);
      }
      for (Index j = 0; j < codebook.cols(); ++j) {
        codebook(k, j) = static_cast<T>(static_cast<double>(sums(k, j)) / length);
      }
    }
  }
  return counts;
}

/// Moves codes whose cluster size is below \p threshold onto random rows of the batch \p x, no two
/// onto equal rows and none onto a code that stays; where there are not enough such rows, codes
/// stay dead. Returns how many moved. One stream of random numbers per \p step.
template <class T>
Index restart_dead_codes(EmaCodebook<T>& codebook, detail::InputMatrix<T> x, double threshold,
                         std::uint64_t seed, std::uint64_t step) {
  constexpr const char* function = "quern::vq::restart_dead_codes";
  const MatrixView<const T> codes = codebook.codebook();
  expect_shape(function, "x", x, {x.rows(), codes.cols()});
  const std::span<const T> sizes = codebook.cluster_sizes();
  std::vector<Index> dead;
  const detail::RowLess<T> less{static_cast<std::size_t>(codes.cols())};
  std::set<const T*, detail::RowLess<T>> taken(less);
  for (Index k = 0; k < codes.rows(); ++k) {
    if (static_cast<double>(sizes[static_cast<std::size_t>(k)]) < threshold) {
      dead.push_back(k);
    } else {
      taken.insert(codes.row_data(k));
    }
  }
  if (dead.empty() || x.rows() == 0) return 0;
  const NdArray<T, 2> rows(x);
  std::vector<std::int64_t> order(static_cast<std::size_t>(x.rows()));
  for (std::size_t i = 0; i < order.size(); ++i) order[i] = static_cast<std::int64_t>(i);
  Philox random(seed, "dead codes", step);
  random.shuffle(order);
  std::vector<const T*> to;
  for (const std::int64_t i : order) {
    if (to.size() == dead.size()) break;
    const T* const row = rows.data() + i * x.cols();
    const bool finite = std::all_of(row, row + x.cols(), [](T v) { return is_finite_bits(v); });
    if (finite && taken.insert(row).second) to.push_back(row);
  }
  for (std::size_t i = 0; i < to.size(); ++i) {
    codebook.restart(dead[i], NdView<const T, 1>(to[i], {x.cols()}), (std::max)(threshold, 1.0));
  }
  return static_cast<Index>(to.size());
}

}  // namespace vq
QUERN_NAMESPACE_END

#endif  // QUERN_VQ_KMEANS_HPP
