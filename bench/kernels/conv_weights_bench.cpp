// SPDX-License-Identifier: Apache-2.0

/// \file
/// Gradients of a convolution's weights on one thread, images in the cache. Fraction of the
/// multiply-add peak.

#include "kernels/conv_image.hpp"
#include "quern/kernels/conv_types.hpp"
#include "quern/kernels/kernels.hpp"

#include <benchmark/benchmark.h>

#include <cstddef>
#include <vector>

namespace {

using Image = bench::ConvImage;
constexpr std::ptrdiff_t size = bench::conv_image_size;

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

BENCHMARK(conv_gradient_of_weights)->Name("conv/weights")->Arg(16)->Arg(32)->Arg(64)->Arg(128);
