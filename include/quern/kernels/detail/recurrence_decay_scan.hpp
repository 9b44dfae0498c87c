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
    state_rows_ = rows;
    stride_ = stride;
    anchor_ = (anchor_steps + tile - 1) / tile * tile;
    const Index anchors = (head_.length() + anchor_ - 1) / anchor_;
    states_ = core::Buffer<T>(static_cast<std::size_t>(anchors * rows * stride));
  }
  /// The forward pass has come to step `end`.
  void keep_state(SweepRunner<T>& runner, Index end) {
    if (end % anchor_ != 0 || end >= head_.length()) return;
    T* const to = states_.data() + end / anchor_ * state_rows_ * stride_;
    std::copy_n(runner.state(), state_rows_ * stride_, to);
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
    const Index apart = load(head_.q, begin, count);
    if (steps_ != nullptr) {
      const T* const sums = dots(count, apart, dq, stride);
      std::copy_n(sums, count, steps_ + begin);
    } else if (channels_.col_stride() == 1) {
      RecurrenceRows<T> rows;
      rows.steps = count, rows.channels = lanes_.count, rows.kind = RowFactor::each;
      rows.from = dq, rows.from_stride = stride;
      rows.factors = rows_, rows.factor_stride = apart;
      rows.to = channels_.row_data(begin) + lanes_.first, rows.to_stride = channels_.row_stride();
      QUERN_DISPATCH(recurrence_rows<T>(rows));
    } else {
      for (Index s = 0; s < count; ++s) {
        for (Index c = 0; c < lanes_.count; ++c) {
          channels_(begin + s, lanes_.first + c) = rows_[s * apart + c] * dq[s * stride + c];
        }
      }
    }
  }
  /// The same of k dk, from the last tile to the first: now the gradient is known. `state` is G.
  void add_keys(Index begin, Index count, const T* dk, Index stride, const T* state) {
    const Index apart = load(head_.k, begin, count);
    const bool anchored = begin % anchor_ == 0 && begin > 0;
    if (steps_ != nullptr) {
      const T* const sums = dots(count, apart, dk, stride);
      for (Index s = count - 1; s >= 0; --s) {
        const bool restart = anchored && s == 0;
        if (restart) restart_sums(begin, state);
        step(begin + s, static_cast<double>(sums[s]), restart);
      }
      return;
    }
    const Index first = anchored ? 1 : 0;
    channels(begin + first, count - first, rows_ + first * apart, apart, dk + first * stride,
             stride, false);
    if (!anchored) return;
    restart_sums(begin, state);
    channels(begin, 1, rows_, apart, dk, stride, true);
  }

 private:
  [[nodiscard]] std::size_t lane_count() const { return static_cast<std::size_t>(lanes_.count); }
  /// Rows of a source at rows_, and how far apart they are.
  Index load(const ViewSource<T>& source, Index begin, Index count) {
    Index apart = 0;
    rows_ = source.direct(begin, count, lanes_.first, lanes_.count, apart);
    if (rows_ != nullptr) return apart;
    if (static_cast<Index>(loaded_.size()) < count * lanes_.count) {
      loaded_ = core::Buffer<T>(static_cast<std::size_t>(count * lanes_.count));
    }
    source.load(begin, count, lanes_.first, lanes_.count, loaded_.data(), lanes_.count);
    rows_ = loaded_.data();
    return lanes_.count;
  }
  /// Products of those rows with others, a sum each.
  const T* dots(Index count, Index apart, const T* x, Index stride) {
    if (static_cast<Index>(dots_.size()) < count) {
      dots_ = core::Buffer<T>(static_cast<std::size_t>(count));
    }
    QUERN_DISPATCH(recurrence_dots<T>(rows_, apart, x, stride, count, lanes_.count, dots_.data()));
    return dots_.data();
  }
  /// decay S_(t-1) G_t summed over rows, at step t.
  void restart_sums(Index t, const T* gradient) {
    const T* const from = states_.data() + t / anchor_ * state_rows_ * stride_;
    core::Buffer<T> factor(lane_count());
    for (Index c = 0; c < lanes_.count; ++c) {
      T sum{};
      for (Index r = 0; r < state_rows_; ++r)
        sum += from[r * stride_ + c] * gradient[r * stride_ + c];
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
  void step(Index t, double with_k, bool restart) {
    if (restart) total_ = 0;
    if (restart || !started_) {
      for (std::size_t c = 0; c < lane_count(); ++c) total_ += static_cast<double>(sums_[c]);
    }
    started_ = true;
    const double with_q = steps_[t];
    const bool old = head_.old_state();
    if (!restart) total_ += (old ? 0.0 : with_q) - with_k;
    steps_[t] = total_;
    if (old) total_ += with_q;
  }
  /// Steps from the last to the first. Where channels lie apart in memory, by way of a copy.
  void channels(Index begin, Index count, const T* k, Index apart, const T* dk, Index stride,
                bool restarted) {
    const bool adjacent = channels_.col_stride() == 1;
    core::Buffer<T> copy(adjacent ? 0 : static_cast<std::size_t>(count * lanes_.count));
    const auto each = [&](auto&& body) {
      for (Index s = 0; s < count && !adjacent; ++s) {
        for (Index c = 0; c < lanes_.count; ++c) {
          body(copy[static_cast<std::size_t>(s * lanes_.count + c)],
               channels_(begin + s, lanes_.first + c));
        }
      }
    };
    each([](T& to, T& from) { to = from; });
    RecurrenceDecaySums<T> x;
    x.steps = count, x.channels = lanes_.count;
    x.old_state = head_.old_state(), x.restarted = restarted;
    x.k = k, x.k_stride = apart, x.dk = dk, x.dk_stride = stride;
    x.place = adjacent ? channels_.row_data(begin) + lanes_.first : copy.data();
    x.place_stride = adjacent ? channels_.row_stride() : lanes_.count;
    x.sums = sums_.data();
    QUERN_DISPATCH(recurrence_decay_sums<T>(x));
    each([](T& from, T& to) { to = from; });
  }

  const RecurrenceHead<T>& head_;
  LaneGroup lanes_;
  MatrixView<T> channels_;
  double* steps_;
  Index state_rows_ = 0, stride_ = 0, anchor_ = 1;
  const T* rows_ = nullptr;
  bool started_ = false;
  double total_ = 0;
  core::Buffer<T> sums_, states_, loaded_, dots_;
};

}  // namespace kernels::detail
QUERN_NAMESPACE_END

#endif  // QUERN_KERNELS_DETAIL_RECURRENCE_DECAY_SCAN_HPP
