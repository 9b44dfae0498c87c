// SPDX-License-Identifier: Apache-2.0

/// \file
/// Gradients of softmax attention of a block of queries to a list of keys: logits again from the
/// forward pass's maximum and sum, then the products, as block_attention-inl.hpp holds them.

#if defined(QUERN_KERNELS_BLOCK_ATTENTION_VJP_INL_HPP) == defined(HWY_TARGET_TOGGLE)
#ifdef QUERN_KERNELS_BLOCK_ATTENTION_VJP_INL_HPP
#undef QUERN_KERNELS_BLOCK_ATTENTION_VJP_INL_HPP
#else
#define QUERN_KERNELS_BLOCK_ATTENTION_VJP_INL_HPP
#endif

#include "quern/core/config.hpp"
#include "quern/kernels/block_attention-inl.hpp"
#include "quern/kernels/block_attention_types.hpp"

#include "hwy/highway.h"

#include <cstddef>
#include <cstdint>
#include <cstring>

HWY_BEFORE_NAMESPACE();
QUERN_NAMESPACE_BEGIN
namespace kernels {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

/// Gradients of a task: see BlockAttentionGradients.
template <class T>
void block_attention_gradients(const BlockAttentionTask<T>& task,
                               const BlockAttentionGradients<T>& g) {
  using detail::kTokens;
  detail::BlockAttentionRun<T> run(task);
  T* const turned_dout = run.free_scratch();
  T* const slopes = turned_dout + task.value_dim * kTokens;
  T* const dq = slopes + kTokens * kTokens;
  T* const q_room = dq + task.dim * kTokens;
  T* const dout_room = q_room + task.dim * kTokens;
  T* const dk_room = dout_room + task.value_dim * kTokens;
  T* const dv_room = dk_room + task.dim * kTokens;
  run.turn_query_rows(g.dout, g.dout_stride, task.value_dim, T{1}, turned_dout);
  std::ptrdiff_t q_stride = task.q_stride, dout_stride = g.dout_stride;
  const T* const q = run.query_rows(task.q, &q_stride, task.dim, q_room);
  const T* const dout = run.query_rows(g.dout, &dout_stride, task.value_dim, dout_room);
  HWY_ALIGN T largest[kTokens] = {};
  HWY_ALIGN T inverse[kTokens] = {};
  HWY_ALIGN T delta[kTokens] = {};
  for (std::ptrdiff_t i = 0; i < task.queries; ++i) {
    const std::int64_t id = run.query_id(i);
    largest[i] = g.largest[id];
    inverse[i] = g.total[id] != T{0} ? T{1} / g.total[id] : T{0};
    delta[i] = g.delta[id];
  }
  std::memset(dq, 0, static_cast<std::size_t>(task.queries * task.dim) * sizeof(T));
  // Rows of gradients of keys: in place where keys are in a row, else by way of scratch memory.
  const auto add_keys = [&](const T* weights, const T* rows, std::ptrdiff_t stride,
                            std::ptrdiff_t cols, T* to, std::ptrdiff_t to_stride, T* room) {
    if (to == nullptr) return;
    if (task.key_ids == nullptr) {
      run.add_to_keys(weights, rows, stride, cols, to + run.key_id(0) * to_stride, to_stride);
      return;
    }
    std::memset(room, 0, static_cast<std::size_t>(run.keys() * cols) * sizeof(T));
    run.add_to_keys(weights, rows, stride, cols, room, cols);
    for (std::ptrdiff_t j = 0; j < run.keys(); ++j) {
      detail::add_block_row(room + j * cols, cols, to + run.key_id(j) * to_stride);
    }
  };
  for (std::ptrdiff_t begin = 0; begin < task.keys; begin += kTokens) {
    if (!run.load_chunk(begin)) continue;
    run.compute_logits();
    run.weigh(largest, inverse);
    add_keys(run.logits(), dout, dout_stride, task.value_dim, g.dv, g.dv_stride, dv_room);
    if (g.dq == nullptr && g.dk == nullptr) continue;
    run.product_of_rows(run.chunk_values(), run.value_stride(), turned_dout, task.value_dim,
                        slopes);
    run.turn_gradients(run.logits(), delta, slopes);
    add_keys(slopes, q, q_stride, task.dim, g.dk, g.dk_stride, dk_room);
    if (g.dq == nullptr) continue;
    run.add_to_queries(slopes, run.chunk_keys(), run.key_stride(), task.dim, dq);
  }
  if (g.dq == nullptr) return;
  for (std::ptrdiff_t i = 0; i < task.queries; ++i) {
    detail::add_block_row(dq + i * task.dim, task.dim, g.dq + run.query_id(i) * g.dq_stride);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace kernels
QUERN_NAMESPACE_END
HWY_AFTER_NAMESPACE();

#endif  // QUERN_KERNELS_BLOCK_ATTENTION_VJP_INL_HPP
