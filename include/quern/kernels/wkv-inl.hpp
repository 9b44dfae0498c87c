// SPDX-License-Identifier: Apache-2.0

/// \file
/// RWKV-4's recurrence and the way back. Lanes are channels. Sums of e^k that would overflow are
/// held as p e^o with o the largest exponent so far; of two exponentials that are added one is
/// always 1, so a step takes two, the way back four.
///
/// On the way back the gradients of the sums a and b are G e^r, H e^r: r is never above -(the
/// largest exponent that is still to come), so that every product with a sum or with e^k is at most
/// of the size of its factors.

#if defined(QUERN_KERNELS_WKV_INL_HPP) == defined(HWY_TARGET_TOGGLE)
#ifdef QUERN_KERNELS_WKV_INL_HPP
#undef QUERN_KERNELS_WKV_INL_HPP
#else
#define QUERN_KERNELS_WKV_INL_HPP
#endif

#include "quern/core/config.hpp"
#include "quern/kernels/lanes-inl.hpp"
#include "quern/kernels/math-inl.hpp"
#include "quern/kernels/wkv_types.hpp"

#include "hwy/highway.h"

#include <cstddef>

HWY_BEFORE_NAMESPACE();
QUERN_NAMESPACE_BEGIN
namespace kernels {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

namespace detail {

/// e^a and e^b, both divided by the larger.
template <class V>
struct TwoPowers {
  V first, second, largest;
};
template <class D, class V>
HWY_INLINE TwoPowers<V> two_powers(D d, V a, V b) {
  const V one = hn::Set(d, hn::TFromD<D>{1});
  const V apart = hn::Sub(a, b), e = exp_of_minus(d, hn::Abs(apart));
  const auto below = hn::Lt(apart, hn::Zero(d));
  // A NaN in either stays in both.
  const V first = hn::IfThenElse(below, e, one), second = hn::IfThenElse(below, one, e);
  return {keep_nan(d, apart, first), keep_nan(d, apart, second), hn::Max(a, b)};
}

/// A channel's sums as p e^o, q e^o.
template <class V>
struct WkvState {
  V p, q, o;
};
template <class D, class T>
HWY_INLINE WkvState<hn::Vec<D>> load_wkv(D d, const ScanRows<T>& rows, std::ptrdiff_t channel,
                                         std::size_t count) {
  return {load_lanes(d, rows.row(0) + channel, count), load_lanes(d, rows.row(1) + channel, count),
          load_lanes(d, rows.row(2) + channel, count)};
}
template <class D, class V, class T>
HWY_INLINE void store_wkv(D d, const WkvState<V>& s, const ScanRows<T>& rows,
                          std::ptrdiff_t channel, std::size_t count) {
  store_lanes(s.p, d, rows.row(0) + channel, count);
  store_lanes(s.q, d, rows.row(1) + channel, count);
  store_lanes(s.o, d, rows.row(2) + channel, count);
}

/// What o + w loses to rounding goes into the sums: over thousands of steps of a slow decay it
/// would add up. (Held within 1/2, for an o so large that w is less than its last place.)
template <class D, class V>
HWY_INLINE WkvState<V> next_wkv(D d, const WkvState<V>& s, V w, V k, V v) {
  using T = hn::TFromD<D>;
  const V later = opaque(hn::Add(w, s.o)), added = opaque(hn::Sub(later, s.o));
  const V before = opaque(hn::Sub(later, added));
  const V lost = hn::Add(opaque(hn::Sub(s.o, before)), opaque(hn::Sub(w, added)));
  const V rest = hn::Min(hn::Max(lost, hn::Set(d, T{-0.5})), hn::Set(d, T{0.5}));
  const TwoPowers<V> e = two_powers(d, later, k);
  const V carried = hn::Mul(e.first, rest);
  return {hn::MulAdd(e.first, s.p, hn::MulAdd(carried, s.p, hn::Mul(e.second, v))),
          hn::MulAdd(e.first, s.q, hn::MulAdd(carried, s.q, e.second)), e.largest};
}

template <class D, class T>
HWY_INLINE void wkv_channels(D d, const WkvTask<T>& task, std::ptrdiff_t channel, std::size_t count,
                             LargestBits<D>& check) {
  using V = hn::Vec<D>;
  const V w = load_lanes(d, task.w + channel, count), u = load_lanes(d, task.u + channel, count);
  WkvState<V> s = load_wkv(d, task.state, channel, count);
  for (std::ptrdiff_t t = 0; t < task.steps; ++t) {
    if (task.kept.data != nullptr && t % wkv_tile == 0) {
      store_wkv(d, s, ScanRows<T>{task.kept.row(t / wkv_tile * 3), task.kept.stride}, channel,
                count);
    }
    const V k = load_lanes(d, task.k.row(t) + channel, count);
    const V v = load_lanes(d, task.v.row(t) + channel, count);
    if (task.y.data != nullptr) {
      const TwoPowers<V> e = two_powers(d, s.o, hn::Add(u, k));
      const V top = hn::MulAdd(e.first, s.p, hn::Mul(e.second, v));
      const V y = hn::Div(top, hn::MulAdd(e.first, s.q, e.second));
      check.see(d, hn::IfThenElseZero(hn::FirstN(d, count), y));
      store_lanes(y, d, task.y.row(t) + channel, count);
    }
    s = next_wkv(d, s, w, k, v);
  }
  store_wkv(d, s, task.state, channel, count);
}

/// What the way back holds of one vector of channels.
template <class V>
struct WkvBack {
  V w, u, dw, du;
  V g, h, r;  ///< gradients of a and b are g e^r and h e^r
};

/// Step t back: `s` is the state before it.
template <class D, class V, class T>
HWY_INLINE void wkv_step_back(D d, const WkvVjpTask<T>& task, std::ptrdiff_t t,
                              std::ptrdiff_t channel, std::size_t count, const WkvState<V>& s,
                              WkvBack<V>& m) {
  const V k = load_lanes(d, task.wkv.k.row(t) + channel, count);
  const V v = load_lanes(d, task.wkv.v.row(t) + channel, count);
  const V dy = load_lanes(d, task.dy.row(t) + channel, count);
  const V grown = HWY_NAMESPACE::exp(d, hn::Add(k, m.r));
  V dk = hn::Mul(grown, hn::MulAdd(v, m.g, m.h)), dv = hn::Mul(grown, m.g);
  const V kept = HWY_NAMESPACE::exp(d, hn::Add(hn::Add(m.w, s.o), m.r));
  m.dw = hn::MulAdd(kept, hn::MulAdd(s.p, m.g, hn::Mul(s.q, m.h)), m.dw);

  const TwoPowers<V> e = two_powers(d, s.o, hn::Add(m.u, k));
  const V top = hn::MulAdd(e.first, s.p, hn::Mul(e.second, v));
  const V under = hn::MulAdd(e.first, s.q, e.second);
  const V dtop = hn::Div(dy, under), dunder = hn::Neg(hn::Mul(dtop, hn::Div(top, under)));
  const V bonus = hn::Mul(e.second, hn::MulAdd(v, dtop, dunder));
  m.du = hn::Add(m.du, bonus);
  dk = hn::Add(dk, bonus);
  dv = hn::MulAdd(e.second, dtop, dv);
  const TwoPowers<V> f = two_powers(d, hn::Add(m.r, m.w), hn::Neg(e.largest));
  m.g = hn::MulAdd(f.first, m.g, hn::Mul(f.second, dtop));
  m.h = hn::MulAdd(f.first, m.h, hn::Mul(f.second, dunder));
  m.r = f.largest;
  if (task.dk.data != nullptr) store_lanes(dk, d, task.dk.row(t) + channel, count);
  if (task.dv.data != nullptr) store_lanes(dv, d, task.dv.row(t) + channel, count);
}

template <class D, class T>
HWY_INLINE void wkv_channels_back(D d, const WkvVjpTask<T>& task, std::ptrdiff_t channel,
                                  std::size_t count, T* HWY_RESTRICT states) {
  using V = hn::Vec<D>;
  const std::ptrdiff_t lanes = static_cast<std::ptrdiff_t>(hn::Lanes(d));
  WkvBack<V> m;
  m.w = load_lanes(d, task.wkv.w + channel, count);
  m.u = load_lanes(d, task.wkv.u + channel, count);
  m.dw = m.du = hn::Zero(d);
  m.g = load_lanes(d, task.dstate.row(0) + channel, count);
  m.h = load_lanes(d, task.dstate.row(1) + channel, count);
  m.r = hn::Neg(load_lanes(d, task.last.row(2) + channel, count));
  const ScanRows<T> local{states, lanes};
  const std::ptrdiff_t tiles = (task.wkv.steps + wkv_tile - 1) / wkv_tile;
  for (std::ptrdiff_t tile = tiles; tile-- > 0;) {
    const std::ptrdiff_t at = tile * wkv_tile, left = task.wkv.steps - at;
    const std::ptrdiff_t steps = left < wkv_tile ? left : wkv_tile;
    WkvState<V> s =
        load_wkv(d, ScanRows<T>{task.wkv.kept.row(tile * 3), task.wkv.kept.stride}, channel, count);
    for (std::ptrdiff_t t = 0; t < steps; ++t) {
      store_wkv(d, s, ScanRows<T>{local.row(t * 3), lanes}, 0, hn::Lanes(d));
      s = next_wkv(d, s, m.w, load_lanes(d, task.wkv.k.row(at + t) + channel, count),
                   load_lanes(d, task.wkv.v.row(at + t) + channel, count));
    }
    for (std::ptrdiff_t t = steps; t-- > 0;) {
      s = load_wkv(d, ScanRows<T>{local.row(t * 3), lanes}, 0, hn::Lanes(d));
      wkv_step_back(d, task, at + t, channel, count, s, m);
    }
    if (tile > 0) continue;
    const V unit = HWY_NAMESPACE::exp(d, hn::Add(m.r, s.o));
    store_lanes(hn::Mul(m.g, unit), d, task.dstate.row(0) + channel, count);
    store_lanes(hn::Mul(m.h, unit), d, task.dstate.row(1) + channel, count);
  }
  if (task.dw != nullptr) add_lanes(m.dw, d, task.dw + channel, count);
  if (task.du != nullptr) add_lanes(m.du, d, task.du + channel, count);
}

}  // namespace detail

/// Runs the recurrence; whether all of y is finite.
template <class T>
bool wkv(const WkvTask<T>& task) {
  const hn::ScalableTag<T> d;
  const std::ptrdiff_t lanes = static_cast<std::ptrdiff_t>(hn::Lanes(d));
  detail::LargestBits<hn::ScalableTag<T>> check(d);
  for (std::ptrdiff_t channel = 0; channel < task.channels; channel += lanes) {
    detail::wkv_channels(d, task, channel, detail::lanes_left(d, task.channels - channel), check);
  }
  return check.finite(d);
}

template <class T>
void wkv_vjp(const WkvVjpTask<T>& task) {
  const hn::ScalableTag<T> d;
  HWY_ALIGN T states[3 * static_cast<std::size_t>(wkv_tile) * hn::MaxLanes(d)];
  const std::ptrdiff_t lanes = static_cast<std::ptrdiff_t>(hn::Lanes(d));
  for (std::ptrdiff_t channel = 0; channel < task.wkv.channels; channel += lanes) {
    detail::wkv_channels_back(d, task, channel, detail::lanes_left(d, task.wkv.channels - channel),
                              states);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace kernels
QUERN_NAMESPACE_END
HWY_AFTER_NAMESPACE();

#endif  // QUERN_KERNELS_WKV_INL_HPP
