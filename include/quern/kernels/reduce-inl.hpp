// SPDX-License-Identifier: Apache-2.0

/// \file
/// Reductions of contiguous arrays: sums, dot products, largest and smallest elements and where
/// they are.
///
/// Sums. The order of additions follows from the length alone: element i goes to lane i mod L of
/// L = 64 floats (32 doubles), whatever the width of a vector. After every 16 L elements, lanes are
/// folded in halves to 64 bytes and added to totals in double: plainly for floats, with TwoSum
/// (Knuth, The Art of Computer Programming 2, 4.2.2) for doubles. At the end totals are added in
/// halves. So sums have the same bits at every level; dot products at all levels with fused
/// multiply-add. 256 bytes of lanes are eight AVX2 vectors: an addition takes 3 to 4 cycles and two
/// start in each, so eight chains keep the ports busy.
///
/// |error| <= 20 u sum |x_i| for any n, u = 2^-24 for float and 2^-53 for double (dot: of the
/// products, and 21 u without fused multiply-add), as long as nothing overflows.
///
/// Extremes. NaN wins: if there is one, the value is NaN and the index that of the first NaN.
/// Among equals the lowest index is given; +0 and -0 are equal.

#if defined(QUERN_KERNELS_REDUCE_INL_HPP) == defined(HWY_TARGET_TOGGLE)
#ifdef QUERN_KERNELS_REDUCE_INL_HPP
#undef QUERN_KERNELS_REDUCE_INL_HPP
#else
#define QUERN_KERNELS_REDUCE_INL_HPP
#endif

#include "quern/core/config.hpp"
#include "quern/kernels/functors-inl.hpp"
#include "quern/kernels/math-inl.hpp"
#include "quern/kernels/partial-inl.hpp"

#include "hwy/highway.h"

#include <cstddef>
#include <cstring>

HWY_BEFORE_NAMESPACE();
QUERN_NAMESPACE_BEGIN
namespace kernels {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

namespace detail {

/// The bits of \p x; tests on them hold where -ffast-math assumes NaN and infinity away.
template <class T>
HWY_INLINE typename FloatFormat<T>::Bits bits_of(T x) {
  typename FloatFormat<T>::Bits bits;
  std::memcpy(&bits, &x, sizeof(bits));
  return bits;
}
template <class T>
HWY_INLINE T from_bits(typename FloatFormat<T>::Bits bits) {
  T x;
  std::memcpy(&x, &bits, sizeof(x));
  return x;
}
template <class T>
HWY_INLINE typename FloatFormat<T>::Bits magnitude_bits(T x) {
  return static_cast<typename FloatFormat<T>::Bits>(bits_of(x) << 1) >> 1;
}
template <class T>
HWY_INLINE bool is_nan(T x) {
  return magnitude_bits(x) > FloatFormat<T>::kInfinity;
}
template <class T>
HWY_INLINE bool is_infinite(T x) {
  return magnitude_bits(x) == FloatFormat<T>::kInfinity;
}
template <class T>
HWY_INLINE T minus_infinity() {
  return -from_bits<T>(FloatFormat<T>::kInfinity);
}

/// f(x[i]) to be summed.
template <class F, class T>
struct Mapped {
  using Element = T;
  F f;
  const T* x;

  template <class D, class V>
  HWY_INLINE V add(D d, std::size_t i, V sum) const {
    return hn::Add(sum, Vectorized<F>::apply(f, d, hn::LoadU(d, x + i)));
  }
  template <class D, class V>
  HWY_INLINE V add_partial(D d, std::size_t i, std::size_t count, V sum) const {
    const V value = Vectorized<F>::apply(f, d, load_partial(d, x + i, count));
    return hn::Add(sum, hn::IfThenElseZero(hn::FirstN(d, count), value));
  }
};

/// x[i] y[i] to be summed.
template <class T>
struct Products {
  using Element = T;
  const T* x;
  const T* y;

  template <class D, class V>
  HWY_INLINE V add(D d, std::size_t i, V sum) const {
    return hn::MulAdd(hn::LoadU(d, x + i), hn::LoadU(d, y + i), sum);
  }
  template <class D, class V>
  HWY_INLINE V add_partial(D d, std::size_t i, std::size_t count, V sum) const {
    return hn::MulAdd(load_partial(d, x + i, count), load_partial(d, y + i, count), sum);
  }
};

template <class T>
inline constexpr std::size_t kSumLanes = 256 / sizeof(T);
template <class T>
inline constexpr std::size_t kFoldedLanes = 64 / sizeof(T);
template <class T>
inline constexpr std::size_t kSumBlock = 16 * kSumLanes<T>;

/// Adds vectors k and k + kFrom / 2 until kTo are left.
template <std::size_t kFrom, std::size_t kTo, class V>
HWY_INLINE void fold_vectors(V* v) {
  if constexpr (kFrom > kTo) {
    HWY_UNROLL(8)
    for (std::size_t k = 0; k < kFrom / 2; ++k) v[k] = hn::Add(v[k], v[k + kFrom / 2]);
    fold_vectors<kFrom / 2, kTo>(v);
  }
}

/// Elements begin..end - 1, at most a block, as kFoldedLanes partial sums.
template <class Source, class T = typename Source::Element>
HWY_INLINE void sum_block(const Source& source, std::size_t begin, std::size_t end,
                          T* HWY_RESTRICT folded) {
  const hn::ScalableTag<T> d;
  constexpr std::size_t kWidth = hn::MaxLanes(d);
  constexpr std::size_t kVectors = kSumLanes<T> / kWidth;
  hn::Vec<decltype(d)> sums[kVectors];
  HWY_UNROLL(8)
  for (std::size_t k = 0; k < kVectors; ++k) sums[k] = hn::Zero(d);
  std::size_t i = begin;
  for (; i + kSumLanes<T> <= end; i += kSumLanes<T>) {
    HWY_UNROLL(8)
    for (std::size_t k = 0; k < kVectors; ++k) sums[k] = source.add(d, i + k * kWidth, sums[k]);
  }
  if (i < end) {
    // Indexed by a constant throughout, so that sums stay in registers.
    HWY_UNROLL(8)
    for (std::size_t k = 0; k < kVectors; ++k) {
      const std::size_t at = i + k * kWidth;
      if (at + kWidth <= end) {
        sums[k] = source.add(d, at, sums[k]);
      } else if (at < end) {
        sums[k] = source.add_partial(d, at, end - at, sums[k]);
      }
    }
  }
  constexpr std::size_t kLeft = kFoldedLanes<T> / kWidth;
  fold_vectors<kVectors, kLeft>(sums);
  HWY_UNROLL(8)
  for (std::size_t k = 0; k < kLeft; ++k) hn::Store(sums[k], d, folded + k * kWidth);
}

/// Totals of many blocks, for floats: their sums in double are exact enough.
template <class T>
class Totals {
 public:
  HWY_INLINE void add(const T* HWY_RESTRICT folded) {
    const hn::ScalableTag<double> d;
    const hn::Rebind<T, decltype(d)> narrow;
    for (std::size_t k = 0; k < kFoldedLanes<T>; k += hn::Lanes(d)) {
      const auto more = hn::PromoteTo(d, hn::Load(narrow, folded + k));
      hn::Store(hn::Add(hn::Load(d, sums_ + k), more), d, sums_ + k);
    }
  }
  HWY_INLINE double result(bool /*one_block*/) {
    for (std::size_t half = kFoldedLanes<T> / 2; half > 0; half /= 2) {
      for (std::size_t k = 0; k < half; ++k) sums_[k] += sums_[k + half];
    }
    return sums_[0];
  }

 private:
  HWY_ALIGN double sums_[kFoldedLanes<T>] = {};
};

/// For doubles: what an addition rounds away is summed beside it.
template <>
class Totals<double> {
 public:
  HWY_INLINE void add(const double* HWY_RESTRICT folded) {
    const hn::ScalableTag<double> d;
    for (std::size_t k = 0; k < kFoldedLanes<double>; k += hn::Lanes(d)) {
      const auto a = hn::Load(d, sums_ + k);
      const auto b = hn::Load(d, folded + k);
      const auto sum = opaque(hn::Add(a, b));
      const auto b_part = opaque(hn::Sub(sum, a));
      const auto a_part = opaque(hn::Sub(sum, b_part));
      const auto lost = hn::Add(hn::Sub(a, a_part), hn::Sub(b, b_part));
      hn::Store(sum, d, sums_ + k);
      hn::Store(hn::Add(hn::Load(d, lost_ + k), lost), d, lost_ + k);
    }
  }
  HWY_INLINE double result(bool one_block) {
    for (std::size_t half = kFoldedLanes<double> / 2; half > 0; half /= 2) {
      for (std::size_t k = 0; k < half; ++k) {
        sums_[k] += sums_[k + half];
        lost_[k] += lost_[k + half];
      }
    }
    // Beside an infinity, what was lost is NaN.
    const bool finite = magnitude_bits(sums_[0]) < FloatFormat<double>::kInfinity;
    return one_block || !finite ? sums_[0] : sums_[0] + lost_[0];
  }

 private:
  HWY_ALIGN double sums_[kFoldedLanes<double>] = {};
  HWY_ALIGN double lost_[kFoldedLanes<double>] = {};
};

template <class Source, class T = typename Source::Element>
HWY_INLINE double sum_source(const Source& source, std::size_t n) {
  HWY_ALIGN T folded[kFoldedLanes<T>];
  Totals<T> totals;
  for (std::size_t i = 0; i < n; i += kSumBlock<T>) {
    const std::size_t rest = n - i;
    sum_block(source, i, i + (rest < kSumBlock<T> ? rest : kSumBlock<T>), folded);
    totals.add(folded);
  }
  return totals.result(n <= kSumBlock<T>);
}

/// The larger of two, or the smaller.
template <bool kLargest, class V>
HWY_INLINE V better(V a, V b) {
  if constexpr (kLargest) {
    return hn::Max(a, b);
  } else {
    return hn::Min(a, b);
  }
}

/// Largest or smallest of x[0..n-1], n >= 1; NaN if there is one.
template <bool kLargest, class T>
T extreme(const T* x, std::size_t n) {
  const hn::ScalableTag<T> d;
  const hn::RebindToSigned<decltype(d)> di;
  const std::size_t lanes = hn::Lanes(d);
  // NaN is found apart, as the largest magnitude by its bits.
  auto best0 = hn::Set(d, x[0]), best1 = best0;
  auto bits0 = hn::BitCast(di, hn::Abs(best0)), bits1 = bits0;
  std::size_t i = 0;
  for (; i + 2 * lanes <= n; i += 2 * lanes) {
    const auto v0 = hn::LoadU(d, x + i);
    const auto v1 = hn::LoadU(d, x + i + lanes);
    best0 = better<kLargest>(best0, v0);
    best1 = better<kLargest>(best1, v1);
    bits0 = hn::Max(bits0, hn::BitCast(di, hn::Abs(v0)));
    bits1 = hn::Max(bits1, hn::BitCast(di, hn::Abs(v1)));
  }
  for (; i < n; i += lanes) {
    const bool whole = i + lanes <= n;
    const auto v = whole ? hn::LoadU(d, x + i)
                         : hn::IfThenElse(hn::FirstN(d, n - i), load_partial(d, x + i, n - i),
                                          hn::Set(d, x[0]));
    best0 = better<kLargest>(best0, v);
    bits0 = hn::Max(bits0, hn::BitCast(di, hn::Abs(v)));
  }
  HWY_ALIGN T values[hn::MaxLanes(d)];
  HWY_ALIGN hn::TFromD<decltype(di)> magnitudes[hn::MaxLanes(d)];
  hn::Store(better<kLargest>(best0, best1), d, values);
  hn::Store(hn::Max(bits0, bits1), di, magnitudes);
  T value = values[0];
  auto magnitude = magnitudes[0];
  for (std::size_t k = 1; k < lanes; ++k) {
    if (kLargest ? values[k] > value : values[k] < value) value = values[k];
    if (magnitudes[k] > magnitude) magnitude = magnitudes[k];
  }
  using Bits = typename FloatFormat<T>::Bits;
  const bool nan = static_cast<Bits>(magnitude) > FloatFormat<T>::kInfinity;
  return nan ? from_bits<T>(FloatFormat<T>::kNan) : value;
}

/// First index whose element equals \p value, or is NaN where that is; there is one.
template <class T>
std::size_t first_equal(const T* x, std::size_t n, T value) {
  const bool nan = is_nan(value);
  for (std::size_t i = 0; i < n; ++i) {
    if (nan ? is_nan(x[i]) : x[i] == value) return i;
  }
  return 0;
}

/// Index of the extreme: by blocks, so that only the block that holds it is looked through.
template <bool kLargest, class T>
std::size_t index_of_extreme(const T* x, std::size_t n) {
  constexpr std::size_t kBlock = 256;
  if (n == 0) return 0;
  std::size_t best_block = 0;
  T best = x[0];
  for (std::size_t i = 0; i < n; i += kBlock) {
    const T value = extreme<kLargest>(x + i, n - i < kBlock ? n - i : kBlock);
    if (is_nan(value) || (kLargest ? value > best : value < best)) {
      best = value;
      best_block = i;
      if (is_nan(value)) break;
    }
  }
  const std::size_t left = n - best_block;
  return best_block + first_equal(x + best_block, left < kBlock ? left : kBlock, best);
}

}  // namespace detail

/// Sum of f(x[i]) over i < n; 0 for n = 0. In double for floats too.
template <class F, class T>
double sum_of(const F& f, const T* x, std::size_t n) {
  return detail::sum_source(detail::Mapped<F, T>{f, x}, n);
}

/// Sum of x[i] over i < n.
template <class T>
double sum(const T* x, std::size_t n) {
  return sum_of(kernels::Identity{}, x, n);
}

/// Sum of x[i] y[i] over i < n.
template <class T>
double dot(const T* x, const T* y, std::size_t n) {
  return detail::sum_source(detail::Products<T>{x, y}, n);
}

/// Sum of x[i]^2 over i < n. Overflows where a square does.
template <class T>
double squared_norm(const T* x, std::size_t n) {
  return dot(x, x, n);
}

/// Largest x[i], -infinity for n = 0; NaN if there is one.
template <class T>
T max_value(const T* x, std::size_t n) {
  return n == 0 ? detail::minus_infinity<T>() : detail::extreme<true>(x, n);
}

/// Smallest x[i], +infinity for n = 0; NaN if there is one.
template <class T>
T min_value(const T* x, std::size_t n) {
  return n == 0 ? -detail::minus_infinity<T>() : detail::extreme<false>(x, n);
}

/// Lowest index of the largest x[i], or of the first NaN; 0 for n = 0.
template <class T>
std::size_t arg_max(const T* x, std::size_t n) {
  return detail::index_of_extreme<true>(x, n);
}

/// Lowest index of the smallest x[i], or of the first NaN; 0 for n = 0.
template <class T>
std::size_t arg_min(const T* x, std::size_t n) {
  return detail::index_of_extreme<false>(x, n);
}

}  // namespace HWY_NAMESPACE
}  // namespace kernels
QUERN_NAMESPACE_END
HWY_AFTER_NAMESPACE();

#endif  // QUERN_KERNELS_REDUCE_INL_HPP
