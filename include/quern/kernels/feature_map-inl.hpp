// SPDX-License-Identifier: Apache-2.0

/// \file
/// Elementwise feature maps of linear attention that are no activations of networks: elu(x) + 1 and
/// relu(x)^2, with derivatives, within 2 ulp; and the exponentials of whole rows, within 2 ulp of
/// the exponential of what was rounded once.

#if defined(QUERN_KERNELS_FEATURE_MAP_INL_HPP) == defined(HWY_TARGET_TOGGLE)
#ifdef QUERN_KERNELS_FEATURE_MAP_INL_HPP
#undef QUERN_KERNELS_FEATURE_MAP_INL_HPP
#else
#define QUERN_KERNELS_FEATURE_MAP_INL_HPP
#endif

#include "quern/core/config.hpp"
#include "quern/kernels/activation-inl.hpp"
#include "quern/kernels/feature_map_types.hpp"
#include "quern/kernels/math-inl.hpp"
#include "quern/kernels/partial-inl.hpp"
#include "quern/kernels/reduce-inl.hpp"

#include "hwy/highway.h"

#include <cstddef>

HWY_BEFORE_NAMESPACE();
QUERN_NAMESPACE_BEGIN
namespace kernels {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

template <>
struct Vectorized<kernels::Elu1> {
  template <class D, class V>
  static HWY_INLINE V apply(kernels::Elu1, D d, V x) {
    const V e = HWY_NAMESPACE::exp(d, x);
    return hn::IfThenElse(hn::Le(x, hn::Zero(d)), e, hn::Add(x, hn::Set(d, hn::TFromD<D>{1})));
  }
};
template <>
struct Vectorized<kernels::ReluSquare> {
  template <class D, class V>
  static HWY_INLINE V apply(kernels::ReluSquare, D d, V x) {
    return hn::IfThenZeroElse(hn::Le(x, hn::Zero(d)), hn::Mul(x, x));
  }
};
template <>
struct VectorizedDerivative<kernels::Elu1> {
  template <class D, class V>
  static HWY_INLINE V apply(kernels::Elu1, D d, V x) {
    return hn::IfThenElse(hn::Le(x, hn::Zero(d)), HWY_NAMESPACE::exp(d, x),
                          hn::Set(d, hn::TFromD<D>{1}));
  }
};
template <>
struct VectorizedDerivative<kernels::ReluSquare> {
  template <class D, class V>
  static HWY_INLINE V apply(kernels::ReluSquare, D d, V x) {
    return hn::IfThenZeroElse(hn::Le(x, hn::Zero(d)), hn::Add(x, x));
  }
};

/// See ExpRows.
template <class T>
void exp_rows(const ExpRows<T>& in) {
  const hn::ScalableTag<T> d;
  const std::size_t lanes = hn::Lanes(d), rest = in.cols % lanes, whole = in.cols - rest;
  const auto factor = hn::Set(d, in.factor), offset = hn::Set(d, in.offset);
  const T* u = in.u;
  T* phi = in.phi;
  for (std::size_t r = 0; r < in.rows; ++r, u += in.u_stride, phi += in.phi_stride) {
    T shift = in.shifts != nullptr ? in.shifts[r] : T{0};
    if (in.own) {
      const T largest = max_value<T>(u, in.cols);
      if (in.largest != nullptr) in.largest[r] = largest;
      shift += largest;
    }
    const auto out = hn::Set(d, shift);
    const auto map = [&](auto x) {
      return hn::MulAdd(factor, HWY_NAMESPACE::exp(d, hn::Sub(x, out)), offset);
    };
    for (std::size_t c = 0; c < whole; c += lanes) hn::StoreU(map(hn::LoadU(d, u + c)), d, phi + c);
    if (rest > 0) store_partial(map(load_partial(d, u + whole, rest)), d, phi + whole, rest);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace kernels
QUERN_NAMESPACE_END
HWY_AFTER_NAMESPACE();

#endif  // QUERN_KERNELS_FEATURE_MAP_INL_HPP
