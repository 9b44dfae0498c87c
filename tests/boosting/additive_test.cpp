// SPDX-License-Identifier: Apache-2.0

/// \file
/// Boosting learners of this test's own: a stump and a linear function.

#include "quern/boosting/additive.hpp"

#include "quern/boosting/booster.hpp"
#include "quern/boosting/callbacks.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <filesystem>
#include <numeric>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include <gtest/gtest.h>
#include <Eigen/Cholesky>

namespace quern::test::additive {
namespace {

using boosting::AdditiveBooster;
using boosting::Options;
using Matrix = MatrixView<const float>;

/// The best single split, by trying all.
struct Stump {
  Index feature = 0;
  float threshold = 0, left = 0, right = 0;

  void fit(const tree::FeatureView& features, std::span<const float> t, std::span<const float> w,
           std::uint64_t) {
    const auto& x = std::get<Matrix>(features);
    double best = -1;
    std::vector<Index> order(t.size());
    double all_w = 0, all_s = 0;
    for (std::size_t i = 0; i < t.size(); ++i) {
      all_w += static_cast<double>(w[i]);
      all_s += static_cast<double>(w[i] * t[i]);
    }
    for (Index f = 0; f < x.cols(); ++f) {
      std::iota(order.begin(), order.end(), Index{0});
      std::sort(order.begin(), order.end(), [&](Index a, Index b) { return x(a, f) < x(b, f); });
      double lw = 0, ls = 0;
      for (std::size_t i = 0; i + 1 < order.size(); ++i) {
        const auto row = static_cast<std::size_t>(order[i]);
        lw += static_cast<double>(w[row]);
        ls += static_cast<double>(w[row] * t[row]);
        const double rw = all_w - lw, rs = all_s - ls;
        if (lw < 1 || rw < 1 || !(x(order[i], f) < x(order[i + 1], f))) continue;
        const double score = ls * ls / lw + rs * rs / rw;
        if (score <= best) continue;
        best = score;
        feature = f;
        threshold = x(order[i + 1], f);
        left = static_cast<float>(ls / lw);
        right = static_cast<float>(rs / rw);
      }
    }
  }
  void predict(const tree::FeatureView& features, std::span<float> out) const {
    const auto& x = std::get<Matrix>(features);
    for (std::size_t i = 0; i < out.size(); ++i)
      out[i] = x(static_cast<Index>(i), feature) < threshold ? left : right;
  }

  static const char* kind() { return "stump"; }
  void save(ArchiveWriter& out) const {
    out.scalar<std::int64_t>("feature", feature);
    out.array<float>("values", std::vector<float>{threshold, left, right});
  }
  void load(const ArchiveReader& in) {
    const auto values = in.array<float>("values", 3);
    *this = {in.scalar<std::int64_t>("feature"), values[0], values[1], values[2]};
  }
};
static_assert(Saveable<Stump>);

/// Weighted least squares.
struct Line {
  Eigen::VectorXd w;

  static Eigen::MatrixXd matrix(const Matrix& x) {
    Eigen::MatrixXd m = Eigen::MatrixXd::Ones(x.rows(), x.cols() + 1);
    for (Index i = 0; i < x.rows(); ++i) {
      for (Index j = 0; j < x.cols(); ++j) m(i, j) = static_cast<double>(x(i, j));
    }
    return m;
  }
  void fit(const tree::FeatureView& features, std::span<const float> t, std::span<const float> h,
           std::uint64_t) {
    const Eigen::MatrixXd x = matrix(std::get<Matrix>(features));
    const auto n = static_cast<Eigen::Index>(t.size());
    const Eigen::VectorXd target = Eigen::Map<const Eigen::VectorXf>(t.data(), n).cast<double>();
    const Eigen::VectorXd weight = Eigen::Map<const Eigen::VectorXf>(h.data(), n).cast<double>();
    const Eigen::MatrixXd a = x.transpose() * weight.asDiagonal() * x;
    w = a.ldlt().solve(x.transpose() * weight.cwiseProduct(target));
  }
  void predict(const tree::FeatureView& features, std::span<float> out) const {
    const Eigen::VectorXd y = matrix(std::get<Matrix>(features)) * w;
    for (std::size_t i = 0; i < out.size(); ++i)
      out[i] = static_cast<float>(y(static_cast<Eigen::Index>(i)));
  }
};

struct Data {
  Eigen::MatrixXf x;
  Eigen::VectorXf y;
  Data(std::int64_t rows, std::uint64_t seed, int classes) : x(rows, 3), y(rows) {
    Philox rng(seed, "additive test");
    for (std::int64_t i = 0; i < rows; ++i) {
      for (int j = 0; j < 3; ++j) x(i, j) = rng.normal<float>();
      const float t = (x(i, 0) > 0.3f ? 1.0f : -1.0f) + x(i, 1) + 0.3f * rng.normal<float>();
      y(i) = classes == 3 ? (t > 1 ? 2.0f : t > -1 ? 1.0f : 0.0f) : t > 0 ? 1.0f : 0.0f;
    }
  }
  [[nodiscard]] tree::Dataset dataset() const { return tree::make_dataset(x, y); }
};

TEST(Additive, StumpsAreTreesOfDepthOne) {
  const Data train(400, 1, 2), test(200, 2, 2);
  const tree::Dataset d = train.dataset(), t = test.dataset();
  const Options o{.objective = "binary:logistic",
                  .num_round = 20,
                  .learning_rate = 0.5,
                  .max_depth = 1,
                  .reg_lambda = 0};
  AdditiveBooster<Stump> stumps(o);
  const auto& h = stumps.fit(d, {.eval_sets = {{"test", &t}}});
  boosting::Booster trees(o);
  const auto& expected = trees.fit(d, {.eval_sets = {{"test", &t}}});
  for (std::size_t r = 0; r < 20; ++r)
    EXPECT_NEAR(h.curves[0].values[r], expected.curves[0].values[r], 0.02) << r;
  const auto p = stumps.predict(t.features);
  EXPECT_NEAR(boosting::logloss({p.data(), 200}, 1, {t.labels, {}}), h.curves[0].values.back(),
              1e-6);
}

/// With a linear learner each round is a step of Newton's method for logistic regression.
TEST(Additive, LinesMakeALogisticRegression) {
  const Data train(500, 1, 2);
  const tree::Dataset d = train.dataset();
  AdditiveBooster<Line> lines(
      {.objective = "binary:logistic", .num_round = 12, .learning_rate = 1});
  lines.fit(d);
  const auto p = lines.predict(d.features);
  Eigen::VectorXd slope = Eigen::VectorXd::Zero(4);  // of the log-loss: nothing at its minimum
  for (Index i = 0; i < 500; ++i) {
    const double r = static_cast<double>(p(i, 0)) - static_cast<double>(train.y(i));
    for (Index j = 0; j < 3; ++j) slope(j) += r * static_cast<double>(train.x(i, j));
    slope(3) += r;
  }
  EXPECT_LT(slope.cwiseAbs().maxCoeff(), 1e-3);
}

TEST(Additive, SeveralOutputsEarlyStoppingAndRefusals) {
  const Data train(300, 1, 3), test(150, 2, 3);
  const tree::Dataset d = train.dataset(), t = test.dataset();
  Options o{.objective = "multi:softprob",
            .num_round = 60,
            .learning_rate = 1,
            .subsample = 0.7,
            .early_stopping_rounds = 3};
  AdditiveBooster<Stump> b(o);
  EXPECT_THROW((void)b.predict(d.features), ValueError);
  const auto& h = b.fit(d, {.eval_sets = {{"test", &t}}});
  EXPECT_EQ(b.outputs(), 3);
  ASSERT_GE(h.best_round, 0);
  const auto p = b.predict(t.features);
  EXPECT_NEAR(boosting::mlogloss({p.data(), 450}, 3, {t.labels, {}}),
              h.curves[0].values[static_cast<std::size_t>(h.best_round)], 1e-6);
  AdditiveBooster<Stump> again(o);
  again.fit(d, {.eval_sets = {{"test", &t}}});
  const auto q = again.predict(t.features);
  for (std::int64_t i = 0; i < q.size(); ++i) EXPECT_EQ(q.data()[i], p.data()[i]);
  EXPECT_THROW(b.fit(d), ValueError);
  const Eigen::MatrixXf narrow = train.x.leftCols(2);
  EXPECT_THROW((void)b.predict(tree::make_dataset(narrow).features), ShapeError);
  EXPECT_THROW(
      b.fit(d, {.eval_sets = {{"test", &t}}, .progress = [](const Progress&) { return false; }}),
      Cancelled);
}

TEST(Callbacks, CheckpointsAreWholeModelsAndRatesFollowTheSchedule) {
  const Data train(200, 1, 2);
  const tree::Dataset d = train.dataset();
  const std::string path =
      (std::filesystem::temp_directory_path() / "quern_checkpoint_test.quern").string();
  std::vector<std::int64_t> saved;
  boosting::Booster b({.objective = "binary:logistic", .num_round = 7});
  b.fit(d, {.callbacks = {boosting::learning_rates(
                              [](std::int64_t r) { return 0.5 / static_cast<double>(1 + r); }),
                          boosting::checkpoint(path, 3),
                          boosting::after_round([&](const boosting::RoundView& view) {
                            if (std::filesystem::exists(path))
                              saved.push_back(boosting::load_model(path).rounds());
                            return view.done < 6;
                          })}});
  EXPECT_EQ(saved, (std::vector<std::int64_t>{3, 3, 3, 6}));
  EXPECT_EQ(b.model().rounds(), 6);
  std::filesystem::remove(path);
  boosting::Booster half({.objective = "binary:logistic", .num_round = 1, .learning_rate = 0.5});
  half.fit(d);
  EXPECT_EQ(half.model().trees[0].node(1).value, b.model().trees[0].node(1).value);
  EXPECT_THROW((void)boosting::checkpoint(path, 0), ValueError);
}

TEST(Additive, SavedAndLoadedPredictsTheSameBits) {
  const Data train(300, 1, 3), test(100, 2, 3);
  const std::string path =
      (std::filesystem::temp_directory_path() / "quern_additive_test.model").string();
  const tree::Dataset unseen = tree::make_dataset(test.x, test.y);
  AdditiveBooster<Stump> b({.objective = "multi:softprob",
                            .num_round = 30,
                            .learning_rate = 0.2,
                            .early_stopping_rounds = 3});
  EXPECT_THROW(b.save(path), ValueError);
  b.fit(tree::make_dataset(train.x, train.y), {.eval_sets = {{"test", &unseen}}});
  b.save(path);
  AdditiveBooster<Stump> loaded;  // of other options
  loaded.load(path);
  const auto expected = b.predict(unseen.features), got = loaded.predict(unseen.features);
  ASSERT_EQ(got.size(), expected.size());
  for (std::int64_t i = 0; i < got.size(); ++i) ASSERT_EQ(got.data()[i], expected.data()[i]);

  // What does not fit is refused, and the booster stays as it is.
  const auto spoilt = [&](const char* section) {
    ArchiveWriter out("boosting.additive", 1);
    out.text("objective", section == std::string("objective") ? "none" : "reg:squarederror");
    out.array<double>("base_margin", std::vector<double>(section[0] == 'b' ? 2 : 1, 0.5));
    out.scalar<double>("learning_rate", 0.1);
    out.scalar<std::int64_t>("features", 3);
    out.scalar<std::int64_t>("used_rounds", section[0] == 'u' ? 2 : 0);
    out.scalar<std::int64_t>("learners", section[0] == 'l' ? -1 : section[0] == 's' ? 1 : 0);
    out.save(path);
    try {
      loaded.load(path);
    } catch (const ParseError& e) {
      return std::string(e.what()).find(section) != std::string::npos;
    }
    return false;
  };
  for (const char* section : {"objective", "base_margin", "used_rounds", "learners", "section"})
    EXPECT_TRUE(spoilt(section)) << section;
  EXPECT_EQ(loaded.predict(unseen.features)(0, 0), expected(0, 0));
  EXPECT_FALSE(spoilt("nothing wrong"));
  EXPECT_EQ(loaded.rounds(), 0);
  std::filesystem::remove(path);
}

}  // namespace
}  // namespace quern::test::additive
