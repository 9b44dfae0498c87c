// SPDX-License-Identifier: Apache-2.0

/// \file
/// Tells Highway which targets to compile, before its first header is read. What is set here stays
/// set, since Highway looks at it again whenever a macro of its is used.

#ifndef QUERN_KERNELS_TARGETS_HPP
#define QUERN_KERNELS_TARGETS_HPP

#include "quern/core/config.hpp"

#if !defined(HWY_HIGHWAY_INCLUDED)

#if defined(__x86_64__) || defined(__i386__) || defined(_M_X64)
// -march=haswell and x86-64-v3 have no AES, for want of which Highway would fall to SSSE3
// (highway#3029). No kernel here uses it.
#if !defined(__AES__) && !defined(HWY_DISABLE_PCLMUL_AES)
#define HWY_DISABLE_PCLMUL_AES
#endif
// Highway 1.0.3 refuses -march=native on a new CPU without this; the target itself is left out.
#if !defined(HWY_WANT_AVX3_DL)
#define HWY_WANT_AVX3_DL
#endif
#endif

#if defined(QUERN_STATIC_SIMD) && !defined(HWY_COMPILE_ONLY_STATIC) && \
    !defined(HWY_COMPILE_ONLY_SCALAR) && !defined(HWY_COMPILE_ONLY_EMU128)
#define HWY_COMPILE_ONLY_STATIC
#endif

// Targets that gain nothing over the ones that are kept, and cost compile time. Their names differ
// between versions of Highway, and a name that does not exist counts as 0 inside #if alone.
#include "hwy/detect_compiler_arch.h"

#if !defined(HWY_DISABLED_TARGETS)
#if defined(__x86_64__) || defined(__i386__) || defined(_M_X64)
#define HWY_DISABLED_TARGETS QUERN_DISABLED_TARGETS
// Bits of detect_targets.h: everything on x86 but AVX3 (bit 8), AVX2 (9) and the portable ones.
#define QUERN_DISABLED_TARGETS ((1LL << 15) - 1 - (1LL << 8) - (1LL << 9))
#endif
#endif

#endif  // Highway not included yet

#include "hwy/detect_targets.h"

#endif  // QUERN_KERNELS_TARGETS_HPP
