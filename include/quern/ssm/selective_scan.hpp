// SPDX-License-Identifier: Apache-2.0

/// \file
/// The selective scan of Mamba: forward, exact gradients, one step.
///
///   dt_t = softplus(delta_t + bias),
///   h_t = e^(dt_t a) h_(t-1) + dt_t u_t b_t,   y_t = (h_t . c_t + skip u_t) silu(z_t),
///
/// for every channel with a state of N numbers; b and c change with time and are shared by the
/// channels of a group. The input is discretised by Euler's rule (dt b), as Mamba does, not by
/// zero-order hold.
///
/// A. Gu, T. Dao, "Mamba: linear-time sequence modeling with selective state spaces", 2023,
/// algorithm 2; names as in its reference implementation selective_scan_ref.

#ifndef QUERN_SSM_SELECTIVE_SCAN_HPP
#define QUERN_SSM_SELECTIVE_SCAN_HPP

#include "quern/core/buffer.hpp"
#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/core/nd_array.hpp"
#include "quern/core/nd_view.hpp"
#include "quern/core/parallel.hpp"
#include "quern/kernels/kernels.hpp"
#include "quern/kernels/selective_scan_types.hpp"
#include "quern/ssm/detail/arrays.hpp"
#include "quern/ssm/detail/selective_scan_job.hpp"
#include "quern/ssm/selective_scan_types.hpp"
#include "quern/ssm/sequence.hpp"

#include <string>
#include <type_traits>

QUERN_NAMESPACE_BEGIN
namespace ssm {

/// out (batch, length, channels) of the scan, overwritten; `final_state` (sequences, channels,
/// states) takes the state after each sequence's last step, null leaves it out. `saved` takes what
/// makes selective_scan_vjp cheaper. Any strides (adjacent channels are fastest), any lengths, also
/// 0 and 1.
///
/// ShapeError for what does not fit. ValueError for a pole above 0 (unless clipped), without
/// softplus for a delta that is not above 0, and for anything that is not finite, with the place
/// where it entered. No finite input within these gives a NaN: decays below the smallest normal
/// number are 0.
template <class T>
void selective_scan(const SelectiveScanInputs<T>& in, std::type_identity_t<NdView<T, 3>> out,
                    std::type_identity_t<NdView<T, 3>> final_state = {},
                    const SelectiveScanOptions& options = {},
                    SelectiveScanSaved<T>* saved = nullptr) {
  constexpr const char* function = "quern::ssm::selective_scan";
  const detail::SelectiveScanJob<T> job(function, in, options);
  expect_shape(function, "out", out, in.u.extents());
  detail::expect_optional(function, "final_state", final_state, job.state_shape());
  const detail::UnitOutput<T, 3> output(out);
  NdArray<T, 3> state = job.first_states();
  SelectiveScanSaved<T> none;
  if (saved != nullptr) job.make_room(*saved);
  job.run(output.view(), state, saved == nullptr ? none : *saved);
  output.finish();
  if (!final_state.is_null()) detail::assign(job.turned(state), final_state);
}

/// Gradients of a scalar by everything, given those by out (`dout`) and by the final state
/// (`dfinal_state`, null: zeros). Null views of `gradients` are left out; those of a, skip and
/// delta_bias are added to, the others overwritten. Without `saved` of the forward call the states
/// are computed once more. Where poles were clipped, a's gradient is that of the clipped poles.
template <class T>
void selective_scan_vjp(const SelectiveScanInputs<T>& in,
                        std::type_identity_t<NdView<const T, 3>> dout,
                        std::type_identity_t<NdView<const T, 3>> dfinal_state,
                        const SelectiveScanGradients<T>& gradients,
                        const SelectiveScanOptions& options = {},
                        const SelectiveScanSaved<T>* saved = nullptr) {
  constexpr const char* function = "quern::ssm::selective_scan_vjp";
  const detail::SelectiveScanJob<T> job(function, in, options);
  expect_shape(function, "dout", dout, in.u.extents());
  detail::expect_optional(function, "dfinal_state", dfinal_state, job.state_shape());
  job.check_gradients(gradients);
  SelectiveScanSaved<T> made;
  if (saved == nullptr || saved->states.extents() != job.saved_shape()) {
    NdArray<T, 3> state = job.first_states();
    job.make_room(made);
    job.run({}, state, made);
    saved = &made;
  }
  job.run_back(dout, dfinal_state, gradients, *saved);
}

/// One step of all rows of a batch: u, delta, z and out are (batch, channels), b and c
/// (batch, groups * states), `state` (batch, channels, states) moves on. Fast where a and state
/// have adjacent channels, (states, channels) in memory: then nothing is copied. The same bits as
/// selective_scan, with the same options but offsets (ValueError); clip_poles costs a copy of a.
/// ShapeError for what does not fit; values are not looked at.
template <class T>
void selective_scan_step(const SelectiveScanStepInputs<T>& in,
                         std::type_identity_t<NdView<T, 3>> state,
                         std::type_identity_t<MatrixView<T>> out,
                         const SelectiveScanOptions& options = {}) {
  constexpr const char* function = "quern::ssm::selective_scan_step";
  const Index batch = in.u.extent(0), channels = in.u.extent(1), states = in.a.extent(1);
  if (!options.offsets.empty()) {
    throw ValueError(error_text(function, "options.offsets", "none for a step",
                                std::to_string(options.offsets.size())));
  }
  expect_shape(function, "delta", in.delta, in.u.extents());
  expect_shape(function, "a", in.a, {channels, states});
  expect_shape(function, "b", in.b, {batch, options.groups * states});
  expect_shape(function, "c", in.c, {batch, options.groups * states});
  detail::expect_optional(function, "skip", in.skip, {channels});
  detail::expect_optional(function, "delta_bias", in.delta_bias, {channels});
  detail::expect_optional(function, "z", in.z, in.u.extents());
  expect_shape(function, "state", state, {batch, channels, states});
  expect_shape(function, "out", out, in.u.extents());
  const auto lengthened = [](const MatrixView<const T>& m) {
    if (m.is_null()) return NdView<const T, 3>();
    return NdView<const T, 3>(m.data(), {m.rows(), 1, m.cols()},
                              {m.row_stride(), 0, m.col_stride()});
  };
  SelectiveScanInputs<T> all{lengthened(in.u), lengthened(in.delta), in.a,
                             lengthened(in.b), lengthened(in.c),     in.skip,
                             in.delta_bias,    lengthened(in.z),     {}};
  const detail::SelectiveScanJob<T> job(function, all, options, detail::ScanTrust::all);
  const NdView<T, 3> long_out(out.data(), {batch, 1, channels},
                              {out.row_stride(), 0, out.col_stride()});
  const detail::UnitOutput<T, 3> output(long_out);
  if (state.stride(1) == 1 || channels <= 1) {
    job.step(output.view(), state.permuted({0, 2, 1}));
  } else {
    NdArray<T, 3> turned(NdView<const T, 3>(state.permuted({0, 2, 1})));
    job.step(output.view(), turned.view());
    detail::assign(job.turned(turned), state);
  }
  output.finish();
}

}  // namespace ssm
QUERN_NAMESPACE_END

#endif  // QUERN_SSM_SELECTIVE_SCAN_HPP
