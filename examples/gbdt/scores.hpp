// SPDX-License-Identifier: Apache-2.0

/// \file
/// How good predictions are: metrics, confusion of classes.

#ifndef QUERN_EXAMPLES_GBDT_SCORES_HPP
#define QUERN_EXAMPLES_GBDT_SCORES_HPP

#include "quern/boosting/model.hpp"
#include "quern/core/nd_array.hpp"
#include "quern/tree/dataset.hpp"

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace gbdt {

struct Scores {
  std::vector<std::pair<std::string, double>> metrics;
  std::vector<std::int32_t> predicted;               ///< (rows): class, or empty
  std::vector<std::vector<std::int64_t>> confusion;  ///< [true][predicted], or empty

  /// -1 where there are no classes.
  [[nodiscard]] double accuracy() const;
};

/// Classes that the model tells apart; 0 where it predicts numbers.
[[nodiscard]] std::int32_t class_count(const quern::boosting::Model& model);

/// Class of each row from predictions (rows, outputs): the most probable one.
[[nodiscard]] std::vector<std::int32_t> classes_of(const quern::NdArray<float, 2>& predictions);

/// \p predictions: (rows, outputs), transformed.
[[nodiscard]] Scores score(const quern::boosting::Model& model, const quern::tree::Dataset& set,
                           const quern::NdArray<float, 2>& predictions);

/// "accuracy 0.9003  mlogloss 0.2876 …"
[[nodiscard]] std::string metrics_text(const Scores& scores);

/// Rows are true classes, columns what was predicted; the last column is each class's recall.
[[nodiscard]] std::string confusion_text(const Scores& scores,
                                         const std::vector<std::string>& classes);

}  // namespace gbdt

#endif  // QUERN_EXAMPLES_GBDT_SCORES_HPP
