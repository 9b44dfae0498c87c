// SPDX-License-Identifier: Apache-2.0

/// \file
/// Gradients of a convolution's weights and bias over a batch. Positions are cut into at most 16
/// chunks that follow from the shapes; each sums into memory of its own, and these are added in
/// order.

#ifndef QUERN_NN_DETAIL_CONV_WEIGHTS_HPP
#define QUERN_NN_DETAIL_CONV_WEIGHTS_HPP

#include "quern/core/config.hpp"
#include "quern/core/nd_view.hpp"
#include "quern/core/parallel.hpp"
#include "quern/kernels/conv_minimal_types.hpp"
#include "quern/kernels/conv_types.hpp"
#include "quern/kernels/kernels.hpp"
#include "quern/nn/detail/column_sums.hpp"
#include "quern/nn/detail/conv_minimal.hpp"
#include "quern/nn/detail/conv_pass.hpp"
#include "quern/nn/tensor.hpp"

#include <algorithm>
#include <cstddef>
#include <span>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace nn {
namespace detail {

/// dw += gradient of the weights.
template <class T>
class ConvWeightsRunner {
 public:
  ConvWeightsRunner(const ConvGeometry& g, const T* x, const T* dy, Tensor<T>& scratch, int threads)
      : g_(g),
        x_{x, g.x, g.x_channels, g.channels_last},
        dy_{dy, g.y, g.y_channels, g.channels_last},
        taps_(forward_pass<T>(g, x, nullptr, nullptr, nullptr).phases[0].taps),
        level_(simd::active_level()),
        threads_(threads) {
    layout_ = QUERN_DISPATCH_AT(level_, conv_layout<T>());
    depthwise_ = g.groups > 1 && g.x_each() == 1 && g.y_each() == 1;
    if (depthwise_) g_.groups = 1;
    choose_form();
    tap_of_.assign(static_cast<std::size_t>(g.taps()), Index{-1});
    for (std::size_t t = 0; t < taps_.size(); ++t) {
      tap_of_[static_cast<std::size_t>(taps_[t].weight)] = static_cast<Index>(t);
    }
    choose_chunks();
    lay_out(scratch);
  }

  void run(std::span<T> dw) {
    if (taps_.empty()) return;
    parallel_for(
        chunks_,
        [&](Index chunk) {
          T* const out = parts_ + chunk * part_size_;
          std::fill_n(out, part_size_, T{});
          for (Index group = 0; group < g_.groups; ++group) run_chunk(chunk, group);
        },
        threads_);
    add_chunks();
    if (minimal()) make_taps();
    if (depthwise_) {
      for (std::size_t t = 0; t < taps_.size(); ++t) collect_depthwise(static_cast<Index>(t), dw);
      return;
    }
    const Index rows = swapped_ ? g_.y_each() : g_.x_each();
    parallel_for(
        g_.groups * rows, [&](Index i) { collect(i / rows, i % rows, dw); }, threads_);
  }

 private:
  static Index rounded(Index n, Index to) { return (n + to - 1) / to * to; }
  [[nodiscard]] bool minimal() const { return minimal_.taps > 0; }
  /// Channels of all grids of taps side by side.
  [[nodiscard]] Index depth() const { return g_.stride.h * g_.stride.w * g_.x_each(); }

  /// Takes minimal filtering where it can be had and pays.
  bool choose_minimal() {
    if (g_.algorithm == ConvAlgorithm::direct || depthwise_) return false;
    minimal_ = minimal_taps(taps_, g_.stride);
    if (!minimal()) return false;
    if (g_.algorithm == ConvAlgorithm::automatic &&
        !minimal_pays(g_.y, minimal_.taps, depth(), g_.y_each())) {
      minimal_ = {};
      return false;
    }
    taps_ = minimal_.all;
    singles_ = g_.x_each();
    padded_ = rounded(g_.y_each(), layout_.lanes);
    out_taps_ = kernels::kMinimalPoints * g_.stride.h * g_.stride.w;
    return true;
  }

  void choose_form() {
    const Index cx = g_.x_each(), cy = g_.y_each(), lanes = layout_.lanes;
    if (choose_minimal()) return;
    if (depthwise_) {
      singles_ = 1;
      padded_ = rounded(cy, lanes);
      out_taps_ = static_cast<Index>(taps_.size());
      return;
    }
    // Fewer singles than a tile has rows leave most of its sums empty.
    const auto cost = [&](Index singles, Index vectors) {
      return (std::max)(singles, Index{4}) * rounded(vectors, lanes);
    };
    patch_ = cx < 8 && taps_.size() > 1;
    const Index singles = patch_ ? cx * static_cast<Index>(taps_.size()) : cx;
    const Index scale = patch_ ? static_cast<Index>(taps_.size()) : 1;
    swapped_ = scale * cost(cy, cx) < cost(singles, cy);
    if (swapped_) patch_ = false;
    singles_ = swapped_ ? cy : (patch_ ? singles : cx);
    padded_ = rounded(swapped_ ? cx : cy, lanes);
    out_taps_ = patch_ ? 1 : static_cast<Index>(taps_.size());
  }

  /// Each chunk's sums at the points are set to zero, and added: tiles enough to be worth that.
  [[nodiscard]] Index minimal_chunks() const {
    const Index each = 5 - minimal_.taps;
    const Index tiles = g_.batch * block_count(g_.y.h, each) * block_count(g_.y.w, each);
    return (std::max)(Index{1}, tiles / 384);
  }

  /// Rows of y over all images, cut into equal chunks.
  void choose_chunks() {
    const double work = static_cast<double>(g_.batch * g_.y.h * g_.y.w) *
                        static_cast<double>(g_.y_channels * (depthwise_ ? 1 : g_.x_each())) *
                        static_cast<double>(taps_.size());
    part_size_ = g_.groups * out_taps_ * singles_ * padded_;
    const Index by_work = static_cast<Index>(work / 1e7);
    const Index by_memory = (Index{4} << 20) / (std::max)(Index{1}, part_size_);
    const Index rows = g_.batch * g_.y.h;
    chunks_ = (std::clamp)((std::min)(by_work, by_memory), Index{1}, Index{16});
    if (minimal()) chunks_ = (std::min)(chunks_, minimal_chunks());
    if (by_work >= 4 && !minimal()) chunks_ = (std::max)(chunks_, Index{4});
    chunk_rows_ = (std::max)(Index{1}, (rows + chunks_ - 1) / chunks_);
    if (minimal() && g_.batch >= 2 * chunks_) chunk_rows_ = rounded(chunk_rows_, g_.y.h);
    chunks_ = block_count(rows, chunk_rows_);
    if (minimal()) {
      const Index tile = 5 - minimal_.taps, wanted = 1024 / (std::max)(Index{1}, g_.y.w);
      block_rows_ = (std::min)(rounded((std::max)(Index{1}, wanted), tile), g_.y.h);
      const bool copies = !g_.channels_last && (g_.x_each() > 1 || g_.y_each() > 1);
      if (block_rows_ == g_.y.h && !copies) images_ = (std::max)(Index{1}, wanted / g_.y.h);
      return;
    }
    block_rows_ =
        (std::clamp)(128 / (std::max)(Index{1}, g_.y.w), Index{1}, (std::max)(Index{1}, g_.y.h));
  }

  void lay_out(Tensor<T>& scratch) {
    Index low = 0, high = 0;
    for (const kernels::ConvTap& tap : taps_) {
      low = (std::min)(low, tap.dh);
      high = (std::max)(high, tap.dh);
    }
    const Index source_rows = (std::min)(g_.x.h, (block_rows_ - 1) * g_.stride.h + high - low + 1);
    const Index x_padded = swapped_ || depthwise_ ? padded_ : g_.x_each();
    const Index y_padded = swapped_ || minimal() ? g_.y_each() : padded_;
    x_size_ = rounded(source_rows * g_.x.w * x_padded, 16);
    y_size_ = rounded(block_rows_ * g_.y.w * y_padded, 16);
    patch_size_ = patch_ ? rounded(block_rows_ * g_.y.w * singles_, 16) : 0;
    if (minimal()) {
      tiles_ = minimal_tiles(depth(), g_.y_each(), 24576);
      source_panels_ = QUERN_DISPATCH_AT(level_, conv_minimal_panels<T>(tiles_, depth()));
      gradient_panels_ = QUERN_DISPATCH_AT(level_, conv_minimal_panels<T>(tiles_, g_.y_each()));
      zeros_size_ = rounded(g_.x_each(), 16);
      sums_size_ = g_.groups * static_cast<Index>(taps_.size()) * singles_ * padded_;
    }
    worker_size_ = x_size_ + y_size_ + patch_size_ + source_panels_ + gradient_panels_;
    const Index workers = worker_count(threads_);
    scratch.resize({chunks_ * part_size_ + zeros_size_ + sums_size_ + worker_size_ * workers});
    parts_ = scratch.data();
    zeros_ = parts_ + chunks_ * part_size_;
    std::fill_n(zeros_, zeros_size_, T{});
    sums_ = minimal() ? zeros_ + zeros_size_ : parts_;
    workers_ = zeros_ + zeros_size_ + sums_size_;
    runs_.resize(static_cast<std::size_t>(workers * block_rows_));
  }

  void run_chunk(Index chunk, Index group) {
    const Index rows = g_.batch * g_.y.h;
    const Index end = (std::min)((chunk + 1) * chunk_rows_, rows);
    T* const out = parts_ + chunk * part_size_ + group * (part_size_ / g_.groups);
    for (Index row = chunk * chunk_rows_; row < end;) {
      const Index n = row / g_.y.h, first = row % g_.y.h;
      if (minimal() && first == 0 && row + g_.y.h <= end && images_ > 1) {
        const Index images = (std::min)(images_, (end - row) / g_.y.h);
        run_minimal(n, images, group, 0, g_.y.h, out);
        row += images * g_.y.h;
        continue;
      }
      const Index count = (std::min)({block_rows_, g_.y.h - first, end - row});
      if (minimal()) {
        run_minimal(n, 1, group, first, first + count, out);
      } else {
        run_rows(n, group, first, first + count, out);
      }
      row += count;
    }
  }

  /// Rows of the source that some rows of y meet.
  [[nodiscard]] BlockRange source_rows(Index begin, Index end) const {
    Index low = g_.x.h, high = 0;
    for (const kernels::ConvTap& tap : taps_) {
      low = (std::min)(low, begin * g_.stride.h + tap.dh);
      high = (std::max)(high, (end - 1) * g_.stride.h + tap.dh + 1);
    }
    return {(std::max)(low, Index{0}), (std::min)(high, g_.x.h)};
  }

  void run_minimal(Index n, Index images, Index group, Index begin, Index end, T* out) {
    const Index cx = g_.x_each(), cy = g_.y_each();
    const BlockRange rows = source_rows(begin, end);
    if (rows.begin >= rows.end) return;
    T* const x_scratch = workers_ + this_worker() * worker_size_;
    T* const y_scratch = x_scratch + x_size_;
    const PixelRows<const T> x =
        fetch_rows<T>(x_, n, group * cx, cx, cx, rows.begin, rows.end, x_scratch);
    const PixelRows<const T> dy = fetch_rows<T>(dy_, n, group * cy, cy, cy, begin, end, y_scratch);
    kernels::ConvMinimalGradient<T> task;
    task.conv.source = {.data = x.data,
                        .first_row = rows.begin,
                        .row_stride = x.row_stride,
                        .pixel_stride = x.pixel_stride,
                        .image_stride = x_.pixels() * x_.channels,
                        .height = g_.x.h,
                        .width = g_.x.w,
                        .channels = cx,
                        .step_h = g_.stride.h,
                        .step_w = g_.stride.w,
                        .taps = minimal_.corners.data(),
                        .tap_count = static_cast<Index>(minimal_.corners.size())};
    task.conv.row_begin = begin;
    task.conv.row_end = end;
    task.conv.grid_width = g_.y.w;
    task.conv.images = images;
    task.conv.outputs = cy;
    task.conv.y_row_stride = dy.row_stride;
    task.conv.y_pixel_stride = dy.pixel_stride;
    task.conv.y_image_stride = dy_.pixels() * dy_.channels;
    task.conv.zeros = zeros_;
    task.dy = dy.data;
    task.taps = minimal_.taps;
    task.tiles = tiles_;
    task.source_panels = y_scratch + y_size_;
    task.gradient_panels = task.source_panels + source_panels_;
    task.sums = out;
    QUERN_DISPATCH_AT(level_, conv_minimal_gradient<T>(task));
  }

  /// Taps from the sums at the points.
  void make_taps() {
    const Index side = minimal_.taps, cx = g_.x_each(), row = singles_ * padded_;
    const Index part_count = static_cast<Index>(minimal_.corners.size());
    const Index each = part_size_ / g_.groups, made = sums_size_ / g_.groups;
    parallel_for(
        g_.groups * part_count * cx,
        [&](Index i) {
          const Index group = i / (part_count * cx), part = i / cx % part_count, c = i % cx;
          QUERN_DISPATCH_AT(
              level_,
              conv_minimal_taps<T>(parts_ + group * each + (part * cx + c) * padded_, side, padded_,
                                   part_count * row, row,
                                   sums_ + group * made + part * side * side * row + c * padded_));
        },
        threads_);
  }

  void run_rows(Index n, Index group, Index begin, Index end, T* out) {
    const Index cx = g_.x_each(), cy = g_.y_each(), worker = this_worker();
    const auto [low, high] = source_rows(begin, end);
    if (low >= high) return;
    T* const x_scratch = workers_ + worker * worker_size_;
    T* const y_scratch = x_scratch + x_size_;
    const PixelRows<const T> x = fetch_rows<T>(
        x_, n, group * cx, cx, swapped_ || depthwise_ ? padded_ : cx, low, high, x_scratch);
    const PixelRows<const T> dy =
        fetch_rows<T>(dy_, n, group * cy, cy, swapped_ ? cy : padded_, begin, end, y_scratch);
    kernels::ConvWeightsTask<T> task;
    task.source = {.data = x.data,
                   .first_row = low,
                   .row_stride = x.row_stride,
                   .pixel_stride = x.pixel_stride,
                   .height = g_.x.h,
                   .width = g_.x.w,
                   .channels = cx,
                   .step_h = g_.stride.h,
                   .step_w = g_.stride.w,
                   .taps = taps_.data(),
                   .tap_count = static_cast<Index>(taps_.size()),
                   .run = x.pixel_stride == cx ? tap_run(taps_) : 1};
    task.row_begin = begin;
    task.row_end = end;
    task.grid_width = g_.y.w;
    task.dy = dy.data;
    task.dy_row_stride = dy.row_stride;
    task.dy_pixel_stride = dy.pixel_stride;
    task.singles = singles_;
    task.vectors = padded_ / layout_.lanes;
    task.source_by_vectors = swapped_;
    task.out = out;
    task.out_stride = padded_;
    if (depthwise_) {
      QUERN_DISPATCH_AT(level_,
                        conv_depthwise_weights<T>(task, runs_.data() + worker * block_rows_));
      return;
    }
    const kernels::ConvTap here{};
    if (patch_) {
      T* const patches = y_scratch + y_size_;
      QUERN_DISPATCH_AT(level_, conv_patches<T>(task, patches));
      task.source = {.data = patches,
                     .first_row = begin,
                     .row_stride = g_.y.w * singles_,
                     .pixel_stride = singles_,
                     .height = end,
                     .width = g_.y.w,
                     .channels = singles_,
                     .taps = &here,
                     .tap_count = 1};
    }
    QUERN_DISPATCH_AT(level_, conv_weights<T>(task, runs_.data() + worker * block_rows_));
  }

  /// The chunks' sums, in order, into the first.
  void add_chunks() {
    constexpr Index block = 16384;
    if (chunks_ < 2) return;
    parallel_for(
        block_count(part_size_, block),
        [&](Index b) {
          const BlockRange r = block_range(part_size_, block, b);
          for (Index chunk = 1; chunk < chunks_; ++chunk) {
            QUERN_DISPATCH_AT(level_,
                              axpy<T>(T{1}, parts_ + chunk * part_size_ + r.begin,
                                      static_cast<std::size_t>(r.size()), parts_ + r.begin));
          }
        },
        threads_);
  }

  /// Adds one row of a group's sums (of all taps) into the weights' layout.
  void collect(Index group, Index i, std::span<T> dw) const {
    const Index cx = g_.x_each(), cy = g_.y_each(), taps = g_.taps();
    const Index tap_step = (patch_ ? cx : singles_) * padded_;
    const Index size = minimal() ? sums_size_ : part_size_;
    const T* const from = sums_ + group * (size / g_.groups) + i * padded_;
    T* const to = dw.data() + group * cy * cx * taps;
    const Index cols = swapped_ ? cx : cy, step = swapped_ ? taps : cx * taps;
    T* const first = to + (swapped_ ? i * cx : i) * taps;
    // A weight's taps become a line of their own before they are added: one by one, lines a power
    // of two apart waited for each other.
    constexpr Index some = 16, wide = 64;
    T copied[some * wide], lines[wide * some];
    for (Index w0 = 0; w0 < taps; w0 += some) {
      const Index ws = (std::min)(some, taps - w0);
      for (Index j0 = 0; j0 < cols; j0 += wide) {
        const Index js = (std::min)(wide, cols - j0);
        for (Index w = 0; w < ws; ++w) {
          const Index t = tap_of_[static_cast<std::size_t>(w0 + w)];
          if (t < 0) {
            std::fill_n(copied + w * wide, js, T{});
          } else {
            std::copy_n(from + t * tap_step + j0, js, copied + w * wide);
          }
        }
        QUERN_DISPATCH_AT(level_, transpose<T>(copied, wide, ws, js, lines, some));
        for (Index j = 0; j < js; ++j) {
          QUERN_DISPATCH_AT(level_, axpy<T>(T{1}, lines + j * some, static_cast<std::size_t>(ws),
                                            first + (j0 + j) * step + w0));
        }
      }
    }
  }

  void collect_depthwise(Index t, std::span<T> dw) const {
    T* const to = dw.data() + taps_[static_cast<std::size_t>(t)].weight;
    for (Index c = 0; c < g_.y_channels; ++c) to[c * g_.taps()] += parts_[t * padded_ + c];
  }

  ConvGeometry g_;
  ImageBatch<const T> x_, dy_;
  std::vector<kernels::ConvTap> taps_;
  std::vector<Index> tap_of_;  ///< which of taps_ a weight's place is; -1: none, it is masked
  simd::Level level_;
  int threads_;
  kernels::ConvLayout layout_;
  bool patch_ = false, swapped_ = false, depthwise_ = false;
  MinimalTaps minimal_;  ///< no taps where minimal filtering has no part
  Index singles_ = 0, padded_ = 0, out_taps_ = 0;
  Index part_size_ = 0, chunks_ = 0, chunk_rows_ = 0, block_rows_ = 0;
  Index x_size_ = 0, y_size_ = 0, patch_size_ = 0, worker_size_ = 0;
  Index tiles_ = 0, source_panels_ = 0, gradient_panels_ = 0, zeros_size_ = 0, sums_size_ = 0,
        images_ = 1;
  T* parts_ = nullptr;
  T* zeros_ = nullptr;
  T* sums_ = nullptr;  ///< of the taps: parts_, but for minimal filtering
  T* workers_ = nullptr;
  std::vector<kernels::ConvRun<T>> runs_;
};

template <class T>
void conv_backward_weights(const ConvGeometry& g, const T* x, const T* dy, std::span<T> dw,
                           Tensor<T>& scratch, int threads) {
  ConvWeightsRunner<T>(g, x, dy, scratch, threads).run(dw);
}

/// sums[c] += sum over all pixels of channel c.
template <class T>
void add_channel_sums(const ImageBatch<const T>& image, Index batch, std::span<T> sums,
                      int threads) {
  if (image.channels_last) {
    add_column_sums<T>(MatrixView<const T>(image.data, {batch * image.pixels(), image.channels}),
                       sums, threads);
    return;
  }
  parallel_for(
      image.channels,
      [&](Index c) {
        double total = 0;
        for (Index n = 0; n < batch; ++n) {
          total += QUERN_DISPATCH(sum(image.at(n, c, 0), static_cast<std::size_t>(image.pixels())));
        }
        sums[static_cast<std::size_t>(c)] += static_cast<T>(total);
      },
      threads);
}

}  // namespace detail
}  // namespace nn
QUERN_NAMESPACE_END

#endif  // QUERN_NN_DETAIL_CONV_WEIGHTS_HPP
