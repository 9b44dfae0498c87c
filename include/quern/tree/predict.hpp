// SPDX-License-Identifier: Apache-2.0

/// \file
/// Prediction with a packed forest: batches, single rows, leaves.
///
/// A row's sum starts at the base, adds its leaves in the order of the trees in double, and is
/// rounded once at the end. So batch and single row, any number of threads, any SIMD level, dense
/// and sparse input give the same bits. All functions are const and thread-safe; memory that a
/// batch needs is kept with the forest and reused, and a single row needs none.

#ifndef QUERN_TREE_PREDICT_HPP
#define QUERN_TREE_PREDICT_HPP

#include "quern/core/buffer.hpp"
#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/core/nd_view.hpp"
#include "quern/core/parallel.hpp"
#include "quern/kernels/kernels.hpp"
#include "quern/tree/dataset.hpp"
#include "quern/tree/packed_forest.hpp"
#include "quern/tree/walk.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <type_traits>
#include <variant>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace tree {

struct PredictOptions {
  std::int64_t trees = -1;  ///< only the first so many trees of the source; -1: all
  int threads = 0;          ///< 0: the default number
};

namespace detail {

/// Below this many rows walking beats visiting all nodes with mostly empty vectors.
inline constexpr std::int64_t fewest_lane_rows = 16;
/// Trees whose leaves are added in one pass over the sums.
inline constexpr std::int64_t trees_together = 8;
/// Up to so many thresholds a compare each beats looking into buckets.
inline constexpr std::int32_t fewest_bucketed = 24;

/// The type that features of type T are compared in.
template <class T, class F>
void with_compare_type(const PackedForest& forest, F&& f) {
  if constexpr (sizeof(T) == 8) {
    if (forest.compares_doubles()) return f(double{});
  }
  f(float{});
}

template <class C>
const KeyTables<KeyOf<C>>& tables_of(const PackedForest& forest) {
  if constexpr (sizeof(C) == 8) {
    return forest.double_tables;
  } else {
    return forest.float_tables;
  }
}

/// A tile of rows on its way through the trees. C is the type that features are compared in.
template <class C>
class Tile {
 public:
  using Key = KeyOf<C>;

  /// \p at_once: the source gives the keys of all slots at once (see loads_at_once()).
  Tile(const PackedForest& forest, Scratch& scratch, std::int64_t rows, bool at_once)
      : forest_(forest),
        rows_(rows),
        lanes_(rows >= fewest_lane_rows && !forest.columns.empty()),
        at_once_(at_once),
        all_keys_(at_once || !lanes_ || forest.any_walk) {
    const std::int64_t slots = all_keys_ ? (std::max)(forest.slots(), std::int64_t{1}) : 1;
    const auto key_bytes = static_cast<std::size_t>(slots * predict_tile_rows) * sizeof(Key);
    const std::size_t code_bytes =
        forest.columns.size() * static_cast<std::size_t>(predict_tile_rows);
    const auto sum_bytes =
        static_cast<std::size_t>(forest.outputs() * predict_tile_rows) * sizeof(double);
    const auto flag_bytes = static_cast<std::size_t>(forest.slots());
    std::byte* memory = scratch.at_least(sum_bytes + key_bytes + code_bytes + flag_bytes);
    sums_ = reinterpret_cast<double*>(memory);
    keys_ = reinterpret_cast<Key*>(memory + sum_bytes);
    codes_ = reinterpret_cast<std::uint8_t*>(memory + sum_bytes + key_bytes);
    missing_ = codes_ + code_bytes;
  }

  /// Whether x is read row by row: floats side by side, most of which are used.
  template <class T>
  static bool loads_at_once(const PackedForest& forest, const MatrixView<const T>& x) {
    return sizeof(T) == 4 && sizeof(C) == 4 && x.col_stride() == 1 &&
           static_cast<std::int64_t>(forest.feature_slots.size()) <= 2 * forest.slots();
  }
  template <class T>
  static bool loads_at_once(const PackedForest&, const CsrView<T>&) {
    return true;
  }

  /// Rows from `first` on of a dense matrix.
  template <class T>
  void load(const MatrixView<const T>& x, std::int64_t first) {
    if constexpr (sizeof(T) == 4 && sizeof(C) == 4) {
      if (at_once_) return load_at_once(x, first);
    }
    std::size_t column = 0;
    for (std::int64_t slot = 0; slot < forest_.slots(); ++slot) {
      Key* keys = keys_of(slot);
      const T* from = &x(first, forest_.slot_features[static_cast<std::size_t>(slot)]);
      const Index stride = x.row_stride();
      for (std::int64_t r = 0; r < rows_; ++r) {
        keys[r] = std::bit_cast<Key>(static_cast<C>(from[r * stride]));
      }
      const bool missing = QUERN_DISPATCH(tree_keys<Key>(keys, rows_, infinity_key<Key>, keys));
      if (lanes_) column = make_codes(slot, column, missing);
    }
  }

  /// Rows from `first` on of a sparse matrix; ShapeError where it is not one.
  template <class T>
  void load(const CsrView<T>& x, std::int64_t first) {
    std::fill_n(keys_, forest_.slots() * predict_tile_rows, kernels::missing_key<Key>);
    for (std::int64_t r = 0; r < rows_; ++r) {
      const std::int64_t begin = x.row_offsets[static_cast<std::size_t>(first + r)];
      const std::int64_t end = x.row_offsets[static_cast<std::size_t>(first + r) + 1];
      if (begin < 0 || end < begin || end > static_cast<std::int64_t>(x.values.size()))
        bad_csr("row_offsets", "ascending offsets into the values", end);
      for (std::int64_t i = begin; i < end; ++i) {
        const std::int32_t column = x.columns[static_cast<std::size_t>(i)];
        if (column < 0 || column >= x.cols) bad_csr("columns", "a column of the matrix", column);
        const std::int32_t slot = forest_.slot_of(column);
        if (slot < 0) continue;
        keys_[slot * predict_tile_rows + r] =
            float_key(static_cast<C>(x.values[static_cast<std::size_t>(i)]));
      }
    }
    if (!lanes_) return;
    std::size_t column = 0;
    for (std::int64_t slot = 0; slot < forest_.slots(); ++slot) {
      column = make_codes(slot, column, true);
    }
  }

  /// Room for the sums of all outputs, (outputs, predict_tile_rows).
  [[nodiscard]] double* sums() const noexcept { return sums_; }

  /// sums[r] = base of output k plus that output's leaves among the first `trees` trees.
  void sum(std::int64_t k, std::int64_t trees, double* sums) {
    std::fill_n(sums, rows_, forest_.base[static_cast<std::size_t>(k)]);
    std::array<const double*, trees_together> values{};
    std::size_t waiting = 0;  // trees whose leaves are known but not added
    for (const std::int32_t index : forest_.by_output[static_cast<std::size_t>(k)]) {
      const PackedTree& tree = forest_.packed[static_cast<std::size_t>(index)];
      if (tree.source >= trees) break;
      if (lanes_ && tree.by_codes()) {
        find_lanes(tree, leaves_.data() + waiting * predict_tile_rows);
        values[waiting++] = forest_.leaf_values.data() + tree.leaf_begin;
        if (waiting < values.size()) continue;
        add_leaves(values.data(), waiting, sums);
        waiting = 0;
        continue;
      }
      add_leaves(values.data(), waiting, sums);
      waiting = 0;
      add_walked(tree, sums);
    }
    add_leaves(values.data(), waiting, sums);
  }

  /// nodes[r * stride] = the leaf, by its number in the original tree, that row r reaches.
  void leaves(const PackedTree& tree, std::int32_t* nodes, Index stride) {
    if (tree.form == TreeForm::categories) {
      const Tree& original = forest_.originals[static_cast<std::size_t>(tree.original)];
      for (std::int64_t r = 0; r < rows_; ++r) nodes[r * stride] = follow(original, r);
    } else if (lanes_ && tree.by_codes()) {
      find_lanes(tree, leaves_.data());
      const std::int32_t* numbers = forest_.leaf_nodes.data() + tree.leaf_begin;
      for (std::int64_t r = 0; r < rows_; ++r) {
        nodes[r * stride] = numbers[leaves_[static_cast<std::size_t>(r)]];
      }
    } else {
      walk_all(tree, [&](std::int64_t r, std::uint64_t at) {
        nodes[r * stride] = forest_.walk_originals[at];
      });
    }
  }

 private:
  void load_at_once(const MatrixView<const float>& x, std::int64_t first) {
    const auto* bits = reinterpret_cast<const Key*>(x.row_data(first));
    const auto columns = static_cast<std::int64_t>(forest_.feature_slots.size());
    QUERN_DISPATCH(tree_keys_of_rows<Key>(bits, x.row_stride(), rows_, columns,
                                          forest_.feature_slots.data(), infinity_key<Key>,
                                          predict_tile_rows, keys_, missing_));
    if (!lanes_) return;
    std::size_t column = 0;
    for (std::int64_t slot = 0; slot < forest_.slots(); ++slot) {
      column = make_codes(slot, column, missing_[slot] != 0);
    }
  }

  [[noreturn]] static void bad_csr(const char* argument, const char* expected, std::int64_t got) {
    throw ShapeError(error_text("quern::tree::predict", argument, expected, got));
  }

  Key* keys_of(std::int64_t slot) const {
    return keys_ + (all_keys_ ? slot * predict_tile_rows : 0);
  }

  /// Fills the columns of a slot, which start at `column`; returns the first of the next slot.
  /// `missing`: some value may be.
  std::size_t make_codes(std::int64_t slot, std::size_t column, bool missing) {
    const Key* keys = keys_of(slot);
    for (; column < forest_.columns.size() && forest_.columns[column].slot == slot; ++column) {
      const CodeColumn& c = forest_.columns[column];
      std::uint8_t* codes = codes_ + column * predict_tile_rows;
      const Key* table =
          tables_of<C>(forest_).codes.data() + column * std::size_t{kernels::code_table_size};
      if (c.as_previous) {
        std::copy_n(codes - predict_tile_rows, predict_tile_rows, codes);
      } else {
        count_thresholds(keys, table, column, codes);
      }
      if (missing && c.missing_right)
        QUERN_DISPATCH(tree_codes_missing_right<Key>(keys, rows_, codes));
    }
    return column;
  }

  void count_thresholds(const Key* keys, const Key* table, std::size_t column,
                        std::uint8_t* codes) const {
    const CodeColumn& c = forest_.columns[column];
    if constexpr (sizeof(Key) == 4) {
      if (c.buckets.shift >= 0 && c.thresholds > fewest_bucketed) {
        const std::uint8_t* starts =
            forest_.bucket_starts.data() + column * std::size_t{kernels::code_buckets};
        QUERN_DISPATCH(tree_codes_by_buckets<Key>(keys, rows_, table, c.buckets, starts, codes));
        return;
      }
    }
    QUERN_DISPATCH(tree_codes<Key>(keys, rows_, table, c.thresholds, codes));
  }

  void find_lanes(const PackedTree& tree, std::uint8_t* leaves) const {
    if (tree.form == TreeForm::lanes) {
      const kernels::LaneNode* nodes = forest_.lane_nodes.data() + tree.lane_begin;
      QUERN_DISPATCH(tree_lanes<std::uint8_t>(codes_, predict_tile_rows, nodes, tree.lane_count,
                                              rows_, leaves));
      return;
    }
    const kernels::SplitNode* nodes = forest_.split_nodes.data() + tree.lane_begin;
    const auto levels = static_cast<std::int32_t>(tree.lane_count);
    if (tree.form == TreeForm::symmetric) {
      QUERN_DISPATCH(tree_symmetric<std::uint8_t>(codes_, nodes, levels, rows_, leaves));
    } else {
      QUERN_DISPATCH(tree_full<std::uint8_t>(codes_, nodes, levels, rows_, leaves));
    }
  }

  /// Adds the leaves of up to `trees_together` trees in order.
  void add_leaves(const double* const* values, std::size_t trees, double* sums) const {
    const std::uint8_t* at = leaves_.data();
    if (trees == std::size_t{trees_together}) {
      QUERN_DISPATCH(tree_add_leaves<double>(at, predict_tile_rows, values, rows_, sums));
      return;
    }
    for (std::size_t t = 0; t < trees; ++t, at += predict_tile_rows) {
      for (std::int64_t r = 0; r < rows_; ++r) sums[r] += values[t][at[r]];
    }
  }

  void add_walked(const PackedTree& tree, double* sums) const {
    if (tree.form == TreeForm::categories) {
      const Tree& original = forest_.originals[static_cast<std::size_t>(tree.original)];
      for (std::int64_t r = 0; r < rows_; ++r)
        sums[r] += original_value<C>(forest_, original, [this, r](std::int32_t slot) {
          return keys_[std::int64_t{slot} * predict_tile_rows + r];
        });
      return;
    }
    walk_all(tree, [&](std::int64_t r, std::uint64_t at) { sums[r] += forest_.walk_values[at]; });
  }

  template <class Reached>
  void walk_all(const PackedTree& tree, const Reached& reached) const {
    std::int64_t r = 0;
    for (; r + 8 <= rows_; r += 8) walk_rows<8>(tree, r, reached);
    for (; r < rows_; ++r) walk_rows<1>(tree, r, reached);
  }

  template <std::size_t Ways, class Reached>
  void walk_rows(const PackedTree& tree, std::int64_t r, const Reached& reached) const {
    std::array<std::uint64_t, Ways> at;
    at.fill(tree.root * node_places<Key>);
    const Key* const keys = keys_ + r;
    walk(tables_of<C>(forest_).nodes.data(), tree.depth, at,
         [keys](std::uint32_t key_at, std::size_t way) {
           const std::int64_t slot = key_at / 2;
           return key_for(key_at, keys[slot * predict_tile_rows + static_cast<std::int64_t>(way)]);
         });
    for (std::size_t way = 0; way < Ways; ++way)

      reached(r + static_cast<std::int64_t>(way), at[way] / node_places<Key>);
  }

  std::int32_t follow(const Tree& tree, std::int64_t r) const {
    return follow_tree<C>(forest_, tree, [this, r](std::int32_t slot) {
      return keys_[std::int64_t{slot} * predict_tile_rows + r];
    });
  }

  const PackedForest& forest_;
  std::int64_t rows_;
  bool lanes_;     // codes are made, trees of the lane form use them
  bool at_once_;   // the keys of all slots come at once
  bool all_keys_;  // keys of all slots are kept, not only of the one in work
  double* sums_ = nullptr;
  Key* keys_ = nullptr;
  std::uint8_t* codes_ = nullptr;
  std::uint8_t* missing_ = nullptr;  // (slots)
  alignas(64) std::array<std::uint8_t, trees_together * predict_tile_rows> leaves_;
};

inline void check_features(const char* function, std::int64_t expected, std::int64_t got) {
  if (expected == got) return;
  throw ShapeError(error_text(function, "features", std::to_string(expected) + " columns", got));
}

template <class T>
void check_source(const char* function, const MatrixView<const T>&) {
  (void)function;
}
template <class T>
void check_source(const char* function, const CsrView<T>& x) {
  if (x.columns.size() != x.values.size())
    throw ShapeError(error_text(function, "columns", std::to_string(x.values.size()) + " entries",
                                x.columns.size()));
}

/// Calls use(view) with what features lie in: a FeatureView's alternative, or the view itself, so
/// that a program compiles prediction only for what it passes.
template <class Use>
void visit_source(const FeatureView& features, const Use& use) {
  std::visit(use, features);
}
template <class T, class Use>
void visit_source(const MatrixView<T>& features, const Use& use) {
  use(MatrixView<const T>(features));
}
template <class T, class Use>
void visit_source(const CsrView<T>& features, const Use& use) {
  use(features);
}

/// Checks shapes, then calls use(tile, first row, rows) for every tile, on several threads.
template <class View, class Use>
void for_each_tile_of(const char* function, const PackedForest& forest, const View& x,
                      std::int64_t out_rows, int threads, const Use& use) {
  using Value = std::remove_cv_t<typename SourceValue<View>::type>;
  const std::int64_t rows = rows_of(x);
  check_features(function, forest.features, cols_of(x));
  check_source(function, x);
  if (out_rows != rows)
    throw ShapeError(error_text(function, "out", std::to_string(rows) + " rows", out_rows));
  with_compare_type<Value>(forest, [&](auto compare) {
    using C = decltype(compare);
    const bool at_once = Tile<C>::loads_at_once(forest, x);
    const auto block = [&](std::int64_t b) {
      const BlockRange range = block_range(rows, predict_tile_rows, b);
      const ScratchLease lease(*forest.scratch);
      Tile<C> tile(forest, lease.scratch(), range.size(), at_once);
      tile.load(x, range.begin);
      use(tile, range.begin, range.size());
    };
    parallel_for(block_count(rows, predict_tile_rows), block, threads);
  });
}
template <class Features, class Use>
void for_each_tile(const char* function, const PackedForest& forest, const Features& features,
                   std::int64_t out_rows, int threads, const Use& use) {
  visit_source(features, [&](const auto& x) {
    for_each_tile_of(function, forest, x, out_rows, threads, use);
  });
}

inline std::int64_t used_trees(const char* function, const PackedForest& forest,
                               std::int64_t trees) {
  if (trees < -1 || trees > forest.trees())
    throw ValueError(
        error_text(function, "trees", "-1 (all) or 0.." + std::to_string(forest.trees()), trees));
  return trees < 0 ? forest.trees() : trees;
}

}  // namespace detail

/// Calls use(first, rows, sums) once for every tile of rows, on several threads: sums[k *
/// predict_tile_rows + r] = base of output k + sum of the leaves that row first + r reaches in the
/// trees of output k. For what wants more done to the sums than predict() does.
template <class Features, class Use>
void predict_tiles(const char* function, const PackedForest& forest, const Features& features,
                   std::int64_t out_rows, const PredictOptions& options, const Use& use) {
  const std::int64_t trees = detail::used_trees(function, forest, options.trees);
  detail::for_each_tile(function, forest, features, out_rows, options.threads,
                        [&](auto& tile, std::int64_t first, std::int64_t rows) {
                          double* sums = tile.sums();
                          for (std::int64_t k = 0; k < forest.outputs(); ++k) {
                            tile.sum(k, trees, sums + k * detail::predict_tile_rows);
                          }
                          use(first, rows, sums);
                        });
}

/// out[r * outputs + k] = the sum of row r and output k of a tile of predict_tiles(), rounded.
template <class Out>
void gather_sums(const double* sums, std::int64_t rows, std::int64_t outputs, Out* out) {
  for (std::int64_t k = 0; k < outputs; ++k) {
    const double* of_k = sums + k * detail::predict_tile_rows;
    for (std::int64_t r = 0; r < rows; ++r) out[r * outputs + k] = static_cast<Out>(of_k[r]);
  }
}

/// out(r, k) = base of output k + sum of the leaves that row r reaches in the trees of output k.
/// \p features: (rows, forest.features), a MatrixView, CsrView or FeatureView, NaN is missing; \p
/// out: (rows, outputs), float or double, any strides. Throws ShapeError where shapes do not fit
/// and ValueError for options out of range.
template <class Features, class Out>
void predict(const PackedForest& forest, const Features& features, MatrixView<Out> out,
             const PredictOptions& options = {}) {
  static constexpr const char* function = "quern::tree::predict";
  if (out.cols() != forest.outputs())
    throw ShapeError(
        error_text(function, "out", std::to_string(forest.outputs()) + " columns", out.cols()));
  predict_tiles(function, forest, features, out.rows(), options,
                [&](std::int64_t first, std::int64_t rows, const double* sums) {
                  for (std::int64_t k = 0; k < out.cols(); ++k) {
                    const double* of_k = sums + k * detail::predict_tile_rows;
                    for (std::int64_t r = 0; r < rows; ++r)
                      out(first + r, k) = static_cast<Out>(of_k[r]);
                  }
                });
}

/// out(r, t) = number of the leaf that row r reaches in tree t. \p out: (rows, options.trees or
/// all).
template <class Features>
void predict_leaves(const PackedForest& forest, const Features& features,
                    MatrixView<std::int32_t> out, const PredictOptions& options = {}) {
  static constexpr const char* function = "quern::tree::predict_leaves";
  const std::int64_t trees = detail::used_trees(function, forest, options.trees);
  if (out.cols() != trees)
    throw ShapeError(error_text(function, "out", std::to_string(trees) + " columns", out.cols()));
  detail::for_each_tile(function, forest, features, out.rows(), options.threads,
                        [&](auto& tile, std::int64_t first, std::int64_t) {
                          for (const detail::PackedTree& tree : forest.packed) {
                            if (tree.source >= trees) break;
                            tile.leaves(tree, &out(first, tree.source), out.row_stride());
                          }
                        });
}

/// One row: the same bits as predict() with that row in a batch. \p row: (features), \p out:
/// (outputs). Allocates nothing for up to 1024 features in use.
template <class T, class Out>
void predict_one(const PackedForest& forest, std::span<const T> row, std::span<Out> out,
                 std::int64_t trees = -1) {
  static constexpr const char* function = "quern::tree::predict_one";
  const std::int64_t used = detail::used_trees(function, forest, trees);
  detail::check_features(function, forest.features, static_cast<std::int64_t>(row.size()));
  if (static_cast<std::int64_t>(out.size()) != forest.outputs())
    throw ShapeError(
        error_text(function, "out", std::to_string(forest.outputs()) + " values", out.size()));
  detail::with_compare_type<T>(forest, [&](auto compare) {
    using C = decltype(compare);
    constexpr std::size_t most = 1024;
    const std::size_t slots = forest.slot_features.size();
    if (slots <= most) {
      std::array<KeyOf<C>, 2 * most> keys;
      detail::sum_one<C>(forest, detail::tables_of<C>(forest), row.data(), keys.data(), used, out);
    } else {
      const detail::ScratchLease lease(*forest.scratch);
      auto* keys =
          reinterpret_cast<KeyOf<C>*>(lease.scratch().at_least(2 * slots * sizeof(KeyOf<C>)));
      detail::sum_one<C>(forest, detail::tables_of<C>(forest), row.data(), keys, used, out);
    }
  });
}

}  // namespace tree
QUERN_NAMESPACE_END

#endif  // QUERN_TREE_PREDICT_HPP
