// SPDX-License-Identifier: Apache-2.0

/// \file
/// The delta rule: linear attention whose state forgets what it said about a key before it learns
/// what to say, S_t = a_t S_(t-1) + k_t u_t^T with u_t = beta_t (v_t - a_t S_(t-1)^T k_t) and
/// out_t = scale S_t^T q_t. Forward, exact gradients, states.
///
/// I. Schlag et al., "Linear transformers are secretly fast weight programmers", ICML 2021; S. Yang
/// et al., "Parallelizing linear transformers with the delta rule over sequence length", NeurIPS
/// 2024; with a_t below 1 the gated delta rule (S. Yang et al., ICLR 2025).

#ifndef QUERN_ATTENTION_DELTA_HPP
#define QUERN_ATTENTION_DELTA_HPP

#include "quern/attention/attention_options.hpp"
#include "quern/attention/detail/delta_head.hpp"
#include "quern/core/checks.hpp"
#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/core/nd_view.hpp"
#include "quern/core/parallel.hpp"

#include <cstddef>
#include <type_traits>

QUERN_NAMESPACE_BEGIN
namespace attention {

/// Inputs; query head h reads key head h / (heads / key_heads). Keys are usually of length 1 and
/// beta within (0, 1): neither is enforced.
template <class T>
struct DeltaInputs {
  NdView<const T, 4> q;              ///< (batch, heads, length, dim)
  NdView<const T, 4> k;              ///< (batch, key_heads, length, dim)
  NdView<const T, 4> v;              ///< (batch, key_heads, length, value_dim)
  NdView<const T, 3> beta;           ///< (batch, key_heads, length)
  NdView<const T, 3> step_decay;     ///< (batch, key_heads, length), logarithms; null: none
  NdView<const T, 4> initial_state;  ///< (sequences, heads, dim, value_dim); null: zeros
};

/// Gradients by each, of the same shapes; null views are skipped.
template <class T>
struct DeltaGradients {
  NdView<T, 4> q;
  NdView<T, 4> k;
  NdView<T, 4> v;
  NdView<T, 3> beta;
  NdView<T, 3> step_decay;
  NdView<T, 4> initial_state;
};

struct DeltaOptions {
  double scale = 1;  ///< of the output, such as 1 / sqrt(dim)
  SequenceLengths sequences = {};
  int threads = 0;  ///< 0: the default, see parallel_for
};

namespace detail {

template <class T>
AttentionShape delta_shape(const char* function, const DeltaInputs<T>& in,
                           const DeltaOptions& options) {
  Visibility visible;
  visible.causal = true;
  visible.sequences = options.sequences;
  if (in.k.extent(2) != in.q.extent(2)) {
    throw ShapeError(error_text(
        function, "k", "as many steps as q, " + std::to_string(in.q.extent(2)), in.k.extent(2)));
  }
  const AttentionShape shape(function, in.q, in.k, in.v, visible);
  const Shape<3> steps{shape.batch, shape.key_heads, shape.length};
  expect_shape(function, "beta", in.beta, steps);
  if (!in.step_decay.is_null()) expect_shape(function, "step_decay", in.step_decay, steps);
  if (!in.initial_state.is_null()) {
    expect_shape(function, "initial_state", in.initial_state,
                 {shape.sequences(), shape.heads, shape.dim, shape.value_dim});
  }
  return shape;
}

template <class T>
DeltaHead<T> delta_head(const AttentionShape& shape, const DeltaInputs<T>& in,
                        const DeltaOptions& options, Index sequence, Index h) {
  const SequenceSpan& span = shape.query_spans[static_cast<std::size_t>(sequence)];
  const Index kh = h / shape.share();
  const auto steps = [&](const NdView<const T, 3>& x) {
    return x.is_null() ? NdView<const T, 1>()
                       : x.subview(span.batch).subview(kh).slice(0, span.begin, span.length);
  };
  return {sequence_rows(in.q, span, h),
          sequence_rows(in.k, span, kh),
          sequence_rows(in.v, span, kh),
          steps(in.beta),
          steps(in.step_decay),
          in.initial_state.is_null() ? MatrixView<const T>()
                                     : in.initial_state.subview(sequence).subview(h),
          static_cast<T>(options.scale)};
}

}  // namespace detail

/// out (batch, heads, length, value_dim), overwritten; steps of no sequence become 0. `final_state`
/// (sequences, heads, dim, value_dim) takes the state after the last step, null leaves it out.
/// ShapeError and ValueError for what does not fit.
template <class T>
void delta_rule(const DeltaInputs<T>& in, NdView<T, 4> out,
                std::type_identity_t<NdView<T, 4>> final_state = {},
                const DeltaOptions& options = {}) {
  constexpr const char* function = "quern::attention::delta_rule";
  const AttentionShape shape = detail::delta_shape(function, in, options);
  expect_shape(function, "out", out, {shape.batch, shape.heads, shape.length, shape.value_dim});
  if (!final_state.is_null()) {
    expect_shape(function, "final_state", final_state,
                 {shape.sequences(), shape.heads, shape.dim, shape.value_dim});
  }
  detail::clear_gaps(shape.query_spans, out);
  parallel_for(
      shape.sequences() * shape.heads,
      [&](Index task) {
        const Index sequence = task / shape.heads, h = task % shape.heads;
        const SequenceSpan& span = shape.query_spans[static_cast<std::size_t>(sequence)];
        detail::DeltaRun<T> run(detail::delta_head(shape, in, options, sequence, h));
        run.forward(detail::sequence_rows(out, span, h), nullptr, nullptr);
        if (!final_state.is_null()) run.get_state(final_state.subview(sequence).subview(h));
      },
      options.threads);
}

/// Gradients, given those by the output and by the final state (null: zeros). All are overwritten.
template <class T>
void delta_rule_vjp(const DeltaInputs<T>& in, std::type_identity_t<NdView<const T, 4>> dout,
                    std::type_identity_t<NdView<const T, 4>> dfinal_state,
                    const DeltaGradients<T>& gradients, const DeltaOptions& options = {}) {
  constexpr const char* function = "quern::attention::delta_rule_vjp";
  const AttentionShape shape = detail::delta_shape(function, in, options);
  const DeltaGradients<T>& g = gradients;
  expect_shape(function, "dout", dout, {shape.batch, shape.heads, shape.length, shape.value_dim});
  const Shape<4> state{shape.sequences(), shape.heads, shape.dim, shape.value_dim};
  if (!dfinal_state.is_null()) expect_shape(function, "dfinal_state", dfinal_state, state);
  if (!g.q.is_null()) expect_shape(function, "gradients.q", g.q, in.q.extents());
  if (!g.k.is_null()) expect_shape(function, "gradients.k", g.k, in.k.extents());
  if (!g.v.is_null()) expect_shape(function, "gradients.v", g.v, in.v.extents());
  if (!g.beta.is_null()) expect_shape(function, "gradients.beta", g.beta, in.beta.extents());
  if (!g.step_decay.is_null()) {
    expect_shape(function, "gradients.step_decay", g.step_decay, in.step_decay.extents());
  }
  if (!g.initial_state.is_null()) {
    expect_shape(function, "gradients.initial_state", g.initial_state, state);
  }
  for (const NdView<T, 4>* x : {&g.q, &g.k, &g.v}) detail::fill_zero(*x);
  for (const NdView<T, 3>* x : {&g.beta, &g.step_decay}) detail::fill_zero(*x);
  // A key head's gradients are sums over its query heads, so these are one task.
  parallel_for(
      shape.sequences() * shape.key_heads,
      [&](Index task) {
        const Index sequence = task / shape.key_heads, kh = task % shape.key_heads;
        const SequenceSpan& span = shape.query_spans[static_cast<std::size_t>(sequence)];
        const auto rows = [&](const NdView<T, 4>& x, Index h) {
          return x.is_null() ? MatrixView<T>() : detail::sequence_rows(x, span, h);
        };
        const auto steps = [&](const NdView<T, 3>& x) {
          return x.is_null() ? NdView<T, 1>()
                             : x.subview(span.batch).subview(kh).slice(0, span.begin, span.length);
        };
        for (Index h = kh * shape.share(); h < (kh + 1) * shape.share(); ++h) {
          detail::DeltaHeadGradients<T> to{rows(g.q, h),  rows(g.k, kh),       rows(g.v, kh),
                                           steps(g.beta), steps(g.step_decay), MatrixView<T>()};
          if (!g.initial_state.is_null()) to.initial = g.initial_state.subview(sequence).subview(h);
          detail::delta_head_vjp(detail::delta_head(shape, in, options, sequence, h),
                                 detail::sequence_rows(dout, span, h),
                                 dfinal_state.is_null() ? MatrixView<const T>()
                                                        : dfinal_state.subview(sequence).subview(h),
                                 to);
        }
      },
      options.threads);
}

}  // namespace attention
QUERN_NAMESPACE_END

#endif  // QUERN_ATTENTION_DELTA_HPP
