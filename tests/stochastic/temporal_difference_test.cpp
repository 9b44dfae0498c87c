// SPDX-License-Identifier: Apache-2.0

#include "quern/stochastic/temporal_difference.hpp"
#include "quern/core/random.hpp"
#include "quern/stochastic/robbins_monro.hpp"
#include "reference.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <span>
#include <vector>

namespace quern::test::temporal_difference {
namespace {

using namespace stochastic;

std::vector<Transition> transitions() {
  const auto s = stochastic_reference<std::int32_t>("rl_s");
  const auto a = stochastic_reference<std::int32_t>("rl_a");
  const auto next = stochastic_reference<std::int32_t>("rl_s2");
  const auto r = stochastic_reference<double>("rl_r");
  std::vector<Transition> out;
  for (std::size_t i = 0; i < s.size(); ++i) {
    out.push_back({.state = s[i], .reward = r[i], .next = next[i], .action = a[i]});
  }
  return out;
}

TEST(StochasticTemporalDifference, ValuesAreTheReference) {
  TabularTd td(5, {.step = 0.1});
  QLearning q(5, 2);
  for (const Transition& t : transitions()) {
    td.step(t);
    q.step(t);
  }
  expect_reference(stochastic_reference<double>("td0_V_alpha0.1_gamma0.9"), 0, td.current());
  expect_reference(stochastic_reference<double>("qlearning_step1overvisits_gamma0.9"), 0,
                   q.current());
}

TEST(StochasticTemporalDifference, TdIsRobbinsMonroBitForBit) {
  TabularTd td(5, {.step = StepSize::power(0.5, 0.6), .by_visits = false});
  RobbinsMonro<double> root(std::vector<double>(5), {.step = StepSize::power(0.5, 0.6)});
  for (const Transition& t : transitions()) {
    const auto s = static_cast<std::size_t>(t.state);
    const auto next = static_cast<std::size_t>(t.next);
    std::vector<double> g(5);  // (V(s) - r - gamma V(s')) e_s
    g[s] = -(t.reward + 0.9 * root.current()[next] - root.current()[s]);
    root.step(g);
    td.step(t);
    for (std::size_t j = 0; j < 5; ++j) ASSERT_EQ(td.current()[j], root.current()[j]);
  }
}

TEST(StochasticTemporalDifference, LinearWithUnitFeaturesIsTabular) {
  const StepSize step = StepSize::power(0.5, 0.6);
  TabularTd table(5, {.step = step, .by_visits = false});
  LinearTd linear(5, {.step = step});
  for (const Transition& t : transitions()) {
    std::vector<double> here(5), next(5);
    here[static_cast<std::size_t>(t.state)] = next[static_cast<std::size_t>(t.next)] = 1;
    table.step(t);
    linear.step({.features = here, .reward = t.reward, .next = next});
  }
  for (std::size_t j = 0; j < 5; ++j) EXPECT_NEAR(linear.current()[j], table.current()[j], 1e-14);
}

/// Sutton's random walk on five states: from state s the right end (reward 1) is reached first with
/// probability (s + 1) / 6.
TEST(StochasticTemporalDifference, RandomWalkHasItsKnownValues) {
  Philox random(1, "walk");
  Index state = 2;
  const auto next = [&](const TabularTd&) {
    Transition t{.state = state};
    t.next = state + (random.bernoulli(0.5) ? 1 : -1);
    t.terminal = t.next < 0 || t.next > 4;
    t.reward = t.next > 4 ? 1 : 0;
    state = t.terminal ? 2 : t.next;
    return t;
  };
  TabularTd td(5, {.discount = 1, .step = StepSize::power(1, 0.7)});
  const Path<double> path = run_td(td, next, {.steps = 60000, .record_every = 20000});
  EXPECT_EQ(path.size(), 3);
  for (std::size_t s = 0; s < 5; ++s) EXPECT_NEAR(td.current()[s], double(s + 1) / 6, 0.04);
}

/// Two states; staying in the second pays 1. Best: go there and stay.
TEST(StochasticTemporalDifference, QLearningFindsTheBestActions) {
  QLearning q(2, 2, {.discount = 0.5, .step = StepSize::power(1, 0.6)});
  Philox random(2, "q");
  for (int k = 0; k < 20000; ++k) {
    Transition t;
    t.state = static_cast<Index>(random.integer(2));
    t.action = static_cast<Index>(random.integer(2));  // 0 stays, 1 goes to the other
    t.next = t.action == 0 ? t.state : 1 - t.state;
    t.reward = (t.state == 1 && t.action == 0 ? 1.0 : 0.0) + 0.5 * random.normal();
    q.step(t);
  }
  EXPECT_EQ(q.best_action(0), 1);
  EXPECT_EQ(q.best_action(1), 0);
  EXPECT_NEAR(q.values()(1, 0), 2, 0.1);
  EXPECT_NEAR(q.values()(0, 1), 1, 0.1);
}

TEST(StochasticTemporalDifference, RefusesBadInput) {
  TabularTd td(3);
  EXPECT_THROW(td.step({.state = 3}), ShapeError);
  EXPECT_THROW(td.step({.next = -1}), ShapeError);
  td.step({.next = -1, .terminal = true});
  EXPECT_THROW(td.step({.reward = std::nan("")}), ValueError);
  EXPECT_THROW(TabularTd(0), ShapeError);
  EXPECT_THROW(TabularTd(2, {.discount = 1.5}), ValueError);
  QLearning q(2, 2);
  EXPECT_THROW(q.step({.action = 2}), ShapeError);
  EXPECT_THROW((void)q.value(0, 7), ShapeError);
  EXPECT_THROW(QLearning(Index{1} << 40, Index{1} << 40), ValueError);
  TabularTd bad(2, {.step = StepSize::custom([](std::int64_t) { return -1.0; })});
  EXPECT_THROW(bad.step({}), ValueError);
  EXPECT_EQ(bad.steps() + bad.visits()[0], 0);
  LinearTd linear(2);
  const std::vector<double> two = {1, 2}, three = {1, 2, 3};
  EXPECT_THROW(linear.step({.features = three}), ShapeError);
  EXPECT_THROW(linear.step({.features = two, .next = three}), ShapeError);
  linear.step({.features = two, .reward = 1});  // ends the episode
  EXPECT_EQ(linear.current()[1], 2);
}

}  // namespace
}  // namespace quern::test::temporal_difference
