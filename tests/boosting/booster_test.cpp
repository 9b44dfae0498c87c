// SPDX-License-Identifier: Apache-2.0

#include "quern/boosting/booster.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdio>
#include <filesystem>
#include <limits>
#include <span>
#include <string>
#include <vector>

#include "made_data.hpp"

namespace quern::test::booster {
namespace {

using boosting::Booster;
using boosting::Options;

using Data = MadeData;

std::string temporary(const char* name) {
  return (std::filesystem::temp_directory_path() / name).string();
}

void expect_same_bits(const NdArray<float, 2>& a, const NdArray<float, 2>& b) {
  ASSERT_EQ(a.size(), b.size());
  for (std::int64_t i = 0; i < a.extent(0); ++i) {
    for (std::int64_t k = 0; k < a.extent(1); ++k) ASSERT_EQ(a(i, k), b(i, k)) << i << ", " << k;
  }
}

TEST(Booster, LearnsEachObjective) {
  struct Case {
    const char* objective;
    int classes;
    double worst;  // of the objective's own metric on unseen rows
  };
  for (const Case& c : {Case{"reg:squarederror", 0, 0.55}, Case{"binary:logistic", 2, 0.30},
                        Case{"reg:logistic", 2, 0.33}, Case{"multi:softprob", 3, 0.50},
                        Case{"multi:softmax", 3, 0.50}}) {
    const Data train(4000, c.classes, 1), test(1000, c.classes, 2);
    const tree::Dataset unseen = test.dataset();
    Booster b({.objective = c.objective, .num_round = 60, .learning_rate = 0.2, .max_depth = 4});
    const auto& history = b.fit(train.dataset(), {.eval_sets = {{"test", &unseen}}});
    ASSERT_EQ(history.curves.size(), 1u);
    EXPECT_LT(history.curves[0].values.back(), c.worst) << c.objective;
    EXPECT_LT(history.curves[0].values.back(), history.curves[0].values.front());
  }
}

TEST(Booster, MetricsOfTrainingAreThoseOfPrediction) {
  const Data train(900, 3, 1), test(300, 3, 2);
  const tree::Dataset d = train.dataset(), t = test.dataset();
  Booster b({.objective = "multi:softprob", .num_round = 7, .eval_metric = {"merror", "mlogloss"}});
  const auto& history = b.fit(d, {.eval_sets = {{"test", &t}}, .eval_train = true});
  std::size_t curve = 0;
  for (const tree::Dataset* set : {&d, &t}) {
    const NdArray<float, 2> p = b.predict(*set);
    for (const char* name : {"merror", "mlogloss"}) {
      const double value = boosting::make_metric(name, 3).value(
          {p.data(), static_cast<std::size_t>(p.size())}, 3, {set->labels, {}});
      EXPECT_NEAR(history.curves[curve++].values.back(), value, 1e-5);
    }
  }
}

TEST(Booster, TheSameBitsForAnyNumberOfThreads) {
  const Data train(20000, 2, 5);
  Options options{
      .objective = "binary:logistic", .num_round = 8, .subsample = 0.7, .colsample_bynode = 0.6};
  options.nthread = 1;
  Booster one(options);
  one.fit(train.dataset());
  const NdArray<float, 2> expected = one.predict_margin(train.dataset());
  for (const int threads : {2, 3}) {
    options.nthread = threads;
    Booster other(options);
    other.fit(train.dataset());
    expect_same_bits(other.predict_margin(train.dataset()), expected);
  }
}

TEST(Booster, SavedAndLoadedPredictsTheSameBitsInBatchAndAlone) {
  const Data train(700, 3, 6);
  Booster b({.objective = "multi:softprob", .num_round = 5});
  b.fit(train.dataset());
  const std::string path = temporary("quern_booster_test.model");
  b.save(path);
  Booster loaded;
  loaded.load(path);
  std::filesystem::remove(path);
  const NdArray<float, 2> margins = b.predict_margin(train.dataset());
  expect_same_bits(loaded.predict_margin(train.dataset()), margins);
  expect_same_bits(loaded.predict(train.dataset()), b.predict(train.dataset()));
  for (std::int64_t i = 0; i < 50; ++i) {
    const Eigen::RowVectorXf row = train.x.row(i);
    float out[3];
    loaded.predict_one(std::span<const float>(row.data(), 6), std::span<float>(out));
    for (int k = 0; k < 3; ++k) EXPECT_EQ(out[k], margins(i, k));
  }
}

TEST(Booster, StopsEarlyAndPredictsWithTheBestRound) {
  const Data train(300, 2, 7), test(300, 2, 8);
  const tree::Dataset t = test.dataset();
  Booster b({.objective = "binary:logistic",
             .num_round = 500,
             .learning_rate = 0.5,
             .early_stopping_rounds = 5});
  const auto& history = b.fit(train.dataset(), {.eval_sets = {{"test", &t}}});
  const auto& values = history.curves[0].values;
  const auto best = std::min_element(values.begin(), values.end()) - values.begin();
  EXPECT_EQ(history.best_round, best);
  EXPECT_EQ(static_cast<std::int64_t>(values.size()), best + 6);
  const NdArray<float, 2> p = b.predict(t);
  const double now =
      boosting::logloss({p.data(), static_cast<std::size_t>(p.size())}, 1, {t.labels, {}});
  EXPECT_NEAR(now, values[static_cast<std::size_t>(best)], 1e-6);
}

TEST(Booster, ContinuedTrainingGoesOnFromTheModel) {
  const Data train(2000, 2, 9);
  Options options{.objective = "binary:logistic", .num_round = 12};
  Booster whole(options);
  whole.fit(train.dataset());
  options.num_round = 6;
  Booster parts(options);
  parts.fit(train.dataset());
  parts.fit(train.dataset(), {.continue_training = true});
  ASSERT_EQ(parts.model().trees.size(), 12u);
  const NdArray<float, 2> a = whole.predict_margin(train.dataset());
  const NdArray<float, 2> b = parts.predict_margin(train.dataset());
  for (std::int64_t i = 0; i < a.extent(0); ++i) EXPECT_NEAR(a(i, 0), b(i, 0), 2e-2);
}

TEST(Booster, WeightTwoIsTheRowTwice) {
  const Data train(400, 0, 10);
  Eigen::MatrixXf x(800, 6);
  x << train.x, train.x;
  Eigen::VectorXf y(800);
  y << train.y, train.y;
  Booster twice({.num_round = 5}), weighted({.num_round = 5});
  twice.fit(tree::make_dataset(x, y));
  tree::Dataset d = train.dataset();
  d.weights.assign(400, 2.0f);
  weighted.fit(d);
  const NdArray<float, 2> a = twice.predict(train.x), b = weighted.predict(train.x);
  for (std::int64_t i = 0; i < 400; ++i) EXPECT_NEAR(a(i, 0), b(i, 0), 1e-4);
}

TEST(Booster, BaseMarginReplacesTheStart) {
  const Data train(500, 0, 11);
  tree::Dataset d = train.dataset();
  d.base_margin.assign(train.y.data(), train.y.data() + 500);  // nothing is left to learn
  Booster b({.num_round = 3});
  b.fit(d);
  const NdArray<float, 2> p = b.predict(d);
  for (std::int64_t i = 0; i < 500; ++i) EXPECT_NEAR(p(i, 0), train.y(i), 1e-5);
}

TEST(Booster, RowAndColumnMajorFloatAndDoubleAgree) {
  const Data train(600, 2, 12);
  const Eigen::Matrix<float, -1, -1, Eigen::RowMajor> rows = train.x;
  const Eigen::MatrixXd doubles = train.x.cast<double>();
  Booster a({.objective = "binary:logistic", .num_round = 4}), b(a.options()), c(a.options());
  a.fit(train.dataset());
  b.fit(tree::make_dataset(rows, train.y));
  c.fit(tree::make_dataset(doubles, train.y));
  expect_same_bits(a.predict(train.x), b.predict(rows));
  expect_same_bits(a.predict(train.x), c.predict(doubles));
}

TEST(Booster, CancelledRunsLeaveTheModelAlone) {
  const Data train(300, 2, 13);
  Booster b({.objective = "binary:logistic", .num_round = 3});
  b.fit(train.dataset());
  const NdArray<float, 2> before = b.predict(train.x);
  const auto stop_at_two = [](const Progress& p) { return p.done < 2; };
  EXPECT_THROW(b.fit(train.dataset(), {.progress = stop_at_two}), Cancelled);
  expect_same_bits(b.predict(train.x), before);
  b.fit(train.dataset(), {.progress = stop_at_two, .keep_when_cancelled = true});
  EXPECT_EQ(b.model().trees.size(), 2u);
}

/// The message of the error that fn throws.
template <class E, class F>
std::string refusal(F&& fn) {
  try {
    fn();
  } catch (const E& e) {
    return e.what();
  }
  return "no error";
}

TEST(Booster, BadInputIsRefusedByName) {
  const Data data(50, 2, 14);
  const auto fit = [&](Options options, auto change) {
    tree::Dataset d = data.dataset();
    change(d);
    Booster(std::move(options)).fit(d);
  };
  const auto as_is = [](tree::Dataset&) {};
  const Options logistic{.objective = "binary:logistic", .num_round = 1};
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const auto contains = [](const std::string& text, const char* part) {
    EXPECT_NE(text.find(part), std::string::npos) << text;
  };
  contains(refusal<ValueError>([&] { fit({.objective = "binary:logistc"}, as_is); }), "logistc");
  contains(refusal<ValueError>([&] { fit({.max_bin = 300}, as_is); }), "max_bin");
  contains(refusal<ValueError>([&] { fit({.learning_rate = -1}, as_is); }), "learning_rate");
  contains(refusal<ValueError>([&] { fit({.subsample = 0}, as_is); }), "subsample");
  contains(refusal<ValueError>([&] { fit({.eval_metric = {"merror"}}, as_is); }), "merror");
  contains(refusal<ValueError>([&] { fit(logistic, [&](auto& d) { d.labels[3] = nan; }); }),
           "row 3");
  contains(refusal<ValueError>([&] { fit(logistic, [](auto& d) { d.labels[3] = 2; }); }), "row 3");
  contains(refusal<ShapeError>([&] { fit(logistic, [](auto& d) { d.labels.pop_back(); }); }),
           "labels");
  contains(refusal<ValueError>([&] { fit(logistic, [](auto& d) { d.weights.assign(50, -1); }); }),
           "weight");
  contains(refusal<ValueError>([&] { fit(logistic, [](auto& d) { d.weights.assign(50, 0); }); }),
           "weights: expected one above 0");
  const auto categorical = [](auto& d) {
    d.feature_kinds.assign(static_cast<std::size_t>(d.cols()), tree::FeatureKind::numeric);
    d.feature_kinds[1] = tree::FeatureKind::categorical;
  };
  contains(refusal<ValueError>([&] { fit({.booster = "gblinear"}, categorical); }),
           "trees for categorical feature 1");
  tree::Dataset other = data.dataset();
  categorical(other);
  contains(refusal<ValueError>([&] {
             Booster(logistic).fit(data.dataset(), {.eval_sets = {{"valid", &other}}});
           }),
           "kind of feature 1 of valid");
  contains(refusal<ValueError>([&] {
             Eigen::MatrixXf x = data.x;
             x(7, 2) = std::numeric_limits<float>::infinity();
             Booster(logistic).fit(tree::make_dataset(x, data.y));
           }),
           "7");
  contains(refusal<ValueError>([&] {
             Booster(logistic).fit(data.dataset(), {.eval_sets = {{"valid", nullptr}}});
           }),
           "valid");
  contains(refusal<ShapeError>([&] {
             const Eigen::MatrixXf none(0, 6);
             Booster(logistic).fit(tree::make_dataset(none));
           }),
           "row");
  contains(refusal<ShapeError>([&] {
             Booster b(logistic);
             b.fit(data.dataset());
             const Eigen::MatrixXf narrow = data.x.leftCols(5);
             (void)b.predict(narrow);
           }),
           "6");
  contains(refusal<ValueError>([&] {
             Booster b(logistic);
             tree::Dataset d = data.dataset();
             d.feature_names = {"a", "b", "c", "d", "e", "f"};
             b.fit(d);
             d.feature_names[1] = "x";
             (void)b.predict(d);
           }),
           "x");
  contains(refusal<ValueError>([&] {
             Options o = logistic;
             o.early_stopping_rounds = 3;
             fit(o, as_is);
           }),
           "early_stopping_rounds");
}

TEST(Booster, EarlyStoppingNeedsAMetricThatIsANumber) {
  const Data train(100, 2, 16);
  Data one(100, 2, 17);
  one.y.setZero();
  const tree::Dataset valid = one.dataset();
  Booster b({.objective = "binary:logistic",
             .num_round = 5,
             .eval_metric = {"auc"},
             .early_stopping_rounds = 2});
  EXPECT_THROW(b.fit(train.dataset(), {.eval_sets = {{"valid", &valid}}}), ValueError);
}

TEST(Booster, OneClassAloneIsLearned) {
  Data data(50, 2, 15);
  data.y.setZero();
  Booster b({.objective = "binary:logistic", .num_round = 3});
  b.fit(data.dataset());
  const NdArray<float, 2> p = b.predict(data.x);
  for (std::int64_t i = 0; i < 50; ++i) EXPECT_LT(p(i, 0), 1e-3f);
}

TEST(Booster, WithoutAModelSaysSo) {
  const Booster b;
  const Eigen::MatrixXf x = Eigen::MatrixXf::Zero(2, 3);
  float out = 0;
  const float row = 0;
  EXPECT_THROW(b.save("never_written.quern"), ValueError);
  EXPECT_THROW((void)b.predict(x), ValueError);
  EXPECT_THROW((void)b.predict_leaves(tree::make_dataset(x)), ValueError);
  EXPECT_THROW(b.predict_one(std::span(&row, 1), std::span(&out, 1)), ValueError);
  try {
    (void)b.predict(x);
  } catch (const ValueError& error) {
    EXPECT_NE(std::string(error.what()).find("trained or loaded"), std::string::npos);
  }
}

}  // namespace
}  // namespace quern::test::booster
