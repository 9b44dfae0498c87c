// SPDX-License-Identifier: Apache-2.0

/// \file
/// Codes of rows for prediction, in the cache: floats to keys, keys to codes.

#include "quern/kernels/kernels.hpp"
#include "quern/kernels/tree_predict_types.hpp"
#include "report.hpp"

#include <benchmark/benchmark.h>

#include <cstdint>
#include <limits>
#include <random>
#include <vector>

namespace {

constexpr std::int64_t rows = 256;

void keys(benchmark::State& state) {
  std::vector<std::int32_t> bits(rows, 0x3f800000), out(rows);
  for (auto _ : state) {
    QUERN_DISPATCH(tree_keys<std::int32_t>(bits.data(), rows, 0x7f800000, out.data()));
    benchmark::DoNotOptimize(out.data());
  }
  bench::report(state, rows, "ns/value");
}

void codes(benchmark::State& state) {
  std::mt19937 generator(1);
  const auto count = static_cast<std::int32_t>(state.range(0));
  std::vector<std::int32_t> table(quern::kernels::code_table_size,
                                  (std::numeric_limits<std::int32_t>::max)());
  for (std::int32_t i = 0; i < count; ++i) table[static_cast<std::size_t>(i)] = i * 1000;
  for (std::size_t i = 0; i < 16; ++i) table[256 + i] = table[16 * i + 15];
  std::vector<std::int32_t> in(rows);
  for (std::int32_t& k : in) k = static_cast<std::int32_t>(generator() % 260000);
  std::vector<std::uint8_t> out(rows);
  for (auto _ : state) {
    QUERN_DISPATCH(tree_codes<std::int32_t>(in.data(), rows, table.data(), count, out.data()));
    benchmark::DoNotOptimize(out.data());
  }
  bench::report(state, rows, "ns/value");
}

void bytes(benchmark::State& state) {
  constexpr std::int64_t columns = 784;
  std::vector<float> in(64 * columns, 17.0f);
  std::vector<std::uint8_t> out(64 * columns);
  for (auto _ : state) {
    const bool all = QUERN_DISPATCH(
        tree_bytes_of_rows<std::uint8_t>(in.data(), columns, 64, columns, out.data()));
    benchmark::DoNotOptimize(all);
  }
  bench::report(state, 64 * columns, "ns/value");
}

}  // namespace

BENCHMARK(bytes)->Name("tree_codes/bytes");
BENCHMARK(keys)->Name("tree_codes/keys");
BENCHMARK(codes)->Name("tree_codes/codes")->ArgName("thresholds")->Arg(15)->Arg(48)->Arg(254);
