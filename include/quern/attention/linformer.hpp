// SPDX-License-Identifier: Apache-2.0

/// \file
/// Linformer, forward and backward: S. Wang et al., "Linformer: self-attention with linear
/// complexity" (arXiv:2006.04768). Keys and values are projected along the tokens to a few rows,
/// softmax attention goes to those: out = softmax(scale q (E^T k)^T) (F^T v).

#ifndef QUERN_ATTENTION_LINFORMER_HPP
#define QUERN_ATTENTION_LINFORMER_HPP

#include "quern/attention/sparse.hpp"
#include "quern/core/checks.hpp"
#include "quern/core/config.hpp"
#include "quern/core/nd_array.hpp"
#include "quern/core/nd_view.hpp"
#include "quern/kernels/gemm.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <type_traits>

QUERN_NAMESPACE_BEGIN
namespace attention {

/// Options of linformer_attention.
template <class T>
struct LinformerOptions {
  T scale = T{0};  ///< of the logits; 0: one over the root of dim
  /// Must stay false: each projected key mixes all tokens, so no query can be kept from seeing
  /// later ones. ValueError otherwise.
  bool causal = false;
  /// Keys that count in each row of the batch; empty: all.
  std::span<const std::int64_t> lengths = {};
  int threads = 0;
};

/// What forward leaves for the backward pass: projected keys and values, (batch, kv_heads,
/// projected, dim), and the sums of softmax.
template <class T>
struct LinformerSaved {
  NdArray<T, 4> keys, values;
  SparseSaved<T> sums;
};

namespace detail {

template <class T>
void check_linformer(const char* function, const NdView<const T, 4>& q, const NdView<const T, 4>& k,
                     const NdView<const T, 4>& v, const MatrixView<const T>& e,
                     const MatrixView<const T>& f, const LinformerOptions<T>& options) {
  check_attention<T>(function, q, k, v, options.lengths);
  if (options.causal) {
    throw ValueError(error_text(function, "causal",
                                "false: a projection along the tokens mixes later tokens into "
                                "every key, so Linformer cannot be causal",
                                "true"));
  }
  if (e.rows() < k.extent(2) || f.rows() < k.extent(2) || e.cols() != f.cols()) {
    throw ShapeError(error_text(
        function, "e, f", "at least " + std::to_string(k.extent(2)) + " rows and equal columns",
        shape_text(e.extents()) + ", " + shape_text(f.extents())));
  }
}

/// Tokens of a row of the batch.
inline Index tokens_of(std::span<const std::int64_t> lengths, Index b, Index all) {
  return lengths.empty() ? all : lengths[static_cast<std::size_t>(b)];
}

/// to = e^T x for every row of the batch and head.
template <class T>
void project_tokens(NdView<const T, 4> x, MatrixView<const T> e, NdView<T, 4> to,
                    std::span<const std::int64_t> lengths, int threads) {
  const Index heads = x.extent(1), all = x.extent(0) * heads;
  const auto one = [&](Index u, int each) {
    const Index b = u / heads, h = u % heads, n = tokens_of(lengths, b, x.extent(2));
    kernels::gemm<T>(e.slice(0, 0, n).transposed(), x.subview(b).subview(h).slice(0, 0, n),
                     to.subview(b).subview(h), {.threads = each});
  };
  if (all < 4) {
    for (Index u = 0; u < all; ++u) one(u, threads);
  } else {
    parallel_for(
        all, [&](Index u) { one(u, 1); }, threads);
  }
}

/// dx = e dto, and de += x dto^T, over all rows of the batch and heads in order.
template <class T>
void project_tokens_vjp(NdView<const T, 4> x, MatrixView<const T> e, NdView<const T, 4> dto,
                        NdView<T, 4> dx, MatrixView<T> de, std::span<const std::int64_t> lengths,
                        int threads) {
  for (Index b = 0; b < x.extent(0); ++b) {
    const Index n = tokens_of(lengths, b, x.extent(2));
    for (Index h = 0; h < x.extent(1); ++h) {
      const MatrixView<const T> slope = dto.subview(b).subview(h);
      if (!dx.is_null()) {
        const MatrixView<T> to = dx.subview(b).subview(h);
        kernels::gemm<T>(e.slice(0, 0, n), slope, to.slice(0, 0, n), {.threads = threads});
        fill_elements<T, 2>(to.slice(0, n, x.extent(2) - n), T{0});
      }
      if (!de.is_null()) {
        kernels::gemm<T>(x.subview(b).subview(h).slice(0, 0, n), slope.transposed(),
                         de.slice(0, 0, n), {.beta = T{1}, .threads = threads});
      }
    }
  }
}

}  // namespace detail

/// q (batch, heads, queries, dim), k (batch, kv_heads, keys, dim), v (batch, kv_heads, keys,
/// value_dim); e and f (at least keys, projected), of which shorter inputs use the first rows; out
/// (batch, heads, queries, value_dim) is overwritten. Any strides. ValueError for `causal`,
/// ShapeError where extents do not fit.
template <class T>
void linformer_attention(detail::SparseInput<T> q, detail::SparseInput<T> k,
                         detail::SparseInput<T> v, std::type_identity_t<MatrixView<const T>> e,
                         std::type_identity_t<MatrixView<const T>> f, NdView<T, 4> out,
                         const std::type_identity_t<LinformerOptions<T>>& options = {},
                         std::type_identity_t<LinformerSaved<T>>* saved = nullptr) {
  detail::check_linformer<T>("quern::attention::linformer_attention", q, k, v, e, f, options);
  LinformerSaved<T> own;
  LinformerSaved<T>& s = saved != nullptr ? *saved : own;
  s.keys.resize({k.extent(0), k.extent(1), e.cols(), k.extent(3)}, core::Fill::none);
  s.values.resize({v.extent(0), v.extent(1), f.cols(), v.extent(3)}, core::Fill::none);
  detail::project_tokens<T>(k, e, s.keys.view(), options.lengths, options.threads);
  detail::project_tokens<T>(v, f, s.values.view(), options.lengths, options.threads);
  sparse_attention<T>(q, s.keys.view(), s.values.view(), out, SparsePattern::dense(false),
                      {.scale = options.scale, .threads = options.threads}, &s.sums);
}

/// Gradients of linformer_attention: dq, dk, dv are overwritten, de and df (of the size of e and f)
/// are added to; null views are left out.
template <class T>
void linformer_attention_vjp(
    detail::SparseInput<T> q, detail::SparseInput<T> k, detail::SparseInput<T> v,
    std::type_identity_t<MatrixView<const T>> e, std::type_identity_t<MatrixView<const T>> f,
    detail::SparseInput<T> out, const std::type_identity_t<LinformerSaved<T>>& saved,
    detail::SparseInput<T> dout, std::type_identity_t<NdView<T, 4>> dq,
    std::type_identity_t<NdView<T, 4>> dk, std::type_identity_t<NdView<T, 4>> dv,
    std::type_identity_t<MatrixView<T>> de, std::type_identity_t<MatrixView<T>> df,
    const std::type_identity_t<LinformerOptions<T>>& options = {}) {
  constexpr const char* function = "quern::attention::linformer_attention_vjp";
  detail::check_linformer<T>(function, q, k, v, e, f, options);
  if (!dk.is_null()) expect_shape(function, "dk", dk, k.extents());
  if (!dv.is_null()) expect_shape(function, "dv", dv, v.extents());
  if (!de.is_null()) expect_shape(function, "de", de, e.extents());
  if (!df.is_null()) expect_shape(function, "df", df, f.extents());
  expect_shape(function, "saved", saved.keys.view(),
               {k.extent(0), k.extent(1), e.cols(), k.extent(3)});
  NdArray<T, 4> dkeys(saved.keys.extents(), core::Fill::none);
  NdArray<T, 4> dvalues(saved.values.extents(), core::Fill::none);
  const bool keys = !dk.is_null() || !de.is_null(), values = !dv.is_null() || !df.is_null();
  sparse_attention_vjp<T>(q, saved.keys.view(), saved.values.view(), out, saved.sums, dout, dq,
                          keys ? dkeys.view() : NdView<T, 4>(),
                          values ? dvalues.view() : NdView<T, 4>(), SparsePattern::dense(false),
                          {.scale = options.scale, .threads = options.threads});
  if (keys) {
    detail::project_tokens_vjp<T>(k, e, dkeys.view(), dk, de, options.lengths, options.threads);
  }
  if (values) {
    detail::project_tokens_vjp<T>(v, f, dvalues.view(), dv, df, options.lengths, options.threads);
  }
}

}  // namespace attention
QUERN_NAMESPACE_END

#endif  // QUERN_ATTENTION_LINFORMER_HPP
