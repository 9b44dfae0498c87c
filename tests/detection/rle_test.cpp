// SPDX-License-Identifier: Apache-2.0

/// \file
/// Run lengths against pycocotools.mask (tests/reference/detection), bit for bit.

#include "quern/detection/rle.hpp"

#include "quern/core/random.hpp"
#include "quern/io/npy.hpp"

#include <fstream>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

namespace quern::test::rle {
namespace {

using detection::Box;
using detection::MaskMerge;
using detection::Rle;
using nlohmann::json;

struct Reference {
  json expected;
  std::vector<Rle> masks;
  NdArray<std::uint8_t, 3> dense;
  std::uint32_t height = 0, width = 0;
};

Reference reference() {
  const std::string folder = std::string(QUERN_TEST_REFERENCE_DIR) + "/detection/";
  std::ifstream file(folder + "mask_expected.json");
  Reference r;
  r.expected = json::parse(file);
  r.height = r.expected["size"][0].get<std::uint32_t>();
  r.width = r.expected["size"][1].get<std::uint32_t>();
  r.dense = io::read_npy<std::uint8_t, 3>(folder + "mask_dense.npy");
  for (Index i = 0; i < r.dense.extent(0); ++i) {
    r.masks.push_back(detection::encode(r.dense.view().subview(i)));
  }
  return r;
}

void expect_box(const Box& got, const json& expected) {
  EXPECT_EQ(got.x, expected[0].get<double>());
  EXPECT_EQ(got.y, expected[1].get<double>());
  EXPECT_EQ(got.w, expected[2].get<double>());
  EXPECT_EQ(got.h, expected[3].get<double>());
}

TEST(RleTest, EqualsCocoTools) {
  const Reference r = reference();
  for (std::size_t i = 0; i < r.masks.size(); ++i) {
    SCOPED_TRACE(i);
    const Rle& m = r.masks[i];
    EXPECT_EQ(m.counts, r.expected["counts"][i].get<std::vector<std::uint32_t>>());
    const auto text = r.expected["compressed"][i].get<std::string>();
    EXPECT_EQ(detection::compressed(m), text);
    EXPECT_EQ(detection::from_compressed(text, r.height, r.width), m);
    EXPECT_EQ(detection::area(m), r.expected["area"][i].get<std::uint64_t>());
    expect_box(detection::box_of(m), r.expected["bbox"][i]);
    const auto back = detection::decode(m);
    EXPECT_TRUE(
        std::equal(back.begin(), back.end(), r.dense.data() + static_cast<Index>(i) * back.size()));
    for (std::size_t j = 0; j < r.masks.size(); ++j) {
      const bool crowd = r.expected["iscrowd"][j].get<int>() != 0;
      EXPECT_EQ(detection::iou(m, r.masks[j], crowd),
                r.expected["iou_dt_rows_gt_cols"][i][j].get<double>());
      EXPECT_EQ(detection::iou(m, r.masks[j]), r.expected["iou_nocrowd"][i][j].get<double>());
    }
  }
  const std::vector<Rle> three = {r.masks[0], r.masks[7], r.masks[8]};
  const std::vector<Rle> two = {r.masks[7], r.masks[8]};
  EXPECT_EQ(detection::compressed(detection::merge(three, MaskMerge::any)),
            r.expected["merge_union_0_7_8"].get<std::string>());
  EXPECT_EQ(detection::compressed(detection::merge(two, MaskMerge::all)),
            r.expected["merge_intersect_7_8"].get<std::string>());
}

TEST(RleTest, RandomMasksAgreeWithTheirPixels) {
  Philox rng(1, "rle");
  for (int repeat = 0; repeat < 100; ++repeat) {
    const Index h = 1 + static_cast<Index>(rng.integer(9)), w = static_cast<Index>(rng.integer(9));
    NdArray<std::uint8_t, 2> a({h, w}), b({h, w});
    std::uint64_t both = 0, any = 0;
    for (Index i = 0; i < a.size(); ++i) {
      a.data()[i] = rng.bernoulli(0.6) ? 1 : 0;
      b.data()[i] = rng.bernoulli(0.3) ? 7 : 0;
      both += a.data()[i] != 0 && b.data()[i] != 0 ? 1U : 0U;
      any += a.data()[i] != 0 || b.data()[i] != 0 ? 1U : 0U;
    }
    const Rle p = detection::encode(a.view()), q = detection::encode(b.view());
    EXPECT_EQ(detection::intersection(p, q), both);
    const std::vector<Rle> pair = {p, q};
    EXPECT_EQ(detection::area(detection::merge(pair, MaskMerge::any)), any);
    EXPECT_EQ(detection::area(detection::merge(pair, MaskMerge::all)), both);
    const std::string text = detection::compressed(p);
    EXPECT_EQ(detection::from_compressed(text, p.height, p.width), p);
  }
}

TEST(RleTest, Refuses) {
  EXPECT_THROW((void)detection::from_compressed("!", 2, 2), ParseError);
  EXPECT_THROW((void)detection::from_compressed("Q", 2, 2), ParseError);  // more should follow
  EXPECT_THROW((void)detection::from_compressed("5", 2, 2), ParseError);
  EXPECT_THROW((void)detection::from_compressed("oooooooooooo", 2, 2), ParseError);
  EXPECT_NO_THROW((void)detection::from_compressed("4", 2, 2));
  const Rle bad{2, 2, {3}}, small_mask{2, 2, {4}}, large{2, 3, {6}};
  EXPECT_THROW((void)detection::decode(bad), ShapeError);
  EXPECT_THROW((void)detection::iou(small_mask, large), ShapeError);
  EXPECT_THROW((void)detection::iou(bad, small_mask), ShapeError);
  EXPECT_THROW((void)detection::merge({}, MaskMerge::any), ShapeError);
}

}  // namespace
}  // namespace quern::test::rle
