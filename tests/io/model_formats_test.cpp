// SPDX-License-Identifier: Apache-2.0

/// \file
/// Formats are told apart by content and chosen by a name's ending.

#include "quern/io/model_formats.hpp"
#include "../boosting/reference.hpp"
#include "quern/boosting/predictor.hpp"

#include <cmath>
#include <cstddef>
#include <filesystem>
#include <fstream>
#include <span>
#include <string>
#include <string_view>
#include <vector>

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

/// Predictions, after the objective's transformation, of every model that has them.
TEST(ModelFormats, PredictionsAreTheMakers) {
  const ReferenceText stored("stored.txt");
  int compared = 0;
  for (const auto& entry : std::filesystem::directory_iterator(reference(""))) {
    const std::string name = entry.path().stem().string(), ending = entry.path().extension();
    if ((ending != ".json" && ending != ".txt") || !stored.has(name + ".pred")) continue;
    SCOPED_TRACE(name);
    const boosting::Predictor predictor(io::load_any_model(entry.path().string()));
    std::vector<float> x = reference_npy<float>("Xt");
    if (name.starts_with("xgb_cat")) x[2 * 9 + 8] = 11;
    const std::vector<double> wide(x.begin(), x.end());
    const std::vector<double>& expected = stored[name + ".pred"];
    std::vector<float> got(expected.size());
    if (name.starts_with("lgb"))
      predictor.predict(std::span<const double>(wide), 64, std::span<float>(got));
    else
      predictor.predict(std::span<const float>(x), 64, std::span<float>(got));
    for (std::size_t i = 0; i < got.size(); ++i)
      ASSERT_NEAR(static_cast<double>(got[i]), expected[i], 2e-6 * (1 + std::fabs(expected[i])))
          << i;
    ++compared;
  }
  EXPECT_EQ(compared, 25);
}

}  // namespace
}  // namespace quern::test::model_formats
