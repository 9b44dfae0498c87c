// SPDX-License-Identifier: Apache-2.0

/// \file
/// dart, forests, samples by gradient, linear leaves, class weights: margins of training are those
/// of prediction, and each learns.

#include "quern/boosting/tree_rounds.hpp"

#include "quern/boosting/booster.hpp"

#include <cmath>
#include <cstdint>
#include <functional>
#include <limits>
#include <memory>
#include <string>
#include <vector>

#include <gtest/gtest.h>

#include "made_data.hpp"

namespace quern::test::tree_rounds {
namespace {

using boosting::Booster;
using boosting::Options;

struct Data : MadeData {
  Data(std::int64_t rows, int classes, std::uint64_t seed)
      : MadeData(rows, classes, seed, 5, 0.2f, "tree rounds test") {}
};

/// Trains, and checks every round's metrics against predictions of the model as it was then.
Booster fit_checked(const Options& options, const Data& train, const Data& test) {
  const tree::Dataset d = train.dataset(), t = test.dataset();
  class Check final : public boosting::Callback {
   public:
    Check(const tree::Dataset& train, const tree::Dataset& test) : sets_{&train, &test} {}
    bool after_round(const boosting::RoundView& view) override {
      const Booster now(view.model);
      for (std::size_t s = 0; s < 2; ++s) {
        const NdArray<float, 2> p = now.predict(*sets_[s]);
        const auto metric =
            boosting::make_metric(view.history.curves[s].metric, view.model.outputs);
        const double value = metric.value({p.data(), static_cast<std::size_t>(p.size())},
                                          view.model.outputs, {sets_[s]->labels, {}});
        EXPECT_NEAR(view.history.curves[s].values.back(), value, 2e-6) << view.done;
      }
      return true;
    }

   private:
    const tree::Dataset* sets_[2];
  };
  Booster b(options);
  b.fit(d, {.eval_sets = {{"test", &t}},
            .eval_train = true,
            .callbacks = {std::make_shared<Check>(d, t)}});
  return b;
}

TEST(Dart, FactorsByHand) {
  using boosting::detail::dart_factors;
  EXPECT_EQ(dart_factors(false, 0, 1, 0.3).added, 1);
  EXPECT_DOUBLE_EQ(dart_factors(false, 3, 1, 0.3).dropped, 3 / 3.3);
  EXPECT_DOUBLE_EQ(dart_factors(false, 3, 1, 0.3).added, 1 / 3.3);
  EXPECT_DOUBLE_EQ(dart_factors(false, 3, 2, 0.3).added, 1 / 3.15);
  EXPECT_DOUBLE_EQ(dart_factors(true, 3, 1, 0.3).dropped, 1 / 1.3);
  EXPECT_DOUBLE_EQ(dart_factors(true, 3, 1, 0.3).added, 1 / 1.3);
}

TEST(Dart, DropsAsAsked) {
  using boosting::detail::dropped_trees;
  std::vector<double> weights(100, 1.0);
  weights[7] = 400;
  Options o{.booster = "dart", .rate_drop = 0.2};
  const auto mean_of = [&](std::size_t tree) {
    double hits = 0, all = 0;
    for (std::uint64_t r = 0; r < 400; ++r) {
      const auto dropped = dropped_trees(o, weights, r);
      all += static_cast<double>(dropped.size());
      for (const std::size_t t : dropped) hits += t == tree ? 1 : 0;
    }
    return std::pair(all / 400, hits / 400);
  };
  EXPECT_NEAR(mean_of(7).first, 20, 1);
  EXPECT_NEAR(mean_of(7).second, 0.2, 0.06);
  o.sample_type = "weighted";
  EXPECT_EQ(mean_of(7).second, 1);  // 0.2 * 100 * 400 / 499 > 1
  EXPECT_NEAR(mean_of(8).second, 0.2 * 100 / 499, 0.03);
  o.skip_drop = 1;
  EXPECT_EQ(mean_of(7).first, 0);
  o.skip_drop = 0;
  o.rate_drop = 0;
  EXPECT_EQ(mean_of(7).first, 0);
  o.one_drop = true;
  EXPECT_EQ(mean_of(7).first, 1);
  EXPECT_NEAR(mean_of(7).second, 400.0 / 499, 0.07);
}

TEST(Dart, MarginsOfEveryRoundAreThoseOfPrediction) {
  for (const char* normalize : {"tree", "forest"}) {
    const Booster b = fit_checked({.objective = "multi:softprob",
                                   .booster = "dart",
                                   .num_round = 12,
                                   .max_depth = 3,
                                   .rate_drop = 0.3,
                                   .one_drop = true,
                                   .sample_type = "weighted",
                                   .normalize_type = normalize},
                                  Data(600, 3, 1), Data(200, 3, 2));
    ASSERT_EQ(b.model().tree_weights.size(), 36u);
    EXPECT_LT(b.model().tree_weights[0], 1);
    EXPECT_LT(b.history().curves[1].values.back(), 0.75);
  }
}

TEST(Dart, WithoutDropsItIsGbtree) {
  const Data train(500, 2, 1), test(100, 2, 2);
  const Booster dart =
      fit_checked({.objective = "binary:logistic", .booster = "dart", .num_round = 5}, train, test);
  const Booster tree = fit_checked({.objective = "binary:logistic", .num_round = 5}, train, test);
  const auto a = dart.predict_margin(test.dataset()), b = tree.predict_margin(test.dataset());
  for (std::int64_t i = 0; i < a.size(); ++i) EXPECT_NEAR(a.data()[i], b.data()[i], 1e-5);
}

TEST(Dart, GoesOnFromAModelOfOtherCutsAndStopsAtItsBestWeights) {
  const Data first(400, 0, 1), second(700, 0, 5), test(200, 0, 2);
  const tree::Dataset t = test.dataset();
  Booster b({.num_round = 6, .max_depth = 3});
  b.fit(first.dataset());
  Booster dart(b.model(), {.booster = "dart", .num_round = 8, .max_depth = 3, .rate_drop = 0.4});
  const auto& h =
      dart.fit(second.dataset(), {.eval_sets = {{"test", &t}}, .continue_training = true});
  const auto p = dart.predict(t);
  const double last = boosting::rmse({p.data(), 200}, 1, {t.labels, {}});
  EXPECT_NEAR(h.curves[0].values.back(), last, 1e-6);
  EXPECT_EQ(dart.model().rounds(), 14);

  Options o{.booster = "dart",
            .num_round = 60,
            .learning_rate = 1,
            .rate_drop = 0.5,
            .early_stopping_rounds = 3};
  Booster stopped(o);
  const auto& history = stopped.fit(first.dataset(), {.eval_sets = {{"test", &t}}});
  ASSERT_GE(history.best_round, 0);
  EXPECT_EQ(stopped.model().rounds(), history.best_round + 1);
  const auto q = stopped.predict(t);
  EXPECT_NEAR(boosting::rmse({q.data(), 200}, 1, {t.labels, {}}),
              history.curves[0].values[static_cast<std::size_t>(history.best_round)], 1e-6);
}

TEST(Forest, OneRoundIsTheMeanOfItsTrees) {
  const Data train(2000, 0, 1), test(400, 0, 2);
  Options o{.num_round = 1,
            .learning_rate = 1,
            .max_depth = 8,
            .reg_lambda = 0,
            .num_parallel_tree = 30,
            .subsample = 0.6,
            .colsample_bynode = 0.7};
  const Booster forest = fit_checked(o, train, test);
  EXPECT_EQ(forest.model().trees.size(), 30u);
  EXPECT_EQ(forest.model().rounds(), 1);
  o.num_parallel_tree = 1;
  double alone = 0;
  for (o.seed = 0; o.seed < 6; ++o.seed)
    alone += fit_checked(o, train, test).history().curves[1].values.back() / 6;
  EXPECT_LT(forest.history().curves[1].values.back(), 0.9 * alone);
  // The trees differ, in rows and in columns.
  EXPECT_NE(forest.model().trees[0].nodes.size(), forest.model().trees[1].nodes.size());
}

TEST(Forest, BoostedAndOfSeveralOutputs) {
  const Booster b = fit_checked({.objective = "multi:softprob",
                                 .num_round = 4,
                                 .max_depth = 4,
                                 .num_parallel_tree = 3,
                                 .subsample = 0.7},
                                Data(800, 3, 1), Data(200, 3, 2));
  EXPECT_EQ(b.model().trees.size(), 36u);
  EXPECT_EQ(b.model().tree_outputs[3], 1);  // round-major, then output, then parallel tree
  const Booster d = fit_checked({.objective = "binary:logistic",
                                 .booster = "dart",
                                 .num_round = 5,
                                 .num_parallel_tree = 3,
                                 .subsample = 0.7,
                                 .rate_drop = 0.3},
                                Data(500, 2, 1), Data(200, 2, 2));
  EXPECT_EQ(d.model().trees.size(), 15u);
}

TEST(Sampling, ByGradientLearnsAsWellFromFewerRows) {
  const Data train(4000, 2, 1), test(1000, 2, 2);
  Options o{.objective = "binary:logistic", .num_round = 30, .max_depth = 4};
  const double all = fit_checked(o, train, test).history().curves[1].values.back();
  o.sampling_method = "goss";
  EXPECT_LT(fit_checked(o, train, test).history().curves[1].values.back(), all + 0.04);
  o.sampling_method = "gradient_based";
  o.subsample = 0.3;
  EXPECT_LT(fit_checked(o, train, test).history().curves[1].values.back(), all + 0.04);
}

TEST(Sampling, KeepsSumsAndShares) {
  boosting::detail::TrainState state;
  const Data data(5000, 0, 1);
  const tree::Dataset d = data.dataset();
  state.options.learning_rate = 1;
  state.model.outputs = 1;
  state.train.targets = {d.labels, {}};
  state.gradients = core::Buffer<tree::GradientPair>(5000);
  double sum = 0;
  for (std::size_t i = 0; i < 5000; ++i) {
    state.gradients[i] = {d.labels[i], 1.0f};
    sum += std::fabs(static_cast<double>(d.labels[i]));
  }
  const auto estimate = [&](const boosting::detail::RowSample& s) {
    double total = 0;
    for (std::size_t i = 0; i < s.rows.size(); ++i)
      total += static_cast<double>(s.factors[i]) *
               std::fabs(static_cast<double>(d.labels[static_cast<std::size_t>(s.rows[i])]));
    return total;
  };
  const auto goss = boosting::detail::goss_sample(state, 5, 5);
  EXPECT_EQ(goss.rows.size(), 1500u);
  EXPECT_NEAR(estimate(goss), sum, 0.04 * sum);
  EXPECT_TRUE(boosting::detail::goss_sample(state, 0, 0).all());
  state.options.subsample = 0.2;
  state.options.reg_lambda = 0;
  const auto mvs = boosting::detail::gradient_based_sample(state, 5);
  EXPECT_NEAR(static_cast<double>(mvs.rows.size()), 1000, 80);
  EXPECT_NEAR(estimate(mvs), sum, 0.03 * sum);
  EXPECT_EQ(boosting::detail::sampling_threshold({1, 1, 2, 8}, 3), 2);  // 1/2 + 1/2 + 1 + 1
}

TEST(LinearTree, LearnsWhatIsLinearAndPredictsWhatItTrained) {
  Data train(1500, 0, 1), test(300, 0, 2);
  const auto bend = [](Data& d) {
    for (std::int64_t i = 0; i < d.x.rows(); ++i)
      d.y(i) = d.x(i, 0) > 0 ? 3 * d.x(i, 0) + d.x(i, 3) : -d.x(i, 0) + 2 * d.x(i, 3);
  };
  bend(train);
  bend(test);
  Options o{.num_round = 10, .max_depth = 3};
  const double plain = fit_checked(o, train, test).history().curves[1].values.back();
  o.linear_tree = true;
  o.linear_lambda = 0.1;
  const Booster linear = fit_checked(o, train, test);
  EXPECT_LT(linear.history().curves[1].values.back(), 0.5 * plain);
  EXPECT_FALSE(linear.model().trees[0].linear.empty());
  o.subsample = 0.8;
  o.num_parallel_tree = 2;
  fit_checked(o, train, test);
}

TEST(Callbacks, ChangeTheLearningRateAndStop) {
  class Halve final : public boosting::Callback {
   public:
    void before_round(const boosting::RoundView& view, double& rate) override {
      rate /= static_cast<double>(1 << view.done);
    }
    bool after_round(const boosting::RoundView& view) override { return view.done < 3; }
  };
  const Data train(300, 0, 1);
  Booster b({.num_round = 10, .learning_rate = 0.5});
  b.fit(train.dataset(), {.callbacks = {std::make_shared<Halve>()}});
  EXPECT_EQ(b.model().rounds(), 3);
  Booster c({.num_round = 1, .learning_rate = 0.5});
  c.fit(train.dataset());
  EXPECT_EQ(c.model().trees[0].node(0).value, b.model().trees[0].node(0).value);
  Booster d({.num_round = 1, .learning_rate = 0.25});
  d.fit(train.dataset(), {});
  Booster e(c.model(), {.num_round = 1, .learning_rate = 0.25});
  e.fit(train.dataset(), {.continue_training = true});
  EXPECT_EQ(e.model().trees[1].node(1).value, b.model().trees[1].node(1).value);
}

TEST(EarlyStopping, FollowsWhatItIsTold) {
  using boosting::detail::StopWatch;
  StopWatch w(2, 0.1, true);
  EXPECT_TRUE(w.take(1));
  EXPECT_FALSE(w.take(1.05));
  EXPECT_FALSE(w.done());
  EXPECT_FALSE(w.take(1.09));
  EXPECT_TRUE(w.done());
  EXPECT_EQ(w.best(), 0);
  const Data train(300, 0, 1), test(100, 0, 2);
  const tree::Dataset t = test.dataset();
  Options o{.num_round = 30,
            .learning_rate = 1,
            .eval_metric = {"rmse", "mae"},
            .early_stopping_rounds = 2};
  Booster b(o);
  const auto& h = b.fit(train.dataset(), {.eval_sets = {{"test", &t}},
                                          .early_stopping = {.metric = "rmse", .maximize = true}});
  EXPECT_EQ(h.curves[0].values.size(), static_cast<std::size_t>(h.best_round + 3));
  Booster s(o);
  const auto& best =
      s.fit(train.dataset(), {.eval_sets = {{"test", &t}}, .early_stopping = {.save_best = true}});
  EXPECT_EQ(s.model().rounds(), best.best_round + 1);
  EXPECT_THROW(
      s.fit(train.dataset(), {.eval_sets = {{"test", &t}}, .early_stopping = {.metric = "auc"}}),
      ValueError);
}

}  // namespace
}  // namespace quern::test::tree_rounds
