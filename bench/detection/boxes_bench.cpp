// SPDX-License-Identifier: Apache-2.0

/// \file
/// Whole matrices of overlaps: n by n upright boxes (checks and planes included) and rotated ones.

#include "quern/detection/boxes.hpp"
#include "quern/detection/rotated_boxes.hpp"

#include <benchmark/benchmark.h>

#include <cstdint>
#include <random>

namespace {

template <class T>
quern::NdArray<T, 2> boxes(std::int64_t n, std::int64_t columns) {
  std::mt19937 generator(static_cast<unsigned>(n));
  std::uniform_real_distribution<T> place(0, 600), size(8, 200), turn(-180, 180);
  quern::NdArray<T, 2> b({n, columns});
  for (std::int64_t i = 0; i < n; ++i) {
    b(i, 0) = place(generator), b(i, 1) = place(generator);
    b(i, 2) = size(generator), b(i, 3) = size(generator);
    if (columns == 5) b(i, 4) = turn(generator);
  }
  return b;
}

void pairs(benchmark::State& state, std::int64_t n) {
  state.counters["pairs/s"] = benchmark::Counter(
      static_cast<double>(state.iterations()) * static_cast<double>(n) * static_cast<double>(n),
      benchmark::Counter::kIsRate);
}

template <class T>
void upright(benchmark::State& state) {
  const std::int64_t n = state.range(0);
  const auto a = boxes<T>(n, 4), b = boxes<T>(n, 4);
  quern::NdArray<T, 2> out({n, n});
  for (auto _ : state) {
    quern::detection::box_overlaps<T>(quern::detection::BoxMeasure::iou, a.view(), b.view(),
                                      out.view(), {.format = quern::detection::BoxFormat::xywh});
    benchmark::ClobberMemory();
  }
  pairs(state, n);
}
BENCHMARK(upright<float>)->Arg(100)->Arg(2000);
BENCHMARK(upright<double>)->Arg(100)->Arg(2000);

void rotated(benchmark::State& state) {
  const std::int64_t n = state.range(0);
  const auto a = boxes<double>(n, 5), b = boxes<double>(n, 5);
  for (auto _ : state) {
    benchmark::DoNotOptimize(quern::detection::rotated_iou(quern::view(a), quern::view(b)));
  }
  pairs(state, n);
}
BENCHMARK(rotated)->Arg(100);

}  // namespace
