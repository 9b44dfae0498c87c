// SPDX-License-Identifier: Apache-2.0

/// \file
/// Tells Highway which targets to compile, before its first header is read.
///
/// Kept on x86: AVX-512, AVX2 and what the compiler's flags give; elsewhere only the latter. What
/// is left out gains nothing over these and costs compile time, or has vectors of unknown length
/// (SVE, RVV), which cannot be kept in arrays.
///
/// Only HWY_DISABLED_TARGETS, HWY_DISABLE_PCLMUL_AES, HWY_WANT_AVX3_DL and HWY_IS_DEBUG_BUILD are
/// set, and stay set: Highway looks at them again whenever HWY_STATIC_TARGET is used. A program's
/// own use of the static target works beside them.

#ifndef QUERN_KERNELS_TARGETS_HPP
#define QUERN_KERNELS_TARGETS_HPP

#include "quern/core/config.hpp"

// Targets whose vectors are loops over an array: where a kernel has a plain loop as well, that is
// as fast there and compiles in no time.
#define QUERN_TARGET_IS_PORTABLE (HWY_TARGET == HWY_SCALAR || HWY_TARGET == HWY_EMU128)

#if defined(HWY_HIGHWAY_INCLUDED)
#if !defined(QUERN_STATIC_SIMD)
// Its ABI namespace was chosen by the first header of quern and promises run-time levels.
#error "quern: include hwy/highway.h before all of quern's headers or after quern's kernels"
#endif
#else

#if defined(__x86_64__) || defined(__i386__) || defined(_M_X64)
// -march=haswell and x86-64-v3 have no AES, for want of which Highway would fall to SSSE3
// (highway#3029). No kernel here uses it.
#if !(defined(__AES__) && defined(__PCLMUL__)) && !defined(HWY_DISABLE_PCLMUL_AES)
#define HWY_DISABLE_PCLMUL_AES
#endif
// Highway 1.0.3 refuses -march=native on a new CPU without this; the target itself is left out.
#if !defined(HWY_WANT_AVX3_DL)
#define HWY_WANT_AVX3_DL
#endif
#endif

// Highway's own assertions (unoptimised or sanitized builds) call a function of its library, which
// nothing here links.
#if !defined(HWY_IS_DEBUG_BUILD)
#define HWY_IS_DEBUG_BUILD 0
#endif

#if defined(QUERN_STATIC_SIMD) && !defined(HWY_COMPILE_ONLY_STATIC) && \
    !defined(HWY_COMPILE_ONLY_SCALAR) && !defined(HWY_COMPILE_ONLY_EMU128)
#define HWY_COMPILE_ONLY_STATIC
#define QUERN_UNDEF_COMPILE_ONLY_STATIC
#endif

// Bits are Highway's since 1.0.3, whose names differ between versions: x86 has 0..14, of which 8 is
// AVX3, 9 AVX2, 11 SSE4, 12 SSSE3, 14 SSE2; SVE has 18..24 (24..27 in 1.0.3), RVV 37.
#if !defined(HWY_DISABLED_TARGETS)
#if defined(__x86_64__) || defined(__i386__) || defined(_M_X64)
#if defined(__AVX2__)
#define HWY_DISABLED_TARGETS 0x7CFFLL
#elif defined(__SSE4_2__)
#define HWY_DISABLED_TARGETS 0x74FFLL
#elif defined(__SSSE3__)
#define HWY_DISABLED_TARGETS 0x6CFFLL
#else
#define HWY_DISABLED_TARGETS 0x7CFFLL
#endif
#elif defined(__aarch64__) || defined(__arm__)
#define HWY_DISABLED_TARGETS 0x0FFC0000LL
#elif defined(__riscv)
#define HWY_DISABLED_TARGETS (1LL << 37)
#endif
#endif

#endif  // Highway not included yet

#include "hwy/detect_targets.h"

#if defined(QUERN_UNDEF_COMPILE_ONLY_STATIC)
#undef QUERN_UNDEF_COMPILE_ONLY_STATIC
#undef HWY_COMPILE_ONLY_STATIC
#endif

#endif  // QUERN_KERNELS_TARGETS_HPP
