// SPDX-License-Identifier: Apache-2.0

/// \file
/// CatBoost's models: margins that CatBoost 1.2 gave for them
/// (tests/reference/trees/make_lightgbm.py), what cannot be read, and files that lie.

#include "quern/io/catboost_json.hpp"
#include "quern/boosting/predictor.hpp"
#include "quern/io/lightgbm_text.hpp"
#include "quern/io/npy.hpp"

#include <cstddef>
#include <fstream>
#include <functional>
#include <limits>
#include <span>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

namespace quern::test::catboost_json {
namespace {

using boosting::Model;
using nlohmann::json;

std::string reference(const std::string& name) {
  return std::string(QUERN_TEST_REFERENCE_DIR) + "/trees/" + name;
}

json document(const std::string& name) {
  std::ifstream file(reference(name + ".json"));
  return json::parse(file);
}

Model parse(const std::string& text) {
  return io::catboost_json_from_bytes(
      std::as_bytes(std::span<const char>(text.data(), text.size())), "m.json");
}

void expect_margins(const Model& model, const std::string& name) {
  const auto x = io::read_npy<float, 2>(reference("Xt.npy"));
  const auto expected = io::read_npy<double>(reference(name + "_margin.npy"));
  const boosting::Predictor predictor(model);
  std::vector<double> out(expected.values.size());
  predictor.margins(MatrixView<const float>(x.data(), {x.extent(0), x.extent(1)}),
                    MatrixView<double>(out.data(), {x.extent(0), predictor.outputs()}));
  for (std::size_t i = 0; i < out.size(); ++i) EXPECT_NEAR(out[i], expected.values[i], 1e-9) << i;
}

class CatboostReference : public testing::TestWithParam<std::string> {};

TEST_P(CatboostReference, PredictsAsCatboost) {
  const Model model = io::load_catboost_json(reference(GetParam() + ".json"));
  EXPECT_EQ(model.rounds(), 6);
  for (const tree::Tree& tree : model.trees) EXPECT_TRUE(tree.symmetric);
  expect_margins(model, GetParam());
  // On to another format.
  expect_margins(io::lightgbm_from_text(io::lightgbm_text(model)), GetParam());
}

INSTANTIATE_TEST_SUITE_P(Catboost, CatboostReference,
                         testing::Values("cat_reg", "cat_bin", "cat_mc"),
                         [](const auto& model) { return model.param; });

/// One tree of two splits on two features: leaf = (x0 > 1) + 2 (x1 > 2).
json small() {
  return {{"features_info",
           {{"float_features",
             {{{"feature_index", 0},
               {"flat_feature_index", 0},
               {"feature_id", "a"},
               {"nan_value_treatment", "AsTrue"}},
              {{"feature_index", 1}, {"flat_feature_index", 1}, {"feature_id", ""}}}}}},
          {"oblivious_trees",
           {{{"leaf_values", {10, 11, 12, 13}},
             {"leaf_weights", {1, 2, 3, 4}},
             {"splits",
              {{{"border", 1.0}, {"float_feature_index", 0}, {"split_type", "FloatFeature"}},
               {{"border", 2.0}, {"float_feature_index", 1}, {"split_type", "FloatFeature"}}}}}}},
          {"scale_and_bias", {2, 0.5}}};
}

double margin(const Model& model, std::vector<float> row) {
  double out = 0;
  boosting::Predictor(model).margins_of_row(std::span<const float>(row), std::span(&out, 1));
  return out;
}

TEST(CatboostJson, SplitsAreBitsAndScaleAndBiasCount) {
  const Model m = parse(small().dump());
  constexpr float nan = std::numeric_limits<float>::quiet_NaN();
  EXPECT_EQ(margin(m, {1, 2}), 20.5);  // on the border is not above it
  EXPECT_EQ(margin(m, {1.5f, 2}), 22.5);
  EXPECT_EQ(margin(m, {1, 2.5f}), 24.5);
  EXPECT_EQ(margin(m, {1.5f, 2.5f}), 26.5);
  EXPECT_EQ(margin(m, {nan, 2}), 22.5);
  EXPECT_EQ(margin(m, {nan, nan}), 22.5);
  EXPECT_EQ(m.feature_names, (std::vector<std::string>{"a", "1"}));
  EXPECT_EQ(m.trees[0].node(0).cover, 10);
  EXPECT_EQ(m.trees[0].node(1).cover, 3);
  EXPECT_EQ(m.trees[0].node(6).cover, 4);
}

TEST(CatboostJson, AgainstFollowingTheSplits) {
  const Model m = io::load_catboost_json(reference("cat_reg.json"));
  const json d = document("cat_reg");
  for (float x : {-3.5f, -0.5f, 0.0f, 0.25f, 1.5f, 2.5f, 4.0f}) {
    double expected = d["scale_and_bias"][1][0];
    for (const json& tree : d["oblivious_trees"]) {
      std::size_t leaf = 0;
      for (std::size_t i = 0; i < tree["splits"].size(); ++i)
        leaf |= std::size_t{x > tree["splits"][i]["border"].get<float>()} << i;
      expected += tree["leaf_values"][leaf].get<double>();
    }
    EXPECT_NEAR(margin(m, std::vector<float>(9, x)), expected, 1e-12);
  }
}

std::string refusal(const std::function<void(json&)>& change, const json& whole = small()) {
  json m = whole;
  change(m);
  try {
    (void)parse(m.dump());
  } catch (const ParseError& error) {
    return error.what();
  }
  return "accepted";
}

TEST(CatboostJsonRefuses, WhatItCannotRead) {
  EXPECT_EQ(refusal([](json&) {}), "accepted");
  for (const char* other : {"categorical_features", "text_features", "embedding_features"}) {
    const std::string said = refusal([&](json& m) { m["features_info"][other] = {{{"x", 1}}}; });
    EXPECT_NE(said.find(std::string("features_info.") + other), std::string::npos) << said;
  }
  EXPECT_NE(refusal([](json& m) { m["trees"] = json::array(); }).find("symmetric"),
            std::string::npos);
  const std::string said =
      refusal([](json& m) { m["oblivious_trees"][0]["splits"][1]["split_type"] = "OnlineCtr"; });
  EXPECT_NE(said.find("m.json: oblivious_trees[0].splits[1].split_type"), std::string::npos)
      << said;
}

TEST(CatboostJsonRefuses, LiesAndDamage) {
  const auto tree = [](const char* key, const json& value) {
    return refusal([&](json& m) { m["oblivious_trees"][0][key] = value; });
  };
  EXPECT_NE(tree("leaf_values", {1, 2, 3}), "accepted");
  EXPECT_NE(tree("leaf_values", json::array()), "accepted");
  EXPECT_NE(tree("leaf_values", {1, 2, 3, nullptr}), "accepted");
  EXPECT_NE(tree("leaf_values", {1, 2, 3, "4"}), "accepted");
  EXPECT_NE(tree("leaf_weights", {1, 2}), "accepted");
  EXPECT_NE(tree("splits", {1, 2}), "accepted");
  EXPECT_NE(tree("splits", json(std::vector<int>(64, 0))), "accepted");
  EXPECT_NE(tree("splits", 7), "accepted");
  const auto split = [](const char* key, const json& value) {
    return refusal([&](json& m) { m["oblivious_trees"][0]["splits"][0][key] = value; });
  };
  EXPECT_NE(split("float_feature_index", 2), "accepted");
  EXPECT_NE(split("float_feature_index", -1), "accepted");
  EXPECT_NE(split("float_feature_index", 1e300), "accepted");
  EXPECT_NE(split("border", nullptr), "accepted");
  EXPECT_EQ(split("border", 1e300), "accepted");
  const auto feature = [](const char* key, const json& value) {
    return refusal([&](json& m) { m["features_info"]["float_features"][0][key] = value; });
  };
  EXPECT_NE(feature("feature_index", 1), "accepted");
  EXPECT_NE(feature("flat_feature_index", 1), "accepted");
  EXPECT_NE(feature("flat_feature_index", 2147483647), "accepted");
  EXPECT_NE(feature("nan_value_treatment", "AsYouLike"), "accepted");
  for (const json& scale : {json(1), json({1}), json({"x", 0}), json({1, json::array()}),
                            json({1, {1, 2}}), json({nullptr, 0})}) {
    EXPECT_NE(refusal([&](json& m) { m["scale_and_bias"] = scale; }), "accepted") << scale;
  }
  for (const char* key : {"features_info", "oblivious_trees"})
    EXPECT_NE(refusal([&](json& m) { m.erase(key); }), "accepted");
}

TEST(CatboostJsonRefuses, CutsAndFlippedBits) {
  const std::string text = document("cat_mc").dump();
  for (std::size_t size = 0; size < text.size(); size += 101)
    EXPECT_THROW((void)parse(text.substr(0, size)), ParseError) << size;
  int refused = 0;
  for (std::size_t at = 0; at < text.size(); at += 31) {
    std::string bad = text;
    bad[at] = static_cast<char>(bad[at] ^ (1 << (at % 7)));
    try {
      (void)parse(bad);
    } catch (const ParseError&) {
      ++refused;
    }
  }
  EXPECT_GT(refused, 100);
}

}  // namespace
}  // namespace quern::test::catboost_json
