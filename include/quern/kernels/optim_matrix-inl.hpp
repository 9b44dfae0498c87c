// SPDX-License-Identifier: Apache-2.0

/// \file
/// Passes over one matrix for optimisers that keep a row and a column in place of a second moment
/// (Adafactor): squares summed by row and by column, the size of the scaled gradient, the step.

#if defined(QUERN_KERNELS_OPTIM_MATRIX_INL_HPP) == defined(HWY_TARGET_TOGGLE)
#ifdef QUERN_KERNELS_OPTIM_MATRIX_INL_HPP
#undef QUERN_KERNELS_OPTIM_MATRIX_INL_HPP
#else
#define QUERN_KERNELS_OPTIM_MATRIX_INL_HPP
#endif

#include "quern/core/config.hpp"
#include "quern/kernels/optim-inl.hpp"
#include "quern/kernels/optim_types.hpp"
#include "quern/kernels/partial-inl.hpp"

#include "hwy/highway.h"

#include <cstddef>

HWY_BEFORE_NAMESPACE();
QUERN_NAMESPACE_BEGIN
namespace kernels {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

namespace detail {

template <class D, class T = hn::TFromD<D>>
HWY_INLINE hn::Vec<D> load_some(D d, const T* from, std::size_t count) {
  return count == hn::Lanes(d) ? hn::LoadU(d, from) : load_partial(d, from, count);
}
template <class D, class V, class T = hn::TFromD<D>>
HWY_INLINE void store_some(V v, D d, T* to, std::size_t count) {
  if (count == hn::Lanes(d)) {
    hn::StoreU(v, d, to);
  } else {
    store_partial(v, d, to, count);
  }
}

}  // namespace detail

/// rows[i] = sum over j of g[i][j]^2 (in double), columns[j] += sum over i. \p count rows of
/// \p width elements; g after scaling and clipping.
template <class T>
void factored_squares(const T* gradient, std::size_t count, std::size_t width,
                      const OptimPrologue<T>& prologue, double* rows, T* columns) {
  const hn::ScalableTag<T> d;
  const std::size_t lanes = hn::Lanes(d);
  const detail::OptimConstants<decltype(d)> c(d, prologue);
  for (std::size_t i = 0; i < count; ++i) {
    const T* g = gradient + i * width;
    detail::SquareSum<T> sum;
    for (std::size_t j = 0; j < width; j += lanes) {
      const std::size_t some = width - j < lanes ? width - j : lanes;
      const auto x = c.gradient(detail::load_some(d, g + j, some), hn::Zero(d));
      sum.add(d, x);
      const auto column = hn::MulAdd(x, x, detail::load_some(d, columns + j, some));
      detail::store_some(column, d, columns + j, some);
    }
    rows[i] = sum.total();
  }
}

/// Sum of u^2 and of p^2, where u = g / sqrt(max(row_scale[i] column[j], floor)).
template <class T>
OptimSums factored_sizes(const T* gradient, const T* values, std::size_t count, std::size_t width,
                         const OptimPrologue<T>& prologue, const T* row_scale, const T* column,
                         T floor) {
  const hn::ScalableTag<T> d;
  const std::size_t lanes = hn::Lanes(d);
  const detail::OptimConstants<decltype(d)> c(d, prologue);
  detail::SquareSum<T> of_u, of_p;
  for (std::size_t i = 0; i < count; ++i) {
    const auto scale = hn::Set(d, row_scale[i]);
    for (std::size_t j = 0; j < width; j += lanes) {
      const std::size_t some = width - j < lanes ? width - j : lanes, at = i * width + j;
      const auto g = c.gradient(detail::load_some(d, gradient + at, some), hn::Zero(d));
      const auto v =
          hn::Max(hn::Mul(scale, detail::load_some(d, column + j, some)), hn::Set(d, floor));
      of_u.add(d, hn::Div(g, hn::Sqrt(v)));
      of_p.add(d, detail::load_some(d, values + at, some));
    }
  }
  return {of_u.total(), of_p.total()};
}

/// p = keep p - step u.
template <class T>
void factored_step(const T* gradient, T* values, std::size_t count, std::size_t width,
                   const OptimPrologue<T>& prologue, const T* row_scale, const T* column, T floor,
                   T step) {
  const hn::ScalableTag<T> d;
  const std::size_t lanes = hn::Lanes(d);
  const detail::OptimConstants<decltype(d)> c(d, prologue);
  for (std::size_t i = 0; i < count; ++i) {
    const auto scale = hn::Set(d, row_scale[i]);
    for (std::size_t j = 0; j < width; j += lanes) {
      const std::size_t some = width - j < lanes ? width - j : lanes, at = i * width + j;
      const auto g = c.gradient(detail::load_some(d, gradient + at, some), hn::Zero(d));
      const auto v =
          hn::Max(hn::Mul(scale, detail::load_some(d, column + j, some)), hn::Set(d, floor));
      const auto p = hn::Mul(c.keep, detail::load_some(d, values + at, some));
      detail::store_some(detail::step_by_quotient(d, p, step, g, hn::Sqrt(v)), d, values + at,
                         some);
    }
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace kernels
QUERN_NAMESPACE_END
HWY_AFTER_NAMESPACE();

#endif  // QUERN_KERNELS_OPTIM_MATRIX_INL_HPP
