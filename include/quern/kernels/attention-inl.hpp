// SPDX-License-Identifier: Apache-2.0

/// \file
/// Kernels of attention on tiles in cache: a product of any operand strides, and the softmax of
/// transposed scores, forward and backward. See attention_types.hpp.
///
/// Softmax works in units of log 2: scores come scaled by log2(e), weights are 2^(score - largest).
/// 2^x is within 1.3 ulp where the result is a normal number; what is smaller becomes 0. A query
/// without any key keeps a sum of 0. NaN and +infinity among a query's scores make its sum NaN.

#if defined(QUERN_KERNELS_ATTENTION_INL_HPP) == defined(HWY_TARGET_TOGGLE)
#ifdef QUERN_KERNELS_ATTENTION_INL_HPP
#undef QUERN_KERNELS_ATTENTION_INL_HPP
#else
#define QUERN_KERNELS_ATTENTION_INL_HPP
#endif

#include "quern/core/config.hpp"
#include "quern/kernels/attention_types.hpp"
#include "quern/kernels/math-inl.hpp"

#include "hwy/highway.h"

#include <cstddef>

HWY_BEFORE_NAMESPACE();
QUERN_NAMESPACE_BEGIN
namespace kernels {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

// 24 sums of 32 registers, 12 of 16.
#if HWY_CAP_GE512 || HWY_ARCH_ARM
inline constexpr int kProductRows = 8;
#else
inline constexpr int kProductRows = 4;
#endif
inline constexpr int kProductVectors = 3;

template <class T>
TileLayout tile_layout() {
  return {kProductRows, static_cast<std::ptrdiff_t>(hn::Lanes(hn::ScalableTag<T>())),
          kProductVectors};
}

// Sums are indexed by constants only: see gemm-inl.hpp.

template <int kRow, int kRows, int kVectors, class D, class V, class T>
HWY_INLINE void product_rows(D d, const T* HWY_RESTRICT a, std::ptrdiff_t a_row_stride,
                             const V (&b)[kVectors], V (&sums)[kRows * kVectors]) {
  const V x = hn::Set(d, a[kRow * a_row_stride]);
  sums[kRow * kVectors] = hn::MulAdd(x, b[0], sums[kRow * kVectors]);
  if constexpr (kVectors > 1) {
    sums[kRow * kVectors + 1] = hn::MulAdd(x, b[1], sums[kRow * kVectors + 1]);
  }
  if constexpr (kVectors > 2) {
    sums[kRow * kVectors + 2] = hn::MulAdd(x, b[2], sums[kRow * kVectors + 2]);
  }
  if constexpr (kRow + 1 < kRows) {
    product_rows<kRow + 1, kRows, kVectors>(d, a, a_row_stride, b, sums);
  }
}

template <int kIndex, int kCount, int kVectors, bool kStore, class D, class V, class T>
HWY_INLINE void product_sums(D d, T* HWY_RESTRICT c, std::ptrdiff_t stride, bool zero,
                             V (&sums)[kCount]) {
  constexpr int kLanes = static_cast<int>(hn::MaxLanes(D()));
  T* const at = c + kIndex / kVectors * stride + kIndex % kVectors * kLanes;
  if constexpr (kStore) {
    hn::StoreU(sums[kIndex], d, at);
  } else {
    sums[kIndex] = zero ? hn::Zero(d) : hn::LoadU(d, at);
  }
  if constexpr (kIndex + 1 < kCount) {
    product_sums<kIndex + 1, kCount, kVectors, kStore>(d, c, stride, zero, sums);
  }
}

/// kRows rows by kVectors vectors.
template <int kRows, int kVectors, class T>
HWY_NOINLINE void product_block(const TileProduct<T>& p, std::ptrdiff_t row, std::ptrdiff_t col,
                                AheadWalk ahead) {
  const hn::ScalableTag<T> d;
  using V = hn::VFromD<hn::ScalableTag<T>>;
  constexpr int kLanes = static_cast<int>(hn::MaxLanes(hn::ScalableTag<T>()));
  V sums[kRows * kVectors];
  T* const c = p.c + row * p.c_stride + col;
  product_sums<0, kRows * kVectors, kVectors, false>(d, c, p.c_stride, !p.add, sums);
  const T* HWY_RESTRICT a = p.a + row * p.a_row_stride;
  const T* HWY_RESTRICT b = p.b + col;
  const std::ptrdiff_t a_row_stride = p.a_row_stride;
  for (std::ptrdiff_t i = p.depth; i > 0; --i, a += p.a_depth_stride, b += p.b_stride) {
    __builtin_prefetch(ahead.at, 0, 2);
    ahead.at += ahead.step;
    V x[kVectors];
    x[0] = hn::LoadU(d, b);
    if constexpr (kVectors > 1) x[1] = hn::LoadU(d, b + kLanes);
    if constexpr (kVectors > 2) x[2] = hn::LoadU(d, b + 2 * kLanes);
    product_rows<0, kRows, kVectors>(d, a, a_row_stride, x, sums);
  }
  product_sums<0, kRows * kVectors, kVectors, true>(d, c, p.c_stride, false, sums);
}

template <int kVectors, class T>
HWY_INLINE void product_columns(const TileProduct<T>& p, std::ptrdiff_t col, std::ptrdiff_t* part,
                                std::ptrdiff_t parts) {
  std::ptrdiff_t row = 0;
  const auto ahead = [&] { return AheadWalk(p.ahead, (*part)++, parts, p.depth, p.b); };
  for (; row + kProductRows <= p.rows; row += kProductRows) {
    product_block<kProductRows, kVectors>(p, row, col, ahead());
  }
  for (; row < p.rows; ++row) product_block<1, kVectors>(p, row, col, ahead());
}

/// See TileProduct.
template <class T>
void tile_product(const TileProduct<T>& p) {
  constexpr std::ptrdiff_t kLanes = static_cast<std::ptrdiff_t>(hn::MaxLanes(hn::ScalableTag<T>()));
  // Groups of columns, as below, times groups of rows.
  const std::ptrdiff_t parts = (p.cols / kLanes + kProductVectors - 1) / kProductVectors *
                               (p.rows / kProductRows + p.rows % kProductRows);
  std::ptrdiff_t col = 0, part = 0;
  while (col < p.cols) {
    const std::ptrdiff_t left = (p.cols - col) / kLanes;
    // Four vectors are two and two, not three and one.
    if (left == 1) {
      product_columns<1>(p, col, &part, parts);
      col += kLanes;
    } else if (left == 2 || left == 4) {
      product_columns<2>(p, col, &part, parts);
      col += 2 * kLanes;
    } else {
      product_columns<3>(p, col, &part, parts);
      col += 3 * kLanes;
    }
  }
}

/// 2^x for x <= 0; 0 where that is no normal number; NaN for NaN.
template <class D, class V>
HWY_INLINE V exp2_nonpositive(D d, V x) {
  using T = hn::TFromD<D>;
  using F = FloatFormat<T>;
  const hn::RebindToUnsigned<D> du;
  const V lowest = hn::Set(d, T{1} - static_cast<T>(F::kBias));
  const V inside = detail::at_least(d, x, T{1} - static_cast<T>(F::kBias));
  const V shifted = detail::opaque(hn::Add(inside, hn::Set(d, F::kRound)));
  const V r = hn::Sub(inside, detail::opaque(hn::Sub(shifted, hn::Set(d, F::kRound))));
  const V r2 = hn::Mul(r, r);
  const V rest = hn::Mul(r2, detail::exp2_polynomial(d, r, r2, T{}));
  const V p = hn::MulAdd(r, hn::Set(d, F::kLn2), rest);
  const auto bias = hn::Set(du, static_cast<typename F::Bits>(F::kBias - F::kRoundBits));
  const auto exponent = hn::Add(hn::BitCast(du, shifted), bias);
  const V power = hn::BitCast(d, hn::ShiftLeft<F::kMantissa>(exponent));
  const V y = detail::keep_nan(d, x, hn::MulAdd(power, p, power));
  return hn::IfThenElseZero(hn::Not(hn::Lt(x, lowest)), y);
}

/// Scores of lanes that do not see a key become -infinity.
template <class T>
HWY_INLINE void mask_scores(const ScoreTile<T>& tile) {
  if (!tile.masked) return;
  const hn::ScalableTag<T> d;
  const std::ptrdiff_t lanes = static_cast<std::ptrdiff_t>(hn::Lanes(d));
  const hn::RebindToSigned<decltype(d)> di;
  using F = FloatFormat<T>;
  const hn::RebindToUnsigned<decltype(d)> du;
  const auto hidden = hn::BitCast(d, hn::Set(du, F::kInfinity | ~(~typename F::Bits{0} >> 1)));
  using Int = hn::TFromD<decltype(di)>;
  const auto clipped = [&](std::ptrdiff_t x) {
    return static_cast<Int>(x < 0 ? 0 : x > tile.cols ? tile.cols : x);
  };
  for (std::ptrdiff_t r = 0; r < tile.keys; ++r) {
    const auto low = hn::Set(di, clipped(tile.low + r));
    const auto high = hn::Set(di, clipped(tile.high + r));
    for (std::ptrdiff_t c = 0; c < tile.cols; c += lanes) {
      T* const at = tile.scores + r * tile.cols + c;
      const auto lane = hn::Iota(di, static_cast<Int>(c));
      const auto hide = hn::Or(hn::Lt(lane, low), hn::Not(hn::Lt(lane, high)));
      hn::StoreU(hn::IfThenElse(hn::RebindMask(d, hide), hidden, hn::LoadU(d, at)), d, at);
    }
  }
}

/// Online softmax: updates each query's largest score and sum, makes weights of the scores, and
/// says by what former sums and outputs must be multiplied: `correction`. Returns whether that is
/// not 1 for all.
template <class T>
bool softmax_tile(const ScoreTile<T>& tile, T* HWY_RESTRICT largest, T* HWY_RESTRICT sums,
                  T* HWY_RESTRICT correction) {
  mask_scores(tile);
  const hn::ScalableTag<T> d;
  const std::ptrdiff_t lanes = static_cast<std::ptrdiff_t>(hn::Lanes(d));
  bool corrected = false;
  for (std::ptrdiff_t c = 0; c < tile.cols; c += lanes) {
    T* const at = tile.scores + c;
    const auto before = hn::LoadU(d, largest + c);
    auto now = before;
    for (std::ptrdiff_t r = 0; r < tile.keys; ++r) {
      now = hn::Max(now, hn::LoadU(d, at + r * tile.cols));
    }
    const auto factor = exp2_nonpositive(d, hn::Sub(before, now));
    corrected = corrected || !hn::AllTrue(d, hn::Eq(before, now));
    auto sum = hn::Mul(hn::LoadU(d, sums + c), factor);
    for (std::ptrdiff_t r = 0; r < tile.keys; ++r) {
      const auto weight = exp2_nonpositive(d, hn::Sub(hn::LoadU(d, at + r * tile.cols), now));
      sum = hn::Add(sum, weight);
      hn::StoreU(weight, d, at + r * tile.cols);
    }
    hn::StoreU(now, d, largest + c);
    hn::StoreU(sum, d, sums + c);
    hn::StoreU(factor, d, correction + c);
  }
  return corrected;
}

/// rows x cols of x times one factor a column.
template <class T>
void scale_columns(std::ptrdiff_t rows, std::ptrdiff_t cols, const T* HWY_RESTRICT factors,
                   T* HWY_RESTRICT x) {
  const hn::ScalableTag<T> d;
  const std::ptrdiff_t lanes = static_cast<std::ptrdiff_t>(hn::Lanes(d));
  for (std::ptrdiff_t r = 0; r < rows; ++r, x += cols) {
    for (std::ptrdiff_t c = 0; c < cols; c += lanes) {
      hn::StoreU(hn::Mul(hn::LoadU(d, x + c), hn::LoadU(d, factors + c)), d, x + c);
    }
  }
}

/// Weights again, from each query's log-sum-exp (in units of log 2), and the gradient by the
/// scores, scale * weight * (gradient by the weight - mean), into `gradients`.
template <class T>
void softmax_tile_vjp(const ScoreTile<T>& tile, const T* HWY_RESTRICT log_sums,
                      const T* HWY_RESTRICT means, T scale, T* HWY_RESTRICT gradients) {
  mask_scores(tile);
  const hn::ScalableTag<T> d;
  const std::ptrdiff_t lanes = static_cast<std::ptrdiff_t>(hn::Lanes(d));
  const auto factor = hn::Set(d, scale);
  for (std::ptrdiff_t r = 0; r < tile.keys; ++r) {
    T* const at = tile.scores + r * tile.cols;
    T* const gradient = gradients + r * tile.cols;
    for (std::ptrdiff_t c = 0; c < tile.cols; c += lanes) {
      // Rounding may bring the difference a little above 0, which does no harm.
      const auto weight =
          exp2_nonpositive(d, hn::Sub(hn::LoadU(d, at + c), hn::LoadU(d, log_sums + c)));
      const auto apart = hn::Sub(hn::LoadU(d, gradient + c), hn::LoadU(d, means + c));
      hn::StoreU(hn::Mul(hn::Mul(weight, factor), apart), d, gradient + c);
      hn::StoreU(weight, d, at + c);
    }
  }
}

/// One query against `keys` rows: scores[j] = scale * q . k_j.
template <class T>
void score_rows(const T* HWY_RESTRICT q, const T* k, std::ptrdiff_t k_stride, std::ptrdiff_t keys,
                std::ptrdiff_t dim, T scale, T* HWY_RESTRICT scores) {
  const hn::ScalableTag<T> d;
  const std::ptrdiff_t lanes = static_cast<std::ptrdiff_t>(hn::Lanes(d));
  for (std::ptrdiff_t j = 0; j < keys; ++j, k += k_stride) {
    auto sum0 = hn::Zero(d), sum1 = hn::Zero(d);
    std::ptrdiff_t c = 0;
    for (; c + 2 * lanes <= dim; c += 2 * lanes) {
      sum0 = hn::MulAdd(hn::LoadU(d, q + c), hn::LoadU(d, k + c), sum0);
      sum1 = hn::MulAdd(hn::LoadU(d, q + c + lanes), hn::LoadU(d, k + c + lanes), sum1);
    }
    for (; c + lanes <= dim; c += lanes) {
      sum0 = hn::MulAdd(hn::LoadU(d, q + c), hn::LoadU(d, k + c), sum0);
    }
    T sum = hn::GetLane(hn::SumOfLanes(d, hn::Add(sum0, sum1)));
    for (; c < dim; ++c) sum += q[c] * k[c];
    scores[j] = scale * sum;
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace kernels
QUERN_NAMESPACE_END
HWY_AFTER_NAMESPACE();

#endif  // QUERN_KERNELS_ATTENTION_INL_HPP
