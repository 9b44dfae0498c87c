// SPDX-License-Identifier: Apache-2.0

/// \file
/// Shapley values of trees: ns a row and tree, at depths 4 to 10, and interactions.

#include "quern/tree/shap.hpp"

#include <benchmark/benchmark.h>

#include <cstdint>
#include <random>
#include <span>
#include <vector>

namespace {

constexpr std::int64_t rows = 512;
constexpr std::int64_t features = 28;

/// Full trees of that depth on random features.
std::vector<quern::tree::Tree> make_trees(std::int64_t count, std::int64_t depth) {
  std::mt19937 generator(1);
  std::normal_distribution<double> normal;
  std::vector<quern::tree::Tree> trees(static_cast<std::size_t>(count));
  for (quern::tree::Tree& tree : trees) {
    const auto inner = static_cast<std::int32_t>((1 << depth) - 1);
    for (std::int32_t i = 0; i < inner; ++i) {
      tree.split(i);
      tree.node(i).feature = static_cast<std::int32_t>(generator() % features);
      tree.node(i).threshold = normal(generator);
    }
    for (auto n = tree.nodes.rbegin(); n != tree.nodes.rend(); ++n) {
      n->value = normal(generator);
      n->cover = n->is_leaf() ? 1 + static_cast<double>(generator() % 9)
                              : tree.node(n->left).cover + tree.node(n->right).cover;
    }
  }
  return trees;
}

/// Values or interactions on one thread.
void run(benchmark::State& state, bool pairs) {
  const std::int64_t trees = 20;
  const std::vector<quern::tree::Tree> made = make_trees(trees, state.range(0));
  const double base = 0;
  const quern::tree::ShapForest forest(
      {.trees = made, .base = std::span(&base, 1), .features = features});
  std::mt19937 generator(2);
  std::normal_distribution<float> normal;
  std::vector<float> x(static_cast<std::size_t>(rows * features));
  for (float& v : x) v = normal(generator);
  const quern::MatrixView<const float> view(x.data(), {rows, features});
  std::vector<double> out(static_cast<std::size_t>(rows * 29 * (pairs ? 29 : 1)));
  for (auto _ : state) {
    if (pairs) {
      quern::tree::shap_interactions(
          forest, view, quern::NdView<double, 4>(out.data(), {rows, 1, 29, 29}), {.threads = 1});
    } else {
      quern::tree::shap_values(forest, view, quern::NdView<double, 3>(out.data(), {rows, 1, 29}),
                               {.threads = 1});
    }
    benchmark::ClobberMemory();
  }
  using Counter = benchmark::Counter;
  state.counters["ns/(row,tree)"] =
      Counter(static_cast<double>(state.iterations()) * static_cast<double>(rows * trees) * 1e-9,
              Counter::kIsRate | Counter::kInvert);
}

void values(benchmark::State& state) { run(state, false); }
void interactions(benchmark::State& state) { run(state, true); }

}  // namespace

BENCHMARK(values)->Name("shap/values")->ArgName("depth")->Arg(4)->Arg(6)->Arg(8)->Arg(10);
BENCHMARK(interactions)->Name("shap/interactions")->ArgName("depth")->Arg(4)->Arg(6)->Arg(8);
