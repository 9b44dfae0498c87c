// SPDX-License-Identifier: Apache-2.0

/// \file
/// Vectors of adjacent channels of which the last may count only in part, and a look at whether
/// all results are finite: what the kernels over channels of sequences share.

#if defined(QUERN_KERNELS_LANES_INL_HPP) == defined(HWY_TARGET_TOGGLE)
#ifdef QUERN_KERNELS_LANES_INL_HPP
#undef QUERN_KERNELS_LANES_INL_HPP
#else
#define QUERN_KERNELS_LANES_INL_HPP
#endif

#include "quern/core/config.hpp"
#include "quern/kernels/math-inl.hpp"
#include "quern/kernels/partial-inl.hpp"

#include "hwy/highway.h"

#include <cstddef>

HWY_BEFORE_NAMESPACE();
QUERN_NAMESPACE_BEGIN
namespace kernels {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

namespace detail {

/// Lanes that count of `left` channels.
template <class D>
HWY_INLINE std::size_t lanes_left(D d, std::ptrdiff_t left) {
  const std::size_t lanes = hn::Lanes(d);
  return static_cast<std::size_t>(left) < lanes ? static_cast<std::size_t>(left) : lanes;
}

/// All lanes, or the first `count` and zeros.
template <class D, class T = hn::TFromD<D>>
HWY_INLINE hn::Vec<D> load_lanes(D d, const T* from, std::size_t count) {
  return count == hn::Lanes(d) ? hn::LoadU(d, from) : load_partial(d, from, count);
}
template <class D, class V, class T = hn::TFromD<D>>
HWY_INLINE void store_lanes(V v, D d, T* to, std::size_t count) {
  if (count == hn::Lanes(d)) {
    hn::StoreU(v, d, to);
  } else {
    store_partial(v, d, to, count);
  }
}
template <class D, class V, class T = hn::TFromD<D>>
HWY_INLINE void add_lanes(V v, D d, T* to, std::size_t count) {
  store_lanes(hn::Add(load_lanes(d, to, count), v), d, to, count);
}

/// Bits of the largest magnitude seen: NaN and infinity are the largest of all.
template <class D>
struct LargestBits {
  hn::Vec<hn::RebindToSigned<D>> largest;

  explicit HWY_INLINE LargestBits(D /*d*/) : largest(hn::Zero(hn::RebindToSigned<D>())) {}
  template <class V>
  HWY_INLINE void see(D d, V v) {
    static_cast<void>(d);
    largest = hn::Max(largest, hn::BitCast(hn::RebindToSigned<D>(), hn::Abs(v)));
  }
  HWY_INLINE bool finite(D d) const {
    const hn::RebindToSigned<D> di;
    using Int = hn::TFromD<decltype(di)>;
    HWY_ALIGN Int bits[hn::MaxLanes(d)];
    hn::Store(largest, di, bits);
    bool fine = true;
    for (std::size_t k = 0; k < hn::Lanes(d); ++k) {
      fine = fine && bits[k] < static_cast<Int>(FloatFormat<hn::TFromD<D>>::kInfinity);
    }
    return fine;
  }
};

}  // namespace detail

}  // namespace HWY_NAMESPACE
}  // namespace kernels
QUERN_NAMESPACE_END
HWY_AFTER_NAMESPACE();

#endif  // QUERN_KERNELS_LANES_INL_HPP
