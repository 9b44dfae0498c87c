// SPDX-License-Identifier: Apache-2.0

/// \file
/// One call of linear attention: checks, which head sees what, and the passes over heads.

#ifndef QUERN_ATTENTION_DETAIL_LINEAR_CALL_HPP
#define QUERN_ATTENTION_DETAIL_LINEAR_CALL_HPP

#include "quern/attention/attention_options.hpp"
#include "quern/attention/detail/linear_causal.hpp"
#include "quern/attention/detail/linear_full.hpp"
#include "quern/attention/detail/linear_fused_vjp.hpp"
#include "quern/attention/detail/linear_head.hpp"
#include "quern/attention/detail/linear_step.hpp"
#include "quern/attention/linear_options.hpp"
#include "quern/attention/linear_state.hpp"
#include "quern/core/checks.hpp"
#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/core/nd_array.hpp"
#include "quern/core/nd_view.hpp"
#include "quern/core/parallel.hpp"

#include <algorithm>
#include <cstddef>
#include <limits>
#include <string>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace attention::detail {

template <class T>
const FeatureMap<T>& identity_map() {
  static const NamedFeature<T> identity(Feature::identity);
  return identity;
}

template <class T>
class LinearCall {
 public:
  AttentionShape shape;

  LinearCall(const char* function, const LinearInputs<T>& in, const LinearOptions& options)
      : shape(function, in.q, in.k, in.v, options.visible),
        in_(in),
        options_(options),
        query_map_(in.query_map != nullptr ? *in.query_map : identity_map<T>()),
        key_map_(in.key_map != nullptr ? *in.key_map : query_map_),
        features_(key_map_.features(in.k.extent(3))) {
    if (query_map_.features(in.q.extent(3)) != features_) {
      throw ShapeError(error_text(function, "query_map",
                                  std::to_string(features_) + " features, as of the keys",
                                  query_map_.features(in.q.extent(3))));
    }
    const Visibility& visible = options.visible;
    if (visible.left >= 0 || (visible.right >= 0 && !visible.causal)) {
      throw ValueError(error_text(function, "window", "none: sums cannot forget", "one"));
    }
    if (!options.normalise && (query_map_.scaled() || key_map_.scaled())) {
      throw ValueError(error_text(function, "options.normalise",
                                  "true with feature maps whose rows have scales", "false"));
    }
    check_decays();
    if (options.chunk < 1) {
      throw ValueError(error_text(function, "options.chunk", "at least 1", options.chunk));
    }
    if (!(options.eps >= 0)) {
      throw ValueError(error_text(function, "options.eps", "0 or more", options.eps));
    }
  }

  [[nodiscard]] bool causal() const noexcept { return options_.visible.causal; }

  template <class U>
  void check_out(const char* argument, const NdView<U, 4>& x) const {
    expect_shape(shape.function, argument, x,
                 {shape.batch, shape.heads, shape.length, shape.value_dim});
  }
  template <class U>
  void check_normalisers(const NdView<U, 3>& x) const {
    if (x.is_null()) return;
    expect_shape(shape.function, "normalisers", x, {shape.batch, shape.heads, shape.length});
  }
  void check_state(const char* argument, const LinearState<T>* state) const {
    if (state == nullptr) return;
    if (!causal())
      throw ValueError(error_text(shape.function, argument, "causal attention", "full"));
    const Index s = shape.sequences(), h = shape.heads;
    const Shape<4> sums{s, h, features_, shape.value_dim};
    const Shape<3> normaliser{s, h, features_};
    const Shape<2> log_scale{s, h};
    if (state->sums.extents() == sums && state->normaliser.extents() == normaliser &&
        state->log_scale.extents() == log_scale) {
      return;
    }
    const std::string name = argument;
    expect_shape(shape.function, name + ".sums", state->sums.view(), sums);
    expect_shape(shape.function, name + ".normaliser", state->normaliser.view(), normaliser);
    expect_shape(shape.function, name + ".log_scale", state->log_scale.view(), log_scale);
  }
  void check_gradients(const LinearGradients<T>& g) const {
    const char* f = shape.function;
    if (!g.q.is_null()) expect_shape(f, "gradients.q", g.q, in_.q.extents());
    if (!g.k.is_null()) expect_shape(f, "gradients.k", g.k, in_.k.extents());
    if (!g.v.is_null()) expect_shape(f, "gradients.v", g.v, in_.v.extents());
    if (!g.head_decay.is_null()) {
      expect_shape(f, "gradients.head_decay", g.head_decay, in_.head_decay.extents());
    }
    if (!g.step_decay.is_null()) {
      expect_shape(f, "gradients.step_decay", g.step_decay, in_.step_decay.extents());
    }
    if (!g.channel_decay.is_null()) {
      expect_shape(f, "gradients.channel_decay", g.channel_decay, in_.channel_decay.extents());
    }
  }

  /// Groups of value channels that a head's causal forward pass is cut into where there are fewer
  /// heads than threads have work with. Channels need nothing of each other (each group makes
  /// features and normaliser for itself), so that this may follow the threads: no bit changes.
  [[nodiscard]] Index value_groups() const {
    const Index heads = shape.sequences() * shape.heads, workers = worker_count(options_.threads);
    const bool scaled = query_map_.scaled() || key_map_.scaled();
    if (!causal() || scaled || heads == 0) return 1;
    if (heads >= 4 * workers || heads % workers == 0) return 1;
    const Index wanted = heads > workers ? 2 : block_count(workers, heads);
    return (std::clamp)(wanted, Index{1}, (std::max)(Index{1}, shape.value_dim / group_lanes));
  }

  [[nodiscard]] LinearHead<T> head(Index sequence, Index h) const {
    const auto s = static_cast<std::size_t>(sequence);
    const SequenceSpan& keys = shape.key_spans[s];
    const Index kh = h / shape.share();
    LinearHead<T> head{sequence_rows(in_.q, shape.query_spans[s], h),
                       sequence_rows(in_.k, keys, kh),
                       sequence_rows(in_.v, keys, kh),
                       query_map_,
                       key_map_,
                       step_rows(in_.step_decay, keys, kh),
                       in_.channel_decay.is_null() ? MatrixView<const T>()
                                                   : sequence_rows(in_.channel_decay, keys, kh)};
    head.constant = !in_.head_decay.is_null();
    if (head.constant) head.constant_decay = in_.head_decay(kh);
    head.normalise = options_.normalise;
    head.eps = options_.eps;
    head.scale = options_.scale;
    head.offset = causal() ? shape.offset : 0;
    head.streams = shape.batch * shape.heads * shape.length * shape.value_dim >=
                   stream_bytes / static_cast<Index>(sizeof(T));
    return head;
  }

  /// The forward pass.
  void run(LinearState<T>* state, const NdView<T, 4>& out, const NdView<T, 3>& normalisers) const {
    const simd::Level level = simd::active_level();
    const Index groups = value_groups();
    NdArray<T, 3> before;
    if (state != nullptr && groups > 1) before = state->normaliser;
    parallel_for(
        shape.sequences() * shape.heads * groups,
        [&](Index task) {
          const Index sequence = task / groups / shape.heads, h = task / groups % shape.heads;
          const SequenceSpan& span = shape.query_spans[static_cast<std::size_t>(sequence)];
          const bool save = !normalisers.is_null() && task % groups == 0;
          std::vector<T> sums(static_cast<std::size_t>(save ? span.length : 0));
          const MatrixView<T> to = sequence_rows(out, span, h);
          if (causal()) {
            HeadState<T> at = state_of_head(state, sequence, h);
            if (!before.empty()) {
              at.normaliser_before = before.data() + (sequence * shape.heads + h) * features_;
            }
            forward(level, head(sequence, h), task % groups, groups, at, to, sums.data());
          } else {
            forward_full(level, head(sequence, h), to, sums.data());
          }
          for (Index i = 0; i < span.length && save; ++i) {
            normalisers(span.batch, h, span.begin + i) = sums[static_cast<std::size_t>(i)];
          }
        },
        options_.threads);
  }

  /// Causal: one group of value channels.
  void forward(simd::Level level, const LinearHead<T>& head, Index group, Index groups,
               const HeadState<T>& at, MatrixView<T> out, T* normalisers) const {
    const Index each = block_count(block_count(shape.value_dim, groups), group_lanes) * group_lanes;
    const Index first = (std::min)(group * each, shape.value_dim);
    const Index count = groups == 1 ? shape.value_dim : (std::min)(each, shape.value_dim - first);
    if (count == 0 && group > 0) return;
    linear_causal(level, head, first, count, options_.chunk, at, out, normalisers);
  }
  /// Full: all channels.
  void forward_full(simd::Level level, const LinearHead<T>& head, MatrixView<T> out,
                    T* normalisers) const {
    const double scores = static_cast<double>(head.q.rows()) * static_cast<double>(head.k.rows()) *
                          static_cast<double>(features_ + shape.value_dim);
    const double sums = static_cast<double>(head.q.rows() + head.k.rows()) *
                        static_cast<double>(features_) * static_cast<double>(shape.value_dim);
    const bool can = !head.key_map.scaled() && !head.query_map.scaled();
    const bool by_scores = can && (options_.order == LinearOrder::scores_first ||
                                   (options_.order == LinearOrder::automatic && scores < sums));
    if (by_scores) return linear_full_by_scores(level, head, out, normalisers);
    linear_full(level, head, out, normalisers);
  }

  /// Whether the call is one step of every sequence from a state.
  [[nodiscard]] bool is_step(const LinearState<T>* state) const {
    if (!causal() || state == nullptr || shape.length != 1 || shape.keys != 1) return false;
    if (shape.offset != 0) return false;
    for (const SequenceSpan& span : shape.query_spans) {
      if (span.length != 1) return false;
    }
    for (const SequenceSpan& span : shape.key_spans) {
      if (span.length != 1) return false;
    }
    return true;
  }
  /// That step.
  void step(LinearState<T>* state, const NdView<T, 4>& out, const NdView<T, 3>& normalisers) const {
    LinearStep<T>(shape, in_, options_, query_map_, key_map_, features_)
        .run(*state, out, normalisers);
  }

  void backward(const NdView<const T, 4>& out, const NdView<const T, 3>& normalisers,
                const NdView<const T, 4>& dout, const StatesOfCall<T>& states,
                const LinearGradients<T>& gradients) const {
    const Index tasks = shape.sequences() * shape.key_heads;
    std::vector<T> head_decay(static_cast<std::size_t>(gradients.head_decay.is_null() ? 0 : tasks));
    const auto one = [&](Index task) {
      T* const decay = head_decay.empty() ? nullptr : &head_decay[static_cast<std::size_t>(task)];
      key_head(task / shape.key_heads, task % shape.key_heads, out, normalisers, dout, states,
               gradients, decay);
    };
    // Few heads are done one after the other, each on all threads.
    if (tasks >= 4) {
      parallel_for(tasks, one, options_.threads);
    } else {
      for (Index task = 0; task < tasks; ++task) one(task);
    }
    for (std::size_t i = 0; i < head_decay.size(); ++i) {
      gradients.head_decay(static_cast<Index>(i) % shape.key_heads) += head_decay[i];
    }
  }

 private:
  static constexpr Index group_lanes = 16;
  /// From how large an output on it is written past the caches.
  static constexpr Index stream_bytes = Index{1} << 22;

  static MatrixView<const T> step_rows(const NdView<const T, 3>& g, const SequenceSpan& span,
                                       Index head) {
    if (g.is_null()) return {};
    const NdView<const T, 4> wide(g.data(), {g.extent(0), g.extent(1), g.extent(2), 1},
                                  {g.stride(0), g.stride(1), g.stride(2), 1});
    return sequence_rows(wide, span, head);
  }

  void check_decays() const {
    const int decays = int{!in_.head_decay.is_null()} + int{!in_.step_decay.is_null()} +
                       int{!in_.channel_decay.is_null()};
    const char* f = shape.function;
    if (decays > 1) throw ValueError(error_text(f, "decays", "at most one", decays));
    if (decays > 0 && !causal()) {
      throw ValueError(error_text(f, "decays", "causal attention with them", "full attention"));
    }
    if (!in_.head_decay.is_null()) expect_shape(f, "head_decay", in_.head_decay, {shape.key_heads});
    if (!in_.step_decay.is_null()) {
      expect_shape(f, "step_decay", in_.step_decay, {shape.batch, shape.key_heads, shape.keys});
    }
    if (!in_.channel_decay.is_null()) {
      expect_shape(f, "channel_decay", in_.channel_decay,
                   {shape.batch, shape.key_heads, shape.keys, features_});
    }
  }

  /// Gradients of one key head, summed over its query heads.
  void key_head(Index sequence, Index kh, const NdView<const T, 4>& out,
                const NdView<const T, 3>& normalisers, const NdView<const T, 4>& dout,
                const StatesOfCall<T>& states, const LinearGradients<T>& gradients,
                T* head_decay) const {
    const simd::Level level = simd::active_level();
    const auto s = static_cast<std::size_t>(sequence);
    const SequenceSpan &queries = shape.query_spans[s], &keys = shape.key_spans[s];
    const auto rows = [&](const NdView<T, 4>& x) {
      return x.is_null() ? MatrixView<T>() : sequence_rows(x, keys, kh);
    };
    const MatrixView<T> dk = rows(gradients.k), dv = rows(gradients.v);
    std::vector<T> sums(static_cast<std::size_t>(queries.length));
    const auto each_query_head = [&](const auto& run) {
      for (Index h = kh * shape.share(); h < (kh + 1) * shape.share(); ++h) {
        for (Index i = 0; i < queries.length && options_.normalise; ++i) {
          sums[static_cast<std::size_t>(i)] = normalisers(queries.batch, h, queries.begin + i);
        }
        run(head(sequence, h), ends_of_head(states, sequence, h),
            options_.normalise ? sequence_rows(out, queries, h) : MatrixView<const T>(),
            sequence_rows(dout, queries, h),
            gradients.q.is_null() ? MatrixView<T>() : sequence_rows(gradients.q, queries, h));
      }
    };
    const LinearHead<T> first = head(sequence, kh * shape.share());
    if (!causal()) {
      const kernels::TileLayout layout = QUERN_DISPATCH_AT(level, tile_layout<T>());
      const KeySums<T> key_sums(level, layout, first);
      FeatureSums<T> dsums(layout, first);
      each_query_head([&](const LinearHead<T>& head, const EndsOfHead<T>&, MatrixView<const T> y,
                          MatrixView<const T> dy, MatrixView<T> dq) {
        linear_full_vjp(level, head, key_sums, y, dy, sums.data(), dsums, dq);
      });
      return linear_full_key_vjp(level, first, key_sums, dsums, dk, dv);
    }
    if (fused(states)) {
      const MatrixView<const T> y =
          options_.normalise ? sequence_rows(out, queries, kh) : MatrixView<const T>();
      const MatrixView<const T> dy = sequence_rows(dout, queries, kh);
      const MatrixView<T> dq =
          gradients.q.is_null() ? MatrixView<T>() : sequence_rows(gradients.q, queries, kh);
      if (can_fuse_vjp(first, y, dy, dq, dk, dv)) {
        for (Index i = 0; i < queries.length && options_.normalise; ++i) {
          sums[static_cast<std::size_t>(i)] = normalisers(queries.batch, kh, queries.begin + i);
        }
        return linear_fused_vjp(level, first, y, dy, sums.data(), options_, dq, dk, dv);
      }
    }
    const T before = states.initial != nullptr
                         ? states.initial->log_scale(sequence, kh * shape.share())
                         : -std::numeric_limits<T>::infinity();
    causal_key_head(first, before, keys, kh, gradients, head_decay, dk, dv, each_query_head,
                    sums.data());
  }

  /// Whether heads may be done as a whole each: as many of keys as of queries, and no states at
  /// their ends.
  [[nodiscard]] bool fused(const StatesOfCall<T>& states) const {
    return shape.share() == 1 && states.initial == nullptr && states.dfinal == nullptr &&
           states.dinitial == nullptr;
  }

  template <class EachQueryHead>
  void causal_key_head(const LinearHead<T>& first, T before, const SequenceSpan& keys, Index kh,
                       const LinearGradients<T>& gradients, T* head_decay, MatrixView<T> dk,
                       MatrixView<T> dv, const EachQueryHead& each_query_head,
                       const T* sums) const {
    const Index n = first.steps(), m = features_, dim = shape.value_dim;
    const bool wide = !first.channel_decay.is_null();
    core::Buffer<T> phi, decay;
    if (first.key_map.scaled()) {
      ScaledKeys<T> scaled(first, before);
      phi.swap(scaled.phi);
      decay.swap(scaled.decay);
    } else {
      phi = core::Buffer<T>(static_cast<std::size_t>(n * m));
      FeatureRows<T>(first.k, first.key_map, 0, first.normalise).load(0, n, 0, m, phi.data(), m);
      if (first.decays()) {
        decay = core::Buffer<T>(static_cast<std::size_t>(n * (wide ? m : 1)), core::Fill::zero);
        for (Index t = 0; t < first.k.rows(); ++t) {
          for (Index c = 0; c < (wide ? m : 1); ++c) {
            decay[static_cast<std::size_t>(t * (wide ? m : 1) + c)] =
                first.constant ? first.constant_decay
                : wide         ? first.channel_decay(t, c)
                               : first.step_decay(t, 0);
          }
        }
      }
    }
    core::Buffer<T> key_sums(static_cast<std::size_t>(n * m));
    core::Buffer<T> value_sums(static_cast<std::size_t>(n * dim));
    LinearHeadGradients<T> to;
    to.key_sums = &key_sums, to.value_sums = &value_sums;
    to.head_decay = head_decay;
    if (!gradients.channel_decay.is_null()) {
      to.channel_decay = sequence_rows(gradients.channel_decay, keys, kh);
      clear(to.channel_decay);
    }
    if (!gradients.step_decay.is_null()) {
      const NdView<T, 3>& g = gradients.step_decay;
      const NdView<T, 4> with_one(g.data(), {g.extent(0), g.extent(1), g.extent(2), 1},
                                  {g.stride(0), g.stride(1), g.stride(2), 1});
      to.step_decay = sequence_rows(with_one, keys, kh);
      clear(to.step_decay);
    }
    each_query_head([&](const LinearHead<T>& head, const EndsOfHead<T>& ends, MatrixView<const T> y,
                        MatrixView<const T> dy, MatrixView<T> dq) {
      to.q = dq;
      linear_causal_vjp(head, ends, phi.data(), decay.data(), wide, y, dy, sums, options_, to);
      to.add = true;
    });
    if (!dv.is_null()) copy_rows(value_sums.data(), dim, dv);
    feature_vjp(first.k, first.key_map, 0, phi.data(), key_sums.data(), dk);
  }

  [[nodiscard]] static HeadState<T> state_of_head(LinearState<T>* state, Index sequence, Index h) {
    HeadState<T> at;
    if (state == nullptr) return at;
    at.sums = state->sums.view().subview(sequence).subview(h);
    at.normaliser = state->normaliser.view().subview(sequence).subview(h).data();
    at.normaliser_before = at.normaliser;
    at.log_scale = &state->log_scale(sequence, h);
    return at;
  }
  /// What head h of a sequence has of the call's states.
  [[nodiscard]] EndsOfHead<T> ends_of_head(const StatesOfCall<T>& states, Index sequence,
                                           Index h) const {
    const Index row = (sequence * shape.heads + h) * features_;
    EndsOfHead<T> ends;
    if (states.initial != nullptr) {
      ends.sums = states.initial->sums.view().subview(sequence).subview(h);
      ends.normaliser = states.initial->normaliser.data() + row;
      ends.nothing_before = key_map_.scaled() && states.initial->log_scale(sequence, h) ==
                                                     -std::numeric_limits<T>::infinity();
    }
    if (states.dfinal != nullptr) {
      ends.dfinal = states.dfinal->sums.view().subview(sequence).subview(h);
      ends.dfinal_normaliser = states.dfinal->normaliser.data() + row;
    }
    if (states.dinitial != nullptr) {
      ends.dinitial = states.dinitial->sums.view().subview(sequence).subview(h);
      ends.dinitial_normaliser = states.dinitial->normaliser.data() + row;
      ends.nothing_before = ends.nothing_before || (key_map_.scaled() && states.initial == nullptr);
      states.dinitial->log_scale(sequence, h) = states.initial != nullptr
                                                    ? states.initial->log_scale(sequence, h)
                                                    : -std::numeric_limits<T>::infinity();
    }
    return ends;
  }

  static void clear(MatrixView<T> x) {
    for (Index r = 0; r < x.rows(); ++r) {
      for (Index c = 0; c < x.cols(); ++c) x(r, c) = T{0};
    }
  }

  const LinearInputs<T>& in_;
  const LinearOptions& options_;
  const FeatureMap<T>& query_map_;
  const FeatureMap<T>& key_map_;
  Index features_;
};

}  // namespace attention::detail
QUERN_NAMESPACE_END

#endif  // QUERN_ATTENTION_DETAIL_LINEAR_CALL_HPP
