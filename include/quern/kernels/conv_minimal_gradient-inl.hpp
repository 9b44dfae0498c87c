// SPDX-License-Identifier: Apache-2.0

/// \file
/// Gradients of a convolution's weights by minimal filtering: taps x taps sums over positions are a
/// convolution too, whose kernel is a tile of the output's gradient. Pixels are transformed as
/// in conv_minimal-inl.hpp, and the same points serve tiles of any size, so that all tiles are
/// summed at the points, and taps are made of the sums at the end.
///
/// Numerics: as conv_minimal-inl.hpp, K products a point (one a tile, blocks of tiles added in
/// order).

#if defined(QUERN_KERNELS_CONV_MINIMAL_GRADIENT_INL_HPP) == defined(HWY_TARGET_TOGGLE)
#ifdef QUERN_KERNELS_CONV_MINIMAL_GRADIENT_INL_HPP
#undef QUERN_KERNELS_CONV_MINIMAL_GRADIENT_INL_HPP
#else
#define QUERN_KERNELS_CONV_MINIMAL_GRADIENT_INL_HPP
#endif

#include "quern/core/config.hpp"
#include "quern/kernels/conv_minimal-inl.hpp"
#include "quern/kernels/conv_minimal_types.hpp"
#include "quern/kernels/conv_types.hpp"
#include "quern/kernels/conv_weights-inl.hpp"

#include "hwy/highway.h"

#include <cstddef>

HWY_BEFORE_NAMESPACE();
QUERN_NAMESPACE_BEGIN
namespace kernels {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

namespace detail {

/// A tile's `count` (1 to 3) gradients along an axis at the points.
template <class D, class V>
HWY_INLINE Four<V> gradients_at_points(D d, int count, const Four<V>& g) {
  const V half = hn::Set(d, hn::TFromD<D>(0.5));
  if (count == 3) return taps_at_points<3>(d, g);
  if (count == 2) return taps_at_points<2>(d, g);
  return {g.a, hn::Mul(half, g.a), g.a, g.a};
}

/// One vector of a tile of gradients: dy + c, and to[k] + c for the points there are.
template <int kTaps, bool kWhole, class D, class T>
HWY_INLINE void transform_gradients(D d, const MinimalTile& tile, const ConvTask<T>& task,
                                    const T* dy, std::ptrdiff_t c, std::size_t n, T* const* to) {
  using V = hn::Vec<D>;
  const int ph = tile.points_h, pw = tile.points_w;
  const int rows = ph - kTaps + 1, cols = pw - kTaps + 1;
  const auto column = [&](int v) {
    const T* const from = dy + (v < cols ? v : 0) * task.y_pixel_stride + c;
    const V a = load_lanes<kWhole>(d, from, n);
    const V b = rows > 1 ? load_lanes<kWhole>(d, from + task.y_row_stride, n) : a;
    const V e = rows > 2 ? load_lanes<kWhole>(d, from + 2 * task.y_row_stride, n) : a;
    return gradients_at_points(d, rows, Four<V>{a, b, e, a});
  };
  const Four<V> c0 = column(0), c1 = column(1), c2 = column(2);
  const auto row = [&](const V& a, const V& b, const V& e, T* const* out) {
    const Four<V> r = gradients_at_points(d, cols, Four<V>{a, b, e, a});
    hn::StoreU(r.a, d, out[0] + c);
    if (pw > 2) hn::StoreU(r.b, d, out[1] + c);
    if (pw > 3) hn::StoreU(r.c, d, out[2] + c);
    hn::StoreU(r.d, d, out[3] + c);
  };
  row(c0.a, c1.a, c2.a, to);
  if (ph > 2) row(c0.b, c1.b, c2.b, to + 4);
  if (ph > 3) row(c0.c, c1.c, c2.c, to + 8);
  row(c0.d, c1.d, c2.d, to + 12);
}

template <int kTaps, class T>
HWY_NOINLINE void transform_gradient_tile(const MinimalTile& tile, const ConvTask<T>& task,
                                          const T* dy, T* const* to) {
  const hn::ScalableTag<T> d;
  const std::ptrdiff_t lanes = static_cast<std::ptrdiff_t>(hn::Lanes(d));
  std::ptrdiff_t c = 0;
  if (tile.points_h == 4 && tile.points_w == 4) {
    const MinimalTile whole{0, 0, 0, 4, 4};
    for (; c + lanes <= task.outputs; c += lanes) {
      transform_gradients<kTaps, true>(d, whole, task, dy, c, 0, to);
    }
  } else {
    for (; c + lanes <= task.outputs; c += lanes) {
      transform_gradients<kTaps, true>(d, tile, task, dy, c, 0, to);
    }
  }
  if (c < task.outputs) {
    transform_gradients<kTaps, false>(d, tile, task, dy, c,
                                      static_cast<std::size_t>(task.outputs - c), to);
  }
}

/// Adds a block's products at the points.
template <class T>
HWY_INLINE void add_points(const ConvMinimalGradient<T>& task, const MinimalPlaces& places,
                           std::ptrdiff_t depth, std::ptrdiff_t width) {
  const std::ptrdiff_t lanes = static_cast<std::ptrdiff_t>(hn::Lanes(hn::ScalableTag<T>()));
  ConvWeightsTask<T> product;
  product.row_end = 1;
  product.singles = depth;
  product.out_stride = width;
  for (int k = 0; k < kMinimalPoints; ++k) {
    const ConvRun<T> run{task.source_panels + k * panel_stride<T>(task.tiles, depth),
                         task.gradient_panels + k * panel_stride<T>(task.tiles, width),
                         places.count[k]};
    T* const out = task.sums + k * depth * width;
    std::ptrdiff_t left = width / lanes;
    for (std::ptrdiff_t at = 0; left > 0;) {
      const std::ptrdiff_t panel = panel_vectors(left);
      if (panel == 1) weights_panel<1>(product, &run, depth, width, at, out);
      if (panel == 2) weights_panel<2>(product, &run, depth, width, at, out);
      if (panel == 3) weights_panel<3>(product, &run, depth, width, at, out);
      if constexpr (kConvVectors > 3) {
        if (panel == 4) weights_panel<4>(product, &run, depth, width, at, out);
      }
      at += panel * lanes;
      left -= panel;
    }
  }
}

template <int kTaps, class T>
HWY_INLINE void minimal_gradient(const ConvMinimalGradient<T>& task) {
  const ConvTask<T>& conv = task.conv;
  if (conv.row_end <= conv.row_begin || conv.grid_width <= 0 || conv.images <= 0) return;
  const std::ptrdiff_t parts = conv.source.tap_count, channels = conv.source.channels;
  const std::ptrdiff_t depth = parts * channels, width = whole_lanes<T>(conv.outputs);
  const std::ptrdiff_t in_stride = panel_stride<T>(task.tiles, depth);
  const std::ptrdiff_t dy_stride = panel_stride<T>(task.tiles, width);
  MinimalTile tile = first_tile<kTaps>(conv);
  for (bool more = true; more;) {
    MinimalPlaces in;
    std::ptrdiff_t places[kMinimalPoints], count = 0;
    for (; more && count < task.tiles; ++count, more = next_tile<kTaps>(conv, tile)) {
      in.take(tile, places);
      transform_parts(conv, tile, places, task.source_panels, in_stride);
      T* to[kMinimalPoints];
      for (int k = 0; k < kMinimalPoints; ++k) {
        to[k] = task.gradient_panels + k * dy_stride + places[k] * width;
      }
      transform_gradient_tile<kTaps>(tile, conv, task.dy + output_offset(conv, tile), to);
    }
    add_points(task, in, depth, width);
  }
}

/// Taps of one channel from its sums at the points.
template <int kTaps, class T>
HWY_INLINE void taps_of_sums(const T* HWY_RESTRICT sums, std::ptrdiff_t point_stride,
                             std::ptrdiff_t width, std::ptrdiff_t tap_stride, T* HWY_RESTRICT out) {
  const hn::ScalableTag<T> d;
  using V = hn::Vec<hn::ScalableTag<T>>;
  const std::ptrdiff_t lanes = static_cast<std::ptrdiff_t>(hn::Lanes(d));
  for (std::ptrdiff_t k = 0; k < width; k += lanes) {
    const auto column = [&](int v) {
      const T* const from = sums + v * point_stride + k;
      return outputs_of_points<5 - kTaps>(
          4,
          Four<V>{hn::LoadU(d, from), hn::LoadU(d, from + 4 * point_stride),
                  hn::LoadU(d, from + 8 * point_stride), hn::LoadU(d, from + 12 * point_stride)});
    };
    const Four<V> c0 = column(0), c1 = column(1), c2 = column(2), c3 = column(3);
    const auto row = [&](const V& a, const V& b, const V& e, const V& f, T* to) {
      const Four<V> r = outputs_of_points<5 - kTaps>(4, Four<V>{a, b, e, f});
      hn::StoreU(r.a, d, to + k);
      hn::StoreU(r.b, d, to + tap_stride + k);
      if constexpr (kTaps == 3) hn::StoreU(r.c, d, to + 2 * tap_stride + k);
    };
    row(c0.a, c1.a, c2.a, c3.a, out);
    row(c0.b, c1.b, c2.b, c3.b, out + kTaps * tap_stride);
    if constexpr (kTaps == 3) row(c0.c, c1.c, c2.c, c3.c, out + 2 * kTaps * tap_stride);
  }
}

}  // namespace detail

/// Adds a task's part of the gradient at the points to `sums`.
template <class T>
void conv_minimal_gradient(const ConvMinimalGradient<T>& task) {
  if (task.taps == 3) {
    detail::minimal_gradient<3>(task);
  } else {
    detail::minimal_gradient<2>(task);
  }
}

/// out[part][tap][channel][output], of one part's one channel: \p sums and \p out are this
/// channel's, and whole vectors of outputs are written. \p point_stride and \p tap_stride lead to
/// the next point's sums and the next tap.
template <class T>
void conv_minimal_taps(const T* HWY_RESTRICT sums, std::ptrdiff_t taps, std::ptrdiff_t outputs,
                       std::ptrdiff_t point_stride, std::ptrdiff_t tap_stride,
                       T* HWY_RESTRICT out) {
  const std::ptrdiff_t width = detail::whole_lanes<T>(outputs);
  if (taps == 3) {
    detail::taps_of_sums<3>(sums, point_stride, width, tap_stride, out);
  } else {
    detail::taps_of_sums<2>(sums, point_stride, width, tap_stride, out);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace kernels
QUERN_NAMESPACE_END
HWY_AFTER_NAMESPACE();

#endif  // QUERN_KERNELS_CONV_MINIMAL_GRADIENT_INL_HPP
