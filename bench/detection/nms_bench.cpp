// SPDX-License-Identifier: Apache-2.0

/// \file
/// Suppression of a detector's raw boxes: around 1 in 20 is kept, as before a network's last step.

#include "quern/detection/nms.hpp"

#include <benchmark/benchmark.h>

#include <cstdint>
#include <random>
#include <span>
#include <vector>

namespace {

using quern::NdView;

struct Raw {
  std::vector<float> boxes, scores;
  std::vector<std::int64_t> labels;
};

/// Clusters of some 20 boxes each.
Raw raw(std::int64_t n) {
  std::mt19937 generator(1);
  std::uniform_real_distribution<float> place(0, 600), size(20, 200), score(0, 1);
  std::normal_distribution<float> near(0, 6);
  Raw r;
  float x = 0, y = 0, w = 0, h = 0;
  for (std::int64_t i = 0; i < n; ++i) {
    if (i % 20 == 0) {
      x = place(generator), y = place(generator), w = size(generator), h = size(generator);
    }
    const float u = x + near(generator), v = y + near(generator);
    r.boxes.insert(r.boxes.end(), {u, v, u + w, v + h});
    r.scores.push_back(score(generator));
    r.labels.push_back(i / 20 % 80);
  }
  return r;
}

void hard(benchmark::State& state, bool classes) {
  const Raw r = raw(state.range(0));
  const NdView<const float, 2> boxes(r.boxes.data(), {state.range(0), 4});
  const std::span<const float> scores(r.scores);
  std::span<const std::int64_t> labels;
  if (classes) labels = r.labels;
  for (auto _ : state) {
    benchmark::DoNotOptimize(quern::detection::nms<float>(boxes, scores, {}, labels));
  }
  state.SetItemsProcessed(state.iterations() * state.range(0));
}
BENCHMARK_CAPTURE(hard, all, false)->Arg(1000)->Arg(10000);
BENCHMARK_CAPTURE(hard, by_class, true)->Arg(10000);

void soft(benchmark::State& state) {
  const Raw r = raw(state.range(0));
  const NdView<const float, 2> boxes(r.boxes.data(), {state.range(0), 4});
  for (auto _ : state) {
    benchmark::DoNotOptimize(
        quern::detection::soft_nms<float>(boxes, std::span<const float>(r.scores)));
  }
  state.SetItemsProcessed(state.iterations() * state.range(0));
}
BENCHMARK(soft)->Arg(1000);

}  // namespace
