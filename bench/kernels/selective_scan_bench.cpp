// SPDX-License-Identifier: Apache-2.0

/// \file
/// The selective scan and its way back, in the cache and out of it, and one step.

#include "kernels/selective_scan_sequence.hpp"
#include "quern/core/buffer.hpp"
#include "quern/kernels/kernels.hpp"
#include "report.hpp"

#include <benchmark/benchmark.h>

#include <cstddef>
#include <vector>

namespace {

using quern::kernels::SelectiveScanTask;
using quern::kernels::SelectiveScanVjpTask;

template <class T>
void forward(benchmark::State& state) {
  bench::Scan<T> scan(state.range(0), state.range(1), state.range(2));
  for (auto _ : state) {
    for (std::ptrdiff_t first = 0; first < scan.channels; first += 64) {
      benchmark::DoNotOptimize(QUERN_DISPATCH(selective_scan<T>(scan.task(first, 64))));
    }
  }
  bench::report(state, scan.work(), "ns/(step, channel)");
}

template <class T>
void one_step(benchmark::State& state) {
  bench::Scan<T> scan(1, state.range(0), state.range(1));
  for (auto _ : state) {
    benchmark::DoNotOptimize(QUERN_DISPATCH(selective_scan<T>(scan.task(0, scan.channels))));
  }
  bench::report(state, scan.work(), "ns/channel");
}

}  // namespace

BENCHMARK(forward<float>)
    ->Name("selective_scan/float")
    ->Args({256, 64, 16})
    ->Args({2048, 1536, 16})
    ->Args({16384, 1536, 16});
BENCHMARK(forward<double>)->Name("selective_scan/double")->Args({2048, 256, 16});
BENCHMARK(one_step<float>)->Name("selective_scan_step/float")->Args({1536, 16});
