// SPDX-License-Identifier: Apache-2.0

/// \file
/// Reading a detector's results from COCO's JSON: MB/s of text, one thread and all.

#include "quern/io/coco.hpp"

#include <benchmark/benchmark.h>

#include <cstdint>
#include <cstdio>
#include <string>

namespace {

std::string results(int n) {
  std::string text = "[";
  char one[200];
  for (int i = 0; i < n; ++i) {
    std::snprintf(one, sizeof(one),
                  "%s{\"image_id\": %d, \"bbox\": [%.2f, %.2f, %.2f, %.2f], \"category_id\": %d, "
                  "\"score\": %.5f}",
                  i == 0 ? "" : ", ", i / 100, i * 37 % 5000 * 0.1, i * 53 % 4000 * 0.1,
                  5 + i * 11 % 1500 * 0.1, 5 + i * 7 % 900 * 0.1, 1 + i * 13 % 80,
                  i * 71 % 100000 * 1e-5);
    text += one;
  }
  return text + "]";
}

void read_results(benchmark::State& state, int threads) {
  quern::detection::CocoDataset data;
  for (int c = 1; c <= 80; ++c) data.categories.push_back({c, "", 0});
  for (int i = 0; i < 2000; ++i) {
    data.images.emplace_back();
    data.images.back().id = i;
  }
  const std::string text = results(200'000);
  for (auto _ : state) {
    const auto found = quern::io::parse_coco_results(text, data, {.threads = threads});
    benchmark::DoNotOptimize(found.detections.data());
  }
  state.SetBytesProcessed(state.iterations() * static_cast<std::int64_t>(text.size()));
}
BENCHMARK_CAPTURE(read_results, one_thread, 1)->Unit(benchmark::kMillisecond)->UseRealTime();
BENCHMARK_CAPTURE(read_results, all_threads, 0)->Unit(benchmark::kMillisecond)->UseRealTime();

}  // namespace
