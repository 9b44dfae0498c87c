// SPDX-License-Identifier: Apache-2.0

/// \file
/// Data from files of any format: rows for the learner, and what columns and labels mean.

#ifndef QUERN_EXAMPLES_GBDT_DATA_HPP
#define QUERN_EXAMPLES_GBDT_DATA_HPP

#include "settings.hpp"

#include "quern/boosting/model.hpp"
#include "quern/tree/dataset.hpp"

#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace gbdt {

/// What the training data meant beyond what the model itself holds; saved beside the model, so
/// that later files are read the same way.
struct Meaning {
  std::string label;                     ///< label column, as the command line would say it
  std::vector<std::string> classes;      ///< names of the classes; empty: the label is a number
  std::vector<std::string> label_texts;  ///< text of each class in the data, or empty
  std::vector<double> label_values;      ///< number of each class in the data, or empty
  std::int32_t image_height = 0;         ///< rows are pictures of this size; 0: they are not
  std::int32_t image_width = 0;
  std::int32_t index_base = -1;  ///< what LIBSVM's columns count from; -1: not from LIBSVM
};

/// Rows in memory. `set` looks at memory that `storage` keeps.
struct Data {
  quern::tree::Dataset set;
  Meaning meaning;
  std::string format;   ///< "csv", "libsvm", "idx", "npy"
  std::string comment;  ///< what the reader decided, for the summary
  std::int64_t unseen_categories = 0;
  std::shared_ptr<const void> storage;

  [[nodiscard]] std::int64_t rows() const { return set.rows(); }
  [[nodiscard]] bool has_labels() const { return !set.labels.empty(); }
};

/// Reads training data: columns and labels mean what the file says.
[[nodiscard]] Data read_data(const DataSettings& settings);

/// Reads data for a model: columns are matched with the model's, labels coded as in training.
[[nodiscard]] Data read_data(const DataSettings& settings, const quern::boosting::Model& model,
                             const Meaning& meaning);

/// The rows with these numbers, copied.
[[nodiscard]] Data take_rows(const Data& data, const std::vector<std::int64_t>& rows);

/// A random share of the rows, and the others: (rest, held out).
[[nodiscard]] std::pair<Data, Data> hold_out(const Data& data, double share, std::uint64_t seed);

/// The features of one row as floats; NaN is missing.
[[nodiscard]] std::vector<float> row_of(const quern::tree::Dataset& set, std::int64_t row);

}  // namespace gbdt

#endif  // QUERN_EXAMPLES_GBDT_DATA_HPP
