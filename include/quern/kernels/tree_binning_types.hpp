// SPDX-License-Identifier: Apache-2.0

/// \file
/// Arguments of the kernels that bin features: plain numbers, the same for every target.

#ifndef QUERN_KERNELS_TREE_BINNING_TYPES_HPP
#define QUERN_KERNELS_TREE_BINNING_TYPES_HPP

#include "quern/core/config.hpp"

#include <cstdint>

QUERN_NAMESPACE_BEGIN
namespace kernels {

/// What a run of keys (see tree_predict_types.hpp) holds.
template <class Key>
struct KeySummary {
  Key bits = 0;  ///< bitwise or of the numbers' keys
  bool missing = false;
  bool infinite = false;
};

/// How the code of a key is found. Its bucket is (clamp(key, first, last) - first) >> shift; below
/// the bucket lie below[bucket] cuts; those inside it are told by `steps` halvings, which may read
/// 2^steps - 1 cuts from there, so the cuts are padded with the largest key.
template <class Key>
struct CodeSearch {
  Key first = 0;
  Key last = 0;
  int shift = 0;
  int steps = 0;
  const std::uint8_t* below = nullptr;
  const Key* cuts = nullptr;
};

}  // namespace kernels
QUERN_NAMESPACE_END

#endif  // QUERN_KERNELS_TREE_BINNING_TYPES_HPP
