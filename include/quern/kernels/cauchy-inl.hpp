// SPDX-License-Identifier: Apache-2.0

/// \file
/// Cauchy sums over the modes of many channels at some nodes, for the generating function of a
/// bilinear state space, and their gradients. A lane is a channel, and a node is the same for all.
///
/// The usual 2 / (1 + w) / (2 / dt (1 - w) / (1 + w) - lambda) is written with one denominator,
/// which has no singular node at w = -1. Meant for double: nodes next to a pole lose what their
/// distance loses.

#if defined(QUERN_KERNELS_CAUCHY_INL_HPP) == defined(HWY_TARGET_TOGGLE)
#ifdef QUERN_KERNELS_CAUCHY_INL_HPP
#undef QUERN_KERNELS_CAUCHY_INL_HPP
#else
#define QUERN_KERNELS_CAUCHY_INL_HPP
#endif

#include "quern/core/config.hpp"
#include "quern/kernels/cauchy_types.hpp"

#include "hwy/highway.h"

#include <cstddef>

HWY_BEFORE_NAMESPACE();
QUERN_NAMESPACE_BEGIN
namespace kernels {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

namespace detail {

template <class T>
using CauchyTag = hn::CappedTag<T, cauchy_lanes<T>>;

template <class T>
struct CauchyValue {
  hn::Vec<CauchyTag<T>> re;
  hn::Vec<CauchyTag<T>> im;
};

template <class T>
HWY_INLINE CauchyValue<T> load_tile(const T* from, std::size_t lane) {
  const CauchyTag<T> d;
  return {hn::Load(d, from + lane), hn::Load(d, from + cauchy_lanes<T> + lane)};
}
template <class T>
HWY_INLINE void store_tile(CauchyValue<T> v, T* to, std::size_t lane) {
  const CauchyTag<T> d;
  hn::Store(v.re, d, to + lane);
  hn::Store(v.im, d, to + cauchy_lanes<T> + lane);
}
template <class T>
HWY_INLINE CauchyValue<T> spread(const T* w) {
  const CauchyTag<T> d;
  return {hn::Set(d, w[0]), hn::Set(d, w[1])};
}
/// a b + c, and conj(a) b + c.
template <class T>
HWY_INLINE CauchyValue<T> fuse(CauchyValue<T> a, CauchyValue<T> b, CauchyValue<T> c) {
  return {hn::NegMulAdd(a.im, b.im, hn::MulAdd(a.re, b.re, c.re)),
          hn::MulAdd(a.im, b.re, hn::MulAdd(a.re, b.im, c.im))};
}
template <class T>
HWY_INLINE CauchyValue<T> fuse_conj(CauchyValue<T> a, CauchyValue<T> b, CauchyValue<T> c) {
  return {hn::MulAdd(a.im, b.im, hn::MulAdd(a.re, b.re, c.re)),
          hn::NegMulAdd(a.im, b.re, hn::MulAdd(a.re, b.im, c.im))};
}
template <class T>
HWY_INLINE CauchyValue<T> none() {
  const CauchyTag<T> d;
  return {hn::Zero(d), hn::Zero(d)};
}

/// R of a mode at a node.
template <class T>
HWY_INLINE CauchyValue<T> resolvent(CauchyValue<T> lambda, hn::Vec<CauchyTag<T>> dt,
                                    CauchyValue<T> one_less_w, CauchyValue<T> half) {
  const CauchyValue<T> scaled = {hn::Neg(hn::Mul(dt, lambda.re)), hn::Neg(hn::Mul(dt, lambda.im))};
  const CauchyValue<T> x = fuse<T>(scaled, half, one_less_w);
  const auto factor = hn::Div(dt, hn::MulAdd(x.re, x.re, hn::Mul(x.im, x.im)));
  return {hn::Mul(x.re, factor), hn::Neg(hn::Mul(x.im, factor))};
}

template <std::size_t kEach, class T>
void cauchy_sums_of(const CauchyTask<T>& task) {
  const CauchyTag<T> d;
  constexpr std::size_t kTile = 2 * cauchy_lanes<T>;
  for (std::size_t l = 0; l < task.nodes; ++l) {
    const CauchyValue<T> a = spread<T>(task.node + 4 * l), half = spread<T>(task.node + 4 * l + 2);
    for (std::size_t lane = 0; lane < cauchy_lanes<T>; lane += hn::Lanes(d)) {
      const auto dt = hn::Load(d, task.dt + lane);
      CauchyValue<T> sums[kEach];
      HWY_UNROLL(9)
      for (std::size_t k = 0; k < kEach; ++k) sums[k] = none<T>();
      for (std::size_t n = 0; n < task.modes; ++n) {
        const auto r = resolvent<T>(load_tile<T>(task.lambda + n * kTile, lane), dt, a, half);
        const T* const products = task.products + n * kEach * kTile;
        HWY_UNROLL(9)
        for (std::size_t k = 0; k < kEach; ++k) {
          sums[k] = fuse<T>(load_tile<T>(products + k * kTile, lane), r, sums[k]);
        }
      }
      HWY_UNROLL(9)
      for (std::size_t k = 0; k < kEach; ++k) {
        store_tile<T>(sums[k], task.sums + (l * kEach + k) * kTile, lane);
      }
    }
  }
}

/// dR = sum_k conj(products_k) dsums_k; lambda gets conj(half R^2) dR, dt gets Re(conj(R / dt +
/// half lambda R^2 / dt) dR).
template <std::size_t kEach, class T>
void cauchy_sums_vjp_of(const CauchyTask<T>& task) {
  const CauchyTag<T> d;
  constexpr std::size_t kTile = 2 * cauchy_lanes<T>;
  for (std::size_t n = 0; n < task.modes; ++n) {
    for (std::size_t lane = 0; lane < cauchy_lanes<T>; lane += hn::Lanes(d)) {
      const auto dt = hn::Load(d, task.dt + lane);
      const CauchyValue<T> lambda = load_tile<T>(task.lambda + n * kTile, lane);
      const T* const products = task.products + n * kEach * kTile;
      T* const dproducts = task.dproducts + n * kEach * kTile;
      CauchyValue<T> sums[kEach];
      HWY_UNROLL(9)
      for (std::size_t k = 0; k < kEach; ++k) sums[k] = load_tile<T>(dproducts + k * kTile, lane);
      CauchyValue<T> dlambda = load_tile<T>(task.dlambda + n * kTile, lane);
      auto ddt = hn::Zero(d);
      for (std::size_t l = 0; l < task.nodes; ++l) {
        const CauchyValue<T> a = spread<T>(task.node + 4 * l);
        const CauchyValue<T> half = spread<T>(task.node + 4 * l + 2);
        const CauchyValue<T> r = resolvent<T>(lambda, dt, a, half);
        CauchyValue<T> dr = none<T>();
        HWY_UNROLL(9)
        for (std::size_t k = 0; k < kEach; ++k) {
          const auto g = load_tile<T>(task.dsums + (l * kEach + k) * kTile, lane);
          sums[k] = fuse_conj<T>(r, g, sums[k]);
          dr = fuse_conj<T>(load_tile<T>(products + k * kTile, lane), g, dr);
        }
        const CauchyValue<T> slope = fuse<T>(half, fuse<T>(r, r, none<T>()), none<T>());
        dlambda = fuse_conj<T>(slope, dr, dlambda);
        const CauchyValue<T> by_dt = fuse<T>(lambda, slope, r);
        ddt = hn::MulAdd(by_dt.re, dr.re, hn::MulAdd(by_dt.im, dr.im, ddt));
      }
      HWY_UNROLL(9)
      for (std::size_t k = 0; k < kEach; ++k) store_tile<T>(sums[k], dproducts + k * kTile, lane);
      store_tile<T>(dlambda, task.dlambda + n * kTile, lane);
      hn::Store(hn::Add(hn::Load(d, task.ddt + lane), hn::Div(ddt, dt)), d, task.ddt + lane);
    }
  }
}

}  // namespace detail

/// See CauchyTask.
template <class T>
void cauchy_sums(const CauchyTask<T>& task) {
  if (task.products_each == 1) return detail::cauchy_sums_of<1>(task);
  if (task.products_each == 4) return detail::cauchy_sums_of<4>(task);
  detail::cauchy_sums_of<9>(task);
}

/// Gradients of cauchy_sums.
template <class T>
void cauchy_sums_vjp(const CauchyTask<T>& task) {
  if (task.products_each == 1) return detail::cauchy_sums_vjp_of<1>(task);
  if (task.products_each == 4) return detail::cauchy_sums_vjp_of<4>(task);
  detail::cauchy_sums_vjp_of<9>(task);
}

}  // namespace HWY_NAMESPACE
}  // namespace kernels
QUERN_NAMESPACE_END
HWY_AFTER_NAMESPACE();

#endif  // QUERN_KERNELS_CAUCHY_INL_HPP
