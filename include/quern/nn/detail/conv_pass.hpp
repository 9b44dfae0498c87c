// SPDX-License-Identifier: Apache-2.0

/// \file
/// Convolutions over a batch, cut into tasks: values, gradient of the input, gradient of the
/// weights. All three are run on kernels/conv-inl.hpp, which wants the channels of a pixel side by
/// side: images with planes of channels are transposed a few rows at a time into a task's own
/// memory. Nothing the size of the data is ever written beside it.
///
/// The gradient of the input (and a transposed convolution, which is the same) of stride s is
/// s x s convolutions of stride 1, one for each phase of the output's rows and columns, each with
/// the taps that meet it.
///
/// Tasks follow from shapes alone, so results do not depend on the number of threads.

#ifndef QUERN_NN_DETAIL_CONV_PASS_HPP
#define QUERN_NN_DETAIL_CONV_PASS_HPP

#include "quern/core/config.hpp"
#include "quern/core/parallel.hpp"
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
  patch,     ///< the same, a tile's source copied side by side: few source channels
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

  [[nodiscard]] Index channels() const { return source.channels / groups; }
  [[nodiscard]] Index outputs() const { return dest.channels / groups; }
};

/// y from x.
template <class T>
ConvPass<T> forward_pass(const ConvGeometry& g, const T* x, const T* w, const T* bias, T* y) {
  ConvPass<T> pass;
  pass.batch = g.batch;
  pass.groups = g.groups;
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

/// A pass with its weights packed and its memory laid out.
template <class T>
class ConvRunner {
 public:
  ConvRunner(ConvPass<T> pass, Tensor<T>& scratch, int threads)
      : pass_(std::move(pass)), level_(simd::active_level()), threads_(threads) {
    layout_ = QUERN_DISPATCH_AT(level_, conv_layout<T>());
    choose_form();
    choose_blocks();
    lay_out(scratch);
    pack();
  }

  void run() {
    const Index sets = block_count(pass_.batch, images_);
    parallel_for(
        sets * blocks_ * pass_.groups,
        [&](Index task) {
          const Index block = task / pass_.groups % blocks_;
          const Index begin = block * block_rows_;
          const Index end = (std::min)(begin + block_rows_, pass_.dest.size.h);
          run_block(task / pass_.groups / blocks_ * images_, begin, end, task % pass_.groups);
        },
        threads_);
  }

 private:
  /// Source rows that a block reads.
  struct RowRange {
    Index first;
    Index end;
  };

  void choose_form() {
    // A group a channel is no group: all channels at once.
    const bool depthwise = pass_.groups > 1 && pass_.channels() == 1 && pass_.outputs() == 1;
    if (depthwise) pass_.groups = 1;
    const Index channels = pass_.channels(), outputs = pass_.outputs();
    std::size_t most = 0;
    for (const ConvPhase& p : pass_.phases) most = (std::max)(most, p.taps.size());
    most_taps_ = static_cast<Index>(most);
    form_ = ConvForm::wide;
    if (depthwise) {
      form_ = ConvForm::depthwise;
    } else if (outputs <= 4 && channels >= 8) {
      form_ = ConvForm::narrow;
    } else if (channels < 8 && most_taps_ > 1) {
      form_ = ConvForm::patch;
    }
  }

  /// Blocks of destination rows: about a thousand positions, whole phases.
  void choose_blocks() {
    const Index step = pass_.dest_step.h, height = pass_.dest.size.h;
    const Index wanted = (std::max)(Index{1}, 1024 / (std::max)(Index{1}, pass_.dest.size.w));
    block_rows_ = (std::max)(Index{1}, (wanted + step - 1) / step) * step;
    blocks_ = block_count(height, block_rows_);
    copies_source_ = !pass_.source.channels_last && pass_.channels() > 1;
    copies_dest_ = !pass_.dest.channels_last && pass_.outputs() > 1;
    // Small images together fill the tiles' last rows.
    if (blocks_ == 1 && !copies_source_ && !copies_dest_) {
      images_ = (std::max)(Index{1}, 1024 / (std::max)(Index{1}, pass_.dest.pixels()));
    }
  }

  [[nodiscard]] RowRange source_rows(Index begin, Index end) const {
    Index low = pass_.source.size.h, high = 0;
    for (const ConvPhase& p : pass_.phases) {
      const RowRange grid = grid_rows(p, begin, end);
      if (grid.first >= grid.end) continue;
      for (const kernels::ConvTap& tap : p.taps) {
        low = (std::min)(low, grid.first * pass_.source_step.h + tap.dh);
        high = (std::max)(high, (grid.end - 1) * pass_.source_step.h + tap.dh + 1);
      }
    }
    low = (std::max)(low, Index{0});
    high = (std::min)(high, pass_.source.size.h);
    return {(std::min)(low, high), high};
  }
  /// Rows of a phase's grid within destination rows [begin, end).
  [[nodiscard]] RowRange grid_rows(const ConvPhase& p, Index begin, Index end) const {
    const Index step = pass_.dest_step.h;
    return {(begin + step - 1 - p.origin.h) / step, (end + step - 1 - p.origin.h) / step};
  }

  void lay_out(Tensor<T>& scratch) {
    const auto rounded = [](Index n) { return (n + 15) / 16 * 16; };
    Index packed = 0;
    for (ConvPhase& p : pass_.phases) {
      p.packed = packed;
      const bool alone = form_ == ConvForm::depthwise;
      const Index depth = static_cast<Index>(p.taps.size()) * (alone ? 1 : pass_.channels());
      packed += rounded(QUERN_DISPATCH_AT(level_, conv_packed_size<T>(pass_.outputs(), depth)));
    }
    packed_size_ = packed;
    Index most_rows = 0;
    for (Index b = 0; b < blocks_; ++b) {
      const RowRange rows =
          source_rows(b * block_rows_, (std::min)((b + 1) * block_rows_, pass_.dest.size.h));
      most_rows = (std::max)(most_rows, rows.end - rows.first);
    }
    zeros_size_ = rounded(pass_.channels());
    if (copies_source_) {
      source_size_ = rounded(most_rows * pass_.source.size.w * pass_.channels());
    }
    if (copies_dest_) dest_size_ = rounded(block_rows_ * pass_.dest.size.w * pass_.outputs());
    if (form_ == ConvForm::patch) {
      patch_size_ = rounded(layout_.rows * most_taps_ * pass_.channels());
    }
    const Index workers = worker_count(threads_);
    worker_size_ = source_size_ + dest_size_ + patch_size_;
    scratch.resize({packed * pass_.groups + zeros_size_ + worker_size_ * workers});
    packed_ = scratch.data();
    zeros_ = packed_ + packed * pass_.groups;
    std::fill_n(zeros_, zeros_size_, T{});
    workers_ = zeros_ + zeros_size_;
    pointers_.resize(static_cast<std::size_t>(workers * most_taps_ * layout_.rows + 16));
  }

  void pack() {
    const Index channels = pass_.channels(), outputs = pass_.outputs();
    for (Index g = 0; g < pass_.groups; ++g) {
      const T* const w = pass_.weights + g * pass_.group_stride;
      for (const ConvPhase& p : pass_.phases) {
        T* to = packed_ + g * packed_size_ + p.packed;
        const auto count = static_cast<Index>(p.taps.size());
        if (form_ == ConvForm::depthwise) {
          for (const kernels::ConvTap& tap : p.taps) {
            for (Index c = 0; c < channels; ++c) *to++ = w[tap.weight + c * pass_.group_stride];
          }
          continue;
        }
        if (form_ != ConvForm::narrow) {
          QUERN_DISPATCH_AT(level_,
                            conv_pack_weights<T>(w, pass_.channel_stride, pass_.output_stride,
                                                 p.taps.data(), count, channels, outputs, to));
          continue;
        }
        for (Index o = 0; o < outputs; ++o) {
          for (const kernels::ConvTap& tap : p.taps) {
            const T* const from = w + tap.weight + o * pass_.output_stride;
            for (Index c = 0; c < channels; ++c) *to++ = from[c * pass_.channel_stride];
          }
        }
      }
    }
  }

  void run_block(Index n, Index begin, Index end, Index group) const {
    const Index channels = pass_.channels(), outputs = pass_.outputs();
    const Index worker = this_worker();
    T* const source_scratch = workers_ + worker * worker_size_;
    T* const dest_scratch = source_scratch + source_size_;
    const RowRange rows = source_rows(begin, end);
    const PixelRows<const T> source = fetch_rows<T>(pass_.source, n, group * channels, channels,
                                                    channels, rows.first, rows.end, source_scratch);
    const PixelRows<T> dest = dest_rows(n, group * outputs, begin, dest_scratch);
    kernels::ConvTask<T> task;
    task.source = {.data = source.data,
                   .first_row = rows.first,
                   .row_stride = source.row_stride,
                   .pixel_stride = source.pixel_stride,
                   .image_stride = pass_.source.pixels() * pass_.source.channels,
                   .height = pass_.source.size.h,
                   .width = pass_.source.size.w,
                   .channels = channels,
                   .step_h = pass_.source_step.h,
                   .step_w = pass_.source_step.w};
    task.images = (std::min)(images_, pass_.batch - n);
    task.y_image_stride = pass_.dest.pixels() * pass_.dest.channels;
    task.outputs = outputs;
    task.bias = pass_.bias == nullptr ? nullptr : pass_.bias + group * outputs;
    task.zeros = zeros_;
    task.pointers = const_cast<const T**>(pointers_.data()) + worker * most_taps_ * layout_.rows;
    if (form_ == ConvForm::patch) task.patch = dest_scratch + dest_size_;
    for (const ConvPhase& p : pass_.phases) {
      const RowRange grid = grid_rows(p, begin, end);
      task.source.taps = p.taps.data();
      task.source.tap_count = static_cast<Index>(p.taps.size());
      task.source.run = source.pixel_stride == channels ? tap_run(p.taps) : 1;
      task.row_begin = grid.first;
      task.row_end = grid.end;
      task.grid_width =
          (pass_.dest.size.w + pass_.dest_step.w - 1 - p.origin.w) / pass_.dest_step.w;
      task.weights = packed_ + group * packed_size_ + p.packed;
      const Index row = p.origin.h + grid.first * pass_.dest_step.h - begin;
      task.y = dest.data + row * dest.row_stride + p.origin.w * dest.pixel_stride;
      task.y_row_stride = pass_.dest_step.h * dest.row_stride;
      task.y_pixel_stride = pass_.dest_step.w * dest.pixel_stride;
      run_task(task);
    }
    if (copies_dest_) {
      QUERN_DISPATCH_AT(
          level_, transpose<T>(dest_scratch, outputs, (end - begin) * pass_.dest.size.w, outputs,
                               pass_.dest.at(n, group * outputs, begin), pass_.dest.pixels()));
    }
  }

  void run_task(const kernels::ConvTask<T>& task) const {
    if (form_ == ConvForm::narrow) {
      QUERN_DISPATCH_AT(level_, conv_narrow<T>(task));
    } else if (form_ == ConvForm::depthwise) {
      QUERN_DISPATCH_AT(level_, conv_depthwise<T>(task));
    } else {
      QUERN_DISPATCH_AT(level_, conv_wide<T>(task));
    }
  }

  [[nodiscard]] PixelRows<T> dest_rows(Index n, Index channel, Index begin, T* scratch) const {
    const Index width = pass_.dest.size.w;
    if (copies_dest_) return {scratch, width * pass_.outputs(), pass_.outputs()};
    return {pass_.dest.at(n, channel, begin), width * pass_.dest.pixel_stride(),
            pass_.dest.pixel_stride()};
  }

  ConvPass<T> pass_;
  simd::Level level_;
  int threads_;
  kernels::ConvLayout layout_;
  ConvForm form_ = ConvForm::wide;
  Index most_taps_ = 0;
  Index block_rows_ = 1, blocks_ = 0, images_ = 1;
  bool copies_source_ = false, copies_dest_ = false;
  Index packed_size_ = 0, zeros_size_ = 0, source_size_ = 0, dest_size_ = 0, patch_size_ = 0;
  Index worker_size_ = 0;
  T* packed_ = nullptr;
  T* zeros_ = nullptr;
  T* workers_ = nullptr;
  std::vector<const T*> pointers_;
};

/// y = conv(x, w) + bias (null: none). `scratch` keeps memory for the next time.
template <class T>
void conv_forward(const ConvGeometry& g, const T* x, const T* w, const T* bias, T* y,
                  Tensor<T>& scratch, int threads) {
  ConvRunner<T>(forward_pass<T>(g, x, w, bias, y), scratch, threads).run();
}
/// dx = gradient of x; with a bias, a transposed convolution.
template <class T>
void conv_backward_data(const ConvGeometry& g, const T* dy, const T* w, const T* bias, T* dx,
                        Tensor<T>& scratch, int threads) {
  ConvRunner<T>(backward_pass<T>(g, dy, w, bias, dx), scratch, threads).run();
}

}  // namespace detail
}  // namespace nn
QUERN_NAMESPACE_END

#endif  // QUERN_NN_DETAIL_CONV_PASS_HPP
