// SPDX-License-Identifier: Apache-2.0

/// \file
/// The search for the best split of one feature of 255 bins.

#include "quern/kernels/kernels.hpp"
#include "report.hpp"

#include <benchmark/benchmark.h>

#include <cstdint>
#include <random>
#include <vector>

namespace {

template <int kWords>
void search(benchmark::State& state) {
  constexpr std::int32_t bins = 255;
  std::mt19937 generator(1);
  std::vector<std::int64_t> cells;
  quern::kernels::SplitScan scan{};
  for (std::int32_t b = 0; b <= bins; ++b) {
    const std::int64_t g = static_cast<std::int64_t>(generator() % 20001) - 10000;
    const std::int64_t h = b == 0 ? state.range(0) * 5000 : 1 + generator() % 10000;
    if (kWords == 1) {
      cells.push_back(g * (std::int64_t{1} << 32) + h);
    } else {
      cells.push_back(g);
      cells.push_back(h);
    }
    scan.sum_g += static_cast<double>(g);
    scan.sum_h += static_cast<double>(h);
  }
  scan.unit_g = scan.unit_h = 1e-4;
  scan.lambda = scan.min_child_weight = 1;
  scan.lower = -1e308;
  scan.upper = 1e308;
  for (auto _ : state)
    benchmark::DoNotOptimize(QUERN_DISPATCH(best_split<kWords>(cells.data(), bins, scan)));
  bench::report(state, bins, "ns/bin");
}

}  // namespace

BENCHMARK(search<1>)->Name("tree_split/packed")->ArgName("missing")->Arg(0)->Arg(1);
BENCHMARK(search<2>)->Name("tree_split/full")->ArgName("missing")->Arg(0)->Arg(1);
