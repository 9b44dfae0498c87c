// SPDX-License-Identifier: Apache-2.0

/// \file
/// Gradients of sequence operations beside central differences, and arrays of random numbers.

#ifndef QUERN_TESTS_SSM_DIFFERENCES_HPP
#define QUERN_TESTS_SSM_DIFFERENCES_HPP

#include "quern/core/nd_array.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <cstddef>
#include <functional>
#include <random>
#include <span>
#include <string>

namespace quern::test {

/// Normal numbers of a seed, times `scale`, plus `shift`.
template <class T, int Rank>
NdArray<T, Rank> normal_array(const Shape<Rank>& extents, unsigned seed, double scale = 1,
                              double shift = 0) {
  std::mt19937_64 random(seed);
  std::normal_distribution<double> normal;
  NdArray<T, Rank> array(extents);
  for (T& x : array) x = static_cast<T>(scale * normal(random) + shift);
  return array;
}

/// The same numbers as T.
template <class T, int Rank, class U>
NdArray<T, Rank> converted(const NdArray<U, Rank>& from) {
  NdArray<T, Rank> to(from.extents());
  for (Index i = 0; i < from.size(); ++i) to.data()[i] = static_cast<T>(from.data()[i]);
  return to;
}

/// Sum of a[i] b[i]: a scalar whose gradient by a is b.
template <class A, class B>
double dot(const A& a, const B& b) {
  double sum = 0;
  for (Index i = 0; i < a.size(); ++i) sum += a.data()[i] * b.data()[i];
  return sum;
}

/// Expects d(loss) / d(values[i]) to be gradient[i], for at most 40 places spread over values.
inline void expect_gradient(const std::string& what, std::span<double> values,
                            std::span<const double> gradient, const std::function<double()>& loss,
                            double tolerance = 1e-6) {
  ASSERT_EQ(values.size(), gradient.size()) << what;
  double scale = 1;
  for (const double g : gradient) scale = (std::max)(scale, std::fabs(g));
  const std::size_t step = values.size() / 40 + 1;
  for (std::size_t i = 0; i < values.size(); i += step) {
    const double before = values[i], h = 1e-5 * (std::max)(1.0, std::fabs(before));
    values[i] = before + h;
    const double up = loss();
    values[i] = before - h;
    const double down = loss();
    values[i] = before;
    ASSERT_NEAR((up - down) / (2 * h), gradient[i], tolerance * scale) << what << " at " << i;
  }
}

template <int Rank>
std::span<double> span_of(NdArray<double, Rank>& a) {
  return {a.data(), static_cast<std::size_t>(a.size())};
}
template <int Rank>
std::span<const double> span_of(const NdArray<double, Rank>& a) {
  return {a.data(), static_cast<std::size_t>(a.size())};
}

}  // namespace quern::test

#endif  // QUERN_TESTS_SSM_DIFFERENCES_HPP
