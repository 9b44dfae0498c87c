// SPDX-License-Identifier: Apache-2.0

/// \file
/// Overlaps of one box with many, in the cache: ns a pair.

#include "quern/kernels/box_iou_types.hpp"
#include "quern/kernels/kernels.hpp"
#include "report.hpp"

#include <benchmark/benchmark.h>

#include <cstddef>
#include <vector>

namespace {

using quern::kernels::BoxMeasure;

template <class T, BoxMeasure measure>
void overlap(benchmark::State& state) {
  const std::size_t n = 1000;
  std::vector<T> x1(n), y1(n), x2(n), y2(n), area(n), angle(n, T(0.7)), out(n);
  for (std::size_t i = 0; i < n; ++i) {
    x1[i] = static_cast<T>(i * 7919 % 640), y1[i] = static_cast<T>(i * 104729 % 480);
    x2[i] = x1[i] + 60, y2[i] = y1[i] + 40;
    area[i] = 2400;
  }
  const quern::kernels::BoxRow<T> one{T(300), T(200), T(380), T(290), T(7200), T(0.8)};
  const quern::kernels::BoxPlanes<T> many{x1.data(),   y1.data(),    x2.data(), y2.data(),
                                          area.data(), angle.data(), nullptr};
  for (auto _ : state) {
    QUERN_DISPATCH(box_overlap<T>(measure, one, many, T(0), std::int64_t{n}, out.data()));
    benchmark::ClobberMemory();
  }
  bench::report(state, static_cast<double>(n), "ns/pair");
}

}  // namespace

BENCHMARK(overlap<float, BoxMeasure::iou>)->Name("box_iou/float");
BENCHMARK(overlap<double, BoxMeasure::iou>)->Name("box_iou/double");
BENCHMARK(overlap<float, BoxMeasure::giou>)->Name("box_giou/float");
BENCHMARK(overlap<float, BoxMeasure::ciou>)->Name("box_ciou/float");
