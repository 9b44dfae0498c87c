// SPDX-License-Identifier: Apache-2.0

/// \file
/// What a model's check accepts and refuses.

#include "quern/boosting/model.hpp"

#include <limits>
#include <string>

#include <gtest/gtest.h>

#include "sample_model.hpp"

namespace quern::test::model {
namespace {

template <class Change>
std::string refusal(Change change) {
  boosting::Model m = sample_model();
  change(m);
  try {
    m.check("m.json");
  } catch (const ParseError& error) {
    return error.what();
  }
  return "accepted";
}

TEST(Model, CountsRounds) {
  boosting::Model m = sample_model();
  EXPECT_EQ(m.rounds(), 2);
  EXPECT_EQ(m.used_rounds(), 1);
  m.best_round = -1;
  EXPECT_EQ(m.used_rounds(), 2);
  EXPECT_EQ(boosting::Model().rounds(), 0);
  EXPECT_EQ(boosting::Model().used_rounds(), 0);
}

TEST(Model, CheckAccepts) {
  EXPECT_EQ(refusal([](auto&) {}), "accepted");
  EXPECT_NO_THROW(boosting::Model().check("empty"));
}

TEST(Model, CheckRefuses) {
  using M = boosting::Model;
  EXPECT_NE(refusal([](M& m) { m.outputs = 0; }), "accepted");
  EXPECT_NE(refusal([](M& m) { m.parallel_trees = 0; }), "accepted");
  EXPECT_NE(refusal([](M& m) { m.parallel_trees = 3; }), "accepted");
  EXPECT_NE(refusal([](M& m) { m.base_margin.pop_back(); }), "accepted");
  EXPECT_NE(refusal([](M& m) { m.base_margin[0] = std::numeric_limits<double>::infinity(); }),
            "accepted");
  EXPECT_NE(refusal([](M& m) { m.tree_outputs[3] = 2; }), "accepted");
  EXPECT_NE(refusal([](M& m) { m.tree_outputs.pop_back(); }), "accepted");
  EXPECT_NE(refusal([](M& m) { m.tree_weights.pop_back(); }), "accepted");
  EXPECT_NE(refusal([](M& m) { m.best_round = 2; }), "accepted");
  EXPECT_NE(refusal([](M& m) { m.features = 2; }), "accepted");
  EXPECT_NE(refusal([](M& m) { m.feature_names.pop_back(); }), "accepted");
  const std::string text = refusal([](M& m) { m.trees[2].node(0).feature = 9; });
  EXPECT_NE(text.find("m.json, tree 2, node 0"), std::string::npos) << text;
}

TEST(Model, CheckRefusesLinearPartsThatDoNotFit) {
  const auto linear = [](auto change) {
    boosting::Model m = linear_sample_model();
    change(m);
    m.check("m");
  };
  using M = boosting::Model;
  EXPECT_NO_THROW(linear([](M&) {}));
  EXPECT_THROW(linear([](M& m) { m.linear_weights.pop_back(); }), ParseError);
  EXPECT_THROW(linear([](M& m) { m.linear_weights[1] = 1.0 / 0.0; }), ParseError);
  EXPECT_THROW(linear([](M& m) {
                 m.trees.assign(2, tree::Tree());
                 m.tree_outputs = {0, 1};
               }),
               ParseError);
  using Leaves = tree::LinearLeaves;
  const auto leaves = [](auto change) {
    tree::Tree t = linear_leaf_tree();
    change(t.linear);
    t.check(3, "t");
  };
  EXPECT_NO_THROW(leaves([](Leaves&) {}));
  EXPECT_THROW(leaves([](Leaves& l) { l.offsets.pop_back(); }), ParseError);
  EXPECT_THROW(leaves([](Leaves& l) { l.offsets[1] = 3; }), ParseError);
  EXPECT_THROW(leaves([](Leaves& l) { l.offsets[0] = -1; }), ParseError);
  EXPECT_THROW(leaves([](Leaves& l) { l.features[1] = 3; }), ParseError);
  EXPECT_THROW(leaves([](Leaves& l) { l.features[1] = -1; }), ParseError);
  EXPECT_THROW(leaves([](Leaves& l) { l.coefficients.pop_back(); }), ParseError);
  EXPECT_THROW(leaves([](Leaves& l) { l.constants.pop_back(); }), ParseError);
  EXPECT_THROW(leaves([](Leaves& l) { l.constants[0] = 0.0 / 0.0; }), ParseError);
  EXPECT_THROW(leaves([](Leaves& l) { l.offsets.clear(); }), ParseError);
}

}  // namespace
}  // namespace quern::test::model
