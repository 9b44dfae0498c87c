// SPDX-License-Identifier: Apache-2.0

/// \file
/// Model files: quern's archive, with what labels and columns meant, or the formats of
/// XGBoost, LightGBM and CatBoost.

#ifndef QUERN_EXAMPLES_GBDT_MODEL_FILE_HPP
#define QUERN_EXAMPLES_GBDT_MODEL_FILE_HPP

#include "data.hpp"

#include "quern/boosting/model.hpp"

#include <string>

namespace gbdt {

struct ModelFile {
  quern::boosting::Model model;
  Meaning meaning;
};

/// Whether the ending of a name stands for another system's format: .json, .ubj, .txt.
[[nodiscard]] bool is_foreign_path(const std::string& path);

/// IoError unless a file can be made at \p path: better said before an hour of training.
void check_writable(const std::string& path);

/// By the name's ending: ".json" and ".ubj" are XGBoost's formats, ".txt" LightGBM's, all else
/// quern's. An existing file is
/// replaced only by a complete one.
void save(const ModelFile& file, const std::string& path);

/// By the contents. ParseError, IoError.
[[nodiscard]] ModelFile load(const std::string& path);

/// Size in bytes, 0 where there is none.
[[nodiscard]] double file_bytes(const std::string& path);

}  // namespace gbdt

#endif  // QUERN_EXAMPLES_GBDT_MODEL_FILE_HPP
