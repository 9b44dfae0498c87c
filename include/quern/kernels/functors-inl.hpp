// SPDX-License-Identifier: Apache-2.0

/// \file
/// What the names of functors.hpp do to a vector, at each SIMD level.

#if defined(QUERN_KERNELS_FUNCTORS_INL_HPP) == defined(HWY_TARGET_TOGGLE)
#ifdef QUERN_KERNELS_FUNCTORS_INL_HPP
#undef QUERN_KERNELS_FUNCTORS_INL_HPP
#else
#define QUERN_KERNELS_FUNCTORS_INL_HPP
#endif

#include "quern/core/config.hpp"
#include "quern/kernels/functors.hpp"
#include "quern/kernels/math-inl.hpp"

#include "hwy/highway.h"

HWY_BEFORE_NAMESPACE();
QUERN_NAMESPACE_BEGIN
namespace kernels {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

/// What a name of functors.hpp does to a vector at this level.
template <class F>
struct Vectorized;

#define QUERN_VECTORIZED(Name, function)                 \
  template <>                                            \
  struct Vectorized<kernels::Name> {                     \
    template <class D, class V>                          \
    static HWY_INLINE V apply(kernels::Name, D d, V x) { \
      return function(d, x);                             \
    }                                                    \
  };
QUERN_VECTORIZED(Exp, HWY_NAMESPACE::exp)
QUERN_VECTORIZED(Expm1, HWY_NAMESPACE::expm1)
QUERN_VECTORIZED(Exp2, HWY_NAMESPACE::exp2)
QUERN_VECTORIZED(Log, HWY_NAMESPACE::log)
QUERN_VECTORIZED(Tanh, HWY_NAMESPACE::tanh)
QUERN_VECTORIZED(Sigmoid, HWY_NAMESPACE::sigmoid)
QUERN_VECTORIZED(Softplus, HWY_NAMESPACE::softplus)
QUERN_VECTORIZED(Erf, HWY_NAMESPACE::erf)
#undef QUERN_VECTORIZED

template <>
struct Vectorized<kernels::Identity> {
  template <class D, class V>
  static HWY_INLINE V apply(kernels::Identity, D /*d*/, V x) {
    return x;
  }
};
template <>
struct Vectorized<kernels::Abs> {
  template <class D, class V>
  static HWY_INLINE V apply(kernels::Abs, D /*d*/, V x) {
    return hn::Abs(x);
  }
};
template <>
struct Vectorized<kernels::Square> {
  template <class D, class V>
  static HWY_INLINE V apply(kernels::Square, D /*d*/, V x) {
    return hn::Mul(x, x);
  }
};
template <class T>
struct Vectorized<kernels::ExpMinus<T>> {
  template <class D, class V>
  static HWY_INLINE V apply(const kernels::ExpMinus<T>& f, D d, V x) {
    return HWY_NAMESPACE::exp(d, hn::Sub(x, hn::Set(d, f.shift)));
  }
};
template <class T>
struct Vectorized<kernels::MinusBoth<T>> {
  template <class D, class V>
  static HWY_INLINE V apply(const kernels::MinusBoth<T>& f, D d, V x) {
    return hn::Sub(detail::opaque(hn::Sub(x, hn::Set(d, f.first))), hn::Set(d, f.second));
  }
};
template <class T>
struct Vectorized<kernels::Scale<T>> {
  template <class D, class V>
  static HWY_INLINE V apply(const kernels::Scale<T>& f, D d, V x) {
    return hn::Mul(x, hn::Set(d, f.scale));
  }
};
template <class T>
struct Vectorized<kernels::Affine<T>> {
  template <class D, class V>
  static HWY_INLINE V apply(const kernels::Affine<T>& f, D d, V x) {
    return hn::MulAdd(x, hn::Set(d, f.scale), hn::Set(d, f.offset));
  }
};

}  // namespace HWY_NAMESPACE
}  // namespace kernels
QUERN_NAMESPACE_END
HWY_AFTER_NAMESPACE();

#endif  // QUERN_KERNELS_FUNCTORS_INL_HPP
