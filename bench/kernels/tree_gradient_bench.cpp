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

/// One row of 64, as a leaf's lie.
void listed(benchmark::State& state) {
  const std::int64_t rows = state.range(0), leaves = 64;
  std::vector<float> pairs(static_cast<std::size_t>(2 * rows), 0.25f);
  std::vector<float> margins(static_cast<std::size_t>(rows));
  std::vector<std::int32_t> list;
  for (std::int64_t first = 0; first < leaves; ++first)
    for (std::int64_t row = first; row < rows; row += leaves)
      list.push_back(static_cast<std::int32_t>(row));
  const quern::kernels::RowList all{list.data(), 0, rows};
  std::int64_t sums[2] = {0, 0};
  for (auto _ : state) {
    QUERN_DISPATCH(sum_gradients<float>(pairs.data(), all, 1e6, 1e6, sums));
    QUERN_DISPATCH(add_to_rows<float>(margins.data(), 1, all, 0.5));
    benchmark::DoNotOptimize(sums);
    benchmark::ClobberMemory();
  }
  bench::report(state, static_cast<double>(rows), "ns/row");
}

}  // namespace

BENCHMARK(pack)->Name("tree_gradient/pack")->ArgName("rows")->Arg(1024)->Arg(1000000);
BENCHMARK(listed)->Name("tree_gradient/sum_and_add")->ArgName("rows")->Arg(16384);
