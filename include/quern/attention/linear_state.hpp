// SPDX-License-Identifier: Apache-2.0

/// \file
/// What causal linear attention remembers of the keys and values so far: LinearState. A plain
/// value: copy it to continue one beginning twice, save its arrays to resume later.

#ifndef QUERN_ATTENTION_LINEAR_STATE_HPP
#define QUERN_ATTENTION_LINEAR_STATE_HPP

#include "quern/core/config.hpp"
#include "quern/core/nd_array.hpp"
#include "quern/core/nd_view.hpp"

#include <limits>

QUERN_NAMESPACE_BEGIN
namespace attention {

/// State of every sequence and head. `sums` is laid out as the past and present state of ONNX's
/// LinearAttention: (batch, heads, key features, value_dim), of all steps so far.
template <class T>
struct LinearState {
  NdArray<T, 4> sums;        ///< (sequences, heads, features, value_dim): sum of phi(k) v^T
  NdArray<T, 3> normaliser;  ///< (sequences, heads, features): sum of phi(k)
  NdArray<T, 2>
      log_scale;  ///< (sequences, heads): for maps with scales, both are relative to e^ this

  LinearState() = default;
  /// Before the first step.
  LinearState(Index sequences, Index heads, Index features, Index value_dim)
      : sums({sequences, heads, features, value_dim}),
        normaliser({sequences, heads, features}),
        log_scale({sequences, heads}) {
    reset();
  }
  /// Back to before the first step.
  void reset() {
    sums.fill(T{0});
    normaliser.fill(T{0});
    log_scale.fill(-std::numeric_limits<T>::infinity());
  }
};

}  // namespace attention
QUERN_NAMESPACE_END

#endif  // QUERN_ATTENTION_LINEAR_STATE_HPP
