// SPDX-License-Identifier: Apache-2.0

/// \file
/// The tree as data: growing, routing, counting, and what check() refuses.

#include "quern/tree/tree.hpp"

#include <cmath>
#include <cstdint>
#include <limits>
#include <string>

#include <gtest/gtest.h>

namespace quern::test::tree_tree {
namespace {

using tree::MissingRule;
using tree::Node;
using tree::SplitKind;
using tree::Tree;

/// Root on feature 0 at 1.5, left child on feature 1 at -2.
Tree small_tree() {
  Tree t;
  const std::int32_t left = t.split(0);
  t.node(0).feature = 0;
  t.node(0).threshold = 1.5;
  const std::int32_t deeper = t.split(left);
  t.node(left).feature = 1;
  t.node(left).threshold = -2;
  t.node(left).default_left = true;
  t.node(deeper).value = 1;
  t.node(deeper + 1).value = 2;
  t.node(2).value = 3;
  return t;
}

template <class Change>
std::string refusal(Change change, std::int64_t features = 2) {
  Tree t = small_tree();
  change(t);
  try {
    t.check(features, "tree 7 of x");
  } catch (const ParseError& error) {
    return error.what();
  }
  return "accepted";
}

TEST(Tree, StartsAsOneLeaf) {
  const Tree t;
  EXPECT_EQ(t.size(), 1);
  EXPECT_EQ(t.leaves(), 1);
  EXPECT_EQ(t.depth(), 0);
  EXPECT_NO_THROW(t.check(0, "t"));
}

TEST(Tree, SplitMakesTwoLeaves) {
  const Tree t = small_tree();
  EXPECT_EQ(t.size(), 5);
  EXPECT_EQ(t.leaves(), 3);
  EXPECT_EQ(t.depth(), 2);
  EXPECT_EQ(t.node(3).parent, 1);
  EXPECT_NO_THROW(t.check(2, "t"));
}

TEST(Tree, RoutesNumbersAndMissing) {
  const Tree t = small_tree();
  EXPECT_EQ(t.next(t.node(0), 1.4999, false), 1);
  EXPECT_EQ(t.next(t.node(0), 1.5, false), 2);
  EXPECT_EQ(t.next(t.node(0), 0, true), 2);
  EXPECT_EQ(t.next(t.node(1), 0, true), 3);
}

TEST(Tree, RoutesByTheRuleForMissingValues) {
  Tree t = small_tree();
  Node& n = t.node(0);
  const double tiny = tree::zero_bound;
  for (double threshold : {-1.0, -tiny, -0.0, 0.0, tiny, 2 * tiny, 1.0}) {
    SCOPED_TRACE(threshold);
    n.threshold = threshold;
    for (bool left : {false, true}) {
      n.default_left = left;
      n.missing = MissingRule::none;
      EXPECT_EQ(t.next(n, 0, true), 0 < threshold ? 1 : 2);
      EXPECT_EQ(t.next(n, tiny, false), tiny < threshold ? 1 : 2);
      EXPECT_TRUE(n.is_plain());
      n.missing = MissingRule::zero;
      EXPECT_EQ(t.next(n, 0, true), left ? 1 : 2);
      bool plain = true;
      for (double x : {-tiny, -0.0, 0.0, 1e-300, tiny}) {
        EXPECT_EQ(t.next(n, x, false), left ? 1 : 2) << x;
        plain = plain && left == (x < threshold);
      }
      EXPECT_EQ(n.is_plain(), plain);
      for (double x : {-1.5, -1.01 * tiny, 1.01 * tiny, 1.5})
        EXPECT_EQ(t.next(n, x, false), x < threshold ? 1 : 2) << x;
    }
  }
}

TEST(Tree, RoutesCategories) {
  Tree t = small_tree();
  t.node(0).kind = SplitKind::categorical;
  t.category_words = {1u << 3, 1u << 1};  // 3 and 33
  t.node(0).category_count = 2;
  t.check(2, "t");
  for (double in : {3.0, 33.0, 3.9}) EXPECT_EQ(t.next(t.node(0), in, false), 2) << in;
  for (double out : {0.0, 4.0, 64.0, 1e9, 1e300, -1.0, -0.5}) {
    EXPECT_EQ(t.next(t.node(0), out, false), 1) << out;
  }
}

TEST(Tree, KeepsPlacesThatNobodyReaches) {
  Tree t = small_tree();
  t.nodes.push_back(Node());
  EXPECT_NO_THROW(t.check(2, "t"));
  EXPECT_FALSE(t.in_use(5));
  EXPECT_EQ(t.leaves(), 3);
  EXPECT_EQ(t.depth(), 2);
}

TEST(Tree, DeepChain) {
  Tree t;
  std::int32_t at = 0;
  for (int d = 0; d < 5000; ++d) {
    const std::int32_t left = t.split(at);
    t.node(at).feature = 0;
    at = left + 1;
  }
  EXPECT_EQ(t.depth(), 5000);
  EXPECT_NO_THROW(t.check(1, "t"));
}

TEST(Tree, CheckNamesThePlace) {
  const std::string text = refusal([](Tree& t) { t.node(1).feature = 2; });
  EXPECT_NE(text.find("tree 7 of x, node 1"), std::string::npos) << text;
  EXPECT_NE(text.find("feature"), std::string::npos) << text;
}

TEST(Tree, CheckRefuses) {
  constexpr double nan = std::numeric_limits<double>::quiet_NaN();
  constexpr double inf = std::numeric_limits<double>::infinity();
  EXPECT_NE(refusal([](Tree& t) { t.nodes.clear(); }), "accepted");
  EXPECT_NE(refusal([](Tree& t) { t.node(0).parent = 0; }), "accepted");
  EXPECT_NE(refusal([](Tree& t) { t.node(1).left = 0; }), "accepted");  // a cycle
  EXPECT_NE(refusal([](Tree& t) { t.node(1).left = 1; }), "accepted");
  EXPECT_NE(refusal([](Tree& t) { t.node(1).right = 3; }), "accepted");   // the same child twice
  EXPECT_NE(refusal([](Tree& t) { t.node(1).right = 2; }), "accepted");   // somebody else's child
  EXPECT_NE(refusal([](Tree& t) { t.node(1).right = 5; }), "accepted");   // out of range
  EXPECT_NE(refusal([](Tree& t) { t.node(1).right = -1; }), "accepted");  // half a split
  EXPECT_NE(refusal([](Tree& t) { t.node(1).left = -1; }), "accepted");
  EXPECT_NE(refusal([](Tree& t) { t.node(4).parent = 0; }), "accepted");
  EXPECT_NE(refusal([](Tree& t) { t.node(4).parent = -1; }), "accepted");
  EXPECT_NE(refusal([](Tree& t) { t.node(0).feature = -1; }), "accepted");
  EXPECT_NE(refusal([](Tree& t) { t.node(0).threshold = nan; }), "accepted");
  EXPECT_NE(refusal([](Tree& t) { t.node(4).value = inf; }), "accepted");
  EXPECT_NE(refusal([](Tree& t) { t.node(0).category_count = 1; }), "accepted");
  EXPECT_NE(refusal([](Tree& t) { t.outputs = 0; }), "accepted");
  EXPECT_NE(refusal([](Tree& t) { t.outputs = 2; }), "accepted");
  EXPECT_NE(refusal([](Tree& t) { t.vector_values.assign(10, 0.0); }), "accepted");
  EXPECT_NE(refusal([](Tree& t) {
              Node orphan;
              orphan.parent = 4;
              t.nodes.push_back(orphan);
            }),
            "accepted");
  EXPECT_EQ(refusal([](Tree& t) { t.node(0).threshold = inf; }), "accepted");
}

/// Feature 0 at 1, then feature 1 at 2 in both children.
Tree symmetric_tree() {
  Tree t;
  for (std::int32_t i = 0; i < 3; ++i) {
    t.split(i);
    t.node(i).feature = i == 0 ? 0 : 1;
    t.node(i).threshold = i == 0 ? 1 : 2;
  }
  t.symmetric = true;
  return t;
}

TEST(Tree, SymmetricMeansWhatItSays) {
  const auto accepted = [](auto change) {
    Tree t = symmetric_tree();
    change(t);
    try {
      t.check(3, "t");
    } catch (const ParseError&) {
      return false;
    }
    return true;
  };
  EXPECT_TRUE(accepted([](Tree&) {}));
  EXPECT_TRUE(accepted([](Tree& t) { t.nodes.assign(1, Node()); }));
  EXPECT_FALSE(accepted([](Tree& t) { t.node(2).threshold = 3; }));
  EXPECT_FALSE(accepted([](Tree& t) { t.node(2).feature = 2; }));
  EXPECT_FALSE(accepted([](Tree& t) { t.node(1).default_left = true; }));
  EXPECT_FALSE(accepted([](Tree& t) { t.split(3); }));
  EXPECT_FALSE(accepted([](Tree& t) { t.nodes.emplace_back(); }));
  EXPECT_TRUE(accepted([](Tree& t) {
    for (const std::int32_t i : {1, 2}) {
      t.node(i).kind = SplitKind::categorical;
      t.node(i).category_begin = static_cast<std::uint32_t>(i - 1);
      t.node(i).category_count = 1;
    }
    t.category_words = {5, 5};
  }));
}

}  // namespace
}  // namespace quern::test::tree_tree
