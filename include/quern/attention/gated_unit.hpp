// SPDX-License-Identifier: Apache-2.0

/// \file
/// What the gated attention unit (gau.hpp) and FLASH (flash.hpp) have in common: weights, gradients
/// and options. W. Hua, Z. Dai, H. Liu, Q. V. Le, "Transformer quality in linear time"
/// (arXiv:2202.10447), with the conventions of FLASH-pytorch.

#ifndef QUERN_ATTENTION_GATED_UNIT_HPP
#define QUERN_ATTENTION_GATED_UNIT_HPP

#include "quern/attention/sparse.hpp"
#include "quern/core/config.hpp"
#include "quern/core/nd_array.hpp"
#include "quern/core/nd_view.hpp"

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <type_traits>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace attention {

/// What a gated unit applies to its logits.
enum class GateActivation {
  squared_relu,  ///< max(x, 0)^2, logits divided by the length
  laplace,       ///< Mega's bounded likeness of it
  /// softmax(q k^T / sqrt(s) * log(l) / log(512)) where l keys are visible (GAU-alpha); no relative
  /// bias. GAU only.
  softmax_plus
};

/// What goes before the projections.
enum class GateNorm {
  layer,  ///< layer norm with weight and bias
  scale,  ///< x / max(|x| / sqrt(dim), epsilon) times one learnt number
  none
};

/// Weights as views, row-major by PyTorch's convention (outputs, inputs); e is the expanded
/// dimension, s that of queries and keys. GAU has 2 rows of gamma and beta (query, key), FLASH 4
/// (quadratic query, linear query, quadratic key, linear key).
template <class Element>
struct GatedUnitArrays {
  NdView<Element, 1> norm_weight;     ///< dim; one number where the norm is `scale`
  NdView<Element, 1> norm_bias;       ///< dim, where the norm is `layer`
  MatrixView<Element> hidden_weight;  ///< (2 e, dim): values, then gates
  NdView<Element, 1> hidden_bias;     ///< 2 e
  MatrixView<Element> qk_weight;      ///< (s, dim)
  NdView<Element, 1> qk_bias;         ///< s
  MatrixView<Element> gamma;          ///< (2 or 4, s)
  MatrixView<Element> beta;           ///< (2 or 4, s)
  NdView<Element, 1> bias_table;      ///< relative bias, one number a bucket; null: none
  MatrixView<Element> out_weight;     ///< (dim, e)
  NdView<Element, 1> out_bias;        ///< dim
};
template <class T>
using GatedUnitWeights = GatedUnitArrays<const T>;
/// Gradients, added to; null views are left out.
template <class T>
using GatedUnitGradients = GatedUnitArrays<T>;

/// Options of gau and flash.
template <class T>
struct GatedUnitOptions {
  bool causal = false;
  GateActivation activation = GateActivation::squared_relu;
  GateNorm norm = GateNorm::layer;
  T epsilon = static_cast<T>(1e-5);  ///< of the norm
  bool residual = true;              ///< out = unit(x) + x
  /// The first half of the normed channels is the token before's.
  bool token_shift = false;
  /// Rotates the first so many channels (an even number) of all queries and keys by their position,
  /// in adjacent pairs.
  Index rotary_dims = 0;
  /// GAU's logits are divided by this; 0: by the length of the input, as the authors do. Decoding
  /// has to know it beforehand.
  Index length_scale = 0;
  Index group = 256;  ///< FLASH: tokens of a group
  /// GAU: how many keys before its own a token sees (and, not causal, as many after); -1: all. With
  /// one decoding takes constant memory.
  Index window = -1;
  /// gated_attention: position of query 0 among the keys. Must be given where these are not equally
  /// many and positions matter.
  std::optional<Index> causal_offset = {};
  NdView<const std::uint8_t, 2> mask = {};  ///< (batch, length), 0: not a key; null: all are
  /// Tokens that are keys in each row; empty: all. With a mask beside it, a key is what both show.
  std::span<const std::int64_t> lengths = {};
  /// Sequences packed in one row (batch of 1): sequence s is [cumulative[s], cumulative[s + 1]),
  /// with positions and a length of its own. Outputs of what follows the last are 0. Empty: none.
  std::span<const std::int64_t> cumulative = {};
  int threads = 0;
};

/// What forward leaves for the backward pass.
template <class T>
struct GatedUnitSaved {
  NdArray<T, 2> normed;     ///< (tokens, dim) before the norm's weights
  NdArray<T, 1> factor;     ///< the norm's 1 / deviation
  NdArray<T, 2> shifted;    ///< what the projections took
  NdArray<T, 2> hidden_in;  ///< before SiLU
  NdArray<T, 2> hidden;     ///< values (masked ones zero) and gates
  NdArray<T, 2> qk_in;
  NdArray<T, 2> qk;
  NdArray<T, 3> heads;  ///< (2 or 4, tokens, s): queries and keys as attention takes them
  NdArray<T, 2> attended;
  NdArray<T, 2> gated;
  SparseSaved<T> softmax;
  std::vector<GatedUnitSaved> parts;  ///< of packed sequences, one each, instead of all others
};

}  // namespace attention
QUERN_NAMESPACE_END

#endif  // QUERN_ATTENTION_GATED_UNIT_HPP
