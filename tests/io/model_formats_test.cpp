// SPDX-License-Identifier: Apache-2.0

/// \file
/// Formats are told apart by content and chosen by a name's ending.

#include "quern/io/model_formats.hpp"

#include <filesystem>
#include <fstream>
#include <span>
#include <string>
#include <string_view>

#include <gtest/gtest.h>

namespace quern::test::model_formats {
namespace {

using io::ModelFormat;

ModelFormat format_of(std::string_view text) {
  return io::model_format(std::as_bytes(std::span<const char>(text.data(), text.size())));
}

std::string reference(const std::string& name) {
  return std::string(QUERN_TEST_REFERENCE_DIR) + "/trees/" + name;
}

TEST(ModelFormats, AreToldByContent) {
  EXPECT_EQ(format_of("tree\nversion=v4\n"), ModelFormat::lightgbm_text);
  EXPECT_EQ(format_of(" {\"learner\": 1, \"features_info\": 2}"), ModelFormat::xgboost_json);
  EXPECT_EQ(format_of("{\"features_info\": 2}"), ModelFormat::catboost_json);
  EXPECT_EQ(format_of("{L\0\0\0\0\0\0\0\7learner"), ModelFormat::xgboost_ubj);
  EXPECT_EQ(format_of("QUERN"), ModelFormat::quern);
  EXPECT_EQ(format_of(""), ModelFormat::quern);
  EXPECT_THROW((void)io::any_model_from_bytes({}), ParseError);
}

TEST(ModelFormats, AnyFileIsLoadedAndSaved) {
  const std::string folder = std::filesystem::temp_directory_path().string();
  for (const char* name : {"xgb_mc.json", "xgb_mc.ubj", "lgb_mc.txt", "cat_mc.json"}) {
    const boosting::Model model = io::load_any_model(reference(name));
    EXPECT_EQ(model.outputs, 3) << name;
    for (const char* ending : {".json", ".ubj", ".txt", ".quern"}) {
      const std::string path = folder + "/quern_model_formats_test" + ending;
      io::save_model_as(model, path);
      EXPECT_EQ(io::load_any_model(path).trees.size(), model.trees.size()) << name << ending;
      std::filesystem::remove(path);
    }
  }
}

}  // namespace
}  // namespace quern::test::model_formats
