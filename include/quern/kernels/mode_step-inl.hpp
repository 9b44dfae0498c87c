// SPDX-License-Identifier: Apache-2.0

/// \file
/// Steps of one channel's complex modes, diagonal or coupled by one or two rows (S4D, S4): see
/// ModeStepTask. Lanes are modes. Sums over modes run by lanes, then over lanes; an element's error
/// is that of a few multiply-adds a step, since multipliers come less 1.

#if defined(QUERN_KERNELS_MODE_STEP_INL_HPP) == defined(HWY_TARGET_TOGGLE)
#ifdef QUERN_KERNELS_MODE_STEP_INL_HPP
#undef QUERN_KERNELS_MODE_STEP_INL_HPP
#else
#define QUERN_KERNELS_MODE_STEP_INL_HPP
#endif

#include "quern/core/config.hpp"
#include "quern/kernels/lanes-inl.hpp"
#include "quern/kernels/mode_step_types.hpp"

#include "hwy/highway.h"

#include <cstddef>

HWY_BEFORE_NAMESPACE();
QUERN_NAMESPACE_BEGIN
namespace kernels {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

namespace detail {

/// sum + the real part of a x.
template <class V>
HWY_INLINE V add_real_product(V sum, V a_re, V a_im, V re, V im) {
  return hn::NegMulAdd(a_im, im, hn::MulAdd(a_re, re, sum));
}

/// Re(sum of row x), row and x two rows each.
template <class D, class T>
HWY_INLINE T mode_sum(D d, const T* row, const T* x, std::ptrdiff_t modes) {
  const std::ptrdiff_t lanes = static_cast<std::ptrdiff_t>(hn::Lanes(d));
  auto sum = hn::Zero(d);
  for (std::ptrdiff_t n = 0; n < modes; n += lanes) {
    const std::size_t count = lanes_left(d, modes - n);
    sum =
        add_real_product(sum, load_lanes(d, row + n, count), load_lanes(d, row + modes + n, count),
                         load_lanes(d, x + n, count), load_lanes(d, x + modes + n, count));
  }
  return hn::GetLane(hn::SumOfLanes(d, sum));
}

/// One input; `weight` holds w. Returns the sum of the output.
template <class D, class T>
HWY_INLINE T mode_step(D d, const ModeStepTask<T>& task, T u, const T* weight) {
  const std::ptrdiff_t lanes = static_cast<std::ptrdiff_t>(hn::Lanes(d)), modes = task.modes;
  const auto input = hn::Set(d, u);
  auto sum = hn::Zero(d);
  for (std::ptrdiff_t n = 0; n < modes; n += lanes) {
    const std::size_t count = lanes_left(d, modes - n);
    const auto load = [&](const T* row) HWY_ATTR { return load_lanes(d, row + n, count); };
    const auto x = load(task.x), i = load(task.x + modes);
    const auto a = load(task.less), b = load(task.less + modes);
    auto re = hn::MulAdd(input, load(task.in), hn::NegMulAdd(b, i, hn::Mul(a, x)));
    auto im = hn::MulAdd(input, load(task.in + modes), hn::MulAdd(b, x, hn::Mul(a, i)));
    for (std::ptrdiff_t k = 0; k < task.rank; ++k) {
      const T* const to = task.to + k * 2 * modes;
      const auto w = hn::Set(d, weight[k]);
      re = hn::NegMulAdd(w, load(to), re);
      im = hn::NegMulAdd(w, load(to + modes), im);
    }
    re = hn::Add(x, re);
    im = hn::Add(i, im);
    store_lanes(re, d, task.x + n, count);
    store_lanes(im, d, task.x + modes + n, count);
    sum = add_real_product(sum, load(task.out), load(task.out + modes), re, im);
  }
  return hn::GetLane(hn::SumOfLanes(d, sum));
}

}  // namespace detail

/// All steps of one channel.
template <class T>
void mode_steps(const ModeStepTask<T>& task) {
  const hn::ScalableTag<T> d;
  for (std::ptrdiff_t t = 0; t < task.steps; ++t) {
    const T u = task.u[t];
    T weight[2] = {T{0}, T{0}};
    for (std::ptrdiff_t k = 0; k < task.rank; ++k) {
      const T* const from = task.from + k * 2 * task.modes;
      weight[k] = detail::mode_sum(d, from, task.x, task.modes) + task.gain[k] * u;
    }
    task.y[t] = detail::mode_step(d, task, u, weight) + task.through * u;
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace kernels
QUERN_NAMESPACE_END
HWY_AFTER_NAMESPACE();

#endif  // QUERN_KERNELS_MODE_STEP_INL_HPP
