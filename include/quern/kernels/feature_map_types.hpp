// SPDX-License-Identifier: Apache-2.0

/// \file
/// Names of feature maps of linear attention, beside Relu, Softplus and Identity.

#ifndef QUERN_KERNELS_FEATURE_MAP_TYPES_HPP
#define QUERN_KERNELS_FEATURE_MAP_TYPES_HPP

#include "quern/core/config.hpp"

#include <cstddef>

QUERN_NAMESPACE_BEGIN
namespace kernels {

/// elu(x) + 1: x + 1 above 0, e^x below. (Katharopoulos et al., arXiv:2006.16236)
struct Elu1 {};
/// max(x, 0)^2.
struct ReluSquare {};

/// Rows phi = factor e^(u - shift) + offset, where a row's shift is what is given and, with `own`,
/// its largest u besides. phi may be u.
template <class T>
struct ExpRows {
  std::size_t rows = 0, cols = 0;
  const T* u = nullptr;
  std::ptrdiff_t u_stride = 0;
  const T* shifts = nullptr;  ///< one a row; null: zeros
  bool own = false;
  T* largest = nullptr;  ///< takes each row's largest u, where `own`; null: left out
  T factor{1}, offset{0};
  T* phi = nullptr;
  std::ptrdiff_t phi_stride = 0;
};

}  // namespace kernels
QUERN_NAMESPACE_END

#endif  // QUERN_KERNELS_FEATURE_MAP_TYPES_HPP
