// SPDX-License-Identifier: Apache-2.0

/// \file
/// The decay's part of recurrence_vjp.hpp: with D_t the row sums of S_t G_t (elementwise),
/// dlog a_t = D_t - k_t dk_t and D_(t-1) = dlog a_t + q_(t-1) dq_(t-1), a sum that runs from the
/// end. So that its rounding errors do not pile up, it starts anew from the two states themselves
/// every `anchor_steps` steps.

#ifndef QUERN_KERNELS_DETAIL_RECURRENCE_DECAY_SCAN_HPP
#define QUERN_KERNELS_DETAIL_RECURRENCE_DECAY_SCAN_HPP

#include "quern/core/buffer.hpp"
#include "quern/core/config.hpp"
#include "quern/core/nd_view.hpp"
#include "quern/kernels/detail/recurrence_heads.hpp"
#include "quern/kernels/recurrence_sweep.hpp"

#include <algorithm>
#include <cstddef>

QUERN_NAMESPACE_BEGIN
namespace kernels::detail {

inline constexpr Index anchor_steps = 512;

/// The gradient by the decay's logarithm for one sequence, head and group of key channels.
template <class T>
class DecayScan {
 public:
  /// `channels`: (length, key_dim) where each channel has its own decay, else null; `steps` then
  /// takes one sum a step over this group's channels.
  DecayScan(const RecurrenceHead<T>& head, LaneGroup lanes, MatrixView<T> channels, double* steps)
      : head_(head), lanes_(lanes), channels_(channels), steps_(steps) {
    sums_ = core::Buffer<T>(static_cast<std::size_t>(lanes.count), core::Fill::zero);
  }

  /// States at every anchor, of `rows` rows, and the tile that divides them.
  void prepare(Index rows, Index stride, Index tile) {
    rows_ = rows;
    stride_ = stride;
    anchor_ = (anchor_steps + tile - 1) / tile * tile;
    const Index anchors = (head_.length() + anchor_ - 1) / anchor_;
    states_ = core::Buffer<T>(static_cast<std::size_t>(anchors * rows * stride));
  }
  /// The forward pass has come to step `end`.
  void keep_state(SweepRunner<T>& runner, Index end) {
    if (end % anchor_ != 0 || end >= head_.length()) return;
    T* const to = states_.data() + end / anchor_ * rows_ * stride_;
    std::copy_n(runner.state(), rows_ * stride_, to);
    runner.finish(to, end - 1);
  }
  /// The forward pass is at its end, and this is the gradient by its last state.
  void start(const SweepRunner<T>& runner, const MatrixView<const T>& dfinal) {
    if (dfinal.is_null()) return;
    for (Index c = 0; c < lanes_.count; ++c) {
      T sum{};
      for (Index r = 0; r < dfinal.extent(0); ++r) {
        sum += runner.state()[r * stride_ + c] * dfinal(r, lanes_.first + c);
      }
      sums_[static_cast<std::size_t>(c)] = sum;
    }
  }

  /// q dq of some steps, dq as the state gave it.
  void add_queries(Index begin, Index count, const T* dq, Index stride) {
    load(head_.q, begin, count);
    for (Index s = 0; s < count; ++s) {
      const T* const x = rows_at(s);
      if (steps_ != nullptr) {
        steps_[begin + s] = QUERN_DISPATCH(dot<T>(x, dq + s * stride, lane_count()));
        continue;
      }
      for (Index c = 0; c < lanes_.count; ++c) {
        channels_(begin + s, lanes_.first + c) = x[c] * dq[s * stride + c];
      }
    }
  }
  /// The same of k dk, from the last tile to the first: now the gradient is known. `state` is G.
  void add_keys(Index begin, Index count, const T* dk, Index stride, const T* state) {
    load(head_.k, begin, count);
    const bool anchored = begin % anchor_ == 0 && begin > 0;
    for (Index s = count - 1; s >= 0; --s) {
      const bool restart = anchored && s == 0;
      if (restart) restart_sums(begin, state);
      if (steps_ != nullptr) {
        step(begin + s, rows_at(s), dk + s * stride, restart);
      } else {
        channels(begin + s, rows_at(s), dk + s * stride, restart);
      }
    }
  }

 private:
  [[nodiscard]] std::size_t lane_count() const { return static_cast<std::size_t>(lanes_.count); }
  [[nodiscard]] const T* rows_at(Index s) const { return loaded_.data() + s * lanes_.count; }
  void load(const ViewSource<T>& source, Index begin, Index count) {
    if (static_cast<Index>(loaded_.size()) < count * lanes_.count) {
      loaded_ = core::Buffer<T>(static_cast<std::size_t>(count * lanes_.count));
    }
    source.load(begin, count, lanes_.first, lanes_.count, loaded_.data(), lanes_.count);
  }
  /// decay S_(t-1) G_t summed over rows, at step t.
  void restart_sums(Index t, const T* gradient) {
    const T* const from = states_.data() + t / anchor_ * rows_ * stride_;
    core::Buffer<T> factor(lane_count());
    for (Index c = 0; c < lanes_.count; ++c) {
      T sum{};
      for (Index r = 0; r < rows_; ++r) sum += from[r * stride_ + c] * gradient[r * stride_ + c];
      sums_[static_cast<std::size_t>(c)] = sum;
    }
    factors(t, factor.data());
    for (std::size_t c = 0; c < lane_count(); ++c) sums_[c] *= factor[c];
  }
  /// The decay at step t, a channel each.
  void factors(Index t, T* out) const {
    const RecurrenceSweep<T> sweep = head_.base(lanes_);
    if (sweep.log_decay == nullptr) {
      std::fill_n(out, lanes_.count, sweep.log_factor);
    } else if (steps_ == nullptr) {
      sweep.log_decay->load(t, 1, lanes_.first, lanes_.count, out, lanes_.count);
    } else {
      sweep.log_decay->load(t, 1, 0, 1, out, 1);
      std::fill_n(out, lanes_.count, T{out[0]});
    }
    QUERN_DISPATCH(transform(Exp{}, out, lane_count(), out));
  }
  void step(Index t, const T* k, const T* dk, bool restart) {
    if (restart) {
      total_ = 0;
      for (std::size_t c = 0; c < lane_count(); ++c) total_ += static_cast<double>(sums_[c]);
    } else if (!started_) {
      for (std::size_t c = 0; c < lane_count(); ++c) total_ += static_cast<double>(sums_[c]);
    }
    started_ = true;
    const double with_q = steps_[t];
    const double with_k = QUERN_DISPATCH(dot<T>(k, dk, lane_count()));
    const bool old = head_.old_state();
    if (!restart) total_ += (old ? 0.0 : with_q) - with_k;
    steps_[t] = total_;
    if (old) total_ += with_q;
  }
  void channels(Index t, const T* k, const T* dk, bool restart) {
    const bool old = head_.old_state();
    for (Index c = 0; c < lanes_.count; ++c) {
      T& sum = sums_[static_cast<std::size_t>(c)];
      T& place = channels_(t, lanes_.first + c);
      const T with_q = place;
      if (!restart) sum += (old ? T{0} : with_q) - k[c] * dk[c];
      place = sum;
      if (old) sum += with_q;
    }
  }

  const RecurrenceHead<T>& head_;
  LaneGroup lanes_;
  MatrixView<T> channels_;
  double* steps_;
  Index rows_ = 0, stride_ = 0, anchor_ = 1;
  bool started_ = false;
  double total_ = 0;
  core::Buffer<T> sums_, states_, loaded_;
};

}  // namespace kernels::detail
QUERN_NAMESPACE_END

#endif  // QUERN_KERNELS_DETAIL_RECURRENCE_DECAY_SCAN_HPP
