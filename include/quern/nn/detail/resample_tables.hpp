// SPDX-License-Identifier: Apache-2.0

/// \file
/// Weights of an axis as the kernels read them, and planes shared out among threads.

#ifndef QUERN_NN_DETAIL_RESAMPLE_TABLES_HPP
#define QUERN_NN_DETAIL_RESAMPLE_TABLES_HPP

#include "quern/core/buffer.hpp"
#include "quern/core/config.hpp"
#include "quern/core/parallel.hpp"
#include "quern/kernels/kernels.hpp"
#include "quern/kernels/resample_types.hpp"
#include "quern/nn/resample_weights.hpp"

#include <algorithm>
#include <cstddef>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace nn {
namespace detail {

/// Pixels of fewer numbers than this are resampled number by number, along the row.
inline constexpr Index whole_pixels = 8;
/// A result from this size on is written around the caches.
inline constexpr Index resample_stream_bytes = Index{8} << 20;
/// About as much result is one task.
inline constexpr Index resample_task_bytes = Index{512} << 10;

/// A table and its memory. `channels` numbers of a pixel lie side by side along the row and are
/// told apart by the table; 1 for the other axis, and where pixels are resampled whole.
template <class T>
class TableOf {
 public:
  TableOf(const AxisWeights& w, Index channels, Index lanes) {
    const Index n = w.out * channels;
    const Index padded = block_count(n, lanes) * lanes;
    const auto size = [](Index i) { return static_cast<std::size_t>(i); };
    first_.resize(size(n));
    weights_.assign(size(padded * w.taps), T(0));
    for (Index o = 0; o < n; ++o) {
      first_[size(o)] = w.first[size(o / channels)] * channels + o % channels;
      for (Index t = 0; t < w.taps; ++t) {
        weights_[size(t * padded + o)] = static_cast<T>(w.weight(o / channels, t));
      }
    }
    lay_out(n, lanes, padded);
    table_.in = w.in * channels;
    table_.out = n;
    table_.taps = w.taps;
    table_.padded = padded;
    table_.first = first_.data();
    table_.weights = weights_.data();
    table_.identity = w.identity();
    table_.tap_stride = channels;
    table_.base = base_.data();
    table_.lane = lane_.data();
  }
  TableOf(const TableOf&) = delete;
  TableOf& operator=(const TableOf&) = delete;
  [[nodiscard]] const kernels::ResampleTable<T>& table() const { return table_; }

 private:
  void lay_out(Index n, Index lanes, Index padded) {
    base_.resize(static_cast<std::size_t>(padded / lanes));
    lane_.assign(static_cast<std::size_t>(padded), 0);
    Index widest = 0;
    for (std::size_t b = 0; b < base_.size(); ++b) {
      const auto from = first_.begin() + static_cast<Index>(b) * lanes;
      const auto to = first_.begin() + (std::min)(n, (static_cast<Index>(b) + 1) * lanes);
      base_[b] = *std::min_element(from, to);
      for (auto at = from; at != to; ++at) {
        widest = (std::max)(widest, *at - base_[b]);
        lane_[static_cast<std::size_t>(at - first_.begin())] =
            static_cast<kernels::LaneInt<T>>(*at - base_[b]);
      }
    }
    table_.reach = widest < lanes ? 1 : widest < 2 * lanes ? 2 : 0;
  }

  std::vector<std::ptrdiff_t> first_, base_;
  std::vector<T> weights_;
  std::vector<kernels::LaneInt<T>> lane_;
  kernels::ResampleTable<T> table_;
};

/// `planes` planes of down.in x across.in pixels of `channels` numbers, one after the other.
template <class T>
struct PlaneJob {
  const T* in = nullptr;
  T* out = nullptr;
  Index planes = 0;
  Index channels = 1;
  bool streams = false;
};

template <class T>
void resample_planes(const AxisWeights& across, const AxisWeights& down, const PlaneJob<T>& job,
                     int threads) {
  const simd::Level level = simd::active_level();
  const Index lanes = QUERN_DISPATCH_AT(level, resample_lanes<T>());
  const bool whole = job.channels >= whole_pixels;
  const TableOf<T> row(across, whole ? 1 : job.channels, lanes), column(down, 1, lanes);
  const Index width = across.out * job.channels;
  const Index row_bytes = (std::max)(width, Index{1}) * static_cast<Index>(sizeof(T));
  const Index rows = (std::max)(Index{8}, resample_task_bytes / row_bytes);
  const Index pieces = block_count(down.out, rows);
  // Planes that are much less than a task's worth go together.
  const Index together =
      pieces > 1 ? 1 : (std::max)(Index{1}, rows / (std::max)(down.out, Index{1}));
  const Index taps = (std::max)(across.taps, down.taps);
  const Index stride = block_count(width, 64) * 64 + lanes;
  const Index source = across.in * job.channels;
  const bool adds_first =
      QUERN_DISPATCH_AT(level, resample_adds_first<T>(row.table(), column.table()));
  const Index ring = adds_first          ? (block_count(source, 64) + block_count(width, 64)) * 64
                     : across.identity() ? 0
                                         : stride * down.taps;
  const Index tasks = block_count(job.planes, together) * pieces;
  const Index workers = (std::min)(tasks, Index{worker_count(threads)});
  core::Buffer<T> memory(static_cast<std::size_t>((ring + taps) * workers));
  std::vector<const T*> pointers(static_cast<std::size_t>(taps * workers));
  parallel_for(
      tasks,
      [&](std::int64_t task) {
        const BlockRange part = block_range(down.out, rows, task % pieces);
        const BlockRange group = block_range(job.planes, together, task / pieces);
        const Index worker = this_worker();
        kernels::ResamplePlane<T> plane;
        plane.in_stride = source;
        plane.out_stride = width;
        plane.row_begin = part.begin;
        plane.row_end = part.end;
        plane.channels = whole ? job.channels : 1;
        plane.row_size = width;
        plane.streams = job.streams;
        plane.ring = memory.data() + worker * (ring + taps);
        plane.ring_stride = stride;
        plane.row_weights = plane.ring + ring;
        plane.rows = pointers.data() + worker * taps;
        for (Index p = group.begin; p < group.end; ++p) {
          plane.in = job.in + p * down.in * plane.in_stride;
          plane.out = job.out + p * down.out * plane.out_stride;
          QUERN_DISPATCH_AT(level, resample_plane<T>(row.table(), column.table(), plane));
        }
      },
      threads);
}

}  // namespace detail
}  // namespace nn
QUERN_NAMESPACE_END

#endif  // QUERN_NN_DETAIL_RESAMPLE_TABLES_HPP
