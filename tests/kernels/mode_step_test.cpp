// SPDX-License-Identifier: Apache-2.0

/// \file
/// Steps of coupled complex modes against their definition in complex numbers, at every level.

#include "quern/kernels/mode_step_types.hpp"

#include "quern/kernels/kernels.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <complex>
#include <cstddef>
#include <limits>
#include <random>
#include <vector>

namespace quern::test::mode_step {
namespace {

using Complex = std::complex<double>;

/// Rows of parts as complex numbers.
template <class T>
Complex at(const std::vector<T>& x, std::size_t row, std::size_t n, std::size_t modes) {
  return {static_cast<double>(x[(2 * row) * modes + n]),
          static_cast<double>(x[(2 * row + 1) * modes + n])};
}

template <class T>
void check(std::size_t modes, std::size_t rank) {
  SCOPED_TRACE(::testing::Message() << modes << " modes, rank " << rank);
  constexpr std::size_t steps = 40;
  std::mt19937_64 random(modes + rank);
  std::normal_distribution<double> normal(0, 1 / std::sqrt(1.0 + static_cast<double>(modes)));
  const auto draw = [&](std::size_t n, double scale) {
    std::vector<T> x(n);
    for (T& v : x) v = static_cast<T>(scale * normal(random));
    return x;
  };
  auto less = draw(2 * modes, 0.2);
  for (std::size_t n = 0; n < modes; ++n) less[n] = -std::fabs(less[n]) - T(0.3);
  const auto in = draw(2 * modes, 1), out = draw(2 * modes, 1), first = draw(2 * modes, 1);
  const auto from = draw(rank * 2 * modes, 0.3), to = draw(rank * 2 * modes, 0.3);
  const auto gain = draw(rank, 1), u = draw(steps, 1);
  std::vector<double> want(steps);
  std::vector<Complex> x(modes);
  for (std::size_t n = 0; n < modes; ++n) x[n] = at(first, 0, n, modes);
  for (std::size_t t = 0; t < steps; ++t) {
    const double input = static_cast<double>(u[t]);
    std::vector<double> w(rank);
    for (std::size_t k = 0; k < rank; ++k) {
      w[k] = static_cast<double>(gain[k]) * input;
      for (std::size_t n = 0; n < modes; ++n) w[k] += (at(from, k, n, modes) * x[n]).real();
    }
    want[t] = 0.7 * input;
    for (std::size_t n = 0; n < modes; ++n) {
      x[n] += at(less, 0, n, modes) * x[n] + at(in, 0, n, modes) * input;
      for (std::size_t k = 0; k < rank; ++k) x[n] -= at(to, k, n, modes) * w[k];
      want[t] += (at(out, 0, n, modes) * x[n]).real();
    }
  }
  for (const simd::Level level : simd::attainable_levels()) {
    const simd::ScopedLevel force(level);
    std::vector<T> state = first, y(steps);
    kernels::ModeStepTask<T> task;
    task.modes = static_cast<std::ptrdiff_t>(modes);
    task.rank = static_cast<std::ptrdiff_t>(rank);
    task.less = less.data(), task.in = in.data(), task.out = out.data();
    task.from = from.data(), task.to = to.data(), task.gain = gain.data();
    task.through = T(0.7);
    task.x = state.data();
    // In two calls: states go on.
    for (const std::size_t begin : {std::size_t{0}, std::size_t{17}}) {
      task.steps = begin == 0 ? 17 : static_cast<std::ptrdiff_t>(steps - 17);
      task.u = u.data() + begin, task.y = y.data() + begin;
      QUERN_DISPATCH(mode_steps<T>(task));
    }
    // A few roundings a step of a system that forgets.
    const double bound = 100 * static_cast<double>(std::numeric_limits<T>::epsilon());
    for (std::size_t t = 0; t < steps; ++t) {
      ASSERT_NEAR(static_cast<double>(y[t]), want[t], bound) << simd::name(level) << ' ' << t;
    }
    for (std::size_t n = 0; n < modes; ++n) {
      ASSERT_LE(std::abs(at(state, 0, n, modes) - x[n]), bound) << simd::name(level) << ' ' << n;
    }
  }
}

TEST(ModeStep, IsItsDefinitionAtEveryLevel) {
  for (const std::size_t modes : {0U, 1U, 3U, 8U, 16U, 17U, 35U}) {
    for (const std::size_t rank : {0U, 1U, 2U}) {
      check<float>(modes, rank);
      check<double>(modes, rank);
    }
  }
}

}  // namespace
}  // namespace quern::test::mode_step
