// SPDX-License-Identifier: Apache-2.0

/// \file
/// Adafactor's three passes over a matrix of 64 x 256: squares, sizes, step. Nanoseconds an
/// element.

#include "quern/kernels/kernels.hpp"
#include "quern/kernels/optim_types.hpp"

#include <benchmark/benchmark.h>

#include <algorithm>
#include <cstddef>
#include <limits>
#include <vector>

namespace {

namespace kernels = quern::kernels;

void adafactor(benchmark::State& state) {
  constexpr std::size_t rows = 64, width = 256;
  std::vector<float> p(rows * width, 1.0F), g(rows * width, 0.5F), column(width), scale(rows, 1.0F);
  std::vector<double> row(rows);
  const float* const gradient = g.data();
  const float* const values = p.data();
  const kernels::OptimPrologue<float> prologue{1.0F, (std::numeric_limits<float>::infinity)(), 0.0F,
                                               1.0F, 0U};
  for (auto _ : state) {
    std::fill(column.begin(), column.end(), 0.0F);
    QUERN_DISPATCH(factored_squares(gradient, rows, width, prologue, row.data(), column.data()));
    const float* const row_scale = scale.data();
    const float* const columns = column.data();
    benchmark::DoNotOptimize(QUERN_DISPATCH(
        factored_sizes(gradient, values, rows, width, prologue, row_scale, columns, 1e-12F)));
    QUERN_DISPATCH(factored_step(gradient, p.data(), rows, width, prologue, row_scale, columns,
                                 1e-12F, 1e-3F));
  }
  using benchmark::Counter;
  const double elements = static_cast<double>(state.iterations()) * rows * width;
  state.counters["ns/element"] = Counter(elements * 1e-9, Counter::kIsRate | Counter::kInvert);
}
BENCHMARK(adafactor);

}  // namespace
