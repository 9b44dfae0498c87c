// SPDX-License-Identifier: Apache-2.0

/// \file
/// What the Fourier transforms of fft-inl.hpp work on.
///
/// A tile is fft_lanes<T> channels side by side. Point j of a transform is 2 fft_lanes<T> numbers:
/// the real parts of all channels, then the imaginary parts. Tiles are 64-byte aligned.

#ifndef QUERN_KERNELS_FFT_TYPES_HPP
#define QUERN_KERNELS_FFT_TYPES_HPP

#include "quern/core/config.hpp"

#include <cstddef>

QUERN_NAMESPACE_BEGIN
namespace kernels {

/// Channels of a tile: 64 bytes of them.
template <class T>
inline constexpr std::size_t fft_lanes = 64 / sizeof(T);

/// Numbers that a point of a tile takes.
template <class T>
inline constexpr std::size_t fft_point = 2 * fft_lanes<T>;

/// Tables of a transform of `size` points, a power of two; made by kernels::FftTables.
template <class T>
struct FftTask {
  std::size_t size = 1;
  const T* twiddles = nullptr;  ///< see FftTables
  const T* twist = nullptr;     ///< size complex numbers e^(i pi j / (2 size))
  const T* untwist = nullptr;   ///< the same divided by size
};

/// Real rows of some channels: row j is at data + j stride.
template <class T>
struct FftRows {
  T* data = nullptr;
  std::ptrdiff_t stride = 0;
  std::size_t rows = 0;      ///< those beyond are 0 when read, and not written
  std::size_t channels = 0;  ///< at most fft_lanes<T>
};

}  // namespace kernels
QUERN_NAMESPACE_END

#endif  // QUERN_KERNELS_FFT_TYPES_HPP
