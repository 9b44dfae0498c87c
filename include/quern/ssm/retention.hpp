// SPDX-License-Identifier: Apache-2.0

/// \file
/// RetNet's retention in its three forms, which compute the same:
///
///   parallel    o_i = sum over j <= i of gamma^(i-j) (scale q_i . k_j) v_j
///   chunkwise   the same by pieces that hand on a state (any cut gives the same, to rounding)
///   recurrent   S_i = gamma S_(i-1) + k_i v_i^T, o_i = scale S_i^T q_i
///
/// Neither xPos nor a norm is part of it (the layer has both), nor is the result normalised.
///
/// Y. Sun et al., "Retentive network: a successor to transformer for large language models", 2023,
/// equations 5-7.

#ifndef QUERN_SSM_RETENTION_HPP
#define QUERN_SSM_RETENTION_HPP

#include "quern/core/checks.hpp"
#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/core/nd_array.hpp"
#include "quern/core/nd_view.hpp"
#include "quern/core/parallel.hpp"
#include "quern/kernels/decayed_recurrence.hpp"
#include "quern/kernels/gemm.hpp"
#include "quern/kernels/recurrence_views.hpp"
#include "quern/ssm/detail/arrays.hpp"
#include "quern/ssm/detail/looks.hpp"
#include "quern/ssm/sequence.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <span>
#include <type_traits>

QUERN_NAMESPACE_BEGIN
namespace ssm {

/// Options of retention.
struct RetentionOptions {
  double scale = 0;  ///< of q . k; 0: 1 / sqrt(key_dim)
  /// Offsets of packed sequences, 0 … length, not decreasing; empty: each batch entry is one.
  std::span<const std::int64_t> offsets = {};
  int threads = 0;  ///< 0: the default, see parallel_for
};

/// What retention reads. k and q may have fewer heads than v: each is shared by neighbours.
template <class T>
struct RetentionInputs {
  NdView<const T, 4> q;                ///< (batch, heads, length, key_dim)
  NdView<const T, 4> k;                ///< as q
  NdView<const T, 4> v;                ///< (batch, heads, length, value_dim)
  NdView<const T, 1> gamma;            ///< (heads): decays, above 0, at most 1
  NdView<const T, 4> initial_state{};  ///< optional, (sequences, heads, key_dim, value_dim)
};

/// Gradients by the inputs of the same names, overwritten; null views are left out. gamma is no
/// parameter of RetNet.
template <class T>
struct RetentionGradients {
  NdView<T, 4> q{};
  NdView<T, 4> k{};
  NdView<T, 4> v{};
  NdView<T, 4> initial_state{};
};

/// RetNet's decays: 1 - 2^(-5 - h), h = 0, 1, … (equation 8).
template <class T>
[[nodiscard]] NdArray<T, 1> retention_decays(Index heads) {
  NdArray<T, 1> gamma({heads});
  for (Index h = 0; h < heads; ++h) {
    gamma(h) = static_cast<T>(1 - std::exp2(-5 - static_cast<double>(h)));
  }
  return gamma;
}

namespace detail {

template <class T>
struct RetentionCall {
  NdArray<T, 1> log_gamma;
  kernels::RecurrenceViews<T> views;
  kernels::RecurrenceOptions options;
  Shape<4> state_shape{};

  RetentionCall(const char* function, const RetentionInputs<T>& in, const RetentionOptions& given)
      : log_gamma(in.gamma.extents()) {
    expect_shape(function, "gamma", in.gamma, {in.v.extent(1)});
    for (Index h = 0; h < log_gamma.size(); ++h) {
      const T gamma = in.gamma(h);
      if (!(gamma > T{0} && gamma <= T{1}) || is_nan_bits(gamma)) {
        throw ValueError(error_text(function, "gamma", "decays above 0, at most 1",
                                    quern::detail::text_of(gamma) + " at " + std::to_string(h)));
      }
      log_gamma(h) = static_cast<T>(std::log(static_cast<double>(gamma)));
    }
    const Index heads = in.v.extent(1), key_dim = in.q.extent(3);
    expect_shared_heads(function, "q", in.q, heads,
                        {in.v.extent(0), heads, in.v.extent(2), key_dim});
    expect_shared_heads(function, "k", in.k, heads,
                        {in.v.extent(0), heads, in.v.extent(2), key_dim});
    // For its messages: every step belongs to a sequence.
    const Sequences sequences(function, given.offsets, in.q.extent(0), in.q.extent(2));
    state_shape = {sequences.size(), heads, key_dim, in.v.extent(3)};
    expect_optional(function, "initial_state", in.initial_state, state_shape);
    views.q = in.q;
    views.k = in.k;
    views.v = in.v;
    views.head_decay = log_gamma.view();
    views.initial_state = in.initial_state;
    options.scale = given.scale;
    if (given.scale == 0 && in.q.extent(3) > 0) {
      options.scale = 1 / std::sqrt(static_cast<double>(in.q.extent(3)));
    }
    options.sequences.cumulative = given.offsets;
    options.threads = given.threads;
  }
};

template <class T>
void explain_retention(const char* function, const RetentionInputs<T>& in) {
  expect_finite_values(function, "q", in.q);
  expect_finite_values(function, "k", in.k);
  expect_finite_values(function, "v", in.v);
  expect_finite_values(function, "initial_state", in.initial_state);
  throw ValueError(error_text(function, "inputs", "results that do not overflow", "an overflow"));
}

}  // namespace detail

/// out (batch, heads, length, value_dim), overwritten, by the recurrence; `final_state` (sequences,
/// heads, key_dim, value_dim) takes S after the last steps (without the scale), null leaves it out.
/// ShapeError for what does not fit; ValueError for a gamma outside 0…1 and for what is not finite,
/// with its place.
template <class T>
void retention(const RetentionInputs<T>& in, std::type_identity_t<NdView<T, 4>> out,
               std::type_identity_t<NdView<T, 4>> final_state = {},
               const RetentionOptions& options = {}) {
  constexpr const char* function = "quern::ssm::retention";
  const detail::RetentionCall<T> call(function, in, options);
  expect_shape(function, "out", out, in.v.extents());
  detail::expect_optional(function, "final_state", final_state, call.state_shape);
  kernels::decayed_recurrence(call.views, out, final_state, call.options);
  if (!detail::finite_in_parallel<T>(out, options.threads)) detail::explain_retention(function, in);
}

/// Gradients of a scalar by everything, given those by out and by the final state (null: zeros).
template <class T>
void retention_vjp(const RetentionInputs<T>& in, std::type_identity_t<NdView<const T, 4>> dout,
                   std::type_identity_t<NdView<const T, 4>> dfinal_state,
                   const RetentionGradients<T>& gradients, const RetentionOptions& options = {}) {
  constexpr const char* function = "quern::ssm::retention_vjp";
  const detail::RetentionCall<T> call(function, in, options);
  expect_shape(function, "dout", dout, in.v.extents());
  detail::expect_optional(function, "dfinal_state", dfinal_state, call.state_shape);
  kernels::RecurrenceGradients<T> g{};
  g.q = gradients.q;
  g.k = gradients.k;
  g.v = gradients.v;
  g.initial_state = gradients.initial_state;
  kernels::decayed_recurrence_vjp(call.views, dout, dfinal_state, g, call.options);
}

/// One step of all rows of a batch: q, k (batch, heads, key_dim), v and out (batch, heads,
/// value_dim); `state` (batch, heads, key_dim, value_dim) moves on.
template <class T>
void retention_step(NdView<const T, 3> q, std::type_identity_t<NdView<const T, 3>> k,
                    std::type_identity_t<NdView<const T, 3>> v,
                    std::type_identity_t<NdView<const T, 1>> gamma,
                    std::type_identity_t<NdView<T, 4>> state,
                    std::type_identity_t<NdView<T, 3>> out, const RetentionOptions& options = {}) {
  const auto lengthened = [](const auto& x) {
    using Element = std::remove_pointer_t<decltype(x.data())>;
    return NdView<Element, 4>(x.data(), {x.extent(0), x.extent(1), 1, x.extent(2)},
                              {x.stride(0), x.stride(1), 0, x.stride(2)});
  };
  const RetentionInputs<T> in{lengthened(q), lengthened(k), lengthened(v), gamma, state};
  const detail::RetentionCall<T> call("quern::ssm::retention_step", in, options);
  kernels::decayed_recurrence(call.views, lengthened(out), state, call.options);
}

/// The parallel form, O(length^2): products of 64 rows at a time with the keys before them. For few
/// steps and wide heads; no state, no packed sequences (ShapeError). Its gradient is
/// retention_vjp's.
template <class T>
void retention_parallel(const RetentionInputs<T>& in, std::type_identity_t<NdView<T, 4>> out,
                        const RetentionOptions& options = {}) {
  constexpr const char* function = "quern::ssm::retention_parallel";
  constexpr Index rows = 64;
  const detail::RetentionCall<T> call(function, in, options);
  if (!in.initial_state.is_null() || !options.offsets.empty()) {
    throw ShapeError(error_text(function, "initial_state, offsets", "none", "one of them"));
  }
  const Index heads = in.v.extent(1), length = in.v.extent(2);
  expect_shape(function, "q", in.q, {in.v.extent(0), heads, length, in.q.extent(3)});
  expect_shape(function, "k", in.k, in.q.extents());
  expect_shape(function, "out", out, in.v.extents());
  parallel_for(
      in.v.extent(0) * heads,
      [&](Index work) {
        const Index b = work / heads, h = work % heads;
        const double log_gamma = std::log(static_cast<double>(in.gamma(h)));
        const auto of = [&](const auto& x) { return x.subview(b).subview(h); };
        NdArray<T, 2> scores({rows, length}, core::Fill::none);
        for (Index at = 0; at < length; at += rows) {
          const Index count = (std::min)(rows, length - at), seen = at + count;
          const MatrixView<T> s = scores.view().block(0, 0, count, seen);
          kernels::gemm<T>(of(in.q).slice(0, at, count), of(in.k).slice(0, 0, seen).transposed(), s,
                           {.alpha = static_cast<T>(call.options.scale), .threads = 1});
          for (Index i = 0; i < count; ++i) {
            for (Index j = 0; j < seen; ++j) {
              const Index apart = at + i - j;
              s(i, j) =
                  apart < 0
                      ? T{0}
                      : static_cast<T>(s(i, j) * std::exp(log_gamma * static_cast<double>(apart)));
            }
          }
          kernels::gemm<T>(s, of(in.v).slice(0, 0, seen), of(out).slice(0, at, count),
                           {.threads = 1});
        }
      },
      options.threads);
  if (!detail::finite_in_parallel<T>(out, options.threads)) detail::explain_retention(function, in);
}

}  // namespace ssm
QUERN_NAMESPACE_END

#endif  // QUERN_SSM_RETENTION_HPP
