// SPDX-License-Identifier: Apache-2.0

/// \file
/// Names of the activations of networks, beside those of functors.hpp (Identity, Tanh, Sigmoid,
/// Softplus). What they and their derivatives do to a vector is in activation-inl.hpp. All are
/// functors: products may apply them within their registers (StoreActivated).
///
/// Errors at every level: |error| <= 16 u max(1, |x|), u = 2^-24 (2^-53), of the function and of
/// its derivative; relative where the function is x times a sigmoid (Silu, GeluTanh, for inputs
/// above -80).

#ifndef QUERN_KERNELS_ACTIVATION_TYPES_HPP
#define QUERN_KERNELS_ACTIVATION_TYPES_HPP

#include "quern/core/config.hpp"

QUERN_NAMESPACE_BEGIN
namespace kernels {

/// max(x, 0); NaN stays. Derivative 0 at 0.
struct Relu {};
/// x above 0, slope x below.
template <class T>
struct LeakyRelu {
  T slope = static_cast<T>(0.01);
};
/// x above 0, alpha (e^x - 1) below. (Clevert et al., arXiv:1511.07289)
template <class T>
struct Elu {
  T alpha = T{1};
};
/// x Phi(x), by erf. (Hendrycks and Gimpel, arXiv:1606.08415)
struct Gelu {};
/// Its approximation x / (1 + e^(-2 u)), u = sqrt(2 / pi) (x + 0.044715 x^3).
struct GeluTanh {};
/// x / (1 + e^-x), also called swish.
struct Silu {};

}  // namespace kernels
QUERN_NAMESPACE_END

#endif  // QUERN_KERNELS_ACTIVATION_TYPES_HPP
