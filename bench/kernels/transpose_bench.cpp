// SPDX-License-Identifier: Apache-2.0

/// \file
/// The transpose of a matrix in the cache and out of it: bytes a second, read and written.

#include "quern/kernels/kernels.hpp"
#include "report.hpp"

#include <benchmark/benchmark.h>

#include <cstddef>
#include <vector>

namespace {

void transposed(benchmark::State& state) {
  const std::ptrdiff_t rows = state.range(0), cols = state.range(1);
  const std::vector<float> x(static_cast<std::size_t>(rows * cols), 0.5F);
  std::vector<float> y(x.size());
  for (auto _ : state) {
    QUERN_DISPATCH(transpose(x.data(), cols, rows, cols, y.data(), rows));
    benchmark::ClobberMemory();
  }
  bench::report_bytes(state, 8.0 * static_cast<double>(rows * cols));
}

}  // namespace

BENCHMARK(transposed)
    ->Name("transpose/float")
    ->Args({64, 784})
    ->Args({1024, 64})
    ->Args({2048, 2048});
