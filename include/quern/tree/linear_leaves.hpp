// SPDX-License-Identifier: Apache-2.0

/// \file
/// Leaves that hold a linear function of the row instead of a constant.

#ifndef QUERN_TREE_LINEAR_LEAVES_HPP
#define QUERN_TREE_LINEAR_LEAVES_HPP

#include "quern/core/checks.hpp"
#include "quern/core/config.hpp"
#include "quern/core/error.hpp"

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace tree {

/// Linear functions by node: value(x) = constants[node] + sum of coefficients[i] x[features[i]]
/// for i in [offsets[node], offsets[node + 1]). A row that misses one of these features gets
/// Node::value instead (LightGBM's rule). Only the leaves' entries are looked at.
struct LinearLeaves {
  std::vector<std::int64_t> offsets;   ///< (nodes + 1) ascending from 0, or empty: no linear leaves
  std::vector<std::int32_t> features;  ///< (terms) columns
  std::vector<double> coefficients;    ///< (terms)
  std::vector<double> constants;       ///< (nodes)

  [[nodiscard]] bool empty() const noexcept { return offsets.empty(); }
  [[nodiscard]] std::int64_t terms() const noexcept {
    return static_cast<std::int64_t>(features.size());
  }

  /// What node \p i gives for a row. value_at(feature, &missing) is the row's value, as double;
  /// \p fallback: Node::value.
  template <class ValueAt>
  [[nodiscard]] double value(std::int32_t i, double fallback, const ValueAt& value_at) const {
    const auto node = static_cast<std::size_t>(i);
    double sum = constants[node];
    for (std::int64_t at = offsets[node]; at < offsets[node + 1]; ++at) {
      bool missing = false;
      const double x = value_at(features[static_cast<std::size_t>(at)], missing);
      if (missing) return fallback;
      sum += coefficients[static_cast<std::size_t>(at)] * x;
    }
    return sum;
  }

  /// Throws ParseError unless the parts fit a tree of \p nodes nodes over \p columns features.
  void check(std::size_t nodes, std::int64_t columns, const std::string& where) const;
};

inline void LinearLeaves::check(std::size_t nodes, std::int64_t columns,
                                const std::string& where) const {
  const auto fail = [&](const char* field, const std::string& expected, auto got) {
    throw ParseError(error_text(where, std::string("linear ") + field, expected, got));
  };
  const std::size_t expected = empty() ? 0 : nodes;
  if (!empty() && offsets.size() != nodes + 1)
    fail("offsets", std::to_string(nodes + 1) + " entries", offsets.size());
  if (constants.size() != expected)
    fail("constants", std::to_string(expected) + " entries", constants.size());
  if (coefficients.size() != features.size())
    fail("coefficients", std::to_string(features.size()) + " entries", coefficients.size());
  if ((empty() ? 0 : offsets.back()) != terms() || (!empty() && offsets.front() != 0))
    fail("offsets", "0 first and " + std::to_string(terms()) + " last",
         empty() ? 0 : offsets.back());
  for (std::size_t i = 1; i < offsets.size(); ++i) {
    if (offsets[i] < offsets[i - 1]) fail("offsets", "ascending numbers", offsets[i]);
  }
  for (const std::int32_t f : features) {
    if (f < 0 || f >= columns) fail("feature", "a column of the model", f);
  }
  for (const double c : coefficients) {
    if (!is_finite_bits(c)) fail("coefficient", "a finite number", c);
  }
  for (const double c : constants) {
    if (!is_finite_bits(c)) fail("constant", "a finite number", c);
  }
}

}  // namespace tree
QUERN_NAMESPACE_END

#endif  // QUERN_TREE_LINEAR_LEAVES_HPP
