// SPDX-License-Identifier: Apache-2.0

/// \file
/// What every header of quern needs first: the version and the namespace that all of it lives in.
///
/// Code whose meaning changes with a compiler flag must not meet itself under one name when two
/// translation units of a program were built with different flags. So everything lives in an inline
/// namespace whose name holds the version, Eigen's alignment, the instruction set that the compiler
/// was allowed to use, and whether SIMD targets are chosen at run time or fixed.
///
/// Eigen itself is not needed here: predicting (quern/predict.hpp) goes without it. Its alignment
/// is worked out from the same macros that Eigen looks at, and core/eigen_view.hpp, through which
/// Eigen comes in, checks that Eigen agrees.

#ifndef QUERN_CORE_CONFIG_HPP
#define QUERN_CORE_CONFIG_HPP

#include "quern/version.hpp"

// What EIGEN_MAX_ALIGN_BYTES is, or will be once Eigen is included.
#if defined(EIGEN_DONT_ALIGN)
#define QUERN_ABI_ALIGN 0
#elif defined(EIGEN_MAX_ALIGN_BYTES)
#define QUERN_ABI_ALIGN EIGEN_MAX_ALIGN_BYTES
#elif defined(EIGEN_DONT_VECTORIZE)
#define QUERN_ABI_ALIGN 0
#elif defined(__AVX512F__)
#define QUERN_ABI_ALIGN 64
#elif defined(__AVX__)
#define QUERN_ABI_ALIGN 32
#else
#define QUERN_ABI_ALIGN 16
#endif

// Highway included before quern has already fixed its target: only that one can be compiled then.
// A user may also ask for it: QUERN_STATIC_SIMD compiles kernels for the compiler's own target
// only.
#if defined(QUERN_STATIC_SIMD)
#define QUERN_SIMD_MODE static
#elif defined(HWY_HIGHWAY_INCLUDED)
#define QUERN_STATIC_SIMD
#define QUERN_SIMD_MODE first
#else
#define QUERN_SIMD_MODE runtime
#endif

#if defined(__AVX512F__)
#define QUERN_ABI_ISA avx512
#elif defined(__AVX2__) && defined(__FMA__)
#define QUERN_ABI_ISA avx2
#elif defined(__AVX__)
#define QUERN_ABI_ISA avx
#elif defined(__SSE4_1__)
#define QUERN_ABI_ISA sse4
#elif defined(__SSSE3__)
#define QUERN_ABI_ISA ssse3
#elif defined(__ARM_FEATURE_SVE)
#define QUERN_ABI_ISA sve
#else
#define QUERN_ABI_ISA base
#endif

#define QUERN_ABI_PASTE(version, align, isa, mode) v##version##_a##align##_##isa##_##mode
#define QUERN_ABI_NAME(version, align, isa, mode) QUERN_ABI_PASTE(version, align, isa, mode)
/// Name of the inline namespace (see the file comment).
#define QUERN_ABI QUERN_ABI_NAME(QUERN_VERSION_ABI, QUERN_ABI_ALIGN, QUERN_ABI_ISA, QUERN_SIMD_MODE)

// clang-format off
#define QUERN_NAMESPACE_BEGIN namespace quern { inline namespace QUERN_ABI {
#define QUERN_NAMESPACE_END } }
// clang-format on

#endif  // QUERN_CORE_CONFIG_HPP
