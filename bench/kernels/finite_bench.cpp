// SPDX-License-Identifier: Apache-2.0

/// \file
/// Looking for what is not finite, in the cache and from memory.

#include "limits.hpp"
#include "quern/kernels/kernels.hpp"
#include "report.hpp"

#include <benchmark/benchmark.h>

#include <cstddef>
#include <vector>

namespace {

template <class T>
void every_finite(benchmark::State& state) {
  const auto n = static_cast<std::size_t>(state.range(0));
  const std::vector<T> x(n, T(-0.5));
  const bool decays = state.range(1) != 0;
  for (auto _ : state) {
    benchmark::DoNotOptimize(decays ? QUERN_DISPATCH(every_at_most_zero<T>(x.data(), n))
                                    : QUERN_DISPATCH(every_finite<T>(x.data(), n)));
  }
  const double bytes = static_cast<double>(n * sizeof(T));
  bench::report_bytes(state, bytes);
  using benchmark::Counter;
  state.counters["limit"] =
      Counter(static_cast<double>(state.iterations()) * bytes * 1e-9 / bench::limits(1).read,
              Counter::kIsRate);
}

}  // namespace

BENCHMARK(every_finite<float>)->Name("every_finite/float")->ArgsProduct({{4096, 1 << 24}, {0, 1}});
BENCHMARK(every_finite<double>)->Name("every_finite/double")->Args({1 << 23, 0});
