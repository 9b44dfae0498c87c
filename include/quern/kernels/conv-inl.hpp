// SPDX-License-Identifier: Apache-2.0

/// \file
/// Convolutions as matrix products whose left operand is never written down: each row of a register
/// tile is an output position, and reads its source pixels where they lie, through pointers (zeros
/// for what is outside). Transposed convolutions and gradients of inputs are the same with other
/// taps; the weights' gradient is in conv_weights-inl.hpp.
///
/// A tile holds as many sums as there are registers: rows x vectors of 6 x 4, 8 x 3, 12 x 2 or
/// 12 x 1 of AVX-512, so that 64 channels make one panel and nothing is wasted. Its cost is the
/// multiply-adds; a row's pointer costs one load a tap. (Weights of a panel come from L2 where they
/// pass L1; going through the depth in parts, several tiles at a time, was no faster.) Sources of
/// few channels come with their zeros around them, and runs of taps as one of more channels.
///
/// Numerics: an output is one chain of multiply-adds over taps and channels in order, from the
/// bias on: |error| <= K u sum |w x|, K products. It does not depend on its neighbours or place.

#if defined(QUERN_KERNELS_CONV_INL_HPP) == defined(HWY_TARGET_TOGGLE)
#ifdef QUERN_KERNELS_CONV_INL_HPP
#undef QUERN_KERNELS_CONV_INL_HPP
#else
#define QUERN_KERNELS_CONV_INL_HPP
#endif

#include "quern/core/config.hpp"
#include "quern/kernels/conv_types.hpp"
#include "quern/kernels/partial-inl.hpp"

#include "hwy/highway.h"

#include <cstddef>
#include <cstring>

HWY_BEFORE_NAMESPACE();
QUERN_NAMESPACE_BEGIN
namespace kernels {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

#if HWY_CAP_GE512 || HWY_ARCH_ARM
inline constexpr int kConvSums = 24;
inline constexpr int kConvVectors = 4;
#else
inline constexpr int kConvSums = 12;
inline constexpr int kConvVectors = 3;
#endif

/// Positions of a tile of so many vectors.
template <int kVecs>
inline constexpr int kConvRows = kConvSums / kVecs < 12 ? kConvSums / kVecs : 12;

template <class T>
ConvLayout conv_layout() {
  return {static_cast<std::ptrdiff_t>(hn::Lanes(hn::ScalableTag<T>())), kConvVectors, 12};
}

namespace detail {

// Sums are in arrays whose every index is a constant, see gemm-inl.hpp.

template <int kIndex, int kVecs, class D, class V, class T>
HWY_INLINE void load_vectors(D d, const T* HWY_RESTRICT from, V (&to)[kVecs]) {
  to[kIndex] = hn::LoadU(d, from + kIndex * static_cast<std::ptrdiff_t>(hn::Lanes(d)));
  if constexpr (kIndex + 1 < kVecs) load_vectors<kIndex + 1>(d, from, to);
}

template <int kRow, int kCol, int kVecs, int kSums, class V>
HWY_INLINE void add_row(V x, const V (&b)[kVecs], V (&sums)[kSums]) {
  sums[kRow * kVecs + kCol] = hn::MulAdd(x, b[kCol], sums[kRow * kVecs + kCol]);
  if constexpr (kCol + 1 < kVecs) add_row<kRow, kCol + 1>(x, b, sums);
}

/// Row r's element is rows[r][c].
template <int kRow, int kRows, int kVecs, int kSums, class D, class V, class T>
HWY_INLINE void add_pixels(D d, const T* const (&rows)[kRows], std::ptrdiff_t c,
                           const V (&b)[kVecs], V (&sums)[kSums]) {
  add_row<kRow, 0>(hn::Set(d, rows[kRow][c]), b, sums);
  if constexpr (kRow + 1 < kRows) add_pixels<kRow + 1>(d, rows, c, b, sums);
}

template <int kRow, int kRows, class T>
HWY_INLINE void load_pointers(const T* const* HWY_RESTRICT from, const T* (&rows)[kRows]) {
  rows[kRow] = from[kRow];
  if constexpr (kRow + 1 < kRows) load_pointers<kRow + 1>(from, rows);
}

template <int kIndex, int kVecs, int kSums, class D, class V, class T>
HWY_INLINE void start_sums(D d, const T* HWY_RESTRICT bias, V (&sums)[kSums]) {
  const std::ptrdiff_t at = (kIndex % kVecs) * static_cast<std::ptrdiff_t>(hn::Lanes(d));
  sums[kIndex] = bias == nullptr ? hn::Zero(d) : hn::LoadU(d, bias + at);
  if constexpr (kIndex + 1 < kSums) start_sums<kIndex + 1, kVecs>(d, bias, sums);
}

template <int kIndex, int kVecs, int kSums, class D, class V, class T>
HWY_INLINE void store_rows(D d, const V (&sums)[kSums], T* const* HWY_RESTRICT out) {
  hn::StoreU(sums[kIndex], d,
             out[kIndex / kVecs] + (kIndex % kVecs) * static_cast<std::ptrdiff_t>(hn::Lanes(d)));
  if constexpr (kIndex + 1 < kSums) store_rows<kIndex + 1, kVecs>(d, sums, out);
}

/// Sums of one tile: `pointers` has kRows a tap. Rows go to out[0..kRows-1], each kVecs vectors.
template <int kRows, int kVecs, class T>
HWY_NOINLINE void conv_tile(const T* const* HWY_RESTRICT pointers, std::ptrdiff_t taps,
                            std::ptrdiff_t channels, const T* HWY_RESTRICT weights, const T* bias,
                            T* const* HWY_RESTRICT out) {
  const hn::ScalableTag<T> d;
  using V = hn::Vec<hn::ScalableTag<T>>;
  const std::ptrdiff_t step = kVecs * static_cast<std::ptrdiff_t>(hn::Lanes(d));
  V sums[kRows * kVecs];
  start_sums<0, kVecs>(d, bias, sums);
  for (std::ptrdiff_t t = 0; t < taps; ++t, pointers += kRows) {
    const T* rows[kRows];
    load_pointers<0>(pointers, rows);
    for (std::ptrdiff_t c = 0; c < channels; ++c, weights += step) {
      V b[kVecs];
      load_vectors<0>(d, weights, b);
      add_pixels<0>(d, rows, c, b, sums);
    }
  }
  store_rows<0, kVecs>(d, sums, out);
}

/// A position of the grid.
struct ConvPlace {
  std::ptrdiff_t image;
  std::ptrdiff_t i;
  std::ptrdiff_t j;
};

/// Where source (h, w) of an image is; it is inside.
template <class T>
HWY_INLINE const T* pixel_at(const ConvSource<T>& s, std::ptrdiff_t image, std::ptrdiff_t h,
                             std::ptrdiff_t w) {
  return s.data + image * s.image_stride + (h - s.first_row) * s.row_stride + w * s.pixel_stride;
}

/// The next kRows positions and where their outputs go; `spare` for those past the end, whose place
/// is the last one again. Returns how many there are.
template <int kRows, class T>
HWY_INLINE int next_places(const ConvTask<T>& task, ConvPlace& at, std::ptrdiff_t offset, T* spare,
                           ConvPlace* places, T** out) {
  int count = 0;
  for (int r = 0; r < kRows; ++r) {
    places[r] = at;
    out[r] = spare;
    if (at.image == task.images) {
      places[r] = places[count - 1];
      continue;
    }
    out[r] = task.y + at.image * task.y_image_stride + (at.i - task.row_begin) * task.y_row_stride +
             at.j * task.y_pixel_stride + offset;
    ++count;
    if (++at.j < task.grid_width) continue;
    at.j = 0;
    if (++at.i < task.row_end) continue;
    at = {at.image + 1, task.row_begin, 0};
  }
  return count;
}

/// Where a task's taps are, told once: most positions have all of them inside.
struct TapPlan {
  static constexpr std::ptrdiff_t kMost = 64;  ///< taps; more are told one by one
  bool fits = false;
  std::ptrdiff_t top = 0, bottom = 0, left = 0, right = 0;  ///< of the taps
  std::ptrdiff_t offsets[kMost];
};

template <class T>
HWY_INLINE void plan_taps(const ConvSource<T>& s, TapPlan& plan) {
  plan.fits = s.tap_count > 0 && s.tap_count <= TapPlan::kMost;
  if (!plan.fits) return;
  plan.top = plan.bottom = s.taps[0].dh;
  plan.left = plan.right = s.taps[0].dw;
  for (std::ptrdiff_t t = 0; t < s.tap_count; ++t) {
    const ConvTap& tap = s.taps[t];
    if (tap.dh < plan.top) plan.top = tap.dh;
    if (tap.dh > plan.bottom) plan.bottom = tap.dh;
    if (tap.dw < plan.left) plan.left = tap.dw;
    if (tap.dw > plan.right) plan.right = tap.dw;
    plan.offsets[t] = tap.dh * s.row_stride + tap.dw * s.pixel_stride;
  }
}

/// Pointers to the places' pixels, zeros outside.
template <int kRows, class T>
HWY_INLINE void gather_pointers(const ConvTask<T>& task, const TapPlan& plan,
                                const ConvPlace* places) {
  const ConvSource<T>& s = task.source;
  for (int r = 0; r < kRows; ++r) {
    const std::ptrdiff_t top = places[r].i * s.step_h, left = places[r].j * s.step_w;
    if (plan.fits && top + plan.top >= 0 && top + plan.bottom < s.height && left + plan.left >= 0 &&
        left + plan.right < s.width) {
      const std::ptrdiff_t at = places[r].image * s.image_stride +
                                (top - s.first_row) * s.row_stride + left * s.pixel_stride;
      for (std::ptrdiff_t t = 0; t < s.tap_count; ++t) {
        task.pointers[t * kRows + r] = s.data + (at + plan.offsets[t]);
      }
      continue;
    }
    for (std::ptrdiff_t t = 0; t < s.tap_count; ++t) {
      const std::ptrdiff_t h = top + s.taps[t].dh, w = left + s.taps[t].dw;
      const bool inside = h >= 0 && h < s.height && w >= 0 && w < s.width;
      task.pointers[t * kRows + r] = inside ? pixel_at(s, places[r].image, h, w) : task.zeros;
    }
  }
}

template <class T>
HWY_INLINE void copy_run(const T* from, std::ptrdiff_t n, T* HWY_RESTRICT to) {
  const hn::CappedTag<T, 4> d;
  const std::ptrdiff_t lanes = static_cast<std::ptrdiff_t>(hn::Lanes(d));
  std::ptrdiff_t k = 0;
  for (; k + lanes <= n; k += lanes) hn::StoreU(hn::LoadU(d, from + k), d, to + k);
  for (; k < n; ++k) to[k] = from[k];
}

/// The pixels of a place's taps side by side.
template <class T>
HWY_INLINE void copy_patch(const ConvSource<T>& s, const ConvPlace& place, T* HWY_RESTRICT to) {
  const std::ptrdiff_t top = place.i * s.step_h, left = place.j * s.step_w;
  const std::ptrdiff_t whole = s.run * s.channels;
  for (std::ptrdiff_t t = 0; t < s.tap_count; t += s.run, to += whole) {
    const std::ptrdiff_t h = top + s.taps[t].dh, w = left + s.taps[t].dw;
    const bool row_inside = h >= 0 && h < s.height;
    if (row_inside && w >= 0 && w + s.run <= s.width) {
      copy_run(pixel_at(s, place.image, h, w), whole, to);
      continue;
    }
    for (std::ptrdiff_t k = 0; k < s.run; ++k) {
      const bool inside = row_inside && w + k >= 0 && w + k < s.width;
      for (std::ptrdiff_t c = 0; c < s.channels; ++c) {
        to[k * s.channels + c] = inside ? pixel_at(s, place.image, h, w + k)[c] : T{0};
      }
    }
  }
}

/// All positions for the panel of channels [first, first + kVecs lanes).
template <int kVecs, class T>
HWY_INLINE void conv_panel(const ConvTask<T>& task, std::ptrdiff_t first, const T* weights) {
  constexpr int kRows = kConvRows<kVecs>;
  constexpr std::size_t kWidth =
      static_cast<std::size_t>(kVecs) * hn::MaxLanes(hn::ScalableTag<T>());
  const std::ptrdiff_t width = kVecs * static_cast<std::ptrdiff_t>(hn::Lanes(hn::ScalableTag<T>()));
  const std::ptrdiff_t left = task.outputs - first;
  const bool whole = left >= width;
  HWY_ALIGN T buffer[static_cast<std::size_t>(kRows) * kWidth];
  HWY_ALIGN T bias[kWidth] = {};
  if (task.bias != nullptr) {
    for (std::ptrdiff_t k = 0; k < (whole ? width : left); ++k) bias[k] = task.bias[first + k];
  }
  if (task.row_end <= task.row_begin || task.grid_width <= 0) return;
  const ConvSource<T>& s = task.source;
  TapPlan plan;
  plan_taps(s, plan);
  ConvPlace at{0, task.row_begin, 0};
  while (at.image < task.images) {
    T* out[kRows];
    ConvPlace places[kRows];
    const int count = next_places<kRows>(task, at, first, buffer, places, out);
    gather_pointers<kRows>(task, plan, places);
    if (whole) {
      conv_tile<kRows, kVecs>(task.pointers, s.tap_count, s.channels, weights, bias, out);
      continue;
    }
    T* rows[kRows];
    for (int r = 0; r < kRows; ++r) rows[r] = buffer + r * width;
    conv_tile<kRows, kVecs>(task.pointers, s.tap_count, s.channels, weights, bias, rows);
    for (int r = 0; r < count; ++r) {
      for (std::ptrdiff_t k = 0; k < left; ++k) out[r][k] = rows[r][k];
    }
  }
}

/// Vectors of the panel that begins with `left` vectors to go: panels as equal as can be.
HWY_INLINE std::ptrdiff_t panel_vectors(std::ptrdiff_t left) {
  const std::ptrdiff_t panels = (left + kConvVectors - 1) / kConvVectors;
  return (left + panels - 1) / panels;
}

/// Taps that are gathered at a time: their weights lie side by side in a plane, and each goes to a
/// stream of its own.
inline constexpr std::ptrdiff_t kPackTaps = 16;

/// Weights of one panel, `there` outputs of `width`. A channel's weights are gathered in a place of
/// their own first: the streams are a power of two apart, so that writing them in turn would meet
/// in the same few lines of L1.
template <class T>
HWY_INLINE void pack_conv_panel(const T* w, std::ptrdiff_t channel_stride,
                                std::ptrdiff_t output_stride, const ConvTap* taps,
                                std::ptrdiff_t tap_count, std::ptrdiff_t channels,
                                std::ptrdiff_t there, std::ptrdiff_t width, T* HWY_RESTRICT out) {
  constexpr std::ptrdiff_t kWidth =
      kConvVectors * static_cast<std::ptrdiff_t>(hn::MaxLanes(hn::ScalableTag<T>()));
  HWY_ALIGN T gathered[static_cast<std::size_t>(kPackTaps * kWidth)] = {};
  for (std::ptrdiff_t begin = 0; begin < tap_count; begin += kPackTaps) {
    const std::ptrdiff_t count = tap_count - begin < kPackTaps ? tap_count - begin : kPackTaps;
    for (std::ptrdiff_t c = 0; c < channels; ++c) {
      const T* from = w + c * channel_stride;
      for (std::ptrdiff_t o = 0; o < there; ++o, from += output_stride) {
        T* to = gathered + o;
        for (std::ptrdiff_t t = 0; t < count; ++t, to += kWidth) *to = from[taps[begin + t].weight];
      }
      for (std::ptrdiff_t t = 0; t < count; ++t) {
        std::memcpy(out + ((begin + t) * channels + c) * width, gathered + t * kWidth,
                    static_cast<std::size_t>(width) * sizeof(T));
      }
    }
  }
}

}  // namespace detail

/// Elements of packed weights for `outputs` channels from `depth` products each.
template <class T>
std::ptrdiff_t conv_packed_size(std::ptrdiff_t outputs, std::ptrdiff_t depth) {
  const std::ptrdiff_t lanes = static_cast<std::ptrdiff_t>(hn::Lanes(hn::ScalableTag<T>()));
  return (outputs + lanes - 1) / lanes * lanes * depth;
}

/// Weights in the order that conv_wide reads: panel by panel, taps, channels, then the panel's
/// outputs side by side. Weight of (tap, channel, output) is at w[tap.weight + channel
/// channel_stride + output output_stride].
template <class T>
void conv_pack_weights(const T* w, std::ptrdiff_t channel_stride, std::ptrdiff_t output_stride,
                       const ConvTap* taps, std::ptrdiff_t tap_count, std::ptrdiff_t channels,
                       std::ptrdiff_t outputs, T* HWY_RESTRICT out) {
  const std::ptrdiff_t lanes = static_cast<std::ptrdiff_t>(hn::Lanes(hn::ScalableTag<T>()));
  std::ptrdiff_t vectors = (outputs + lanes - 1) / lanes;
  for (std::ptrdiff_t first = 0; vectors > 0;) {
    const std::ptrdiff_t panel = detail::panel_vectors(vectors), width = panel * lanes;
    const std::ptrdiff_t there = outputs - first < width ? outputs - first : width;
    const std::ptrdiff_t tap_step = channels * width;
    detail::pack_conv_panel(w + first * output_stride, channel_stride, output_stride, taps,
                            tap_count, channels, there, width, out);
    out += tap_count * tap_step;
    first += width;
    vectors -= panel;
  }
}

/// The convolution of a task, for any number of outputs.
template <class T>
void conv_wide(const ConvTask<T>& task) {
  const std::ptrdiff_t lanes = static_cast<std::ptrdiff_t>(hn::Lanes(hn::ScalableTag<T>()));
  const std::ptrdiff_t depth = task.source.tap_count * task.source.channels;
  std::ptrdiff_t vectors = (task.outputs + lanes - 1) / lanes;
  const T* weights = task.weights;
  for (std::ptrdiff_t first = 0; vectors > 0;) {
    const std::ptrdiff_t panel = detail::panel_vectors(vectors);
    if (panel == 1) detail::conv_panel<1>(task, first, weights);
    if (panel == 2) detail::conv_panel<2>(task, first, weights);
    if (panel == 3) detail::conv_panel<3>(task, first, weights);
    if constexpr (kConvVectors > 3) {
      if (panel == 4) detail::conv_panel<4>(task, first, weights);
    }
    weights += depth * panel * lanes;
    first += panel * lanes;
    vectors -= panel;
  }
}

namespace detail {

/// Four positions' dot products with one output's weights.
template <class T>
HWY_INLINE void narrow_dots(const T* const* HWY_RESTRICT pointers, std::ptrdiff_t taps,
                            std::ptrdiff_t channels, const T* HWY_RESTRICT w, T (&sums)[4]) {
  const hn::ScalableTag<T> d;
  const std::ptrdiff_t lanes = static_cast<std::ptrdiff_t>(hn::Lanes(d));
  auto s0 = hn::Zero(d), s1 = hn::Zero(d), s2 = hn::Zero(d), s3 = hn::Zero(d);
  for (std::ptrdiff_t t = 0; t < taps; ++t, pointers += 4, w += channels) {
    std::ptrdiff_t c = 0;
    for (; c + lanes <= channels; c += lanes) {
      const auto b = hn::LoadU(d, w + c);
      s0 = hn::MulAdd(hn::LoadU(d, pointers[0] + c), b, s0);
      s1 = hn::MulAdd(hn::LoadU(d, pointers[1] + c), b, s1);
      s2 = hn::MulAdd(hn::LoadU(d, pointers[2] + c), b, s2);
      s3 = hn::MulAdd(hn::LoadU(d, pointers[3] + c), b, s3);
    }
    if (c < channels) {
      const auto n = static_cast<std::size_t>(channels - c);
      const auto b = load_partial(d, w + c, n);
      s0 = hn::MulAdd(load_partial(d, pointers[0] + c, n), b, s0);
      s1 = hn::MulAdd(load_partial(d, pointers[1] + c, n), b, s1);
      s2 = hn::MulAdd(load_partial(d, pointers[2] + c, n), b, s2);
      s3 = hn::MulAdd(load_partial(d, pointers[3] + c, n), b, s3);
    }
  }
  sums[0] = hn::GetLane(hn::SumOfLanes(d, s0));
  sums[1] = hn::GetLane(hn::SumOfLanes(d, s1));
  sums[2] = hn::GetLane(hn::SumOfLanes(d, s2));
  sums[3] = hn::GetLane(hn::SumOfLanes(d, s3));
}

}  // namespace detail

/// The same for few outputs of many channels: vectors run along the channels. Weights are
/// [output][tap][channel].
template <class T>
void conv_narrow(const ConvTask<T>& task) {
  const ConvSource<T>& s = task.source;
  const std::ptrdiff_t depth = s.tap_count * s.channels;
  T spare = T{0};
  if (task.row_end <= task.row_begin || task.grid_width <= 0) return;
  detail::TapPlan plan;
  detail::plan_taps(s, plan);
  detail::ConvPlace at{0, task.row_begin, 0};
  while (at.image < task.images) {
    T* out[4];
    detail::ConvPlace places[4];
    const int count = detail::next_places<4>(task, at, 0, &spare, places, out);
    detail::gather_pointers<4>(task, plan, places);
    for (std::ptrdiff_t o = 0; o < task.outputs; ++o) {
      T sums[4];
      detail::narrow_dots(task.pointers, s.tap_count, s.channels, task.weights + o * depth, sums);
      const T bias = task.bias != nullptr ? task.bias[o] : T{0};
      for (int r = 0; r < count; ++r) out[r][o] = sums[r] + bias;
    }
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace kernels
QUERN_NAMESPACE_END
HWY_AFTER_NAMESPACE();

#endif  // QUERN_KERNELS_CONV_INL_HPP
