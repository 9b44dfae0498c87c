// SPDX-License-Identifier: Apache-2.0

// Serves a model without Eigen: compiled with an include path that has none.

#include "quern/predict.hpp"

#include "quern/boosting/model_io.hpp"

#ifdef CONSUMER_JSON
#include "quern/io/xgboost_json.hpp"
#endif

#if defined(EIGEN_WORLD_VERSION)
#error "Eigen came in"
#endif

#include <cmath>
#include <cstdio>
#include <span>
#include <string>
#include <vector>

// Two trees of one split each on the first of two features.
static quern::boosting::Model make_model() {
  quern::boosting::Model model;
  model.objective = "binary:logistic";
  model.features = 2;
  for (const double scale : {1.0, 0.5}) {
    quern::tree::Tree tree;
    const auto left = tree.split(0);
    tree.node(0).feature = 0;
    tree.node(0).threshold = 0.25;
    tree.node(left).value = -scale;
    tree.node(left + 1).value = scale;
    model.trees.push_back(tree);
    model.tree_outputs.push_back(0);
  }
  return model;
}

static bool serves(const quern::boosting::Model& model) {
  const quern::boosting::Predictor predictor(model);
  const std::vector<float> rows = {0.0F, 1.0F, 0.5F, 1.0F};
  std::vector<float> out(2), one(1);
  predictor.predict(std::span<const float>(rows), 2, std::span<float>(out));
  predictor.predict_row(std::span<const float>(rows).subspan(2), std::span<float>(one));
  const float expected = 1.0F / (1.0F + std::exp(-1.5F));
  std::printf("%g %g\n", static_cast<double>(out[0]), static_cast<double>(out[1]));
  return std::abs(out[1] - expected) < 1e-6F && std::abs(out[0] + out[1] - 1) < 1e-6F &&
         one[0] == out[1];
}

int main() {
  const quern::boosting::Model model = make_model();
  quern::boosting::save_model(model, "predict.quern");
  bool right = serves(model) && serves(quern::boosting::load_model("predict.quern"));
#ifdef CONSUMER_JSON
  quern::io::save_xgboost_json(model, "predict.json");
  right = right && serves(quern::io::load_xgboost_json("predict.json"));
#endif
  return right ? 0 : 1;
}
