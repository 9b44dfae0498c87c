// SPDX-License-Identifier: Apache-2.0

/// \file
/// Convolution kernels on one thread, images in the cache: outputs of so many channels from as
/// many, and the gradient of the weights. Fraction of the multiply-add peak.

#include "limits.hpp"
#include "quern/kernels/conv_types.hpp"
#include "quern/kernels/kernels.hpp"

#include <benchmark/benchmark.h>

#include <cstddef>
#include <vector>

namespace {

using quern::kernels::ConvSource;
using quern::kernels::ConvTap;

constexpr std::ptrdiff_t size = 16;

/// A 3 x 3 kernel over images of 16 x 16.
struct Image {
  std::ptrdiff_t channels;
  std::vector<ConvTap> taps;
  std::vector<float> x, y, w, zeros;

  explicit Image(std::ptrdiff_t c)
      : channels(c),
        x(static_cast<std::size_t>(size * size * c), 0.5F),
        y(x),
        zeros(static_cast<std::size_t>(c)) {
    for (std::ptrdiff_t u = -1; u <= 1; ++u) {
      for (std::ptrdiff_t v = -1; v <= 1; ++v) taps.push_back({u, v, 0});
    }
    w.resize(static_cast<std::size_t>(QUERN_DISPATCH(conv_packed_size<float>(c, 9 * c))), 0.1F);
  }
  [[nodiscard]] ConvSource<float> source() const {
    return {.data = x.data(),
            .row_stride = size * channels,
            .pixel_stride = channels,
            .height = size,
            .width = size,
            .channels = channels,
            .taps = taps.data(),
            .tap_count = 9};
  }
  void count_work(benchmark::State& state) const {
    using benchmark::Counter;
    const double flops = 2e-9 * 9 * static_cast<double>(size * size * channels * channels) *
                         static_cast<double>(state.iterations());
    state.counters["GFLOP/s"] = Counter(flops, Counter::kIsRate);
    state.counters["of_limit"] = Counter(flops / bench::limits(1).fma_f32, Counter::kIsRate);
  }
};

void conv_outputs(benchmark::State& state) {
  Image image(state.range(0));
  std::vector<const float*> pointers(9 * 12);
  quern::kernels::ConvTask<float> task;
  task.source = image.source();
  task.row_end = size;
  task.grid_width = size;
  task.outputs = image.channels;
  task.weights = image.w.data();
  task.y = image.y.data();
  task.y_row_stride = size * image.channels;
  task.y_pixel_stride = image.channels;
  task.zeros = image.zeros.data();
  task.pointers = pointers.data();
  for (auto _ : state) {
    QUERN_DISPATCH(conv_wide<float>(task));
    benchmark::ClobberMemory();
  }
  image.count_work(state);
}

void conv_gradient_of_weights(benchmark::State& state) {
  Image image(state.range(0));
  const quern::kernels::ConvLayout layout = QUERN_DISPATCH(conv_layout<float>());
  std::vector<float> out(static_cast<std::size_t>(9 * image.channels * image.channels));
  std::vector<quern::kernels::ConvRun<float>> runs(size);
  quern::kernels::ConvWeightsTask<float> task;
  task.source = image.source();
  task.row_end = size;
  task.grid_width = size;
  task.dy = image.y.data();
  task.dy_row_stride = size * image.channels;
  task.dy_pixel_stride = image.channels;
  task.singles = image.channels;
  task.vectors = image.channels / layout.lanes;
  task.out = out.data();
  task.out_stride = image.channels;
  for (auto _ : state) {
    QUERN_DISPATCH(conv_weights<float>(task, runs.data()));
    benchmark::ClobberMemory();
  }
  image.count_work(state);
}

}  // namespace

BENCHMARK(conv_outputs)->Name("conv/outputs")->Arg(16)->Arg(32)->Arg(64)->Arg(128);
BENCHMARK(conv_gradient_of_weights)->Name("conv/weights")->Arg(16)->Arg(32)->Arg(64)->Arg(128);
