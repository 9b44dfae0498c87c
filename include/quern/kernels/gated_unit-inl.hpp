// SPDX-License-Identifier: Apache-2.0

/// \file
/// What gated attention units do between their matrix products: products of elements, rows times
/// one vector plus another, and logits plus a bias along diagonals through an activation, with
/// gradients. All are bound by memory or L2, but for Laplace's erf.

#if defined(QUERN_KERNELS_GATED_UNIT_INL_HPP) == defined(HWY_TARGET_TOGGLE)
#ifdef QUERN_KERNELS_GATED_UNIT_INL_HPP
#undef QUERN_KERNELS_GATED_UNIT_INL_HPP
#else
#define QUERN_KERNELS_GATED_UNIT_INL_HPP
#endif

#include "quern/core/config.hpp"
#include "quern/kernels/activation-inl.hpp"
#include "quern/kernels/functors-inl.hpp"
#include "quern/kernels/gated_unit_types.hpp"
#include "quern/kernels/math-inl.hpp"
#include "quern/kernels/partial-inl.hpp"

#include "hwy/highway.h"

#include <cstddef>

HWY_BEFORE_NAMESPACE();
QUERN_NAMESPACE_BEGIN
namespace kernels {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

template <>
struct Vectorized<kernels::SquaredRelu> {
  template <class D, class V>
  static HWY_INLINE V apply(kernels::SquaredRelu, D d, V x) {
    return hn::IfThenZeroElse(hn::Le(x, hn::Zero(d)), hn::Mul(x, x));
  }
};
template <>
struct VectorizedDerivative<kernels::SquaredRelu> {
  template <class D, class V>
  static HWY_INLINE V apply(kernels::SquaredRelu, D d, V x) {
    return hn::IfThenZeroElse(hn::Le(x, hn::Zero(d)), hn::Add(x, x));
  }
};

namespace detail {

/// (x - sqrt(1/2)) sqrt(2 pi).
template <class D, class V, class T = hn::TFromD<D>>
HWY_INLINE V laplace_argument(D d, V x) {
  const V shifted = hn::Sub(x, hn::Set(d, static_cast<T>(0.70710678118654752)));
  return hn::Mul(shifted, hn::Set(d, static_cast<T>(2.5066282746310005)));
}

}  // namespace detail

template <>
struct Vectorized<kernels::LaplaceActivation> {
  template <class D, class V>
  static HWY_INLINE V apply(kernels::LaplaceActivation, D d, V x) {
    using T = hn::TFromD<D>;
    const V half = hn::Set(d, static_cast<T>(0.5));
    return hn::MulAdd(half, HWY_NAMESPACE::erf(d, detail::laplace_argument(d, x)), half);
  }
};
template <>
struct VectorizedDerivative<kernels::LaplaceActivation> {
  template <class D, class V>
  static HWY_INLINE V apply(kernels::LaplaceActivation, D d, V x) {
    // sqrt(2 pi) / sqrt(pi) e^(-u^2).
    using T = hn::TFromD<D>;
    const V u = detail::laplace_argument(d, x);
    const V e = HWY_NAMESPACE::exp(d, hn::Neg(hn::Mul(u, u)));
    return hn::Mul(e, hn::Set(d, static_cast<T>(1.4142135623730951)));
  }
};

namespace detail {

/// fn(d, first element, load, store) for whole vectors, then for the rest.
template <class D>
struct WholeVector {
  D d;
  template <class T>
  HWY_INLINE hn::VFromD<D> load(const T* from) const {
    return hn::LoadU(d, from);
  }
  template <class V, class T>
  HWY_INLINE void store(V v, T* to) const {
    hn::StoreU(v, d, to);
  }
};
template <class D>
struct SomeLanes {
  D d;
  std::size_t count;
  template <class T>
  HWY_INLINE hn::VFromD<D> load(const T* from) const {
    return load_partial(d, from, count);
  }
  template <class V, class T>
  HWY_INLINE void store(V v, T* to) const {
    store_partial(v, d, to, count);
  }
};

/// Calls op.apply(access, i) for i = 0, lanes, 2 lanes, … below n.
template <class T, class Op>
HWY_INLINE void for_vectors(std::size_t n, const Op& op) {
  const hn::ScalableTag<T> d;
  using D = hn::ScalableTag<T>;
  const std::size_t lanes = hn::Lanes(d);
  std::size_t i = 0;
  for (; i + lanes <= n; i += lanes) op.apply(WholeVector<D>{d}, i);
  if (i < n) op.apply(SomeLanes<D>{d, n - i}, i);
}

template <class T, bool kAdd>
struct MultiplyOp {
  const T* a;
  const T* b;
  T* y;
  template <class A>
  HWY_INLINE void apply(const A& access, std::size_t i) const {
    const auto x = access.load(a + i), w = access.load(b + i);
    access.store(kAdd ? hn::MulAdd(x, w, access.load(y + i)) : hn::Mul(x, w), y + i);
  }
};
template <class T>
struct ScaleOffsetOp {
  const T* x;
  const T* gamma;
  const T* beta;
  T* y;
  template <class A>
  HWY_INLINE void apply(const A& access, std::size_t i) const {
    access.store(hn::MulAdd(access.load(x + i), access.load(gamma + i), access.load(beta + i)),
                 y + i);
  }
};
template <class T>
struct ScaleOffsetGradientOp {
  const T* x;
  const T* dy;
  T* dgamma;
  T* dbeta;
  template <class A>
  HWY_INLINE void apply(const A& access, std::size_t i) const {
    const auto g = access.load(dy + i);
    access.store(hn::MulAdd(g, access.load(x + i), access.load(dgamma + i)), dgamma + i);
    access.store(hn::Add(g, access.load(dbeta + i)), dbeta + i);
  }
};
template <class F, class T>
struct BiasedOp {
  const F& f;
  T scale;
  const T* bias;
  T* x;
  template <class A>
  HWY_INLINE void apply(const A& access, std::size_t i) const {
    const auto d = access.d;
    const auto s = hn::Set(d, scale);
    const auto raw = access.load(x + i);
    const auto argument =
        bias != nullptr ? hn::MulAdd(raw, s, access.load(bias + i)) : hn::Mul(raw, s);
    access.store(Vectorized<F>::apply(f, d, argument), x + i);
  }
};
template <class F, class T>
struct BiasedGradientOp {
  const F& f;
  T scale;
  const T* bias;
  T* x;
  T* slope;
  template <class A>
  HWY_INLINE void apply(const A& access, std::size_t i) const {
    const auto d = access.d;
    const auto s = hn::Set(d, scale);
    const auto raw = access.load(x + i);
    const auto argument =
        bias != nullptr ? hn::MulAdd(raw, s, access.load(bias + i)) : hn::Mul(raw, s);
    access.store(Vectorized<F>::apply(f, d, argument), x + i);
    const auto derivative = VectorizedDerivative<F>::apply(f, d, argument);
    access.store(hn::Mul(derivative, access.load(slope + i)), slope + i);
  }
};

}  // namespace detail

/// y[i] = a[i] b[i], or y[i] += a[i] b[i]. In place where y is a or b.
template <class T>
void multiply(const T* a, const T* b, std::size_t n, T* y) {
  detail::for_vectors<T>(n, detail::MultiplyOp<T, false>{a, b, y});
}
template <class T>
void multiply_add(const T* a, const T* b, std::size_t n, T* y) {
  detail::for_vectors<T>(n, detail::MultiplyOp<T, true>{a, b, y});
}

/// Rows y = gamma x + beta, element by element. In place where y is x.
template <class T>
void scale_offset_rows(std::size_t rows, std::size_t cols, const T* x, std::ptrdiff_t x_stride,
                       const T* gamma, const T* beta, T* y, std::ptrdiff_t y_stride) {
  for (std::size_t r = 0; r < rows; ++r, x += x_stride, y += y_stride) {
    detail::for_vectors<T>(cols, detail::ScaleOffsetOp<T>{x, gamma, beta, y});
  }
}
/// dgamma += sum of dy x over the rows, dbeta += sum of dy, row after row.
template <class T>
void scale_offset_rows_gradient(std::size_t rows, std::size_t cols, const T* x,
                                std::ptrdiff_t x_stride, const T* dy, std::ptrdiff_t dy_stride,
                                T* dgamma, T* dbeta) {
  for (std::size_t r = 0; r < rows; ++r, x += x_stride, dy += dy_stride) {
    detail::for_vectors<T>(cols, detail::ScaleOffsetGradientOp<T>{x, dy, dgamma, dbeta});
  }
}

/// x[i][j] = f(scale x[i][j] + bias[j - i]); `bias` is that of the first row's first column, and a
/// null one is left out.
template <class F, class T>
void biased_activation_rows(const F& f, std::size_t rows, std::size_t cols, T scale, const T* bias,
                            T* x, std::ptrdiff_t stride) {
  const F local = f;
  for (std::size_t r = 0; r < rows; ++r, x += stride) {
    detail::for_vectors<T>(cols, detail::BiasedOp<F, T>{local, scale, bias, x});
    if (bias != nullptr) --bias;
  }
}
/// The same, and slope[i][j] *= f'(scale x[i][j] + bias[j - i]).
template <class F, class T>
void biased_activation_rows_gradient(const F& f, std::size_t rows, std::size_t cols, T scale,
                                     const T* bias, T* x, std::ptrdiff_t stride, T* slope,
                                     std::ptrdiff_t slope_stride) {
  const F local = f;
  for (std::size_t r = 0; r < rows; ++r, x += stride, slope += slope_stride) {
    detail::for_vectors<T>(cols, detail::BiasedGradientOp<F, T>{local, scale, bias, x, slope});
    if (bias != nullptr) --bias;
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace kernels
QUERN_NAMESPACE_END
HWY_AFTER_NAMESPACE();

#endif  // QUERN_KERNELS_GATED_UNIT_INL_HPP
