// SPDX-License-Identifier: Apache-2.0

/// \file
/// The kernels under TreeSHAP, in the cache: sides of tests, and a tree of three leaves whose
/// program is that of kernels/tree_shap_test.cpp. ns for 16 rows. (Whole trees:
/// bench/tree/shap_bench.cpp.)

#include "quern/kernels/kernels.hpp"
#include "quern/kernels/tree_shap_types.hpp"
#include "report.hpp"

#include <benchmark/benchmark.h>

#include <cstddef>
#include <cstdint>
#include <random>
#include <vector>

namespace {

using quern::kernels::shap_rows;
using quern::kernels::ShapKind;
using quern::kernels::ShapStep;

void sides(benchmark::State& state) {
  const std::int64_t count = 63, slots = 28;
  std::mt19937 generator(1);
  std::vector<quern::kernels::ShapTest<std::int32_t>> tests;
  for (std::int32_t i = 0; i < count; ++i)
    tests.push_back({static_cast<std::int32_t>(generator() % 1000),
                     static_cast<std::int32_t>(generator() % slots), i, i % 2 == 1});
  std::vector<std::int32_t> keys(static_cast<std::size_t>(slots * shap_rows));
  for (std::int32_t& key : keys) key = static_cast<std::int32_t>(generator() % 1000);
  std::vector<std::int64_t> out(static_cast<std::size_t>(count * shap_rows));
  for (auto _ : state) {
    QUERN_DISPATCH(
        tree_shap_sides<std::int32_t>(tests.data(), count, keys.data(), shap_rows, out.data()));
    benchmark::ClobberMemory();
  }
  bench::report(state, static_cast<double>(count), "ns/test");
}

void program(benchmark::State& state) {
  // Down to a leaf, down to two leaves, up: constants of two points, none of them zero.
  const std::vector<double> constants(32, 0.5);
  ShapStep down{.kind = ShapKind::down, .right = true, .constants = 10};
  ShapStep up = down;
  up.kind = ShapKind::up;
  const ShapStep steps[] = {
      {.kind = ShapKind::leaf, .first = true, .constants = 6, .pairs = 0, .value = 1},
      down,
      {.kind = ShapKind::twins, .side = 1, .level = 1, .slot = 1, .right = true, .constants = 14},
      up};
  const std::int32_t pairs[] = {0};
  const quern::kernels::ShapProgram small{steps, 4, constants.data(), pairs, 2, 2};
  std::vector<std::int64_t> side(2 * shap_rows);
  for (std::size_t i = 0; i < side.size(); ++i) side[i] = i % 3 == 0 ? -1 : 0;
  std::vector<double> work(static_cast<std::size_t>(quern::kernels::shap_work_size(2, 2)));
  std::vector<double> sums(2 * shap_rows);
  for (auto _ : state) {
    QUERN_DISPATCH(tree_shap<double>(small, side.data(), work.data(), sums.data()));
    benchmark::ClobberMemory();
  }
  bench::report(state, 4, "ns/step");
}

}  // namespace

BENCHMARK(sides)->Name("tree_shap/sides");
BENCHMARK(program)->Name("tree_shap/program");
