// SPDX-License-Identifier: Apache-2.0

/// \file
/// Sums of powers of complex numbers, sum_n Re(g_n q_n^l) for l = 0, 1, …, and moments, sum_l x_l
/// q_n^l: products with a Vandermonde matrix that is never there. A lane is a channel.
///
/// A power is carried on by multiplication, in T for 32 rows and then anew from one kept in double:
/// so 16,384 rows in float are right to 1e-6 of the largest, where phases taken in float lose four
/// digits. Moments are Horner's rule, in T within 32 rows and in double across.

#if defined(QUERN_KERNELS_VANDERMONDE_INL_HPP) == defined(HWY_TARGET_TOGGLE)
#ifdef QUERN_KERNELS_VANDERMONDE_INL_HPP
#undef QUERN_KERNELS_VANDERMONDE_INL_HPP
#else
#define QUERN_KERNELS_VANDERMONDE_INL_HPP
#endif

#include "quern/core/config.hpp"
#include "quern/kernels/partial-inl.hpp"
#include "quern/kernels/vandermonde_types.hpp"

#include "hwy/highway.h"

#include <cstddef>

HWY_BEFORE_NAMESPACE();
QUERN_NAMESPACE_BEGIN
namespace kernels {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

namespace detail {

template <class T>
using PowerTag = hn::CappedTag<T, power_lanes<T>>;

template <class T>
HWY_INLINE hn::Vec<PowerTag<T>> load_powers(const T* row, std::size_t lane, std::size_t channels) {
  const PowerTag<T> d;
  if (lane + hn::Lanes(d) <= channels) return hn::LoadU(d, row + lane);
  if (lane >= channels) return hn::Zero(d);
  return load_partial(d, row + lane, channels - lane);
}
template <class T>
HWY_INLINE void store_powers(hn::Vec<PowerTag<T>> v, T* row, std::size_t lane,
                             std::size_t channels) {
  const PowerTag<T> d;
  if (lane + hn::Lanes(d) <= channels) {
    hn::StoreU(v, d, row + lane);
  } else if (lane < channels) {
    store_partial(v, d, row + lane, channels - lane);
  }
}

/// g = g q for `lanes` complex doubles.
HWY_INLINE void advance_powers(std::size_t lanes, const double* HWY_RESTRICT q,
                               double* HWY_RESTRICT g) {
  const hn::CappedTag<double, 8> d;
  for (std::size_t i = 0; i < lanes; i += hn::Lanes(d)) {
    const auto qr = hn::Load(d, q + i), qi = hn::Load(d, q + lanes + i);
    const auto gr = hn::Load(d, g + i), gi = hn::Load(d, g + lanes + i);
    hn::Store(hn::NegMulAdd(gi, qi, hn::Mul(gr, qr)), d, g + i);
    hn::Store(hn::MulAdd(gi, qr, hn::Mul(gr, qi)), d, g + lanes + i);
  }
}

/// Rows [0, rows) += the powers of kModes modes; `first` starts the sum instead.
template <std::size_t kModes, class T>
HWY_INLINE void power_rows(const PowerSumTask<T>& task, std::size_t mode, std::size_t rows,
                           const T* HWY_RESTRICT start, T* out, bool first) {
  const PowerTag<T> d;
  using V = hn::Vec<PowerTag<T>>;
  constexpr std::size_t kTile = 2 * power_lanes<T>;
  for (std::size_t lane = 0; lane < power_lanes<T>; lane += hn::Lanes(d)) {
    if (lane >= task.channels) break;
    V qr[kModes], qi[kModes], zr[kModes], zi[kModes];
    HWY_UNROLL(4)
    for (std::size_t m = 0; m < kModes; ++m) {
      const T* const q = task.q + (mode + m) * kTile + lane;
      qr[m] = hn::Load(d, q), qi[m] = hn::Load(d, q + power_lanes<T>);
      zr[m] = hn::Load(d, start + m * kTile + lane);
      zi[m] = hn::Load(d, start + m * kTile + power_lanes<T> + lane);
    }
    T* row = out;
    for (std::size_t l = 0; l < rows; ++l, row += task.stride) {
      V sum = first ? hn::Zero(d) : load_powers<T>(row, lane, task.channels);
      HWY_UNROLL(4)
      for (std::size_t m = 0; m < kModes; ++m) {
        sum = hn::Add(sum, zr[m]);
        const V re = hn::NegMulAdd(zi[m], qi[m], hn::Mul(zr[m], qr[m]));
        zi[m] = hn::MulAdd(zi[m], qr[m], hn::Mul(zr[m], qi[m]));
        zr[m] = re;
      }
      store_powers<T>(sum, row, lane, task.channels);
    }
  }
}

/// Horner's rule over a block of rows for kModes modes: values to s, derivatives to t (in double).
template <std::size_t kModes, class T>
HWY_INLINE void moment_rows(const PowerMomentsTask<T>& task, std::size_t mode, std::size_t rows,
                            const T* x, T* HWY_RESTRICT s, T* HWY_RESTRICT t) {
  const PowerTag<T> d;
  using V = hn::Vec<PowerTag<T>>;
  constexpr std::size_t kLanes = power_lanes<T>, kTile = 2 * kLanes;
  for (std::size_t lane = 0; lane < kLanes; lane += hn::Lanes(d)) {
    V qr[kModes], qi[kModes], sr[kModes], si[kModes], tr[kModes], ti[kModes];
    HWY_UNROLL(2)
    for (std::size_t m = 0; m < kModes; ++m) {
      const T* const q = task.q + (mode + m) * kTile + lane;
      qr[m] = hn::Load(d, q), qi[m] = hn::Load(d, q + kLanes);
      sr[m] = si[m] = tr[m] = ti[m] = hn::Zero(d);
    }
    for (std::size_t l = rows; l-- > 0;) {
      const T* const row = x + static_cast<std::ptrdiff_t>(l) * task.stride;
      const V value = load_powers<T>(row, lane, task.channels);
      HWY_UNROLL(2)
      for (std::size_t m = 0; m < kModes; ++m) {
        const V re = hn::NegMulAdd(ti[m], qi[m], hn::MulAdd(tr[m], qr[m], sr[m]));
        ti[m] = hn::MulAdd(ti[m], qr[m], hn::MulAdd(tr[m], qi[m], si[m]));
        tr[m] = re;
        const V up = hn::NegMulAdd(si[m], qi[m], hn::MulAdd(sr[m], qr[m], value));
        si[m] = hn::MulAdd(si[m], qr[m], hn::Mul(sr[m], qi[m]));
        sr[m] = up;
      }
    }
    HWY_UNROLL(2)
    for (std::size_t m = 0; m < kModes; ++m) {
      hn::Store(sr[m], d, s + m * kTile + lane);
      hn::Store(si[m], d, s + m * kTile + kLanes + lane);
      hn::Store(tr[m], d, t + m * kTile + lane);
      hn::Store(ti[m], d, t + m * kTile + kLanes + lane);
    }
  }
}

/// p = p q_block + s; r = r q_block + (old p) q_slope + t.
template <class T>
HWY_INLINE void fold_moments(const PowerMomentsTask<T>& task, std::size_t mode,
                             const T* HWY_RESTRICT s, const T* HWY_RESTRICT t) {
  constexpr std::size_t kLanes = power_lanes<T>, kTile = 2 * kLanes;
  HWY_ALIGN double s2[kTile], t2[kTile];
  for (std::size_t i = 0; i < kTile; ++i) s2[i] = static_cast<double>(s[i]);
  for (std::size_t i = 0; i < kTile; ++i) t2[i] = static_cast<double>(t[i]);
  const hn::CappedTag<double, 8> d;
  const double* const q = task.q_block + mode * kTile;
  const double* const slope = task.q_slope + mode * kTile;
  double* const p = task.p + mode * kTile;
  double* const r = task.r + mode * kTile;
  for (std::size_t i = 0; i < kLanes; i += hn::Lanes(d)) {
    const auto qr = hn::Load(d, q + i), qi = hn::Load(d, q + kLanes + i);
    const auto wr = hn::Load(d, slope + i), wi = hn::Load(d, slope + kLanes + i);
    const auto pr = hn::Load(d, p + i), pi = hn::Load(d, p + kLanes + i);
    const auto rr = hn::Load(d, r + i), ri = hn::Load(d, r + kLanes + i);
    const auto sr = hn::Load(d, s2 + i), si = hn::Load(d, s2 + kLanes + i);
    auto re = hn::NegMulAdd(pi, wi, hn::MulAdd(pr, wr, hn::Load(d, t2 + i)));
    auto im = hn::MulAdd(pi, wr, hn::MulAdd(pr, wi, hn::Load(d, t2 + kLanes + i)));
    hn::Store(hn::NegMulAdd(ri, qi, hn::MulAdd(rr, qr, re)), d, r + i);
    hn::Store(hn::MulAdd(ri, qr, hn::MulAdd(rr, qi, im)), d, r + kLanes + i);
    hn::Store(hn::NegMulAdd(pi, qi, hn::MulAdd(pr, qr, sr)), d, p + i);
    hn::Store(hn::MulAdd(pi, qr, hn::MulAdd(pr, qi, si)), d, p + kLanes + i);
  }
}

}  // namespace detail

/// See PowerSumTask.
template <class T>
void power_sum(const PowerSumTask<T>& task) {
  constexpr std::size_t kTile = 2 * power_lanes<T>;
  HWY_ALIGN T start[4 * kTile];
  T* out = task.out;
  const std::ptrdiff_t block = static_cast<std::ptrdiff_t>(power_block) * task.stride;
  for (std::size_t l = 0; l < task.rows; l += power_block, out += block) {
    const std::size_t rows = task.rows - l < power_block ? task.rows - l : power_block;
    for (std::size_t mode = 0; mode < task.modes;) {
      const std::size_t group = task.modes - mode >= 4 ? 4 : 1;
      double* const g = task.g + mode * kTile;
      for (std::size_t m = 0; m < group; ++m) {
        for (std::size_t i = 0; i < kTile; ++i) {
          start[m * kTile + i] = static_cast<T>(g[m * kTile + i]);
        }
        detail::advance_powers(power_lanes<T>, task.q_block + (mode + m) * kTile, g + m * kTile);
      }
      const bool first = mode == 0 && !task.add;
      if (group == 4) {
        detail::power_rows<4>(task, mode, rows, start, out, first);
      } else {
        detail::power_rows<1>(task, mode, rows, start, out, first);
      }
      mode += group;
    }
  }
}

/// See PowerMomentsTask.
template <class T>
void power_moments(const PowerMomentsTask<T>& task) {
  constexpr std::size_t kTile = 2 * power_lanes<T>;
  HWY_ALIGN T s[2 * kTile], t[2 * kTile];
  for (std::size_t i = 0; i < task.modes * kTile; ++i) task.p[i] = task.r[i] = 0;
  const std::size_t blocks = (task.rows + power_block - 1) / power_block;
  for (std::size_t block = blocks; block-- > 0;) {
    const std::size_t begin = block * power_block;
    const std::size_t rows = task.rows - begin < power_block ? task.rows - begin : power_block;
    const T* const x = task.x + static_cast<std::ptrdiff_t>(begin) * task.stride;
    for (std::size_t mode = 0; mode < task.modes;) {
      const std::size_t group = task.modes - mode >= 2 ? 2 : 1;
      if (group == 2) {
        detail::moment_rows<2>(task, mode, rows, x, s, t);
      } else {
        detail::moment_rows<1>(task, mode, rows, x, s, t);
      }
      for (std::size_t m = 0; m < group; ++m) {
        detail::fold_moments(task, mode + m, s + m * kTile, t + m * kTile);
      }
      mode += group;
    }
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace kernels
QUERN_NAMESPACE_END
HWY_AFTER_NAMESPACE();

#endif  // QUERN_KERNELS_VANDERMONDE_INL_HPP
