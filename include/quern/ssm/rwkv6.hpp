// SPDX-License-Identifier: Apache-2.0

/// \file
/// RWKV-6's recurrence: forward, exact gradients, one step.
///
///   o_t = scale (S_(t-1) + diag(u) k_t v_t^T)^T r_t,   S_t = diag(e^(logw_t)) S_(t-1) + k_t v_t^T
///
/// for each head: the output reads the state before the step, with a bonus u for the present. With
/// logw the same at all steps it is RWKV-5.
///
/// B. Peng et al., "Eagle and Finch: RWKV with matrix-valued states and dynamic recurrence", 2024,
/// equations 16-19.

#ifndef QUERN_SSM_RWKV6_HPP
#define QUERN_SSM_RWKV6_HPP

#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/core/nd_view.hpp"
#include "quern/kernels/decayed_recurrence.hpp"
#include "quern/kernels/recurrence_views.hpp"
#include "quern/ssm/detail/arrays.hpp"
#include "quern/ssm/detail/looks.hpp"
#include "quern/ssm/rwkv4.hpp"
#include "quern/ssm/sequence.hpp"

#include <type_traits>

QUERN_NAMESPACE_BEGIN
namespace ssm {

/// What it reads. Other layouts, such as (batch, length, heads, keys), are strides.
template <class T>
struct Rwkv6Inputs {
  NdView<const T, 4> r;                ///< (batch, heads, length, keys)
  NdView<const T, 4> k;                ///< as r
  NdView<const T, 4> v;                ///< (batch, heads, length, values)
  NdView<const T, 4> logw;             ///< as r: logarithms of decays, not above 0
  NdView<const T, 2> u;                ///< (heads, keys)
  NdView<const T, 4> initial_state{};  ///< optional, (sequences, heads, keys, values)
};

/// Gradients by the inputs of the same names; null views are left out.
template <class T>
struct Rwkv6Gradients {
  NdView<T, 4> r{};
  NdView<T, 4> k{};
  NdView<T, 4> v{};
  NdView<T, 4> logw{};
  NdView<T, 2> u{};  ///< added to
  NdView<T, 4> initial_state{};
};

namespace detail {

template <class T>
struct Rwkv6Call {
  Decays<T, 4> logw;
  kernels::RecurrenceViews<T> views;
  kernels::RecurrenceOptions options;
  Shape<4> value_shape{}, state_shape{};

  Rwkv6Call(const char* function, const Rwkv6Inputs<T>& in, const RwkvOptions& given, double scale)
      : logw(function, "logw", in.logw, given.clip_decay) {
    const Shape<4>& shape = in.r.extents();
    expect_shape(function, "logw", in.logw, shape);
    expect_shape(function, "k", in.k, shape);
    value_shape = {shape[0], shape[1], shape[2], in.v.extent(3)};
    expect_shape(function, "v", in.v, value_shape);
    expect_shape(function, "u", in.u, {shape[1], shape[3]});
    const Sequences sequences(function, given.offsets, shape[0], shape[2]);
    state_shape = {sequences.size(), shape[1], shape[3], value_shape[3]};
    expect_optional(function, "initial_state", in.initial_state, state_shape);
    views.q = in.r;
    views.k = in.k;
    views.v = in.v;
    views.channel_decay = logw.view();
    views.bonus = in.u;
    views.initial_state = in.initial_state;
    options.scale = scale;
    options.from_old_state = true;
    options.sequences.cumulative = given.offsets;
    options.threads = given.threads;
  }
};

}  // namespace detail

/// out (batch, heads, length, values), overwritten; `final_state` (sequences, heads, keys, values)
/// takes the states after the last steps, null leaves it out. ShapeError for what does not fit;
/// ValueError for a logw above 0 (unless clipped) and for what is not finite, with its place.
template <class T>
void rwkv6(const Rwkv6Inputs<T>& in, std::type_identity_t<NdView<T, 4>> out,
           std::type_identity_t<NdView<T, 4>> final_state = {}, const RwkvOptions& options = {},
           double scale = 1) {
  constexpr const char* function = "quern::ssm::rwkv6";
  const detail::Rwkv6Call<T> call(function, in, options, scale);
  expect_shape(function, "out", out, call.value_shape);
  detail::expect_optional(function, "final_state", final_state, call.state_shape);
  kernels::decayed_recurrence(call.views, out, final_state, call.options);
  if (detail::finite_in_parallel<T>(out, options.threads)) return;
  detail::expect_finite_values(function, "r", in.r);
  detail::expect_finite_values(function, "k", in.k);
  detail::expect_finite_values(function, "v", in.v);
  detail::expect_finite_values(function, "u", in.u);
  detail::expect_finite_values(function, "initial_state", in.initial_state);
  throw ValueError(error_text(function, "inputs", "results that do not overflow", "an overflow"));
}

/// Gradients of a scalar by everything, given those by out and by the final state (null: zeros);
/// that of u is added to, the others are overwritten.
template <class T>
void rwkv6_vjp(const Rwkv6Inputs<T>& in, std::type_identity_t<NdView<const T, 4>> dout,
               std::type_identity_t<NdView<const T, 4>> dfinal_state,
               const Rwkv6Gradients<T>& gradients, const RwkvOptions& options = {},
               double scale = 1) {
  constexpr const char* function = "quern::ssm::rwkv6_vjp";
  const detail::Rwkv6Call<T> call(function, in, options, scale);
  expect_shape(function, "dout", dout, call.value_shape);
  detail::expect_optional(function, "dfinal_state", dfinal_state, call.state_shape);
  kernels::RecurrenceGradients<T> g{};
  g.q = gradients.r;
  g.k = gradients.k;
  g.v = gradients.v;
  g.channel_decay = gradients.logw;
  g.bonus = gradients.u;
  g.initial_state = gradients.initial_state;
  kernels::decayed_recurrence_vjp(call.views, dout, dfinal_state, g, call.options);
}

/// One step of all rows of a batch: r, k, logw (batch, heads, keys), v and out (batch, heads,
/// values); `state` (batch, heads, keys, values) moves on. Equals rwkv6's steps to rounding.
template <class T>
void rwkv6_step(NdView<const T, 3> r, std::type_identity_t<NdView<const T, 3>> k,
                std::type_identity_t<NdView<const T, 3>> v,
                std::type_identity_t<NdView<const T, 3>> logw,
                std::type_identity_t<NdView<const T, 2>> u,
                std::type_identity_t<NdView<T, 4>> state, std::type_identity_t<NdView<T, 3>> out,
                const RwkvOptions& options = {}, double scale = 1) {
  const auto lengthened = [](const auto& x) {
    using Element = std::remove_pointer_t<decltype(x.data())>;
    return NdView<Element, 4>(x.data(), {x.extent(0), x.extent(1), 1, x.extent(2)},
                              {x.stride(0), x.stride(1), 0, x.stride(2)});
  };
  const Rwkv6Inputs<T> in{lengthened(r), lengthened(k), lengthened(v), lengthened(logw), u, state};
  const detail::Rwkv6Call<T> call("quern::ssm::rwkv6_step", in, options, scale);
  kernels::decayed_recurrence(call.views, lengthened(out), state, call.options);
}

}  // namespace ssm
QUERN_NAMESPACE_END

#endif  // QUERN_SSM_RWKV6_HPP
