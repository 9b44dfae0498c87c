// SPDX-License-Identifier: Apache-2.0

#include "why.hpp"

#include "quern/core/nd_array.hpp"
#include "quern/core/random.hpp"
#include "quern/ensemble/adaboost.hpp"
#include "quern/ensemble/bagging.hpp"
#include "quern/ensemble/decision_tree.hpp"
#include "quern/ensemble/scores.hpp"
#include "quern/ensemble/voting.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <span>

namespace ensembles {
namespace {

using namespace quern::ensemble;  // NOLINT: a program's own file
using quern::Index;
using quern::MatrixView;
using quern::NdArray;
using quern::Philox;

double truth(double x) { return std::sin(6.283185307 * x); }

/// Bias and variance of a learner over 100 noisy samples of `rows` points.
template <class Learner>
Split split_of(const Learner& prototype, std::int64_t rows, std::uint64_t seed) {
  constexpr std::size_t sets = 100, points = 200;
  NdArray<float, 2> grid({static_cast<Index>(points), 1});
  for (std::size_t i = 0; i < points; ++i)
    grid.data()[i] = (static_cast<float>(i) + 0.5f) / static_cast<float>(points);
  std::vector<double> sum(points), squares(points);
  for (std::size_t s = 0; s < sets; ++s) {
    Philox rng(seed, "sample", s);
    NdArray<float, 2> x({rows, 1});
    std::vector<float> y;
    for (Index i = 0; i < rows; ++i) {
      x(i, 0) = rng.uniform<float>();
      y.push_back(static_cast<float>(truth(static_cast<double>(x(i, 0))) + 0.3 * rng.normal()));
    }
    Learner learner = prototype;
    learner.fit(x.view(), y, {}, seed + s);
    const std::vector<float> said = predict_values(learner, grid.view());
    for (std::size_t i = 0; i < points; ++i) {
      sum[i] += static_cast<double>(said[i]) / sets;
      squares[i] += static_cast<double>(said[i]) * static_cast<double>(said[i]) / sets;
    }
  }
  Split split;
  for (std::size_t i = 0; i < points; ++i) {
    const double off = sum[i] - truth(static_cast<double>(grid.data()[i]));
    split.bias += off * off / points;
    split.variance += (squares[i] - sum[i] * sum[i]) / points;
  }
  return split;
}

/// A network of four hidden units, trained by plain gradient descent: a learner of one's own. It
/// has nothing of the library's but the two functions that a classifier is asked for.
struct Network {
  static constexpr std::size_t hidden = 4;
  std::array<std::array<double, 3>, hidden> in{};
  std::array<double, hidden + 1> out{};

  [[nodiscard]] double say(float a, float b, std::array<double, hidden>* units = nullptr) const {
    double sum = out[hidden];
    for (std::size_t h = 0; h < hidden; ++h) {
      const double u = std::tanh(in[h][0] * static_cast<double>(a) +
                                 in[h][1] * static_cast<double>(b) + in[h][2]);
      if (units != nullptr) (*units)[h] = u;
      sum += out[h] * u;
    }
    return 1 / (1 + std::exp(-sum));
  }

  void fit(Features x, std::span<const std::int32_t> y, std::int32_t /*classes*/,
           std::span<const float> weights, std::uint64_t seed) {
    Philox rng(seed, "network");
    for (auto& row : in)
      for (double& w : row) w = rng.normal();
    for (double& w : out) w = rng.normal();
    for (int epoch = 0; epoch < 400; ++epoch) {
      for (std::size_t i = 0; i < y.size(); ++i)
        learn(x(static_cast<Index>(i), 0), x(static_cast<Index>(i), 1), y[i],
              weights.empty() ? 1.0 : static_cast<double>(weights[i]));
    }
  }
  void predict_proba(Features x, MatrixView<float> p) const {
    for (Index i = 0; i < x.rows(); ++i) {
      p(i, 1) = static_cast<float>(say(x(i, 0), x(i, 1)));
      p(i, 0) = 1 - p(i, 1);
    }
  }

 private:
  void learn(float a, float b, std::int32_t y, double weight) {
    std::array<double, hidden> units{};
    const double step = 0.03 * weight * (say(a, b, &units) - y);
    out[hidden] -= step;
    for (std::size_t h = 0; h < hidden; ++h) {
      const double through = step * out[h] * (1 - units[h] * units[h]);
      out[h] -= step * units[h];
      in[h][0] -= through * static_cast<double>(a);
      in[h][1] -= through * static_cast<double>(b);
      in[h][2] -= through;
    }
  }
};

struct Points {
  NdArray<float, 2> x;
  std::vector<std::int32_t> y;
};

/// Two arms of a spiral.
Points spiral(Index rows, std::uint64_t stream, std::uint64_t seed) {
  Points points{NdArray<float, 2>({rows, 2}), {}};
  Philox rng(seed, "spiral", stream);
  for (Index i = 0; i < rows; ++i) {
    const double t = 0.6 + 8.0 * rng.uniform(), arm = static_cast<double>(i % 2) * 3.14159265;
    points.x(i, 0) = static_cast<float>(0.6 * t * std::cos(t + arm) + 0.1 * rng.normal());
    points.x(i, 1) = static_cast<float>(0.6 * t * std::sin(t + arm) + 0.1 * rng.normal());
    points.y.push_back(static_cast<std::int32_t>(i % 2));
  }
  return points;
}

template <class Learner>
double accuracy_on(const Learner& learner, const Points& points) {
  return accuracy(predict_proba(learner, points.x.view(), 2).view(), points.y);
}

/// Points of the square, and whether they lie above the diagonal.
Points square(Index rows, std::uint64_t stream, std::uint64_t seed) {
  Points points{NdArray<float, 2>({rows, 2}), {}};
  Philox rng(seed, "square", stream);
  for (Index i = 0; i < rows; ++i) {
    for (Index f = 0; f < 2; ++f) points.x(i, f) = rng.uniform<float>();
    points.y.push_back(points.x(i, 1) > points.x(i, 0) ? 1 : 0);
  }
  return points;
}

Points pixels(std::int32_t side) {
  Points points{NdArray<float, 2>({Index{side} * side, 2}), {}};
  for (Index i = 0; i < points.x.extent(0); ++i) {
    points.x(i, 0) = (static_cast<float>(i % side) + 0.5f) / static_cast<float>(side);
    points.x(i, 1) = 1 - (static_cast<float>(i / side) + 0.5f) / static_cast<float>(side);
  }
  return points;
}

}  // namespace

Statistical statistical(std::uint64_t seed) {
  Statistical result;
  const DecisionTreeRegressor tree;
  for (const std::int64_t rows : {15, 30, 60, 120, 240}) {
    result.rows.push_back(rows);
    result.single.push_back(split_of(tree, rows, seed));
    result.bagged.push_back(split_of(BaggingRegressor(tree, {.members = 50}), rows, seed));
  }
  return result;
}

Computational computational(std::uint64_t seed) {
  const Points train = spiral(200, 0, seed), test = spiral(2000, 1, seed);
  VotingClassifier vote(std::vector<AnyClassifier>(40, Network()));
  vote.fit(train.x.view(), train.y, 2, {}, seed);
  Computational result;
  for (const AnyClassifier& member : vote.members())
    result.starts.push_back(accuracy_on(member, test));
  std::sort(result.starts.begin(), result.starts.end());
  result.together = accuracy_on(vote, test);
  return result;
}

Representational representational(std::uint64_t seed) {
  Representational result;
  result.side = 64;
  const Points train = square(400, 0, seed), test = square(4000, 1, seed);
  const Points grid = pixels(result.side);
  for (const std::int32_t rounds : {1, 10, 300}) {
    AdaBoostClassifier boosted(DecisionTreeClassifier({.max_depth = 1}), {.rounds = rounds});
    boosted.fit(train.x.view(), train.y, 2, {}, seed);
    const NdArray<float, 2> p = predict_proba(boosted, grid.x.view(), 2);
    Representational::Picture picture;
    picture.title = rounds == 1 ? "1 stump" : std::to_string(rounds) + " stumps";
    picture.accuracy = accuracy_on(boosted, test);
    for (Index i = 0; i < p.extent(0); ++i) picture.above.push_back(p(i, 1));
    result.pictures.push_back(std::move(picture));
  }
  return result;
}

}  // namespace ensembles
