// SPDX-License-Identifier: Apache-2.0

/// \file
/// One step of a decayed recurrence on a state where it lies, which is how linear attention and
/// its like decode, and the normaliser of linear attention over a tile of steps.
///
/// A step reads and writes the state once: that traffic is its bound, so nothing is packed, and
/// strips of columns go through all rows. Where nothing fades it has the bits of a tile.
///
/// A normaliser is a column of the state whose value is always 1. Here vectors lie along its rows
/// instead of one number filling a vector. Its sum runs over the rows of each place in a block of
/// kStateRows first, then over the places.

#if defined(QUERN_KERNELS_RECURRENCE_STEP_INL_HPP) == defined(HWY_TARGET_TOGGLE)
#ifdef QUERN_KERNELS_RECURRENCE_STEP_INL_HPP
#undef QUERN_KERNELS_RECURRENCE_STEP_INL_HPP
#else
#define QUERN_KERNELS_RECURRENCE_STEP_INL_HPP
#endif

#include "quern/core/config.hpp"
#include "quern/kernels/decayed_recurrence-inl.hpp"
#include "quern/kernels/partial-inl.hpp"
#include "quern/kernels/recurrence_step_types.hpp"

#include "hwy/highway.h"

#include <cstddef>

HWY_BEFORE_NAMESPACE();
QUERN_NAMESPACE_BEGIN
namespace kernels {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

/// What fades in a step.
enum class StepFades { none, all, rows };

/// An element after a step.
template <StepFades kFades, class V>
HWY_INLINE V faded_sum(V state, V keep, V change, V write, V values) {
  if constexpr (kFades == StepFades::none) {
    static_cast<void>(keep);
    static_cast<void>(change);
    return hn::MulAdd(write, values, state);
  } else {
    return hn::MulAdd(state, change, hn::MulAdd(write, values, hn::Mul(state, keep)));
  }
}

// Arrays of vectors are indexed by constants only: see decayed_recurrence-inl.hpp.

/// Vector kIndex of a row and those after it.
template <int kIndex, int kCount, StepFades kFades, class D, class V, class T>
HWY_INLINE void step_vectors(D d, V w, V r, V keep, V change, const V (&values)[kCount],
                             V (&out)[kCount], T* HWY_RESTRICT state) {
  constexpr int kLanes = static_cast<int>(hn::MaxLanes(D()));
  T* const at = state + kIndex * kLanes;
  const V s = faded_sum<kFades>(hn::LoadU(d, at), keep, change, w, values[kIndex]);
  out[kIndex] = hn::MulAdd(r, s, out[kIndex]);
  hn::StoreU(s, d, at);
  if constexpr (kIndex + 1 < kCount) {
    step_vectors<kIndex + 1, kCount, kFades>(d, w, r, keep, change, values, out, state);
  }
}

/// Loads values and zeros the sums, or stores these.
template <int kIndex, int kCount, bool kStore, class D, class V, class T>
HWY_INLINE void step_ends(D d, const T* HWY_RESTRICT values, T* HWY_RESTRICT to, V (&x)[kCount],
                          V (&out)[kCount]) {
  constexpr int kLanes = static_cast<int>(hn::MaxLanes(D()));
  if constexpr (kStore) {
    hn::StoreU(out[kIndex], d, to + kIndex * kLanes);
  } else {
    x[kIndex] = hn::LoadU(d, values + kIndex * kLanes);
    out[kIndex] = hn::Zero(d);
  }
  if constexpr (kIndex + 1 < kCount) step_ends<kIndex + 1, kCount, kStore>(d, values, to, x, out);
}

/// Vectors of a strip of columns: of 32 bytes each, four of them. Strips of 128 bytes come from the
/// second-level cache faster than wider ones do (measured, Zen 4: 5.5 microseconds a step of 8
/// heads of 128 x 128 floats, 6.6 with four vectors of 64 bytes, 5.8 with two).
template <class T>
using StripTag = hn::CappedTag<T, 32 / sizeof(T)>;

/// kCount vectors of columns through all rows.
template <int kCount, StepFades kFades, class T>
HWY_INLINE void step_columns(const RecurrenceStep<T>& step, std::ptrdiff_t col) {
  const StripTag<T> d;
  using V = hn::VFromD<StripTag<T>>;
  V values[kCount], out[kCount];
  step_ends<0, kCount, false>(d, step.values + col, step.out + col, values, out);
  const T* HWY_RESTRICT write = step.write;
  const T* HWY_RESTRICT read = step.read;
  T* HWY_RESTRICT state = step.state + col;
  V keep = hn::Zero(d), change = keep;
  if constexpr (kFades == StepFades::all) {
    keep = hn::Set(d, step.fade[0].keep);
    change = hn::Set(d, step.fade[0].change);
  }
  const std::ptrdiff_t rows = step.rows, stride = step.stride;
  for (std::ptrdiff_t row = 0; row < rows; ++row, state += stride) {
    if constexpr (kFades == StepFades::rows) {
      keep = hn::Set(d, step.fade[row].keep);
      change = hn::Set(d, step.fade[row].change);
    }
    step_vectors<0, kCount, kFades>(d, hn::Set(d, write[row]), hn::Set(d, read[row]), keep, change,
                                    values, out, state);
  }
  step_ends<0, kCount, true>(d, step.values + col, step.out + col, values, out);
}

/// The last columns, fewer than a vector has.
template <StepFades kFades, class T>
HWY_INLINE void step_last_columns(const RecurrenceStep<T>& step, std::ptrdiff_t col) {
  const hn::ScalableTag<T> d;
  const std::size_t count = static_cast<std::size_t>(step.lanes - col);
  const auto values = load_partial(d, step.values + col, count);
  auto out = hn::Zero(d);
  T* HWY_RESTRICT state = step.state + col;
  for (std::ptrdiff_t row = 0; row < step.rows; ++row, state += step.stride) {
    const StepFade<T> fade =
        kFades == StepFades::none ? StepFade<T>{} : step.fade[kFades == StepFades::rows ? row : 0];
    const auto s = faded_sum<kFades>(load_partial(d, state, count), hn::Set(d, fade.keep),
                                     hn::Set(d, fade.change), hn::Set(d, step.write[row]), values);
    out = hn::MulAdd(hn::Set(d, step.read[row]), s, out);
    store_partial(s, d, state, count);
  }
  store_partial(out, d, step.out + col, count);
}

/// As many numbers as a block has rows, or fewer vectors of them than one.
template <class T>
using RowsTag = hn::CappedTag<T, kStateRows>;

/// Sum of what lies in `partial`, kStateRows numbers.
template <class T>
HWY_INLINE T sum_of_rows(const T* partial) {
  const RowsTag<T> d;
  constexpr int kLanes = static_cast<int>(hn::MaxLanes(RowsTag<T>()));
  auto sum = hn::LoadU(d, partial);
  for (int part = kLanes; part < kStateRows; part += kLanes) {
    sum = hn::Add(sum, hn::LoadU(d, partial + part));
  }
  return hn::GetLane(hn::SumOfLanes(d, sum));
}

/// One step of the normaliser.
template <StepFades kFades, class T>
HWY_INLINE void step_normaliser(const RecurrenceStep<T>& step) {
  HWY_ALIGN T partial[kStateRows] = {};
  std::ptrdiff_t whole = 0;
  if constexpr (kFades != StepFades::rows) {
    const RowsTag<T> d;
    constexpr std::ptrdiff_t kLanes = static_cast<std::ptrdiff_t>(hn::MaxLanes(RowsTag<T>()));
    const StepFade<T> fade = kFades == StepFades::none ? StepFade<T>{} : step.fade[0];
    const auto keep = hn::Set(d, fade.keep), change = hn::Set(d, fade.change);
    const auto one = hn::Set(d, T{1});
    whole = step.rows / kStateRows * kStateRows;
    for (std::ptrdiff_t part = 0; part < kStateRows; part += kLanes) {
      auto sum = hn::Zero(d);
      for (std::ptrdiff_t row = part; row < whole; row += kStateRows) {
        T* const at = step.normaliser + row;
        const auto s =
            faded_sum<kFades>(hn::LoadU(d, at), keep, change, hn::LoadU(d, step.write + row), one);
        sum = hn::MulAdd(hn::LoadU(d, step.read + row), s, sum);
        hn::StoreU(s, d, at);
      }
      hn::StoreU(sum, d, partial + part);
    }
  }
  const hn::CappedTag<T, 1> d;
  for (std::ptrdiff_t row = whole; row < step.rows; ++row) {
    const StepFade<T> fade =
        kFades == StepFades::none ? StepFade<T>{} : step.fade[kFades == StepFades::rows ? row : 0];
    const auto s =
        faded_sum<kFades>(hn::Set(d, step.normaliser[row]), hn::Set(d, fade.keep),
                          hn::Set(d, fade.change), hn::Set(d, step.write[row]), hn::Set(d, T{1}));
    T& sum = partial[row % kStateRows];
    sum = hn::GetLane(hn::MulAdd(hn::Set(d, step.read[row]), s, hn::Set(d, sum)));
    step.normaliser[row] = hn::GetLane(s);
  }
  *step.total = sum_of_rows(partial);
}

template <StepFades kFades, class T>
HWY_INLINE void step_state(const RecurrenceStep<T>& step) {
  constexpr std::ptrdiff_t kLanes = static_cast<std::ptrdiff_t>(hn::MaxLanes(StripTag<T>()));
  if (step.normaliser != nullptr) step_normaliser<kFades>(step);
  std::ptrdiff_t col = 0;
  for (; col + 4 * kLanes <= step.lanes; col += 4 * kLanes) step_columns<4, kFades>(step, col);
  for (; col + kLanes <= step.lanes; col += kLanes) step_columns<1, kFades>(step, col);
  if (col < step.lanes) step_last_columns<kFades>(step, col);
}

/// One step: see RecurrenceStep.
template <class T>
void recurrence_step(const RecurrenceStep<T>& step) {
  if (step.fade == nullptr) return step_state<StepFades::none>(step);
  if (step.fade_by_row) return step_state<StepFades::rows>(step);
  step_state<StepFades::all>(step);
}

/// See RecurrenceNormaliser.
template <class T>
void recurrence_normaliser(const RecurrenceNormaliser<T>& tile) {
  const RowsTag<T> d;
  constexpr std::ptrdiff_t kLanes = static_cast<std::ptrdiff_t>(hn::MaxLanes(RowsTag<T>()));
  for (std::ptrdiff_t b = 0; b < tile.row_blocks; ++b) {
    for (std::ptrdiff_t part = 0; part < kStateRows; part += kLanes) {
      T* const state = tile.state + b * kStateRows + part;
      const std::ptrdiff_t first = b * kStateRows + part;
      const T* HWY_RESTRICT write = tile.write + first;
      const T* HWY_RESTRICT read = tile.read + first;
      T* HWY_RESTRICT sums = tile.partial + part;
      auto s = hn::LoadU(d, state);
      for (std::ptrdiff_t t = tile.steps; t > 0; --t) {
        if (tile.fades != nullptr) s = hn::Mul(s, hn::Set(d, tile.fades[tile.steps - t]));
        s = hn::Add(s, hn::LoadU(d, write));
        const auto before = b == 0 ? hn::Zero(d) : hn::LoadU(d, sums);
        hn::StoreU(hn::MulAdd(hn::LoadU(d, read), s, before), d, sums);
        write += tile.write_stride, read += tile.read_stride, sums += kStateRows;
      }
      hn::StoreU(s, d, state);
    }
  }
  for (std::ptrdiff_t t = 0; t < tile.steps; ++t) {
    tile.totals[t] = tile.row_blocks > 0 ? sum_of_rows(tile.partial + t * kStateRows) : T{0};
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace kernels
QUERN_NAMESPACE_END
HWY_AFTER_NAMESPACE();

#endif  // QUERN_KERNELS_RECURRENCE_STEP_INL_HPP
