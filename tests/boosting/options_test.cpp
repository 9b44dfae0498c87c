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
}

}  // namespace
}  // namespace quern::test::options
