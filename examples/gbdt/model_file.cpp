// SPDX-License-Identifier: Apache-2.0

#include "model_file.hpp"

#include "quern/boosting/model_io.hpp"
#include "quern/core/archive.hpp"
#include "quern/core/file.hpp"
#include "quern/io/model_formats.hpp"

#include <cerrno>
#include <cstddef>
#include <cstring>
#include <filesystem>
#include <system_error>

#include <unistd.h>

namespace gbdt {

namespace boosting = quern::boosting;

bool is_foreign_path(const std::string& path) {
  return path.ends_with(".json") || path.ends_with(".ubj") || path.ends_with(".txt");
}

void check_writable(const std::string& path) {
  std::error_code ignored;
  if (std::filesystem::is_directory(path, ignored))
    throw quern::IoError("cannot write '" + path + "': it is a directory");
  std::string folder = std::filesystem::path(path).parent_path().string();
  if (folder.empty()) folder = ".";
  if (::access(folder.c_str(), W_OK) == 0) return;
  throw quern::IoError("cannot write '" + path + "': " + std::strerror(errno));
}

namespace {

void write_meaning(quern::ArchiveWriter& out, const Meaning& meaning) {
  out.text("gbdt.label", meaning.label);
  out.texts("gbdt.classes", meaning.classes);
  out.texts("gbdt.label_texts", meaning.label_texts);
  out.array<double>("gbdt.label_values", meaning.label_values);
  out.scalar<std::int32_t>("gbdt.image_height", meaning.image_height);
  out.scalar<std::int32_t>("gbdt.image_width", meaning.image_width);
  out.scalar<std::int32_t>("gbdt.index_base", meaning.index_base);
}

Meaning read_meaning(const quern::ArchiveReader& in, const boosting::Model& model) {
  Meaning meaning;
  if (!in.has("gbdt.label")) return meaning;
  meaning.label = in.text("gbdt.label");
  meaning.classes = in.texts("gbdt.classes");
  meaning.label_texts = in.texts("gbdt.label_texts");
  meaning.label_values = in.array<double>("gbdt.label_values");
  meaning.image_height = in.scalar<std::int32_t>("gbdt.image_height");
  meaning.image_width = in.scalar<std::int32_t>("gbdt.image_width");
  meaning.index_base = in.scalar<std::int32_t>("gbdt.index_base");
  const auto count = static_cast<std::size_t>(model.outputs == 1 ? 2 : model.outputs);
  if (!meaning.classes.empty() && meaning.classes.size() != count)
    in.fail_section("gbdt.classes", std::to_string(count) + " names",
                    std::to_string(meaning.classes.size()));
  return meaning;
}

/// What XGBoost's format does not say is made up: classes are their numbers.
void name_classes(const boosting::Model& model, Meaning& meaning) {
  const bool binary = model.objective == "binary:logistic";
  const bool several = model.objective.starts_with("multi:");
  if (!meaning.classes.empty() || (!binary && !several)) return;
  const int count = binary ? 2 : model.outputs;
  for (int k = 0; k < count; ++k) meaning.classes.push_back(std::to_string(k));
}

}  // namespace

void save(const ModelFile& file, const std::string& path) {
  if (is_foreign_path(path)) return quern::io::save_model_as(file.model, path);
  quern::ArchiveWriter out(boosting::model_archive_kind, boosting::model_archive_version);
  boosting::write_model(out, file.model);
  write_meaning(out, file.meaning);
  out.save(path);
}

ModelFile load(const std::string& path) {
  const std::vector<std::byte> bytes = quern::read_file(path);
  ModelFile file;
  if (quern::io::model_format(bytes) != quern::io::ModelFormat::quern) {
    file.model = quern::io::any_model_from_bytes(bytes, path);
  } else {
    const quern::ArchiveReader in(bytes, path);
    in.expect(boosting::model_archive_kind, boosting::model_archive_version);
    file.model = boosting::read_model(in, path);
    file.meaning = read_meaning(in, file.model);
  }
  name_classes(file.model, file.meaning);
  return file;
}

double file_bytes(const std::string& path) {
  std::error_code error;
  const auto size = std::filesystem::file_size(path, error);
  return error ? 0 : static_cast<double>(size);
}

}  // namespace gbdt
