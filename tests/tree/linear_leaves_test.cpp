// SPDX-License-Identifier: Apache-2.0

#include "quern/tree/linear_leaves.hpp"

#include <gtest/gtest.h>

#include <cstdint>
#include <functional>
#include <limits>
#include <string>
#include <vector>

namespace quern::test::linear_leaves {
namespace {

using tree::LinearLeaves;

/// Three nodes: the root, a leaf 0.5 + 2 x3 - x0, and a leaf that is constant.
LinearLeaves leaves() { return {{0, 0, 2, 2}, {3, 0}, {2.0, -1.0}, {0, 0.5, 7}}; }

TEST(LinearLeaves, AddUpTheirTermsUnlessAValueIsMissing) {
  const LinearLeaves l = leaves();
  EXPECT_FALSE(l.empty());
  EXPECT_EQ(l.terms(), 2);
  std::vector<std::int32_t> asked;
  const auto row = [&](std::int32_t f, bool&) {
    asked.push_back(f);
    return f == 3 ? 10.0 : 4.0;
  };
  EXPECT_EQ(l.value(1, -9, row), 0.5 + 20 - 4);
  EXPECT_EQ(asked, (std::vector<std::int32_t>{3, 0}));
  EXPECT_EQ(l.value(2, -9, row), 7);
  const auto lacks = [](std::int32_t f, bool& missing) {
    missing = f == 0;
    return 1.0;
  };
  EXPECT_EQ(l.value(1, -9, lacks), -9);
  EXPECT_EQ(l.value(2, -9, lacks), 7);
}

TEST(LinearLeaves, RefuseWhatDoesNotFitTheTree) {
  EXPECT_NO_THROW(leaves().check(3, 4, "here"));
  EXPECT_NO_THROW(LinearLeaves().check(3, 4, "here"));
  constexpr double inf = std::numeric_limits<double>::infinity();
  struct Case {
    const char* field;
    std::function<void(LinearLeaves&)> spoil;
  };
  const Case cases[] = {
      {"offsets", [](auto& l) { l.offsets.pop_back(); }},
      {"offsets",
       [](auto& l) {
         l.offsets = {0, 2, 1, 2};
       }},
      {"offsets",
       [](auto& l) {
         l.offsets = {1, 1, 2, 2};
       }},
      {"offsets", [](auto& l) { l.offsets.back() = 3; }},
      {"offsets", [](auto& l) { l.offsets.clear(), l.constants.clear(); }},
      {"constants", [](auto& l) { l.constants.pop_back(); }},
      {"constant", [](auto& l) { l.constants[0] = inf; }},
      {"coefficients", [](auto& l) { l.coefficients.push_back(1); }},
      {"coefficient",
       [](auto& l) { l.coefficients[1] = std::numeric_limits<double>::quiet_NaN(); }},
      {"feature", [](auto& l) { l.features[0] = 4; }},
      {"feature", [](auto& l) { l.features[0] = -1; }}};
  for (const Case& c : cases) {
    LinearLeaves l = leaves();
    c.spoil(l);
    try {
      l.check(3, 4, "here");
      FAIL() << c.field;
    } catch (const ParseError& e) {
      EXPECT_NE(std::string(e.what()).find(std::string("here: linear ") + c.field),
                std::string::npos)
          << e.what();
    }
  }
}

}  // namespace
}  // namespace quern::test::linear_leaves
