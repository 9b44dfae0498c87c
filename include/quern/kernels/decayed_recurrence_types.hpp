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
  row,   ///< one a step and row of the state
  lane   ///< one a step and column of the state
};

/// How a level cuts states: rows come in blocks, columns in vectors.
struct RecurrenceLayout {
  std::ptrdiff_t rows = 0;
  std::ptrdiff_t lanes = 0;
};

/// Steps s = 0, 1, ... (or the last first) of
///   state = decay_s * state + write_s values_s^T,   out_s += state^T read_s.
/// Arrays along the state's rows lie block by block, [row block][step][row]; arrays along its
/// columns step by step, [step][stride], where stride is a multiple of the lanes.
template <class T>
struct RecurrenceTile {
  std::ptrdiff_t steps = 0;
  bool backward = false;  ///< from the last step to the first
  std::ptrdiff_t row_blocks = 0;
  std::ptrdiff_t stride = 0;  ///< of values, lane decay, out and the state's rows
  const T* write = nullptr;
  const T* read = nullptr;
  const T* values = nullptr;
  TileDecay kind = TileDecay::none;
  const T* decay = nullptr;  ///< step: [step]; row: as write; lane: as values
  T* out = nullptr;
  T* state = nullptr;  ///< [row block * rows][stride]
};

}  // namespace kernels
QUERN_NAMESPACE_END

#endif  // QUERN_KERNELS_DECAYED_RECURRENCE_TYPES_HPP
