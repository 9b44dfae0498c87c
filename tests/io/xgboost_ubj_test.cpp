// SPDX-License-Identifier: Apache-2.0

/// \file
/// XGBoost's binary models: the same models as its JSON (tests/reference/trees/make_xgboost.py),
/// byte for byte where XGBoost's own reader is particular, and files that lie.

#include "quern/io/xgboost_ubj.hpp"
#include "quern/boosting/model_io.hpp"
#include "quern/boosting/predictor.hpp"
#include "quern/core/file.hpp"
#include "quern/io/lightgbm_text.hpp"

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

namespace quern::test::xgboost_ubj {
namespace {

using boosting::Model;
using nlohmann::json;

std::string reference(const std::string& name) {
  return std::string(QUERN_TEST_REFERENCE_DIR) + "/trees/" + name;
}

std::span<const std::byte> bytes_of(std::string_view text) {
  return std::as_bytes(std::span<const char>(text.data(), text.size()));
}

json decode(std::string_view text) { return io::detail::UbjDecoder(bytes_of(text), "m").decode(); }

std::string refusal(std::string_view text) {
  try {
    (void)decode(text);
  } catch (const ParseError& error) {
    return error.what();
  }
  return "accepted";
}

/// A length as XGBoost writes it.
std::string length(std::uint64_t n) {
  std::string s = "L";
  for (int shift = 56; shift >= 0; shift -= 8) s += static_cast<char>(n >> shift & 0xff);
  return s;
}

/// Equal up to the decimals that JSON rounds a float to.
void expect_same_model(const Model& a, const Model& b) {
  EXPECT_EQ(boosting::model_to_bytes(a), boosting::model_to_bytes(b));
}

class XgboostUbjReference : public testing::TestWithParam<std::string> {};

TEST_P(XgboostUbjReference, IsTheModelOfTheJson) {
  const Model binary = io::load_xgboost_ubj(reference(GetParam() + ".ubj"));
  expect_same_model(binary, io::load_xgboost_json(reference(GetParam() + ".json")));
  expect_same_model(binary, io::load_xgboost(reference(GetParam() + ".ubj")));
  expect_same_model(binary, io::load_xgboost(reference(GetParam() + ".json")));
}

TEST_P(XgboostUbjReference, ComesBackFromOurFile) {
  const Model model = io::load_xgboost_ubj(reference(GetParam() + ".ubj"));
  const std::string ours = io::xgboost_ubj_bytes(model);
  expect_same_model(io::xgboost_ubj_from_bytes(bytes_of(ours)),
                    io::xgboost_json_from_bytes(bytes_of(io::xgboost_json_text(model))));
  // The types of arrays decide how XGBoost reads them: ours are XGBoost's.
  const std::vector<std::byte> file = read_file(reference(GetParam() + ".ubj"));
  const std::string theirs(reinterpret_cast<const char*>(file.data()), file.size());
  for (const char* key : {"base_weights",
                          "categories",
                          "categories_nodes",
                          "categories_segments",
                          "categories_sizes",
                          "default_left",
                          "left_children",
                          "loss_changes",
                          "parents",
                          "right_children",
                          "split_conditions",
                          "split_indices",
                          "split_type",
                          "sum_hessian",
                          "iteration_indptr",
                          "tree_info",
                          "trees",
                          "weight_drop",
                          "feature_segments",
                          "sorted_idx",
                          "enc",
                          "weights"}) {
    const std::string name = length(std::string_view(key).size()) + key;
    const std::size_t a = ours.find(name);
    const std::size_t b = theirs.find(name);
    ASSERT_EQ(a == std::string::npos, b == std::string::npos) << key;
    if (a == std::string::npos) continue;
    const auto head = [&](const std::string& s, std::size_t at) {
      return s.substr(at + name.size(), 4);
    };
    EXPECT_EQ(head(ours, a), head(theirs, b)) << key;
  }
}

/// Another decoder agrees.
TEST_P(XgboostUbjReference, DecodesAsNlohmannDoes) {
  const std::vector<std::byte> file = read_file(reference(GetParam() + ".ubj"));
  const std::string text(reinterpret_cast<const char*>(file.data()), file.size());
  EXPECT_EQ(decode(text), json::from_ubjson(text));
}

INSTANTIATE_TEST_SUITE_P(Xgboost, XgboostUbjReference,
                         testing::Values("xgb_reg", "xgb_reg_exact", "xgb_reg_exact_w",
                                         "xgb_approx", "xgb_bin", "xgb_bin_leafwise", "xgb_mc",
                                         "xgb_cat", "xgb_cat_onehot", "xgb_mono", "xgb_interact",
                                         "xgb_poisson", "xgb_quantile", "xgb_huber", "xgb_dart",
                                         "xgb_linear"),
                         [](const auto& model) { return model.param; });

TEST(Ubj, DecodesEveryType) {
  EXPECT_EQ(decode("Z"), nullptr);
  EXPECT_EQ(decode("T"), true);
  EXPECT_EQ(decode("F"), false);
  EXPECT_EQ(decode("i\xff"), -1);
  EXPECT_EQ(decode("U\xff"), 255);
  EXPECT_EQ(decode("I\xff\xfe"), -2);
  EXPECT_EQ(decode(std::string_view("l\0\1\0\0", 5)), 65536);
  EXPECT_EQ(decode("L\x80\x01\x02\x03\x04\x05\x06\x07"), -9223088349902469625);
  EXPECT_EQ(decode(std::string_view("d\x3f\xc0\0\0", 5)), 1.5);
  EXPECT_EQ(decode(std::string_view("D\x3f\xf8\0\0\0\0\0\0", 9)), 1.5);
  EXPECT_EQ(decode("Cx"), "x");
  EXPECT_EQ(decode("Si\3abc"), "abc");
  EXPECT_EQ(decode("[i\1TZ]"), json({1, true, nullptr}));
  EXPECT_EQ(decode("[#i\2i\1F"), json({1, false}));
  EXPECT_EQ(decode("[$U#i\3\1\2\xff"), json({1, 2, 255}));
  EXPECT_EQ(decode("{i\1aTi\1bF}"), json({{"a", true}, {"b", false}}));
  EXPECT_EQ(decode("{#i\1i\1a[]"), json({{"a", json::array()}}));
}

TEST(UbjRefuses, WhatIsNoDocument) {
  for (std::string_view text :
       {"",  "?",     "N",    "i",  "d\1\2\3", "S",   "Si\5abc",  "[",   "[i\1", "[#i\2T",
        "{", "{i\1a", "{i\1", "{i", "TT",      "[]]", "[$Ui\1\1", "[$U", "[$",   "{$T#i\1"}) {
    EXPECT_NE(refusal(text), "accepted") << text;
  }
  EXPECT_NE(refusal("Ti\1").find("m: byte 1: expected the end"), std::string::npos);
}

TEST(UbjRefuses, SizesThatTheFileDoesNotHave) {
  for (std::uint64_t n : {std::uint64_t{9}, std::uint64_t{1} << 31, std::uint64_t{1} << 61,
                          std::uint64_t{1} << 63, ~std::uint64_t{0}}) {
    EXPECT_NE(refusal("S" + length(n)), "accepted");
    EXPECT_NE(refusal("[#" + length(n)), "accepted");
    EXPECT_NE(refusal("{#" + length(n)), "accepted");
    for (const char* type : {"i", "U", "I", "l", "L", "d", "D"})
      EXPECT_NE(refusal(std::string("[$") + type + "#" + length(n)), "accepted");
  }
  // Elements that take no bytes make memory of nothing.
  for (const char* type : {"T", "F", "Z", "N", "[", "{", "S", "C"})
    EXPECT_NE(refusal(std::string("[$") + type + "#" + length(std::uint64_t{1} << 40)), "accepted");
}

TEST(UbjRefuses, DeepNesting) {
  EXPECT_EQ(refusal(std::string(32, '[') + std::string(32, ']')), "accepted");
  EXPECT_NE(refusal(std::string(33, '[') + std::string(33, ']')), "accepted");
  EXPECT_NE(refusal(std::string(1000000, '[')), "accepted");
  std::string objects;
  for (int i = 0; i < 100000; ++i) objects += "{i\1a";
  EXPECT_NE(refusal(objects), "accepted");
}

TEST(XgboostUbj, RefusesCutsAndSurvivesFlippedBits) {
  const std::vector<std::byte> good = read_file(reference("xgb_cat.ubj"));
  for (std::size_t size = 0; size < good.size(); size += 11) {
    EXPECT_THROW((void)io::xgboost_ubj_from_bytes(std::span(good).first(size)), ParseError) << size;
  }
  int refused = 0;
  for (std::size_t at = 0; at < good.size(); at += 7) {
    std::vector<std::byte> bad = good;
    bad[at] ^= static_cast<std::byte>(1u << (at % 8));
    try {
      (void)io::xgboost_ubj_from_bytes(bad);  // a changed leaf is still a model
    } catch (const ParseError&) {
      ++refused;
    }
  }
  EXPECT_GT(refused, 200);
}

TEST(XgboostUbj, NumbersThatAreNone) {
  std::vector<std::byte> bad = read_file(reference("xgb_reg.ubj"));
  const std::string text(reinterpret_cast<const char*>(bad.data()), bad.size());
  const std::size_t at = text.find("split_conditions[$d#L") + 21 + 8;
  bad[at] = std::byte{0x7f};
  bad[at + 1] = std::byte{0xc0};
  try {
    (void)io::xgboost_ubj_from_bytes(bad, "m.ubj");
    FAIL() << "accepted";
  } catch (const ParseError& error) {
    EXPECT_NE(std::string(error.what()).find("trees[0].split_conditions[0]"), std::string::npos)
        << error.what();
  }
}

/// XGBoost takes the node after a left child for the right one.
TEST(XgboostUbj, WritesSiblingsSideBySide) {
  const Model model = io::load_lightgbm_text(reference("lgb_mc.txt"));
  const Model back = io::xgboost_ubj_from_bytes(bytes_of(io::xgboost_ubj_bytes(model)));
  for (const tree::Tree& tree : back.trees) EXPECT_TRUE(io::detail::siblings_are_neighbours(tree));
  for (float x : {-2.0f, -0.5f, 0.0f, 0.7f, 3.0f}) {
    const std::vector<float> row(9, x);
    std::vector<double> a(3), b(3);
    boosting::Predictor(model).margins_of_row(std::span<const float>(row), std::span(a));
    boosting::Predictor(back).margins_of_row(std::span<const float>(row), std::span(b));
    for (std::size_t k = 0; k < 3; ++k) EXPECT_NEAR(a[k], b[k], 1e-6);
  }
}

/// XGBoost's linear booster starts all outputs from the first base score.
TEST(XgboostUbj, LinearModelsOfSeveralOutputsStartTogether) {
  Model m;
  m.objective = "multi:softprob";
  m.features = 1;
  m.outputs = 2;
  m.base_margin = {0.5, -0.25};
  m.linear_weights = {1, 2, 3, 4};
  const Model back = io::xgboost_ubj_from_bytes(bytes_of(io::xgboost_ubj_bytes(m)));
  EXPECT_EQ(back.base_margin, (std::vector<double>{0.5, 0.5}));
  EXPECT_EQ(back.linear_weights, (std::vector<double>{1, 2, 3, 3.25}));
}

/// Margins of some rows by both models are the same.
void expect_same_margins(const Model& a, const Model& b, double tolerance) {
  const auto k = static_cast<std::size_t>(a.outputs);
  ASSERT_EQ(b.outputs, a.outputs);
  for (const float x : {-2.0f, -0.5f, 0.0f, 0.7f, 3.0f}) {
    const std::vector<float> row(static_cast<std::size_t>(a.features), x);
    std::vector<double> left(k), right(k);
    boosting::Predictor(a).margins_of_row(std::span<const float>(row), std::span(left));
    boosting::Predictor(b).margins_of_row(std::span<const float>(row), std::span(right));
    for (std::size_t c = 0; c < k; ++c) EXPECT_NEAR(left[c], right[c], tolerance) << x;
  }
}

/// Two vector trees of two outputs in a round of two outputs, and dart's weights.
Model vector_model() {
  Model m;
  m.objective = "multi:softprob";
  m.features = 2;
  m.outputs = 2;
  m.base_margin = {0.5, -0.25};
  for (int t = 0; t < 4; ++t) {
    tree::Tree tree;
    tree.split(0);
    tree.node(0).feature = t % 2;
    tree.node(0).threshold = 0.5 * t - 1;
    tree.outputs = 2;
    tree.vector_values = {0, 0, 1.0 + t, -0.5, 0.25, 3.0 - t};
    m.trees.push_back(tree);
    m.tree_outputs.push_back(0);
    m.tree_weights.push_back(1 - 0.125 * t);
  }
  m.best_round = 0;
  return m;
}

TEST(XgboostUbj, VectorLeavesAreWrittenAsATreeAnOutput) {
  const Model m = vector_model();
  const Model back = io::xgboost_ubj_from_bytes(bytes_of(io::xgboost_ubj_bytes(m)));
  EXPECT_EQ(back.trees.size(), 8u);
  EXPECT_EQ(back.tree_outputs, (std::vector<std::int32_t>{0, 1, 0, 1, 0, 1, 0, 1}));
  EXPECT_EQ(back.used_rounds(), 2);  // the two trees of the best round
  expect_same_margins(m, back, 1e-6);
  expect_same_margins(m, io::lightgbm_from_text(io::lightgbm_text(m)), 1e-12);
  Model mixed = m;
  mixed.trees[1].outputs = 1;
  mixed.trees[1].vector_values.clear();
  EXPECT_THROW((void)io::xgboost_ubj_bytes(mixed), ValueError);
  EXPECT_THROW((void)io::lightgbm_text(mixed), ValueError);
}

/// To XGBoost one-vs-all is a logistic model of several targets.
TEST(XgboostUbj, OneVsAllIsSeveralLogisticTargets) {
  Model m = io::load_xgboost_ubj(reference("xgb_mc.ubj"));
  m.objective = "multi:ova";
  const std::string text = io::xgboost_json_text(m);
  EXPECT_NE(text.find("\"name\":\"binary:logistic\""), std::string::npos);
  EXPECT_NE(text.find("\"num_target\":\"3\""), std::string::npos);
  EXPECT_NE(text.find("\"num_class\":\"0\""), std::string::npos);
  const Model back = io::xgboost_ubj_from_bytes(bytes_of(io::xgboost_ubj_bytes(m)));
  EXPECT_EQ(back.objective, "multi:ova");
  expect_same_margins(m, back, 1e-6);
}

TEST(XgboostUbj, SavesAside) {
  const std::string path =
      (std::filesystem::temp_directory_path() / "quern_xgboost_ubj_test.ubj").string();
  const Model m = io::load_xgboost_ubj(reference("xgb_mc.ubj"));
  io::save_xgboost_ubj(m, path);
  EXPECT_EQ(io::xgboost_ubj_bytes(io::load_xgboost(path)), io::xgboost_ubj_bytes(m));
  std::filesystem::remove(path);
  EXPECT_THROW((void)io::load_xgboost(path), IoError);
}

TEST(XgboostUbj, RefusesWhatItCannotHold) {
  Model m = io::load_xgboost_ubj(reference("xgb_reg.ubj"));
  m.trees[1].node(0).missing = tree::MissingRule::none;
  EXPECT_NO_THROW((void)io::xgboost_ubj_bytes(m));
  m.trees[1].node(0).missing = tree::MissingRule::zero;
  m.trees[1].node(0).threshold = 0;
  EXPECT_THROW((void)io::xgboost_ubj_bytes(m), ValueError);
  EXPECT_THROW((void)io::xgboost_json_text(m), ValueError);
}

}  // namespace
}  // namespace quern::test::xgboost_ubj
