// SPDX-License-Identifier: Apache-2.0

/// \file
/// COCO's evaluation from memory, 100 detections an image of 80 classes; the argument is the number
/// of detections, so that the rate shows whether the time grows with it. Key points' similarity.

#include "quern/detection/coco_eval.hpp"

#include "quern/core/random.hpp"
#include "quern/detection/keypoints.hpp"

#include "detection/scenes.hpp"

#include <benchmark/benchmark.h>

#include <cstdint>
#include <vector>

namespace {

namespace detection = quern::detection;

void evaluate(benchmark::State& state, int threads) {
  const bench::Scenes s = bench::scenes(state.range(0));
  detection::CocoOptions options;
  options.threads = threads;
  for (auto _ : state) {
    benchmark::DoNotOptimize(detection::evaluate(s.data, s.found, options).recall.data());
  }
  state.counters["detections/s"] = benchmark::Counter(
      static_cast<double>(state.iterations() * state.range(0)), benchmark::Counter::kIsRate);
}
BENCHMARK_CAPTURE(evaluate, one_thread, 1)
    ->Arg(100'000)
    ->Arg(1'000'000)
    ->Arg(10'000'000)
    ->Unit(benchmark::kMillisecond)
    ->UseRealTime();
BENCHMARK_CAPTURE(evaluate, all_threads, 0)
    ->Arg(1'000'000)
    ->Unit(benchmark::kMillisecond)
    ->UseRealTime();

void similarity(benchmark::State& state) {
  quern::Philox rng(1, "oks bench");
  const auto sigmas = detection::coco_sigmas();
  std::vector<double> a(51), b(51);
  for (std::size_t i = 0; i < 51; ++i) {
    a[i] = rng.uniform(0.0, 100.0);
    b[i] = a[i] + rng.normal() * 4;
  }
  for (auto _ : state) {
    benchmark::DoNotOptimize(detection::oks(a, b, sigmas, 5000, {0, 0, 100, 100}));
  }
  state.SetItemsProcessed(state.iterations());
}
BENCHMARK(similarity);

}  // namespace
