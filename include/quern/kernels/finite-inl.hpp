// SPDX-License-Identifier: Apache-2.0

/// \file
/// Whether an array holds a NaN or an infinity, and whether it holds anything above a limit: at the
/// speed of reading it. Bits are compared, so -ffast-math changes nothing.

#if defined(QUERN_KERNELS_FINITE_INL_HPP) == defined(HWY_TARGET_TOGGLE)
#ifdef QUERN_KERNELS_FINITE_INL_HPP
#undef QUERN_KERNELS_FINITE_INL_HPP
#else
#define QUERN_KERNELS_FINITE_INL_HPP
#endif

#include "quern/core/config.hpp"
#include "quern/kernels/lanes-inl.hpp"

#include "hwy/highway.h"

#include <cstddef>

HWY_BEFORE_NAMESPACE();
QUERN_NAMESPACE_BEGIN
namespace kernels {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

/// Whether all n elements are finite.
template <class T>
bool every_finite(const T* HWY_RESTRICT x, std::size_t n) {
  const hn::ScalableTag<T> d;
  const std::size_t lanes = hn::Lanes(d);
  detail::LargestBits<hn::ScalableTag<T>> first(d), second(d);
  std::size_t i = 0;
  for (; i + 2 * lanes <= n; i += 2 * lanes) {
    first.see(d, hn::LoadU(d, x + i));
    second.see(d, hn::LoadU(d, x + i + lanes));
  }
  for (; i < n; i += lanes) {
    first.see(d, n - i < lanes ? load_partial(d, x + i, n - i) : hn::LoadU(d, x + i));
  }
  return first.finite(d) && second.finite(d);
}

/// Whether all n elements are at most 0 (-infinity too) and none is NaN: positive floats have
/// positive bits, and NaN is the largest of all in magnitude.
template <class T>
bool every_at_most_zero(const T* HWY_RESTRICT x, std::size_t n) {
  const hn::ScalableTag<T> d;
  const hn::RebindToSigned<hn::ScalableTag<T>> di;
  using Int = hn::TFromD<hn::RebindToSigned<hn::ScalableTag<T>>>;
  const std::size_t lanes = hn::Lanes(d);
  auto above = hn::Zero(di), magnitude = hn::Zero(di);
  for (std::size_t i = 0; i < n; i += lanes) {
    const auto v = n - i < lanes ? load_partial(d, x + i, n - i) : hn::LoadU(d, x + i);
    above = hn::Max(above, hn::BitCast(di, v));
    magnitude = hn::Max(magnitude, hn::BitCast(di, hn::Abs(v)));
  }
  HWY_ALIGN Int bits[hn::MaxLanes(di)];
  HWY_ALIGN Int sizes[hn::MaxLanes(di)];
  hn::Store(above, di, bits);
  hn::Store(magnitude, di, sizes);
  bool fine = true;
  for (std::size_t k = 0; k < lanes; ++k) {
    fine = fine && bits[k] <= 0 && sizes[k] <= static_cast<Int>(FloatFormat<T>::kInfinity);
  }
  return fine;
}

/// Whether all n elements are in 0...1, as their bits tell; -0 counts as below.
template <class T>
bool every_in_unit(const T* HWY_RESTRICT x, std::size_t n) {
  const hn::ScalableTag<T> d;
  const hn::RebindToSigned<hn::ScalableTag<T>> di;
  using Int = hn::TFromD<hn::RebindToSigned<hn::ScalableTag<T>>>;
  const std::size_t lanes = hn::Lanes(d);
  const auto one = hn::BitCast(di, hn::Set(d, T{1}));
  auto low = hn::Zero(di), high = hn::Zero(di);
  for (std::size_t i = 0; i < n; i += lanes) {
    const auto v = n - i < lanes ? load_partial(d, x + i, n - i) : hn::LoadU(d, x + i);
    low = hn::Min(low, hn::BitCast(di, v));
    high = hn::Max(high, hn::BitCast(di, v));
  }
  HWY_ALIGN Int lows[hn::MaxLanes(di)];
  HWY_ALIGN Int room[hn::MaxLanes(di)];
  hn::Store(low, di, lows);
  hn::Store(hn::Sub(one, high), di, room);
  bool fine = true;
  for (std::size_t k = 0; k < lanes; ++k) fine = fine && lows[k] >= 0 && room[k] >= 0;
  return fine;
}

}  // namespace HWY_NAMESPACE
}  // namespace kernels
QUERN_NAMESPACE_END
HWY_AFTER_NAMESPACE();

#endif  // QUERN_KERNELS_FINITE_INL_HPP
