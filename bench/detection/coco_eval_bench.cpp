// SPDX-License-Identifier: Apache-2.0

/// \file
/// COCO's evaluation from memory, 100 detections an image of 80 classes; the argument is the number
/// of detections, so that the rate shows whether the time grows with it. Key points' similarity.

#include "quern/detection/coco_eval.hpp"

#include "quern/core/random.hpp"
#include "quern/detection/keypoints.hpp"

#include <benchmark/benchmark.h>

#include <cstdint>
#include <vector>

namespace {

namespace detection = quern::detection;

struct Scenes {
  detection::CocoDataset data;
  std::vector<detection::Detection> found;
};

Scenes scenes(std::int64_t detections) {
  quern::Philox rng(1, "coco bench");
  Scenes s;
  for (std::int64_t c = 1; c <= 80; ++c) s.data.categories.push_back({c, "", 0});
  s.found.reserve(static_cast<std::size_t>(detections));
  for (std::int64_t image = 0; image < detections / 100; ++image) {
    s.data.images.emplace_back();
    s.data.images.back().id = image;
    detection::Truth t;
    detection::Detection d;
    t.image = d.image = image;
    for (int k = 0; k < 100; ++k) {
      const bool near = k < 16 && k % 2 == 1;
      if (!near) {
        d.box = {rng.uniform(0.0, 500.0), rng.uniform(0.0, 400.0), rng.uniform(8.0, 140.0),
                 rng.uniform(8.0, 80.0)};
        d.category = static_cast<std::int64_t>(rng.integer(80)) + 1;
      }
      if (k < 16 && !near) {
        t.id = static_cast<std::int64_t>(s.data.truths.size()) + 1;
        t.category = d.category, t.box = d.box, t.area = d.box.area() * 0.6;
        s.data.truths.push_back(t);
        d.box.x += rng.uniform(0.0, 20.0);
      }
      d.score = near ? 1 - rng.uniform<double>() / 2 : rng.uniform<double>() * 0.7;
      s.found.push_back(d);
    }
  }
  return s;
}

void evaluate(benchmark::State& state, int threads) {
  const Scenes s = scenes(state.range(0));
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
