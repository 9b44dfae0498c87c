// SPDX-License-Identifier: Apache-2.0

/// \file
/// The selective scan of Mamba (Gu and Dao, 2023, algorithm 2): lanes are channels, so that the
/// exponential of every state is one vector's, and time goes by tiles that stay in L1.
///
/// The bound is the exponential: 11 multiplications or multiply-adds a state and step, of which it
/// takes 7. With e^x = s (1 + p), s a power of two, h = s h + (s h) p + dt u b keeps p's own
/// precision: where a step forgets little, rounding e^x itself to one float would accumulate to
/// 2^-24 / |x|. Below 2^-126 (2^-1022) e^x is 0.
///
/// A channel's bits depend on that channel alone: not on its lane, its neighbours, or on how a
/// sequence is cut into calls.

#if defined(QUERN_KERNELS_SELECTIVE_SCAN_INL_HPP) == defined(HWY_TARGET_TOGGLE)
#ifdef QUERN_KERNELS_SELECTIVE_SCAN_INL_HPP
#undef QUERN_KERNELS_SELECTIVE_SCAN_INL_HPP
#else
#define QUERN_KERNELS_SELECTIVE_SCAN_INL_HPP
#endif

#include "quern/core/config.hpp"
#include "quern/kernels/lanes-inl.hpp"
#include "quern/kernels/math-inl.hpp"

#include "quern/kernels/selective_scan_types.hpp"

#include "hwy/cache_control.h"
#include "hwy/highway.h"

#include <cstddef>

HWY_BEFORE_NAMESPACE();
QUERN_NAMESPACE_BEGIN
namespace kernels {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

namespace detail {

/// States of one pass over a tile: as many as AVX2 has registers for.
inline constexpr int kScanStates = 4;

/// 2^x = power (1 + rest).
template <class V>
struct Decay {
  V power, rest;
};

template <class D, class V>
HWY_INLINE V decay_polynomial(D d, V r, float /*format*/) {
  V p = hn::MulAdd(r, hn::Set(d, 0x1.41fafep-13f), hn::Set(d, 0x1.5f4006p-10f));
  p = hn::MulAdd(r, p, hn::Set(d, 0x1.3b2d52p-7f));
  p = hn::MulAdd(r, p, hn::Set(d, 0x1.c6aee6p-5f));
  p = hn::MulAdd(r, p, hn::Set(d, 0x1.ebfbdcp-3f));
  return hn::Mul(r, hn::MulAdd(r, p, hn::Set(d, FloatFormat<float>::kLn2)));
}
template <class D, class V>
HWY_INLINE V decay_polynomial(D d, V r, double format) {
  const V r2 = hn::Mul(r, r);
  const V p =
      hn::MulAdd(r, exp2_polynomial(d, r, r2, format), hn::Set(d, FloatFormat<double>::kLn2));
  return hn::Mul(r, p);
}

/// For x <= 0; NaN stays in `rest`.
template <class D, class V>
HWY_INLINE Decay<V> decay(D d, V x) {
  using T = hn::TFromD<D>;
  using F = FloatFormat<T>;
  const hn::RebindToUnsigned<D> du;
  // The bias of the exponent is part of the rounding constant: a shift makes the power.
  const V round = hn::Set(d, F::kRound + static_cast<T>(F::kBias));
  const V inside = at_least(d, x, -static_cast<T>(F::kBias));
  const V shifted = opaque(hn::Add(inside, round));
  const V r = hn::Sub(inside, opaque(hn::Sub(shifted, round)));
  const V power = hn::BitCast(d, hn::ShiftLeft<F::kMantissa>(hn::BitCast(du, shifted)));
  return {power, decay_polynomial(d, r, T{})};
}

/// One operand of a state, b or c: a number for all lanes that changes with time, or one for each
/// lane that does not.
template <bool kFixed, class D, class V, class T>
HWY_INLINE V scan_operand(D d, V fixed, const T* row, std::ptrdiff_t n) {
  if constexpr (kFixed) {
    static_cast<void>(d), static_cast<void>(row), static_cast<void>(n);
    return fixed;
  } else {
    static_cast<void>(fixed);
    return hn::Set(d, row[n]);
  }
}

/// A tile of one vector of channels, all of it in L1: rows of one vector a step.
template <class T>
struct ScanTile {
  std::ptrdiff_t steps;
  std::size_t lanes;  ///< of the vector that count
  const T* dt;        ///< times log2(e)
  const T* dtu;
  T* y;
};

/// What there is to say against dt and y, by lanes.
template <class D>
struct ScanCheck {
  hn::Vec<D> least;  ///< dt
  LargestBits<D> y;

  explicit HWY_INLINE ScanCheck(D d) : least(hn::Set(d, hn::TFromD<D>{1})), y(d) {}
  HWY_INLINE int result(D d) const {
    using T = hn::TFromD<D>;
    HWY_ALIGN T steps[hn::MaxLanes(d)];
    hn::Store(least, d, steps);
    int found = y.finite(d) ? scan_fine : scan_not_finite;
    for (std::size_t k = 0; k < hn::Lanes(d); ++k) {
      if (!(steps[k] > T{0})) found |= scan_bad_step;
    }
    return found;
  }
};

template <bool kFixed, int kIndex, int kStates, class D, class V, class T>
HWY_INLINE void scan_step(D d, const V (&a)[kStates], const V (&b)[kStates], const V (&c)[kStates],
                          V dt, V dtu, const T* HWY_RESTRICT b_row, const T* HWY_RESTRICT c_row,
                          V (&h)[kStates], V& sum) {
  const Decay<V> e = decay(d, hn::Mul(dt, a[kIndex]));
  const V scaled = hn::Mul(e.power, h[kIndex]);
  const V fed = hn::MulAdd(dtu, scan_operand<kFixed>(d, b[kIndex], b_row, kIndex), scaled);
  h[kIndex] = hn::MulAdd(scaled, e.rest, fed);
  sum = hn::MulAdd(h[kIndex], scan_operand<kFixed>(d, c[kIndex], c_row, kIndex), sum);
  if constexpr (kIndex + 1 < kStates) {
    scan_step<kFixed, kIndex + 1>(d, a, b, c, dt, dtu, b_row, c_row, h, sum);
  }
}

template <int kIndex, int kStates, class D, class V, class R>
HWY_INLINE void load_states(D d, const R& rows, std::ptrdiff_t channel, std::size_t count,
                            V (&to)[kStates]) {
  to[kIndex] = load_lanes(d, rows.row(kIndex) + channel, count);
  if constexpr (kIndex + 1 < kStates) load_states<kIndex + 1>(d, rows, channel, count, to);
}
template <int kIndex, int kStates, class D, class V, class R>
HWY_INLINE void store_states(D d, const R& rows, std::ptrdiff_t channel, std::size_t count,
                             const V (&from)[kStates]) {
  store_lanes(from[kIndex], d, rows.row(kIndex) + channel, count);
  if constexpr (kIndex + 1 < kStates) store_states<kIndex + 1>(d, rows, channel, count, from);
}

/// Rows from row n on.
template <class T>
HWY_INLINE ScanRows<T> from_row(const ScanRows<T>& rows, std::ptrdiff_t n) {
  return {rows.row(n), rows.stride};
}

/// States n..n + kStates of one vector of channels through a tile that begins at step `at`.
template <bool kFixed, int kStates, class D, class T>
HWY_INLINE void scan_states(D d, const SelectiveScanTask<T>& task, const ScanTile<T>& tile,
                            std::ptrdiff_t at, std::ptrdiff_t channel, std::ptrdiff_t n) {
  using V = hn::Vec<D>;
  const std::ptrdiff_t lanes = static_cast<std::ptrdiff_t>(hn::Lanes(d));
  V h[kStates], a[kStates], b[kStates], c[kStates];
  load_states<0>(d, from_row(task.h, n), channel, tile.lanes, h);
  load_states<0>(d, from_row(task.a, n), channel, tile.lanes, a);
  if constexpr (kFixed) {
    load_states<0>(d, from_row(task.b, n), channel, tile.lanes, b);
    load_states<0>(d, from_row(task.c, n), channel, tile.lanes, c);
  }
  const T* b_row = kFixed ? nullptr : task.b.row(at) + n;
  const T* c_row = kFixed ? nullptr : task.c.row(at) + n;
  const T* dt = tile.dt;
  const T* dtu = tile.dtu;
  T* y = tile.y;
  for (std::ptrdiff_t t = 0; t < tile.steps; ++t, dt += lanes, dtu += lanes, y += lanes) {
    V sum = hn::Load(d, y);
    scan_step<kFixed, 0>(d, a, b, c, hn::Load(d, dt), hn::Load(d, dtu), b_row, c_row, h, sum);
    hn::Store(sum, d, y);
    if constexpr (!kFixed) {
      b_row += task.b.stride;
      c_row += task.c.stride;
    }
  }
  store_states<0>(d, from_row(task.h, n), channel, tile.lanes, h);
}

template <bool kFixed, class D, class T>
HWY_INLINE void scan_all_states(D d, const SelectiveScanTask<T>& task, const ScanTile<T>& tile,
                                std::ptrdiff_t at, std::ptrdiff_t channel) {
  std::ptrdiff_t n = 0;
  for (; n + kScanStates <= task.states; n += kScanStates) {
    scan_states<kFixed, kScanStates>(d, task, tile, at, channel, n);
  }
  for (; n < task.states; ++n) {
    scan_states<kFixed, 1>(d, task, tile, at, channel, n);
  }
}

/// dt = softplus(delta + bias) or delta itself.
template <class D, class V, class T>
HWY_INLINE V scan_dt(D d, const SelectiveScanTask<T>& task, V raw) {
  return task.softplus ? HWY_NAMESPACE::softplus(d, raw) : raw;
}

/// dt, dt u and zeros for y.
template <class D, class T>
HWY_INLINE void begin_tile(D d, const SelectiveScanTask<T>& task, std::ptrdiff_t at,
                           std::ptrdiff_t channel, std::size_t count, std::ptrdiff_t steps,
                           T* HWY_RESTRICT dt, T* HWY_RESTRICT dtu, T* HWY_RESTRICT y,
                           ScanCheck<D>& check) {
  using V = hn::Vec<D>;
  const std::ptrdiff_t lanes = static_cast<std::ptrdiff_t>(hn::Lanes(d));
  const V bias = task.bias != nullptr ? load_lanes(d, task.bias + channel, count) : hn::Zero(d);
  const V one = hn::Set(d, T{1});
  const auto counted = hn::FirstN(d, count);
  for (std::ptrdiff_t t = 0; t < steps; ++t) {
    const V raw = hn::Add(load_lanes(d, task.delta.row(at + t) + channel, count), bias);
    const V v = scan_dt(d, task, raw);
    if (!task.softplus) {
      check.least = hn::Min(check.least, hn::IfThenElse(counted, v, one));
    }
    hn::Store(hn::Mul(v, hn::Set(d, FloatFormat<T>::kLog2E)), d, dt + t * lanes);
    hn::Store(hn::Mul(v, load_lanes(d, task.u.row(at + t) + channel, count)), d, dtu + t * lanes);
    hn::Store(hn::Zero(d), d, y + t * lanes);
  }
}

/// y = (y + skip u) silu(z) into memory.
template <class D, class T>
HWY_INLINE void end_tile(D d, const SelectiveScanTask<T>& task, std::ptrdiff_t at,
                         std::ptrdiff_t channel, std::size_t count, std::ptrdiff_t steps,
                         const T* HWY_RESTRICT y, ScanCheck<D>& check) {
  using V = hn::Vec<D>;
  const std::ptrdiff_t lanes = static_cast<std::ptrdiff_t>(hn::Lanes(d));
  const V skip = task.skip != nullptr ? load_lanes(d, task.skip + channel, count) : hn::Zero(d);
  for (std::ptrdiff_t t = 0; t < steps; ++t) {
    V v = hn::Load(d, y + t * lanes);
    if (task.skip != nullptr) {
      v = hn::MulAdd(skip, load_lanes(d, task.u.row(at + t) + channel, count), v);
    }
    if (task.z.data != nullptr) {
      const V z = load_lanes(d, task.z.row(at + t) + channel, count);
      v = hn::Mul(v, hn::Mul(z, sigmoid(d, z)));
    }
    check.y.see(d, v);
    store_lanes(v, d, task.y.row(at + t) + channel, count);
  }
}

template <class D, class T>
HWY_INLINE void keep_states(D d, const SelectiveScanTask<T>& task, std::ptrdiff_t at,
                            std::ptrdiff_t channel, std::size_t count) {
  T* const kept = task.kept.data + at / selective_scan_tile * task.kept_tile + channel;
  for (std::ptrdiff_t n = 0; n < task.states; ++n) {
    store_lanes(load_lanes(d, task.h.row(n) + channel, count), d, kept + n * task.kept.stride,
                count);
  }
}

/// Asks for what the next tile of these channels reads: rows lie far apart, and no hardware
/// prefetcher follows them (measured: 8.4 for 5 ns a step and channel).
template <class T>
HWY_INLINE void prefetch_tile(const SelectiveScanTask<T>& task, std::ptrdiff_t at,
                              std::ptrdiff_t channel) {
  const std::ptrdiff_t left = task.steps - at;
  const std::ptrdiff_t end = at + (left < selective_scan_tile ? left : selective_scan_tile);
  for (std::ptrdiff_t t = at; t < end; ++t) {
    hwy::Prefetch(task.delta.row(t) + channel);
    hwy::Prefetch(task.u.row(t) + channel);
    if (task.z.data != nullptr) hwy::Prefetch(task.z.row(t) + channel);
    if (task.y.data != nullptr) hwy::Prefetch(task.y.row(t) + channel);
  }
}

template <class D, class T>
HWY_INLINE void scan_tile(D d, const SelectiveScanTask<T>& task, const ScanTile<T>& tile,
                          std::ptrdiff_t at, std::ptrdiff_t channel) {
  if (task.fixed) {
    scan_all_states<true>(d, task, tile, at, channel);
  } else {
    scan_all_states<false>(d, task, tile, at, channel);
  }
}

}  // namespace detail

/// Runs the scan; what it found is a ScanFinding. y may be null: then only the states are wanted.
///
/// A vector of channels goes through a tile at a time; of a few steps only, several vectors go side
/// by side, since one alone would wait for its own exponentials.
template <class T>
int selective_scan(const SelectiveScanTask<T>& task) {
  const hn::ScalableTag<T> d;
  constexpr std::size_t kSize = static_cast<std::size_t>(selective_scan_tile) * hn::MaxLanes(d);
  HWY_ALIGN T dt[kSize];
  HWY_ALIGN T dtu[kSize];
  HWY_ALIGN T y[kSize];
  const std::ptrdiff_t lanes = static_cast<std::ptrdiff_t>(hn::Lanes(d));
  detail::ScanCheck<hn::ScalableTag<T>> check(d);
  for (std::ptrdiff_t at = 0; at < task.steps; at += selective_scan_tile) {
    const std::ptrdiff_t left = task.steps - at;
    const std::ptrdiff_t steps = left < selective_scan_tile ? left : selective_scan_tile;
    const std::ptrdiff_t block = selective_scan_tile / steps * lanes, size = steps * lanes;
    for (std::ptrdiff_t first = 0; first < task.channels; first += block) {
      const std::ptrdiff_t rest = task.channels - first,
                           end = first + (rest < block ? rest : block);
      std::ptrdiff_t place = 0;
      for (std::ptrdiff_t channel = first; channel < end; channel += lanes, place += size) {
        const std::size_t count = detail::lanes_left(d, end - channel);
        if (task.kept.data != nullptr) detail::keep_states(d, task, at, channel, count);
        detail::begin_tile(d, task, at, channel, count, steps, dt + place, dtu + place, y + place,
                           check);
        detail::prefetch_tile(task, at + selective_scan_tile, channel);
      }
      place = 0;
      for (std::ptrdiff_t channel = first; channel < end; channel += lanes, place += size) {
        const detail::ScanTile<T> tile{steps, detail::lanes_left(d, end - channel), dt + place,
                                       dtu + place, y + place};
        detail::scan_tile(d, task, tile, at, channel);
      }
      if (task.y.data == nullptr) continue;
      place = 0;
      for (std::ptrdiff_t channel = first; channel < end; channel += lanes, place += size) {
        detail::end_tile(d, task, at, channel, detail::lanes_left(d, end - channel), steps,
                         y + place, check);
      }
    }
  }
  return check.result(d);
}

}  // namespace HWY_NAMESPACE
}  // namespace kernels
QUERN_NAMESPACE_END
HWY_AFTER_NAMESPACE();

#endif  // QUERN_KERNELS_SELECTIVE_SCAN_INL_HPP
