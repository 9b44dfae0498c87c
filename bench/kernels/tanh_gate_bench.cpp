// SPDX-License-Identifier: Apache-2.0

/// \file
/// The gate tanh(a) sigmoid(b), forward and backward, in the cache.

#include "quern/kernels/kernels.hpp"
#include "report.hpp"

#include <benchmark/benchmark.h>

#include <cstddef>
#include <vector>

namespace {

template <class T>
void tanh_gate(benchmark::State& state) {
  const std::size_t rows = 49, cols = 64;
  std::vector<T> in(2 * rows * cols, T(0.3)), out(rows * cols), din(2 * rows * cols);
  const bool backward = state.range(0) != 0;
  for (auto _ : state) {
    if (backward) {
      QUERN_DISPATCH(tanh_gate_gradient<T>(rows, cols, in.data(), nullptr, out.data(), din.data()));
    } else {
      QUERN_DISPATCH(tanh_gate<T>(rows, cols, in.data(), nullptr, out.data()));
    }
    benchmark::ClobberMemory();
  }
  bench::report(state, static_cast<double>(rows * cols), "ns/number");
}

}  // namespace

BENCHMARK(tanh_gate<float>)->Name("tanh_gate/float")->Arg(0)->Arg(1);
BENCHMARK(tanh_gate<double>)->Name("tanh_gate/double")->Arg(0)->Arg(1);
