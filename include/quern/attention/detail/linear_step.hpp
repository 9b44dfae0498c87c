// SPDX-License-Identifier: Apache-2.0

/// \file
/// One step of causal linear attention on a state where it lies: decoding. Where nothing fades the
/// bits are those of a longer piece.

#ifndef QUERN_ATTENTION_DETAIL_LINEAR_STEP_HPP
#define QUERN_ATTENTION_DETAIL_LINEAR_STEP_HPP

#include "quern/attention/attention_options.hpp"
#include "quern/attention/detail/linear_head.hpp"
#include "quern/attention/feature_map.hpp"
#include "quern/attention/linear_options.hpp"
#include "quern/attention/linear_state.hpp"
#include "quern/core/buffer.hpp"
#include "quern/core/config.hpp"
#include "quern/core/nd_view.hpp"
#include "quern/core/parallel.hpp"
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

/// Features of some heads of a step, and what a head works with.
template <class T>
struct StepScratch {
  core::Buffer<T> memory;
  std::vector<kernels::StepFade<T>> fades;
  T *queries, *keys, *query_scales, *key_scales, *key, *values, *out;
  StepScratch(Index heads, Index features, Index value_dim, Index fade_count)
      : memory(static_cast<std::size_t>((2 * heads + 1) * features + 2 * (heads + value_dim) + 1)),
        fades(static_cast<std::size_t>(fade_count)) {
    queries = memory.data();
    keys = queries + heads * features;
    key = keys + heads * features;
    query_scales = key + features;
    key_scales = query_scales + heads;
    values = key_scales + heads;
    out = values + value_dim;
  }
};

/// A call that is one step of every sequence.
template <class T>
class LinearStep {
 public:
  LinearStep(const AttentionShape& shape, const LinearInputs<T>& in, const LinearOptions& options,
             const FeatureMap<T>& query_map, const FeatureMap<T>& key_map, Index features)
      : shape_(shape),
        in_(in),
        options_(options),
        query_map_(query_map),
        key_map_(key_map),
        features_(features) {}

  void run(LinearState<T>& state, const NdView<T, 4>& out, const NdView<T, 3>& normalisers) const {
    // Waking threads takes as long as a few heads.
    constexpr Index elements = 1 << 17;
    const Index size = (std::max)(Index{1}, features_ * shape_.value_dim);
    const Index most = (std::max)(Index{1}, shape_.heads);
    const Index each = (std::clamp)(elements / size, Index{1}, most);
    const Index blocks = block_count(shape_.heads, each), tasks = shape_.sequences() * blocks;
    const auto some = [&](Index task) {
      const Index first = task % blocks * each;
      heads(task / blocks, first, (std::min)(each, shape_.heads - first), state, out, normalisers);
    };
    if (shape_.sequences() * shape_.heads * size > elements) {
      return parallel_for(tasks, some, options_.threads);
    }
    for (Index task = 0; task < tasks; ++task) some(task);
  }

 private:
  /// (heads, channels) of heads [first, first + count) of a sequence's step.
  template <class U>
  static MatrixView<U> of_step(const NdView<U, 4>& x, const SequenceSpan& span, Index first,
                               Index count) {
    U* const at =
        x.data() + span.batch * x.stride(0) + first * x.stride(1) + span.begin * x.stride(2);
    return {at, {count, x.extent(3)}, {x.stride(1), x.stride(3)}};
  }
  static const T* row_of_step(const MatrixView<const T>& x, Index row, T* room) {
    if (x.last_stride_is_one()) return x.data() + row * x.row_stride();
    for (Index c = 0; c < x.cols(); ++c) room[c] = x(row, c);
    return room;
  }

  void heads(Index sequence, Index first, Index count, LinearState<T>& state,
             const NdView<T, 4>& out, const NdView<T, 3>& normalisers) const {
    const auto s = static_cast<std::size_t>(sequence);
    const SequenceSpan &queries = shape_.query_spans[s], &keys = shape_.key_spans[s];
    const Index m = features_, share = shape_.share(), first_key = first / share;
    const Index key_count = (first + count - 1) / share + 1 - first_key;
    const bool scaled = key_map_.scaled(), scaled_query = query_map_.scaled();
    StepScratch<T> scratch(count, m, shape_.value_dim, fade_count());
    const MatrixView<const T> v = of_step(in_.v, keys, first_key, key_count);
    const MatrixView<T> to = of_step(out, queries, first, count);
    FeatureRows<T>(of_step(in_.q, queries, first, count), query_map_, 0, options_.normalise,
                   scaled_query ? scratch.query_scales : nullptr)
        .rows(0, count, scratch.queries, m);
    FeatureRows<T>(of_step(in_.k, keys, first_key, key_count), key_map_, 0, options_.normalise,
                   scaled ? scratch.key_scales : nullptr)
        .rows(0, key_count, scratch.keys, m);
    for (Index i = 0; i < count; ++i) {
      const Index h = first + i, kh = h / share - first_key;
      kernels::RecurrenceStep<T> step;
      step.read = scratch.queries + i * m;
      step.write = scratch.keys + kh * m;
      step.values = row_of_step(v, kh, scratch.values);
      const T level =
          advance(step, sequence, h, keys, scratch, scaled ? scratch.key_scales[kh] : T{0}, state);
      T factor = static_cast<T>(options_.scale);
      if (options_.normalise) {
        const T total = *step.total + eps(level, scaled_query ? scratch.query_scales[i] : T{0});
        if (!normalisers.is_null()) normalisers(queries.batch, h, queries.begin) = total;
        factor = total == T{0} ? T{0} : factor / total;
      }
      if (to.last_stride_is_one()) {
        QUERN_DISPATCH(scale<T>(factor, scratch.out, static_cast<std::size_t>(to.cols()),
                                to.data() + i * to.row_stride()));
      } else {
        for (Index c = 0; c < to.cols(); ++c) to(i, c) = factor * scratch.out[c];
      }
    }
  }

  /// Moves one head's state on and leaves its sums in scratch.out; returns the keys' level.
  T advance(kernels::RecurrenceStep<T>& step, Index sequence, Index h, const SequenceSpan& keys,
            StepScratch<T>& scratch, T key_scale, LinearState<T>& state) const {
    const Index row = sequence * shape_.heads + h, m = features_, dv = shape_.value_dim;
    T level{0}, fade{0};
    if (key_map_.scaled()) {
      T& log_scale = state.log_scale.data()[row];
      const ScaledStep<T> to(log_scale, key_scale);
      QUERN_DISPATCH(scale<T>(to.weight, step.write, static_cast<std::size_t>(m), scratch.key));
      step.write = scratch.key;
      log_scale = level = to.level;
      fade = to.fade;
    }
    if (fill_fades(keys, h / shape_.share(), fade, scratch.fades)) step.fade = scratch.fades.data();
    step.fade_by_row = !in_.channel_decay.is_null();
    step.rows = m, step.lanes = step.stride = dv;
    step.state = state.sums.data() + row * m * dv;
    step.out = scratch.out;
    if (options_.normalise) {
      step.normaliser = state.normaliser.data() + row * m;
      step.total = scratch.out + dv;
    }
    QUERN_DISPATCH(recurrence_step<T>(step));
    return level;
  }

  [[nodiscard]] T eps(T level, T query_scale) const {
    return key_map_.scaled() || query_map_.scaled()
               ? scaled_eps<T>(options_.eps, level, query_scale)
               : static_cast<T>(options_.eps);
  }

  /// How many factors a state fades by in a step.
  [[nodiscard]] Index fade_count() const {
    if (!in_.channel_decay.is_null()) return features_;
    const bool fades = !in_.head_decay.is_null() || !in_.step_decay.is_null() || key_map_.scaled();
    return fades ? 1 : 0;
  }
  /// Those of a key head; false: it does not fade.
  bool fill_fades(const SequenceSpan& keys, Index kh, T fade,
                  std::vector<kernels::StepFade<T>>& fades) const {
    const NdView<const T, 4>& channels = in_.channel_decay;
    if (!channels.is_null()) {
      for (Index c = 0; c < features_; ++c) {
        fades[static_cast<std::size_t>(c)] =
            step_fade(channels(keys.batch, kh, keys.begin, c) + fade);
      }
      return true;
    }
    if (fades.empty()) return false;
    T own{0};
    if (!in_.head_decay.is_null()) own = in_.head_decay(kh);
    if (!in_.step_decay.is_null()) own = in_.step_decay(keys.batch, kh, keys.begin);
    fades[0] = step_fade(own + fade);
    return true;
  }

  const AttentionShape& shape_;
  const LinearInputs<T>& in_;
  const LinearOptions& options_;
  const FeatureMap<T>& query_map_;
  const FeatureMap<T>& key_map_;
  Index features_;
};

}  // namespace attention::detail
QUERN_NAMESPACE_END

#endif  // QUERN_ATTENTION_DETAIL_LINEAR_STEP_HPP
