// SPDX-License-Identifier: Apache-2.0

/// \file
/// y += a x and y = a x, from L1 and from memory: GB/s moved, and for the long arrays the fraction
/// of the memory limit (triad for axpy, which reads two arrays and writes one; copy for scale).

#include "limits.hpp"
#include "quern/kernels/kernels.hpp"

#include <benchmark/benchmark.h>

#include <cstddef>
#include <vector>

namespace {

constexpr std::int64_t kShort = 2048, kLong = std::int64_t{1} << 24;

void set_rate(benchmark::State& state, double bytes, double limit) {
  using benchmark::Counter;
  const double moved = static_cast<double>(state.iterations()) * bytes;
  state.counters["GB/s"] = Counter(moved * 1e-9, Counter::kIsRate);
  if (state.range(0) == kLong) {
    state.counters["of_limit"] = Counter(moved * 1e-9 / limit, Counter::kIsRate);
  }
}

template <class T>
void axpy_bench(benchmark::State& state) {
  const auto n = static_cast<std::size_t>(state.range(0));
  std::vector<T> x(n, T{1}), y(n, T{2});
  for (auto _ : state) {
    QUERN_DISPATCH(axpy(T{1} / 1024, x.data(), n, y.data()));
    benchmark::ClobberMemory();
  }
  set_rate(state, 3.0 * static_cast<double>(n * sizeof(T)), bench::limits(1).triad);
}
BENCHMARK(axpy_bench<float>)->Arg(kShort)->Arg(kLong);
BENCHMARK(axpy_bench<double>)->Arg(kShort)->Arg(kLong);

template <class T>
void scale_bench(benchmark::State& state) {
  const auto n = static_cast<std::size_t>(state.range(0));
  std::vector<T> x(n, T{1}), y(n, T{2});
  for (auto _ : state) {
    QUERN_DISPATCH(scale(T{3}, x.data(), n, y.data()));
    benchmark::ClobberMemory();
  }
  set_rate(state, 2.0 * static_cast<double>(n * sizeof(T)), bench::limits(1).copy);
}
BENCHMARK(scale_bench<float>)->Arg(kShort)->Arg(kLong);
BENCHMARK(scale_bench<double>)->Arg(kShort)->Arg(kLong);

}  // namespace
