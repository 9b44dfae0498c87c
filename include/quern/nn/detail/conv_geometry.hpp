// SPDX-License-Identifier: Apache-2.0

/// \file
/// Convolutions in numbers: sizes, images in memory, and what a pass from source to destination is
/// made of. conv_pass.hpp runs them.

#ifndef QUERN_NN_DETAIL_CONV_GEOMETRY_HPP
#define QUERN_NN_DETAIL_CONV_GEOMETRY_HPP

#include "quern/core/config.hpp"
#include "quern/kernels/conv_types.hpp"
#include "quern/kernels/kernels.hpp"
#include "quern/nn/tensor.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace nn {
namespace detail {

/// Height and width.
struct Size2 {
  Index h = 1;
  Index w = 1;
};

}  // namespace detail

/// How a convolution is computed.
enum class ConvAlgorithm {
  automatic,  ///< minimal where that is faster, by shapes without the batch
  direct,     ///< all products
  minimal     ///< fewer products wherever the taps allow it, whatever that costs
};

namespace detail {

/// One convolution's numbers: x (batch, x_channels, x) to y (batch, y_channels, y), weights
/// (y_channels, x_channels / groups, kernel).
struct ConvGeometry {
  Index batch = 0;
  Size2 x, y;
  Index x_channels = 0, y_channels = 0;
  Size2 kernel, stride, before, dilation;  ///< before: padding above and to the left
  Index groups = 1;
  bool channels_last = false;
  std::vector<std::uint8_t> mask = {};  ///< one a tap, 0 leaves it out; empty: all count
  ConvAlgorithm algorithm = ConvAlgorithm::automatic;

  [[nodiscard]] Index taps() const { return kernel.h * kernel.w; }
  [[nodiscard]] Index x_each() const { return x_channels / groups; }
  [[nodiscard]] Index y_each() const { return y_channels / groups; }
  [[nodiscard]] bool counts(Index tap) const {
    return mask.empty() || mask[static_cast<std::size_t>(tap)] != 0;
  }
};

/// A batch of images in memory.
template <class T>
struct ImageBatch {
  T* data = nullptr;
  Size2 size;
  Index channels = 0;
  bool channels_last = false;

  [[nodiscard]] Index pixels() const { return size.h * size.w; }
  [[nodiscard]] Index pixel_stride() const { return channels_last ? channels : 1; }
  [[nodiscard]] Index channel_stride() const { return channels_last ? 1 : pixels(); }
  [[nodiscard]] T* at(Index n, Index channel, Index row) const {
    return data + n * pixels() * channels + channel * channel_stride() +
           row * size.w * pixel_stride();
  }
};

/// Rows of an image with the channels of a pixel side by side: where they lie, or a copy.
template <class T>
struct PixelRows {
  T* data = nullptr;
  Index row_stride = 0;
  Index pixel_stride = 0;
};

/// Rows [first, end) of channels [channel, channel + count), each pixel's channels padded with
/// zeros to `padded`. Copies into `scratch` unless they lie so already.
template <class T>
PixelRows<const T> fetch_rows(const ImageBatch<const T>& image, Index n, Index channel, Index count,
                              Index padded, Index first, Index end, T* scratch) {
  const T* const from = image.at(n, channel, first);
  const Index width = image.size.w, pixels = (end - first) * width;
  if (padded == count && (image.channels_last || count == 1)) {
    return {from, width * image.pixel_stride(), image.pixel_stride()};
  }
  if (image.channels_last) {
    for (Index p = 0; p < pixels; ++p) {
      std::copy_n(from + p * image.channels, count, scratch + p * padded);
    }
  } else {
    QUERN_DISPATCH(transpose(from, image.pixels(), count, pixels, scratch, padded));
  }
  if (padded > count) {
    for (Index p = 0; p < pixels; ++p) {
      std::fill_n(scratch + p * padded + count, padded - count, T{});
    }
  }
  return {scratch, width * padded, padded};
}

/// Of the output's pixels, those whose row is h0 + step i and column w0 + step j.
struct ConvPhase {
  Size2 origin{0, 0};
  std::vector<kernels::ConvTap> taps;
  Index packed = 0;  ///< where its weights begin
};

/// Taps that follow each other pixel by pixel, if all come in runs of one length.
[[nodiscard]] inline Index tap_run(const std::vector<kernels::ConvTap>& taps) {
  const auto follows = [&](std::size_t t) {
    return taps[t].dh == taps[t - 1].dh && taps[t].dw == taps[t - 1].dw + 1;
  };
  std::size_t run = 1;
  while (run < taps.size() && follows(run)) ++run;
  if (taps.size() % run != 0) return 1;
  for (std::size_t t = 1; t < taps.size(); ++t) {
    if (t % run != 0 && !follows(t)) return 1;
  }
  return static_cast<Index>(run);
}

/// How the kernel is run for a pass.
enum class ConvForm {
  wide,      ///< vectors of output channels
  padded,    ///< the same from a copy with the zeros around it: runs of taps count as one tap of
             ///< more channels, so few source channels fill a product
  minimal,   ///< the same by fewer products: conv_minimal-inl.hpp
  narrow,    ///< vectors of source channels: few output channels
  depthwise  ///< each channel by itself: vectors of channels
};

/// From source to destination: a convolution or the gradient of its input.
template <class T>
struct ConvPass {
  Index batch = 0;
  Index groups = 1;
  ImageBatch<const T> source;
  ImageBatch<T> dest;
  Size2 source_step, dest_step;
  std::vector<ConvPhase> phases;
  const T* weights = nullptr;
  Index channel_stride = 0, output_stride = 0, group_stride = 0;  ///< of the weights
  const T* bias = nullptr;                                        ///< of dest's channels, or null
  ConvAlgorithm algorithm = ConvAlgorithm::automatic;

  [[nodiscard]] Index channels() const { return source.channels / groups; }
  [[nodiscard]] Index outputs() const { return dest.channels / groups; }
};

/// y from x.
template <class T>
ConvPass<T> forward_pass(const ConvGeometry& g, const T* x, const T* w, const T* bias, T* y) {
  ConvPass<T> pass;
  pass.batch = g.batch;
  pass.groups = g.groups;
  pass.algorithm = g.algorithm;
  pass.source = {x, g.x, g.x_channels, g.channels_last};
  pass.dest = {y, g.y, g.y_channels, g.channels_last};
  pass.source_step = g.stride;
  pass.weights = w;
  pass.channel_stride = g.taps();
  pass.output_stride = g.x_each() * g.taps();
  pass.group_stride = g.y_each() * g.x_each() * g.taps();
  pass.bias = bias;
  ConvPhase phase;
  for (Index kh = 0; kh < g.kernel.h; ++kh) {
    for (Index kw = 0; kw < g.kernel.w; ++kw) {
      const Index tap = kh * g.kernel.w + kw;
      if (!g.counts(tap)) continue;
      phase.taps.push_back({kh * g.dilation.h - g.before.h, kw * g.dilation.w - g.before.w, tap});
    }
  }
  pass.phases.push_back(std::move(phase));
  return pass;
}

/// Rounds down, also below zero.
[[nodiscard]] inline Index floor_div(Index a, Index b) {
  return a >= 0 ? a / b : -((-a + b - 1) / b);
}

/// dx from dy; with a bias (one a channel of x) it is a transposed convolution.
template <class T>
ConvPass<T> backward_pass(const ConvGeometry& g, const T* dy, const T* w, const T* bias, T* dx) {
  ConvPass<T> pass;
  pass.batch = g.batch;
  pass.groups = g.groups;
  pass.algorithm = g.algorithm;
  pass.source = {dy, g.y, g.y_channels, g.channels_last};
  pass.dest = {dx, g.x, g.x_channels, g.channels_last};
  pass.dest_step = g.stride;
  pass.weights = w;
  pass.channel_stride = g.x_each() * g.taps();
  pass.output_stride = g.taps();
  pass.group_stride = g.y_each() * g.x_each() * g.taps();
  pass.bias = bias;
  for (Index h = 0; h < g.stride.h; ++h) {
    for (Index w0 = 0; w0 < g.stride.w; ++w0) {
      ConvPhase phase;
      phase.origin = {h, w0};
      // Backwards, so that taps follow each other in the source.
      for (Index kh = g.kernel.h - 1; kh >= 0; --kh) {
        const Index up = h + g.before.h - kh * g.dilation.h;
        if (floor_div(up, g.stride.h) * g.stride.h != up) continue;
        for (Index kw = g.kernel.w - 1; kw >= 0; --kw) {
          const Index left = w0 + g.before.w - kw * g.dilation.w;
          const Index tap = kh * g.kernel.w + kw;
          if (floor_div(left, g.stride.w) * g.stride.w != left || !g.counts(tap)) continue;
          phase.taps.push_back({floor_div(up, g.stride.h), floor_div(left, g.stride.w), tap});
        }
      }
      pass.phases.push_back(std::move(phase));
    }
  }
  return pass;
}

}  // namespace detail
}  // namespace nn
QUERN_NAMESPACE_END

#endif  // QUERN_NN_DETAIL_CONV_GEOMETRY_HPP
