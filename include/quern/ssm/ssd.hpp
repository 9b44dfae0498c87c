// SPDX-License-Identifier: Apache-2.0

/// \file
/// Mamba-2's state space duality: forward, exact gradients, one step.
///
///   h_t = e^(log_a_t) h_(t-1) + x_t b_t^T,   y_t = h_t c_t
///
/// for each head, with one decay for all of its state h (values, states). x is already times dt and
/// log_a = dt A, as in the paper's ssd_minimal_discrete. States go from step to step in registers;
/// sums of log_a run over at most 64 steps, in double, so no difference of long sums loses digits.
/// A sequence cut into pieces or steps that hand on the state gives the same to rounding.
///
/// T. Dao, A. Gu, "Transformers are SSMs: generalized models and efficient algorithms through
/// structured state space duality", ICML 2024, section 6 and listing 1.

#ifndef QUERN_SSM_SSD_HPP
#define QUERN_SSM_SSD_HPP

#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/core/nd_view.hpp"
#include "quern/kernels/decayed_recurrence.hpp"
#include "quern/kernels/recurrence_views.hpp"
#include "quern/ssm/detail/arrays.hpp"
#include "quern/ssm/detail/looks.hpp"
#include "quern/ssm/sequence.hpp"

#include <cstdint>
#include <span>
#include <type_traits>

QUERN_NAMESPACE_BEGIN
namespace ssm {

/// Options of ssd.
struct SsdOptions {
  bool clip_decay = false;  ///< growth becomes no decay instead of an error
  /// Offsets of packed sequences, 0 … length, not decreasing; empty: each batch entry is one.
  std::span<const std::int64_t> offsets = {};
  int threads = 0;  ///< 0: the default, see parallel_for
};

/// What it reads. b and c may have fewer heads: each is shared by a group of neighbours.
template <class T>
struct SsdInputs {
  NdView<const T, 4> x;                ///< (batch, length, heads, values), times dt
  NdView<const T, 3> log_a;            ///< (batch, length, heads), not above 0
  NdView<const T, 4> b;                ///< (batch, length, groups, states)
  NdView<const T, 4> c;                ///< as b
  NdView<const T, 4> initial_state{};  ///< optional, (sequences, heads, values, states)
};

/// Gradients by the inputs of the same names, overwritten; null views are left out.
template <class T>
struct SsdGradients {
  NdView<T, 4> x{};
  NdView<T, 3> log_a{};
  NdView<T, 4> b{};
  NdView<T, 4> c{};
  NdView<T, 4> initial_state{};
};

namespace detail {

/// (batch, length, heads, dim) as (batch, heads, length, dim), states with both sides swapped.
template <class T>
NdView<T, 4> heads_first(const NdView<T, 4>& v) {
  return v.permuted({0, 2, 1, 3});
}
template <class T>
NdView<T, 3> heads_first(const NdView<T, 3>& v) {
  return v.permuted({0, 2, 1});
}
template <class T>
NdView<T, 4> states_first(const NdView<T, 4>& v) {
  return v.permuted({0, 1, 3, 2});
}

template <class T>
struct SsdCall {
  Decays<T, 3> log_a;
  kernels::RecurrenceViews<T> views;
  kernels::RecurrenceOptions options;

  SsdCall(const char* function, const SsdInputs<T>& in, const SsdOptions& given)
      : log_a(function, "log_a", in.log_a, given.clip_decay) {
    const Index batch = in.x.extent(0), length = in.x.extent(1), heads = in.x.extent(2);
    expect_shape(function, "log_a", in.log_a, {batch, length, heads});
    expect_shape(function, "b", in.b, {batch, length, in.b.extent(2), in.b.extent(3)});
    if (in.b.extent(2) > 0 ? heads % in.b.extent(2) != 0 : heads != 0) {
      throw ShapeError(error_text(
          function, "b", "groups that divide heads, " + std::to_string(heads), in.b.extent(2)));
    }
    expect_shape(function, "c", in.c, in.b.extents());
    const Sequences sequences(function, given.offsets, batch, length);
    expect_optional(function, "initial_state", in.initial_state,
                    {sequences.size(), heads, in.x.extent(3), in.b.extent(3)});
    views.q = heads_first(in.c);
    views.k = heads_first(in.b);
    views.v = heads_first(in.x);
    views.step_decay = heads_first(log_a.view());
    views.initial_state = states_first(in.initial_state);
    options.sequences.cumulative = given.offsets;
    options.threads = given.threads;
  }
};

}  // namespace detail

/// y (batch, length, heads, values), overwritten; `final_state` (sequences, heads, values, states)
/// takes the states after the last steps, null leaves it out. ShapeError for what does not fit;
/// ValueError for a log_a above 0 (unless clipped) and for what is not finite, with its place.
template <class T>
void ssd(const SsdInputs<T>& in, std::type_identity_t<NdView<T, 4>> y,
         std::type_identity_t<NdView<T, 4>> final_state = {}, const SsdOptions& options = {}) {
  constexpr const char* function = "quern::ssm::ssd";
  const detail::SsdCall<T> call(function, in, options);
  expect_shape(function, "y", y, in.x.extents());
  kernels::decayed_recurrence(call.views, detail::heads_first(y), detail::states_first(final_state),
                              call.options);
  if (detail::finite_in_parallel<T>(y, options.threads)) return;
  detail::expect_finite_values(function, "x", in.x);
  detail::expect_finite_values(function, "b", in.b);
  detail::expect_finite_values(function, "c", in.c);
  detail::expect_finite_values(function, "initial_state", in.initial_state);
  throw ValueError(error_text(function, "inputs", "results that do not overflow", "an overflow"));
}

/// Gradients of a scalar by everything, given those by y and by the final state (null: zeros).
template <class T>
void ssd_vjp(const SsdInputs<T>& in, std::type_identity_t<NdView<const T, 4>> dy,
             std::type_identity_t<NdView<const T, 4>> dfinal_state,
             const SsdGradients<T>& gradients, const SsdOptions& options = {}) {
  constexpr const char* function = "quern::ssm::ssd_vjp";
  const detail::SsdCall<T> call(function, in, options);
  expect_shape(function, "dy", dy, in.x.extents());
  kernels::RecurrenceGradients<T> g{};
  g.q = detail::heads_first(gradients.c);
  g.k = detail::heads_first(gradients.b);
  g.v = detail::heads_first(gradients.x);
  g.step_decay = detail::heads_first(gradients.log_a);
  g.initial_state = detail::states_first(gradients.initial_state);
  kernels::decayed_recurrence_vjp(call.views, detail::heads_first(dy),
                                  detail::states_first(dfinal_state), g, call.options);
}

/// One step of all rows of a batch: x and y (batch, heads, values), log_a (batch, heads), b and c
/// (batch, groups, states); `state` (batch, heads, values, states) moves on, fastest where values
/// are adjacent in memory. Equals ssd's steps to rounding. Errors as ssd's, but values are not
/// looked at, log_a's apart.
template <class T>
void ssd_step(NdView<const T, 3> x, std::type_identity_t<MatrixView<const T>> log_a,
              std::type_identity_t<NdView<const T, 3>> b,
              std::type_identity_t<NdView<const T, 3>> c, std::type_identity_t<NdView<T, 4>> state,
              std::type_identity_t<NdView<T, 3>> y, const SsdOptions& options = {}) {
  const auto lengthened = [](const auto& v) {
    using Element = std::remove_pointer_t<decltype(v.data())>;
    return NdView<Element, 4>(v.data(), {v.extent(0), 1, v.extent(1), v.extent(2)},
                              {v.stride(0), 0, v.stride(1), v.stride(2)});
  };
  const NdView<const T, 3> decay(log_a.data(), {log_a.rows(), 1, log_a.cols()},
                                 {log_a.row_stride(), 0, log_a.col_stride()});
  const SsdInputs<T> in{lengthened(x), decay, lengthened(b), lengthened(c), state};
  const detail::SsdCall<T> call("quern::ssm::ssd_step", in, options);
  kernels::decayed_recurrence(call.views, detail::heads_first(lengthened(y)),
                              detail::states_first(state), call.options);
}

}  // namespace ssm
QUERN_NAMESPACE_END

#endif  // QUERN_SSM_SSD_HPP
