// SPDX-License-Identifier: Apache-2.0

/// \file
/// Steps of HiPPO's online memories, and how their cost stays flat.

#include "quern/ssm/hippo_memory.hpp"

#include "report.hpp"

#include <benchmark/benchmark.h>

namespace {

/// Arguments: order, channels, inputs seen before.
template <class T>
void hippo(benchmark::State& state, quern::ssm::Measure measure) {
  const quern::Index order = state.range(0), channels = state.range(1), steps = 64;
  quern::ssm::HippoMemory<T> memory(order, channels, {.measure = measure, .threads = 1});
  memory.restore(quern::NdArray<T, 2>({order, channels}).view(), state.range(2));
  const quern::NdArray<T, 2> inputs({steps, channels});
  for (auto _ : state) memory.update(inputs.view());
  bench::report(state, static_cast<double>(order * channels * steps), "ns/(step, order, channel)");
}

void legs_float(benchmark::State& state) { hippo<float>(state, quern::ssm::Measure::legs); }
void legt_float(benchmark::State& state) { hippo<float>(state, quern::ssm::Measure::legt); }
void legs_double(benchmark::State& state) { hippo<double>(state, quern::ssm::Measure::legs); }

}  // namespace

BENCHMARK(legs_float)->Args({256, 64, 1})->Args({256, 64, 1000000})->Args({64, 256, 1});
BENCHMARK(legt_float)->Args({256, 64, 1});
BENCHMARK(legs_double)->Args({256, 64, 1});
