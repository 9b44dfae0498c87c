// SPDX-License-Identifier: Apache-2.0

/// \file
/// What a room passes to the kernels of the selective scan with complex poles.

#ifndef QUERN_KERNELS_COMPLEX_SCAN_TYPES_HPP
#define QUERN_KERNELS_COMPLEX_SCAN_TYPES_HPP

#include "quern/core/config.hpp"
#include "quern/kernels/selective_scan_types.hpp"

#include <cstddef>

QUERN_NAMESPACE_BEGIN
namespace kernels {

/// Real and imaginary parts in rows of their own.
template <class T>
struct ComplexRows {
  ScanRows<T> re, im;
};

/// The scan; what is real of it is in `scan` (u, delta, z, skip, bias, softplus, sizes, y, and
/// whether b and c are fixed).
template <class T>
struct ComplexScanTask {
  SelectiveScanTask<T> scan;
  ComplexRows<const T> a;     ///< (states, channels); the imaginary part times ln 2
  ComplexRows<const T> b, c;  ///< (steps, states), or (states, channels) when fixed
  ComplexRows<T> h;           ///< (states, channels): before the first step, then after the last
  ComplexRows<T> kept;        ///< (tiles * states, channels): before each tile, or null
};

/// The way back: `scan` as it was run, with `kept`; `back` has the same and the real gradients.
template <class T>
struct ComplexScanVjpTask {
  ComplexScanTask<T> scan;
  SelectiveScanVjpTask<T> back;
  ComplexRows<T> dh;      ///< (states, channels): of the last state, then of the first
  ComplexRows<T> da;      ///< (states, channels), added to
  ComplexRows<T> db, dc;  ///< as b and c, added to
};

}  // namespace kernels
QUERN_NAMESPACE_END

#endif  // QUERN_KERNELS_COMPLEX_SCAN_TYPES_HPP
