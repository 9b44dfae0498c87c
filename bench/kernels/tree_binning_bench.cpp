// SPDX-License-Identifier: Apache-2.0

/// \file
/// The steps of binning a value, in cache: turning a tile round, keys, codes.

#include "quern/kernels/kernels.hpp"
#include "quern/kernels/tree_binning_types.hpp"

#include <benchmark/benchmark.h>

#include <bit>
#include <cstdint>
#include <random>
#include <vector>

namespace {

constexpr std::int64_t rows = 1024, cols = 16;

std::vector<std::int32_t> normal_bits() {
  std::mt19937 generator(1);
  std::normal_distribution<float> normal;
  std::vector<std::int32_t> bits(static_cast<std::size_t>(rows * cols));
  for (std::int32_t& b : bits) b = std::bit_cast<std::int32_t>(normal(generator));
  return bits;
}

void report(benchmark::State& state, double bytes_a_value) {
  const double values = static_cast<double>(state.iterations()) * static_cast<double>(rows * cols);
  state.counters["values/s"] = benchmark::Counter(values, benchmark::Counter::kIsRate);
  state.counters["GB/s"] =
      benchmark::Counter(values * bytes_a_value * 1e-9, benchmark::Counter::kIsRate);
}

void transpose(benchmark::State& state) {
  const std::vector<std::int32_t> bits = normal_bits();
  std::vector<std::int32_t> out(static_cast<std::size_t>((rows + 16) * cols));
  for (auto _ : state) {
    QUERN_DISPATCH(transpose_words(bits.data(), cols, rows, cols, out.data(), rows + 16));
    benchmark::ClobberMemory();
  }
  report(state, 8);
}
BENCHMARK(transpose);

void keys(benchmark::State& state) {
  const std::vector<std::int32_t> bits = normal_bits();
  std::vector<std::int32_t> out(bits.size());
  quern::kernels::KeySummary<std::int32_t> run;
  for (auto _ : state) {
    QUERN_DISPATCH(summarized_keys(bits.data(), rows * cols, 0x7f800000, out.data(), &run));
    benchmark::ClobberMemory();
  }
  report(state, 8);
}
BENCHMARK(keys);

/// Argument: halvings after the table, 1 for nearly all data, 8 for the worst.
void codes(benchmark::State& state) {
  std::vector<std::int32_t> keys_in = normal_bits();
  std::vector<std::int32_t> cuts(512, 0x7fffffff);
  for (std::int32_t c = 0; c < 254; ++c) cuts[static_cast<std::size_t>(c)] = (c - 127) << 23;
  std::vector<std::uint8_t> below(65536, 0), out(keys_in.size());
  quern::kernels::CodeSearch<std::int32_t> search;
  search.first = cuts[0];
  search.last = cuts[253];
  search.shift = 16;
  search.steps = static_cast<int>(state.range(0));
  search.below = below.data();
  search.cuts = cuts.data();
  for (auto _ : state) {
    QUERN_DISPATCH(bin_codes(keys_in.data(), rows * cols, search, out.data()));
    benchmark::ClobberMemory();
  }
  report(state, 5);
}
BENCHMARK(codes)->Arg(1)->Arg(2)->Arg(8);

}  // namespace
