// SPDX-License-Identifier: Apache-2.0

/// \file
/// Softmax of rows of some lengths, in the cache.

#include "quern/kernels/kernels.hpp"
#include "report.hpp"

#include <benchmark/benchmark.h>

#include <cstddef>
#include <vector>

namespace {

template <class T>
void softmax(benchmark::State& state) {
  const auto cols = static_cast<std::size_t>(state.range(0));
  const std::size_t rows = 8192 / cols + 1;
  std::vector<T> x(rows * cols), y(rows * cols);
  for (std::size_t i = 0; i < x.size(); ++i) x[i] = static_cast<T>(i * 7919 % 1024) / 100;
  const auto stride = static_cast<std::ptrdiff_t>(cols);
  for (auto _ : state) {
    QUERN_DISPATCH(softmax_rows(rows, cols, x.data(), stride, y.data(), stride));
    benchmark::ClobberMemory();
  }
  bench::report(state, static_cast<double>(rows * cols), "ns/element");
}

}  // namespace

BENCHMARK(softmax<float>)->Name("softmax/float")->Arg(10)->Arg(64)->Arg(512)->Arg(8192);
BENCHMARK(softmax<double>)->Name("softmax/double")->Arg(64)->Arg(512);
