// SPDX-License-Identifier: Apache-2.0

/// \file
/// What epilogues cost: products of little depth that are stored, biased, activated. GFLOP/s of the
/// product alone.

#include "quern/kernels/functors.hpp"
#include "quern/kernels/gemm.hpp"

#include <benchmark/benchmark.h>

#include <span>
#include <vector>

namespace {

constexpr quern::Index rows = 512, cols = 512;

template <class F>
void epilogue(benchmark::State& state, F f, bool bias) {
  const quern::Index depth = state.range(0);
  std::vector<float> a(static_cast<std::size_t>(rows * depth), 0.5f);
  std::vector<float> b(static_cast<std::size_t>(depth * cols), 0.01f);
  std::vector<float> c(static_cast<std::size_t>(rows * cols)), biases(cols, 1.0f);
  const quern::MatrixView<const float> va(a.data(), {rows, depth}), vb(b.data(), {depth, cols});
  const quern::MatrixView<float> vc(c.data(), {rows, cols});
  const std::span<const float> col_bias =
      bias ? std::span<const float>(biases) : std::span<const float>();
  for (auto _ : state) {
    quern::kernels::gemm_activated<float>(va, vb, vc, {}, col_bias, f, 1);
    benchmark::ClobberMemory();
  }
  const double flops = 2.0 * static_cast<double>(rows * cols * depth);
  using benchmark::Counter;
  state.counters["GFLOP/s"] =
      Counter(1e-9 * flops * static_cast<double>(state.iterations()), Counter::kIsRate);
}

}  // namespace

BENCHMARK_CAPTURE(epilogue, stored, quern::kernels::Identity{}, false)->Arg(16)->Arg(256);
BENCHMARK_CAPTURE(epilogue, biased, quern::kernels::Identity{}, true)->Arg(16)->Arg(256);
BENCHMARK_CAPTURE(epilogue, tanh, quern::kernels::Tanh{}, true)->Arg(16)->Arg(256);
