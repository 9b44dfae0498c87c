// SPDX-License-Identifier: Apache-2.0

/// \file
/// Convolutions of grids of taps, with borders, that the tests of minimal filtering share.

#ifndef QUERN_TESTS_KERNELS_CONV_MINIMAL_PROBLEM_HPP
#define QUERN_TESTS_KERNELS_CONV_MINIMAL_PROBLEM_HPP

#include "quern/kernels/conv_types.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <random>
#include <vector>

namespace quern::test {

/// A kernel of (taps step) x (taps step), stride `step`, over `images` of height x width.
struct MinimalShape {
  std::ptrdiff_t taps, step, images, height, width, channels, outputs;
};

template <class T>
struct ConvMinimalProblem {
  explicit ConvMinimalProblem(const MinimalShape& s) : shape(s), side(s.taps * s.step) {
    grid_h = (s.height + 2 - side) / s.step + 1;
    grid_w = (s.width + 2 - side) / s.step + 1;
    std::mt19937_64 random(static_cast<unsigned>(s.channels * 100 + s.outputs));
    std::normal_distribution<double> normal;
    const auto fill = [&](std::vector<T>& to, std::ptrdiff_t n) {
      to.resize(static_cast<std::size_t>(n));
      for (T& value : to) value = static_cast<T>(normal(random));
    };
    fill(x, s.images * s.height * s.width * s.channels);
    fill(w, s.outputs * s.channels * side * side);
    fill(bias, s.outputs);
    fill(dy, s.images * grid_h * grid_w * s.outputs);
    zeros.assign(static_cast<std::size_t>(s.channels), T{0});
    for (std::ptrdiff_t part = 0; part < s.step * s.step; ++part) {
      for (std::ptrdiff_t t = 0; t < s.taps * s.taps; ++t) {
        const std::ptrdiff_t u = part / s.step + t / s.taps * s.step;
        const std::ptrdiff_t v = part % s.step + t % s.taps * s.step;
        taps.push_back({u - 1, v - 1, u * side + v});
        if (t == 0) corners.push_back(taps.back());
      }
    }
  }
  [[nodiscard]] double pixel(std::ptrdiff_t n, std::ptrdiff_t h, std::ptrdiff_t v,
                             std::ptrdiff_t c) const {
    if (h < 0 || h >= shape.height || v < 0 || v >= shape.width) return 0;
    const std::ptrdiff_t at = (n * shape.height + h) * shape.width + v;
    return static_cast<double>(x[static_cast<std::size_t>(at * shape.channels + c)]);
  }
  [[nodiscard]] double exact(std::ptrdiff_t n, std::ptrdiff_t i, std::ptrdiff_t j,
                             std::ptrdiff_t o) const {
    double sum = static_cast<double>(bias[static_cast<std::size_t>(o)]);
    for (std::ptrdiff_t k = 0; k < shape.channels * side * side; ++k) {
      const std::ptrdiff_t c = k / (side * side), u = k / side % side, v = k % side;
      sum +=
          static_cast<double>(
              w[static_cast<std::size_t>((o * shape.channels + c) * side * side + u * side + v)]) *
          pixel(n, i * shape.step + u - 1, j * shape.step + v - 1, c);
    }
    return sum;
  }
  /// Gradient of weight (o, c, u, v).
  [[nodiscard]] double exact_gradient(std::ptrdiff_t o, std::ptrdiff_t c, std::ptrdiff_t u,
                                      std::ptrdiff_t v) const {
    double sum = 0;
    for (std::ptrdiff_t k = 0; k < shape.images * grid_h * grid_w; ++k) {
      const std::ptrdiff_t n = k / (grid_h * grid_w), i = k / grid_w % grid_h, j = k % grid_w;
      sum += static_cast<double>(dy[static_cast<std::size_t>(k * shape.outputs + o)]) *
             pixel(n, i * shape.step + u - 1, j * shape.step + v - 1, c);
    }
    return sum;
  }
  [[nodiscard]] static double largest(const std::vector<T>& of) {
    T most = 0;
    for (const T value : of) most = (std::max)(most, std::abs(value));
    return static_cast<double>(most);
  }
  /// The bound of conv_minimal-inl.hpp with the largest |x| and |w|.
  [[nodiscard]] double bound() const {
    const double u = static_cast<double>(std::numeric_limits<T>::epsilon()) / 2;
    const double depth = static_cast<double>(shape.step * shape.step * shape.channels);
    const double taps_each = static_cast<double>(shape.taps * shape.taps);
    return (depth + 12) * u * 16 * depth * taps_each * largest(x) * largest(w);
  }
  [[nodiscard]] kernels::ConvTask<T> task() const {
    const MinimalShape& s = shape;
    kernels::ConvTask<T> t;
    t.source = {.data = x.data(),
                .row_stride = s.width * s.channels,
                .pixel_stride = s.channels,
                .image_stride = s.height * s.width * s.channels,
                .height = s.height,
                .width = s.width,
                .channels = s.channels,
                .step_h = s.step,
                .step_w = s.step,
                .taps = corners.data(),
                .tap_count = s.step * s.step};
    t.row_end = grid_h;
    t.grid_width = grid_w;
    t.images = s.images;
    t.outputs = s.outputs;
    t.bias = bias.data();
    t.zeros = zeros.data();
    t.y_row_stride = grid_w * s.outputs;
    t.y_pixel_stride = s.outputs;
    t.y_image_stride = grid_h * grid_w * s.outputs;
    return t;
  }
  MinimalShape shape;
  std::ptrdiff_t side = 0, grid_h = 0, grid_w = 0;
  std::vector<T> x, w, bias, zeros, dy;
  std::vector<kernels::ConvTap> taps, corners;
};

}  // namespace quern::test

#endif  // QUERN_TESTS_KERNELS_CONV_MINIMAL_PROBLEM_HPP
