// SPDX-License-Identifier: Apache-2.0

/// \file
/// Rows that a tree is grown on: all, a uniform sample, or one that prefers large gradients.

#ifndef QUERN_BOOSTING_SAMPLING_HPP
#define QUERN_BOOSTING_SAMPLING_HPP

#include "quern/boosting/options.hpp"
#include "quern/boosting/train_state.hpp"
#include "quern/core/config.hpp"
#include "quern/core/random.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <functional>
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

/// (rows): of(pair) summed over the outputs.
template <class Of>
[[nodiscard]] std::vector<double> gradient_norms(const TrainState& state, const Of& of) {
  const std::int64_t rows = state.train.rows();
  std::vector<double> norms(static_cast<std::size_t>(rows), 0.0);
  for (std::int64_t c = 0; c < state.model.outputs; ++c) {
    const auto pairs = state.gradients_of(c);
    for (std::size_t i = 0; i < norms.size(); ++i) norms[i] += of(pairs[i]);
  }
  return norms;
}

/// Gradient-based one-side sampling: the top_rate rows with the largest |g h| (lower rows where
/// they are equal), and other_rate of the rows from the rest, whose gradients are scaled up to
/// stand for all of it. G. Ke et al., "LightGBM", NIPS 2017, algorithm 2. As there, the first 1 /
/// learning_rate rounds take all rows.
template <class = void>
[[nodiscard]] inline RowSample goss_sample(const TrainState& state, std::uint64_t number,
                                           std::uint64_t stream) {
  const Options& o = state.options;
  RowSample sample;
  if (static_cast<double>(number) < std::floor(1 / o.learning_rate)) return sample;
  const std::vector<double> norms = gradient_norms(state, [](const tree::GradientPair& p) {
    return std::fabs(static_cast<double>(p.g) * static_cast<double>(p.h));
  });
  const auto rows = static_cast<double>(norms.size());
  const auto top = static_cast<std::size_t>(std::ceil(o.top_rate * rows));
  const std::size_t rest = norms.size() - top;
  const auto others = (std::min)(static_cast<std::size_t>(std::ceil(o.other_rate * rows)), rest);
  double limit = 0;
  std::size_t equal = 0;  // rows at the limit that are of the top
  if (top > 0) {
    std::vector<double> sorted = norms;
    const auto last = sorted.begin() + static_cast<std::ptrdiff_t>(top) - 1;
    std::nth_element(sorted.begin(), last, sorted.end(), std::greater<>());
    limit = *last;
    equal = top - static_cast<std::size_t>(std::count_if(norms.begin(), norms.end(),
                                                         [&](double x) { return x > limit; }));
  }
  const float factor =
      others > 0 ? static_cast<float>(static_cast<double>(rest) / static_cast<double>(others)) : 1;
  Philox rng(o.seed, "goss", stream);
  std::size_t wanted = others, left = rest;
  for (std::size_t i = 0; i < norms.size(); ++i) {
    bool in_top = top > 0 && norms[i] > limit;
    if (!in_top && top > 0 && norms[i] == limit && equal > 0) {
      in_top = true;
      --equal;
    }
    // Each row of the rest as likely as the others, and exactly so many of them.
    const bool drawn =
        !in_top && rng.uniform<double>() * static_cast<double>(left) < static_cast<double>(wanted);
    if (!in_top) --left;
    if (drawn) --wanted;
    if (!in_top && !drawn) continue;
    sample.rows.push_back(static_cast<std::int32_t>(i));
    sample.factors.push_back(in_top ? 1.0f : factor);
  }
  return sample;
}

/// The u for which min(1, norm / u) adds up to \p expected; \p norms are sorted here. 0 where even
/// all rows with a norm are fewer.
template <class = void>
[[nodiscard]] inline double sampling_threshold(std::vector<double> norms, double expected) {
  std::sort(norms.begin(), norms.end());
  double below = 0;
  for (const double x : norms) below += x;
  // With the largest m rows taken for certain, the others' norms add up to u (expected - m).
  for (std::size_t m = 0; m < norms.size(); ++m) {
    const double room = expected - static_cast<double>(m);
    const double largest = norms[norms.size() - 1 - m];
    if (room <= 0) break;
    const double u = below / room;
    if (largest <= u) return u;
    below -= largest;
  }
  return 0;
}

/// Minimal variance sampling: row i with probability p_i = min(1, sqrt(g^2 + lambda h^2) / u), its
/// gradients divided by p_i; u makes the expected share `subsample`. B. Ibragimov, G. Gusev,
/// "Minimal Variance Sampling in Stochastic Gradient Boosting", NeurIPS 2019.
template <class = void>
[[nodiscard]] inline RowSample gradient_based_sample(const TrainState& state,
                                                     std::uint64_t stream) {
  const Options& o = state.options;
  RowSample sample;
  if (o.subsample >= 1) return sample;
  const std::vector<double> norms = gradient_norms(state, [&](const tree::GradientPair& p) {
    const auto g = static_cast<double>(p.g), h = static_cast<double>(p.h);
    return std::sqrt(g * g + o.reg_lambda * h * h);
  });
  const double u = sampling_threshold(norms, o.subsample * static_cast<double>(norms.size()));
  Philox rng(o.seed, "gradient sample", stream);
  for (std::size_t i = 0; i < norms.size(); ++i) {
    const double p = u > 0 ? (std::min)(1.0, norms[i] / u) : (norms[i] > 0 ? 1.0 : 0.0);
    if (!(rng.uniform<double>() < p)) continue;
    sample.rows.push_back(static_cast<std::int32_t>(i));
    sample.factors.push_back(static_cast<float>(1 / p));
  }
  if (sample.rows.empty()) return uniform_sample(o, state.train.rows(), stream);
  return sample;
}

/// The sample of a tree in round \p number; \p stream numbers the trees that sample for themselves.
template <class = void>
[[nodiscard]] inline RowSample draw_rows(const TrainState& state, std::uint64_t number,
                                         std::uint64_t stream) {
  const std::string& method = state.options.sampling_method;
  if (method == "goss") return goss_sample(state, number, stream);
  if (method == "gradient_based") return gradient_based_sample(state, stream);
  return uniform_sample(state.options, state.train.rows(), stream);
}

}  // namespace boosting::detail
QUERN_NAMESPACE_END

#endif  // QUERN_BOOSTING_SAMPLING_HPP
