// SPDX-License-Identifier: Apache-2.0

/// \file
/// Complex numbers for loops: without the corner cases of infinity that make std::complex slow.

#ifndef QUERN_SSM_DETAIL_COMPLEX_NUMBER_HPP
#define QUERN_SSM_DETAIL_COMPLEX_NUMBER_HPP

#include "quern/core/config.hpp"

#include <complex>

QUERN_NAMESPACE_BEGIN
namespace ssm {
namespace detail {

/// A complex number without the corner cases that make std::complex slow.
struct Cx {
  double re = 0, im = 0;
};
inline Cx operator+(Cx a, Cx b) { return {a.re + b.re, a.im + b.im}; }
inline Cx operator-(Cx a, Cx b) { return {a.re - b.re, a.im - b.im}; }
inline Cx operator*(Cx a, Cx b) { return {a.re * b.re - a.im * b.im, a.re * b.im + a.im * b.re}; }
inline Cx conj(Cx a) { return {a.re, -a.im}; }
inline Cx inverse(Cx a) {
  const double n = a.re * a.re + a.im * a.im;
  return {a.re / n, -a.im / n};
}
inline Cx cx(std::complex<double> z) { return {z.real(), z.imag()}; }

}  // namespace detail
}  // namespace ssm
QUERN_NAMESPACE_END

#endif  // QUERN_SSM_DETAIL_COMPLEX_NUMBER_HPP
