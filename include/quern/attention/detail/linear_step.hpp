// SPDX-License-Identifier: Apache-2.0

/// \file
/// One step of causal linear attention on a state where it lies: decoding. Where nothing fades the
/// bits are those of a longer piece.

#ifndef QUERN_ATTENTION_DETAIL_LINEAR_STEP_HPP
#define QUERN_ATTENTION_DETAIL_LINEAR_STEP_HPP

#include "quern/attention/detail/linear_causal.hpp"
#include "quern/attention/detail/linear_head.hpp"
#include "quern/core/buffer.hpp"
#include "quern/core/config.hpp"
#include "quern/core/nd_view.hpp"
#include "quern/kernels/kernels.hpp"
#include "quern/kernels/recurrence_step_types.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace attention::detail {

/// Where the maximum of the keys' scales stands after a key, what its features are to be multiplied
/// by, and the logarithm of what the state is: see ScaledKeys.
template <class T>
struct ScaledStep {
  T level, weight, fade;
  ScaledStep(T before, T own) {
    constexpr T lowest = -std::numeric_limits<T>::infinity();
    level = own > before ? own : before;
    fade = level == before || before == lowest ? T{0} : before - level;
    const T apart = level == lowest ? T{0} : own - level;
    weight = static_cast<T>(std::exp(static_cast<double>(apart)));
  }
};

/// e^x as what is kept and what changes.
template <class T>
kernels::StepFade<T> step_fade(T x) {
  if (x > T(-0.5)) return {T{1}, std::expm1(x)};
  return {T{0}, std::exp(x)};
}

/// Factors by which the state fades, into `fades`; returns how many: none, one, or one a feature.
template <class T>
Index step_fades(const LinearHead<T>& head, bool scaled, T fade, kernels::StepFade<T>* fades) {
  const bool wide = !head.channel_decay.is_null();
  if (!head.decays() && !scaled) return 0;
  const Index count = wide ? head.features() : Index{1};
  for (Index c = 0; c < count; ++c) {
    T own = head.constant ? head.constant_decay : T{0};
    if (!head.step_decay.is_null()) own = head.step_decay(0, 0);
    if (wide) own = head.channel_decay(0, c);
    fades[c] = step_fade(own + fade);
  }
  return count;
}

/// What linear_step works with.
template <class T>
struct StepScratch {
  core::Buffer<T> numbers;
  std::vector<kernels::StepFade<T>> fades;
  StepScratch(Index features, Index value_dim)
      : numbers(static_cast<std::size_t>(2 * (features + value_dim) + 1)),
        fades(static_cast<std::size_t>((std::max)(features, Index{1}))) {}
};

/// One query and one key; `normaliser` may be null.
template <class T>
void linear_step(simd::Level level, const LinearHead<T>& head, const HeadState<T>& state,
                 MatrixView<T> out, T* normaliser, StepScratch<T>& scratch) {
  const Index m = head.features(), dv = head.v.cols();
  T* const phi_q = scratch.numbers.data();
  T* const phi_k = phi_q + m;
  T* const values = phi_k + m;
  T* const sums = values + dv;
  const bool scaled = head.key_map.scaled(), scaled_query = head.query_map.scaled();
  T query_scale{}, key_scale{};
  FeatureRows<T>(head.q, head.query_map, 0, head.normalise, scaled_query ? &query_scale : nullptr)
      .rows(0, 1, phi_q, m);
  FeatureRows<T>(head.k, head.key_map, 0, head.normalise, scaled ? &key_scale : nullptr)
      .rows(0, 1, phi_k, m);
  T fade{0};
  if (scaled) {
    const ScaledStep<T> step(*state.log_scale, key_scale);
    QUERN_DISPATCH_AT(level, scale<T>(step.weight, phi_k, static_cast<std::size_t>(m), phi_k));
    fade = step.fade;
    *state.log_scale = key_scale = step.level;
  }
  kernels::RecurrenceStep<T> step;
  const Index fades = step_fades(head, scaled, fade, scratch.fades.data());
  step.fade = fades > 0 ? scratch.fades.data() : nullptr;
  step.fade_by_row = !head.channel_decay.is_null();
  step.rows = m, step.lanes = dv, step.stride = state.sums.row_stride();
  step.write = phi_k, step.read = phi_q;
  step.values = head.v.row_data(0);
  if (!head.v.last_stride_is_one()) {
    for (Index c = 0; c < dv; ++c) values[c] = head.v(0, c);
    step.values = values;
  }
  step.state = state.sums.data(), step.out = sums;
  if (head.normalise) step.normaliser = state.normaliser, step.total = sums + dv;
  QUERN_DISPATCH_AT(level, recurrence_step<T>(step));
  LinearSink<T>(head, out, dv, scaled ? &key_scale : nullptr, scaled_query ? &query_scale : nullptr,
                normaliser)
      .store(0, 1, 0, dv, sums, dv + 1);
}

}  // namespace attention::detail
QUERN_NAMESPACE_END

#endif  // QUERN_ATTENTION_DETAIL_LINEAR_STEP_HPP
