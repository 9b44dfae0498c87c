// SPDX-License-Identifier: Apache-2.0

/// \file
/// AdaBoost, voting and stacking against scikit-learn's; bagging's properties; threads, files,
/// input that is not right.

#include "../boosting/reference.hpp"
#include "quern/ensemble/adaboost.hpp"
#include "quern/ensemble/bagging.hpp"
#include "quern/ensemble/learners/linear_regression.hpp"
#include "quern/ensemble/learners/logistic_regression.hpp"
#include "quern/ensemble/learners/naive_bayes.hpp"
#include "quern/ensemble/saving.hpp"
#include "quern/ensemble/scores.hpp"
#include "quern/ensemble/stacking.hpp"
#include "quern/ensemble/voting.hpp"
#include "stump.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

#include <gtest/gtest.h>

namespace quern::test::ensembles {
namespace {

using ensemble::AnyClassifier;
using ensemble::AnyRegressor;
using ensemble::Features;
using ensemble::GaussianNaiveBayes;
using ensemble::LinearRegression;
using ensemble::LogisticRegression;

static_assert(ensemble::Classifier<Stump> && ensemble::Saveable<Stump>);
static_assert(ensemble::Classifier<AnyClassifier> && ensemble::Regressor<AnyRegressor>);
static_assert(ensemble::Classifier<ensemble::BaggingClassifier>);
static_assert(ensemble::Classifier<ensemble::VotingClassifier>);
static_assert(ensemble::Classifier<ensemble::StackingClassifier>);
static_assert(ensemble::Regressor<ensemble::BlendingRegressor>);

template <class Values>
void expect_near(const std::vector<double>& want, const Values& got, double tolerance) {
  ASSERT_EQ(want.size(), static_cast<std::size_t>(got.end() - got.begin()));
  auto at = got.begin();
  for (const double v : want) EXPECT_NEAR(v, static_cast<double>(*at++), tolerance);
}

/// Says the same whatever it is asked: a member with known votes.
struct Canned {
  std::vector<float> says;
  void fit(Features, std::span<const std::int32_t>, std::int32_t, std::span<const float>,
           std::uint64_t) {}
  void predict_proba(Features x, MatrixView<float> out) const {
    for (Index i = 0; i < x.rows(); ++i)
      for (Index c = 0; c < out.cols(); ++c)
        out(i, c) = says[static_cast<std::size_t>(i * out.cols() + c)];
  }
};

class Ensembles : public ::testing::Test {
 protected:
  test::ReferenceText data{"learners.txt", "ensemble"}, reference{"ensembles.txt", "ensemble"};
  std::vector<float> x = data.floats("x"), xt = data.floats("xt"), yr = data.floats("yr");
  std::vector<std::int32_t> y2 = codes("y2"), y3 = codes("y3");
  Features train{x.data(), {90, 5}}, other{xt.data(), {12, 5}};

  std::vector<std::int32_t> codes(const std::string& key) {
    return {data[key].begin(), data[key].end()};
  }
  [[nodiscard]] std::vector<Fold> four_folds() const {
    std::vector<Fold> folds(4);
    for (std::int32_t i = 0; i < 90; ++i) folds[static_cast<std::size_t>(i % 4)].push_back(i);
    return folds;
  }
};

TEST_F(Ensembles, AdaBoostOfStumps) {
  for (const auto& [key, y, classes] :
       {std::tuple{"adaboost2", &y2, 2}, std::tuple{"adaboost3", &y3, 3}}) {
    ensemble::AdaBoostClassifier model(Stump(), {.rounds = 12});
    model.fit(train, *y, classes);
    expect_near(reference[std::string(key) + "_weights"], model.weights(), 1e-5);
    expect_near(reference[std::string(key) + "_errors"], model.errors(), 1e-6);
    expect_near(reference[std::string(key) + "_proba"],
                ensemble::predict_proba(model, other, classes), 1e-5);
  }
}

TEST_F(Ensembles, AdaBoostOnTheRowsOfTheTrees) {
  const auto rows = [](const std::string& name) {
    std::vector<float> values = test::reference_npy<float>(name);
    for (float& v : values) v = is_nan_bits(v) ? -9.0f : v;
    return values;
  };
  const std::vector<float> tx = rows("X"), txt = rows("Xt"), ty = rows("y_mc");
  const Features learn(tx.data(), {311, 9}), ask(txt.data(), {64, 9});
  ensemble::AdaBoostClassifier model(Stump(), {.rounds = 20});
  model.fit(learn, std::vector<std::int32_t>(ty.begin(), ty.end()), 3);
  expect_near(reference["trees_weights"], model.weights(), 1e-4);
  expect_near(reference["trees_errors"], model.errors(), 1e-5);
  expect_near(reference["trees_decision"], model.decision(ask), 1e-4);
}

TEST_F(Ensembles, AdaBoostOfNumbers) {
  ensemble::AdaBoostRegressor model(LinearRegression({.l2 = 1.5}), {.rounds = 6});
  model.fit(train, yr);
  expect_near(reference["r2_weights"], model.weights(), 1e-5);
  expect_near(reference["r2_predictions"], ensemble::predict_values(model, other), 1e-5);
}

TEST_F(Ensembles, AdaBoostStopsWhereNothingIsWrongOrNothingIsLearnt) {
  std::vector<std::int32_t> clear;
  for (Index i = 0; i < 90; ++i) clear.push_back(train(i, 0) > 0 ? 1 : 0);
  ensemble::AdaBoostClassifier model(Stump(), {});
  model.fit(train, clear, 2);
  EXPECT_EQ(model.members().size(), 1u);
  EXPECT_EQ(ensemble::predict_classes(model, train, 2), clear);
  const std::vector<float> same(90, 1.0f);
  model.fit(Features(same.data(), {90, 1}), y2, 2);
  EXPECT_EQ(model.members().size(), 1u);  // only the majority can be told
}

TEST_F(Ensembles, StoredVotes) {
  const ReferenceText stored("stored.txt");
  const std::vector<float> votes = stored.floats("vote.inputs");
  std::vector<AnyClassifier> members;
  for (std::ptrdiff_t m = 0; m < 3; ++m)
    members.emplace_back(Canned{{votes.begin() + m * 192, votes.begin() + (m + 1) * 192}});
  const Features rows(x.data(), {64, 5});
  const std::vector<std::int32_t> y(64, 1);
  ensemble::VotingClassifier soft(members, {.weights = {1, 2, 3}});
  soft.fit(rows, y, 3);
  expect_near(stored["vote.soft_123"], ensemble::predict_proba(soft, rows, 3), 1e-6);
  ensemble::VotingClassifier hard(members, {.vote = ensemble::Vote::hard});
  hard.fit(rows, y, 3);
  expect_near(stored["vote.hard"], ensemble::predict_classes(hard, rows, 3), 0);
}

TEST_F(Ensembles, VotesSoftHardWeighted) {
  const std::vector<float> votes = reference.floats("votes");
  std::vector<AnyClassifier> members;
  for (std::ptrdiff_t m = 0; m < 3; ++m)
    members.emplace_back(Canned{{votes.begin() + m * 48, votes.begin() + (m + 1) * 48}});
  const Features rows(x.data(), {16, 5});
  const std::vector<std::int32_t> y(16, 1);
  ensemble::VotingClassifier soft(members, {.weights = {1, 2, 3}});
  soft.fit(rows, y, 3);
  expect_near(reference["votes_soft_123"], ensemble::predict_proba(soft, rows, 3), 1e-6);
  ensemble::VotingClassifier hard(members, {.vote = ensemble::Vote::hard});
  hard.fit(rows, y, 3);
  expect_near(reference["votes_hard"], ensemble::predict_classes(hard, rows, 3), 0);
  EXPECT_THROW(ensemble::VotingClassifier(members, {.weights = {1, 2}}), ShapeError);
  EXPECT_THROW(ensemble::VotingClassifier(members, {.weights = {0, 0, 0}}), ValueError);
  EXPECT_THROW(ensemble::VotingClassifier(members, {.weights = {1, -1, 1}}), ValueError);
  ArchiveWriter out("box");
  EXPECT_THROW(save_member(out, "model", soft), ValueError);  // Canned cannot be saved
}

TEST_F(Ensembles, Stacks) {
  const std::vector<AnyClassifier> first = {GaussianNaiveBayes(),
                                            LogisticRegression({.l2 = 0.5, .tolerance = 1e-9})};
  for (const auto& [key, y, classes, through] :
       {std::tuple{"stack2", &y2, 2, false}, std::tuple{"stack3", &y3, 3, true}}) {
    ensemble::StackingClassifier model(first, LogisticRegression({.tolerance = 1e-9}),
                                       {.given_folds = four_folds(), .pass_through = through});
    model.fit(train, *y, classes);
    expect_near(reference[key], ensemble::predict_proba(model, other, classes), 1e-4);
  }
  ensemble::StackingRegressor numbers({LinearRegression({.l2 = 3}), LinearRegression({.l2 = 40})},
                                      LinearRegression({.l2 = 1}), {.given_folds = four_folds()});
  numbers.fit(train, yr);
  expect_near(reference["stack_regressor"], ensemble::predict_values(numbers, other), 1e-5);
}

TEST_F(Ensembles, ABagOfOneWithoutSamplingIsTheLearner) {
  Stump stump;
  stump.fit(train, y3, 3, {}, 0);
  ensemble::BaggingClassifier bag(Stump(), {.members = 1, .replace = false});
  bag.fit(train, y3, 3);
  const auto want = ensemble::predict_proba(stump, train, 3);
  const auto got = ensemble::predict_proba(bag, train, 3);
  EXPECT_TRUE(std::equal(want.begin(), want.end(), got.begin()));
}

TEST_F(Ensembles, ABagKeepsWhatItSaw) {
  ensemble::BaggingClassifier bag(GaussianNaiveBayes(),
                                  {.members = 40, .rows = 0.7, .columns = 0.6, .out_of_bag = true});
  bag.fit(train, y3, 3, {}, 3);
  EXPECT_EQ(bag.out_of_bag().rows, 90);
  const double inside = ensemble::accuracy(ensemble::predict_proba(bag, train, 3), y3);
  EXPECT_GT(bag.out_of_bag().score, 0.4);
  EXPECT_GE(inside, bag.out_of_bag().score - 0.02);
  // Rows of weight 0 are not drawn, and do not count.
  std::vector<float> weights(90, 1.0f);
  std::fill(weights.begin(), weights.begin() + 80, 0.0f);
  bag.fit(train, y3, 3, weights, 3);
  ensemble::BaggingClassifier whole(GaussianNaiveBayes(),
                                    {.members = 2, .replace = false, .out_of_bag = true});
  EXPECT_THROW(whole.fit(train, y3, 3), ValueError);
  EXPECT_THROW(ensemble::BaggingClassifier(Stump(), {.members = 0}), ValueError);
  EXPECT_THROW(ensemble::BaggingClassifier(Stump(), {.rows = 1.5}), ValueError);
  EXPECT_THROW(ensemble::BaggingClassifier().fit(train, y3, 3), ValueError);
  EXPECT_THROW((void)ensemble::AdaBoostClassifier().decision(train), ValueError);
}

TEST_F(Ensembles, BlendsAndStacksRefuseWhatCannotBe) {
  const std::vector<AnyClassifier> first = {GaussianNaiveBayes(), Stump()};
  ensemble::BlendingClassifier blend(first, LogisticRegression(), {.hold_out = 0.25});
  blend.fit(train, y3, 3, {}, 1);
  EXPECT_GT(ensemble::accuracy(ensemble::predict_proba(blend, train, 3), y3), 0.5);
  EXPECT_THROW(ensemble::BlendingClassifier(first, Stump(), {.hold_out = 0}), ValueError);
  const auto stack = [&](std::vector<Fold> folds) {
    ensemble::StackingClassifier(first, Stump(), {.given_folds = std::move(folds)})
        .fit(train, y3, 3);
  };
  std::vector<Fold> folds = four_folds();
  folds[2].clear();
  EXPECT_THROW(stack(folds), ShapeError);
  folds = four_folds();
  folds[2].back() = 0;
  EXPECT_THROW(stack(folds), ValueError);
  folds = four_folds();
  folds.pop_back();
  EXPECT_THROW(stack(folds), ShapeError);
  ensemble::StackingClassifier model(first, LogisticRegression(), {.folds = 2});
  const Features one(x.data(), {1, 5});
  EXPECT_THROW(model.fit(one, std::vector<std::int32_t>{0}, 2), ValueError);
  std::vector<std::int32_t> rare(90, 0);  // class 1 is in one fold alone, class 2 in none
  rare[7] = 1;
  model.fit(train, rare, 3);
  EXPECT_EQ(ensemble::predict_classes(model, train, 3)[0], 0);
  std::vector<float> weights(90, 0.0f);
  EXPECT_THROW(model.fit(train, y3, 3, weights), ValueError);
}

TEST_F(Ensembles, OneRowConstantFeaturesAMissingClassAndBadWeights) {
  const Features one(x.data(), {1, 5});
  const std::vector<float> same(50, 2.0f);
  const Features constant(same.data(), {10, 5});
  const std::vector<std::int32_t> most = {0, 2, 2, 0, 2, 2, 2, 0, 2, 2};  // no row of class 1
  const auto check = [&](auto model) {
    model.fit(one, std::vector<std::int32_t>{1}, 2, {}, 1);
    EXPECT_EQ(ensemble::predict_classes(model, one, 2)[0], 1);
    model.fit(constant, most, 3, {}, 1);
    const NdArray<float, 2> p = ensemble::predict_proba(model, constant, 3);
    EXPECT_GT(p(0, 2), p(0, 0));
    EXPECT_LT(p(0, 1), p(0, 2));
    for (const float bad : {0.0f, -1.0f, NAN})
      EXPECT_THROW(model.fit(constant, most, 3, std::vector<float>(10, bad)), ValueError);
    EXPECT_THROW(model.fit(Features(same.data(), {0, 5}), {}, 3), ShapeError);
  };
  check(ensemble::BaggingClassifier(Stump(), {.members = 15}));
  check(ensemble::AdaBoostClassifier(Stump(), {.rounds = 5}));
  check(ensemble::VotingClassifier({GaussianNaiveBayes(), Stump()}));
  ensemble::AdaBoostRegressor numbers(LinearRegression({.l2 = 1}), {.rounds = 3});
  numbers.fit(one, std::vector<float>{3}, {}, 1);
  EXPECT_NEAR(ensemble::predict_values(numbers, one)[0], 3.0f, 1e-5f);
  numbers.fit(constant, std::vector<float>(10, 4.0f), {}, 1);
  EXPECT_NEAR(ensemble::predict_values(numbers, constant)[0], 4.0f, 1e-5f);
}

template <class Model, class Fit, class Predict>
void expect_same_bits(Model model, const Fit& fit, const Predict& predict) {
  Model back = model;
  set_default_threads(1);
  fit(model);
  const auto want = predict(model);
  for (const int threads : {2, 3}) {
    set_default_threads(threads);
    Model again = back;
    fit(again);
    const auto got = predict(again);
    EXPECT_TRUE(std::equal(want.begin(), want.end(), got.begin()));
  }
  set_default_threads(0);
  ArchiveWriter out("box");
  save_member(out, "model", model);
  load_member(ArchiveReader(out.bytes()), "model", back);
  const auto got = predict(back);
  EXPECT_TRUE(std::equal(want.begin(), want.end(), got.begin()));
}

TEST_F(Ensembles, SameBitsForAnyThreadsAndFromFiles) {
  const auto classifier = [&](auto model) {
    expect_same_bits(
        model, [&](auto& m) { m.fit(train, y3, 3, {}, 5); },
        [&](const auto& m) { return ensemble::predict_proba(m, other, 3); });
  };
  const auto regressor = [&](auto model) {
    expect_same_bits(
        model, [&](auto& m) { m.fit(train, yr, {}, 5); },
        [&](const auto& m) { return ensemble::predict_values(m, other); });
  };
  const std::vector<AnyClassifier> first = {
      GaussianNaiveBayes(), Stump(),
      ensemble::BaggingClassifier(Stump(), {.members = 4, .columns = 0.5})};
  classifier(ensemble::BaggingClassifier(Stump(), {.members = 9, .columns = 0.7}));
  classifier(ensemble::AdaBoostClassifier(Stump(), {.rounds = 5}));
  classifier(ensemble::VotingClassifier(first));
  classifier(ensemble::StackingClassifier(first, LogisticRegression(), {.pass_through = true}));
  classifier(ensemble::BlendingClassifier(first, Stump()));
  regressor(ensemble::AdaBoostRegressor(LinearRegression(), {.rounds = 4}));
  regressor(ensemble::BaggingRegressor(LinearRegression({.l2 = 1}), {.members = 5}));
}

TEST_F(Ensembles, LoadsOnlyItsOwnKinds) {
  ensemble::VotingClassifier model({GaussianNaiveBayes(), Stump()});
  model.fit(train, y3, 3);
  ArchiveWriter out("box");
  save_member(out, "model", model);
  ensemble::VotingClassifier others({Stump(), GaussianNaiveBayes()});
  EXPECT_THROW(load_member(ArchiveReader(out.bytes()), "model", others), ParseError);
}

TEST_F(Ensembles, FilesKeepVotesAndTheNumberOfMembers) {
  const std::vector<AnyClassifier> two = {GaussianNaiveBayes(), Stump()};
  const std::vector<AnyClassifier> one = {GaussianNaiveBayes()};
  const std::vector<AnyClassifier> three = {GaussianNaiveBayes(), Stump(), Stump()};
  ensemble::VotingClassifier model(two, {.vote = ensemble::Vote::hard, .weights = {1, 3}});
  model.fit(train, y3, 3);
  ArchiveWriter out("box");
  save_member(out, "vote", model);
  ensemble::StackingClassifier stack(two, LogisticRegression());
  stack.fit(train, y3, 3);
  save_member(out, "stack", stack);
  const ArchiveReader in(out.bytes());
  ensemble::VotingClassifier back(two);
  load_member(in, "vote", back);
  const auto want = ensemble::predict_proba(model, other, 3);
  const auto got = ensemble::predict_proba(back, other, 3);
  EXPECT_TRUE(std::equal(want.begin(), want.end(), got.begin()));
  for (const auto& wrong : {one, three}) {
    ensemble::VotingClassifier votes(wrong);
    EXPECT_THROW(load_member(in, "vote", votes), ParseError);
    ensemble::StackingClassifier layers(wrong, LogisticRegression());
    EXPECT_THROW(load_member(in, "stack", layers), ParseError);
  }
  // A file from before votes were written: those of the model that reads it.
  ArchiveWriter old("ensemble.voting_classifier", ensemble::learner_version);
  old.scalar("outputs", std::int64_t{3});
  ensemble::detail::save_members<ensemble::Classification>(old, model.members());
  ensemble::VotingClassifier reader(two, {.vote = ensemble::Vote::hard, .weights = {1, 3}});
  reader.load(ArchiveReader(old.bytes()));
  const auto same = ensemble::predict_proba(reader, other, 3);
  EXPECT_TRUE(std::equal(want.begin(), want.end(), same.begin()));
}

TEST_F(Ensembles, ErrorsNameTheirCauseAndChangeNothing) {
  ensemble::BaggingClassifier bag(Stump(), {.members = 1, .rows = 0.9, .out_of_bag = true});
  bag.fit(train, y3, 3);
  const auto before = ensemble::predict_proba(bag, other, 3);
  EXPECT_THROW(bag.fit(Features(x.data(), {1, 5}), std::vector<std::int32_t>{1}, 2), ValueError);
  const auto after = ensemble::predict_proba(bag, other, 3);
  EXPECT_TRUE(std::equal(before.begin(), before.end(), after.begin()));
  const auto expect_named = [](const std::string& what, const auto& run) {
    try {
      run();
      FAIL() << what;
    } catch (const ValueError& e) {
      EXPECT_NE(std::string(e.what()).find(what), std::string::npos) << e.what();
    }
  };
  expect_named("learning_rate", [&] {
    ensemble::AdaBoostClassifier(Stump(), {.learning_rate = 1e4}).fit(train, y3, 3);
  });
  expect_named("hold_out", [&] {
    ensemble::BlendingClassifier({AnyClassifier(Stump())}, Stump(), {.hold_out = 1e-300})
        .fit(train, y3, 3);
  });
  expect_named("weights", [] {
    ensemble::VotingClassifier({GaussianNaiveBayes(), Stump()}, {.weights = {1.7e308, 1.7e308}});
  });
}

TEST_F(Ensembles, ScoresNeedAWeightForEachRow) {
  const std::vector<float> scores = {0, 1, 1, 0}, truth = {1, 2}, none = {0, 0}, few = {1};
  const Features two(scores.data(), {2, 2}), column(truth.data(), {2, 1});
  const std::vector<std::int32_t> codes = {1, 0};
  EXPECT_EQ(ensemble::accuracy(two, codes), 1);
  EXPECT_THROW((void)ensemble::accuracy(two, codes, few), ShapeError);
  EXPECT_EQ(ensemble::r_squared(column, truth), 1);
  EXPECT_EQ(ensemble::r_squared(column, truth, none), 0);
  EXPECT_THROW((void)ensemble::r_squared(column, truth, few), ShapeError);
  EXPECT_THROW((void)ensemble::r_squared(two, truth), ShapeError);
}

TEST_F(Ensembles, ShufflingTellsTheUsefulFeatures) {
  std::vector<std::int32_t> clear;
  for (Index i = 0; i < 90; ++i) clear.push_back(train(i, 2) > 0 ? 1 : 0);
  Stump stump;
  stump.fit(train, clear, 2, {}, 0);
  const auto found = ensemble::shuffle_importance<ensemble::Classification>(
      stump, train, ensemble::Classes{clear, 2});
  EXPECT_EQ(found.score, 1);
  EXPECT_GT(found.mean[2], 0.3);
  EXPECT_EQ(found.mean[0], 0);
}

}  // namespace
}  // namespace quern::test::ensembles
