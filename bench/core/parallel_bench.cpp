// SPDX-License-Identifier: Apache-2.0

/// \file
/// What a parallel_for costs when its blocks do nothing: the latency that boosting pays thousands
/// of times a second. Argument: threads.

#include "quern/core/parallel.hpp"

#include <benchmark/benchmark.h>

#include <chrono>
#include <cstdint>
#include <functional>
#include <thread>

namespace quern::bench::parallel {
namespace {

/// Calls in a row: workers are still spinning when the next one comes.
void empty_blocks(benchmark::State& state) {
  const int threads = static_cast<int>(state.range(0));
  for (auto _ : state) {
    parallel_for(
        state.range(1), [](std::int64_t b) { benchmark::DoNotOptimize(b); }, threads);
  }
  state.counters["calls/s"] =
      benchmark::Counter(static_cast<double>(state.iterations()), benchmark::Counter::kIsRate);
}
BENCHMARK(empty_blocks)
    ->ArgsProduct({{1, 2}, {2, 64}})
    ->ArgNames({"threads", "blocks"})
    ->UseRealTime();

/// Calls with a pause between them: workers have gone to sleep and must be woken.
void empty_blocks_after_sleep(benchmark::State& state) {
  const int threads = static_cast<int>(state.range(0));
  for (auto _ : state) {
    state.PauseTiming();
    std::this_thread::sleep_for(std::chrono::microseconds(200));
    state.ResumeTiming();
    parallel_for(
        2, [](std::int64_t b) { benchmark::DoNotOptimize(b); }, threads);
  }
}
BENCHMARK(empty_blocks_after_sleep)->Arg(2)->ArgName("threads")->UseRealTime()->Iterations(2000);

void reduce_blocks(benchmark::State& state) {
  const int threads = static_cast<int>(state.range(0));
  for (auto _ : state) {
    benchmark::DoNotOptimize(parallel_reduce(
        64, std::int64_t{0}, [](std::int64_t b) { return b; }, std::plus<>{}, threads));
  }
}
BENCHMARK(reduce_blocks)->Arg(1)->Arg(2)->ArgName("threads")->UseRealTime();

}  // namespace
}  // namespace quern::bench::parallel
