// SPDX-License-Identifier: Apache-2.0

/// \file
/// One window of a pooling, for all channels of a pixel at once: largest values with the place they
/// came from, and sums.

#if defined(QUERN_KERNELS_POOL_INL_HPP) == defined(HWY_TARGET_TOGGLE)
#ifdef QUERN_KERNELS_POOL_INL_HPP
#undef QUERN_KERNELS_POOL_INL_HPP
#else
#define QUERN_KERNELS_POOL_INL_HPP
#endif

#include "quern/core/config.hpp"
#include "quern/kernels/math-inl.hpp"
#include "quern/kernels/norm-inl.hpp"

#include "hwy/highway.h"

#include <cstddef>
#include <cstdint>

HWY_BEFORE_NAMESPACE();
QUERN_NAMESPACE_BEGIN
namespace kernels {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

namespace detail {

/// By the bits, see reduce-inl.hpp.
template <class D, class V, class T = hn::TFromD<D>>
HWY_INLINE hn::Mask<D> nan_mask(D d, V v) {
  const hn::RebindToSigned<D> di;
  const auto infinity =
      hn::Set(di, static_cast<hn::TFromD<decltype(di)>>(FloatFormat<T>::kInfinity));
  return hn::RebindMask(d, hn::Gt(hn::BitCast(di, hn::Abs(v)), infinity));
}

}  // namespace detail

/// y[c] = the largest of pixels[t][c] over t < count (at least 1), and which[c] its t: the first
/// NaN if there is one, else the first of equal ones. \p which is as wide as T.
template <class T, class I>
void max_pool_pixel(const T* const* pixels, std::size_t count, std::size_t channels, T* y,
                    I* which) {
  const hn::ScalableTag<T> d;
  const hn::RebindToSigned<decltype(d)> di;
  static_assert(sizeof(I) == sizeof(T), "integers as wide as the values");
  for (std::size_t c = 0; c < channels; c += hn::Lanes(d)) {
    const std::size_t left = channels - c;
    auto best = detail::load_up_to(d, pixels[0] + c, left);
    auto index = hn::Zero(di);
    for (std::size_t t = 1; t < count; ++t) {
      const auto x = detail::load_up_to(d, pixels[t] + c, left);
      // Unless the best is NaN already: a NaN, or a larger one.
      const auto takes =
          hn::AndNot(detail::nan_mask(d, best), hn::Or(hn::Gt(x, best), detail::nan_mask(d, x)));
      best = hn::IfThenElse(takes, x, best);
      index = hn::IfThenElse(hn::RebindMask(di, takes), hn::Set(di, static_cast<I>(t)), index);
    }
    detail::store_up_to(best, d, y + c, left);
    detail::store_up_to(index, di, which + c, left);
  }
}

/// y[c] = scale times the sum of pixels[t][c] over t < count.
template <class T>
void mean_pool_pixel(const T* const* pixels, std::size_t count, std::size_t channels, T scale,
                     T* y) {
  const hn::ScalableTag<T> d;
  for (std::size_t c = 0; c < channels; c += hn::Lanes(d)) {
    const std::size_t left = channels - c;
    auto sum = hn::Zero(d);
    for (std::size_t t = 0; t < count; ++t) {
      sum = hn::Add(sum, detail::load_up_to(d, pixels[t] + c, left));
    }
    detail::store_up_to(hn::Mul(sum, hn::Set(d, scale)), d, y + c, left);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace kernels
QUERN_NAMESPACE_END
HWY_AFTER_NAMESPACE();

#endif  // QUERN_KERNELS_POOL_INL_HPP
