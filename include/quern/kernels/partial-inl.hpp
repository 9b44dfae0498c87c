// SPDX-License-Identifier: Apache-2.0

/// \file
/// Loads and stores of fewer lanes than a vector has, which touch nothing outside of them.

#if defined(QUERN_KERNELS_PARTIAL_INL_HPP) == defined(HWY_TARGET_TOGGLE)
#ifdef QUERN_KERNELS_PARTIAL_INL_HPP
#undef QUERN_KERNELS_PARTIAL_INL_HPP
#else
#define QUERN_KERNELS_PARTIAL_INL_HPP
#endif

#include "quern/core/config.hpp"

#include "hwy/highway.h"

#include <cstddef>

HWY_BEFORE_NAMESPACE();
QUERN_NAMESPACE_BEGIN
namespace kernels {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

/// The first \p count < Lanes(d) lanes from \p from, and zeros. Lanes of 4 or 8 bytes.
template <class D, class T = hn::TFromD<D>>
HWY_INLINE hn::Vec<D> load_partial(D d, const T* from, std::size_t count) {
#if HWY_CAP_GE256
  static_assert(sizeof(T) >= 4, "smaller lanes have no load that never faults");
  return hn::MaskedLoad(hn::FirstN(d, count), d, from);
#else
  // A masked load may read all lanes here.
  HWY_ALIGN T lanes[hn::MaxLanes(D())] = {};
  for (std::size_t i = 0; i < count; ++i) lanes[i] = from[i];
  return hn::Load(d, lanes);
#endif
}

/// The first \p count < Lanes(d) lanes of \p v to \p to.
template <class D, class V, class T = hn::TFromD<D>>
HWY_INLINE void store_partial(V v, D d, T* to, std::size_t count) {
#if HWY_CAP_GE256
  static_assert(sizeof(T) >= 4, "smaller lanes have no store that never faults");
  hn::BlendedStore(v, hn::FirstN(d, count), d, to);
#else
  HWY_ALIGN T lanes[hn::MaxLanes(D())];
  hn::Store(v, d, lanes);
  for (std::size_t i = 0; i < count; ++i) to[i] = lanes[i];
#endif
}

}  // namespace HWY_NAMESPACE
}  // namespace kernels
QUERN_NAMESPACE_END
HWY_AFTER_NAMESPACE();

#endif  // QUERN_KERNELS_PARTIAL_INL_HPP
