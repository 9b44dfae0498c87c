// SPDX-License-Identifier: Apache-2.0

/// \file
/// A small model that uses every field, for tests.

#ifndef QUERN_TESTS_BOOSTING_SAMPLE_MODEL_HPP
#define QUERN_TESTS_BOOSTING_SAMPLE_MODEL_HPP

#include "quern/boosting/model.hpp"

#include <cstdint>

namespace quern::test {

/// Root on feature 0 at 0.1, its right child on the categories {1, 33} of feature 2.
inline tree::Tree sample_tree(double scale) {
  tree::Tree t;
  const std::int32_t left = t.split(0);
  t.node(0).feature = 0;
  t.node(0).threshold = 0.1;
  t.node(0).gain = 3 * scale;
  t.node(0).cover = 10;
  t.node(0).default_left = true;
  t.node(0).missing = tree::MissingRule::zero;
  const std::int32_t deeper = t.split(left + 1);
  t.node(left + 1).feature = 2;
  t.node(left + 1).kind = tree::SplitKind::categorical;
  t.node(left + 1).category_count = 2;
  t.node(left + 1).gain = 1 / 3.0;
  t.node(left + 1).cover = 6;
  t.category_words = {2, 2};
  t.node(left).value = scale;
  t.node(deeper).value = -scale / 3;
  t.node(deeper + 1).value = 0.7;
  return t;
}

/// Two outputs, two rounds, dart weights.
inline boosting::Model sample_model() {
  boosting::Model m;
  m.objective = "multi:softprob";
  m.outputs = 2;
  m.base_margin = {0.1, -0.2};
  for (int t = 0; t < 4; ++t) {
    m.trees.push_back(sample_tree(1.0 + t));
    m.tree_outputs.push_back(t % 2);
    m.tree_weights.push_back(1.0 / (1 + t));
  }
  m.best_round = 0;
  m.features = 3;
  m.feature_names = {"a", "b \"quoted\"", "c"};
  m.feature_kinds = {tree::FeatureKind::numeric, tree::FeatureKind::numeric,
                     tree::FeatureKind::categorical};
  m.categories = {{}, {}, {"red", "green"}};
  return m;
}

/// x_0 < 0.1: 1 + 2 x_1 - x_0 (0.25 where one of them is missing); else the constant 3.
inline tree::Tree linear_leaf_tree() {
  tree::Tree t;
  const std::int32_t left = t.split(0);
  t.node(0).feature = 0;
  t.node(0).threshold = 0.1;
  t.node(left).value = 0.25;
  t.node(left + 1).value = 3;
  t.linear.offsets = {0, 0, 2, 2};
  t.linear.features = {1, 0};
  t.linear.coefficients = {2, -1};
  t.linear.constants = {0, 1, 3};
  return t;
}

/// Two outputs of three features, without trees.
inline boosting::Model linear_sample_model() {
  boosting::Model m;
  m.objective = "multi:softprob";
  m.outputs = 2;
  m.base_margin = {0.5, -0.5};
  m.features = 3;
  m.linear_weights = {1, 2, 3, 4, 5, 6, 0.25, 0.125};
  return m;
}

}  // namespace quern::test

#endif  // QUERN_TESTS_BOOSTING_SAMPLE_MODEL_HPP
