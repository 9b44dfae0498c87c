// SPDX-License-Identifier: Apache-2.0

/// \file
/// One pass of the decayed recurrence over a sequence, forwards or backwards, tile by tile: rows
/// come from sources, outputs go to sinks, the state stays in between. What
/// kernels/decayed_recurrence.hpp and linear attention are made of.

#ifndef QUERN_KERNELS_RECURRENCE_SWEEP_HPP
#define QUERN_KERNELS_RECURRENCE_SWEEP_HPP

#include "quern/core/buffer.hpp"
#include "quern/core/config.hpp"
#include "quern/core/nd_view.hpp"
#include "quern/kernels/decayed_recurrence_types.hpp"
#include "quern/kernels/kernels.hpp"
#include "quern/kernels/recurrence_step_types.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>

QUERN_NAMESPACE_BEGIN
namespace kernels {

/// An array of steps by channels that a sweep reads, possibly made while it is read.
template <class T>
class StepSource {
 public:
  virtual ~StepSource() = default;
  /// Writes steps [begin, begin + count), channels [first, first + channels), to
  /// out[step * stride + channel], both counted from 0.
  virtual void load(Index begin, Index count, Index first, Index channels, T* out,
                    Index stride) const = 0;
  /// The same where they lie, channels side by side and steps `stride` apart; null: nowhere.
  [[nodiscard]] virtual const T* direct(Index, Index, Index, Index, Index& stride) const {
    stride = 0;
    return nullptr;
  }
};

/// Where a sweep's outputs go.
template <class T>
class StepSink {
 public:
  virtual ~StepSink() = default;
  /// Takes steps [begin, begin + count), channels [first, first + channels). May change `values`.
  virtual void store(Index begin, Index count, Index first, Index channels, T* values,
                     Index stride) = 0;
};

/// scale times the rows of a view.
template <class T>
class ViewSource final : public StepSource<T> {
 public:
  explicit ViewSource(MatrixView<const T> view, T scale = T{1}) : view_(view), scale_(scale) {}

  void load(Index begin, Index count, Index first, Index channels, T* out,
            Index stride) const override {
    if (scale_ == T{1} && view_.col_stride() == 1 && view_.row_stride() == channels &&
        stride == channels) {
      std::copy_n(view_.row_data(begin) + first, count * channels, out);
      return;
    }
    for (Index s = 0; s < count; ++s, out += stride) {
      const T* const from = view_.row_data(begin + s) + first * view_.col_stride();
      if (view_.col_stride() == 1) {
        std::copy_n(from, channels, out);
      } else {
        for (Index c = 0; c < channels; ++c) out[c] = from[c * view_.col_stride()];
      }
      if (scale_ != T{1})
        QUERN_DISPATCH(scale<T>(scale_, out, static_cast<std::size_t>(channels), out));
    }
  }
  [[nodiscard]] const T* direct(Index begin, Index, Index first, Index,
                                Index& stride) const override {
    stride = view_.row_stride();
    return scale_ == T{1} && view_.col_stride() == 1 ? view_.row_data(begin) + first : nullptr;
  }

 private:
  MatrixView<const T> view_;
  T scale_;
};

/// Writes scale times the outputs to a view, or adds them.
template <class T>
class ViewSink final : public StepSink<T> {
 public:
  explicit ViewSink(MatrixView<T> view, T scale = T{1}, bool add = false)
      : view_(view), scale_(scale), add_(add) {}

  void store(Index begin, Index count, Index first, Index channels, T* values,
             Index stride) override {
    std::size_t n = static_cast<std::size_t>(channels);
    if (view_.col_stride() == 1 && view_.row_stride() == channels && stride == channels) {
      n *= static_cast<std::size_t>(count);  // one row
      count = (std::min)(count, Index{1});
    }
    for (Index s = 0; s < count; ++s, values += stride) {
      T* const to = view_.row_data(begin + s) + first * view_.col_stride();
      if (view_.col_stride() != 1) {
        for (Index c = 0; c < channels; ++c) {
          T& at = to[c * view_.col_stride()];
          at = (add_ ? at : T{0}) + scale_ * values[c];
        }
      } else if (add_) {
        QUERN_DISPATCH(axpy<T>(scale_, values, n, to));
      } else if (scale_ != T{1}) {
        QUERN_DISPATCH(scale<T>(scale_, values, n, to));
      } else {
        std::copy_n(values, n, to);
      }
    }
  }

 private:
  MatrixView<T> view_;
  T scale_;
  bool add_;
};

/// What a pass does: for every step in order (or from the last to the first),
///   state = decay * state + write values^T,   out = state^T read,
/// where `late_update` says that a step's decay and update come after its output, `late_decay` that
/// its decay alone does.
template <class T>
struct RecurrenceSweep {
  Index length = 0;
  bool reverse = false;
  bool late_update = false;
  bool late_decay = false;
  Index rows = 0;  ///< of the state: channels of write and read
  const StepSource<T>* write = nullptr;
  const StepSource<T>* read = nullptr;
  Index first_lane = 0;  ///< of the values' and outputs' channels, this pass has `lanes`
  Index lanes = 0;
  const StepSource<T>* values = nullptr;
  TileDecay decay = TileDecay::none;
  const StepSource<T>* log_decay = nullptr;  ///< 1 channel (step), as write (row), values (lane)
  T log_factor = T{0};                       ///< step without a source: the same at every step
  StepSink<T>* out = nullptr;
  Index tile = 64;
  /// Decays a step are folded into keys and queries over a tile: faster and more exact, but a
  /// step's rounding then depends on its tile. false: every bit is the same for any tile.
  bool fold = true;
  bool normaliser = false;  ///< a column of ones beside the values; forwards, without any decay
};

/// Runs one sweep; holds its state, as rows() x stride() elements.
template <class T>
class SweepRunner {
 public:
  SweepRunner(simd::Level level, const RecurrenceSweep<T>& sweep) : level_(level), sweep_(sweep) {
    const RecurrenceLayout layout = QUERN_DISPATCH_AT(level_, recurrence_layout<T>());
    tile_ = (std::max)(Index{1}, (std::min)(sweep.tile, sweep.length));
    rows_ = round_up(sweep.rows, layout.rows);
    stride_ = round_up(sweep.lanes, layout.lanes);
    row_blocks_ = rows_ / layout.rows;
    const Index row_tile = tile_ * rows_, lane_tile = tile_ * stride_;
    const Index decay_tile = sweep.decay == TileDecay::none   ? 0
                             : sweep.decay == TileDecay::step ? 3 * round_up(tile_, 16)
                             : sweep.decay == TileDecay::row  ? row_tile
                                                              : lane_tile;
    const Index parts[] = {row_tile,  row_tile,   row_tile,       lane_tile,
                           lane_tile, decay_tile, rows_ * stride_};
    T** const places[] = {&natural_, &write_, &read_, &values_, &out_, &decay_, &state_};
    Index size = 0;
    for (const Index part : parts) size += round_up(part, 16);
    memory_ = core::Buffer<T>(static_cast<std::size_t>(size), core::Fill::zero);
    T* at = memory_.data();
    for (std::size_t i = 0; i < std::size(parts); ++i) {
      *places[i] = at;
      at += round_up(parts[i], 16);
    }
    if (sweep.decay == TileDecay::step) {
      sums_ = core::Buffer<double>(static_cast<std::size_t>(2 * tile_));
    }
    if (!sweep.normaliser) return;
    const Index sizes = round_up(rows_, 16) + round_up(tile_, 16);
    sums_of_write_ =
        core::Buffer<T>(static_cast<std::size_t>(sizes + tile_ * layout.rows), core::Fill::zero);
  }

  [[nodiscard]] Index stride() const noexcept { return stride_; }
  [[nodiscard]] Index rows() const noexcept { return rows_; }
  [[nodiscard]] Index tile() const noexcept { return tile_; }
  [[nodiscard]] T* state() noexcept { return state_; }
  [[nodiscard]] const T* state() const noexcept { return state_; }
  /// The normaliser's column, rows() elements, and what a tile's steps read of it.
  [[nodiscard]] T* normaliser() noexcept { return sums_of_write_.data(); }
  [[nodiscard]] T* totals() noexcept { return sums_of_write_.data() + round_up(rows_, 16); }

  /// Starts from columns of a state of all lanes; a null view is zeros.
  void set_state(const MatrixView<const T>& from) {
    const bool whole = rows_ == sweep_.rows && stride_ == sweep_.lanes;
    if (from.is_null() || !whole) std::fill_n(state_, rows_ * stride_, T{0});
    if (from.is_null()) return;
    for_places(from, [&](Index at, Index count, const T* row, Index step) {
      if (step == 1) {
        std::copy_n(row, count, state_ + at);
      } else {
        for (Index c = 0; c < count; ++c) state_[at + c] = row[c * step];
      }
    });
  }
  void get_state(const MatrixView<T>& to) const {
    for_places(to, [&](Index at, Index count, T* row, Index step) {
      if (step == 1) {
        std::copy_n(state_ + at, count, row);
      } else {
        for (Index c = 0; c < count; ++c) row[c * step] = state_[at + c];
      }
    });
  }

  /// All steps. after(begin, end) is called when the tile of these steps is done; unless `late`,
  /// the state then is the one after the last step in order.
  template <class After>
  void run(After&& after) {
    const Index tiles = (sweep_.length + tile_ - 1) / tile_;
    for (Index i = 0; i < tiles; ++i) {
      const Index begin = (sweep_.reverse ? tiles - 1 - i : i) * tile_;
      const Index end = (std::min)(begin + tile_, sweep_.length);
      one_tile(begin, end);
      after(begin, end);
    }
  }
  void run() {
    run([](Index, Index) {});
  }

  /// Applies what the last step of a late sweep left to do, to `state` (this one's by default),
  /// where that was step `last` (the very last by default).
  void finish(T* state = nullptr, Index last = -1) {
    if ((!sweep_.late_update && !sweep_.late_decay) || sweep_.length == 0) return;
    if (last < 0) last = sweep_.reverse ? 0 : sweep_.length - 1;
    load_decay(last, last + 1);
    load_update(last, last + 1, !sweep_.late_update);
    std::fill_n(read_, rows_, T{0});
    run_tile(1, state != nullptr ? state : state_);
  }

 private:
  /// Calls body(place in state_, columns, first element of a row, elements from column to column).
  template <class U, class Body>
  void for_places(const MatrixView<U>& view, Body&& body) const {
    for (Index r = 0; r < sweep_.rows; ++r) {
      body(r * stride_, sweep_.lanes, view.row_data(r) + sweep_.first_lane * view.col_stride(),
           view.col_stride());
    }
  }

  static Index round_up(Index n, Index multiple) {
    return (n + multiple - 1) / multiple * multiple;
  }

  /// Rows [begin, end) of a source, zeros where there are none.
  void load_rows(const StepSource<T>& source, Index begin, Index end, Index first, Index channels,
                 T* to, Index stride) const {
    const Index low = (std::clamp)(begin, Index{0}, sweep_.length);
    const Index high = (std::clamp)(end, low, sweep_.length);
    if (low > begin) std::fill_n(to, (low - begin) * stride, T{0});
    if (high < end) std::fill_n(to + (high - begin) * stride, (end - high) * stride, T{0});
    if (high > low) {
      source.load(low, high - low, first, channels, to + (low - begin) * stride, stride);
    }
  }

  void pack(Index steps, T* to) const {
    QUERN_DISPATCH_AT(level_, recurrence_pack<T>(natural_, steps, rows_, row_blocks_, nullptr, to));
  }
  /// Factors of a tile that does not decay inside, null for one that does.
  [[nodiscard]] const T* write_factors() const {
    return folded_ ? decay_ + round_up(tile_, 16) : nullptr;
  }
  [[nodiscard]] const T* read_factors() const {
    return folded_ ? decay_ + 2 * round_up(tile_, 16) : nullptr;
  }

  /// Decays a step that all together forget no more than e^-24 go into what is written and read:
  /// with c_s the sum of the logarithms up to step s,
  ///   S_s = e^c_s (S + sum of e^-c_j write_j values_j^T, j <= s),
  /// so that the state itself fades once, at the tile's end. That saves an operation of three an
  /// element, and is more exact than rounding a factor near 1 at every step.
  void fold_decay(Index steps) {
    constexpr double most = 24;
    double sum = 0, low = 0, high = 0;
    for (Index i = 0; i < steps; ++i) {
      const Index s = sweep_.reverse ? steps - 1 - i : i;
      sum += static_cast<double>(decay_[s]);
      low = (std::min)(low, sum);
      high = (std::max)(high, sum);
      sums_[static_cast<std::size_t>(s)] = -sum;
      sums_[static_cast<std::size_t>(steps + s)] = sum;
    }
    folded_ = sum >= -most && low >= -most && high <= most;
    if (!folded_) return;
    // Next to 1 as a difference to it, further away as a factor.
    end_keep_ = sum > -0.5 && sum < 0.5 ? T{1} : T{0};
    end_fade_ = static_cast<T>(end_keep_ == T{1} ? std::expm1(sum) : std::exp(sum));
    double* const at = sums_.data();
    QUERN_DISPATCH_AT(level_, transform(Exp{}, at, static_cast<std::size_t>(2 * steps), at));
    T* const write = decay_ + round_up(tile_, 16);
    T* const read = write + round_up(tile_, 16);
    for (Index s = 0; s < steps; ++s) {
      write[s] = static_cast<T>(at[s]);
      read[s] = static_cast<T>(at[steps + s]);
    }
  }

  /// Rows of a source in the kernel's order, from where they lie if they need no padding.
  void load_packed(const StepSource<T>& source, Index begin, Index end, const T* factors, T* to) {
    Index stride = rows_;
    const T* at = nullptr;
    if (rows_ == sweep_.rows && begin >= 0 && end <= sweep_.length) {
      at = source.direct(begin, end - begin, 0, rows_, stride);
    }
    if (at == nullptr) {
      load_rows(source, begin, end, 0, sweep_.rows, natural_, rows_);
      at = natural_, stride = rows_;
    }
    QUERN_DISPATCH_AT(level_,
                      recurrence_pack<T>(at, end - begin, stride, row_blocks_, factors, to));
  }

  void load_update(Index begin, Index end, bool nothing) {
    const Index steps = end - begin;
    if (nothing) {
      std::fill_n(write_, steps * rows_, T{0});
      std::fill_n(values_, steps * stride_, T{0});
      values_at_ = values_;
      value_stride_ = stride_;
      return;
    }
    load_packed(*sweep_.write, begin, end, write_factors(), write_);
    Index stride = 0;
    const bool inside = begin >= 0 && end <= sweep_.length && sweep_.lanes == stride_;
    values_at_ =
        inside ? sweep_.values->direct(begin, steps, sweep_.first_lane, stride_, stride) : nullptr;
    value_stride_ = values_at_ != nullptr ? stride : stride_;
    if (values_at_ != nullptr) return;
    load_rows(*sweep_.values, begin, end, sweep_.first_lane, sweep_.lanes, values_, stride_);
    values_at_ = values_;
  }

  void load_decay(Index begin, Index end) {
    if (sweep_.decay == TileDecay::none) return;
    const Index steps = end - begin;
    const bool by_row = sweep_.decay == TileDecay::row, by_step = sweep_.decay == TileDecay::step;
    T* const to = by_row ? natural_ : decay_;
    const Index stride = by_step ? 1 : by_row ? rows_ : stride_;
    if (sweep_.log_decay == nullptr) {
      // The steps outside of the sequence have none.
      for (Index s = 0; s < steps; ++s) {
        const bool inside = begin + s >= 0 && begin + s < sweep_.length;
        to[s] = inside ? sweep_.log_factor : T{0};
      }
    } else {
      const Index first = by_step || by_row ? 0 : sweep_.first_lane;
      const Index channels = by_step ? 1 : by_row ? sweep_.rows : sweep_.lanes;
      load_rows(*sweep_.log_decay, begin, end, first, channels, to, stride);
    }
    const std::size_t n = static_cast<std::size_t>(steps * stride);
    if (by_step) {
      if (sweep_.fold) fold_decay(steps);
      // Where maxima are kept most tiles have no decay at all: factors of 1 need no product.
      still_ = std::all_of(to, to + n, [](T x) { return x == T{0}; });
      if (!folded_ && !still_) QUERN_DISPATCH_AT(level_, transform(Exp{}, to, n, to));
      return;
    }
    QUERN_DISPATCH_AT(level_, transform(Expm1{}, to, n, to));
    if (by_row) pack(steps, decay_);
  }

  void one_tile(Index begin, Index end) {
    const Index one = sweep_.reverse ? 1 : -1;
    const Index shift = sweep_.late_update ? one : 0;
    const Index decay_shift = sweep_.late_update || sweep_.late_decay ? one : 0;
    load_decay(begin + decay_shift, end + decay_shift);
    load_update(begin + shift, end + shift, false);
    load_packed(*sweep_.read, begin, end, read_factors(), read_);
    std::fill_n(out_, (end - begin) * stride_, T{0});
    run_tile(end - begin, state_);
    sweep_.out->store(begin, end - begin, sweep_.first_lane, sweep_.lanes, out_, stride_);
  }

  void run_tile(Index steps, T* state) {
    RecurrenceTile<T> tile;
    tile.steps = steps;
    tile.backward = sweep_.reverse;
    tile.row_blocks = row_blocks_;
    tile.stride = stride_;
    tile.write = write_;
    tile.read = read_;
    tile.values = values_at_;
    tile.value_stride = value_stride_;
    tile.kind = folded_ || still_ ? TileDecay::none : sweep_.decay;
    tile.decay = decay_;
    tile.end_keep = folded_ ? end_keep_ : T{1};
    tile.end_fade = folded_ ? end_fade_ : T{0};
    tile.out = out_;
    tile.state = state;
    QUERN_DISPATCH_AT(level_, recurrence_tile<T>(tile));
    if (!sweep_.normaliser) return;
    RecurrenceNormaliser<T> sums;
    sums.steps = steps, sums.row_blocks = row_blocks_;
    sums.write = write_, sums.read = read_;
    sums.state = normaliser(), sums.totals = totals();
    sums.partial = totals() + round_up(tile_, 16);
    QUERN_DISPATCH_AT(level_, recurrence_normaliser<T>(sums));
  }

  simd::Level level_;
  RecurrenceSweep<T> sweep_;
  Index tile_ = 0, rows_ = 0, stride_ = 0, row_blocks_ = 0;
  core::Buffer<T> memory_, sums_of_write_;
  T *natural_ = nullptr, *write_ = nullptr, *read_ = nullptr, *values_ = nullptr, *out_ = nullptr,
    *decay_ = nullptr, *state_ = nullptr;
  const T* values_at_ = nullptr;  ///< values_, or where the values lie
  Index value_stride_ = 0;
  bool folded_ = false;  ///< this tile's decays are in write_ and read_
  bool still_ = false;   ///< this tile has a decay a step, and all are none
  T end_keep_ = T{1}, end_fade_ = T{0};
  core::Buffer<double> sums_;
};

}  // namespace kernels
QUERN_NAMESPACE_END

#endif  // QUERN_KERNELS_RECURRENCE_SWEEP_HPP
