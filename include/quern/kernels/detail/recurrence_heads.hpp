// SPDX-License-Identifier: Apache-2.0

/// \file
/// What the forward and the backward pass of the decayed recurrence share: checks, the way from a
/// task to the views of its sequence and head, and the bonus of the present step.

#ifndef QUERN_KERNELS_DETAIL_RECURRENCE_HEADS_HPP
#define QUERN_KERNELS_DETAIL_RECURRENCE_HEADS_HPP

#include "quern/core/buffer.hpp"
#include "quern/core/checks.hpp"
#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/core/nd_view.hpp"
#include "quern/kernels/recurrence_sweep.hpp"
#include "quern/kernels/recurrence_views.hpp"
#include "quern/kernels/sequence_spans.hpp"

#include <algorithm>
#include <cstddef>
#include <string>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace kernels::detail {

/// Columns of a state that one task handles.
struct LaneGroup {
  Index first = 0;
  Index count = 0;
};

/// Sizes of a call, checked.
struct RecurrenceShape {
  const char* function;
  Index batch = 0, heads = 0, length = 0, key_dim = 0, value_dim = 0;
  std::vector<SequenceSpan> spans;

  template <class T>
  RecurrenceShape(const char* name, const RecurrenceViews<T>& in, const RecurrenceOptions& options)
      : function(name),
        batch(in.q.extent(0)),
        length(in.q.extent(2)),
        key_dim(in.q.extent(3)),
        value_dim(in.v.extent(3)) {
    for (const Index h : {in.q.extent(1), in.k.extent(1), in.v.extent(1), in.head_decay.extent(0),
                          in.step_decay.extent(1), in.channel_decay.extent(1)}) {
      heads = (std::max)(heads, h);
    }
    check("q", in.q, key_dim);
    check("k", in.k, key_dim);
    check("v", in.v, value_dim);
    const int decays = int{!in.head_decay.is_null()} + int{!in.step_decay.is_null()} +
                       int{!in.channel_decay.is_null()};
    if (decays > 1) throw ValueError(error_text(function, "decays", "at most one", decays));
    if (!in.head_decay.is_null()) expect_shape(function, "head_decay", in.head_decay, {heads});
    if (!in.channel_decay.is_null()) check("channel_decay", in.channel_decay, key_dim);
    if (!in.step_decay.is_null()) {
      check_heads("step_decay", in.step_decay.extent(1));
      expect_shape(function, "step_decay", in.step_decay, {batch, in.step_decay.extent(1), length});
    }
    if (!in.bonus.is_null()) {
      expect_shape(function, "bonus", in.bonus, {heads, key_dim});
      if (!options.from_old_state) {
        throw ValueError(error_text(function, "bonus", "from_old_state with it", "a new state"));
      }
    }
    if (options.chunk < 1) {
      throw ValueError(error_text(function, "options.chunk", "at least 1", options.chunk));
    }
    spans = sequence_spans(function, batch, length, options.sequences);
    check_state("initial_state", in.initial_state);
  }

  void check_heads(const char* argument, Index has) const {
    if (has > 0 ? heads % has == 0 : heads == 0) return;
    throw ShapeError(error_text(function, argument,
                                "a number of heads that divides " + std::to_string(heads), has));
  }
  template <class T>
  void check(const char* argument, const NdView<T, 4>& x, Index dim) const {
    check_heads(argument, x.extent(1));
    expect_shape(function, argument, x, {batch, x.extent(1), length, dim});
  }
  template <class T>
  void check_values(const char* argument, const NdView<T, 4>& x) const {
    expect_shape(function, argument, x, {batch, heads, length, value_dim});
  }
  template <class T>
  void check_state(const char* argument, const NdView<T, 4>& x) const {
    if (x.is_null() && x.size() == 0) return;
    expect_shape(function, argument, x, {sequences(), heads, key_dim, value_dim});
  }

  [[nodiscard]] Index sequences() const noexcept { return static_cast<Index>(spans.size()); }
  [[nodiscard]] Index spans_heads() const noexcept { return sequences() * heads; }

  /// Few heads share out columns of their states too, which are independent of each other. Each
  /// task reads all of the keys again, so not where there are heads enough.
  static constexpr Index group_lanes = 32;
  [[nodiscard]] Index lane_groups(Index lanes) const noexcept {
    if (spans_heads() >= 8 || lanes <= group_lanes) return 1;
    return (lanes + group_lanes - 1) / group_lanes;
  }
  [[nodiscard]] LaneGroup lane_group(Index lanes, Index group) const noexcept {
    if (lane_groups(lanes) == 1) return {0, lanes};
    const Index first = group * group_lanes;
    return {first, (std::min)(group_lanes, lanes - first)};
  }

  /// Zeros at steps that belong to no sequence.
  template <class T>
  void clear_gaps(const NdView<T, 4>& x) const {
    for_each_gap(spans, batch, length, [&](Index b, Index begin, Index end) {
      for (Index h = 0; h < x.extent(1); ++h) {
        for (Index t = begin; t < end; ++t) {
          for (Index c = 0; c < x.extent(3); ++c) x(b, h, t, c) = T{0};
        }
      }
    });
  }
};

/// The views of one sequence and head, and the sources of a sweep over it.
template <class T>
class RecurrenceHead {
 public:
  RecurrenceHead(const RecurrenceShape& shape, const RecurrenceViews<T>& in,
                 const RecurrenceOptions& options, Index task)
      : shape_(shape),
        options_(options),
        sequence_(task / shape.heads),
        head_(task % shape.heads),
        span_(shape.spans[static_cast<std::size_t>(sequence_)]),
        q(steps(in.q)),
        k(steps(in.k)),
        v(steps(in.v)),
        bonus_(in.bonus.is_null() ? nullptr : &in.bonus(head_, 0)),
        bonus_stride_(in.bonus.is_null() ? 0 : in.bonus.stride(1)),
        log_decay(decay_view(in)) {
    if (!in.head_decay.is_null()) log_factor_ = in.head_decay(head_);
    kind_ = !in.channel_decay.is_null()                            ? TileDecay::row
            : !in.step_decay.is_null() || !in.head_decay.is_null() ? TileDecay::step
                                                                   : TileDecay::none;
    from_source_ = !in.channel_decay.is_null() || !in.step_decay.is_null();
  }
  RecurrenceHead(const RecurrenceHead&) = delete;
  RecurrenceHead& operator=(const RecurrenceHead&) = delete;

  [[nodiscard]] Index length() const noexcept { return span_.length; }
  [[nodiscard]] Index sequence() const noexcept { return sequence_; }
  [[nodiscard]] Index head() const noexcept { return head_; }
  [[nodiscard]] const RecurrenceShape& shape() const noexcept { return shape_; }
  [[nodiscard]] TileDecay kind() const noexcept { return kind_; }
  [[nodiscard]] bool old_state() const noexcept { return options_.from_old_state; }
  [[nodiscard]] bool has_bonus() const noexcept { return bonus_ != nullptr; }
  [[nodiscard]] T bonus(Index c) const noexcept { return bonus_[c * bonus_stride_]; }

  /// (length, channels) of this head in an array with any number of heads.
  template <class U>
  [[nodiscard]] MatrixView<U> steps(const NdView<U, 4>& x) const {
    const Index share = x.extent(1) > 0 ? shape_.heads / x.extent(1) : 1;
    return x.subview(span_.batch).subview(head_ / share).slice(0, span_.begin, span_.length);
  }
  /// (key_dim, value_dim) of a state, null for a null one.
  template <class U>
  [[nodiscard]] MatrixView<U> state(const NdView<U, 4>& x) const {
    return x.is_null() ? MatrixView<U>() : x.subview(sequence_).subview(head_);
  }

  /// The states S_t themselves, columns along value_dim.
  [[nodiscard]] RecurrenceSweep<T> forward_sweep(LaneGroup lanes) const {
    RecurrenceSweep<T> sweep = base(lanes);
    sweep.rows = shape_.key_dim;
    sweep.write = &k;
    sweep.read = &q;
    sweep.values = &v;
    sweep.late_update = old_state();
    return sweep;
  }
  /// Any sweep: length, decay, columns.
  [[nodiscard]] RecurrenceSweep<T> base(LaneGroup lanes) const {
    RecurrenceSweep<T> sweep;
    sweep.length = span_.length;
    sweep.tile = options_.chunk;
    sweep.first_lane = lanes.first;
    sweep.lanes = lanes.count;
    sweep.decay = kind_;
    sweep.log_decay = from_source_ ? &log_decay : nullptr;
    sweep.log_factor = log_factor_;
    return sweep;
  }

  /// out_s += scale (sum of q u k) values_s, channels [first, first + channels) of `values`.
  void add_bonus(Index begin, Index count, const ViewSource<T>& values, Index first, Index channels,
                 T scale, T* out, Index stride) const {
    const Index d = shape_.key_dim;
    core::Buffer<T> memory(static_cast<std::size_t>(2 * count * d + d + count * channels));
    T* const u = memory.data() + 2 * count * d;
    for (Index c = 0; c < d; ++c) u[c] = bonus(c);
    const Rows queries(q, begin, count, 0, d, memory.data());
    const Rows keys(k, begin, count, 0, d, memory.data() + count * d);
    const Rows rows(values, begin, count, first, channels, u + d);
    RecurrenceBonus<T> sum;
    sum.steps = count, sum.keys = d, sum.lanes = channels, sum.u = u, sum.scale = scale;
    sum.q = queries.data, sum.q_stride = queries.stride;
    sum.k = keys.data, sum.k_stride = keys.stride;
    sum.values = rows.data, sum.value_stride = rows.stride;
    sum.out = out, sum.out_stride = stride;
    QUERN_DISPATCH(recurrence_bonus<T>(sum));
  }

 private:
  /// Steps of a source, where they lie or in `room`.
  struct Rows {
    const T* data;
    Index stride;
    Rows(const ViewSource<T>& source, Index begin, Index count, Index first, Index channels,
         T* room)
        : data(nullptr), stride(channels) {
      data = source.direct(begin, count, first, channels, stride);
      if (data != nullptr) return;
      stride = channels;
      data = room;
      source.load(begin, count, first, channels, room, channels);
    }
  };

  /// Logarithms of the decay as (length, channels).
  [[nodiscard]] MatrixView<const T> decay_view(const RecurrenceViews<T>& in) const {
    if (!in.channel_decay.is_null()) return steps(in.channel_decay);
    if (in.step_decay.is_null()) return {};
    const NdView<const T, 3>& g = in.step_decay;
    const NdView<const T, 4> wide(g.data(), {g.extent(0), g.extent(1), g.extent(2), 1},
                                  {g.stride(0), g.stride(1), g.stride(2), 1});
    return steps(wide);
  }

  const RecurrenceShape& shape_;
  const RecurrenceOptions& options_;
  Index sequence_, head_;
  SequenceSpan span_;

 public:
  ViewSource<T> q, k, v;

 private:
  const T* bonus_;
  Index bonus_stride_;

 public:
  ViewSource<T> log_decay;

 private:
  T log_factor_ = T{0};
  TileDecay kind_ = TileDecay::none;
  bool from_source_ = false;
};

/// Adds the present step's part of the output, scale (sum of q u k) v, to what the state gave; or
/// of dv, with dout for v.
template <class T>
class BonusSink final : public StepSink<T> {
 public:
  BonusSink(const RecurrenceHead<T>& head, const ViewSource<T>& values, T scale, StepSink<T>& next)
      : head_(head), values_(values), scale_(scale), next_(next) {}

  void store(Index begin, Index count, Index first, Index channels, T* values,
             Index stride) override {
    head_.add_bonus(begin, count, values_, first, channels, scale_, values, stride);
    next_.store(begin, count, first, channels, values, stride);
  }

 private:
  const RecurrenceHead<T>& head_;
  const ViewSource<T>& values_;
  T scale_;
  StepSink<T>& next_;
};

}  // namespace kernels::detail
QUERN_NAMESPACE_END

#endif  // QUERN_KERNELS_DETAIL_RECURRENCE_HEADS_HPP
