// SPDX-License-Identifier: Apache-2.0

/// \file
/// From features to bytes: cut points at quantiles, and the binned matrix that trees grow on.

#ifndef QUERN_TREE_BINNING_HPP
#define QUERN_TREE_BINNING_HPP

#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/core/parallel.hpp"
#include "quern/tree/binned_matrix.hpp"
#include "quern/tree/dataset.hpp"
#include "quern/tree/detail/bin_codes.hpp"
#include "quern/tree/detail/categories.hpp"
#include "quern/tree/detail/find_cuts.hpp"
#include "quern/tree/eigen_dataset.hpp"

#include <cstdint>
#include <string>
#include <variant>

QUERN_NAMESPACE_BEGIN
namespace tree {

struct BinOptions {
  int threads = 0;           ///< 0: the default
  bool keep_columns = true;  ///< keep the column-major copy, by which rows are routed
  bool fill_blocks = true;   ///< build the row-wise blocks; data to be evaluated alone needs none
  bool bundle = true;        ///< let exclusive features share byte columns; changes no result
};

/// Cut points of every feature of \p data: at most \p max_bin (2 .. 255) bins each, at quantiles of
/// the row weights; a feature with no more distinct values than that gets a bin for each of them
/// (see QuantileSketch for the exact choice). A row of weight 0 moves no cut. A categorical feature
/// has a bin for each category, whatever max_bin says; of more than 254 the most frequent keep one.
/// The same bits for any number of threads, storage order and, float values being equal, element
/// type. Throws ValueError for an infinite feature or no category (with row and column), a bad
/// max_bin, and what Dataset::check throws.
template <class = void>
[[nodiscard]] inline Cuts make_cuts(const Dataset& data, int max_bin = 255, int threads = 0) {
  data.check("quern::tree::make_cuts");
  if (max_bin < 2 || max_bin > 255)
    throw ValueError(error_text("quern::tree::make_cuts", "max_bin", "2..255", max_bin));
  return std::visit(
      [&](const auto& m) {
        Cuts cuts = detail::find_cuts(m, data.weights, max_bin, threads);
        detail::set_categories(m, data.feature_kinds, data.weights, threads, cuts);
        return cuts;
      },
      data.features);
}

/// Codes of \p data under given cuts (for evaluation data: the training data's). Values beyond the
/// cuts go to the first or last bin, categories that have none to the last. Columns are not kept
/// where CSR input has fewer than a quarter of its values. Throws ShapeError when the number of
/// features differs, ValueError for an infinite feature or more than 255 bins, and what
/// Dataset::check throws.
template <class = void>
[[nodiscard]] inline BinnedMatrix bin(const Dataset& data, const Cuts& cuts,
                                      const BinOptions& options = {}) {
  data.check("quern::tree::bin");
  if (data.cols() != cuts.features())
    throw ShapeError(error_text("quern::tree::bin", "features",
                                std::to_string(cuts.features()) + " columns, as the cuts have",
                                data.cols()));
  for (std::int32_t f = 0; f < cuts.features(); ++f)
    if (cuts.bins(f) < 1 || cuts.bins(f) > 255)
      throw ValueError(error_text("quern::tree::bin", "bins of feature " + std::to_string(f),
                                  "1..255", cuts.bins(f)));
  BinnedMatrix m;
  m.rows = data.rows();
  m.cuts = cuts;
  std::visit(
      [&](const auto& features) {
        const detail::BlockUse use{options.fill_blocks, options.fill_blocks && options.bundle};
        detail::bin_features(features, use, options.threads, m);
      },
      data.features);
  if (!options.keep_columns && options.fill_blocks) {
    m.columns = {};
    m.byte_columns = {};
  }
  return m;
}

/// Cuts and codes in one.
template <class = void>
[[nodiscard]] inline BinnedMatrix bin(const Dataset& data, int max_bin = 255,
                                      const BinOptions& options = {}) {
  return bin(data, make_cuts(data, max_bin, options.threads), options);
}

}  // namespace tree
QUERN_NAMESPACE_END

#endif  // QUERN_TREE_BINNING_HPP
