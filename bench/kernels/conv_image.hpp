// SPDX-License-Identifier: Apache-2.0

/// \file
/// The image that the benches of convolution kernels share.

#ifndef QUERN_BENCH_KERNELS_CONV_IMAGE_HPP
#define QUERN_BENCH_KERNELS_CONV_IMAGE_HPP

#include "limits.hpp"
#include "quern/kernels/conv_types.hpp"
#include "quern/kernels/kernels.hpp"

#include <benchmark/benchmark.h>

#include <cstddef>
#include <vector>

namespace bench {

using quern::kernels::ConvSource;
using quern::kernels::ConvTap;

inline constexpr std::ptrdiff_t conv_image_size = 16;

/// A 3 x 3 kernel over images of 16 x 16.
struct ConvImage {
  std::ptrdiff_t channels;
  std::vector<ConvTap> taps;
  std::vector<float> x, y, w, zeros;

  explicit ConvImage(std::ptrdiff_t c)
      : channels(c),
        x(static_cast<std::size_t>(conv_image_size * conv_image_size * c), 0.5F),
        y(x),
        zeros(static_cast<std::size_t>(c)) {
    for (std::ptrdiff_t u = -1; u <= 1; ++u) {
      for (std::ptrdiff_t v = -1; v <= 1; ++v) taps.push_back({u, v, 0});
    }
    w.resize(static_cast<std::size_t>(QUERN_DISPATCH(conv_packed_size<float>(c, 9 * c))), 0.1F);
  }
  [[nodiscard]] ConvSource<float> source() const {
    return {.data = x.data(),
            .row_stride = conv_image_size * channels,
            .pixel_stride = channels,
            .height = conv_image_size,
            .width = conv_image_size,
            .channels = channels,
            .taps = taps.data(),
            .tap_count = 9};
  }
  void count_work(benchmark::State& state) const {
    using benchmark::Counter;
    const double flops =
        2e-9 * 9 * static_cast<double>(conv_image_size * conv_image_size * channels * channels) *
        static_cast<double>(state.iterations());
    state.counters["GFLOP/s"] = Counter(flops, Counter::kIsRate);
    state.counters["of_limit"] = Counter(flops / bench::limits(1).fma_f32, Counter::kIsRate);
  }
};

}  // namespace bench

#endif  // QUERN_BENCH_KERNELS_CONV_IMAGE_HPP
