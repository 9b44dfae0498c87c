// SPDX-License-Identifier: Apache-2.0

#include "quern/boosting/options.hpp"

#include <gtest/gtest.h>

#include <limits>
#include <string>

namespace quern::test::options {
namespace {

using boosting::Options;

TEST(Options, DefaultsPassAndEveryRangeIsHeld) {
  EXPECT_NO_THROW(Options().check("test"));
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const double inf = std::numeric_limits<double>::infinity();
  const auto refuses = [](const Options& o, const char* name) {
    try {
      o.check("test");
      ADD_FAILURE() << name << " was accepted";
    } catch (const ValueError& e) {
      EXPECT_NE(std::string(e.what()).find(name), std::string::npos) << e.what();
    }
  };
  for (const double bad : {-1.0, 0.0, 1.5, nan, inf}) {
    refuses({.learning_rate = bad}, "learning_rate");
    refuses({.subsample = bad}, "subsample");
    refuses({.colsample_bytree = bad}, "colsample_bytree");
    refuses({.colsample_bylevel = bad}, "colsample_bylevel");
    refuses({.colsample_bynode = bad}, "colsample_bynode");
  }
  for (const double bad : {-1.0, nan, inf}) {
    refuses({.min_child_weight = bad}, "min_child_weight");
    refuses({.gamma = bad}, "gamma");
    refuses({.reg_lambda = bad}, "reg_lambda");
    refuses({.reg_alpha = bad}, "reg_alpha");
    refuses({.max_delta_step = bad}, "max_delta_step");
    refuses({.scale_pos_weight = bad}, "scale_pos_weight");
  }
  for (const double bad : {-1e300, nan, inf}) refuses({.base_score = bad}, "base_score");
  refuses({.nthread = -3}, "nthread");
  refuses({.num_class = -1}, "num_class");
  refuses({.num_round = -1}, "num_round");
  refuses({.max_depth = -1}, "max_depth");
  refuses({.max_depth = 0}, "max_depth");
  refuses({.max_leaves = -1}, "max_leaves");
  refuses({.max_bin = 1}, "max_bin");
  refuses({.max_bin = 256}, "max_bin");
  refuses({.monotone_constraints = {0, 2}}, "monotone_constraints");
  refuses({.early_stopping_rounds = -1}, "early_stopping_rounds");
  refuses({.feature_selector = "best"}, "cyclic or shuffle or random or greedy or thrifty");
  refuses({.top_k = -1}, "top_k");
}

TEST(Options, MessagesSayWhatIsWrong) {
  const auto refusal = [](const Options& o) {
    try {
      o.check("test");
    } catch (const ValueError& e) {
      return std::string(e.what());
    }
    return std::string();
  };
  EXPECT_EQ(refusal({.quantile_alpha = {0}}),
            "test: quantile_alpha: expected levels above 0 and below 1, got 0");
  EXPECT_NE(refusal({.quantile_alpha = {0.5, 0.5}}).find("above 0.5"), std::string::npos);
  EXPECT_NE(refusal({.max_depth = 0}).find("max_leaves above 0"), std::string::npos);
  EXPECT_EQ(refusal({.booster = "gblinear", .max_depth = 0}), "");
}

TEST(Options, DefaultsFollowTheBooster) {
  const Options trees, linear{.booster = "gblinear"};
  EXPECT_EQ(trees.settled().learning_rate, 0.3);
  EXPECT_EQ(trees.settled().reg_lambda, 1);
  EXPECT_EQ(linear.settled().learning_rate, 0.5);
  EXPECT_EQ(linear.settled().reg_lambda, 0);
  EXPECT_EQ(linear.settled().settled().learning_rate, 0.5);
  // What was given stays, also where it is the default of trees.
  const Options given =
      Options{.booster = "gblinear", .learning_rate = 0.3, .reg_lambda = 1}.settled();
  EXPECT_EQ(given.learning_rate, 0.3);
  EXPECT_EQ(given.reg_lambda, 1);
}

}  // namespace
}  // namespace quern::test::options
