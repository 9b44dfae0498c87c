// SPDX-License-Identifier: Apache-2.0

/// \file
/// Options by name and text.

#include "quern/boosting/options_text.hpp"

#include <string>
#include <vector>

#include <gtest/gtest.h>

namespace quern::test::options_text {
namespace {

using boosting::Options;
using boosting::options_from;

TEST(OptionsText, NamesAliasesAndKindsOfValues) {
  const Options o = options_from({{"objective", "multi:softprob"},
                                  {"eta", "0.05"},
                                  {"lambda", "2"},
                                  {"alpha", "1e-3"},
                                  {"min_split_loss", "0.5"},
                                  {"n_estimators", "77"},
                                  {"grow_policy", "lossguide"},
                                  {"one_drop", "true"},
                                  {"monotone_constraints", "(1, 0,-1)"},
                                  {"interaction_constraints", "[[0, 1], [2,3,4]]"},
                                  {"eval_metric", "mlogloss,merror"},
                                  {"base_score", "0.5"},
                                  {"random_state", "12345678901"},
                                  {"data_sample_strategy", "goss"}});
  EXPECT_EQ(o.objective, "multi:softprob");
  EXPECT_EQ(o.learning_rate, 0.05);
  EXPECT_EQ(o.reg_lambda, 2);
  EXPECT_EQ(o.reg_alpha, 1e-3);
  EXPECT_EQ(o.gamma, 0.5);
  EXPECT_EQ(o.num_round, 77);
  EXPECT_EQ(o.grow_policy, tree::GrowPolicy::lossguide);
  EXPECT_TRUE(o.one_drop);
  EXPECT_EQ(o.monotone_constraints, (std::vector<std::int8_t>{1, 0, -1}));
  EXPECT_EQ(o.interaction_constraints, (std::vector<std::vector<std::int32_t>>{{0, 1}, {2, 3, 4}}));
  EXPECT_EQ(o.eval_metric, (std::vector<std::string>{"mlogloss", "merror"}));
  EXPECT_EQ(o.base_score, 0.5);
  EXPECT_EQ(o.seed, 12345678901u);
  EXPECT_EQ(o.sampling_method, "goss");
}

TEST(OptionsText, GblinearHasItsOwnDefaults) {
  EXPECT_EQ(options_from({{"booster", "gblinear"}}).learning_rate, 0.5);
  EXPECT_EQ(options_from({{"booster", "gblinear"}}).reg_lambda, 0);
  const Options o = options_from({{"booster", "gblinear"}, {"eta", "0.1"}, {"lambda", "3"}});
  EXPECT_EQ(o.learning_rate, 0.1);
  EXPECT_EQ(o.reg_lambda, 3);
  EXPECT_EQ(options_from({{"booster", "dart"}}).learning_rate, 0.3);
  const Options two = options_from({{"booster", "gblinear"}, {"top_k", "2"}}, {.reg_lambda = 4});
  EXPECT_EQ(two.reg_lambda, 4);
  EXPECT_EQ(two.top_k, 2);
}

std::string refusal(const std::string& name, const std::string& text) {
  try {
    (void)options_from({{name, text}});
  } catch (const ValueError& error) {
    return error.what();
  }
  return "accepted";
}

TEST(OptionsText, ErrorsNameTheNearestAndTheExpected) {
  EXPECT_NE(refusal("max_dept", "3").find("'max_depth'"), std::string::npos);
  EXPECT_TRUE(refusal("max_dept", "3").starts_with("quern::boosting::set_option: "));
  EXPECT_THROW((void)boosting::option_name("max_dept"), ValueError);
  EXPECT_NE(refusal("device", "cuda").find("processors"), std::string::npos);
  EXPECT_NE(refusal("lamda", "3").find("'lambda'"), std::string::npos);
  EXPECT_NE(refusal("colsample_by_tree", "3").find("'colsample_bytree'"), std::string::npos);
  EXPECT_NE(refusal("max_depth", "6.5").find("whole number"), std::string::npos);
  EXPECT_NE(refusal("max_depth", "99999999999").find("whole number"), std::string::npos);
  EXPECT_NE(refusal("eta", "").find("a number"), std::string::npos);
  EXPECT_NE(refusal("eta", "fast").find("'fast'"), std::string::npos);
  EXPECT_NE(refusal("grow_policy", "depth").find("depthwise, lossguide"), std::string::npos);
  EXPECT_NE(refusal("one_drop", "yes").find("true or false"), std::string::npos);
  EXPECT_NE(refusal("interaction_constraints", "0,1"), "accepted");
  EXPECT_NE(refusal("monotone_constraints", "(1,x)"), "accepted");
  EXPECT_EQ(boosting::split_option(" eta = 0.1"),
            std::pair(std::string("eta"), std::string("0.1")));
  EXPECT_THROW((void)boosting::split_option("eta"), ValueError);
}

}  // namespace
}  // namespace quern::test::options_text
