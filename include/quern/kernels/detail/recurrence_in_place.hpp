// SPDX-License-Identifier: Apache-2.0

/// \file
/// One step of the decayed recurrence on states where they lie: decode.

#ifndef QUERN_KERNELS_DETAIL_RECURRENCE_IN_PLACE_HPP
#define QUERN_KERNELS_DETAIL_RECURRENCE_IN_PLACE_HPP

#include "quern/core/buffer.hpp"
#include "quern/core/config.hpp"
#include "quern/core/nd_view.hpp"
#include "quern/kernels/detail/recurrence_heads.hpp"
#include "quern/kernels/kernels.hpp"
#include "quern/kernels/recurrence_step_types.hpp"
#include "quern/kernels/recurrence_sweep.hpp"
#include "quern/kernels/recurrence_views.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace kernels::detail {

/// Whether a call is one step whose states begin and end in the same memory, adjacent values.
template <class T>
bool steps_in_place(const RecurrenceShape& shape, const RecurrenceViews<T>& in,
                    const NdView<T, 4>& final_state) {
  return shape.length == 1 && !final_state.is_null() &&
         final_state.data() == in.initial_state.data() &&
         final_state.strides() == in.initial_state.strides() && final_state.stride(3) == 1;
}

/// That step of one sequence and head.
template <class T>
void step_in_place(simd::Level level, const RecurrenceHead<T>& head, const MatrixView<T>& state,
                   const MatrixView<T>& out, T scale) {
  if (head.length() == 0) return;
  const Index dk = state.extent(0), dv = state.extent(1);
  core::Buffer<T> memory(static_cast<std::size_t>(4 * dk + 3 * dv + 1));
  T *const q = memory.data(), *const k = q + dk, *const zeros = k + dk, *const logs = zeros + dk;
  T *const v = logs + dk + 1, *const sums = v + dv, *const unused = sums + dv;
  head.q.load(0, 1, 0, dk, q, dk);
  head.k.load(0, 1, 0, dk, k, dk);
  head.v.load(0, 1, 0, dv, v, dv);
  const RecurrenceSweep<T> sweep = head.base({0, dv});
  const bool by_row = sweep.decay == TileDecay::row;
  const Index fading = sweep.decay == TileDecay::none ? 0 : by_row ? dk : 1;
  logs[0] = sweep.log_factor;
  if (sweep.log_decay != nullptr) sweep.log_decay->load(0, 1, 0, fading, logs, fading);
  std::vector<StepFade<T>> fades;
  fades.reserve(static_cast<std::size_t>(fading));
  for (Index i = 0; i < fading; ++i) {
    const bool little = logs[i] > T(-0.5);
    fades.push_back({little ? T{1} : T{0}, little ? std::expm1(logs[i]) : std::exp(logs[i])});
  }
  RecurrenceStep<T> step;
  step.rows = dk, step.lanes = dv, step.stride = state.row_stride();
  step.write = k, step.read = q, step.values = v;
  step.fade = fading > 0 ? fades.data() : nullptr;
  step.fade_by_row = by_row;
  step.state = state.data(), step.out = sums;
  if (head.old_state()) {
    // What the state gives as it was, and what the present gives itself; then the step.
    std::fill_n(zeros, dk, T{0});
    RecurrenceStep<T> look = step;
    look.fade = nullptr, look.write = zeros;
    QUERN_DISPATCH_AT(level, recurrence_step<T>(look));
    if (head.has_bonus()) head.add_bonus(0, 1, head.v, 0, dv, T{1}, sums, dv);
    step.out = unused;
  }
  QUERN_DISPATCH_AT(level, recurrence_step<T>(step));
  ViewSink<T>(out, scale).store(0, 1, 0, dv, sums, dv);
}

}  // namespace kernels::detail
QUERN_NAMESPACE_END

#endif  // QUERN_KERNELS_DETAIL_RECURRENCE_IN_PLACE_HPP
