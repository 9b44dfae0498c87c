// SPDX-License-Identifier: Apache-2.0

/// \file
/// The only way in to the SIMD kernels: compiles all of them for every target, and QUERN_DISPATCH
/// calls one on the level that is active.
///
/// One translation unit can make one such pass, so a program's own Highway code with
/// foreach_target.h belongs into a file that does not include quern; its use of the static target
/// alone is fine beside quern. Where hwy/highway.h was included first, only the compiler's own
/// target is left to compile for: that is a slower quern, in a namespace of its own.

#ifndef QUERN_KERNELS_KERNELS_HPP
#define QUERN_KERNELS_KERNELS_HPP

#include "quern/core/config.hpp"
#include "quern/kernels/simd.hpp"
#include "quern/kernels/targets.hpp"

#if QUERN_HAVE_AVX512 || QUERN_HAVE_AVX2 || QUERN_HAVE_EMU128 || QUERN_HAVE_SCALAR
#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "quern/kernels/all-inl.hpp"
#include "hwy/foreach_target.h"
#undef HWY_TARGET_INCLUDE
#endif

#include "quern/kernels/all-inl.hpp"

QUERN_NAMESPACE_BEGIN
namespace kernels {
/// Kernels for the compiler's own target.
namespace N_STATIC_TARGET = HWY_NAMESPACE;
}  // namespace kernels
QUERN_NAMESPACE_END

#if QUERN_HAVE_AVX512
#define QUERN_DISPATCH_AVX512(level, ...) \
  (level) == ::quern::simd::Level::avx512 ? ::quern::kernels::N_AVX3::__VA_ARGS__:
#else
#define QUERN_DISPATCH_AVX512(level, ...)
#endif
#if QUERN_HAVE_AVX2
#define QUERN_DISPATCH_AVX2(level, ...) \
  (level) == ::quern::simd::Level::avx2 ? ::quern::kernels::N_AVX2::__VA_ARGS__:
#else
#define QUERN_DISPATCH_AVX2(level, ...)
#endif
#if QUERN_HAVE_EMU128
#define QUERN_DISPATCH_EMU128(level, ...) \
  (level) == ::quern::simd::Level::emu128 ? ::quern::kernels::N_EMU128::__VA_ARGS__:
#else
#define QUERN_DISPATCH_EMU128(level, ...)
#endif
#if QUERN_HAVE_SCALAR
#define QUERN_DISPATCH_SCALAR(level, ...) \
  (level) == ::quern::simd::Level::scalar ? ::quern::kernels::N_SCALAR::__VA_ARGS__:
#else
#define QUERN_DISPATCH_SCALAR(level, ...)
#endif

/// QUERN_DISPATCH_AT(level, kernel<T>(arguments...)) calls that kernel on that level, one of
/// simd::attainable_levels(), and has its value. The arguments are written once for each target but
/// evaluated once; `level` should be a variable.
#define QUERN_DISPATCH_AT(level, ...) \
  (static_cast<void>(level), QUERN_DISPATCH_TO(level, __VA_ARGS__))

// clang-format off
#define QUERN_DISPATCH_TO(level, ...)              \
  (QUERN_DISPATCH_AVX512(level, __VA_ARGS__)       \
   QUERN_DISPATCH_AVX2(level, __VA_ARGS__)         \
   QUERN_DISPATCH_EMU128(level, __VA_ARGS__)       \
   QUERN_DISPATCH_SCALAR(level, __VA_ARGS__)       \
   ::quern::kernels::N_STATIC_TARGET::__VA_ARGS__)
// clang-format on

/// QUERN_DISPATCH(kernel<T>(arguments...)) calls that kernel on the active level.
#define QUERN_DISPATCH(...) QUERN_DISPATCH_TO(::quern::simd::active_level(), __VA_ARGS__)

#endif  // QUERN_KERNELS_KERNELS_HPP
