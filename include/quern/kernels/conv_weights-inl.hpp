// SPDX-License-Identifier: Apache-2.0

/// \file
/// Gradients of a convolution's weights: sums over positions of one operand's channels, read
/// element by element, times vectors of the other's. Tiles are those of conv-inl.hpp. Either
/// operand may be the one that is read by vectors; the caller takes the wider.
///
/// Numerics: each task's positions are one chain of multiply-adds, added to what is there.

#if defined(QUERN_KERNELS_CONV_WEIGHTS_INL_HPP) == defined(HWY_TARGET_TOGGLE)
#ifdef QUERN_KERNELS_CONV_WEIGHTS_INL_HPP
#undef QUERN_KERNELS_CONV_WEIGHTS_INL_HPP
#else
#define QUERN_KERNELS_CONV_WEIGHTS_INL_HPP
#endif

#include "quern/core/config.hpp"
#include "quern/kernels/conv-inl.hpp"
#include "quern/kernels/conv_types.hpp"

#include "hwy/highway.h"

#include <cstddef>

HWY_BEFORE_NAMESPACE();
QUERN_NAMESPACE_BEGIN
namespace kernels {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

namespace detail {

template <int kRow, int kRows, int kVecs, int kSums, class D, class V, class T>
HWY_INLINE void add_singles(D d, const T* HWY_RESTRICT at, const V (&b)[kVecs], V (&sums)[kSums]) {
  add_row<kRow, 0>(hn::Set(d, at[kRow]), b, sums);
  if constexpr (kRow + 1 < kRows) add_singles<kRow + 1, kRows>(d, at, b, sums);
}

template <int kIndex, int kVecs, int kSums, class D, class V, class T>
HWY_INLINE void add_to_rows(D d, const V (&sums)[kSums], T* out, std::ptrdiff_t stride, int skip) {
  if (kIndex / kVecs >= skip) {
    T* const at = out + (kIndex / kVecs) * stride +
                  (kIndex % kVecs) * static_cast<std::ptrdiff_t>(hn::Lanes(d));
    hn::StoreU(hn::Add(hn::LoadU(d, at), sums[kIndex]), d, at);
  }
  if constexpr (kIndex + 1 < kSums) add_to_rows<kIndex + 1, kVecs>(d, sums, out, stride, skip);
}

/// kRows single channels times kVecs vectors, over all positions of a tap. The first `skip` rows
/// have been done before.
template <int kRows, int kVecs, class T>
HWY_NOINLINE void weights_tile(const ConvWeightsTask<T>& task, const ConvRun<T>* runs,
                               std::ptrdiff_t single_step, std::ptrdiff_t vector_step,
                               std::ptrdiff_t single, std::ptrdiff_t vector, T* out, int skip) {
  const hn::ScalableTag<T> d;
  using V = hn::Vec<hn::ScalableTag<T>>;
  V sums[kRows * kVecs];
  start_sums<0, kVecs>(d, static_cast<const T*>(nullptr), sums);
  for (std::ptrdiff_t i = task.row_begin; i < task.row_end; ++i, ++runs) {
    const T* HWY_RESTRICT a = runs->single + single;
    const T* HWY_RESTRICT b_at = runs->vector + vector;
    for (std::ptrdiff_t k = runs->count; k > 0; --k, a += single_step, b_at += vector_step) {
      V b[kVecs];
      load_vectors<0>(d, b_at, b);
      add_singles<0, kRows>(d, a, b, sums);
    }
  }
  add_to_rows<0, kVecs>(d, sums, out, task.out_stride, skip);
}

template <int kVecs, class T>
HWY_INLINE void weights_panel(const ConvWeightsTask<T>& task, const ConvRun<T>* runs,
                              std::ptrdiff_t single_step, std::ptrdiff_t vector_step,
                              std::ptrdiff_t vector, T* out) {
  constexpr int kRows = kConvRows<kVecs>;
  if (task.singles < kRows) {
    for (std::ptrdiff_t c = 0; c < task.singles; ++c) {
      weights_tile<1, kVecs>(task, runs, single_step, vector_step, c, vector,
                             out + c * task.out_stride + vector, 0);
    }
    return;
  }
  for (std::ptrdiff_t c = 0; c < task.singles; c += kRows) {
    // The last tile reaches back over channels that are done.
    const std::ptrdiff_t from = c + kRows <= task.singles ? c : task.singles - kRows;
    weights_tile<kRows, kVecs>(task, runs, single_step, vector_step, from, vector,
                               out + from * task.out_stride + vector, static_cast<int>(c - from));
  }
}

/// Columns j of the grid whose source column lies inside: [first, end).
HWY_INLINE void inside_range(std::ptrdiff_t width, std::ptrdiff_t step, std::ptrdiff_t dw,
                             std::ptrdiff_t grid, std::ptrdiff_t* first, std::ptrdiff_t* end) {
  *first = dw >= 0 ? 0 : (-dw + step - 1) / step;
  *end = width - dw <= 0 ? 0 : (width - dw + step - 1) / step;
  if (*end > grid) *end = grid;
  if (*first > *end) *first = *end;
}

/// A tap's operands along each row of the task: `single` is the source, unless that is the one that
/// is read by vectors.
template <class T>
HWY_INLINE void tap_runs(const ConvWeightsTask<T>& task, const ConvTap& tap, ConvRun<T>* runs) {
  const ConvSource<T>& s = task.source;
  std::ptrdiff_t first = 0, end = 0;
  inside_range(s.width, s.step_w, tap.dw, task.grid_width, &first, &end);
  for (std::ptrdiff_t i = task.row_begin; i < task.row_end; ++i, ++runs) {
    const std::ptrdiff_t h = i * s.step_h + tap.dh;
    const bool inside = h >= 0 && h < s.height && end > first;
    const T* const x = inside ? pixel_at(s, 0, h, first * s.step_w + tap.dw) : s.data;
    const T* const y =
        task.dy + (i - task.row_begin) * task.dy_row_stride + first * task.dy_pixel_stride;
    *runs = {task.source_by_vectors ? y : x, task.source_by_vectors ? x : y,
             inside ? end - first : 0};
  }
}

}  // namespace detail

/// Each position's pixels side by side, for conv_weights of few channels: rows of tap_count *
/// channels.
template <class T>
void conv_patches(const ConvWeightsTask<T>& task, T* out) {
  const std::ptrdiff_t each = task.source.tap_count * task.source.channels;
  for (std::ptrdiff_t i = task.row_begin; i < task.row_end; ++i) {
    for (std::ptrdiff_t j = 0; j < task.grid_width; ++j, out += each) {
      detail::copy_patch(task.source, {0, i, j}, out);
    }
  }
}

/// Adds a task's part of the weights' gradient. \p runs is scratch of one a row of the task.
template <class T>
void conv_weights(const ConvWeightsTask<T>& task, ConvRun<T>* runs) {
  const ConvSource<T>& s = task.source;
  const std::ptrdiff_t lanes = static_cast<std::ptrdiff_t>(hn::Lanes(hn::ScalableTag<T>()));
  const std::ptrdiff_t source_step = s.step_w * s.pixel_stride;
  T* out = task.out;
  for (std::ptrdiff_t t = 0; t < s.tap_count; ++t, out += task.singles * task.out_stride) {
    detail::tap_runs(task, s.taps[t], runs);
    const std::ptrdiff_t single_step = task.source_by_vectors ? task.dy_pixel_stride : source_step;
    const std::ptrdiff_t vector_step = task.source_by_vectors ? source_step : task.dy_pixel_stride;
    std::ptrdiff_t left = task.vectors;
    for (std::ptrdiff_t at = 0; left > 0;) {
      const std::ptrdiff_t panel = detail::panel_vectors(left);
      if (panel == 1) detail::weights_panel<1>(task, runs, single_step, vector_step, at, out);
      if (panel == 2) detail::weights_panel<2>(task, runs, single_step, vector_step, at, out);
      if (panel == 3) detail::weights_panel<3>(task, runs, single_step, vector_step, at, out);
      if constexpr (kConvVectors > 3) {
        if (panel == 4) detail::weights_panel<4>(task, runs, single_step, vector_step, at, out);
      }
      at += panel * lanes;
      left -= panel;
    }
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace kernels
QUERN_NAMESPACE_END
HWY_AFTER_NAMESPACE();

#endif  // QUERN_KERNELS_CONV_WEIGHTS_INL_HPP
