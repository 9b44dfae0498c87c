// SPDX-License-Identifier: Apache-2.0

/// \file
/// Activations and their derivatives, in the cache.

#include "quern/kernels/kernels.hpp"
#include "report.hpp"

#include <benchmark/benchmark.h>

#include <cstddef>
#include <vector>

namespace {

constexpr std::size_t size = 4096;

template <class F>
void forward(benchmark::State& state) {
  const std::vector<float> x(size, 0.7F);
  std::vector<float> y(size);
  for (auto _ : state) {
    QUERN_DISPATCH(transform(F{}, x.data(), size, y.data()));
    benchmark::ClobberMemory();
  }
  bench::report(state, size, "ns/element");
}

template <class F>
void derivative(benchmark::State& state) {
  const std::vector<float> x(size, 0.7F), dy(size, 0.1F);
  std::vector<float> dx(size);
  for (auto _ : state) {
    QUERN_DISPATCH(transform_gradient(F{}, x.data(), dy.data(), size, dx.data()));
    benchmark::ClobberMemory();
  }
  bench::report(state, size, "ns/element");
}

}  // namespace

BENCHMARK(forward<quern::kernels::Relu>)->Name("activation/relu");
BENCHMARK(forward<quern::kernels::Gelu>)->Name("activation/gelu");
BENCHMARK(forward<quern::kernels::Silu>)->Name("activation/silu");
BENCHMARK(derivative<quern::kernels::Relu>)->Name("activation/relu_gradient");
BENCHMARK(derivative<quern::kernels::Gelu>)->Name("activation/gelu_gradient");
BENCHMARK(derivative<quern::kernels::Silu>)->Name("activation/silu_gradient");
