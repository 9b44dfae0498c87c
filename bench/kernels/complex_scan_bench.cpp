// SPDX-License-Identifier: Apache-2.0

/// \file
/// The selective scan with complex poles, b and c fixed, on one thread.

#include "quern/kernels/complex_scan_types.hpp"
#include "quern/kernels/kernels.hpp"
#include "report.hpp"

#include <benchmark/benchmark.h>

#include <cstddef>
#include <vector>

namespace {

template <class T>
void complex_scan(benchmark::State& state) {
  const std::ptrdiff_t steps = state.range(0), channels = state.range(1), states = state.range(2);
  const std::vector<T> u(static_cast<std::size_t>(steps * channels), T(0.3));
  const std::vector<T> delta(u.size(), T(0.05));
  const std::vector<T> minus(static_cast<std::size_t>(states * channels), T(-0.5));
  std::vector<T> turn(minus.size()), h(minus.size()), g(minus.size()), y(u.size());
  for (std::size_t i = 0; i < turn.size(); ++i) turn[i] = T(2) * static_cast<T>(i % 16);
  for (auto _ : state) {
    for (std::ptrdiff_t first = 0; first < channels; first += 64) {
      const auto rows = [&](const std::vector<T>& x) {
        return quern::kernels::ScanRows<const T>{x.data() + first, channels};
      };
      quern::kernels::ComplexScanTask<T> task;
      task.scan.steps = steps;
      task.scan.channels = 64;
      task.scan.states = states;
      task.scan.fixed = true;
      task.scan.u = rows(u);
      task.scan.delta = rows(delta);
      task.scan.y = {y.data() + first, channels};
      task.a = {rows(minus), rows(turn)};
      task.b = {rows(minus), rows(minus)};
      task.c = task.b;
      task.h = {{h.data() + first, channels}, {g.data() + first, channels}};
      benchmark::DoNotOptimize(QUERN_DISPATCH(complex_scan<T>(task)));
    }
  }
  bench::report(state, static_cast<double>(steps * channels), "ns/(step, channel)");
}

}  // namespace

BENCHMARK(complex_scan<float>)
    ->Name("complex_scan/float")
    ->Args({256, 64, 16})
    ->Args({2048, 1536, 16});
BENCHMARK(complex_scan<double>)->Name("complex_scan/double")->Args({256, 64, 16});
