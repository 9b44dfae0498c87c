// SPDX-License-Identifier: Apache-2.0

/// \file
/// Gradients into fixed point: (g, h) float pairs become one 64-bit word a row, g above h.

#if defined(QUERN_KERNELS_TREE_GRADIENT_INL_HPP) == defined(HWY_TARGET_TOGGLE)
#ifdef QUERN_KERNELS_TREE_GRADIENT_INL_HPP
#undef QUERN_KERNELS_TREE_GRADIENT_INL_HPP
#else
#define QUERN_KERNELS_TREE_GRADIENT_INL_HPP
#endif

#include "quern/core/config.hpp"
#include "quern/kernels/tree_types.hpp"

#include "hwy/cache_control.h"
#include "hwy/highway.h"

#include <cstdint>

HWY_BEFORE_NAMESPACE();
QUERN_NAMESPACE_BEGIN
namespace kernels {
namespace HWY_NAMESPACE {

/// Packs \p n pairs: out[i] = round(g * scale_g) * 2^32 + clamp(round(h * scale_h)), where a
/// hessian that is positive becomes at least 1 and none exceeds 2^17 - 1. Scales are powers of two.
template <class T>
void pack_gradients(const T* HWY_RESTRICT pairs, std::int64_t n, T scale_g, T scale_h,
                    std::int64_t* HWY_RESTRICT out) {
  namespace hn = hwy::HWY_NAMESPACE;
  constexpr std::int32_t kMaxHessian = (1 << 17) - 1;
  std::int64_t i = 0;
#if HWY_TARGET != HWY_SCALAR
  const hn::ScalableTag<T> df;
  const hn::RebindToSigned<decltype(df)> di;
  const std::int64_t lanes = static_cast<std::int64_t>(hn::Lanes(df));
  const auto odd = hn::Eq(hn::And(hn::Iota(di, 0), hn::Set(di, 1)), hn::Set(di, 1));
  const auto scale =
      hn::IfThenElse(hn::RebindMask(df, odd), hn::Set(df, scale_h), hn::Set(df, scale_g));
  const auto limit = hn::Set(di, kMaxHessian);
  const auto one = hn::Set(di, 1);
  for (; i + lanes / 2 <= n; i += lanes / 2) {
    const auto pair = hn::LoadU(df, pairs + 2 * i);
    const auto rounded = hn::NearestInt(hn::Mul(pair, scale));
    const auto counts = hn::RebindMask(di, hn::Gt(pair, hn::Zero(df)));
    const auto floor = hn::IfThenElseZero(counts, one);
    const auto hessian = hn::Min(hn::Max(rounded, floor), limit);
    const auto both = hn::IfThenElse(odd, hessian, rounded);
    hn::StoreU(hn::Shuffle2301(both), di, reinterpret_cast<std::int32_t*>(out + i));
  }
#endif
  const hn::CappedTag<T, 1> d1;
  for (; i < n; ++i) {
    const T g = pairs[2 * i], h = pairs[2 * i + 1];
    const std::int64_t qg = hn::GetLane(hn::NearestInt(hn::Set(d1, g * scale_g)));
    std::int64_t qh = hn::GetLane(hn::NearestInt(hn::Set(d1, h * scale_h)));
    if (h > 0 && qh < 1) qh = 1;
    if (qh > kMaxHessian) qh = kMaxHessian;
    out[i] = qg * (std::int64_t{1} << 32) + qh;
  }
}

/// Rows ahead of a list that are asked for: a leaf's rows are scattered.
constexpr std::int64_t kListPrefetch = 24;

/// use(row) for the rows of a list; \p from + row * \p stride is what each will read.
template <class T, class Use>
HWY_INLINE void for_listed_rows(const RowList& rows, const T* from, std::int64_t stride,
                                const Use& use) {
  if (rows.index == nullptr) {
    for (std::int64_t row = rows.first; row < rows.first + rows.size; ++row) use(row);
    return;
  }
  const std::int64_t near = rows.size - kListPrefetch;
  std::int64_t i = 0;
  for (; i < near; ++i) {
    hwy::Prefetch(from + rows.index[i + kListPrefetch] * stride);
    use(rows.index[i]);
  }
  for (; i < rows.size; ++i) use(rows.index[i]);
}

/// sums[0] += the gradients of \p rows, sums[1] += their hessians, each times its scale and cut to
/// an integer; pairs (g, h) a row. Integers, so that the order of rows does not matter.
template <class T>
void sum_gradients(const T* HWY_RESTRICT pairs, const RowList& rows, double scale_g, double scale_h,
                   std::int64_t* HWY_RESTRICT sums) {
  std::int64_t g = 0, h = 0;
  for_listed_rows(rows, pairs, 2, [&](std::int64_t row) HWY_ATTR {
    g += static_cast<std::int64_t>(static_cast<double>(pairs[2 * row]) * scale_g);
    h += static_cast<std::int64_t>(static_cast<double>(pairs[2 * row + 1]) * scale_h);
  });
  sums[0] += g;
  sums[1] += h;
}

/// values[row * stride] += \p more for the rows of a list, in double and rounded once each.
template <class T>
void add_to_rows(T* HWY_RESTRICT values, std::int64_t stride, const RowList& rows, double more) {
  for_listed_rows(rows, values, stride, [&](std::int64_t row) HWY_ATTR {
    T& value = values[row * stride];
    value = static_cast<T>(static_cast<double>(value) + more);
  });
}

}  // namespace HWY_NAMESPACE
}  // namespace kernels
QUERN_NAMESPACE_END
HWY_AFTER_NAMESPACE();

#endif  // QUERN_KERNELS_TREE_GRADIENT_INL_HPP
