// SPDX-License-Identifier: Apache-2.0

/// \file
/// Convolutions over a batch, cut into tasks: values, gradient of the input, gradient of the
/// weights. All three are run on kernels/conv-inl.hpp, which wants the channels of a pixel side by
/// side: images with planes of channels are transposed a few rows at a time into a task's own
/// memory. Nothing the size of the data is ever written beside it. Where fewer products do
/// (conv_minimal.hpp), they are run on kernels/conv_minimal-inl.hpp.
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
#include "quern/kernels/conv_minimal_types.hpp"
#include "quern/kernels/conv_types.hpp"
#include "quern/kernels/kernels.hpp"
#include "quern/nn/detail/conv_geometry.hpp"
#include "quern/nn/detail/conv_minimal.hpp"
#include "quern/nn/tensor.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <utility>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace nn {
namespace detail {

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
      form_ = ConvForm::padded;
    }
    if (form_ == ConvForm::wide || form_ == ConvForm::padded) choose_minimal();
  }

  void choose_minimal() {
    if (pass_.algorithm == ConvAlgorithm::direct) return;
    const Size2 step = pass_.source_step;
    for (const ConvPhase& p : pass_.phases) {
      minimal_.push_back(minimal_taps(p.taps, step));
      const Index taps = minimal_.back().taps;
      if (taps == 0 || taps != minimal_.front().taps) return;
      const Size2 grid{(pass_.dest.size.h + pass_.dest_step.h - 1 - p.origin.h) / pass_.dest_step.h,
                       grid_width(p)};
      if (pass_.algorithm == ConvAlgorithm::automatic &&
          !minimal_pays(grid, taps, step.h * step.w * pass_.channels(), pass_.outputs())) {
        return;
      }
    }
    if (!minimal_.empty()) form_ = ConvForm::minimal;
  }

  /// Blocks of destination rows: about a thousand positions, whole phases and tiles.
  void choose_blocks() {
    const Index tile = form_ == ConvForm::minimal ? 5 - minimal_.front().taps : 1;
    const Index step = pass_.dest_step.h * tile, height = pass_.dest.size.h;
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
    RowRange rows = wanted_rows(begin, end);
    rows.first = (std::max)(rows.first, Index{0});
    rows.end = (std::min)(rows.end, pass_.source.size.h);
    return {(std::min)(rows.first, rows.end), rows.end};
  }
  /// The same with those outside the image.
  [[nodiscard]] RowRange wanted_rows(Index begin, Index end) const {
    RowRange rows{pass_.source.size.h, 0};
    for (const ConvPhase& p : pass_.phases) {
      const RowRange grid = grid_rows(p, begin, end);
      if (grid.first >= grid.end) continue;
      for (const kernels::ConvTap& tap : p.taps) {
        rows.first = (std::min)(rows.first, grid.first * pass_.source_step.h + tap.dh);
        rows.end = (std::max)(rows.end, (grid.end - 1) * pass_.source_step.h + tap.dh + 1);
      }
    }
    return rows.first < rows.end ? rows : RowRange{0, 0};
  }
  /// Columns that a row of the destination reads.
  [[nodiscard]] RowRange wanted_columns() const {
    RowRange columns{0, pass_.source.size.w};
    for (const ConvPhase& p : pass_.phases) {
      for (const kernels::ConvTap& tap : p.taps) {
        columns.first = (std::min)(columns.first, tap.dw);
        columns.end =
            (std::max)(columns.end, (grid_width(p) - 1) * pass_.source_step.w + tap.dw + 1);
      }
    }
    return columns;
  }
  /// Grids that the source's steps cut its taps into.
  [[nodiscard]] Index parts() const { return pass_.source_step.h * pass_.source_step.w; }
  [[nodiscard]] Index grid_width(const ConvPhase& p) const {
    return (pass_.dest.size.w + pass_.dest_step.w - 1 - p.origin.w) / pass_.dest_step.w;
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
      if (form_ == ConvForm::minimal) {
        packed += rounded(QUERN_DISPATCH_AT(
            level_, conv_minimal_weights_size<T>(pass_.outputs(), parts() * pass_.channels())));
        continue;
      }
      const bool alone = form_ == ConvForm::depthwise;
      const Index depth = static_cast<Index>(p.taps.size()) * (alone ? 1 : pass_.channels());
      packed += rounded(QUERN_DISPATCH_AT(level_, conv_packed_size<T>(pass_.outputs(), depth)));
    }
    packed_size_ = packed;
    Index most_rows = 0, padded_rows = 0;
    for (Index b = 0; b < blocks_; ++b) {
      const Index begin = b * block_rows_;
      const Index end = (std::min)(begin + block_rows_, pass_.dest.size.h);
      const RowRange rows = source_rows(begin, end), wanted = wanted_rows(begin, end);
      most_rows = (std::max)(most_rows, rows.end - rows.first);
      padded_rows = (std::max)(padded_rows, wanted.end - wanted.first);
    }
    zeros_size_ = rounded(pass_.channels());
    if (copies_source_) {
      source_size_ = rounded(most_rows * pass_.source.size.w * pass_.channels());
    }
    if (copies_dest_) dest_size_ = rounded(block_rows_ * pass_.dest.size.w * pass_.outputs());
    if (form_ == ConvForm::padded) {
      const RowRange columns = wanted_columns();
      padded_size_ =
          rounded(images_ * padded_rows * (columns.end - columns.first) * pass_.channels());
    }
    const Index workers = worker_count(threads_);
    Index plain = 0;  // weights before they are transformed: where workers' memory will be
    if (form_ == ConvForm::minimal) {
      const Index depth = parts() * pass_.channels(), outputs = pass_.outputs();
      tiles_ = minimal_tiles(depth, outputs, 12288);
      source_panels_ = QUERN_DISPATCH_AT(level_, conv_minimal_panels<T>(tiles_, depth));
      output_panels_ = QUERN_DISPATCH_AT(level_, conv_minimal_panels<T>(tiles_, outputs));
      plain = QUERN_DISPATCH_AT(
          level_, conv_packed_size<T>(pass_.outputs(), most_taps_ * pass_.channels()));
    }
    worker_size_ = source_size_ + dest_size_ + padded_size_ + source_panels_ + output_panels_;
    scratch.resize(
        {packed * pass_.groups + zeros_size_ + (std::max)(worker_size_ * workers, plain)});
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
      if (form_ == ConvForm::minimal) {
        pack_minimal(w, packed_ + g * packed_size_);
        continue;
      }
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

  void pack_minimal(const T* w, T* to) {
    const Index channels = pass_.channels(), outputs = pass_.outputs();
    for (std::size_t p = 0; p < minimal_.size(); ++p) {
      const MinimalTaps& taps = minimal_[p];
      QUERN_DISPATCH_AT(
          level_,
          conv_pack_weights<T>(w, pass_.channel_stride, pass_.output_stride, taps.all.data(),
                               static_cast<Index>(taps.all.size()), channels, outputs, workers_));
      QUERN_DISPATCH_AT(level_, conv_minimal_weights<T>(workers_, taps.taps, parts(), channels,
                                                        outputs, to + pass_.phases[p].packed));
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
    const bool padded = form_ == ConvForm::padded;
    const RowRange wanted = wanted_rows(begin, end), columns = wanted_columns();
    if (padded) pad(task, rows, wanted, columns, dest_scratch + dest_size_);
    std::vector<kernels::ConvTap> joined;
    for (std::size_t phase = 0; phase < pass_.phases.size(); ++phase) {
      const ConvPhase& p = pass_.phases[phase];
      const RowRange grid = grid_rows(p, begin, end);
      task.source.taps = p.taps.data();
      task.source.tap_count = static_cast<Index>(p.taps.size());
      if (form_ == ConvForm::minimal) {
        task.source.taps = minimal_[phase].corners.data();
        task.source.tap_count = parts();
      }
      if (padded) {
        const Index run = join_taps(p.taps, {wanted.first, columns.first}, joined);
        task.source.taps = joined.data();
        task.source.tap_count = static_cast<Index>(joined.size());
        task.source.channels = run * channels;
      }
      task.row_begin = grid.first;
      task.row_end = grid.end;
      task.grid_width = grid_width(p);
      task.weights = packed_ + group * packed_size_ + p.packed;
      const Index row = p.origin.h + grid.first * pass_.dest_step.h - begin;
      task.y = dest.data + row * dest.row_stride + p.origin.w * dest.pixel_stride;
      task.y_row_stride = pass_.dest_step.h * dest.row_stride;
      task.y_pixel_stride = pass_.dest_step.w * dest.pixel_stride;
      run_task(task, dest_scratch + dest_size_);
    }
    if (copies_dest_) {
      QUERN_DISPATCH_AT(
          level_, transpose<T>(dest_scratch, outputs, (end - begin) * pass_.dest.size.w, outputs,
                               pass_.dest.at(n, group * outputs, begin), pass_.dest.pixels()));
    }
  }

  /// Makes the task's source a copy of `wanted` rows and columns, with zeros outside the image.
  void pad(kernels::ConvTask<T>& task, RowRange rows, RowRange wanted, RowRange columns,
           T* to) const {
    kernels::ConvSource<T>& s = task.source;
    const Index channels = s.channels, width = columns.end - columns.first;
    const Index size = (wanted.end - wanted.first) * width * channels;
    std::fill_n(to, size * task.images, T{});
    for (Index i = 0; i < task.images; ++i) {
      for (Index row = rows.first; row < rows.end; ++row) {
        const T* from = s.data + i * s.image_stride + (row - rows.first) * s.row_stride;
        T* at = to + i * size + ((row - wanted.first) * width - columns.first) * channels;
        if (s.pixel_stride == channels) {
          std::copy_n(from, s.width * channels, at);
          continue;
        }
        for (Index w = 0; w < s.width; ++w, from += s.pixel_stride, at += channels) {
          std::copy_n(from, channels, at);
        }
      }
    }
    s.data = to;
    s.first_row = 0;
    s.row_stride = width * channels;
    s.pixel_stride = channels;
    s.image_stride = size;
    s.height = wanted.end - wanted.first;
    s.width = width;
  }
  /// Runs of taps as single ones, from the copy's corner. Returns how long they are.
  static Index join_taps(const std::vector<kernels::ConvTap>& taps, Size2 corner,
                         std::vector<kernels::ConvTap>& joined) {
    const auto run = static_cast<std::size_t>(tap_run(taps));
    joined.clear();
    for (std::size_t t = 0; t < taps.size(); t += run) {
      joined.push_back({taps[t].dh - corner.h, taps[t].dw - corner.w, taps[t].weight});
    }
    return static_cast<Index>(run);
  }

  void run_task(const kernels::ConvTask<T>& task, T* panels) const {
    if (form_ == ConvForm::minimal) {
      const kernels::ConvMinimalTask<T> minimal{task, minimal_.front().taps, tiles_, panels,
                                                panels + source_panels_};
      QUERN_DISPATCH_AT(level_, conv_minimal<T>(minimal));
    } else if (form_ == ConvForm::narrow) {
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
  std::vector<MinimalTaps> minimal_;  ///< of the phases, where the form is minimal
  Index most_taps_ = 0;
  Index block_rows_ = 1, blocks_ = 0, images_ = 1;
  bool copies_source_ = false, copies_dest_ = false;
  Index packed_size_ = 0, zeros_size_ = 0, source_size_ = 0, dest_size_ = 0, padded_size_ = 0;
  Index tiles_ = 0, source_panels_ = 0, output_panels_ = 0;
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
