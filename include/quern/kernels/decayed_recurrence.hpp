// SPDX-License-Identifier: Apache-2.0

/// \file
/// The decayed recurrence of linear attention and of state-space models,
///   S_t = diag(a_t) S_(t-1) + k_t v_t^T,   o_t = scale S_t^T q_t,
/// or, with a bonus u for the present step (RWKV-6),
///   o_t = scale (S_(t-1) + diag(u) k_t v_t^T)^T q_t,
/// for every batch entry and head: forward, and exact gradients by everything.
///
/// Decay a_t: none, a constant a head (retention), one a step and head (gated retention, Mamba-2),
/// one a step and key channel (gated linear attention, RWKV-6), always given as its logarithm.
///
/// S. Yang et al., "Gated linear attention transformers with hardware-efficient training", ICML
/// 2024; T. Dao, A. Gu, "Transformers are SSMs", ICML 2024, state the gradients in chunked form.
/// Here states stay in registers from step to step (decayed_recurrence-inl.hpp). Decays are folded
/// into keys and queries over a chunk (recurrence_sweep.hpp): results for different chunks, and of
/// single steps, agree to rounding. Memory beyond the arrays given is a tile and a state a thread,
/// in the backward pass also a state every 512 steps where the decay's gradient is wanted.

#ifndef QUERN_KERNELS_DECAYED_RECURRENCE_HPP
#define QUERN_KERNELS_DECAYED_RECURRENCE_HPP

#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/core/nd_array.hpp"
#include "quern/core/nd_view.hpp"
#include "quern/core/parallel.hpp"
#include "quern/kernels/detail/recurrence_heads.hpp"
#include "quern/kernels/detail/recurrence_in_place.hpp"
#include "quern/kernels/detail/recurrence_vjp.hpp"
#include "quern/kernels/recurrence_sweep.hpp"
#include "quern/kernels/recurrence_views.hpp"
#include "quern/kernels/sequence_spans.hpp"

#include <vector>

QUERN_NAMESPACE_BEGIN
namespace kernels {

/// out (batch, heads, length, value_dim) of the recurrence, overwritten; steps of no sequence
/// become 0. `final_state` (sequences, heads, key_dim, value_dim) takes the state after the last
/// step; null leaves it out. One step whose final state is the initial one goes on in place. Any
/// strides, any sizes, also 0. ShapeError and ValueError for what does not fit.
template <class T>
void decayed_recurrence(const RecurrenceViews<T>& in, NdView<T, 4> out,
                        std::type_identity_t<NdView<T, 4>> final_state = {},
                        const RecurrenceOptions& options = {}) {
  const detail::RecurrenceShape shape("quern::kernels::decayed_recurrence", in, options);
  shape.check_values("out", out);
  shape.check_state("final_state", final_state);
  shape.clear_gaps(out);
  const simd::Level level = simd::active_level();
  if (detail::steps_in_place(shape, in, final_state)) {
    return parallel_for(
        shape.spans_heads(),
        [&](Index task) {
          const detail::RecurrenceHead<T> head(shape, in, options, task);
          detail::step_in_place(level, head, head.state(final_state), head.steps(out),
                                static_cast<T>(options.scale));
        },
        options.threads);
  }
  const Index groups = shape.lane_groups(shape.value_dim);
  parallel_for(
      shape.spans_heads() * groups,
      [&](Index task) {
        const detail::RecurrenceHead<T> head(shape, in, options, task / groups);
        const detail::LaneGroup lanes = shape.lane_group(shape.value_dim, task % groups);
        RecurrenceSweep<T> sweep = head.forward_sweep(lanes);
        const ViewSource<T> queries(head.steps(in.q), static_cast<T>(options.scale));
        sweep.read = &queries;
        ViewSink<T> plain(head.steps(out));
        detail::BonusSink<T> with_bonus(head, head.v, static_cast<T>(options.scale), plain);
        sweep.out = &plain;
        if (head.has_bonus()) sweep.out = &with_bonus;
        SweepRunner<T> runner(level, sweep);
        runner.set_state(head.state(in.initial_state));
        runner.run();
        runner.finish();
        if (!final_state.is_null()) runner.get_state(head.state(final_state));
      },
      options.threads);
}

/// Gradients of a scalar by everything, given those by out (`dout`) and by the final state
/// (`dfinal_state`, null: zeros). Null views of `gradients` are skipped; those by inputs are
/// overwritten, those by parameters (head_decay, bonus) added to.
template <class T>
void decayed_recurrence_vjp(const RecurrenceViews<T>& in,
                            std::type_identity_t<NdView<const T, 4>> dout,
                            std::type_identity_t<NdView<const T, 4>> dfinal_state,
                            const RecurrenceGradients<T>& gradients,
                            const RecurrenceOptions& options = {}) {
  const detail::RecurrenceShape shape("quern::kernels::decayed_recurrence_vjp", in, options);
  shape.check_values("dout", dout);
  shape.check_state("dfinal_state", dfinal_state);
  detail::RecurrenceVjp<T> vjp(shape, in, dout, dfinal_state, gradients, options);
  vjp.run();
}

}  // namespace kernels
QUERN_NAMESPACE_END

#endif  // QUERN_KERNELS_DECAYED_RECURRENCE_HPP
