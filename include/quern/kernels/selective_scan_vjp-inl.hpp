// SPDX-License-Identifier: Apache-2.0

/// \file
/// The way back through the selective scan. Tiles come in reverse; each begins at a state that the
/// way forward kept, so that its states are computed once more while they are in the cache.
///
/// With g the gradient of a state (g_t = dy c + e^(x) g_(t+1), x = dt a): dc = dy h, db = g dt u,
/// d(dt u) = g . b, dx = e^x g h_(t-1), da = dx dt, d(dt) = dx . a. Gradients of b and c sum over
/// channels: lanes are added up at the end of a tile, in a fixed order.

#if defined(QUERN_KERNELS_SELECTIVE_SCAN_VJP_INL_HPP) == defined(HWY_TARGET_TOGGLE)
#ifdef QUERN_KERNELS_SELECTIVE_SCAN_VJP_INL_HPP
#undef QUERN_KERNELS_SELECTIVE_SCAN_VJP_INL_HPP
#else
#define QUERN_KERNELS_SELECTIVE_SCAN_VJP_INL_HPP
#endif

#include "quern/core/config.hpp"
#include "quern/kernels/selective_scan-inl.hpp"
#include "quern/kernels/selective_scan_types.hpp"

#include "hwy/highway.h"

#include <cstddef>

HWY_BEFORE_NAMESPACE();
QUERN_NAMESPACE_BEGIN
namespace kernels {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

namespace detail {

/// One vector of channels of a tile: rows of a vector for each step.
template <class T>
struct ScanColumns {
  T* dt;  ///< times log2(e)
  T* dtu;
  T* dy;  ///< of h . c, past the gate
  T* ddt;
  T* ddtu;
  T* y;  ///< h . c
};
inline constexpr std::ptrdiff_t kScanColumns = 6;

/// What a pass over some states keeps of its way forward, and sums of lanes for the way back.
template <class T>
struct ScanHistory {
  T* h;      ///< steps + 1 times kScanStates vectors: the first before the tile
  T* decay;  ///< e^x - 1
  T* db;
  T* dc;
};

template <class T>
HWY_INLINE ScanColumns<T> scan_columns(T* scratch, std::ptrdiff_t block, std::ptrdiff_t lanes) {
  const std::ptrdiff_t size = selective_scan_tile * lanes;
  T* const at = scratch + block * kScanColumns * size;
  return {at, at + size, at + 2 * size, at + 3 * size, at + 4 * size, at + 5 * size};
}

template <class T>
HWY_INLINE ScanHistory<T> scan_history(T* scratch, std::ptrdiff_t lanes) {
  const std::ptrdiff_t size = selective_scan_tile * kScanStates * lanes;
  const std::ptrdiff_t one = kScanStates * lanes;
  return {scratch, scratch + size + one, scratch + 2 * size + one, scratch + 3 * size + one};
}

/// dy past the gate, dt, dt u and zeros for the sums.
template <class D, class T>
HWY_INLINE void begin_tile_back(D d, const SelectiveScanVjpTask<T>& task, std::ptrdiff_t at,
                                std::ptrdiff_t channel, std::size_t count, std::ptrdiff_t steps,
                                const ScanColumns<T>& to) {
  using V = hn::Vec<D>;
  const std::ptrdiff_t lanes = static_cast<std::ptrdiff_t>(hn::Lanes(d));
  const SelectiveScanTask<T>& scan = task.scan;
  ScanCheck<D> unused(d);
  begin_tile(d, scan, at, channel, count, steps, to.dt, to.dtu, to.y, unused);
  for (std::ptrdiff_t t = 0; t < steps; ++t) {
    V dy = load_lanes(d, task.dy.row(at + t) + channel, count);
    if (scan.z.data != nullptr) {
      const V z = load_lanes(d, scan.z.row(at + t) + channel, count);
      dy = hn::Mul(dy, hn::Mul(z, sigmoid(d, z)));
    }
    hn::Store(dy, d, to.dy + t * lanes);
    hn::Store(hn::Zero(d), d, to.ddt + t * lanes);
    hn::Store(hn::Zero(d), d, to.ddtu + t * lanes);
  }
}

template <bool kFixed, int kIndex, int kStates, class D, class V, class T>
HWY_INLINE void remember_step(D d, const V (&a)[kStates], const V (&b)[kStates],
                              const V (&c)[kStates], V dt, V dtu, const T* HWY_RESTRICT b_row,
                              const T* HWY_RESTRICT c_row, V (&h)[kStates], V& sum,
                              T* HWY_RESTRICT kept_h, T* HWY_RESTRICT kept_decay) {
  const std::ptrdiff_t place = kIndex * static_cast<std::ptrdiff_t>(hn::Lanes(d));
  const Decay<V> e = decay(d, hn::Mul(dt, a[kIndex]));
  const V scaled = hn::Mul(e.power, h[kIndex]);
  const V fed = hn::MulAdd(dtu, scan_operand<kFixed>(d, b[kIndex], b_row, kIndex), scaled);
  h[kIndex] = hn::MulAdd(scaled, e.rest, fed);
  hn::Store(h[kIndex], d, kept_h + place);
  const V less = hn::Sub(e.power, hn::Set(d, T{1}));
  hn::Store(hn::MulAdd(e.power, e.rest, opaque(less)), d, kept_decay + place);
  sum = hn::MulAdd(h[kIndex], scan_operand<kFixed>(d, c[kIndex], c_row, kIndex), sum);
  if constexpr (kIndex + 1 < kStates) {
    remember_step<kFixed, kIndex + 1>(d, a, b, c, dt, dtu, b_row, c_row, h, sum, kept_h,
                                      kept_decay);
  }
}

template <int kIndex, int kStates, class D, class V, class T>
HWY_INLINE void store_vectors(D d, const V (&from)[kStates], T* HWY_RESTRICT to) {
  hn::Store(from[kIndex], d, to + kIndex * static_cast<std::ptrdiff_t>(hn::Lanes(d)));
  if constexpr (kIndex + 1 < kStates) store_vectors<kIndex + 1>(d, from, to);
}
template <int kIndex, int kStates, class D, class V>
HWY_INLINE void zero_vectors(D d, V (&to)[kStates]) {
  to[kIndex] = hn::Zero(d);
  if constexpr (kIndex + 1 < kStates) zero_vectors<kIndex + 1>(d, to);
}

/// What a pass over kStates states holds in registers on the way back.
template <int kStates, class V>
struct ScanBack {
  V a[kStates], b[kStates], c[kStates];  ///< b and c where they are fixed
  V g[kStates], da[kStates];
  V db[kStates], dc[kStates];  ///< where b and c are fixed
};

template <bool kFixed, int kIndex, int kStates, class D, class V, class T>
HWY_INLINE void step_back(D d, ScanBack<kStates, V>& s, V dy, V dt, V dtu,
                          const T* HWY_RESTRICT b_row, const T* HWY_RESTRICT c_row,
                          const T* HWY_RESTRICT h, const T* HWY_RESTRICT kept_decay,
                          T* HWY_RESTRICT db, T* HWY_RESTRICT dc, V& ddt, V& ddtu) {
  const std::ptrdiff_t lanes = static_cast<std::ptrdiff_t>(hn::Lanes(d));
  const std::ptrdiff_t place = kIndex * lanes;
  const V g = hn::MulAdd(dy, scan_operand<kFixed>(d, s.c[kIndex], c_row, kIndex), s.g[kIndex]);
  const V now = hn::Load(d, h + kScanStates * lanes + place);
  if constexpr (kFixed) {
    s.dc[kIndex] = hn::MulAdd(dy, now, s.dc[kIndex]);
    s.db[kIndex] = hn::MulAdd(g, dtu, s.db[kIndex]);
  } else {
    hn::Store(hn::MulAdd(dy, now, hn::Load(d, dc + place)), d, dc + place);
    hn::Store(hn::MulAdd(g, dtu, hn::Load(d, db + place)), d, db + place);
  }
  ddtu = hn::MulAdd(g, scan_operand<kFixed>(d, s.b[kIndex], b_row, kIndex), ddtu);
  s.g[kIndex] = hn::MulAdd(g, hn::Load(d, kept_decay + place), g);
  const V dx = hn::Mul(s.g[kIndex], hn::Load(d, h + place));
  ddt = hn::MulAdd(dx, s.a[kIndex], ddt);
  s.da[kIndex] = hn::MulAdd(dx, dt, s.da[kIndex]);
  if constexpr (kIndex + 1 < kStates) {
    step_back<kFixed, kIndex + 1>(d, s, dy, dt, dtu, b_row, c_row, h, kept_decay, db, dc, ddt,
                                  ddtu);
  }
}

/// Forward through the tile once more, from the state that was kept.
template <bool kFixed, int kStates, class D, class V, class T>
HWY_INLINE void remember_states(D d, const SelectiveScanTask<T>& scan, const ScanColumns<T>& tile,
                                std::ptrdiff_t at, std::ptrdiff_t steps, std::ptrdiff_t channel,
                                std::size_t count, std::ptrdiff_t n, const ScanBack<kStates, V>& s,
                                const ScanHistory<T>& history) {
  const std::ptrdiff_t lanes = static_cast<std::ptrdiff_t>(hn::Lanes(d));
  const ScanRows<T> kept{
      scan.kept.data + at / selective_scan_tile * scan.kept_tile + n * scan.kept.stride,
      scan.kept.stride};
  V h[kStates];
  load_states<0>(d, kept, channel, count, h);
  store_vectors<0>(d, h, history.h);
  const T* b_row = kFixed ? nullptr : scan.b.row(at) + n;
  const T* c_row = kFixed ? nullptr : scan.c.row(at) + n;
  T* to_h = history.h + kScanStates * lanes;
  T* to_decay = history.decay;
  for (std::ptrdiff_t t = 0; t < steps; ++t) {
    V sum = hn::Load(d, tile.y + t * lanes);
    remember_step<kFixed, 0>(d, s.a, s.b, s.c, hn::Load(d, tile.dt + t * lanes),
                             hn::Load(d, tile.dtu + t * lanes), b_row, c_row, h, sum, to_h,
                             to_decay);
    hn::Store(sum, d, tile.y + t * lanes);
    to_h += kScanStates * lanes;
    to_decay += kScanStates * lanes;
    if constexpr (!kFixed) {
      b_row += scan.b.stride;
      c_row += scan.c.stride;
    }
  }
}

template <int kIndex, int kStates, class D, class V, class T>
HWY_INLINE void add_states(D d, const ScanRows<T>& rows, std::ptrdiff_t channel, std::size_t count,
                           V factor, const V (&x)[kStates]) {
  add_lanes(hn::Mul(factor, x[kIndex]), d, rows.row(kIndex) + channel, count);
  if constexpr (kIndex + 1 < kStates) add_states<kIndex + 1>(d, rows, channel, count, factor, x);
}

/// States n..n + kStates of one vector of channels, forward and back through a tile.
template <bool kFixed, int kStates, class D, class T>
HWY_INLINE void scan_states_back(D d, const SelectiveScanVjpTask<T>& task,
                                 const ScanColumns<T>& tile, std::ptrdiff_t at,
                                 std::ptrdiff_t steps, std::ptrdiff_t channel, std::size_t count,
                                 std::ptrdiff_t n, const ScanHistory<T>& history) {
  using V = hn::Vec<D>;
  const std::ptrdiff_t lanes = static_cast<std::ptrdiff_t>(hn::Lanes(d));
  const SelectiveScanTask<T>& scan = task.scan;
  ScanBack<kStates, V> s;
  load_states<0>(d, from_row(scan.a, n), channel, count, s.a);
  if constexpr (kFixed) {
    load_states<0>(d, from_row(scan.b, n), channel, count, s.b);
    load_states<0>(d, from_row(scan.c, n), channel, count, s.c);
    zero_vectors<0>(d, s.db);
    zero_vectors<0>(d, s.dc);
  }
  remember_states<kFixed, kStates>(d, scan, tile, at, steps, channel, count, n, s, history);
  load_states<0>(d, from_row(task.dh, n), channel, count, s.g);
  zero_vectors<0>(d, s.da);
  for (std::ptrdiff_t t = steps; t-- > 0;) {
    const std::ptrdiff_t row = t * lanes, rows = t * kScanStates * lanes;
    V ddt = hn::Load(d, tile.ddt + row), ddtu = hn::Load(d, tile.ddtu + row);
    const T* b_row = kFixed ? nullptr : scan.b.row(at + t) + n;
    const T* c_row = kFixed ? nullptr : scan.c.row(at + t) + n;
    step_back<kFixed, 0>(d, s, hn::Load(d, tile.dy + row), hn::Load(d, tile.dt + row),
                         hn::Load(d, tile.dtu + row), b_row, c_row, history.h + rows,
                         history.decay + rows, history.db + rows, history.dc + rows, ddt, ddtu);
    hn::Store(ddt, d, tile.ddt + row);
    hn::Store(ddtu, d, tile.ddtu + row);
  }
  store_states<0>(d, from_row(task.dh, n), channel, count, s.g);
  add_states<0>(d, from_row(task.da, n), channel, count, hn::Set(d, FloatFormat<T>::kLn2), s.da);
  if constexpr (kFixed) {
    add_states<0>(d, from_row(task.db, n), channel, count, hn::Set(d, T{1}), s.db);
    add_states<0>(d, from_row(task.dc, n), channel, count, hn::Set(d, T{1}), s.dc);
  }
}

/// All channels of a task for kStates states: sums over lanes at the end.
template <bool kFixed, int kStates, class D, class T>
HWY_INLINE void scan_channels_back(D d, const SelectiveScanVjpTask<T>& task, std::ptrdiff_t at,
                                   std::ptrdiff_t steps, std::ptrdiff_t n,
                                   const ScanHistory<T>& history, T* columns) {
  const std::ptrdiff_t lanes = static_cast<std::ptrdiff_t>(hn::Lanes(d));
  const std::ptrdiff_t channels = task.scan.channels;
  const std::ptrdiff_t size = steps * kScanStates * lanes;
  if constexpr (!kFixed) {
    for (std::ptrdiff_t i = 0; i < size; i += lanes) {
      hn::Store(hn::Zero(d), d, history.db + i);
      hn::Store(hn::Zero(d), d, history.dc + i);
    }
  }
  for (std::ptrdiff_t channel = 0; channel < channels; channel += lanes) {
    const std::ptrdiff_t rest = channels - channel;
    scan_states_back<kFixed, kStates>(
        d, task, scan_columns(columns, channel / lanes, lanes), at, steps, channel,
        static_cast<std::size_t>(rest < lanes ? rest : lanes), n, history);
  }
  if constexpr (!kFixed) {
    for (std::ptrdiff_t t = 0; t < steps; ++t) {
      for (int k = 0; k < kStates; ++k) {
        const std::ptrdiff_t from = (t * kScanStates + k) * lanes;
        task.db.row(at + t)[n + k] = hn::GetLane(hn::SumOfLanes(d, hn::Load(d, history.db + from)));
        task.dc.row(at + t)[n + k] = hn::GetLane(hn::SumOfLanes(d, hn::Load(d, history.dc + from)));
      }
    }
  }
}

/// Gradients of u, delta, z, skip and bias from those of dt, dt u and h . c.
template <class D, class T>
HWY_INLINE void end_tile_back(D d, const SelectiveScanVjpTask<T>& task, std::ptrdiff_t at,
                              std::ptrdiff_t channel, std::size_t count, std::ptrdiff_t steps,
                              const ScanColumns<T>& tile) {
  using V = hn::Vec<D>;
  const std::ptrdiff_t lanes = static_cast<std::ptrdiff_t>(hn::Lanes(d));
  const SelectiveScanTask<T>& scan = task.scan;
  const V one = hn::Set(d, T{1}), ln2 = hn::Set(d, FloatFormat<T>::kLn2);
  const V skip = scan.skip != nullptr ? load_lanes(d, scan.skip + channel, count) : hn::Zero(d);
  const V bias = scan.bias != nullptr ? load_lanes(d, scan.bias + channel, count) : hn::Zero(d);
  V dskip = hn::Zero(d), dbias = hn::Zero(d);
  for (std::ptrdiff_t t = 0; t < steps; ++t) {
    const std::ptrdiff_t row = t * lanes;
    const V u = load_lanes(d, scan.u.row(at + t) + channel, count);
    const V dy = hn::Load(d, tile.dy + row), ddtu = hn::Load(d, tile.ddtu + row);
    V ddelta = hn::MulAdd(ddtu, u, hn::Load(d, tile.ddt + row));
    if (scan.softplus) {
      const V raw = hn::Add(load_lanes(d, scan.delta.row(at + t) + channel, count), bias);
      ddelta = hn::Mul(ddelta, sigmoid(d, raw));
    }
    dbias = hn::Add(dbias, ddelta);
    dskip = hn::MulAdd(dy, u, dskip);
    if (task.ddelta.data != nullptr) {
      store_lanes(ddelta, d, task.ddelta.row(at + t) + channel, count);
    }
    if (task.du.data != nullptr) {
      const V du = hn::MulAdd(ddtu, hn::Mul(ln2, hn::Load(d, tile.dt + row)), hn::Mul(dy, skip));
      store_lanes(du, d, task.du.row(at + t) + channel, count);
    }
    if (task.dz.data != nullptr) {  // silu' = s (1 + z (1 - s))
      const V z = load_lanes(d, scan.z.row(at + t) + channel, count), s = sigmoid(d, z);
      const V slope = hn::Mul(s, hn::MulAdd(z, hn::Sub(one, s), one));
      const V y = hn::MulAdd(skip, u, hn::Load(d, tile.y + row));
      const V out = load_lanes(d, task.dy.row(at + t) + channel, count);
      store_lanes(hn::Mul(out, hn::Mul(y, slope)), d, task.dz.row(at + t) + channel, count);
    }
  }
  if (task.dskip != nullptr) add_lanes(dskip, d, task.dskip + channel, count);
  if (task.dbias != nullptr) add_lanes(dbias, d, task.dbias + channel, count);
}

template <bool kFixed, class D, class T>
HWY_INLINE void scan_tile_back(D d, const SelectiveScanVjpTask<T>& task, std::ptrdiff_t at,
                               std::ptrdiff_t steps, const ScanHistory<T>& history, T* columns) {
  std::ptrdiff_t n = 0;
  for (; n + kScanStates <= task.scan.states; n += kScanStates) {
    scan_channels_back<kFixed, kScanStates>(d, task, at, steps, n, history, columns);
  }
  for (; n < task.scan.states; ++n) {
    scan_channels_back<kFixed, 1>(d, task, at, steps, n, history, columns);
  }
}

}  // namespace detail

/// Elements of scratch memory, aligned to a vector, that the way back needs for so many channels.
template <class T>
std::size_t selective_scan_vjp_scratch(std::ptrdiff_t channels) {
  const hn::ScalableTag<T> d;
  const std::ptrdiff_t lanes = static_cast<std::ptrdiff_t>(hn::Lanes(d));
  const std::ptrdiff_t blocks = (channels + lanes - 1) / lanes;
  const std::ptrdiff_t columns = blocks * detail::kScanColumns * selective_scan_tile;
  const std::ptrdiff_t history = (4 * selective_scan_tile + 1) * detail::kScanStates;
  return static_cast<std::size_t>((columns + history) * lanes);
}

template <class T>
void selective_scan_vjp(const SelectiveScanVjpTask<T>& task) {
  const hn::ScalableTag<T> d;
  const std::ptrdiff_t lanes = static_cast<std::ptrdiff_t>(hn::Lanes(d));
  const std::ptrdiff_t channels = task.scan.channels;
  const detail::ScanHistory<T> history = detail::scan_history(task.scratch, lanes);
  T* const columns = task.scratch + (4 * selective_scan_tile + 1) * detail::kScanStates * lanes;
  const auto count = [&](std::ptrdiff_t channel) HWY_ATTR {
    const std::ptrdiff_t rest = channels - channel;
    return static_cast<std::size_t>(rest < lanes ? rest : lanes);
  };
  const std::ptrdiff_t tiles = (task.scan.steps + selective_scan_tile - 1) / selective_scan_tile;
  for (std::ptrdiff_t tile = tiles; tile-- > 0;) {
    const std::ptrdiff_t at = tile * selective_scan_tile, left = task.scan.steps - at;
    const std::ptrdiff_t steps = left < selective_scan_tile ? left : selective_scan_tile;
    for (std::ptrdiff_t channel = 0; channel < channels; channel += lanes) {
      detail::begin_tile_back(d, task, at, channel, count(channel), steps,
                              detail::scan_columns(columns, channel / lanes, lanes));
    }
    if (task.scan.fixed) {
      detail::scan_tile_back<true>(d, task, at, steps, history, columns);
    } else {
      detail::scan_tile_back<false>(d, task, at, steps, history, columns);
    }
    for (std::ptrdiff_t channel = 0; channel < channels; channel += lanes) {
      detail::end_tile_back(d, task, at, channel, count(channel), steps,
                            detail::scan_columns(columns, channel / lanes, lanes));
    }
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace kernels
QUERN_NAMESPACE_END
HWY_AFTER_NAMESPACE();

#endif  // QUERN_KERNELS_SELECTIVE_SCAN_VJP_INL_HPP
