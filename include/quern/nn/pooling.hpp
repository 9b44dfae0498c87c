// SPDX-License-Identifier: Apache-2.0

/// \file
/// Pooling of images: largest values with their places, averages.

#ifndef QUERN_NN_POOLING_HPP
#define QUERN_NN_POOLING_HPP

#include "quern/core/checks.hpp"
#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/core/parallel.hpp"
#include "quern/kernels/kernels.hpp"
#include "quern/nn/layer.hpp"
#include "quern/nn/layout.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace nn {

/// Options of MaxPool2d and AvgPool2d.
struct PoolOptions {
  Pair kernel = 2;
  Pair stride = 0;            ///< 0: the kernel's size
  Pair padding = 0;           ///< on each side, at most half the kernel
  Pair dilation = 1;          ///< MaxPool2d only
  bool ceil = false;          ///< sizes are rounded up: windows may hang over the end
  bool count_padding = true;  ///< AvgPool2d: padding counts in the divisor
  Layout layout = Layout::channels_first;
};

namespace detail {

/// Sizes of a pooling, and its windows.
struct PoolGeometry {
  Index batch = 0, channels = 0;
  Index in_h = 0, in_w = 0, out_h = 0, out_w = 0;
  Index channel_stride = 0, pixel_stride = 0;  ///< of input and output alike

  [[nodiscard]] Index in_plane() const { return in_h * in_w; }
  [[nodiscard]] Index out_plane() const { return out_h * out_w; }
};

/// What both layers share: sizes and checks.
template <class T>
class PoolLayer : public Layer<T> {
 public:
  [[nodiscard]] Extents output_shape(const Extents& in) const override {
    const PoolGeometry g = geometry(in);
    if (last()) return {g.batch, g.out_h, g.out_w, g.channels};
    return {g.batch, g.channels, g.out_h, g.out_w};
  }

 protected:
  PoolLayer(std::string_view type, const PoolOptions& options) : options_(options) {
    PoolOptions& o = options_;
    if (o.stride.h == 0) o.stride.h = o.kernel.h;
    if (o.stride.w == 0) o.stride.w = o.kernel.w;
    for (const Pair p : {o.kernel, o.stride, o.dilation}) {
      if ((std::min)(p.h, p.w) >= 1) continue;
      throw ValueError(
          error_text(type, "kernel, stride, dilation", "at least 1", (std::min)(p.h, p.w)));
    }
    const bool fits = o.padding.h >= 0 && o.padding.w >= 0 && 2 * o.padding.h <= o.kernel.h &&
                      2 * o.padding.w <= o.kernel.w;
    if (!fits) {
      throw ValueError(error_text(type, "padding", "0 to half the kernel",
                                  (std::max)(o.padding.h, o.padding.w)));
    }
  }

  [[nodiscard]] bool last() const { return options_.layout == Layout::channels_last; }
  [[nodiscard]] PoolGeometry geometry(const Extents& in) const {
    if (in.size() != 4) {
      throw ShapeError(error_text(this->type(), "in", "four dimensions", shape_text(in)));
    }
    PoolGeometry g;
    g.batch = in[0];
    g.channels = last() ? in[3] : in[1];
    g.in_h = last() ? in[1] : in[2];
    g.in_w = last() ? in[2] : in[3];
    g.out_h = windows(g.in_h, options_.kernel.h, options_.stride.h, options_.padding.h,
                      options_.dilation.h, in);
    g.out_w = windows(g.in_w, options_.kernel.w, options_.stride.w, options_.padding.w,
                      options_.dilation.w, in);
    g.pixel_stride = last() ? g.channels : 1;
    return g;
  }
  /// fn(n, channel): in parallel, a task is a few planes.
  template <class Fn>
  void for_planes(const PoolGeometry& g, int threads, Fn&& fn) const {
    const Index planes = g.batch * g.channels;
    const Index step = (std::max)(Index{1}, 16384 / (std::max)(g.in_plane(), Index{1}));
    parallel_for(
        block_count(planes, step),
        [&](Index block) {
          const BlockRange range = block_range(planes, step, block);
          for (Index i = range.begin; i < range.end; ++i) fn(i / g.channels, i % g.channels);
        },
        threads);
  }
  /// fn(n, row of the output): in parallel, a task is a few rows.
  template <class Fn>
  void for_rows(const PoolGeometry& g, int threads, Fn&& fn) const {
    const Index rows = g.batch * g.out_h;
    const Index step = (std::max)(Index{1}, 16384 / (std::max)(g.out_w * g.channels, Index{1}));
    parallel_for(
        block_count(rows, step),
        [&](Index block) {
          const BlockRange range = block_range(rows, step, block);
          for (Index k = range.begin; k < range.end; ++k) fn(k / g.out_h, k % g.out_h);
        },
        threads);
  }
  /// fn(h, w) for each pixel of a window that lies inside, row by row.
  template <class Fn>
  void for_window(const PoolGeometry& g, Index i, Index j, Fn&& fn) const {
    const PoolOptions& o = options_;
    for (Index u = 0; u < o.kernel.h; ++u) {
      const Index h = i * o.stride.h - o.padding.h + u * o.dilation.h;
      if (h < 0 || h >= g.in_h) continue;
      for (Index v = 0; v < o.kernel.w; ++v) {
        const Index w = j * o.stride.w - o.padding.w + v * o.dilation.w;
        if (w >= 0 && w < g.in_w) fn(h, w);
      }
    }
  }
  /// Where a plane begins, in the input or the output.
  [[nodiscard]] Index plane_at(const PoolGeometry& g, Index n, Index channel, Index pixels) const {
    return last() ? n * pixels * g.channels + channel : (n * g.channels + channel) * pixels;
  }

  PoolOptions options_;

 private:
  [[nodiscard]] Index windows(Index size, Index kernel, Index stride, Index padding, Index dilation,
                              const Extents& in) const {
    const Index room = size + 2 * padding - dilation * (kernel - 1) - 1;
    if (room < 0) {
      throw ShapeError(
          error_text(this->type(), "in", "an image that holds the window", shape_text(in)));
    }
    Index count = (options_.ceil ? room + stride - 1 : room) / stride + 1;
    // The last window has to begin within the image or the padding before it (PyTorch's rule).
    if (options_.ceil && (count - 1) * stride >= size + padding) --count;
    return count;
  }
};

}  // namespace detail

/// The largest value of each window (NaN if there is one); padding never is. Of equal ones the
/// first counts. Where it was, as row * width + column of its plane, is kept for MaxUnpool
/// (indices()), and backward sends the gradient there. A window of padding alone, which dilation
/// allows, gives -infinity, the index -1 and no gradient.
template <class T>
class MaxPool2d final : public detail::PoolLayer<T> {
 public:
  explicit MaxPool2d(const PoolOptions& options = {})
      : detail::PoolLayer<T>("quern::nn::MaxPool2d", options) {}

  /// Of the last forward with this cache: one a number of the output, in its order.
  [[nodiscard]] static std::span<const std::int64_t> indices(Cache<T>& cache) {
    return cache.integers(0);
  }

  [[nodiscard]] std::string_view type() const override { return "quern::nn::MaxPool2d"; }
  [[nodiscard]] std::unique_ptr<Layer<T>> clone() const override {
    return std::make_unique<MaxPool2d>(*this);
  }

 protected:
  void compute(TensorView<const T> in, TensorView<T> out, Cache<T>& cache) const override {
    const detail::PoolGeometry g = this->geometry(in.shape());
    std::vector<std::int64_t>& indices = cache.integers(0);
    indices.resize(static_cast<std::size_t>(out.size()));
    if (this->last()) {
      this->for_rows(g, cache.context.threads, [&](Index n, Index i) {
        largest_of_row(g, in.data(), n, i, out.data(), indices.data());
      });
      return;
    }
    this->for_planes(g, cache.context.threads, [&](Index n, Index channel) {
      const T* const x = in.data() + this->plane_at(g, n, channel, g.in_plane());
      const Index at = this->plane_at(g, n, channel, g.out_plane());
      for (Index p = 0; p < g.out_plane(); ++p) {
        const Index best = largest(g, x, p / g.out_w, p % g.out_w);
        out[at + p * g.pixel_stride] = best < 0 ? nothing : x[best * g.pixel_stride];
        indices[static_cast<std::size_t>(at + p * g.pixel_stride)] = best;
      }
    });
  }
  void differentiate(TensorView<const T> dout, TensorView<T> din, Cache<T>& cache,
                     GradientsView<T> /*gradients*/) const override {
    if (din.null()) return;
    const detail::PoolGeometry g = this->geometry(din.shape());
    const std::vector<std::int64_t>& indices = cache.integers(0);
    if (this->last()) {
      const auto image = [&](Index n) {
        T* const dx = din.data() + n * g.in_plane() * g.channels;
        std::fill_n(dx, g.in_plane() * g.channels, T{});
        const Index begin = n * g.out_plane() * g.channels;
        for (Index k = begin; k < begin + g.out_plane() * g.channels; ++k) {
          const Index to = indices[static_cast<std::size_t>(k)];
          if (to >= 0) dx[to * g.channels + k % g.channels] += dout[k];
        }
      };
      parallel_for(g.batch, image, cache.context.threads);
      return;
    }
    this->for_planes(g, cache.context.threads, [&](Index n, Index channel) {
      T* const dx = din.data() + this->plane_at(g, n, channel, g.in_plane());
      const Index at = this->plane_at(g, n, channel, g.out_plane());
      for (Index p = 0; p < g.in_plane(); ++p) dx[p * g.pixel_stride] = T{};
      for (Index p = 0; p < g.out_plane(); ++p) {
        const Index from = at + p * g.pixel_stride;
        const Index to = indices[static_cast<std::size_t>(from)];
        if (to >= 0) dx[to * g.pixel_stride] += dout[from];
      }
    });
  }

 private:
  static constexpr T nothing = -std::numeric_limits<T>::infinity();

  /// A row of windows, all channels at once.
  void largest_of_row(const detail::PoolGeometry& g, const T* in, Index n, Index i, T* out,
                      std::int64_t* indices) const {
    using Number = std::conditional_t<sizeof(T) == 4, std::int32_t, std::int64_t>;
    const auto channels = static_cast<std::size_t>(g.channels);
    std::vector<const T*> pixels;
    std::vector<Index> places;
    std::vector<Number> which(channels);
    for (Index j = 0; j < g.out_w; ++j) {
      pixels.clear();
      places.clear();
      this->for_window(g, i, j, [&](Index h, Index w) {
        places.push_back(h * g.in_w + w);
        pixels.push_back(in + (n * g.in_plane() + places.back()) * g.channels);
      });
      const Index at = ((n * g.out_h + i) * g.out_w + j) * g.channels;
      if (pixels.empty()) {
        std::fill_n(out + at, g.channels, nothing);
        std::fill_n(indices + at, g.channels, std::int64_t{-1});
        continue;
      }
      QUERN_DISPATCH(
          max_pool_pixel(pixels.data(), pixels.size(), channels, out + at, which.data()));
      for (std::size_t c = 0; c < channels; ++c) {
        indices[at + static_cast<Index>(c)] = places[static_cast<std::size_t>(which[c])];
      }
    }
  }
  /// Place of the largest value of a window; -1 where it is all padding.
  [[nodiscard]] Index largest(const detail::PoolGeometry& g, const T* x, Index i, Index j) const {
    Index best = -1;
    this->for_window(g, i, j, [&](Index h, Index w) {
      const Index at = h * g.in_w + w;
      const T value = x[at * g.pixel_stride];
      if (best < 0) best = at;
      const T before = x[best * g.pixel_stride];
      if (value > before || (is_nan_bits(value) && !is_nan_bits(before))) best = at;
    });
    return best;
  }
};

/// The mean of each window.
template <class T>
class AvgPool2d final : public detail::PoolLayer<T> {
 public:
  explicit AvgPool2d(const PoolOptions& options = {})
      : detail::PoolLayer<T>("quern::nn::AvgPool2d", options) {
    if (options.dilation.h != 1 || options.dilation.w != 1) {
      throw ValueError(
          error_text(type(), "dilation", "1", (std::max)(options.dilation.h, options.dilation.w)));
    }
  }

  [[nodiscard]] std::string_view type() const override { return "quern::nn::AvgPool2d"; }
  [[nodiscard]] std::unique_ptr<Layer<T>> clone() const override {
    return std::make_unique<AvgPool2d>(*this);
  }

 protected:
  void compute(TensorView<const T> in, TensorView<T> out, Cache<T>& cache) const override {
    const detail::PoolGeometry g = this->geometry(in.shape());
    if (this->last()) {
      this->for_rows(g, cache.context.threads,
                     [&](Index n, Index i) { means_of_row(g, in.data(), n, i, out.data()); });
      return;
    }
    this->for_planes(g, cache.context.threads, [&](Index n, Index channel) {
      const T* const x = in.data() + this->plane_at(g, n, channel, g.in_plane());
      T* const y = out.data() + this->plane_at(g, n, channel, g.out_plane());
      for (Index p = 0; p < g.out_plane(); ++p) {
        const Window win = window(g, p / g.out_w, p % g.out_w);
        double sum = 0;
        for (Index h = win.top; h < win.bottom; ++h) {
          for (Index w = win.left; w < win.right; ++w) {
            sum += static_cast<double>(x[(h * g.in_w + w) * g.pixel_stride]);
          }
        }
        y[p * g.pixel_stride] = static_cast<T>(sum / static_cast<double>(win.count));
      }
    });
  }
  void differentiate(TensorView<const T> dout, TensorView<T> din, Cache<T>& cache,
                     GradientsView<T> /*gradients*/) const override {
    if (din.null()) return;
    const detail::PoolGeometry g = this->geometry(din.shape());
    if (this->last()) {
      parallel_for(
          g.batch, [&](Index n) { spread_image(g, dout.data(), n, din.data()); },
          cache.context.threads);
      return;
    }
    this->for_planes(g, cache.context.threads, [&](Index n, Index channel) {
      T* const dx = din.data() + this->plane_at(g, n, channel, g.in_plane());
      const T* const dy = dout.data() + this->plane_at(g, n, channel, g.out_plane());
      for (Index p = 0; p < g.in_plane(); ++p) dx[p * g.pixel_stride] = T{};
      for (Index p = 0; p < g.out_plane(); ++p) {
        const Window win = window(g, p / g.out_w, p % g.out_w);
        const T share = dy[p * g.pixel_stride] / static_cast<T>(win.count);
        for (Index h = win.top; h < win.bottom; ++h) {
          for (Index w = win.left; w < win.right; ++w) {
            dx[(h * g.in_w + w) * g.pixel_stride] += share;
          }
        }
      }
    });
  }

 private:
  struct Window {
    Index top, bottom, left, right, count;
  };
  void means_of_row(const detail::PoolGeometry& g, const T* in, Index n, Index i, T* out) const {
    std::vector<const T*> pixels;
    for (Index j = 0; j < g.out_w; ++j) {
      pixels.clear();
      this->for_window(g, i, j, [&](Index h, Index w) {
        pixels.push_back(in + ((n * g.in_h + h) * g.in_w + w) * g.channels);
      });
      const T share = T{1} / static_cast<T>(window(g, i, j).count);
      QUERN_DISPATCH(mean_pool_pixel(pixels.data(), pixels.size(),
                                     static_cast<std::size_t>(g.channels), share,
                                     out + ((n * g.out_h + i) * g.out_w + j) * g.channels));
    }
  }
  void spread_image(const detail::PoolGeometry& g, const T* dout, Index n, T* din) const {
    T* const dx = din + n * g.in_plane() * g.channels;
    std::fill_n(dx, g.in_plane() * g.channels, T{});
    for (Index p = 0; p < g.out_plane(); ++p) {
      const T* const dy = dout + (n * g.out_plane() + p) * g.channels;
      const Index i = p / g.out_w, j = p % g.out_w;
      const T share = T{1} / static_cast<T>(window(g, i, j).count);
      this->for_window(g, i, j, [&](Index h, Index w) {
        QUERN_DISPATCH(axpy(share, dy, static_cast<std::size_t>(g.channels),
                            dx + (h * g.in_w + w) * g.channels));
      });
    }
  }
  [[nodiscard]] Window window(const detail::PoolGeometry& g, Index i, Index j) const {
    const PoolOptions& o = this->options_;
    const Index top = i * o.stride.h - o.padding.h, left = j * o.stride.w - o.padding.w;
    // A window that hangs over counts up to the end of the padding.
    const Index bottom = (std::min)(top + o.kernel.h, g.in_h + o.padding.h);
    const Index right = (std::min)(left + o.kernel.w, g.in_w + o.padding.w);
    Window w{(std::max)(top, Index{0}), (std::min)(bottom, g.in_h), (std::max)(left, Index{0}),
             (std::min)(right, g.in_w), 0};
    w.count =
        o.count_padding ? (bottom - top) * (right - left) : (w.bottom - w.top) * (w.right - w.left);
    return w;
  }
};

/// The mean of each channel's plane: (N, C, …) or (N, …, C) to (N, C).
template <class T>
class GlobalAvgPool final : public Layer<T> {
 public:
  explicit GlobalAvgPool(Layout layout = Layout::channels_first) : layout_(layout) {}

  [[nodiscard]] std::string_view type() const override { return "quern::nn::GlobalAvgPool"; }
  [[nodiscard]] Extents output_shape(const Extents& in) const override {
    if (in.size() < 3 || size_of(std::span<const Index>(in).subspan(1)) == 0) {
      throw ShapeError(
          error_text(type(), "in", "three dimensions or more, above 0", shape_text(in)));
    }
    return {in[0], layout_ == Layout::channels_last ? in.back() : in[1]};
  }
  [[nodiscard]] std::unique_ptr<Layer<T>> clone() const override {
    return std::make_unique<GlobalAvgPool>(*this);
  }

 protected:
  void compute(TensorView<const T> in, TensorView<T> out, Cache<T>& /*cache*/) const override {
    const Index channels = out.extent(1), pixels = in.size() / (std::max)(out.size(), Index{1});
    const bool last = layout_ == Layout::channels_last;
    for (Index i = 0; i < out.size(); ++i) {
      const T* const x =
          in.data() + (last ? i / channels * pixels * channels + i % channels : i * pixels);
      double sum = 0;
      for (Index p = 0; p < pixels; ++p) sum += static_cast<double>(x[last ? p * channels : p]);
      out[i] = static_cast<T>(sum / static_cast<double>(pixels));
    }
  }
  void differentiate(TensorView<const T> dout, TensorView<T> din, Cache<T>& /*cache*/,
                     GradientsView<T> /*gradients*/) const override {
    if (din.null()) return;
    const Index channels = dout.extent(1), pixels = din.size() / (std::max)(dout.size(), Index{1});
    const bool last = layout_ == Layout::channels_last;
    for (Index i = 0; i < dout.size(); ++i) {
      const T share = dout[i] / static_cast<T>(pixels);
      T* const dx =
          din.data() + (last ? i / channels * pixels * channels + i % channels : i * pixels);
      for (Index p = 0; p < pixels; ++p) dx[last ? p * channels : p] = share;
    }
  }

 private:
  Layout layout_;
};

}  // namespace nn
QUERN_NAMESPACE_END

#endif  // QUERN_NN_POOLING_HPP
