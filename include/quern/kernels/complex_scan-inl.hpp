// SPDX-License-Identifier: Apache-2.0

/// \file
/// The selective scan with complex poles, and its way back: lanes are channels, states go one after
/// the other through a tile. Real and imaginary parts lie in rows of their own.
///
/// y = 2 Re(h . c): half of a conjugate spectrum is kept. On the way back a complex gradient is
/// dL/d(real part) + i dL/d(imaginary part), as PyTorch's.

#if defined(QUERN_KERNELS_COMPLEX_SCAN_INL_HPP) == defined(HWY_TARGET_TOGGLE)
#ifdef QUERN_KERNELS_COMPLEX_SCAN_INL_HPP
#undef QUERN_KERNELS_COMPLEX_SCAN_INL_HPP
#else
#define QUERN_KERNELS_COMPLEX_SCAN_INL_HPP
#endif

#include "quern/core/config.hpp"
#include "quern/kernels/complex_scan_types.hpp"
#include "quern/kernels/selective_scan-inl.hpp"
#include "quern/kernels/selective_scan_vjp-inl.hpp"
#include "quern/kernels/sincos-inl.hpp"

#include "hwy/highway.h"

#include <cstddef>

HWY_BEFORE_NAMESPACE();
QUERN_NAMESPACE_BEGIN
namespace kernels {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

namespace detail {

template <class V>
struct ComplexVector {
  V re, im;
};
/// x y and x conj(y).
template <class V>
HWY_INLINE ComplexVector<V> times(ComplexVector<V> x, ComplexVector<V> y) {
  return {hn::NegMulAdd(x.im, y.im, hn::Mul(x.re, y.re)),
          hn::MulAdd(x.im, y.re, hn::Mul(x.re, y.im))};
}
template <class V>
HWY_INLINE ComplexVector<V> times_conjugate(ComplexVector<V> x, ComplexVector<V> y) {
  return {hn::MulAdd(x.im, y.im, hn::Mul(x.re, y.re)),
          hn::NegMulAdd(x.re, y.im, hn::Mul(x.im, y.re))};
}
/// sum + factor x.
template <class V>
HWY_INLINE ComplexVector<V> plus_scaled(ComplexVector<V> sum, V factor, ComplexVector<V> x) {
  return {hn::MulAdd(factor, x.re, sum.re), hn::MulAdd(factor, x.im, sum.im)};
}

template <class D, class T>
HWY_INLINE ComplexVector<hn::Vec<D>> load_complex(D d, const ComplexRows<T>& rows, std::ptrdiff_t n,
                                                  std::ptrdiff_t channel, std::size_t count) {
  return {load_lanes(d, rows.re.row(n) + channel, count),
          load_lanes(d, rows.im.row(n) + channel, count)};
}
template <class D, class V, class T>
HWY_INLINE void store_complex(D d, ComplexVector<V> x, const ComplexRows<T>& rows, std::ptrdiff_t n,
                              std::ptrdiff_t channel, std::size_t count) {
  store_lanes(x.re, d, rows.re.row(n) + channel, count);
  store_lanes(x.im, d, rows.im.row(n) + channel, count);
}
template <class D, class V, class T>
HWY_INLINE void add_complex(D d, ComplexVector<V> x, const ComplexRows<T>& rows, std::ptrdiff_t n,
                            std::ptrdiff_t channel, std::size_t count) {
  add_lanes(x.re, d, rows.re.row(n) + channel, count);
  add_lanes(x.im, d, rows.im.row(n) + channel, count);
}

/// e^(dt a) - 1: `dt` is times log2(e), the pole's imaginary part times ln 2.
template <class D, class V>
HWY_INLINE ComplexVector<V> complex_decay(D d, V dt, ComplexVector<V> a) {
  const Decay<V> size = decay(d, hn::Mul(dt, a.re));
  const SineCosine<V> turn = sin_cos(d, hn::Mul(dt, a.im));
  const V one = hn::Set(d, hn::TFromD<D>{1});
  const V less = hn::MulAdd(size.power, size.rest, opaque(hn::Sub(size.power, one)));
  const V e = hn::MulAdd(size.power, size.rest, size.power);
  return {hn::MulAdd(less, turn.cosine, opaque(hn::Sub(turn.cosine, one))), hn::Mul(e, turn.sine)};
}

/// b or c of state n at a step: fixed ones are in `fixed`.
template <class D, class T, class V>
HWY_INLINE ComplexVector<V> complex_operand(D d, bool is_fixed, const ComplexRows<const T>& rows,
                                            std::ptrdiff_t t, std::ptrdiff_t n,
                                            ComplexVector<V> fixed) {
  if (is_fixed) return fixed;
  return {hn::Set(d, rows.re.row(t)[n]), hn::Set(d, rows.im.row(t)[n])};
}

/// State n of one vector of channels through a tile; keeps decays and states where `kept` is there.
template <class D, class T>
HWY_INLINE void complex_states(D d, const ComplexScanTask<T>& task, const ScanTile<T>& tile,
                               std::ptrdiff_t at, std::ptrdiff_t channel, std::ptrdiff_t n,
                               const ComplexRows<T>& states, T* HWY_RESTRICT kept) {
  using V = hn::Vec<D>;
  const std::ptrdiff_t lanes = static_cast<std::ptrdiff_t>(hn::Lanes(d));
  ComplexVector<V> h = load_complex(d, states, n, channel, tile.lanes);
  const ComplexVector<V> a = load_complex(d, task.a, n, channel, tile.lanes);
  ComplexVector<V> b = a, c = a;
  if (task.scan.fixed) {
    b = load_complex(d, task.b, n, channel, tile.lanes);
    c = load_complex(d, task.c, n, channel, tile.lanes);
  }
  const V two = hn::Set(d, T{2});
  for (std::ptrdiff_t t = 0; t < tile.steps; ++t) {
    const ComplexVector<V> less = complex_decay(d, hn::Load(d, tile.dt + t * lanes), a);
    if (kept != nullptr) {
      T* const to = kept + t * 4 * lanes;
      hn::Store(h.re, d, to);
      hn::Store(h.im, d, to + lanes);
      hn::Store(hn::Add(less.re, hn::Set(d, T{1})), d, to + 2 * lanes);
      hn::Store(less.im, d, to + 3 * lanes);
    }
    const ComplexVector<V> more =
        plus_scaled(times(less, h), hn::Load(d, tile.dtu + t * lanes),
                    complex_operand(d, task.scan.fixed, task.b, at + t, n, b));
    h = {hn::Add(h.re, more.re), hn::Add(h.im, more.im)};
    const ComplexVector<V> out =
        times(h, complex_operand(d, task.scan.fixed, task.c, at + t, n, c));
    T* const y = tile.y + t * lanes;
    hn::Store(hn::MulAdd(two, out.re, hn::Load(d, y)), d, y);
  }
  store_complex(d, h, states, n, channel, tile.lanes);
}

template <class D, class T>
HWY_INLINE void put_lane_sums(D d, hn::Vec<D> re, hn::Vec<D> im, const ComplexRows<T>& rows,
                              std::ptrdiff_t t, std::ptrdiff_t n) {
  rows.re.row(t)[n] += hn::GetLane(hn::SumOfLanes(d, re));
  rows.im.row(t)[n] += hn::GetLane(hn::SumOfLanes(d, im));
}

/// State n back through a tile: `kept` is what complex_states left.
template <class D, class T>
HWY_INLINE void complex_states_back(D d, const ComplexScanVjpTask<T>& task,
                                    const ScanColumns<T>& tile, std::ptrdiff_t at,
                                    std::ptrdiff_t steps, std::ptrdiff_t channel, std::size_t count,
                                    std::ptrdiff_t n, ComplexVector<hn::Vec<D>> h,
                                    const T* HWY_RESTRICT kept) {
  using V = hn::Vec<D>;
  const std::ptrdiff_t lanes = static_cast<std::ptrdiff_t>(hn::Lanes(d));
  const ComplexScanTask<T>& scan = task.scan;
  const ComplexVector<V> a = load_complex(d, scan.a, n, channel, count);
  const ComplexVector<V> zero{hn::Zero(d), hn::Zero(d)};
  ComplexVector<V> b = zero, c = zero, da = zero, db = zero, dc = zero;
  if (scan.scan.fixed) {
    b = load_complex(d, scan.b, n, channel, count);
    c = load_complex(d, scan.c, n, channel, count);
  }
  ComplexVector<V> g = load_complex(d, task.dh, n, channel, count);
  const V two = hn::Set(d, T{2}), log2e = hn::Set(d, FloatFormat<T>::kLog2E);
  // a's imaginary part is times ln 2: what it gives to dt is undone here.
  const ComplexVector<V> pole{a.re, hn::Mul(a.im, log2e)};
  for (std::ptrdiff_t t = steps; t-- > 0;) {
    const T* const from = kept + t * 4 * lanes;
    const V dt = hn::Load(d, tile.dt + t * lanes), dtu = hn::Load(d, tile.dtu + t * lanes);
    const V dy = hn::Mul(two, hn::Load(d, tile.dy + t * lanes));
    const ComplexVector<V> now_b = complex_operand(d, scan.scan.fixed, scan.b, at + t, n, b);
    const ComplexVector<V> now_c = complex_operand(d, scan.scan.fixed, scan.c, at + t, n, c);
    g = {hn::MulAdd(dy, now_c.re, g.re), hn::NegMulAdd(dy, now_c.im, g.im)};
    const ComplexVector<V> gc{hn::Mul(dy, h.re), hn::Neg(hn::Mul(dy, h.im))};
    const ComplexVector<V> gb{hn::Mul(dtu, g.re), hn::Mul(dtu, g.im)};
    if (scan.scan.fixed) {
      dc = {hn::Add(dc.re, gc.re), hn::Add(dc.im, gc.im)};
      db = {hn::Add(db.re, gb.re), hn::Add(db.im, gb.im)};
    } else {
      put_lane_sums(d, gc.re, gc.im, task.dc, at + t, n);
      put_lane_sums(d, gb.re, gb.im, task.db, at + t, n);
    }
    T* const ddtu = tile.ddtu + t * lanes;
    hn::Store(hn::Add(hn::Load(d, ddtu), times_conjugate(g, now_b).re), d, ddtu);
    h = {hn::Load(d, from), hn::Load(d, from + lanes)};
    g = times_conjugate(
        g, ComplexVector<V>{hn::Load(d, from + 2 * lanes), hn::Load(d, from + 3 * lanes)});
    const ComplexVector<V> dx = times_conjugate(g, h);
    T* const ddt = tile.ddt + t * lanes;
    hn::Store(hn::Add(hn::Load(d, ddt), times_conjugate(dx, pole).re), d, ddt);
    da = plus_scaled(da, dt, dx);
  }
  store_complex(d, g, task.dh, n, channel, count);
  const V ln2 = hn::Set(d, FloatFormat<T>::kLn2);
  add_complex(d, ComplexVector<V>{hn::Mul(da.re, ln2), hn::Mul(da.im, ln2)}, task.da, n, channel,
              count);
  if (!scan.scan.fixed) return;
  add_complex(d, db, task.db, n, channel, count);
  add_complex(d, dc, task.dc, n, channel, count);
}

}  // namespace detail

/// Runs the scan; what it found is a ScanFinding.
template <class T>
int complex_scan(const ComplexScanTask<T>& task) {
  const hn::ScalableTag<T> d;
  constexpr std::size_t kSize = static_cast<std::size_t>(selective_scan_tile) * hn::MaxLanes(d);
  HWY_ALIGN T dt[kSize];
  HWY_ALIGN T dtu[kSize];
  HWY_ALIGN T y[kSize];
  const SelectiveScanTask<T>& scan = task.scan;
  const std::ptrdiff_t lanes = static_cast<std::ptrdiff_t>(hn::Lanes(d));
  detail::ScanCheck<hn::ScalableTag<T>> check(d);
  for (std::ptrdiff_t at = 0; at < scan.steps; at += selective_scan_tile) {
    const std::ptrdiff_t left = scan.steps - at;
    const std::ptrdiff_t steps = left < selective_scan_tile ? left : selective_scan_tile;
    for (std::ptrdiff_t channel = 0; channel < scan.channels; channel += lanes) {
      const std::size_t count = detail::lanes_left(d, scan.channels - channel);
      detail::begin_tile(d, scan, at, channel, count, steps, dt, dtu, y, check);
      const detail::ScanTile<T> tile{steps, count, dt, dtu, y};
      for (std::ptrdiff_t n = 0; n < scan.states; ++n) {
        if (task.kept.re.data != nullptr) {
          const auto h = detail::load_complex(d, task.h, n, channel, count);
          detail::store_complex(d, h, task.kept, at / selective_scan_tile * scan.states + n,
                                channel, count);
        }
        detail::complex_states<hn::ScalableTag<T>, T>(d, task, tile, at, channel, n, task.h,
                                                      nullptr);
      }
      if (scan.y.data != nullptr) {
        detail::end_tile(d, scan, at, channel, count, steps, y, check);
      }
    }
  }
  return check.result(d);
}

/// The way back. `back.scan` of the task has what is real of it.
template <class T>
void complex_scan_vjp(const ComplexScanVjpTask<T>& task) {
  const hn::ScalableTag<T> d;
  constexpr std::size_t kSize = static_cast<std::size_t>(selective_scan_tile) * hn::MaxLanes(d);
  HWY_ALIGN T columns[detail::kScanColumns * kSize];
  HWY_ALIGN T kept[4 * kSize];
  const SelectiveScanTask<T>& scan = task.scan.scan;
  const std::ptrdiff_t lanes = static_cast<std::ptrdiff_t>(hn::Lanes(d));
  const detail::ScanColumns<T> tile = detail::scan_columns<T>(columns, 0, lanes);
  const std::ptrdiff_t tiles = (scan.steps + selective_scan_tile - 1) / selective_scan_tile;
  for (std::ptrdiff_t channel = 0; channel < scan.channels; channel += lanes) {
    const std::size_t count = detail::lanes_left(d, scan.channels - channel);
    for (std::ptrdiff_t k = tiles; k-- > 0;) {
      const std::ptrdiff_t at = k * selective_scan_tile, left = scan.steps - at;
      const std::ptrdiff_t steps = left < selective_scan_tile ? left : selective_scan_tile;
      detail::begin_tile_back(d, task.back, at, channel, count, steps, tile);
      const detail::ScanTile<T> forward{steps, count, tile.dt, tile.dtu, tile.y};
      for (std::ptrdiff_t n = 0; n < scan.states; ++n) {
        // States move in `kept` itself: nothing reads those of this tile any more.
        const ComplexRows<T> moving{
            {task.scan.kept.re.row(k * scan.states), task.scan.kept.re.stride},
            {task.scan.kept.im.row(k * scan.states), task.scan.kept.im.stride}};
        detail::complex_states<hn::ScalableTag<T>, T>(d, task.scan, forward, at, channel, n, moving,
                                                      kept);
        const auto last = detail::load_complex(d, moving, n, channel, count);
        detail::complex_states_back<hn::ScalableTag<T>, T>(d, task, tile, at, steps, channel, count,
                                                           n, last, kept);
      }
      detail::end_tile_back(d, task.back, at, channel, count, steps, tile);
    }
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace kernels
QUERN_NAMESPACE_END
HWY_AFTER_NAMESPACE();

#endif  // QUERN_KERNELS_COMPLEX_SCAN_INL_HPP
