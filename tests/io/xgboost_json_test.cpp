// SPDX-License-Identifier: Apache-2.0

/// \file
/// XGBoost's models: margins, leaves and importances that XGBoost 3.2 gave for them
/// (tests/reference/trees/make_xgboost.py), back and forth, and files that lie.

#include "quern/io/xgboost_json.hpp"
#include "quern/boosting/importance.hpp"
#include "quern/boosting/predictor.hpp"
#include "quern/io/npy.hpp"

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <fstream>
#include <functional>
#include <span>
#include <sstream>
#include <string>
#include <string_view>
#include <vector>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

namespace quern::test::xgboost_json {
namespace {

using boosting::Model;
using nlohmann::json;

std::string reference(const std::string& name) {
  return std::string(QUERN_TEST_REFERENCE_DIR) + "/trees/" + name;
}

Model parse(const std::string& text) {
  return io::xgboost_json_from_bytes(std::as_bytes(std::span<const char>(text.data(), text.size())),
                                     "m.json");
}

json document(const std::string& name) {
  std::ifstream file(reference(name + ".json"));
  return json::parse(file);
}

class XgboostJsonReference : public testing::TestWithParam<std::string> {
 protected:
  /// The rows that XGBoost predicted.
  [[nodiscard]] NdArray<float, 2> rows() const {
    const bool ranking = GetParam().starts_with("xgb_rank");
    NdArray<float, 2> x = io::read_npy<float, 2>(reference(ranking ? "rank_X.npy" : "Xt.npy"));
    if (GetParam().starts_with("xgb_cat")) x(2, x.extent(1) - 1) = 11;
    return x;
  }

  void expect_predictions(const Model& model, double tolerance) const {
    const NdArray<float, 2> x = rows();
    const boosting::Predictor predictor(model);
    const tree::FeatureView features =
        MatrixView<const float>(x.data(), {x.extent(0), x.extent(1)});
    const auto margin = io::read_npy<float>(reference(GetParam() + "_margin.npy"));
    std::vector<float> out(margin.values.size());
    predictor.margins(features, MatrixView<float>(out.data(), {x.extent(0), predictor.outputs()}));
    for (std::size_t i = 0; i < out.size(); ++i) {
      EXPECT_NEAR(out[i], static_cast<float>(margin.values[i]), tolerance) << i;
    }
    if (!std::filesystem::exists(reference(GetParam() + "_leaf.npy"))) return;
    const auto leaf = io::read_npy<float>(reference(GetParam() + "_leaf.npy"));
    std::vector<std::int32_t> leaves(leaf.values.size());
    predictor.leaves(
        features, MatrixView<std::int32_t>(leaves.data(),
                                           {x.extent(0), static_cast<Index>(model.trees.size())}));
    for (std::size_t i = 0; i < leaves.size(); ++i) {
      EXPECT_EQ(static_cast<float>(leaves[i]), static_cast<float>(leaf.values[i])) << i;
    }
  }
};

TEST_P(XgboostJsonReference, PredictsAsXgboost) {
  expect_predictions(io::load_xgboost_json(reference(GetParam() + ".json")), 1e-5);
}

TEST_P(XgboostJsonReference, ComesBackFromOurFile) {
  const Model model = io::load_xgboost_json(reference(GetParam() + ".json"));
  const std::string text = io::xgboost_json_text(model);
  expect_predictions(parse(text), 1e-5);
  // Trees come back number for number.
  const json ours = json::parse(text);
  const json theirs = document(GetParam());
  const auto trees = [](const json& m) {
    const json& booster = m["learner"]["gradient_booster"];
    if (booster["name"] == "gblinear") return json::array();
    return (booster.contains("gbtree") ? booster["gbtree"] : booster)["model"]["trees"];
  };
  const json our_trees = trees(ours);
  const json their_trees = trees(theirs);
  for (const char* key : {"left_children", "right_children", "sum_hessian", "loss_changes",
                          "split_type", "categories", "categories_nodes", "categories_sizes"}) {
    for (std::size_t t = 0; t < their_trees.size(); ++t) {
      const json& a = our_trees[t][key];
      const json& b = their_trees[t][key];
      ASSERT_EQ(a.size(), b.size());
      if (their_trees[t]["tree_param"]["num_deleted"] != "0") continue;
      for (std::size_t i = 0; i < a.size(); ++i) {
        ASSERT_EQ(a[i].get<float>(), b[i].get<float>()) << key << " " << t << " " << i;
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Xgboost, XgboostJsonReference,
                         testing::Values("xgb_reg", "xgb_reg_exact", "xgb_reg_exact_w",
                                         "xgb_approx", "xgb_bin", "xgb_bin_leafwise", "xgb_mc",
                                         "xgb_cat", "xgb_cat_onehot", "xgb_mono", "xgb_interact",
                                         "xgb_poisson", "xgb_quantile", "xgb_huber", "xgb_dart",
                                         "xgb_rank_ndcg", "xgb_rank_pairwise", "xgb_aft",
                                         "xgb_linear"),
                         [](const auto& model) { return model.param; });

TEST(XgboostJson, ImportancesAreXgboosts) {
  std::ifstream file(reference("xgb_importance.txt"));
  std::string line;
  int compared = 0;
  while (std::getline(file, line)) {
    std::istringstream words(line);
    std::string name, kind;
    words >> name >> kind;
    const Model model = io::load_xgboost_json(reference(name + ".json"));
    const std::vector<double> got =
        boosting::importance(model, boosting::importance_from_name(kind));
    for (double g : got) {
      double expected = -1;
      words >> expected;
      EXPECT_NEAR(g, expected, 1e-5 * (1 + std::abs(expected))) << line;
    }
    ++compared;
  }
  EXPECT_GT(compared, 50);
}

TEST(XgboostJson, ReadsEveryFormOfBaseScore) {
  json m = document("xgb_bin");
  json& score = m["learner"]["learner_model_param"]["base_score"];
  for (const json& form : {json("[7.5E-1]"), json("7.5E-1"), json("0.75"), json(0.75),
                           json(std::vector<double>{0.75})}) {
    score = form;
    EXPECT_NEAR(parse(m.dump()).base_margin.at(0), std::log(3.0), 1e-7) << form;
  }
  for (const json& form :
       {json("[]"), json(""), json("[0.5"), json("0.5,0.5"), json("[0.5,0.5]"), json("nan"),
        json("[1E0]"), json("0"), json("1e99"), json(1e99), json(nullptr), json("half")}) {
    score = form;
    EXPECT_THROW((void)parse(m.dump()), ParseError) << form;
  }
}

TEST(XgboostJson, KeepsNamesTypesAndBestRound) {
  Model m = io::load_xgboost_json(reference("xgb_cat.json"));
  m.best_round = 3;
  m.feature_names = {"a", "b", "\"q\"", "d", "e", "f", "g", "h\n", "\xc3\xa4"};
  const Model back = parse(io::xgboost_json_text(m));
  EXPECT_EQ(back.best_round, 3);
  EXPECT_EQ(back.feature_names, m.feature_names);
  EXPECT_EQ(back.feature_kinds, m.feature_kinds);
  EXPECT_EQ(back.feature_kinds.back(), tree::FeatureKind::categorical);
  m.feature_names[0] = "\xff";
  EXPECT_THROW((void)io::xgboost_json_text(m), ValueError);
}

TEST(XgboostJson, ThresholdsMoveNoFloat) {
  Model m;
  m.features = 1;
  m.tree_outputs = {0};
  m.trees.resize(1);
  m.trees[0].split(0);
  m.trees[0].node(0).feature = 0;
  for (double t : {0.1, 1.0 / 3, -0.1, 1e-320, 1e30, std::nextafter(1.0, 2.0)}) {
    m.trees[0].node(0).threshold = t;
    const double back = parse(io::xgboost_json_text(m)).trees[0].node(0).threshold;
    for (float x : {static_cast<float>(t), std::nextafter(static_cast<float>(t), 1e30f),
                    std::nextafter(static_cast<float>(t), -1e30f)}) {
      if (std::isfinite(x)) {
        EXPECT_EQ(static_cast<double>(x) < t, static_cast<double>(x) < back) << t;
      }
    }
  }
}

TEST(XgboostJson, LargeMarginsSurviveProbabilitySpace) {
  for (double margin : {-40.0, -12.0, 0.3, 9.0, 30.0}) {
    Model m = io::load_xgboost_json(reference("xgb_bin.json"));
    m.base_margin = {margin};
    const Model back = parse(io::xgboost_json_text(m));
    const std::vector<float> row(9, 0.5f);
    double a = 0, b = 0;
    boosting::Predictor(m).margins_of_row(std::span<const float>(row), std::span<double>(&a, 1));
    boosting::Predictor(back).margins_of_row(std::span<const float>(row), std::span<double>(&b, 1));
    EXPECT_NEAR(a, b, 1e-5) << margin;
  }
}

TEST(XgboostJson, SavesAside) {
  const std::string path =
      (std::filesystem::temp_directory_path() / "quern_xgboost_json_test.json").string();
  const Model m = io::load_xgboost_json(reference("xgb_mc.json"));
  io::save_xgboost_json(m, path);
  EXPECT_EQ(io::xgboost_json_text(io::load_xgboost_json(path)), io::xgboost_json_text(m));
  Model bad = m;
  bad.outputs = 7;
  EXPECT_THROW(io::save_xgboost_json(bad, path), ParseError);
  EXPECT_EQ(io::load_xgboost_json(path).outputs, 3);  // still there
  std::filesystem::remove(path);
  EXPECT_THROW((void)io::load_xgboost_json(path), IoError);
  EXPECT_THROW(io::save_xgboost_json(m, "/nowhere/at/all.json"), IoError);
}

TEST(XgboostJson, ChildrenBeforeParentsAreRenumbered) {
  json m = document("xgb_reg");
  json& trees = m["learner"]["gradient_booster"]["model"]["trees"];
  // Swap the places of nodes 1 and 3 (its child) in tree 0.
  json& t = trees[0];
  const auto place = [](int i) { return i == 1 ? 3 : i == 3 ? 1 : i; };
  for (auto& [key, value] : t.items()) {
    if (!value.is_array() || value.size() != t["parents"].size()) continue;
    std::swap(value[1], value[3]);
    if (key != "left_children" && key != "right_children") continue;
    for (json& child : value) child = place(child.get<int>());
  }
  const Model a = io::load_xgboost_json(reference("xgb_reg.json"));
  const Model b = parse(m.dump());
  const std::vector<float> row = {0.3f, -1, 0.2f, 1, 0, -2, 1, 3, 4};
  double margin_a = 0, margin_b = 1;
  boosting::Predictor(a).margins_of_row(std::span(row), std::span(&margin_a, 1));
  boosting::Predictor(b).margins_of_row(std::span(row), std::span(&margin_b, 1));
  EXPECT_EQ(margin_a, margin_b);
}

// --- files that lie ------------------------------------------------------------------------------

std::string refusal(const std::function<void(json&)>& change, const char* name = "xgb_cat") {
  json m = document(name);
  change(m);
  try {
    (void)parse(m.dump());
  } catch (const ParseError& error) {
    return error.what();
  }
  return "accepted";
}

json& first_tree(json& m) { return m["learner"]["gradient_booster"]["model"]["trees"][0]; }

TEST(XgboostJsonRefuses, CutShort) {
  const std::string text = document("xgb_cat").dump();
  for (std::size_t size = 0; size < text.size(); size += 97) {
    EXPECT_THROW((void)parse(text.substr(0, size)), ParseError) << size;
  }
}

TEST(XgboostJsonRefuses, DeepNesting) {
  EXPECT_THROW((void)parse(std::string(1000000, '[')), ParseError);
  std::string objects;
  for (int i = 0; i < 100000; ++i) objects += "{\"a\":";
  EXPECT_THROW((void)parse(objects), ParseError);
}

TEST(XgboostJsonRefuses, AnyMissingOrMistypedMember) {
  // Every member below the learner, one at a time, gone and of another type.
  const json whole = document("xgb_cat");
  int refused = 0;
  const json flat = whole.flatten();
  std::vector<std::string> paths;
  for (const auto& [path, value] : flat.items()) {
    const bool other_tree =
        path.find("/trees/") != std::string::npos && path.find("/trees/0/") == std::string::npos;
    if (!other_tree && path.find("/base_weights/") == std::string::npos) paths.push_back(path);
  }
  for (const std::string& path : paths) {
    json m = whole;
    m[json::json_pointer(path)] = json{{"surprise", {1, 2}}};
    try {
      (void)parse(m.dump());
    } catch (const ParseError&) {
      ++refused;
    }
  }
  EXPECT_GT(refused, 200);
  for (const char* key : {"left_children", "right_children", "split_indices", "split_conditions",
                          "default_left", "tree_param", "categories", "categories_nodes",
                          "categories_segments", "categories_sizes"}) {
    EXPECT_NE(refusal([&](json& m) { first_tree(m).erase(key); }).find(key), std::string::npos)
        << key;
    EXPECT_NE(refusal([&](json& m) { first_tree(m)[key] = "x"; }).find(key), std::string::npos)
        << key;
  }
}

TEST(XgboostJsonRefuses, WrongCounts) {
  for (const char* key :
       {"right_children", "split_indices", "split_conditions", "default_left", "sum_hessian",
        "loss_changes", "base_weights", "split_type", "categories_sizes"}) {
    EXPECT_NE(refusal([&](json& m) { first_tree(m)[key].erase(0); }), "accepted") << key;
    EXPECT_NE(refusal([&](json& m) { first_tree(m)[key].push_back(0); }), "accepted") << key;
  }
  const auto param = [](const char* key, const char* value) {
    return refusal([&](json& m) { m["learner"]["learner_model_param"][key] = value; });
  };
  EXPECT_NE(param("num_feature", "3"), "accepted");
  EXPECT_NE(param("num_feature", "-1"), "accepted");
  EXPECT_NE(param("num_feature", "99999999999"), "accepted");
  EXPECT_NE(param("num_class", "5"), "accepted");
  EXPECT_NE(param("num_class", "1000000000"), "accepted");
  EXPECT_NE(param("num_target", "1000000000"), "accepted");
  EXPECT_NE(param("num_class", "x"), "accepted");
  EXPECT_NE(refusal([](json& m) { first_tree(m)["tree_param"]["num_nodes"] = "4"; }), "accepted");
  EXPECT_NE(refusal([](json& m) { first_tree(m)["tree_param"]["size_leaf_vector"] = "3"; }),
            "accepted");
  json& (*body)(json&) = [](json& m) -> json& { return m["learner"]["gradient_booster"]["model"]; };
  EXPECT_NE(refusal([&](json& m) { body(m)["tree_info"][0] = 1; }), "accepted");
  EXPECT_NE(refusal([&](json& m) { body(m)["tree_info"].erase(0); }), "accepted");
  EXPECT_NE(refusal([&](json& m) { body(m)["gbtree_model_param"]["num_parallel_tree"] = "4"; }),
            "accepted");
  EXPECT_NE(refusal([](json& m) { m["learner"]["attributes"]["best_iteration"] = "6"; }),
            "accepted");
  EXPECT_NE(refusal([](json& m) { m["learner"]["gradient_booster"]["weight_drop"].erase(0); },
                    "xgb_dart"),
            "accepted");
}

TEST(XgboostJsonRefuses, GraphsThatAreNoTrees) {
  const auto child = [](const char* key, std::size_t node, int to) {
    return refusal([&](json& m) { first_tree(m)[key][node] = to; });
  };
  EXPECT_NE(child("left_children", 0, 0), "accepted");   // itself
  EXPECT_NE(child("left_children", 3, 0), "accepted");   // a cycle
  EXPECT_NE(child("left_children", 3, 8), "accepted");   // a sibling's child
  EXPECT_NE(child("left_children", 0, 31), "accepted");  // out of range
  EXPECT_NE(child("left_children", 0, -7), "accepted");
  EXPECT_NE(child("left_children", 0, -1), "accepted");  // half a split
  EXPECT_NE(refusal([](json& m) { first_tree(m)["left_children"][0] = 1.5; }), "accepted");
  EXPECT_NE(refusal([](json& m) { first_tree(m)["left_children"][0] = 18446744073709551615u; }),
            "accepted");
}

TEST(XgboostJsonRefuses, NumbersThatAreNone) {
  EXPECT_NE(refusal([](json& m) { first_tree(m)["split_conditions"][0] = 1e39; }), "accepted");
  EXPECT_NE(refusal([](json& m) { first_tree(m)["split_conditions"][0] = nullptr; }), "accepted");
  EXPECT_NE(refusal([](json& m) { first_tree(m)["split_conditions"][30] = -1e300; }), "accepted");
  std::string text = document("xgb_reg").dump();
  text.replace(text.find("\"split_conditions\":[") + 20, 1, "NaN,");
  EXPECT_THROW((void)parse(text), ParseError);
}

TEST(XgboostJsonRefuses, CategorySetsThatLie) {
  const auto set = [](const char* key, std::size_t i, std::int64_t to) {
    return refusal([&](json& m) { first_tree(m)[key][i] = to; });
  };
  EXPECT_NE(set("categories_nodes", 0, 0), "accepted");  // a numeric node
  EXPECT_NE(set("categories_nodes", 0, 3), "accepted");  // twice
  EXPECT_NE(set("categories_nodes", 0, 31), "accepted");
  EXPECT_NE(set("categories_segments", 1, 23), "accepted");
  EXPECT_NE(set("categories_sizes", 3, 8), "accepted");
  EXPECT_NE(set("categories", 0, -1), "accepted");
  EXPECT_NE(set("categories", 0, 16777215), "accepted");  // more memory than the file is worth
  EXPECT_NE(set("categories", 0, 16777216), "accepted");
}

TEST(XgboostJsonRefuses, OtherBoostersAndNames) {
  EXPECT_NE(refusal([](json& m) { m["learner"]["gradient_booster"]["name"] = "gblinear"; }),
            "accepted");
  const auto linear = [](const json& weights) {
    return refusal([&](json& m) { m["learner"]["gradient_booster"]["model"]["weights"] = weights; },
                   "xgb_linear");
  };
  EXPECT_EQ(linear(std::vector<double>(10, 0.5)), "accepted");
  EXPECT_NE(linear(std::vector<double>(9, 0.5)), "accepted");
  EXPECT_NE(linear(json::array()), "accepted");
  EXPECT_NE(linear({1, 2, 3, 4, 5, 6, 7, 8, 9, nullptr}), "accepted");
  EXPECT_NE(linear({1, 2, 3, 4, 5, 6, 7, 8, 9, 1e39}), "accepted");
  EXPECT_NE(refusal([](json& m) { m["learner"]["feature_types"] = {"q"}; }), "accepted");
  EXPECT_NE(refusal([](json& m) { m["learner"]["feature_names"] = {1, 2}; }), "accepted");
  const std::string place = refusal([](json& m) { first_tree(m)["split_indices"][2] = 9; });
  EXPECT_NE(place.find("m.json: learner.gradient_booster.model.trees[0].split_indices[2]"),
            std::string::npos)
      << place;
}

}  // namespace
}  // namespace quern::test::xgboost_json
