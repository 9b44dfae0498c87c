// SPDX-License-Identifier: Apache-2.0

/// \file
/// The lines of COCO's own tools, letter by letter.

#include "quern/detection/coco_summary.hpp"

#include "quern/detection/coco_eval.hpp"

#include "sample.hpp"

#include <string>

#include <gtest/gtest.h>

namespace quern::test::coco_summary {
namespace {

using detection::CocoOptions;
using detection::CocoTarget;

TEST(CocoSummaryTest, AreTheLinesOfCocosTools) {
  const auto s = detection_sample::sample(1, {.perfect = true});
  const std::string text = detection::coco_summary(detection::evaluate(s.data, s.found));
  EXPECT_EQ(text.substr(0, 82),
            " Average Precision  (AP) @[ IoU=0.50:0.95 | area=   all | maxDets=100 ] = 1.000\n A");
  for (const char* line :
       {" Average Precision  (AP) @[ IoU=0.50      | area=   all | maxDets=100 ] = 1.000\n",
        " Average Precision  (AP) @[ IoU=0.50:0.95 | area= large | maxDets=100 ] = 1.000\n",
        " Average Recall     (AR) @[ IoU=0.50:0.95 | area=   all | maxDets= 10 ] = 1.000\n",
        " Average Recall     (AR) @[ IoU=0.50:0.95 | area= small | maxDets=100 ] = 1.000\n"}) {
    EXPECT_NE(text.find(line), std::string::npos) << line << text;
  }
}

TEST(CocoSummaryTest, LimitsThresholdsAndFrequencies) {
  const auto s = detection_sample::sample(1);
  auto options = CocoOptions::lvis_of(CocoTarget::boxes);
  options.iou_thresholds = {0.5};
  const auto result = detection::evaluate(s.data, s.found, options);
  const auto text =
      detection::coco_summary(result, detection::lvis_stats(result, s.data.categories));
  EXPECT_NE(text.find("IoU=0.50      | area=  rare | maxDets=300 ] = -1.000"), std::string::npos)
      << text;
}

}  // namespace
}  // namespace quern::test::coco_summary
