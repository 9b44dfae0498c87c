// SPDX-License-Identifier: Apache-2.0

/// \file
/// Functors beside the functions of math_bench.cpp, over an array in L1: ns an element.

#include "quern/kernels/functors.hpp"
#include "quern/kernels/kernels.hpp"
#include "report.hpp"

#include <benchmark/benchmark.h>

#include <cstddef>
#include <vector>

namespace {

template <class F>
void functor(benchmark::State& state, F f) {
  const std::size_t n = 2048;
  std::vector<float> x(n), y(n);
  for (std::size_t i = 0; i < n; ++i) x[i] = static_cast<float>(i * 7919 % n) / 256 - 4;
  for (auto _ : state) {
    QUERN_DISPATCH(transform(f, x.data(), n, y.data()));
    benchmark::ClobberMemory();
  }
  bench::report(state, static_cast<double>(n), "ns/element");
}

}  // namespace

BENCHMARK_CAPTURE(functor, abs, quern::kernels::Abs{});
BENCHMARK_CAPTURE(functor, square, quern::kernels::Square{});
BENCHMARK_CAPTURE(functor, exp_minus, quern::kernels::ExpMinus<float>{3});
BENCHMARK_CAPTURE(functor, minus_both, quern::kernels::MinusBoth<float>{1, 2});
BENCHMARK_CAPTURE(functor, scale, quern::kernels::Scale<float>{3});
BENCHMARK_CAPTURE(functor, affine, quern::kernels::Affine<float>{3, 1});
