// SPDX-License-Identifier: Apache-2.0

/// \file
/// Divides rows into folds: at random, by class, by group.

#ifndef QUERN_CORE_FOLDS_HPP
#define QUERN_CORE_FOLDS_HPP

#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/core/random.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <map>
#include <numeric>
#include <span>
#include <string>
#include <vector>

QUERN_NAMESPACE_BEGIN
/// Rows that one fold tests, ascending; all others train.
using Fold = std::vector<std::int32_t>;

namespace detail {

inline void check_folds(const char* function, std::int64_t folds, std::int64_t units,
                        const char* what) {
  if (folds < 2 || folds > units)
    throw ValueError(error_text(function, "folds",
                                "2.." + std::to_string(units) + " (the " + what + ")", folds));
}

inline void sort_folds(std::vector<Fold>& folds) {
  for (Fold& fold : folds) std::sort(fold.begin(), fold.end());
}

}  // namespace detail

/// Rows that are not in a fold, ascending. ValueError for a row that is not there.
[[nodiscard]] inline std::vector<std::int32_t> other_rows(const Fold& fold, std::int64_t rows) {
  std::vector<char> in(static_cast<std::size_t>(rows), 0);
  for (const std::int32_t row : fold) {
    if (row < 0 || row >= rows)
      throw ValueError(
          error_text("quern::other_rows", "fold", "rows 0.." + std::to_string(rows - 1), row));
    in[static_cast<std::size_t>(row)] = 1;
  }
  std::vector<std::int32_t> others;
  for (std::int64_t i = 0; i < rows; ++i) {
    if (in[static_cast<std::size_t>(i)] == 0) others.push_back(static_cast<std::int32_t>(i));
  }
  return others;
}

/// Folds of equal size, give or take a row, from shuffled rows.
[[nodiscard]] inline std::vector<Fold> make_folds(std::int64_t rows, std::int64_t folds,
                                                  std::uint64_t seed = 0) {
  detail::check_folds("quern::make_folds", folds, rows, "rows");
  std::vector<std::int32_t> order(static_cast<std::size_t>(rows));
  std::iota(order.begin(), order.end(), 0);
  Philox(seed, "folds").shuffle(order);
  std::vector<Fold> out(static_cast<std::size_t>(folds));
  for (std::size_t i = 0; i < order.size(); ++i) out[i % out.size()].push_back(order[i]);
  detail::sort_folds(out);
  return out;
}

/// The same, with every label's rows spread evenly over the folds, for labels that are classes.
template <class Label>
[[nodiscard]] std::vector<Fold> make_stratified_folds(std::span<const Label> labels,
                                                      std::int64_t folds, std::uint64_t seed = 0) {
  const auto rows = static_cast<std::int64_t>(labels.size());
  detail::check_folds("quern::make_stratified_folds", folds, rows, "rows");
  std::map<Label, std::vector<std::int32_t>> by_label;
  for (std::size_t i = 0; i < labels.size(); ++i)
    by_label[labels[i]].push_back(static_cast<std::int32_t>(i));
  std::vector<Fold> out(static_cast<std::size_t>(folds));
  std::size_t next = 0;  // goes on from label to label, so that the folds stay of one size
  std::uint64_t stream = 0;
  for (auto& [label, members] : by_label) {
    Philox(seed, "stratified folds", stream++).shuffle(members);
    for (const std::int32_t row : members) out[next++ % out.size()].push_back(row);
  }
  detail::sort_folds(out);
  return out;
}

template <class Label>
[[nodiscard]] std::vector<Fold> make_stratified_folds(const std::vector<Label>& labels,
                                                      std::int64_t folds, std::uint64_t seed = 0) {
  return make_stratified_folds(std::span<const Label>(labels), folds, seed);
}

/// Folds that never part a group: shuffled groups, largest first, each to the fold with the fewest
/// rows. \p groups (rows): rows with the same number belong together.
[[nodiscard]] inline std::vector<Fold> make_grouped_folds(std::span<const std::int64_t> groups,
                                                          std::int64_t folds,
                                                          std::uint64_t seed = 0) {
  std::map<std::int64_t, std::vector<std::int32_t>> by_group;
  for (std::size_t i = 0; i < groups.size(); ++i)
    by_group[groups[i]].push_back(static_cast<std::int32_t>(i));
  detail::check_folds("quern::make_grouped_folds", folds,
                      static_cast<std::int64_t>(by_group.size()), "groups");
  std::vector<const std::vector<std::int32_t>*> order;
  for (const auto& [group, members] : by_group) order.push_back(&members);
  Philox(seed, "grouped folds").shuffle(order);
  std::stable_sort(order.begin(), order.end(),
                   [](const auto* a, const auto* b) { return a->size() > b->size(); });
  std::vector<Fold> out(static_cast<std::size_t>(folds));
  for (const auto* members : order) {
    Fold& least = *std::min_element(
        out.begin(), out.end(), [](const Fold& a, const Fold& b) { return a.size() < b.size(); });
    least.insert(least.end(), members->begin(), members->end());
  }
  detail::sort_folds(out);
  return out;
}

QUERN_NAMESPACE_END

#endif  // QUERN_CORE_FOLDS_HPP
