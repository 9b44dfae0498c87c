// SPDX-License-Identifier: Apache-2.0

/// \file
/// How margins become predictions, by an objective's name: what predicting needs to know of the
/// losses, without what training needs.

#ifndef QUERN_BOOSTING_TRANSFORM_HPP
#define QUERN_BOOSTING_TRANSFORM_HPP

#include "quern/core/config.hpp"
#include "quern/kernels/kernels.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <optional>
#include <string_view>

QUERN_NAMESPACE_BEGIN
namespace boosting {

/// What a row's margins m go through.
enum class Link : std::uint8_t {
  identity,     ///< m
  logistic,     ///< 1 / (1 + e^-m), each output
  exponential,  ///< e^m, each output
  hinge,        ///< m > 0 ? 1 : 0
  softmax,      ///< e^m_k / sum of e^m
  sorted,       ///< m by rising value: quantiles of rising levels do not cross
  argmax,       ///< one number a row: the first k of the largest m_k
};

/// The link of an XGBoost objective; none for a name that is not known.
[[nodiscard]] inline std::optional<Link> link_of(std::string_view objective) noexcept {
  const auto is = [objective](auto... names) { return ((objective == names) || ...); };
  if (is("reg:logistic", "binary:logistic", "multi:ova")) return Link::logistic;
  if (is("multi:softprob")) return Link::softmax;
  if (is("multi:softmax")) return Link::argmax;
  if (is("count:poisson", "reg:gamma", "reg:tweedie", "survival:cox", "survival:aft"))
    return Link::exponential;
  if (is("binary:hinge")) return Link::hinge;
  if (is("reg:quantileerror")) return Link::sorted;
  if (is("custom", "reg:squarederror", "reg:linear", "reg:squaredlogerror", "reg:absoluteerror",
         "reg:pseudohubererror", "binary:logitraw", "rank:pairwise", "rank:ndcg", "rank:map"))
    return Link::identity;
  return std::nullopt;
}

/// Numbers that a row's prediction has.
[[nodiscard]] inline std::int64_t link_outputs(Link link, std::int64_t outputs) noexcept {
  return link == Link::argmax ? 1 : outputs;
}

/// Turns (rows, outputs) margins, row-major, into (rows, link_outputs) predictions, in place. A
/// row's bits do not depend on the other rows.
template <class T>
void apply_link(Link link, T* margins, std::int64_t rows, std::int64_t outputs) {
  const std::int64_t size = rows * outputs;
  switch (link) {
    case Link::identity:
      break;
    case Link::logistic:
      for (std::int64_t i = 0; i < size; ++i)
        margins[i] = static_cast<T>(1 / (1 + std::exp(-static_cast<double>(margins[i]))));
      break;
    case Link::exponential:
      for (std::int64_t i = 0; i < size; ++i)
        margins[i] = static_cast<T>(std::exp(static_cast<double>(margins[i])));
      break;
    case Link::hinge:
      for (std::int64_t i = 0; i < size; ++i) margins[i] = margins[i] > 0 ? T{1} : T{0};
      break;
    case Link::sorted:
      for (std::int64_t r = 0; r < rows; ++r)
        std::sort(margins + r * outputs, margins + (r + 1) * outputs);
      break;
    case Link::softmax:
      QUERN_DISPATCH(softmax_probabilities<T>(margins, rows, outputs, margins));
      break;
    case Link::argmax:
      for (std::int64_t r = 0; r < rows; ++r) {  // row r lies at or after where its answer goes
        const T* row = margins + r * outputs;
        margins[r] = static_cast<T>(std::max_element(row, row + outputs) - row);
      }
      break;
  }
}

}  // namespace boosting
QUERN_NAMESPACE_END

#endif  // QUERN_BOOSTING_TRANSFORM_HPP
