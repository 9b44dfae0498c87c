// SPDX-License-Identifier: Apache-2.0

/// \file
/// One tree on a tile of rows of codes, in the cache.

#include "quern/kernels/kernels.hpp"
#include "quern/kernels/tree_predict_types.hpp"
#include "report.hpp"

#include <benchmark/benchmark.h>

#include <cstdint>
#include <random>
#include <vector>

namespace {

constexpr std::int64_t rows = 256;

void lanes(benchmark::State& state) {
  std::mt19937 generator(1);
  const std::int64_t count = state.range(0) - 1;
  std::vector<quern::kernels::LaneNode> nodes;
  for (std::int64_t i = 0; i < count; ++i) {
    const auto leaf = static_cast<std::uint32_t>(i) * 0x01010101U;
    nodes.push_back({static_cast<std::uint32_t>(generator() % 28), leaf ^ 0x80808080U, leaf,
                     leaf + 0x01010101U});
  }
  std::vector<std::uint8_t> in(28 * rows), out(rows);
  for (std::uint8_t& c : in) c = static_cast<std::uint8_t>(generator());
  for (auto _ : state) {
    QUERN_DISPATCH(
        tree_lanes<std::uint8_t>(in.data(), rows, nodes.data(), count, rows, out.data()));
    benchmark::DoNotOptimize(out.data());
  }
  bench::report(state, rows, "ns/(row,tree)");
}

}  // namespace

BENCHMARK(lanes)->Name("tree_predict/lanes")->ArgName("leaves")->Arg(64)->Arg(255);
