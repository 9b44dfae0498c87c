// SPDX-License-Identifier: Apache-2.0

/// \file
/// exp, exp2, log, tanh, sigmoid, softplus and erf of vectors of float or double.
///
/// Each is one straight line of code for all inputs: range reduction, one or two polynomials, at
/// most one division, and bit tests for what is special. The largest error is stated beside each
/// function in ulp of the exact result (measured on 2^24 floats spread over all bit patterns and
/// four million doubles, at every level) and held by the test. All results that round to a
/// subnormal number are right to that unit; where the program runs with flush-to-zero they become
/// 0.
///
/// Every operation is the same at every level, so levels with fused multiply-add agree in every
/// bit; those without it (HWY_SCALAR, HWY_EMU128) keep the same error bounds, hence differ from
/// them by at most the sum of the two bounds. NaN gives NaN and is recognised by its bits, and sums
/// that must not be reassociated pass through opaque(): under -ffast-math special values stay what
/// they are, and errors stay below 4.1 ulp (it takes approximate reciprocals for divisions).
///
/// Polynomials are minimax fits of our own: tests/reference/kernels/make_math_polynomials.py.

#if defined(QUERN_KERNELS_MATH_INL_HPP) == defined(HWY_TARGET_TOGGLE)
#ifdef QUERN_KERNELS_MATH_INL_HPP
#undef QUERN_KERNELS_MATH_INL_HPP
#else
#define QUERN_KERNELS_MATH_INL_HPP
#endif

#include "quern/core/config.hpp"

#include "hwy/highway.h"

#include <cstdint>

HWY_BEFORE_NAMESPACE();
QUERN_NAMESPACE_BEGIN
namespace kernels {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

/// Layout and constants of a floating-point format.
template <class T>
struct FloatFormat;

template <>
struct FloatFormat<float> {
  using Bits = std::uint32_t;
  static constexpr int kMantissa = 23;
  static constexpr Bits kBias = 127;
  static constexpr Bits kOne = 0x3F800000u;
  static constexpr Bits kSqrtHalf = 0x3F3504F3u;
  static constexpr Bits kInfinity = 0x7F800000u;
  static constexpr Bits kNan = 0x7FC00000u;
  /// Adding 1.5 * 2^23 rounds to a whole number, which then sits in the lowest bits.
  static constexpr float kRound = 0x1.8p23f;
  static constexpr Bits kRoundBits = 0x4B400000u;
  static constexpr float kTwoToMantissa = 0x1p23f;
  static constexpr Bits kTwoToMantissaBits = 0x4B000000u;
  static constexpr float kLn2 = 0x1.62e43p-1f;
  static constexpr float kLog2E = 0x1.715476p+0f;
  // ln 2 in two parts; the first has so few bits that its product with an exponent is exact.
  static constexpr float kLn2High = 0x1.62e4p-1f;
  static constexpr float kLn2Low = 0x1.7f7d1cp-20f;
  // Outside of these, exp and exp2 overflow or round to 0.
  static constexpr float kExpMax = 89.0f, kExpMin = -104.0f;
  static constexpr float kExp2Max = 128.0f, kExp2Min = -151.0f;
  static constexpr float kTanhMax = 10.0f;  // tanh rounds to 1 from 9.02 on
  static constexpr float kErfMax = 3.95f;   // erf rounds to 1 from 3.92 on
};

template <>
struct FloatFormat<double> {
  using Bits = std::uint64_t;
  static constexpr int kMantissa = 52;
  static constexpr Bits kBias = 1023;
  static constexpr Bits kOne = 0x3FF0000000000000u;
  static constexpr Bits kSqrtHalf = 0x3FE6A09E667F3BCDu;
  static constexpr Bits kInfinity = 0x7FF0000000000000u;
  static constexpr Bits kNan = 0x7FF8000000000000u;
  static constexpr double kRound = 0x1.8p52;
  static constexpr Bits kRoundBits = 0x4338000000000000u;
  static constexpr double kTwoToMantissa = 0x1p52;
  static constexpr Bits kTwoToMantissaBits = 0x4330000000000000u;
  static constexpr double kLn2 = 0x1.62e42fefa39efp-1;
  static constexpr double kLog2E = 0x1.71547652b82fep+0;
  static constexpr double kLn2High = 0x1.62e42fefa38p-1;
  static constexpr double kLn2Low = 0x1.ef35793c7673p-45;
  static constexpr double kExpMax = 710.0, kExpMin = -746.0;
  static constexpr double kExp2Max = 1024.0, kExp2Min = -1076.0;
  static constexpr double kTanhMax = 20.0;  // tanh rounds to 1 from 19.07 on
  static constexpr double kErfMax = 5.95;   // erf rounds to 1 from 5.93 on
};

namespace detail {

/// \p v itself, without the optimiser knowing where it comes from: what -ffast-math allows would
/// turn (a + b) - b into a. Costs nothing, and without that flag is nothing.
template <class V>
HWY_INLINE V opaque(V v) {
#if defined(__FAST_MATH__) || defined(__ASSOCIATIVE_MATH__)
#if HWY_TARGET == HWY_AVX2 || HWY_TARGET == HWY_AVX3 || HWY_TARGET == HWY_AVX3_DL
  asm("" : "+v"(v.raw));
#else
  asm("" : "+m"(v));
#endif
#endif
  return v;
}

/// c[0] + c[1] x + c[2] x^2 + ..., lowest degree first: Horner's rule in x^2 over pairs c + c' x,
/// which costs what Horner's costs in x (given x^2) and is half as long a chain.
template <class D, class V, class T>
HWY_INLINE V polynomial(D d, V /*x*/, V /*x2*/, T c) {
  return hn::Set(d, c);
}
template <class D, class V, class T>
HWY_INLINE V polynomial(D d, V x, V /*x2*/, T c0, T c1) {
  return hn::MulAdd(x, hn::Set(d, c1), hn::Set(d, c0));
}
template <class D, class V, class T, class... Rest>
HWY_INLINE V polynomial(D d, V x, V x2, T c0, T c1, Rest... rest) {
  return hn::MulAdd(polynomial(d, x, x2, rest...), x2, polynomial(d, x, x2, c0, c1));
}

/// (e^r - 1 - r) / r^2 on |r| <= ln 2 / 2, such that e^r - 1 is right to 0.3 * 2^-24 (or 2^-53).
template <class D, class V>
HWY_INLINE V exp_polynomial(D d, V r, V r2, float /*format*/) {
  return polynomial(d, r, r2, 0x1.fffffep-2f, 0x1.5554aep-3f, 0x1.555676p-5f, 0x1.122878p-7f,
                    0x1.6bebf2p-10f);
}
template <class D, class V>
HWY_INLINE V exp_polynomial(D d, V r, V r2, double /*format*/) {
  return polynomial(d, r, r2, 0x1.0000000000005p-1, 0x1.5555555555539p-3, 0x1.55555555521f4p-5,
                    0x1.1111111119199p-7, 0x1.6c16c17f11fccp-10, 0x1.a01a0174947c6p-13,
                    0x1.a019a6c178c5fp-16, 0x1.71de88a9346f2p-19, 0x1.28a295c1e9c8cp-22,
                    0x1.ae6b9497dca14p-26);
}

/// ((2^r - 1) / r - ln 2) / r on |r| <= 1/2.
template <class D, class V>
HWY_INLINE V exp2_polynomial(D d, V r, V r2, float /*format*/) {
  return polynomial(d, r, r2, 0x1.ebfbdcp-3f, 0x1.c6aee6p-5f, 0x1.3b2d52p-7f, 0x1.5f4006p-10f,
                    0x1.41fafep-13f);
}
template <class D, class V>
HWY_INLINE V exp2_polynomial(D d, V r, V r2, double /*format*/) {
  return polynomial(d, r, r2, 0x1.ebfbdff82c5a5p-3, 0x1.c6b08d7049fe4p-5, 0x1.3b2ab6fb9ffddp-7,
                    0x1.5d87fe78ce0c4p-10, 0x1.4309130f1d91ep-13, 0x1.ffcbfba769ec0p-17,
                    0x1.62bfc6e4680f0p-20, 0x1.b5267f6bb2401p-24, 0x1.e61ca1b470e04p-28,
                    0x1.e79a7c9106084p-32);
}

/// (2 atanh(s) - 2 s) / (s z) with z = s^2, for s of logarithms of [sqrt(1/2), sqrt(2)].
template <class D, class V>
HWY_INLINE V log_polynomial(D d, V z, V z2, float /*format*/) {
  return polynomial(d, z, z2, 0x1.55557ap-1f, 0x1.995ec8p-2f, 0x1.31e2fcp-2f);
}
template <class D, class V>
HWY_INLINE V log_polynomial(D d, V z, V z2, double /*format*/) {
  return polynomial(d, z, z2, 0x1.5555555555593p-1, 0x1.999999997f9cfp-2, 0x1.249249422eb59p-2,
                    0x1.c71c51d29094cp-3, 0x1.74664b1347b40p-3, 0x1.39a06a1758669p-3,
                    0x1.2f137d868cd33p-3);
}

/// The same for s of logarithms of [1, 2].
template <class D, class V>
HWY_INLINE V log1p_polynomial(D d, V z, V z2, float /*format*/) {
  return polynomial(d, z, z2, 0x1.555502p-1f, 0x1.99d1cap-2f, 0x1.1ec07cp-2f, 0x1.1ec876p-2f);
}
template <class D, class V>
HWY_INLINE V log1p_polynomial(D d, V z, V z2, double /*format*/) {
  return polynomial(d, z, z2, 0x1.5555555555556p-1, 0x1.999999999965ap-2, 0x1.24924924ba16cp-2,
                    0x1.c71c71a9d4d10p-3, 0x1.745d1d695233dp-3, 0x1.3b12e490db1dbp-3,
                    0x1.11225bad2552ap-3, 0x1.dff57c8892681p-4, 0x1.c0f6664e4a554p-4,
                    0x1.2037b0bae0905p-4, 0x1.4fe1eb35f89bdp-3);
}

/// erf(x) / x - 1 with z = x^2, for |x| <= 1.
template <class D, class V>
HWY_INLINE V erf_polynomial(D d, V z, V z2, float /*format*/) {
  return polynomial(d, z, z2, 0x1.06eba8p-3f, -0x1.81273ep-2f, 0x1.ce2ce6p-4f, -0x1.b7f71ap-6f,
                    0x1.53f224p-8f, -0x1.a3515ep-11f, 0x1.477202p-14f);
}
template <class D, class V>
HWY_INLINE V erf_polynomial(D d, V z, V z2, double /*format*/) {
  return polynomial(d, z, z2, 0x1.06eba8214db69p-3, -0x1.812746b0379e7p-2, 0x1.ce2f21a042bddp-4,
                    -0x1.b82ce3128899bp-6, 0x1.565bcd0e64ab5p-8, -0x1.c02db3fed8efep-11,
                    0x1.f9a326bfb6620p-14, -0x1.f4d255e139ac7p-17, 0x1.b9e64d0728397p-20,
                    -0x1.5f6d6b4c83617p-23, 0x1.fc4116e3c189ap-27, -0x1.4e55cc0dd2d40p-30,
                    0x1.7ecbf64386dacp-34, -0x1.2928f44ce4c36p-38);
}

/// log(1 - erf(a)) for 1 <= a <= kErfMax. Where erfc is tiny this need not be precise.
template <class D, class V>
HWY_INLINE V log_erfc_polynomial(D d, V a, V a2, float /*format*/) {
  return polynomial(d, a, a2, -0x1.665972p-12f, -0x1.2088dcp+0f, -0x1.46bb1ap-1f, -0x1.a65218p-4f,
                    0x1.65c970p-6f, -0x1.82575cp-9f, 0x1.86d85cp-13f);
}
template <class D, class V>
HWY_INLINE V log_erfc_polynomial(D d, V a, V a2, double /*format*/) {
  return polynomial(d, a, a2, -0x1.ddd9c6acdb490p-26, -0x1.20dd70cc02143p+0, -0x1.45f3272725ccdp-1,
                    -0x1.a4f3025f98874p-4, 0x1.3964d253a0409p-6, 0x1.a84616edf5a19p-13,
                    -0x1.b71565c5cc4e5p-10, 0x1.219949a232d6cp-11, 0x1.712cfea556c82p-16,
                    -0x1.d0a6f283a1e72p-14, 0x1.0f9fa050dfbe5p-14, -0x1.9758d34f6e34fp-16,
                    0x1.c743665a33baep-18, -0x1.8a810690b99c7p-20, 0x1.0a6b8e0cffe1dp-22,
                    -0x1.148634a8605e3p-25, 0x1.ab1fe9f74f6f5p-29, -0x1.ceda1c6b21386p-33,
                    0x1.3a0bae3395079p-37, -0x1.91756765d5f34p-43);
}

// x86's minimum and maximum return their second argument when there is a NaN, so that one in x
// stays and travels through all that follows. -ffast-math may swap them, and others differ.
#if (HWY_TARGET == HWY_AVX2 || HWY_TARGET == HWY_AVX3) && \
    !(defined(__FINITE_MATH_ONLY__) && __FINITE_MATH_ONLY__)
#define QUERN_NAN_TRAVELS 1
#else
#define QUERN_NAN_TRAVELS 0
#endif

/// min(x, limit) and max(x, limit) that, where NaN travels, keep it.
template <class D, class V, class T = hn::TFromD<D>>
HWY_INLINE V at_most(D d, V x, T limit) {
  return hn::Min(hn::Set(d, limit), x);
}
template <class D, class V, class T = hn::TFromD<D>>
HWY_INLINE V at_least(D d, V x, T limit) {
  return hn::Max(hn::Set(d, limit), x);
}

/// y, or x where x is NaN. For y that is NaN already where NaN travels from x.
template <class D, class V>
HWY_INLINE V keep_nan(D d, V x, V y) {
#if QUERN_NAN_TRAVELS
  (void)d, (void)x;
  return y;
#else
  using F = FloatFormat<hn::TFromD<D>>;
  const hn::RebindToSigned<D> di;
  const auto bits = hn::BitCast(di, hn::Abs(x));
  const auto infinity = hn::Set(di, static_cast<hn::TFromD<decltype(di)>>(F::kInfinity));
  const auto is_nan = hn::Gt(bits, infinity);
  return hn::BitCast(d, hn::IfThenElse(is_nan, hn::BitCast(di, x), hn::BitCast(di, y)));
#endif
}
#undef QUERN_NAN_TRAVELS

/// An exponential before it is scaled: 2^k (1 + p), with \p biased = k + 2 bias as unsigned.
template <class V, class VU>
struct Scaled {
  V p;
  V k;
  VU biased;
};

#if HWY_ARCH_X86 && HWY_TARGET <= HWY_AVX3
// y 2^k, rounded once where the result is subnormal: one instruction instead of seven.
HWY_INLINE __m512 times_power(__m512 y, __m512 k) { return _mm512_scalef_ps(y, k); }
HWY_INLINE __m512d times_power(__m512d y, __m512d k) { return _mm512_scalef_pd(y, k); }
HWY_INLINE __m256 times_power(__m256 y, __m256 k) { return _mm256_scalef_ps(y, k); }
HWY_INLINE __m256d times_power(__m256d y, __m256d k) { return _mm256_scalef_pd(y, k); }
HWY_INLINE __m128 times_power(__m128 y, __m128 k) { return _mm_scalef_ps(y, k); }
HWY_INLINE __m128d times_power(__m128d y, __m128d k) { return _mm_scalef_pd(y, k); }
#endif

/// e^x for x within kExpMin..kExpMax.
template <class D, class V>
HWY_INLINE auto scaled_exp(D d, V x) {
  using T = hn::TFromD<D>;
  using F = FloatFormat<T>;
  const hn::RebindToUnsigned<D> du;
  const V shifted = opaque(hn::MulAdd(x, hn::Set(d, F::kLog2E), hn::Set(d, F::kRound)));
  const V k = hn::Sub(shifted, hn::Set(d, F::kRound));
  const V rest = opaque(hn::NegMulAdd(k, hn::Set(d, F::kLn2High), x));
  const V r = hn::NegMulAdd(k, hn::Set(d, F::kLn2Low), rest);
  const V r2 = hn::Mul(r, r);
  const V p = hn::MulAdd(r2, exp_polynomial(d, r, r2, T{}), r);
  const auto bias = hn::Set(du, static_cast<typename F::Bits>(2 * F::kBias - F::kRoundBits));
  const auto biased = hn::Add(hn::BitCast(du, shifted), bias);
  return Scaled<V, decltype(biased)>{p, k, biased};
}

/// 2^k (1 + p) for all k that Scaled can hold. The power is applied in two halves, so that the
/// first product is a normal number and the second rounds once, to a subnormal one or infinity.
template <class D, class V, class VU>
HWY_INLINE V unscale(D d, const Scaled<V, VU>& e) {
#if HWY_ARCH_X86 && HWY_TARGET <= HWY_AVX3
  const V y = opaque(hn::Add(e.p, hn::Set(d, hn::TFromD<D>{1})));
  return V{times_power(y.raw, e.k.raw)};
#else
  using F = FloatFormat<hn::TFromD<D>>;
  const VU half = hn::ShiftRight<1>(e.biased);
  const V first = hn::BitCast(d, hn::ShiftLeft<F::kMantissa>(half));
  const V second = hn::BitCast(d, hn::ShiftLeft<F::kMantissa>(hn::Sub(e.biased, half)));
  return hn::Mul(opaque(hn::MulAdd(first, e.p, first)), second);
#endif
}

/// 2^k where that is a normal number.
template <class D, class V, class VU>
HWY_INLINE V power(D d, const Scaled<V, VU>& e) {
  using F = FloatFormat<hn::TFromD<D>>;
  const hn::RebindToUnsigned<D> du;
  const VU exponent = hn::Sub(e.biased, hn::Set(du, F::kBias));
  return hn::BitCast(d, hn::ShiftLeft<F::kMantissa>(exponent));
}

/// e^-a for a >= 0, infinity included; anything for NaN.
template <class D, class V>
HWY_INLINE V exp_of_minus(D d, V a) {
  using F = FloatFormat<hn::TFromD<D>>;
  return unscale(d, scaled_exp(d, at_least(d, hn::Neg(a), F::kExpMin)));
}

}  // namespace detail

/// e^x. Error below 1.1 ulp.
template <class D, class V>
HWY_INLINE V exp(D d, V x) {
  using F = FloatFormat<hn::TFromD<D>>;
  const V inside = detail::at_least(d, detail::at_most(d, x, F::kExpMax), F::kExpMin);
  return detail::keep_nan(d, x, detail::unscale(d, detail::scaled_exp(d, inside)));
}

/// e^x - 1, relatively exact near 0. Error below 2.5 ulp.
///
/// 2^k p + (2^k - 1), in halves so that the largest power does not overflow before its time.
template <class D, class V>
HWY_INLINE V expm1(D d, V x) {
  using T = hn::TFromD<D>;
  using F = FloatFormat<T>;
  const V inside = detail::at_least(d, detail::at_most(d, x, F::kExpMax), -T{40});
  const auto e = detail::scaled_exp(d, inside);
  const hn::RebindToUnsigned<D> du;
  const auto exponent = hn::Sub(e.biased, hn::Set(du, F::kBias + 1));
  const V half = hn::BitCast(d, hn::ShiftLeft<F::kMantissa>(exponent));
  const V less = detail::opaque(hn::Sub(half, hn::Set(d, T{0.5})));
  const V y = hn::MulAdd(half, e.p, less);
  return detail::keep_nan(d, x, hn::Add(y, y));
}

/// 2^x. Error below 1.25 ulp; whole powers are exact.
template <class D, class V>
HWY_INLINE V exp2(D d, V x) {
  using T = hn::TFromD<D>;
  using F = FloatFormat<T>;
  const hn::RebindToUnsigned<D> du;
  const V inside = detail::at_least(d, detail::at_most(d, x, F::kExp2Max), F::kExp2Min);
  const V shifted = detail::opaque(hn::Add(inside, hn::Set(d, F::kRound)));
  const V k = detail::opaque(hn::Sub(shifted, hn::Set(d, F::kRound)));
  const V r = hn::Sub(inside, k);
  const V r2 = hn::Mul(r, r);
  const V rest = hn::Mul(r2, detail::exp2_polynomial(d, r, r2, T{}));
  const V p = hn::MulAdd(r, hn::Set(d, F::kLn2), rest);
  const auto bias = hn::Set(du, static_cast<typename F::Bits>(2 * F::kBias - F::kRoundBits));
  const auto biased = hn::Add(hn::BitCast(du, shifted), bias);
  const detail::Scaled<V, decltype(biased)> scaled{p, k, biased};
  return detail::keep_nan(d, x, detail::unscale(d, scaled));
}

/// Natural logarithm. Error below 1 ulp.
///
/// x = 2^k (1 + f) with 1 + f in [sqrt(1/2), sqrt(2)), and with s = f / (2 + f), z = s^2:
/// log(1 + f) = 2 atanh(s) = 2 s + s z R(z) = f - s (f - z R(z)), which keeps f whole.
template <class D, class V>
HWY_INLINE V log(D d, V x) {
  using T = hn::TFromD<D>;
  using F = FloatFormat<T>;
  using Bits = typename F::Bits;
  const hn::RebindToUnsigned<D> du;
  const hn::RebindToSigned<D> di;
  using Int = hn::TFromD<decltype(di)>;
  constexpr Bits kMask = (Bits{1} << F::kMantissa) - 1;
  const auto given = hn::BitCast(di, x);
  // Subnormal numbers are scaled up first.
  const auto tiny = hn::Lt(given, hn::Set(di, static_cast<Int>(Bits{1} << F::kMantissa)));
  const V larger = hn::Mul(x, hn::Set(d, F::kTwoToMantissa));
  const auto normal = hn::BitCast(du, hn::IfThenElse(tiny, hn::BitCast(di, larger), given));
  const auto up = hn::Add(normal, hn::Set(du, F::kOne - F::kSqrtHalf));
  const auto fraction = hn::Add(hn::And(up, hn::Set(du, kMask)), hn::Set(du, F::kSqrtHalf));
  const V f = hn::Sub(hn::BitCast(d, fraction), hn::Set(d, T{1}));
  // The biased exponent as the low bits of 2^mantissa + exponent, then minus both biases.
  const V exponent =
      hn::BitCast(d, hn::Or(hn::ShiftRight<F::kMantissa>(up), hn::Set(du, F::kTwoToMantissaBits)));
  constexpr T kBase = F::kTwoToMantissa + static_cast<T>(F::kBias);
  const auto base =
      hn::IfThenElse(tiny, hn::BitCast(di, hn::Set(d, kBase + static_cast<T>(F::kMantissa))),
                     hn::BitCast(di, hn::Set(d, kBase)));
  const V k = hn::Sub(exponent, hn::BitCast(d, base));

  const V s = hn::Div(f, hn::Add(f, hn::Set(d, T{2})));
  const V z = hn::Mul(s, s);
  const V rest = hn::NegMulAdd(z, detail::log_polynomial(d, z, hn::Mul(z, z), T{}), f);
  const V correction = hn::NegMulAdd(s, rest, hn::Mul(k, hn::Set(d, F::kLn2Low)));
  const V y = hn::MulAdd(k, hn::Set(d, F::kLn2High), detail::opaque(hn::Add(f, correction)));

  // Infinity and NaN stay, negative numbers have no logarithm, both zeros go to -infinity.
  const auto nan = hn::Set(di, static_cast<Int>(F::kNan));
  auto bits = hn::BitCast(di, y);
  bits =
      hn::IfThenElse(hn::Gt(given, hn::Set(di, static_cast<Int>(F::kInfinity - 1))), given, bits);
  bits = hn::IfThenElse(hn::Lt(given, hn::Zero(di)), nan, bits);
  const auto minus_infinity = hn::BitCast(di, hn::Set(du, F::kInfinity | ~(~Bits{0} >> 1)));
  const auto zero = hn::Eq(hn::Add(given, given), hn::Zero(di));
  return hn::BitCast(d, hn::IfThenElse(zero, minus_infinity, bits));
}

/// Hyperbolic tangent. Error below 2.6 ulp.
///
/// With m = e^(-2|x|) - 1, held relatively exact by adding 2^k - 1 last: tanh |x| = -m / (m + 2).
template <class D, class V>
HWY_INLINE V tanh(D d, V x) {
  using T = hn::TFromD<D>;
  using F = FloatFormat<T>;
  const V a = detail::at_most(d, hn::Abs(x), F::kTanhMax);
  const auto e = detail::scaled_exp(d, hn::Mul(a, hn::Set(d, T{-2})));
  const V two_to_k = detail::power(d, e);
  const V m = hn::MulAdd(two_to_k, e.p, detail::opaque(hn::Sub(two_to_k, hn::Set(d, T{1}))));
  const V y = hn::CopySign(hn::Div(m, hn::Add(m, hn::Set(d, T{2}))), x);
  return detail::keep_nan(d, x, y);
}

/// 1 / (1 + e^-x). Error below 2.5 ulp, also for very negative x, where it is e^x.
template <class D, class V>
HWY_INLINE V sigmoid(D d, V x) {
  using T = hn::TFromD<D>;
  const hn::RebindToSigned<D> di;
  const V one = hn::Set(d, T{1});
  const V e = detail::exp_of_minus(d, hn::Abs(x));
  const auto negative = hn::Lt(hn::BitCast(di, x), hn::Zero(di));
  const V top = hn::BitCast(d, hn::IfThenElse(negative, hn::BitCast(di, e), hn::BitCast(di, one)));
  return detail::keep_nan(d, x, hn::Div(top, hn::Add(one, e)));
}

/// log(1 + e^x). Error below 2.1 ulp.
///
/// max(x, 0) + log(1 + u) with u = e^-|x| in (0, 1]: as in log(), with f = u and k = 0.
template <class D, class V>
HWY_INLINE V softplus(D d, V x) {
  using T = hn::TFromD<D>;
  const V u = detail::exp_of_minus(d, hn::Abs(x));
  const V s = hn::Div(u, hn::Add(u, hn::Set(d, T{2})));
  const V z = hn::Mul(s, s);
  const V rest = hn::NegMulAdd(z, detail::log1p_polynomial(d, z, hn::Mul(z, z), T{}), u);
  const V log1p = detail::opaque(hn::NegMulAdd(s, rest, u));
  return detail::keep_nan(d, x, hn::Add(hn::Max(x, hn::Zero(d)), log1p));
}

/// Error function. Error below 1.5 ulp.
///
/// x + x P(x^2) up to |x| = 1, beyond it 1 - e^Q(|x|), since log(1 - erf) is smooth and its error
/// matters less and less.
template <class D, class V>
HWY_INLINE V erf(D d, V x) {
  using T = hn::TFromD<D>;
  using F = FloatFormat<T>;
  const hn::RebindToSigned<D> di;
  using Int = hn::TFromD<decltype(di)>;
  const V one = hn::Set(d, T{1});
  const V a = detail::at_most(d, hn::Abs(x), F::kErfMax);
  const V z = hn::Mul(a, a);
  const V inner = hn::MulAdd(a, detail::erf_polynomial(d, z, hn::Mul(z, z), T{}), a);
  // Arguments far too small give a finite logarithm too, so nothing overflows.
  const auto e = detail::scaled_exp(d, detail::log_erfc_polynomial(d, a, z, T{}));
  const V two_to_k = detail::power(d, e);
  const V outer = hn::NegMulAdd(two_to_k, e.p, detail::opaque(hn::Sub(one, two_to_k)));
  const auto is_inner = hn::Lt(hn::BitCast(di, a), hn::Set(di, static_cast<Int>(F::kOne)));
  const auto y = hn::IfThenElse(is_inner, hn::BitCast(di, inner), hn::BitCast(di, outer));
  return detail::keep_nan(d, x, hn::CopySignToAbs(hn::BitCast(d, y), x));
}

}  // namespace HWY_NAMESPACE
}  // namespace kernels
QUERN_NAMESPACE_END
HWY_AFTER_NAMESPACE();

#endif  // QUERN_KERNELS_MATH_INL_HPP
