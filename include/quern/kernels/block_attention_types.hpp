// SPDX-License-Identifier: Apache-2.0

/// \file
/// What softmax attention over lists of queries and keys passes to block_attention-inl.hpp.

#ifndef QUERN_KERNELS_BLOCK_ATTENTION_TYPES_HPP
#define QUERN_KERNELS_BLOCK_ATTENTION_TYPES_HPP

#include "quern/core/config.hpp"

#include <cstddef>
#include <cstdint>

QUERN_NAMESPACE_BEGIN
namespace kernels {

/// Queries of a task, and keys that are looked at together.
inline constexpr std::ptrdiff_t block_attention_size = 64;

/// Up to block_attention_size queries of one head and a list of keys. Rows of q, k, v are tokens
/// and their columns are adjacent. Query row i sees key j of the list where
/// lowest[i] <= j <= highest[i] and j < key_limit; a key that the list holds twice counts twice.
template <class T>
struct BlockAttentionTask {
  const T* q = nullptr;
  std::ptrdiff_t q_stride = 0;
  const T* k = nullptr;
  std::ptrdiff_t k_stride = 0;
  const T* v = nullptr;
  std::ptrdiff_t v_stride = 0;
  std::ptrdiff_t dim = 0;
  std::ptrdiff_t value_dim = 0;
  T scale = T{1};  ///< of the logits
  /// Key i of query i has this logit instead of its own, and no gradient, where `replace_self`.
  T self_logit = T{0};
  bool replace_self = false;

  const std::int64_t* lowest = nullptr;   ///< by row of q
  const std::int64_t* highest = nullptr;  ///< by row of q
  std::int64_t key_limit = 0;

  const std::int64_t* query_ids = nullptr;  ///< rows of q; null: first_query, first_query + 1, …
  std::int64_t first_query = 0;
  std::ptrdiff_t queries = 0;
  const std::int64_t* key_ids = nullptr;  ///< rows of k and v; null: first_key, first_key + 1, …
  std::int64_t first_key = 0;
  std::ptrdiff_t keys = 0;

  T* scratch = nullptr;  ///< block_attention_scratch() elements, aligned to a vector
};

/// Where sums go. Several tasks may share a query, one after the other: it begins with `first` and
/// ends with `last`. Until then `out` holds the sum of e^(logit - largest) v.
template <class T>
struct BlockAttentionSums {
  T* largest = nullptr;  ///< by row of q: the largest logit so far
  T* total = nullptr;    ///< by row of q: the sum of e^(logit - largest)
  T* out = nullptr;      ///< rows of q, value_dim adjacent columns
  std::ptrdiff_t out_stride = 0;
  bool first = true;
  bool last = true;
};

/// Gradients of one task: dq, dk and dv are added to; a null pointer leaves one out.
template <class T>
struct BlockAttentionGradients {
  const T* largest = nullptr;  ///< as the forward pass left them
  const T* total = nullptr;
  const T* delta = nullptr;  ///< by row of q: dout . out
  const T* dout = nullptr;
  std::ptrdiff_t dout_stride = 0;
  T* dq = nullptr;
  std::ptrdiff_t dq_stride = 0;
  T* dk = nullptr;
  std::ptrdiff_t dk_stride = 0;
  T* dv = nullptr;
  std::ptrdiff_t dv_stride = 0;
};

/// Elements of scratch memory of a task.
constexpr std::ptrdiff_t block_attention_scratch(std::ptrdiff_t dim, std::ptrdiff_t value_dim,
                                                 bool gradients) {
  const std::ptrdiff_t rows = block_attention_size;
  return gradients ? rows * (5 * dim + 4 * value_dim + 2 * rows)
                   : rows * (2 * dim + 2 * value_dim + rows);
}

}  // namespace kernels
QUERN_NAMESPACE_END

#endif  // QUERN_KERNELS_BLOCK_ATTENTION_TYPES_HPP
