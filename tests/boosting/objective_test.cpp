// SPDX-License-Identifier: Apache-2.0

#include "quern/boosting/objective.hpp"
#include "quern/core/random.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <string>
#include <vector>

namespace quern::test::objective {
namespace {

using boosting::Targets;

/// Loss of one row, in double, from its definition.
double loss(const std::string& name, const std::vector<double>& margin, double y) {
  if (name == "reg:squarederror") return (margin[0] - y) * (margin[0] - y) / 2;
  if (margin.size() == 1) return std::log1p(std::exp(margin[0])) - y * margin[0];
  double sum = 0;
  for (const double m : margin) sum += std::exp(m);
  return std::log(sum) - margin[static_cast<std::size_t>(y)];
}

TEST(Objective, GradientsAreThoseOfTheLoss) {
  for (const std::string name : {"reg:squarederror", "binary:logistic", "multi:softprob"}) {
    const std::int32_t outputs = name == "multi:softprob" ? 4 : 1;
    const auto objective = boosting::make_objective(name, outputs, boosting::SoftmaxHessian::exact);
    Philox rng(1, "objective test");
    const std::int64_t rows = 13;
    std::vector<float> margins, labels, weights;
    for (std::int64_t i = 0; i < rows; ++i) {
      for (int k = 0; k < outputs; ++k) margins.push_back(rng.normal<float>());
      labels.push_back(outputs > 1          ? static_cast<float>(rng.integer(4))
                       : rng.bernoulli(0.5) ? 1.0f
                                            : 0.0f);
      weights.push_back(0.5f + rng.uniform<float>());
    }
    std::vector<tree::GradientPair> out(static_cast<std::size_t>(rows * outputs));
    const Targets targets{labels, weights};
    objective->gradients(margins.data(), targets, 0, 5, out.data());  // in blocks
    objective->gradients(margins.data(), targets, 5, rows, out.data());
    for (std::int64_t i = 0; i < rows; ++i) {
      std::vector<double> at(margins.begin() + i * outputs, margins.begin() + (i + 1) * outputs);
      const auto y = static_cast<double>(labels[static_cast<std::size_t>(i)]);
      const auto w = static_cast<double>(weights[static_cast<std::size_t>(i)]);
      for (std::int32_t k = 0; k < outputs; ++k) {
        const auto c = static_cast<std::size_t>(k);
        const double eps = 1e-4, middle = loss(name, at, y);
        at[c] += eps;
        const double above = loss(name, at, y);
        at[c] -= 2 * eps;
        const double below = loss(name, at, y);
        at[c] += eps;
        const tree::GradientPair p = out[static_cast<std::size_t>(k * rows + i)];
        EXPECT_NEAR(p.g, w * (above - below) / (2 * eps), 2e-6) << name;
        EXPECT_NEAR(p.h, w * (above - 2 * middle + below) / (eps * eps), 1e-5) << name;
      }
    }
  }
}

TEST(Objective, SoftmaxHessianIsDoubledByDefault) {
  const std::vector<float> margins = {0.1f, 0.7f, -0.3f}, labels = {1};
  std::vector<tree::GradientPair> doubled(3), exact(3);
  boosting::make_objective("multi:softprob", 3)
      ->gradients(margins.data(), {labels, {}}, 0, 1, doubled.data());
  boosting::make_objective("multi:softprob", 3, boosting::SoftmaxHessian::exact)
      ->gradients(margins.data(), {labels, {}}, 0, 1, exact.data());
  for (std::size_t k = 0; k < 3; ++k) EXPECT_FLOAT_EQ(doubled[k].h, 2 * exact[k].h);
}

TEST(Objective, StartsWhereTheMeanGradientVanishes) {
  const std::vector<float> weights = {1, 2, 3, 4, 5, 6};
  for (const std::string name : {"reg:squarederror", "binary:logistic", "multi:softprob"}) {
    const std::int32_t outputs = name == "multi:softprob" ? 3 : 1;
    const std::vector<float> labels =
        outputs == 3 ? std::vector<float>{0, 1, 2, 2, 1, 1} : std::vector<float>{0, 1, 1, 0, 1, 1};
    const auto objective = boosting::make_objective(name, outputs);
    const std::vector<double> start = objective->start({labels, weights});
    ASSERT_EQ(start.size(), static_cast<std::size_t>(outputs));
    std::vector<float> margins;
    for (int i = 0; i < 6; ++i) {
      for (const double m : start) margins.push_back(static_cast<float>(m));
    }
    std::vector<tree::GradientPair> out(static_cast<std::size_t>(6 * outputs));
    objective->gradients(margins.data(), {labels, weights}, 0, 6, out.data());
    for (std::int32_t k = 0; k < outputs; ++k) {
      double sum = 0;
      for (int i = 0; i < 6; ++i)
        sum += static_cast<double>(out[static_cast<std::size_t>(k * 6 + i)].g);
      EXPECT_NEAR(sum, 0, 1e-5) << name;
    }
  }
}

TEST(Objective, LabelsOutsideTheDomainAreRefused) {
  const auto refuses = [](const char* name, std::vector<float> labels) {
    EXPECT_THROW(boosting::make_objective(name, 3)->check_labels(labels), ValueError) << name;
  };
  refuses("binary:logistic", {0, 1, 2});
  refuses("binary:logistic", {-0.5f});
  refuses("multi:softprob", {3});
  refuses("multi:softprob", {0.5f});
  EXPECT_NO_THROW(
      boosting::make_objective("reg:logistic", 1)->check_labels(std::vector<float>{0.5f}));
  EXPECT_THROW((void)boosting::make_objective("multi:softprob", 1), ValueError);
  EXPECT_THROW((void)boosting::make_objective("reg:squared", 1), ValueError);
}

}  // namespace
}  // namespace quern::test::objective
