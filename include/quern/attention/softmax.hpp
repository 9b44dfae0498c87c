// SPDX-License-Identifier: Apache-2.0

/// \file
/// Softmax attention, softmax(scale q k^T) v, by tiles: no array of queries times keys is ever
/// stored. Forward, exact gradients, causal, sliding window, cross attention, grouped queries,
/// sequences of different lengths.
///
/// A. Vaswani et al., "Attention is all you need", NeurIPS 2017; T. Dao et al., "FlashAttention",
/// NeurIPS 2022 (online softmax, and the backward pass from log-sum-exp).

#ifndef QUERN_ATTENTION_SOFTMAX_HPP
#define QUERN_ATTENTION_SOFTMAX_HPP

#include "quern/attention/attention_options.hpp"
#include "quern/attention/detail/softmax_tiles.hpp"
#include "quern/core/buffer.hpp"
#include "quern/core/checks.hpp"
#include "quern/core/config.hpp"
#include "quern/core/nd_array.hpp"
#include "quern/core/nd_view.hpp"
#include "quern/core/parallel.hpp"
#include "quern/kernels/kernels.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <optional>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace attention {

struct SoftmaxOptions {
  std::optional<double> scale;  ///< of q k^T; default 1 / sqrt(dim)
  Visibility visible = {};
  int threads = 0;  ///< 0: the default, see parallel_for
};

namespace detail {

template <class T>
T softmax_scale(const SoftmaxOptions& options, Index dim) {
  const double natural = dim > 0 ? 1 / std::sqrt(static_cast<double>(dim)) : 1;
  return static_cast<T>(options.scale.value_or(natural));
}

template <class T>
SoftmaxHead<T> softmax_head(const AttentionShape& shape, Index sequence, Index head,
                            const NdView<const T, 4>& q, const NdView<const T, 4>& k,
                            const NdView<const T, 4>& v, T scale) {
  const auto s = static_cast<std::size_t>(sequence);
  return {sequence_rows(q, shape.query_spans[s], head),
          sequence_rows(k, shape.key_spans[s], head / shape.share()),
          sequence_rows(v, shape.key_spans[s], head / shape.share()),
          scale,
          shape.offset,
          shape.left,
          shape.right};
}

/// One sequence and head in blocks of queries.
template <class T>
void softmax_queries(simd::Level level, const SoftmaxHead<T>& head, Index begin, Index end,
                     const MatrixView<T>& out, T* log_sums) {
  const Index queries = head.q.rows();
  if (queries <= 2 && head.k.last_stride_is_one() && head.v.last_stride_is_one()) {
    core::Buffer<T> scores, q(static_cast<std::size_t>(head.q.cols()));
    for (Index i = begin; i < end; ++i) {
      for (Index c = 0; c < head.q.cols(); ++c) q[static_cast<std::size_t>(c)] = head.q(i, c);
      softmax_row(head, i, scores, q.data(), out, log_sums);
    }
    return;
  }
  SoftmaxForward<T> forward(level, queries, head.q.cols(), head.v.cols());
  forward.run(head, begin, end, out, log_sums);
}

/// Ranges of keys that one head is cut into: few heads need more tasks than they are. Each range
/// has its own sum of dq, added in order, so the cut follows from shapes only.
inline Index key_parts(const AttentionShape& shape) {
  if (shape.sequences() * shape.key_heads >= 8 || shape.keys < 4 * key_tile) return 1;
  return 4;
}

template <class T>
void softmax_backward(const AttentionShape& shape, const NdView<const T, 4>& q,
                      const NdView<const T, 4>& k, const NdView<const T, 4>& v,
                      const NdView<const T, 4>& out, const NdView<const T, 3>& sums,
                      const NdView<const T, 4>& dout, const NdView<T, 4>& dq,
                      const NdView<T, 4>& dk, const NdView<T, 4>& dv,
                      const SoftmaxOptions& options) {
  const simd::Level level = simd::active_level();
  const T scale = softmax_scale<T>(options, shape.dim);
  const Index parts = key_parts(shape), share = shape.share();
  std::vector<NdArray<T, 4>> own(static_cast<std::size_t>(dq.is_null() ? 0 : parts - 1));
  for (NdArray<T, 4>& a : own) a.resize(q.extents());
  parallel_for(
      shape.sequences() * shape.key_heads * parts,
      [&](Index task) {
        const Index sequence = task / parts / shape.key_heads, part = task % parts;
        const Index key_head = task / parts % shape.key_heads;
        const SequenceSpan& span = shape.query_spans[static_cast<std::size_t>(sequence)];
        const SequenceSpan& keys = shape.key_spans[static_cast<std::size_t>(sequence)];
        const Index each = round_up((keys.length + parts - 1) / parts, key_tile);
        const Index begin = (std::min)(part * each, keys.length);
        const Index end = (std::min)(begin + each, keys.length);
        const NdView<T, 4> to =
            dq.is_null() || part == 0 ? dq : own[static_cast<std::size_t>(part - 1)].view();
        SoftmaxBackward<T> backward(level, span.length, shape.dim, shape.value_dim, end - begin);
        std::vector<T> row(static_cast<std::size_t>(span.length));
        for (Index h = key_head * share; h < (key_head + 1) * share; ++h) {
          const SoftmaxHead<T> head = softmax_head<T>(shape, sequence, h, q, k, v, scale);
          for (Index i = 0; i < span.length; ++i) {
            row[static_cast<std::size_t>(i)] = sums(span.batch, h, span.begin + i);
          }
          for (Index i = 0; i < span.length; i += backward.block()) {
            backward.run(head, i, (std::min)(i + backward.block(), span.length), begin, end,
                         sequence_rows(out, span, h), sequence_rows(dout, span, h), row.data(),
                         to.is_null() ? MatrixView<T>() : sequence_rows(to, span, h));
          }
        }
        const auto rows = [&](const NdView<T, 4>& x) {
          return x.is_null() ? MatrixView<T>()
                             : sequence_rows(x, keys, key_head).slice(0, begin, end - begin);
        };
        backward.store(rows(dk), rows(dv));
      },
      options.threads);
  for (const NdArray<T, 4>& part : own) {
    parallel_for(
        shape.batch * shape.heads,
        [&](Index i) {
          const MatrixView<T> to = dq.subview(i / shape.heads).subview(i % shape.heads);
          const MatrixView<const T> from =
              part.view().subview(i / shape.heads).subview(i % shape.heads);
          for (Index t = 0; t < to.rows(); ++t) {
            for (Index c = 0; c < to.cols(); ++c) to(t, c) += from(t, c);
          }
        },
        options.threads);
  }
}

}  // namespace detail

/// out (batch, heads, length, value_dim) = softmax(scale q k^T) v, overwritten, for
/// q (batch, heads, length, dim), k (batch, key_heads, keys, dim), v (batch, key_heads, keys,
/// value_dim), where key_heads divides heads. `log_sum_exp` (batch, heads, length) takes what the
/// gradient needs, null leaves it out. A query that sees no key has output 0 and -infinity there,
/// and so have steps of no sequence; NaN or +infinity among a query's scores make its output NaN.
/// ShapeError and ValueError for what does not fit.
template <class T>
void softmax_attention(std::type_identity_t<NdView<const T, 4>> q,
                       std::type_identity_t<NdView<const T, 4>> k,
                       std::type_identity_t<NdView<const T, 4>> v, NdView<T, 4> out,
                       std::type_identity_t<NdView<T, 3>> log_sum_exp = {},
                       const SoftmaxOptions& options = {}) {
  constexpr const char* function = "quern::attention::softmax_attention";
  const AttentionShape shape(function, q, k, v, options.visible);
  expect_shape(function, "out", out, {shape.batch, shape.heads, shape.length, shape.value_dim});
  if (!log_sum_exp.is_null()) {
    expect_shape(function, "log_sum_exp", log_sum_exp, {shape.batch, shape.heads, shape.length});
    for (Index b = 0; b < shape.batch; ++b) {
      for (Index h = 0; h < shape.heads; ++h) {
        for (Index t = 0; t < shape.length; ++t) {
          log_sum_exp(b, h, t) = -std::numeric_limits<T>::infinity();
        }
      }
    }
  }
  detail::clear_gaps(shape.query_spans, out);
  const simd::Level level = simd::active_level();
  const kernels::TileLayout layout = QUERN_DISPATCH_AT(level, tile_layout<T>());
  const Index block = detail::SoftmaxForward<T>::query_block(layout);
  const Index blocks = block_count(shape.length, block);
  const T scale = detail::softmax_scale<T>(options, shape.dim);
  parallel_for(
      shape.sequences() * shape.heads * blocks,
      [&](Index task) {
        // The last blocks of a causal sequence have most keys: they come first.
        const Index sequence = task / blocks / shape.heads, h = task / blocks % shape.heads;
        const SequenceSpan& span = shape.query_spans[static_cast<std::size_t>(sequence)];
        const Index begin = (blocks - 1 - task % blocks) * block;
        if (begin >= span.length) return;
        const Index end = (std::min)(begin + block, span.length);
        const detail::SoftmaxHead<T> head =
            detail::softmax_head<T>(shape, sequence, h, q, k, v, scale);
        std::vector<T> sums(static_cast<std::size_t>(log_sum_exp.is_null() ? 0 : span.length));
        detail::softmax_queries(level, head, begin, end, detail::sequence_rows(out, span, h),
                                sums.empty() ? nullptr : sums.data());
        for (Index i = begin; i < end && !sums.empty(); ++i) {
          log_sum_exp(span.batch, h, span.begin + i) = sums[static_cast<std::size_t>(i)];
        }
      },
      options.threads);
}

/// What the forward pass leaves for the backward pass; null views are computed again.
template <class T>
struct SoftmaxSaved {
  NdView<const T, 4> out;
  NdView<const T, 3> log_sum_exp;
};

/// Gradients by q, k, v (overwritten; a null view leaves one out), given that by the output.
template <class T>
void softmax_attention_vjp(std::type_identity_t<NdView<const T, 4>> q,
                           std::type_identity_t<NdView<const T, 4>> k,
                           std::type_identity_t<NdView<const T, 4>> v,
                           const std::type_identity_t<SoftmaxSaved<T>>& saved,
                           std::type_identity_t<NdView<const T, 4>> dout, NdView<T, 4> dq,
                           std::type_identity_t<NdView<T, 4>> dk,
                           std::type_identity_t<NdView<T, 4>> dv,
                           const SoftmaxOptions& options = {}) {
  constexpr const char* function = "quern::attention::softmax_attention_vjp";
  const AttentionShape shape(function, q, k, v, options.visible);
  const Shape<4> out_shape{shape.batch, shape.heads, shape.length, shape.value_dim};
  expect_shape(function, "dout", dout, out_shape);
  if (!dq.is_null()) expect_shape(function, "dq", dq, q.extents());
  if (!dk.is_null()) expect_shape(function, "dk", dk, k.extents());
  if (!dv.is_null()) expect_shape(function, "dv", dv, v.extents());
  NdArray<T, 4> own_out;
  NdArray<T, 3> own_sums;
  NdView<const T, 4> out = saved.out;
  NdView<const T, 3> sums = saved.log_sum_exp;
  if (out.is_null() || sums.is_null()) {
    own_out.resize(out_shape, core::Fill::none);
    own_sums.resize({shape.batch, shape.heads, shape.length}, core::Fill::none);
    softmax_attention<T>(q, k, v, own_out.view(), own_sums.view(), options);
    out = own_out.view();
    sums = own_sums.view();
  }
  expect_shape(function, "saved.out", out, out_shape);
  expect_shape(function, "saved.log_sum_exp", sums, {shape.batch, shape.heads, shape.length});
  detail::clear_gaps(shape.query_spans, dq);
  detail::clear_gaps(shape.key_spans, dk);
  detail::clear_gaps(shape.key_spans, dv);
  detail::softmax_backward<T>(shape, q, k, v, out, sums, dout, dq, dk, dv, options);
}

}  // namespace attention
QUERN_NAMESPACE_END

#endif  // QUERN_ATTENTION_SOFTMAX_HPP
