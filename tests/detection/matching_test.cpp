// SPDX-License-Identifier: Apache-2.0

/// \file
/// COCO's and VOC's rule: every match of pycocotools on the reference data, and small cases by
/// hand.

#include "quern/detection/matching.hpp"

#include "quern/detection/detail/coco_overlap.hpp"
#include "quern/io/coco.hpp"

#include "sample.hpp"

#include <limits>
#include <map>
#include <string>
#include <vector>

#include <gtest/gtest.h>

namespace quern::test::matching {
namespace {

using detection::CocoTarget;
using detection::Verdict;
using detection::VocCompare;
using detection_sample::reference;

using Ids = std::vector<std::int64_t>;

/// One image and class of the reference.
void expect_matches(const nlohmann::json& row, const detection::CocoDataset& data,
                    const detection::CocoResults& found, CocoTarget target) {
  const Ids dt = row["dt_ids"].get<Ids>(), gt = row["gt_ids"].get<Ids>();
  std::map<std::int64_t, const detection::Truth*> truths;
  for (const auto& t : data.truths) truths[t.id] = &t;
  std::vector<std::uint8_t> crowd, ignored = row["gt_ignore"].get<std::vector<std::uint8_t>>();
  for (const std::int64_t id : gt) crowd.push_back(truths.at(id)->crowd ? 1 : 0);
  const auto sigmas = detection::coco_sigmas();
  std::vector<double> iou;
  for (const std::int64_t d : dt) {
    // Their ids are places in the file, from 1 on.
    const auto& one = found.detections[static_cast<std::size_t>(d - 1)];
    for (std::size_t g = 0; g < gt.size(); ++g) {
      iou.push_back(
          detection::detail::coco_overlap(target, one, *truths.at(gt[g]), crowd[g] != 0, sigmas));
    }
  }
  const NdView<const double, 2> matrix(
      iou.data(), {static_cast<Index>(dt.size()), static_cast<Index>(gt.size())});
  const auto m = detection::match_coco(matrix, 0.5, {.ignored = ignored, .crowd = crowd});
  for (std::size_t d = 0; d < dt.size(); ++d) {
    const std::int64_t id = m.truth[d] < 0 ? 0 : gt[static_cast<std::size_t>(m.truth[d])];
    EXPECT_EQ(id, row["dt_matched_gt_id"][d].get<std::int64_t>());
    EXPECT_EQ(m.verdict[d] == Verdict::ignored, row["dt_ignore"][d].get<int>() != 0);
  }
}

TEST(MatchingTest, EveryMatchEqualsPycocotools) {
  for (const auto& [name, target] : {std::pair{"bbox", CocoTarget::boxes},
                                     {"segm", CocoTarget::masks},
                                     {"keypoints", CocoTarget::keypoints}}) {
    SCOPED_TRACE(name);
    const std::string base = std::string("coco_") + name;
    const io::CocoReadOptions read{.target = target};
    const auto data = io::read_coco(reference(base + "_gt.json"), read);
    const auto found = io::read_coco_results(reference(base + "_dt.json"), data, read);
    for (const auto& row : detection_sample::load(base + "_matches.json")) {
      SCOPED_TRACE(row["image_id"].get<std::int64_t>());
      expect_matches(row, data, found, target);
    }
  }
}

TEST(MatchingTest, ByHand) {
  // Two objects; the second detection would be better on what the first has taken.
  const std::vector<double> iou = {0.7, 0.6, 0.9, 0.0, 0.5, 0.5};
  const NdView<const double, 2> m(iou.data(), {3, 2});
  const auto coco = detection::match_coco(m, 0.5);
  EXPECT_EQ(coco.truth, (std::vector<std::int32_t>{0, -1, 1}));
  const auto voc = detection::match_voc(m, 0.5);
  EXPECT_EQ(voc.truth, (std::vector<std::int32_t>{0, -1, -1}));
  EXPECT_EQ(voc.verdict[2], Verdict::false_positive);  // the first of equals is taken
  const std::vector<std::uint8_t> first = {1, 0};
  const auto ignored = detection::match_coco(m, 0.5, {.ignored = first, .crowd = first});
  EXPECT_EQ(ignored.truth, (std::vector<std::int32_t>{1, 0, 0}));
  EXPECT_EQ(ignored.verdict[1], Verdict::ignored);
  const auto difficult = detection::match_voc(m, 0.5, VocCompare::at_least, {.ignored = first});
  EXPECT_EQ(difficult.verdict,
            (std::vector<Verdict>{Verdict::ignored, Verdict::ignored, Verdict::ignored}));
}

TEST(MatchingTest, EqualIouAndTheThresholdItself) {
  const std::vector<double> iou = {0.5, 0.5};
  const NdView<const double, 2> m(iou.data(), {1, 2});
  EXPECT_EQ(detection::match_coco(m, 0.5).truth[0], 1);  // the last of equals
  EXPECT_EQ(detection::match_voc(m, 0.5).truth[0], 0);   // the first
  EXPECT_EQ(detection::match_voc(m, 0.5, VocCompare::above).truth[0], -1);
  const double nearly = 1 - 1e-11;
  EXPECT_EQ(detection::match_coco({&nearly, {1, 1}}, 1).truth[0], 0);  // 1 - 1e-10 is enough
}

TEST(MatchingTest, NothingAndBadInput) {
  const std::vector<double> iou = {0.7, 0.6};
  const NdView<const double, 2> m(iou.data(), {1, 2});
  const std::vector<std::uint8_t> one = {1};
  EXPECT_THROW((void)detection::match_coco(m, 0.5, {.crowd = one}), ShapeError);
  EXPECT_THROW((void)detection::match_voc(m, 0.5, VocCompare::at_least, {.ignored = one}),
               ShapeError);
  const double nan = std::numeric_limits<double>::quiet_NaN();
  EXPECT_THROW((void)detection::match_voc(m, nan), ValueError);
  EXPECT_THROW((void)detection::match_coco(m, nan), ValueError);
  const auto none = detection::match_coco({iou.data(), {2, 0}}, 0.5);
  EXPECT_EQ(none.truth, (std::vector<std::int32_t>{-1, -1}));
  EXPECT_EQ(detection::match_voc({iou.data(), {2, 0}}, 0.5).truth, none.truth);
  EXPECT_TRUE(detection::match_coco({iou.data(), {0, 2}}, 0.5).truth.empty());
}

}  // namespace
}  // namespace quern::test::matching
