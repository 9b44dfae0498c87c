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

/// Largest magnitude of a derivative: what overflows (exp of a runaway margin) stays finite.
constexpr float kMaxDerivative = 1e18f;

/// Derivatives of a loss of one margin: pairs[2 i] = g(m, y) and pairs[2 i + 1] = h(m, y), times
/// the weight where \p weights is not null. `loss(d, m, y, g, h)` fills g and h of a vector of
/// rows.
template <class T, class Loss>
HWY_INLINE void row_gradients(const Loss& loss, const T* HWY_RESTRICT margins,
                              const T* HWY_RESTRICT labels, const T* HWY_RESTRICT weights,
                              std::int64_t n, T* HWY_RESTRICT pairs) {
  namespace hn = hwy::HWY_NAMESPACE;
  const hn::ScalableTag<T> d;
  const auto lanes = static_cast<std::int64_t>(hn::Lanes(d));
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
    auto g = hn::Zero(d), h = hn::Zero(d);
    loss(d, hn::LoadU(d, m), hn::LoadU(d, y), g, h);
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

struct LogisticLoss {
  /// g = p - y, h = p (1 - p) with p = sigmoid(m).
  template <class D, class V>
  HWY_INLINE void operator()(D d, V m, V y, V& g, V& h) const {
    namespace hn = hwy::HWY_NAMESPACE;
    using T = hn::TFromD<D>;
    const auto p = sigmoid(d, m);
    g = hn::Sub(p, y);
    h = hn::Max(hn::Mul(p, hn::Sub(hn::Set(d, T{1}), p)), hn::Set(d, static_cast<T>(kMinHessian)));
  }
};

struct PoissonLoss {
  double step;  ///< XGBoost's max_delta_step
  /// g = e^m - y, h = e^(m + step).
  template <class D, class V>
  HWY_INLINE void operator()(D d, V m, V y, V& g, V& h) const {
    namespace hn = hwy::HWY_NAMESPACE;
    using T = hn::TFromD<D>;
    const auto most = hn::Set(d, static_cast<T>(kMaxDerivative));
    g = hn::Min(hn::Sub(exp(d, m), y), most);
    h = hn::Max(hn::Min(exp(d, hn::Add(m, hn::Set(d, static_cast<T>(step)))), most),
                hn::Set(d, static_cast<T>(kMinHessian)));
  }
};

struct GammaLoss {
  /// g = 1 - y e^-m, h = y e^-m.
  template <class D, class V>
  HWY_INLINE void operator()(D d, V m, V y, V& g, V& h) const {
    namespace hn = hwy::HWY_NAMESPACE;
    using T = hn::TFromD<D>;
    const auto most = hn::Set(d, static_cast<T>(kMaxDerivative));
    const auto ratio = hn::Min(hn::Mul(y, hn::Min(exp(d, hn::Neg(m)), most)), most);
    g = hn::Sub(hn::Set(d, T{1}), ratio);
    h = hn::Max(ratio, hn::Set(d, static_cast<T>(kMinHessian)));
  }
};

struct TweedieLoss {
  double power;  ///< in (1, 2)
  /// With a = y e^((1 - power) m) and b = e^((2 - power) m): g = b - a,
  /// h = (2 - power) b - (1 - power) a.
  template <class D, class V>
  HWY_INLINE void operator()(D d, V m, V y, V& g, V& h) const {
    namespace hn = hwy::HWY_NAMESPACE;
    using T = hn::TFromD<D>;
    const auto most = hn::Set(d, static_cast<T>(kMaxDerivative));
    const auto one = hn::Set(d, static_cast<T>(1 - power));
    const auto two = hn::Set(d, static_cast<T>(2 - power));
    // The exponential first: 0 times infinity would be no number.
    const auto a = hn::Min(hn::Mul(y, hn::Min(exp(d, hn::Mul(one, m)), most)), most);
    const auto b = hn::Min(exp(d, hn::Mul(two, m)), most);
    g = hn::Sub(b, a);
    h = hn::Max(hn::NegMulAdd(one, a, hn::Mul(two, b)), hn::Set(d, static_cast<T>(kMinHessian)));
  }
};

struct PseudoHuberLoss {
  double slope;  ///< > 0
  /// With z = m - y and r = 1 + (z / slope)^2: g = z / sqrt(r), h = 1 / (r sqrt(r)).
  template <class D, class V>
  HWY_INLINE void operator()(D d, V m, V y, V& g, V& h) const {
    namespace hn = hwy::HWY_NAMESPACE;
    using T = hn::TFromD<D>;
    const auto one = hn::Set(d, T{1});
    const auto z = hn::Sub(m, y);
    const auto u = hn::Mul(z, hn::Set(d, static_cast<T>(1 / slope)));
    const auto r = hn::MulAdd(u, u, one);
    const auto root = hn::Sqrt(r);
    g = hn::Div(z, root);
    h = hn::Max(hn::Div(one, hn::Mul(r, root)), hn::Set(d, static_cast<T>(kMinHessian)));
  }
};

/// g = p - y and h = p (1 - p), p = sigmoid(margin).
template <class T>
void logistic_gradients(const T* HWY_RESTRICT margins, const T* HWY_RESTRICT labels,
                        const T* HWY_RESTRICT weights, std::int64_t n, T* HWY_RESTRICT pairs) {
  row_gradients(LogisticLoss(), margins, labels, weights, n, pairs);
}

/// g = e^m - y and h = e^(m + step).
template <class T>
void poisson_gradients(const T* HWY_RESTRICT margins, const T* HWY_RESTRICT labels,
                       const T* HWY_RESTRICT weights, std::int64_t n, double step,
                       T* HWY_RESTRICT pairs) {
  row_gradients(PoissonLoss{step}, margins, labels, weights, n, pairs);
}

/// g = 1 - y e^-m and h = y e^-m.
template <class T>
void gamma_gradients(const T* HWY_RESTRICT margins, const T* HWY_RESTRICT labels,
                     const T* HWY_RESTRICT weights, std::int64_t n, T* HWY_RESTRICT pairs) {
  row_gradients(GammaLoss(), margins, labels, weights, n, pairs);
}

/// Of the Tweedie deviance with variance mean^power; see TweedieLoss.
template <class T>
void tweedie_gradients(const T* HWY_RESTRICT margins, const T* HWY_RESTRICT labels,
                       const T* HWY_RESTRICT weights, std::int64_t n, double power,
                       T* HWY_RESTRICT pairs) {
  row_gradients(TweedieLoss{power}, margins, labels, weights, n, pairs);
}

/// Of slope^2 (sqrt(1 + (z / slope)^2) - 1), z = margin - label; see PseudoHuberLoss.
template <class T>
void pseudo_huber_gradients(const T* HWY_RESTRICT margins, const T* HWY_RESTRICT labels,
                            const T* HWY_RESTRICT weights, std::int64_t n, double slope,
                            T* HWY_RESTRICT pairs) {
  row_gradients(PseudoHuberLoss{slope}, margins, labels, weights, n, pairs);
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
