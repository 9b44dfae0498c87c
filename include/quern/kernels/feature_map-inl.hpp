// SPDX-License-Identifier: Apache-2.0

/// \file
/// Elementwise feature maps of linear attention that are no activations of networks: elu(x) + 1 and
/// relu(x)^2, with derivatives. Within 2 ulp.

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

}  // namespace HWY_NAMESPACE
}  // namespace kernels
QUERN_NAMESPACE_END
HWY_AFTER_NAMESPACE();

#endif  // QUERN_KERNELS_FEATURE_MAP_INL_HPP
