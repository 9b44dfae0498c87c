// SPDX-License-Identifier: Apache-2.0

/// \file
/// Gradients into fixed point.

#include "quern/kernels/kernels.hpp"
#include "report.hpp"

#include <benchmark/benchmark.h>

#include <cstdint>
#include <random>
#include <vector>

namespace {

void pack(benchmark::State& state) {
  const std::int64_t rows = state.range(0);
  std::vector<float> pairs(static_cast<std::size_t>(2 * rows), 0.25f);
  std::vector<std::int64_t> out(static_cast<std::size_t>(rows));
  for (auto _ : state) {
    QUERN_DISPATCH(pack_gradients<float>(pairs.data(), rows, 65536.0f, 131072.0f, out.data()));
    benchmark::ClobberMemory();
  }
  bench::report(state, static_cast<double>(rows), "ns/row");
}

}  // namespace

BENCHMARK(pack)->Name("tree_gradient/pack")->ArgName("rows")->Arg(1024)->Arg(1000000);
