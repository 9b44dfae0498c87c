// SPDX-License-Identifier: Apache-2.0

/// \file
/// Sums down the columns of a row-major matrix: bias gradients, statistics of channels.
///
/// A column's sum is taken over runs of 64 rows, the runs added in order, so |error| <= (64 +
/// rows / 64) u sum |x_i|. A column's bits depend on its rows alone.

#if defined(QUERN_KERNELS_COLUMNS_INL_HPP) == defined(HWY_TARGET_TOGGLE)
#ifdef QUERN_KERNELS_COLUMNS_INL_HPP
#undef QUERN_KERNELS_COLUMNS_INL_HPP
#else
#define QUERN_KERNELS_COLUMNS_INL_HPP
#endif

#include "quern/core/config.hpp"
#include "quern/kernels/partial-inl.hpp"

#include "hwy/highway.h"

#include <cstddef>

HWY_BEFORE_NAMESPACE();
QUERN_NAMESPACE_BEGIN
namespace kernels {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

namespace detail {

inline constexpr std::size_t kColumnRun = 64;

/// Sum of a run of rows of one vector of columns. Two chains: an addition takes four cycles, and
/// rows come from far apart.
template <class D, class T = hn::TFromD<D>>
HWY_INLINE hn::Vec<D> run_sum(D d, const T* x, std::ptrdiff_t stride, std::size_t rows) {
  auto even = hn::Zero(d), odd = hn::Zero(d);
  std::size_t i = 0;
  for (; i + 2 <= rows; i += 2, x += 2 * stride) {
    even = hn::Add(even, hn::LoadU(d, x));
    odd = hn::Add(odd, hn::LoadU(d, x + stride));
  }
  if (i < rows) even = hn::Add(even, hn::LoadU(d, x));
  return hn::Add(even, odd);
}

}  // namespace detail

/// out[j] = sum over rows of x[i stride + j], j < cols. 0 without rows.
template <class T>
void column_sums(std::size_t rows, std::size_t cols, const T* x, std::ptrdiff_t stride,
                 T* HWY_RESTRICT out) {
  const hn::ScalableTag<T> d;
  const std::size_t lanes = hn::Lanes(d);
  std::size_t j = 0;
  for (; j + lanes <= cols; j += lanes) {
    auto total = hn::Zero(d);
    for (std::size_t i = 0; i < rows; i += detail::kColumnRun) {
      const std::size_t run = rows - i < detail::kColumnRun ? rows - i : detail::kColumnRun;
      const T* const from = x + static_cast<std::ptrdiff_t>(i) * stride + j;
      total = hn::Add(total, detail::run_sum(d, from, stride, run));
    }
    hn::StoreU(total, d, out + j);
  }
  // The remaining columns, one by one with the same additions.
  const hn::CappedTag<T, 1> d1;
  for (; j < cols; ++j) {
    auto total = hn::Zero(d1);
    for (std::size_t i = 0; i < rows; i += detail::kColumnRun) {
      const std::size_t run = rows - i < detail::kColumnRun ? rows - i : detail::kColumnRun;
      const T* const from = x + static_cast<std::ptrdiff_t>(i) * stride + j;
      total = hn::Add(total, detail::run_sum(d1, from, stride, run));
    }
    out[j] = hn::GetLane(total);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace kernels
QUERN_NAMESPACE_END
HWY_AFTER_NAMESPACE();

#endif  // QUERN_KERNELS_COLUMNS_INL_HPP
