// SPDX-License-Identifier: Apache-2.0

/// \file
/// First and second derivatives of losses with respect to the margin, for blocks of rows.

#if defined(QUERN_KERNELS_OBJECTIVE_INL_HPP) == defined(HWY_TARGET_TOGGLE)
#ifdef QUERN_KERNELS_OBJECTIVE_INL_HPP
#undef QUERN_KERNELS_OBJECTIVE_INL_HPP
#else
#define QUERN_KERNELS_OBJECTIVE_INL_HPP
#endif

#include "quern/core/config.hpp"
#include "quern/kernels/math-inl.hpp"

#include "hwy/highway.h"

#include <cstdint>

HWY_BEFORE_NAMESPACE();
QUERN_NAMESPACE_BEGIN
namespace kernels {
namespace HWY_NAMESPACE {

/// Smallest hessian of a probability: a sure row must not vanish from its node (as XGBoost's).
constexpr float kMinHessian = 1e-16f;

/// pairs[2 i] = p - y and pairs[2 i + 1] = p (1 - p) with p = sigmoid(margin), times the weight
/// where \p weights is not null.
template <class T>
void logistic_gradients(const T* HWY_RESTRICT margins, const T* HWY_RESTRICT labels,
                        const T* HWY_RESTRICT weights, std::int64_t n, T* HWY_RESTRICT pairs) {
  namespace hn = hwy::HWY_NAMESPACE;
  const hn::ScalableTag<T> d;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  const auto one = hn::Set(d, T{1});
  const auto least = hn::Set(d, static_cast<T>(kMinHessian));
  HWY_ALIGN T g_lanes[HWY_MAX_BYTES / sizeof(T)], h_lanes[HWY_MAX_BYTES / sizeof(T)];
  HWY_ALIGN T padded[3][HWY_MAX_BYTES / sizeof(T)] = {};
  for (std::int64_t i = 0; i < n; i += lanes) {
    const std::int64_t size = n - i < lanes ? n - i : lanes;
    const T *m = margins + i, *y = labels + i, *w = weights == nullptr ? nullptr : weights + i;
    if (size < lanes) {
      for (std::int64_t j = 0; j < size; ++j) {
        padded[0][j] = m[j];
        padded[1][j] = y[j];
        padded[2][j] = w == nullptr ? T{1} : w[j];
      }
      m = padded[0];
      y = padded[1];
      w = w == nullptr ? nullptr : padded[2];
    }
    const auto p = sigmoid(d, hn::LoadU(d, m));
    auto g = hn::Sub(p, hn::LoadU(d, y));
    auto h = hn::Max(hn::Mul(p, hn::Sub(one, p)), least);
    if (w != nullptr) {
      g = hn::Mul(g, hn::LoadU(d, w));
      h = hn::Mul(h, hn::LoadU(d, w));
    }
    if (size == lanes) {
#if HWY_TARGET != HWY_SCALAR
      hn::StoreInterleaved2(g, h, d, pairs + 2 * i);
#else
      pairs[2 * i] = hn::GetLane(g);
      pairs[2 * i + 1] = hn::GetLane(h);
#endif
    } else {
      hn::Store(g, d, g_lanes);
      hn::Store(h, d, h_lanes);
      for (std::int64_t j = 0; j < size; ++j) {
        pairs[2 * (i + j)] = g_lanes[j];
        pairs[2 * (i + j) + 1] = h_lanes[j];
      }
    }
  }
}

/// Softmax probabilities of \p rows rows of \p classes margins, into \p out of the same layout,
/// which may be \p margins.
template <class T>
void softmax_probabilities(const T* margins, std::int64_t rows, std::int64_t classes, T* out) {
  namespace hn = hwy::HWY_NAMESPACE;
  const hn::ScalableTag<T> d;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
  const std::int64_t size = rows * classes;
  for (std::int64_t r = 0; r < rows; ++r) {  // margins below the row's largest
    const T* m = margins + r * classes;
    T top = m[0];
    for (std::int64_t k = 1; k < classes; ++k) top = m[k] > top ? m[k] : top;
    for (std::int64_t k = 0; k < classes; ++k) out[r * classes + k] = m[k] - top;
  }
  std::int64_t i = 0;
  for (; i + lanes <= size; i += lanes) hn::StoreU(exp(d, hn::LoadU(d, out + i)), d, out + i);
  HWY_ALIGN T last[HWY_MAX_BYTES / sizeof(T)] = {};
  if (i < size) {
    for (std::int64_t j = i; j < size; ++j) last[j - i] = out[j];
    hn::Store(exp(d, hn::Load(d, last)), d, last);
    for (std::int64_t j = i; j < size; ++j) out[j] = last[j - i];
  }
  for (std::int64_t r = 0; r < rows; ++r) {
    T* p = out + r * classes;
    T sum = 0;
    for (std::int64_t k = 0; k < classes; ++k) sum += p[k];
    const T scale = T{1} / sum;
    for (std::int64_t k = 0; k < classes; ++k) p[k] *= scale;
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace kernels
QUERN_NAMESPACE_END
HWY_AFTER_NAMESPACE();

#endif  // QUERN_KERNELS_OBJECTIVE_INL_HPP
