// SPDX-License-Identifier: Apache-2.0

/// \file
/// Cauchy sums and their gradients against sums by definition, at every level.

#include "quern/kernels/kernels.hpp"

#include "quern/core/buffer.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <complex>
#include <cstddef>
#include <limits>
#include <random>

namespace quern::test::cauchy_kernels {
namespace {

using Complex = std::complex<double>;

template <class T>
struct Tiles {
  static constexpr std::size_t lanes = kernels::cauchy_lanes<T>;
  core::Buffer<T> values;
  Tiles(std::size_t count, unsigned seed) : values(count * 2 * lanes) {
    std::mt19937_64 random(seed);
    std::normal_distribution<double> normal;
    for (T& v : values) v = static_cast<T>(normal(random));
  }
  explicit Tiles(std::size_t count) : values(count * 2 * lanes, core::Fill::zero) {}
  [[nodiscard]] Complex at(std::size_t i, std::size_t lane) const {
    return {static_cast<double>(values[i * 2 * lanes + lane]),
            static_cast<double>(values[(i * 2 + 1) * lanes + lane])};
  }
};

template <class T>
void check(std::size_t modes, std::size_t nodes, std::size_t each) {
  constexpr std::size_t lanes = Tiles<T>::lanes;
  Tiles<T> lambda(modes, 1), products(modes * each, 2), dsums(nodes * each, 3);
  Tiles<T> sums(nodes * each), dproducts(modes * each), dlambda(modes);
  core::Buffer<T> dt(lanes), ddt(lanes, core::Fill::zero), node(4 * nodes);
  for (std::size_t k = 0; k < lanes; ++k) dt[k] = static_cast<T>(0.05 * double(k + 1));
  for (std::size_t n = 0; n < modes; ++n) {
    for (std::size_t k = 0; k < lanes; ++k) {
      T& re = lambda.values[n * 2 * lanes + k];
      re = -std::abs(re) - T{1};
    }
  }
  for (std::size_t l = 0; l < nodes; ++l) {
    const Complex w = std::polar(0.9, double(l));
    node[4 * l] = static_cast<T>(1 - w.real()), node[4 * l + 1] = static_cast<T>(-w.imag());
    node[4 * l + 2] = static_cast<T>((1 + w.real()) / 2);
    node[4 * l + 3] = static_cast<T>(w.imag() / 2);
  }
  kernels::CauchyTask<T> task;
  task.modes = modes, task.nodes = nodes, task.products_each = each;
  task.lambda = lambda.values.data(), task.dt = dt.data(), task.products = products.values.data();
  task.node = node.data(), task.sums = sums.values.data(), task.dsums = dsums.values.data();
  task.dproducts = dproducts.values.data(), task.dlambda = dlambda.values.data();
  task.ddt = ddt.data();
  QUERN_DISPATCH(cauchy_sums<T>(task));
  QUERN_DISPATCH(cauchy_sums_vjp<T>(task));
  const double bound = 200 * std::numeric_limits<T>::epsilon();
  for (std::size_t k = 0; k < lanes; ++k) {
    const double step = dt[k];
    const auto r = [&](std::size_t n, std::size_t l) {
      const Complex a(node[4 * l], node[4 * l + 1]), h(node[4 * l + 2], node[4 * l + 3]);
      return step / (a - step * h * lambda.at(n, k));
    };
    double want_ddt = 0, scale = 1;
    for (std::size_t n = 0; n < modes; ++n) {
      Complex want_lambda = 0;
      for (std::size_t l = 0; l < nodes; ++l) {
        const Complex h(node[4 * l + 2], node[4 * l + 3]), value = r(n, l);
        Complex dr = 0;
        for (std::size_t i = 0; i < each; ++i) {
          dr += std::conj(products.at(n * each + i, k)) * dsums.at(l * each + i, k);
        }
        want_lambda += std::conj(h * value * value) * dr;
        const double one =
            (std::conj(value / step + h * lambda.at(n, k) * value * value / step) * dr).real();
        want_ddt += one;
        scale += std::fabs(one);
      }
      ASSERT_LE(std::abs(dlambda.at(n, k) - want_lambda), bound * (10 + std::abs(want_lambda)));
      for (std::size_t i = 0; i < each; ++i) {
        Complex want = 0;
        for (std::size_t l = 0; l < nodes; ++l)
          want += std::conj(r(n, l)) * dsums.at(l * each + i, k);
        ASSERT_LE(std::abs(dproducts.at(n * each + i, k) - want), bound * (10 + std::abs(want)));
      }
    }
    ASSERT_NEAR(ddt[k], want_ddt, bound * scale);
    for (std::size_t l = 0; l < nodes; ++l) {
      for (std::size_t i = 0; i < each; ++i) {
        Complex want = 0;
        for (std::size_t n = 0; n < modes; ++n) want += products.at(n * each + i, k) * r(n, l);
        ASSERT_LE(std::abs(sums.at(l * each + i, k) - want), bound * (10 + std::abs(want)));
      }
    }
  }
}

template <class T>
void check_all() {
  for (const simd::Level level : simd::attainable_levels()) {
    const simd::ScopedLevel force(level);
    SCOPED_TRACE(simd::name(level));
    for (const std::size_t each : {1U, 4U, 9U}) {
      check<T>(1, 1, each);
      check<T>(5, 9, each);
      check<T>(3, 0, each);
    }
  }
}

TEST(CauchyKernels, FloatAgainstSums) { check_all<float>(); }
TEST(CauchyKernels, DoubleAgainstSums) { check_all<double>(); }

}  // namespace
}  // namespace quern::test::cauchy_kernels
