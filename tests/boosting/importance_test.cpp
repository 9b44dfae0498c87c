// SPDX-License-Identifier: Apache-2.0

/// \file
/// Importances counted by hand; those of XGBoost's own models are compared in the test of its
/// format.

#include "quern/boosting/importance.hpp"

#include <vector>

#include <gtest/gtest.h>

#include "sample_model.hpp"

namespace quern::test::importance {
namespace {

using boosting::Importance;

TEST(Importance, CountsSplits) {
  const boosting::Model m = sample_model();
  using V = std::vector<double>;
  EXPECT_EQ(boosting::importance(m, Importance::weight), (V{4, 0, 4}));
  EXPECT_EQ(boosting::importance(m, Importance::total_gain), (V{30, 0, 4.0 / 3}));
  EXPECT_EQ(boosting::importance(m, Importance::gain), (V{7.5, 0, 1.0 / 3}));
  EXPECT_EQ(boosting::importance(m, Importance::total_cover), (V{40, 0, 24}));
  EXPECT_EQ(boosting::importance(m, Importance::cover), (V{10, 0, 6}));
}

TEST(Importance, HasXgboostsNames) {
  EXPECT_EQ(boosting::importance_from_name("total_gain"), Importance::total_gain);
  EXPECT_EQ(boosting::importance_from_name("weight"), Importance::weight);
  EXPECT_THROW((void)boosting::importance_from_name("Gain"), ValueError);
}

}  // namespace
}  // namespace quern::test::importance
