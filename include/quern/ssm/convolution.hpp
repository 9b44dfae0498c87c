// SPDX-License-Identifier: Apache-2.0

/// \file
/// Causal convolutions of sequences with a kernel for each channel, y_t = sum_s k_s u_{t-s}, by
/// Fourier transforms of many channels side by side, and their exact gradients; optionally with a
/// second kernel that looks ahead.
///
/// Transforms have 2^p points, at least as many as the kernel has taps. A longer sequence is cut
/// into blocks of so many steps, each of whose products runs over into the next block (overlap and
/// add), so a short kernel costs log(taps) a step, not log(length).

#ifndef QUERN_SSM_CONVOLUTION_HPP
#define QUERN_SSM_CONVOLUTION_HPP

#include "quern/core/buffer.hpp"
#include "quern/core/checks.hpp"
#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/core/nd_array.hpp"
#include "quern/core/nd_view.hpp"
#include "quern/core/parallel.hpp"
#include "quern/kernels/fft.hpp"
#include "quern/kernels/kernels.hpp"
#include "quern/ssm/sequence.hpp"

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <type_traits>
#include <utility>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace ssm {

/// Options of a convolution.
struct ConvolutionOptions {
  /// Offsets of packed sequences, 0 … length, not decreasing; empty: each batch entry is one.
  std::span<const std::int64_t> offsets = {};
  int threads = 0;               ///< 0: the default, see parallel_for
  bool check_finite = true;      ///< ValueError for a NaN or an infinity, with its place
  const char* caller = nullptr;  ///< whose name errors carry; null: this function's
};

namespace detail {

/// Sequences that are transformed with the same number of points.
struct SizeClass {
  std::size_t points = 4;
  std::vector<Index> sequences;
};

/// Sequences by the size of their transform, smallest first; those of length 0 are left out.
inline std::vector<SizeClass> size_classes(const Sequences& sequences, Index first, Index last,
                                           Index taps, bool whole) {
  std::vector<SizeClass> classes;
  for (Index s = first; s < last; ++s) {
    const Index length = sequences[s].length;
    if (length == 0) continue;
    const Index reach = whole ? length : (std::min)(taps, length);
    const std::size_t points =
        std::bit_ceil((std::max)(static_cast<std::size_t>(reach), std::size_t{4}));
    auto at = std::find_if(classes.begin(), classes.end(),
                           [&](const SizeClass& c) { return c.points >= points; });
    if (at == classes.end() || at->points != points) at = classes.insert(at, {points, {}});
    at->sequences.push_back(s);
  }
  return classes;
}

/// A convolution's arguments once they fit each other, or those of its gradients.
template <class T>
struct ConvolutionJob {
  NdView<const T, 3> u;
  NdView<const T, 2> kernel;
  NdView<const T, 2> ahead;  ///< null: none
  NdView<T, 3> y;
  NdView<const T, 3> dy;
  NdView<T, 3> du;
  NdView<T, 3> dkernel;  ///< (groups, taps, channels)
  NdView<T, 3> dahead;
  Sequences sequences;
  Index groups = 1;
};

/// Work space of a thread: tiles of points.
template <class T>
struct ConvolutionTiles {
  core::Buffer<T> memory;
  T* at(std::size_t which, std::size_t points) {
    return memory.data() + which * points * kernels::fft_point<T>;
  }
  void hold(std::size_t tiles, std::size_t points) {
    const std::size_t size = tiles * points * kernels::fft_point<T>;
    if (memory.size() < size) memory.reset(size);
  }
};

/// Convolves the channels of one tile.
template <class T>
class TileConvolution {
 public:
  TileConvolution(const ConvolutionJob<T>& job, ConvolutionTiles<T>& tiles, Index group,
                  Index channel)
      : job_(job), tiles_(tiles), group_(group), channel_(channel) {
    constexpr Index lanes = static_cast<Index>(kernels::fft_lanes<T>);
    channels_ = static_cast<std::size_t>((std::min)(lanes, job.u.extent(2) - channel));
    const Index all = job.sequences.size();
    first_ = all * group / job.groups;
    last_ = all * (group + 1) / job.groups;
  }

  void forward() {
    for (const SizeClass& c : classes()) {
      begin(c.points, 2);
      kernel_spectrum(tile(1), tile(0));
      for (const Index s : c.sequences) forward(job_.sequences[s]);
    }
  }

  void backward() {
    for (const SizeClass& c : classes()) {
      begin(c.points, 6);
      kernel_spectrum(tile(1), tile(0));
      zero(tile(4));
      zero(tile(5));
      for (const Index s : c.sequences) backward(job_.sequences[s]);
      kernel_gradient(job_.dkernel, tile(4), 0);
      if (!job_.dahead.is_null()) kernel_gradient(job_.dahead, tile(5), 1);
    }
  }

 private:
  [[nodiscard]] std::vector<SizeClass> classes() const {
    return size_classes(job_.sequences, first_, last_, job_.kernel.extent(0),
                        !job_.ahead.is_null());
  }
  void begin(std::size_t points, std::size_t tiles) {
    points_ = points;
    tiles_.hold(tiles, points);
    task_ = kernels::FftTables<T>::of(points).task();
  }
  [[nodiscard]] T* tile(std::size_t which) { return tiles_.at(which, points_); }
  void zero(T* z) { std::memset(z, 0, points_ * kernels::fft_point<T> * sizeof(T)); }

  template <class U>
  [[nodiscard]] kernels::FftRows<U> rows_of(const NdView<U, 3>& v, const Sequence& s,
                                            Index begin) const {
    const Index most = static_cast<Index>(points_);
    const Index rows = (std::min)(most, s.length - begin);
    if (rows <= 0) return {};
    return {&v(s.batch, s.begin + begin, channel_), v.stride(1), static_cast<std::size_t>(rows),
            channels_};
  }
  /// Taps of a kernel; `shift` of them are dropped when the transform is shorter.
  template <class U>
  [[nodiscard]] kernels::FftRows<U> taps_of(const NdView<U, 2>& k, std::size_t skip) const {
    if (k.extent(0) == 0) return {};
    const std::size_t taps = (std::min)(static_cast<std::size_t>(k.extent(0)), points_ - skip);
    return {&k(0, channel_), k.stride(0), taps, channels_};
  }

  void transform(const kernels::FftRows<const T>& rows, T* z) const {
    QUERN_DISPATCH(fft_forward_rows<T>(task_, rows, z));
  }
  void restore(T* z, const kernels::FftRows<T>& rows, bool add, const kernels::FftRows<T>& tail,
               bool negate) const {
    QUERN_DISPATCH(fft_inverse_rows<T>(task_, z, rows, add, tail, negate));
  }

  /// Spectrum of the kernel, and of the one that looks ahead (tap s for s + 1 steps) conjugated.
  void kernel_spectrum(T* z, T* other) {
    transform(taps_of(job_.kernel, 0), z);
    if (job_.ahead.is_null()) return;
    transform(shifted(taps_of(job_.ahead, 1)), other);
    QUERN_DISPATCH(fft_add_conjugate<T>(points_, other, z));
  }
  /// Rows one place later: row 0 is 0. A copy, since there is none in memory.
  [[nodiscard]] kernels::FftRows<const T> shifted(const kernels::FftRows<const T>& rows) {
    const std::size_t lanes = kernels::fft_lanes<T>;
    shifted_.assign((rows.rows + 1) * lanes, T{0});
    for (std::size_t r = 0; r < rows.rows; ++r) {
      const T* from = rows.data + static_cast<Index>(r) * rows.stride;
      std::copy(from, from + channels_, shifted_.data() + (r + 1) * lanes);
    }
    return {shifted_.data(), static_cast<Index>(lanes), rows.rows + 1, channels_};
  }

  void forward(const Sequence& s) {
    const Index step = static_cast<Index>(points_);
    for (Index t = 0; t < s.length; t += step) {
      const kernels::FftRows<const T> in = rows_of(job_.u, s, t);
      const kernels::FftRows<T> out = rows_of(job_.y, s, t), next = rows_of(job_.y, s, t + step);
      QUERN_DISPATCH(fft_convolve_rows<T>(task_, in, tile(1), tile(0), out, t > 0, next));
    }
  }

  /// The last block first: what a block says of the one before is written before that is added.
  void backward(const Sequence& s) {
    const Index step = static_cast<Index>(points_);
    const Index blocks = (s.length + step - 1) / step;
    T* u = tile(2);
    T* before = tile(3);
    transform(rows_of(job_.u, s, (blocks - 1) * step), u);
    for (Index b = blocks; b-- > 0;) {
      T* const z = tile(0);
      transform(rows_of(job_.dy, s, b * step), z);
      QUERN_DISPATCH(fft_accumulate<T>(points_, z, u, false, tile(4)));
      if (!job_.dahead.is_null()) {
        QUERN_DISPATCH(fft_accumulate<T>(points_, u, z, false, tile(5)));
      }
      if (b > 0) {
        transform(rows_of(job_.u, s, (b - 1) * step), before);
        QUERN_DISPATCH(fft_accumulate<T>(points_, z, before, true, tile(4)));
        std::swap(u, before);
      }
      if (job_.du.is_null()) continue;
      QUERN_DISPATCH(fft_multiply<T>(points_, z, tile(1), true, z));
      const kernels::FftRows<T> ahead =
          b > 0 ? rows_of(job_.du, s, (b - 1) * step) : kernels::FftRows<T>{};
      restore(z, rows_of(job_.du, s, b * step), b + 1 < blocks, ahead, true);
    }
  }

  /// Adds the coefficients of a spectrum to the gradient of a kernel, tap 0 at `skip`.
  void kernel_gradient(const NdView<T, 3>& dk, T* z, std::size_t skip) {
    const NdView<T, 2> mine = dk.subview(group_);
    if (skip == 0) return restore(z, taps_of(mine, 0), true, {}, false);
    const kernels::FftRows<T> rows = taps_of(mine, skip);
    const std::size_t lanes = kernels::fft_lanes<T>;
    shifted_.assign((rows.rows + skip) * lanes, T{0});
    restore(z, {shifted_.data(), static_cast<Index>(lanes), rows.rows + skip, channels_}, false, {},
            false);
    for (std::size_t r = 0; r < rows.rows; ++r) {
      T* to = rows.data + static_cast<Index>(r) * rows.stride;
      for (std::size_t c = 0; c < channels_; ++c) to[c] += shifted_[(r + skip) * lanes + c];
    }
  }

  const ConvolutionJob<T>& job_;
  ConvolutionTiles<T>& tiles_;
  Index group_;
  Index channel_;
  Index first_ = 0, last_ = 0;
  std::size_t channels_ = 0;
  std::size_t points_ = 4;
  kernels::FftTask<T> task_;
  std::vector<T> shifted_;
};

/// Into how many groups of sequences a job is cut, so that few channels still make many tasks. A
/// kernel is transformed anew for each group.
template <class T>
Index convolution_groups(Index sequences, Index channels) {
  constexpr Index lanes = static_cast<Index>(kernels::fft_lanes<T>);
  const Index tiles = (std::max)(Index{1}, (channels + lanes - 1) / lanes);
  return (std::clamp)(16 / tiles, Index{1}, (std::max)(Index{1}, sequences / 2));
}

/// Calls body(tile convolution) for each tile and group.
template <class T, class Body>
void for_tiles(const ConvolutionJob<T>& job, int threads, Body&& body) {
  constexpr Index lanes = static_cast<Index>(kernels::fft_lanes<T>);
  const Index tiles = (job.u.extent(2) + lanes - 1) / lanes;
  std::vector<ConvolutionTiles<T>> scratch(static_cast<std::size_t>(worker_count(threads)));
  parallel_for(
      tiles * job.groups,
      [&](Index task) {
        ConvolutionTiles<T>& mine = scratch[static_cast<std::size_t>(this_worker())];
        TileConvolution<T> part(job, mine, task / tiles, task % tiles * lanes);
        body(part);
      },
      threads);
}

template <class T>
void check_convolution(const char* function, const NdView<const T, 3>& u,
                       const NdView<const T, 2>& kernel, const NdView<const T, 2>& ahead) {
  const auto check = [&](const char* name, const NdView<const T, 2>& k) {
    expect_size(function, name, k.extent(1), u.extent(2), "channels, those of u");
    if (k.extent(0) > 0) return;
    throw ShapeError(error_text(function, name, "at least one tap", 0));
  };
  check("kernel", kernel);
  if (!ahead.is_null()) check("ahead", ahead);
}

/// An input that is not finite makes all of its channel so.
template <class T>
void expect_finite_output(const char* function, const ConvolutionJob<T>& job) {
  for (Index s = 0; s < job.sequences.size(); ++s) {
    const Sequence sequence = job.sequences[s];
    if (sequence.length == 0) continue;
    if (all_finite(job.y.subview(sequence.batch).subview(sequence.begin + sequence.length - 1)) &&
        all_finite(job.y.subview(sequence.batch).subview(sequence.begin))) {
      continue;
    }
    expect_finite_values(function, "u", job.u);
    expect_finite_values(function, "kernel", job.kernel);
    if (!job.ahead.is_null()) expect_finite_values(function, "ahead", job.ahead);
  }
}

/// sum = the sum over the first axis, in order.
template <class T>
void sum_groups(const NdView<const T, 3>& groups, const NdView<T, 2>& sum) {
  if (sum.is_null()) return;
  for (Index i = 0; i < sum.extent(0); ++i) {
    for (Index j = 0; j < sum.extent(1); ++j) {
      T total = groups(0, i, j);
      for (Index g = 1; g < groups.extent(0); ++g) total += groups(g, i, j);
      sum(i, j) = total;
    }
  }
}

}  // namespace detail

/// y_t = sum_{s >= 0} kernel_s u_{t-s}, and with `ahead` also + sum_{s >= 0} ahead_s u_{t+1+s}, of
/// each channel and sequence. u and y are (batch, length, channels), kernels (taps, channels);
/// taps beyond a sequence's length have no effect. Views may have any strides, y a last stride of
/// 1; y may not overlap u. ShapeError where shapes do not fit, ValueError for input that is not
/// finite.
template <class T>
void causal_convolution(std::type_identity_t<NdView<const T, 3>> u,
                        std::type_identity_t<NdView<const T, 2>> kernel, NdView<T, 3> y,
                        std::type_identity_t<NdView<const T, 2>> ahead = {},
                        const ConvolutionOptions& options = {}) {
  const char* const function =
      options.caller != nullptr ? options.caller : "quern::ssm::causal_convolution";
  detail::check_convolution<T>(function, u, kernel, ahead);
  expect_shape(function, "y", y, u.extents());
  expect_apart(function, "y", y, "u", u);
  detail::expect_unit_stride(function, "y", y);
  const detail::UnitStride<const T, 3> u_unit(u);
  const detail::UnitStride<const T, 2> kernel_unit(kernel), ahead_unit(ahead);
  const detail::Sequences sequences(function, options.offsets, u.extent(0), u.extent(1));
  const detail::ConvolutionJob<T> job{
      .u = u_unit.view(),
      .kernel = kernel_unit.view(),
      .ahead = ahead_unit.view(),
      .y = y,
      .dy = {},
      .du = {},
      .dkernel = {},
      .dahead = {},
      .sequences = sequences,
      .groups = detail::convolution_groups<T>(sequences.size(), u.extent(2))};
  detail::for_tiles(job, options.threads, [](detail::TileConvolution<T>& part) { part.forward(); });
  if (options.check_finite) detail::expect_finite_output(function, job);
}

/// Gradients of causal_convolution. du, dkernel and dahead are overwritten, and left out where null
/// (but dahead needs `ahead`).
template <class T>
void causal_convolution_vjp(std::type_identity_t<NdView<const T, 3>> u,
                            std::type_identity_t<NdView<const T, 2>> kernel,
                            std::type_identity_t<NdView<const T, 3>> dy,
                            std::type_identity_t<NdView<T, 3>> du, NdView<T, 2> dkernel,
                            std::type_identity_t<NdView<const T, 2>> ahead = {},
                            std::type_identity_t<NdView<T, 2>> dahead = {},
                            const ConvolutionOptions& options = {}) {
  const char* const function =
      options.caller != nullptr ? options.caller : "quern::ssm::causal_convolution_vjp";
  detail::check_convolution<T>(function, u, kernel, ahead);
  expect_shape(function, "dy", dy, u.extents());
  if (!du.is_null()) {
    expect_shape(function, "du", du, u.extents());
    expect_apart(function, "du", du, "dy", dy);
    expect_apart(function, "du", du, "u", u);
    detail::expect_unit_stride(function, "du", du);
  }
  if (!dkernel.is_null()) expect_shape(function, "dkernel", dkernel, kernel.extents());
  if (!dahead.is_null()) expect_shape(function, "dahead", dahead, ahead.extents());
  const detail::UnitStride<const T, 3> u_unit(u), dy_unit(dy);
  const detail::UnitStride<const T, 2> kernel_unit(kernel), ahead_unit(ahead);
  const detail::Sequences sequences(function, options.offsets, u.extent(0), u.extent(1));
  const Index groups = detail::convolution_groups<T>(sequences.size(), u.extent(2));
  NdArray<T, 3> dkernels({groups, kernel.extent(0), kernel.extent(1)});
  NdArray<T, 3> daheads;
  if (!dahead.is_null()) daheads.resize({groups, ahead.extent(0), ahead.extent(1)});
  const detail::ConvolutionJob<T> job{.u = u_unit.view(),
                                      .kernel = kernel_unit.view(),
                                      .ahead = ahead_unit.view(),
                                      .y = {},
                                      .dy = dy_unit.view(),
                                      .du = du,
                                      .dkernel = dkernels,
                                      .dahead = dahead.is_null() ? NdView<T, 3>() : daheads.view(),
                                      .sequences = sequences,
                                      .groups = groups};
  detail::for_tiles(job, options.threads,
                    [](detail::TileConvolution<T>& part) { part.backward(); });
  detail::sum_groups<T>(dkernels.view(), dkernel);
  if (!dahead.is_null()) detail::sum_groups<T>(daheads.view(), dahead);
}

}  // namespace ssm
QUERN_NAMESPACE_END

#endif  // QUERN_SSM_CONVOLUTION_HPP
