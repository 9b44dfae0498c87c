// SPDX-License-Identifier: Apache-2.0

/// \file
/// The causal convolution of each channel with a few taps of its own, and the way back. Lanes are
/// channels: rows of a few steps stay in L1, so a step reads one new row from memory and writes
/// one. What limits it is memory, with silu the exponential.

#if defined(QUERN_KERNELS_CAUSAL_CONV_INL_HPP) == defined(HWY_TARGET_TOGGLE)
#ifdef QUERN_KERNELS_CAUSAL_CONV_INL_HPP
#undef QUERN_KERNELS_CAUSAL_CONV_INL_HPP
#else
#define QUERN_KERNELS_CAUSAL_CONV_INL_HPP
#endif

#include "quern/core/config.hpp"
#include "quern/kernels/causal_conv_types.hpp"
#include "quern/kernels/lanes-inl.hpp"
#include "quern/kernels/math-inl.hpp"

#include "hwy/highway.h"

#include <cstddef>

HWY_BEFORE_NAMESPACE();
QUERN_NAMESPACE_BEGIN
namespace kernels {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

namespace detail {

/// The input that tap k sees at step t; null where it is zeros.
template <class T>
HWY_INLINE const T* conv_row(const CausalConvTask<T>& task, std::ptrdiff_t t, std::ptrdiff_t k) {
  const std::ptrdiff_t at = t + k - (task.taps - 1);
  if (at >= 0) return task.x.row(at);
  return task.before.data == nullptr ? nullptr : task.before.row(t + k);
}

/// The sum of one vector of channels at step t.
template <class D, class T, class V = hn::Vec<D>>
HWY_INLINE V conv_sum(D d, const CausalConvTask<T>& task, std::ptrdiff_t t, std::ptrdiff_t channel,
                      std::size_t count) {
  V sum = task.bias != nullptr ? load_lanes(d, task.bias + channel, count) : hn::Zero(d);
  for (std::ptrdiff_t k = 0; k < task.taps; ++k) {
    const T* const row = conv_row(task, t, k);
    if (row == nullptr) continue;
    sum = hn::MulAdd(load_lanes(d, row + channel, count),
                     load_lanes(d, task.weight.row(k) + channel, count), sum);
  }
  return sum;
}

template <class D, class V>
HWY_INLINE V conv_activated(D d, bool silu, V x) {
  return silu ? hn::Mul(x, sigmoid(d, x)) : x;
}

/// The same for four whole vectors, where every row is there: rows are looked up once.
template <class D, class T>
HWY_INLINE void conv_four(D d, const CausalConvTask<T>& task, std::ptrdiff_t t,
                          std::ptrdiff_t channel, LargestBits<D>& check) {
  using V = hn::Vec<D>;
  const std::ptrdiff_t lanes = static_cast<std::ptrdiff_t>(hn::Lanes(d));
  V s0 = hn::Zero(d), s1 = s0, s2 = s0, s3 = s0;
  if (task.bias != nullptr) {
    const T* const bias = task.bias + channel;
    s0 = hn::LoadU(d, bias);
    s1 = hn::LoadU(d, bias + lanes);
    s2 = hn::LoadU(d, bias + 2 * lanes);
    s3 = hn::LoadU(d, bias + 3 * lanes);
  }
  const T* x = task.x.row(t - (task.taps - 1)) + channel;
  const T* w = task.weight.data + channel;
  for (std::ptrdiff_t k = 0; k < task.taps; ++k, x += task.x.stride, w += task.weight.stride) {
    s0 = hn::MulAdd(hn::LoadU(d, x), hn::LoadU(d, w), s0);
    s1 = hn::MulAdd(hn::LoadU(d, x + lanes), hn::LoadU(d, w + lanes), s1);
    s2 = hn::MulAdd(hn::LoadU(d, x + 2 * lanes), hn::LoadU(d, w + 2 * lanes), s2);
    s3 = hn::MulAdd(hn::LoadU(d, x + 3 * lanes), hn::LoadU(d, w + 3 * lanes), s3);
  }
  T* const y = task.y.row(t) + channel;
  const auto store = [&](V sum, std::ptrdiff_t at) HWY_ATTR {
    const V v = conv_activated(d, task.silu, sum);
    check.see(d, v);
    hn::StoreU(v, d, y + at);
  };
  store(s0, 0);
  store(s1, lanes);
  store(s2, 2 * lanes);
  store(s3, 3 * lanes);
}

/// d(pre-activation) of a step.
template <class D, class T>
HWY_INLINE hn::Vec<D> conv_slope(D d, const CausalConvVjpTask<T>& task, std::ptrdiff_t t,
                                 std::ptrdiff_t channel, std::size_t count) {
  using V = hn::Vec<D>;
  const V dy = load_lanes(d, task.dy.row(t) + channel, count);
  if (!task.conv.silu) return dy;
  const V pre = conv_sum(d, task.conv, t, channel, count), s = sigmoid(d, pre);
  const V one = hn::Set(d, T{1});
  return hn::Mul(dy, hn::Mul(s, hn::MulAdd(pre, hn::Sub(one, s), one)));
}

/// One vector of channels of a tile from step `at` on; rows of `g` are those of the tile and the
/// taps - 1 steps after it, `width` elements apart.
template <class D, class T>
HWY_INLINE void conv_tile_back(D d, const CausalConvVjpTask<T>& task, std::ptrdiff_t at,
                               std::ptrdiff_t steps, std::ptrdiff_t channel, std::size_t count,
                               T* HWY_RESTRICT g, std::ptrdiff_t width) {
  using V = hn::Vec<D>;
  const CausalConvTask<T>& conv = task.conv;
  const std::ptrdiff_t taps = conv.taps;
  V dbias = hn::Zero(d);
  for (std::ptrdiff_t t = 0; t < steps; ++t) {
    const V slope = conv_slope(d, task, at + t, channel, count);
    hn::StoreU(slope, d, g + t * width);
    dbias = hn::Add(dbias, slope);
  }
  if (task.dbias != nullptr) add_lanes(dbias, d, task.dbias + channel, count);
  for (std::ptrdiff_t k = 0; k < taps && task.dweight.data != nullptr; ++k) {
    V sum = hn::Zero(d);
    for (std::ptrdiff_t t = 0; t < steps; ++t) {
      const T* const row = conv_row(conv, at + t, k);
      if (row == nullptr) continue;
      sum = hn::MulAdd(hn::LoadU(d, g + t * width), load_lanes(d, row + channel, count), sum);
    }
    add_lanes(sum, d, task.dweight.row(k) + channel, count);
  }
  for (std::ptrdiff_t t = 0; t < steps && task.dx.data != nullptr; ++t) {
    V sum = hn::Zero(d);
    for (std::ptrdiff_t k = 0; k < taps; ++k) {
      sum = hn::MulAdd(load_lanes(d, conv.weight.row(k) + channel, count),
                       hn::LoadU(d, g + (t + taps - 1 - k) * width), sum);
    }
    store_lanes(sum, d, task.dx.row(at + t) + channel, count);
  }
  if (at > 0 || task.dbefore.data == nullptr) return;
  for (std::ptrdiff_t j = 0; j < taps - 1; ++j) {
    V sum = hn::Zero(d);
    for (std::ptrdiff_t t = 0; t <= j; ++t) {
      sum = hn::MulAdd(load_lanes(d, conv.weight.row(j - t) + channel, count),
                       hn::LoadU(d, g + t * width), sum);
    }
    store_lanes(sum, d, task.dbefore.row(j) + channel, count);
  }
}

}  // namespace detail

/// Runs the convolution; whether all of y is finite.
template <class T>
bool causal_conv(const CausalConvTask<T>& task) {
  const hn::ScalableTag<T> d;
  const std::ptrdiff_t lanes = static_cast<std::ptrdiff_t>(hn::Lanes(d));
  detail::LargestBits<hn::ScalableTag<T>> check(d);
  for (std::ptrdiff_t t = 0; t < task.steps; ++t) {
    std::ptrdiff_t channel = 0;
    if (t >= task.taps - 1) {
      for (; channel + 4 * lanes <= task.channels; channel += 4 * lanes) {
        detail::conv_four(d, task, t, channel, check);
      }
    }
    for (; channel < task.channels; channel += lanes) {
      const std::size_t count = detail::lanes_left(d, task.channels - channel);
      const auto sum = detail::conv_sum(d, task, t, channel, count);
      const auto v = detail::conv_activated(d, task.silu, sum);
      check.see(d, v);
      detail::store_lanes(v, d, task.y.row(t) + channel, count);
    }
  }
  return check.finite(d);
}

/// Tiles from the last to the first: a tile needs slopes of the taps - 1 steps after it.
template <class T>
void causal_conv_vjp(const CausalConvVjpTask<T>& task) {
  const hn::ScalableTag<T> d;
  const std::ptrdiff_t lanes = static_cast<std::ptrdiff_t>(hn::Lanes(d));
  const CausalConvTask<T>& conv = task.conv;
  const std::ptrdiff_t width = (conv.channels + lanes - 1) / lanes * lanes, after = conv.taps - 1;
  std::ptrdiff_t tiles = (conv.steps + causal_conv_tile - 1) / causal_conv_tile;
  if (tiles == 0) tiles = 1;  // no step at all: zeros
  const auto clear = [&](std::ptrdiff_t first, std::ptrdiff_t rows) HWY_ATTR {
    T* const to = task.scratch + first * width;
    for (std::ptrdiff_t i = 0; i < rows * width; i += lanes) hn::StoreU(hn::Zero(d), d, to + i);
  };
  clear(0, after);
  for (std::ptrdiff_t tile = tiles; tile-- > 0;) {
    const std::ptrdiff_t at = tile * causal_conv_tile, left = conv.steps - at;
    const std::ptrdiff_t steps = left < causal_conv_tile ? left : causal_conv_tile;
    // What were the first rows come after the last ones now; from the end, for they may overlap.
    for (std::ptrdiff_t i = after * width; (i -= lanes) >= 0;) {
      hn::StoreU(hn::LoadU(d, task.scratch + i), d, task.scratch + steps * width + i);
    }
    for (std::ptrdiff_t channel = 0; channel < conv.channels; channel += lanes) {
      detail::conv_tile_back(d, task, at, steps, channel,
                             detail::lanes_left(d, conv.channels - channel), task.scratch + channel,
                             width);
    }
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace kernels
QUERN_NAMESPACE_END
HWY_AFTER_NAMESPACE();

#endif  // QUERN_KERNELS_CAUSAL_CONV_INL_HPP
