// SPDX-License-Identifier: Apache-2.0

/// \file
/// First-order linear recurrences h_t = a_t h_{t-1} + b_t, real and complex, and their gradients.
///
/// A lane is a channel: the channels of a time step are adjacent, steps are a stride apart, and
/// nothing is ever added across lanes. So every channel is one chain of fused multiply-adds in the
/// order of time, whatever the level with fused multiply-add, the cut and the number of channels.
/// Strides may be 0 (the same multiplier at every step) and negative (time runs backwards).
///
/// A step waits for the one before: 4 cycles of a fused multiply-add, 8 when complex. Four vectors
/// of channels go through a block of steps together to fill that time.
///
/// Complex numbers are interleaved, as std::complex lays them out; counts and strides are then in
/// complex numbers. Gradients follow the convention dL = Re(conj(g) dx), g = dL/dRe + i dL/dIm.

#if defined(QUERN_KERNELS_SCAN_INL_HPP) == defined(HWY_TARGET_TOGGLE)
#ifdef QUERN_KERNELS_SCAN_INL_HPP
#undef QUERN_KERNELS_SCAN_INL_HPP
#else
#define QUERN_KERNELS_SCAN_INL_HPP
#endif

#include "quern/core/config.hpp"
#include "quern/kernels/partial-inl.hpp"
#include "quern/kernels/scan_types.hpp"

#include "hwy/highway.h"

#include <cstddef>

HWY_BEFORE_NAMESPACE();
QUERN_NAMESPACE_BEGIN
namespace kernels {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

namespace detail {

/// What a scan does with real channels.
template <class T>
struct RealLanes {
  using Scalar = T;
  using D = hn::ScalableTag<T>;
  struct Value {
    hn::Vec<D> re;
  };
  static constexpr std::ptrdiff_t kScalars = 1;

  template <bool kFull>
  static HWY_INLINE Value load(const T* from, std::size_t count) {
    const D d;
    if constexpr (kFull) return {hn::LoadU(d, from)};
    return {load_partial(d, from, count)};
  }
  template <bool kFull>
  static HWY_INLINE void store(Value v, T* to, std::size_t count) {
    const D d;
    if constexpr (kFull) {
      hn::StoreU(v.re, d, to);
    } else {
      store_partial(v.re, d, to, count);
    }
  }
  static HWY_INLINE Value zero() { return {hn::Zero(D())}; }
  static HWY_INLINE Value add(Value a, Value b) { return {hn::Add(a.re, b.re)}; }
  /// a b + c.
  static HWY_INLINE Value mul_add(Value a, Value b, Value c) {
    return {hn::MulAdd(a.re, b.re, c.re)};
  }
  /// conj(a) b + c.
  static HWY_INLINE Value conj_mul_add(Value a, Value b, Value c) { return mul_add(a, b, c); }
};

/// What a scan does with complex channels.
template <class T>
struct ComplexLanes {
  using Scalar = T;
  using D = hn::ScalableTag<T>;
  struct Value {
    hn::Vec<D> re;
    hn::Vec<D> im;
  };
  static constexpr std::ptrdiff_t kScalars = 2;

  template <bool kFull>
  static HWY_INLINE Value load(const T* from, std::size_t count) {
    const D d;
    Value v;
    if constexpr (kFull) {
      hn::LoadInterleaved2(d, from, v.re, v.im);
    } else {
      HWY_ALIGN T lanes[2 * hn::MaxLanes(D())] = {};
      for (std::size_t i = 0; i < 2 * count; ++i) lanes[i] = from[i];
      hn::LoadInterleaved2(d, lanes, v.re, v.im);
    }
    return v;
  }
  template <bool kFull>
  static HWY_INLINE void store(Value v, T* to, std::size_t count) {
    const D d;
    if constexpr (kFull) {
      hn::StoreInterleaved2(v.re, v.im, d, to);
    } else {
      HWY_ALIGN T lanes[2 * hn::MaxLanes(D())];
      hn::StoreInterleaved2(v.re, v.im, d, lanes);
      for (std::size_t i = 0; i < 2 * count; ++i) to[i] = lanes[i];
    }
  }
  static HWY_INLINE Value zero() { return {hn::Zero(D()), hn::Zero(D())}; }
  static HWY_INLINE Value add(Value a, Value b) {
    return {hn::Add(a.re, b.re), hn::Add(a.im, b.im)};
  }
  static HWY_INLINE Value mul_add(Value a, Value b, Value c) {
    return {hn::NegMulAdd(a.im, b.im, hn::MulAdd(a.re, b.re, c.re)),
            hn::MulAdd(a.im, b.re, hn::MulAdd(a.re, b.im, c.im))};
  }
  static HWY_INLINE Value conj_mul_add(Value a, Value b, Value c) {
    return {hn::MulAdd(a.im, b.im, hn::MulAdd(a.re, b.re, c.re)),
            hn::NegMulAdd(a.im, b.re, hn::MulAdd(a.re, b.im, c.im))};
  }
};

/// A block of steps of kVectors vectors of channels, from channel `at` on; `count` of the only
/// vector unless it is full.
template <class F, std::size_t kVectors, bool kFull, bool kLow, class T = typename F::Scalar>
HWY_INLINE void scan_block(const ScanTask<T>& task, std::size_t begin, std::size_t end,
                           std::size_t at, std::size_t count) {
  constexpr std::size_t kWidth = hn::MaxLanes(typename F::D()) * std::size_t{F::kScalars};
  const std::ptrdiff_t first = static_cast<std::ptrdiff_t>(begin);
  const std::ptrdiff_t channel = static_cast<std::ptrdiff_t>(at) * F::kScalars;
  const std::ptrdiff_t first_a = first * task.a_stride * F::kScalars + channel;
  const T* a = task.a + first_a;
  const T* low = kLow ? task.a_low + first_a : nullptr;
  const T* b = task.b + first * task.b_stride * F::kScalars + channel;
  T* out = task.out + first * task.out_stride * F::kScalars + channel;
  T* state = task.state + channel;
  typename F::Value h[kVectors];
  HWY_UNROLL(4)
  for (std::size_t v = 0; v < kVectors; ++v)
    h[v] = F::template load<kFull>(state + v * kWidth, count);
  for (std::size_t t = begin; t < end; ++t) {
    HWY_UNROLL(4)
    for (std::size_t v = 0; v < kVectors; ++v) {
      auto sum = F::template load<kFull>(b + v * kWidth, count);
      if constexpr (kLow) {
        sum = F::mul_add(F::template load<kFull>(low + v * kWidth, count), h[v], sum);
      }
      h[v] = F::mul_add(F::template load<kFull>(a + v * kWidth, count), h[v], sum);
      F::template store<kFull>(h[v], out + v * kWidth, count);
    }
    a += task.a_stride * F::kScalars;
    if constexpr (kLow) low += task.a_stride * F::kScalars;
    b += task.b_stride * F::kScalars;
    out += task.out_stride * F::kScalars;
  }
  HWY_UNROLL(4)
  for (std::size_t v = 0; v < kVectors; ++v)
    F::template store<kFull>(h[v], state + v * kWidth, count);
}

/// The gradients of such a block, from its last step to its first.
template <class F, std::size_t kVectors, bool kFull, bool kLow, class T = typename F::Scalar>
HWY_INLINE void scan_vjp_block(const ScanVjpTask<T>& task, std::size_t begin, std::size_t end,
                               std::size_t at, std::size_t count) {
  constexpr std::size_t kWidth = hn::MaxLanes(typename F::D()) * std::size_t{F::kScalars};
  const std::ptrdiff_t channel = static_cast<std::ptrdiff_t>(at) * F::kScalars;
  T* carry = task.carry + channel;
  const bool one_da = task.da != nullptr && task.da_stride == 0;
  typename F::Value g[kVectors], sum[kVectors];
  HWY_UNROLL(4)
  for (std::size_t v = 0; v < kVectors; ++v) {
    g[v] = F::template load<kFull>(carry + v * kWidth, count);
    sum[v] = one_da ? F::template load<kFull>(task.da + channel + v * kWidth, count) : F::zero();
  }
  for (std::size_t t = end; t-- > begin;) {
    const std::ptrdiff_t step = static_cast<std::ptrdiff_t>(t);
    const auto place = [&](std::ptrdiff_t stride) { return step * stride * F::kScalars + channel; };
    const T* a = task.a + place(task.a_stride);
    const T* dout = task.dout + place(task.dout_stride);
    const T* before = t > 0 ? task.h + place(task.h_stride) - task.h_stride * F::kScalars
                            : task.initial + channel;
    HWY_UNROLL(4)
    for (std::size_t v = 0; v < kVectors; ++v) {
      g[v] = F::add(g[v], F::template load<kFull>(dout + v * kWidth, count));
      if (task.db != nullptr) {
        F::template store<kFull>(g[v], task.db + place(task.db_stride) + v * kWidth, count);
      }
      if (task.da != nullptr) {
        const auto h = F::template load<kFull>(before + v * kWidth, count);
        sum[v] = F::conj_mul_add(h, g[v], one_da ? sum[v] : F::zero());
        if (!one_da) {
          F::template store<kFull>(sum[v], task.da + place(task.da_stride) + v * kWidth, count);
        }
      }
      auto low = F::zero();
      if constexpr (kLow) {
        const T* const rest = task.a_low + place(task.a_stride) + v * kWidth;
        low = F::conj_mul_add(F::template load<kFull>(rest, count), g[v], low);
      }
      g[v] = F::conj_mul_add(F::template load<kFull>(a + v * kWidth, count), g[v], low);
    }
  }
  HWY_UNROLL(4)
  for (std::size_t v = 0; v < kVectors; ++v) {
    F::template store<kFull>(g[v], carry + v * kWidth, count);
    if (one_da) F::template store<kFull>(sum[v], task.da + channel + v * kWidth, count);
  }
}

/// Steps of a block: so few that what their channels touch stays in the cache next to the others'.
inline constexpr std::size_t kScanBlock = 64;

template <class F, bool kLow, class T = typename F::Scalar>
HWY_INLINE void scan_all(const ScanTask<T>& task) {
  constexpr std::size_t kWidth = hn::MaxLanes(typename F::D());
  for (std::size_t begin = 0; begin < task.steps; begin += kScanBlock) {
    const std::size_t end = task.steps - begin < kScanBlock ? task.steps : begin + kScanBlock;
    std::size_t at = 0;
    for (; at + 4 * kWidth <= task.channels; at += 4 * kWidth) {
      scan_block<F, 4, true, kLow>(task, begin, end, at, kWidth);
    }
    for (; at + kWidth <= task.channels; at += kWidth) {
      scan_block<F, 1, true, kLow>(task, begin, end, at, kWidth);
    }
    if (at < task.channels) scan_block<F, 1, false, kLow>(task, begin, end, at, task.channels - at);
  }
}

template <class F, bool kLow, class T = typename F::Scalar>
HWY_INLINE void scan_vjp_all(const ScanVjpTask<T>& task) {
  constexpr std::size_t kWidth = hn::MaxLanes(typename F::D());
  const std::size_t blocks = (task.steps + kScanBlock - 1) / kScanBlock;
  for (std::size_t block = blocks; block-- > 0;) {
    const std::size_t begin = block * kScanBlock;
    const std::size_t end = task.steps - begin < kScanBlock ? task.steps : begin + kScanBlock;
    std::size_t at = 0;
    for (; at + 4 * kWidth <= task.channels; at += 4 * kWidth) {
      scan_vjp_block<F, 4, true, kLow>(task, begin, end, at, kWidth);
    }
    for (; at + kWidth <= task.channels; at += kWidth) {
      scan_vjp_block<F, 1, true, kLow>(task, begin, end, at, kWidth);
    }
    if (at < task.channels)
      scan_vjp_block<F, 1, false, kLow>(task, begin, end, at, task.channels - at);
  }
}

}  // namespace detail

/// out_t = h_t = a_t h_{t-1} + b_t, h_{-1} = state; the last h is left in state.
template <class T>
void scan_rows(const ScanTask<T>& task) {
  detail::scan_all<detail::RealLanes<T>, false>(task);
}
/// The same for interleaved complex channels.
template <class T>
void scan_rows_complex(const ScanTask<T>& task) {
  if (task.a_low == nullptr) return detail::scan_all<detail::ComplexLanes<T>, false>(task);
  detail::scan_all<detail::ComplexLanes<T>, true>(task);
}

/// Gradients of scan_rows: see ScanVjpTask.
template <class T>
void scan_rows_vjp(const ScanVjpTask<T>& task) {
  detail::scan_vjp_all<detail::RealLanes<T>, false>(task);
}
template <class T>
void scan_rows_complex_vjp(const ScanVjpTask<T>& task) {
  if (task.a_low == nullptr) return detail::scan_vjp_all<detail::ComplexLanes<T>, false>(task);
  detail::scan_vjp_all<detail::ComplexLanes<T>, true>(task);
}

/// out = a b, or conj(a) b, for \p n interleaved complex numbers; out may be b.
template <class T>
void multiply_complex(std::size_t n, const T* a, const T* b, bool conjugate, T* out) {
  using F = detail::ComplexLanes<T>;
  constexpr std::size_t kWidth = hn::MaxLanes(typename F::D());
  const auto product = [&](typename F::Value x, typename F::Value y) HWY_ATTR {
    return conjugate ? F::conj_mul_add(x, y, F::zero()) : F::mul_add(x, y, F::zero());
  };
  std::size_t i = 0;
  for (; i + kWidth <= n; i += kWidth) {
    const auto x = F::template load<true>(a + 2 * i, kWidth);
    F::template store<true>(product(x, F::template load<true>(b + 2 * i, kWidth)), out + 2 * i,
                            kWidth);
  }
  if (i == n) return;
  const auto x = F::template load<false>(a + 2 * i, n - i);
  F::template store<false>(product(x, F::template load<false>(b + 2 * i, n - i)), out + 2 * i,
                           n - i);
}

}  // namespace HWY_NAMESPACE
}  // namespace kernels
QUERN_NAMESPACE_END
HWY_AFTER_NAMESPACE();

#endif  // QUERN_KERNELS_SCAN_INL_HPP
