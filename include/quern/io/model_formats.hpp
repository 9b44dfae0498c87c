// SPDX-License-Identifier: Apache-2.0

/// \file
/// Models of any format, told apart by their content, and saved by the ending of a name.

#ifndef QUERN_IO_MODEL_FORMATS_HPP
#define QUERN_IO_MODEL_FORMATS_HPP

#include "quern/boosting/model.hpp"
#include "quern/boosting/model_io.hpp"
#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/core/file.hpp"
#include "quern/io/catboost_json.hpp"
#include "quern/io/lightgbm_text.hpp"
#include "quern/io/xgboost_json.hpp"
#include "quern/io/xgboost_ubj.hpp"

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>

QUERN_NAMESPACE_BEGIN
namespace io {

enum class ModelFormat : std::uint8_t {
  quern,          ///< the archive of boosting::save_model: every bit comes back
  xgboost_json,   ///< read and written
  xgboost_ubj,    ///< read and written
  lightgbm_text,  ///< read and written
  catboost_json,  ///< read
};

/// What the bytes look like; quern's archive where they look like nothing else. The reader of that
/// format has the last word.
[[nodiscard]] inline ModelFormat model_format(std::span<const std::byte> bytes) {
  const std::string_view text(reinterpret_cast<const char*>(bytes.data()), bytes.size());
  if (text.starts_with("tree\n") || text.starts_with("tree\r\n")) return ModelFormat::lightgbm_text;
  if (detail::is_ubj(bytes)) return ModelFormat::xgboost_ubj;
  const std::size_t first = text.find_first_not_of(" \t\r\n");
  if (first == std::string_view::npos || text[first] != '{') return ModelFormat::quern;
  const bool catboost = text.find("\"features_info\"") != std::string_view::npos &&
                        text.find("\"learner\"") == std::string_view::npos;
  return catboost ? ModelFormat::catboost_json : ModelFormat::xgboost_json;
}

/// A model from the bytes of a file of any format. ParseError naming \p source and the place.
[[nodiscard]] inline boosting::Model any_model_from_bytes(std::span<const std::byte> bytes,
                                                          const std::string& source = "model") {
  switch (model_format(bytes)) {
    case ModelFormat::lightgbm_text:
      return lightgbm_from_text({reinterpret_cast<const char*>(bytes.data()), bytes.size()},
                                source);
    case ModelFormat::xgboost_ubj:
      return xgboost_ubj_from_bytes(bytes, source);
    case ModelFormat::xgboost_json:
      return xgboost_json_from_bytes(bytes, source);
    case ModelFormat::catboost_json:
      return catboost_json_from_bytes(bytes, source);
    case ModelFormat::quern:
      break;
  }
  return boosting::model_from_bytes(bytes, source);
}

/// Loads a model of any format. IoError when the file cannot be read, ParseError for its content.
[[nodiscard]] inline boosting::Model load_any_model(const std::string& path) {
  return any_model_from_bytes(read_file(path), path);
}

/// Saves by the name's ending: ".json" and ".ubj" are XGBoost's formats, ".txt" LightGBM's, all
/// else quern's own. Errors as of the writer of that format.
inline void save_model_as(const boosting::Model& model, const std::string& path) {
  const std::string_view name = path;
  if (name.ends_with(".json")) return save_xgboost_json(model, path);
  if (name.ends_with(".ubj")) return save_xgboost_ubj(model, path);
  if (name.ends_with(".txt")) return save_lightgbm_text(model, path);
  boosting::save_model(model, path);
}

}  // namespace io
QUERN_NAMESPACE_END

#endif  // QUERN_IO_MODEL_FORMATS_HPP
