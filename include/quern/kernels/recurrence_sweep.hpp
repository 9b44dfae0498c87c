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
#include "quern/kernels/detail/recurrence_rows.hpp"
#include "quern/kernels/kernels.hpp"
#include "quern/kernels/recurrence_step_types.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>

QUERN_NAMESPACE_BEGIN
namespace kernels {

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
  /// Decays are folded into what is written and read over a tile: faster and more exact, but a
  /// step's rounding then depends on its tile. false: every bit is the same for any tile.
  bool fold = true;
  /// A column of ones beside the values; forwards, without decay or with one a step, not folded.
  bool normaliser = false;
};

/// Runs one sweep; holds its state, as rows() x stride() elements.
template <class T>
class SweepRunner {
 public:
  SweepRunner(simd::Level level, const RecurrenceSweep<T>& sweep) : level_(level), sweep_(sweep) {
    const RecurrenceLayout layout = QUERN_DISPATCH_AT(level_, recurrence_layout<T>());
    tile_ = (std::max)(Index{1}, (std::min)(sweep.tile, sweep.length));
    rows_ = round_up(sweep.rows, layout.rows);
    row_stride_ = round_up(rows_, layout.lanes);
    stride_ = round_up(sweep.lanes, layout.lanes);
    row_blocks_ = rows_ / layout.rows;
    const bool wide = sweep.decay == TileDecay::row || sweep.decay == TileDecay::lane;
    decay_stride_ = sweep.decay == TileDecay::row ? row_stride_ : wide ? stride_ : 1;
    const Index row_tile = tile_ * row_stride_, lane_tile = tile_ * stride_;
    const Index decay_tile = sweep.decay == TileDecay::none ? 0 : tile_ * decay_stride_;
    const Index up_tile = sweep.decay == TileDecay::step ? 2 * round_up(tile_, 16)
                          : wide && sweep.fold           ? decay_tile + 3 * decay_stride_
                                                         : 0;
    const Index parts[] = {row_tile,   row_tile, lane_tile,      lane_tile,
                           decay_tile, up_tile,  rows_ * stride_};
    T** const places[] = {&write_, &read_, &values_, &out_, &decay_, &up_, &state_};
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
    std::fill_n(read_, row_stride_, T{0});
    read_at_ = {read_, row_stride_};
    target_ = nullptr;
    tile_steps(1, state != nullptr ? state : state_);
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

  /// Rows of channels, where they lie or copied.
  struct Rows {
    const T* data = nullptr;
    Index stride = 0;
    [[nodiscard]] Rows from(Index step) const { return {data + step * stride, stride}; }
  };

  /// to = rows times factors: one a step, or one an element of `stride` apart.
  void multiply(const Rows& from, Index steps, Index channels, RowFactor kind, const T* factors,
                Index factor_stride, T* to, Index to_stride) const {
    RecurrenceRows<T> rows;
    rows.steps = steps, rows.channels = channels;
    rows.from = from.data, rows.from_stride = from.stride;
    rows.kind = kind, rows.factors = factors, rows.factor_stride = factor_stride;
    rows.to = to, rows.to_stride = to_stride;
    QUERN_DISPATCH_AT(level_, recurrence_rows<T>(rows));
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
    for (Index s = 0; s < steps; ++s) {
      up_[s] = static_cast<T>(at[s]);
      down_of_steps()[s] = static_cast<T>(at[steps + s]);
    }
  }

  [[nodiscard]] T* down_of_steps() const { return up_ + round_up(tile_, 16); }

  /// Steps of a source with `padded` channels, from where they lie if they need no padding.
  Rows load_padded(const StepSource<T>& source, Index begin, Index end, Index first, Index channels,
                   Index padded, T* room, Index stride) const {
    if (channels == padded && begin >= 0 && end <= sweep_.length) {
      Index apart = 0;
      const T* const at = source.direct(begin, end - begin, first, channels, apart);
      if (at != nullptr) return {at, apart};
    }
    load_rows(source, begin, end, first, channels, room, stride);
    return {room, stride};
  }
  /// Rows far apart crowd the same places of a cache: a copy is read eight times and more.
  Rows gathered(const Rows& rows, Index steps, Index channels, T* room, Index stride) const {
    constexpr Index apart = 2048 / static_cast<Index>(sizeof(T));
    if (rows.data == room || rows.stride < apart) return rows;
    multiply(rows, steps, channels, RowFactor::one, nullptr, 0, room, stride);
    return {room, stride};
  }

  void load_update(Index begin, Index end, bool nothing) {
    const Index steps = end - begin;
    if (nothing) {
      std::fill_n(write_, steps * row_stride_, T{0});
      std::fill_n(values_, steps * stride_, T{0});
      write_at_ = {write_, row_stride_};
      values_at_ = {values_, stride_};
      return;
    }
    write_at_ = load_padded(*sweep_.write, begin, end, 0, sweep_.rows, rows_, write_, row_stride_);
    values_at_ = load_padded(*sweep_.values, begin, end, sweep_.first_lane, sweep_.lanes, stride_,
                             values_, stride_);
  }

  void load_decay(Index begin, Index end) {
    if (sweep_.decay == TileDecay::none) return;
    const Index steps = end - begin;
    const bool by_row = sweep_.decay == TileDecay::row, by_step = sweep_.decay == TileDecay::step;
    if (!by_step && (by_row ? sweep_.rows : sweep_.lanes) < decay_stride_) {
      std::fill_n(decay_, steps * decay_stride_, T{0});
    }
    if (sweep_.log_decay == nullptr) {
      // The steps outside of the sequence have none.
      for (Index s = 0; s < steps; ++s) {
        const bool inside = begin + s >= 0 && begin + s < sweep_.length;
        decay_[s] = inside ? sweep_.log_factor : T{0};
      }
    } else {
      const Index first = by_step || by_row ? 0 : sweep_.first_lane;
      const Index channels = by_step ? 1 : by_row ? sweep_.rows : sweep_.lanes;
      load_rows(*sweep_.log_decay, begin, end, first, channels, decay_, decay_stride_);
    }
    if (!by_step) return;
    const std::size_t n = static_cast<std::size_t>(steps);
    if (sweep_.fold) fold_decay(steps);
    // Where maxima are kept most tiles have no decay at all: factors of 1 need no product.
    still_ = std::all_of(decay_, decay_ + n, [](T x) { return x == T{0}; });
    if (!folded_ && !still_) QUERN_DISPATCH_AT(level_, transform(Exp{}, decay_, n, decay_));
  }

  void one_tile(Index begin, Index end) {
    const Index one = sweep_.reverse ? 1 : -1;
    const Index shift = sweep_.late_update ? one : 0;
    const Index decay_shift = sweep_.late_update || sweep_.late_decay ? one : 0;
    load_decay(begin + decay_shift, end + decay_shift);
    load_update(begin + shift, end + shift, false);
    read_at_ = load_padded(*sweep_.read, begin, end, 0, sweep_.rows, rows_, read_, row_stride_);
    target_ = sweep_.lanes == stride_ && rows_ > 0
                  ? sweep_.out->direct(begin, sweep_.first_lane, target_stride_)
                  : nullptr;
    look_ahead(begin, end);
    if (rows_ == 0) std::fill_n(out_, (end - begin) * stride_, T{0});
    tile_steps(end - begin, state_);
    if (target_ != nullptr) return;
    sweep_.out->store(begin, end - begin, sweep_.first_lane, sweep_.lanes, out_, stride_);
  }

  /// What the next tile reads of arrays that lie as they are read, and where this one writes.
  void look_ahead(Index begin, Index end) {
    const Index steps = end - begin, next = sweep_.reverse ? begin - steps : end;
    const bool by_row = sweep_.decay == TileDecay::row;
    const bool wide = by_row || sweep_.decay == TileDecay::lane;
    const bool inside = next >= 0 && next + steps <= sweep_.length;
    const StepSource<T>* const sources[] = {sweep_.values, sweep_.write, sweep_.read,
                                            wide ? sweep_.log_decay : nullptr};
    for (std::size_t i = 0; i < std::size(sources); ++i) {
      const bool lanes = i == 0 || (i == 3 && !by_row);
      RecurrenceSoon<T>& soon = soon_[i];
      soon = {};
      if (sources[i] == nullptr || !inside) continue;
      soon.channels = lanes ? sweep_.lanes : sweep_.rows;
      soon.data = sources[i]->direct(next, steps, lanes ? sweep_.first_lane : 0, soon.channels,
                                     soon.stride);
    }
    if (!wide && target_ != nullptr) soon_[3] = {target_, target_stride_, sweep_.lanes};
  }

  /// The loaded steps, on `state`.
  void tile_steps(Index steps, T* state) {
    const bool wide = sweep_.decay == TileDecay::row || sweep_.decay == TileDecay::lane;
    if (folded_) {
      multiply(values_at_, steps, stride_, RowFactor::step, up_, 0, values_, stride_);
      multiply(read_at_, steps, rows_, RowFactor::step, down_of_steps(), 0, read_, row_stride_);
      values_at_ = {values_, stride_}, read_at_ = {read_, row_stride_};
    }
    if (wide && sweep_.fold) {
      fold_steps(steps, state);
    } else {
      write_at_ = gathered(write_at_, steps, rows_, write_, row_stride_);
      read_at_ = gathered(read_at_, steps, rows_, read_, row_stride_);
      values_at_ = gathered(values_at_, steps, stride_, values_, stride_);
      if (wide) to_differences(0, steps);
      run_tile(0, steps, still_ || folded_ ? TileDecay::none : sweep_.decay, state);
    }
    if (!sweep_.normaliser) return;
    RecurrenceNormaliser<T> sums;
    sums.steps = steps, sums.row_blocks = row_blocks_;
    sums.write = write_at_.data, sums.read = read_at_.data;
    sums.write_stride = write_at_.stride, sums.read_stride = read_at_.stride;
    if (sweep_.decay == TileDecay::step && !still_ && !folded_) sums.fades = decay_;
    sums.state = normaliser(), sums.totals = totals();
    sums.partial = totals() + round_up(tile_, 16);
    QUERN_DISPATCH_AT(level_, recurrence_normaliser<T>(sums));
  }

  /// e^x - 1 of decays a channel.
  void to_differences(Index low, Index steps) const {
    T* const at = decay_ + low * decay_stride_;
    QUERN_DISPATCH_AT(level_,
                      transform(Expm1{}, at, static_cast<std::size_t>(steps * decay_stride_), at));
  }

  /// Decays a channel, folded as those a step are: as many steps at a time as forget no more than
  /// e^-20 in any channel. Where a single step forgets more, some are taken one factor at a time.
  /// How a step is handled depends on none that comes after it.
  void fold_steps(Index steps, T* state) {
    constexpr Index unfolded = 8;
    const bool by_lane = sweep_.decay == TileDecay::lane;
    RecurrenceFold<T> fold;
    fold.backward = sweep_.reverse, fold.stride = decay_stride_, fold.limit = T{20};
    fold.sums = up_ + tile_ * decay_stride_;
    fold.end_keep = fold.sums + decay_stride_, fold.end_fade = fold.end_keep + decay_stride_;
    for (Index done = 0, taken = 0; done < steps; done += taken) {
      const Index left = steps - done, begin = sweep_.reverse ? 0 : done;
      fold.steps = left;
      fold.logs = decay_ + begin * decay_stride_, fold.up = up_ + begin * decay_stride_;
      taken = QUERN_DISPATCH_AT(level_, recurrence_fold<T>(fold));
      if (taken == 0) {
        taken = (std::min)(unfolded, left);
        const Index low = sweep_.reverse ? left - taken : done;
        to_differences(low, taken);
        run_tile(low, taken, sweep_.decay, state);
        continue;
      }
      folded_steps(sweep_.reverse ? left - taken : done, taken, by_lane, state);
      QUERN_DISPATCH_AT(
          level_, recurrence_fade<T>(fold.end_keep, fold.end_fade, by_lane, rows_, stride_, state));
    }
  }

  /// Steps whose factors are in decay_ (e^c) and up_ (e^-c).
  void folded_steps(Index low, Index steps, bool by_lane, T* state) {
    const Index at = low * decay_stride_;
    const Rows write = write_at_, read = read_at_, values = values_at_;
    T* const target = target_;
    if (by_lane) {
      multiply(values.from(low), steps, stride_, RowFactor::each, up_ + at, stride_,
               values_ + low * stride_, stride_);
      values_at_ = {values_, stride_};
      target_ = nullptr;
    } else {
      multiply(write.from(low), steps, rows_, RowFactor::each, up_ + at, row_stride_,
               write_ + low * row_stride_, row_stride_);
      multiply(read.from(low), steps, rows_, RowFactor::each, decay_ + at, row_stride_,
               read_ + low * row_stride_, row_stride_);
      write_at_ = {write_, row_stride_}, read_at_ = {read_, row_stride_};
    }
    run_tile(low, steps, TileDecay::none, state);
    write_at_ = write, read_at_ = read, values_at_ = values, target_ = target;
    if (!by_lane) return;
    const Rows sums{out_ + low * stride_, stride_};
    multiply(sums, steps, stride_, RowFactor::each, decay_ + at, stride_,
             target != nullptr ? target + low * target_stride_ : out_ + low * stride_,
             target != nullptr ? target_stride_ : stride_);
  }

  void run_tile(Index low, Index steps, TileDecay kind, T* state) {
    RecurrenceTile<T> tile;
    tile.steps = steps;
    tile.backward = sweep_.reverse;
    tile.row_blocks = row_blocks_;
    tile.stride = stride_;
    const Rows write = write_at_.from(low), read = read_at_.from(low);
    const Rows values = values_at_.from(low);
    tile.write = write.data, tile.write_stride = write.stride;
    tile.read = read.data, tile.read_stride = read.stride;
    tile.values = values.data, tile.value_stride = values.stride;
    tile.kind = kind;
    tile.decay = decay_ + low * decay_stride_, tile.decay_stride = decay_stride_;
    tile.end_keep = folded_ ? end_keep_ : T{1};
    tile.end_fade = folded_ ? end_fade_ : T{0};
    tile.fresh = true;
    tile.out = out_ + low * stride_;
    if (target_ != nullptr) tile.target = target_ + low * target_stride_;
    tile.target_stride = target_stride_;
    for (std::size_t i = 0; i < std::size(soon_); ++i) {
      tile.soon[i] = soon_[i];
      if (soon_[i].data != nullptr) tile.soon[i].data += low * soon_[i].stride;
    }
    tile.state = state;
    QUERN_DISPATCH_AT(level_, recurrence_tile<T>(tile));
  }

  simd::Level level_;
  RecurrenceSweep<T> sweep_;
  Index tile_ = 0, rows_ = 0, row_stride_ = 0, stride_ = 0, row_blocks_ = 0, decay_stride_ = 1;
  core::Buffer<T> memory_, sums_of_write_;
  T *write_ = nullptr, *read_ = nullptr, *values_ = nullptr, *out_ = nullptr, *decay_ = nullptr,
    *up_ = nullptr, *state_ = nullptr;
  Rows write_at_, read_at_, values_at_;  ///< a tile's, in the above or where they lie
  T* target_ = nullptr;                  ///< where a tile's sums go instead of out_
  Index target_stride_ = 0;
  RecurrenceSoon<T> soon_[4];
  bool folded_ = false;  ///< this tile's decays are in write_ and read_
  bool still_ = false;   ///< this tile has a decay a step, and all are none
  T end_keep_ = T{1}, end_fade_ = T{0};
  core::Buffer<double> sums_;
};

}  // namespace kernels
QUERN_NAMESPACE_END

#endif  // QUERN_KERNELS_RECURRENCE_SWEEP_HPP
