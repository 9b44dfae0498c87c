// SPDX-License-Identifier: Apache-2.0

/// \file
/// Attention's kernels on tiles in cache: products as softmax attention has them (64 keys, 96
/// queries and 64 dimensions with AVX-512), and the softmax of their scores.

#include "limits.hpp"
#include "quern/kernels/kernels.hpp"
#include "report.hpp"

#include <benchmark/benchmark.h>

#include <algorithm>
#include <cstddef>
#include <vector>

namespace {

namespace kernels = quern::kernels;

/// Argument: whether the left operand is read along its columns, as values are.
template <class T>
void product(benchmark::State& state) {
  const kernels::TileLayout layout = QUERN_DISPATCH(tile_layout<T>());
  const std::ptrdiff_t cols = 2 * layout.vectors * layout.lanes, n = 64;
  std::vector<T> a(static_cast<std::size_t>(n * n), T(0.5)),
      b(static_cast<std::size_t>(n * cols), T(0.25)), c(b);
  kernels::TileProduct<T> p;
  p.rows = n, p.depth = n, p.cols = cols;
  p.a = a.data();
  p.a_row_stride = state.range(0) != 0 ? 1 : n, p.a_depth_stride = state.range(0) != 0 ? n : 1;
  p.b = b.data(), p.b_stride = cols;
  p.c = c.data(), p.c_stride = cols;
  for (auto _ : state) {
    QUERN_DISPATCH(tile_product<T>(p));
    benchmark::ClobberMemory();
  }
  using benchmark::Counter;
  state.counters["GFLOP/s"] =
      Counter(static_cast<double>(state.iterations() * 2 * n * n * cols) * 1e-9, Counter::kIsRate);
}

template <class T>
void softmax_of_scores(benchmark::State& state) {
  const kernels::TileLayout layout = QUERN_DISPATCH(tile_layout<T>());
  const std::ptrdiff_t cols = 2 * layout.vectors * layout.lanes, keys = 64;
  const auto width = static_cast<std::size_t>(cols);
  std::vector<T> scores(static_cast<std::size_t>(keys * cols)), largest(width), sums(width),
      factor(width);
  kernels::ScoreTile<T> tile;
  tile.keys = keys, tile.cols = cols;
  tile.scores = scores.data();
  for (auto _ : state) {
    std::fill(largest.begin(), largest.end(), T(1));
    QUERN_DISPATCH(softmax_tile<T>(tile, largest.data(), sums.data(), factor.data()));
    benchmark::ClobberMemory();
  }
  bench::report(state, static_cast<double>(keys * cols), "ns/score");
}

}  // namespace

BENCHMARK(product<float>)->Name("attention/product/float")->Arg(0)->Arg(1);
BENCHMARK(product<double>)->Name("attention/product/double")->Arg(0);
BENCHMARK(softmax_of_scores<float>)->Name("attention/softmax/float");
