// SPDX-License-Identifier: Apache-2.0

/// \file
/// Products of small blocks in the cache: those of attention, by the width of a head.

#include "limits.hpp"
#include "quern/kernels/kernels.hpp"

#include <benchmark/benchmark.h>

#include <cstddef>
#include <type_traits>
#include <vector>

namespace {

/// GFLOP/s, and the fraction of the measured multiply-add peak of one core.
template <class T>
void report_flops(benchmark::State& state, double flops) {
  const bench::Limits& limits = bench::limits(1);
  const double rate = static_cast<double>(state.iterations()) * flops * 1e-9;
  const double peak = std::is_same_v<T, float> ? limits.fma_f32 : limits.fma_f64;
  state.counters["GFLOP/s"] = benchmark::Counter(rate, benchmark::Counter::kIsRate);
  state.counters["of peak"] = benchmark::Counter(rate / peak, benchmark::Counter::kIsRate);
}

/// 64 rows, as many columns as given, depth 64; the left-hand side as it lies or turned.
template <class T>
void product(benchmark::State& state) {
  const std::ptrdiff_t n = 64, cols = state.range(0);
  const bool turned = state.range(1) != 0;
  std::vector<T> a(static_cast<std::size_t>(n * n), T{1}), b(static_cast<std::size_t>(n * cols));
  std::vector<T> c(b.size());
  const quern::kernels::BlockProduct<T> p{
      a.data(), turned ? 1 : n, turned ? n : 1, b.data(), cols, c.data(), cols, n, cols, n};
  for (auto _ : state) {
    QUERN_DISPATCH(block_product<true>(p));
    benchmark::ClobberMemory();
  }
  report_flops<T>(state, 2.0 * static_cast<double>(n * n * cols));
}

}  // namespace

BENCHMARK(product<float>)
    ->Name("block_product/float")
    ->Args({16, 0})
    ->Args({64, 0})
    ->Args({64, 1})
    ->Args({128, 0});
BENCHMARK(product<double>)->Name("block_product/double")->Args({64, 0});
