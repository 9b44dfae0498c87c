// SPDX-License-Identifier: Apache-2.0

/// \file
/// Explaining XGBoost's own models: Shapley values, interactions and dumps that XGBoost 3.2 gave
/// for them (tests/reference/trees/make_xgboost.py, make_dumps.py).

#include "quern/boosting/explain.hpp"
#include "quern/boosting/dump.hpp"
#include "quern/core/nd_array.hpp"
#include "quern/io/model_formats.hpp"
#include "quern/io/npy.hpp"
#include "quern/io/xgboost_json.hpp"

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <fstream>
#include <iterator>
#include <string>

#include <gtest/gtest.h>

namespace quern::test::explain_reference {
namespace {

std::string reference(const std::string& name) {
  return std::string(QUERN_TEST_REFERENCE_DIR) + "/trees/" + name;
}

/// Models of every kind: weights, categories, dart, classes, constraints, leaves set afterwards.
class ShapReference : public testing::TestWithParam<std::string> {
 protected:
  void SetUp() override {
    if (GetParam().starts_with("xgb_cat")) x_(2, x_.extent(1) - 1) = 11;
  }

  boosting::Model model_ = io::load_any_model(
      reference(GetParam() + (GetParam().starts_with("lgb") ? ".txt" : ".json")));
  NdArray<float, 2> x_ = io::read_npy<float, 2>(reference("Xt.npy"));
};

// XGBoost sums in float: its own rows differ from its margins by some 1e-6. LightGBM's and
// CatBoost's values are doubles, stored here as floats.
TEST_P(ShapReference, ValuesAreTheMakers) {
  const auto expected = io::read_npy<float>(reference(GetParam() + "_shap.npy"));
  const boosting::Explainer explainer(model_);
  NdArray<double, 3> got({x_.extent(0), explainer.outputs(), explainer.features() + 1});
  explainer.shap_values(MatrixView<const float>(x_.view()), got.view());
  ASSERT_EQ(static_cast<std::size_t>(got.size()), expected.values.size());
  // LightGBM explains the sum of a forest's trees, which predicts by their mean.
  const double scale = GetParam() == "lgb_rf" ? static_cast<double>(model_.trees.size()) : 1.0;
  const double tolerance = GetParam().starts_with("xgb") ? 1e-5 : 1e-6;
  for (std::size_t i = 0; i < expected.values.size(); ++i) {
    const auto e = static_cast<double>(expected.values[i]);
    ASSERT_NEAR(got.data()[i] * scale, e, tolerance * (1 + std::abs(e))) << i;
  }
}

INSTANTIATE_TEST_SUITE_P(Peers, ShapReference,
                         testing::Values("xgb_reg", "xgb_reg_exact", "xgb_reg_exact_w",
                                         "xgb_approx", "xgb_bin", "xgb_bin_leafwise", "xgb_mc",
                                         "xgb_cat", "xgb_cat_onehot", "xgb_mono", "xgb_interact",
                                         "xgb_poisson", "xgb_quantile", "xgb_huber", "xgb_dart",
                                         "lgb_reg", "lgb_bin", "lgb_mc", "lgb_cat",
                                         "lgb_zero_missing", "lgb_l1", "lgb_quantile", "lgb_rf",
                                         "cat_reg", "cat_bin", "cat_mc"),
                         [](const auto& model) { return model.param; });

TEST(ShapReference, InteractionsAreXgboosts) {
  for (const std::string name : {"xgb_reg", "xgb_bin"}) {
    const auto expected = io::read_npy<float, 3>(reference(name + "_shap_inter.npy"));
    const NdArray<float, 2> x = io::read_npy<float, 2>(reference("Xt.npy"));
    const std::int64_t rows = expected.extent(0), n = expected.extent(1);
    NdArray<double, 4> got({rows, 1, n, n});
    boosting::shap_interactions(io::load_xgboost_json(reference(name + ".json")),
                                MatrixView<const float>(x.data(), {rows, x.extent(1)}), got.view());
    for (std::int64_t i = 0; i < expected.size(); ++i)
      ASSERT_NEAR(got.data()[i], static_cast<double>(expected.data()[i]), 2e-5) << name << " " << i;
  }
}

std::string file_text(const std::string& name) {
  std::ifstream file(reference(name), std::ios::binary);
  return {std::istreambuf_iterator<char>(file), {}};
}

TEST(DumpReference, TextIsXgboosts) {
  for (const std::string name : {"xgb_reg_exact_w", "xgb_cat", "xgb_cat_onehot", "xgb_mc"}) {
    const boosting::Model model = io::load_xgboost_json(reference(name + ".json"));
    const std::string expected = file_text(name + "_dump.txt");
    std::string got;
    for (std::int64_t t = 0; got.size() < expected.size(); ++t)
      got += boosting::dump_text(model, t, {.with_stats = true}) + "----\n";
    EXPECT_EQ(got, expected) << name;
  }
}

TEST(DumpReference, GraphsAreXgboosts) {
  for (const std::string name : {"xgb_reg_exact_w", "xgb_cat"}) {
    boosting::Model model = io::load_xgboost_json(reference(name + ".json"));
    model.feature_names = {"a", "b c", "d0", "d1", "d2", "d3", "d4", "d5", "d6"};
    EXPECT_EQ(boosting::dump_graphviz(model, 0, {.with_stats = name == "xgb_cat"}),
              file_text(name + "_named_dot.txt"));
  }
}

}  // namespace
}  // namespace quern::test::explain_reference
