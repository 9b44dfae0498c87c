// SPDX-License-Identifier: Apache-2.0

/// \file
/// Arguments of linear attention: inputs, options, what is saved, gradients.

#ifndef QUERN_ATTENTION_LINEAR_OPTIONS_HPP
#define QUERN_ATTENTION_LINEAR_OPTIONS_HPP

#include "quern/attention/attention_options.hpp"
#include "quern/attention/feature_map.hpp"
#include "quern/attention/linear_state.hpp"
#include "quern/core/config.hpp"
#include "quern/core/nd_view.hpp"

QUERN_NAMESPACE_BEGIN
namespace attention {

/// Inputs of linear attention; query head h reads key head h / (heads / key_heads). At most one
/// decay, all logarithms of factors, only for causal attention: step t fades what came before it.
template <class T>
struct LinearInputs {
  NdView<const T, 4> q;                      ///< (batch, heads, length, dim)
  NdView<const T, 4> k;                      ///< (batch, key_heads, keys, dim)
  NdView<const T, 4> v;                      ///< (batch, key_heads, keys, value_dim)
  const FeatureMap<T>* query_map = nullptr;  ///< null: identity
  const FeatureMap<T>* key_map = nullptr;    ///< null: query_map's
  NdView<const T, 1> head_decay;             ///< (key_heads): retention
  NdView<const T, 3> step_decay;             ///< (batch, key_heads, keys)
  NdView<const T, 4> channel_decay;          ///< (batch, key_heads, keys, features): GLA
};

/// In which order the two products of attention without causality are made.
enum class LinearOrder {
  automatic,    ///< whichever has fewer multiply-adds
  keys_first,   ///< phi(q) (phi(k)^T v)
  scores_first  ///< (phi(q) phi(k)^T) v
};

struct LinearOptions {
  double scale = 1;  ///< of the output, such as 1 / sqrt(dim) without normaliser
  /// Divide by the sum of phi(q) phi(k), plus eps. ValueError where false with a map whose rows
  /// have scales (Feature::exp, a Performer's exact stabiliser): these cancel in that quotient
  /// alone.
  bool normalise = true;
  double eps = 1e-6;
  Visibility visible = {};  ///< no window
  LinearOrder order = LinearOrder::automatic;
  Index chunk = 64;  ///< steps that are handled together; changes no bit
  int threads = 0;   ///< 0: the default, see parallel_for
};

/// What the forward pass leaves for the backward pass.
template <class T>
struct LinearSaved {
  NdView<const T, 4> out;
  NdView<const T, 3> normalisers;
  const LinearState<T>* initial = nullptr;  ///< what `state` held before; null: nothing
};

/// Gradients by the inputs, of their shapes.
template <class T>
struct LinearGradients {
  NdView<T, 4> q;
  NdView<T, 4> k;
  NdView<T, 4> v;
  NdView<T, 1> head_decay;
  NdView<T, 3> step_decay;
  NdView<T, 4> channel_decay;
  /// By `sums` and `normaliser` of the state before the first step, a log_scale counting as
  /// constant; overwritten. Causal attention only.
  LinearState<T>* initial = nullptr;
};

}  // namespace attention
QUERN_NAMESPACE_END

#endif  // QUERN_ATTENTION_LINEAR_OPTIONS_HPP
