// SPDX-License-Identifier: Apache-2.0

/// \file
/// Linear attention: out_i = phi(q_i)^T sum_j phi(k_j) v_j^T / (phi(q_i)^T sum_j phi(k_j) + eps),
/// in time and memory linear in the length. Causal or not, with or without normaliser, with decay a
/// head, a step or a channel; forward, exact gradients, and a state to decode with.
///
/// A. Katharopoulos et al., "Transformers are RNNs", ICML 2020; with head_decay and no normaliser
/// this is retention (Y. Sun et al., 2023), with channel_decay gated linear attention (S. Yang et
/// al., ICML 2024).

#ifndef QUERN_ATTENTION_LINEAR_HPP
#define QUERN_ATTENTION_LINEAR_HPP

#include "quern/attention/attention_options.hpp"
#include "quern/attention/detail/linear_call.hpp"
#include "quern/attention/feature_map.hpp"
#include "quern/attention/linear_options.hpp"
#include "quern/attention/linear_state.hpp"
#include "quern/core/config.hpp"
#include "quern/core/nd_array.hpp"
#include "quern/core/nd_view.hpp"

#include <type_traits>

QUERN_NAMESPACE_BEGIN
namespace attention {

/// out (batch, heads, length, value_dim), overwritten. `state`, for causal attention only: where it
/// starts from, and then where it ends; null: from nothing. `normalisers` (batch, heads, length)
/// takes what the gradient needs, null leaves it out. A query that sees no key has output 0, and so
/// have steps of no sequence. ShapeError and ValueError for what does not fit, ValueError for
/// negative features that a normaliser would sum and for maps with scales where none is made.
template <class T>
void linear_attention(const LinearInputs<T>& in, NdView<T, 4> out, LinearState<T>* state = nullptr,
                      std::type_identity_t<NdView<T, 3>> normalisers = {},
                      const LinearOptions& options = {}) {
  const detail::LinearCall<T> call("quern::attention::linear_attention", in, options);
  call.check_out("out", out);
  call.check_normalisers(normalisers);
  call.check_state("state", state);
  if (call.is_step(state)) return call.step(state, out, normalisers);
  detail::clear_gaps(call.shape.query_spans, out);
  call.run(state, out, normalisers);
}

/// Gradients by everything of `in` and by the state before, given that by the output and, where
/// `dfinal` is not null, by `sums` and `normaliser` of the state after, whose log_scale counts as
/// constant (what reads sums e^log_scale has such gradients). So pieces of a sequence, each with
/// its state before, give the whole one's gradients from the last piece to the first: one's
/// `initial` is the `dfinal` of the one before. Null views of `gradients` are skipped; those by
/// inputs and the state are overwritten, that by head_decay is added to. `saved` is what the
/// forward pass left, computed again where null. ShapeError and ValueError for what does not fit.
template <class T>
void linear_attention_vjp(const LinearInputs<T>& in, const LinearSaved<T>& saved,
                          std::type_identity_t<NdView<const T, 4>> dout,
                          const LinearGradients<T>& gradients, const LinearOptions& options = {},
                          std::type_identity_t<const LinearState<T>*> dfinal = nullptr) {
  const detail::LinearCall<T> call("quern::attention::linear_attention_vjp", in, options);
  call.check_out("dout", dout);
  call.check_gradients(gradients);
  call.check_state("saved.initial", saved.initial);
  call.check_state("gradients.initial", gradients.initial);
  call.check_state("dfinal", dfinal);
  NdView<const T, 4> out = saved.out;
  NdView<const T, 3> normalisers = saved.normalisers;
  NdArray<T, 4> own_out;
  NdArray<T, 3> own_sums;
  if (options.normalise && (out.is_null() || normalisers.is_null())) {
    own_out.resize(dout.extents());
    own_sums.resize({dout.extent(0), dout.extent(1), dout.extent(2)});
    LinearState<T> state;
    if (saved.initial != nullptr) state = *saved.initial;
    linear_attention<T>(in, own_out.view(), saved.initial != nullptr ? &state : nullptr,
                        own_sums.view(), options);
    out = own_out.view();
    normalisers = own_sums.view();
  }
  if (options.normalise) {
    call.check_out("saved.out", out);
    call.check_normalisers(normalisers);
  }
  detail::clear_gaps(call.shape.query_spans, gradients.q);
  detail::clear_gaps(call.shape.key_spans, gradients.k);
  detail::clear_gaps(call.shape.key_spans, gradients.v);
  detail::clear_gaps(call.shape.key_spans, gradients.channel_decay);
  if (const NdView<T, 3>& g = gradients.step_decay; !g.is_null()) {
    detail::clear_gaps(call.shape.key_spans,
                       NdView<T, 4>(g.data(), {g.extent(0), g.extent(1), g.extent(2), 1},
                                    {g.stride(0), g.stride(1), g.stride(2), 1}));
  }
  call.backward(out, normalisers, dout, {saved.initial, dfinal, gradients.initial}, gradients);
}

}  // namespace attention
QUERN_NAMESPACE_END

#endif  // QUERN_ATTENTION_LINEAR_HPP
