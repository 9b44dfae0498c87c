// SPDX-License-Identifier: Apache-2.0

/// \file
/// What the decayed recurrence passes to its kernel: one tile of steps, packed.

#ifndef QUERN_KERNELS_DECAYED_RECURRENCE_TYPES_HPP
#define QUERN_KERNELS_DECAYED_RECURRENCE_TYPES_HPP

#include "quern/core/config.hpp"

#include <cstddef>

QUERN_NAMESPACE_BEGIN
namespace kernels {

/// How a state fades from one step to the next, as the kernel sees it.
enum class TileDecay {
  none,  ///< it does not
  step,  ///< one factor a step
  row,   ///< one a step and row of the state, less 1
  lane   ///< one a step and column of the state, less 1
};

/// How a level cuts states: rows come in blocks, columns in vectors.
struct RecurrenceLayout {
  std::ptrdiff_t rows = 0;
  std::ptrdiff_t lanes = 0;
};

/// Steps s = 0, 1, ... (or the last first) of
///   state = decay_s * state + write_s values_s^T,   out_s += state^T read_s,
/// and at the end state = end_keep * state + end_fade * state.
/// Arrays along the state's rows lie block by block, [row block][step][row]; arrays along its
/// columns step by step, [step][stride], where stride is a multiple of the lanes; values may lie
/// further apart.
template <class T>
struct RecurrenceTile {
  std::ptrdiff_t steps = 0;
  bool backward = false;  ///< from the last step to the first
  std::ptrdiff_t row_blocks = 0;
  std::ptrdiff_t stride = 0;  ///< of lane decay, out and the state's rows
  std::ptrdiff_t value_stride = 0;
  const T* write = nullptr;
  const T* read = nullptr;
  const T* values = nullptr;
  TileDecay kind = TileDecay::none;
  /// step: [step]; row, as write, and lane, as values: factors less 1, e^x - 1.
  const T* decay = nullptr;
  T end_keep = T{1}, end_fade = T{0};
  T* out = nullptr;
  T* state = nullptr;  ///< [row block * rows][stride]
};

}  // namespace kernels
QUERN_NAMESPACE_END

#endif  // QUERN_KERNELS_DECAYED_RECURRENCE_TYPES_HPP
