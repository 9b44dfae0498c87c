// SPDX-License-Identifier: Apache-2.0

/// \file
/// RWKV-7's recurrence S = S diag(w) + v k^T + (S a) b^T, o = S r of one head, and the way back.
///
/// Lanes are rows of S (values), which know nothing of each other; S lies as (keys, values). One
/// pass over S a step: while a step writes S, S a of the next step is summed too. That is five
/// multiply-adds an element, and no chunked form takes fewer: four products with S are left.
///
/// On the way back states of a tile are computed once more from the one that was kept. With G the
/// gradient of S: G += do r^T; dr = S^T do, dv = G k, dk = G^T v, db = G^T (S a), dw = sum of G S
/// over values, d(S a) = G b, da = S^T d(S a); then G = G diag(w) + d(S a) a^T.

#if defined(QUERN_KERNELS_WKV7_INL_HPP) == defined(HWY_TARGET_TOGGLE)
#ifdef QUERN_KERNELS_WKV7_INL_HPP
#undef QUERN_KERNELS_WKV7_INL_HPP
#else
#define QUERN_KERNELS_WKV7_INL_HPP
#endif

#include "quern/core/config.hpp"
#include "quern/kernels/lanes-inl.hpp"
#include "quern/kernels/wkv_types.hpp"

#include "hwy/highway.h"

#include <cstddef>

HWY_BEFORE_NAMESPACE();
QUERN_NAMESPACE_BEGIN
namespace kernels {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

namespace detail {

/// Vectors of values that go side by side: AVX-512 has registers for four, AVX2 for two.
#if HWY_CAP_GE512
inline constexpr int kWkv7Vectors = 4;
#else
inline constexpr int kWkv7Vectors = 2;
#endif

/// kVectors vectors of values from `value` on; the last may count in part.
template <int kIndex, int kVectors, class D, class V, class T>
HWY_INLINE void load_values(D d, const T* from, std::ptrdiff_t left, V (&to)[kVectors]) {
  const std::ptrdiff_t lanes = static_cast<std::ptrdiff_t>(hn::Lanes(d));
  const std::ptrdiff_t rest = left - kIndex * lanes;
  to[kIndex] = rest <= 0 ? hn::Zero(d) : load_lanes(d, from + kIndex * lanes, lanes_left(d, rest));
  if constexpr (kIndex + 1 < kVectors) load_values<kIndex + 1>(d, from, left, to);
}
template <int kIndex, int kVectors, class D, class V, class T>
HWY_INLINE void store_values(D d, const V (&from)[kVectors], std::ptrdiff_t left, T* to) {
  const std::ptrdiff_t lanes = static_cast<std::ptrdiff_t>(hn::Lanes(d));
  const std::ptrdiff_t rest = left - kIndex * lanes;
  if (rest > 0) store_lanes(from[kIndex], d, to + kIndex * lanes, lanes_left(d, rest));
  if constexpr (kIndex + 1 < kVectors) store_values<kIndex + 1>(d, from, left, to);
}
template <int kIndex, int kVectors, class D, class V, class T>
HWY_INLINE void load_whole(D d, const T* from, V (&to)[kVectors]) {
  to[kIndex] = hn::Load(d, from + kIndex * static_cast<std::ptrdiff_t>(hn::Lanes(d)));
  if constexpr (kIndex + 1 < kVectors) load_whole<kIndex + 1>(d, from, to);
}
template <int kIndex, int kVectors, class D, class V, class T>
HWY_INLINE void store_whole(D d, const V (&from)[kVectors], T* to) {
  hn::Store(from[kIndex], d, to + kIndex * static_cast<std::ptrdiff_t>(hn::Lanes(d)));
  if constexpr (kIndex + 1 < kVectors) store_whole<kIndex + 1>(d, from, to);
}
template <int kIndex, int kVectors, class D, class V>
HWY_INLINE void zero_whole(D d, V (&to)[kVectors]) {
  to[kIndex] = hn::Zero(d);
  if constexpr (kIndex + 1 < kVectors) zero_whole<kIndex + 1>(d, to);
}
template <int kIndex, int kVectors, class V>
HWY_INLINE void copy_whole(const V (&from)[kVectors], V (&to)[kVectors]) {
  to[kIndex] = from[kIndex];
  if constexpr (kIndex + 1 < kVectors) copy_whole<kIndex + 1>(from, to);
}
template <int kIndex, int kVectors, class D, class V>
HWY_INLINE void see_whole(D d, const V (&x)[kVectors], LargestBits<D>& check) {
  check.see(d, x[kIndex]);
  if constexpr (kIndex + 1 < kVectors) see_whole<kIndex + 1>(d, x, check);
}
/// sums += x factor.
template <int kIndex, int kVectors, class V>
HWY_INLINE void add_scaled(const V (&x)[kVectors], V factor, V (&sums)[kVectors]) {
  sums[kIndex] = hn::MulAdd(x[kIndex], factor, sums[kIndex]);
  if constexpr (kIndex + 1 < kVectors) add_scaled<kIndex + 1>(x, factor, sums);
}
template <int kIndex, int kVectors, class V>
HWY_INLINE void scale_whole(V factor, V (&x)[kVectors]) {
  x[kIndex] = hn::Mul(x[kIndex], factor);
  if constexpr (kIndex + 1 < kVectors) scale_whole<kIndex + 1>(factor, x);
}
/// One vector: the products of all, added.
template <int kIndex, int kVectors, class V>
HWY_INLINE V product_sum(const V (&x)[kVectors], const V (&y)[kVectors]) {
  if constexpr (kIndex == 0) {
    return hn::Mul(x[0], y[0]);
  } else {
    return hn::MulAdd(x[kIndex], y[kIndex], product_sum<kIndex - 1>(x, y));
  }
}

/// Sums of the lanes of four vectors. Pairs are interleaved and added, so that all four take about
/// as many operations as two would alone.
template <class D, class V, class T>
HWY_INLINE void sum_four(D d, V a, V b, V c, V e, T* HWY_RESTRICT to) {
#if HWY_TARGET != HWY_SCALAR
  if constexpr (sizeof(T) == 4 && hn::MaxLanes(D()) >= 4) {
    const hn::Repartition<double, D> dd;
    const hn::CappedTag<T, 4> four;
    const V ab = hn::Add(hn::InterleaveLower(d, a, b), hn::InterleaveUpper(d, a, b));
    const V ce = hn::Add(hn::InterleaveLower(d, c, e), hn::InterleaveUpper(d, c, e));
    const auto left = hn::BitCast(dd, ab), right = hn::BitCast(dd, ce);
    const V all = hn::Add(hn::BitCast(d, hn::InterleaveLower(dd, left, right)),
                          hn::BitCast(d, hn::InterleaveUpper(dd, left, right)));
    HWY_ALIGN T parts[hn::MaxLanes(d)];
    hn::Store(all, d, parts);
    auto sum = hn::Load(four, parts);
    for (std::size_t k = 4; k < hn::Lanes(d); k += 4) sum = hn::Add(sum, hn::Load(four, parts + k));
    hn::StoreU(sum, four, to);
    return;
  }
#endif
  to[0] = hn::GetLane(hn::SumOfLanes(d, a));
  to[1] = hn::GetLane(hn::SumOfLanes(d, b));
  to[2] = hn::GetLane(hn::SumOfLanes(d, c));
  to[3] = hn::GetLane(hn::SumOfLanes(d, e));
}

/// S a.
template <int kVectors, class D, class V, class T>
HWY_INLINE void state_times(D d, const T* HWY_RESTRICT state, const T* HWY_RESTRICT a,
                            std::ptrdiff_t keys, V (&sums)[kVectors]) {
  const std::ptrdiff_t width = kVectors * static_cast<std::ptrdiff_t>(hn::Lanes(d));
  zero_whole<0>(d, sums);
  for (std::ptrdiff_t k = 0; k < keys; ++k, state += width) {
    V s[kVectors];
    load_whole<0>(d, state, s);
    add_scaled<0>(s, hn::Set(d, a[k]), sums);
  }
}

/// A step: S from `from` to `to` (may be the same), o, and S a of the next step (a null `next_a`
/// leaves that out).
template <int kVectors, class D, class V, class T>
HWY_INLINE void wkv7_step(D d, const Wkv7Task<T>& task, std::ptrdiff_t t, const T* from, T* to,
                          const V (&v)[kVectors], V (&sa)[kVectors], V (&o)[kVectors]) {
  const std::ptrdiff_t width = kVectors * static_cast<std::ptrdiff_t>(hn::Lanes(d));
  const T* HWY_RESTRICT r = task.r.row(t);
  const T* HWY_RESTRICT decay = task.decay.row(t);
  const T* HWY_RESTRICT key = task.k.row(t);
  const T* HWY_RESTRICT b = task.b.row(t);
  const T* HWY_RESTRICT a = task.a.row(t + 1 < task.steps ? t + 1 : t);
  V next[kVectors];
  zero_whole<0>(d, next);
  zero_whole<0>(d, o);
  for (std::ptrdiff_t k = 0; k < task.keys; ++k, from += width, to += width) {
    V s[kVectors];
    load_whole<0>(d, from, s);
    scale_whole<0>(hn::Set(d, decay[k]), s);
    add_scaled<0>(v, hn::Set(d, key[k]), s);
    add_scaled<0>(sa, hn::Set(d, b[k]), s);
    store_whole<0>(d, s, to);
    add_scaled<0>(s, hn::Set(d, r[k]), o);
    add_scaled<0>(s, hn::Set(d, a[k]), next);
  }
  copy_whole<0>(next, sa);
}

template <int kVectors, class D, class T>
HWY_INLINE void gather_state(D d, const T* from, std::ptrdiff_t stride, std::ptrdiff_t keys,
                             std::ptrdiff_t left, T* to) {
  hn::Vec<D> s[kVectors];
  const std::ptrdiff_t width = kVectors * static_cast<std::ptrdiff_t>(hn::Lanes(d));
  for (std::ptrdiff_t k = 0; k < keys; ++k) {
    load_values<0>(d, from + k * stride, left, s);
    store_whole<0>(d, s, to + k * width);
  }
}
template <int kVectors, class D, class T>
HWY_INLINE void scatter_state(D d, const T* from, std::ptrdiff_t stride, std::ptrdiff_t keys,
                              std::ptrdiff_t left, T* to) {
  hn::Vec<D> s[kVectors];
  const std::ptrdiff_t width = kVectors * static_cast<std::ptrdiff_t>(hn::Lanes(d));
  for (std::ptrdiff_t k = 0; k < keys; ++k) {
    load_whole<0>(d, from + k * width, s);
    store_values<0>(d, s, left, to + k * stride);
  }
}

template <int kVectors, class D, class T>
HWY_INLINE void wkv7_values(D d, const Wkv7Task<T>& task, std::ptrdiff_t value,
                            LargestBits<D>& check) {
  using V = hn::Vec<D>;
  const std::ptrdiff_t left = task.values - value, keys = task.keys;
  T* const state = task.scratch;
  gather_state<kVectors>(d, task.state.data + value, task.state.stride, keys, left, state);
  V sa[kVectors], v[kVectors], o[kVectors];
  if (task.steps > 0) state_times(d, state, task.a.row(0), keys, sa);
  for (std::ptrdiff_t t = 0; t < task.steps; ++t) {
    if (task.kept != nullptr && t % wkv7_tile == 0) {
      T* const to = task.kept + t / wkv7_tile * keys * task.values + value;
      scatter_state<kVectors>(d, state, task.values, keys, left, to);
    }
    load_values<0>(d, task.v.row(t) + value, left, v);
    wkv7_step(d, task, t, state, state, v, sa, o);
    see_whole<0>(d, o, check);
    if (task.y.data != nullptr) store_values<0>(d, o, left, task.y.row(t) + value);
  }
  scatter_state<kVectors>(d, state, task.state.stride, keys, left, task.state.data + value);
}

/// Scratch of the way back for kVectors vectors of values.
template <class T>
struct Wkv7History {
  T* states;  ///< (tile + 1, keys, width): before the tile and after each step
  T* sa;      ///< (tile, width)
  T* g;       ///< (keys, width)
};

/// Puts or adds sums over the lanes of some values: others have been there before.
template <class T>
HWY_INLINE void put(bool first, T x, T* to) {
  *to = first ? x : *to + x;
}

template <int kVectors, class D, class T>
HWY_INLINE void wkv7_step_back(D d, const Wkv7VjpTask<T>& task, std::ptrdiff_t t,
                               std::ptrdiff_t value, const T* before, const T* after,
                               const T* kept_sa, T* g) {
  using V = hn::Vec<D>;
  const Wkv7Task<T>& wkv = task.wkv;
  const std::ptrdiff_t width = kVectors * static_cast<std::ptrdiff_t>(hn::Lanes(d));
  const std::ptrdiff_t left = wkv.values - value;
  const bool first = value == 0;
  V dy[kVectors], v[kVectors], sa[kVectors], dv[kVectors], dsa[kVectors];
  load_values<0>(d, task.dy.row(t) + value, left, dy);
  load_values<0>(d, wkv.v.row(t) + value, left, v);
  load_whole<0>(d, kept_sa, sa);
  zero_whole<0>(d, dv);
  zero_whole<0>(d, dsa);
  for (std::ptrdiff_t k = 0; k < wkv.keys; ++k) {
    V s[kVectors], gk[kVectors];
    load_whole<0>(d, g + k * width, gk);
    add_scaled<0>(dy, hn::Set(d, wkv.r.row(t)[k]), gk);
    store_whole<0>(d, gk, g + k * width);
    add_scaled<0>(gk, hn::Set(d, wkv.k.row(t)[k]), dv);
    add_scaled<0>(gk, hn::Set(d, wkv.b.row(t)[k]), dsa);
    load_whole<0>(d, after + k * width, s);
    const V dr = product_sum<kVectors - 1>(s, dy);
    load_whole<0>(d, before + k * width, s);
    T sums[4];
    sum_four(d, dr, product_sum<kVectors - 1>(s, gk), product_sum<kVectors - 1>(v, gk),
             product_sum<kVectors - 1>(sa, gk), sums);
    put(first, sums[0], task.dr.row(t) + k);
    put(first, sums[1], task.ddecay.row(t) + k);
    put(first, sums[2], task.dk.row(t) + k);
    put(first, sums[3], task.db.row(t) + k);
  }
  store_values<0>(d, dv, left, task.dv.row(t) + value);
  for (std::ptrdiff_t k = 0; k < wkv.keys; ++k) {
    V s[kVectors], gk[kVectors];
    load_whole<0>(d, before + k * width, s);
    const V da = product_sum<kVectors - 1>(s, dsa);
    put(first, hn::GetLane(hn::SumOfLanes(d, da)), task.da.row(t) + k);
    load_whole<0>(d, g + k * width, gk);
    scale_whole<0>(hn::Set(d, wkv.decay.row(t)[k]), gk);
    add_scaled<0>(dsa, hn::Set(d, wkv.a.row(t)[k]), gk);
    store_whole<0>(d, gk, g + k * width);
  }
}

template <int kVectors, class D, class T>
HWY_INLINE void wkv7_values_back(D d, const Wkv7VjpTask<T>& task, std::ptrdiff_t value,
                                 const Wkv7History<T>& history) {
  using V = hn::Vec<D>;
  const Wkv7Task<T>& wkv = task.wkv;
  const std::ptrdiff_t width = kVectors * static_cast<std::ptrdiff_t>(hn::Lanes(d));
  const std::ptrdiff_t left = wkv.values - value, keys = wkv.keys, size = keys * width;
  gather_state<kVectors>(d, task.dstate.data + value, task.dstate.stride, keys, left, history.g);
  for (std::ptrdiff_t tile = (wkv.steps + wkv7_tile - 1) / wkv7_tile; tile-- > 0;) {
    const std::ptrdiff_t at = tile * wkv7_tile, rest = wkv.steps - at;
    const std::ptrdiff_t steps = rest < wkv7_tile ? rest : wkv7_tile;
    gather_state<kVectors>(d, wkv.kept + tile * keys * wkv.values + value, wkv.values, keys, left,
                           history.states);
    V sa[kVectors], v[kVectors], o[kVectors];
    state_times(d, history.states, wkv.a.row(at), keys, sa);
    for (std::ptrdiff_t t = 0; t < steps; ++t) {
      store_whole<0>(d, sa, history.sa + t * width);
      load_values<0>(d, wkv.v.row(at + t) + value, left, v);
      wkv7_step(d, wkv, at + t, history.states + t * size, history.states + (t + 1) * size, v, sa,
                o);
    }
    for (std::ptrdiff_t t = steps; t-- > 0;) {
      wkv7_step_back<kVectors>(d, task, at + t, value, history.states + t * size,
                               history.states + (t + 1) * size, history.sa + t * width, history.g);
    }
  }
  scatter_state<kVectors>(d, history.g, task.dstate.stride, keys, left, task.dstate.data + value);
}

}  // namespace detail

/// Elements of scratch memory, aligned to a vector, for a head with so many keys.
template <class T>
std::size_t wkv7_scratch(std::ptrdiff_t keys) {
  return static_cast<std::size_t>(keys * detail::kWkv7Vectors) * hn::Lanes(hn::ScalableTag<T>());
}
template <class T>
std::size_t wkv7_vjp_scratch(std::ptrdiff_t keys) {
  const std::ptrdiff_t rows = (wkv7_tile + 2) * keys + wkv7_tile;
  return static_cast<std::size_t>(rows * detail::kWkv7Vectors) * hn::Lanes(hn::ScalableTag<T>());
}

/// Runs the recurrence; whether all results are finite.
template <class T>
bool wkv7(const Wkv7Task<T>& task) {
  const hn::ScalableTag<T> d;
  const std::ptrdiff_t width = detail::kWkv7Vectors * static_cast<std::ptrdiff_t>(hn::Lanes(d));
  detail::LargestBits<hn::ScalableTag<T>> check(d);
  for (std::ptrdiff_t value = 0; value < task.values; value += width) {
    detail::wkv7_values<detail::kWkv7Vectors>(d, task, value, check);
  }
  return check.finite(d);
}

template <class T>
void wkv7_vjp(const Wkv7VjpTask<T>& task) {
  const hn::ScalableTag<T> d;
  const std::ptrdiff_t width = detail::kWkv7Vectors * static_cast<std::ptrdiff_t>(hn::Lanes(d));
  const std::ptrdiff_t size = task.wkv.keys * width;
  const detail::Wkv7History<T> history{task.scratch, task.scratch + (wkv7_tile + 1) * size,
                                       task.scratch + (wkv7_tile + 1) * size + wkv7_tile * width};
  for (std::ptrdiff_t value = 0; value < task.wkv.values; value += width) {
    detail::wkv7_values_back<detail::kWkv7Vectors>(d, task, value, history);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace kernels
QUERN_NAMESPACE_END
HWY_AFTER_NAMESPACE();

#endif  // QUERN_KERNELS_WKV7_INL_HPP
