// SPDX-License-Identifier: Apache-2.0

/// \file
/// Channels into pixels and back: pixel shuffle (W. Shi et al., "Real-time single image and video
/// super-resolution using an efficient sub-pixel convolutional neural network", CVPR 2016), pixel
/// unshuffle, channel shuffle (X. Zhang et al., "ShuffleNet", CVPR 2018). Each is a permutation, so
/// its gradient is its inverse.

#ifndef QUERN_NN_SHUFFLE_HPP
#define QUERN_NN_SHUFFLE_HPP

#include "quern/core/checks.hpp"
#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/core/parallel.hpp"
#include "quern/kernels/kernels.hpp"
#include "quern/nn/detail/resample_tables.hpp"
#include "quern/nn/layer.hpp"
#include "quern/nn/layout.hpp"

#include <algorithm>
#include <cstddef>
#include <limits>
#include <memory>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace nn {
namespace detail {

/// Sizes of the shuffled side's source: C channels of H x W pixels that become r H x r W.
struct ShuffleSizes {
  Index batch, channels, height, width, factor;
};

/// Its square, and extents times it, stay far from overflow.
inline constexpr Index most_shuffle_factor = 1 << 15;

/// Of the packed side, which has C r^2 channels.
inline ShuffleSizes shuffle_sizes(const char* function, const char* name,
                                  std::span<const Index> packed, Index factor, Layout layout) {
  expect_in_range(function, "factor", factor, Index{1}, most_shuffle_factor);
  const bool last = layout == Layout::channels_last;
  if (packed.size() != 4 || packed[last ? 3 : 1] % (factor * factor) != 0) {
    throw ShapeError(error_text(
        function, name,
        "4 dimensions with a multiple of " + std::to_string(factor * factor) + " channels",
        shape_text(packed)));
  }
  return {packed[0], packed[last ? 3 : 1] / (factor * factor), packed[last ? 1 : 2],
          packed[last ? 2 : 3], factor};
}

inline Extents wide_shape(const ShuffleSizes& s, Layout layout) {
  if (layout == Layout::channels_last) {
    return {s.batch, s.height * s.factor, s.width * s.factor, s.channels};
  }
  return {s.batch, s.channels, s.height * s.factor, s.width * s.factor};
}

/// Channels last: a packed pixel's numbers go to r x r pixels.
template <class T, class F>
void for_packed_pixels(const ShuffleSizes& s, int threads, const F& move) {
  const Index r = s.factor;
  parallel_for(
      s.batch * s.height,
      [&](std::int64_t row) {
        for (Index w = 0; w < s.width; ++w) {
          const Index packed = (row * s.width + w) * s.channels * r * r;
          for (Index i = 0; i < r; ++i) {
            for (Index j = 0; j < r; ++j) {
              const Index wide = (((row * r + i) * s.width + w) * r + j) * s.channels;
              for (Index c = 0; c < s.channels; ++c) {
                move(packed + (c * r + i) * r + j, wide + c);
              }
            }
          }
        }
      },
      threads);
}

/// Channels first: rows of the wide side are r rows of the packed one, in turn.
template <class F>
void for_wide_rows(const ShuffleSizes& s, int threads, const F& each) {
  const Index r = s.factor, plane = s.height * s.width;
  const Index rows = (std::max)(Index{1}, Index{16384} / (std::max)(s.width * r, Index{1}));
  const Index all = s.batch * s.channels * s.height * r;
  parallel_for(
      block_count(all, rows),
      [&](std::int64_t b) {
        const BlockRange range = block_range(all, rows, b);
        for (Index at = range.begin; at < range.end; ++at) {
          const Index image = at / (s.height * r), y = at % (s.height * r);
          // The first of the r rows, and how far the next one is.
          const Index first = (image * r * r + y % r * r) * plane + y / r * s.width;
          each(at * s.width * r, first, plane);
        }
      },
      threads);
}

}  // namespace detail

/// (N, C r^2, H, W) -> (N, C, r H, r W): out[c][r h + i][r w + j] = in[c r^2 + i r + j][h][w], as
/// PyTorch's; channels last in the same order of channels.
template <class T>
void pixel_shuffle(std::type_identity_t<TensorView<const T>> in, TensorView<T> out, Index factor,
                   Layout layout = Layout::channels_first, int threads = 0) {
  constexpr const char* function = "quern::nn::pixel_shuffle";
  const auto s = detail::shuffle_sizes(function, "in", in.extents(), factor, layout);
  expect_extents(function, "out", out, detail::wide_shape(s, layout));
  expect_separate(function, "out", out, in);
  if (layout == Layout::channels_last) {
    return detail::for_packed_pixels<T>(
        s, threads, [&](Index packed, Index wide) { out.data()[wide] = in.data()[packed]; });
  }
  const bool streams = out.size() * static_cast<Index>(sizeof(T)) >= detail::resample_stream_bytes;
  detail::for_wide_rows(s, threads, [&](Index wide, Index first, Index plane) {
    const T* sources[16];
    const auto width = static_cast<std::size_t>(s.width);
    if (factor <= 16) {
      for (Index j = 0; j < factor; ++j) sources[j] = in.data() + first + j * plane;
      QUERN_DISPATCH(
          interleave_rows<T>(sources, factor, width, out.data() + wide, streams && factor <= 4));
      return;
    }
    for (Index j = 0; j < factor; ++j) {
      for (Index w = 0; w < s.width; ++w) {
        out.data()[wide + w * factor + j] = in.data()[first + j * plane + w];
      }
    }
  });
}

/// (N, C, r H, r W) -> (N, C r^2, H, W): pixel_shuffle's inverse, and its gradient.
template <class T>
void pixel_unshuffle(std::type_identity_t<TensorView<const T>> in, TensorView<T> out, Index factor,
                     Layout layout = Layout::channels_first, int threads = 0) {
  constexpr const char* function = "quern::nn::pixel_unshuffle";
  const auto s = detail::shuffle_sizes(function, "out", out.extents(), factor, layout);
  expect_extents(function, "in", in, detail::wide_shape(s, layout));
  expect_separate(function, "out", out, in);
  if (layout == Layout::channels_last) {
    return detail::for_packed_pixels<T>(
        s, threads, [&](Index packed, Index wide) { out.data()[packed] = in.data()[wide]; });
  }
  detail::for_wide_rows(s, threads, [&](Index wide, Index first, Index plane) {
    T* outs[16];
    if (factor <= 16) {
      for (Index j = 0; j < factor; ++j) outs[j] = out.data() + first + j * plane;
      QUERN_DISPATCH(
          deinterleave_row<T>(in.data() + wide, factor, static_cast<std::size_t>(s.width), outs));
      return;
    }
    for (Index j = 0; j < factor; ++j) {
      for (Index w = 0; w < s.width; ++w) {
        out.data()[first + j * plane + w] = in.data()[wide + w * factor + j];
      }
    }
  });
}

/// Channel c = g (C / groups) + k becomes channel k groups + g: (N, C, …), or (N, …, C) channels
/// last, of any rank from 2. The gradient is the same with C / groups groups. ShapeError unless
/// groups divide C.
template <class T>
void channel_shuffle(std::type_identity_t<TensorView<const T>> in, TensorView<T> out, Index groups,
                     Layout layout = Layout::channels_first, int threads = 0) {
  constexpr const char* function = "quern::nn::channel_shuffle";
  expect_extents(function, "out", out, in.extents());
  expect_separate(function, "out", out, in);
  const bool last = layout == Layout::channels_last;
  const Index channels = in.rank() < 2 ? 0 : in.extent(last ? -1 : 1);
  if (groups < 1 || channels == 0 || channels % groups != 0) {
    throw ShapeError(error_text(
        function, "groups", "a divisor of the channels of " + shape_text(in.extents()), groups));
  }
  const Index each = channels / groups;
  const Index outer = last ? in.count(0, in.rank() - 1) : in.extent(0);
  const Index inner = last ? 1 : in.count(2, in.rank());
  const Index rows = (std::max)(Index{1}, Index{65536} / (std::max)(channels * inner, Index{1}));
  parallel_for(
      block_count(outer, rows),
      [&](std::int64_t b) {
        const BlockRange range = block_range(outer, rows, b);
        for (Index n = range.begin; n < range.end; ++n) {
          for (Index c = 0; c < channels; ++c) {
            const Index from = c % groups * each + c / groups;
            std::copy_n(in.data() + (n * channels + from) * inner, inner,
                        out.data() + (n * channels + c) * inner);
          }
        }
      },
      threads);
}

namespace detail {

enum class Shuffle { pixels, pixels_back, channels };

template <class T, Shuffle kKind>
class ShuffleLayer final : public Layer<T> {
 public:
  /// `factor` is r, or the number of groups.
  explicit ShuffleLayer(Index factor, Layout layout = Layout::channels_first)
      : factor_(factor), layout_(layout) {
    const Index most =
        kKind == Shuffle::channels ? (std::numeric_limits<Index>::max)() : most_shuffle_factor;
    expect_in_range(type(), "factor", factor, Index{1}, most);
  }
  [[nodiscard]] std::string_view type() const override {
    if (kKind == Shuffle::pixels) return "quern::nn::PixelShuffle";
    return kKind == Shuffle::pixels_back ? "quern::nn::PixelUnshuffle"
                                         : "quern::nn::ChannelShuffle";
  }
  [[nodiscard]] Extents output_shape(const Extents& in) const override {
    if (kKind == Shuffle::channels) return in;
    const std::string name(type());
    if (kKind == Shuffle::pixels) {
      return wide_shape(shuffle_sizes(name.c_str(), "in", in, factor_, layout_), layout_);
    }
    const std::size_t h = layout_ == Layout::channels_last ? 1 : 2;
    if (in.size() != 4 || in[h] % factor_ != 0 || in[h + 1] % factor_ != 0) {
      throw ShapeError(error_text(
          type(), "in", "4 dimensions, height and width multiples of the factor", shape_text(in)));
    }
    Extents out = in;
    out[h] /= factor_;
    out[h + 1] /= factor_;
    out[h == 1 ? 3 : 1] *= factor_ * factor_;
    return out;
  }
  [[nodiscard]] std::unique_ptr<Layer<T>> clone() const override {
    return std::make_unique<ShuffleLayer>(*this);
  }

 protected:
  void compute(TensorView<const T> in, TensorView<T> out, Cache<T>& cache) const override {
    const int threads = cache.context.threads;
    if constexpr (kKind == Shuffle::pixels) {
      pixel_shuffle<T>(in, out, factor_, layout_, threads);
    } else if constexpr (kKind == Shuffle::pixels_back) {
      pixel_unshuffle<T>(in, out, factor_, layout_, threads);
    } else {
      channel_shuffle<T>(in, out, factor_, layout_, threads);
    }
  }
  void differentiate(TensorView<const T> dout, TensorView<T> din, Cache<T>& cache,
                     GradientsView<T> /*gradients*/) const override {
    if (din.null()) return;
    const int threads = cache.context.threads;
    if constexpr (kKind == Shuffle::pixels) {
      pixel_unshuffle<T>(dout, din, factor_, layout_, threads);
    } else if constexpr (kKind == Shuffle::pixels_back) {
      pixel_shuffle<T>(dout, din, factor_, layout_, threads);
    } else {
      const Index channels = din.extent(layout_ == Layout::channels_last ? -1 : 1);
      channel_shuffle<T>(dout, din, channels / factor_, layout_, threads);
    }
  }

 private:
  Index factor_;
  Layout layout_;
};

}  // namespace detail

/// Layers of the functions above, constructed with factor (or groups) and layout.
template <class T>
using PixelShuffle = detail::ShuffleLayer<T, detail::Shuffle::pixels>;
template <class T>
using PixelUnshuffle = detail::ShuffleLayer<T, detail::Shuffle::pixels_back>;
template <class T>
using ChannelShuffle = detail::ShuffleLayer<T, detail::Shuffle::channels>;

}  // namespace nn
QUERN_NAMESPACE_END

#endif  // QUERN_NN_SHUFFLE_HPP
