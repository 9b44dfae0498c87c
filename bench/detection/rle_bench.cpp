// SPDX-License-Identifier: Apache-2.0

/// \file
/// Masks of 640 x 480 with one round thing in them: from polygons, from and to strings, overlap.

#include "quern/detection/rle.hpp"

#include "quern/detection/polygon.hpp"

#include <benchmark/benchmark.h>

#include <cmath>
#include <cstdint>
#include <random>
#include <string>
#include <vector>

namespace {

using quern::detection::Rle;

/// Fourteen corners around a point.
std::vector<double> blob(unsigned seed) {
  std::mt19937 generator(seed);
  std::uniform_real_distribution<double> reach(0.6, 1.0);
  std::vector<double> xy;
  for (int i = 0; i < 14; ++i) {
    const double r = reach(generator), angle = i * (6.283185307179586 / 14);
    xy.push_back(320 + 75 * r * std::cos(angle));
    xy.push_back(240 + 55 * r * std::sin(angle));
  }
  return xy;
}

void polygon(benchmark::State& state) {
  const auto xy = blob(1);
  for (auto _ : state) benchmark::DoNotOptimize(quern::detection::from_polygon(xy, 480, 640));
  state.SetItemsProcessed(state.iterations());
}
BENCHMARK(polygon);

void parse(benchmark::State& state) {
  const std::string text =
      quern::detection::compressed(quern::detection::from_polygon(blob(1), 480, 640));
  for (auto _ : state) {
    benchmark::DoNotOptimize(quern::detection::from_compressed(text, 480, 640));
  }
  state.SetBytesProcessed(state.iterations() * static_cast<std::int64_t>(text.size()));
}
BENCHMARK(parse);

/// Argument: 1 where the masks overlap, 0 where their boxes are apart.
void overlap(benchmark::State& state) {
  const Rle a = quern::detection::from_polygon(blob(1), 480, 640);
  auto xy = blob(2);
  if (state.range(0) == 0) {
    for (std::size_t i = 0; i < xy.size(); i += 2) xy[i] += 200;
  }
  const Rle b = quern::detection::from_polygon(xy, 480, 640);
  for (auto _ : state) benchmark::DoNotOptimize(quern::detection::iou(a, b));
  state.SetItemsProcessed(state.iterations());
}
BENCHMARK(overlap)->Arg(1)->Arg(0);

}  // namespace
