// SPDX-License-Identifier: Apache-2.0

/// \file
/// Activations of networks with their derivatives, and gated units. Arrays are contiguous, of any
/// length and alignment; output may be the input itself. An element's result depends on that
/// element alone, not on its place. Accuracy: activation_types.hpp.
///
/// Derivatives are computed from the input, which the layer below has in memory anyway: keeping the
/// output as well would cost a store and a load, about what the exponential costs.

#if defined(QUERN_KERNELS_ACTIVATION_INL_HPP) == defined(HWY_TARGET_TOGGLE)
#ifdef QUERN_KERNELS_ACTIVATION_INL_HPP
#undef QUERN_KERNELS_ACTIVATION_INL_HPP
#else
#define QUERN_KERNELS_ACTIVATION_INL_HPP
#endif

#include "quern/core/config.hpp"
#include "quern/kernels/activation_types.hpp"
#include "quern/kernels/elementwise-inl.hpp"
#include "quern/kernels/functors-inl.hpp"
#include "quern/kernels/math-inl.hpp"
#include "quern/kernels/partial-inl.hpp"

#include "hwy/highway.h"

#include <cstddef>

HWY_BEFORE_NAMESPACE();
QUERN_NAMESPACE_BEGIN
namespace kernels {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

namespace detail {

/// 2 sqrt(2 / pi) (x + 0.044715 x^3): what GeluTanh's sigmoid is of.
template <class D, class V, class T = hn::TFromD<D>>
HWY_INLINE V gelu_argument(D d, V x) {
  const V inner = hn::MulAdd(hn::Set(d, static_cast<T>(0.044715)), hn::Mul(x, x), hn::Set(d, T{1}));
  return hn::Mul(hn::Set(d, static_cast<T>(1.5957691216057308)), hn::Mul(x, inner));
}

/// Phi(x), the normal distribution.
template <class D, class V, class T = hn::TFromD<D>>
HWY_INLINE V normal_cdf(D d, V x) {
  const V half = hn::Set(d, static_cast<T>(0.5));
  const V e = HWY_NAMESPACE::erf(d, hn::Mul(x, hn::Set(d, static_cast<T>(0.70710678118654752))));
  return hn::MulAdd(half, e, half);
}

}  // namespace detail

template <>
struct Vectorized<kernels::Relu> {
  template <class D, class V>
  static HWY_INLINE V apply(kernels::Relu, D d, V x) {
    return hn::IfThenZeroElse(hn::Le(x, hn::Zero(d)), x);
  }
};
template <class T>
struct Vectorized<kernels::LeakyRelu<T>> {
  template <class D, class V>
  static HWY_INLINE V apply(const kernels::LeakyRelu<T>& f, D d, V x) {
    return hn::IfThenElse(hn::Le(x, hn::Zero(d)), hn::Mul(x, hn::Set(d, f.slope)), x);
  }
};
template <class T>
struct Vectorized<kernels::Elu<T>> {
  template <class D, class V>
  static HWY_INLINE V apply(const kernels::Elu<T>& f, D d, V x) {
    // e^x - 1 = t / (1 - t) 2 with t = tanh(x / 2): no cancellation near 0.
    const V t = HWY_NAMESPACE::tanh(d, hn::Mul(x, hn::Set(d, static_cast<T>(0.5))));
    const V below = hn::Div(hn::Add(t, t), hn::Sub(hn::Set(d, T{1}), t));
    return hn::IfThenElse(hn::Le(x, hn::Zero(d)), hn::Mul(below, hn::Set(d, f.alpha)), x);
  }
};
template <>
struct Vectorized<kernels::Gelu> {
  template <class D, class V>
  static HWY_INLINE V apply(kernels::Gelu, D d, V x) {
    return hn::Mul(x, detail::normal_cdf(d, x));
  }
};
template <>
struct Vectorized<kernels::GeluTanh> {
  template <class D, class V>
  static HWY_INLINE V apply(kernels::GeluTanh, D d, V x) {
    return hn::Mul(x, HWY_NAMESPACE::sigmoid(d, detail::gelu_argument(d, x)));
  }
};
template <>
struct Vectorized<kernels::Silu> {
  template <class D, class V>
  static HWY_INLINE V apply(kernels::Silu, D d, V x) {
    return hn::Mul(x, HWY_NAMESPACE::sigmoid(d, x));
  }
};

/// f'(x) of a named function.
template <class F>
struct VectorizedDerivative;

template <>
struct VectorizedDerivative<kernels::Identity> {
  template <class D, class V>
  static HWY_INLINE V apply(kernels::Identity, D d, V /*x*/) {
    return hn::Set(d, hn::TFromD<D>{1});
  }
};
template <>
struct VectorizedDerivative<kernels::Relu> {
  template <class D, class V>
  static HWY_INLINE V apply(kernels::Relu, D d, V x) {
    return hn::IfThenZeroElse(hn::Le(x, hn::Zero(d)), hn::Set(d, hn::TFromD<D>{1}));
  }
};
template <class T>
struct VectorizedDerivative<kernels::LeakyRelu<T>> {
  template <class D, class V>
  static HWY_INLINE V apply(const kernels::LeakyRelu<T>& f, D d, V x) {
    return hn::IfThenElse(hn::Le(x, hn::Zero(d)), hn::Set(d, f.slope), hn::Set(d, T{1}));
  }
};
template <class T>
struct VectorizedDerivative<kernels::Elu<T>> {
  template <class D, class V>
  static HWY_INLINE V apply(const kernels::Elu<T>& f, D d, V x) {
    const V below = hn::Mul(HWY_NAMESPACE::exp(d, x), hn::Set(d, f.alpha));
    return hn::IfThenElse(hn::Le(x, hn::Zero(d)), below, hn::Set(d, T{1}));
  }
};
template <>
struct VectorizedDerivative<kernels::Tanh> {
  template <class D, class V>
  static HWY_INLINE V apply(kernels::Tanh, D d, V x) {
    const V t = HWY_NAMESPACE::tanh(d, x);
    return hn::NegMulAdd(t, t, hn::Set(d, hn::TFromD<D>{1}));
  }
};
template <>
struct VectorizedDerivative<kernels::Sigmoid> {
  template <class D, class V>
  static HWY_INLINE V apply(kernels::Sigmoid, D d, V x) {
    const V s = HWY_NAMESPACE::sigmoid(d, x);
    return hn::NegMulAdd(s, s, s);
  }
};
template <>
struct VectorizedDerivative<kernels::Softplus> {
  template <class D, class V>
  static HWY_INLINE V apply(kernels::Softplus, D d, V x) {
    return HWY_NAMESPACE::sigmoid(d, x);
  }
};
template <>
struct VectorizedDerivative<kernels::Gelu> {
  template <class D, class V>
  static HWY_INLINE V apply(kernels::Gelu, D d, V x) {
    using T = hn::TFromD<D>;
    // Phi(x) + x phi(x)
    const V e = HWY_NAMESPACE::exp(d, hn::Mul(hn::Mul(x, x), hn::Set(d, static_cast<T>(-0.5))));
    const V density = hn::Mul(e, hn::Set(d, static_cast<T>(0.39894228040143268)));
    return hn::MulAdd(x, density, detail::normal_cdf(d, x));
  }
};
template <>
struct VectorizedDerivative<kernels::GeluTanh> {
  template <class D, class V>
  static HWY_INLINE V apply(kernels::GeluTanh, D d, V x) {
    using T = hn::TFromD<D>;
    const V s = HWY_NAMESPACE::sigmoid(d, detail::gelu_argument(d, x));
    // Beyond 100 the sigmoid is flat: there x^2 must not overflow.
    const V limit = hn::Set(d, T{100});
    const V near = hn::Max(hn::Min(x, limit), hn::Neg(limit));
    const V slope = hn::MulAdd(hn::Set(d, static_cast<T>(3 * 0.044715 * 1.5957691216057308)),
                               hn::Mul(near, near), hn::Set(d, static_cast<T>(1.5957691216057308)));
    const V s1 = hn::NegMulAdd(s, s, s);
    return hn::MulAdd(hn::Mul(near, s1), slope, s);
  }
};
template <>
struct VectorizedDerivative<kernels::Silu> {
  template <class D, class V>
  static HWY_INLINE V apply(kernels::Silu, D d, V x) {
    const V s = HWY_NAMESPACE::sigmoid(d, x);
    return hn::MulAdd(x, hn::NegMulAdd(s, s, s), s);
  }
};

/// dx[i] = dy[i] f'(x[i]) for i < n. dx may be x or dy.
template <class F, class T>
void transform_gradient(const F& f, const T* x, const T* dy, std::size_t n, T* dx) {
  using Derivative = VectorizedDerivative<F>;
  const hn::ScalableTag<T> d;
  const std::size_t lanes = hn::Lanes(d);
  const F local = f;
  std::size_t i = 0;
  for (; i + 2 * lanes <= n; i += 2 * lanes) {
    const auto d0 = Derivative::apply(local, d, hn::LoadU(d, x + i));
    const auto d1 = Derivative::apply(local, d, hn::LoadU(d, x + i + lanes));
    const auto g0 = hn::LoadU(d, dy + i);
    const auto g1 = hn::LoadU(d, dy + i + lanes);
    hn::StoreU(hn::Mul(g0, d0), d, dx + i);
    hn::StoreU(hn::Mul(g1, d1), d, dx + i + lanes);
  }
  for (; i < n; i += lanes) {
    const std::size_t left = n - i;
    if (left >= lanes) {
      const auto slope = Derivative::apply(local, d, hn::LoadU(d, x + i));
      hn::StoreU(hn::Mul(hn::LoadU(d, dy + i), slope), d, dx + i);
    } else {
      const auto slope = Derivative::apply(local, d, load_partial(d, x + i, left));
      store_partial(hn::Mul(load_partial(d, dy + i, left), slope), d, dx + i, left);
    }
  }
}

/// y[i] = a[i] f(b[i]) for i < n: a gated linear unit.
template <class F, class T>
void gate(const F& f, const T* a, const T* b, std::size_t n, T* y) {
  using Function = Vectorized<F>;
  const hn::ScalableTag<T> d;
  const std::size_t lanes = hn::Lanes(d);
  const F local = f;
  std::size_t i = 0;
  for (; i + lanes <= n; i += lanes) {
    const auto open = Function::apply(local, d, hn::LoadU(d, b + i));
    hn::StoreU(hn::Mul(hn::LoadU(d, a + i), open), d, y + i);
  }
  if (i < n) {
    const auto open = Function::apply(local, d, load_partial(d, b + i, n - i));
    store_partial(hn::Mul(load_partial(d, a + i, n - i), open), d, y + i, n - i);
  }
}

/// Its gradients: da[i] = dy[i] f(b[i]), db[i] = dy[i] a[i] f'(b[i]).
template <class F, class T>
void gate_gradient(const F& f, const T* a, const T* b, const T* dy, std::size_t n, T* da, T* db) {
  const hn::ScalableTag<T> d;
  const std::size_t lanes = hn::Lanes(d);
  const F local = f;
  std::size_t i = 0;
  for (; i + lanes <= n; i += lanes) {
    const auto vb = hn::LoadU(d, b + i);
    const auto g = hn::LoadU(d, dy + i);
    const auto ga = hn::Mul(g, hn::LoadU(d, a + i));
    hn::StoreU(hn::Mul(g, Vectorized<F>::apply(local, d, vb)), d, da + i);
    hn::StoreU(hn::Mul(ga, VectorizedDerivative<F>::apply(local, d, vb)), d, db + i);
  }
  if (i < n) {
    const std::size_t left = n - i;
    const auto vb = load_partial(d, b + i, left);
    const auto g = load_partial(d, dy + i, left);
    const auto ga = hn::Mul(g, load_partial(d, a + i, left));
    store_partial(hn::Mul(g, Vectorized<F>::apply(local, d, vb)), d, da + i, left);
    store_partial(hn::Mul(ga, VectorizedDerivative<F>::apply(local, d, vb)), d, db + i, left);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace kernels
QUERN_NAMESPACE_END
HWY_AFTER_NAMESPACE();

#endif  // QUERN_KERNELS_ACTIVATION_INL_HPP
