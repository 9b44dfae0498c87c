// SPDX-License-Identifier: Apache-2.0

/// \file
/// The small neural network as a learner: what no linear model can learn, weights, files, seeds,
/// threads, wrong input.

#include "quern/ensemble/learners/neural_network.hpp"

#include "quern/core/parallel.hpp"
#include "quern/core/random.hpp"
#include "quern/ensemble/saving.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

namespace quern::test::neural_network {
namespace {

using ensemble::Features;

static_assert(ensemble::Classifier<ensemble::NeuralNetworkClassifier>);
static_assert(ensemble::Regressor<ensemble::NeuralNetworkRegressor>);

/// Points in a square; class 1 where the signs agree; value: their product.
struct Data {
  std::vector<float> x, value;
  std::vector<std::int32_t> y;

  explicit Data(std::uint64_t seed, Index rows = 400) {
    Philox random(seed, "xor");
    for (Index i = 0; i < rows; ++i) {
      const double a = random.uniform(-1.0, 1.0), b = random.uniform(-1.0, 1.0);
      x.push_back(static_cast<float>(a) + 5);
      x.push_back(static_cast<float>(b) * 100);
      y.push_back(a * b > 0 ? 1 : 0);
      value.push_back(static_cast<float>(10 * a * b));
    }
  }
  [[nodiscard]] Features features() const { return {x.data(), {static_cast<Index>(y.size()), 2}}; }
};

TEST(NeuralNetwork, LearnsWhatNoLineParts) {
  const Data train(1), other(2);
  ensemble::NeuralNetworkClassifier model({.epochs = 60});
  model.fit(train.features(), train.y, 2);
  const auto classes = ensemble::predict_classes(model, other.features(), 2);
  int right = 0;
  for (std::size_t i = 0; i < classes.size(); ++i) right += classes[i] == other.y[i] ? 1 : 0;
  EXPECT_GT(right, 380) << "of 400";
  const auto p = ensemble::predict_proba(model, other.features(), 2);
  for (Index i = 0; i < 400; ++i) EXPECT_NEAR(p(i, 0) + p(i, 1), 1, 1e-6);
}

TEST(NeuralNetwork, LearnsNumbers) {
  const Data train(1), other(2);
  ensemble::NeuralNetworkRegressor model({.epochs = 100});
  model.fit(train.features(), train.value);
  const auto got = ensemble::predict_values(model, other.features());
  double error = 0, spread = 0;
  for (std::size_t i = 0; i < got.size(); ++i) {
    error += std::pow(static_cast<double>(got[i] - other.value[i]), 2);
    spread += std::pow(static_cast<double>(other.value[i]), 2);
  }
  EXPECT_LT(error, 0.1 * spread);
}

TEST(NeuralNetwork, BitsSeedsFilesAndWeights) {
  const Data data(1, 60);
  const auto fitted = [&](int threads, std::uint64_t seed, std::span<const float> weights) {
    set_default_threads(threads);
    ensemble::NeuralNetworkRegressor model({.hidden = {8, 4}, .epochs = 5});
    model.fit(data.features(), data.value, weights, seed);
    set_default_threads(0);
    return model;
  };
  const auto predicted = [&](const ensemble::NeuralNetworkRegressor& model) {
    return ensemble::predict_values(model, data.features());
  };
  const auto one = predicted(fitted(1, 3, {}));
  EXPECT_EQ(one, predicted(fitted(3, 3, {})));
  EXPECT_NE(one, predicted(fitted(1, 4, {})));
  const std::vector<float> twos(60, 2.0F);
  const auto doubled = predicted(fitted(1, 3, twos));
  for (std::size_t i = 0; i < one.size(); ++i) EXPECT_NEAR(one[i], doubled[i], 1e-4);
  const std::string path = ::testing::TempDir() + "quern_neural_network.quern";
  ensemble::save_learner(fitted(1, 3, {}), path);
  ensemble::NeuralNetworkRegressor loaded;
  ensemble::load_learner(loaded, path);
  EXPECT_EQ(one, predicted(loaded));
}

TEST(NeuralNetwork, WrongInput) {
  EXPECT_THROW(ensemble::NeuralNetworkClassifier({.hidden = {0}}), ValueError);
  EXPECT_THROW(ensemble::NeuralNetworkClassifier({.batch = 0}), ValueError);
  EXPECT_THROW(ensemble::NeuralNetworkRegressor({.learning_rate = 0}), ValueError);
  ensemble::NeuralNetworkRegressor model;
  const Data data(1, 10);
  std::vector<float> out(10);
  EXPECT_THROW(model.predict(data.features(), out), ValueError);
  model.fit(data.features(), data.value);
  const Features one(data.x.data(), {10, 1}, {2, 1});
  EXPECT_THROW(model.predict(one, out), ShapeError);
  std::vector<float> missing = data.x;
  missing[3] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_THROW(model.predict(Features(missing.data(), {10, 2}), out), ValueError);
}

}  // namespace
}  // namespace quern::test::neural_network
