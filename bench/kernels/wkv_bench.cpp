// SPDX-License-Identifier: Apache-2.0

/// \file
/// RWKV-4's average of the past, on one thread.

#include "quern/kernels/kernels.hpp"
#include "quern/kernels/wkv_types.hpp"
#include "report.hpp"

#include <benchmark/benchmark.h>

#include <cstddef>
#include <vector>

namespace {

template <class T>
void wkv(benchmark::State& state) {
  const std::ptrdiff_t steps = state.range(0), channels = state.range(1);
  std::vector<T> k(static_cast<std::size_t>(steps * channels)), y(k.size());
  for (std::size_t i = 0; i < k.size(); ++i) k[i] = static_cast<T>(i * 7919 % 1024) / 512 - 1;
  const std::vector<T> w(static_cast<std::size_t>(channels), T(-0.5));
  std::vector<T> sums(3 * w.size());
  for (auto _ : state) {
    for (std::ptrdiff_t first = 0; first < channels; first += 64) {
      quern::kernels::WkvTask<T> task;
      task.steps = steps;
      task.channels = 64;
      task.k = {k.data() + first, channels};
      task.v = task.k;
      task.w = task.u = w.data() + first;
      task.state = {sums.data() + first, channels};
      task.y = {y.data() + first, channels};
      benchmark::DoNotOptimize(QUERN_DISPATCH(wkv<T>(task)));
    }
  }
  bench::report(state, static_cast<double>(k.size()), "ns/(step, channel)");
}

}  // namespace

BENCHMARK(wkv<float>)->Name("wkv/float")->Args({256, 64})->Args({1024, 1024});
BENCHMARK(wkv<double>)->Name("wkv/double")->Args({256, 64});
