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

/// All steps for one block of rows and `kCount` vectors of columns.
template <int kCount, TileDecay kDecay, class T>
HWY_NOINLINE void recurrence_block(const RecurrenceTile<T>& tile, std::ptrdiff_t row_block,
                                   std::ptrdiff_t col) {
  const hn::ScalableTag<T> d;
  using V = hn::VFromD<hn::ScalableTag<T>>;
  constexpr int kLanes = static_cast<int>(hn::MaxLanes(hn::ScalableTag<T>()));
  const std::ptrdiff_t stride = tile.stride;
  const std::ptrdiff_t row_step = tile.backward ? -kStateRows : kStateRows;
  const std::ptrdiff_t lane_step = tile.backward ? -stride : stride;
  const std::ptrdiff_t first = tile.backward ? tile.steps - 1 : 0;
  const std::ptrdiff_t row_at = (row_block * tile.steps + first) * kStateRows;
  const T* HWY_RESTRICT write = tile.write + row_at;
  const T* HWY_RESTRICT read = tile.read + row_at;
  const std::ptrdiff_t value_step = tile.backward ? -tile.value_stride : tile.value_stride;
  const T* HWY_RESTRICT values = tile.values + first * tile.value_stride + col;
  const T* HWY_RESTRICT decay = tile.decay;
  if constexpr (kDecay == TileDecay::step) decay += first;
  if constexpr (kDecay == TileDecay::row) decay += row_at;
  if constexpr (kDecay == TileDecay::lane) decay += first * stride + col;
  T* HWY_RESTRICT out = tile.out + first * stride + col;
  T* HWY_RESTRICT at = tile.state + row_block * kStateRows * stride + col;
  V state[kStateRows * kCount];
  load_state<0, kCount>(d, at, stride, state);
  for (std::ptrdiff_t s = tile.steps; s > 0; --s) {
    V value[kCount], sum[kCount], fade[kCount];
    value[0] = hn::LoadU(d, values);
    sum[0] = hn::LoadU(d, out);
    fade[0] = value[0];
    if constexpr (kDecay == TileDecay::step) fade[0] = hn::Set(d, decay[0]);
    if constexpr (kDecay == TileDecay::lane) fade[0] = hn::LoadU(d, decay);
    if constexpr (kCount == 2) {
      value[kCount - 1] = hn::LoadU(d, values + kLanes);
      sum[kCount - 1] = hn::LoadU(d, out + kLanes);
      fade[kCount - 1] = fade[0];
      if constexpr (kDecay == TileDecay::lane) fade[kCount - 1] = hn::LoadU(d, decay + kLanes);
    }
    step_rows<0, kCount, kDecay>(d, write, read, decay, fade, value, state, sum);
    hn::StoreU(sum[0], d, out);
    if constexpr (kCount == 2) hn::StoreU(sum[kCount - 1], d, out + kLanes);
    write += row_step;
    read += row_step;
    values += value_step;
    out += lane_step;
    if constexpr (kDecay == TileDecay::step) decay += tile.backward ? -1 : 1;
    if constexpr (kDecay == TileDecay::row) decay += row_step;
    if constexpr (kDecay == TileDecay::lane) decay += lane_step;
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

/// Copies rows of `row_blocks` blocks, \p stride apart, into the order [block][step][row], each
/// times its step's factor; null factors are ones.
template <class T>
void recurrence_pack(const T* from, std::ptrdiff_t steps, std::ptrdiff_t stride,
                     std::ptrdiff_t row_blocks, const T* factors, T* HWY_RESTRICT to) {
  const hn::CappedTag<T, kStateRows> d;
  const std::ptrdiff_t lanes = static_cast<std::ptrdiff_t>(hn::Lanes(d));
  for (std::ptrdiff_t b = 0; b < row_blocks; ++b) {
    const T* at = from + b * kStateRows;
    for (std::ptrdiff_t s = 0; s < steps; ++s, at += stride, to += kStateRows) {
      const auto factor = hn::Set(d, factors == nullptr ? T{1} : factors[s]);
      for (std::ptrdiff_t r = 0; r < kStateRows; r += lanes) {
        hn::StoreU(hn::Mul(hn::LoadU(d, at + r), factor), d, to + r);
      }
    }
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
