// SPDX-License-Identifier: Apache-2.0

/// \file
/// Overlap of one box with many: IoU, GIoU, DIoU, CIoU.
///
/// Every operation is rounded by itself, in the same order at every level and in the tail, so a
/// double has the bits that scalar code without fused multiply-add gives: matching compares these
/// numbers with thresholds and with each other, where one bit decides.

#if defined(QUERN_KERNELS_BOX_IOU_INL_HPP) == defined(HWY_TARGET_TOGGLE)
#ifdef QUERN_KERNELS_BOX_IOU_INL_HPP
#undef QUERN_KERNELS_BOX_IOU_INL_HPP
#else
#define QUERN_KERNELS_BOX_IOU_INL_HPP
#endif

#include "quern/core/config.hpp"
#include "quern/kernels/box_iou_types.hpp"

#include "hwy/highway.h"

#include <cstdint>

HWY_BEFORE_NAMESPACE();
QUERN_NAMESPACE_BEGIN
namespace kernels {
namespace HWY_NAMESPACE {

namespace hn = hwy::HWY_NAMESPACE;

namespace detail {

/// Keeps the compiler from fusing the product \p v with what follows.
template <class V>
HWY_INLINE V rounded(V v) {
#if defined(__GNUC__) && HWY_TARGET != HWY_EMU128
#if HWY_ARCH_X86
  asm("" : "+x"(v.raw));
#elif HWY_ARCH_ARM_A64
  asm("" : "+w"(v.raw));
#endif
#endif
  return v;
}

template <BoxMeasure M, class D, class T>
HWY_INLINE void box_overlap_at(D d, const BoxRow<T>& a, const BoxPlanes<T>& b, T pixel,
                               std::int64_t i, T* out) {
  const auto zero = hn::Zero(d);
  const auto grow = hn::Set(d, pixel);
  const auto ax1 = hn::Set(d, a.x1), ay1 = hn::Set(d, a.y1);
  const auto ax2 = hn::Set(d, a.x2), ay2 = hn::Set(d, a.y2);
  const auto x1 = hn::LoadU(d, b.x1 + i), y1 = hn::LoadU(d, b.y1 + i);
  const auto x2 = hn::LoadU(d, b.x2 + i), y2 = hn::LoadU(d, b.y2 + i);
  const auto aa = hn::Set(d, a.area), area = hn::LoadU(d, b.area + i);
  const auto w = hn::Add(hn::Sub(hn::Min(ax2, x2), hn::Max(ax1, x1)), grow);
  const auto h = hn::Add(hn::Sub(hn::Min(ay2, y2), hn::Max(ay1, y1)), grow);
  const auto meet = hn::And(hn::Gt(w, zero), hn::Gt(h, zero));
  const auto inter = hn::IfThenElseZero(meet, rounded(hn::Mul(w, h)));
  auto both = hn::Sub(hn::Add(aa, area), inter);
  if (M == BoxMeasure::iou && b.crowd != nullptr) {
    both = hn::IfThenElse(hn::Gt(hn::LoadU(d, b.crowd + i), zero), aa, both);
  }
  // The divisor is 1 where boxes do not meet, for 0 / 0 would raise the invalid flag.
  const auto divisor = hn::IfThenElse(hn::Gt(inter, zero), both, hn::Set(d, T(1)));
  auto value = hn::Div(inter, divisor);
  if (M != BoxMeasure::iou) {
    const auto cw = hn::Add(hn::Sub(hn::Max(ax2, x2), hn::Min(ax1, x1)), grow);
    const auto ch = hn::Add(hn::Sub(hn::Max(ay2, y2), hn::Min(ay1, y1)), grow);
    if (M == BoxMeasure::giou) {
      const auto hull = rounded(hn::Mul(cw, ch));
      const auto some = hn::Gt(hull, zero);
      const auto share = hn::Div(hn::Sub(hull, both), hn::IfThenElse(some, hull, hn::Set(d, T(1))));
      value = hn::Sub(value, hn::IfThenElseZero(some, share));
    } else {
      const auto half = hn::Set(d, T(0.5)), eps = hn::Set(d, T(1e-7));
      const auto dx = hn::Mul(half, hn::Sub(hn::Add(ax1, ax2), hn::Add(x1, x2)));
      const auto dy = hn::Mul(half, hn::Sub(hn::Add(ay1, ay2), hn::Add(y1, y2)));
      const auto far = hn::Add(rounded(hn::Mul(dx, dx)), rounded(hn::Mul(dy, dy)));
      const auto diagonal =
          hn::Add(hn::Add(rounded(hn::Mul(cw, cw)), rounded(hn::Mul(ch, ch))), eps);
      const auto iou = value;
      value = hn::Sub(iou, hn::Div(far, diagonal));
      if (M == BoxMeasure::ciou) {
        const auto turn = hn::Sub(hn::Set(d, a.angle), hn::LoadU(d, b.angle + i));
        const auto square = rounded(hn::Mul(turn, turn));
        const auto v = rounded(hn::Mul(hn::Set(d, T(0.405284734569351085775517852838911)), square));
        const auto below = hn::Add(hn::Add(hn::Sub(hn::Set(d, T(1)), iou), v), eps);
        value = hn::Sub(value, hn::Div(rounded(hn::Mul(v, v)), below));
      }
    }
  }
  hn::StoreU(value, d, out + i);
}

template <BoxMeasure M, class T>
void box_overlap_all(const BoxRow<T>& a, const BoxPlanes<T>& b, T pixel, std::int64_t n, T* out) {
  std::int64_t i = 0;
  const hn::ScalableTag<T> d;
  const std::int64_t lanes = static_cast<std::int64_t>(hn::Lanes(d));
  for (; i + lanes <= n; i += lanes) box_overlap_at<M>(d, a, b, pixel, i, out);
  const hn::CappedTag<T, 1> d1;
  for (; i < n; ++i) box_overlap_at<M>(d1, a, b, pixel, i, out);
}

}  // namespace detail

/// out[i] = measure(a, box i of b) for i < n. \p pixel (0 or 1) is added to widths and heights of
/// intersections and hulls; areas are the caller's. Boxes without an intersection have iou 0.
template <class T>
void box_overlap(BoxMeasure measure, const BoxRow<T>& a, const BoxPlanes<T>& b, T pixel,
                 std::int64_t n, T* out) {
  switch (measure) {
    case BoxMeasure::iou:
      return detail::box_overlap_all<BoxMeasure::iou>(a, b, pixel, n, out);
    case BoxMeasure::giou:
      return detail::box_overlap_all<BoxMeasure::giou>(a, b, pixel, n, out);
    case BoxMeasure::diou:
      return detail::box_overlap_all<BoxMeasure::diou>(a, b, pixel, n, out);
    case BoxMeasure::ciou:
      return detail::box_overlap_all<BoxMeasure::ciou>(a, b, pixel, n, out);
  }
}

}  // namespace HWY_NAMESPACE
}  // namespace kernels
QUERN_NAMESPACE_END
HWY_AFTER_NAMESPACE();

#endif  // QUERN_KERNELS_BOX_IOU_INL_HPP
