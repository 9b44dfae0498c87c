// SPDX-License-Identifier: Apache-2.0

/// \file
/// Cuts and codes of whole data sets. The limit is memory: cuts read the features in at least two
/// passes, codes read them once and write two bytes a value.

#include "quern/tree/binning.hpp"

#include <benchmark/benchmark.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <random>

namespace {

using RowMajor = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

enum Kind { dense, missing, pixels };

const RowMajor& data_of(Kind kind) {
  static RowMajor made[3];
  RowMajor& x = made[kind];
  if (x.size() > 0) return x;
  std::mt19937 generator(1);
  std::normal_distribution<float> normal;
  if (kind == dense) x.resize(1000000, 28);
  if (kind == missing) x.resize(100000, 50);
  if (kind == pixels) x.resize(60000, 784);
  for (Eigen::Index i = 0; i < x.size(); ++i) {
    float& v = x.data()[i];
    v = normal(generator);
    if (kind == missing && generator() % 10 < 3) v = std::numeric_limits<float>::quiet_NaN();
    if (kind == pixels) v = std::clamp(std::round(v * 100), 0.0f, 255.0f);
  }
  return x;
}

void report(benchmark::State& state, const RowMajor& x, double bytes_a_value) {
  const double values = static_cast<double>(state.iterations()) * static_cast<double>(x.size());
  state.counters["ns/value"] =
      benchmark::Counter(values * 1e-9, benchmark::Counter::kIsRate | benchmark::Counter::kInvert);
  state.counters["GB/s"] =
      benchmark::Counter(values * bytes_a_value * 1e-9, benchmark::Counter::kIsRate);
}

void cuts(benchmark::State& state) {
  const RowMajor& x = data_of(static_cast<Kind>(state.range(0)));
  const quern::tree::Dataset data = quern::tree::make_dataset(x);
  for (auto _ : state)
    benchmark::DoNotOptimize(quern::tree::make_cuts(data, 255, static_cast<int>(state.range(1))));
  report(state, x, 8);
}

void codes(benchmark::State& state) {
  const RowMajor& x = data_of(static_cast<Kind>(state.range(0)));
  const quern::tree::Dataset data = quern::tree::make_dataset(x);
  const quern::tree::Cuts found = quern::tree::make_cuts(data);
  for (auto _ : state)
    benchmark::DoNotOptimize(
        quern::tree::bin(data, found, {.threads = static_cast<int>(state.range(1))}));
  report(state, x, 6);
}

BENCHMARK(cuts)
    ->ArgNames({"set", "threads"})
    ->ArgsProduct({{dense, missing, pixels}, {1, 2}})
    ->UseRealTime()
    ->Unit(benchmark::kMillisecond);
BENCHMARK(codes)
    ->ArgNames({"set", "threads"})
    ->ArgsProduct({{dense, missing, pixels}, {1, 2}})
    ->UseRealTime()
    ->Unit(benchmark::kMillisecond);

}  // namespace
