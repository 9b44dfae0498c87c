// SPDX-License-Identifier: Apache-2.0

/// \file
/// The short causal convolution before Mamba's scan: each channel with a few taps of its own, an
/// optional silu, and a state of the last inputs so that sequences can come in pieces or steps.
///
///   y_t = f(bias + sum over k of weight_k x_(t - taps + 1 + k))
///
/// As causal_conv1d of Mamba (Gu and Dao, 2023, section 3.4): the last tap sees the present.

#ifndef QUERN_SSM_CAUSAL_CONV_HPP
#define QUERN_SSM_CAUSAL_CONV_HPP

#include "quern/core/buffer.hpp"
#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/core/nd_array.hpp"
#include "quern/core/nd_view.hpp"
#include "quern/core/parallel.hpp"
#include "quern/kernels/causal_conv_types.hpp"
#include "quern/kernels/kernels.hpp"
#include "quern/ssm/detail/arrays.hpp"
#include "quern/ssm/sequence.hpp"

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <span>
#include <type_traits>

QUERN_NAMESPACE_BEGIN
namespace ssm {

/// Options of a causal convolution.
struct CausalConvOptions {
  bool silu = false;  ///< f is x / (1 + e^-x), else the identity
  /// Offsets of packed sequences, 0 … length, not decreasing; empty: each batch entry is one.
  std::span<const std::int64_t> offsets = {};
  int threads = 0;  ///< 0: the default, see parallel_for
};

/// What a causal convolution reads.
template <class T>
struct CausalConvInputs {
  NdView<const T, 3> x;        ///< (batch, length, channels)
  MatrixView<const T> weight;  ///< (channels, taps), at least one tap
  NdView<const T, 1> bias{};   ///< optional, (channels)
  /// Optional, (sequences, taps - 1, channels): the inputs before the first; else zeros.
  NdView<const T, 3> initial_state{};
};

/// Gradients by the inputs of the same names; null views are left out.
template <class T>
struct CausalConvGradients {
  NdView<T, 3> x{};
  MatrixView<T> weight{};  ///< added to
  NdView<T, 1> bias{};     ///< added to
  NdView<T, 3> initial_state{};
};

namespace detail {

/// Channels and steps of a task.
inline constexpr Index conv_channels = 256, conv_steps = 256, conv_channels_back = 64;

template <class T>
class CausalConvJob {
 public:
  CausalConvJob(const char* function, const CausalConvInputs<T>& in,
                const CausalConvOptions& options)
      : function_(function),
        in_(in),
        options_(options),
        channels_(in.x.extent(2)),
        taps_(in.weight.extent(1)),
        sequences_(function, options.offsets, in.x.extent(0), in.x.extent(1)),
        x_(in.x),
        bias_(in.bias),
        before_(in.initial_state) {
    if (taps_ < 1) throw ShapeError(error_text(function, "weight", "at least one tap", taps_));
    expect_shape(function, "weight", in.weight, {channels_, taps_});
    expect_optional(function, "bias", in.bias, {channels_});
    expect_optional(function, "initial_state", in.initial_state, state_shape());
    weight_ = in.weight.transposed();
    if (weight_.last_stride_is_one()) return;
    weight_copy_ = NdArray<T, 2>(weight_);
    weight_ = weight_copy_.view();
  }
  CausalConvJob(const CausalConvJob&) = delete;
  CausalConvJob& operator=(const CausalConvJob&) = delete;

  [[nodiscard]] Shape<3> state_shape() const { return {sequences_.size(), taps_ - 1, channels_}; }

  void run(const NdView<T, 3>& out) const {
    const simd::Level level = simd::active_level();
    const Index each = (std::max)(conv_steps, taps_);
    const Index pieces = (std::max)(Index{1}, block_count(sequences_.longest(), each));
    const Index blocks = block_count(channels_, conv_channels);
    std::atomic<bool> finite{true};
    parallel_for(
        sequences_.size() * pieces * blocks,
        [&](Index work) {
          const Index s = work / (pieces * blocks), channel = work % blocks * conv_channels;
          const Index begin = work / blocks % pieces * each;
          const Sequence q = sequences_[s];
          if (begin >= q.length) return;
          kernels::CausalConvTask<T> task = forward_task(s, channel, conv_channels);
          task.steps = (std::min)(each, q.length - begin);
          if (begin > 0) {
            task.before = {task.x.row(begin - (taps_ - 1)), task.x.stride};
            task.x.data = task.x.row(begin);
          }
          task.y = rows_of(out, q.batch, q.begin + begin, channel);
          if (!QUERN_DISPATCH_AT(level, causal_conv<T>(task))) finite = false;
        },
        options_.threads);
    if (!finite) explain();
  }

  /// to (sequences, taps - 1, channels) = the last inputs of each sequence.
  void last_inputs(const NdView<T, 3>& to) const {
    for (Index s = 0; s < sequences_.size(); ++s) {
      const Sequence q = sequences_[s];
      for (Index j = 0; j < taps_ - 1; ++j) {
        const Index t = q.length - (taps_ - 1) + j;
        for (Index i = 0; i < channels_; ++i) {
          T value{0};
          if (t >= 0) {
            value = in_.x(q.batch, q.begin + t, i);
          } else if (!in_.initial_state.is_null()) {
            value = in_.initial_state(s, q.length + j, i);
          }
          to(s, j, i) = value;
        }
      }
    }
  }

  void run_back(const NdView<const T, 3>& dout, const NdView<const T, 3>& dfinal,
                const CausalConvGradients<T>& g) const;

 private:
  template <class U>
  [[nodiscard]] static kernels::ScanRows<U> rows_of(const NdView<U, 3>& v, Index first,
                                                    Index second, Index channel) {
    if (v.is_null()) return {};
    return {v.data() + first * v.stride(0) + second * v.stride(1) + channel, v.stride(1)};
  }
  [[nodiscard]] kernels::CausalConvTask<T> forward_task(Index s, Index channel, Index most) const {
    const Sequence q = sequences_[s];
    kernels::CausalConvTask<T> task;
    task.steps = q.length;
    task.channels = (std::min)(most, channels_ - channel);
    task.taps = taps_;
    task.x = rows_of(x_.view(), q.batch, q.begin, channel);
    if (taps_ > 1) task.before = rows_of(before_.view(), s, 0, channel);
    task.weight = {weight_.data() + channel, weight_.row_stride()};
    task.bias = at_or_null(bias_.view().data(), channel);
    task.silu = options_.silu;
    return task;
  }
  void explain() const {
    expect_finite_values(function_, "x", in_.x);
    expect_finite_values(function_, "weight", in_.weight);
    expect_finite_values(function_, "bias", in_.bias);
    expect_finite_values(function_, "initial_state", in_.initial_state);
    throw ValueError(error_text(function_, "x", "sums that do not overflow", "an overflow"));
  }
  void add_final(const NdView<const T, 3>& dfinal, const NdView<T, 3>& dx,
                 NdArray<T, 3>& dbefore) const {
    for (Index s = 0; s < sequences_.size(); ++s) {
      const Sequence q = sequences_[s];
      for (Index j = 0; j < taps_ - 1; ++j) {
        const Index t = q.length - (taps_ - 1) + j;
        for (Index i = 0; i < channels_; ++i) {
          if (t >= 0) {
            if (!dx.is_null()) dx(q.batch, q.begin + t, i) += dfinal(s, j, i);
          } else {
            dbefore(s, q.length + j, i) += dfinal(s, j, i);
          }
        }
      }
    }
  }

  const char* function_;
  CausalConvInputs<T> in_;
  CausalConvOptions options_;
  Index channels_, taps_;
  Sequences sequences_;
  UnitStride<const T, 3> x_;
  UnitStride<const T, 1> bias_;
  UnitStride<const T, 3> before_;
  NdArray<T, 2> weight_copy_;
  MatrixView<const T> weight_;
};

template <class T>
void CausalConvJob<T>::run_back(const NdView<const T, 3>& dout, const NdView<const T, 3>& dfinal,
                                const CausalConvGradients<T>& g) const {
  const simd::Level level = simd::active_level();
  const UnitStride<const T, 3> dy(dout);
  const UnitOutput<T, 3> dx(g.x);
  const Index blocks = block_count(channels_, conv_channels_back), count = sequences_.size();
  NdArray<T, 3> dbefore(state_shape());
  NdArray<T, 3> parts({count, taps_ + 1, channels_});  // of each sequence: weights, then the bias
  const Index workers =
      (std::min)((std::max)(Index{1}, count * blocks), Index{worker_count(options_.threads)});
  const Index room = (kernels::causal_conv_tile + taps_) * conv_channels_back;
  core::Buffer<T> scratch(static_cast<std::size_t>(room * workers));
  parallel_for(
      count * blocks,
      [&](Index work) {
        const Index s = work / blocks, channel = work % blocks * conv_channels_back;
        const Sequence q = sequences_[s];
        kernels::CausalConvVjpTask<T> task;
        task.conv = forward_task(s, channel, conv_channels_back);
        task.dy = rows_of(dy.view(), q.batch, q.begin, channel);
        task.dx = rows_of(dx.view(), q.batch, q.begin, channel);
        if (taps_ > 1) task.dbefore = rows_of(dbefore.view(), s, 0, channel);
        task.dweight = rows_of(parts.view(), s, 0, channel);
        task.dbias = task.dweight.row(taps_);
        task.scratch = scratch.data() + this_worker() * room;
        QUERN_DISPATCH_AT(level, causal_conv_vjp<T>(task));
      },
      options_.threads);
  dx.finish();
  if (!dfinal.is_null()) add_final(dfinal, g.x, dbefore);
  for (Index s = 0; s < count; ++s) {
    const MatrixView<T> part = parts.view().subview(s);
    if (!g.weight.is_null()) accumulate(part.slice(0, 0, taps_), g.weight.transposed());
    if (!g.bias.is_null()) accumulate(part.row(taps_), g.bias);
  }
  if (!g.initial_state.is_null()) assign(dbefore.view(), g.initial_state);
}

}  // namespace detail

/// out (batch, length, channels), overwritten; `final_state` (sequences, taps - 1, channels) takes
/// each sequence's last inputs, null leaves it out. Any strides (adjacent channels are fastest),
/// any lengths. ShapeError for what does not fit, ValueError for what is not finite, with its
/// place.
template <class T>
void causal_conv(const CausalConvInputs<T>& in, std::type_identity_t<NdView<T, 3>> out,
                 std::type_identity_t<NdView<T, 3>> final_state = {},
                 const CausalConvOptions& options = {}) {
  constexpr const char* function = "quern::ssm::causal_conv";
  const detail::CausalConvJob<T> job(function, in, options);
  expect_shape(function, "out", out, in.x.extents());
  expect_apart(function, "out", out, "x", in.x);
  detail::expect_optional(function, "final_state", final_state, job.state_shape());
  const detail::UnitOutput<T, 3> output(out);
  job.run(output.view());
  output.finish();
  if (!final_state.is_null()) job.last_inputs(final_state);
}

/// Gradients of a scalar by everything, given those by out and by the final state (null: zeros).
/// Null views of `gradients` are left out; those of weight and bias are added to, the others
/// overwritten.
template <class T>
void causal_conv_vjp(const CausalConvInputs<T>& in, std::type_identity_t<NdView<const T, 3>> dout,
                     std::type_identity_t<NdView<const T, 3>> dfinal_state,
                     const CausalConvGradients<T>& gradients,
                     const CausalConvOptions& options = {}) {
  constexpr const char* function = "quern::ssm::causal_conv_vjp";
  const detail::CausalConvJob<T> job(function, in, options);
  expect_shape(function, "dout", dout, in.x.extents());
  detail::expect_optional(function, "dfinal_state", dfinal_state, job.state_shape());
  detail::expect_optional(function, "gradients.x", gradients.x, in.x.extents());
  detail::expect_optional(function, "gradients.weight", gradients.weight, in.weight.extents());
  detail::expect_optional(function, "gradients.bias", gradients.bias, {in.x.extent(2)});
  detail::expect_optional(function, "gradients.initial_state", gradients.initial_state,
                          job.state_shape());
  job.run_back(dout, dfinal_state, gradients);
}

/// One step of all rows of a batch: x and out (batch, channels), `state` (batch, taps - 1,
/// channels) moves on. weight (channels, taps) is fastest with adjacent channels. The same bits as
/// causal_conv. ShapeError for what does not fit.
template <class T>
void causal_conv_step(MatrixView<const T> x, std::type_identity_t<MatrixView<const T>> weight,
                      std::type_identity_t<NdView<const T, 1>> bias,
                      std::type_identity_t<NdView<T, 3>> state,
                      std::type_identity_t<MatrixView<T>> out,
                      const CausalConvOptions& options = {}) {
  constexpr const char* function = "quern::ssm::causal_conv_step";
  const Index batch = x.rows(), channels = x.cols(), kept = weight.cols() - 1;
  CausalConvInputs<T> in{
      NdView<const T, 3>(x.data(), {batch, 1, channels}, {x.row_stride(), 0, x.col_stride()}),
      weight, bias, state};
  const detail::CausalConvJob<T> job(function, in, options);
  expect_shape(function, "state", state, {batch, kept, channels});
  expect_shape(function, "out", out, x.extents());
  const NdView<T, 3> long_out(out.data(), {batch, 1, channels},
                              {out.row_stride(), 0, out.col_stride()});
  const detail::UnitOutput<T, 3> output(long_out);
  job.run(output.view());
  output.finish();
  for (Index b = 0; b < batch && kept > 0; ++b) {
    for (Index j = 0; j + 1 < kept; ++j) {
      detail::assign(state.subview(b).row(j + 1), state.subview(b).row(j));
    }
    detail::assign(x.row(b), state.subview(b).row(kept - 1));
  }
}

}  // namespace ssm
QUERN_NAMESPACE_END

#endif  // QUERN_SSM_CAUSAL_CONV_HPP
