// SPDX-License-Identifier: Apache-2.0

/// \file
/// What convolutions pass to their kernels: conv-inl.hpp. Pixels lie with their channels side by
/// side; an image is a pointer with a stride from row to row and one from pixel to pixel.

#ifndef QUERN_KERNELS_CONV_TYPES_HPP
#define QUERN_KERNELS_CONV_TYPES_HPP

#include "quern/core/config.hpp"

#include <cstddef>

QUERN_NAMESPACE_BEGIN
namespace kernels {

/// One place of the kernel: output (i, j) takes source (i step_h + dh, j step_w + dw).
struct ConvTap {
  std::ptrdiff_t dh = 0;
  std::ptrdiff_t dw = 0;
  std::ptrdiff_t weight = 0;  ///< where in a plane of weights its value is
};

/// How a level cuts outputs' channels: panels of at most `vectors` vectors of `lanes`.
struct ConvLayout {
  std::ptrdiff_t lanes = 0;
  std::ptrdiff_t vectors = 0;
  std::ptrdiff_t rows = 0;  ///< most positions of a tile
};

/// Source of a convolution: rows outside [0, height) and columns outside [0, width) are zeros.
template <class T>
struct ConvSource {
  const T* data = nullptr;  ///< pixel (first_row, 0)
  std::ptrdiff_t first_row = 0;
  std::ptrdiff_t row_stride = 0;
  std::ptrdiff_t pixel_stride = 0;
  std::ptrdiff_t image_stride = 0;  ///< to the next image
  std::ptrdiff_t height = 0, width = 0;
  std::ptrdiff_t channels = 0;
  std::ptrdiff_t step_h = 1, step_w = 1;
  const ConvTap* taps = nullptr;
  std::ptrdiff_t tap_count = 0;
  std::ptrdiff_t run = 1;  ///< taps that follow each other pixel by pixel: all come in such runs
};

/// Outputs of rows [row_begin, row_end) of a grid that is `grid_width` wide, of some images.
template <class T>
struct ConvTask {
  ConvSource<T> source;
  std::ptrdiff_t row_begin = 0, row_end = 0;
  std::ptrdiff_t grid_width = 0;
  std::ptrdiff_t images = 1;
  std::ptrdiff_t outputs = 0;  ///< channels of the output
  const T* weights = nullptr;  ///< conv_pack_weights, or plain rows for conv_narrow
  const T* bias = nullptr;     ///< `outputs` values, or null
  T* y = nullptr;              ///< output of (row_begin, 0)
  std::ptrdiff_t y_row_stride = 0;
  std::ptrdiff_t y_pixel_stride = 0;
  std::ptrdiff_t y_image_stride = 0;
  const T* zeros = nullptr;      ///< as many as channels
  const T** pointers = nullptr;  ///< scratch: taps * layout rows
};

/// Where the two operands of a weights' gradient are along one row of positions.
template <class T>
struct ConvRun {
  const T* single;
  const T* vector;
  std::ptrdiff_t count;
};

/// Weights' gradient of outputs' rows [row_begin, row_end). One operand is read element by
/// element (`single`), the other by vectors (`vector`); which of source and output gradient is
/// which is the caller's choice. out[tap][single channel][vector channel] is added to.
template <class T>
struct ConvWeightsTask {
  ConvSource<T> source;
  std::ptrdiff_t row_begin = 0, row_end = 0;
  std::ptrdiff_t grid_width = 0;
  const T* dy = nullptr;  ///< of (row_begin, 0)
  std::ptrdiff_t dy_row_stride = 0;
  std::ptrdiff_t dy_pixel_stride = 0;
  std::ptrdiff_t singles = 0;  ///< channels of the operand that is read by elements
  std::ptrdiff_t vectors = 0;  ///< of the other: whole vectors, which have to be there
  bool source_by_vectors = false;
  T* out = nullptr;
  std::ptrdiff_t out_stride = 0;  ///< from one single channel to the next
};

}  // namespace kernels
QUERN_NAMESPACE_END

#endif  // QUERN_KERNELS_CONV_TYPES_HPP
