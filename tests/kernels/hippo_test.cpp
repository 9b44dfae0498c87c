// SPDX-License-Identifier: Apache-2.0

/// \file
/// Steps of LegS and LegT against dense matrices solved in double, at every level and any number of
/// channels; LegS's adjoint.

#include "quern/kernels/kernels.hpp"

#include "quern/core/buffer.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <cstddef>
#include <limits>
#include <random>
#include <vector>

namespace quern::test::hippo_kernels {
namespace {

/// x += (I - w h A)^-1 h (A x + B u) by Gaussian elimination; A and B by formula.
std::vector<double> step(std::size_t order, bool scaled, double h, double weight,
                         std::vector<double> x, double u) {
  const auto a = [&](std::size_t i, std::size_t j) {
    const double r = std::sqrt(2.0 * double(i) + 1) * std::sqrt(2.0 * double(j) + 1);
    if (scaled) return i > j ? -r : i == j ? -double(i + 1) : 0.0;
    return -r / 2 * (i < j && (j - i) % 2 == 1 ? -1 : 1);
  };
  std::vector<double> m(order * order), y(order);
  for (std::size_t i = 0; i < order; ++i) {
    const double r = std::sqrt(2.0 * double(i) + 1);
    y[i] = h * (scaled ? r : r / 2) * u;
    for (std::size_t j = 0; j < order; ++j) {
      y[i] += h * a(i, j) * x[j];
      m[i * order + j] = (i == j ? 1 : 0) - weight * h * a(i, j);
    }
  }
  for (std::size_t k = 0; k < order; ++k) {
    for (std::size_t i = k + 1; i < order; ++i) {
      const double factor = m[i * order + k] / m[k * order + k];
      for (std::size_t j = k; j < order; ++j) m[i * order + j] -= factor * m[k * order + j];
      y[i] -= factor * y[k];
    }
  }
  for (std::size_t k = order; k-- > 0;) {
    for (std::size_t j = k + 1; j < order; ++j) y[k] -= m[k * order + j] * y[j];
    y[k] /= m[k * order + k];
    x[k] += y[k];
  }
  return x;
}

template <class T>
struct Factors {
  std::vector<T> norms, p, l, u, inverse_d;
  Factors(std::size_t order, double c) {
    double f = 0;
    for (std::size_t n = 0; n < order; ++n) {
      const double r = std::sqrt(2.0 * double(n) + 1), s = n % 2 == 0 ? 1 : -1;
      const double d = 1 + c * r * r - c * r * f * s * r;
      norms.push_back(static_cast<T>(r));
      p.push_back(static_cast<T>(c * r));
      l.push_back(static_cast<T>((r - f * s * r) / d));
      u.push_back(static_cast<T>(c * s * r - c * r * f));
      inverse_d.push_back(static_cast<T>(1 / d));
      f += (r - f * s * r) / d * (c * s * r - c * r * f);
    }
  }
};

template <class T>
void check(std::size_t order, std::size_t channels) {
  const double dt = 0.05, weight = 0.5;
  const std::size_t steps = 3, stride = channels + 1;
  std::vector<T> inputs(steps * stride), start(order * stride);
  std::mt19937_64 random(order + channels);
  std::normal_distribution<double> normal;
  for (T& v : inputs) v = static_cast<T>(normal(random));
  for (T& v : start) v = static_cast<T>(normal(random));
  const Factors<T> factors(order, weight * dt / 2);
  core::Buffer<T> work(kernels::hippo_work_size<T>(order));
  for (const bool scaled : {true, false}) {
    std::vector<T> state = start;
    const auto fill = [&](auto& task) {
      task.steps = steps, task.order = order, task.channels = channels;
      task.input = inputs.data(), task.input_stride = static_cast<std::ptrdiff_t>(stride);
      task.state = state.data(), task.state_stride = static_cast<std::ptrdiff_t>(stride);
      task.norms = factors.norms.data();
      task.work = work.data();
    };
    if (scaled) {
      kernels::LegsTask<T> task;
      fill(task);
      task.first = 4;
      QUERN_DISPATCH(hippo_legs<T>(task));
    } else {
      kernels::LegtTask<T> task;
      fill(task);
      task.dt = static_cast<T>(dt);
      task.p = factors.p.data(), task.l = factors.l.data(), task.u = factors.u.data();
      task.inverse_d = factors.inverse_d.data();
      QUERN_DISPATCH(hippo_legt<T>(task));
    }
    for (std::size_t c = 0; c < stride; ++c) {
      std::vector<double> x(order);
      for (std::size_t n = 0; n < order; ++n) x[n] = start[n * stride + c];
      for (std::size_t s = 0; s < steps && c < channels; ++s) {
        x = step(order, scaled, scaled ? 1.0 / double(4 + s) : dt, weight, x,
                 inputs[s * stride + c]);
      }
      for (std::size_t n = 0; n < order; ++n) {
        const double bound = 200 * std::numeric_limits<T>::epsilon() * (4 + std::fabs(x[n]));
        ASSERT_NEAR(state[n * stride + c], x[n], bound) << scaled << ' ' << n << ' ' << c;
      }
    }
    if (!scaled) continue;
    // <g, step(x, u)> = <adjoint of g, (x, u)>.
    std::vector<T> g = start, du(inputs.size());
    std::vector<T>& w = g;
    kernels::LegsTask<T> task;
    fill(task);
    task.first = 4;
    task.state = w.data();
    QUERN_DISPATCH(hippo_legs_vjp<T>(task, du.data(), static_cast<std::ptrdiff_t>(stride)));
    for (std::size_t c = 0; c < channels; ++c) {
      double left = 0, right = 0;
      for (std::size_t n = 0; n < order; ++n) {
        left += double(start[n * stride + c]) * double(state[n * stride + c]);
        right += double(w[n * stride + c]) * double(start[n * stride + c]);
      }
      for (std::size_t s = 0; s < steps; ++s) {
        right += double(du[s * stride + c]) * double(inputs[s * stride + c]);
      }
      ASSERT_NEAR(left, right,
                  400 * std::numeric_limits<T>::epsilon() * (double(order) + std::fabs(left)));
    }
  }
}

template <class T>
void check_all() {
  for (const simd::Level level : simd::attainable_levels()) {
    const simd::ScopedLevel force(level);
    SCOPED_TRACE(simd::name(level));
    for (const std::size_t channels : {1U, 3U, 8U, 16U, 17U, 64U, 70U}) {
      for (const std::size_t order : {1U, 2U, 9U, 16U}) check<T>(order, channels);
    }
  }
}

TEST(HippoKernels, FloatAgainstMatrices) { check_all<float>(); }
TEST(HippoKernels, DoubleAgainstMatrices) { check_all<double>(); }

}  // namespace
}  // namespace quern::test::hippo_kernels
