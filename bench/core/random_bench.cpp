// SPDX-License-Identifier: Apache-2.0

/// \file
/// Random numbers per second, one thread, drawn one after the other.

#include "quern/core/random.hpp"

#include <benchmark/benchmark.h>

#include <cstdint>
#include <vector>

namespace quern::bench::random {
namespace {

template <class Draw>
void draws(benchmark::State& state, Draw draw) {
  Philox rng(1, "bench");
  for (auto _ : state) benchmark::DoNotOptimize(draw(rng));
  state.SetItemsProcessed(static_cast<std::int64_t>(state.iterations()));
}

BENCHMARK_CAPTURE(draws, next_u32, [](Philox& r) { return r.next_u32(); });
BENCHMARK_CAPTURE(draws, uniform_float, [](Philox& r) { return r.uniform<float>(); });
BENCHMARK_CAPTURE(draws, uniform_double, [](Philox& r) { return r.uniform<double>(); });
BENCHMARK_CAPTURE(draws, normal_float, [](Philox& r) { return r.normal<float>(); });
BENCHMARK_CAPTURE(draws, normal_double, [](Philox& r) { return r.normal<double>(); });
BENCHMARK_CAPTURE(draws, exponential, [](Philox& r) { return r.exponential<double>(); });
BENCHMARK_CAPTURE(draws, integer_small, [](Philox& r) { return r.integer(1000); });
BENCHMARK_CAPTURE(draws, integer_wide, [](Philox& r) { return r.integer(std::uint64_t{1} << 40); });

void sample(benchmark::State& state) {
  Philox rng(1, "bench");
  for (auto _ : state) benchmark::DoNotOptimize(rng.sample(state.range(0), state.range(1)));
  state.SetItemsProcessed(static_cast<std::int64_t>(state.iterations()) * state.range(1));
}
BENCHMARK(sample)->Args({1000000, 500000})->Args({1000000, 1000});

void shuffle(benchmark::State& state) {
  Philox rng(1, "bench");
  std::vector<std::int32_t> values(100000);
  for (auto _ : state) rng.shuffle(values);
  state.SetItemsProcessed(static_cast<std::int64_t>(state.iterations()) * 100000);
}
BENCHMARK(shuffle);

}  // namespace
}  // namespace quern::bench::random
