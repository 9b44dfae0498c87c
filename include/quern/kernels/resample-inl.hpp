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

/// put(vector, o, how many of its lanes count) for each vector of a row resampled along itself.
template <int kReach, class T, class Put>
HWY_INLINE void for_permuted(const ResampleTable<T>& table, const T* in, const Put& put) {
  const hn::ScalableTag<T> d;
  const auto lanes = static_cast<std::ptrdiff_t>(hn::Lanes(d));
  const std::ptrdiff_t reach = (table.taps - 1) * table.tap_stride + kReach * lanes;
  for (std::ptrdiff_t o = 0; o < table.out; o += lanes) {
    const bool inside = table.base[o / lanes] + reach <= table.in;
    const std::ptrdiff_t left = table.out - o;
    put(inside ? permuted_sum<kReach, true>(d, table, in, table.in, o)
               : permuted_sum<kReach, false>(d, table, in, table.in, o),
        o, left < lanes ? left : lanes);
  }
}

/// The first n lanes to memory; all of them around the caches if so wished (to is aligned then).
template <bool kStreams, class D, class V, class T>
HWY_INLINE void put_lanes(D d, V v, T* to, std::ptrdiff_t n) {
  if (n < static_cast<std::ptrdiff_t>(hn::Lanes(d))) {
    store_partial(v, d, to, static_cast<std::size_t>(n));
  } else if (kStreams) {
    hn::Stream(v, d, to);
  } else {
    hn::StoreU(v, d, to);
  }
}

template <int kReach, class T>
HWY_NOINLINE void permute_row(const ResampleTable<T>& table, const T* in, T* out) {
  const hn::ScalableTag<T> d;
  for_permuted<kReach>(table, in, [&](auto sum, std::ptrdiff_t o, std::ptrdiff_t n) {
    put_lanes<false>(d, sum, out + o, n);
  });
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

namespace detail {

/// A row along itself into the cache, and at once around it: stores wait less where there is
/// something to compute between them. `out` is aligned for whole vectors.
template <int kReach, class T>
HWY_NOINLINE void permute_row_twice(const ResampleTable<T>& table, const T* in, T* cached, T* out) {
  const hn::ScalableTag<T> d;
  for_permuted<kReach>(table, in, [&](auto sum, std::ptrdiff_t o, std::ptrdiff_t n) {
    put_lanes<false>(d, sum, cached + o, n);
    put_lanes<true>(d, sum, out + o, n);
  });
}

inline constexpr int most_rows_at_once = 4;

/// A row along itself into the cache, and at once as the last of kTaps rows in the weighted sums of
/// `count` rows of the result, which are written around the cache.
template <int kReach, int kTaps, class T>
HWY_NOINLINE void permute_row_and_weigh(const ResampleTable<T>& table, const T* in, T* cached,
                                        const T* const* before, const T (*weights)[kTaps],
                                        int count, T* const* outs) {
  const hn::ScalableTag<T> d;
  for_permuted<kReach>(table, in, [&](auto last, std::ptrdiff_t o, std::ptrdiff_t n) {
    put_lanes<false>(d, last, cached + o, n);
    for (int r = 0; r < count; ++r) {
      const T* const w = weights[r];
      auto sum = hn::Mul(hn::Set(d, w[0]), hn::LoadU(d, before[0] + o));
      for (int t = 1; t + 1 < kTaps; ++t) {
        sum = hn::MulAdd(hn::Set(d, w[t]), hn::LoadU(d, before[t] + o), sum);
      }
      put_lanes<true>(d, hn::MulAdd(hn::Set(d, w[kTaps - 1]), last, sum), outs[r] + o, n);
    }
  });
}

/// Rows o, o + 1, … of the result that wait for one more row of the source, the same for all, so
/// that stores and sums overlap. Returns how many were written; 0 where this does not apply.
template <int kTaps, class T>
HWY_INLINE int weigh_rows_at_once(const ResampleTable<T>& across, const ResampleTable<T>& down,
                                  const ResamplePlane<T>& plane, std::ptrdiff_t o) {
  const std::ptrdiff_t first = down.first[o], newest = first + kTaps - 1;
  T weights[most_rows_at_once][kTaps];
  T* outs[most_rows_at_once];
  int count = 0;
  for (; count < most_rows_at_once && o + count < plane.row_end; ++count) {
    if (down.first[o + count] != first) break;
    for (int t = 0; t < kTaps; ++t) {
      weights[count][t] = down.weights[t * down.padded + o + count];
      if (weights[count][t] == T{0}) return 0;
    }
    outs[count] = plane.out + (o + count) * plane.out_stride;
  }
  const T* before[kTaps];
  for (int t = 0; t < kTaps; ++t) {
    before[t] = plane.ring + (first + t) % kTaps * plane.ring_stride;
  }
  const T* const in = plane.in + newest * plane.in_stride;
  T* const cached = plane.ring + newest % kTaps * plane.ring_stride;
  if (across.reach == 1) {
    permute_row_and_weigh<1, kTaps>(across, in, cached, before, weights, count, outs);
  } else {
    permute_row_and_weigh<2, kTaps>(across, in, cached, before, weights, count, outs);
  }
  return count;
}

/// Pixels of several channels, each a copy of one of the source's.
template <class T>
HWY_NOINLINE void copy_pixels(const ResampleTable<T>& across, std::ptrdiff_t channels, const T* in,
                              T* out) {
  const hn::ScalableTag<T> d;
  const auto lanes = static_cast<std::ptrdiff_t>(hn::Lanes(d));
  for (std::ptrdiff_t o = 0; o < across.out; ++o, out += channels) {
    const T* const from = in + across.first[o] * channels;
    for (std::ptrdiff_t c = 0; c < channels; c += lanes) {
      hn::Stream(hn::LoadU(d, from + c), d, out + c);
    }
  }
}

/// Whether rows of the result may be written by whole vectors around the caches.
template <class T>
HWY_INLINE bool streams_whole_rows(const ResampleTable<T>& across, const ResamplePlane<T>& plane) {
  const std::size_t bytes = static_cast<std::size_t>(resample_lanes<T>()) * sizeof(T);
  return plane.streams && !across.identity &&
         reinterpret_cast<std::uintptr_t>(plane.out) % bytes == 0 &&
         plane.out_stride % resample_lanes<T>() == 0;
}

template <class T>
HWY_INLINE bool only_copies(const ResampleTable<T>& table) {
  if (table.taps != 1) return false;
  for (std::ptrdiff_t o = 0; o < table.out; ++o) {
    if (table.weights[o] != T{1}) return false;
  }
  return true;
}

/// Rows of the result that are copies of rows resampled along themselves (nearest), written around
/// the caches. False, and nothing done, where this does not apply.
template <class T>
HWY_INLINE bool copy_rows(const ResampleTable<T>& across, const ResampleTable<T>& down,
                          const ResamplePlane<T>& plane) {
  if (!streams_whole_rows(across, plane) || !only_copies(down)) return false;
  const bool pixels = plane.channels > 1;
  if (!pixels && across.reach == 0) return false;
  if (pixels && (plane.channels % resample_lanes<T>() != 0 || !only_copies(across))) return false;
  std::ptrdiff_t cached = -1;
  for (std::ptrdiff_t o = plane.row_begin; o < plane.row_end; ++o) {
    const std::ptrdiff_t row = down.first[o];
    const T* const in = plane.in + row * plane.in_stride;
    T* const out = plane.out + o * plane.out_stride;
    if (pixels) {
      copy_pixels(across, plane.channels, in, out);
    } else if (row == cached) {
      write_row<T>(CopiedRow<T>{plane.ring}, static_cast<std::size_t>(plane.row_size), out, true);
    } else if (across.reach == 1) {
      permute_row_twice<1>(across, in, plane.ring, out);
    } else {
      permute_row_twice<2>(across, in, plane.ring, out);
    }
    cached = row;
  }
  hwy::FlushStream();
  return true;
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
  if (detail::copy_rows(across, down, plane)) return;
  const bool at_once = plane.channels == 1 && across.reach != 0 && !down.identity &&
                       (down.taps == 2 || down.taps == 4) &&
                       detail::streams_whole_rows(across, plane);
  std::ptrdiff_t done = 0;
  for (std::ptrdiff_t o = plane.row_begin; o < plane.row_end; ++o) {
    const std::ptrdiff_t first = down.first[o];
    if (at_once && done == first + down.taps - 1) {
      const int rows = down.taps == 2 ? detail::weigh_rows_at_once<2>(across, down, plane, o)
                                      : detail::weigh_rows_at_once<4>(across, down, plane, o);
      if (rows > 0) {
        ++done;
        o += rows - 1;
        continue;
      }
    }
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

}  // namespace HWY_NAMESPACE
}  // namespace kernels
QUERN_NAMESPACE_END
HWY_AFTER_NAMESPACE();

#endif  // QUERN_KERNELS_RESAMPLE_INL_HPP
