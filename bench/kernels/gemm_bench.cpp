// SPDX-License-Identifier: Apache-2.0

/// \file
/// Matrix products: GFLOP/s and the fraction of the measured multiply-add peak. Arguments are rows,
/// columns, depth and threads.

#include "limits.hpp"
#include "quern/kernels/gemm.hpp"

#include <benchmark/benchmark.h>

#include <cstdint>
#include <type_traits>
#include <vector>

namespace {

using quern::Index;
using quern::MatrixView;

template <class T>
std::vector<T> some_values(Index n) {
  std::vector<T> values(static_cast<std::size_t>(n));
  for (std::size_t i = 0; i < values.size(); ++i) {
    values[i] = static_cast<T>((i * 7919) % 1009) / T(1009) - T(0.5);
  }
  return values;
}

template <class T>
void count_work(benchmark::State& state, double products, int threads) {
  const bench::Limits& limits = bench::limits(threads);
  const double peak = std::is_same_v<T, float> ? limits.fma_f32 : limits.fma_f64;
  const double flops = 2e-9 * products * static_cast<double>(state.iterations());
  using benchmark::Counter;
  state.counters["GFLOP/s"] = Counter(flops, Counter::kIsRate);
  state.counters["of_limit"] = Counter(flops / peak, Counter::kIsRate);
}

enum class Kind { plain, transposed, col_major, packed };

template <class T, Kind kind>
void product(benchmark::State& state) {
  const Index m = state.range(0), n = state.range(1), k = state.range(2);
  const int threads = static_cast<int>(state.range(3));
  std::vector<T> a = some_values<T>(m * k), b = some_values<T>(k * n), c = some_values<T>(m * n);
  MatrixView<const T> va(a.data(), {m, k}), vb(b.data(), {k, n});
  MatrixView<T> vc(c.data(), {m, n});
  if (kind == Kind::transposed) vb = MatrixView<const T>(b.data(), {k, n}, {1, k});
  if (kind == Kind::col_major) {
    va = MatrixView<const T>(a.data(), {m, k}, {1, m});
    vb = MatrixView<const T>(b.data(), {k, n}, {1, k});
    vc = MatrixView<T>(c.data(), {m, n}, {1, m});
  }
  quern::kernels::PackedMatrix<T> packed;
  if (kind == Kind::packed) packed = quern::kernels::PackedMatrix<T>(vb);
  for (auto _ : state) {
    if constexpr (kind == Kind::packed) {
      quern::kernels::gemm<T>(va, packed, vc, {.threads = threads});
    } else {
      quern::kernels::gemm<T>(va, vb, vc, {.threads = threads});
    }
    benchmark::ClobberMemory();
  }
  count_work<T>(state, static_cast<double>(m) * static_cast<double>(n) * static_cast<double>(k),
                threads);
}

/// Rows, codes, dimensions, threads.
void nearest_code(benchmark::State& state) {
  const Index rows = state.range(0), codes = state.range(1), k = state.range(2);
  const int threads = static_cast<int>(state.range(3));
  const std::vector<float> x = some_values<float>(rows * k), c = some_values<float>(codes * k);
  const std::vector<float> half = some_values<float>(codes);
  const quern::kernels::PackedMatrix<float> packed(
      MatrixView<const float>(c.data(), {codes, k}).transposed());
  std::vector<std::int64_t> found(static_cast<std::size_t>(rows));
  const MatrixView<const float> vx(x.data(), {rows, k});
  for (auto _ : state) {
    quern::kernels::gemm_argmin<float>(vx, packed, -1.0f, half, found, {}, threads);
    benchmark::ClobberMemory();
  }
  count_work<float>(state,
                    static_cast<double>(rows) * static_cast<double>(codes) * static_cast<double>(k),
                    threads);
}

void sizes(benchmark::internal::Benchmark* bench) {
  for (const int threads : {1, 2}) {
    for (const int n : {256, 512, 1024, 2048}) bench->Args({n, n, n, threads});
    for (const int n : {256, 512, 1024, 2048}) bench->Args({n, n, 64, threads});
  }
  for (const int n : {4, 8, 16, 32, 64, 100}) bench->Args({n, n, n, 1});
  bench->Args({1, 1024, 1024, 1})->Args({1024, 1, 1024, 1})->Args({16, 1024, 1024, 1});
  bench->UseRealTime();
}

void few_sizes(benchmark::internal::Benchmark* bench) {
  for (const int n : {64, 512, 1024}) bench->Args({n, n, n, 1});
  bench->UseRealTime();
}

BENCHMARK(product<float, Kind::plain>)->Apply(sizes);
BENCHMARK(product<double, Kind::plain>)->Apply(sizes);
BENCHMARK(product<float, Kind::transposed>)->Apply(few_sizes);
BENCHMARK(product<float, Kind::col_major>)->Apply(few_sizes);
BENCHMARK(product<float, Kind::packed>)->Apply(few_sizes);
BENCHMARK(product<double, Kind::transposed>)->Apply(few_sizes);
BENCHMARK(nearest_code)
    ->Args({65536, 512, 64, 1})
    ->Args({65536, 1024, 64, 1})
    ->Args({65536, 1024, 64, 2})
    ->Args({16384, 1024, 256, 1})
    ->UseRealTime();

}  // namespace
