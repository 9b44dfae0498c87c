// SPDX-License-Identifier: Apache-2.0

/// \file
/// A few rows on their way through the programs of a forest.

#ifndef QUERN_TREE_DETAIL_SHAP_TILE_HPP
#define QUERN_TREE_DETAIL_SHAP_TILE_HPP

#include "quern/core/config.hpp"
#include "quern/core/nd_view.hpp"
#include "quern/kernels/kernels.hpp"
#include "quern/tree/dataset.hpp"
#include "quern/tree/detail/shap_forest.hpp"
#include "quern/tree/float_key.hpp"
#include "quern/tree/scratch.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <type_traits>

QUERN_NAMESPACE_BEGIN
namespace tree::detail {

/// Rows that go through one tree after the other: a tree's constants stay in the cache for them.
inline constexpr std::int64_t shap_tile_rows = 128;

/// C is the type that features are compared in.
template <class C>
class ShapTile {
 public:
  using Key = KeyOf<C>;

  /// \p pairs: rows of pairs' sums that are needed.
  ShapTile(const ShapForest& forest, Scratch& scratch, std::int64_t rows, std::int64_t pairs)
      : forest_(forest),
        rows_(rows),
        groups_((rows + kernels::shap_rows - 1) / kernels::shap_rows),
        stride_(groups_ * kernels::shap_rows) {
    const auto doubles = [](std::int64_t n) {
      return (static_cast<std::size_t>(n) * sizeof(double) + 63) / 64 * 64;
    };
    const std::size_t keys = doubles(forest.slots() * stride_);
    const std::size_t sides = doubles(forest.most_sides * kernels::shap_rows);
    const std::size_t work = doubles(forest.most_work);
    const std::size_t sums = doubles(forest.slots() * stride_);
    std::byte* memory =
        scratch.at_least(keys + sides + work + sums + doubles(pairs * kernels::shap_rows));
    keys_ = reinterpret_cast<Key*>(memory);
    sides_ = reinterpret_cast<std::int64_t*>(memory + keys);
    work_ = reinterpret_cast<double*>(memory + keys + sides);
    sums_ = reinterpret_cast<double*>(memory + keys + sides + work);
    pair_sums_ = reinterpret_cast<double*>(memory + keys + sides + work + sums);
  }

  /// Rows from `first` on of a dense matrix.
  template <class T>
  void load(const MatrixView<const T>& x, std::int64_t first) {
    for (std::int64_t slot = 0; slot < forest_.slots(); ++slot) {
      Key* keys = keys_ + slot * stride_;
      const T* from = &x(first, forest_.slot_features[static_cast<std::size_t>(slot)]);
      for (std::int64_t r = 0; r < rows_; ++r)
        keys[r] = float_key(static_cast<C>(from[r * x.row_stride()]));
      std::fill(keys + rows_, keys + stride_, kernels::missing_key<Key>);
    }
  }

  /// Rows from `first` on of a sparse matrix that was checked.
  template <class T>
  void load(const CsrView<T>& x, std::int64_t first) {
    std::fill_n(keys_, forest_.slots() * stride_, kernels::missing_key<Key>);
    for (std::int64_t r = 0; r < rows_; ++r) {
      const std::int64_t end = x.row_offsets[static_cast<std::size_t>(first + r) + 1];
      for (std::int64_t i = x.row_offsets[static_cast<std::size_t>(first + r)]; i < end; ++i) {
        const std::int32_t slot = forest_.slot_of(x.columns[static_cast<std::size_t>(i)]);
        if (slot < 0) continue;
        keys_[slot * stride_ + r] =
            float_key(static_cast<C>(x.values[static_cast<std::size_t>(i)]));
      }
    }
  }

  /// The values of output k with the first `trees` trees.
  void sum(std::int64_t k, std::int64_t trees) {
    std::fill_n(sums_, forest_.slots() * stride_, 0.0);
    for (const std::int32_t t : forest_.by_output[static_cast<std::size_t>(k)]) {
      const ShapTree& tree = forest_.programs[static_cast<std::size_t>(t)];
      if (tree.source >= trees) break;
      if (tree.step_count == 0) continue;
      const kernels::ShapProgram program = program_of(tree);
      for (std::int64_t group = 0; group < groups_; ++group) {
        find_sides(tree, group);
        double* sums = sums_ + group * forest_.slots() * kernels::shap_rows;
        QUERN_DISPATCH(tree_shap<double>(program, sides_, work_, sums));
      }
    }
  }

  /// Of one group of rows: values and interactions of output k.
  void sum_pairs(std::int64_t k, std::int64_t trees) {
    std::fill_n(sums_, forest_.slots() * stride_, 0.0);
    std::fill_n(pair_sums_, forest_.pairs.size() * std::size_t{kernels::shap_rows}, 0.0);
    for (const std::int32_t t : forest_.by_output[static_cast<std::size_t>(k)]) {
      const ShapTree& tree = forest_.programs[static_cast<std::size_t>(t)];
      if (tree.source >= trees) break;
      if (tree.step_count == 0) continue;
      find_sides(tree, 0);
      QUERN_DISPATCH(tree_shap_pairs<double>(program_of(tree), sides_, work_, sums_, pair_sums_));
    }
  }

  [[nodiscard]] double value(std::int32_t slot, std::int64_t r) const {
    const std::int64_t group = r / kernels::shap_rows;
    return sums_[(group * forest_.slots() + slot) * kernels::shap_rows + r % kernels::shap_rows];
  }

  /// The matrix of row r, all but the mean.
  void write_pairs(std::int64_t r, const NdView<double, 2>& out) const {
    for (Index f = 0; f < out.extent(0); ++f)
      for (Index g = 0; g < out.extent(1); ++g) out(f, g) = 0;
    for (std::int64_t slot = 0; slot < forest_.slots(); ++slot) {
      const Index f = forest_.slot_features[static_cast<std::size_t>(slot)];
      out(f, f) = sums_[slot * kernels::shap_rows + r];
    }
    for (std::size_t p = 0; p < forest_.pairs.size(); ++p) {
      const Index f = forest_.slot_features[static_cast<std::size_t>(forest_.pairs[p].first)];
      const Index g = forest_.slot_features[static_cast<std::size_t>(forest_.pairs[p].second)];
      const double half = pair_sums_[static_cast<std::int64_t>(p) * kernels::shap_rows + r] / 2;
      out(f, g) = half;
      out(g, f) = half;
      out(f, f) -= half;
      out(g, g) -= half;
    }
  }

 private:
  [[nodiscard]] kernels::ShapProgram program_of(const ShapTree& tree) const {
    return {forest_.steps.data() + tree.step_begin,
            tree.step_count,
            forest_.constants.data() + tree.constant_begin,
            forest_.pair_rows.data(),
            tree.points,
            tree.levels};
  }

  void find_sides(const ShapTree& tree, std::int64_t group) {
    const Key* keys = keys_ + group * kernels::shap_rows;
    const auto* tests = tests_of() + tree.test_begin;
    QUERN_DISPATCH(tree_shap_sides<Key>(tests, tree.test_count, keys, stride_, sides_));
    for (std::int64_t i = 0; i < tree.special_count; ++i) {
      const ShapSpecial& s = forest_.specials[static_cast<std::size_t>(tree.special_begin + i)];
      const Tree& original = forest_.originals[static_cast<std::size_t>(s.original)];
      const Node& n = original.node(s.node);
      for (std::int64_t r = 0; r < kernels::shap_rows; ++r) {
        const Key key = keys[s.slot * stride_ + r];
        const bool missing = key == kernels::missing_key<Key>;
        const double x = missing ? 0.0 : static_cast<double>(float_of_key<C>(key));
        sides_[s.side * kernels::shap_rows + r] = original.next(n, x, missing) == n.left ? -1 : 0;
      }
    }
  }

  [[nodiscard]] const kernels::ShapTest<Key>* tests_of() const {
    if constexpr (sizeof(C) == 8) {
      return forest_.double_tests.data();
    } else {
      return forest_.float_tests.data();
    }
  }

  const ShapForest& forest_;
  std::int64_t rows_;
  std::int64_t groups_;
  std::int64_t stride_;  // of keys: rows, filled up
  Key* keys_ = nullptr;
  std::int64_t* sides_ = nullptr;
  double* work_ = nullptr;
  double* sums_ = nullptr;  // (groups, slots, 16)
  double* pair_sums_ = nullptr;
};

}  // namespace tree::detail
QUERN_NAMESPACE_END

#endif  // QUERN_TREE_DETAIL_SHAP_TILE_HPP
