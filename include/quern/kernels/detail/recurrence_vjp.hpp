// SPDX-License-Identifier: Apache-2.0

/// \file
/// Gradients of the decayed recurrence, as passes of the same recurrence. With G_t the gradient by
/// the state S_t, which itself obeys the recurrence from the end backwards with q and dout as keys
/// and values:
///   dq_t = S_t dout_t,   dk_t = G_t v_t,   dv_t = G_t^T k_t,
/// three passes that need nothing of each other, each over any columns of its state alone. The
/// decay's gradient follows from them (recurrence_decay_scan.hpp).

#ifndef QUERN_KERNELS_DETAIL_RECURRENCE_VJP_HPP
#define QUERN_KERNELS_DETAIL_RECURRENCE_VJP_HPP

#include "quern/core/buffer.hpp"
#include "quern/core/config.hpp"
#include "quern/core/nd_array.hpp"
#include "quern/core/nd_view.hpp"
#include "quern/core/parallel.hpp"
#include "quern/kernels/detail/recurrence_decay_scan.hpp"
#include "quern/kernels/detail/recurrence_heads.hpp"
#include "quern/kernels/recurrence_sweep.hpp"
#include "quern/kernels/recurrence_views.hpp"

#include <algorithm>
#include <cstddef>
#include <numeric>

QUERN_NAMESPACE_BEGIN
namespace kernels::detail {

/// A gradient with one place for every `block` neighbouring heads, whatever the operand shares: the
/// caller's own array where it has as many, else one of ours that is summed up at the end.
template <class T>
class HeadGradient {
 public:
  HeadGradient(const RecurrenceShape& shape, const NdView<T, 4>& wanted, Index block = 1)
      : wanted_(wanted), view_(wanted) {
    if (wanted.is_null() || shape.heads == 0) return;
    const Index places = (std::max)(wanted.extent(1), shape.heads / block);
    share_ = shape.heads / places;
    if (places == wanted.extent(1)) return;
    own_.resize({wanted.extent(0), places, wanted.extent(2), wanted.extent(3)}, core::Fill::none);
    view_ = own_.view();
    shape.clear_gaps(view_);
  }
  [[nodiscard]] bool wanted() const noexcept { return !wanted_.is_null(); }
  [[nodiscard]] const NdView<T, 4>& view() const noexcept { return view_; }
  /// Whether a head adds to what another one of its place has written.
  [[nodiscard]] bool adds(Index head) const noexcept { return head % share_ != 0; }

  void finish() {
    if (own_.empty()) return;
    constexpr Index rows = 64;
    const Index length = wanted_.extent(2), pieces = (length + rows - 1) / rows;
    parallel_for(wanted_.extent(0) * wanted_.extent(1) * pieces, [&](Index i) {
      const Index b = i / pieces / wanted_.extent(1), h = i / pieces % wanted_.extent(1);
      const Index begin = i % pieces * rows, count = (std::min)(rows, length - begin);
      const Index share = own_.extent(1) / wanted_.extent(1);
      for (Index s = 0; s < share; ++s) {
        const NdView<T, 2> from = own_.view().subview(b).subview(h * share + s);
        ViewSink<T>(wanted_.subview(b).subview(h), T{1}, s > 0)
            .store(begin, count, 0, wanted_.extent(3), from.row_data(begin), from.row_stride());
      }
    });
  }

 private:
  NdView<T, 4> wanted_, view_;
  NdArray<T, 4> own_;
  Index share_ = 1;
};

/// Takes dq or dk of a group of key channels: hands it to the decay's scan, adds the bonus's part,
/// writes it.
template <class T>
class KeySink final : public StepSink<T> {
 public:
  KeySink(const RecurrenceHead<T>& head, const ViewSource<T>& dout, bool queries,
          const HeadGradient<T>& target, DecayScan<T>* scan, T* dbonus)
      : head_(head),
        dout_(dout),
        queries_(queries),
        scan_(scan),
        dbonus_(dbonus),
        writes_(target.wanted()),
        view_(writes_ ? head.steps(target.view()) : MatrixView<T>(), T{1},
              target.adds(head.head())) {}

  const SweepRunner<T>* runner = nullptr;

  void store(Index begin, Index count, Index first, Index channels, T* values,
             Index stride) override {
    if (scan_ != nullptr && queries_) scan_->add_queries(begin, count, values, stride);
    if (scan_ != nullptr && !queries_) {
      scan_->add_keys(begin, count, values, stride, runner->state());
    }
    if (head_.has_bonus()) add_bonus(begin, count, first, channels, values, stride);
    if (writes_) view_.store(begin, count, first, channels, values, stride);
  }
  [[nodiscard]] T* direct(Index begin, Index first, Index& stride) const override {
    const bool plain = writes_ && scan_ == nullptr && !head_.has_bonus();
    return plain ? view_.direct(begin, first, stride) : nullptr;
  }

 private:
  /// dq += u k (dout v), dk += u q (dout v), du += q k (dout v).
  void add_bonus(Index begin, Index count, Index first, Index channels, T* values, Index stride) {
    const Index dv = head_.shape().value_dim;
    core::Buffer<T> memory(static_cast<std::size_t>(2 * count * (dv + channels) + channels));
    T* const dout = memory.data();
    T* const v = dout + count * dv;
    T* const other = v + count * dv;
    T* const own = other + count * channels;
    T* const u = own + count * channels;
    dout_.load(begin, count, 0, dv, dout, dv);
    head_.v.load(begin, count, 0, dv, v, dv);
    (queries_ ? head_.k : head_.q).load(begin, count, first, channels, other, channels);
    (queries_ ? head_.q : head_.k).load(begin, count, first, channels, own, channels);
    for (Index c = 0; c < channels; ++c) u[c] = head_.bonus(first + c);
    RecurrenceBonusVjp<T> x;
    x.steps = count, x.keys = channels, x.lanes = dv;
    x.dout = dout, x.v = v, x.u = u, x.other = other, x.own = own;
    x.grad = values, x.grad_stride = stride;
    if (queries_ && dbonus_ != nullptr) x.du = dbonus_ + first;
    QUERN_DISPATCH(recurrence_bonus_vjp<T>(x));
  }

  const RecurrenceHead<T>& head_;
  const ViewSource<T>& dout_;
  bool queries_;
  DecayScan<T>* scan_;
  T* dbonus_;
  bool writes_;
  ViewSink<T> view_;
};

/// The whole backward pass.
template <class T>
class RecurrenceVjp {
 public:
  RecurrenceVjp(const RecurrenceShape& shape, const RecurrenceViews<T>& in,
                const NdView<const T, 4>& dout, const NdView<const T, 4>& dfinal,
                const RecurrenceGradients<T>& gradients, const RecurrenceOptions& options)
      : shape_(shape),
        in_(in),
        dout_(dout),
        dfinal_(dfinal),
        gradients_(gradients),
        options_(options),
        level_(simd::active_level()),
        block_(heads_of_task(shape, gradients)),
        dq_(shape, gradients.q, block_),
        dk_(shape, gradients.k, block_),
        dv_(shape, gradients.v),
        dchannel_(shape, gradients.channel_decay) {
    check(gradients);
  }

  void run() {
    const Index key_groups = shape_.lane_groups(shape_.key_dim);
    const Index value_groups = dv_.wanted() ? shape_.lane_groups(values_wanted()) : 0;
    if (wants_steps()) {
      steps_ = core::Buffer<double>(
          static_cast<std::size_t>(key_groups * shape_.batch * shape_.heads * shape_.length),
          core::Fill::zero);
    }
    if (!gradients_.bonus.is_null()) {
      bonus_ = core::Buffer<T>(static_cast<std::size_t>(shape_.spans_heads() * shape_.key_dim),
                               core::Fill::zero);
    }
    for (HeadGradient<T>* g : {&dq_, &dk_, &dv_, &dchannel_}) {
      if (g->wanted()) shape_.clear_gaps(g->view());
    }
    const Index key_tasks = shape_.spans_heads() / block_ * key_groups;
    parallel_for(
        key_tasks + shape_.spans_heads() * value_groups,
        [&](Index task) {
          if (task < key_tasks) {
            const Index group = task % key_groups, first = task / key_groups * block_;
            for (Index i = first; i < first + block_; ++i) {
              const RecurrenceHead<T> head(shape_, in_, options_, i);
              by_keys(head, shape_.lane_group(shape_.key_dim, group), group);
            }
          } else {
            const Index at = task - key_tasks;
            const RecurrenceHead<T> head(shape_, in_, options_, at / value_groups);
            by_values(head, shape_.lane_group(values_wanted(), at % value_groups));
          }
        },
        options_.threads);
    for (HeadGradient<T>* g : {&dq_, &dk_, &dv_, &dchannel_}) g->finish();
    finish_steps(key_groups);
    finish_bonus();
  }

 private:
  void check(const RecurrenceGradients<T>& g) const {
    const char* f = shape_.function;
    if (!g.q.is_null()) expect_shape(f, "gradients.q", g.q, in_.q.extents());
    if (!g.k.is_null()) expect_shape(f, "gradients.k", g.k, in_.k.extents());
    if (!g.v.is_null()) {
      Shape<4> expected = in_.v.extents();
      expected[3] = (std::min)(expected[3], g.v.extent(3));
      expect_shape(f, "gradients.v", g.v, expected);
    }
    if (!g.head_decay.is_null()) {
      expect_shape(f, "gradients.head_decay", g.head_decay, in_.head_decay.extents());
    }
    if (!g.step_decay.is_null()) {
      expect_shape(f, "gradients.step_decay", g.step_decay, in_.step_decay.extents());
    }
    if (!g.channel_decay.is_null()) {
      expect_shape(f, "gradients.channel_decay", g.channel_decay, in_.channel_decay.extents());
    }
    if (!g.bonus.is_null()) expect_shape(f, "gradients.bonus", g.bonus, in_.bonus.extents());
    shape_.check_state("gradients.initial_state", g.initial_state);
  }
  /// Heads that one task handles one after the other: neighbours that share keys or queries add
  /// their gradients up at once, as long as tasks are left for eight threads.
  static Index heads_of_task(const RecurrenceShape& shape, const RecurrenceGradients<T>& g) {
    Index share = 0;
    for (const NdView<T, 4>* x : {&g.q, &g.k}) {
      if (x->is_null() || x->extent(1) == 0 || x->extent(1) == shape.heads) continue;
      share = std::gcd(share, shape.heads / x->extent(1));
    }
    for (Index block = share; block > 1; --block) {
      if (share % block == 0 && shape.spans_heads() / block >= 8) return block;
    }
    return 1;
  }
  /// Channels of the values whose gradient is wanted.
  [[nodiscard]] Index values_wanted() const { return dv_.view().extent(3); }
  [[nodiscard]] bool wants_steps() const {
    return !gradients_.step_decay.is_null() || !gradients_.head_decay.is_null();
  }
  [[nodiscard]] bool wants_decay() const { return wants_steps() || dchannel_.wanted(); }
  template <class U>
  static MatrixView<U> turned(const MatrixView<U>& state) {
    return state.is_null() ? state : state.transposed();
  }

  /// A pass whose columns are key channels: decays a channel are decays a column.
  RecurrenceSweep<T> key_sweep(const RecurrenceHead<T>& head, LaneGroup lanes) const {
    RecurrenceSweep<T> sweep = head.base(lanes);
    if (sweep.decay == TileDecay::row) sweep.decay = TileDecay::lane;
    sweep.rows = shape_.value_dim;
    sweep.late_update = head.old_state();
    return sweep;
  }

  /// dq, dk, the decay's gradient and the initial state's, for a group of key channels.
  void by_keys(const RecurrenceHead<T>& head, LaneGroup lanes, Index group) {
    const ViewSource<T> dout(head.steps(dout_), static_cast<T>(options_.scale));
    double* const steps = wants_steps() ? steps_at(head, group) : nullptr;
    DecayScan<T> scan(head, lanes,
                      dchannel_.wanted() ? head.steps(dchannel_.view()) : MatrixView<T>(), steps);
    DecayScan<T>* const wanted_scan = wants_decay() ? &scan : nullptr;
    T* const dbonus =
        bonus_.empty()
            ? nullptr
            : bonus_.data() + (head.sequence() * shape_.heads + head.head()) * shape_.key_dim;
    if (dq_.wanted() || wanted_scan != nullptr || dbonus != nullptr) {
      KeySink<T> sink(head, dout, true, dq_, wanted_scan, dbonus);
      RecurrenceSweep<T> sweep = key_sweep(head, lanes);
      sweep.write = &head.v;
      sweep.values = &head.k;
      sweep.read = &dout;
      sweep.out = &sink;
      SweepRunner<T> runner(level_, sweep);
      scan.prepare(runner.rows(), runner.stride(), runner.tile());
      runner.set_state(turned(head.state(in_.initial_state)));
      runner.run([&](Index, Index end) {
        if (wanted_scan != nullptr) scan.keep_state(runner, end);
      });
      runner.finish();
      if (wanted_scan != nullptr) scan.start(runner, turned(head.state(dfinal_)));
    }
    if (!dk_.wanted() && wanted_scan == nullptr && gradients_.initial_state.is_null()) return;
    KeySink<T> sink(head, dout, false, dk_, wanted_scan, nullptr);
    RecurrenceSweep<T> sweep = key_sweep(head, lanes);
    sweep.reverse = true;
    sweep.late_decay = true;
    sweep.write = &dout;
    sweep.values = &head.q;
    sweep.read = &head.v;
    sweep.out = &sink;
    SweepRunner<T> runner(level_, sweep);
    sink.runner = &runner;
    runner.set_state(turned(head.state(dfinal_)));
    runner.run();
    runner.finish();
    if (!gradients_.initial_state.is_null()) {
      runner.get_state(turned(head.state(gradients_.initial_state)));
    }
  }

  /// dv for a group of value channels.
  void by_values(const RecurrenceHead<T>& head, LaneGroup lanes) {
    const ViewSource<T> dout(head.steps(dout_), static_cast<T>(options_.scale));
    ViewSink<T> plain(head.steps(dv_.view()));
    BonusSink<T> with_bonus(head, dout, T{1}, plain);
    RecurrenceSweep<T> sweep = head.base(lanes);
    sweep.rows = shape_.key_dim;
    sweep.late_update = head.old_state();
    sweep.reverse = true;
    sweep.late_decay = true;
    sweep.write = &head.q;
    sweep.values = &dout;
    sweep.read = &head.k;
    sweep.out = &plain;
    if (head.has_bonus()) sweep.out = &with_bonus;
    SweepRunner<T> runner(level_, sweep);
    runner.set_state(head.state(dfinal_));
    runner.run();
  }

  [[nodiscard]] double* steps_at(const RecurrenceHead<T>& head, Index group) {
    const SequenceSpan& span = shape_.spans[static_cast<std::size_t>(head.sequence())];
    const Index row = (group * shape_.batch + span.batch) * shape_.heads + head.head();
    return steps_.data() + row * shape_.length + span.begin;
  }

  void finish_steps(Index groups) {
    if (steps_.empty()) return;
    for (Index b = 0; b < shape_.batch; ++b) {
      for (Index h = 0; h < shape_.heads; ++h) {
        double* const at = steps_.data() + (b * shape_.heads + h) * shape_.length;
        double total = 0;
        for (Index t = 0; t < shape_.length; ++t) {
          for (Index g = 1; g < groups; ++g) {
            at[t] += at[g * shape_.batch * shape_.heads * shape_.length + t];
          }
          total += at[t];
        }
        if (!gradients_.head_decay.is_null()) gradients_.head_decay(h) += static_cast<T>(total);
      }
    }
    const NdView<T, 3>& out = gradients_.step_decay;
    if (out.is_null()) return;
    const Index share = shape_.heads / out.extent(1);
    for (Index b = 0; b < shape_.batch; ++b) {
      for (Index h = 0; h < out.extent(1); ++h) {
        for (Index t = 0; t < shape_.length; ++t) {
          double sum = 0;
          for (Index s = 0; s < share; ++s) {
            const Index row = b * shape_.heads + h * share + s;
            sum += steps_[static_cast<std::size_t>(row * shape_.length + t)];
          }
          out(b, h, t) = static_cast<T>(sum);
        }
      }
    }
  }

  void finish_bonus() {
    for (std::size_t i = 0; i < bonus_.size(); ++i) {
      const Index at = static_cast<Index>(i) / shape_.key_dim % shape_.heads;
      gradients_.bonus(at, static_cast<Index>(i) % shape_.key_dim) += bonus_[i];
    }
  }

  const RecurrenceShape& shape_;
  const RecurrenceViews<T>& in_;
  NdView<const T, 4> dout_, dfinal_;
  const RecurrenceGradients<T>& gradients_;
  const RecurrenceOptions& options_;
  simd::Level level_;
  Index block_;
  HeadGradient<T> dq_, dk_, dv_, dchannel_;
  core::Buffer<double> steps_;
  core::Buffer<T> bonus_;
};

}  // namespace kernels::detail
QUERN_NAMESPACE_END

#endif  // QUERN_KERNELS_DETAIL_RECURRENCE_VJP_HPP
