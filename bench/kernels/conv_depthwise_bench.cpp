// SPDX-License-Identifier: Apache-2.0

/// \file
/// A depthwise 3 x 3 convolution of an image of 16 x 16, in the cache: multiply-adds a second.

#include "quern/kernels/conv_types.hpp"
#include "quern/kernels/kernels.hpp"

#include <benchmark/benchmark.h>

#include <cstddef>
#include <vector>

namespace {

void depthwise(benchmark::State& state) {
  constexpr std::ptrdiff_t size = 16;
  const std::ptrdiff_t channels = state.range(0);
  std::vector<quern::kernels::ConvTap> taps;
  for (std::ptrdiff_t t = 0; t < 9; ++t) taps.push_back({t / 3 - 1, t % 3 - 1, t});
  const std::vector<float> x(static_cast<std::size_t>(size * size * channels), 0.5F);
  const std::vector<float> w(static_cast<std::size_t>(9 * channels), 0.1F);
  const std::vector<float> zeros(static_cast<std::size_t>(channels));
  std::vector<float> y(x.size());
  std::vector<const float*> pointers(9);
  quern::kernels::ConvTask<float> task;
  task.source = {.data = x.data(),
                 .row_stride = size * channels,
                 .pixel_stride = channels,
                 .height = size,
                 .width = size,
                 .channels = channels,
                 .taps = taps.data(),
                 .tap_count = 9};
  task.row_end = size;
  task.grid_width = size;
  task.outputs = channels;
  task.weights = w.data();
  task.y = y.data();
  task.y_row_stride = size * channels;
  task.y_pixel_stride = channels;
  task.zeros = zeros.data();
  task.pointers = pointers.data();
  for (auto _ : state) {
    QUERN_DISPATCH(conv_depthwise<float>(task));
    benchmark::ClobberMemory();
  }
  const double flops = 2e-9 * 9 * static_cast<double>(size * size * channels);
  state.counters["GFLOP/s"] = benchmark::Counter(flops * static_cast<double>(state.iterations()),
                                                 benchmark::Counter::kIsRate);
}

}  // namespace

BENCHMARK(depthwise)->Name("conv/depthwise")->Arg(16)->Arg(64)->Arg(256);
