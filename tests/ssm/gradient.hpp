// SPDX-License-Identifier: Apache-2.0

/// \file
/// Gradients of double or complex arrays against central differences of a loss.

#ifndef QUERN_TESTS_SSM_GRADIENT_HPP
#define QUERN_TESTS_SSM_GRADIENT_HPP

#include "quern/core/nd_array.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <complex>
#include <cstddef>
#include <random>
#include <type_traits>

namespace quern::test {

/// Normal numbers; complex ones have both parts.
template <class T, int Rank>
NdArray<T, Rank> ssm_random(const Shape<Rank>& shape, unsigned seed, double scale = 1) {
  NdArray<T, Rank> x(shape);
  std::mt19937_64 random(seed);
  std::normal_distribution<double> normal(0, scale);
  for (T& v : x) {
    if constexpr (std::is_floating_point_v<T>) {
      v = static_cast<T>(normal(random));
    } else {
      const auto re = static_cast<typename T::value_type>(normal(random));
      v = T(re, static_cast<typename T::value_type>(normal(random)));
    }
  }
  return x;
}

/// sum of Re(conj(w) x).
template <class X, class W>
double ssm_inner(const X& w, const W& x) {
  double sum = 0;
  for (Index i = 0; i < x.size(); ++i) {
    sum +=
        std::real(std::conj(std::complex<double>(w.data()[i])) * std::complex<double>(x.data()[i]));
  }
  return sum;
}

/// Whether gradient is that of loss() by x, an array of doubles or complex doubles.
template <class Array, class Loss>
void expect_ssm_gradient(Array& x, const Array& gradient, Loss&& loss, const char* what,
                         double step = 1e-6, double tolerance = 2e-7) {
  constexpr Index parts = static_cast<Index>(sizeof(*x.data()) / sizeof(double));
  double* const values = reinterpret_cast<double*>(x.data());
  const double* const got = reinterpret_cast<const double*>(gradient.data());
  double largest = 1;
  for (Index i = 0; i < x.size() * parts; ++i) largest = std::fmax(largest, std::fabs(got[i]));
  for (Index i = 0; i < x.size() * parts; ++i) {
    const double before = values[i];
    values[i] = before + step;
    const double up = loss();
    values[i] = before - step;
    const double down = loss();
    values[i] = before;
    ASSERT_NEAR(got[i], (up - down) / (2 * step), tolerance * largest) << what << " at " << i;
  }
}

}  // namespace quern::test

#endif  // QUERN_TESTS_SSM_GRADIENT_HPP
