// SPDX-License-Identifier: Apache-2.0

/// \file
/// A small convolution with borders that the tests of its kernels share.

#ifndef QUERN_TESTS_KERNELS_CONV_PROBLEM_HPP
#define QUERN_TESTS_KERNELS_CONV_PROBLEM_HPP

#include "quern/kernels/conv_types.hpp"

#include <cstddef>
#include <random>
#include <vector>

namespace quern::test {

/// A 3 x 2 kernel of dilation 2 x 1 and stride 2 x 1 over images of 6 x 5, outputs 3 x 5.
template <class T>
struct ConvProblem {
  std::ptrdiff_t channels, outputs, height = 6, width = 5, grid_h = 3, grid_w = 5;
  std::vector<kernels::ConvTap> taps;
  std::vector<T> x, w, bias, zeros;

  ConvProblem(std::ptrdiff_t ci, std::ptrdiff_t co) : channels(ci), outputs(co) {
    for (std::ptrdiff_t u = 0; u < 3; ++u) {
      for (std::ptrdiff_t v = 0; v < 2; ++v) taps.push_back({2 * u - 2, v - 1, 2 * u + v});
    }
    std::mt19937_64 random(static_cast<unsigned>(ci * 100 + co));
    std::normal_distribution<double> normal;
    const auto fill = [&](std::vector<T>& to, std::ptrdiff_t n) {
      to.resize(static_cast<std::size_t>(n));
      for (T& value : to) value = static_cast<T>(normal(random));
    };
    fill(x, height * width * ci);
    fill(w, co * ci * 6);
    fill(bias, co);
    zeros.assign(static_cast<std::size_t>(ci), T{0});
  }
  [[nodiscard]] kernels::ConvSource<T> source() const {
    return {.data = x.data(),
            .row_stride = width * channels,
            .pixel_stride = channels,
            .height = height,
            .width = width,
            .channels = channels,
            .step_h = 2,
            .step_w = 1,
            .taps = taps.data(),
            .tap_count = static_cast<std::ptrdiff_t>(taps.size())};
  }
  /// x at a tap of output (i, j), 0 outside.
  [[nodiscard]] double at(std::ptrdiff_t i, std::ptrdiff_t j, const kernels::ConvTap& tap,
                          std::ptrdiff_t c) const {
    const std::ptrdiff_t h = 2 * i + tap.dh, v = j + tap.dw;
    if (h < 0 || h >= height || v < 0 || v >= width) return 0;
    return static_cast<double>(x[static_cast<std::size_t>((h * width + v) * channels + c)]);
  }
  [[nodiscard]] double weight(std::ptrdiff_t o, std::ptrdiff_t c, std::ptrdiff_t tap) const {
    return static_cast<double>(w[static_cast<std::size_t>((o * channels + c) * 6 + tap)]);
  }
  [[nodiscard]] double exact(std::ptrdiff_t i, std::ptrdiff_t j, std::ptrdiff_t o) const {
    double sum = static_cast<double>(bias[static_cast<std::size_t>(o)]);
    for (const kernels::ConvTap& tap : taps) {
      for (std::ptrdiff_t c = 0; c < channels; ++c)
        sum += at(i, j, tap, c) * weight(o, c, tap.weight);
    }
    return sum;
  }
};

}  // namespace quern::test

#endif  // QUERN_TESTS_KERNELS_CONV_PROBLEM_HPP
