// SPDX-License-Identifier: Apache-2.0

/// \file
/// The limits themselves, as the other benchmarks see them; the argument is the number of threads.

#include "limits.hpp"

#include <benchmark/benchmark.h>

namespace {

void measured_limits(benchmark::State& state) {
  const bench::Limits& limits = bench::limits(static_cast<int>(state.range(0)));
  for (auto _ : state) benchmark::DoNotOptimize(limits.fma_f32);
  state.counters["fma_f32_GFLOP/s"] = limits.fma_f32;
  state.counters["fma_f64_GFLOP/s"] = limits.fma_f64;
  state.counters["read_GB/s"] = limits.read;
  state.counters["copy_GB/s"] = limits.copy;
  state.counters["triad_GB/s"] = limits.triad;
  state.counters["update_GB/s"] = limits.update;
}
BENCHMARK(measured_limits)->Arg(1)->Arg(2)->Iterations(1);

}  // namespace
