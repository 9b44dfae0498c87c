// SPDX-License-Identifier: Apache-2.0

/// \file
/// Names of the functions that kernels apply to whole vectors. A name is an empty or small struct
/// that any code may make; what it does is written once per SIMD target, as the specialisation
/// `Vectorized<Name>` of functors-inl.hpp. Add a function by adding a name here and its
/// specialisation there (or in an `-inl.hpp` of your own that comes before the kernels that use
/// it).
///
/// Error bounds in ulp hold at every SIMD level for float and double; see math-inl.hpp.

#ifndef QUERN_KERNELS_FUNCTORS_HPP
#define QUERN_KERNELS_FUNCTORS_HPP

#include "quern/core/config.hpp"

QUERN_NAMESPACE_BEGIN
namespace kernels {

/// e^x, within 1.1 ulp. Overflows to infinity, underflows gradually.
struct Exp {};
/// e^x - 1, within 2.5 ulp, relatively exact near 0; -1 below -40.
struct Expm1 {};
/// 2^x, within 1.25 ulp. Overflows to infinity, underflows gradually; exact for whole numbers.
struct Exp2 {};
/// Natural logarithm, within 1 ulp; log(0) = -inf, NaN below 0. Takes subnormal numbers.
struct Log {};
/// Hyperbolic tangent, within 2.6 ulp, relatively exact near 0, odd.
struct Tanh {};
/// 1 / (1 + e^-x), within 2.5 ulp also where it is tiny; neither tail overflows inside.
struct Sigmoid {};
/// log(1 + e^x), within 2.1 ulp; x itself for large x, e^x for very negative ones.
struct Softplus {};
/// Error function, within 1.5 ulp, relatively exact near 0, odd.
struct Erf {};
/// x itself: what reductions apply unless told otherwise.
struct Identity {};
/// |x|.
struct Abs {};
/// x * x.
struct Square {};
/// e^(x - shift), as softmax wants it.
template <class T>
struct ExpMinus {
  T shift;
};
/// (x - first) - second, in this order.
template <class T>
struct MinusBoth {
  T first;
  T second;
};
/// scale * x.
template <class T>
struct Scale {
  T scale;
};
/// scale * x + offset, fused where the level has fused multiply-add.
template <class T>
struct Affine {
  T scale;
  T offset;
};

}  // namespace kernels
QUERN_NAMESPACE_END

#endif  // QUERN_KERNELS_FUNCTORS_HPP
