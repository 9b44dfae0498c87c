// SPDX-License-Identifier: Apache-2.0

/// \file
/// Elementwise feature maps of linear attention, in the cache.

#include "quern/kernels/kernels.hpp"
#include "report.hpp"

#include <benchmark/benchmark.h>

#include <cstddef>
#include <vector>

namespace {

template <class F>
void feature_map(benchmark::State& state) {
  std::vector<float> x(4096), y(4096);
  for (std::size_t i = 0; i < x.size(); ++i) x[i] = static_cast<float>(i % 17) / 4 - 2;
  for (auto _ : state) {
    QUERN_DISPATCH(transform(F{}, x.data(), x.size(), y.data()));
    benchmark::ClobberMemory();
  }
  bench::report(state, 4096, "ns/element");
}

}  // namespace

BENCHMARK(feature_map<quern::kernels::Elu1>)->Name("feature_map/elu1");
BENCHMARK(feature_map<quern::kernels::ReluSquare>)->Name("feature_map/relu2");
