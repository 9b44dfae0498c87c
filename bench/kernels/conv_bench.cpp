// SPDX-License-Identifier: Apache-2.0

/// \file
/// Convolution kernels on one thread, images in the cache: outputs of so many channels from as
/// many, and the gradient of the weights. Fraction of the multiply-add peak.

#include "kernels/conv_image.hpp"
#include "quern/kernels/conv_types.hpp"
#include "quern/kernels/kernels.hpp"

#include <benchmark/benchmark.h>

#include <cstddef>
#include <vector>

namespace {

using Image = bench::ConvImage;
constexpr std::ptrdiff_t size = bench::conv_image_size;

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

}  // namespace

BENCHMARK(conv_outputs)->Name("conv/outputs")->Arg(16)->Arg(32)->Arg(64)->Arg(128);
