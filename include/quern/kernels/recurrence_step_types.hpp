// SPDX-License-Identifier: Apache-2.0

/// \file
/// One step of a decayed recurrence on a state where it lies, and the normaliser of a tile of
/// steps, as their kernels take them.

#ifndef QUERN_KERNELS_RECURRENCE_STEP_TYPES_HPP
#define QUERN_KERNELS_RECURRENCE_STEP_TYPES_HPP

#include "quern/core/config.hpp"

#include <cstddef>

QUERN_NAMESPACE_BEGIN
namespace kernels {

/// One factor by which a state fades, as keep + change: 1 and e^x - 1 for x near 0, where e^x
/// itself would be rounded by the same amount at every step; 0 and e^x elsewhere.
template <class T>
struct StepFade {
  T keep{1}, change{0};
};

/// state = fade * state + write values^T, out = state^T read; where there is one, normaliser =
/// fade * normaliser + write, total = normaliser . read. Rows of the state are `stride` apart,
/// everything else is contiguous.
template <class T>
struct RecurrenceStep {
  std::ptrdiff_t rows = 0, lanes = 0, stride = 0;
  const T* write = nullptr;           ///< [row]
  const T* read = nullptr;            ///< [row]
  const T* values = nullptr;          ///< [lane]
  const StepFade<T>* fade = nullptr;  ///< null: nothing fades
  bool fade_by_row = false;           ///< one a row; else one for all
  T* state = nullptr;
  T* out = nullptr;         ///< [lane]
  T* normaliser = nullptr;  ///< [row], or null
  T* total = nullptr;       ///< one number, where there is a normaliser
};

/// The normaliser of a tile of steps, arrays as in RecurrenceTile: at each step
/// state = fade * state + write, total = state . read.
template <class T>
struct RecurrenceNormaliser {
  std::ptrdiff_t steps = 0, row_blocks = 0;
  const T* write = nullptr;  ///< [step][row]
  const T* read = nullptr;   ///< [step][row]
  std::ptrdiff_t write_stride = 0, read_stride = 0;
  const T* fades = nullptr;  ///< [step]; null: nothing fades
  T* state = nullptr;        ///< [row block * rows]
  T* totals = nullptr;       ///< [step]
  T* partial = nullptr;      ///< memory, [step][row of a block]
};

}  // namespace kernels
QUERN_NAMESPACE_END

#endif  // QUERN_KERNELS_RECURRENCE_STEP_TYPES_HPP
