// SPDX-License-Identifier: Apache-2.0

/// \file
/// What COCO's evaluation keeps of matched images: a score, a class, a rank and two bits for every
/// threshold and area of each detection; so memory is proportional to the detections.

#ifndef QUERN_DETECTION_DETAIL_COCO_RECORDS_HPP
#define QUERN_DETECTION_DETAIL_COCO_RECORDS_HPP

#include "quern/core/config.hpp"

#include <cstddef>
#include <cstdint>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace detection {
namespace detail {

/// Ranges of the arrays below that belong to one image.
struct CocoImage {
  std::int64_t id = 0;
  std::uint64_t detections_end = 0;
  std::uint64_t truths_end = 0;
};

/// A truth that counts in the areas whose bits are set.
struct CocoTruth {
  std::uint32_t category = 0;
  std::uint32_t areas = 0;
};

/// Bits 2 (a T + t) and the next of a detection's words: matched, ignored.
struct CocoRecords {
  std::size_t words = 0;  ///< 64-bit words a detection
  std::vector<CocoImage> images;
  std::vector<double> scores;
  std::vector<std::uint32_t> categories;
  std::vector<std::uint32_t> ranks;  ///< within image and class, by score
  std::vector<std::uint64_t> bits;
  std::vector<CocoTruth> truths;

  void append(const CocoRecords& o) {
    const std::uint64_t detections = scores.size(), counted = truths.size();
    for (CocoImage image : o.images) {
      image.detections_end += detections;
      image.truths_end += counted;
      images.push_back(image);
    }
    const auto join = [](auto& to, const auto& from) {
      to.insert(to.end(), from.begin(), from.end());
    };
    join(scores, o.scores);
    join(categories, o.categories);
    join(ranks, o.ranks);
    join(bits, o.bits);
    join(truths, o.truths);
  }

  void reserve(std::size_t detections) {
    scores.reserve(detections);
    categories.reserve(detections);
    ranks.reserve(detections);
    bits.reserve(detections * words);
  }
};

}  // namespace detail
}  // namespace detection
QUERN_NAMESPACE_END

#endif  // QUERN_DETECTION_DETAIL_COCO_RECORDS_HPP
