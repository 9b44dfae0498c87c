// SPDX-License-Identifier: Apache-2.0

/// \file
/// The prediction kernels in the cache: floats to keys, keys to codes, one tree on a tile of rows.

#include "quern/kernels/kernels.hpp"
#include "quern/kernels/tree_predict_types.hpp"

#include <benchmark/benchmark.h>

#include <algorithm>
#include <cstdint>
#include <limits>
#include <random>
#include <vector>

namespace {

constexpr std::int64_t rows = 256;

void report(benchmark::State& state, double each, const char* name) {
  using Counter = benchmark::Counter;
  state.counters[name] = Counter(static_cast<double>(state.iterations()) * each * 1e-9,
                                 Counter::kIsRate | Counter::kInvert);
}

void keys(benchmark::State& state) {
  std::vector<std::int32_t> bits(rows, 0x3f800000), out(rows);
  for (auto _ : state) {
    QUERN_DISPATCH(tree_keys<std::int32_t>(bits.data(), rows, 0x7f800000, out.data()));
    benchmark::DoNotOptimize(out.data());
  }
  report(state, rows, "ns/value");
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
  report(state, rows, "ns/value");
}

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
  report(state, rows, "ns/(row,tree)");
}

}  // namespace

BENCHMARK(keys)->Name("tree_predict/keys");
BENCHMARK(codes)->Name("tree_predict/codes")->ArgName("thresholds")->Arg(15)->Arg(48)->Arg(254);
BENCHMARK(lanes)->Name("tree_predict/lanes")->ArgName("leaves")->Arg(64)->Arg(255);
