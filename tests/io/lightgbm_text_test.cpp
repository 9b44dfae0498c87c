// SPDX-License-Identifier: Apache-2.0

/// \file
/// LightGBM's text models: margins and leaves that LightGBM 4.7 gave for them
/// (tests/reference/trees/make_lightgbm.py), back and forth, and files that lie.

#include "quern/io/lightgbm_text.hpp"
#include "quern/boosting/predictor.hpp"
#include "quern/io/npy.hpp"
#include "quern/io/xgboost_json.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <limits>
#include <random>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include <gtest/gtest.h>

#include "../tree/random_trees.hpp"

namespace quern::test::lightgbm_text {
namespace {

using boosting::Model;

std::string reference(const std::string& name) {
  return std::string(QUERN_TEST_REFERENCE_DIR) + "/trees/" + name;
}

std::string content(const std::string& name) {
  const std::vector<std::byte> bytes = read_file(reference(name + ".txt"));
  return {reinterpret_cast<const char*>(bytes.data()), bytes.size()};
}

template <class T>
std::vector<T> array(const std::string& name) {
  const auto read = io::read_npy<T>(reference(name));
  return {read.values.begin(), read.values.end()};
}

/// (rows, outputs) margins of double rows.
std::vector<double> margins(const Model& model, const std::vector<double>& x) {
  const boosting::Predictor predictor(model);
  const Index rows = static_cast<Index>(x.size()) / (std::max)(model.features, Index{1});
  std::vector<double> out(static_cast<std::size_t>(rows * predictor.outputs()));
  predictor.margins(MatrixView<const double>(x.data(), {rows, model.features}),
                    MatrixView<double>(out.data(), {rows, predictor.outputs()}));
  return out;
}

class LightgbmReference : public testing::TestWithParam<std::string> {
 protected:
  [[nodiscard]] static std::vector<double> rows() {
    const bool ranking = GetParam() == "lgb_lambdarank";
    return array<double>(ranking ? "rank_X.npy" : "Xt.npy");
  }
  static void expect_margins(const Model& model, double scale) {
    const auto expected = array<double>(GetParam() + "_margin.npy");
    const std::vector<double> got = margins(model, rows());
    ASSERT_EQ(got.size(), expected.size());
    for (std::size_t i = 0; i < got.size(); ++i)
      EXPECT_NEAR(got[i] * scale, expected[i], 1e-9) << i;
  }
};

TEST_P(LightgbmReference, PredictsAsLightgbm) {
  const Model model = io::load_lightgbm_text(reference(GetParam() + ".txt"));
  EXPECT_EQ(model.input_type, tree::InputType::float64);
  // LightGBM's raw score of a forest is the sum, and the objective sees the mean.
  const bool forest = GetParam() == "lgb_rf";
  expect_margins(model, forest ? static_cast<double>(model.trees.size()) : 1.0);
  if (!std::filesystem::exists(reference(GetParam() + "_leaf.npy"))) return;
  const auto leaf = array<std::int32_t>(GetParam() + "_leaf.npy");
  std::vector<std::int32_t> nodes(leaf.size());
  const std::vector<double> x = rows();
  const auto trees = static_cast<Index>(model.trees.size());
  const Index n = static_cast<Index>(x.size()) / model.features;
  boosting::Predictor(model).leaves(MatrixView<const double>(x.data(), {n, model.features}),
                                    MatrixView<std::int32_t>(nodes.data(), {n, trees}));
  for (std::size_t i = 0; i < leaf.size(); ++i) {
    const auto& tree = model.trees[i % model.trees.size()];
    EXPECT_EQ(io::lightgbm_leaf_numbers(tree)[static_cast<std::size_t>(nodes[i])], leaf[i]) << i;
  }
}

TEST_P(LightgbmReference, ComesBackFromOurText) {
  const Model model = io::load_lightgbm_text(reference(GetParam() + ".txt"));
  const std::string text = io::lightgbm_text(model);
  const Model back = io::lightgbm_from_text(text);
  expect_margins(back, GetParam() == "lgb_rf" ? static_cast<double>(model.trees.size()) : 1.0);
  EXPECT_EQ(back.objective, model.objective);
  EXPECT_EQ(back.feature_kinds, model.feature_kinds);
  EXPECT_EQ(io::lightgbm_text(back), text);
  ASSERT_EQ(back.trees.size(), model.trees.size());
  for (std::size_t t = 0; t < back.trees.size(); ++t) {
    ASSERT_EQ(back.trees[t].size(), model.trees[t].size());
    for (std::int32_t i = 0; i < back.trees[t].size(); ++i) {
      EXPECT_EQ(back.trees[t].node(i).threshold, model.trees[t].node(i).threshold);
      EXPECT_EQ(back.trees[t].node(i).missing, model.trees[t].node(i).missing);
      EXPECT_EQ(back.trees[t].node(i).cover, model.trees[t].node(i).cover);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Lightgbm, LightgbmReference,
                         testing::Values("lgb_reg", "lgb_bin", "lgb_mc", "lgb_cat",
                                         "lgb_zero_missing", "lgb_l1", "lgb_quantile", "lgb_rf",
                                         "lgb_linear", "lgb_lambdarank"),
                         [](const auto& model) { return model.param; });

// --- models of others as LightGBM's text ---------------------------------------------------------

/// Margins of a model and of what is read from its text, on doubles around floats and thresholds.
void expect_round_trip(const Model& model, std::mt19937& random, double tolerance) {
  std::vector<double> x;
  for (float v : random_features<float>(200 * model.features, random)) {
    x.push_back(static_cast<double>(v));
  }
  // Infinite categories, and those that only rounding to float makes, are LightGBM's own affair.
  bool categories = false;
  for (const tree::Tree& tree : model.trees) categories |= tree::detail::has_special_splits(tree);
  for (std::size_t i = 0; i < x.size(); ++i) {
    if (categories) x[i] = std::isinf(x[i]) ? 3.0 : x[i];
    if (categories) continue;
    // Off the floats, halfway between two of them, and next to that.
    const auto f = static_cast<float>(x[i]);
    if (!std::isfinite(f)) continue;
    const double half = (static_cast<double>(std::nextafter(f, 1e30f)) + x[i]) / 2;
    if (i % 4 == 1) x[i] = half;
    if (i % 4 == 2) x[i] = std::nextafter(half, -1e30);
    if (i % 4 == 3) x[i] = std::nextafter(half, 1e30);
  }
  const std::vector<double> a = margins(model, x);
  const std::vector<double> b = margins(io::lightgbm_from_text(io::lightgbm_text(model)), x);
  ASSERT_EQ(a.size(), b.size());
  for (std::size_t i = 0; i < a.size(); ++i) EXPECT_NEAR(a[i], b[i], tolerance) << i;
}

TEST(LightgbmText, HoldsAnyTreesOfOneValue) {
  std::mt19937 random(3);
  for (int round = 0; round < 40; ++round) {
    SCOPED_TRACE(round);
    Model m;
    m.features = 5;
    m.outputs = 1 + round % 3;
    m.parallel_trees = 1 + round % 2;
    m.base_margin.assign(static_cast<std::size_t>(m.outputs), 0.75);
    m.input_type = round % 4 < 2 ? tree::InputType::float32 : tree::InputType::float64;
    for (int t = 0; t < 2 * m.outputs * m.parallel_trees; ++t) {
      m.trees.push_back(random_tree({.leaves = 1 + 7 * (t % 3),
                                     .grid = round % 3 == 0 ? 0 : 4,
                                     .categorical = round % 5 == 0 ? 0.3 : 0.0,
                                     .other_missing = round % 7 == 0 ? 0.5 : 0.0},
                                    random));
      m.tree_outputs.push_back(t / m.parallel_trees % m.outputs);
      m.tree_weights.push_back(0.5 + t % 2);
    }
    expect_round_trip(m, random, 1e-12);
  }
}

TEST(LightgbmText, HoldsXgboostsModels) {
  std::mt19937 random(4);
  for (const char* name : {"xgb_reg", "xgb_bin", "xgb_mc", "xgb_cat", "xgb_cat_onehot", "xgb_dart",
                           "xgb_poisson", "xgb_bin_leafwise"}) {
    SCOPED_TRACE(name);
    expect_round_trip(io::load_xgboost_json(reference(std::string(name) + ".json")), random, 1e-12);
  }
}

TEST(LightgbmText, WritesTheRoundsThatPredictionsUse) {
  Model m = io::load_lightgbm_text(reference("lgb_mc.txt"));
  m.best_round = 1;
  const Model back = io::lightgbm_from_text(io::lightgbm_text(m));
  EXPECT_EQ(back.trees.size(), 6u);
}

TEST(LightgbmText, ModelsWithoutTreesKeepTheirStart) {
  Model m;
  m.features = 2;
  m.base_margin = {1.5};
  const Model back = io::lightgbm_from_text(io::lightgbm_text(m));
  EXPECT_EQ(margins(back, {1, 2, 3, 4}), (std::vector<double>{1.5, 1.5}));
}

TEST(LightgbmText, LinearLeavesTakeWeightsAndStarts) {
  Model m = io::load_lightgbm_text(reference("lgb_linear.txt"));
  m.base_margin = {0.5};
  m.tree_weights.assign(m.trees.size(), 0.5);
  std::mt19937 random(5);
  std::vector<double> x = random_features<double>(900, random);
  for (double& v : x) v = std::isinf(v) ? 0 : v;
  const std::vector<double> a = margins(m, x);
  const std::vector<double> b = margins(io::lightgbm_from_text(io::lightgbm_text(m)), x);
  for (std::size_t i = 0; i < a.size(); ++i) EXPECT_NEAR(a[i], b[i], 1e-10) << i;
}

TEST(LightgbmText, NamesAndObjectives) {
  Model m = io::load_lightgbm_text(reference("lgb_bin.txt"));
  EXPECT_EQ(m.objective, "binary:logistic");
  EXPECT_TRUE(m.feature_names.empty());
  m.feature_names = {"a", "b c", "", "d", "e\n", "f", "g", "h", "i"};
  const Model back = io::lightgbm_from_text(io::lightgbm_text(m));
  EXPECT_EQ(back.feature_names,
            (std::vector<std::string>{"a", "b_c", "Column_2", "d", "e_", "f", "g", "h", "i"}));
  const auto objective = [](const char* line) {
    std::string text = content("lgb_bin");
    const std::size_t at = text.find("objective=") + 10;
    text.replace(at, text.find('\n', at) - at, line);
    return io::lightgbm_from_text(text).objective;
  };
  EXPECT_EQ(objective("regression"), "reg:squarederror");
  EXPECT_EQ(objective("regression sqrt"), "regression sqrt");
  EXPECT_EQ(objective("binary sigmoid:2"), "binary sigmoid:2");
  EXPECT_EQ(objective("lambdarank"), "rank:ndcg");
  EXPECT_EQ(objective("something else"), "something else");
  EXPECT_EQ(io::detail::objective_to_lightgbm("multi:softmax", 3), "multiclass num_class:3");
  EXPECT_EQ(io::detail::objective_to_lightgbm("survival:aft", 1), "");
  EXPECT_EQ(io::detail::objective_to_lightgbm("regression sqrt", 1), "regression sqrt");
}

TEST(LightgbmText, SavesAside) {
  const std::string path =
      (std::filesystem::temp_directory_path() / "quern_lightgbm_text_test.txt").string();
  const Model m = io::load_lightgbm_text(reference("lgb_cat.txt"));
  io::save_lightgbm_text(m, path);
  EXPECT_EQ(io::lightgbm_text(io::load_lightgbm_text(path)), io::lightgbm_text(m));
  std::filesystem::remove(path);
  EXPECT_THROW((void)io::load_lightgbm_text(path), IoError);
  Model vectors = m;
  vectors.trees[0].outputs = 2;
  vectors.outputs = 2;
  EXPECT_ANY_THROW(io::save_lightgbm_text(vectors, path));
  Model linear;
  linear.features = 1;
  linear.linear_weights = {1, 2};
  EXPECT_THROW(io::save_lightgbm_text(linear, path), ValueError);
}

// --- files that lie ------------------------------------------------------------------------------

/// What is said of a text whose first line that starts with `key` is replaced.
std::string refusal(const std::string& name, const std::string& key, const std::string& line) {
  std::string text = content(name);
  const std::size_t at = text.find("\n" + key) + 1;
  EXPECT_NE(at, 0u) << key;
  const std::size_t end = text.find('\n', at);
  text.replace(at, end - at, line);
  try {
    (void)io::lightgbm_from_text(text, "m.txt");
  } catch (const ParseError& error) {
    return error.what();
  }
  return "accepted";
}

TEST(LightgbmRefuses, CutShort) {
  const std::string text = content("lgb_cat");
  const std::size_t end = text.find("end of trees") + 12;
  for (std::size_t size = 0; size < end; size += 53) {
    EXPECT_THROW((void)io::lightgbm_from_text(text.substr(0, size)), ParseError) << size;
  }
  EXPECT_NO_THROW((void)io::lightgbm_from_text(text.substr(0, end)));
}

TEST(LightgbmRefuses, FlippedBitsOrMakesAModel) {
  const std::string text = content("lgb_cat");
  int refused = 0;
  for (std::size_t at = 0; at < text.size(); at += 13) {
    std::string bad = text;
    bad[at] = static_cast<char>(bad[at] ^ (1 << (at % 7)));
    try {
      (void)margins(io::lightgbm_from_text(bad), std::vector<double>(90, 0.5));
    } catch (const ParseError&) {
      ++refused;
    }
  }
  EXPECT_GT(refused, 300);
}

TEST(LightgbmRefuses, ItsPlaceIsNamed) {
  const std::string said = refusal("lgb_reg", "split_feature", "split_feature=2 2");
  EXPECT_NE(said.find("m.txt:15: tree 0: split_feature: expected 14 entries, got 2"),
            std::string::npos)
      << said;
}

TEST(LightgbmRefuses, LinesThatAreMissingTwiceOrWrong) {
  for (const char* key :
       {"num_leaves", "split_feature", "threshold", "decision_type", "left_child", "right_child",
        "leaf_value", "max_feature_idx", "num_tree_per_iteration", "feature_names"}) {
    SCOPED_TRACE(key);
    EXPECT_NE(refusal("lgb_reg", key, ""), "accepted");
    EXPECT_NE(refusal("lgb_reg", key, std::string(key) + "=x"), "accepted");
    EXPECT_NE(refusal("lgb_reg", key, std::string(key) + "=nan"), "accepted");
    EXPECT_NE(refusal("lgb_reg", key, std::string(key) + "="), "accepted");
    EXPECT_NE(refusal("lgb_reg", key, std::string(key) + "=1e999"), "accepted");
    EXPECT_NE(refusal("lgb_reg", key, std::string(key) + "=99999999999999999999"), "accepted");
    EXPECT_NE(refusal("lgb_reg", key, "num_cat=0\nnum_cat=0"), "accepted");
  }
  EXPECT_NE(refusal("lgb_reg", "version", "version=v9"), "accepted");
  EXPECT_NE(refusal("lgb_reg", "Tree=0", "Tree=1"), "accepted");
  EXPECT_NE(refusal("lgb_reg", "num_leaves", "num_leaves=0"), "accepted");
  EXPECT_NE(refusal("lgb_reg", "num_leaves", "num_leaves=1000000000"), "accepted");
  EXPECT_NE(refusal("lgb_reg", "max_feature_idx", "max_feature_idx=1"), "accepted");
  EXPECT_NE(refusal("lgb_reg", "max_feature_idx", "max_feature_idx=2147483647"), "accepted");
  EXPECT_NE(refusal("lgb_mc", "num_tree_per_iteration", "num_tree_per_iteration=4"), "accepted");
  EXPECT_NE(refusal("lgb_mc", "num_tree_per_iteration", "num_tree_per_iteration=16000000"),
            "accepted");
  EXPECT_NE(refusal("lgb_linear", "num_features", "num_features=1 0 0 0 0 0"), "accepted");
  EXPECT_NE(refusal("lgb_linear", "leaf_const", "leaf_const=1 2 3 4 5 inf"), "accepted");
}

std::string small_tree(const std::string& left, const std::string& right,
                       const std::string& more = "threshold=0 1\ndecision_type=2 2\n") {
  const std::string text =
      "tree\nversion=v4\nnum_tree_per_iteration=1\nmax_feature_idx=1\n"
      "feature_names=a b\n\nTree=0\nnum_leaves=3\n"
      "split_feature=0 1\nleaf_value=1 2 3\n" +
      more + "left_child=" + left + "\nright_child=" + right + "\n\nend of trees\n";
  try {
    (void)io::lightgbm_from_text(text);
  } catch (const ParseError& error) {
    return error.what();
  }
  return "accepted";
}

TEST(LightgbmRefuses, GraphsThatAreNoTrees) {
  EXPECT_EQ(small_tree("1 -1", "-3 -2"), "accepted");
  EXPECT_NE(small_tree("0 -1", "-3 -2"), "accepted");  // itself
  EXPECT_NE(small_tree("1 0", "-3 -2"), "accepted");   // a cycle
  EXPECT_NE(small_tree("1 -1", "-3 -1"), "accepted");  // one leaf twice
  EXPECT_NE(small_tree("1 -1", "1 -2"), "accepted");   // one split twice
  EXPECT_NE(small_tree("1 -1", "-4 -2"), "accepted");  // out of range
  EXPECT_NE(small_tree("2 -1", "-3 -2"), "accepted");
  EXPECT_NE(small_tree("1 -1", "-3 -2147483649"), "accepted");
}

TEST(LightgbmRefuses, DecisionsAndSetsThatLie) {
  const auto decision = [](const std::string& more) { return small_tree("1 -1", "-3 -2", more); };
  const std::string sets = "num_cat=1\ncat_boundaries=0 1\ncat_threshold=5\n";
  EXPECT_EQ(decision("threshold=0 1\ndecision_type=1 2\n" + sets), "accepted");
  EXPECT_NE(decision("threshold=1 1\ndecision_type=1 2\n" + sets), "accepted");
  EXPECT_NE(decision("threshold=-1 1\ndecision_type=1 2\n" + sets), "accepted");
  EXPECT_NE(decision("threshold=0.5 1\ndecision_type=1 2\n" + sets), "accepted");
  EXPECT_NE(decision("threshold=0 1\ndecision_type=1 2\n"), "accepted");
  EXPECT_NE(decision("threshold=0 1\ndecision_type=12 2\n"), "accepted");
  EXPECT_NE(decision("threshold=0 1\ndecision_type=-1 2\n"), "accepted");
  EXPECT_NE(decision("threshold=0 1\ndecision_type=1 2\nnum_cat=1\ncat_boundaries=0 2\n"
                     "cat_threshold=5\n"),
            "accepted");
  EXPECT_NE(decision("threshold=0 1\ndecision_type=1 2\nnum_cat=2\ncat_boundaries=0 1 0\n"
                     "cat_threshold=5\n"),
            "accepted");
  EXPECT_NE(decision("threshold=0 1\ndecision_type=1 2\nnum_cat=1\ncat_boundaries=0 1\n"
                     "cat_threshold=4294967296\n"),
            "accepted");
  EXPECT_NE(decision("threshold=0 1\ndecision_type=1 2\nnum_cat=1000000000\ncat_boundaries=0 1\n"
                     "cat_threshold=5\n"),
            "accepted");
  EXPECT_EQ(decision("threshold=inf -inf\ndecision_type=2 2\n"), "accepted");
  EXPECT_NE(decision("threshold=nan 1\ndecision_type=2 2\n"), "accepted");
}

}  // namespace
}  // namespace quern::test::lightgbm_text
