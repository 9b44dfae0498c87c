// SPDX-License-Identifier: Apache-2.0

/// \file
/// Fourier transforms of many channels side by side, a lane each: no shuffles, and every twiddle
/// factor is one broadcast for all channels.
///
/// Radix 4, depth first, in place: a transform that has left the second-level cache passes through
/// memory once before its quarters fit. Forward (decimation in frequency) takes points in order and
/// leaves them in bit-reversed order, inverse (decimation in time) goes the other way, so products
/// of spectra need no permutation. Twiddles come rounded from double.
///
/// Real sequences of n numbers are polynomials in z, evaluated where z^n = i. The points are those
/// of a complex transform of n points after a twist by e^(i pi j / (2 n)), and a product of two
/// such polynomials has the product's first n coefficients as real parts and the next n as
/// imaginary ones. That is a linear convolution of n by n numbers at the price of a complex
/// transform of n points (zero padding would take a real one of 2 n, and an unpacking pass on top).
/// Multiplying by a conjugate gives correlations: lags 0 … n-1 real, lags -n … -1 imaginary and
/// negated.

#if defined(QUERN_KERNELS_FFT_INL_HPP) == defined(HWY_TARGET_TOGGLE)
#ifdef QUERN_KERNELS_FFT_INL_HPP
#undef QUERN_KERNELS_FFT_INL_HPP
#else
#define QUERN_KERNELS_FFT_INL_HPP
#endif

#include "quern/core/config.hpp"
#include "quern/kernels/fft_types.hpp"
#include "quern/kernels/partial-inl.hpp"

#include "hwy/highway.h"

#include <cstddef>

HWY_BEFORE_NAMESPACE();
QUERN_NAMESPACE_BEGIN
namespace kernels {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

namespace detail {

template <class T>
using FftTag = hn::CappedTag<T, fft_lanes<T>>;

template <class T>
struct FftValue {
  hn::Vec<FftTag<T>> re;
  hn::Vec<FftTag<T>> im;
};

template <class T>
HWY_INLINE FftValue<T> operator+(FftValue<T> a, FftValue<T> b) {
  return {hn::Add(a.re, b.re), hn::Add(a.im, b.im)};
}
template <class T>
HWY_INLINE FftValue<T> operator-(FftValue<T> a, FftValue<T> b) {
  return {hn::Sub(a.re, b.re), hn::Sub(a.im, b.im)};
}
/// a + i b.
template <class T>
HWY_INLINE FftValue<T> add_i(FftValue<T> a, FftValue<T> b) {
  return {hn::Sub(a.re, b.im), hn::Add(a.im, b.re)};
}
/// a - i b.
template <class T>
HWY_INLINE FftValue<T> sub_i(FftValue<T> a, FftValue<T> b) {
  return {hn::Add(a.re, b.im), hn::Sub(a.im, b.re)};
}
/// a w, and a conj(w).
template <class T>
HWY_INLINE FftValue<T> times(FftValue<T> a, FftValue<T> w) {
  return {hn::NegMulAdd(a.im, w.im, hn::Mul(a.re, w.re)),
          hn::MulAdd(a.im, w.re, hn::Mul(a.re, w.im))};
}
template <class T>
HWY_INLINE FftValue<T> times_conj(FftValue<T> a, FftValue<T> w) {
  return {hn::MulAdd(a.im, w.im, hn::Mul(a.re, w.re)),
          hn::NegMulAdd(a.re, w.im, hn::Mul(a.im, w.re))};
}
template <class T>
HWY_INLINE FftValue<T> broadcast(const T* w) {
  const FftTag<T> d;
  return {hn::Set(d, w[0]), hn::Set(d, w[1])};
}
template <class T>
HWY_INLINE FftValue<T> load_point(const T* z, std::size_t lane) {
  const FftTag<T> d;
  return {hn::Load(d, z + lane), hn::Load(d, z + fft_lanes<T> + lane)};
}
template <class T>
HWY_INLINE void store_point(FftValue<T> v, T* z, std::size_t lane) {
  const FftTag<T> d;
  hn::Store(v.re, d, z + lane);
  hn::Store(v.im, d, z + fft_lanes<T> + lane);
}

/// Points as they are: where a pass inside of a transform reads and writes.
template <class T>
struct FftPoints {
  T* z;
  HWY_INLINE FftValue<T> get(std::size_t j, std::size_t lane) const {
    return load_point<T>(z + j * fft_point<T>, lane);
  }
  HWY_INLINE void put(std::size_t j, std::size_t lane, FftValue<T> v) const {
    store_point<T>(v, z + j * fft_point<T>, lane);
  }
};

/// Lanes of a row that there are.
template <class T>
HWY_INLINE hn::Vec<FftTag<T>> load_lanes(const T* row, std::size_t lane, std::size_t channels) {
  const FftTag<T> d;
  if (lane + hn::Lanes(d) <= channels) return hn::LoadU(d, row + lane);
  if (lane >= channels) return hn::Zero(d);
  return load_partial(d, row + lane, channels - lane);
}
template <class T>
HWY_INLINE void store_lanes(hn::Vec<FftTag<T>> v, T* row, std::size_t lane, std::size_t channels) {
  const FftTag<T> d;
  if (lane + hn::Lanes(d) <= channels) {
    hn::StoreU(v, d, row + lane);
  } else if (lane < channels) {
    store_partial(v, d, row + lane, channels - lane);
  }
}

/// Real rows, twisted on their way in.
template <class T>
struct FftTwisted {
  FftRows<const T> rows;
  const T* twist;
  HWY_INLINE FftValue<T> get(std::size_t j, std::size_t lane) const {
    const FftTag<T> d;
    if (j >= rows.rows) return {hn::Zero(d), hn::Zero(d)};
    const T* row = rows.data + static_cast<std::ptrdiff_t>(j) * rows.stride;
    const auto x = load_lanes<T>(row, lane, rows.channels);
    const FftValue<T> w = broadcast<T>(twist + 2 * j);
    return {hn::Mul(x, w.re), hn::Mul(x, w.im)};
  }
};

/// Twist undone on the way out: real parts to rows, imaginary parts to a tail of rows.
template <class T>
struct FftUntwisted {
  FftRows<T> rows;
  FftRows<T> tail;
  bool add;
  bool negate_tail;
  const T* untwist;
  HWY_INLINE void put(std::size_t j, std::size_t lane, FftValue<T> v) const {
    const FftValue<T> y = times_conj<T>(v, broadcast<T>(untwist + 2 * j));
    if (j < rows.rows) {
      T* row = rows.data + static_cast<std::ptrdiff_t>(j) * rows.stride;
      const auto sum = add ? hn::Add(y.re, load_lanes<T>(row, lane, rows.channels)) : y.re;
      store_lanes<T>(sum, row, lane, rows.channels);
    }
    if (j < tail.rows) {
      T* row = tail.data + static_cast<std::ptrdiff_t>(j) * tail.stride;
      store_lanes<T>(negate_tail ? hn::Neg(y.im) : y.im, row, lane, tail.channels);
    }
  }
};

/// One pass of decimation in frequency over m >= 4 points; `w` holds w^j, w^2j, w^3j for j < m/4.
template <class T, class Source>
HWY_INLINE void dif_pass(const Source& source, std::size_t m, const T* w, T* z) {
  const FftPoints<T> to{z};
  const std::size_t q = m / 4;
  for (std::size_t j = 0; j < q; ++j, w += 6) {
    for (std::size_t lane = 0; lane < fft_lanes<T>; lane += hn::Lanes(FftTag<T>())) {
      const FftValue<T> a = source.get(j, lane), b = source.get(j + q, lane);
      const FftValue<T> c = source.get(j + 2 * q, lane), d = source.get(j + 3 * q, lane);
      const FftValue<T> even = a + c, odd = a - c, sum = b + d, difference = b - d;
      to.put(j, lane, even + sum);
      to.put(j + q, lane, times<T>(even - sum, broadcast<T>(w + 2)));
      to.put(j + 2 * q, lane, times<T>(sub_i<T>(odd, difference), broadcast<T>(w)));
      to.put(j + 3 * q, lane, times<T>(add_i<T>(odd, difference), broadcast<T>(w + 4)));
    }
  }
}

template <class T, class Sink>
HWY_INLINE void dit_pass(const Sink& sink, std::size_t m, const T* w, const T* z) {
  const std::size_t q = m / 4;
  const auto from = [&](std::size_t j, std::size_t lane)
                        HWY_ATTR { return load_point<T>(z + j * fft_point<T>, lane); };
  for (std::size_t j = 0; j < q; ++j, w += 6) {
    for (std::size_t lane = 0; lane < fft_lanes<T>; lane += hn::Lanes(FftTag<T>())) {
      const FftValue<T> a = from(j, lane);
      const FftValue<T> c = times_conj<T>(from(j + q, lane), broadcast<T>(w + 2));
      const FftValue<T> b = times_conj<T>(from(j + 2 * q, lane), broadcast<T>(w));
      const FftValue<T> d = times_conj<T>(from(j + 3 * q, lane), broadcast<T>(w + 4));
      const FftValue<T> even = a + c, odd = a - c, sum = b + d, difference = b - d;
      sink.put(j, lane, even + sum);
      sink.put(j + q, lane, add_i<T>(odd, difference));
      sink.put(j + 2 * q, lane, even - sum);
      sink.put(j + 3 * q, lane, sub_i<T>(odd, difference));
    }
  }
}

/// Two points.
template <class T>
HWY_INLINE void pair_pass(T* z) {
  const FftPoints<T> points{z};
  for (std::size_t lane = 0; lane < fft_lanes<T>; lane += hn::Lanes(FftTag<T>())) {
    const FftValue<T> a = points.get(0, lane), b = points.get(1, lane);
    points.put(0, lane, a + b);
    points.put(1, lane, a - b);
  }
}

/// Four points, whose twiddles are 1.
template <bool kForward, class T>
HWY_INLINE void quad_pass(T* z) {
  const FftPoints<T> p{z};
  for (std::size_t lane = 0; lane < fft_lanes<T>; lane += hn::Lanes(FftTag<T>())) {
    const FftValue<T> z0 = p.get(0, lane), z1 = p.get(1, lane);
    const FftValue<T> z2 = p.get(2, lane), z3 = p.get(3, lane);
    if constexpr (kForward) {
      const FftValue<T> even = z0 + z2, odd = z0 - z2, sum = z1 + z3, difference = z1 - z3;
      p.put(0, lane, even + sum);
      p.put(1, lane, even - sum);
      p.put(2, lane, sub_i<T>(odd, difference));
      p.put(3, lane, add_i<T>(odd, difference));
    } else {
      const FftValue<T> even = z0 + z1, odd = z0 - z1, sum = z2 + z3, difference = z2 - z3;
      p.put(0, lane, even + sum);
      p.put(1, lane, add_i<T>(odd, difference));
      p.put(2, lane, even - sum);
      p.put(3, lane, sub_i<T>(odd, difference));
    }
  }
}

template <class T>
void dif(std::size_t m, const T* w, T* z) {
  if (m == 4) return quad_pass<true>(z);
  if (m == 2) return pair_pass(z);
  if (m < 2) return;
  dif_pass(FftPoints<T>{z}, m, w, z);
  for (std::size_t k = 0; k < 4; ++k) dif(m / 4, w + 6 * (m / 4), z + k * (m / 4) * fft_point<T>);
}

template <class T>
void dit(std::size_t m, const T* w, T* z) {
  if (m == 4) return quad_pass<false>(z);
  if (m == 2) return pair_pass(z);
  if (m < 2) return;
  for (std::size_t k = 0; k < 4; ++k) dit(m / 4, w + 6 * (m / 4), z + k * (m / 4) * fft_point<T>);
  dit_pass(FftPoints<T>{z}, m, w, z);
}

/// z_j = z_j k_j, or z_j conj(k_j).
template <bool kConjugate, class T>
HWY_INLINE void product_pass(std::size_t points, const T* k, T* z) {
  for (std::size_t at = 0; at < points * fft_point<T>; at += fft_point<T>) {
    for (std::size_t lane = 0; lane < fft_lanes<T>; lane += hn::Lanes(FftTag<T>())) {
      const FftValue<T> a = load_point<T>(z + at, lane), b = load_point<T>(k + at, lane);
      store_point<T>(kConjugate ? times_conj<T>(a, b) : times<T>(a, b), z + at, lane);
    }
  }
}

/// There, times the spectrum k, and back: each part while it is in the cache (16 KB of points and
/// as many of k).
template <bool kConjugate, class T>
void ring_product(std::size_t m, const T* w, const T* k, T* z) {
  if (m <= 128) {
    dif(m, w, z);
    product_pass<kConjugate>(m, k, z);
    dit(m, w, z);
    return;
  }
  dif_pass(FftPoints<T>{z}, m, w, z);
  for (std::size_t part = 0; part < 4; ++part) {
    const std::size_t at = part * (m / 4) * fft_point<T>;
    ring_product<kConjugate>(m / 4, w + 6 * (m / 4), k + at, z + at);
  }
  dit_pass(FftPoints<T>{z}, m, w, z);
}

}  // namespace detail

/// z_k = sum_j z_j e^(-2 pi i j k / size), in place; frequencies in bit-reversed order.
template <class T>
void fft_forward(const FftTask<T>& task, T* z) {
  detail::dif(task.size, task.twiddles, z);
}

/// z_j = sum_k z_k e^(2 pi i j k / size) from frequencies in bit-reversed order; not divided.
template <class T>
void fft_inverse(const FftTask<T>& task, T* z) {
  detail::dit(task.size, task.twiddles, z);
}

/// The spectrum of real rows at the points where z^size = i; size >= 4.
template <class T>
void fft_forward_rows(const FftTask<T>& task, const FftRows<const T>& rows, T* z) {
  const std::size_t m = task.size, q = m / 4;
  detail::dif_pass(detail::FftTwisted<T>{rows, task.twist}, m, task.twiddles, z);
  for (std::size_t k = 0; k < 4; ++k) {
    detail::dif(q, task.twiddles + 6 * q, z + k * q * fft_point<T>);
  }
}

/// From such a spectrum: rows = (or, with \p add, +=) coefficients 0 … size-1, tail = coefficients
/// size … 2 size - 1, negated if wanted. The spectrum is used up.
template <class T>
void fft_inverse_rows(const FftTask<T>& task, T* z, const FftRows<T>& rows, bool add,
                      const FftRows<T>& tail, bool negate_tail) {
  const std::size_t m = task.size, q = m / 4;
  for (std::size_t k = 0; k < 4; ++k) {
    detail::dit(q, task.twiddles + 6 * q, z + k * q * fft_point<T>);
  }
  detail::dit_pass(detail::FftUntwisted<T>{rows, tail, add, negate_tail, task.untwist}, m,
                   task.twiddles, z);
}

/// fft_forward_rows, a product with a kernel's spectrum (or its conjugate), and fft_inverse_rows in
/// one; z is work space.
template <class T>
void fft_convolve_rows(const FftTask<T>& task, const FftRows<const T>& in, const T* kernel, T* z,
                       const FftRows<T>& rows, bool add, const FftRows<T>& tail) {
  const std::size_t m = task.size, q = m / 4;
  detail::dif_pass(detail::FftTwisted<T>{in, task.twist}, m, task.twiddles, z);
  for (std::size_t k = 0; k < 4; ++k) {
    const std::size_t at = k * q * fft_point<T>;
    detail::ring_product<false>(q, task.twiddles + 6 * q, kernel + at, z + at);
  }
  detail::dit_pass(detail::FftUntwisted<T>{rows, tail, add, false, task.untwist}, m, task.twiddles,
                   z);
}

/// out = a b, or a conj(b), of \p points points; out may be a or b.
template <class T>
void fft_multiply(std::size_t points, const T* a, const T* b, bool conjugate, T* out) {
  for (std::size_t j = 0; j < points; ++j) {
    const std::size_t at = j * fft_point<T>;
    for (std::size_t lane = 0; lane < fft_lanes<T>; lane += hn::Lanes(detail::FftTag<T>())) {
      const auto x = detail::load_point<T>(a + at, lane), y = detail::load_point<T>(b + at, lane);
      detail::store_point<T>(conjugate ? detail::times_conj<T>(x, y) : detail::times<T>(x, y),
                             out + at, lane);
    }
  }
}

/// out += a conj(b), or i a conj(b).
template <class T>
void fft_accumulate(std::size_t points, const T* a, const T* b, bool times_i, T* out) {
  for (std::size_t j = 0; j < points; ++j) {
    const std::size_t at = j * fft_point<T>;
    for (std::size_t lane = 0; lane < fft_lanes<T>; lane += hn::Lanes(detail::FftTag<T>())) {
      const auto product = detail::times_conj<T>(detail::load_point<T>(a + at, lane),
                                                 detail::load_point<T>(b + at, lane));
      const auto sum = detail::load_point<T>(out + at, lane);
      detail::store_point<T>(times_i ? detail::add_i<T>(sum, product) : sum + product, out + at,
                             lane);
    }
  }
}

/// out += conj(a): the spectrum of a sequence that runs backwards.
template <class T>
void fft_add_conjugate(std::size_t points, const T* a, T* out) {
  for (std::size_t j = 0; j < points; ++j) {
    const std::size_t at = j * fft_point<T>;
    for (std::size_t lane = 0; lane < fft_lanes<T>; lane += hn::Lanes(detail::FftTag<T>())) {
      const auto x = detail::load_point<T>(a + at, lane),
                 sum = detail::load_point<T>(out + at, lane);
      detail::store_point<T>({hn::Add(sum.re, x.re), hn::Sub(sum.im, x.im)}, out + at, lane);
    }
  }
}

/// z_j = z_j table_j, or z_j conj(table_j): one complex number for all channels of a point.
template <class T>
void fft_scale_points(std::size_t points, const T* table, bool conjugate, T* z) {
  for (std::size_t j = 0; j < points; ++j, z += fft_point<T>) {
    const auto w = detail::broadcast<T>(table + 2 * j);
    for (std::size_t lane = 0; lane < fft_lanes<T>; lane += hn::Lanes(detail::FftTag<T>())) {
      const auto x = detail::load_point<T>(z, lane);
      detail::store_point<T>(conjugate ? detail::times_conj<T>(x, w) : detail::times<T>(x, w), z,
                             lane);
    }
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace kernels
QUERN_NAMESPACE_END
HWY_AFTER_NAMESPACE();

#endif  // QUERN_KERNELS_FFT_INL_HPP
