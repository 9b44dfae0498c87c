// SPDX-License-Identifier: Apache-2.0

/// \file
/// The (gated) delta rule on one tile of steps, forward:
///   r = v - a S^T k,   S = a S + k (beta r)^T,   out = S^T q,
/// and the state's gradient G backward, from the last step to the first:
///   G += q dout^T,   p = G^T k,   G = a (G - k (beta p)^T).
///
/// What a step writes depends on what all rows of the state answer, so the state cannot stay in
/// registers; but the pass that writes a step also sums up what the next key will be answered: the
/// state goes through the registers once a step, four operations an element.

#if defined(QUERN_KERNELS_DELTA_RULE_INL_HPP) == defined(HWY_TARGET_TOGGLE)
#ifdef QUERN_KERNELS_DELTA_RULE_INL_HPP
#undef QUERN_KERNELS_DELTA_RULE_INL_HPP
#else
#define QUERN_KERNELS_DELTA_RULE_INL_HPP
#endif

#include "quern/core/config.hpp"
#include "quern/kernels/delta_rule_types.hpp"

#include "hwy/highway.h"

#include <cstddef>

HWY_BEFORE_NAMESPACE();
QUERN_NAMESPACE_BEGIN
namespace kernels {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

/// Sum over rows of key[r] * state[r], one vector of columns.
template <class D, class T>
HWY_INLINE hn::VFromD<D> delta_answer(D d, const T* HWY_RESTRICT key, const T* HWY_RESTRICT state,
                                      std::ptrdiff_t rows, std::ptrdiff_t stride) {
  auto sum = hn::Zero(d);
  for (std::ptrdiff_t r = 0; r < rows; ++r) {
    sum = hn::MulAdd(hn::Set(d, key[r]), hn::LoadU(d, state + r * stride), sum);
  }
  return sum;
}

/// See the file comment.
template <class T>
void delta_forward(const DeltaTile<T>& tile) {
  const hn::ScalableTag<T> d;
  const std::ptrdiff_t lanes = static_cast<std::ptrdiff_t>(hn::Lanes(d));
  const std::ptrdiff_t rows = tile.rows, stride = tile.stride;
  for (std::ptrdiff_t c = 0; c < stride && tile.steps > 0; c += lanes) {
    T* HWY_RESTRICT state = tile.state + c;
    auto answer = delta_answer(d, tile.keys, state, rows, stride);
    for (std::ptrdiff_t s = 0; s < tile.steps; ++s) {
      const T* HWY_RESTRICT key = tile.keys + s * rows;
      const T* HWY_RESTRICT next = s + 1 < tile.steps ? key + rows : key;
      const T* HWY_RESTRICT read = tile.reads + s * rows;
      const auto fade = hn::Set(d, tile.decay[s]);
      const auto value = hn::LoadU(d, tile.values + s * stride + c);
      const auto residual = hn::NegMulAdd(fade, answer, value);
      const auto write = hn::Mul(hn::Set(d, tile.beta[s]), residual);
      hn::StoreU(residual, d, tile.residuals + s * stride + c);
      hn::StoreU(write, d, tile.writes + s * stride + c);
      auto out = hn::Zero(d);
      answer = hn::Zero(d);
      for (std::ptrdiff_t r = 0; r < rows; ++r) {
        auto x = hn::Mul(fade, hn::LoadU(d, state + r * stride));
        x = hn::MulAdd(hn::Set(d, key[r]), write, x);
        hn::StoreU(x, d, state + r * stride);
        out = hn::MulAdd(hn::Set(d, read[r]), x, out);
        answer = hn::MulAdd(hn::Set(d, next[r]), x, answer);
      }
      hn::StoreU(out, d, tile.out + s * stride + c);
    }
  }
}

/// See the file comment.
template <class T>
void delta_backward(const DeltaTile<T>& tile) {
  const hn::ScalableTag<T> d;
  const std::ptrdiff_t lanes = static_cast<std::ptrdiff_t>(hn::Lanes(d));
  const std::ptrdiff_t rows = tile.rows, stride = tile.stride;
  for (std::ptrdiff_t c = 0; c < stride && tile.steps > 0; c += lanes) {
    T* HWY_RESTRICT state = tile.state + c;
    const std::ptrdiff_t last = tile.steps - 1;
    auto dout = hn::LoadU(d, tile.values + last * stride + c);
    auto answer = hn::Zero(d);
    for (std::ptrdiff_t r = 0; r < rows; ++r) {
      const auto x = hn::MulAdd(hn::Set(d, tile.reads[last * rows + r]), dout,
                                hn::LoadU(d, state + r * stride));
      hn::StoreU(x, d, state + r * stride);
      answer = hn::MulAdd(hn::Set(d, tile.keys[last * rows + r]), x, answer);
    }
    for (std::ptrdiff_t s = last; s >= 0; --s) {
      const T* HWY_RESTRICT key = tile.keys + s * rows;
      const T* HWY_RESTRICT next = s > 0 ? key - rows : key;
      const T* HWY_RESTRICT read = tile.reads + (s > 0 ? s - 1 : s) * rows;
      const auto fade = hn::Set(d, tile.decay[s]);
      const auto write = hn::Mul(hn::Set(d, tile.beta[s]), answer);
      hn::StoreU(answer, d, tile.residuals + s * stride + c);
      hn::StoreU(write, d, tile.writes + s * stride + c);
      dout = s > 0 ? hn::LoadU(d, tile.values + (s - 1) * stride + c) : hn::Zero(d);
      answer = hn::Zero(d);
      for (std::ptrdiff_t r = 0; r < rows; ++r) {
        auto x = hn::NegMulAdd(hn::Set(d, key[r]), write, hn::LoadU(d, state + r * stride));
        x = hn::MulAdd(hn::Set(d, read[r]), dout, hn::Mul(fade, x));
        hn::StoreU(x, d, state + r * stride);
        answer = hn::MulAdd(hn::Set(d, next[r]), x, answer);
      }
    }
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace kernels
QUERN_NAMESPACE_END
HWY_AFTER_NAMESPACE();

#endif  // QUERN_KERNELS_DELTA_RULE_INL_HPP
