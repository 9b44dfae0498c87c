// SPDX-License-Identifier: Apache-2.0

/// \file
/// COCO's JSON, as ground truth and as results: a text is refused with a ParseError, or it makes a
/// data set that can be evaluated (or is refused as such with another error of quern's). Results
/// that are read in pieces are those that are read from front to back.

#include "quern/detection/coco_eval.hpp"
#include "quern/io/coco.hpp"
#include "target.hpp"

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

namespace quern::test::coco_fuzz {

namespace {

using quern::detection::CocoTarget;

constexpr std::string_view known =
    R"({"images": [{"id": 1, "width": 9, "height": 7}], "categories": [{"id": 1}]})";

bool too_large(const quern::detection::CocoDataset& data) {
  std::uint64_t pixels = 0;
  for (const auto& i : data.images) pixels += std::uint64_t{i.width} * i.height;
  return pixels > 1u << 20 || data.categories.size() > 100;
}

/// How many detections the text holds when pieces of at least so many bytes are read side by side;
/// -1: refused.
std::int64_t count(std::string_view text, const quern::detection::CocoDataset& data,
                   quern::io::CocoReadOptions options, int threads, std::size_t least) {
  options.threads = threads;
  try {
    const auto input = quern::io::Input::memory(text, "fuzz", options.limits, "fuzz");
    quern::io::detail::CocoResultReader reader(input, data, options, least);
    return static_cast<std::int64_t>(reader.read().detections.size());
  } catch (const quern::Error&) {
    return -1;
  }
}

}  // namespace

QUERN_FUZZ_TARGET(coco) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  for (const auto target :
       {CocoTarget::boxes, CocoTarget::masks, CocoTarget::keypoints, CocoTarget::rotated_boxes}) {
    const quern::io::CocoReadOptions read{.target = target};
    const auto options = quern::detection::CocoOptions::of(target);
    try {
      const auto truths = quern::io::parse_coco(text, read);
      if (!too_large(truths)) (void)quern::detection::evaluate(truths, {}, options);
    } catch (const quern::Error&) {
    }
    try {
      const auto dataset = quern::io::parse_coco(known, read);
      if (count(text, dataset, read, 1, 1) != count(text, dataset, read, 3, 1)) std::abort();
      const auto found = quern::io::parse_coco_results(text, dataset, read);
      const auto result = quern::detection::evaluate(dataset, found.detections, options);
      if (result.average_precision() > 0) std::abort();  // there are no objects
    } catch (const quern::Error&) {
    }
  }
  return 0;
}

}  // namespace quern::test::coco_fuzz
