// SPDX-License-Identifier: Apache-2.0

/// \file
/// What the Cauchy kernels work on: tiles of cauchy_lanes<T> channels, 64-byte aligned; a complex
/// number of a tile is the real parts of all channels, then the imaginary parts ("2 lanes").

#ifndef QUERN_KERNELS_CAUCHY_TYPES_HPP
#define QUERN_KERNELS_CAUCHY_TYPES_HPP

#include "quern/core/config.hpp"

#include <cstddef>

QUERN_NAMESPACE_BEGIN
namespace kernels {

/// Channels of a tile: 64 bytes of them.
template <class T>
inline constexpr std::size_t cauchy_lanes = 64 / sizeof(T);

/// sums[l][k] = sum_n products[n][k] R_n(l), R_n(l) = dt / ((1 - w_l) - dt (1 + w_l) / 2 lambda_n).
template <class T>
struct CauchyTask {
  std::size_t modes = 0;
  std::size_t nodes = 0;
  std::size_t products_each = 1;  ///< 1, 4 or 9
  const T* lambda = nullptr;      ///< (modes, 2 lanes)
  const T* dt = nullptr;          ///< (lanes)
  const T* products = nullptr;    ///< (modes, products_each, 2 lanes)
  const T* node = nullptr;        ///< (nodes, 4): 1 - w and (1 + w) / 2, real and imaginary
  T* sums = nullptr;              ///< (nodes, products_each, 2 lanes)
  // For the gradients, all but dsums added to:
  const T* dsums = nullptr;
  T* dproducts = nullptr;  ///< (modes, products_each, 2 lanes)
  T* dlambda = nullptr;    ///< (modes, 2 lanes)
  T* ddt = nullptr;        ///< (lanes)
};

}  // namespace kernels
QUERN_NAMESPACE_END

#endif  // QUERN_KERNELS_CAUCHY_TYPES_HPP
