// SPDX-License-Identifier: Apache-2.0

/// \file
/// Linformer, forward and backward: S. Wang et al., "Linformer: self-attention with linear
/// complexity" (arXiv:2006.04768). Keys and values are projected along the tokens to a few rows,
/// softmax attention goes to those: out = softmax(scale q (E^T k)^T) (F^T v).

#ifndef QUERN_ATTENTION_LINFORMER_HPP
#define QUERN_ATTENTION_LINFORMER_HPP

#include "quern/attention/attention_options.hpp"
#include "quern/attention/detail/packed.hpp"
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
#include <vector>

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
  /// Sequences packed in one row (batch of 1): queries of sequence s are [cumulative[s],
  /// cumulative[s + 1]), and so are its keys, unless key_cumulative says where they are. Each is
  /// projected by the first rows of e and f. Outputs of what follows the last are 0.
  std::span<const std::int64_t> cumulative = {};
  std::span<const std::int64_t> key_cumulative = {};
  int threads = 0;
};

/// What forward leaves for the backward pass: projected keys and values, (batch, projected,
/// kv_heads, dim), and the sums of softmax.
template <class T>
struct LinformerSaved {
  NdArray<T, 4> keys, values;
  SparseSaved<T> sums;
  std::vector<LinformerSaved> parts;  ///< of packed sequences, one each
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

/// (batch, rows, heads, dim) as (batch, heads, rows, dim).
template <class Element>
NdView<Element, 4> heads_first(const NdView<Element, 4>& x) {
  return x.permuted({0, 2, 1, 3});
}

/// Calls fn(b, h, count) for all heads in pieces: `count` heads from h on of row b of the batch.
/// Heads that lie side by side, as projections leave them, are one piece.
template <class T, class F>
void for_head_pieces(const NdView<const T, 4>& x, const F& fn) {
  const Index heads = x.extent(1), dim = x.extent(3);
  const bool whole = x.stride(1) == dim && x.last_stride_is_one();
  const Index each = whole ? heads : Index{1};
  for (Index b = 0; b < x.extent(0); ++b) {
    for (Index h = 0; h < heads; h += each) fn(b, h, each);
  }
}
/// Columns of heads [h, h + count) of row b of the batch.
template <class Element>
MatrixView<Element> head_columns(const NdView<Element, 4>& x, Index b, Index h, Index count) {
  const Index dim = x.extent(3);
  return {x.data() + b * x.stride(0) + h * x.stride(1),
          {x.extent(2), count * dim},
          {x.stride(2), count > 1 ? Index{1} : x.stride(3)}};
}

/// to (heads first) = e^T x for every row of the batch and head.
template <class T>
void project_tokens(NdView<const T, 4> x, MatrixView<const T> e, NdView<T, 4> to,
                    std::span<const std::int64_t> lengths, int threads) {
  if (x.extent(3) == 0) return;
  for_head_pieces<T>(x, [&](Index b, Index h, Index count) {
    const Index n = tokens_of(lengths, b, x.extent(2));
    kernels::gemm<T>(e.slice(0, 0, n).transposed(), head_columns(x, b, h, count).slice(0, 0, n),
                     head_columns(to, b, h, count), {.threads = threads});
  });
}

/// dx = e dto, and de += x dto^T, over all rows of the batch and heads in order.
template <class T>
void project_tokens_vjp(NdView<const T, 4> x, MatrixView<const T> e, NdView<const T, 4> dto,
                        NdView<T, 4> dx, MatrixView<T> de, std::span<const std::int64_t> lengths,
                        int threads) {
  if (x.extent(3) == 0) return;
  if (!dx.is_null()) {
    for_head_pieces<T>(dx, [&](Index b, Index h, Index count) {
      const Index n = tokens_of(lengths, b, x.extent(2));
      const MatrixView<T> to = head_columns(dx, b, h, count);
      kernels::gemm<T>(e.slice(0, 0, n), head_columns(dto, b, h, count), to.slice(0, 0, n),
                       {.threads = threads});
      fill_elements<T, 2>(to.slice(0, n, x.extent(2) - n), T{0});
    });
  }
  if (de.is_null()) return;
  for_head_pieces<T>(x, [&](Index b, Index h, Index count) {
    const Index n = tokens_of(lengths, b, x.extent(2));
    kernels::gemm<T>(head_columns(x, b, h, count).slice(0, 0, n),
                     head_columns(dto, b, h, count).transposed(), de.slice(0, 0, n),
                     {.beta = T{1}, .threads = threads});
  });
}

/// Queries and keys of a packed row.
struct LinformerRows {
  PackedRow queries, keys;
  template <class T>
  LinformerRows(const char* function, const NdView<const T, 4>& q, const NdView<const T, 4>& k,
                const LinformerOptions<T>& options)
      : queries(function, q.extent(0), q.extent(2), options.cumulative, !options.lengths.empty()),
        keys(function, k.extent(0), k.extent(2),
             options.key_cumulative.empty() ? options.cumulative : options.key_cumulative, false) {
    queries.expect_as_many(keys, "key_cumulative");
  }
  /// fn(number, first query, queries, first key, keys).
  template <class F>
  void for_each(const F& fn) const {
    queries.for_each([&](std::size_t s, Index first, Index n) {
      fn(s, first, n, keys.spans()[s].begin, keys.spans()[s].length);
    });
  }
};

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
  constexpr const char* function = "quern::attention::linformer_attention";
  detail::check_linformer<T>(function, q, k, v, e, f, options);
  LinformerSaved<T> own;
  LinformerSaved<T>& s = saved != nullptr ? *saved : own;
  if (!options.cumulative.empty()) {
    const detail::LinformerRows rows(function, q, k, options);
    expect_shape(function, "out", out, {1, q.extent(1), q.extent(2), v.extent(3)});
    detail::clear_gaps(rows.queries.spans(), out);
    s = {};
    s.parts.resize(rows.queries.size());
    const LinformerOptions<T> each{.scale = options.scale, .threads = options.threads};
    rows.for_each([&](std::size_t i, Index first, Index n, Index first_key, Index keys) {
      linformer_attention<T>(q.slice(2, first, n), k.slice(2, first_key, keys),
                             v.slice(2, first_key, keys), e, f, out.slice(2, first, n), each,
                             &s.parts[i]);
    });
    return;
  }
  s.keys.resize({k.extent(0), e.cols(), k.extent(1), k.extent(3)}, core::Fill::none);
  s.values.resize({v.extent(0), f.cols(), v.extent(1), v.extent(3)}, core::Fill::none);
  const NdView<T, 4> keys = detail::heads_first(s.keys.view());
  const NdView<T, 4> values = detail::heads_first(s.values.view());
  detail::project_tokens<T>(k, e, keys, options.lengths, options.threads);
  detail::project_tokens<T>(v, f, values, options.lengths, options.threads);
  sparse_attention<T>(q, keys, values, out, SparsePattern::dense(false),
                      {.scale = options.scale, .threads = options.threads}, &s.sums);
}

namespace detail {

/// Every sequence of a packed row by itself.
template <class T>
void linformer_packed_vjp(const char* function, const NdView<const T, 4>& q,
                          const NdView<const T, 4>& k, const NdView<const T, 4>& v,
                          const MatrixView<const T>& e, const MatrixView<const T>& f,
                          const NdView<const T, 4>& out, const LinformerSaved<T>& saved,
                          const NdView<const T, 4>& dout, const NdView<T, 4>& dq,
                          const NdView<T, 4>& dk, const NdView<T, 4>& dv, const MatrixView<T>& de,
                          const MatrixView<T>& df, const LinformerOptions<T>& options);

}  // namespace detail

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
  if (!options.cumulative.empty()) {
    return detail::linformer_packed_vjp<T>(function, q, k, v, e, f, out, saved, dout, dq, dk, dv,
                                           de, df, options);
  }
  expect_shape(function, "saved", saved.keys.view(),
               {k.extent(0), e.cols(), k.extent(1), k.extent(3)});
  NdArray<T, 4> dkeys(saved.keys.extents(), core::Fill::none);
  NdArray<T, 4> dvalues(saved.values.extents(), core::Fill::none);
  const bool keys = !dk.is_null() || !de.is_null(), values = !dv.is_null() || !df.is_null();
  const NdView<T, 4> dk_rows = detail::heads_first(dkeys.view());
  const NdView<T, 4> dv_rows = detail::heads_first(dvalues.view());
  sparse_attention_vjp<T>(
      q, detail::heads_first(saved.keys.view()), detail::heads_first(saved.values.view()), out,
      saved.sums, dout, dq, keys ? dk_rows : NdView<T, 4>(), values ? dv_rows : NdView<T, 4>(),
      SparsePattern::dense(false), {.scale = options.scale, .threads = options.threads});
  if (keys) {
    detail::project_tokens_vjp<T>(k, e, dk_rows, dk, de, options.lengths, options.threads);
  }
  if (values) {
    detail::project_tokens_vjp<T>(v, f, dv_rows, dv, df, options.lengths, options.threads);
  }
}

namespace detail {

template <class T>
void linformer_packed_vjp(const char* function, const NdView<const T, 4>& q,
                          const NdView<const T, 4>& k, const NdView<const T, 4>& v,
                          const MatrixView<const T>& e, const MatrixView<const T>& f,
                          const NdView<const T, 4>& out, const LinformerSaved<T>& saved,
                          const NdView<const T, 4>& dout, const NdView<T, 4>& dq,
                          const NdView<T, 4>& dk, const NdView<T, 4>& dv, const MatrixView<T>& de,
                          const MatrixView<T>& df, const LinformerOptions<T>& options) {
  const LinformerRows rows(function, q, k, options);
  const Shape<4> shape{1, q.extent(1), q.extent(2), v.extent(3)};
  expect_shape(function, "out", out, shape);
  expect_shape(function, "dout", dout, shape);
  if (!dq.is_null()) expect_shape(function, "dq", dq, q.extents());
  expect_size(function, "saved", static_cast<Index>(saved.parts.size()),
              static_cast<Index>(rows.queries.size()), "sequences");
  const LinformerOptions<T> each{.scale = options.scale, .threads = options.threads};
  // Keys whose sequence has no queries get nothing from anywhere.
  if (!dq.is_null()) fill_elements<T, 4>(dq, T{0});
  if (!dk.is_null()) fill_elements<T, 4>(dk, T{0});
  if (!dv.is_null()) fill_elements<T, 4>(dv, T{0});
  rows.for_each([&](std::size_t i, Index first, Index n, Index first_key, Index keys) {
    const auto queries_of = [&](const auto& x) { return packed_part(x, 2, first, n); };
    const auto keys_of = [&](const auto& x) { return packed_part(x, 2, first_key, keys); };
    linformer_attention_vjp<T>(queries_of(q), keys_of(k), keys_of(v), e, f, queries_of(out),
                               saved.parts[i], queries_of(dout), queries_of(dq), keys_of(dk),
                               keys_of(dv), de, df, each);
  });
}

}  // namespace detail

}  // namespace attention
QUERN_NAMESPACE_END

#endif  // QUERN_ATTENTION_LINFORMER_HPP
