// SPDX-License-Identifier: Apache-2.0

#include "quern/boosting/booster.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <fstream>
#include <limits>
#include <string>
#include <string_view>
#include <vector>

namespace quern::test::objective_training {
namespace {

using boosting::Booster;
using boosting::Options;

/// Rows whose labels suit an objective.
struct Data {
  Eigen::MatrixXf x;
  Eigen::VectorXf y;
  std::vector<std::int64_t> groups;

  Data(std::string_view objective, std::int64_t rows, std::uint64_t seed) : x(rows, 5), y(rows) {
    Philox rng(seed, "objective training");
    for (std::int64_t i = 0; i < rows; ++i) {
      for (int j = 0; j < 5; ++j) x(i, j) = rng.normal<float>();
      const float t = x(i, 0) + 0.5f * x(i, 1) * x(i, 2) + 0.3f * rng.normal<float>();
      y(i) = label(objective, t);
      if (objective == "survival:cox" && rng.bernoulli(0.3)) y(i) = -y(i);
    }
    if (!objective.starts_with("rank:")) return;
    for (std::int64_t g = 0; g < rows; g += 20) groups.push_back(g);
    groups.push_back(rows);
  }
  [[nodiscard]] tree::Dataset dataset() const {
    tree::Dataset set = tree::make_dataset(x, y);
    set.group_offsets = groups;
    return set;
  }

 private:
  static float label(std::string_view objective, float t) {
    const auto is = [&](auto... names) { return ((objective == names) || ...); };
    if (is("reg:gamma", "survival:aft", "survival:cox", "reg:squaredlogerror"))
      return std::exp(t / 2) + 0.01f;
    if (is("count:poisson", "reg:tweedie")) return std::floor(std::exp(t));
    if (objective.starts_with("binary:") || is("reg:logistic", "rank:map")) return t > 0 ? 1 : 0;
    if (objective.starts_with("multi:") || objective.starts_with("rank:"))
      return t > 0.7f ? 2.0f : t > -0.7f ? 1.0f : 0.0f;
    return t;
  }
};

/// (margin - label)^2 / 2, for the margin of every output.
void squares(const boosting::ConstRowArrayMap& m, const boosting::ConstColumnMap& y,
             const boosting::ConstColumnMap& w, boosting::RowArrayMap& g,
             boosting::RowArrayMap& h) {
  for (Eigen::Index k = 0; k < m.cols(); ++k) {
    g.col(k) = w * (m.col(k) - y);
    h.col(k) = w;
  }
}

Options options_of(std::string_view objective) {
  Options options{.objective = std::string(objective), .num_round = 12, .max_depth = 3};
  if (objective == "reg:quantileerror") options.quantile_alpha = {0.1, 0.5, 0.9};
  if (objective == "custom") options.custom_objective = squares;
  if (objective == "custom") options.eval_metric = {"rmse"};
  return options;
}

std::vector<float> margins_of(const Booster& b, const tree::Dataset& set) {
  const NdArray<float, 2> m = b.predict_margin(set);
  return {m.data(), m.data() + m.size()};
}

TEST(ObjectiveTraining, EveryObjectiveLearnsWithTheSameBitsForAnyNumberOfThreads) {
  for (const std::string_view name : boosting::objective_names) {
    const Data data(name, 3000, 1), unseen(name, 1000, 2);
    const tree::Dataset set = data.dataset(), test = unseen.dataset();
    for (const int order : {2, 1}) {
      Options options = options_of(name);
      options.gradient_order = order;
      options.subsample = order == 2 ? 0.8 : 1;
      std::vector<float> expected;
      for (const int threads : {1, 2, 3}) {
        options.nthread = threads;
        Booster b(options);
        const auto& curve = b.fit(set, {.eval_sets = {{"test", &test}}}).curves[0].values;
        const bool larger = name.starts_with("rank:");
        const bool flat = name == "binary:hinge";  // the share of errors moves in steps
        EXPECT_TRUE(larger ? curve.back() > curve[0]
                    : flat ? curve.back() <= curve[0]
                           : curve.back() < curve[0])
            << name << " order " << order << ": " << curve[0] << " to " << curve.back();
        const std::vector<float> now = margins_of(b, set);
        if (expected.empty()) expected = now;
        EXPECT_EQ(now, expected) << name << ", " << threads << " threads";
      }
    }
  }
}

TEST(ObjectiveTraining, BaseMarginsReplaceTheStartOfEveryObjective) {
  for (const std::string_view name : boosting::objective_names) {
    const Data data(name, 400, 1);
    Options options = options_of(name);
    options.num_round = 3;
    Booster by_score(options);
    by_score.fit(data.dataset());
    // The same start, given row by row, gives the same trees.
    tree::Dataset set = data.dataset();
    for (int i = 0; i < 400; ++i) {
      for (const double m : by_score.model().base_margin)
        set.base_margin.push_back(static_cast<float>(m));
    }
    Booster by_margin(options);
    by_margin.fit(set);
    const std::vector<float> a = margins_of(by_score, set), b = margins_of(by_margin, set);
    for (std::size_t i = 0; i < a.size(); ++i) ASSERT_NEAR(a[i], b[i], 1e-5) << name;
  }
}

TEST(ObjectiveTraining, SavedParametersComeBack) {
  const Data data("reg:quantileerror", 300, 1);
  Options options = options_of("reg:quantileerror");
  Booster b(options);
  b.fit(data.dataset());
  const boosting::Model again = boosting::model_from_bytes(boosting::model_to_bytes(b.model()));
  EXPECT_EQ(again.objective_params.quantile_alpha, (std::vector<double>{0.1, 0.5, 0.9}));
  const NdArray<float, 2> p = b.predict(data.x), q = Booster(again).predict(data.x);
  for (std::int64_t i = 0; i < p.extent(0); ++i) {
    for (int k = 0; k < 3; ++k) EXPECT_EQ(p(i, k), q(i, k));
    EXPECT_LE(p(i, 0), p(i, 1));
    EXPECT_LE(p(i, 1), p(i, 2));
  }
  boosting::Model poisson = b.model();
  poisson.objective = "reg:tweedie";
  poisson.objective_params = {};
  poisson.objective_params.tweedie_variance_power = 1.25;
  EXPECT_EQ(boosting::model_from_bytes(boosting::model_to_bytes(poisson))
                .objective_params.tweedie_variance_power,
            1.25);
}

TEST(ObjectiveTraining, QuantilesCoverTheirShare) {
  const Data data("reg:quantileerror", 4000, 1);
  Options options = options_of("reg:quantileerror");
  options.num_round = 40;
  Booster b(options);
  b.fit(data.dataset());
  const NdArray<float, 2> p = b.predict(data.x);
  for (int k = 0; k < 3; ++k) {
    double below = 0;
    for (std::int64_t i = 0; i < 4000; ++i) below += data.y(i) <= p(i, k) ? 1 : 0;
    EXPECT_NEAR(below / 4000, options.quantile_alpha[static_cast<std::size_t>(k)], 0.03);
  }
}

TEST(ObjectiveTraining, CustomSquaresAreTheHousesOwn) {
  const Data data("reg:squarederror", 500, 1);
  tree::Dataset set = data.dataset();
  Philox rng(3, "weights");
  for (int i = 0; i < 500; ++i) set.weights.push_back(rng.uniform<float>() + 0.5f);
  Options own = options_of("reg:squarederror"), custom = options_of("custom");
  own.base_score = custom.base_score = 0.25;
  custom.num_class = 2;
  custom.eval_metric = {};
  custom.custom_metrics = {
      {.name = "worst", .value = [](const auto& p, const auto& y, const auto&) {
         return static_cast<double>((p.col(1) - y).abs().maxCoeff());
       }}};
  Booster a(own), b(custom);
  a.fit(set);
  const auto& history = b.fit(set, {.eval_train = true});
  ASSERT_EQ(history.curves.size(), 1u);
  EXPECT_EQ(history.curves[0].metric, "worst");
  EXPECT_LT(history.curves[0].values.back(), history.curves[0].values.front());
  const NdArray<float, 2> p = a.predict(data.x), q = b.predict(data.x);
  ASSERT_EQ(q.extent(1), 2);
  for (std::int64_t i = 0; i < 500; ++i) {
    EXPECT_NEAR(p(i, 0), q(i, 0), 1e-5);
    EXPECT_EQ(q(i, 0), q(i, 1));
  }
}

TEST(ObjectiveTraining, CustomDerivativesAreChecked) {
  const Data data("custom", 20, 1);
  Options options = options_of("custom");
  options.custom_objective = nullptr;
  EXPECT_THROW(Booster(options).fit(data.dataset()), ValueError);
  options.custom_objective = [](const auto&, const auto&, const auto&, auto& g, auto& h) {
    g.setOnes();
    h.setOnes();
    h(7, 0) = -1;
  };
  try {
    Booster(options).fit(data.dataset());
    FAIL();
  } catch (const ValueError& e) {
    EXPECT_NE(std::string(e.what()).find("hessian of row 7"), std::string::npos) << e.what();
  }
}

TEST(ObjectiveTraining, ClassWeightsAreRowWeights) {
  for (const std::string_view name : {"binary:logistic", "multi:softprob", "multi:ova"}) {
    Data data(name, 600, 1);
    data.x = (data.x.array() * 4).round();  // few values: weights do not move the cuts
    const int classes = name == "binary:logistic" ? 2 : 3;
    Options options = options_of(name);
    tree::Dataset by_row = data.dataset();
    const double weight[] = {0.5, 2, 3};
    for (int i = 0; i < 600; ++i)
      by_row.weights.push_back(static_cast<float>(weight[static_cast<std::size_t>(data.y(i))]));
    Booster a(options);
    a.fit(by_row);
    options.class_weight.assign(weight, weight + classes);
    Booster b(options);
    b.fit(data.dataset());
    EXPECT_EQ(margins_of(a, by_row), margins_of(b, by_row)) << name;
    options.class_weight.push_back(1);
    EXPECT_THROW(Booster(options).fit(data.dataset()), ShapeError);
  }
  Options wrong = options_of("reg:squarederror");
  wrong.class_weight = {1, 2};
  EXPECT_THROW(Booster(wrong).fit(Data("reg:squarederror", 20, 1).dataset()), ValueError);
}

TEST(ObjectiveTraining, TimesWithBoundsAreLearned) {
  Data data("survival:aft", 2000, 1);
  tree::Dataset set = data.dataset();
  set.labels.clear();
  for (std::int64_t i = 0; i < 2000; ++i) {
    const float t = data.y(i);
    const bool seen = i % 3 != 0;
    set.label_lower_bound.push_back(seen ? t : t * 0.7f);
    set.label_upper_bound.push_back(seen ? t : std::numeric_limits<float>::infinity());
  }
  Options options = options_of("survival:aft");
  options.aft_loss_distribution_scale = 0.5;
  options.num_round = 30;
  Booster b(options);
  const auto& history = b.fit(set, {.eval_train = true});
  EXPECT_LT(history.curves[0].values.back(), history.curves[0].values.front() - 0.2);
  set.label_upper_bound[4] = set.label_lower_bound[4] / 2;
  EXPECT_THROW(b.fit(set), ValueError);
}

TEST(ObjectiveTraining, PoissonStepsAreBounded) {
  const Data data("count:poisson", 500, 1);
  Options options = options_of("count:poisson");
  options.reg_lambda = 0;
  options.learning_rate = 1;
  Booster b(options);
  b.fit(data.dataset());
  for (const tree::Tree& tree : b.model().trees) {
    for (const tree::Node& node : tree.nodes) {
      if (node.is_leaf()) {
        EXPECT_LE(std::fabs(node.value), 0.7 + 1e-9);
      }
    }
  }
}

/// Biases of positions and margins of XGBoost, on labels that favour what was shown first.
TEST(UnbiasedRanking, IsXgboosts) {
  std::ifstream in(std::string(QUERN_TEST_REFERENCE_DIR) + "/boosting/unbiased_rank.txt");
  const auto read = [&](std::int64_t n) {
    std::vector<float> values;
    std::string word;
    for (std::int64_t i = 0; i < n && in >> word; ++i)
      values.push_back(std::strtof(word.c_str(), nullptr));
    return values;
  };
  std::int64_t groups = 0, size = 0, features = 0;
  in >> groups >> size >> features;
  const std::int64_t rows = groups * size;
  const std::vector<float> x = read(rows * features), y = read(rows);
  ASSERT_EQ(y.size(), static_cast<std::size_t>(rows));
  tree::Dataset data = tree::make_dataset(MatrixView<const float>(x.data(), {rows, features}), y);
  for (std::int64_t g = 0; g <= groups; ++g) data.group_offsets.push_back(g * size);
  Options o{.max_depth = 2, .tree_method = "exact", .min_child_weight = 0};
  o.lambdarank_unbiased = true;
  std::int64_t positions = 0;
  int cases = 0;
  for (; in >> o.objective >> o.lambdarank_num_pair_per_sample >> o.lambdarank_bias_norm >>
         o.num_round >> positions;
       ++cases) {
    const std::vector<float> plus = read(positions), minus = read(positions), margins = read(rows);
    Booster b(o);
    b.fit(data);
    const NdArray<float, 2> got = b.predict_margin(data);
    for (std::int64_t i = 0; i < rows; ++i)
      ASSERT_NEAR(got(i, 0), margins[static_cast<std::size_t>(i)], 2e-5) << o.objective << i;
    // The biases by the objective itself, at the margins of each round.
    boosting::LambdaRank rank(o.objective, o.objective_params());
    const boosting::Targets targets{y, {}, data.group_offsets};
    const boosting::Predictor predictor(b.model());
    std::vector<float> m(static_cast<std::size_t>(rows));
    for (std::int32_t r = 0; r < o.num_round; ++r) {
      predictor.margins(data.features, MatrixView<float>(m.data(), {rows, 1}), {.rounds = r});
      rank.finish_round(m.data(), targets, static_cast<std::uint64_t>(r), 1 + r % 3);
    }
    const std::size_t known = rank.bias_plus().size();  // XGBoost's may be longer than any group
    ASSERT_EQ(static_cast<std::int64_t>(known), (std::min)(positions, size));
    for (std::size_t i = 0; i < known; ++i) {
      EXPECT_NEAR(rank.bias_plus()[i], static_cast<double>(plus[i]), 1e-4) << o.objective << i;
      EXPECT_NEAR(rank.bias_minus()[i], static_cast<double>(minus[i]), 1e-4) << o.objective << i;
    }
  }
  EXPECT_EQ(cases, 4);
}

}  // namespace
}  // namespace quern::test::objective_training
