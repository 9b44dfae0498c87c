// SPDX-License-Identifier: Apache-2.0

/// \file
/// Softmax attention over a sparse pattern: local, strided, atrous, fixed, blocks by a mask, global
/// and window (sparse_pattern.hpp), exact for the pattern, forward and backward. No matrix of
/// queries by keys is stored; time and memory follow what is seen.

#ifndef QUERN_ATTENTION_SPARSE_HPP
#define QUERN_ATTENTION_SPARSE_HPP

#include "quern/attention/detail/block_attention.hpp"
#include "quern/attention/detail/rows.hpp"
#include "quern/attention/sparse_pattern.hpp"
#include "quern/core/checks.hpp"
#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/core/nd_array.hpp"
#include "quern/core/nd_view.hpp"

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <type_traits>
#include <utility>

QUERN_NAMESPACE_BEGIN
namespace attention {

/// Options of sparse_attention.
template <class T>
struct SparseOptions {
  T scale = T{0};           ///< of the logits; 0: one over the root of dim
  Index causal_offset = 0;  ///< query i stands at position i + causal_offset among the keys
  /// Keys that count in each row of the batch (the rest is padding); empty: all.
  std::span<const std::int64_t> lengths = {};
  /// Sequences of different lengths in one row (the batch is 1): sequence s is [cumulative[s],
  /// cumulative[s + 1]), and sees nothing else; the last number is the length. Empty: none. Neither
  /// with lengths nor with a plan (ValueError).
  std::span<const std::int64_t> cumulative = {};
  /// Its keys, where these are not as many as the queries; causal_offset counts in each sequence.
  /// ValueError without cumulative.
  std::span<const std::int64_t> key_cumulative = {};
  int threads = 0;  ///< 0: the default, see parallel_for
};

/// What forward leaves for the backward pass: for each query its largest logit and the sum of
/// e^(logit - largest), (batch, heads, queries).
template <class T>
struct SparseSaved {
  NdArray<T, 3> largest;
  NdArray<T, 3> total;
};

namespace detail {

template <class T>
using SparseInput = std::type_identity_t<NdView<const T, 4>>;

/// ShapeError unless q, k and v fit each other; ValueError for lengths that do not.
template <class T>
void check_attention(const char* function, const NdView<const T, 4>& q, const NdView<const T, 4>& k,
                     const NdView<const T, 4>& v, std::span<const std::int64_t> lengths) {
  const Index batch = q.extent(0), kv_heads = k.extent(1);
  const Shape<4> expected = {batch, kv_heads, k.extent(2), q.extent(3)};
  expect_shape(function, "k", k, expected);
  expect_shape(function, "v", v, Shape<4>{batch, kv_heads, k.extent(2), v.extent(3)});
  if (kv_heads == 0 ? q.extent(1) != 0 : q.extent(1) % kv_heads != 0) {
    throw ShapeError(error_text(function, "q", "heads that are a multiple of those of k",
                                std::to_string(q.extent(1)) + " for " + std::to_string(kv_heads)));
  }
  if (lengths.empty()) return;
  expect_size(function, "lengths", static_cast<Index>(lengths.size()), batch,
              "lengths, one a row of the batch");
  for (const std::int64_t length : lengths) {
    expect_in_range<std::int64_t>(function, "lengths", length, 0, k.extent(2));
  }
}

template <class T>
T logit_scale(T given, Index dim) {
  if (given != T{0}) return given;
  return dim > 0 ? static_cast<T>(1.0 / std::sqrt(static_cast<double>(dim))) : T{1};
}

template <class T>
BlockInputs<T> sparse_inputs(const NdView<const T, 4>& q, const NdView<const T, 4>& k,
                             const NdView<const T, 4>& v, const SparseOptions<T>& options) {
  BlockInputs<T> in;
  in.q = q, in.k = k, in.v = v;
  in.scale = logit_scale(options.scale, q.extent(3));
  in.lengths = options.lengths;
  in.threads = options.threads;
  return in;
}

/// ValueError for packed sequences, which one plan does not show.
template <class T>
void check_unpacked(const char* function, const SparseOptions<T>& options) {
  if (options.cumulative.empty() && options.key_cumulative.empty()) return;
  throw ValueError(
      error_text(function, "cumulative", "none with a plan, give the pattern", "some"));
}

template <class T>
void check_plan(const char* function, const SparsePlan& plan, Index queries, Index keys) {
  if (plan.queries() == queries && plan.keys() == keys) return;
  throw ShapeError(error_text(
      function, "plan", std::to_string(queries) + " queries and " + std::to_string(keys) + " keys",
      std::to_string(plan.queries()) + " and " + std::to_string(plan.keys())));
}

}  // namespace detail

/// out = softmax(scale q k^T) v over the keys that the plan shows. q (batch, heads, queries, dim),
/// k (batch, kv_heads, keys, dim), v (batch, kv_heads, keys, value_dim), out (batch, heads,
/// queries, value_dim); kv_heads divides heads; any strides. A query that sees nothing gives zeros.
/// `saved` may be null. The plan is of the pattern and these lengths, and can be used again.
/// ShapeError where extents do not fit or out overlaps an input.
template <class T>
void sparse_attention(detail::SparseInput<T> q, detail::SparseInput<T> k, detail::SparseInput<T> v,
                      NdView<T, 4> out, const SparsePlan& plan,
                      const std::type_identity_t<SparseOptions<T>>& options = {},
                      std::type_identity_t<SparseSaved<T>>* saved = nullptr) {
  constexpr const char* function = "quern::attention::sparse_attention";
  detail::check_unpacked(function, options);
  detail::check_attention<T>(function, q, k, v, options.lengths);
  detail::check_plan<T>(function, plan, q.extent(2), k.extent(2));
  expect_shape(function, "out", out, {q.extent(0), q.extent(1), q.extent(2), v.extent(3)});
  expect_apart(function, "out", out, "q", q);
  expect_apart(function, "out", out, "k", k);
  expect_apart(function, "out", out, "v", v);
  const detail::InputRows<T, 4> q_rows(q), k_rows(k), v_rows(v);
  const detail::OutputRows<T, 4> out_rows(out);
  SparseSaved<T> own;
  SparseSaved<T>& sums = saved != nullptr ? *saved : own;
  for (NdArray<T, 3>* a : {&sums.largest, &sums.total}) {
    a->resize({q.extent(0), q.extent(1), q.extent(2)}, core::Fill::none);
  }
  const detail::BlockPlan<T> lists{&plan.rounds(), plan.ids().data()};
  detail::block_attention_forward<T>(
      detail::sparse_inputs<T>(q_rows.view(), k_rows.view(), v_rows.view(), options),
      [&](Index, Index) { return lists; }, out_rows.view(), sums.largest.view(), sums.total.view());
  out_rows.finish();
}

namespace detail {

/// ValueError for a choice of sequences that contradicts itself.
template <class T>
void check_packing(const char* function, const SparseOptions<T>& options) {
  if (!options.cumulative.empty() && !options.lengths.empty()) {
    throw ValueError(error_text(function, "lengths", "lengths or cumulative lengths", "both"));
  }
  if (options.cumulative.empty() && !options.key_cumulative.empty()) {
    throw ValueError(error_text(function, "key_cumulative", "cumulative beside it", "none"));
  }
}

/// ShapeError unless the sequences make up one row of `length` tokens.
inline void check_cumulative(const char* function, const char* argument, Index batch, Index length,
                             std::span<const std::int64_t> cumulative) {
  const auto expect = [&](bool holds, const std::string& expected, const std::string& got) {
    if (!holds) throw ShapeError(error_text(function, argument, expected, got));
  };
  expect(batch == 1, "a batch of 1 that holds all sequences",
         "a batch of " + std::to_string(batch));
  expect(cumulative.front() == 0, "0 first", std::to_string(cumulative.front()));
  for (std::size_t i = 1; i < cumulative.size(); ++i) {
    expect(cumulative[i] >= cumulative[i - 1], "numbers that do not decrease",
           std::to_string(cumulative[i]) + " after " + std::to_string(cumulative[i - 1]));
  }
  expect(cumulative.back() == length, std::to_string(length) + " last, the length",
         std::to_string(cumulative.back()));
}

/// fn(first query, first key, plan) for the sequences of a packed row; plans of equal lengths are
/// made once. fn takes plan.queries() queries and plan.keys() keys.
template <class T, class F>
void for_each_packed(const char* function, const SparseOptions<T>& options,
                     const SparsePattern& pattern, Index batch, Index queries, Index keys,
                     const F& fn) {
  const std::span<const std::int64_t> of_queries = options.cumulative;
  const std::span<const std::int64_t> of_keys =
      options.key_cumulative.empty() ? of_queries : options.key_cumulative;
  check_cumulative(function, "cumulative", batch, queries, of_queries);
  check_cumulative(function, "key_cumulative", batch, keys, of_keys);
  if (of_keys.size() != of_queries.size()) {
    throw ShapeError(error_text(function, "key_cumulative",
                                std::to_string(of_queries.size()) + " numbers, as cumulative has",
                                of_keys.size()));
  }
  std::map<std::pair<Index, Index>, SparsePlan> plans;
  for (std::size_t i = 1; i < of_queries.size(); ++i) {
    const std::pair<Index, Index> sizes{of_queries[i] - of_queries[i - 1],
                                        of_keys[i] - of_keys[i - 1]};
    const auto plan =
        plans.try_emplace(sizes, pattern, sizes.first, sizes.second, options.causal_offset).first;
    fn(static_cast<Index>(of_queries[i - 1]), static_cast<Index>(of_keys[i - 1]), plan->second);
  }
}

/// Copies a sequence's sums to or from its place in those of the whole row.
template <class T>
void copy_sums(const NdArray<T, 3>& from, Index from_first, NdArray<T, 3>& to, Index to_first,
               Index count) {
  for (Index h = 0; h < to.extent(1); ++h) {
    for (Index i = 0; i < count; ++i) to(0, h, to_first + i) = from(0, h, from_first + i);
  }
}

}  // namespace detail

/// The same with plans made for this call, also for packed sequences.
template <class T>
void sparse_attention(detail::SparseInput<T> q, detail::SparseInput<T> k, detail::SparseInput<T> v,
                      NdView<T, 4> out, const SparsePattern& pattern,
                      const std::type_identity_t<SparseOptions<T>>& options = {},
                      std::type_identity_t<SparseSaved<T>>* saved = nullptr) {
  constexpr const char* function = "quern::attention::sparse_attention";
  detail::check_packing(function, options);
  if (options.cumulative.empty()) {
    const SparsePlan plan(pattern, q.extent(2), k.extent(2), options.causal_offset);
    return sparse_attention<T>(q, k, v, out, plan, options, saved);
  }
  detail::check_attention<T>(function, q, k, v, options.lengths);
  expect_shape(function, "out", out, {q.extent(0), q.extent(1), q.extent(2), v.extent(3)});
  if (saved != nullptr) {
    for (NdArray<T, 3>* a : {&saved->largest, &saved->total}) {
      a->resize({1, q.extent(1), q.extent(2)}, core::Fill::none);
    }
  }
  SparseSaved<T> own;
  const SparseOptions<T> each{.scale = options.scale, .threads = options.threads};
  detail::for_each_packed<T>(
      function, options, pattern, q.extent(0), q.extent(2), k.extent(2),
      [&](Index first, Index first_key, const SparsePlan& plan) {
        const Index n = plan.queries(), keys = plan.keys();
        sparse_attention<T>(q.slice(2, first, n), k.slice(2, first_key, keys),
                            v.slice(2, first_key, keys), out.slice(2, first, n), plan, each, &own);
        if (saved == nullptr) return;
        detail::copy_sums(own.largest, 0, saved->largest, first, n);
        detail::copy_sums(own.total, 0, saved->total, first, n);
      });
}

/// Gradients of sparse_attention. `out` and `saved` are what it gave; dout is the gradient of out;
/// dq, dk, dv are overwritten, and a null view leaves one out. ShapeError where extents do not fit.
template <class T>
void sparse_attention_vjp(detail::SparseInput<T> q, detail::SparseInput<T> k,
                          detail::SparseInput<T> v, detail::SparseInput<T> out,
                          const std::type_identity_t<SparseSaved<T>>& saved,
                          detail::SparseInput<T> dout, std::type_identity_t<NdView<T, 4>> dq,
                          std::type_identity_t<NdView<T, 4>> dk,
                          std::type_identity_t<NdView<T, 4>> dv, const SparsePlan& plan,
                          const std::type_identity_t<SparseOptions<T>>& options = {}) {
  constexpr const char* function = "quern::attention::sparse_attention_vjp";
  detail::check_unpacked(function, options);
  detail::check_attention<T>(function, q, k, v, options.lengths);
  detail::check_plan<T>(function, plan, q.extent(2), k.extent(2));
  const Shape<4> shape = {q.extent(0), q.extent(1), q.extent(2), v.extent(3)};
  expect_shape(function, "out", out, shape);
  expect_shape(function, "dout", dout, shape);
  expect_shape(function, "saved", saved.total.view(), {shape[0], shape[1], shape[2]});
  if (!dq.is_null()) expect_shape(function, "dq", dq, q.extents());
  if (!dk.is_null()) expect_shape(function, "dk", dk, k.extents());
  if (!dv.is_null()) expect_shape(function, "dv", dv, v.extents());
  const detail::InputRows<T, 4> q_rows(q), k_rows(k), v_rows(v), out_rows(out), dout_rows(dout);
  const detail::OutputRows<T, 4> dq_rows(dq), dk_rows(dk), dv_rows(dv);
  const detail::BlockPlan<T> lists{&plan.rounds(), plan.ids().data()};
  const auto of_head = [&](Index, Index) { return lists; };
  const detail::BlockInputs<T> in =
      detail::sparse_inputs<T>(q_rows.view(), k_rows.view(), v_rows.view(), options);
  detail::BlockBackward<T, decltype(of_head)>(in, of_head, out_rows.view(), saved.largest.view(),
                                              saved.total.view(), dout_rows.view(), dq_rows.view(),
                                              dk_rows.view(), dv_rows.view());
  for (const auto* rows : {&dq_rows, &dk_rows, &dv_rows}) rows->finish();
}

/// The same with plans made for this call, also for packed sequences.
template <class T>
void sparse_attention_vjp(detail::SparseInput<T> q, detail::SparseInput<T> k,
                          detail::SparseInput<T> v, detail::SparseInput<T> out,
                          const std::type_identity_t<SparseSaved<T>>& saved,
                          detail::SparseInput<T> dout, std::type_identity_t<NdView<T, 4>> dq,
                          std::type_identity_t<NdView<T, 4>> dk,
                          std::type_identity_t<NdView<T, 4>> dv, const SparsePattern& pattern,
                          const std::type_identity_t<SparseOptions<T>>& options = {}) {
  constexpr const char* function = "quern::attention::sparse_attention_vjp";
  detail::check_packing(function, options);
  if (options.cumulative.empty()) {
    const SparsePlan plan(pattern, q.extent(2), k.extent(2), options.causal_offset);
    return sparse_attention_vjp<T>(q, k, v, out, saved, dout, dq, dk, dv, plan, options);
  }
  detail::check_attention<T>(function, q, k, v, options.lengths);
  expect_shape(function, "saved", saved.total.view(), {1, q.extent(1), q.extent(2)});
  SparseSaved<T> own;
  const SparseOptions<T> each{.scale = options.scale, .threads = options.threads};
  const auto part = [](const auto& x, Index first, Index n) {
    return x.is_null() ? x : x.slice(2, first, n);
  };
  detail::for_each_packed<T>(
      function, options, pattern, q.extent(0), q.extent(2), k.extent(2),
      [&](Index first, Index first_key, const SparsePlan& plan) {
        const Index n = plan.queries(), keys = plan.keys();
        for (NdArray<T, 3>* a : {&own.largest, &own.total}) a->resize({1, q.extent(1), n});
        detail::copy_sums(saved.largest, first, own.largest, 0, n);
        detail::copy_sums(saved.total, first, own.total, 0, n);
        sparse_attention_vjp<T>(part(q, first, n), part(k, first_key, keys),
                                part(v, first_key, keys), part(out, first, n), own,
                                part(dout, first, n), part(dq, first, n), part(dk, first_key, keys),
                                part(dv, first_key, keys), plan, each);
      });
}

}  // namespace attention
QUERN_NAMESPACE_END

#endif  // QUERN_ATTENTION_SPARSE_HPP
