// SPDX-License-Identifier: Apache-2.0

/// \file
/// Random numbers: the counter-based generator Philox4x32-10 and distributions of our own, the
/// same numbers on every platform, compiler and flag.
///
/// J. K. Salmon, M. A. Moraes, R. O. Dror, D. E. Shaw, "Parallel random numbers: as easy as
/// 1, 2, 3", SC 2011. Word i of a stream is a function of (seed, purpose, stream, i), so results
/// need not depend on which thread draws them, and any place of a stream is reached at once.
///
/// Floating-point steps go through detail::exact_*, one rounding each: neither contraction into
/// fused multiply-adds nor -ffast-math can change a bit. (x87 arithmetic, 32-bit x86 without SSE2,
/// rounds twice and is the exception.)

#ifndef QUERN_CORE_RANDOM_HPP
#define QUERN_CORE_RANDOM_HPP

#include "quern/core/config.hpp"
#include "quern/core/error.hpp"

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <string_view>
#include <unordered_set>
#include <utility>
#include <vector>

QUERN_NAMESPACE_BEGIN

/// One block of Philox4x32-10: four words from a 128-bit counter and a 64-bit key.
[[nodiscard]] constexpr std::array<std::uint32_t, 4> philox4x32(
    std::array<std::uint32_t, 4> counter, std::array<std::uint32_t, 2> key) noexcept {
  for (int round = 0; round < 10; ++round) {
    const std::uint64_t p0 = std::uint64_t{0xD2511F53U} * counter[0];
    const std::uint64_t p1 = std::uint64_t{0xCD9E8D57U} * counter[2];
    counter = {
        static_cast<std::uint32_t>(p1 >> 32) ^ counter[1] ^ key[0], static_cast<std::uint32_t>(p1),
        static_cast<std::uint32_t>(p0 >> 32) ^ counter[3] ^ key[1], static_cast<std::uint32_t>(p0)};
    key[0] += 0x9E3779B9U;
    key[1] += 0xBB67AE85U;
  }
  return counter;
}

namespace detail {

/// The value as it is, but the optimiser knows nothing of how it came about.
inline double exact_value(double x) noexcept {
#if defined(__GNUC__) && defined(__SSE2__)
  __asm__("" : "+x"(x));
#elif defined(__GNUC__) && defined(__aarch64__)
  __asm__("" : "+w"(x));
#elif defined(__GNUC__)
  __asm__("" : "+m"(x));
#else
  volatile double kept = x;
  x = kept;
#endif
  return x;
}
inline double exact_mul(double a, double b) noexcept { return exact_value(a * b); }
inline double exact_add(double a, double b) noexcept { return exact_value(a + b); }
inline double exact_div(double a, double b) noexcept { return exact_value(a / b); }
inline double exact_sqrt(double x) noexcept { return exact_value(std::sqrt(x)); }

/// c[0] + c[1] x + c[2] x^2 + … by Horner's rule.
template <std::size_t N>
double exact_polynomial(const std::array<double, N>& c, double x) noexcept {
  double sum = c[N - 1];
  for (std::size_t i = N - 1; i-- > 0;) sum = exact_add(exact_mul(sum, x), c[i]);
  return sum;
}

/// Natural logarithm of a positive normal number, within 2 ulp of the true one (3e-16 absolute
/// around 1), with the same bits everywhere: x = 2^e m with m in [sqrt(1/2), sqrt(2)), and
/// log m = 2 artanh(s) with s = (m-1)/(m+1), |s| < 0.172, by its series to s^21.
inline double exact_log(double x) noexcept {
  static constexpr std::array<double, 11> series = {2.0,        2.0 / 3.0,  2.0 / 5.0,  2.0 / 7.0,
                                                    2.0 / 9.0,  2.0 / 11.0, 2.0 / 13.0, 2.0 / 15.0,
                                                    2.0 / 17.0, 2.0 / 19.0, 2.0 / 21.0};
  const std::uint64_t bits = std::bit_cast<std::uint64_t>(x);
  // Moves the mantissas from sqrt(2) on to the next exponent.
  const std::uint64_t sqrt_half = 0x3FE6A09E667F3BCDULL;
  const std::uint64_t shifted = bits - sqrt_half;
  const std::int64_t e = static_cast<std::int64_t>(shifted) >> 52;
  const double m = std::bit_cast<double>(bits - (static_cast<std::uint64_t>(e) << 52));
  const double s = exact_div(exact_add(m, -1.0), exact_add(m, 1.0));
  const double log_m = exact_mul(s, exact_polynomial(series, exact_mul(s, s)));
  // ln 2 in two parts, the first with so few bits that its multiple is exact.
  const double k = static_cast<double>(e);
  const double low = exact_add(exact_mul(k, 1.90821492927058770002e-10), log_m);
  return exact_add(exact_mul(k, 6.93147180369123816490e-01), low);
}

/// Quantile of the standard normal distribution at q + 1/2, where `tail` = min(p, 1 - p) is given
/// exactly: algorithm AS 241 (PPND16), M. J. Wichura, Applied Statistics 37 (1988), relative
/// error about 1e-16.
inline double normal_quantile(double q, double tail) noexcept {
  static constexpr std::array<double, 8> a = {3.3871328727963666080e0, 1.3314166789178437745e2,
                                              1.9715909503065514427e3, 1.3731693765509461125e4,
                                              4.5921953931549871457e4, 6.7265770927008700853e4,
                                              3.3430575583588128105e4, 2.5090809287301226727e3};
  static constexpr std::array<double, 8> b = {1.0,
                                              4.2313330701600911252e1,
                                              6.8718700749205790830e2,
                                              5.3941960214247511077e3,
                                              2.1213794301586595867e4,
                                              3.9307895800092710610e4,
                                              2.8729085735721942674e4,
                                              5.2264952788528545610e3};
  static constexpr std::array<double, 8> c = {1.42343711074968357734e0,  4.63033784615654529590e0,
                                              5.76949722146069140550e0,  3.64784832476320460504e0,
                                              1.27045825245236838258e0,  2.41780725177450611770e-1,
                                              2.27238449892691845833e-2, 7.74545014278341407640e-4};
  static constexpr std::array<double, 8> d = {1.0,
                                              2.05319162663775882187e0,
                                              1.67638483018380384940e0,
                                              6.89767334985100004550e-1,
                                              1.48103976427480074590e-1,
                                              1.51986665636164571966e-2,
                                              5.47593808499534494600e-4,
                                              1.05075007164441684324e-9};
  static constexpr std::array<double, 8> e = {6.65790464350110377720e0,  5.46378491116411436990e0,
                                              1.78482653991729133580e0,  2.96560571828504891230e-1,
                                              2.65321895265761230930e-2, 1.24266094738807843860e-3,
                                              2.71155556874348757815e-5, 2.01033439929228813265e-7};
  static constexpr std::array<double, 8> f = {1.0,
                                              5.99832206555887937690e-1,
                                              1.36929880922735805310e-1,
                                              1.48753612908506148525e-2,
                                              7.86869131145613259100e-4,
                                              1.84631831751005468180e-5,
                                              1.42151175831644588870e-7,
                                              2.04426310338993978564e-15};
  if (q >= -0.425 && q <= 0.425) {
    const double r = exact_add(0.180625, -exact_mul(q, q));
    return exact_div(exact_mul(q, exact_polynomial(a, r)), exact_polynomial(b, r));
  }
  const double r = exact_sqrt(-exact_log(tail));
  const double far = exact_add(r, r <= 5.0 ? -1.6 : -5.0);
  const double z = r <= 5.0 ? exact_div(exact_polynomial(c, far), exact_polynomial(d, far))
                            : exact_div(exact_polynomial(e, far), exact_polynomial(f, far));
  return q < 0 ? -z : z;
}

/// High and low half of a 64 x 64 bit product.
struct WideProduct {
  std::uint64_t high = 0;
  std::uint64_t low = 0;
};
constexpr WideProduct wide_product(std::uint64_t a, std::uint64_t b) noexcept {
  const std::uint64_t mask = 0xffffffffULL;
  const std::uint64_t ll = (a & mask) * (b & mask);
  const std::uint64_t hl = (a >> 32) * (b & mask);
  const std::uint64_t lh = (a & mask) * (b >> 32);
  const std::uint64_t middle = (ll >> 32) + (hl & mask) + lh;
  return {(a >> 32) * (b >> 32) + (hl >> 32) + (middle >> 32), (middle << 32) | (ll & mask)};
}

/// Finaliser of splitmix64: every input bit reaches every output bit.
constexpr std::uint64_t mix_bits(std::uint64_t x) noexcept {
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ULL;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBULL;
  return x ^ (x >> 31);
}

/// FNV-1a, 64 bit.
constexpr std::uint64_t hash_text(std::string_view text) noexcept {
  std::uint64_t h = 0xCBF29CE484222325ULL;
  for (char c : text) h = (h ^ static_cast<unsigned char>(c)) * 0x100000001B3ULL;
  return h;
}

}  // namespace detail

/// A stream of random numbers. Seed and purpose make the key, so different purposes ("row sample",
/// "column sample") draw independently from one seed; `stream` (a round, a row, a worker's block)
/// is half of the counter. 2^64 words a stream. Also a UniformRandomBitGenerator, but the standard
/// library's distributions differ between platforms: use the members.
class Philox {
 public:
  using result_type = std::uint32_t;

  explicit constexpr Philox(std::uint64_t seed = 0) noexcept : Philox(seed, 0U) {}
  /// The purpose as a number…
  template <std::integral Purpose>
  constexpr Philox(std::uint64_t seed, Purpose purpose, std::uint64_t stream = 0) noexcept
      : key_(detail::mix_bits(detail::mix_bits(seed + 0x9E3779B97F4A7C15ULL) ^
                              (static_cast<std::uint64_t>(purpose) * 0xD1342543DE82EF95ULL))),
        stream_(stream) {}
  /// … or as words.
  constexpr Philox(std::uint64_t seed, std::string_view purpose, std::uint64_t stream = 0) noexcept
      : Philox(seed, detail::hash_text(purpose), stream) {}

  static constexpr result_type(min)() noexcept { return 0; }
  static constexpr result_type(max)() noexcept { return 0xffffffffU; }
  constexpr result_type operator()() noexcept { return next_u32(); }

  /// The same seed and purpose, another stream, from its beginning.
  [[nodiscard]] constexpr Philox with_stream(std::uint64_t stream) const noexcept {
    Philox other = *this;
    other.stream_ = stream;
    other.seek(0);
    return other;
  }

  /// Words drawn so far, or sought.
  [[nodiscard]] constexpr std::uint64_t position() const noexcept { return position_; }
  /// Goes to any word of the stream, forwards or backwards.
  constexpr void seek(std::uint64_t position) noexcept {
    position_ = position;
    if (position % 4 != 0) block_ = words(position / 4);
  }
  /// Word `position` of the stream; draws nothing.
  [[nodiscard]] constexpr std::uint32_t at(std::uint64_t position) const noexcept {
    return words(position / 4)[position % 4];
  }

  /// 32 random bits (one word).
  constexpr std::uint32_t next_u32() noexcept {
    if (position_ % 4 == 0) block_ = words(position_ / 4);
    return block_[position_++ % 4];
  }
  /// 64 random bits (two words, the first is the lower half).
  constexpr std::uint64_t next_u64() noexcept {
    const std::uint64_t low = next_u32();
    return low | (std::uint64_t{next_u32()} << 32);
  }

  /// Uniform in [0, 1): multiples of 2^-24 (float, one word) or 2^-53 (double, two words).
  template <std::floating_point T = double>
  T uniform() noexcept {
    if constexpr (std::same_as<T, float>) {
      return static_cast<float>(next_u32() >> 8) * 0x1p-24F;
    } else {
      return static_cast<T>(static_cast<double>(next_u64() >> 11) * 0x1p-53);
    }
  }
  /// Uniform in [low, high), computed in double; never `high` itself (unless low == high).
  template <std::floating_point T>
  T uniform(T low, T high) noexcept {
    const double from = static_cast<double>(low);
    const double width = detail::exact_add(static_cast<double>(high), -from);
    const T x =
        static_cast<T>(detail::exact_add(detail::exact_mul(width, uniform<double>()), from));
    return x < high || low == high ? x : std::nextafter(high, low);
  }

  /// Uniform in {0, …, n-1} without bias; ValueError for n = 0. D. Lemire, "Fast random integer
  /// generation in an interval", ACM TOMACS 29 (2019). One word for n <= 2^32 (more with
  /// probability below n / 2^32), else two.
  std::uint64_t integer(std::uint64_t n) {
    if (n == 0) throw ValueError(error_text("quern::Philox::integer", "n", "at least 1", n));
    if (n <= 0xffffffffULL) return small_integer(static_cast<std::uint32_t>(n));
    detail::WideProduct p = detail::wide_product(next_u64(), n);
    if (p.low < n) {
      const std::uint64_t threshold = (0 - n) % n;
      while (p.low < threshold) p = detail::wide_product(next_u64(), n);
    }
    return p.high;
  }

  /// True with probability p (two words). p <= 0: never, p >= 1: always.
  bool bernoulli(double p) noexcept { return uniform<double>() < p; }

  /// Standard normal, by inversion (two words, so number i of a stream is at word 2 i). Reaches
  /// 8.2 standard deviations. The float is the double rounded.
  template <std::floating_point T = double>
  T normal() noexcept {
    // p = (2 k + 1) / 2^53: symmetric, never 0 or 1, and p, 1 - p, p - 1/2 are exact.
    const std::int64_t odd = static_cast<std::int64_t>(next_u64() >> 12) * 2 + 1;
    const std::int64_t one = std::int64_t{1} << 53;
    const double q = static_cast<double>(odd - one / 2) * 0x1p-53;
    const double tail = static_cast<double>((std::min)(odd, one - odd)) * 0x1p-53;
    return static_cast<T>(detail::normal_quantile(q, tail));
  }
  /// Normal with this mean and standard deviation.
  template <std::floating_point T>
  T normal(T mean, T deviation) noexcept {
    return static_cast<T>(
        detail::exact_add(detail::exact_mul(normal<double>(), static_cast<double>(deviation)),
                          static_cast<double>(mean)));
  }

  /// Exponential with rate 1 (mean 1): -log(1 - u), two words.
  template <std::floating_point T = double>
  T exponential() noexcept {
    const double u = static_cast<double>((next_u64() >> 11) + 1) * 0x1p-53;  // (0, 1]
    return static_cast<T>(0.0 - detail::exact_log(u));
  }

  /// Puts the values in random order (Fisher and Yates).
  template <class T>
  void shuffle(std::span<T> values) {
    for (std::size_t i = values.size(); i > 1; --i) {
      using std::swap;
      swap(values[i - 1], values[static_cast<std::size_t>(integer(i))]);
    }
  }
  template <class T>
  void shuffle(std::vector<T>& values) {
    shuffle(std::span<T>(values));
  }

  /// k different numbers of {0, …, n-1}, each set equally likely, in ascending order (R. W. Floyd,
  /// CACM 30 (1987)). ValueError unless 0 <= k <= n.
  [[nodiscard]] std::vector<std::int64_t> sample(std::int64_t n, std::int64_t k) {
    if (k < 0 || k > n) {
      throw ValueError(error_text("quern::Philox::sample", "k",
                                  "0.." + std::to_string((std::max)(n, std::int64_t{0})), k));
    }
    std::vector<std::int64_t> chosen;
    chosen.reserve(static_cast<std::size_t>(k));
    if (n / 64 <= k) {  // a bit for each number is no more memory than the result
      sample_marked(n, k, chosen);
    } else {
      std::unordered_set<std::int64_t> seen;
      for (std::int64_t j = n - k; j < n; ++j) {
        const auto t = static_cast<std::int64_t>(integer(static_cast<std::uint64_t>(j) + 1));
        chosen.push_back(seen.insert(t).second ? t : (seen.insert(j), j));
      }
      std::sort(chosen.begin(), chosen.end());
    }
    return chosen;
  }

 private:
  [[nodiscard]] constexpr std::array<std::uint32_t, 4> words(std::uint64_t block) const noexcept {
    return philox4x32(
        {static_cast<std::uint32_t>(block), static_cast<std::uint32_t>(block >> 32),
         static_cast<std::uint32_t>(stream_), static_cast<std::uint32_t>(stream_ >> 32)},
        {static_cast<std::uint32_t>(key_), static_cast<std::uint32_t>(key_ >> 32)});
  }

  std::uint64_t small_integer(std::uint32_t n) noexcept {
    std::uint64_t p = std::uint64_t{next_u32()} * n;
    if (static_cast<std::uint32_t>(p) < n) {
      const std::uint32_t threshold = (0 - n) % n;
      while (static_cast<std::uint32_t>(p) < threshold) p = std::uint64_t{next_u32()} * n;
    }
    return p >> 32;
  }

  void sample_marked(std::int64_t n, std::int64_t k, std::vector<std::int64_t>& chosen) {
    std::vector<bool> seen(static_cast<std::size_t>(n), false);
    for (std::int64_t j = n - k; j < n; ++j) {
      const auto t = static_cast<std::size_t>(integer(static_cast<std::uint64_t>(j) + 1));
      seen[seen[t] ? static_cast<std::size_t>(j) : t] = true;
    }
    for (std::int64_t i = 0; i < n; ++i) {
      if (seen[static_cast<std::size_t>(i)]) chosen.push_back(i);
    }
  }

  std::uint64_t key_;
  std::uint64_t stream_;
  std::uint64_t position_ = 0;
  std::array<std::uint32_t, 4> block_{};
};

QUERN_NAMESPACE_END

#endif  // QUERN_CORE_RANDOM_HPP
