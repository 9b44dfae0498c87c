// SPDX-License-Identifier: Apache-2.0

/// \file
/// Losses of pairs with their gradients, in the cache.

#include "quern/kernels/kernels.hpp"
#include "quern/kernels/loss_types.hpp"
#include "report.hpp"

#include <benchmark/benchmark.h>

#include <cstddef>
#include <vector>

namespace {

template <class F>
void pairs(benchmark::State& state) {
  constexpr std::size_t size = 4096;
  const std::vector<float> p(size, 0.7F), t(size, 0.1F);
  std::vector<float> g(size);
  for (auto _ : state) {
    double loss = QUERN_DISPATCH(pair_loss(F{}, p.data(), t.data(), size, 1.0F, g.data()));
    benchmark::DoNotOptimize(loss);
    benchmark::ClobberMemory();
  }
  bench::report(state, size, "ns/element");
}

}  // namespace

BENCHMARK(pairs<quern::kernels::SquaredLoss>)->Name("loss/squared");
BENCHMARK(pairs<quern::kernels::LogisticLoss<float>>)->Name("loss/logistic");
