// SPDX-License-Identifier: Apache-2.0

/// \file
/// Functions of every element of an array: named functions of functors.hpp, y += a x, y = a x.
///
/// Arrays are contiguous, of any length and alignment. Output may be the input itself (the same
/// pointer), but must not overlap it otherwise. Each element's result depends on that element
/// alone, not on its place: the remainder takes the same instructions as the rest.
///
/// Four vectors a round. A polynomial is one long chain (exp: ten dependent operations of 3 to 4
/// cycles, 19 in all), and out-of-order execution finds the next vectors by itself: one vector a
/// round takes 0.38 ns a float where four take 0.36 (36 operations' time at the multiply-add peak).

#if defined(QUERN_KERNELS_ELEMENTWISE_INL_HPP) == defined(HWY_TARGET_TOGGLE)
#ifdef QUERN_KERNELS_ELEMENTWISE_INL_HPP
#undef QUERN_KERNELS_ELEMENTWISE_INL_HPP
#else
#define QUERN_KERNELS_ELEMENTWISE_INL_HPP
#endif

#include "quern/core/config.hpp"
#include "quern/kernels/functors-inl.hpp"
#include "quern/kernels/math-inl.hpp"
#include "quern/kernels/partial-inl.hpp"

#include "hwy/cache_control.h"
#include "hwy/highway.h"

#include <cstddef>

HWY_BEFORE_NAMESPACE();
QUERN_NAMESPACE_BEGIN
namespace kernels {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

/// y[i] = f(x[i]) for i < n. In place where x == y.
template <class F, class T>
void transform(const F& f, const T* x, std::size_t n, T* y) {
  using Function = Vectorized<F>;
  const hn::ScalableTag<T> d;
  const std::size_t lanes = hn::Lanes(d);
  const F local = f;  // in registers: y might overlap f for all that the compiler knows
  std::size_t i = 0;
  for (; i + 4 * lanes <= n; i += 4 * lanes) {
    const auto x0 = hn::LoadU(d, x + i);
    const auto x1 = hn::LoadU(d, x + i + lanes);
    const auto x2 = hn::LoadU(d, x + i + 2 * lanes);
    const auto x3 = hn::LoadU(d, x + i + 3 * lanes);
    hn::StoreU(Function::apply(local, d, x0), d, y + i);
    hn::StoreU(Function::apply(local, d, x1), d, y + i + lanes);
    hn::StoreU(Function::apply(local, d, x2), d, y + i + 2 * lanes);
    hn::StoreU(Function::apply(local, d, x3), d, y + i + 3 * lanes);
  }
  for (; i + lanes <= n; i += lanes) {
    hn::StoreU(Function::apply(local, d, hn::LoadU(d, x + i)), d, y + i);
  }
  if (i < n) {
    const auto rest = load_partial(d, x + i, n - i);
    store_partial(Function::apply(local, d, rest), d, y + i, n - i);
  }
}

/// y[i] = alpha x[i] + y[i] for i < n, fused where the level has fused multiply-add.
template <class T>
void axpy(T alpha, const T* x, std::size_t n, T* y) {
  const hn::ScalableTag<T> d;
  const std::size_t lanes = hn::Lanes(d);
  const auto a = hn::Set(d, alpha);
  std::size_t i = 0;
  for (; i + 4 * lanes <= n; i += 4 * lanes) {
    const auto y0 = hn::MulAdd(a, hn::LoadU(d, x + i), hn::LoadU(d, y + i));
    const auto y1 = hn::MulAdd(a, hn::LoadU(d, x + i + lanes), hn::LoadU(d, y + i + lanes));
    const auto y2 = hn::MulAdd(a, hn::LoadU(d, x + i + 2 * lanes), hn::LoadU(d, y + i + 2 * lanes));
    const auto y3 = hn::MulAdd(a, hn::LoadU(d, x + i + 3 * lanes), hn::LoadU(d, y + i + 3 * lanes));
    hn::StoreU(y0, d, y + i);
    hn::StoreU(y1, d, y + i + lanes);
    hn::StoreU(y2, d, y + i + 2 * lanes);
    hn::StoreU(y3, d, y + i + 3 * lanes);
  }
  for (; i + lanes <= n; i += lanes) {
    hn::StoreU(hn::MulAdd(a, hn::LoadU(d, x + i), hn::LoadU(d, y + i)), d, y + i);
  }
  if (i < n) {
    const auto rest = load_partial(d, x + i, n - i);
    store_partial(hn::MulAdd(a, rest, load_partial(d, y + i, n - i)), d, y + i, n - i);
  }
}

/// y[i] = alpha x[i] for i < n. In place where x == y.
template <class T>
void scale(T alpha, const T* x, std::size_t n, T* y) {
  transform(kernels::Scale<T>{alpha}, x, n, y);
}

/// Row r of y = factors[r] times that of x, strides in elements. In place where x == y.
template <class T>
void scale_rows(std::size_t rows, std::size_t cols, const T* factors, const T* x,
                std::ptrdiff_t x_stride, T* y, std::ptrdiff_t y_stride) {
  for (std::size_t r = 0; r < rows; ++r, x += x_stride, y += y_stride) {
    transform(kernels::Scale<T>{factors[r]}, x, cols, y);
  }
}

/// The same past the caches, for results larger than those: y, its stride and cols are whole
/// vectors.
template <class T>
void stream_scaled_rows(std::size_t rows, std::size_t cols, const T* factors, const T* x,
                        std::ptrdiff_t x_stride, T* y, std::ptrdiff_t y_stride) {
  const hn::ScalableTag<T> d;
  const std::size_t lanes = hn::Lanes(d);
  for (std::size_t r = 0; r < rows; ++r, x += x_stride, y += y_stride) {
    const auto factor = hn::Set(d, factors[r]);
    for (std::size_t c = 0; c < cols; c += lanes) {
      hn::Stream(hn::Mul(hn::LoadU(d, x + c), factor), d, y + c);
    }
  }
  hwy::FlushStream();
}

}  // namespace HWY_NAMESPACE
}  // namespace kernels
QUERN_NAMESPACE_END
HWY_AFTER_NAMESPACE();

#endif  // QUERN_KERNELS_ELEMENTWISE_INL_HPP
