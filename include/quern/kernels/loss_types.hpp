// SPDX-License-Identifier: Apache-2.0

/// \file
/// Names of losses of pairs (prediction, target): what they are is in loss-inl.hpp.

#ifndef QUERN_KERNELS_LOSS_TYPES_HPP
#define QUERN_KERNELS_LOSS_TYPES_HPP

#include "quern/core/config.hpp"

QUERN_NAMESPACE_BEGIN
namespace kernels {

/// (p - t)^2.
struct SquaredLoss {};
/// |p - t|.
struct AbsoluteLoss {};
/// Half the square within delta, delta (|p - t| - delta / 2) beyond.
template <class T>
struct HuberLoss {
  T delta = T{1};
};
/// -(w t log s(p) + (1 - t) log(1 - s(p))), s the sigmoid, w the weight of positives.
template <class T>
struct LogisticLoss {
  T positive = T{1};
};
/// t (log t - p): p is a logarithm. 0 where t is.
struct DivergenceLoss {};
/// The same where t is a logarithm too: e^t (t - p).
struct LogDivergenceLoss {};

}  // namespace kernels
QUERN_NAMESPACE_END

#endif  // QUERN_KERNELS_LOSS_TYPES_HPP
