// SPDX-License-Identifier: Apache-2.0

/// \file
/// Sines and cosines together, in the cache.

#include "quern/kernels/kernels.hpp"
#include "report.hpp"

#include <benchmark/benchmark.h>

#include <cstddef>
#include <vector>

namespace {

template <class T>
void sin_cos(benchmark::State& state) {
  const std::size_t n = 2048;
  std::vector<T> x(n), sines(n), cosines(n);
  for (std::size_t i = 0; i < n; ++i) x[i] = static_cast<T>(i * 7919 % n) / 128 - 8;
  for (auto _ : state) {
    QUERN_DISPATCH(sin_cos_of<T>(x.data(), n, sines.data(), cosines.data()));
    benchmark::ClobberMemory();
  }
  bench::report(state, static_cast<double>(n), "ns/number");
}

}  // namespace

BENCHMARK(sin_cos<float>)->Name("sin_cos/float");
BENCHMARK(sin_cos<double>)->Name("sin_cos/double");
