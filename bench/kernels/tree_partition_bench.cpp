// SPDX-License-Identifier: Apache-2.0

/// \file
/// Routing rows by one column of codes: all rows, and a scattered tenth of a million.

#include "quern/kernels/kernels.hpp"
#include "report.hpp"

#include <benchmark/benchmark.h>

#include <cstdint>
#include <random>
#include <vector>

namespace {

void route(benchmark::State& state) {
  constexpr std::int64_t row_count = 1000000;
  std::mt19937 generator(1);
  std::vector<std::uint8_t> column(row_count);
  for (std::uint8_t& c : column) c = static_cast<std::uint8_t>(generator());
  std::vector<std::int32_t> tenth;
  for (std::int32_t i = 0; i < row_count; ++i) {
    if (generator() % 10 == 0) tenth.push_back(i);
  }
  const bool all = state.range(0) == 1;
  const quern::kernels::RowList rows{all ? nullptr : tenth.data(), 0,
                                     all ? row_count : static_cast<std::int64_t>(tenth.size())};
  std::vector<std::int32_t> out(row_count);
  for (auto _ : state) {
    benchmark::DoNotOptimize(
        QUERN_DISPATCH(partition_rows<std::int32_t>(column.data(), 1, 128, rows, out.data())));
  }
  bench::report(state, static_cast<double>(rows.size), "ns/row");
}

}  // namespace

BENCHMARK(route)->Name("tree_partition/route")->ArgName("all")->Arg(1)->Arg(0);
