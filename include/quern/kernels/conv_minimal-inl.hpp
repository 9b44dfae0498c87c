// SPDX-License-Identifier: Apache-2.0

/// \file
/// Convolutions of 3 x 3 or 2 x 2 taps with fewer multiplications: minimal filtering (Winograd;
/// Lavin and Gray, "Fast algorithms for convolutional neural networks", arXiv:1509.09308).
///
/// Along an axis, taps of 3 make 2 outputs from 4 pixels by 4 products, not 6; taps of 2 make 3 by
/// 4, not 6. Both take the pixels' polynomial at 0, 1, -1 and infinity, so one transform of pixels
/// serves both:
///
///     d0 - d2, d1 + d2, d2 - d1, d3 - d1
///
/// Outputs left over at the end of a row take fewer points of the same, with the same weights: of
/// three pixels d0 - d1, 2 d1, d2 - d1 (without -1), of two d0, d1 (0 and infinity). In two
/// dimensions a tile of 4 x 4 pixels has 16 points, and each point is a product of its own: tiles x
/// channels by channels x outputs, run by conv_wide as a convolution of 1 x 1. A stride of s is
/// s x s parts, each a grid of taps over every s-th pixel, whose channels are side by side.
///
/// Cost: 16 products where 36 were, and the transforms: about 32 additions and 16 stores a vector
/// of channels and tile.
///
/// Numerics: transforms have 0, +-1, +-1/2 and 2 for factors; |error| <= (K + 12) u S with K =
/// parts * channels and S <= 16 sum of max |x| |w| over the tile's pixels and the taps: in practice
/// two to three times a direct sum's. A pixel that is not finite makes its whole tile so.

#if defined(QUERN_KERNELS_CONV_MINIMAL_INL_HPP) == defined(HWY_TARGET_TOGGLE)
#ifdef QUERN_KERNELS_CONV_MINIMAL_INL_HPP
#undef QUERN_KERNELS_CONV_MINIMAL_INL_HPP
#else
#define QUERN_KERNELS_CONV_MINIMAL_INL_HPP
#endif

#include "quern/core/config.hpp"
#include "quern/kernels/conv-inl.hpp"
#include "quern/kernels/conv_minimal_types.hpp"
#include "quern/kernels/conv_types.hpp"
#include "quern/kernels/partial-inl.hpp"

#include "hwy/highway.h"

#include <cstddef>

HWY_BEFORE_NAMESPACE();
QUERN_NAMESPACE_BEGIN
namespace kernels {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

namespace detail {

/// Four vectors along an axis.
template <class V>
struct Four {
  V a, b, c, d;
};

/// Pixels at the points: of `points` pixels the first ones count.
template <class V>
HWY_INLINE Four<V> pixels_at_points(int points, const Four<V>& x) {
  if (points == 4)
    return {hn::Sub(x.a, x.c), hn::Add(x.b, x.c), hn::Sub(x.c, x.b), hn::Sub(x.d, x.b)};
  if (points == 3) return {hn::Sub(x.a, x.b), hn::Add(x.b, x.b), x.b, hn::Sub(x.c, x.b)};
  return {x.a, x.b, x.b, x.b};
}

/// Outputs of products at the points, for kTaps taps: points - kTaps + 1 of them count.
template <int kTaps, class V>
HWY_INLINE Four<V> outputs_of_points(int points, const Four<V>& m) {
  if constexpr (kTaps == 3) {
    if (points == 4) {
      return {hn::Add(hn::Add(m.a, m.b), m.c), hn::Add(hn::Sub(m.b, m.c), m.d), m.a, m.a};
    }
    return {hn::Add(hn::Add(m.a, m.b), m.d), m.a, m.a, m.a};
  } else {
    if (points == 4) {
      const V sum = hn::Add(m.b, m.c);
      return {hn::Add(m.a, sum), hn::Sub(m.b, m.c), hn::Add(sum, m.d), m.a};
    }
    if (points == 3) return {hn::Add(m.a, m.b), hn::Add(m.b, m.d), m.a, m.a};
    return {hn::Add(m.a, m.d), m.a, m.a, m.a};
  }
}

/// Weights at the points; of two taps the first and second count.
template <int kTaps, class D, class V>
HWY_INLINE Four<V> taps_at_points(D d, const Four<V>& g) {
  const V half = hn::Set(d, hn::TFromD<D>(0.5));
  const V ends = kTaps == 3 ? hn::Add(g.a, g.c) : g.a;
  return {g.a, hn::Mul(half, hn::Add(ends, g.b)), hn::Mul(half, hn::Sub(ends, g.b)),
          kTaps == 3 ? g.c : g.b};
}

/// One tile.
struct MinimalTile {
  std::ptrdiff_t image, i, j;  ///< first output
  int points_h, points_w;
};

/// Outputs that a tile makes along an axis, of `left`: as points.
template <int kTaps>
HWY_INLINE int axis_points(std::ptrdiff_t left) {
  constexpr std::ptrdiff_t most = 5 - kTaps;
  return static_cast<int>((left < most ? left : most) + kTaps - 1);
}

template <int kTaps, class T>
HWY_INLINE bool next_tile(const ConvTask<T>& task, MinimalTile& tile) {
  tile.j += tile.points_w - kTaps + 1;
  if (tile.j >= task.grid_width) {
    tile.j = 0;
    tile.i += tile.points_h - kTaps + 1;
    if (tile.i >= task.row_end) {
      tile.i = task.row_begin;
      if (++tile.image == task.images) return false;
    }
    tile.points_h = axis_points<kTaps>(task.row_end - tile.i);
  }
  tile.points_w = axis_points<kTaps>(task.grid_width - tile.j);
  return true;
}

/// How many tiles each point has so far.
struct MinimalPlaces {
  std::ptrdiff_t count[kMinimalPoints] = {};
  /// Places of the tile's points, and on to the next tile.
  HWY_INLINE void take(const MinimalTile& tile, std::ptrdiff_t* places) {
    std::ptrdiff_t one[4] = {1, tile.points_w > 2 ? 1 : 0, tile.points_w > 3 ? 1 : 0, 1};
    for (int a = 0; a < 4; ++a) {
      const bool row = a == 0 || a == 3 || tile.points_h > 1 + a;
      for (int b = 0; b < 4; ++b) {
        places[4 * a + b] = count[4 * a + b];
        count[4 * a + b] += row ? one[b] : 0;
      }
    }
  }
};

/// A tile's 16 pixels, zeros outside (and where the tile has none).
template <class T>
HWY_INLINE void tile_pixels(const ConvTask<T>& task, const MinimalTile& tile, const ConvTap& first,
                            const T** pixels) {
  const ConvSource<T>& s = task.source;
  const std::ptrdiff_t top = tile.i * s.step_h + first.dh, left = tile.j * s.step_w + first.dw;
  const T* const image = s.data + tile.image * s.image_stride;
  const std::ptrdiff_t step = s.step_w * s.pixel_stride, down = s.step_h * s.row_stride;
  bool columns[4];
  std::ptrdiff_t w = left, h = top;
  for (int b = 0; b < 4; ++b, w += s.step_w) {
    columns[b] = w >= 0 && w < s.width && b < tile.points_w;
  }
  std::ptrdiff_t row = (top - s.first_row) * s.row_stride + left * s.pixel_stride;
  for (int a = 0; a < 4; ++a, h += s.step_h, row += down) {
    const bool inside = h >= 0 && h < s.height && a < tile.points_h;
    std::ptrdiff_t at = row;
    for (int b = 0; b < 4; ++b, at += step) {
      pixels[4 * a + b] = inside && columns[b] ? image + at : task.zeros;
    }
  }
}

/// Loads and stores of whole vectors, or of the first n lanes.
template <bool kWhole, class D, class T>
HWY_INLINE hn::Vec<D> load_lanes(D d, const T* from, std::size_t n) {
  if constexpr (kWhole) return hn::LoadU(d, from);
  return load_partial(d, from, n);
}
template <bool kWhole, class D, class V, class T>
HWY_INLINE void store_lanes(V v, D d, T* to, std::size_t n) {
  if constexpr (kWhole) {
    hn::StoreU(v, d, to);
  } else {
    store_partial(v, d, to, n);
  }
}

template <bool kWhole, class D, class T>
HWY_INLINE Four<hn::Vec<D>> load_four(D d, const T* const* from, std::ptrdiff_t step,
                                      std::ptrdiff_t c, std::size_t n) {
  return {load_lanes<kWhole>(d, from[0] + c, n), load_lanes<kWhole>(d, from[step] + c, n),
          load_lanes<kWhole>(d, from[2 * step] + c, n),
          load_lanes<kWhole>(d, from[3 * step] + c, n)};
}

/// Transforms one vector of 4 x 4, columns first: from[k] + c to to[k] + at for the points there.
/// Whole vectors are written, whatever n is.
template <bool kWhole, class D, class T>
HWY_INLINE void transform_pixels(D d, const MinimalTile& tile, const T* const* from,
                                 std::ptrdiff_t c, std::size_t n, T* const* to, std::ptrdiff_t at) {
  using V = hn::Vec<D>;
  const int ph = tile.points_h, pw = tile.points_w;
  const Four<V> c0 = pixels_at_points(ph, load_four<kWhole>(d, from, 4, c, n));
  const Four<V> c1 = pixels_at_points(ph, load_four<kWhole>(d, from + 1, 4, c, n));
  const Four<V> c2 = pixels_at_points(ph, load_four<kWhole>(d, from + 2, 4, c, n));
  const Four<V> c3 = pixels_at_points(ph, load_four<kWhole>(d, from + 3, 4, c, n));
  const auto row = [&](const V& a, const V& b, const V& e, const V& f, T* const* out) {
    const Four<V> r = pixels_at_points(pw, Four<V>{a, b, e, f});
    hn::StoreU(r.a, d, out[0] + at);
    if (pw > 2) hn::StoreU(r.b, d, out[1] + at);
    if (pw > 3) hn::StoreU(r.c, d, out[2] + at);
    hn::StoreU(r.d, d, out[3] + at);
  };
  row(c0.a, c1.a, c2.a, c3.a, to);
  if (ph > 2) row(c0.b, c1.b, c2.b, c3.b, to + 4);
  if (ph > 3) row(c0.c, c1.c, c2.c, c3.c, to + 8);
  row(c0.d, c1.d, c2.d, c3.d, to + 12);
}

/// One part of a tile, to to[k] + at.
template <class T>
HWY_NOINLINE void transform_part(const MinimalTile& tile, const T* const* from,
                                 std::ptrdiff_t channels, T* const* to, std::ptrdiff_t at) {
  const hn::ScalableTag<T> d;
  const std::ptrdiff_t lanes = static_cast<std::ptrdiff_t>(hn::Lanes(d));
  std::ptrdiff_t c = 0;
  if (tile.points_h == 4 && tile.points_w == 4) {
    const MinimalTile whole{0, 0, 0, 4, 4};
    for (; c + lanes <= channels; c += lanes)
      transform_pixels<true>(d, whole, from, c, 0, to, at + c);
  } else {
    for (; c + lanes <= channels; c += lanes)
      transform_pixels<true>(d, tile, from, c, 0, to, at + c);
  }
  if (c < channels) {
    transform_pixels<false>(d, tile, from, c, static_cast<std::size_t>(channels - c), to, at + c);
  }
}

/// One vector of a tile's outputs from its products at from[k] + c, to y.
template <int kTaps, bool kWhole, class D, class T>
HWY_INLINE void transform_products(D d, const MinimalTile& tile, const ConvTask<T>& task,
                                   const T* const* from, std::ptrdiff_t c, std::size_t n, T* y) {
  using V = hn::Vec<D>;
  const int ph = tile.points_h, pw = tile.points_w;
  const Four<V> c0 = outputs_of_points<kTaps>(ph, load_four<true>(d, from, 4, c, 0));
  const Four<V> c1 = outputs_of_points<kTaps>(ph, load_four<true>(d, from + 1, 4, c, 0));
  const Four<V> c2 = outputs_of_points<kTaps>(ph, load_four<true>(d, from + 2, 4, c, 0));
  const Four<V> c3 = outputs_of_points<kTaps>(ph, load_four<true>(d, from + 3, 4, c, 0));
  const V bias = task.bias == nullptr ? hn::Zero(d) : load_lanes<kWhole>(d, task.bias + c, n);
  const std::ptrdiff_t step = task.y_pixel_stride;
  const auto row = [&](const V& a, const V& b, const V& e, const V& f, T* out) {
    const Four<V> r = outputs_of_points<kTaps>(pw, Four<V>{a, b, e, f});
    store_lanes<kWhole>(hn::Add(r.a, bias), d, out + c, n);
    if (pw > kTaps) store_lanes<kWhole>(hn::Add(r.b, bias), d, out + step + c, n);
    if (pw > kTaps + 1) store_lanes<kWhole>(hn::Add(r.c, bias), d, out + 2 * step + c, n);
  };
  row(c0.a, c1.a, c2.a, c3.a, y);
  if (ph > kTaps) row(c0.b, c1.b, c2.b, c3.b, y + task.y_row_stride);
  if (ph > kTaps + 1) row(c0.c, c1.c, c2.c, c3.c, y + 2 * task.y_row_stride);
}

template <int kTaps, class T>
HWY_NOINLINE void transform_outputs(const MinimalTile& tile, const ConvTask<T>& task,
                                    const T* const* from, T* y) {
  const hn::ScalableTag<T> d;
  const std::ptrdiff_t lanes = static_cast<std::ptrdiff_t>(hn::Lanes(d));
  std::ptrdiff_t c = 0;
  if (tile.points_h == 4 && tile.points_w == 4) {
    const MinimalTile whole{0, 0, 0, 4, 4};
    for (; c + lanes <= task.outputs; c += lanes) {
      transform_products<kTaps, true>(d, whole, task, from, c, 0, y);
    }
  } else {
    for (; c + lanes <= task.outputs; c += lanes) {
      transform_products<kTaps, true>(d, tile, task, from, c, 0, y);
    }
  }
  if (c < task.outputs) {
    transform_products<kTaps, false>(d, tile, task, from, c,
                                     static_cast<std::size_t>(task.outputs - c), y);
  }
}

/// From one point's panel to the next: a row of `width` for each of `tiles`, whose last vector may
/// reach over the end; not a multiple of 4096 bytes, where 16 panels would meet in the same lines.
template <class T>
HWY_INLINE std::ptrdiff_t panel_stride(std::ptrdiff_t tiles, std::ptrdiff_t width) {
  constexpr std::ptrdiff_t line = 64 / static_cast<std::ptrdiff_t>(sizeof(T));
  const std::ptrdiff_t lanes = static_cast<std::ptrdiff_t>(hn::Lanes(hn::ScalableTag<T>()));
  const std::ptrdiff_t page = 64 * line, size = tiles * width + lanes;
  return (size + page - 1) / page * page + 5 * line;
}

template <class T>
HWY_INLINE std::ptrdiff_t whole_lanes(std::ptrdiff_t n) {
  const std::ptrdiff_t lanes = static_cast<std::ptrdiff_t>(hn::Lanes(hn::ScalableTag<T>()));
  return (n + lanes - 1) / lanes * lanes;
}

/// Rows of a point's panel times the weights of one panel of outputs. The last tile's rows may go
/// past `count`, where the scratch has room for them: blocks are of a multiple of every tile's
/// rows.
template <int kVecs, class T>
HWY_INLINE void multiply_panel(const T* from, std::ptrdiff_t count, std::ptrdiff_t depth,
                               const T* weights, T* to, std::ptrdiff_t width) {
  constexpr int kRows = kConvRows<kVecs>;
  static_assert(kMinimalTiles % kRows == 0);
  for (std::ptrdiff_t i = 0; i < count; i += kRows, from += kRows * depth, to += kRows * width) {
    const T* rows[kRows];
    T* out[kRows];
    for (int r = 0; r < kRows; ++r) {
      rows[r] = from + r * depth;
      out[r] = to + r * width;
    }
    conv_tile<kRows, kVecs>(rows, 1, depth, weights, static_cast<const T*>(nullptr), out);
  }
}

/// The products at all points of a block.
template <class T>
HWY_INLINE void multiply_points(const ConvMinimalTask<T>& task, const MinimalPlaces& places,
                                std::ptrdiff_t depth, std::ptrdiff_t width) {
  const std::ptrdiff_t lanes = static_cast<std::ptrdiff_t>(hn::Lanes(hn::ScalableTag<T>()));
  const T* weights = task.conv.weights;
  for (int k = 0; k < kMinimalPoints; ++k) {
    const T* const from = task.source_panels + k * panel_stride<T>(task.tiles, depth);
    T* to = task.output_panels + k * panel_stride<T>(task.tiles, width);
    const std::ptrdiff_t count = places.count[k];
    for (std::ptrdiff_t left = width / lanes; left > 0;) {
      const std::ptrdiff_t panel = panel_vectors(left);
      if (panel == 1) multiply_panel<1>(from, count, depth, weights, to, width);
      if (panel == 2) multiply_panel<2>(from, count, depth, weights, to, width);
      if (panel == 3) multiply_panel<3>(from, count, depth, weights, to, width);
      if constexpr (kConvVectors > 3) {
        if (panel == 4) multiply_panel<4>(from, count, depth, weights, to, width);
      }
      weights += depth * panel * lanes;
      to += panel * lanes;
      left -= panel;
    }
  }
}

template <int kTaps, class T>
HWY_INLINE MinimalTile first_tile(const ConvTask<T>& task) {
  return {0, task.row_begin, 0, axis_points<kTaps>(task.row_end - task.row_begin),
          axis_points<kTaps>(task.grid_width)};
}

/// Where a tile's first output is.
template <class T>
HWY_INLINE std::ptrdiff_t output_offset(const ConvTask<T>& task, const MinimalTile& tile) {
  return tile.image * task.y_image_stride + (tile.i - task.row_begin) * task.y_row_stride +
         tile.j * task.y_pixel_stride;
}

/// All parts of a tile's source, into the panels.
template <class T>
HWY_INLINE void transform_parts(const ConvTask<T>& task, const MinimalTile& tile,
                                const std::ptrdiff_t* places, T* panels, std::ptrdiff_t stride) {
  const std::ptrdiff_t parts = task.source.tap_count, channels = task.source.channels;
  T* to[kMinimalPoints];
  for (int k = 0; k < kMinimalPoints; ++k, panels += stride) {
    to[k] = panels + places[k] * parts * channels;
  }
  for (std::ptrdiff_t p = 0; p < parts; ++p) {
    const T* pixels[kMinimalPoints];
    tile_pixels(task, tile, task.source.taps[p], pixels);
    transform_part(tile, pixels, channels, to, p * channels);
  }
}

template <int kTaps, class T>
HWY_INLINE void minimal_task(const ConvMinimalTask<T>& task) {
  const ConvTask<T>& conv = task.conv;
  if (conv.row_end <= conv.row_begin || conv.grid_width <= 0 || conv.images <= 0) return;
  const std::ptrdiff_t depth = conv.source.tap_count * conv.source.channels;
  const std::ptrdiff_t width = whole_lanes<T>(conv.outputs);
  const std::ptrdiff_t in_stride = panel_stride<T>(task.tiles, depth);
  const std::ptrdiff_t out_stride = panel_stride<T>(task.tiles, width);
  MinimalTile tile = first_tile<kTaps>(conv);
  for (bool more = true; more;) {
    MinimalTile again = tile;
    MinimalPlaces in, out;
    std::ptrdiff_t places[kMinimalPoints], count = 0;
    for (; more && count < task.tiles; ++count, more = next_tile<kTaps>(conv, tile)) {
      in.take(tile, places);
      transform_parts(conv, tile, places, task.source_panels, in_stride);
    }
    multiply_points(task, in, depth, width);
    for (; count > 0; --count, next_tile<kTaps>(conv, again)) {
      out.take(again, places);
      const T* from[kMinimalPoints];
      for (int k = 0; k < kMinimalPoints; ++k) {
        from[k] = task.output_panels + k * out_stride + places[k] * width;
      }
      transform_outputs<kTaps>(again, conv, from, conv.y + output_offset(conv, again));
    }
  }
}

/// Weights of one panel of `width` outputs.
template <int kTaps, class T>
HWY_INLINE void transform_weights(const T* HWY_RESTRICT from, std::ptrdiff_t size,
                                  std::ptrdiff_t point_stride, T* HWY_RESTRICT to) {
  const hn::ScalableTag<T> d;
  using V = hn::Vec<hn::ScalableTag<T>>;
  const std::ptrdiff_t lanes = static_cast<std::ptrdiff_t>(hn::Lanes(d));
  for (std::ptrdiff_t k = 0; k < size; k += lanes) {
    const auto load = [&](int u, int v) { return hn::LoadU(d, from + (u * kTaps + v) * size + k); };
    const auto column = [&](int v) {
      return taps_at_points<kTaps>(d,
                                   Four<V>{load(0, v), load(1, v), load(kTaps - 1, v), load(0, v)});
    };
    const Four<V> c0 = column(0), c1 = column(1), c2 = column(kTaps - 1);
    const auto row = [&](const V& a, const V& b, const V& e, T* out) {
      const Four<V> r = taps_at_points<kTaps>(d, Four<V>{a, b, e, a});
      hn::StoreU(r.a, d, out + k);
      hn::StoreU(r.b, d, out + point_stride + k);
      hn::StoreU(r.c, d, out + 2 * point_stride + k);
      hn::StoreU(r.d, d, out + 3 * point_stride + k);
    };
    row(c0.a, c1.a, c2.a, to);
    row(c0.b, c1.b, c2.b, to + 4 * point_stride);
    row(c0.c, c1.c, c2.c, to + 8 * point_stride);
    row(c0.d, c1.d, c2.d, to + 12 * point_stride);
  }
}

}  // namespace detail

/// Elements of scratch for the panels of `tiles` tiles of so many channels.
template <class T>
std::ptrdiff_t conv_minimal_panels(std::ptrdiff_t tiles, std::ptrdiff_t channels) {
  return kMinimalPoints * detail::panel_stride<T>(tiles, detail::whole_lanes<T>(channels));
}

/// Elements of conv_minimal_weights.
template <class T>
std::ptrdiff_t conv_minimal_weights_size(std::ptrdiff_t outputs, std::ptrdiff_t depth) {
  return kMinimalPoints * detail::whole_lanes<T>(outputs) * depth;
}

/// Weights at the points. \p packed is of conv_pack_weights with parts * taps * taps taps, part by
/// part.
template <class T>
void conv_minimal_weights(const T* HWY_RESTRICT packed, std::ptrdiff_t taps, std::ptrdiff_t parts,
                          std::ptrdiff_t channels, std::ptrdiff_t outputs, T* HWY_RESTRICT out) {
  const std::ptrdiff_t lanes = static_cast<std::ptrdiff_t>(hn::Lanes(hn::ScalableTag<T>()));
  const std::ptrdiff_t point_stride = detail::whole_lanes<T>(outputs) * parts * channels;
  std::ptrdiff_t vectors = (outputs + lanes - 1) / lanes;
  while (vectors > 0) {
    const std::ptrdiff_t panel = detail::panel_vectors(vectors), size = channels * panel * lanes;
    for (std::ptrdiff_t p = 0; p < parts; ++p, packed += taps * taps * size, out += size) {
      if (taps == 3) {
        detail::transform_weights<3>(packed, size, point_stride, out);
      } else {
        detail::transform_weights<2>(packed, size, point_stride, out);
      }
    }
    vectors -= panel;
  }
}

/// The convolution of a task, for any number of outputs.
template <class T>
void conv_minimal(const ConvMinimalTask<T>& task) {
  if (task.taps == 3) {
    detail::minimal_task<3>(task);
  } else {
    detail::minimal_task<2>(task);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace kernels
QUERN_NAMESPACE_END
HWY_AFTER_NAMESPACE();

#endif  // QUERN_KERNELS_CONV_MINIMAL_INL_HPP
