// SPDX-License-Identifier: Apache-2.0

/// \file
/// COCO's JSON from file to numbers, against pycocotools and lvis (tests/reference/detection): the
/// same arithmetic in double, so all numbers agree to 1e-12; and what the readers refuse, and
/// where.

#include "quern/io/coco.hpp"

#include "quern/detection/coco_eval.hpp"
#include "quern/detection/f1.hpp"
#include "quern/io/npy.hpp"

#include <algorithm>
#include <cmath>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

#include <gtest/gtest.h>
#include <nlohmann/json.hpp>

namespace quern::test::io_coco {
namespace {

using detection::CocoOptions;
using detection::CocoResult;
using detection::CocoTarget;
using nlohmann::json;

std::string reference(const std::string& name) {
  return std::string(QUERN_TEST_REFERENCE_DIR) + "/detection/" + name;
}
json load(const std::string& name) {
  std::ifstream file(reference(name));
  return json::parse(file);
}

CocoResult run(const std::string& truths, const std::string& found, const CocoOptions& options) {
  const io::CocoReadOptions read{.target = options.target};
  const auto data = io::read_coco(reference(truths), read);
  const auto results = io::read_coco_results(reference(found), data, read);
  return detection::evaluate(data, results.detections, options);
}

void expect_stats(const CocoResult& result, const json& expected) {
  const auto stats = detection::coco_stats(result);
  ASSERT_EQ(stats.size(), expected["stats"].size());
  for (std::size_t i = 0; i < stats.size(); ++i) {
    EXPECT_NEAR(stats[i].value, expected["stats"][i].get<double>(), 1e-12) << stats[i].name;
  }
  const std::size_t classes = result.categories.size();
  ASSERT_EQ(classes, expected["ap_per_class"].size());
  const double first = result.options.iou_thresholds[0];
  for (std::size_t k = 0; k < classes; ++k) {
    EXPECT_EQ(result.categories[k], expected["cat_ids"][k].get<std::int64_t>());
    EXPECT_NEAR(result.class_precision(k), expected["ap_per_class"][k].get<double>(), 1e-12);
    EXPECT_NEAR(result.class_precision(k, first), expected["ap50_per_class"][k].get<double>(),
                1e-12);
    EXPECT_NEAR(result.average_recall({.classes = std::vector<std::size_t>{k}}),
                expected["ar_per_class"][k].get<double>(), 1e-12);
    for (std::size_t a = 0; a < result.options.areas.size(); ++a) {
      EXPECT_NEAR(result.class_precision(k, {}, result.options.areas[a].name),
                  expected["ap_per_class_area"][k][a].get<double>(), 1e-12);
    }
  }
  for (std::size_t t = 0; t < result.options.iou_thresholds.size(); ++t) {
    EXPECT_EQ(result.options.iou_thresholds[t], expected["iou_thrs"][t].get<double>());
    EXPECT_NEAR(result.average_precision({.iou = result.options.iou_thresholds[t]}),
                expected["ap_per_iou"][t].get<double>(), 1e-12);
  }
}

/// The stored arrays hold the largest limit only (recall: all).
void expect_arrays(const CocoResult& result, const std::string& name) {
  const auto precision = io::read_npy<double, 4>(reference(name + "_precision_all_maxdet.npy.gz"));
  const auto scores = io::read_npy<double, 4>(reference(name + "_scores_all_maxdet.npy.gz"));
  const auto recall = io::read_npy<double, 4>(reference(name + "_recall.npy.gz"));
  ASSERT_EQ(result.recall.extents(), recall.extents());
  const Index m = result.precision.extent(4) - 1;
  double worst = 0;
  for (Index t = 0; t < precision.extent(0); ++t) {
    for (Index r = 0; r < precision.extent(1); ++r) {
      for (Index k = 0; k < precision.extent(2); ++k) {
        for (Index a = 0; a < precision.extent(3); ++a) {
          const double p = std::fabs(result.precision(t, r, k, a, m) - precision(t, r, k, a));
          const double s = std::fabs(result.scores(t, r, k, a, m) - scores(t, r, k, a));
          worst = (std::max)({worst, p, s});
        }
      }
    }
  }
  for (Index i = 0; i < recall.size(); ++i) {
    worst = (std::max)(worst, std::fabs(result.recall.data()[i] - recall.data()[i]));
  }
  EXPECT_LE(worst, 1e-12);
}

TEST(CocoTest, BoxesEqualPycocotools) {
  const auto result = run("coco_bbox_gt.json", "coco_bbox_dt.json", {});
  expect_stats(result, load("coco_bbox_expected.json"));
  expect_arrays(result, "coco_bbox");
}

TEST(CocoTest, TiedScoresEqualPycocotools) {
  expect_stats(run("coco_bbox_ties_gt.json", "coco_bbox_ties_dt.json", {}),
               load("coco_bbox_ties_expected.json"));
}

TEST(CocoTest, MasksEqualPycocotools) {
  const auto result =
      run("coco_segm_gt.json", "coco_segm_dt.json", CocoOptions::of(CocoTarget::masks));
  expect_stats(result, load("coco_segm_expected.json"));
  expect_arrays(result, "coco_segm");
}

TEST(CocoTest, KeypointsEqualPycocotools) {
  const auto result = run("coco_keypoints_gt.json", "coco_keypoints_dt.json",
                          CocoOptions::of(CocoTarget::keypoints));
  expect_stats(result, load("coco_keypoints_expected.json"));
  expect_arrays(result, "coco_keypoints");
}

// Their IoU is cut by another library: equal but for rounding, and no IoU is that near a threshold.
TEST(CocoTest, RotatedBoxesEqualPycocotools) {
  expect_stats(run("coco_rotated_gt.json", "coco_rotated_dt.json",
                   CocoOptions::of(CocoTarget::rotated_boxes)),
               load("coco_rotated_expected.json"));
}

TEST(CocoTest, VariantsEqualPycocotools) {
  const json expected = load("coco_bbox_variants_expected.json");
  const auto check = [&](const char* name, CocoOptions options) {
    SCOPED_TRACE(name);
    options.compat = true;
    expect_stats(run("coco_bbox_gt.json", "coco_bbox_dt.json", options), expected[name]);
  };
  CocoOptions one;
  one.use_categories = false;
  check("use_cats0", one);
  CocoOptions limits;
  limits.max_detections = {1, 5, 300};
  check("maxdets_1_5_300", limits);
  CocoOptions thresholds;
  thresholds.iou_thresholds = {0.3, 0.5, 0.7};
  if (expected["thr_03_05_07"]["iou_thrs"][2] != 0.7) thresholds.iou_thresholds[2] = 0.75;
  check("thr_03_05_07", thresholds);
  CocoOptions levels;
  levels.recall_levels.clear();
  for (int i = 0; i < 11; ++i) levels.recall_levels.push_back(i * 0.1);
  levels.recall_levels.back() = 1;
  check("rec_11pt", levels);
  // Without `compat` the main number is there too.
  const auto right = run("coco_bbox_gt.json", "coco_bbox_dt.json", limits);
  EXPECT_GT(detection::coco_stats(right)[0].value, 0.3);
}

// Boxes beside masks or key points: a detection's area is its box's there.
TEST(CocoTest, QuirksEqualPycocotoolsInItsOwnWay) {
  const json expected = load("coco_quirks_expected.json");
  const auto check = [&](const std::string& name, const std::string& kind, CocoOptions options) {
    SCOPED_TRACE(name);
    options.compat = true;
    json found = load("coco_" + kind + "_dt.json");
    for (std::size_t k = 0; k < found.size(); ++k) {
      if (name.find("boxed") == std::string::npos) break;
      found[k]["bbox"] = {10, 10, 20 + 7 * k % 150, 30};
    }
    const io::CocoReadOptions read{.target = options.target};
    const auto data = io::read_coco(reference("coco_" + kind + "_gt.json"), read);
    const auto results = io::parse_coco_results(found.dump(), data, read);
    expect_stats(detection::evaluate(data, results.detections, options), expected[name]);
  };
  CocoOptions points = CocoOptions::of(CocoTarget::keypoints), boxes;
  check("segm_boxed", "segm", CocoOptions::of(CocoTarget::masks));
  check("keypoints_boxed", "keypoints", points);
  points.use_categories = false;
  check("keypoints_use_cats0", "keypoints", points);
  points.use_categories = true;
  points.max_detections = {3};
  check("keypoints_maxdets_3", "keypoints", points);
  boxes.max_detections = {1, 2, 3, 100};
  check("bbox_maxdets_1_2_3_100", "bbox", boxes);
}

TEST(CocoTest, EdgeCasesEqualPycocotoolsInItsOwnWay) {
  for (const json& c : load("coco_edge_cases.json")) {
    SCOPED_TRACE(c["name"].get<std::string>());
    CocoOptions options;
    options.compat = true;
    if (c["params"].contains("useCats")) options.use_categories = false;
    if (c["params"].contains("iouThrs")) {
      options.iou_thresholds = c["params"]["iouThrs"].get<std::vector<double>>();
    }
    if (c["params"].contains("maxDets")) {
      options.max_detections = c["params"]["maxDets"].get<std::vector<std::int64_t>>();
    }
    const auto data = io::parse_coco(c["gt"].dump());
    const auto results = io::parse_coco_results(c["dt"].dump(), data);
    expect_stats(detection::evaluate(data, results.detections, options), c["expected"]);
  }
}

TEST(CocoTest, DefectsAreRightWithoutCompat) {
  for (const json& c : load("coco_edge_cases.json")) {
    const auto name = c["name"].get<std::string>();
    if (name != "annotation_id_zero" && name != "ignore_field_is_overwritten_by_iscrowd") continue;
    SCOPED_TRACE(name);
    json truths = c["gt"];
    const auto data = io::parse_coco(truths.dump());
    const auto results = io::parse_coco_results(c["dt"].dump(), data);
    const auto result = detection::evaluate(data, results.detections);
    const double right = result.average_precision();
    if (name != "annotation_id_zero") {
      EXPECT_EQ(result.truths[0], 1);  // of two, one to be ignored
      continue;
    }
    EXPECT_GT(right, c["expected"]["stats"][0].get<double>());
    // The same objects under other ids.
    for (json& a : truths["annotations"]) a["id"] = a["id"].get<int>() + 100;
    const auto renamed = io::parse_coco(truths.dump());
    CocoOptions compat;
    compat.compat = true;
    EXPECT_EQ(right, detection::evaluate(renamed, results.detections, compat).average_precision());
  }
}

TEST(CocoTest, RealImagesGiveThePublishedNumbers) {
  const json expected = load("real_coco100_bbox_expected.json");
  const auto data = io::read_coco(reference("real_coco100_gt.json"));
  const auto results = io::read_coco_results(reference("real_coco100_bbox_dt.json"), data);
  expect_stats(detection::evaluate(data, results.detections), expected);
  const json& some = expected["variant_only_images_with_detections"];
  std::vector<std::int64_t> categories;
  for (const auto& c : data.categories) categories.push_back(c.id);
  detection::CocoEvaluator evaluator(categories);
  evaluator.add(data.images, data.truths, results.detections,
                some["img_ids"].get<std::vector<std::int64_t>>());
  expect_stats(evaluator.accumulate(), some);
  // faster-coco-eval's extended metrics: the threshold of the greatest macro F1.
  const json f1 = load("real_coco100_bbox_f1_metrics.json");
  detection::CocoEvaluator all(categories);
  all.add(data.images, data.truths, results.detections);
  const auto best = detection::macro_f1(all);
  EXPECT_NEAR(best.score, 0.012, 1e-12);
  EXPECT_NEAR(best.precision, f1["precision"].get<double>(), 1e-12);
  EXPECT_NEAR(best.recall, f1["recall"].get<double>(), 1e-12);
}

TEST(CocoTest, LvisEqualsItsTools) {
  const json expected = load("lvis_expected.json");
  const auto options = CocoOptions::lvis_of(CocoTarget::boxes);
  const auto data = io::read_coco(reference("lvis_gt.json"));
  const auto results = io::read_coco_results(reference("lvis_dt.json"), data);
  const auto stats = detection::lvis_stats(detection::evaluate(data, results.detections, options),
                                           data.categories);
  std::size_t found = 0;
  for (const auto& s : stats) {
    if (!expected.contains(s.name)) continue;
    ++found;
    EXPECT_NEAR(s.value, expected[s.name].get<double>(), 1e-12) << s.name;
  }
  EXPECT_EQ(found, expected.size());
}

std::string read_in_pieces(const std::string& text, const detection::CocoDataset& data,
                           const io::CocoReadOptions& options, std::size_t least) {
  const io::Input input = io::Input::memory(text, "r", options.limits, "f");
  const auto found = io::detail::CocoResultReader(input, data, options, least).read();
  std::string all;
  for (const auto& d : found.detections) {
    all += std::to_string(d.image) + ' ' + std::to_string(d.score) + ' ' +
           (d.mask != nullptr ? detection::compressed(*d.mask) : std::string()) + '\n';
  }
  return all;
}

TEST(CocoTest, PiecesReadSideBySideAreTheWhole) {
  io::CocoReadOptions options{.target = CocoTarget::masks};
  const auto data = io::read_coco(reference("coco_segm_gt.json"), options);
  std::ifstream file(reference("coco_segm_dt.json"));
  std::string text((std::istreambuf_iterator<char>(file)), {});
  const std::string whole = read_in_pieces(text, data, options, text.size());
  EXPECT_GT(std::count(whole.begin(), whole.end(), '\n'), 100);
  std::int64_t told = 0;
  options.progress = [&](const Progress& p) {
    EXPECT_GE(p.done, told);
    EXPECT_LE(p.done, p.total);
    told = p.done;
    return true;
  };
  for (const int threads : {2, 3, 16}) {
    options.threads = threads;
    told = 0;
    EXPECT_EQ(read_in_pieces(text, data, options, 1), whole);
    EXPECT_GT(told, 0);
  }
  // What looks like a border but is none, and a fault that is told as by one reader.
  options.progress = {};
  const std::string trap = R"([{"note": "},{", "x": [{}, {}], "image_id": 10, "category_id": 3, )"
                           R"("score": 1, "segmentation": [[0, 0, 9, 0, 9, 9]], "y": [{},{},{}]}])";
  EXPECT_EQ(read_in_pieces(trap, data, options, 8), read_in_pieces(trap, data, options, 9999));
  text[text.size() - 30] = '!';
  const auto fault = [&](std::size_t least) {
    try {
      return read_in_pieces(text, data, options, least);
    } catch (const ParseError& error) {
      return std::string(error.what());
    }
  };
  EXPECT_EQ(fault(1), fault(text.size()));
  EXPECT_NE(fault(1).find("r:1:"), std::string::npos);
}

constexpr const char* kGood =
    R"({"images": [{"id": 1, "width": 10, "height": 8}], "categories": [{"id": 3, "name": "\u00e9"}],
"annotations": [{"id": 7, "image_id": 1, "category_id": 3, "bbox": [0, 0, 4, 5], "area": 20,
"iscrowd": 0, "segmentation": [[0, 0, 4, 0, 4, 5]]}]})";

template <class F>
std::string refusal(F&& f) {
  try {
    f();
  } catch (const ParseError& error) {
    return error.what();
  }
  return "nothing";
}

TEST(CocoTest, ReadsWhatIsThere) {
  const auto data = io::parse_coco(kGood);
  EXPECT_EQ(data.categories[0].name, "\xC3\xA9");
  EXPECT_EQ(data.truths[0].box.h, 5);
  EXPECT_EQ(data.images[0].width, 10u);
  const auto masks = io::parse_coco(kGood, {.target = CocoTarget::masks});
  EXPECT_EQ(masks.truths[0].mask->height, 8u);
  std::string turned = kGood;
  turned.replace(turned.find("[0, 0, 4, 5]"), 12, "[2, 3, 4, 5, 30]");
  const auto rotated = io::parse_coco(turned, {.target = CocoTarget::rotated_boxes});
  EXPECT_EQ(rotated.truths[0].box.x, 0);
  EXPECT_EQ(rotated.truths[0].box.y, 0.5);
  EXPECT_EQ(rotated.truths[0].degrees, 30);
}

void expect_refused(const std::string& from, const std::string& to, const std::string& why,
                    CocoTarget target = CocoTarget::boxes) {
  std::string text = kGood;
  text.replace(text.find(from), from.size(), to);
  const std::string message = refusal([&] { (void)io::parse_coco(text, {.target = target}, "g"); });
  EXPECT_NE(message.find(why), std::string::npos) << message;
}

// Ids of other systems fill 64 bits; a double would join neighbours.
TEST(CocoTest, IdsOf64BitsAreExact) {
  for (const char* id : {"9223372036854775807", "9007199254740993", "-9007199254740993",
                         "999999999999999999", "-12", "0"}) {
    std::string text = kGood;
    text.replace(text.find("\"id\": 7"), 7, std::string("\"id\": ") + id);
    EXPECT_EQ(std::to_string(io::parse_coco(text).truths[0].id), id);
  }
  for (const char* id : {"9223372036854775808", "99999999999999999999", "0.5", "-", "1e17"}) {
    expect_refused("\"id\": 7", std::string("\"id\": ") + id, "expected a");
  }
}

TEST(CocoTest, RefusesWithThePlace) {
  expect_refused("\"id\": 7, ", "", "g:2:17: an annotation without id");
  expect_refused("[0, 0, 4, 5]", "[0, 0, 4]", "g:2:68: a bbox of 3 numbers");
  expect_refused("[0, 0, 4, 5]", "[0, 0, 4, 5, 30]", "a bbox of 5 numbers, expected 4 (x y w h)");
  expect_refused("[0, 0, 4, 5]", "[0, 4, 5]", "expected 5 (cx cy w h degrees) or 4",
                 CocoTarget::rotated_boxes);
  expect_refused("[0, 0, 4, 5]", "[0, 0, -4, 5]", "g:2:68: a bbox of negative size");
  expect_refused("\"id\": 1, \"width\"", "\"id\": 1}, {\"id\": 1, \"width\"",
                 "an image id twice: 1");
  expect_refused("\"annotations\": [",
                 "\"annotations\": [{\"id\": 7, \"image_id\": 1, \"category_id\": 3, "
                 "\"bbox\": [0, 0, 1, 1]}, ",
                 "an annotation id twice: 7");
  expect_refused("\"area\": 20", "\"area\": -20", "a negative area");
  expect_refused("[0, 0, 4, 5]", "[0, 0, NaN, 5]", "g:2:75: expected a number, got 'NaN");
  expect_refused("\"image_id\": 1", "\"image_id\": 2",
                 "g:2:17: an annotation of the unknown image 2");
  expect_refused("\"category_id\": 3", "\"category_id\": 4", "unknown category 4");
  expect_refused("\"categories\": [", "\"categories\": [{\"id\": 3},", "a category id twice: 3");
  expect_refused("[0, 0, 4, 0, 4, 5]", "[0, 0, 4]", "a polygon of 3 numbers", CocoTarget::masks);
  expect_refused("[[0, 0, 4, 0, 4, 5]]", "{\"size\": [8, 10], \"counts\": [5]}",
                 "counts of 5 pixels together, expected 8 x 10", CocoTarget::masks);
  expect_refused("[[0, 0, 4, 0, 4, 5]]", "{\"size\": [8, 10], \"counts\": \"!\"}",
                 "compressed counts", CocoTarget::masks);
  expect_refused("[[0, 0, 4, 0, 4, 5]]", "{\"size\": [2, 2], \"counts\": [4]}",
                 "a mask of 2 x 2 on an image of 8 x 10", CocoTarget::masks);
  expect_refused("]]}]}", "]]}]", "expected ',' or '}', got the end of the text");
  expect_refused("]]}]}", "]]}]}}", "expected the end");
  expect_refused("\"iscrowd\": 0", "\"iscrowd\": 00", "starts with 0");
  // Every way of cutting the text short is refused.
  const std::string text = kGood;
  for (std::size_t n = 0; n < text.size(); ++n) {
    EXPECT_NE(refusal([&] { (void)io::parse_coco(text.substr(0, n)); }), "nothing") << n;
  }
}

TEST(CocoTest, RefusesResults) {
  const auto data = io::parse_coco(kGood);
  const auto tell = [&](const std::string& text) {
    return refusal([&] { (void)io::parse_coco_results(text, data, {}, "r"); });
  };
  EXPECT_NE(tell(R"([{"image_id": 1, "category_id": 3, "bbox": [0,0,1,1], "score": NaN}])")
                .find("r:1:64: expected a number"),
            std::string::npos);
  EXPECT_NE(tell(R"([{"image_id": 9, "category_id": 3, "bbox": [0,0,1,1], "score": 1}])")
                .find("unknown image 9"),
            std::string::npos);
  EXPECT_NE(tell(R"([{"image_id": 1, "category_id": 3, "score": 1}])").find("without bbox"),
            std::string::npos);
  EXPECT_NE(tell(R"([{"image_id": 1, "category_id": 3, "bbox": [0,0,1,1], "score": 1e999}])")
                .find("too large"),
            std::string::npos);
  EXPECT_EQ(tell("[]"), "nothing");
}

}  // namespace
}  // namespace quern::test::io_coco
