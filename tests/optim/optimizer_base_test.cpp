// SPDX-License-Identifier: Apache-2.0

#include "quern/optim/optimizer_base.hpp"

#include "quern/core/error.hpp"
#include "quern/core/random.hpp"
#include "quern/optim/optimizer.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <string>
#include <utility>
#include <vector>

namespace quern::test::optim_optimizer_base {
namespace {

using namespace quern::optim;

/// Values after some steps, with the tensor cut at `cuts`, in one group or one for each piece.
template <class Method, class T, class M>
std::vector<T> trained(const Method& method, std::size_t n, std::vector<std::size_t> cuts,
                       bool many_groups, OptimizerOptions options) {
  std::vector<T> p(n), g(n);
  Philox start(1, "values", 0), noise(2, "gradients", 0);
  for (T& x : p) x = static_cast<T>(start.normal());
  cuts.push_back(n);
  Optimizer<Method, T, M> optimizer(options);
  std::vector<Parameter<T>> all;
  std::size_t at = 0;
  for (const std::size_t end : cuts) {
    Parameter<T> piece;
    piece.values = std::span<T>(p).subspan(at, end - at);
    piece.gradient = std::span<const T>(g).subspan(at, end - at);
    if (many_groups) optimizer.add_group({piece}, method);
    if (!many_groups) all.push_back(piece);
    at = end;
  }
  if (!many_groups) optimizer.add_group(all, method);
  for (int t = 0; t < 3; ++t) {
    for (T& x : g) x = static_cast<T>(noise.normal());
    optimizer.step();
  }
  return p;
}

template <class Method, class T, class M>
void check_bits(const Method& method, const OptimizerOptions& options) {
  const std::size_t n = 150'003;
  const std::vector<T> whole = trained<Method, T, M>(method, n, {}, false, options);
  const std::vector<std::size_t> cuts = {1, 8, 21, 21, 5000, 5003, 70'001, 131'072};
  EXPECT_EQ(whole, (trained<Method, T, M>(method, n, cuts, false, options)));
  EXPECT_EQ(whole, (trained<Method, T, M>(method, n, cuts, true, options)));
  for (int threads = 1; threads <= 3; ++threads) {
    OptimizerOptions with = options;
    with.threads = threads;
    EXPECT_EQ(whole, (trained<Method, T, M>(method, n, {}, false, with)));
  }
}

TEST(OptimizerBase, BitsDoNotDependOnCutsGroupsOrThreads) {
  check_bits<AdamW, float, float>(AdamW{}, {});
  check_bits<AdamW, float, BFloat16>(AdamW{}, {.clip_value = 0.5});
  check_bits<AdamW, float, float>(AdamW{}, {.clip_norm = 1, .nonfinite = NonFinite::skip});
  check_bits<AdamW, double, double>(AdamW{.decay = Decay::schedule}, {});
  check_bits<Sgd, float, float>(Sgd{.momentum = 0.9}, {.accumulate = 3});
}

TEST(OptimizerBase, AccumulationAveragesGradients) {
  std::vector<double> p = {1, 2}, q = p, g = {0, 0}, h = {2, 3};
  Optimizer<Sgd, double> parts({{.values = p, .gradient = g}}, Sgd{.lr = 0.1, .momentum = 0.5},
                               {.accumulate = 2});
  Optimizer<Sgd, double> once({{.values = q, .gradient = h}}, Sgd{.lr = 0.1, .momentum = 0.5});
  for (int t = 0; t < 3; ++t) {
    g = {1, 2};
    EXPECT_FALSE(parts.step().stepped);
    EXPECT_THROW((void)parts.state(), ValueError);
    g = {3, 4};
    EXPECT_TRUE(parts.step().stepped);
    once.step();
    EXPECT_DOUBLE_EQ(p[0], q[0]);
    EXPECT_DOUBLE_EQ(p[1], q[1]);
  }
  EXPECT_EQ(parts.steps(), 3);
  // Gradients may lie elsewhere from one call to the next.
  std::vector<double> elsewhere = {3, 4};
  g = {1, 2};
  EXPECT_FALSE(parts.step().stepped);
  parts.set_gradients({elsewhere});
  EXPECT_TRUE(parts.step().stepped);
  once.step();
  EXPECT_DOUBLE_EQ(p[0], q[0]);
  EXPECT_DOUBLE_EQ(p[1], q[1]);
}

TEST(OptimizerBase, GuardSkipsAndCounts) {
  const float inf = (std::numeric_limits<float>::infinity)();
  std::vector<float> p = {1, 2, 3}, g = {1, 1, 1};
  const std::vector<float> before = p;
  Optimizer<Adam, float> skip({{.values = p, .gradient = g}}, Adam{},
                              {.nonfinite = NonFinite::skip});
  for (const float bad : {inf, -inf, std::nanf("")}) {
    g[2] = bad;
    const StepReport report = skip.step();
    EXPECT_FALSE(report.stepped);
    EXPECT_FALSE(report.finite);
  }
  EXPECT_EQ(skip.skipped(), 3);
  EXPECT_EQ(skip.steps(), 0);
  EXPECT_EQ(p, before);
  g[2] = 1;
  EXPECT_NEAR(skip.step().norm, std::sqrt(3.0), 1e-6);
  EXPECT_NE(p, before);

  Optimizer<Adam, float> strict({{.name = "w", .values = p, .gradient = g}}, Adam{},
                                {.nonfinite = NonFinite::error});
  g[1] = std::nanf("");
  try {
    strict.step();
    ADD_FAILURE() << "no error";
  } catch (const ValueError& e) {
    EXPECT_STREQ(e.what(),
                 "quern::optim::Optimizer::step: gradient of 'w': expected finite numbers, got NaN "
                 "at 1");
  }
}

TEST(OptimizerBase, NormsOfHugeAndTinyDoubles) {
  std::vector<double> p(2), g = {3e200, 4e200};
  EXPECT_DOUBLE_EQ(survey_gradients<double>({{.values = p, .gradient = g}}).norm, 5e200);
  g = {3e-200, 4e-200};
  EXPECT_DOUBLE_EQ(survey_gradients<double>({{.values = p, .gradient = g}}).norm, 5e-200);
  g = {0, 0};
  EXPECT_EQ(survey_gradients<double>({{.values = p, .gradient = g}}).norm, 0);
}

TEST(OptimizerBase, ShapesAndSharedMemoryAreRefused) {
  std::vector<float> p(10), g(10), longer(11);
  Optimizer<Sgd, float> o({{.name = "a", .values = p, .gradient = g}}, Sgd{});
  EXPECT_THROW(o.set_gradients({longer}), ShapeError);
  EXPECT_THROW(o.set_gradients({}), ShapeError);
  EXPECT_NO_THROW(o.set_gradients({g}));
  // Groups that share a tensor, and parts of one.
  EXPECT_THROW(o.add_group({{.name = "b", .values = p, .gradient = g}}, Sgd{}), ValueError);
  const std::span<float> part = std::span<float>(p).subspan(9);
  EXPECT_THROW(
      o.add_group({{.name = "b", .values = part, .gradient = std::span(g).first(1)}}, Sgd{}),
      ValueError);
  std::vector<float> q(10);
  EXPECT_THROW(o.add_group({{.name = "a", .values = q, .gradient = g}}, Sgd{}), ValueError);
  EXPECT_THROW(o.add_group({{.name = "b", .values = q, .gradient = longer}}, Sgd{}), ShapeError);
  EXPECT_THROW(o.add_group({{.values = q, .gradient = g, .shape = {3, 3}}}, Sgd{}), ShapeError);
  EXPECT_EQ(o.groups(), 1U);
  EXPECT_EQ(o.add_group({{.name = "b", .values = q, .gradient = g}}, Sgd{.lr = 1}), 1U);
  EXPECT_THROW((void)o.lr(2), ShapeError);
  EXPECT_THROW(o.set_lr(2, 0.1), ShapeError);
  EXPECT_THROW((void)o.parameters(2), ShapeError);
  EXPECT_THROW((void)o.method(2), ShapeError);
  EXPECT_THROW((void)o.moment(0, 0, 0), ShapeError);  // plain SGD has none
  EXPECT_THROW((Optimizer<Sgd, float>({.clip_norm = -1})), ValueError);
  EXPECT_THROW((Optimizer<Sgd, float>({.accumulate = 0})), ValueError);
}

TEST(OptimizerBase, NegativeScalesClipAlike) {
  std::vector<double> p = {0}, g = {3};
  Optimizer<Sgd, double> o({{.values = p, .gradient = g}}, Sgd{.lr = 1},
                           {.clip_norm = 1, .gradient_scale = -1});
  EXPECT_DOUBLE_EQ(o.step().norm, 3);
  EXPECT_NEAR(p[0], 1, 1e-6);
  EXPECT_THROW((Optimizer<Sgd, double>({.threads = -5})), ValueError);
}

TEST(OptimizerBase, LoadedStatesDropWhatWasGathered) {
  std::vector<double> p = {0}, g = {100};
  Optimizer<Sgd, double> o({{.values = p, .gradient = g}}, Sgd{.lr = 1}, {.accumulate = 2});
  const OptimizerState saved = o.state();
  o.step();
  o.load_state(saved);
  g = {1};
  EXPECT_FALSE(o.step().stepped);
  EXPECT_TRUE(o.step().stepped);
  EXPECT_DOUBLE_EQ(p[0], -1);
}

TEST(OptimizerBase, StateContinuesExactly) {
  std::vector<float> p(1000), g(1000);
  const auto fill = [&](std::uint64_t seed) {
    Philox rng(seed, "gradients", 0);
    for (float& x : g) x = static_cast<float>(rng.normal());
  };
  Optimizer<NAdam, float, BFloat16> first({{.name = "w", .values = p, .gradient = g}}, NAdam{});
  for (std::uint64_t t = 0; t < 5; ++t) fill(t), first.step();
  first.set_lr(1e-4);
  const OptimizerState saved = first.state();
  std::vector<float> q = p;
  for (std::uint64_t t = 5; t < 9; ++t) fill(t), first.step();

  Optimizer<NAdam, float, BFloat16> second({{.name = "w", .values = q, .gradient = g}}, NAdam{});
  second.load_state(saved);
  EXPECT_EQ(second.lr(), 1e-4);
  for (std::uint64_t t = 5; t < 9; ++t) fill(t), second.step();
  EXPECT_EQ(p, q);

  OptimizerState broken = saved;
  broken.tensors[0].shape = {999};
  EXPECT_THROW(second.load_state(broken), ParseError);
  broken = saved;
  broken.tensors.pop_back();
  EXPECT_THROW(second.load_state(broken), ParseError);
  broken = saved;
  broken.words["quern.method"] = "adam";
  EXPECT_THROW(second.load_state(broken), ParseError);
  broken = saved;
  broken.words["quern.group.0.step"] = "many";
  EXPECT_THROW(second.load_state(broken), ParseError);
  broken.words["quern.group.0.step"] = "9223372036854775807";
  EXPECT_THROW(second.load_state(broken), ParseError);
  broken = saved;
  broken.words["quern.group.0.memory.0"] = "nan";
  EXPECT_THROW(second.load_state(broken), ParseError);
}

}  // namespace
}  // namespace quern::test::optim_optimizer_base
