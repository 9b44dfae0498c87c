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
#include <cstdlib>
#include <string>
#include <string_view>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace simd {

/// Instruction sets, worse before better within one architecture. `scalar` and `emu128` are
/// portable code: what plain -O2 gives on x86 with g++ and with clang.
enum class Level : int { scalar, emu128, other, neon, sve, sve2, avx2, avx512 };

/// "avx2" and the like.
[[nodiscard]] constexpr std::string_view name(Level level) noexcept {
  constexpr std::string_view names[] = {"scalar", "emu128", "other", "neon",
                                        "sve",    "sve2",   "avx2",  "avx512"};
  return names[static_cast<int>(level)];
}

/// The level that the compiler's own flags allow; the rest of the program runs on it.
inline constexpr Level static_level =
#if HWY_STATIC_TARGET == HWY_SCALAR
    Level::scalar;
#elif HWY_STATIC_TARGET == HWY_EMU128
    Level::emu128;
#elif HWY_STATIC_TARGET == HWY_AVX2
    Level::avx2;
#elif HWY_STATIC_TARGET == HWY_AVX3
    Level::avx512;
#elif HWY_STATIC_TARGET == HWY_NEON
    Level::neon;
#elif HWY_STATIC_TARGET == HWY_SVE
    Level::sve;
#elif HWY_STATIC_TARGET == HWY_SVE2
    Level::sve2;
#else
    Level::other;
#endif

namespace detail {

inline bool cpu_has_avx2() noexcept {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_cpu_init();
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
         __builtin_cpu_supports("bmi") && __builtin_cpu_supports("bmi2");
#else
  return false;
#endif
}

inline bool cpu_has_avx512() noexcept {
#if defined(__x86_64__) || defined(__i386__)
  return cpu_has_avx2() && __builtin_cpu_supports("avx512f") &&
         __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512bw");
#else
  return false;
#endif
}

// Levels that are compiled beside the static one.
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

}  // namespace detail

/// Levels that were compiled in and that this CPU can run, best first.
[[nodiscard]] inline const std::vector<Level>& attainable_levels() {
  static const std::vector<Level> levels = [] {
    std::vector<Level> found;
    if (QUERN_HAVE_AVX512 && detail::cpu_has_avx512()) found.push_back(Level::avx512);
    if (QUERN_HAVE_AVX2 && detail::cpu_has_avx2() && static_level != Level::avx512)
      found.push_back(Level::avx2);
    found.push_back(static_level);
    if (QUERN_HAVE_AVX2 && static_level == Level::avx512) found.push_back(Level::avx2);
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

inline Level choose_level() {
  const char* wanted = std::getenv("QUERN_SIMD");
  const Level level = wanted != nullptr && *wanted != '\0'
                          ? level_named(wanted, "quern::simd", "environment variable QUERN_SIMD")
                          : attainable_levels().front();
  active.store(static_cast<int>(level), std::memory_order_relaxed);
  return level;
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
