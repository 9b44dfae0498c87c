// SPDX-License-Identifier: Apache-2.0

/// \file
/// Resampling of planes along both axes: each row of the source is resampled along itself once,
/// into a ring of as many rows as the other axis has taps, and rows of the result are weighted sums
/// of the ring's. Backward is the same with the transposed tables.
///
/// Along a row, a vector of results needs single numbers from a short stretch of the source: one
/// vector of it, or two, permuted (ResampleTable::reach). That covers enlarging by any factor and
/// shrinking to one half, hence the gradient of enlarging to double; beyond, it is scalar.
///
/// Results that outgrow the caches are written around them (non-temporal stores): a store that goes
/// through the cache reads the line first, which for a result four times the source is most of the
/// traffic.
///
/// Numerics: one multiplication and taps - 1 multiply-adds a number and axis, in order of the taps.

#if defined(QUERN_KERNELS_RESAMPLE_INL_HPP) == defined(HWY_TARGET_TOGGLE)
#ifdef QUERN_KERNELS_RESAMPLE_INL_HPP
#undef QUERN_KERNELS_RESAMPLE_INL_HPP
#else
#define QUERN_KERNELS_RESAMPLE_INL_HPP
#endif

#include "quern/core/config.hpp"
#include "quern/kernels/partial-inl.hpp"
#include "quern/kernels/resample_types.hpp"

#include "hwy/cache_control.h"
#include "hwy/highway.h"

#include <cstddef>
#include <cstdint>

HWY_BEFORE_NAMESPACE();
QUERN_NAMESPACE_BEGIN
namespace kernels {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

/// Lanes of a vector, which tables are laid out for.
template <class T>
std::ptrdiff_t resample_lanes() {
  return static_cast<std::ptrdiff_t>(hn::Lanes(hn::ScalableTag<T>()));
}

namespace detail {

/// Elements before `to` is aligned for whole vectors, at most n.
template <class D, class T = hn::TFromD<D>>
HWY_INLINE std::size_t unaligned_head(D d, const T* to, std::size_t n) {
  const std::size_t bytes = hn::Lanes(d) * sizeof(T);
  const std::size_t over = reinterpret_cast<std::uintptr_t>(to) % bytes;
  const std::size_t head = over == 0 ? 0 : (bytes - over) / sizeof(T);
  return head < n ? head : n;
}

/// Weighted sums of rows. kTaps = 0: as many as `taps` says.
template <int kTaps, class T>
struct WeightedRows {
  const T* const* rows;
  const T* weights;
  std::ptrdiff_t taps;

  template <class D>
  HWY_INLINE hn::Vec<D> whole(D d, std::size_t i) const {
    auto sum = hn::Mul(hn::Set(d, weights[0]), hn::LoadU(d, rows[0] + i));
    const std::ptrdiff_t count = kTaps != 0 ? kTaps : taps;
    for (std::ptrdiff_t t = 1; t < count; ++t) {
      sum = hn::MulAdd(hn::Set(d, weights[t]), hn::LoadU(d, rows[t] + i), sum);
    }
    return sum;
  }
  template <class D>
  HWY_INLINE hn::Vec<D> part(D d, std::size_t i, std::size_t n) const {
    auto sum = hn::Mul(hn::Set(d, weights[0]), load_partial(d, rows[0] + i, n));
    const std::ptrdiff_t count = kTaps != 0 ? kTaps : taps;
    for (std::ptrdiff_t t = 1; t < count; ++t) {
      sum = hn::MulAdd(hn::Set(d, weights[t]), load_partial(d, rows[t] + i, n), sum);
    }
    return sum;
  }
};

/// out[i] = source(i) for i < n, around the caches if so wished.
template <class T, class Source>
HWY_INLINE void write_row(const Source& source, std::size_t n, T* out, bool streams) {
  const hn::ScalableTag<T> d;
  const std::size_t lanes = hn::Lanes(d);
  std::size_t i = 0;
  if (streams) {
    i = unaligned_head(d, out, n);
    if (i > 0) store_partial(source.part(d, 0, i), d, out, i);
    for (; i + lanes <= n; i += lanes) hn::Stream(source.whole(d, i), d, out + i);
  } else {
    for (; i + lanes <= n; i += lanes) hn::StoreU(source.whole(d, i), d, out + i);
  }
  if (i < n) store_partial(source.part(d, i, n - i), d, out + i, n - i);
}

template <class T>
HWY_INLINE void weigh_rows(const T* const* rows, const T* weights, std::ptrdiff_t taps,
                           std::size_t n, T* out, bool streams) {
  if (taps == 1) {
    write_row<T>(WeightedRows<1, T>{rows, weights, 1}, n, out, streams);
  } else if (taps == 2) {
    write_row<T>(WeightedRows<2, T>{rows, weights, 2}, n, out, streams);
  } else if (taps == 4) {
    write_row<T>(WeightedRows<4, T>{rows, weights, 4}, n, out, streams);
  } else {
    write_row<T>(WeightedRows<0, T>{rows, weights, taps}, n, out, streams);
  }
}

/// `lanes` numbers from in[at] on, zeros beyond `size`.
template <class D, class T>
HWY_INLINE hn::Vec<D> load_inside(D d, const T* in, std::ptrdiff_t at, std::ptrdiff_t size) {
  const std::ptrdiff_t left = size - at;
  if (left >= static_cast<std::ptrdiff_t>(hn::Lanes(d))) return hn::LoadU(d, in + at);
  if (left <= 0) return hn::Zero(d);
  return load_partial(d, in + at, static_cast<std::size_t>(left));
}

/// One vector of a row resampled along itself. kInside: no load reaches beyond the row.
template <int kReach, bool kInside, class D, class T>
HWY_INLINE hn::Vec<D> permuted_sum(D d, const ResampleTable<T>& table, const T* in,
                                   std::ptrdiff_t size, std::ptrdiff_t o) {
  const hn::RebindToSigned<D> di;
  using Int = LaneInt<T>;
  const auto lanes = static_cast<std::ptrdiff_t>(hn::Lanes(d));
  const auto lane = hn::LoadU(di, table.lane + o);
  const auto last = hn::Set(di, static_cast<Int>(lanes - 1));
  const auto picks = hn::IndicesFromVec(d, kReach == 2 ? hn::And(lane, last) : lane);
  const auto high = hn::RebindMask(d, hn::Gt(lane, last));
  std::ptrdiff_t at = table.base[o / lanes];
  auto sum = hn::Zero(d);
  for (std::ptrdiff_t t = 0; t < table.taps; ++t, at += table.tap_stride) {
    auto from = kInside ? hn::LoadU(d, in + at) : load_inside(d, in, at, size);
    from = hn::TableLookupLanes(from, picks);
    if constexpr (kReach == 2) {
      auto more = kInside ? hn::LoadU(d, in + at + lanes) : load_inside(d, in, at + lanes, size);
      from = hn::IfThenElse(high, hn::TableLookupLanes(more, picks), from);
    }
    const auto weight = hn::LoadU(d, table.weights + t * table.padded + o);
    sum = t == 0 ? hn::Mul(weight, from) : hn::MulAdd(weight, from, sum);
  }
  return sum;
}

template <int kReach, class T>
HWY_NOINLINE void permute_row(const ResampleTable<T>& table, const T* in, T* out) {
  const hn::ScalableTag<T> d;
  const auto lanes = static_cast<std::ptrdiff_t>(hn::Lanes(d));
  const std::ptrdiff_t reach = (table.taps - 1) * table.tap_stride + kReach * lanes;
  for (std::ptrdiff_t o = 0; o < table.out; o += lanes) {
    const bool inside = table.base[o / lanes] + reach <= table.in;
    const auto sum = inside ? permuted_sum<kReach, true>(d, table, in, table.in, o)
                            : permuted_sum<kReach, false>(d, table, in, table.in, o);
    if (o + lanes <= table.out) {
      hn::StoreU(sum, d, out + o);
    } else {
      store_partial(sum, d, out + o, static_cast<std::size_t>(table.out - o));
    }
  }
}

/// A row along itself, number by number.
template <class T>
HWY_NOINLINE void scatter_row(const ResampleTable<T>& table, const T* in, T* out) {
  for (std::ptrdiff_t o = 0; o < table.out; ++o) {
    const T* const from = in + table.first[o];
    T sum = table.weights[o] * from[0];
    for (std::ptrdiff_t t = 1; t < table.taps; ++t) {
      sum = sum + table.weights[t * table.padded + o] * from[t * table.tap_stride];
    }
    out[o] = sum;
  }
}

/// A row along itself, where every pixel has several channels side by side.
template <class T>
HWY_NOINLINE void channels_row(const ResampleTable<T>& table, std::ptrdiff_t channels, const T* in,
                               const T** rows, T* weights, T* out) {
  for (std::ptrdiff_t o = 0; o < table.out; ++o, out += channels) {
    std::ptrdiff_t count = 0;
    for (std::ptrdiff_t t = 0; t < table.taps; ++t) {
      const T weight = table.weights[t * table.padded + o];
      if (weight == T{0} && (count > 0 || t + 1 < table.taps)) continue;
      rows[count] = in + (table.first[o] + t) * channels;
      weights[count++] = weight;
    }
    weigh_rows(rows, weights, count, static_cast<std::size_t>(channels), out, false);
  }
}

template <class T>
HWY_INLINE void resample_row(const ResampleTable<T>& across, const ResamplePlane<T>& plane,
                             const T* in, T* out) {
  if (plane.channels > 1) {
    channels_row(across, plane.channels, in, plane.rows, plane.row_weights, out);
  } else if (across.reach == 1) {
    permute_row<1>(across, in, out);
  } else if (across.reach == 2) {
    permute_row<2>(across, in, out);
  } else {
    scatter_row(across, in, out);
  }
}

}  // namespace detail

namespace detail {

template <class T>
struct CopiedRow {
  const T* from;
  template <class D>
  HWY_INLINE hn::Vec<D> whole(D d, std::size_t i) const {
    return hn::LoadU(d, from + i);
  }
  template <class D>
  HWY_INLINE hn::Vec<D> part(D d, std::size_t i, std::size_t n) const {
    return load_partial(d, from + i, n);
  }
};

/// What result row o is a weighted sum of: `row(t)` is where source row t of its window lies. A row
/// that has no part must not bring in its NaN. Returns how many there are.
template <class T, class Row>
HWY_INLINE std::ptrdiff_t choose_rows(const ResampleTable<T>& down, const ResamplePlane<T>& plane,
                                      std::ptrdiff_t o, const Row& row) {
  std::ptrdiff_t count = 0;
  for (std::ptrdiff_t t = 0; t < down.taps; ++t) {
    const T weight = down.weights[t * down.padded + o];
    if (weight == T{0} && (count > 0 || t + 1 < down.taps)) continue;
    plane.rows[count] = row(t);
    plane.row_weights[count++] = weight;
  }
  return count;
}

/// Where rows become shorter: source rows are added up first, and each sum is resampled along
/// itself, so that fewer are.
template <class T>
HWY_INLINE void resample_shorter(const ResampleTable<T>& across, const ResampleTable<T>& down,
                                 const ResamplePlane<T>& plane) {
  T* const sum = plane.ring;
  T* const result = plane.ring + (plane.in_stride + 63) / 64 * 64;
  for (std::ptrdiff_t o = plane.row_begin; o < plane.row_end; ++o) {
    const std::ptrdiff_t count = choose_rows(down, plane, o, [&](std::ptrdiff_t t) {
      return plane.in + (down.first[o] + t) * plane.in_stride;
    });
    weigh_rows(plane.rows, plane.row_weights, count, static_cast<std::size_t>(plane.in_stride), sum,
               false);
    T* const out = plane.out + o * plane.out_stride;
    resample_row(across, plane, sum, plane.streams ? result : out);
    if (plane.streams) {
      write_row<T>(CopiedRow<T>{result}, static_cast<std::size_t>(plane.row_size), out, true);
    }
  }
  if (plane.streams) hwy::FlushStream();
}

}  // namespace detail

/// Whether a plane's rows are added up before they are resampled along themselves: its `ring` has
/// room for one of the source and one of the result then, each rounded up to 64.
template <class T>
bool resample_adds_first(const ResampleTable<T>& across, const ResampleTable<T>& down) {
  return across.in > across.out && !down.identity;
}

/// Rows of one plane; see the file comment. `plane.rows` and `row_weights` have room for the taps
/// of either axis.
template <class T>
void resample_plane(const ResampleTable<T>& across, const ResampleTable<T>& down,
                    const ResamplePlane<T>& plane) {
  if (resample_adds_first(across, down)) return detail::resample_shorter(across, down, plane);
  std::ptrdiff_t done = 0;
  for (std::ptrdiff_t o = plane.row_begin; o < plane.row_end; ++o) {
    const std::ptrdiff_t first = down.first[o];
    T* const out = plane.out + o * plane.out_stride;
    if (down.identity && !across.identity && !plane.streams) {
      detail::resample_row(across, plane, plane.in + o * plane.in_stride, out);
      continue;
    }
    if (!across.identity) {
      if (done < first) done = first;
      for (; done < first + down.taps; ++done) {
        detail::resample_row(across, plane, plane.in + done * plane.in_stride,
                             plane.ring + done % down.taps * plane.ring_stride);
      }
    }
    const std::ptrdiff_t count = detail::choose_rows(down, plane, o, [&](std::ptrdiff_t t) {
      return across.identity ? plane.in + (first + t) * plane.in_stride
                             : plane.ring + (first + t) % down.taps * plane.ring_stride;
    });
    detail::weigh_rows(plane.rows, plane.row_weights, count,
                       static_cast<std::size_t>(plane.row_size), out, plane.streams);
  }
  if (plane.streams) hwy::FlushStream();
}

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

#endif  // QUERN_KERNELS_RESAMPLE_INL_HPP
