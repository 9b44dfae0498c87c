// SPDX-License-Identifier: Apache-2.0

/// \file
/// Prediction with random forests on 28 normal features: batches from floats (trees, leaves,
/// leaf-wise, threads) and single rows. ns a row and tree is what layouts are compared by.

#include "quern/tree/predict.hpp"

#include <benchmark/benchmark.h>

#include <cstdint>
#include <random>
#include <span>
#include <utility>
#include <vector>

namespace {

constexpr std::int64_t rows = 50000;
constexpr std::int64_t features = 28;

std::vector<float> make_rows() {
  std::mt19937 generator(1);
  std::normal_distribution<float> normal;
  std::vector<float> x(static_cast<std::size_t>(rows * features));
  for (float& v : x) v = normal(generator);
  return x;
}

/// Splits the oldest leaf, or any (leaf-wise: some paths are long); 255 thresholds a feature.
quern::tree::PackedForest make_forest(std::int64_t trees, std::int64_t leaves, bool leafwise) {
  std::mt19937 generator(2);
  std::normal_distribution<double> normal;
  std::vector<quern::tree::Tree> made(static_cast<std::size_t>(trees));
  for (quern::tree::Tree& tree : made) {
    std::vector<std::int32_t> open = {0};
    for (std::size_t next = 0; static_cast<std::int64_t>(next) + 1 < leaves; ++next) {
      if (leafwise) std::swap(open[next], open[next + generator() % (open.size() - next)]);
      const std::int32_t at = open[next];
      const std::int32_t left = tree.split(at);
      tree.node(at).feature = static_cast<std::int32_t>(generator() % features);
      tree.node(at).threshold = static_cast<double>(generator() % 255) / 50 - 2.5;
      open.push_back(left);
      open.push_back(left + 1);
    }
    for (quern::tree::Node& n : tree.nodes) n.value = normal(generator);
  }
  const double base = 0;
  return quern::tree::PackedForest(
      {.trees = made, .base = std::span(&base, 1), .features = features});
}

void report(benchmark::State& state, std::int64_t predicted, std::int64_t trees) {
  using Counter = benchmark::Counter;
  const double n = static_cast<double>(state.iterations()) * static_cast<double>(predicted);
  state.counters["Mrow/s"] = Counter(n * 1e-6, Counter::kIsRate);
  state.counters["ns/row"] = Counter(n * 1e-9, Counter::kIsRate | Counter::kInvert);
  state.counters["ns/(row,tree)"] =
      Counter(n * static_cast<double>(trees) * 1e-9, Counter::kIsRate | Counter::kInvert);
}

void batch(benchmark::State& state) {
  static const std::vector<float> x = make_rows();
  const auto forest = make_forest(state.range(0), state.range(1), state.range(2) != 0);
  std::vector<float> out(static_cast<std::size_t>(rows));
  const quern::tree::FeatureView view = quern::MatrixView<const float>(x.data(), {rows, features});
  const quern::MatrixView<float> to(out.data(), {rows, 1});
  for (auto _ : state) {
    quern::tree::predict(forest, view, to, {.threads = static_cast<int>(state.range(3))});
    benchmark::DoNotOptimize(out.data());
  }
  report(state, rows, state.range(0));
}

void one_row(benchmark::State& state) {
  const std::vector<float> x = make_rows();
  const auto forest = make_forest(state.range(0), state.range(1), state.range(2) != 0);
  float out = 0;
  std::int64_t r = 0;
  for (auto _ : state) {
    r = (r + 1) % 100;
    quern::tree::predict_one(forest, std::span<const float>(x.data() + r * features, features),
                             std::span<float>(&out, 1));
    benchmark::DoNotOptimize(out);
  }
  report(state, 1, state.range(0));
}

}  // namespace

BENCHMARK(batch)
    ->ArgNames({"trees", "leaves", "leafwise", "threads"})
    ->Args({100, 64, 0, 1})
    ->Args({100, 64, 0, 2})
    ->Args({500, 255, 1, 1})
    ->Args({100, 1000, 1, 1})
    ->Unit(benchmark::kMillisecond)
    ->UseRealTime();
BENCHMARK(one_row)
    ->ArgNames({"trees", "leaves", "leafwise"})
    ->Args({100, 64, 0})
    ->Args({500, 255, 1});
