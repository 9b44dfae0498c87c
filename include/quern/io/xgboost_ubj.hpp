// SPDX-License-Identifier: Apache-2.0

/// \file
/// XGBoost's binary models (UBJ, its default format since 2.1), both ways: the same document as
/// xgboost_json.hpp, so the same things can be said and the same are refused.

#ifndef QUERN_IO_XGBOOST_UBJ_HPP
#define QUERN_IO_XGBOOST_UBJ_HPP

#include "quern/boosting/model.hpp"
#include "quern/core/config.hpp"
#include "quern/core/file.hpp"
#include "quern/io/document_sinks.hpp"
#include "quern/io/ubj.hpp"
#include "quern/io/xgboost_json.hpp"
#include "quern/io/xgboost_reader.hpp"
#include "quern/io/xgboost_writer.hpp"

#include <cstddef>
#include <span>
#include <string>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace io {

/// Reads a model from the bytes of an XGBoost UBJ file. ParseError, naming \p source and the place
/// (byte, path, tree and node), for anything that is not such a model.
[[nodiscard]] inline boosting::Model xgboost_ubj_from_bytes(std::span<const std::byte> bytes,
                                                            const std::string& source = "model") {
  return detail::XgboostReader(source).read(detail::UbjDecoder(bytes, source).decode(),
                                            bytes.size());
}

/// Reads a model from the bytes of an XGBoost file of either form, told apart by its content.
[[nodiscard]] inline boosting::Model xgboost_from_bytes(std::span<const std::byte> bytes,
                                                        const std::string& source = "model") {
  return detail::is_ubj(bytes) ? xgboost_ubj_from_bytes(bytes, source)
                               : xgboost_json_from_bytes(bytes, source);
}

/// Reads an XGBoost UBJ file. IoError when it cannot be read, ParseError for its content.
[[nodiscard]] inline boosting::Model load_xgboost_ubj(const std::string& path) {
  return xgboost_ubj_from_bytes(read_file(path), path);
}

/// Reads an XGBoost file, JSON or UBJ: its content tells, not its name.
[[nodiscard]] inline boosting::Model load_xgboost(const std::string& path) {
  return xgboost_from_bytes(read_file(path), path);
}

/// The model as the bytes of XGBoost 3's UBJ; errors as xgboost_json_text().
[[nodiscard]] inline std::string xgboost_ubj_bytes(const boosting::Model& model) {
  return detail::XgboostWriter<detail::UbjSink>(model, "quern::io::xgboost_ubj_bytes").write();
}

/// Saves as XGBoost 3's UBJ; an existing file is replaced only by a complete one. IoError.
inline void save_xgboost_ubj(const boosting::Model& model, const std::string& path) {
  const std::string bytes = xgboost_ubj_bytes(model);
  write_file_atomically(path, std::as_bytes(std::span<const char>(bytes.data(), bytes.size())));
}

}  // namespace io
QUERN_NAMESPACE_END

#endif  // QUERN_IO_XGBOOST_UBJ_HPP
