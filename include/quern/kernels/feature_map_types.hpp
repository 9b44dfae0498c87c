// SPDX-License-Identifier: Apache-2.0

/// \file
/// Names of feature maps of linear attention, beside Relu, Softplus and Identity.

#ifndef QUERN_KERNELS_FEATURE_MAP_TYPES_HPP
#define QUERN_KERNELS_FEATURE_MAP_TYPES_HPP

#include "quern/core/config.hpp"

QUERN_NAMESPACE_BEGIN
namespace kernels {

/// elu(x) + 1: x + 1 above 0, e^x below. (Katharopoulos et al., arXiv:2006.16236)
struct Elu1 {};
/// max(x, 0)^2.
struct ReluSquare {};

}  // namespace kernels
QUERN_NAMESPACE_END

#endif  // QUERN_KERNELS_FEATURE_MAP_TYPES_HPP
