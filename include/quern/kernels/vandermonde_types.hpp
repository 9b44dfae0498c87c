// SPDX-License-Identifier: Apache-2.0

/// \file
/// What the kernels of sums of powers work on. A tile is power_lanes<T> channels; per mode a tile
/// has the real parts of all channels, then the imaginary parts ("2 lanes"). 64-byte aligned.

#ifndef QUERN_KERNELS_VANDERMONDE_TYPES_HPP
#define QUERN_KERNELS_VANDERMONDE_TYPES_HPP

#include "quern/core/config.hpp"

#include <cstddef>

QUERN_NAMESPACE_BEGIN
namespace kernels {

/// Channels of a tile: 64 bytes of them.
template <class T>
inline constexpr std::size_t power_lanes = 64 / sizeof(T);

/// Rows that a power in T goes on by itself before it starts again from one in double.
inline constexpr std::size_t power_block = 32;

/// Row l (+)= sum over modes of Re(g q^l).
template <class T>
struct PowerSumTask {
  std::size_t modes = 0;
  std::size_t rows = 0;
  std::size_t channels = 0;         ///< at most power_lanes<T>
  const T* q = nullptr;             ///< (modes, 2 lanes)
  const double* q_block = nullptr;  ///< (modes, 2 lanes): q^power_block
  double* g = nullptr;              ///< (modes, 2 lanes); becomes g q^(rows, rounded up to blocks)
  T* out = nullptr;
  std::ptrdiff_t stride = 0;  ///< from row to row, may be negative
  bool add = false;           ///< to what out holds
};

/// p = sum_l x_l q^l and r = sum_l l x_l q^(l-1).
template <class T>
struct PowerMomentsTask {
  std::size_t modes = 0;
  std::size_t rows = 0;
  std::size_t channels = 0;
  const T* q = nullptr;
  const double* q_block = nullptr;
  const double* q_slope = nullptr;  ///< (modes, 2 lanes): power_block q^(power_block - 1)
  const T* x = nullptr;
  std::ptrdiff_t stride = 0;
  double* p = nullptr;  ///< (modes, 2 lanes)
  double* r = nullptr;
};

}  // namespace kernels
QUERN_NAMESPACE_END

#endif  // QUERN_KERNELS_VANDERMONDE_TYPES_HPP
