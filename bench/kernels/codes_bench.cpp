// SPDX-License-Identifier: Apache-2.0

/// \file
/// Nearest codes (2 N K d operations), with and without the second best, and rows added by code.

#include "quern/core/nd_array.hpp"
#include "quern/core/random.hpp"
#include "quern/kernels/kernels.hpp"
#include "quern/vq/code_sums.hpp"
#include "quern/vq/nearest.hpp"
#include "report.hpp"

#include <benchmark/benchmark.h>

#include <cstddef>
#include <cstdint>
#include <vector>

namespace {

quern::NdArray<float, 2> rows_of(quern::Index rows, quern::Index cols, std::uint64_t seed) {
  quern::NdArray<float, 2> x({rows, cols});
  quern::Philox random(seed, "bench");
  for (float& value : x) value = random.uniform<float>(-1, 1);
  return x;
}

void nearest(benchmark::State& state, quern::vq::Guard guard) {
  const quern::Index n = 8192, d = state.range(0), k = state.range(1);
  const auto x = rows_of(n, d, 1), book = rows_of(k, d, 2);
  std::vector<std::int64_t> codes(static_cast<std::size_t>(n));
  for (auto _ : state) {
    quern::vq::nearest_codes<float>(x.view(), book.view(), codes, {},
                                    {.guard = guard, .threads = 1});
    benchmark::ClobberMemory();
  }
  state.counters["GFLOP/s"] = benchmark::Counter(
      static_cast<double>(state.iterations()) * 2e-9 * static_cast<double>(n * d * k),
      benchmark::Counter::kIsRate);
}

void sums(benchmark::State& state) {
  const quern::Index n = 65536, d = 64, k = 1024;
  const auto x = rows_of(n, d, 1);
  std::vector<std::int64_t> codes(static_cast<std::size_t>(n));
  for (std::size_t i = 0; i < codes.size(); ++i)
    codes[i] = static_cast<std::int64_t>(i * 769 % 1024);
  quern::NdArray<float, 2> out({k, d});
  for (auto _ : state) {
    const quern::vq::RowsByCode by_code(codes, k);
    quern::vq::sum_by_code<float>(x.view(), by_code, out.view(), 1);
    benchmark::ClobberMemory();
  }
  bench::report_bytes(state, static_cast<double>(x.size()) * sizeof(float));
}

}  // namespace

BENCHMARK_CAPTURE(nearest, plain, quern::vq::Guard::none)->Args({64, 1024})->Args({256, 1024});
BENCHMARK_CAPTURE(nearest, centred, quern::vq::Guard::centre)->Args({64, 1024});
BENCHMARK_CAPTURE(nearest, rechecked, quern::vq::Guard::recheck)->Args({64, 1024});
BENCHMARK(sums)->Name("sum_by_code");
