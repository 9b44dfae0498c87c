// SPDX-License-Identifier: Apache-2.0

/// \file
/// Dumps of models that no other system made; XGBoost's own texts are compared in tests/io.

#include "quern/boosting/dump.hpp"

#include <string>

#include <gtest/gtest.h>

#include "sample_model.hpp"

namespace quern::test::dump {
namespace {

TEST(Dump, NamesFeaturesAndCategories) {
  boosting::Model m = sample_model();
  m.trees[0].node(0).feature = 1;
  EXPECT_EQ(boosting::dump_text(m, 0),
            "0:[b \"quoted\"<0.1] yes=1,no=2,missing=1\n\t1:leaf=1\n"
            "\t2:[c:{1,33}] yes=4,no=3,missing=4\n\t\t3:leaf=-0.333333333\n\t\t4:leaf=0.7\n");
  const std::string text = boosting::dump_text(m, 0, {.category_names = true});
  EXPECT_NE(text.find("[c:{green,33}]"), std::string::npos) << text;
  const std::string graph = boosting::dump_graphviz(m, 0, {.with_stats = true});
  EXPECT_NE(graph.find("0 [ label=\"b \\\"quoted\\\"<0.1"), std::string::npos) << graph;
  EXPECT_NE(graph.find("2 -> 3 [label=\"no\" color=\"#FF0000\"]"), std::string::npos) << graph;
  EXPECT_NE(graph.find("2 -> 4 [label=\"yes, missing\" color=\"#0000FF\"]"), std::string::npos);
  EXPECT_EQ(boosting::dump_text(m).size(), 4u);
}

TEST(Dump, HasEveryOutputAndEveryBooster) {
  boosting::Model m;
  m.outputs = 2;
  m.base_margin = {0, 0};
  m.trees.resize(1);
  m.trees[0].outputs = 2;
  m.trees[0].vector_values = {0.5, -2};
  m.tree_outputs = {0};
  EXPECT_EQ(boosting::dump_text(m, 0, {.with_stats = true}), "0:leaf=[0.5,-2],cover=0\n");
  EXPECT_EQ(boosting::dump_text(linear_sample_model()).at(0),
            "bias:\n0.25\n0.125\nweight:\n1\n2\n3\n4\n5\n6\n");
  try {
    (void)boosting::dump_text(linear_sample_model(), 0);
    ADD_FAILURE();
  } catch (const ValueError& e) {
    EXPECT_NE(std::string(e.what()).find("dump_text(model) writes a linear one"),
              std::string::npos);
  }
  EXPECT_THROW((void)boosting::dump_text(m, 1), ValueError);
  EXPECT_THROW((void)boosting::dump_graphviz(m, -1), ValueError);
}

}  // namespace
}  // namespace quern::test::dump
