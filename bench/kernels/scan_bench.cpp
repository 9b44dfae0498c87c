// SPDX-License-Identifier: Apache-2.0

/// \file
/// First-order scans, real and complex, with multipliers that change and that do not.

#include "quern/kernels/kernels.hpp"
#include "report.hpp"

#include <benchmark/benchmark.h>

#include <cstddef>
#include <vector>

namespace {

template <class T, bool kComplex, bool kConstant>
void scan(benchmark::State& state) {
  const auto steps = static_cast<std::size_t>(state.range(0));
  const auto channels = static_cast<std::size_t>(state.range(1));
  const std::size_t row = channels * (kComplex ? 2 : 1);
  std::vector<T> a((kConstant ? 1 : steps) * row, T{0.5}), b(steps * row, T{1}), out(steps * row);
  std::vector<T> h(row);
  const auto stride = static_cast<std::ptrdiff_t>(channels);
  const quern::kernels::ScanTask<T> task{steps,    channels, a.data(), kConstant ? 0 : stride,
                                         b.data(), stride,   h.data(), out.data(),
                                         stride};
  for (auto _ : state) {
    if constexpr (kComplex) {
      QUERN_DISPATCH(scan_rows_complex<T>(task));
    } else {
      QUERN_DISPATCH(scan_rows<T>(task));
    }
    benchmark::ClobberMemory();
  }
  bench::report(state, static_cast<double>(steps * channels), "ns/(step, channel)");
  bench::report_bytes(state, static_cast<double>(steps * row * sizeof(T) * (kConstant ? 2 : 3)));
}

}  // namespace

BENCHMARK(scan<float, false, false>)->Name("scan/float")->Args({256, 64})->Args({65536, 256});
BENCHMARK(scan<float, true, true>)->Name("scan/complex")->Args({256, 64})->Args({65536, 256});
BENCHMARK(scan<double, true, false>)->Name("scan/complex double, changing")->Args({256, 64});
