// SPDX-License-Identifier: Apache-2.0

/// \file
/// Where channels are, and pairs of numbers for height and width.

#ifndef QUERN_NN_LAYOUT_HPP
#define QUERN_NN_LAYOUT_HPP

#include "quern/core/config.hpp"
#include "quern/core/nd_view.hpp"

QUERN_NAMESPACE_BEGIN
namespace nn {

/// Order of an image batch's dimensions.
enum class Layout {
  channels_first,  ///< (N, C, H, W), PyTorch's
  channels_last    ///< (N, H, W, C)
};

/// A number for height and width: one for both, or {h, w}.
struct Pair {
  Index h = 1;
  Index w = 1;
  Pair(Index both) : h(both), w(both) {}  // NOLINT: implicit
  Pair(int both) : Pair(Index{both}) {}   // NOLINT: implicit
  Pair(Index height, Index width) : h(height), w(width) {}
};

}  // namespace nn
QUERN_NAMESPACE_END

#endif  // QUERN_NN_LAYOUT_HPP
