// SPDX-License-Identifier: Apache-2.0

/// \file
/// What a random cut asks of a node's codes, for nodes of a few and of many rows.

#include "quern/kernels/kernels.hpp"
#include "report.hpp"

#include <benchmark/benchmark.h>

#include <cstdint>
#include <random>
#include <vector>

namespace {

void range_and_counts(benchmark::State& state) {
  const std::int64_t rows = state.range(0);
  constexpr std::uint32_t classes = 10;
  std::mt19937 generator(1);
  std::vector<std::uint8_t> codes(static_cast<std::size_t>((rows + 63) / 64 * 64), 128);
  for (std::int64_t i = 0; i < rows; ++i)
    codes[static_cast<std::size_t>(i)] = static_cast<std::uint8_t>(generator());
  std::vector<std::uint32_t> ends, counts(classes);
  for (std::uint32_t k = 1; k <= classes; ++k)
    ends.push_back(static_cast<std::uint32_t>(rows) * k / classes);
  for (auto _ : state) {
    std::uint8_t low = 0, high = 0;
    QUERN_DISPATCH(code_range<std::uint8_t>(codes.data(), rows, &low, &high));
    QUERN_DISPATCH(
        count_up_to<std::uint8_t>(codes.data(), high / 2, ends.data(), classes, counts.data()));
    benchmark::DoNotOptimize(counts.data());
  }
  bench::report(state, static_cast<double>(rows), "ns/row");
}

}  // namespace

BENCHMARK(range_and_counts)
    ->Name("tree_cut/range_and_counts")
    ->ArgName("rows")
    ->Arg(20)
    ->Arg(10000);
