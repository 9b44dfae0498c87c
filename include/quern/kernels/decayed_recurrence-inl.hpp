// SPDX-License-Identifier: Apache-2.0

/// \file
/// The decayed recurrence on one tile of steps:
///   state = decay_s * state + write_s values_s^T,   out_s += state^T read_s.
///
/// A block of the state, some rows by one or two vectors of columns, stays in registers through all
/// steps of the tile, so a step costs two multiply-adds an element (three operations where the
/// state decays inside the tile) and the state's memory is touched once a tile. That is fewer
/// operations than the chunked form on matrix products has, which adds a triangle of keys times
/// queries.
///
/// Numerics: an element of the state is one chain of multiply-adds over all steps; an output's sum
/// runs over the rows in order. Decays of rows and of lanes come as e^x - 1 and are added,
/// s + s (e^x - 1) + write values: a factor near 1 rounded to a float would be off by the same
/// 2^-25 at every step, and over thousands of steps that adds up.

#if defined(QUERN_KERNELS_DECAYED_RECURRENCE_INL_HPP) == defined(HWY_TARGET_TOGGLE)
#ifdef QUERN_KERNELS_DECAYED_RECURRENCE_INL_HPP
#undef QUERN_KERNELS_DECAYED_RECURRENCE_INL_HPP
#else
#define QUERN_KERNELS_DECAYED_RECURRENCE_INL_HPP
#endif

#include "quern/core/config.hpp"
#include "quern/kernels/decayed_recurrence_types.hpp"
#include "quern/kernels/math-inl.hpp"
#include "quern/kernels/partial-inl.hpp"

#include "hwy/cache_control.h"
#include "hwy/highway.h"

#include <cstddef>

HWY_BEFORE_NAMESPACE();
QUERN_NAMESPACE_BEGIN
namespace kernels {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

// Rows by two vectors of sums, two vectors of values and of outputs, one or two of broadcasts: 22
// registers of 32, or 14 of 16.
#if HWY_CAP_GE512 || HWY_ARCH_ARM
inline constexpr int kStateRows = 8;
#else
inline constexpr int kStateRows = 4;
#endif

/// How this level cuts states.
template <class T>
RecurrenceLayout recurrence_layout() {
  return {kStateRows, static_cast<std::ptrdiff_t>(hn::Lanes(hn::ScalableTag<T>()))};
}

// Arrays of vectors are indexed by constants only: templates recurse where a loop would be, since
// g++ at -O2 keeps an array in memory that is indexed in a loop.

template <int kIndex, int kCount, class D, class V, class T>
HWY_INLINE void load_state(D d, const T* HWY_RESTRICT from, std::ptrdiff_t stride,
                           V (&state)[kStateRows * kCount]) {
  constexpr int kLanes = static_cast<int>(hn::MaxLanes(D()));
  state[kIndex] = hn::LoadU(d, from + kIndex / kCount * stride + kIndex % kCount * kLanes);
  if constexpr (kIndex + 1 < kStateRows * kCount) {
    load_state<kIndex + 1, kCount>(d, from, stride, state);
  }
}

/// keep state + fade state.
template <int kIndex, int kCount, class D, class V, class T>
HWY_INLINE void store_state(D d, const V (&state)[kStateRows * kCount], V keep, V fade,
                            std::ptrdiff_t stride, T* HWY_RESTRICT to) {
  constexpr int kLanes = static_cast<int>(hn::MaxLanes(D()));
  hn::StoreU(hn::MulAdd(state[kIndex], fade, hn::Mul(state[kIndex], keep)), d,
             to + kIndex / kCount * stride + kIndex % kCount * kLanes);
  if constexpr (kIndex + 1 < kStateRows * kCount) {
    store_state<kIndex + 1, kCount>(d, state, keep, fade, stride, to);
  }
}

/// One element after a step: faded, and what is written added.
template <TileDecay kDecay, class V>
HWY_INLINE V step_state(V state, V fade, V write, V values) {
  if constexpr (kDecay == TileDecay::step) {
    return hn::MulAdd(write, values, hn::Mul(state, fade));
  } else if constexpr (kDecay == TileDecay::none) {
    static_cast<void>(fade);
    return hn::MulAdd(write, values, state);
  } else {
    return hn::Add(state, hn::MulAdd(state, fade, hn::Mul(write, values)));
  }
}

/// One step of one row and those below it. `fade` holds what fades the step or the lanes.
template <int kRow, int kCount, TileDecay kDecay, class D, class V, class T>
HWY_INLINE void step_rows(D d, const T* HWY_RESTRICT write, const T* HWY_RESTRICT read,
                          const T* HWY_RESTRICT decay, const V (&fade)[kCount],
                          const V (&values)[kCount], V (&state)[kStateRows * kCount],
                          V (&out)[kCount]) {
  constexpr int kAt = kRow * kCount;
  const V w = hn::Set(d, write[kRow]);
  const V r = hn::Set(d, read[kRow]);
  V row_fade = fade[0];
  if constexpr (kDecay == TileDecay::row) row_fade = hn::Set(d, decay[kRow]);
  state[kAt] = step_state<kDecay>(state[kAt], row_fade, w, values[0]);
  out[0] = hn::MulAdd(r, state[kAt], out[0]);
  if constexpr (kCount == 2) {
    if constexpr (kDecay == TileDecay::lane) row_fade = fade[kCount - 1];
    state[kAt + 1] = step_state<kDecay>(state[kAt + 1], row_fade, w, values[kCount - 1]);
    out[kCount - 1] = hn::MulAdd(r, state[kAt + 1], out[kCount - 1]);
  }
  if constexpr (kRow + 1 < kStateRows) {
    step_rows<kRow + 1, kCount, kDecay>(d, write, read, decay, fade, values, state, out);
  }
}

/// What a block of rows and kColumns columns fetches at each step for later: one line of one array.
/// Blocks of rows share these out; the rest fetches what is there already.
template <int kColumns, class T>
HWY_INLINE const T* soon_line(const RecurrenceTile<T>& tile, std::ptrdiff_t row_block,
                              std::ptrdiff_t col, std::ptrdiff_t& step) {
  constexpr std::ptrdiff_t kLine = 64 / static_cast<std::ptrdiff_t>(sizeof(T));
  constexpr std::ptrdiff_t kLines = kColumns > kLine ? kColumns / kLine : 1;
  const std::ptrdiff_t which = row_block / kLines, at = col + row_block % kLines * kLine;
  if (which < 4 && tile.soon[which].data != nullptr && at < tile.soon[which].channels) {
    const RecurrenceSoon<T>& soon = tile.soon[which];
    step = tile.backward ? -soon.stride : soon.stride;
    return soon.data + (tile.backward ? (tile.steps - 1) * soon.stride : 0) + at;
  }
  step = 0;
  return tile.values + col;
}

/// All steps for one block of rows and `kCount` vectors of columns.
template <int kCount, TileDecay kDecay, class T>
HWY_NOINLINE void recurrence_block(const RecurrenceTile<T>& tile, std::ptrdiff_t row_block,
                                   std::ptrdiff_t col) {
  const hn::ScalableTag<T> d;
  using V = hn::VFromD<hn::ScalableTag<T>>;
  constexpr int kLanes = static_cast<int>(hn::MaxLanes(hn::ScalableTag<T>()));
  const std::ptrdiff_t stride = tile.stride;
  const std::ptrdiff_t direction = tile.backward ? -1 : 1;
  const std::ptrdiff_t first = tile.backward ? tile.steps - 1 : 0, row = row_block * kStateRows;
  const T* HWY_RESTRICT write = tile.write + first * tile.write_stride + row;
  const T* HWY_RESTRICT read = tile.read + first * tile.read_stride + row;
  const T* HWY_RESTRICT values = tile.values + first * tile.value_stride + col;
  const std::ptrdiff_t write_step = direction * tile.write_stride;
  const std::ptrdiff_t read_step = direction * tile.read_stride;
  const std::ptrdiff_t value_step = direction * tile.value_stride;
  const T* HWY_RESTRICT decay = tile.decay;
  std::ptrdiff_t decay_step = direction;
  if constexpr (kDecay == TileDecay::step) decay += first;
  if constexpr (kDecay == TileDecay::row) {
    decay += first * tile.decay_stride + row;
    decay_step *= tile.decay_stride;
  }
  if constexpr (kDecay == TileDecay::lane) {
    decay += first * stride + col;
    decay_step *= stride;
  }
  HWY_ALIGN T zeros[kCount * kLanes] = {};
  const bool begins = row_block == 0 && tile.fresh;
  const bool ends = row_block + 1 == tile.row_blocks && tile.target != nullptr;
  const T* before = begins ? zeros : tile.out + first * stride + col;
  const std::ptrdiff_t before_step = begins ? 0 : direction * stride;
  const std::ptrdiff_t out_stride = ends ? tile.target_stride : stride;
  T* out = (ends ? tile.target : tile.out) + first * out_stride + col;
  const std::ptrdiff_t out_step = direction * out_stride;
  std::ptrdiff_t soon_step = 0;
  const T* soon = soon_line<kCount * kLanes>(tile, row_block, col, soon_step);
  T* HWY_RESTRICT at = tile.state + row * stride + col;
  V state[kStateRows * kCount];
  load_state<0, kCount>(d, at, stride, state);
  for (std::ptrdiff_t s = tile.steps; s > 0; --s) {
    V value[kCount], sum[kCount], fade[kCount];
    value[0] = hn::LoadU(d, values);
    sum[0] = hn::LoadU(d, before);
    fade[0] = value[0];
    if constexpr (kDecay == TileDecay::step) fade[0] = hn::Set(d, decay[0]);
    if constexpr (kDecay == TileDecay::lane) fade[0] = hn::LoadU(d, decay);
    if constexpr (kCount == 2) {
      value[kCount - 1] = hn::LoadU(d, values + kLanes);
      sum[kCount - 1] = hn::LoadU(d, before + kLanes);
      fade[kCount - 1] = fade[0];
      if constexpr (kDecay == TileDecay::lane) fade[kCount - 1] = hn::LoadU(d, decay + kLanes);
    }
    step_rows<0, kCount, kDecay>(d, write, read, decay, fade, value, state, sum);
    hn::StoreU(sum[0], d, out);
    if constexpr (kCount == 2) hn::StoreU(sum[kCount - 1], d, out + kLanes);
    hwy::Prefetch(soon);
    soon += soon_step;
    write += write_step;
    read += read_step;
    values += value_step;
    before += before_step;
    out += out_step;
    if constexpr (kDecay != TileDecay::none) decay += decay_step;
  }
  store_state<0, kCount>(d, state, hn::Set(d, tile.end_keep), hn::Set(d, tile.end_fade), stride,
                         at);
}

template <TileDecay kDecay, class T>
void recurrence_columns(const RecurrenceTile<T>& tile) {
  constexpr int kLanes = static_cast<int>(hn::MaxLanes(hn::ScalableTag<T>()));
  std::ptrdiff_t col = 0;
  for (; col + 2 * kLanes <= tile.stride; col += 2 * kLanes) {
    for (std::ptrdiff_t b = 0; b < tile.row_blocks; ++b) recurrence_block<2, kDecay>(tile, b, col);
  }
  if (col < tile.stride) {
    for (std::ptrdiff_t b = 0; b < tile.row_blocks; ++b) recurrence_block<1, kDecay>(tile, b, col);
  }
}

/// Row \p s of RecurrenceRows; kAdd adds to what is there.
template <bool kAdd, class T>
HWY_INLINE void multiply_row(const RecurrenceRows<T>& rows, std::ptrdiff_t s) {
  const hn::ScalableTag<T> d;
  const std::ptrdiff_t lanes = static_cast<std::ptrdiff_t>(hn::Lanes(d));
  const T* const from = rows.from + s * rows.from_stride;
  T* const to = rows.to + s * rows.to_stride;
  const auto one = hn::Set(d, rows.kind == RowFactor::step ? rows.factors[s] : rows.factor);
  const bool each = rows.kind == RowFactor::each;
  const T* const factors = each ? rows.factors + s * rows.factor_stride : nullptr;
  std::ptrdiff_t c = 0;
  for (; c + lanes <= rows.channels; c += lanes) {
    const auto x = hn::LoadU(d, from + c), f = each ? hn::LoadU(d, factors + c) : one;
    hn::StoreU(kAdd ? hn::MulAdd(x, f, hn::LoadU(d, to + c)) : hn::Mul(x, f), d, to + c);
  }
  if (c == rows.channels) return;
  const std::size_t rest = static_cast<std::size_t>(rows.channels - c);
  const auto x = load_partial(d, from + c, rest);
  const auto f = each ? load_partial(d, factors + c, rest) : one;
  const auto y = kAdd ? hn::MulAdd(x, f, load_partial(d, to + c, rest)) : hn::Mul(x, f);
  store_partial(y, d, to + c, rest);
}

/// See RecurrenceRows.
template <class T>
void recurrence_rows(const RecurrenceRows<T>& rows) {
  for (std::ptrdiff_t s = 0; s < rows.steps; ++s) {
    if (rows.add) {
      multiply_row<true>(rows, s);
    } else {
      multiply_row<false>(rows, s);
    }
  }
}

/// Adds a step's logarithms to the sums, unless one of these would leave the limit.
template <class T>
HWY_INLINE bool take_step(const RecurrenceFold<T>& fold, T* HWY_RESTRICT logs) {
  const hn::ScalableTag<T> d;
  const std::ptrdiff_t lanes = static_cast<std::ptrdiff_t>(hn::Lanes(d));
  auto largest = hn::Zero(d);
  for (std::ptrdiff_t c = 0; c < fold.stride; c += lanes) {
    const auto sum = hn::Add(hn::LoadU(d, fold.sums + c), hn::LoadU(d, logs + c));
    largest = hn::Max(largest, hn::Abs(sum));
  }
  if (!hn::AllTrue(d, hn::Le(largest, hn::Set(d, fold.limit)))) return false;
  for (std::ptrdiff_t c = 0; c < fold.stride; c += lanes) {
    const auto sum = hn::Add(hn::LoadU(d, fold.sums + c), hn::LoadU(d, logs + c));
    hn::StoreU(sum, d, fold.sums + c);
    hn::StoreU(sum, d, logs + c);
  }
  return true;
}

/// See RecurrenceFold; how many steps were taken.
template <class T>
std::ptrdiff_t recurrence_fold(const RecurrenceFold<T>& fold) {
  const hn::ScalableTag<T> d;
  const std::ptrdiff_t lanes = static_cast<std::ptrdiff_t>(hn::Lanes(d)), stride = fold.stride;
  for (std::ptrdiff_t c = 0; c < stride; c += lanes) hn::StoreU(hn::Zero(d), d, fold.sums + c);
  std::ptrdiff_t taken = 0;
  for (; taken < fold.steps; ++taken) {
    const std::ptrdiff_t s = fold.backward ? fold.steps - 1 - taken : taken;
    if (!take_step(fold, fold.logs + s * stride)) break;
  }
  const std::ptrdiff_t low = fold.backward ? fold.steps - taken : 0;
  const auto one = hn::Set(d, T{1});
  for (std::ptrdiff_t i = low * stride; i < (low + taken) * stride; i += lanes) {
    const auto down = exp(d, hn::LoadU(d, fold.logs + i));
    hn::StoreU(down, d, fold.logs + i);
    hn::StoreU(hn::Div(one, down), d, fold.up + i);
  }
  // Next to 1 as a difference to it, further away as a factor.
  for (std::ptrdiff_t c = 0; c < stride; c += lanes) {
    const auto sum = hn::LoadU(d, fold.sums + c);
    const auto little = hn::Lt(hn::Abs(sum), hn::Set(d, T(0.5)));
    hn::StoreU(hn::IfThenElseZero(little, one), d, fold.end_keep + c);
    hn::StoreU(hn::IfThenElse(little, expm1(d, sum), exp(d, sum)), d, fold.end_fade + c);
  }
  return taken;
}

/// state = keep state + fade state, one of each a row or, where `by_lane`, a column.
template <class T>
void recurrence_fade(const T* keep, const T* fade, bool by_lane, std::ptrdiff_t rows,
                     std::ptrdiff_t stride, T* HWY_RESTRICT state) {
  const hn::ScalableTag<T> d;
  const std::ptrdiff_t lanes = static_cast<std::ptrdiff_t>(hn::Lanes(d));
  for (std::ptrdiff_t r = 0; r < rows; ++r, state += stride) {
    for (std::ptrdiff_t c = 0; c < stride; c += lanes) {
      const auto k = by_lane ? hn::LoadU(d, keep + c) : hn::Set(d, keep[r]);
      const auto f = by_lane ? hn::LoadU(d, fade + c) : hn::Set(d, fade[r]);
      const auto s = hn::LoadU(d, state + c);
      hn::StoreU(hn::MulAdd(s, f, hn::Mul(s, k)), d, state + c);
    }
  }
}

/// A vector of what is left from here on, or the first lanes of one.
template <class D, class T, class V>
HWY_INLINE V load_some(D d, const T* from, std::ptrdiff_t left, V /*like*/) {
  const std::ptrdiff_t lanes = static_cast<std::ptrdiff_t>(hn::Lanes(d));
  return left >= lanes ? hn::LoadU(d, from) : load_partial(d, from, static_cast<std::size_t>(left));
}
template <class D, class T, class V>
HWY_INLINE void store_some(D d, V v, std::ptrdiff_t left, T* to) {
  if (left >= static_cast<std::ptrdiff_t>(hn::Lanes(d))) {
    hn::StoreU(v, d, to);
  } else {
    store_partial(v, d, to, static_cast<std::size_t>(left));
  }
}

/// out[s] = a_s . b_s.
template <class T>
void recurrence_dots(const T* a, std::ptrdiff_t a_stride, const T* b, std::ptrdiff_t b_stride,
                     std::ptrdiff_t steps, std::ptrdiff_t channels, T* HWY_RESTRICT out) {
  const hn::ScalableTag<T> d;
  const std::ptrdiff_t lanes = static_cast<std::ptrdiff_t>(hn::Lanes(d));
  for (std::ptrdiff_t s = 0; s < steps; ++s, a += a_stride, b += b_stride) {
    auto sum = hn::Zero(d);
    for (std::ptrdiff_t c = 0; c < channels; c += lanes) {
      sum = hn::MulAdd(load_some(d, a + c, channels - c, sum),
                       load_some(d, b + c, channels - c, sum), sum);
    }
    out[s] = hn::GetLane(hn::SumOfLanes(d, sum));
  }
}

/// See RecurrenceBonus.
template <class T>
void recurrence_bonus(const RecurrenceBonus<T>& x) {
  const hn::ScalableTag<T> d;
  const std::ptrdiff_t lanes = static_cast<std::ptrdiff_t>(hn::Lanes(d));
  for (std::ptrdiff_t s = 0; s < x.steps; ++s) {
    const T* const q = x.q + s * x.q_stride;
    const T* const k = x.k + s * x.k_stride;
    auto sum = hn::Zero(d);
    for (std::ptrdiff_t c = 0; c < x.keys; c += lanes) {
      const std::ptrdiff_t left = x.keys - c;
      const auto qu = hn::Mul(load_some(d, q + c, left, sum), load_some(d, x.u + c, left, sum));
      sum = hn::MulAdd(qu, load_some(d, k + c, left, sum), sum);
    }
    const auto weight = hn::Mul(hn::SumOfLanes(d, sum), hn::Set(d, x.scale));
    const T* const values = x.values + s * x.value_stride;
    T* const out = x.out + s * x.out_stride;
    for (std::ptrdiff_t c = 0; c < x.lanes; c += lanes) {
      const std::ptrdiff_t left = x.lanes - c;
      store_some(
          d,
          hn::MulAdd(weight, load_some(d, values + c, left, sum), load_some(d, out + c, left, sum)),
          left, out + c);
    }
  }
}

/// See RecurrenceBonusVjp.
template <class T>
void recurrence_bonus_vjp(const RecurrenceBonusVjp<T>& x) {
  const hn::ScalableTag<T> d;
  const std::ptrdiff_t lanes = static_cast<std::ptrdiff_t>(hn::Lanes(d));
  for (std::ptrdiff_t s = 0; s < x.steps; ++s) {
    auto sum = hn::Zero(d);
    for (std::ptrdiff_t c = 0; c < x.lanes; c += lanes) {
      sum = hn::MulAdd(load_some(d, x.dout + s * x.lanes + c, x.lanes - c, sum),
                       load_some(d, x.v + s * x.lanes + c, x.lanes - c, sum), sum);
    }
    const auto weight = hn::SumOfLanes(d, sum);
    T* const grad = x.grad + s * x.grad_stride;
    for (std::ptrdiff_t c = 0; c < x.keys; c += lanes) {
      const std::ptrdiff_t left = x.keys - c, at = s * x.keys + c;
      const auto part = hn::Mul(weight, load_some(d, x.other + at, left, sum));
      store_some(
          d, hn::MulAdd(load_some(d, x.u + c, left, sum), part, load_some(d, grad + c, left, sum)),
          left, grad + c);
      if (x.du == nullptr) continue;
      store_some(
          d,
          hn::MulAdd(load_some(d, x.own + at, left, sum), part, load_some(d, x.du + c, left, sum)),
          left, x.du + c);
    }
  }
}

/// See RecurrenceDecaySums.
template <class T>
void recurrence_decay_sums(const RecurrenceDecaySums<T>& x) {
  const hn::ScalableTag<T> d;
  const std::ptrdiff_t lanes = static_cast<std::ptrdiff_t>(hn::Lanes(d));
  for (std::ptrdiff_t c = 0; c < x.channels; c += lanes) {
    const std::ptrdiff_t left = x.channels - c;
    auto sum = load_some(d, x.sums + c, left, hn::Zero(d));
    for (std::ptrdiff_t s = x.steps - 1; s >= 0; --s) {
      T* const place = x.place + s * x.place_stride + c;
      const auto with_q = load_some(d, place, left, sum);
      if (!(x.restarted && s == x.steps - 1)) {
        const auto k = load_some(d, x.k + s * x.k_stride + c, left, sum);
        const auto dk = load_some(d, x.dk + s * x.dk_stride + c, left, sum);
        if (!x.old_state) sum = hn::Add(sum, with_q);
        sum = hn::NegMulAdd(k, dk, sum);
      }
      store_some(d, sum, left, place);
      if (x.old_state) sum = hn::Add(sum, with_q);
    }
    store_some(d, sum, left, x.sums + c);
  }
}

/// One tile: see RecurrenceTile.
template <class T>
void recurrence_tile(const RecurrenceTile<T>& tile) {
  switch (tile.kind) {
    case TileDecay::none:
      return recurrence_columns<TileDecay::none>(tile);
    case TileDecay::step:
      return recurrence_columns<TileDecay::step>(tile);
    case TileDecay::row:
      return recurrence_columns<TileDecay::row>(tile);
    case TileDecay::lane:
      return recurrence_columns<TileDecay::lane>(tile);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace kernels
QUERN_NAMESPACE_END
HWY_AFTER_NAMESPACE();

#endif  // QUERN_KERNELS_DECAYED_RECURRENCE_INL_HPP
