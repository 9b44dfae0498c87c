// SPDX-License-Identifier: Apache-2.0

/// \file
/// Histograms of a million rows of 28 features: all rows in order, and a scattered tenth of them.

#include "quern/kernels/kernels.hpp"
#include "report.hpp"

#include <benchmark/benchmark.h>

#include <cstdint>
#include <random>
#include <vector>

namespace {

constexpr std::int64_t row_count = 1000000, features = 28, stride = 32;

/// Codes, gradients of `words` words and every tenth row.
struct Data {
  std::vector<std::uint8_t> codes = std::vector<std::uint8_t>(row_count * stride);
  std::vector<std::int32_t> offsets, tenth;
  std::vector<std::int64_t> gradients = std::vector<std::int64_t>(2 * row_count);
  std::vector<std::int64_t> cells = std::vector<std::int64_t>(2 * 256 * features);

  Data() {
    std::mt19937 generator(1);
    for (std::uint8_t& c : codes) c = static_cast<std::uint8_t>(generator());
    for (std::int32_t j = 0; j <= features; ++j) offsets.push_back(256 * j);
    for (std::int32_t i = 0; i < row_count; ++i) {
      if (generator() % 10 == 0) tenth.push_back(i);
    }
    for (std::int64_t& g : gradients) g = generator() % 1000;
  }
};

template <int kWords>
void build(benchmark::State& state) {
  static Data data;
  const bool all = state.range(0) == 1;
  const quern::kernels::DenseCodes block{data.codes.data(), data.offsets.data(), stride, features};
  const quern::kernels::RowList rows{
      all ? nullptr : data.tenth.data(), 0,
      all ? row_count : static_cast<std::int64_t>(data.tenth.size())};
  for (auto _ : state) {
    QUERN_DISPATCH(histogram_dense<kWords>(block, rows, data.gradients.data(), data.cells.data()));
    benchmark::ClobberMemory();
  }
  bench::report(state, static_cast<double>(rows.size * features), "ns/cell");
}

}  // namespace

BENCHMARK(build<1>)->Name("tree_histogram/packed")->ArgName("all")->Arg(1)->Arg(0);
BENCHMARK(build<2>)->Name("tree_histogram/full")->ArgName("all")->Arg(1)->Arg(0);
