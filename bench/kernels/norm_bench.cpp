// SPDX-License-Identifier: Apache-2.0

/// \file
/// Kernels of normalisation, in the cache.

#include "quern/kernels/kernels.hpp"
#include "report.hpp"

#include <benchmark/benchmark.h>

#include <cstddef>
#include <vector>

namespace {

constexpr std::size_t rows = 256;

void row_norm(benchmark::State& state) {
  const auto n = static_cast<std::size_t>(state.range(0));
  const std::vector<float> x(n, 0.5F), gain(n, 1.0F), offset(n, 0.1F);
  std::vector<float> y(n);
  for (auto _ : state) {
    double square = QUERN_DISPATCH(squared_deviation(x.data(), n, 0.4F));
    benchmark::DoNotOptimize(square);
    QUERN_DISPATCH(norm_row(x.data(), n, 0.4F, 2.0F, gain.data(), offset.data(), y.data()));
    benchmark::ClobberMemory();
  }
  bench::report(state, static_cast<double>(n), "ns/element");
}

void columns(benchmark::State& state) {
  const auto cols = static_cast<std::size_t>(state.range(0));
  const auto stride = static_cast<std::ptrdiff_t>(cols);
  const std::vector<float> x(rows * cols, 0.5F), m(cols, 0.4F), a(cols, 2.0F), b(cols, 0.1F);
  std::vector<float> y(x.size()), square(cols);
  for (auto _ : state) {
    QUERN_DISPATCH(column_deviations(rows, cols, x.data(), stride, m.data(), square.data()));
    QUERN_DISPATCH(
        norm_columns(rows, cols, x.data(), stride, m.data(), a.data(), b.data(), y.data()));
    benchmark::ClobberMemory();
  }
  bench::report(state, static_cast<double>(x.size()), "ns/element");
}

}  // namespace

BENCHMARK(row_norm)->Name("norm/row")->Arg(64)->Arg(1024);
BENCHMARK(columns)->Name("norm/columns")->Arg(16)->Arg(64);
