// SPDX-License-Identifier: Apache-2.0

/// \file
/// Rows of channels mixed with the rows before them (the token shift of RWKV), and sums of products
/// that a row's gradients need. Each element's bits depend on that element alone.

#if defined(QUERN_KERNELS_MIXING_INL_HPP) == defined(HWY_TARGET_TOGGLE)
#ifdef QUERN_KERNELS_MIXING_INL_HPP
#undef QUERN_KERNELS_MIXING_INL_HPP
#else
#define QUERN_KERNELS_MIXING_INL_HPP
#endif

#include "quern/core/config.hpp"
#include "quern/kernels/lanes-inl.hpp"

#include "hwy/highway.h"

#include <cstddef>

HWY_BEFORE_NAMESPACE();
QUERN_NAMESPACE_BEGIN
namespace kernels {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

namespace detail {

/// fn(offset, lanes that count) over n elements.
template <class D, class F>
HWY_INLINE void for_vectors(D d, std::size_t n, const F& fn) {
  const std::size_t lanes = hn::Lanes(d);
  for (std::size_t i = 0; i < n; i += lanes) fn(i, n - i < lanes ? n - i : lanes);
}

}  // namespace detail

/// y = past + mix (now - past); a null past is zeros.
template <class T>
void mix_rows(const T* now, const T* past, const T* mix, std::size_t n, T* y) {
  const hn::ScalableTag<T> d;
  detail::for_vectors(d, n, [&](std::size_t i, std::size_t count) HWY_ATTR {
    const auto x = detail::load_lanes(d, now + i, count), m = detail::load_lanes(d, mix + i, count);
    const auto p = past == nullptr ? hn::Zero(d) : detail::load_lanes(d, past + i, count);
    detail::store_lanes(hn::MulAdd(m, hn::Sub(x, p), p), d, y + i, count);
  });
}

/// dx (+)= mix dy + (1 - mix) dlater, where dlater is the gradient of the next row (null: none).
template <class T>
void mix_rows_gradient(const T* dy, const T* dlater, const T* mix, std::size_t n, bool overwrite,
                       T* dx) {
  const hn::ScalableTag<T> d;
  detail::for_vectors(d, n, [&](std::size_t i, std::size_t count) HWY_ATTR {
    const auto m = detail::load_lanes(d, mix + i, count);
    auto sum = overwrite ? hn::Zero(d) : detail::load_lanes(d, dx + i, count);
    sum = hn::MulAdd(m, detail::load_lanes(d, dy + i, count), sum);
    if (dlater != nullptr) {
      const auto rest = hn::Sub(hn::Set(d, T{1}), m);
      sum = hn::MulAdd(rest, detail::load_lanes(d, dlater + i, count), sum);
    }
    detail::store_lanes(sum, d, dx + i, count);
  });
}

/// sums += dy (now - past).
template <class T>
void add_mix_gradient(const T* now, const T* past, const T* dy, std::size_t n, T* sums) {
  const hn::ScalableTag<T> d;
  detail::for_vectors(d, n, [&](std::size_t i, std::size_t count) HWY_ATTR {
    auto apart = detail::load_lanes(d, now + i, count);
    if (past != nullptr) apart = hn::Sub(apart, detail::load_lanes(d, past + i, count));
    const auto g = detail::load_lanes(d, dy + i, count);
    const auto before = detail::load_lanes(d, sums + i, count);
    detail::store_lanes(hn::MulAdd(g, apart, before), d, sums + i, count);
  });
}

/// y = x + apart (base + amount); a null amount is zeros.
template <class T>
void blend_rows(const T* x, const T* apart, const T* base, const T* amount, std::size_t n, T* y) {
  const hn::ScalableTag<T> d;
  detail::for_vectors(d, n, [&](std::size_t i, std::size_t count) HWY_ATTR {
    auto share = detail::load_lanes(d, base + i, count);
    if (amount != nullptr) share = hn::Add(share, detail::load_lanes(d, amount + i, count));
    const auto v = detail::load_lanes(d, x + i, count);
    detail::store_lanes(hn::MulAdd(detail::load_lanes(d, apart + i, count), share, v), d, y + i,
                        count);
  });
}

/// Its gradients: dx += dy, dapart += dy (base + amount), damount = dy apart.
template <class T>
void blend_rows_gradient(const T* dy, const T* apart, const T* base, const T* amount, std::size_t n,
                         T* dx, T* dapart, T* damount) {
  const hn::ScalableTag<T> d;
  detail::for_vectors(d, n, [&](std::size_t i, std::size_t count) HWY_ATTR {
    auto share = detail::load_lanes(d, base + i, count);
    if (amount != nullptr) share = hn::Add(share, detail::load_lanes(d, amount + i, count));
    const auto g = detail::load_lanes(d, dy + i, count);
    detail::add_lanes(g, d, dx + i, count);
    const auto before = detail::load_lanes(d, dapart + i, count);
    detail::store_lanes(hn::MulAdd(g, share, before), d, dapart + i, count);
    const auto da = hn::Mul(g, detail::load_lanes(d, apart + i, count));
    detail::store_lanes(da, d, damount + i, count);
  });
}

/// sums += a b.
template <class T>
void add_products(const T* a, const T* b, std::size_t n, T* sums) {
  const hn::ScalableTag<T> d;
  detail::for_vectors(d, n, [&](std::size_t i, std::size_t count) HWY_ATTR {
    const auto x = detail::load_lanes(d, a + i, count), y = detail::load_lanes(d, b + i, count);
    const auto before = detail::load_lanes(d, sums + i, count);
    detail::store_lanes(hn::MulAdd(x, y, before), d, sums + i, count);
  });
}

}  // namespace HWY_NAMESPACE
}  // namespace kernels
QUERN_NAMESPACE_END
HWY_AFTER_NAMESPACE();

#endif  // QUERN_KERNELS_MIXING_INL_HPP
