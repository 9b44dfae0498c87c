// SPDX-License-Identifier: Apache-2.0

/// \file
/// Sine and cosine of vectors of float or double.
///
/// x = k pi/2 + r with |r| <= pi/4 (a little more by rounding), pi/2 in three parts that are taken
/// off by fused multiply-adds; then the Taylor series, whose first term left out is below a tenth
/// of a unit, and a swap and two signs by k's last bits. Absolute error below 2^-23 (2^-52) up to
/// |x| = 1e5; where a level has no fused multiply-add, |x| 2^-24 (2^-53) comes on top. NaN and
/// infinity give NaN.

#if defined(QUERN_KERNELS_SINCOS_INL_HPP) == defined(HWY_TARGET_TOGGLE)
#ifdef QUERN_KERNELS_SINCOS_INL_HPP
#undef QUERN_KERNELS_SINCOS_INL_HPP
#else
#define QUERN_KERNELS_SINCOS_INL_HPP
#endif

#include "quern/core/config.hpp"
#include "quern/kernels/math-inl.hpp"
#include "quern/kernels/partial-inl.hpp"

#include "hwy/highway.h"

#include <cstddef>

HWY_BEFORE_NAMESPACE();
QUERN_NAMESPACE_BEGIN
namespace kernels {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

namespace detail {

/// pi/2 = first + second + third.
template <class T>
struct HalfPi;
template <>
struct HalfPi<float> {
  static constexpr float kInverse = 0x1.45f306p-1f;
  static constexpr float kFirst = 0x1.921fb6p+0f, kSecond = -0x1.777a5cp-25f;
  static constexpr float kThird = -0x1.ee59dap-50f;
};
template <>
struct HalfPi<double> {
  static constexpr double kInverse = 0x1.45f306dc9c883p-1;
  static constexpr double kFirst = 0x1.921fb54442d18p+0, kSecond = 0x1.1a62633145c07p-54;
  static constexpr double kThird = -0x1.f1976b7ed8fbcp-110;
};

/// (sin r - r) / r^3 and (cos r - 1) / r^2 as polynomials in z = r^2.
template <class D, class V>
HWY_INLINE V sine_series(D d, V z, V z2, float /*format*/) {
  return polynomial(d, z, z2, -1.0f / 6, 1.0f / 120, -1.0f / 5040, 1.0f / 362880);
}
template <class D, class V>
HWY_INLINE V sine_series(D d, V z, V z2, double /*format*/) {
  return polynomial(d, z, z2, -1.0 / 6, 1.0 / 120, -1.0 / 5040, 1.0 / 362880, -1.0 / 39916800,
                    1.0 / 6227020800, -1.0 / 1307674368000, 1.0 / 355687428096000);
}
template <class D, class V>
HWY_INLINE V cosine_series(D d, V z, V z2, float /*format*/) {
  return polynomial(d, z, z2, -1.0f / 2, 1.0f / 24, -1.0f / 720, 1.0f / 40320, -1.0f / 3628800);
}
template <class D, class V>
HWY_INLINE V cosine_series(D d, V z, V z2, double /*format*/) {
  return polynomial(d, z, z2, -1.0 / 2, 1.0 / 24, -1.0 / 720, 1.0 / 40320, -1.0 / 3628800,
                    1.0 / 479001600, -1.0 / 87178291200, 1.0 / 20922789888000);
}

}  // namespace detail

template <class V>
struct SineCosine {
  V sine, cosine;
};

/// Both of x, |x| up to about 2^22 (2^51).
template <class D, class V>
HWY_INLINE SineCosine<V> sin_cos(D d, V x) {
  using T = hn::TFromD<D>;
  using F = FloatFormat<T>;
  using P = detail::HalfPi<T>;
  const hn::RebindToUnsigned<D> du;
  using Bits = typename F::Bits;
  const V shifted = detail::opaque(hn::MulAdd(x, hn::Set(d, P::kInverse), hn::Set(d, F::kRound)));
  const V k = detail::opaque(hn::Sub(shifted, hn::Set(d, F::kRound)));
  V r = detail::opaque(hn::NegMulAdd(k, hn::Set(d, P::kFirst), x));
  r = detail::opaque(hn::NegMulAdd(k, hn::Set(d, P::kSecond), r));
  r = hn::NegMulAdd(k, hn::Set(d, P::kThird), r);
  const V z = hn::Mul(r, r), z2 = hn::Mul(z, z);
  const V sine = hn::MulAdd(hn::Mul(r, z), detail::sine_series(d, z, z2, T{}), r);
  const V cosine = hn::MulAdd(z, detail::cosine_series(d, z, z2, T{}), hn::Set(d, T{1}));
  // The last bits of `shifted` are k's: odd ones swap, the second one turns signs.
  const auto bits = hn::BitCast(du, shifted);
  const auto odd = hn::And(bits, hn::Set(du, Bits{1}));
  const auto swap = hn::Eq(odd, hn::Set(du, Bits{1}));
  const auto swap_float = hn::RebindMask(d, swap);
  const V first = hn::IfThenElse(swap_float, cosine, sine);
  const V second = hn::IfThenElse(swap_float, sine, cosine);
  constexpr int kToSign = static_cast<int>(sizeof(T)) * 8 - 2;
  const auto two = hn::Set(du, Bits{2});
  const auto sine_sign = hn::ShiftLeft<kToSign>(hn::And(bits, two));
  const auto cosine_sign =
      hn::ShiftLeft<kToSign>(hn::And(hn::Add(bits, hn::Set(du, Bits{1})), two));
  return {hn::BitCast(d, hn::Xor(hn::BitCast(du, first), sine_sign)),
          hn::BitCast(d, hn::Xor(hn::BitCast(du, second), cosine_sign))};
}

/// sines[i], cosines[i] of x[i] for i < n.
template <class T>
void sin_cos_of(const T* x, std::size_t n, T* sines, T* cosines) {
  const hn::ScalableTag<T> d;
  const std::size_t lanes = hn::Lanes(d);
  for (std::size_t i = 0; i < n; i += lanes) {
    const std::size_t count = n - i < lanes ? n - i : lanes;
    const auto both =
        sin_cos(d, count == lanes ? hn::LoadU(d, x + i) : load_partial(d, x + i, count));
    if (count == lanes) {
      hn::StoreU(both.sine, d, sines + i);
      hn::StoreU(both.cosine, d, cosines + i);
    } else {
      store_partial(both.sine, d, sines + i, count);
      store_partial(both.cosine, d, cosines + i, count);
    }
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace kernels
QUERN_NAMESPACE_END
HWY_AFTER_NAMESPACE();

#endif  // QUERN_KERNELS_SINCOS_INL_HPP
