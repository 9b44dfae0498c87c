// SPDX-License-Identifier: Apache-2.0

/// \file
/// Boosted trees as learners: what a Booster predicts, in bags and stacks, from files.

#include "quern/boosting/learner.hpp"

#include "quern/core/random.hpp"
#include "quern/ensemble/bagging.hpp"
#include "quern/ensemble/learner.hpp"
#include "quern/ensemble/saving.hpp"
#include "quern/ensemble/scores.hpp"

#include <algorithm>
#include <cstdint>
#include <vector>

#include <gtest/gtest.h>

namespace quern::test::boosted_learner {
namespace {

using boosting::BoostedClassifier;
using boosting::BoostedRegressor;
static_assert(ensemble::Classifier<BoostedClassifier> && ensemble::Saveable<BoostedClassifier>);
static_assert(ensemble::Regressor<BoostedRegressor> && ensemble::Saveable<BoostedRegressor>);

struct Made {
  std::vector<float> x, target;
  std::vector<std::int32_t> y;

  Made() {
    Philox rng(2, "boosted learner test");
    for (int i = 0; i < 400; ++i) {
      for (int f = 0; f < 3; ++f) x.push_back(rng.normal<float>());
      target.push_back(x[x.size() - 3] * x[x.size() - 2]);
      y.push_back(target.back() > 0.5f ? 2 : target.back() > -0.5f ? 1 : 0);
    }
  }
  [[nodiscard]] ensemble::Features rows() const { return {x.data(), {400, 3}}; }
};

TEST(BoostedLearner, IsTheBooster) {
  const Made made;
  BoostedRegressor model({.num_round = 5});
  model.fit(made.rows(), made.target);
  boosting::Booster booster({.num_round = 5});
  booster.fit(tree::make_dataset(made.rows(), made.target));
  const auto want = booster.predict(tree::make_dataset(made.rows()));
  const std::vector<float> got = ensemble::predict_values(model, made.rows());
  EXPECT_TRUE(std::equal(got.begin(), got.end(), want.begin()));
}

TEST(BoostedLearner, TellsOneTwoAndManyClasses) {
  const Made made;
  for (const std::int32_t classes : {1, 2, 3}) {
    std::vector<std::int32_t> y = made.y;
    for (std::int32_t& code : y) code = (std::min)(code, classes - 1);
    BoostedClassifier model({.num_round = 20});
    model.fit(made.rows(), y, classes);
    const auto p = ensemble::predict_proba(model, made.rows(), classes);
    EXPECT_GT(ensemble::accuracy(p.view(), y), 0.95);
    ArchiveWriter out("box");
    ensemble::save_member(out, "model", model);
    BoostedClassifier back;
    ensemble::load_member(ArchiveReader(out.bytes()), "model", back);
    const auto again = ensemble::predict_proba(back, made.rows(), classes);
    EXPECT_TRUE(std::equal(p.begin(), p.end(), again.begin()));
  }
  BoostedClassifier model;
  EXPECT_THROW(model.fit(made.rows(), made.y, 2), ValueError);
  EXPECT_THROW((void)ensemble::predict_proba(model, made.rows(), 0), ValueError);
}

TEST(BoostedLearner, CanBeBagged) {
  const Made made;
  ensemble::BaggingClassifier bag(BoostedClassifier({.num_round = 10}),
                                  {.members = 4, .out_of_bag = true});
  bag.fit(made.rows(), made.y, 3, {}, 1);
  EXPECT_GT(bag.out_of_bag().score, 0.8);
}

}  // namespace
}  // namespace quern::test::boosted_learner
