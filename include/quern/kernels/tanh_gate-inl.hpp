// SPDX-License-Identifier: Apache-2.0

/// \file
/// The gate of gated PixelCNNs and WaveNets: tanh(a) sigmoid(b) of the two halves of each row, with
/// a row added before, and its gradient.
///
/// Two transcendental functions a number: bound by arithmetic. Within 6 ulp.

#if defined(QUERN_KERNELS_TANH_GATE_INL_HPP) == defined(HWY_TARGET_TOGGLE)
#ifdef QUERN_KERNELS_TANH_GATE_INL_HPP
#undef QUERN_KERNELS_TANH_GATE_INL_HPP
#else
#define QUERN_KERNELS_TANH_GATE_INL_HPP
#endif

#include "quern/core/config.hpp"
#include "quern/kernels/math-inl.hpp"
#include "quern/kernels/partial-inl.hpp"

#include "hwy/highway.h"

#include <cstddef>

HWY_BEFORE_NAMESPACE();
QUERN_NAMESPACE_BEGIN
namespace kernels {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

namespace detail {

template <bool kWhole, class D, class T>
HWY_INLINE hn::Vec<D> gate_load(D d, const T* from, std::size_t count) {
  if constexpr (kWhole) return hn::LoadU(d, from);
  return load_partial(d, from, count);
}
template <bool kWhole, class D, class V, class T>
HWY_INLINE void gate_store(D d, V v, T* to, std::size_t count) {
  if constexpr (kWhole) {
    hn::StoreU(v, d, to);
  } else {
    store_partial(v, d, to, count);
  }
}

template <bool kWhole, class D, class T>
HWY_INLINE void gate_vector(D d, const T* in, const T* add, std::size_t cols, std::size_t i,
                            std::size_t count, T* out) {
  auto a = gate_load<kWhole>(d, in + i, count), b = gate_load<kWhole>(d, in + cols + i, count);
  if (add != nullptr) {
    a = hn::Add(a, gate_load<kWhole>(d, add + i, count));
    b = hn::Add(b, gate_load<kWhole>(d, add + cols + i, count));
  }
  gate_store<kWhole>(d, hn::Mul(HWY_NAMESPACE::tanh(d, a), HWY_NAMESPACE::sigmoid(d, b)), out + i,
                     count);
}

template <bool kWhole, class D, class T>
HWY_INLINE void gate_gradient_vector(D d, const T* in, const T* add, const T* dout,
                                     std::size_t cols, std::size_t i, std::size_t count, T* din) {
  auto a = gate_load<kWhole>(d, in + i, count), b = gate_load<kWhole>(d, in + cols + i, count);
  if (add != nullptr) {
    a = hn::Add(a, gate_load<kWhole>(d, add + i, count));
    b = hn::Add(b, gate_load<kWhole>(d, add + cols + i, count));
  }
  const auto one = hn::Set(d, T(1));
  const auto t = HWY_NAMESPACE::tanh(d, a), s = HWY_NAMESPACE::sigmoid(d, b);
  const auto g = gate_load<kWhole>(d, dout + i, count);
  gate_store<kWhole>(d, hn::Mul(hn::Mul(g, s), hn::NegMulAdd(t, t, one)), din + i, count);
  gate_store<kWhole>(d, hn::Mul(hn::Mul(g, t), hn::NegMulAdd(s, s, s)), din + cols + i, count);
}

}  // namespace detail

/// out (rows x cols) = tanh(a) sigmoid(b), where a and b are the halves of in's row (2 cols) plus
/// \p add (2 cols; may be null).
template <class T>
void tanh_gate(std::size_t rows, std::size_t cols, const T* in, const T* add, T* out) {
  const hn::ScalableTag<T> d;
  const std::size_t lanes = hn::Lanes(d);
  for (std::size_t r = 0; r < rows; ++r, in += 2 * cols, out += cols) {
    std::size_t i = 0;
    for (; i + lanes <= cols; i += lanes)
      detail::gate_vector<true>(d, in, add, cols, i, lanes, out);
    if (i < cols) detail::gate_vector<false>(d, in, add, cols, i, cols - i, out);
  }
}

/// din (rows x 2 cols) = its gradient for dout.
template <class T>
void tanh_gate_gradient(std::size_t rows, std::size_t cols, const T* in, const T* add,
                        const T* dout, T* din) {
  const hn::ScalableTag<T> d;
  const std::size_t lanes = hn::Lanes(d);
  for (std::size_t r = 0; r < rows; ++r, in += 2 * cols, din += 2 * cols, dout += cols) {
    std::size_t i = 0;
    for (; i + lanes <= cols; i += lanes) {
      detail::gate_gradient_vector<true>(d, in, add, dout, cols, i, lanes, din);
    }
    if (i < cols) detail::gate_gradient_vector<false>(d, in, add, dout, cols, i, cols - i, din);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace kernels
QUERN_NAMESPACE_END
HWY_AFTER_NAMESPACE();

#endif  // QUERN_KERNELS_TANH_GATE_INL_HPP
