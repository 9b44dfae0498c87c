// SPDX-License-Identifier: Apache-2.0

/// \file
/// Softmax, its logarithm, and log-sum-exp of the rows of a matrix. The elements of a row are
/// adjacent; rows are \p stride elements apart. Output may be the input itself.
///
/// The row's largest element m is subtracted first, so nothing overflows: terms are e^(x - m) with
/// the sum's accuracy of reduce-inl.hpp. Relative error of softmax, in units of 2^-24 (2^-53):
/// |x - m| / 2 from rounding the difference, and at most 8 more.
///
/// A row of -infinity alone (all masked) has softmax 0, log-softmax and log-sum-exp -infinity. NaN
/// or +infinity in a row gives a softmax and log-softmax of NaN throughout; log-sum-exp of a row
/// with +infinity and no NaN is +infinity.

#if defined(QUERN_KERNELS_SOFTMAX_INL_HPP) == defined(HWY_TARGET_TOGGLE)
#ifdef QUERN_KERNELS_SOFTMAX_INL_HPP
#undef QUERN_KERNELS_SOFTMAX_INL_HPP
#else
#define QUERN_KERNELS_SOFTMAX_INL_HPP
#endif

#include "quern/core/config.hpp"
#include "quern/kernels/elementwise-inl.hpp"
#include "quern/kernels/functors-inl.hpp"
#include "quern/kernels/math-inl.hpp"
#include "quern/kernels/reduce-inl.hpp"

#include "hwy/highway.h"

#include <cstddef>

HWY_BEFORE_NAMESPACE();
QUERN_NAMESPACE_BEGIN
namespace kernels {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

namespace detail {

template <class T>
HWY_INLINE void fill(T value, std::size_t n, T* y) {
  for (std::size_t i = 0; i < n; ++i) y[i] = value;
}

/// Whether a row's largest element says that it is empty or masked throughout.
template <class T>
HWY_INLINE bool all_masked(T largest) {
  return bits_of(largest) == bits_of(minus_infinity<T>());
}

HWY_INLINE double log_of(double x) {
  const hn::CappedTag<double, 1> d;
  return hn::GetLane(HWY_NAMESPACE::log(d, hn::Set(d, x)));
}

}  // namespace detail

/// y = softmax(x) for each of \p rows rows of \p cols elements.
template <class T>
void softmax_rows(std::size_t rows, std::size_t cols, const T* x, std::ptrdiff_t x_stride, T* y,
                  std::ptrdiff_t y_stride) {
  for (std::size_t row = 0; row < rows; ++row, x += x_stride, y += y_stride) {
    const T largest = max_value(x, cols);
    if (detail::all_masked(largest)) {
      detail::fill(T{0}, cols, y);
      continue;
    }
    transform(kernels::ExpMinus<T>{largest}, x, cols, y);
    scale(static_cast<T>(1.0 / sum(y, cols)), y, cols, y);
  }
}

/// out[row] = log of the sum of e^x over the row.
template <class T>
void log_sum_exp_rows(std::size_t rows, std::size_t cols, const T* x, std::ptrdiff_t x_stride,
                      T* out) {
  for (std::size_t row = 0; row < rows; ++row, x += x_stride) {
    const T largest = max_value(x, cols);
    const bool finite = detail::magnitude_bits(largest) < FloatFormat<T>::kInfinity;
    out[row] = largest;
    if (finite) {
      const double total = sum_of(kernels::ExpMinus<T>{largest}, x, cols);
      out[row] = static_cast<T>(static_cast<double>(largest) + detail::log_of(total));
    }
  }
}

/// y = log(softmax(x)) for each row.
template <class T>
void log_softmax_rows(std::size_t rows, std::size_t cols, const T* x, std::ptrdiff_t x_stride, T* y,
                      std::ptrdiff_t y_stride) {
  for (std::size_t row = 0; row < rows; ++row, x += x_stride, y += y_stride) {
    const T largest = max_value(x, cols);
    if (detail::all_masked(largest)) {
      detail::fill(largest, cols, y);
      continue;
    }
    const double total = sum_of(kernels::ExpMinus<T>{largest}, x, cols);
    const T log_total = static_cast<T>(detail::log_of(total));
    transform(kernels::MinusBoth<T>{largest, log_total}, x, cols, y);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace kernels
QUERN_NAMESPACE_END
HWY_AFTER_NAMESPACE();

#endif  // QUERN_KERNELS_SOFTMAX_INL_HPP
