// SPDX-License-Identifier: Apache-2.0

/// \file
/// Quantile cuts of all features: groups of features run through their sketches' passes together,
/// so that a cache line of a row-major matrix is read once a pass.

#ifndef QUERN_TREE_DETAIL_FIND_CUTS_HPP
#define QUERN_TREE_DETAIL_FIND_CUTS_HPP

#include "quern/core/buffer.hpp"
#include "quern/core/config.hpp"
#include "quern/core/parallel.hpp"
#include "quern/tree/binned_matrix.hpp"
#include "quern/tree/dataset.hpp"
#include "quern/tree/detail/key_tiles.hpp"
#include "quern/tree/float_key.hpp"
#include "quern/tree/quantile_sketch.hpp"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace tree::detail {

/// Row weights as integers: a power-of-two multiple that keeps the sum of all below 2^52, rounded;
/// a positive weight counts at least 1. Depends on the number of rows and the largest weight only.
class IntegerWeights {
 public:
  IntegerWeights(const std::vector<float>& weights, std::int64_t rows) : weights_(weights) {
    float largest = 0;
    for (const float w : weights) largest = (std::max)(largest, w);
    int exponent = 0;
    std::frexp(largest, &exponent);
    const int row_bits = static_cast<int>(std::bit_width(static_cast<std::uint64_t>(rows)));
    shift_ = 52 - row_bits - exponent;
  }
  std::uint64_t operator[](std::int64_t row) const {
    const float w = weights_[static_cast<std::size_t>(row)];
    if (!(w > 0)) return 0;
    const double scaled = std::ldexp(static_cast<double>(w), shift_) + 0.5;
    return (std::max)(static_cast<std::uint64_t>(scaled), std::uint64_t{1});
  }

 private:
  const std::vector<float>& weights_;
  int shift_ = 0;
};

template <class T>
struct FeatureCuts {
  std::vector<T> values;
  bool missing = false;
};

template <class T>
Cuts join_cuts(const std::vector<FeatureCuts<T>>& features) {
  Cuts cuts;
  for (const FeatureCuts<T>& f : features) {
    cuts.values.insert(cuts.values.end(), f.values.begin(), f.values.end());
    cuts.offsets.push_back(static_cast<std::int64_t>(cuts.values.size()));
    cuts.has_missing.push_back(f.missing ? 1 : 0);
  }
  return cuts;
}

template <class T, class Sketch>
void finish_cuts(const Sketch& sketch, const KeySummary<KeyOf<T>>& summary, FeatureCuts<T>& out) {
  for (const KeyOf<T> key : sketch.cuts()) out.values.push_back(float_of_key<T>(key));
  out.missing = summary.missing;
}

/// Features [first, first + count) of a dense matrix; scratch is kept by worker.
template <class T, class Count>
class DenseCutFinder {
 public:
  using Key = KeyOf<T>;

  void run(const MatrixView<const T>& m, const IntegerWeights* weights, int max_bin,
           std::int64_t first, std::int64_t count, FeatureCuts<T>* out) {
    const auto size = static_cast<std::size_t>(count);
    if (sketches_.size() < size) sketches_.resize(size);
    keys_.reset(size * static_cast<std::size_t>(tile_stride));
    weights_.reset(weights == nullptr ? 0 : static_cast<std::size_t>(tile_rows));
    summaries_.assign(size, {});
    active_.assign(size, 1);
    for (std::size_t j = 0; j < size; ++j) sketches_[j].reset(max_bin, m.rows());
    for (bool again = true; again;) {
      pass(m, weights, first, count);
      again = false;
      for (std::size_t j = 0; j < size; ++j) {
        active_[j] = active_[j] && sketches_[j].advance();
        again |= active_[j] != 0;
      }
    }
    for (std::size_t j = 0; j < size; ++j) finish_cuts<T>(sketches_[j], summaries_[j], out[j]);
  }

 private:
  void pass(const MatrixView<const T>& m, const IntegerWeights* weights, std::int64_t first,
            std::int64_t count) {
    for (std::int64_t tile = 0; tile < block_count(m.rows(), tile_rows); ++tile) {
      const BlockRange rows = block_range(m.rows(), tile_rows, tile);
      load_keys(m, rows, first, count, keys_.data(), summaries_.data());
      for (std::int64_t i = 0; weights != nullptr && i < rows.size(); ++i)
        weights_[static_cast<std::size_t>(i)] = static_cast<Count>((*weights)[rows.begin + i]);
      for (std::int64_t j = 0; j < count; ++j) {
        const auto at = static_cast<std::size_t>(j);
        const Key* const keys = keys_.data() + j * tile_stride;
        if (summaries_[at].infinite)
          throw_infinite_in<T>("quern::tree::make_cuts", keys, rows, first + j);
        if (active_[at])
          sketches_[at].add(keys, weights == nullptr ? nullptr : weights_.data(), rows.size(),
                            summaries_[at].bits);
      }
    }
  }

  std::vector<QuantileSketch<Key, Count>> sketches_;
  core::Buffer<Key> keys_;
  core::Buffer<Count> weights_;
  std::vector<KeySummary<Key>> summaries_;
  std::vector<std::uint8_t> active_;
};

template <class Count, class T>
Cuts find_cuts_with(const MatrixView<const T>& m, const IntegerWeights* weights, int max_bin,
                    int threads) {
  const std::int64_t cols = m.cols();
  const int workers = worker_count(threads);
  // Narrow matrices are shared out too; every feature is found alone, so groups change nothing.
  const std::int64_t share = (std::max)(block_count(cols, workers), std::int64_t{4});
  const std::int64_t width = (std::min)(share, tile_features<T>);
  std::vector<FeatureCuts<T>> found(static_cast<std::size_t>(cols));
  std::vector<DenseCutFinder<T, Count>> finders(static_cast<std::size_t>(workers));
  parallel_for(
      block_count(cols, width),
      [&](std::int64_t task) {
        const BlockRange group = block_range(cols, width, task);
        finders[static_cast<std::size_t>(this_worker())].run(
            m, weights, max_bin, group.begin, group.size(), found.data() + group.begin);
      },
      threads);
  return join_cuts(found);
}

/// One group of CSR columns, gathered.
template <class T>
struct GatheredColumns {
  std::vector<std::int64_t> offsets;  ///< (columns + 1)
  core::Buffer<KeyOf<T>> keys;
  core::Buffer<std::int32_t> rows;  ///< only with weights
};

/// Gathers columns in a few slices of rows at once, each slice into a range of its own: what counts
/// afterwards is which keys a column has, not their order.
template <class T>
void gather_columns(const CsrView<T>& m, BlockRange columns, bool with_rows, int threads,
                    GatheredColumns<T>& out) {
  const auto total = static_cast<std::size_t>(out.offsets.back());
  const auto width = static_cast<std::size_t>(columns.size());
  out.keys.reset(total);
  out.rows.reset(with_rows ? total : 0);
  const std::int64_t slices =
      (std::min)(static_cast<std::int64_t>(worker_count(threads)), m.rows() / tile_rows + 1);
  std::vector<std::vector<std::int64_t>> next(static_cast<std::size_t>(slices));
  const auto for_each = [&](std::int64_t slice, auto&& fn) {
    const std::int64_t end_row = m.rows() * (slice + 1) / slices;
    for (std::int64_t row = m.rows() * slice / slices; row < end_row; ++row) {
      const auto begin = static_cast<std::size_t>(m.row_offsets[static_cast<std::size_t>(row)]);
      const auto end = static_cast<std::size_t>(m.row_offsets[static_cast<std::size_t>(row) + 1]);
      for (std::size_t i = begin; i < end; ++i) {
        const std::int64_t column = m.columns[i];
        if (column < columns.begin || column >= columns.end) continue;
        fn(row, static_cast<std::size_t>(column - columns.begin), i);
      }
    }
  };
  if (slices > 1) {
    parallel_for(
        slices,
        [&](std::int64_t s) {
          auto& mine = next[static_cast<std::size_t>(s)];
          mine.assign(width, 0);
          for_each(s, [&](std::int64_t, std::size_t j, std::size_t) { ++mine[j]; });
        },
        threads);
  } else {
    next[0].assign(width, 0);
  }
  for (std::size_t j = 0; j < width; ++j) {
    std::int64_t at = out.offsets[j];
    for (auto& slice : next) at += std::exchange(slice[j], at);
  }
  parallel_for(
      slices,
      [&](std::int64_t s) {
        for_each(s, [&](std::int64_t row, std::size_t j, std::size_t i) {
          const auto at = static_cast<std::size_t>(next[static_cast<std::size_t>(s)][j]++);
          out.keys[at] = float_key(m.values[i]);
          if (out.keys[at] == infinity_key<KeyOf<T>> || out.keys[at] == -infinity_key<KeyOf<T>>)
            throw_infinite("quern::tree::make_cuts", row,
                           columns.begin + static_cast<std::int64_t>(j));
          if (with_rows) out.rows[at] = static_cast<std::int32_t>(row);
        });
      },
      threads);
}

/// Cuts of one gathered column of \p rows_in_data rows.
template <class T, class Count>
void cut_column(const KeyOf<T>* keys, const std::int32_t* rows, std::int64_t size,
                std::int64_t rows_in_data, const IntegerWeights* weights, int max_bin,
                FeatureCuts<T>& out) {
  KeySummary<KeyOf<T>> summary;
  if (size > 0 && std::all_of(keys, keys + size, [&](KeyOf<T> k) { return k == keys[0]; })) {
    // One value, as in one-hot columns: no cut, and no counters to clear and scan.
    summarize<T>(keys[0], summary);
    out.missing = summary.missing || size < rows_in_data;
    return;
  }
  std::vector<Count> scaled(weights == nullptr ? 0 : static_cast<std::size_t>(size));
  for (std::int64_t i = 0; i < size; ++i) {
    summarize<T>(keys[i], summary);
    if (weights != nullptr)
      scaled[static_cast<std::size_t>(i)] = static_cast<Count>((*weights)[rows[i]]);
  }
  QuantileSketch<KeyOf<T>, Count> sketch(max_bin, size);
  do {
    sketch.add(keys, weights == nullptr ? nullptr : scaled.data(), size, summary.bits);
  } while (sketch.advance());
  summary.missing |= size < rows_in_data;
  finish_cuts<T>(sketch, summary, out);
}

/// CSR columns are gathered in groups of limited size and handled one by one.
template <class Count, class T>
Cuts find_cuts_with(const CsrView<T>& m, const IntegerWeights* weights, int max_bin, int threads) {
  const auto stored = static_cast<std::int64_t>(m.values.size());
  const std::int64_t budget = (std::max)(std::int64_t{1} << 22, stored / 16);
  std::vector<std::int64_t> sizes(static_cast<std::size_t>(m.cols), 0);
  for (const std::int32_t column : m.columns) ++sizes[static_cast<std::size_t>(column)];
  std::vector<FeatureCuts<T>> found(static_cast<std::size_t>(m.cols));
  for (std::int64_t first = 0; first < m.cols;) {
    GatheredColumns<T> group;
    group.offsets.push_back(0);
    std::int64_t end = first;
    while (end < m.cols) {
      const std::int64_t size = sizes[static_cast<std::size_t>(end)];
      if (end > first && group.offsets.back() + size > budget) break;
      group.offsets.push_back(group.offsets.back() + size);
      ++end;
    }
    gather_columns(m, {first, end}, weights != nullptr, threads, group);
    parallel_for(
        end - first,
        [&](std::int64_t j) {
          const std::int64_t from = group.offsets[static_cast<std::size_t>(j)];
          const std::int64_t to = group.offsets[static_cast<std::size_t>(j) + 1];
          cut_column<T, Count>(
              group.keys.data() + from, weights == nullptr ? nullptr : group.rows.data() + from,
              to - from, m.rows(), weights, max_bin, found[static_cast<std::size_t>(first + j)]);
        },
        threads);
    first = end;
  }
  return join_cuts(found);
}

template <class Features>
Cuts find_cuts(const Features& m, const std::vector<float>& weights, int max_bin, int threads) {
  const std::int64_t rows = rows_of(m);
  if (!weights.empty()) {
    const IntegerWeights scaled(weights, rows);
    return find_cuts_with<std::uint64_t>(m, &scaled, max_bin, threads);
  }
  if (rows < std::int64_t{1} << 32)
    return find_cuts_with<std::uint32_t>(m, nullptr, max_bin, threads);
  return find_cuts_with<std::uint64_t>(m, nullptr, max_bin, threads);
}

}  // namespace tree::detail
QUERN_NAMESPACE_END

#endif  // QUERN_TREE_DETAIL_FIND_CUTS_HPP
