// SPDX-License-Identifier: Apache-2.0

/// \file
/// What rooms pass to the kernels of RWKV's recurrences: some channels (RWKV-4) or a head (RWKV-7)
/// of one sequence.

#ifndef QUERN_KERNELS_WKV_TYPES_HPP
#define QUERN_KERNELS_WKV_TYPES_HPP

#include "quern/core/config.hpp"
#include "quern/kernels/selective_scan_types.hpp"

#include <cstddef>

QUERN_NAMESPACE_BEGIN
namespace kernels {

/// Steps between states that are kept for the way back, and of a tile there.
inline constexpr std::ptrdiff_t wkv_tile = 32, wkv7_tile = 16;

/// RWKV-4: y_t = (a_(t-1) + e^(u + k_t) v_t) / (b_(t-1) + e^(u + k_t)), a_t = e^w a_(t-1) + e^(k_t)
/// v_t, b likewise without v; states are p = a e^-o, q = b e^-o, o.
template <class T>
struct WkvTask {
  std::ptrdiff_t steps = 0;
  std::ptrdiff_t channels = 0;
  ScanRows<const T> k, v;  ///< (steps, channels)
  const T* w = nullptr;    ///< one a channel, not above 0
  const T* u = nullptr;    ///< one a channel
  ScanRows<T> state;       ///< (3, channels): p, q, o before the first step, then after the last
  ScanRows<T> y;           ///< (steps, channels), or null
  ScanRows<T> kept;        ///< (3 * tiles, channels): states before each tile, or null
};

/// The way back; y of `wkv` is unused, `kept` is there, its state is not touched.
template <class T>
struct WkvVjpTask {
  WkvTask<T> wkv;
  ScanRows<const T> dy;    ///< (steps, channels)
  ScanRows<const T> last;  ///< (3, channels): the state after the last step
  ScanRows<T> dstate;      ///< (2, channels): of the last p and q, then of the first
  ScanRows<T> dk, dv;      ///< (steps, channels), overwritten; or null
  T* dw = nullptr;         ///< one a channel, added to
  T* du = nullptr;         ///< one a channel, added to
};

/// RWKV-7: S = S diag(decay) + v k^T + (S a) b^T, o = S r, of one head. S is kept as (keys,
/// values): values are lanes.
template <class T>
struct Wkv7Task {
  std::ptrdiff_t steps = 0;
  std::ptrdiff_t keys = 0;
  std::ptrdiff_t values = 0;
  ScanRows<const T> r, decay, k, a, b;  ///< (steps, keys)
  ScanRows<const T> v;                  ///< (steps, values)
  ScanRows<T> state;                    ///< (keys, values): before, then after
  ScanRows<T> y;                        ///< (steps, values), or null
  T* kept = nullptr;                    ///< (tiles, keys, values) before each tile, or null
  T* kept_sa = nullptr;                 ///< (steps, values): S a of each step, where kept is
  T* scratch = nullptr;                 ///< wkv7_scratch(keys) elements
};

/// The way back; `kept` and `kept_sa` of `wkv` are there, its state and y are unused.
template <class T>
struct Wkv7VjpTask {
  Wkv7Task<T> wkv;
  ScanRows<const T> dy;                ///< (steps, values)
  ScanRows<T> dstate;                  ///< (keys, values): of the last state, then of the first
  ScanRows<T> dr, ddecay, dk, da, db;  ///< (steps, keys), overwritten
  ScanRows<T> dv;                      ///< (steps, values), overwritten
  T* scratch = nullptr;                ///< wkv7_vjp_scratch(keys) elements
};

}  // namespace kernels
QUERN_NAMESPACE_END

#endif  // QUERN_KERNELS_WKV_TYPES_HPP
