// SPDX-License-Identifier: Apache-2.0

/// \file
/// Online memories of HiPPO in O(order) a step: LegS, whose matrix is triangular with a rank-one
/// part below the diagonal, and LegT, whose matrix has rank one above and below. A lane is a
/// channel; up to four vectors of channels go together, since each coefficient waits for the sum
/// over those before.
///
/// A step is taken as an increment, x += (I - alpha h A)^-1 (h A x + h B u): once a million inputs
/// have been seen increments are tiny, and rounding them costs nothing. The remaining error is that
/// of one addition a step.

#if defined(QUERN_KERNELS_HIPPO_INL_HPP) == defined(HWY_TARGET_TOGGLE)
#ifdef QUERN_KERNELS_HIPPO_INL_HPP
#undef QUERN_KERNELS_HIPPO_INL_HPP
#else
#define QUERN_KERNELS_HIPPO_INL_HPP
#endif

#include "quern/core/config.hpp"
#include "quern/kernels/hippo_types.hpp"
#include "quern/kernels/partial-inl.hpp"

#include "hwy/highway.h"

#include <cstddef>

HWY_BEFORE_NAMESPACE();
QUERN_NAMESPACE_BEGIN
namespace kernels {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

namespace detail {

template <bool kFull, class D, class T = hn::TFromD<D>>
HWY_INLINE hn::Vec<D> load_channels(D d, const T* from, std::size_t count) {
  if constexpr (kFull) return hn::LoadU(d, from);
  return load_partial(d, from, count);
}
template <bool kFull, class D, class T = hn::TFromD<D>>
HWY_INLINE void store_channels(hn::Vec<D> v, D d, T* to, std::size_t count) {
  if constexpr (kFull) {
    hn::StoreU(v, d, to);
  } else {
    store_partial(v, d, to, count);
  }
}

template <class T>
HWY_INLINE void legs_diagonal(const LegsTask<T>& task, double alpha_h) {
  for (std::size_t n = 0; n < task.order; ++n) {
    task.work[n] = static_cast<T>(1 / (1 + alpha_h * static_cast<double>(n + 1)));
  }
}

/// One step of LegS for kVectors vectors of channels from `at` on. work[n] = 1 / (1 + alpha h (n +
/// 1)).
template <std::size_t kVectors, bool kFull, class T>
HWY_INLINE void legs_step(const LegsTask<T>& task, const T* input, T h, T alpha_h, std::size_t at,
                          std::size_t count) {
  const hn::ScalableTag<T> d;
  using V = hn::Vec<decltype(d)>;
  constexpr std::size_t kWidth = hn::MaxLanes(d);
  V u[kVectors], below[kVectors], solved[kVectors];
  HWY_UNROLL(4)
  for (std::size_t v = 0; v < kVectors; ++v) {
    u[v] = load_channels<kFull>(d, input + at + v * kWidth, count);
    below[v] = solved[v] = hn::Zero(d);
  }
  T* state = task.state + at;
  for (std::size_t n = 0; n < task.order; ++n, state += task.state_stride) {
    const V r = hn::Set(d, task.norms[n]), diagonal = hn::Set(d, static_cast<T>(n + 1));
    const V inverse = hn::Set(d, task.work[n]), step = hn::Set(d, h), ahead = hn::Set(d, alpha_h);
    HWY_UNROLL(4)
    for (std::size_t v = 0; v < kVectors; ++v) {
      const V x = load_channels<kFull>(d, state + v * kWidth, count);
      // h (A x + B u) less what the solved increments above put into this row.
      const V flow = hn::NegMulAdd(diagonal, x, hn::Mul(r, hn::Sub(u[v], below[v])));
      const V pull = hn::Mul(ahead, hn::Mul(r, solved[v]));
      const V increment = hn::Mul(inverse, hn::MulSub(step, flow, pull));
      below[v] = hn::MulAdd(r, x, below[v]);
      solved[v] = hn::MulAdd(r, increment, solved[v]);
      store_channels<kFull>(hn::Add(x, increment), d, state + v * kWidth, count);
    }
  }
}

template <std::size_t kVectors, bool kFull, class T>
HWY_INLINE void legt_step(const LegtTask<T>& task, const T* input, std::size_t at,
                          std::size_t count) {
  const hn::ScalableTag<T> d;
  using V = hn::Vec<decltype(d)>;
  constexpr std::size_t kWidth = hn::MaxLanes(d);
  constexpr std::size_t kRow = kVectors * kWidth;
  V u[kVectors], sum[kVectors], solved[kVectors];
  HWY_UNROLL(4)
  for (std::size_t v = 0; v < kVectors; ++v) {
    u[v] = load_channels<kFull>(d, input + at + v * kWidth, count);
    sum[v] = solved[v] = hn::Zero(d);
  }
  const auto place = [&](std::size_t n) HWY_ATTR {
    return task.state + static_cast<std::ptrdiff_t>(n) * task.state_stride + at;
  };
  // Above the diagonal: alternating sums of what follows, from the last row up.
  for (std::size_t n = task.order; n-- > 0;) {
    const V h = hn::Set(d, n % 2 == 0 ? task.norms[n] : -task.norms[n]);
    HWY_UNROLL(4)
    for (std::size_t v = 0; v < kVectors; ++v) {
      hn::Store(sum[v], d, task.work + n * kRow + v * kWidth);
      sum[v] = hn::MulAdd(h, load_channels<kFull>(d, place(n) + v * kWidth, count), sum[v]);
    }
  }
  HWY_UNROLL(4)
  for (std::size_t v = 0; v < kVectors; ++v) sum[v] = hn::Zero(d);
  for (std::size_t n = 0; n < task.order; ++n) {
    const V r = hn::Set(d, task.norms[n]), sign = hn::Set(d, n % 2 == 0 ? T{1} : T{-1});
    const V half_dt = hn::Set(d, task.dt / 2), p = hn::Set(d, task.p[n]);
    const V l = hn::Set(d, task.l[n]);
    HWY_UNROLL(4)
    for (std::size_t v = 0; v < kVectors; ++v) {
      T* const work = task.work + n * kRow + v * kWidth;
      sum[v] = hn::MulAdd(r, load_channels<kFull>(d, place(n) + v * kWidth, count), sum[v]);
      const V row = hn::MulAdd(sign, hn::Load(d, work), sum[v]);
      const V flow = hn::Mul(half_dt, hn::Mul(r, hn::Sub(u[v], row)));
      const V y = hn::NegMulAdd(p, solved[v], flow);
      solved[v] = hn::MulAdd(l, y, solved[v]);
      hn::Store(y, d, work);
    }
  }
  HWY_UNROLL(4)
  for (std::size_t v = 0; v < kVectors; ++v) sum[v] = hn::Zero(d);
  for (std::size_t n = task.order; n-- > 0;) {
    const V h = hn::Set(d, n % 2 == 0 ? task.norms[n] : -task.norms[n]);
    const V upper = hn::Set(d, task.u[n]), inverse = hn::Set(d, task.inverse_d[n]);
    HWY_UNROLL(4)
    for (std::size_t v = 0; v < kVectors; ++v) {
      const V y = hn::Load(d, task.work + n * kRow + v * kWidth);
      const V increment = hn::Mul(inverse, hn::NegMulAdd(upper, sum[v], y));
      sum[v] = hn::MulAdd(h, increment, sum[v]);
      T* const x = place(n) + v * kWidth;
      store_channels<kFull>(hn::Add(load_channels<kFull>(d, x, count), increment), d, x, count);
    }
  }
}

/// The adjoint of legs_step: state becomes the gradient of the state before, dinput that of the
/// input. The step is linear, so nothing of the forward pass is needed.
template <std::size_t kVectors, bool kFull, class T>
HWY_INLINE void legs_step_vjp(const LegsTask<T>& task, T* dinput, T h, T alpha_h, std::size_t at,
                              std::size_t count) {
  const hn::ScalableTag<T> d;
  using V = hn::Vec<decltype(d)>;
  constexpr std::size_t kWidth = hn::MaxLanes(d);
  V sum[kVectors];
  HWY_UNROLL(4)
  for (std::size_t v = 0; v < kVectors; ++v) sum[v] = hn::Zero(d);
  for (std::size_t n = task.order; n-- > 0;) {
    T* const state = task.state + static_cast<std::ptrdiff_t>(n) * task.state_stride + at;
    const V r = hn::Set(d, task.norms[n]), diagonal = hn::Set(d, static_cast<T>(n + 1));
    const V inverse = hn::Set(d, task.work[n]), step = hn::Set(d, h), ahead = hn::Set(d, alpha_h);
    HWY_UNROLL(4)
    for (std::size_t v = 0; v < kVectors; ++v) {
      const V x = load_channels<kFull>(d, state + v * kWidth, count);
      const V pull = hn::Mul(r, sum[v]);
      const V g = hn::Mul(inverse, hn::NegMulAdd(ahead, pull, x));
      const V flow = hn::MulAdd(diagonal, g, pull);
      store_channels<kFull>(hn::NegMulAdd(step, flow, x), d, state + v * kWidth, count);
      sum[v] = hn::MulAdd(r, g, sum[v]);
    }
  }
  if (dinput == nullptr) return;
  HWY_UNROLL(4)
  for (std::size_t v = 0; v < kVectors; ++v) {
    store_channels<kFull>(hn::Mul(hn::Set(d, h), sum[v]), d, dinput + at + v * kWidth, count);
  }
}

/// Calls step(vectors, full, at, count) for all channels.
template <class T, class Step>
HWY_INLINE void for_channels(std::size_t channels, const Step& step) {
  constexpr std::size_t kWidth = hn::MaxLanes(hn::ScalableTag<T>());
  std::size_t at = 0;
  for (; at + 4 * kWidth <= channels; at += 4 * kWidth) step.template run<4, true>(at, kWidth);
  for (; at + kWidth <= channels; at += kWidth) step.template run<1, true>(at, kWidth);
  if (at < channels) step.template run<1, false>(at, channels - at);
}

template <class T>
struct LegsStep {
  const LegsTask<T>& task;
  const T* input;
  T h, alpha_h;
  template <std::size_t kVectors, bool kFull>
  HWY_INLINE void run(std::size_t at, std::size_t count) const {
    legs_step<kVectors, kFull>(task, input, h, alpha_h, at, count);
  }
};
template <class T>
struct LegsStepVjp {
  const LegsTask<T>& task;
  T* dinput;
  T h, alpha_h;
  template <std::size_t kVectors, bool kFull>
  HWY_INLINE void run(std::size_t at, std::size_t count) const {
    legs_step_vjp<kVectors, kFull>(task, dinput, h, alpha_h, at, count);
  }
};
template <class T>
struct LegtStep {
  const LegtTask<T>& task;
  const T* input;
  template <std::size_t kVectors, bool kFull>
  HWY_INLINE void run(std::size_t at, std::size_t count) const {
    legt_step<kVectors, kFull>(task, input, at, count);
  }
};

}  // namespace detail

/// Steps of LegS: with h = 1 / k, k = first, first + 1, …
template <class T>
void hippo_legs(const LegsTask<T>& task) {
  const T* input = task.input;
  for (std::size_t s = 0; s < task.steps; ++s, input += task.input_stride) {
    const double h = 1 / (task.first + static_cast<double>(s)), alpha_h = task.alpha * h;
    detail::legs_diagonal(task, alpha_h);
    const detail::LegsStep<T> step{task, input, static_cast<T>(h), static_cast<T>(alpha_h)};
    detail::for_channels<T>(task.channels, step);
  }
}

/// Gradients of hippo_legs, from its last step to its first: state holds the gradient of the last
/// coefficients and becomes that of the first; a null \p dinput leaves the inputs' out.
template <class T>
void hippo_legs_vjp(const LegsTask<T>& task, T* dinput, std::ptrdiff_t stride) {
  for (std::size_t s = task.steps; s-- > 0;) {
    const double h = 1 / (task.first + static_cast<double>(s)), alpha_h = task.alpha * h;
    detail::legs_diagonal(task, alpha_h);
    T* const to = dinput == nullptr ? nullptr : dinput + static_cast<std::ptrdiff_t>(s) * stride;
    const detail::LegsStepVjp<T> step{task, to, static_cast<T>(h), static_cast<T>(alpha_h)};
    detail::for_channels<T>(task.channels, step);
  }
}

/// Steps of LegT.
template <class T>
void hippo_legt(const LegtTask<T>& task) {
  const T* input = task.input;
  for (std::size_t s = 0; s < task.steps; ++s, input += task.input_stride) {
    detail::for_channels<T>(task.channels, detail::LegtStep<T>{task, input});
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace kernels
QUERN_NAMESPACE_END
HWY_AFTER_NAMESPACE();

#endif  // QUERN_KERNELS_HIPPO_INL_HPP
