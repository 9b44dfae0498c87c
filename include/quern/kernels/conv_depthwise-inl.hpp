// SPDX-License-Identifier: Apache-2.0

/// \file
/// Depthwise convolutions, where each channel has a kernel of its own: vectors run along the
/// channels. Tasks are those of conv_types.hpp with `outputs` = source channels, weights
/// [tap][channel].
///
/// A multiply-add needs two loads, so this is bound by the L1 cache at about a third of the
/// multiply-add peak. |error| <= taps u sum |w x|, one chain in the order of the taps.

#if defined(QUERN_KERNELS_CONV_DEPTHWISE_INL_HPP) == defined(HWY_TARGET_TOGGLE)
#ifdef QUERN_KERNELS_CONV_DEPTHWISE_INL_HPP
#undef QUERN_KERNELS_CONV_DEPTHWISE_INL_HPP
#else
#define QUERN_KERNELS_CONV_DEPTHWISE_INL_HPP
#endif

#include "quern/core/config.hpp"
#include "quern/kernels/conv-inl.hpp"
#include "quern/kernels/conv_types.hpp"
#include "quern/kernels/conv_weights-inl.hpp"
#include "quern/kernels/norm-inl.hpp"

#include "hwy/highway.h"

#include <cstddef>

HWY_BEFORE_NAMESPACE();
QUERN_NAMESPACE_BEGIN
namespace kernels {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

/// Outputs of a task.
template <class T>
void conv_depthwise(const ConvTask<T>& task) {
  if (task.row_end <= task.row_begin || task.grid_width <= 0) return;
  const hn::ScalableTag<T> d;
  const ConvSource<T>& s = task.source;
  const std::size_t channels = static_cast<std::size_t>(s.channels), lanes = hn::Lanes(d);
  T spare = T{0};
  detail::TapPlan plan;
  detail::plan_taps(task.source, plan);
  detail::ConvPlace at{0, task.row_begin, 0};
  while (at.image < task.images) {
    T* out[1];
    detail::ConvPlace place[1];
    detail::next_places<1>(task, at, 0, &spare, place, out);
    detail::gather_pointers<1>(task, plan, place);
    for (std::size_t c = 0; c < channels; c += lanes) {
      const std::size_t left = channels - c;
      auto sum = hn::Zero(d);
      if (task.bias != nullptr) sum = detail::load_up_to(d, task.bias + c, left);
      const T* w = task.weights + c;
      for (std::ptrdiff_t t = 0; t < s.tap_count; ++t, w += channels) {
        sum = hn::MulAdd(detail::load_up_to(d, task.pointers[t] + c, left),
                         detail::load_up_to(d, w, left), sum);
      }
      detail::store_up_to(sum, d, out[0] + c, left);
    }
  }
}

/// out[tap][channel] += sum over positions of source times dy; `vectors` whole vectors, which have
/// to be there in both. \p runs is scratch of one a row of the task.
template <class T>
void conv_depthwise_weights(const ConvWeightsTask<T>& task, ConvRun<T>* runs) {
  const hn::ScalableTag<T> d;
  const ConvSource<T>& s = task.source;
  const std::ptrdiff_t lanes = static_cast<std::ptrdiff_t>(hn::Lanes(d));
  const std::ptrdiff_t source_step = s.step_w * s.pixel_stride;
  T* out = task.out;
  for (std::ptrdiff_t t = 0; t < s.tap_count; ++t, out += task.out_stride) {
    detail::tap_runs(task, s.taps[t], runs);
    for (std::ptrdiff_t v = 0; v < task.vectors; ++v) {
      // Two chains: a multiply-add takes four cycles.
      auto even = hn::LoadU(d, out + v * lanes), odd = hn::Zero(d);
      for (std::ptrdiff_t i = 0; i < task.row_end - task.row_begin; ++i) {
        const T* x = runs[i].single + v * lanes;
        const T* y = runs[i].vector + v * lanes;
        std::ptrdiff_t k = 0;
        for (; k + 2 <= runs[i].count; k += 2) {
          even = hn::MulAdd(hn::LoadU(d, x), hn::LoadU(d, y), even);
          odd = hn::MulAdd(hn::LoadU(d, x + source_step), hn::LoadU(d, y + task.dy_pixel_stride),
                           odd);
          x += 2 * source_step;
          y += 2 * task.dy_pixel_stride;
        }
        if (k < runs[i].count) even = hn::MulAdd(hn::LoadU(d, x), hn::LoadU(d, y), even);
      }
      hn::StoreU(hn::Add(even, odd), d, out + v * lanes);
    }
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace kernels
QUERN_NAMESPACE_END
HWY_AFTER_NAMESPACE();

#endif  // QUERN_KERNELS_CONV_DEPTHWISE_INL_HPP
