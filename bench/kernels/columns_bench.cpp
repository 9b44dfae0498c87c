// SPDX-License-Identifier: Apache-2.0

/// \file
/// Sums down columns, and the transpose: bytes a second.

#include "quern/kernels/kernels.hpp"
#include "report.hpp"

#include <benchmark/benchmark.h>

#include <cstddef>
#include <vector>

namespace {

void sums(benchmark::State& state) {
  const auto cols = static_cast<std::size_t>(state.range(0));
  const std::size_t rows = 65536 / cols;
  const std::vector<float> x(rows * cols, 0.5F);
  std::vector<float> out(cols);
  for (auto _ : state) {
    QUERN_DISPATCH(
        column_sums(rows, cols, x.data(), static_cast<std::ptrdiff_t>(cols), out.data()));
    benchmark::ClobberMemory();
  }
  bench::report_bytes(state, 4.0 * static_cast<double>(rows * cols));
}

}  // namespace

BENCHMARK(sums)->Name("columns/sums")->Arg(16)->Arg(64)->Arg(1024);
