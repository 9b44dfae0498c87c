// SPDX-License-Identifier: Apache-2.0

/// \file
/// RWKV-7's recurrence S = S diag(w) + v k^T + (S a) b^T, o = S r of one head, and the way back.
///
/// Lanes are rows of S (values), which know nothing of each other; S lies as (keys, values). One
/// pass over S a step: while a step writes S, S a of the next step is summed too. That is five
/// multiply-adds an element, and no chunked form takes fewer: four products with S are left.
///
/// On the way back states of a tile are computed once more from the one that was kept, with S a of
/// each step, which was kept too: three multiply-adds an element. With G the gradient of S: G += do
/// r^T; dr = S^T do, dv = G k, dk = G^T v, db = G^T (S a), dw = sum of G S over values, d(S a) = G
/// b, da = S^T d(S a); then G = G diag(w) + d(S a) a^T.

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

#if HWY_TARGET != HWY_SCALAR && !HWY_HAVE_SCALABLE
/// Four numbers: the sums of lanes k, k + 4, k + 8, … of a vector.
template <class D, class V>
HWY_INLINE auto sum_quarters(D d, V x) {
  if constexpr (hn::MaxLanes(D()) == 4) {
    static_cast<void>(d);
    return x;
  } else {
    const hn::Half<D> half;
    return sum_quarters(half, hn::Add(hn::LowerHalf(half, x), hn::UpperHalf(half, x)));
  }
}
#endif

/// Sums of the lanes of four vectors. Pairs are interleaved and added, so that all four take about
/// as many operations as two would alone.
template <class D, class V, class T>
HWY_INLINE void sum_four(D d, V a, V b, V c, V e, T* HWY_RESTRICT to) {
#if HWY_TARGET != HWY_SCALAR && !HWY_HAVE_SCALABLE
  if constexpr (sizeof(T) == 4 && hn::MaxLanes(D()) >= 4) {
    const hn::Repartition<double, D> dd;
    const hn::CappedTag<T, 4> four;
    const V ab = hn::Add(hn::InterleaveLower(d, a, b), hn::InterleaveUpper(d, a, b));
    const V ce = hn::Add(hn::InterleaveLower(d, c, e), hn::InterleaveUpper(d, c, e));
    const auto left = hn::BitCast(dd, ab), right = hn::BitCast(dd, ce);
    const V all = hn::Add(hn::BitCast(d, hn::InterleaveLower(dd, left, right)),
                          hn::BitCast(d, hn::InterleaveUpper(dd, left, right)));
    hn::StoreU(sum_quarters(d, all), four, to);
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

/// A step: S moves on, o where it is asked for, and S a of the next step.
template <bool kOut, int kVectors, class D, class V, class T>
HWY_INLINE void wkv7_step(D d, const Wkv7Task<T>& task, std::ptrdiff_t t, T* state,
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
  for (std::ptrdiff_t k = 0; k < task.keys; ++k, state += width) {
    V s[kVectors];
    load_whole<0>(d, state, s);
    scale_whole<0>(hn::Set(d, decay[k]), s);
    add_scaled<0>(v, hn::Set(d, key[k]), s);
    add_scaled<0>(sa, hn::Set(d, b[k]), s);
    store_whole<0>(d, s, state);
    if constexpr (kOut) add_scaled<0>(s, hn::Set(d, r[k]), o);
    add_scaled<0>(s, hn::Set(d, a[k]), next);
  }
  copy_whole<0>(next, sa);
}

/// A step whose S a is known: S from `from` to `to`.
template <int kVectors, class D, class V, class T>
HWY_INLINE void wkv7_step_again(D d, const Wkv7Task<T>& task, std::ptrdiff_t t, const T* from,
                                T* HWY_RESTRICT to, const V (&v)[kVectors],
                                const V (&sa)[kVectors]) {
  const std::ptrdiff_t width = kVectors * static_cast<std::ptrdiff_t>(hn::Lanes(d));
  const T* HWY_RESTRICT decay = task.decay.row(t);
  const T* HWY_RESTRICT key = task.k.row(t);
  const T* HWY_RESTRICT b = task.b.row(t);
  for (std::ptrdiff_t k = 0; k < task.keys; ++k, from += width, to += width) {
    V s[kVectors];
    load_whole<0>(d, from, s);
    scale_whole<0>(hn::Set(d, decay[k]), s);
    add_scaled<0>(v, hn::Set(d, key[k]), s);
    add_scaled<0>(sa, hn::Set(d, b[k]), s);
    store_whole<0>(d, s, to);
  }
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

/// All steps of some values.
template <bool kOut, int kVectors, class D, class T>
HWY_INLINE void wkv7_values(D d, const Wkv7Task<T>& task, std::ptrdiff_t value,
                            LargestBits<D>& check) {
  using V = hn::Vec<D>;
  const std::ptrdiff_t left = task.values - value, keys = task.keys;
  T* const state = task.scratch;
  gather_state<kVectors>(d, task.state.data + value, task.state.stride, keys, left, state);
  V sa[kVectors], v[kVectors], o[kVectors];
  if (task.steps > 0) state_times(d, state, task.a.row(0), keys, sa);
  for (std::ptrdiff_t t = 0; t < task.steps; ++t) {
    if (task.kept != nullptr) {
      if (t % wkv7_tile == 0) {
        T* const to = task.kept + t / wkv7_tile * keys * task.values + value;
        scatter_state<kVectors>(d, state, task.values, keys, left, to);
      }
      store_values<0>(d, sa, left, task.kept_sa + t * task.values + value);
    }
    load_values<0>(d, task.v.row(t) + value, left, v);
    wkv7_step<kOut>(d, task, t, state, v, sa, o);
    if constexpr (kOut) {
      see_whole<0>(d, o, check);
      store_values<0>(d, o, left, task.y.row(t) + value);
    } else {
      see_whole<0>(d, sa, check);
    }
  }
  scatter_state<kVectors>(d, state, task.state.stride, keys, left, task.state.data + value);
}

/// Scratch of the way back for kVectors vectors of values.
template <class T>
struct Wkv7History {
  T* states;  ///< (tile + 1, keys, width): before the tile and after each step
  T* g;       ///< (keys, width): G, faded and fed by the step after
  T* sums;    ///< (keys, 4): dr, ddecay, dk, db
  T* da;      ///< (keys, lanes): to be added up
};

/// Scratch elements for so many keys, and where in it things are.
template <class T, class D>
HWY_INLINE std::ptrdiff_t wkv7_history(D d, std::ptrdiff_t keys, std::ptrdiff_t width, T* scratch,
                                       Wkv7History<T>& history) {
  const std::ptrdiff_t lanes = static_cast<std::ptrdiff_t>(hn::Lanes(d));
  const std::ptrdiff_t states = (wkv7_tile + 1) * keys * width, g = keys * width;
  const std::ptrdiff_t sums = (4 * keys + lanes - 1) / lanes * lanes;
  if (scratch != nullptr) {
    history = {scratch, scratch + states, scratch + states + g, scratch + states + g + sums};
  }
  return states + g + sums + keys * lanes;
}

/// Puts or adds sums over the lanes of some values: others have been there before.
template <class T>
HWY_INLINE void put(bool first, T x, T* to) {
  *to = first ? x : *to + x;
}

/// (keys, 4) sums to the rows of step t.
template <class D, class T>
HWY_INLINE void put_sums(D d, const Wkv7VjpTask<T>& task, std::ptrdiff_t t, bool first,
                         const T* HWY_RESTRICT sums) {
  T* const rows[4] = {task.dr.row(t), task.ddecay.row(t), task.dk.row(t), task.db.row(t)};
  std::ptrdiff_t k = 0;
#if HWY_TARGET != HWY_SCALAR
  const std::ptrdiff_t lanes = static_cast<std::ptrdiff_t>(hn::Lanes(d));
  for (; k + lanes <= task.wkv.keys; k += lanes) {
    hn::Vec<D> x[4];
    hn::LoadInterleaved4(d, sums + 4 * k, x[0], x[1], x[2], x[3]);
    if (!first) {
      x[0] = hn::Add(x[0], hn::LoadU(d, rows[0] + k));
      x[1] = hn::Add(x[1], hn::LoadU(d, rows[1] + k));
      x[2] = hn::Add(x[2], hn::LoadU(d, rows[2] + k));
      x[3] = hn::Add(x[3], hn::LoadU(d, rows[3] + k));
    }
    hn::StoreU(x[0], d, rows[0] + k);
    hn::StoreU(x[1], d, rows[1] + k);
    hn::StoreU(x[2], d, rows[2] + k);
    hn::StoreU(x[3], d, rows[3] + k);
  }
#endif
  static_cast<void>(d);
  for (; k < task.wkv.keys; ++k) {
    for (int i = 0; i < 4; ++i) put(first, sums[4 * k + i], rows[i] + k);
  }
}

/// Sums of the lanes of (keys, lanes) to a row.
template <class D, class T>
HWY_INLINE void put_lane_sums(D d, std::ptrdiff_t keys, bool first, const T* HWY_RESTRICT from,
                              T* to) {
  const std::ptrdiff_t lanes = static_cast<std::ptrdiff_t>(hn::Lanes(d));
  std::ptrdiff_t k = 0;
  for (; k + 4 <= keys; k += 4, from += 4 * lanes) {
    T sums[4];
    sum_four(d, hn::Load(d, from), hn::Load(d, from + lanes), hn::Load(d, from + 2 * lanes),
             hn::Load(d, from + 3 * lanes), sums);
    for (int i = 0; i < 4; ++i) put(first, sums[i], to + k + i);
  }
  for (; k < keys; ++k, from += lanes) {
    put(first, hn::GetLane(hn::SumOfLanes(d, hn::Load(d, from))), to + k);
  }
}

/// Step t, from S before and after it. What step t + 1 leaves to do to G (a fading and dsa a^T) is
/// done on the way, and da of that step, since it is a product with the same S; `dsa` is that
/// step's, then this one's.
template <bool kLast, int kVectors, class D, class V, class T>
HWY_INLINE void wkv7_step_back(D d, const Wkv7VjpTask<T>& task, std::ptrdiff_t t,
                               std::ptrdiff_t value, const T* HWY_RESTRICT before,
                               const T* HWY_RESTRICT after, const Wkv7History<T>& history,
                               V (&dsa)[kVectors]) {
  const Wkv7Task<T>& wkv = task.wkv;
  const std::ptrdiff_t lanes = static_cast<std::ptrdiff_t>(hn::Lanes(d)), width = kVectors * lanes;
  const std::ptrdiff_t left = wkv.values - value;
  const bool first = value == 0;
  V dy[kVectors], v[kVectors], sa[kVectors], dv[kVectors], next[kVectors];
  load_values<0>(d, task.dy.row(t) + value, left, dy);
  load_values<0>(d, wkv.v.row(t) + value, left, v);
  load_values<0>(d, wkv.kept_sa + t * wkv.values + value, left, sa);
  zero_whole<0>(d, dv);
  zero_whole<0>(d, next);
  const T* HWY_RESTRICT r = wkv.r.row(t);
  const T* HWY_RESTRICT key = wkv.k.row(t);
  const T* HWY_RESTRICT b = wkv.b.row(t);
  const T* HWY_RESTRICT decay = kLast ? nullptr : wkv.decay.row(t + 1);
  const T* HWY_RESTRICT a = kLast ? nullptr : wkv.a.row(t + 1);
  T* HWY_RESTRICT g = history.g;
  for (std::ptrdiff_t k = 0; k < wkv.keys; ++k, g += width, before += width, after += width) {
    V s[kVectors], gk[kVectors];
    load_whole<0>(d, g, gk);
    load_whole<0>(d, after, s);
    if constexpr (!kLast) {
      hn::Store(product_sum<kVectors - 1>(s, dsa), d, history.da + k * lanes);
      scale_whole<0>(hn::Set(d, decay[k]), gk);
      add_scaled<0>(dsa, hn::Set(d, a[k]), gk);
    }
    add_scaled<0>(dy, hn::Set(d, r[k]), gk);
    store_whole<0>(d, gk, g);
    add_scaled<0>(gk, hn::Set(d, key[k]), dv);
    add_scaled<0>(gk, hn::Set(d, b[k]), next);
    const V dr = product_sum<kVectors - 1>(s, dy);
    load_whole<0>(d, before, s);
    sum_four(d, dr, product_sum<kVectors - 1>(s, gk), product_sum<kVectors - 1>(v, gk),
             product_sum<kVectors - 1>(sa, gk), history.sums + 4 * k);
  }
  store_values<0>(d, dv, left, task.dv.row(t) + value);
  copy_whole<0>(next, dsa);
  put_sums(d, task, t, first, history.sums);
  if constexpr (!kLast) put_lane_sums(d, wkv.keys, first, history.da, task.da.row(t + 1));
}

/// What step 0 leaves to do: its da, and G before it.
template <int kVectors, class D, class V, class T>
HWY_INLINE void wkv7_begin_back(D d, const Wkv7VjpTask<T>& task, std::ptrdiff_t value,
                                const T* HWY_RESTRICT before, const Wkv7History<T>& history,
                                const V (&dsa)[kVectors]) {
  const std::ptrdiff_t lanes = static_cast<std::ptrdiff_t>(hn::Lanes(d)), width = kVectors * lanes;
  for (std::ptrdiff_t k = 0; k < task.wkv.keys; ++k) {
    V s[kVectors], gk[kVectors];
    load_whole<0>(d, before + k * width, s);
    hn::Store(product_sum<kVectors - 1>(s, dsa), d, history.da + k * lanes);
    load_whole<0>(d, history.g + k * width, gk);
    scale_whole<0>(hn::Set(d, task.wkv.decay.row(0)[k]), gk);
    add_scaled<0>(dsa, hn::Set(d, task.wkv.a.row(0)[k]), gk);
    store_whole<0>(d, gk, history.g + k * width);
  }
  put_lane_sums(d, task.wkv.keys, value == 0, history.da, task.da.row(0));
}

template <int kVectors, class D, class T>
HWY_INLINE void wkv7_values_back(D d, const Wkv7VjpTask<T>& task, std::ptrdiff_t value,
                                 const Wkv7History<T>& history) {
  using V = hn::Vec<D>;
  const Wkv7Task<T>& wkv = task.wkv;
  const std::ptrdiff_t width = kVectors * static_cast<std::ptrdiff_t>(hn::Lanes(d));
  const std::ptrdiff_t left = wkv.values - value, keys = wkv.keys, size = keys * width;
  gather_state<kVectors>(d, task.dstate.data + value, task.dstate.stride, keys, left, history.g);
  V dsa[kVectors];
  zero_whole<0>(d, dsa);
  for (std::ptrdiff_t tile = (wkv.steps + wkv7_tile - 1) / wkv7_tile; tile-- > 0;) {
    const std::ptrdiff_t at = tile * wkv7_tile, rest = wkv.steps - at;
    const std::ptrdiff_t steps = rest < wkv7_tile ? rest : wkv7_tile;
    gather_state<kVectors>(d, wkv.kept + tile * keys * wkv.values + value, wkv.values, keys, left,
                           history.states);
    for (std::ptrdiff_t t = 0; t < steps; ++t) {
      V sa[kVectors], v[kVectors];
      load_values<0>(d, wkv.kept_sa + (at + t) * wkv.values + value, left, sa);
      load_values<0>(d, wkv.v.row(at + t) + value, left, v);
      T* const from = history.states + t * size;
      wkv7_step_again<kVectors>(d, wkv, at + t, from, from + size, v, sa);
    }
    for (std::ptrdiff_t t = steps; t-- > 0;) {
      const T* const before = history.states + t * size;
      if (at + t + 1 == wkv.steps) {
        wkv7_step_back<true>(d, task, at + t, value, before, before + size, history, dsa);
      } else {
        wkv7_step_back<false>(d, task, at + t, value, before, before + size, history, dsa);
      }
    }
  }
  if (wkv.steps > 0) wkv7_begin_back(d, task, value, history.states, history, dsa);
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
  const hn::ScalableTag<T> d;
  detail::Wkv7History<T> unused{};
  const std::ptrdiff_t width = detail::kWkv7Vectors * static_cast<std::ptrdiff_t>(hn::Lanes(d));
  return static_cast<std::size_t>(
      detail::wkv7_history(d, keys, width, static_cast<T*>(nullptr), unused));
}

/// Runs the recurrence; whether all results are finite.
template <class T>
bool wkv7(const Wkv7Task<T>& task) {
  const hn::ScalableTag<T> d;
  const std::ptrdiff_t width = detail::kWkv7Vectors * static_cast<std::ptrdiff_t>(hn::Lanes(d));
  detail::LargestBits<hn::ScalableTag<T>> check(d);
  for (std::ptrdiff_t value = 0; value < task.values; value += width) {
    if (task.y.data != nullptr) {
      detail::wkv7_values<true, detail::kWkv7Vectors>(d, task, value, check);
    } else {
      detail::wkv7_values<false, detail::kWkv7Vectors>(d, task, value, check);
    }
  }
  return check.finite(d);
}

template <class T>
void wkv7_vjp(const Wkv7VjpTask<T>& task) {
  const hn::ScalableTag<T> d;
  const std::ptrdiff_t width = detail::kWkv7Vectors * static_cast<std::ptrdiff_t>(hn::Lanes(d));
  detail::Wkv7History<T> history{};
  detail::wkv7_history(d, task.wkv.keys, width, task.scratch, history);
  for (std::ptrdiff_t value = 0; value < task.wkv.values; value += width) {
    detail::wkv7_values_back<detail::kWkv7Vectors>(d, task, value, history);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace kernels
QUERN_NAMESPACE_END
HWY_AFTER_NAMESPACE();

#endif  // QUERN_KERNELS_WKV7_INL_HPP
