// SPDX-License-Identifier: Apache-2.0

/// \file
/// Arguments of the decayed recurrence: its inputs, their gradients, its options.

#ifndef QUERN_KERNELS_RECURRENCE_VIEWS_HPP
#define QUERN_KERNELS_RECURRENCE_VIEWS_HPP

#include "quern/core/config.hpp"
#include "quern/core/nd_view.hpp"
#include "quern/kernels/sequence_spans.hpp"

QUERN_NAMESPACE_BEGIN
namespace kernels {

/// Inputs. There are as many heads as the operand has that has most; an operand with fewer shares
/// each of its heads among heads / its_heads neighbours (grouped queries; Mamba-2's groups). At
/// most one of the three decays, all logarithms of factors, may be given.
template <class T>
struct RecurrenceViews {
  NdView<const T, 4> q;              ///< (batch, heads, length, key_dim)
  NdView<const T, 4> k;              ///< (batch, heads, length, key_dim)
  NdView<const T, 4> v;              ///< (batch, heads, length, value_dim)
  NdView<const T, 1> head_decay;     ///< (heads): the same at every step
  NdView<const T, 3> step_decay;     ///< (batch, heads, length)
  NdView<const T, 4> channel_decay;  ///< (batch, heads, length, key_dim)
  NdView<const T, 2> bonus;          ///< (heads, key_dim); needs from_old_state
  NdView<const T, 4> initial_state;  ///< (sequences, heads, key_dim, value_dim); null: zeros
};

/// Gradients by each, of the same shapes; that by v may be of its first channels only.
template <class T>
struct RecurrenceGradients {
  NdView<T, 4> q;
  NdView<T, 4> k;
  NdView<T, 4> v;
  NdView<T, 1> head_decay;
  NdView<T, 3> step_decay;
  NdView<T, 4> channel_decay;
  NdView<T, 2> bonus;
  NdView<T, 4> initial_state;
};

struct RecurrenceOptions {
  double scale = 1;             ///< of the output, such as 1 / sqrt(key_dim)
  bool from_old_state = false;  ///< o_t reads S_(t-1), plus the bonus
  Index chunk = 64;             ///< steps that are handled together; changes rounding at most
  SequenceLengths sequences = {};
  int threads = 0;  ///< 0: the default, see parallel_for
};

}  // namespace kernels
QUERN_NAMESPACE_END

#endif  // QUERN_KERNELS_RECURRENCE_VIEWS_HPP
