// SPDX-License-Identifier: Apache-2.0

/// \file
/// How fast delimited text becomes a table, one thread: short numbers, numbers of 19 digits, and a
/// mixed table with categories. bytes_per_second counts the text.

#include "quern/io/csv.hpp"

#include "quern/core/random.hpp"
#include "quern/io/libsvm.hpp"

#include <benchmark/benchmark.h>

#include <cstdint>
#include <cstdio>
#include <string>

namespace quern::bench::csv {
namespace {

constexpr int rows = 40000;
constexpr int columns = 28;

std::string numbers(const char* format) {
  Philox rng(1, "csv bench", 0);
  std::string text;
  char field[64];
  for (int r = 0; r < rows; ++r) {
    for (int c = 0; c < columns; ++c) {
      std::snprintf(field, sizeof(field), format, 4 * rng.uniform() - 2);
      text += field;
      text += c + 1 < columns ? ',' : '\n';
    }
  }
  return text;
}

std::string mixed() {
  constexpr const char* jobs[] = {"Adm-clerical", "Sales", "Craft-repair", "?", "Tech-support"};
  Philox rng(2, "csv bench", 0);
  std::string text;
  for (int r = 0; r < rows; ++r) {
    for (int c = 0; c < columns; ++c) {
      const auto value = static_cast<std::uint32_t>(rng.uniform() * 100);
      text += c % 2 == 0 ? std::to_string(value) : std::string(jobs[value % 5]);
      text += c + 1 < columns ? ", " : "\n";
    }
  }
  return text;
}

std::string sparse() {
  Philox rng(3, "csv bench", 0);
  std::string text;
  for (int r = 0; r < rows; ++r) {
    text += "1";
    for (int c = 1; c < 20; ++c) {
      text += " " + std::to_string(c * 37) + ":" + std::to_string(rng.uniform());
    }
    text += "\n";
  }
  return text;
}

template <class T>
void read(benchmark::State& state, const std::string& text) {
  for (auto _ : state) {
    auto table = io::parse_csv<T>(text);
    benchmark::DoNotOptimize(table.features.data());
  }
  state.SetBytesProcessed(static_cast<std::int64_t>(text.size()) * state.iterations());
}

void csv_short_numbers_float(benchmark::State& state) { read<float>(state, numbers("%.6g")); }
void csv_short_numbers_double(benchmark::State& state) { read<double>(state, numbers("%.6g")); }
void csv_long_numbers_float(benchmark::State& state) { read<float>(state, numbers("%.18e")); }
void csv_mixed_float(benchmark::State& state) { read<float>(state, mixed()); }
void libsvm_float(benchmark::State& state) {
  const std::string text = sparse();
  for (auto _ : state) {
    auto table = io::parse_libsvm<float>(text);
    benchmark::DoNotOptimize(table.values.data());
  }
  state.SetBytesProcessed(static_cast<std::int64_t>(text.size()) * state.iterations());
}
BENCHMARK(csv_short_numbers_float)->Unit(benchmark::kMillisecond);
BENCHMARK(csv_short_numbers_double)->Unit(benchmark::kMillisecond);
BENCHMARK(csv_long_numbers_float)->Unit(benchmark::kMillisecond);
BENCHMARK(csv_mixed_float)->Unit(benchmark::kMillisecond);
BENCHMARK(libsvm_float)->Unit(benchmark::kMillisecond);

}  // namespace
}  // namespace quern::bench::csv
