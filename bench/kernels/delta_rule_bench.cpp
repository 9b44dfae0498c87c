// SPDX-License-Identifier: Apache-2.0

/// \file
/// The delta rule's kernels on 64 steps of a state of 64 x 64 in the cache.

#include "quern/kernels/kernels.hpp"
#include "report.hpp"

#include <benchmark/benchmark.h>

#include <cstddef>
#include <vector>

namespace {

/// Argument: whether it is the backward pass.
void delta(benchmark::State& state) {
  constexpr std::ptrdiff_t n = 64;
  std::vector<float> keys(n * n, 0.1F), reads(keys), values(keys), beta(n, 0.5F), decay(n, 0.9F);
  std::vector<float> residuals(n * n), writes(n * n), out(n * n), sums(n * n);
  quern::kernels::DeltaTile<float> tile;
  tile.steps = tile.rows = tile.stride = n;
  tile.keys = keys.data(), tile.reads = reads.data(), tile.values = values.data();
  tile.beta = beta.data(), tile.decay = decay.data();
  tile.residuals = residuals.data(), tile.writes = writes.data(), tile.out = out.data();
  tile.state = sums.data();
  for (auto _ : state) {
    if (state.range(0) != 0) {
      QUERN_DISPATCH(delta_backward<float>(tile));
    } else {
      QUERN_DISPATCH(delta_forward<float>(tile));
    }
    benchmark::ClobberMemory();
  }
  bench::report(state, static_cast<double>(n), "ns/step");
}

}  // namespace

BENCHMARK(delta)->Name("delta_rule/float")->Arg(0)->Arg(1);
