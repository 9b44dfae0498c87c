// SPDX-License-Identifier: Apache-2.0

/// \file
/// Rows woven into one, and one taken apart into several: pixel shuffle and its inverse.

#if defined(QUERN_KERNELS_INTERLEAVE_INL_HPP) == defined(HWY_TARGET_TOGGLE)
#ifdef QUERN_KERNELS_INTERLEAVE_INL_HPP
#undef QUERN_KERNELS_INTERLEAVE_INL_HPP
#else
#define QUERN_KERNELS_INTERLEAVE_INL_HPP
#endif

#include "quern/core/config.hpp"
#include "quern/kernels/resample-inl.hpp"

#include "hwy/highway.h"

#include <cstddef>

HWY_BEFORE_NAMESPACE();
QUERN_NAMESPACE_BEGIN
namespace kernels {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

namespace detail {

/// Number o of the result is number o / factor of source o % factor; factor divides the lanes.
template <int kFactor, class T>
struct InterleavedRows {
  const T* const* sources;
  std::size_t size;  ///< of a source

  template <class D>
  HWY_INLINE hn::Vec<D> part(D d, std::size_t o, std::size_t) const {
    return at<false>(d, o);
  }
  template <class D>
  HWY_INLINE hn::Vec<D> whole(D d, std::size_t o) const {
    return at<true>(d, o);
  }
  template <bool kWhole, class D>
  HWY_INLINE hn::Vec<D> at(D d, std::size_t o) const {
    const hn::RebindToSigned<D> di;
    using Int = LaneInt<T>;
    const std::size_t from = o / kFactor;
    const auto lanes = hn::Lanes(d);
    const Int skip = static_cast<Int>(o % kFactor);
    const auto place = hn::Add(hn::Iota(di, Int{0}), hn::Set(di, skip));
    const auto phase = hn::And(place, hn::Set(di, static_cast<Int>(kFactor - 1)));
    const auto picks = hn::IndicesFromVec(d, hn::ShiftRight < kFactor == 2 ? 1 : 2 > (place));
    auto out = hn::Zero(d);
    for (int j = 0; j < kFactor; ++j) {
      const bool inside = from + lanes <= size;
      const auto source = inside ? hn::LoadU(d, sources[j] + from)
                                 : load_inside(d, sources[j], static_cast<std::ptrdiff_t>(from),
                                               static_cast<std::ptrdiff_t>(size));
      const auto mine = hn::RebindMask(d, hn::Eq(phase, hn::Set(di, static_cast<Int>(j))));
      out = hn::IfThenElse(mine, hn::TableLookupLanes(source, picks), out);
    }
    return out;
  }
};

}  // namespace detail

/// out = in, n numbers, around the caches.
template <class T>
void stream_copy(const T* in, std::size_t n, T* out) {
  detail::write_row<T>(detail::CopiedRow<T>{in}, n, out, true);
  hwy::FlushStream();
}

/// out[i * factor + j] = sources[j][i] for i < size: numbers of several rows in turn.
template <class T>
void interleave_rows(const T* const* sources, std::ptrdiff_t factor, std::size_t size, T* out,
                     bool streams) {
  const hn::ScalableTag<T> d;
  const std::size_t n = size * static_cast<std::size_t>(factor);
  if (factor == 1) {
    detail::write_row<T>(detail::CopiedRow<T>{sources[0]}, n, out, streams);
  } else if (factor == 2 && hn::Lanes(d) >= 4) {
    detail::write_row<T>(detail::InterleavedRows<2, T>{sources, size}, n, out, streams);
  } else if (factor == 4 && hn::Lanes(d) >= 8) {
    detail::write_row<T>(detail::InterleavedRows<4, T>{sources, size}, n, out, streams);
  } else {
    for (std::size_t i = 0; i < size; ++i) {
      for (std::ptrdiff_t j = 0; j < factor; ++j) *out++ = sources[j][i];
    }
  }
  if (streams) hwy::FlushStream();
}

/// outs[j][i] = in[i * factor + j] for i < size: the other way.
template <class T>
void deinterleave_row(const T* in, std::ptrdiff_t factor, std::size_t size, T* const* outs) {
  const hn::ScalableTag<T> d;
  const std::size_t lanes = hn::Lanes(d);
  std::size_t i = 0;
  if (factor == 2) {
    for (; i + lanes <= size; i += lanes) {
      hn::Vec<decltype(d)> even, odd;
      hn::LoadInterleaved2(d, in + 2 * i, even, odd);
      hn::StoreU(even, d, outs[0] + i);
      hn::StoreU(odd, d, outs[1] + i);
    }
  }
  for (; i < size; ++i) {
    for (std::ptrdiff_t j = 0; j < factor; ++j) {
      outs[j][i] = in[static_cast<std::ptrdiff_t>(i) * factor + j];
    }
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace kernels
QUERN_NAMESPACE_END
HWY_AFTER_NAMESPACE();

#endif  // QUERN_KERNELS_INTERLEAVE_INL_HPP
