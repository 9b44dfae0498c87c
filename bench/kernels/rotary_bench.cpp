// SPDX-License-Identifier: Apache-2.0

/// \file
/// Turning the pairs of a row in the cache.

#include "quern/kernels/kernels.hpp"
#include "report.hpp"

#include <benchmark/benchmark.h>

#include <cstddef>
#include <vector>

namespace {

/// Arguments: elements of a row, layout (0: adjacent pairs, 1: halves).
void rotary_row(benchmark::State& state) {
  const std::size_t n = static_cast<std::size_t>(state.range(0));
  const std::vector<float> cosines(n, 0.8F), sines(n, 0.6F);
  std::vector<float> x(n, 1.0F);
  for (auto _ : state) {
    if (state.range(1) == 0) {
      QUERN_DISPATCH(turn_adjacent<float>(x.data(), n, cosines.data(), sines.data(), x.data()));
    } else {
      QUERN_DISPATCH(turn_halves<float>(x.data(), n / 2, cosines.data(), sines.data(), x.data()));
    }
    benchmark::ClobberMemory();
  }
  bench::report(state, 1, "ns/row");
}

}  // namespace

BENCHMARK(rotary_row)->Name("rotary/float")->ArgsProduct({{64, 128}, {0, 1}});
