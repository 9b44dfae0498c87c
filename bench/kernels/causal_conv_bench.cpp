// SPDX-License-Identifier: Apache-2.0

/// \file
/// The causal convolution of a few taps with its SiLU, forward and back, on one thread.

#include "quern/core/buffer.hpp"
#include "quern/kernels/causal_conv_types.hpp"
#include "quern/kernels/kernels.hpp"
#include "report.hpp"

#include <benchmark/benchmark.h>

#include <cstddef>
#include <vector>

namespace {

template <class T>
void causal_conv(benchmark::State& state) {
  const std::ptrdiff_t steps = state.range(0), channels = state.range(1), taps = 4, block = 64;
  const bool back = state.range(2) != 0;
  const auto size = static_cast<std::size_t>(steps * channels);
  const std::vector<T> x(size, T(0.3));
  const std::vector<T> weight(static_cast<std::size_t>(taps * channels), T(0.2));
  std::vector<T> y(size), dweight(weight.size()), dbias(static_cast<std::size_t>(channels));
  quern::core::Buffer<T> scratch(
      static_cast<std::size_t>((quern::kernels::causal_conv_tile + taps) * block));
  for (auto _ : state) {
    for (std::ptrdiff_t first = 0; first < channels; first += block) {
      quern::kernels::CausalConvVjpTask<T> task;
      task.conv.steps = steps;
      task.conv.channels = block;
      task.conv.taps = taps;
      task.conv.x = {x.data() + first, channels};
      task.conv.weight = {weight.data() + first, channels};
      task.conv.silu = true;
      if (!back) {
        task.conv.y = {y.data() + first, channels};
        benchmark::DoNotOptimize(QUERN_DISPATCH(causal_conv<T>(task.conv)));
        continue;
      }
      task.dy = {x.data() + first, channels};
      task.dx = {y.data() + first, channels};
      task.dweight = {dweight.data() + first, channels};
      task.dbias = dbias.data() + first;
      task.scratch = scratch.data();
      QUERN_DISPATCH(causal_conv_vjp<T>(task));
    }
    benchmark::ClobberMemory();
  }
  bench::report(state, static_cast<double>(size), "ns/(step, channel)");
  bench::report_bytes(state, static_cast<double>(size * sizeof(T)) * (back ? 3 : 2));
}

}  // namespace

BENCHMARK(causal_conv<float>)
    ->Name("causal_conv/float")
    ->Args({256, 64, 0})
    ->Args({256, 64, 1})
    ->Args({2048, 1536, 0})
    ->Args({2048, 1536, 1});
BENCHMARK(causal_conv<double>)->Name("causal_conv/double")->Args({256, 64, 0});
