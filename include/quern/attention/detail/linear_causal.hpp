// SPDX-License-Identifier: Apache-2.0

/// \file
/// Causal linear attention of one head: the forward pass over a group of value channels, and the
/// gradients.

#ifndef QUERN_ATTENTION_DETAIL_LINEAR_CAUSAL_HPP
#define QUERN_ATTENTION_DETAIL_LINEAR_CAUSAL_HPP

#include "quern/attention/detail/linear_head.hpp"
#include "quern/attention/linear_options.hpp"
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

/// The same value at every key, 0 at steps after the last: what comes there fades nothing.
template <class T>
class ConstantOfKeys final : public kernels::StepSource<T> {
 public:
  ConstantOfKeys(T value, Index keys) : value_(value), keys_(keys) {}
  void load(Index begin, Index count, Index, Index, T* out, Index stride) const override {
    for (Index s = 0; s < count; ++s) out[s * stride] = begin + s < keys_ ? value_ : T{0};
  }

 private:
  T value_;
  Index keys_;
};

/// State of one head, null members: from zero and forgotten afterwards.
template <class T>
struct HeadState {
  MatrixView<T> sums;  ///< (features, value_dim)
  T* normaliser = nullptr;
  /// What that held before anything was done: several tasks of one head write it.
  const T* normaliser_before = nullptr;
  T* log_scale = nullptr;
};

/// Runs a sweep over value channels [first, first + count) from a state, which it moves on. The
/// normaliser is the sweep's own or the column after the values.
template <class T>
void run_from_state(kernels::SweepRunner<T>& runner, const HeadState<T>& state, Index first,
                    Index count, bool normalise, bool own) {
  T* const sums = runner.state();
  T* const normaliser = own ? runner.normaliser() : sums + count;
  const Index m = state.sums.rows(), stride = runner.stride(), step = own ? Index{1} : stride;
  for (Index r = 0; r < m; ++r) {
    for (Index c = 0; c < count; ++c) sums[r * stride + c] = state.sums(r, first + c);
    if (normalise) normaliser[r * step] = state.normaliser_before[r];
  }
  runner.run();
  for (Index r = 0; r < m; ++r) {
    for (Index c = 0; c < count; ++c) state.sums(r, first + c) = sums[r * stride + c];
    if (normalise && first == 0) state.normaliser[r] = normaliser[r * step];
  }
}

/// Outputs of value channels [first, first + count) of all queries that have a place on the
/// timeline; others are 0. `normalisers` (queries) may be null.
template <class T>
void linear_causal(simd::Level level, const LinearHead<T>& head, Index first, Index count,
                   Index chunk, const HeadState<T>& state, MatrixView<T> out, T* normalisers) {
  const Index m = head.features();
  // Unless channels decay the sweep has a way of its own for the normaliser.
  const bool column = head.normalise && !head.channel_decay.is_null();
  const Index unseen = (std::clamp)(-head.offset, Index{0}, head.q.rows());
  for (Index i = 0; i < unseen; ++i) {
    for (Index c = 0; c < count; ++c) out(i, first + c) = T{0};
    if (normalisers != nullptr) normalisers[i] = T{0};
  }
  kernels::RecurrenceSweep<T> sweep;
  sweep.length = head.steps();
  sweep.rows = m;
  sweep.lanes = count + (column ? 1 : 0);
  sweep.normaliser = head.normalise && !column;
  sweep.tile = chunk;
  sweep.fold = false;  // a key that comes later changes no bit, however large
  core::Buffer<T> query_scales;
  if (head.query_map.scaled()) {
    query_scales = core::Buffer<T>(static_cast<std::size_t>(head.q.rows()));
  }
  const FeatureRows<T> queries(head.q, head.query_map, head.offset, head.normalise,
                               query_scales.data());
  const FeatureRows<T> keys(head.k, head.key_map, 0, head.normalise);
  const TimelineRows<T> values(head.v.slice(1, first, count), 0, column);
  const TimelineRows<T> channel_decay(head.channel_decay, 0), step_decay(head.step_decay, 0);
  const ConstantOfKeys<T> constant_decay(head.constant_decay, head.k.rows());
  sweep.read = &queries;
  sweep.write = &keys;
  sweep.values = &values;
  if (!head.channel_decay.is_null()) {
    sweep.decay = kernels::TileDecay::row;
    sweep.log_decay = &channel_decay;
  } else if (head.constant || !head.step_decay.is_null()) {
    sweep.decay = kernels::TileDecay::step;
    sweep.log_decay = &step_decay;
    if (head.constant) {
      sweep.log_decay = head.q.rows() + head.offset > head.k.rows() ? &constant_decay : nullptr;
    }
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
  if (sweep.normaliser) sink.totals = runner.totals();
  if (state.sums.is_null()) return runner.run();
  run_from_state(runner, state, first, count, head.normalise, sweep.normaliser);
  if (state.log_scale != nullptr && scaled != nullptr) *state.log_scale = scaled->last;
}

/// Gradients of one head, all null or zero-filled by the caller where they add up.
template <class T>
struct LinearHeadGradients {
  MatrixView<T> q;              ///< overwritten
  core::Buffer<T>* key_sums;    ///< (steps, features): by the features of the keys
  core::Buffer<T>* value_sums;  ///< (steps, value_dim)
  bool add = false;             ///< whether to add to these two
  MatrixView<T> step_decay;     ///< (keys, 1), added to
  MatrixView<T> channel_decay;  ///< (keys, features), added to
  T* head_decay = nullptr;      ///< added to
};

/// States of a call and gradients by them, null where there are none.
template <class T>
struct StatesOfCall {
  const LinearState<T>* initial = nullptr;
  const LinearState<T>* dfinal = nullptr;
  LinearState<T>* dinitial = nullptr;
};

/// Where a head began, and the gradients by where it ended and began: null for nothing.
template <class T>
struct EndsOfHead {
  MatrixView<const T> sums;
  const T* normaliser = nullptr;
  MatrixView<const T> dfinal;
  const T* dfinal_normaliser = nullptr;
  MatrixView<T> dinitial;
  T* dinitial_normaliser = nullptr;
  bool nothing_before = false;  ///< the state before has no part in anything
};

/// Rows that lie `stride` apart to the rows of a view, as many columns as it has.
template <class T>
void copy_rows(const T* from, Index stride, MatrixView<T> to) {
  for (Index r = 0; r < to.rows(); ++r, from += stride) {
    if (to.last_stride_is_one()) {
      std::copy_n(from, to.cols(), to.row_data(r));
    } else {
      for (Index c = 0; c < to.cols(); ++c) to(r, c) = from[c];
    }
  }
}

/// Sums and normaliser, side by side as a sweep has them.
template <class T>
core::Buffer<T> state_columns(MatrixView<const T> sums, const T* normaliser, Index values) {
  if (sums.is_null()) return {};
  core::Buffer<T> all(static_cast<std::size_t>(sums.rows() * values), core::Fill::zero);
  for (Index r = 0; r < sums.rows(); ++r) {
    for (Index c = 0; c < sums.cols(); ++c) {
      all[static_cast<std::size_t>(r * values + c)] = sums(r, c);
    }
    if (normaliser != nullptr && values > sums.cols()) {
      all[static_cast<std::size_t>(r * values + sums.cols())] = normaliser[r];
    }
  }
  return all;
}

/// The gradient by a state from its columns; a normaliser that nothing was added to passes the
/// gradient on.
template <class T>
void store_initial_gradient(const EndsOfHead<T>& ends, const T* columns, Index values,
                            bool normalise) {
  const MatrixView<T>& to = ends.dinitial;
  const Index m = to.rows(), dv = to.cols();
  for (Index r = 0; r < m; ++r) {
    for (Index c = 0; c < dv; ++c) to(r, c) = ends.nothing_before ? T{0} : columns[r * values + c];
    T& normaliser = ends.dinitial_normaliser[r];
    if (ends.nothing_before) {
      normaliser = T{0};
    } else if (normalise) {
      normaliser = columns[r * values + dv];
    } else {
      normaliser = ends.dfinal_normaliser != nullptr ? ends.dfinal_normaliser[r] : T{0};
    }
  }
}

/// Row i of a view, copied to `dense` where its elements are apart.
template <class T>
const T* row_of(const MatrixView<const T>& x, Index i, core::Buffer<T>& dense) {
  if (x.last_stride_is_one()) return x.row_data(i);
  for (Index c = 0; c < x.cols(); ++c) dense[static_cast<std::size_t>(c)] = x(i, c);
  return dense.data();
}

/// do / normaliser and, in the channel after, -(do . out) / normaliser; `rows` rows by their step.
template <class T>
void linear_output_gradient(const LinearHead<T>& head, MatrixView<const T> out,
                            MatrixView<const T> dout, const T* normalisers, Index rows, T* to,
                            Index stride) {
  const Index dv = head.v.cols();
  const auto n = static_cast<std::size_t>(dv);
  std::fill_n(to, rows * stride, T{0});
  core::Buffer<T> dense(dout.last_stride_is_one() ? 0 : n);
  core::Buffer<T> dense_out(!head.normalise || out.last_stride_is_one() ? 0 : n);
  for (Index i = 0; i < head.q.rows(); ++i) {
    const Index t = i + head.offset;
    if (t < 0) continue;
    T* const row = to + t * stride;
    const T* const dy = row_of(dout, i, dense);
    const T whole = static_cast<T>(head.scale);
    if (!head.normalise) {
      QUERN_DISPATCH(scale<T>(whole, dy, n, row));
      continue;
    }
    const T factor = normalisers[i] == T{0} ? T{0} : T{1} / normalisers[i];
    QUERN_DISPATCH(scale<T>(whole * factor, dy, n, row));
    row[dv] = static_cast<T>(-QUERN_DISPATCH(dot<T>(dy, row_of(out, i, dense_out), n))) * factor;
  }
}

/// A head's gradients by its decays.
template <class T>
void add_decay_gradient(const T* ddecay, Index keys, Index m, const LinearHeadGradients<T>& to) {
  for (Index t = 0; t < keys; ++t) {
    for (Index c = 0; c < m && !to.channel_decay.is_null(); ++c) {
      to.channel_decay(t, c) += ddecay[t * m + c];
    }
    if (!to.step_decay.is_null()) to.step_decay(t, 0) += ddecay[t];
    if (to.head_decay != nullptr) *to.head_decay += ddecay[t];
  }
}

/// One query head's part of the gradients. `phi_k` (steps, features) are the keys' features,
/// `decay` logarithms of (steps) or (steps, features) factors, or null.
template <class T>
void linear_causal_vjp(const LinearHead<T>& head, const EndsOfHead<T>& ends, const T* phi_k,
                       const T* decay, bool wide_decay, MatrixView<const T> out,
                       MatrixView<const T> dout, const T* normalisers, const LinearOptions& call,
                       const LinearHeadGradients<T>& to) {
  const Index n = head.steps(), m = head.features(), dv = head.v.cols();
  // With the normaliser's column, and zeros up to what the kernel takes as it lies.
  const kernels::RecurrenceLayout layout = QUERN_DISPATCH(recurrence_layout<T>());
  const Index values =
      block_count(dv + (head.normalise ? 1 : 0), layout.rows) * static_cast<Index>(layout.rows);
  const auto buffer = [](Index size) { return core::Buffer<T>(static_cast<std::size_t>(size)); };
  core::Buffer<T> phi_q = buffer(n * m), dy = buffer(n * values);
  core::Buffer<T> v(static_cast<std::size_t>(n * values), core::Fill::zero);
  core::Buffer<T> dq = buffer(n * m), dk = buffer(to.add ? n * m : 0);
  core::Buffer<T> dv_sum = buffer(to.add ? n * dv : 0);
  core::Buffer<T> ddecay = buffer(decay == nullptr ? 0 : n * (wide_decay ? m : 1));
  FeatureRows<T>(head.q, head.query_map, head.offset, head.normalise)
      .load(0, n, 0, m, phi_q.data(), m);
  TimelineRows<T>(head.v, 0, head.normalise).load(0, n, 0, values, v.data(), values);
  linear_output_gradient(head, out, dout, normalisers, n, dy.data(), values);
  kernels::RecurrenceViews<T> in;
  const Shape<4> by_key{1, 1, n, m}, by_value{1, 1, n, values}, by_state{1, 1, m, values};
  in.q = {phi_q.data(), by_key}, in.k = {phi_k, by_key}, in.v = {v.data(), by_value};
  kernels::RecurrenceGradients<T> gradients;
  gradients.q = {dq.data(), by_key};
  gradients.k = {to.add ? dk.data() : to.key_sums->data(), by_key};
  // What the normaliser's column of ones would get is of no use.
  gradients.v = {to.add ? dv_sum.data() : to.value_sums->data(), {1, 1, n, dv}};
  if (decay != nullptr && wide_decay) in.channel_decay = {decay, by_key};
  if (decay != nullptr && !wide_decay) in.step_decay = {decay, {1, 1, n}};
  if (!to.channel_decay.is_null()) gradients.channel_decay = {ddecay.data(), by_key};
  if (!to.step_decay.is_null() || to.head_decay != nullptr) {
    gradients.step_decay = {ddecay.data(), {1, 1, n}};
  }
  const core::Buffer<T> initial =
      state_columns(ends.sums, head.normalise ? ends.normaliser : nullptr, values);
  const core::Buffer<T> dfinal =
      state_columns(ends.dfinal, head.normalise ? ends.dfinal_normaliser : nullptr, values);
  core::Buffer<T> dinitial = buffer(ends.dinitial.is_null() ? 0 : m * values);
  if (!initial.empty()) in.initial_state = {initial.data(), by_state};
  if (!dinitial.empty()) gradients.initial_state = {dinitial.data(), by_state};
  kernels::RecurrenceOptions options;
  options.chunk = call.chunk;
  options.threads = call.threads;
  kernels::decayed_recurrence_vjp<T>(
      in, NdView<const T, 4>(dy.data(), by_value),
      dfinal.empty() ? NdView<const T, 4>() : NdView<const T, 4>(dfinal.data(), by_state),
      gradients, options);
  if (!ends.dinitial.is_null()) {
    store_initial_gradient(ends, dinitial.data(), values, head.normalise);
  }
  if (to.add) {
    QUERN_DISPATCH(axpy<T>(T{1}, dk.data(), dk.size(), to.key_sums->data()));
    QUERN_DISPATCH(axpy<T>(T{1}, dv_sum.data(), dv_sum.size(), to.value_sums->data()));
  }
  add_decay_gradient(ddecay.data(), head.k.rows(), m, to);
  feature_vjp(head.q, head.query_map, head.offset, phi_q.data(), dq.data(), to.q);
}

}  // namespace attention::detail
QUERN_NAMESPACE_END

#endif  // QUERN_ATTENTION_DETAIL_LINEAR_CAUSAL_HPP
