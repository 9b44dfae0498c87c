// SPDX-License-Identifier: Apache-2.0

/// \file
/// A window of four pixels, all channels at once, in the cache.

#include "quern/kernels/kernels.hpp"
#include "report.hpp"

#include <benchmark/benchmark.h>

#include <cstddef>
#include <cstdint>
#include <vector>

namespace {

void largest(benchmark::State& state) {
  const auto channels = static_cast<std::size_t>(state.range(0));
  const std::vector<float> x(4 * channels, 0.5F);
  std::vector<float> y(channels);
  std::vector<std::int32_t> which(channels);
  const float* pixels[4];
  for (std::size_t t = 0; t < 4; ++t) pixels[t] = x.data() + t * channels;
  const float* const* from = pixels;
  for (auto _ : state) {
    QUERN_DISPATCH(max_pool_pixel(from, 4, channels, y.data(), which.data()));
    benchmark::ClobberMemory();
  }
  bench::report(state, static_cast<double>(4 * channels), "ns/element");
}

}  // namespace

BENCHMARK(largest)->Name("pool/largest")->Arg(16)->Arg(64);
