// SPDX-License-Identifier: Apache-2.0

/// \file
/// Causal linear attention of one head: the forward pass over a group of value channels, and the
/// gradients.

#ifndef QUERN_ATTENTION_DETAIL_LINEAR_CAUSAL_HPP
#define QUERN_ATTENTION_DETAIL_LINEAR_CAUSAL_HPP

#include "quern/attention/detail/linear_head.hpp"
#include "quern/attention/linear_state.hpp"
#include "quern/core/buffer.hpp"
#include "quern/core/config.hpp"
#include "quern/core/nd_view.hpp"
#include "quern/kernels/decayed_recurrence.hpp"
#include "quern/kernels/recurrence_sweep.hpp"

#include <algorithm>
#include <cstddef>
#include <memory>

QUERN_NAMESPACE_BEGIN
namespace attention::detail {

/// State of one head, null members: from zero and forgotten afterwards.
template <class T>
struct HeadState {
  MatrixView<T> sums;  ///< (features, value_dim)
  T* normaliser = nullptr;
  T* log_scale = nullptr;
};

/// Outputs of value channels [first, first + count) of all queries that have a place on the
/// timeline; others are 0. `normalisers` (queries) may be null.
template <class T>
void linear_causal(simd::Level level, const LinearHead<T>& head, Index first, Index count,
                   Index chunk, const HeadState<T>& state, MatrixView<T> out, T* normalisers) {
  const Index m = head.features(), extra = head.normalise ? 1 : 0;
  const Index unseen = (std::clamp)(-head.offset, Index{0}, head.q.rows());
  for (Index i = 0; i < unseen; ++i) {
    for (Index c = 0; c < count; ++c) out(i, first + c) = T{0};
    if (normalisers != nullptr) normalisers[i] = T{0};
  }
  kernels::RecurrenceSweep<T> sweep;
  sweep.length = head.steps();
  sweep.rows = m;
  sweep.lanes = count + extra;
  sweep.tile = chunk;
  core::Buffer<T> query_scales;
  if (head.query_map.scaled()) {
    query_scales = core::Buffer<T>(static_cast<std::size_t>(head.q.rows()));
  }
  const FeatureRows<T> queries(head.q, head.query_map, head.offset, head.normalise,
                               query_scales.data());
  const FeatureRows<T> keys(head.k, head.key_map, 0, head.normalise);
  const TimelineRows<T> values(head.v.slice(1, first, count), 0, extra == 1);
  const TimelineRows<T> channel_decay(head.channel_decay, 0), step_decay(head.step_decay, 0);
  sweep.read = &queries;
  sweep.write = &keys;
  sweep.values = &values;
  if (!head.channel_decay.is_null()) {
    sweep.decay = kernels::TileDecay::row;
    sweep.log_decay = &channel_decay;
  } else if (head.constant || !head.step_decay.is_null()) {
    sweep.decay = kernels::TileDecay::step;
    sweep.log_decay = head.constant ? nullptr : &step_decay;
    sweep.log_factor = head.constant_decay;
  }
  std::unique_ptr<ScaledKeys<T>> scaled;
  std::unique_ptr<kernels::ViewSource<T>> scaled_keys, scaled_decay;
  if (head.key_map.scaled()) {
    const T before =
        state.log_scale != nullptr ? *state.log_scale : -std::numeric_limits<T>::infinity();
    scaled = std::make_unique<ScaledKeys<T>>(head, before);
    const bool wide = sweep.decay == kernels::TileDecay::row;
    scaled_keys = std::make_unique<kernels::ViewSource<T>>(
        MatrixView<const T>(scaled->phi.data(), {sweep.length, m}));
    scaled_decay = std::make_unique<kernels::ViewSource<T>>(
        MatrixView<const T>(scaled->decay.data(), {sweep.length, wide ? m : 1}));
    if (!wide) sweep.decay = kernels::TileDecay::step;
    sweep.write = scaled_keys.get();
    sweep.log_decay = scaled_decay.get();
  }
  LinearSink<T> sink(head, out.slice(1, first, count), count,
                     scaled != nullptr ? scaled->level.data() : nullptr, query_scales.data(),
                     normalisers);
  sweep.out = &sink;
  kernels::SweepRunner<T> runner(level, sweep);
  runner.set_state({});
  T* const sums = runner.state();
  const Index stride = runner.stride();
  for (Index r = 0; r < m && !state.sums.is_null(); ++r) {
    for (Index c = 0; c < count; ++c) sums[r * stride + c] = state.sums(r, first + c);
    if (extra == 1) sums[r * stride + count] = state.normaliser[r];
  }
  runner.run();
  for (Index r = 0; r < m && !state.sums.is_null(); ++r) {
    for (Index c = 0; c < count; ++c) state.sums(r, first + c) = sums[r * stride + c];
    if (extra == 1) state.normaliser[r] = sums[r * stride + count];
  }
  if (state.log_scale != nullptr && scaled != nullptr) *state.log_scale = scaled->last;
}

/// Gradients of one head, all null or zero-filled by the caller where they add up.
template <class T>
struct LinearHeadGradients {
  MatrixView<T> q;              ///< overwritten
  core::Buffer<T>* key_sums;    ///< (steps, features): by the features of the keys, added to
  core::Buffer<T>* value_sums;  ///< (steps, value_dim), added to
  MatrixView<T> step_decay;     ///< (keys, 1), added to
  MatrixView<T> channel_decay;  ///< (keys, features), added to
  T* head_decay = nullptr;      ///< added to
};

/// Where a head began: null for nothing.
template <class T>
struct StartOfHead {
  MatrixView<const T> sums;
  const T* normaliser = nullptr;
};

/// do / normaliser and, in the channel after, -(do . out) / normaliser; `rows` rows by their step.
template <class T>
void linear_output_gradient(const LinearHead<T>& head, MatrixView<const T> out,
                            MatrixView<const T> dout, const T* normalisers, Index rows, T* to,
                            Index stride) {
  const Index dv = head.v.cols();
  std::fill_n(to, rows * stride, T{0});
  for (Index i = 0; i < head.q.rows(); ++i) {
    const Index t = i + head.offset;
    if (t < 0) continue;
    T* const row = to + t * stride;
    const T scale = static_cast<T>(head.scale);
    if (!head.normalise) {
      for (Index c = 0; c < dv; ++c) row[c] = scale * dout(i, c);
      continue;
    }
    const T factor = normalisers[i] == T{0} ? T{0} : T{1} / normalisers[i];
    double along = 0;
    for (Index c = 0; c < dv; ++c) {
      row[c] = scale * factor * dout(i, c);
      along += static_cast<double>(dout(i, c)) * static_cast<double>(out(i, c));
    }
    row[dv] = static_cast<T>(-along) * factor;
  }
}

/// One query head's part of the gradients. `phi_k` (steps, features) are the keys' features,
/// `decay` logarithms of (steps) or (steps, features) factors, or null.
template <class T>
void linear_causal_vjp(const LinearHead<T>& head, const StartOfHead<T>& start, const T* phi_k,
                       const T* decay, bool wide_decay, MatrixView<const T> out,
                       MatrixView<const T> dout, const T* normalisers, Index chunk,
                       const LinearHeadGradients<T>& to) {
  const Index n = head.steps(), m = head.features(), dv = head.v.cols();
  const Index values = dv + (head.normalise ? 1 : 0);
  const auto buffer = [](Index size) { return core::Buffer<T>(static_cast<std::size_t>(size)); };
  core::Buffer<T> phi_q = buffer(n * m), v = buffer(n * values), dy = buffer(n * values);
  core::Buffer<T> dq = buffer(n * m), dk = buffer(n * m), dv_sum = buffer(n * values);
  core::Buffer<T> ddecay = buffer(decay == nullptr ? 0 : n * (wide_decay ? m : 1));
  FeatureRows<T>(head.q, head.query_map, head.offset, head.normalise)
      .load(0, n, 0, m, phi_q.data(), m);
  TimelineRows<T>(head.v, 0, head.normalise).load(0, n, 0, values, v.data(), values);
  linear_output_gradient(head, out, dout, normalisers, n, dy.data(), values);
  kernels::RecurrenceViews<T> in;
  const Shape<4> by_key{1, 1, n, m}, by_value{1, 1, n, values};
  in.q = {phi_q.data(), by_key}, in.k = {phi_k, by_key}, in.v = {v.data(), by_value};
  kernels::RecurrenceGradients<T> gradients;
  gradients.q = {dq.data(), by_key}, gradients.k = {dk.data(), by_key};
  gradients.v = {dv_sum.data(), by_value};
  if (decay != nullptr && wide_decay) in.channel_decay = {decay, by_key};
  if (decay != nullptr && !wide_decay) in.step_decay = {decay, {1, 1, n}};
  if (!to.channel_decay.is_null()) gradients.channel_decay = {ddecay.data(), by_key};
  if (!to.step_decay.is_null() || to.head_decay != nullptr) {
    gradients.step_decay = {ddecay.data(), {1, 1, n}};
  }
  core::Buffer<T> initial = buffer(start.sums.is_null() ? 0 : m * values);
  for (Index r = 0; r < m && !initial.empty(); ++r) {
    T* const row = initial.data() + r * values;
    for (Index c = 0; c < dv; ++c) row[c] = start.sums(r, c);
    if (head.normalise) row[dv] = start.normaliser[r];
  }
  if (!initial.empty()) in.initial_state = {initial.data(), {1, 1, m, values}};
  kernels::RecurrenceOptions options;
  options.chunk = chunk;
  kernels::decayed_recurrence_vjp<T>(in, NdView<const T, 4>(dy.data(), by_value), {}, gradients,
                                     options);
  const Index keys = head.k.rows();
  for (Index i = 0; i < n * m; ++i)
    (*to.key_sums)[static_cast<std::size_t>(i)] += dk[static_cast<std::size_t>(i)];
  for (Index t = 0; t < n; ++t) {
    for (Index c = 0; c < dv; ++c) {
      (*to.value_sums)[static_cast<std::size_t>(t * dv + c)] +=
          dv_sum[static_cast<std::size_t>(t * values + c)];
    }
  }
  for (Index t = 0; t < keys; ++t) {
    for (Index c = 0; c < m && !to.channel_decay.is_null(); ++c) {
      to.channel_decay(t, c) += ddecay[static_cast<std::size_t>(t * m + c)];
    }
    if (!to.step_decay.is_null()) to.step_decay(t, 0) += ddecay[static_cast<std::size_t>(t)];
    if (to.head_decay != nullptr) *to.head_decay += ddecay[static_cast<std::size_t>(t)];
  }
  feature_vjp(head.q, head.query_map, head.offset, phi_q.data(), dq.data(), to.q);
}

}  // namespace attention::detail
QUERN_NAMESPACE_END

#endif  // QUERN_ATTENTION_DETAIL_LINEAR_CAUSAL_HPP
