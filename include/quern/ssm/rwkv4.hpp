// SPDX-License-Identifier: Apache-2.0

/// \file
/// RWKV-4's weighted average of the past: forward, exact gradients, one step.
///
///   y_t = (sum over j < t of e^((t-1-j) w + k_j) v_j + e^(u + k_t) v_t) / (the same without v)
///
/// for each channel; w is the logarithm of the decay itself, below 0 (RWKV's -exp(time_decay)).
/// Nothing overflows for any finite k: sums are kept with their largest exponent taken out.
///
/// B. Peng et al., "RWKV: reinventing RNNs for the transformer era", 2023, equations 16 and 19-27.

#ifndef QUERN_SSM_RWKV4_HPP
#define QUERN_SSM_RWKV4_HPP

#include "quern/core/checks.hpp"
#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/core/nd_array.hpp"
#include "quern/core/nd_view.hpp"
#include "quern/core/parallel.hpp"
#include "quern/kernels/kernels.hpp"
#include "quern/kernels/wkv_types.hpp"
#include "quern/ssm/detail/arrays.hpp"
#include "quern/ssm/sequence.hpp"

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <span>
#include <string>
#include <type_traits>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace ssm {

/// Options of RWKV-4's and RWKV-7's recurrences.
struct RwkvOptions {
  bool clip_decay = false;  ///< growth becomes no decay instead of an error
  /// Offsets of packed sequences, 0 … length, not decreasing; empty: each batch entry is one.
  std::span<const std::int64_t> offsets = {};
  int threads = 0;  ///< 0: the default, see parallel_for
};

/// What it reads. A state is (sequences, 3, channels): p, q and o, where p e^o is the sum with v
/// and q e^o the one without; before anything p = q = 0, o = -1e38.
template <class T>
struct Rwkv4Inputs {
  NdView<const T, 3> k;                ///< (batch, length, channels)
  NdView<const T, 3> v;                ///< as k
  NdView<const T, 1> w;                ///< (channels), not above 0
  NdView<const T, 1> u;                ///< (channels): bonus of the present
  NdView<const T, 3> initial_state{};  ///< optional
};

/// Gradients by the inputs of the same names; null views are left out. Those of states are
/// (sequences, 2, channels), by p and q where o stays as it is (that by o is p dp + q dq).
template <class T>
struct Rwkv4Gradients {
  NdView<T, 3> k{};
  NdView<T, 3> v{};
  NdView<T, 1> w{};  ///< added to
  NdView<T, 1> u{};  ///< added to
  NdView<T, 3> initial_state{};
};

/// o of a state that has seen nothing.
template <class T>
inline constexpr T rwkv4_nothing = T(-1e38);

namespace detail {

inline constexpr Index wkv_channels = 64;

template <class T>
class Rwkv4Job {
 public:
  Rwkv4Job(const char* function, const Rwkv4Inputs<T>& in, const RwkvOptions& options)
      : function_(function),
        in_(in),
        options_(options),
        channels_(in.k.extent(2)),
        sequences_(function, options.offsets, in.k.extent(0), in.k.extent(1)),
        k_(in.k),
        v_(in.v),
        u_(in.u),
        w_(in.w.is_null() ? NdArray<T, 1>() : NdArray<T, 1>(in.w)) {
    expect_shape(function, "v", in.v, in.k.extents());
    expect_shape(function, "w", in.w, {channels_});
    expect_shape(function, "u", in.u, {channels_});
    expect_optional(function, "initial_state", in.initial_state, state_shape());
    for (Index i = 0; i < channels_; ++i) {
      if (is_finite_bits(w_(i)) && w_(i) <= T{0}) continue;
      if (is_finite_bits(w_(i)) && options.clip_decay) {
        w_(i) = T{0};
        continue;
      }
      throw ValueError(error_text(function, "w", "finite logarithms of decays, not above 0",
                                  quern::detail::text_of(w_(i)) + " at " + std::to_string(i)));
    }
    for (Index s = 0; s < sequences_.size(); ++s) {
      first_tile_.push_back(tiles_);
      tiles_ += block_count(sequences_[s].length, kernels::wkv_tile);
    }
  }
  Rwkv4Job(const Rwkv4Job&) = delete;
  Rwkv4Job& operator=(const Rwkv4Job&) = delete;

  [[nodiscard]] Shape<3> state_shape() const { return {sequences_.size(), 3, channels_}; }
  [[nodiscard]] Shape<3> gradient_shape() const { return {sequences_.size(), 2, channels_}; }
  [[nodiscard]] NdArray<T, 3> first_states() const {
    if (!in_.initial_state.is_null()) return NdArray<T, 3>(in_.initial_state);
    NdArray<T, 3> state(state_shape());
    for (Index s = 0; s < sequences_.size(); ++s) {
      for (Index i = 0; i < channels_; ++i) state(s, 2, i) = rwkv4_nothing<T>;
    }
    return state;
  }

  /// `state` moves on; out may be null; `kept` takes (tiles, 3, channels) where it has room.
  void run(const NdView<T, 3>& out, NdArray<T, 3>& state, NdArray<T, 3>& kept) const {
    const simd::Level level = simd::active_level();
    const Index blocks = block_count(channels_, wkv_channels);
    std::atomic<bool> finite{true};
    parallel_for(
        sequences_.size() * blocks,
        [&](Index work) {
          const Index s = work / blocks, channel = work % blocks * wkv_channels;
          const Sequence q = sequences_[s];
          kernels::WkvTask<T> task = forward_task(s, channel);
          task.state = {&state(s, Index{0}, channel), channels_};
          if (!out.is_null()) task.y = rows_of(out, q, channel);
          if (!kept.empty()) task.kept = kept_rows(kept.data(), s, channel);
          if (!QUERN_DISPATCH_AT(level, wkv<T>(task))) finite = false;
        },
        options_.threads);
    if (finite) return;
    expect_finite_values(function_, "k", in_.k);
    expect_finite_values(function_, "v", in_.v);
    expect_finite_values(function_, "u", in_.u);
    expect_finite_values(function_, "initial_state", in_.initial_state);
    throw ValueError(error_text(function_, "v", "averages that do not overflow", "an overflow"));
  }

  void run_back(const NdView<const T, 3>& dout, const NdView<const T, 3>& dfinal,
                const Rwkv4Gradients<T>& g) const {
    const simd::Level level = simd::active_level();
    NdArray<T, 3> state = first_states(), kept({tiles_, 3, channels_}, core::Fill::none);
    run({}, state, kept);
    NdArray<T, 3> dstate =
        dfinal.is_null() ? NdArray<T, 3>(gradient_shape()) : NdArray<T, 3>(dfinal);
    NdArray<T, 3> parts(gradient_shape());  // of each sequence: w, u
    const UnitStride<const T, 3> dy(dout);
    const UnitOutput<T, 3> dk(g.k), dv(g.v);
    const Index blocks = block_count(channels_, wkv_channels);
    parallel_for(
        sequences_.size() * blocks,
        [&](Index work) {
          const Index s = work / blocks, channel = work % blocks * wkv_channels;
          const Sequence q = sequences_[s];
          kernels::WkvVjpTask<T> task;
          task.wkv = forward_task(s, channel);
          task.wkv.kept = kept_rows(kept.data(), s, channel);
          task.dy = rows_of(dy.view(), q, channel);
          task.last = {&state(s, Index{0}, channel), channels_};
          task.dstate = {&dstate(s, Index{0}, channel), channels_};
          if (!dk.view().is_null()) task.dk = rows_of(dk.view(), q, channel);
          if (!dv.view().is_null()) task.dv = rows_of(dv.view(), q, channel);
          task.dw = &parts(s, Index{0}, channel);
          task.du = &parts(s, Index{1}, channel);
          QUERN_DISPATCH_AT(level, wkv_vjp<T>(task));
        },
        options_.threads);
    dk.finish();
    dv.finish();
    for (Index s = 0; s < sequences_.size(); ++s) {
      if (!g.w.is_null()) accumulate(parts.view().subview(s).row(0), g.w);
      if (!g.u.is_null()) accumulate(parts.view().subview(s).row(1), g.u);
    }
    if (!g.initial_state.is_null()) assign(dstate.view(), g.initial_state);
  }

 private:
  template <class U>
  static kernels::ScanRows<U> rows_of(const NdView<U, 3>& v, const Sequence& q, Index channel) {
    return {v.data() + q.batch * v.stride(0) + q.begin * v.stride(1) + channel, v.stride(1)};
  }
  kernels::ScanRows<T> kept_rows(T* kept, Index s, Index channel) const {
    const Index first = first_tile_[static_cast<std::size_t>(s)];
    return {kept + first * 3 * channels_ + channel, channels_};
  }
  kernels::WkvTask<T> forward_task(Index s, Index channel) const {
    const Sequence q = sequences_[s];
    kernels::WkvTask<T> task;
    task.steps = q.length;
    task.channels = (std::min)(wkv_channels, channels_ - channel);
    task.k = rows_of(k_.view(), q, channel);
    task.v = rows_of(v_.view(), q, channel);
    task.w = w_.data() + channel;
    task.u = u_.view().data() + channel;
    return task;
  }

  const char* function_;
  Rwkv4Inputs<T> in_;
  RwkvOptions options_;
  Index channels_;
  Sequences sequences_;
  UnitStride<const T, 3> k_, v_;
  UnitStride<const T, 1> u_;
  NdArray<T, 1> w_;
  std::vector<Index> first_tile_;
  Index tiles_ = 0;
};

}  // namespace detail

/// out (batch, length, channels), overwritten; `final_state` (sequences, 3, channels) takes the
/// states after each sequence's last step, null leaves it out. ShapeError for what does not fit;
/// ValueError for a w above 0 (unless clipped) and for what is not finite, with its place.
template <class T>
void rwkv4(const Rwkv4Inputs<T>& in, std::type_identity_t<NdView<T, 3>> out,
           std::type_identity_t<NdView<T, 3>> final_state = {}, const RwkvOptions& options = {}) {
  constexpr const char* function = "quern::ssm::rwkv4";
  const detail::Rwkv4Job<T> job(function, in, options);
  expect_shape(function, "out", out, in.k.extents());
  detail::expect_optional(function, "final_state", final_state, job.state_shape());
  const detail::UnitOutput<T, 3> output(out);
  NdArray<T, 3> state = job.first_states(), nothing_kept;
  job.run(output.view(), state, nothing_kept);
  output.finish();
  if (!final_state.is_null()) detail::assign(state.view(), final_state);
}

/// Gradients of a scalar by everything, given those by out and by the final p and q
/// (`dfinal_state` (sequences, 2, channels), null: zeros). Null views of `gradients` are left out;
/// those of w and u are added to, the others overwritten.
template <class T>
void rwkv4_vjp(const Rwkv4Inputs<T>& in, std::type_identity_t<NdView<const T, 3>> dout,
               std::type_identity_t<NdView<const T, 3>> dfinal_state,
               const Rwkv4Gradients<T>& gradients, const RwkvOptions& options = {}) {
  constexpr const char* function = "quern::ssm::rwkv4_vjp";
  const detail::Rwkv4Job<T> job(function, in, options);
  expect_shape(function, "dout", dout, in.k.extents());
  detail::expect_optional(function, "dfinal_state", dfinal_state, job.gradient_shape());
  detail::expect_optional(function, "gradients.k", gradients.k, in.k.extents());
  detail::expect_optional(function, "gradients.v", gradients.v, in.k.extents());
  detail::expect_optional(function, "gradients.w", gradients.w, in.w.extents());
  detail::expect_optional(function, "gradients.u", gradients.u, in.u.extents());
  detail::expect_optional(function, "gradients.initial_state", gradients.initial_state,
                          job.gradient_shape());
  job.run_back(dout, dfinal_state, gradients);
}

/// One step of all rows of a batch: k, v and out (batch, channels), `state` (batch, 3, channels)
/// moves on. The same bits as rwkv4 with the same options, and its errors.
template <class T>
void rwkv4_step(MatrixView<const T> k, std::type_identity_t<MatrixView<const T>> v,
                std::type_identity_t<NdView<const T, 1>> w,
                std::type_identity_t<NdView<const T, 1>> u,
                std::type_identity_t<NdView<T, 3>> state, std::type_identity_t<MatrixView<T>> out,
                const RwkvOptions& options = {}) {
  const auto lengthened = [](const auto& m) {
    using Element = std::remove_pointer_t<decltype(m.data())>;
    return NdView<Element, 3>(m.data(), {m.rows(), 1, m.cols()},
                              {m.row_stride(), 0, m.col_stride()});
  };
  const Rwkv4Inputs<T> in{lengthened(k), lengthened(v), w, u, state};
  expect_shape("quern::ssm::rwkv4_step", "state", state, {k.rows(), 3, k.cols()});
  rwkv4(in, lengthened(out), state, options);
}

}  // namespace ssm
QUERN_NAMESPACE_END

#endif  // QUERN_SSM_RWKV4_HPP
