// SPDX-License-Identifier: Apache-2.0

/// \file
/// Everything of a gated unit but its attention: norm, token shift, projections, SiLU, queries and
/// keys from one array, rotation by position, gates and the projection back; and their gradients.

#ifndef QUERN_ATTENTION_DETAIL_GATED_FRONT_HPP
#define QUERN_ATTENTION_DETAIL_GATED_FRONT_HPP

#include "quern/attention/detail/block_attention.hpp"
#include "quern/attention/detail/rows.hpp"
#include "quern/attention/detail/token_rows.hpp"
#include "quern/attention/gated_unit.hpp"
#include "quern/attention/rotary.hpp"
#include "quern/core/checks.hpp"
#include "quern/core/config.hpp"
#include "quern/core/nd_array.hpp"
#include "quern/core/nd_view.hpp"
#include "quern/core/parallel.hpp"
#include "quern/kernels/gemm.hpp"
#include "quern/nn/linear.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace attention {
namespace detail {

/// Extents of a call.
struct GatedShape {
  Index batch = 0, length = 0, dim = 0, expanded = 0, qk = 0, heads = 2;
  [[nodiscard]] Index rows() const { return batch * length; }
};

/// ShapeError unless an array of weights, or of their gradients where it is not null, fits.
template <class Element>
void check_gated_arrays(const char* function, const GatedUnitArrays<Element>& w,
                        const GatedShape& s, GateNorm norm, bool needed) {
  const auto one = [&](const char* name, const NdView<Element, 1>& v, Index n) {
    if (needed || !v.is_null()) expect_shape(function, name, v, {n});
  };
  const auto two = [&](const char* name, const MatrixView<Element>& v, Index rows, Index cols) {
    if (needed || !v.is_null()) expect_shape(function, name, v, {rows, cols});
  };
  if (norm != GateNorm::none) {
    one("norm_weight", w.norm_weight, norm == GateNorm::layer ? s.dim : 1);
  }
  if (norm == GateNorm::layer) one("norm_bias", w.norm_bias, s.dim);
  two("hidden_weight", w.hidden_weight, 2 * s.expanded, s.dim);
  one("hidden_bias", w.hidden_bias, 2 * s.expanded);
  two("qk_weight", w.qk_weight, s.qk, s.dim);
  one("qk_bias", w.qk_bias, s.qk);
  two("gamma", w.gamma, s.heads, s.qk);
  two("beta", w.beta, s.heads, s.qk);
  two("out_weight", w.out_weight, s.dim, s.expanded);
  one("out_bias", w.out_bias, s.dim);
}

template <class T>
GatedShape gated_shape(const char* function, const NdView<const T, 3>& x,
                       const GatedUnitWeights<T>& w, Index heads,
                       const GatedUnitOptions<T>& options) {
  const GatedShape s{x.extent(0),         x.extent(1),        x.extent(2),
                     w.out_weight.cols(), w.qk_weight.rows(), heads};
  check_gated_arrays(function, w, s, options.norm, true);
  if (options.rotary_dims < 0 || options.rotary_dims % 2 != 0 || options.rotary_dims > s.qk) {
    throw ValueError(error_text(function, "rotary_dims",
                                "an even number up to " + std::to_string(s.qk),
                                options.rotary_dims));
  }
  if (options.causal_offset.has_value()) {
    throw ValueError(error_text(function, "causal_offset",
                                "none: queries and keys are the same tokens",
                                *options.causal_offset));
  }
  if (options.window < -1) {
    throw ValueError(error_text(function, "window", "-1 or more", options.window));
  }
  if (!options.mask.is_null()) {
    expect_shape(function, "mask", options.mask, {s.batch, s.length});
  }
  if (!options.lengths.empty()) {
    expect_size(function, "lengths", static_cast<Index>(options.lengths.size()), s.batch,
                "lengths, one a row of the batch");
    for (const std::int64_t n : options.lengths)
      expect_in_range<std::int64_t>(function, "lengths", n, 0, s.length);
  }
  return s;
}

/// Whether a token is a key.
template <class T>
bool gated_key(const GatedUnitOptions<T>& options, Index b, Index t) {
  if (!options.lengths.empty() && t >= options.lengths[static_cast<std::size_t>(b)]) return false;
  return options.mask.is_null() || options.mask(b, t) != 0;
}

/// Tokens that are no keys have values and keys of 0: then they add nothing anywhere.
template <class T>
void hide_tokens(const GatedShape& s, const GatedUnitOptions<T>& options, NdArray<T, 2>& hidden,
                 NdArray<T, 3>& heads) {
  if (options.mask.is_null() && options.lengths.empty()) return;
  for (Index b = 0; b < s.batch; ++b) {
    for (Index t = 0; t < s.length; ++t) {
      if (gated_key(options, b, t)) continue;
      const Index row = b * s.length + t;
      std::fill_n(&hidden(row, 0), s.expanded, T{0});
      for (Index h = s.heads / 2; h < s.heads; ++h) std::fill_n(&heads(h, row, 0), s.qk, T{0});
    }
  }
}

/// Where a unit that goes token by token stands.
template <class T>
struct GatedStep {
  Index position = 0;
  std::vector<T> previous;  ///< (batch, dim / 2): what a token shift takes from the token before
};

/// Token shift of one token of each row.
template <class T>
void shift_step(MatrixView<const T> from, MatrixView<T> to, std::vector<T>& previous) {
  const Index half = from.cols() / 2;
  for (Index b = 0; b < from.rows(); ++b) {
    T* const before = previous.data() + b * half;
    std::copy_n(before, half, to.row_data(b));
    std::copy_n(from.row_data(b) + half, from.cols() - half, to.row_data(b) + half);
    std::copy_n(from.row_data(b), half, before);
  }
}

/// Turns queries and keys (arrays, batch * length, s) by position, or back.
template <class T>
void rotate_tokens(NdArray<T, 3>& heads, const GatedShape& s, const GatedUnitOptions<T>& options,
                   bool back, Index offset) {
  if (options.rotary_dims == 0) return;
  const NdView<T, 4> x(heads.data(), {s.heads, s.batch, s.length, s.qk},
                       {s.rows() * s.qk, s.length * s.qk, s.qk, 1});
  const RotaryOptions turn{
      .dims = options.rotary_dims, .offset = offset, .threads = options.threads};
  if (back) {
    rotary_vjp<T>(x, x, turn);
  } else {
    rotary<T>(x, x, turn);
  }
}

/// x (contiguous) to values, gates, queries and keys, all in `saved`. With a step, one token a row.
template <class T>
void gated_front(const T* x, const GatedShape& s, const GatedUnitWeights<T>& w,
                 const GatedUnitOptions<T>& options, GatedUnitSaved<T>& saved,
                 GatedStep<T>* step = nullptr) {
  const Index rows = s.rows();
  const int threads = options.threads;
  saved.normed.resize({rows, s.dim}, core::Fill::none);
  saved.factor.resize({rows}, core::Fill::none);
  saved.shifted.resize({rows, s.dim}, core::Fill::none);
  for (NdArray<T, 2>* a : {&saved.hidden_in, &saved.hidden}) {
    a->resize({rows, 2 * s.expanded}, core::Fill::none);
  }
  for (NdArray<T, 2>* a : {&saved.qk_in, &saved.qk}) a->resize({rows, s.qk}, core::Fill::none);
  saved.heads.resize({s.heads, rows, s.qk}, core::Fill::none);
  for_rows(rows, threads, [&](Index first, Index count) {
    for (Index i = first; i < first + count; ++i) {
      saved.factor(i) =
          norm_row(x + i * s.dim, s.dim, options.norm, options.epsilon, &saved.normed(i, 0));
    }
  });
  std::vector<T> weight(static_cast<std::size_t>(s.dim), T{1});
  std::vector<T> bias(static_cast<std::size_t>(s.dim), T{0});
  if (options.norm == GateNorm::layer) {
    weight = dense_vector<T>(w.norm_weight);
    bias = dense_vector<T>(w.norm_bias);
  } else if (options.norm == GateNorm::scale) {
    std::fill(weight.begin(), weight.end(), w.norm_weight(0));
  }
  NdArray<T, 2> weighted;
  if (options.token_shift) weighted.resize({rows, s.dim}, core::Fill::none);
  const MatrixView<T> normed = options.token_shift ? weighted.view() : saved.shifted.view();
  scale_offset<T>(saved.normed.view(), weight.data(), bias.data(), normed, threads);
  if (options.token_shift && step != nullptr) {
    shift_step<T>(normed, saved.shifted.view(), step->previous);
  } else if (options.token_shift) {
    shift_tokens<T>(normed, s.length, saved.shifted.view(), threads);
  }

  const std::vector<T> hidden_bias = dense_vector<T>(w.hidden_bias);
  const std::vector<T> qk_bias = dense_vector<T>(w.qk_bias);
  const auto project = [&](const MatrixView<const T>& weights, const std::vector<T>& bias_of,
                           const MatrixView<T>& to) {
    if (step != nullptr) return step_linear<T>(saved.shifted.view(), weights, bias_of, to);
    nn::detail::linear_forward<T>(saved.shifted.view(), weights, bias_of, to, threads);
  };
  project(w.hidden_weight, hidden_bias, saved.hidden_in.view());
  project(w.qk_weight, qk_bias, saved.qk_in.view());
  silu(saved.hidden_in, saved.hidden, threads);
  silu(saved.qk_in, saved.qk, threads);
  for (Index h = 0; h < s.heads; ++h) {
    const std::vector<T> gamma = dense_vector<T>(w.gamma.row(h));
    const std::vector<T> beta = dense_vector<T>(w.beta.row(h));
    scale_offset<T>(saved.qk.view(), gamma.data(), beta.data(), saved.heads.view().subview(h),
                    threads);
  }
  rotate_tokens<T>(saved.heads, s, options, false, step != nullptr ? step->position : Index{0});
  if (step == nullptr) hide_tokens(s, options, saved.hidden, saved.heads);
}

/// Values and gates as matrices of all tokens.
template <class T>
MatrixView<const T> gated_values(const GatedUnitSaved<T>& saved) {
  return saved.hidden.view().slice(1, 0, saved.hidden.extent(1) / 2);
}
template <class T>
MatrixView<const T> gated_gates(const GatedUnitSaved<T>& saved) {
  const Index e = saved.hidden.extent(1) / 2;
  return saved.hidden.view().slice(1, e, e);
}

/// out (contiguous) = (attended gates) Wᵀ + b, plus x where there is a residual.
template <class T>
void gated_back(const T* x, const GatedShape& s, const GatedUnitWeights<T>& w,
                const GatedUnitOptions<T>& options, GatedUnitSaved<T>& saved, T* out,
                bool step = false) {
  saved.gated.resize({s.rows(), s.expanded}, core::Fill::none);
  multiply_rows<T>(saved.attended.view(), gated_gates(saved), saved.gated.view(), options.threads);
  const std::vector<T> bias = dense_vector<T>(w.out_bias);
  const MatrixView<T> to(out, {s.rows(), s.dim});
  if (step) {
    step_linear<T>(saved.gated.view(), w.out_weight, bias, to);
  } else {
    nn::detail::linear_forward<T>(saved.gated.view(), w.out_weight, bias, to, options.threads);
  }
  if (!options.residual) return;
  for_rows(s.rows(), options.threads, [&](Index first, Index count) {
    add_to_row(x + first * s.dim, count * s.dim, out + first * s.dim);
  });
}

/// to += from, any strides of `to`.
template <class T>
void add_vector(const std::vector<T>& from, const NdView<T, 1>& to) {
  if (to.is_null()) return;
  for (Index i = 0; i < to.extent(0); ++i) to(i) += from[static_cast<std::size_t>(i)];
}

/// dx = dy w, dw += dyᵀ x, dbias += sums of dy; w's gradient with any strides, null ones left out.
template <class T>
void gated_linear_vjp(MatrixView<const T> x, MatrixView<const T> w, MatrixView<const T> dy,
                      MatrixView<T> dx, T beta, MatrixView<T> dw, NdView<T, 1> dbias, int threads) {
  kernels::gemm<T>(dy, w, dx, {.beta = beta, .threads = threads});
  if (!dw.is_null()) {
    kernels::gemm<T>(dy.transposed(), x, dw, {.beta = T{1}, .threads = threads});
  }
  if (dbias.is_null()) return;
  std::vector<T> sums(static_cast<std::size_t>(dy.cols()));
  nn::detail::add_column_sums<T>(dy, sums, threads);
  add_vector(sums, dbias);
}

/// The way back from dout: attended's gradient into `dattended`, gates' into the second half of
/// `dhidden`.
template <class T>
void gated_back_vjp(const T* dout, const GatedShape& s, const GatedUnitWeights<T>& w,
                    const GatedUnitOptions<T>& options, const GatedUnitSaved<T>& saved,
                    const GatedUnitGradients<T>& g, NdArray<T, 2>& dattended,
                    NdArray<T, 2>& dhidden) {
  const MatrixView<const T> dy(dout, {s.rows(), s.dim});
  NdArray<T, 2> dgated({s.rows(), s.expanded}, core::Fill::none);
  gated_linear_vjp<T>(saved.gated.view(), w.out_weight, dy, dgated.view(), T{0}, g.out_weight,
                      g.out_bias, options.threads);
  multiply_rows<T>(dgated.view(), gated_gates(saved), dattended.view(), options.threads);
  multiply_rows<T>(dgated.view(), saved.attended.view(),
                   dhidden.view().slice(1, s.expanded, s.expanded), options.threads);
}

/// The way back through the front: dheads and dhidden (both overwritten) to dx (contiguous).
template <class T>
void gated_front_vjp(const GatedShape& s, const GatedUnitWeights<T>& w,
                     const GatedUnitOptions<T>& options, const GatedUnitSaved<T>& saved,
                     const GatedUnitGradients<T>& g, NdArray<T, 3>& dheads, NdArray<T, 2>& dhidden,
                     const T* dout, T* dx) {
  const int threads = options.threads;
  const Index rows = s.rows();
  rotate_tokens<T>(dheads, s, options, true, Index{0});
  NdArray<T, 2> dqk({rows, s.qk}), part({rows, s.qk}, core::Fill::none);
  const std::vector<T> zeros(static_cast<std::size_t>((std::max)(s.qk, s.dim)), T{0});
  for (Index h = 0; h < s.heads; ++h) {
    const MatrixView<const T> slope = dheads.view().subview(h);
    scale_offset_sums<T>(saved.qk.view(), slope,
                         g.gamma.is_null() ? NdView<T, 1>() : g.gamma.row(h),
                         g.beta.is_null() ? NdView<T, 1>() : g.beta.row(h), threads);
    const std::vector<T> gamma = dense_vector<T>(w.gamma.row(h));
    scale_offset<T>(slope, gamma.data(), zeros.data(), part.view(), threads);
    for_rows(rows, threads, [&](Index first, Index count) {
      add_to_row(&part(first, 0), count * s.qk, &dqk(first, 0));
    });
  }
  silu_gradient(saved.qk_in, dqk, threads);
  silu_gradient(saved.hidden_in, dhidden, threads);
  NdArray<T, 2> dshifted({rows, s.dim}, core::Fill::none);
  gated_linear_vjp<T>(saved.shifted.view(), w.hidden_weight, dhidden.view(), dshifted.view(), T{0},
                      g.hidden_weight, g.hidden_bias, threads);
  gated_linear_vjp<T>(saved.shifted.view(), w.qk_weight, dqk.view(), dshifted.view(), T{1},
                      g.qk_weight, g.qk_bias, threads);
  NdArray<T, 2> dnormed;
  if (options.token_shift) {
    dnormed.resize({rows, s.dim}, core::Fill::none);
    unshift_tokens<T>(dshifted.view(), s.length, dnormed.view(), threads);
  } else {
    dnormed = std::move(dshifted);
  }
  std::vector<T> weight(static_cast<std::size_t>(s.dim), T{1});
  if (options.norm == GateNorm::layer) {
    scale_offset_sums<T>(saved.normed.view(), dnormed.view(), g.norm_weight, g.norm_bias, threads);
    weight = dense_vector<T>(w.norm_weight);
  } else if (options.norm == GateNorm::scale) {
    std::fill(weight.begin(), weight.end(), w.norm_weight(0));
    if (!g.norm_weight.is_null()) {
      std::vector<T> sums(static_cast<std::size_t>(s.dim));
      scale_offset_sums<T>(saved.normed.view(), dnormed.view(), view(sums), NdView<T, 1>(),
                           threads);
      double total = 0;
      for (const T sum : sums) total += static_cast<double>(sum);
      g.norm_weight(0) += static_cast<T>(total);
    }
  }
  scale_offset<T>(dnormed.view(), weight.data(), zeros.data(), dnormed.view(), threads);
  for_rows(rows, threads, [&](Index first, Index count) {
    for (Index i = first; i < first + count; ++i) {
      if (options.residual) {
        std::copy_n(dout + i * s.dim, s.dim, dx + i * s.dim);
      } else {
        std::fill_n(dx + i * s.dim, s.dim, T{0});
      }
      norm_row_vjp(&saved.normed(i, 0), s.dim, options.norm, options.epsilon, saved.factor(i),
                   &dnormed(i, 0), dx + i * s.dim);
    }
  });
}

}  // namespace detail
}  // namespace attention
QUERN_NAMESPACE_END

#endif  // QUERN_ATTENTION_DETAIL_GATED_FRONT_HPP
