// SPDX-License-Identifier: Apache-2.0

/// \file
/// XGBoost's JSON models, both ways: gbtree, dart and gblinear, numeric and categorical splits.
///
/// XGBoost compares and adds in float. Its thresholds are floats and come over as they are; ours
/// are written as the smallest float that is at least the threshold, so no float input changes
/// sides. Leaf values are rounded to float in writing, so margins agree to about 1e-7 a tree.

#ifndef QUERN_IO_XGBOOST_JSON_HPP
#define QUERN_IO_XGBOOST_JSON_HPP

#include "quern/boosting/model.hpp"
#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/core/file.hpp"
#include "quern/io/document_sinks.hpp"
#include "quern/io/xgboost_reader.hpp"
#include "quern/io/xgboost_writer.hpp"

#include <cstddef>
#include <span>
#include <string>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace io {

/// Reads a model from the text of an XGBoost JSON file (versions 1.x to 3.x; one value a
/// leaf). ParseError, naming \p source and the place (byte, JSON path, tree and node), for
/// anything that is not such a model. Memory stays within a fixed multiple of the input's size.
[[nodiscard]] inline boosting::Model xgboost_json_from_bytes(std::span<const std::byte> bytes,
                                                             const std::string& source = "model") {
  detail::XgboostReader reader(source);
  return reader.read(reader.parse(bytes), bytes.size());
}

/// Reads an XGBoost JSON file. IoError when it cannot be read, ParseError for its content.
[[nodiscard]] inline boosting::Model load_xgboost_json(const std::string& path) {
  return xgboost_json_from_bytes(read_file(path), path);
}

/// The model as XGBoost 3's JSON. ParseError for a model that fails Model::check, ValueError for
/// one that the format cannot hold (vector leaves, splits that take zeros for missing, text that is
/// not UTF-8).
[[nodiscard]] inline std::string xgboost_json_text(const boosting::Model& model) {
  return detail::XgboostWriter<detail::JsonSink>(model, "quern::io::xgboost_json_text").write();
}

/// Saves as XGBoost 3's JSON; an existing file is replaced only by a complete one. IoError.
inline void save_xgboost_json(const boosting::Model& model, const std::string& path) {
  const std::string text = xgboost_json_text(model);
  write_file_atomically(path, std::as_bytes(std::span<const char>(text.data(), text.size())));
}

}  // namespace io
QUERN_NAMESPACE_END

#endif  // QUERN_IO_XGBOOST_JSON_HPP
