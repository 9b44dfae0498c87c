// SPDX-License-Identifier: Apache-2.0

/// \file
/// Which instruction set kernels run on: the best that was compiled in and that this CPU has. Name
/// it, list the others, force one by call (simd::set_level) or by the environment (QUERN_SIMD).
///
/// Highway has a chooser too, but in a library that would have to be linked.

#ifndef QUERN_KERNELS_SIMD_HPP
#define QUERN_KERNELS_SIMD_HPP

#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/kernels/targets.hpp"

#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

// Levels that are compiled beside the static one. (Written out, for a macro that expands to
// `defined` is undefined behaviour.)
#if !defined(QUERN_STATIC_SIMD) && (HWY_TARGETS & HWY_AVX3) && HWY_STATIC_TARGET != HWY_AVX3
#define QUERN_HAVE_AVX512 1
#else
#define QUERN_HAVE_AVX512 0
#endif
#if !defined(QUERN_STATIC_SIMD) && (HWY_TARGETS & HWY_AVX2) && HWY_STATIC_TARGET != HWY_AVX2
#define QUERN_HAVE_AVX2 1
#else
#define QUERN_HAVE_AVX2 0
#endif
#if !defined(QUERN_STATIC_SIMD) && (HWY_TARGETS & HWY_SCALAR) && HWY_STATIC_TARGET != HWY_SCALAR
#define QUERN_HAVE_SCALAR 1
#else
#define QUERN_HAVE_SCALAR 0
#endif
#if !defined(QUERN_STATIC_SIMD) && (HWY_TARGETS & HWY_EMU128) && HWY_STATIC_TARGET != HWY_EMU128
#define QUERN_HAVE_EMU128 1
#else
#define QUERN_HAVE_EMU128 0
#endif

#if QUERN_HAVE_AVX2 || QUERN_HAVE_AVX512
#include <cpuid.h>
#endif

QUERN_NAMESPACE_BEGIN
namespace simd {

/// Instruction sets, worse before better within one architecture. `scalar` and `emu128` are
/// portable code: what plain -O2 gives on x86 with g++ and with clang. `sse2`, `ssse3` and `sse4`
/// are there only where the compiler's flags ask for just that.
enum class Level : int { scalar, emu128, other, neon, sve, sve2, sse2, ssse3, sse4, avx2, avx512 };

/// "avx2" and the like.
[[nodiscard]] constexpr std::string_view name(Level level) noexcept {
  constexpr std::string_view names[] = {"scalar", "emu128", "other", "neon", "sve",   "sve2",
                                        "sse2",   "ssse3",  "sse4",  "avx2", "avx512"};
  return names[static_cast<int>(level)];
}

/// The level that the compiler's own flags allow; the rest of the program runs on it.
inline constexpr Level static_level =
#if HWY_STATIC_TARGET == HWY_SCALAR
    Level::scalar;
#elif HWY_STATIC_TARGET == HWY_EMU128
    Level::emu128;
#elif defined(HWY_SSE2) && HWY_STATIC_TARGET == HWY_SSE2
    Level::sse2;
#elif HWY_STATIC_TARGET == HWY_SSSE3
    Level::ssse3;
#elif HWY_STATIC_TARGET == HWY_SSE4
    Level::sse4;
#elif HWY_STATIC_TARGET == HWY_AVX2
    Level::avx2;
#elif HWY_STATIC_TARGET <= HWY_AVX3  // and its refinements: lower bits are better
    Level::avx512;
#elif HWY_STATIC_TARGET == HWY_NEON
    Level::neon;
#elif defined(HWY_NEON_WITHOUT_AES) && HWY_STATIC_TARGET == HWY_NEON_WITHOUT_AES
    Level::neon;
#elif HWY_STATIC_TARGET == HWY_SVE
    Level::sve;
#elif HWY_STATIC_TARGET == HWY_SVE2
    Level::sve2;
#else
    Level::other;
#endif

namespace detail {

#if QUERN_HAVE_AVX2 || QUERN_HAVE_AVX512
/// What the CPU has and the system saves on a task switch.
struct CpuFeatures {
  bool avx2 = false;
  bool avx512 = false;
};

inline std::uint64_t enabled_state() noexcept {
  std::uint32_t low = 0, high = 0;
  asm volatile("xgetbv" : "=a"(low), "=d"(high) : "c"(0));
  return (std::uint64_t{high} << 32) | low;
}

inline CpuFeatures detect_cpu() noexcept {
  CpuFeatures found;
  unsigned a = 0, b = 0, c1 = 0, b7 = 0, c = 0, d = 0;
  if (__get_cpuid(1, &a, &b, &c1, &d) == 0) return found;
  if (__get_cpuid_count(7, 0, &a, &b7, &c, &d) == 0) return found;
  constexpr unsigned os_saves = 1u << 27, fma = 1u << 12, avx = 1u << 28, f16c = 1u << 29;
  constexpr unsigned bmi1 = 1u << 3, avx2 = 1u << 5, bmi2 = 1u << 8;
  constexpr unsigned avx512 =
      1u << 16 | 1u << 17 | 1u << 28 | 1u << 30 | 1u << 31;  // F DQ CD BW VL
  if ((c1 & os_saves) == 0) return found;
  const std::uint64_t state = enabled_state();
  const unsigned wanted1 = fma | avx | f16c, wanted7 = bmi1 | avx2 | bmi2;
  found.avx2 = (state & 0x6) == 0x6 && (c1 & wanted1) == wanted1 && (b7 & wanted7) == wanted7;
  found.avx512 = found.avx2 && (state & 0xE6) == 0xE6 && (b7 & avx512) == avx512;
  return found;
}
#else
struct CpuFeatures {
  bool avx2 = false;
  bool avx512 = false;
};
inline CpuFeatures detect_cpu() noexcept { return {}; }
#endif

}  // namespace detail

/// Levels that were compiled in and that this CPU can run, best first.
[[nodiscard]] inline const std::vector<Level>& attainable_levels() {
  static const std::vector<Level> levels = [] {
    const detail::CpuFeatures cpu = detail::detect_cpu();
    std::vector<Level> found;
    // The static level is at its place among them: a program compiled for it runs on it.
    const auto add = [&found](bool have, Level level) {
      if (have && static_level < level) found.push_back(level);
    };
    add(QUERN_HAVE_AVX512 && cpu.avx512, Level::avx512);
    add(QUERN_HAVE_AVX2 && cpu.avx2, Level::avx2);
    found.push_back(static_level);
    if (QUERN_HAVE_AVX2 && static_level > Level::avx2) found.push_back(Level::avx2);
    if (QUERN_HAVE_EMU128) found.push_back(Level::emu128);
    if (QUERN_HAVE_SCALAR) found.push_back(Level::scalar);
    return found;
  }();
  return levels;
}

namespace detail {

inline std::string level_names() {
  std::string names;
  for (const Level level : attainable_levels()) {
    if (!names.empty()) names += ", ";
    names += name(level);
  }
  return names;
}

inline Level level_named(std::string_view wanted, std::string_view function,
                         std::string_view argument) {
  for (const Level level : attainable_levels()) {
    if (name(level) == wanted) return level;
  }
  throw ValueError(error_text(function, argument, "one of " + level_names(), wanted));
}

/// -1 until the first use.
inline std::atomic<int> active{-1};

/// What the environment variable's value asks for; null and "" ask for the best.
inline Level level_from(const char* text) {
  if (text == nullptr || *text == '\0') return attainable_levels().front();
  return level_named(text, "quern::simd", "environment variable QUERN_SIMD");
}

/// At the first use. Of two threads that come at once both find the same, unless set_level() was
/// quicker: then its choice stays.
inline Level choose_level() {
  int before = -1;
  const Level level = level_from(std::getenv("QUERN_SIMD"));
  const bool first = active.compare_exchange_strong(before, static_cast<int>(level));
  return first ? level : static_cast<Level>(before);
}

}  // namespace detail

/// The level that kernels run on now. Starts as the best attainable one, or what the environment
/// variable QUERN_SIMD names; ValueError when it names none of attainable_levels().
[[nodiscard]] inline Level active_level() {
  const int level = detail::active.load(std::memory_order_relaxed);
  return level >= 0 ? static_cast<Level>(level) : detail::choose_level();
}

/// Makes kernels run on \p level from now on, in all threads. Results differ between levels within
/// each function's stated tolerance. ValueError unless the level is attainable.
inline void set_level(Level level) {
  detail::active.store(
      static_cast<int>(detail::level_named(name(level), "quern::simd::set_level", "level")),
      std::memory_order_relaxed);
}

/// Forces a level for a scope (tests, measurements).
class ScopedLevel {
 public:
  explicit ScopedLevel(Level level) : before_(active_level()) { set_level(level); }
  ~ScopedLevel() { detail::active.store(static_cast<int>(before_), std::memory_order_relaxed); }
  ScopedLevel(const ScopedLevel&) = delete;
  ScopedLevel& operator=(const ScopedLevel&) = delete;

 private:
  Level before_;
};

}  // namespace simd
QUERN_NAMESPACE_END

#endif  // QUERN_KERNELS_SIMD_HPP
