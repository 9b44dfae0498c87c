// SPDX-License-Identifier: Apache-2.0

/// \file
/// Losses of pairs and their derivatives with respect to the prediction, in one pass over memory.
/// Terms are within 8 u of their parts; runs of 64 vectors are summed in T, the runs in double.

#if defined(QUERN_KERNELS_LOSS_INL_HPP) == defined(HWY_TARGET_TOGGLE)
#ifdef QUERN_KERNELS_LOSS_INL_HPP
#undef QUERN_KERNELS_LOSS_INL_HPP
#else
#define QUERN_KERNELS_LOSS_INL_HPP
#endif

#include "quern/core/config.hpp"
#include "quern/kernels/loss_types.hpp"
#include "quern/kernels/math-inl.hpp"
#include "quern/kernels/norm-inl.hpp"

#include "hwy/highway.h"

#include <cstddef>

HWY_BEFORE_NAMESPACE();
QUERN_NAMESPACE_BEGIN
namespace kernels {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

/// What a name does: `value` and `slope` (d value / d p) of vectors p, t.
template <class F>
struct PairLoss;

template <>
struct PairLoss<kernels::SquaredLoss> {
  template <class D, class V>
  static HWY_INLINE V value(kernels::SquaredLoss, D, V p, V t) {
    const V apart = hn::Sub(p, t);
    return hn::Mul(apart, apart);
  }
  template <class D, class V>
  static HWY_INLINE V slope(kernels::SquaredLoss, D, V p, V t) {
    const V apart = hn::Sub(p, t);
    return hn::Add(apart, apart);
  }
};
template <>
struct PairLoss<kernels::AbsoluteLoss> {
  template <class D, class V>
  static HWY_INLINE V value(kernels::AbsoluteLoss, D, V p, V t) {
    return hn::Abs(hn::Sub(p, t));
  }
  template <class D, class V>
  static HWY_INLINE V slope(kernels::AbsoluteLoss, D d, V p, V t) {
    const V one = hn::Set(d, hn::TFromD<D>{1});
    const V sign = hn::CopySign(one, hn::Sub(p, t));
    return hn::IfThenZeroElse(hn::Eq(p, t), sign);
  }
};
template <class T>
struct PairLoss<kernels::HuberLoss<T>> {
  template <class D, class V>
  static HWY_INLINE V value(const kernels::HuberLoss<T>& f, D d, V p, V t) {
    const V apart = hn::Abs(hn::Sub(p, t)), delta = hn::Set(d, f.delta);
    const V half = hn::Set(d, static_cast<T>(0.5));
    const V near = hn::Mul(half, hn::Mul(apart, apart));
    const V far = hn::Mul(delta, hn::NegMulAdd(half, delta, apart));
    return hn::IfThenElse(hn::Le(apart, delta), near, far);
  }
  template <class D, class V>
  static HWY_INLINE V slope(const kernels::HuberLoss<T>& f, D d, V p, V t) {
    const V delta = hn::Set(d, f.delta), apart = hn::Sub(p, t);
    const V far = hn::CopySign(delta, apart);
    return hn::IfThenElse(hn::Gt(hn::Abs(apart), delta), far, apart);
  }
};
template <class T>
struct PairLoss<kernels::LogisticLoss<T>> {
  // -log s(p) = softplus(-p), -log(1 - s(p)) = softplus(p) = softplus(-p) + p.
  template <class D, class V>
  static HWY_INLINE V value(const kernels::LogisticLoss<T>& f, D d, V p, V t) {
    const V one = hn::Set(d, T{1});
    const V miss = hn::Sub(one, t);
    const V weight = hn::MulAdd(hn::Set(d, f.positive), t, miss);
    return hn::MulAdd(weight, HWY_NAMESPACE::softplus(d, hn::Neg(p)), hn::Mul(miss, p));
  }
  template <class D, class V>
  static HWY_INLINE V slope(const kernels::LogisticLoss<T>& f, D d, V p, V t) {
    const V one = hn::Set(d, T{1});
    const V miss = hn::Sub(one, t);
    const V weight = hn::MulAdd(hn::Set(d, f.positive), t, miss);
    return hn::NegMulAdd(weight, HWY_NAMESPACE::sigmoid(d, hn::Neg(p)), miss);
  }
};
template <>
struct PairLoss<kernels::DivergenceLoss> {
  template <class D, class V>
  static HWY_INLINE V value(kernels::DivergenceLoss, D d, V p, V t) {
    const V term = hn::Mul(t, hn::Sub(HWY_NAMESPACE::log(d, t), p));
    return hn::IfThenZeroElse(hn::Eq(t, hn::Zero(d)), term);
  }
  template <class D, class V>
  static HWY_INLINE V slope(kernels::DivergenceLoss, D, V /*p*/, V t) {
    return hn::Neg(t);
  }
};
template <>
struct PairLoss<kernels::LogDivergenceLoss> {
  template <class D, class V>
  static HWY_INLINE V value(kernels::LogDivergenceLoss, D d, V p, V t) {
    return hn::Mul(HWY_NAMESPACE::exp(d, t), hn::Sub(t, p));
  }
  template <class D, class V>
  static HWY_INLINE V slope(kernels::LogDivergenceLoss, D d, V /*p*/, V t) {
    return hn::Neg(HWY_NAMESPACE::exp(d, t));
  }
};

/// Sum of f(p[i], t[i]); gradient[i] = scale slope(p[i], t[i]) unless gradient is null (it may be p
/// itself).
template <class F, class T>
double pair_loss(const F& f, const T* p, const T* t, std::size_t n, T scale, T* gradient) {
  const hn::ScalableTag<T> d;
  const std::size_t lanes = hn::Lanes(d), run = detail::kNormRun * lanes;
  const F local = f;
  const auto factor = hn::Set(d, scale);
  double total = 0;
  for (std::size_t begin = 0; begin < n; begin += run) {
    const std::size_t end = n - begin < run ? n : begin + run;
    auto sum = hn::Zero(d);
    for (std::size_t i = begin; i < end; i += lanes) {
      const auto vp = detail::load_up_to(d, p + i, end - i);
      const auto vt = detail::load_up_to(d, t + i, end - i);
      const auto value = PairLoss<F>::value(local, d, vp, vt);
      sum = hn::Add(sum, detail::keep_first(d, value, end - i));
      if (gradient == nullptr) continue;
      const auto slope = PairLoss<F>::slope(local, d, vp, vt);
      detail::store_up_to(hn::Mul(factor, slope), d, gradient + i, end - i);
    }
    total += static_cast<double>(hn::GetLane(hn::SumOfLanes(d, sum)));
  }
  return total;
}

}  // namespace HWY_NAMESPACE
}  // namespace kernels
QUERN_NAMESPACE_END
HWY_AFTER_NAMESPACE();

#endif  // QUERN_KERNELS_LOSS_INL_HPP
