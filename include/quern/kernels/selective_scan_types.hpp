// SPDX-License-Identifier: Apache-2.0

/// \file
/// What a room passes to the kernels of the selective scan: one sequence, some channels.

#ifndef QUERN_KERNELS_SELECTIVE_SCAN_TYPES_HPP
#define QUERN_KERNELS_SELECTIVE_SCAN_TYPES_HPP

#include "quern/core/config.hpp"

#include <cstddef>

QUERN_NAMESPACE_BEGIN
namespace kernels {

/// Steps of a time tile; states are kept where tiles begin, for the way back.
inline constexpr std::ptrdiff_t selective_scan_tile = 32;

/// Rows of `channels` adjacent elements, one row a step (or a state); null is left out.
template <class T>
struct ScanRows {
  T* data = nullptr;
  std::ptrdiff_t stride = 0;  ///< elements from row to row

  [[nodiscard]] constexpr T* row(std::ptrdiff_t i) const { return data + i * stride; }
};

/// h = e^(dt a) h + dt u b, y = (h . c + skip u) silu(z), with dt = softplus(delta + bias) or
/// delta as it is.
template <class T>
struct SelectiveScanTask {
  std::ptrdiff_t steps = 0;
  std::ptrdiff_t channels = 0;
  std::ptrdiff_t states = 0;
  ScanRows<const T> u, delta, z;  ///< (steps, channels); z may be null
  ScanRows<const T> b, c;         ///< (steps, states), or (states, channels) when fixed
  bool fixed = false;
  ScanRows<const T> a;      ///< (states, channels), not above 0
  const T* skip = nullptr;  ///< one a channel, or null
  const T* bias = nullptr;  ///< one a channel, or null
  bool softplus = false;
  ScanRows<T> h;                 ///< (states, channels): before the first step, then after the last
  ScanRows<T> y;                 ///< (steps, channels)
  ScanRows<T> kept;              ///< (states, channels) before each tile, or null
  std::ptrdiff_t kept_tile = 0;  ///< elements of `kept` from tile to tile
};

/// What a scan found, as bits.
enum ScanFinding : int {
  scan_fine = 0,
  scan_not_finite = 1,  ///< an element of y is NaN or infinite
  scan_bad_step = 2     ///< a dt without softplus is not above 0
};

/// The way back: `scan` as it was run (its y is unused, its h is not touched, `kept` is there).
template <class T>
struct SelectiveScanVjpTask {
  SelectiveScanTask<T> scan;
  ScanRows<const T> dy;    ///< (steps, channels)
  ScanRows<T> dh;          ///< (states, channels): of the last state, then of the first
  ScanRows<T> du, ddelta;  ///< (steps, channels), overwritten; null where not wanted
  ScanRows<T> dz;          ///< (steps, channels), overwritten, where there is z
  ScanRows<T> db, dc;      ///< as b and c; (steps, states) is overwritten, fixed ones add
  ScanRows<T> da;          ///< (states, channels), of a itself; added to
  T* dskip = nullptr;      ///< one a channel, added to
  T* dbias = nullptr;      ///< one a channel, added to
  T* scratch = nullptr;    ///< selective_scan_vjp_scratch(channels) elements
};

}  // namespace kernels
QUERN_NAMESPACE_END

#endif  // QUERN_KERNELS_SELECTIVE_SCAN_TYPES_HPP
