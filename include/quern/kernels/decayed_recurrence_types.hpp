// SPDX-License-Identifier: Apache-2.0

/// \file
/// What the decayed recurrence passes to its kernel: one tile of steps, packed.

#ifndef QUERN_KERNELS_DECAYED_RECURRENCE_TYPES_HPP
#define QUERN_KERNELS_DECAYED_RECURRENCE_TYPES_HPP

#include "quern/core/config.hpp"

#include <cstddef>

QUERN_NAMESPACE_BEGIN
namespace kernels {

/// Memory that will be read soon. Kernels ask for it little by little while they compute: asked for
/// at once it would fill the few buffers that misses wait in.
struct Ahead {
  const void* begin = nullptr;
  std::ptrdiff_t bytes = 0;
};

/// A way through part of such memory.
struct AheadWalk {
  const char* at;
  std::ptrdiff_t step;

  /// Part `n` of `parts` of two or three memories, one after the other, in `steps` steps. Where
  /// there is none it stays at `otherwise`.
  template <std::size_t kCount>
  AheadWalk(const Ahead (&memories)[kCount], std::ptrdiff_t n, std::ptrdiff_t parts,
            std::ptrdiff_t steps, const void* otherwise)
      : at(static_cast<const char*>(otherwise)), step(0) {
    constexpr std::ptrdiff_t count = static_cast<std::ptrdiff_t>(kCount);
    const std::ptrdiff_t which = n * count / parts;
    const Ahead& memory = memories[which];
    if (memory.bytes <= 0 || steps <= 0) return;
    const std::ptrdiff_t first = (which * parts + count - 1) / count;
    const std::ptrdiff_t last = ((which + 1) * parts + count - 1) / count;
    const std::ptrdiff_t share = (memory.bytes + last - first - 1) / (last - first);
    at = static_cast<const char*>(memory.begin) + (n - first) * share;
    step = (share + steps - 1) / steps;
  }
};

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

/// Rows that will be wanted soon, as many as the tile has steps: fetched while it runs.
template <class T>
struct RecurrenceSoon {
  const T* data = nullptr;
  std::ptrdiff_t stride = 0;
  std::ptrdiff_t channels = 0;
};

/// Steps s = 0, 1, ... (or the last first) of
///   state = decay_s * state + write_s values_s^T,   out_s += state^T read_s,
/// and at the end state = end_keep * state + end_fade * state.
/// Every array lies step by step, each with a stride of its own. Rows count in whole blocks,
/// columns in whole vectors: arrays hold zeros up to there.
template <class T>
struct RecurrenceTile {
  std::ptrdiff_t steps = 0;
  bool backward = false;  ///< from the last step to the first
  std::ptrdiff_t row_blocks = 0;
  std::ptrdiff_t stride = 0;  ///< columns; from row to row of the state, and of out and lane decay
  const T* write = nullptr;   ///< [step][row]
  const T* read = nullptr;    ///< [step][row]
  const T* values = nullptr;  ///< [step][column]
  std::ptrdiff_t write_stride = 0, read_stride = 0, value_stride = 0;
  TileDecay kind = TileDecay::none;
  /// step: [step]; row: [step][row], and lane: [step][stride], factors less 1, e^x - 1.
  const T* decay = nullptr;
  std::ptrdiff_t decay_stride = 0;  ///< of a decay a row
  T end_keep = T{1}, end_fade = T{0};
  bool fresh = false;  ///< out begins at zero, whatever it holds
  T* out = nullptr;
  T* target = nullptr;  ///< where the sums go in the end, target_stride apart; null: to out
  std::ptrdiff_t target_stride = 0;
  RecurrenceSoon<T> soon[4];
  T* state = nullptr;  ///< [row block * rows][stride]
};

/// What rows are multiplied by on their way.
enum class RowFactor {
  one,   ///< the same for all
  step,  ///< one a step
  each   ///< one an element
};

/// to = factor from, or to += factor from; from and to may be the same.
template <class T>
struct RecurrenceRows {
  std::ptrdiff_t steps = 0, channels = 0;
  const T* from = nullptr;
  std::ptrdiff_t from_stride = 0;
  RowFactor kind = RowFactor::one;
  T factor = T{1};             ///< one
  const T* factors = nullptr;  ///< step: [step]; each: [step][factor_stride]
  std::ptrdiff_t factor_stride = 0;
  bool add = false;
  T* to = nullptr;
  std::ptrdiff_t to_stride = 0;
};

/// Decays a channel that go into what is written and read. c_s is the sum of logarithms up to step
/// s in order; steps are taken while no sum leaves +-limit.
template <class T>
struct RecurrenceFold {
  std::ptrdiff_t steps = 0;
  bool backward = false;
  std::ptrdiff_t stride = 0;  ///< channels, whole vectors, of all arrays
  T limit = T{0};
  T* logs = nullptr;      ///< [step][stride]: logarithms, then e^c of the steps that were taken
  T* up = nullptr;        ///< [step][stride]: e^-c of these
  T* sums = nullptr;      ///< memory, [stride]
  T* end_keep = nullptr;  ///< [stride]: their last e^c as keep + fade
  T* end_fade = nullptr;
};

/// weight_s = sum over keys of q u k; out_s += weight_s values_s.
template <class T>
struct RecurrenceBonus {
  std::ptrdiff_t steps = 0, keys = 0, lanes = 0;
  const T* q = nullptr;
  const T* k = nullptr;
  std::ptrdiff_t q_stride = 0, k_stride = 0;
  const T* u = nullptr;
  T scale = T{1};  ///< of the weights
  const T* values = nullptr;
  std::ptrdiff_t value_stride = 0;
  T* out = nullptr;
  std::ptrdiff_t out_stride = 0;
};

/// weight_s = dout_s . v_s; grad_s += weight_s u other_s; du += weight_s own_s other_s.
template <class T>
struct RecurrenceBonusVjp {
  std::ptrdiff_t steps = 0, keys = 0, lanes = 0;
  const T* dout = nullptr;  ///< [step][lanes]
  const T* v = nullptr;     ///< [step][lanes]
  const T* u = nullptr;
  const T* other = nullptr;  ///< [step][keys]
  const T* own = nullptr;    ///< [step][keys]
  T* grad = nullptr;
  std::ptrdiff_t grad_stride = 0;
  T* du = nullptr;  ///< or null
};

/// The gradient by a decay a channel, from the last step to the first: with `place` holding q dq,
///   sum += place - k dk, place = sum   (or, from the old state, sum -= k dk, and sum + place
///   after).
template <class T>
struct RecurrenceDecaySums {
  std::ptrdiff_t steps = 0, channels = 0;
  bool old_state = false;
  bool restarted = false;  ///< the sums are those of the first step, the last in order
  const T* k = nullptr;
  const T* dk = nullptr;
  std::ptrdiff_t k_stride = 0, dk_stride = 0;
  T* place = nullptr;
  std::ptrdiff_t place_stride = 0;
  T* sums = nullptr;  ///< [channels]
};

}  // namespace kernels
QUERN_NAMESPACE_END

#endif  // QUERN_KERNELS_DECAYED_RECURRENCE_TYPES_HPP
