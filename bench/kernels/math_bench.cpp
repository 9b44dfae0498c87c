// SPDX-License-Identifier: Apache-2.0

/// \file
/// Functions of arrays in L1: ns an element, and how many operations of the measured multiply-add
/// peak would fit into that time (`flop_times`; exp's goal is at most 45).

#include "limits.hpp"
#include "quern/kernels/functors.hpp"
#include "quern/kernels/kernels.hpp"

#include <benchmark/benchmark.h>

#include <cstddef>
#include <type_traits>
#include <vector>

namespace {

template <class F, class T>
void function_of_array(benchmark::State& state) {
  const auto n = static_cast<std::size_t>(state.range(0));
  std::vector<T> x(n), y(n);
  for (std::size_t i = 0; i < n; ++i) x[i] = static_cast<T>((i * 7919) % n) / static_cast<T>(n) * 8;
  for (auto _ : state) {
    QUERN_DISPATCH(transform(F{}, x.data(), n, y.data()));
    benchmark::DoNotOptimize(y.data());
    benchmark::ClobberMemory();
  }
  const bench::Limits& limits = bench::limits(1);
  const double peak = std::is_same_v<T, float> ? limits.fma_f32 : limits.fma_f64;
  const auto elements = static_cast<double>(state.iterations()) * static_cast<double>(n);
  using benchmark::Counter;
  state.counters["ns"] = Counter(elements * 1e-9, Counter::kIsRate | Counter::kInvert);
  state.counters["flop_times"] =
      Counter(elements * 1e-9 / peak, Counter::kIsRate | Counter::kInvert);
}

#define QUERN_MATH_BENCH(Name)                                          \
  BENCHMARK(function_of_array<quern::kernels::Name, float>)->Arg(2048); \
  BENCHMARK(function_of_array<quern::kernels::Name, double>)->Arg(1024);
QUERN_MATH_BENCH(Exp)
QUERN_MATH_BENCH(Expm1)
QUERN_MATH_BENCH(Exp2)
QUERN_MATH_BENCH(Log)
QUERN_MATH_BENCH(Tanh)
QUERN_MATH_BENCH(Sigmoid)
QUERN_MATH_BENCH(Softplus)
QUERN_MATH_BENCH(Erf)
#undef QUERN_MATH_BENCH

}  // namespace
