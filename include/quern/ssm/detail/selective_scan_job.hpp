// SPDX-License-Identifier: Apache-2.0

/// \file
/// A selective scan once its arguments fit: how it is cut into tasks, forward and back.

#ifndef QUERN_SSM_DETAIL_SELECTIVE_SCAN_JOB_HPP
#define QUERN_SSM_DETAIL_SELECTIVE_SCAN_JOB_HPP

#include "quern/core/buffer.hpp"
#include "quern/core/checks.hpp"
#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/core/nd_array.hpp"
#include "quern/core/nd_view.hpp"
#include "quern/core/parallel.hpp"
#include "quern/kernels/kernels.hpp"
#include "quern/kernels/selective_scan_types.hpp"
#include "quern/ssm/detail/arrays.hpp"
#include "quern/ssm/selective_scan_types.hpp"
#include "quern/ssm/sequence.hpp"

#include <algorithm>
#include <atomic>
#include <string>
#include <type_traits>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace ssm::detail {

/// Whether values are looked at.
enum class ScanTrust { none, all };

/// Channels of a task forward, at least and at most: rows of a kilobyte keep memory and its pages
/// busy (measured: 4.8 for 6.0 ns a step and channel). Back, each task has sums of its own for b
/// and c.
inline constexpr Index scan_channels = 64, scan_channels_most = 256, scan_channels_back = 128;

template <class T>
class SelectiveScanJob {
 public:
  SelectiveScanJob(const char* function, const SelectiveScanInputs<T>& in,
                   const SelectiveScanOptions& options, ScanTrust trust = ScanTrust::none)
      : function_(function),
        in_(in),
        options_(options),
        trust_(trust),
        batch_(in.u.extent(0)),
        length_(in.u.extent(1)),
        channels_(in.u.extent(2)),
        states_(in.a.extent(1)),
        sequences_(function, options.offsets, batch_, length_),
        u_(in.u),
        delta_(in.delta),
        z_(in.z),
        b_(in.b),
        c_(in.c),
        skip_(in.skip),
        bias_(in.delta_bias) {
    check_shapes();
    prepare_poles();
    Index tiles = 0;
    for (Index s = 0; s < sequences_.size(); ++s) {
      first_tile_.push_back(tiles);
      tiles += block_count(sequences_[s].length, kernels::selective_scan_tile);
    }
    tiles_ = tiles;
  }
  SelectiveScanJob(const SelectiveScanJob&) = delete;
  SelectiveScanJob& operator=(const SelectiveScanJob&) = delete;

  [[nodiscard]] Shape<3> state_shape() const { return {sequences_.size(), channels_, states_}; }
  [[nodiscard]] Shape<3> saved_shape() const { return {tiles_, states_, channels_}; }
  void make_room(SelectiveScanSaved<T>& saved) const {
    saved.states.resize(saved_shape(), core::Fill::none);
  }

  /// States as kernels have them, (sequences, states, channels).
  [[nodiscard]] NdArray<T, 3> first_states() const {
    if (in_.initial_state.is_null()) {
      return NdArray<T, 3>({sequences_.size(), states_, channels_});
    }
    return NdArray<T, 3>(in_.initial_state.permuted({0, 2, 1}));
  }
  /// Those as everybody else has them.
  [[nodiscard]] NdView<T, 3> turned(NdArray<T, 3>& state) const {
    return state.view().permuted({0, 2, 1});
  }

  /// The whole scan; `out` may be null. `state` moves on.
  void run(const NdView<T, 3>& out, NdArray<T, 3>& state, SelectiveScanSaved<T>& saved) const {
    const simd::Level level = simd::active_level();
    const Blocks blocks(channels_, options_.groups, forward_channels());
    std::atomic<int> found{0};
    parallel_for(
        sequences_.size() * blocks.count,
        [&](Index work) {
          const Index s = work / blocks.count;
          const auto [channel, count] = blocks[work % blocks.count];
          kernels::SelectiveScanTask<T> task = forward_task(s, channel, count, blocks);
          task.h = {state.view().subview(s).data() + channel, channels_};
          set_output(task, out, sequences_[s], channel);
          if (!saved.states.empty()) set_kept(task, saved.states.data(), s, channel);
          found |= QUERN_DISPATCH_AT(level, selective_scan<T>(task));
        },
        options_.threads);
    if (found == 0 && !out.is_null()) return;
    explain(found, out, state);
  }

  /// One step: states of any strides but adjacent channels, nothing is looked at.
  void step(const NdView<T, 3>& out, const NdView<T, 3>& state) const {
    const simd::Level level = simd::active_level();
    const Blocks blocks(channels_, options_.groups, channels_ / options_.groups);
    for (Index s = 0; s < batch_; ++s) {
      for (Index g = 0; g < blocks.count; ++g) {
        const auto [channel, count] = blocks[g];
        kernels::SelectiveScanTask<T> task = forward_task(s, channel, count, blocks);
        task.h = {state.subview(s).data() + channel, state.stride(1)};
        set_output(task, out, sequences_[s], channel);
        static_cast<void>(QUERN_DISPATCH_AT(level, selective_scan<T>(task)));
      }
    }
  }

  void check_gradients(const SelectiveScanGradients<T>& g) const {
    expect_optional(function_, "gradients.u", g.u, in_.u.extents());
    expect_optional(function_, "gradients.delta", g.delta, in_.u.extents());
    expect_optional(function_, "gradients.a", g.a, in_.a.extents());
    expect_optional(function_, "gradients.b", g.b, in_.b.extents());
    expect_optional(function_, "gradients.c", g.c, in_.c.extents());
    expect_optional(function_, "gradients.skip", g.skip, {channels_});
    expect_optional(function_, "gradients.delta_bias", g.delta_bias, {channels_});
    expect_optional(function_, "gradients.z", g.z, in_.u.extents());
    expect_optional(function_, "gradients.initial_state", g.initial_state, state_shape());
  }

  void run_back(const NdView<const T, 3>& dout, const NdView<const T, 3>& dfinal,
                const SelectiveScanGradients<T>& g, const SelectiveScanSaved<T>& saved) const;

 private:
  /// Pieces of channels that lie within one group.
  struct Blocks {
    Index per_group, size, group_channels, count;

    Blocks(Index channels, Index groups, Index wanted)
        : per_group((std::max)(Index{1}, block_count(channels / groups, wanted))),
          size((std::max)(Index{1}, wanted)),
          group_channels(channels / groups),
          count(channels == 0 ? 0 : per_group * groups) {}
    struct Piece {
      Index channel, count;
    };
    Piece operator[](Index k) const {
      const Index first = k % per_group * size;
      return {k / per_group * group_channels + first, (std::min)(size, group_channels - first)};
    }
    [[nodiscard]] Index group(Index channel) const { return channel / group_channels; }
  };
  struct Back;

  /// As wide as leaves four tasks to share out.
  [[nodiscard]] Index forward_channels() const {
    Index each = scan_channels_most;
    const auto tasks = [&] {
      return sequences_.size() * Blocks(channels_, options_.groups, each).count;
    };
    while (each > scan_channels && tasks() < 4) each /= 2;
    return each;
  }

  void check_shapes() const {
    const Index wide = options_.groups * states_;
    if (options_.groups < 1 || channels_ % options_.groups != 0) {
      throw ValueError(error_text(function_, "options.groups",
                                  "a divisor of " + std::to_string(channels_) + " channels",
                                  options_.groups));
    }
    expect_shape(function_, "delta", in_.delta, in_.u.extents());
    expect_shape(function_, "a", in_.a, {channels_, states_});
    expect_shape(function_, "b", in_.b, {batch_, length_, wide});
    expect_shape(function_, "c", in_.c, {batch_, length_, wide});
    expect_optional(function_, "skip", in_.skip, {channels_});
    expect_optional(function_, "delta_bias", in_.delta_bias, {channels_});
    expect_optional(function_, "z", in_.z, in_.u.extents());
    expect_optional(function_, "initial_state", in_.initial_state, state_shape());
  }

  /// a as (states, channels), adjacent channels.
  void prepare_poles() {
    poles_ = in_.a.transposed();
    if (trust_ == ScanTrust::all) {
      if (poles_.last_stride_is_one() && !options_.clip_poles) return;
      pole_copy_ = NdArray<T, 2>(poles_);
      if (options_.clip_poles) {
        for (T& pole : pole_copy_) pole = pole > T{0} && is_finite_bits(pole) ? T{0} : pole;
      }
      poles_ = pole_copy_.view();
      return;
    }
    pole_copy_ = NdArray<T, 2>(poles_);
    for (Index n = 0; n < states_; ++n) {
      for (Index i = 0; i < channels_; ++i) {
        T& pole = pole_copy_(n, i);
        const bool finite = is_finite_bits(pole);
        if (finite && pole <= T{0}) continue;
        if (finite && options_.clip_poles) {
          pole = T{0};
          continue;
        }
        const std::string at = " at (" + std::to_string(i) + ", " + std::to_string(n) + ")";
        throw ValueError(error_text(function_, "a", "finite poles not above 0",
                                    quern::detail::text_of(pole) + at));
      }
    }
    poles_ = pole_copy_.view();
  }

  [[nodiscard]] static kernels::ScanRows<const T> rows(const NdView<const T, 3>& v, Index batch,
                                                       Index begin, Index channel) {
    if (v.is_null()) return {};
    return {v.data() + batch * v.stride(0) + begin * v.stride(1) + channel, v.stride(1)};
  }
  [[nodiscard]] static kernels::ScanRows<T> rows(const NdView<T, 3>& v, Index batch, Index begin,
                                                 Index channel) {
    if (v.is_null()) return {};
    return {v.data() + batch * v.stride(0) + begin * v.stride(1) + channel, v.stride(1)};
  }

  [[nodiscard]] kernels::SelectiveScanTask<T> forward_task(Index s, Index channel, Index count,
                                                           const Blocks& blocks) const {
    const Sequence q = sequences_[s];
    const Index state = blocks.group(channel) * states_;
    kernels::SelectiveScanTask<T> task;
    task.steps = q.length;
    task.channels = count;
    task.states = states_;
    task.u = rows(u_.view(), q.batch, q.begin, channel);
    task.delta = rows(delta_.view(), q.batch, q.begin, channel);
    task.z = rows(z_.view(), q.batch, q.begin, channel);
    task.b = rows(b_.view(), q.batch, q.begin, state);
    task.c = rows(c_.view(), q.batch, q.begin, state);
    task.a = {poles_.data() + channel, poles_.row_stride()};
    task.skip = at_or_null(skip_.view().data(), channel);
    task.bias = at_or_null(bias_.view().data(), channel);
    task.softplus = options_.softplus;
    return task;
  }
  void set_output(kernels::SelectiveScanTask<T>& task, const NdView<T, 3>& out, const Sequence& q,
                  Index channel) const {
    task.y = rows(out, q.batch, q.begin, channel);
  }
  void set_kept(kernels::SelectiveScanTask<T>& task, T* states, Index s, Index channel) const {
    const Index tile = states_ * channels_;
    const Index first = first_tile_[static_cast<std::size_t>(s)];
    task.kept = {states + first * tile + channel, channels_};
    task.kept_tile = tile;
  }

  void explain(int found, const NdView<T, 3>& out, const NdArray<T, 3>& state) const;

  const char* function_;
  SelectiveScanInputs<T> in_;
  SelectiveScanOptions options_;
  ScanTrust trust_;
  Index batch_, length_, channels_, states_;
  Sequences sequences_;
  UnitStride<const T, 3> u_, delta_, z_, b_, c_;
  UnitStride<const T, 1> skip_, bias_;
  NdArray<T, 2> pole_copy_;
  MatrixView<const T> poles_;
  std::vector<Index> first_tile_;
  Index tiles_ = 0;
};

/// Where what the kernel found came in.
template <class T>
void SelectiveScanJob<T>::explain(int found, const NdView<T, 3>& out,
                                  const NdArray<T, 3>& state) const {
  if (found == 0 && all_finite(state.view())) return;
  expect_finite_values(function_, "u", in_.u);
  expect_finite_values(function_, "delta", in_.delta);
  expect_finite_values(function_, "b", in_.b);
  expect_finite_values(function_, "c", in_.c);
  expect_finite_values(function_, "skip", in_.skip);
  expect_finite_values(function_, "delta_bias", in_.delta_bias);
  expect_finite_values(function_, "z", in_.z);
  expect_finite_values(function_, "initial_state", in_.initial_state);
  if ((found & kernels::scan_bad_step) != 0) {
    for (Index b = 0; b < batch_; ++b) {
      for (Index t = 0; t < length_; ++t) {
        for (Index i = 0; i < channels_; ++i) {
          const T bias = in_.delta_bias.is_null() ? T{0} : in_.delta_bias(i);
          const T step = in_.delta(b, t, i) + bias;
          if (step > T{0}) continue;
          std::string got = quern::detail::text_of(step);
          got += " at (" + std::to_string(b) + ", " + std::to_string(t) + ", " + std::to_string(i) +
                 ")";
          throw ValueError(error_text(function_, "delta", "steps above 0 (or softplus)", got));
        }
      }
    }
  }
  const std::string place = out.is_null() ? std::string("the states") : place_of_nonfinite(out);
  throw ValueError(error_text(function_, "inputs", "results that do not overflow",
                              "an overflow at (" + place + ")"));
}

/// The way back of one job.
template <class T>
struct SelectiveScanJob<T>::Back {
  const SelectiveScanJob& job;
  UnitStride<const T, 3> dout;
  UnitOutput<T, 3> du, ddelta, dz;
  Blocks blocks;
  NdArray<T, 3> dstate;   ///< (sequences, states, channels)
  NdArray<T, 3> da;       ///< (batch, states, channels)
  NdArray<T, 3> dvector;  ///< (batch, 2, channels): skip and bias
  NdArray<T, 4> db, dc;   ///< (batch, blocks, length, states)

  Back(const SelectiveScanJob& j, const NdView<const T, 3>& dy, const NdView<const T, 3>& dfinal,
       const SelectiveScanGradients<T>& g)
      : job(j),
        dout(dy),
        du(g.u),
        ddelta(g.delta),
        dz(g.z),
        blocks(j.channels_, j.options_.groups, scan_channels_back),
        da({j.batch_, j.states_, j.channels_}),
        dvector({j.batch_, 2, j.channels_}),
        db({j.batch_, blocks.count, j.length_, j.states_}, core::Fill::none),
        dc({j.batch_, blocks.count, j.length_, j.states_}, core::Fill::none) {
    const Shape<3> states = {j.sequences_.size(), j.states_, j.channels_};
    dstate = dfinal.is_null() ? NdArray<T, 3>(states) : NdArray<T, 3>(dfinal.permuted({0, 2, 1}));
  }

  /// Block k of batch entry `batch`: its sequences one after the other.
  void run(simd::Level level, Index batch, Index k, const SelectiveScanSaved<T>& saved,
           T* scratch) {
    const auto [channel, count] = blocks[k];
    for (Index s = 0; s < job.sequences_.size(); ++s) {
      const Sequence q = job.sequences_[s];
      if (q.batch != batch) continue;
      kernels::SelectiveScanVjpTask<T> task;
      task.scan = job.forward_task(s, channel, count, blocks);
      // Only read on the way back.
      job.set_kept(task.scan, const_cast<T*>(saved.states.data()), s, channel);
      task.dy = rows(dout.view(), batch, q.begin, channel);
      task.dh = {dstate.view().subview(s).data() + channel, job.channels_};
      task.du = rows(du.view(), batch, q.begin, channel);
      task.ddelta = rows(ddelta.view(), batch, q.begin, channel);
      if (!job.in_.z.is_null()) task.dz = rows(dz.view(), batch, q.begin, channel);
      task.db = {&db(batch, k, q.begin, Index{0}), job.states_};
      task.dc = {&dc(batch, k, q.begin, Index{0}), job.states_};
      task.da = {&da(batch, Index{0}, channel), job.channels_};
      task.dskip = &dvector(batch, Index{0}, channel);
      task.dbias = &dvector(batch, Index{1}, channel);
      task.scratch = scratch;
      QUERN_DISPATCH_AT(level, selective_scan_vjp<T>(task));
    }
  }

  /// Sums over blocks of a group, in order.
  void sum_blocks(const NdArray<T, 4>& parts, const NdView<T, 3>& to) const {
    if (to.is_null()) return;
    const Index n = job.states_;
    for (Index b = 0; b < to.extent(0); ++b) {
      for (Index t = 0; t < to.extent(1); ++t) {
        for (Index j = 0; j < to.extent(2); ++j) {
          T sum{0};
          for (Index k = 0; k < blocks.per_group; ++k) {
            sum += parts(b, j / n * blocks.per_group + k, t, j % n);
          }
          to(b, t, j) = sum;
        }
      }
    }
  }
};

template <class T>
void SelectiveScanJob<T>::run_back(const NdView<const T, 3>& dout, const NdView<const T, 3>& dfinal,
                                   const SelectiveScanGradients<T>& g,
                                   const SelectiveScanSaved<T>& saved) const {
  Back back(*this, dout, dfinal, g);
  const simd::Level level = simd::active_level();
  const Index work = batch_ * back.blocks.count;
  if (work > 0 && length_ > 0) {
    const std::size_t room =
        QUERN_DISPATCH_AT(level, selective_scan_vjp_scratch<T>(scan_channels_back));
    const Index workers = (std::min)(work, Index{worker_count(options_.threads)});
    core::Buffer<T> scratch(room * static_cast<std::size_t>(workers));
    parallel_for(
        work,
        [&](Index k) {
          T* const mine = scratch.data() + room * static_cast<std::size_t>(this_worker());
          back.run(level, k / back.blocks.count, k % back.blocks.count, saved, mine);
        },
        options_.threads);
  }
  back.du.finish();
  back.ddelta.finish();
  back.dz.finish();
  back.sum_blocks(back.db, g.b);
  back.sum_blocks(back.dc, g.c);
  for (Index b = 0; b < batch_; ++b) {
    if (!g.a.is_null()) accumulate(back.da.view().subview(b), g.a.transposed());
    if (!g.skip.is_null()) accumulate(back.dvector.view().subview(b).row(0), g.skip);
    if (!g.delta_bias.is_null()) accumulate(back.dvector.view().subview(b).row(1), g.delta_bias);
  }
  if (!g.initial_state.is_null()) assign(turned(back.dstate), g.initial_state);
}

}  // namespace ssm::detail
QUERN_NAMESPACE_END

#endif  // QUERN_SSM_DETAIL_SELECTIVE_SCAN_JOB_HPP
