// SPDX-License-Identifier: Apache-2.0

/// \file
/// Minimal filtering on one thread, images in the cache: counted as the multiplications of direct
/// sums, so that 2.25 times the multiply-add peak is the limit of 3 x 3 taps.

#include "kernels/conv_image.hpp"
#include "quern/kernels/conv_minimal_types.hpp"
#include "quern/kernels/kernels.hpp"

#include <benchmark/benchmark.h>

#include <cstddef>
#include <vector>

namespace {

using Image = bench::ConvImage;
constexpr std::ptrdiff_t size = bench::conv_image_size;

void conv_minimal_outputs(benchmark::State& state) {
  Image image(state.range(0));
  const std::ptrdiff_t c = image.channels, tiles = 48;
  const auto values = [](std::ptrdiff_t n) {
    return std::vector<float>(static_cast<std::size_t>(n), 0.1F);
  };
  std::vector<float> weights = values(QUERN_DISPATCH(conv_minimal_weights_size<float>(c, c)));
  std::vector<float> panels = values(QUERN_DISPATCH(conv_minimal_panels<float>(tiles, c)));
  std::vector<float> products = panels;
  quern::kernels::ConvMinimalTask<float> task;
  task.conv.source = image.source();
  task.conv.source.tap_count = 1;
  task.conv.row_end = size;
  task.conv.grid_width = size;
  task.conv.outputs = c;
  task.conv.weights = weights.data();
  task.conv.y = image.y.data();
  task.conv.y_row_stride = size * c;
  task.conv.y_pixel_stride = c;
  task.conv.zeros = image.zeros.data();
  task.tiles = tiles;
  task.source_panels = panels.data();
  task.output_panels = products.data();
  for (auto _ : state) {
    QUERN_DISPATCH(conv_minimal<float>(task));
    benchmark::ClobberMemory();
  }
  image.count_work(state);
}

}  // namespace

BENCHMARK(conv_minimal_outputs)->Name("conv_minimal/outputs")->Arg(16)->Arg(32)->Arg(64)->Arg(128);
