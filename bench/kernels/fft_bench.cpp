// SPDX-License-Identifier: Apache-2.0

/// \file
/// Transforms of a tile of channels, and of real rows to the ring where convolutions are products.

#include "quern/kernels/fft.hpp"

#include "quern/core/buffer.hpp"
#include "report.hpp"

#include <benchmark/benchmark.h>

#include <cmath>
#include <cstddef>

namespace {

/// 5 n log2 n operations, the count that Fourier transforms are compared by.
void report_operations(benchmark::State& state, double points, double channels) {
  state.counters["GFLOP/s"] = benchmark::Counter(
      static_cast<double>(state.iterations()) * channels * 5e-9 * points * std::log2(points),
      benchmark::Counter::kIsRate);
}

template <class T>
void fft(benchmark::State& state) {
  const auto points = static_cast<std::size_t>(state.range(0));
  const quern::kernels::Fft<T> fft(points);
  quern::core::Buffer<T> z(fft.tile_size(), quern::core::Fill::zero);
  for (auto _ : state) {
    fft.forward(z.data());
    benchmark::ClobberMemory();
  }
  report_operations(state, static_cast<double>(points),
                    static_cast<double>(quern::kernels::fft_lanes<T>));
}

template <class T>
void rows(benchmark::State& state) {
  const auto points = static_cast<std::size_t>(state.range(0));
  constexpr std::size_t lanes = quern::kernels::fft_lanes<T>;
  const auto task = quern::kernels::FftTables<T>::of(points).task();
  quern::core::Buffer<T> z(points * quern::kernels::fft_point<T>), x(points * lanes);
  for (T& v : x) v = T{1};
  const quern::kernels::FftRows<const T> in{x.data(), lanes, points, lanes};
  for (auto _ : state) {
    QUERN_DISPATCH(fft_forward_rows<T>(task, in, z.data()));
    benchmark::ClobberMemory();
  }
  report_operations(state, static_cast<double>(points), static_cast<double>(lanes));
}

}  // namespace

BENCHMARK(fft<float>)->Name("fft/float")->Arg(256)->Arg(1024)->Arg(16384)->Arg(1000);
BENCHMARK(fft<double>)->Name("fft/double")->Arg(1024)->Arg(16384);
BENCHMARK(rows<float>)->Name("fft_rows/float")->Arg(1024)->Arg(16384);
