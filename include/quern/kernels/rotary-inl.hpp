// SPDX-License-Identifier: Apache-2.0

/// \file
/// Turning pairs of numbers by angles: what rotary positions do to a row of queries or keys. A
/// turned element is one product and one multiply-add; source and target may be the same memory.

#if defined(QUERN_KERNELS_ROTARY_INL_HPP) == defined(HWY_TARGET_TOGGLE)
#ifdef QUERN_KERNELS_ROTARY_INL_HPP
#undef QUERN_KERNELS_ROTARY_INL_HPP
#else
#define QUERN_KERNELS_ROTARY_INL_HPP
#endif

#include "quern/core/config.hpp"
#include "quern/kernels/partial-inl.hpp"

#include "hwy/highway.h"

#include <cstddef>

HWY_BEFORE_NAMESPACE();
QUERN_NAMESPACE_BEGIN
namespace kernels {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

/// Pairs (x[2 i], x[2 i + 1]), n elements in all. Each pair's cosine is given twice, its sine as -s
/// and s.
template <class T>
void turn_adjacent(const T* x, std::size_t n, const T* HWY_RESTRICT cosines,
                   const T* HWY_RESTRICT sines, T* y) {
  const hn::ScalableTag<T> d;
  std::size_t i = 0;
  if constexpr (hn::MaxLanes(hn::ScalableTag<T>()) > 1) {
    const std::size_t lanes = hn::Lanes(d);
    for (; i + lanes <= n; i += lanes) {
      const auto v = hn::LoadU(d, x + i);
      const auto first = hn::Mul(v, hn::LoadU(d, cosines + i));
      hn::StoreU(hn::MulAdd(hn::Reverse2(d, v), hn::LoadU(d, sines + i), first), d, y + i);
    }
    if (i < n) {
      const std::size_t rest = n - i;
      const auto v = load_partial(d, x + i, rest);
      const auto first = hn::Mul(v, load_partial(d, cosines + i, rest));
      const auto turned = hn::MulAdd(hn::Reverse2(d, v), load_partial(d, sines + i, rest), first);
      store_partial(turned, d, y + i, rest);
    }
  } else {
    for (; i + 1 < n; i += 2) {
      const auto a = hn::LoadU(d, x + i), b = hn::LoadU(d, x + i + 1);
      const auto low = hn::Mul(a, hn::LoadU(d, cosines + i));
      const auto high = hn::Mul(b, hn::LoadU(d, cosines + i + 1));
      hn::StoreU(hn::MulAdd(b, hn::LoadU(d, sines + i), low), d, y + i);
      hn::StoreU(hn::MulAdd(a, hn::LoadU(d, sines + i + 1), high), d, y + i + 1);
    }
  }
}

/// Pairs (x[i], x[half + i]) by cosines[i] and sines[i].
template <class T>
void turn_halves(const T* x, std::size_t half, const T* HWY_RESTRICT cosines,
                 const T* HWY_RESTRICT sines, T* y) {
  const hn::ScalableTag<T> d;
  const std::size_t lanes = hn::Lanes(d);
  for (std::size_t i = 0; i < half; i += lanes) {
    const std::size_t count = half - i < lanes ? half - i : lanes;
    const bool whole = count == lanes;
    const auto load = [&](const T* from) HWY_ATTR {
      return whole ? hn::LoadU(d, from) : load_partial(d, from, count);
    };
    const auto a = load(x + i), b = load(x + half + i), c = load(cosines + i), s = load(sines + i);
    const auto low = hn::NegMulAdd(b, s, hn::Mul(a, c));
    const auto high = hn::MulAdd(a, s, hn::Mul(b, c));
    if (whole) {
      hn::StoreU(low, d, y + i);
      hn::StoreU(high, d, y + half + i);
    } else {
      store_partial(low, d, y + i, count);
      store_partial(high, d, y + half + i, count);
    }
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace kernels
QUERN_NAMESPACE_END
HWY_AFTER_NAMESPACE();

#endif  // QUERN_KERNELS_ROTARY_INL_HPP
