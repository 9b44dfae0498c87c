// SPDX-License-Identifier: Apache-2.0

/// \file
/// Normalisation: y = (x - m) a + b and its gradient, with what both need summed. In three shapes:
/// *runs* (one channel's plane: contiguous, m, a, b are numbers), *columns* (pixels with their
/// channels side by side: m, a, b are one a column), *rows* (a layer norm's: m, r are numbers, gain
/// and offset one an element).
///
/// Sums run over blocks of 64 vectors (runs, rows) or 64 rows (columns) whose results are added in
/// order, runs and rows in double: |error| of a run's <= 70 u sum |terms|, of a column's (64 + n /
/// 64) u sum |terms|. Memory-bound: two passes over x for a training step's forward.

#if defined(QUERN_KERNELS_NORM_INL_HPP) == defined(HWY_TARGET_TOGGLE)
#ifdef QUERN_KERNELS_NORM_INL_HPP
#undef QUERN_KERNELS_NORM_INL_HPP
#else
#define QUERN_KERNELS_NORM_INL_HPP
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

/// A whole vector, or the first `count` elements and zeros.
template <class D, class T = hn::TFromD<D>>
HWY_INLINE hn::Vec<D> load_up_to(D d, const T* from, std::size_t count) {
  return count >= hn::Lanes(d) ? hn::LoadU(d, from) : load_partial(d, from, count);
}
template <class D, class V, class T = hn::TFromD<D>>
HWY_INLINE void store_up_to(V v, D d, T* to, std::size_t count) {
  if (count >= hn::Lanes(d)) {
    hn::StoreU(v, d, to);
  } else {
    store_partial(v, d, to, count);
  }
}
/// The elements there are, zeros elsewhere: after an operation that made zeros something else.
template <class D, class V>
HWY_INLINE V keep_first(D d, V v, std::size_t count) {
  return count >= hn::Lanes(d) ? v : hn::IfThenElseZero(hn::FirstN(d, count), v);
}

inline constexpr std::size_t kNormRun = 64;

}  // namespace detail

/// Sum of (x[i] - m)^2.
template <class T>
double squared_deviation(const T* x, std::size_t n, T m) {
  const hn::ScalableTag<T> d;
  const std::size_t lanes = hn::Lanes(d);
  const auto mean = hn::Set(d, m);
  double total = 0;
  for (std::size_t begin = 0; begin < n; begin += detail::kNormRun * lanes) {
    const std::size_t end =
        n - begin < detail::kNormRun * lanes ? n : begin + detail::kNormRun * lanes;
    auto sum = hn::Zero(d);
    for (std::size_t i = begin; i < end; i += lanes) {
      const auto apart =
          detail::keep_first(d, hn::Sub(detail::load_up_to(d, x + i, end - i), mean), end - i);
      sum = hn::MulAdd(apart, apart, sum);
    }
    total += static_cast<double>(hn::GetLane(hn::SumOfLanes(d, sum)));
  }
  return total;
}

/// out[0] = sum of dy[i] gain[i], out[1] = sum of dy[i] gain[i] (x[i] - m); a null gain is ones.
template <class T>
void norm_gradient_sums(const T* x, const T* dy, const T* gain, std::size_t n, T m, double* out) {
  const hn::ScalableTag<T> d;
  const std::size_t lanes = hn::Lanes(d);
  const auto mean = hn::Set(d, m);
  out[0] = out[1] = 0;
  for (std::size_t begin = 0; begin < n; begin += detail::kNormRun * lanes) {
    const std::size_t end =
        n - begin < detail::kNormRun * lanes ? n : begin + detail::kNormRun * lanes;
    auto plain = hn::Zero(d), along = hn::Zero(d);
    for (std::size_t i = begin; i < end; i += lanes) {
      auto g = detail::load_up_to(d, dy + i, end - i);
      if (gain != nullptr) g = hn::Mul(g, detail::load_up_to(d, gain + i, end - i));
      plain = hn::Add(plain, g);
      along = hn::MulAdd(g, hn::Sub(detail::load_up_to(d, x + i, end - i), mean), along);
    }
    out[0] += static_cast<double>(hn::GetLane(hn::SumOfLanes(d, plain)));
    out[1] += static_cast<double>(hn::GetLane(hn::SumOfLanes(d, along)));
  }
}

/// Run: y[i] = (x[i] - m) a + b.
template <class T>
void norm_run(const T* x, std::size_t n, T m, T a, T b, T* y) {
  const hn::ScalableTag<T> d;
  const auto mean = hn::Set(d, m), scale = hn::Set(d, a), shift = hn::Set(d, b);
  for (std::size_t i = 0; i < n; i += hn::Lanes(d)) {
    const auto apart = hn::Sub(detail::load_up_to(d, x + i, n - i), mean);
    detail::store_up_to(hn::MulAdd(apart, scale, shift), d, y + i, n - i);
  }
}

/// Run: dx[i] = dy[i] a + (x[i] - m) b + c.
template <class T>
void norm_run_gradient(const T* x, const T* dy, std::size_t n, T m, T a, T b, T c, T* dx) {
  const hn::ScalableTag<T> d;
  const auto mean = hn::Set(d, m), va = hn::Set(d, a), vb = hn::Set(d, b), vc = hn::Set(d, c);
  for (std::size_t i = 0; i < n; i += hn::Lanes(d)) {
    const auto apart = hn::Sub(detail::load_up_to(d, x + i, n - i), mean);
    const auto rest = hn::MulAdd(apart, vb, vc);
    detail::store_up_to(hn::MulAdd(detail::load_up_to(d, dy + i, n - i), va, rest), d, dx + i,
                        n - i);
  }
}

/// Columns: out[j] = sum over rows of (x[i stride + j] - m[j])^2.
template <class T>
void column_deviations(std::size_t rows, std::size_t cols, const T* x, std::ptrdiff_t stride,
                       const T* m, T* HWY_RESTRICT out) {
  const hn::ScalableTag<T> d;
  for (std::size_t j = 0; j < cols; j += hn::Lanes(d)) {
    const std::size_t left = cols - j;
    const auto mean = detail::load_up_to(d, m + j, left);
    auto total = hn::Zero(d);
    for (std::size_t begin = 0; begin < rows; begin += detail::kNormRun) {
      const std::size_t end = rows - begin < detail::kNormRun ? rows : begin + detail::kNormRun;
      auto sum = hn::Zero(d);
      for (std::size_t i = begin; i < end; ++i) {
        const T* const at = x + static_cast<std::ptrdiff_t>(i) * stride + j;
        const auto apart = hn::Sub(detail::load_up_to(d, at, left), mean);
        sum = hn::MulAdd(apart, apart, sum);
      }
      total = hn::Add(total, sum);
    }
    detail::store_up_to(total, d, out + j, left);
  }
}

/// Columns: plain[j] = sum of dy, along[j] = sum of dy (x - m[j]).
template <class T>
void column_gradient_sums(std::size_t rows, std::size_t cols, const T* x, const T* dy,
                          std::ptrdiff_t stride, const T* m, T* HWY_RESTRICT plain,
                          T* HWY_RESTRICT along) {
  const hn::ScalableTag<T> d;
  for (std::size_t j = 0; j < cols; j += hn::Lanes(d)) {
    const std::size_t left = cols - j;
    const auto mean = detail::load_up_to(d, m + j, left);
    auto plain_total = hn::Zero(d), along_total = hn::Zero(d);
    for (std::size_t begin = 0; begin < rows; begin += detail::kNormRun) {
      const std::size_t end = rows - begin < detail::kNormRun ? rows : begin + detail::kNormRun;
      auto plain_sum = hn::Zero(d), along_sum = hn::Zero(d);
      for (std::size_t i = begin; i < end; ++i) {
        const std::ptrdiff_t at =
            static_cast<std::ptrdiff_t>(i) * stride + static_cast<std::ptrdiff_t>(j);
        const auto g = detail::load_up_to(d, dy + at, left);
        plain_sum = hn::Add(plain_sum, g);
        along_sum = hn::MulAdd(g, hn::Sub(detail::load_up_to(d, x + at, left), mean), along_sum);
      }
      plain_total = hn::Add(plain_total, plain_sum);
      along_total = hn::Add(along_total, along_sum);
    }
    detail::store_up_to(plain_total, d, plain + j, left);
    detail::store_up_to(along_total, d, along + j, left);
  }
}

/// Columns: y = (x - m[j]) a[j] + b[j].
template <class T>
void norm_columns(std::size_t rows, std::size_t cols, const T* x, std::ptrdiff_t stride, const T* m,
                  const T* a, const T* b, T* y) {
  const hn::ScalableTag<T> d;
  for (std::size_t j = 0; j < cols; j += hn::Lanes(d)) {
    const std::size_t left = cols - j;
    const auto mean = detail::load_up_to(d, m + j, left);
    const auto scale = detail::load_up_to(d, a + j, left);
    const auto shift = detail::load_up_to(d, b + j, left);
    for (std::size_t i = 0; i < rows; ++i) {
      const std::ptrdiff_t at =
          static_cast<std::ptrdiff_t>(i) * stride + static_cast<std::ptrdiff_t>(j);
      const auto apart = hn::Sub(detail::load_up_to(d, x + at, left), mean);
      detail::store_up_to(hn::MulAdd(apart, scale, shift), d, y + at, left);
    }
  }
}

/// Columns: dx = dy a[j] + (x - m[j]) b[j] + c[j].
template <class T>
void norm_columns_gradient(std::size_t rows, std::size_t cols, const T* x, const T* dy,
                           std::ptrdiff_t stride, const T* m, const T* a, const T* b, const T* c,
                           T* dx) {
  const hn::ScalableTag<T> d;
  for (std::size_t j = 0; j < cols; j += hn::Lanes(d)) {
    const std::size_t left = cols - j;
    const auto mean = detail::load_up_to(d, m + j, left);
    const auto va = detail::load_up_to(d, a + j, left);
    const auto vb = detail::load_up_to(d, b + j, left);
    const auto vc = detail::load_up_to(d, c + j, left);
    for (std::size_t i = 0; i < rows; ++i) {
      const std::ptrdiff_t at =
          static_cast<std::ptrdiff_t>(i) * stride + static_cast<std::ptrdiff_t>(j);
      const auto apart = hn::Sub(detail::load_up_to(d, x + at, left), mean);
      const auto rest = hn::MulAdd(apart, vb, vc);
      detail::store_up_to(hn::MulAdd(detail::load_up_to(d, dy + at, left), va, rest), d, dx + at,
                          left);
    }
  }
}

/// Row: y[i] = (x[i] - m) r gain[i] + offset[i]; null: ones, zeros.
template <class T>
void norm_row(const T* x, std::size_t n, T m, T r, const T* gain, const T* offset, T* y) {
  const hn::ScalableTag<T> d;
  const auto mean = hn::Set(d, m), scale = hn::Set(d, r);
  for (std::size_t i = 0; i < n; i += hn::Lanes(d)) {
    const std::size_t left = n - i;
    auto value = hn::Mul(hn::Sub(detail::load_up_to(d, x + i, left), mean), scale);
    if (gain != nullptr) {
      const auto g = detail::load_up_to(d, gain + i, left);
      value = offset == nullptr ? hn::Mul(value, g)
                                : hn::MulAdd(value, g, detail::load_up_to(d, offset + i, left));
    }
    detail::store_up_to(value, d, y + i, left);
  }
}

/// Row: dx[i] = r dy[i] gain[i] + (x[i] - m) b + c.
template <class T>
void norm_row_gradient(const T* x, const T* dy, const T* gain, std::size_t n, T m, T r, T b, T c,
                       T* dx) {
  const hn::ScalableTag<T> d;
  const auto mean = hn::Set(d, m), vr = hn::Set(d, r), vb = hn::Set(d, b), vc = hn::Set(d, c);
  for (std::size_t i = 0; i < n; i += hn::Lanes(d)) {
    const std::size_t left = n - i;
    const auto rest = hn::MulAdd(hn::Sub(detail::load_up_to(d, x + i, left), mean), vb, vc);
    auto g = detail::load_up_to(d, dy + i, left);
    if (gain != nullptr) g = hn::Mul(g, detail::load_up_to(d, gain + i, left));
    detail::store_up_to(hn::MulAdd(g, vr, rest), d, dx + i, left);
  }
}

/// Row: dgain[i] += dy[i] (x[i] - m) r, doffset[i] += dy[i] (null: left out).
template <class T>
void norm_row_parameters(const T* x, const T* dy, std::size_t n, T m, T r, T* HWY_RESTRICT dgain,
                         T* HWY_RESTRICT doffset) {
  const hn::ScalableTag<T> d;
  const auto mean = hn::Set(d, m), scale = hn::Set(d, r);
  for (std::size_t i = 0; i < n; i += hn::Lanes(d)) {
    const std::size_t left = n - i;
    const auto g = detail::load_up_to(d, dy + i, left);
    const auto unit = hn::Mul(hn::Sub(detail::load_up_to(d, x + i, left), mean), scale);
    const auto sum = hn::MulAdd(g, unit, detail::load_up_to(d, dgain + i, left));
    detail::store_up_to(sum, d, dgain + i, left);
    if (doffset == nullptr) continue;
    detail::store_up_to(hn::Add(g, detail::load_up_to(d, doffset + i, left)), d, doffset + i, left);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace kernels
QUERN_NAMESPACE_END
HWY_AFTER_NAMESPACE();

#endif  // QUERN_KERNELS_NORM_INL_HPP
