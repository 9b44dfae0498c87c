// SPDX-License-Identifier: Apache-2.0

/// \file
/// What the box kernel takes: one box, many boxes as planes, and the measure.

#ifndef QUERN_KERNELS_BOX_IOU_TYPES_HPP
#define QUERN_KERNELS_BOX_IOU_TYPES_HPP

#include "quern/core/config.hpp"

#include <cstdint>

QUERN_NAMESPACE_BEGIN
namespace kernels {

/// How two boxes are compared.
enum class BoxMeasure : std::uint8_t {
  iou,   ///< intersection over union
  giou,  ///< less the share of the enclosing box that neither covers (arXiv:1902.09630)
  diou,  ///< less the squared distance of centres over the enclosing diagonal's (arXiv:1911.08287)
  ciou,  ///< and less a penalty for different aspect ratios (the same paper)
};

/// Corners, area and, for ciou, atan2(width, height) of one box.
template <class T>
struct BoxRow {
  T x1 = 0, y1 = 0, x2 = 0, y2 = 0, area = 0, angle = 0;
};

/// The same of many boxes, one array each. `crowd` may be null, else it holds 0 or 1: a crowd's
/// iou is intersection over the area of the single box.
template <class T>
struct BoxPlanes {
  const T* x1 = nullptr;
  const T* y1 = nullptr;
  const T* x2 = nullptr;
  const T* y2 = nullptr;
  const T* area = nullptr;
  const T* angle = nullptr;
  const T* crowd = nullptr;
};

}  // namespace kernels
QUERN_NAMESPACE_END

#endif  // QUERN_KERNELS_BOX_IOU_TYPES_HPP
