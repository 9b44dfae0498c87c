// SPDX-License-Identifier: Apache-2.0

/// \file
/// Names of what gated attention units apply to their logits, for gated_unit-inl.hpp.

#ifndef QUERN_KERNELS_GATED_UNIT_TYPES_HPP
#define QUERN_KERNELS_GATED_UNIT_TYPES_HPP

#include "quern/core/config.hpp"

QUERN_NAMESPACE_BEGIN
namespace kernels {

/// max(x, 0)^2. (Hua et al., arXiv:2202.10447)
struct SquaredRelu {};
/// (1 + erf((x - sqrt(1/2)) / (s sqrt(2)))) / 2 with s = sqrt(1 / (4 pi)): the normal distribution
/// that resembles SquaredRelu around its middle, bounded. (Ma et al., "Mega", arXiv:2209.10655)
struct LaplaceActivation {};

}  // namespace kernels
QUERN_NAMESPACE_END

#endif  // QUERN_KERNELS_GATED_UNIT_TYPES_HPP
