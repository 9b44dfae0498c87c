// SPDX-License-Identifier: Apache-2.0

/// \file
/// Folders of VOC's XML and YOLO's text, with results on them, from files to average precisions.

#include "quern/io/detection_folder.hpp"

#include "quern/detection/coco_eval.hpp"
#include "quern/detection/voc_eval.hpp"

#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

#include <gtest/gtest.h>

namespace quern::test::io_detection_folder {
namespace {

namespace fs = std::filesystem;

/// A folder of its own that is emptied first.
std::string folder(const std::string& name) {
  const fs::path path = fs::path(testing::TempDir()) / ("quern_detection_folder_" + name);
  fs::remove_all(path);
  fs::create_directories(path);
  return path.string();
}
void write(const std::string& in, const std::string& name, const std::string& text) {
  std::ofstream(in + "/" + name, std::ios::binary) << text;
}

struct Object {
  std::string name;
  std::vector<int> corners;
  bool difficult = false;
};
std::string xml(const std::vector<Object>& objects) {
  std::string text = "<annotation><size><width>50</width><height>40</height></size>";
  for (const Object& o : objects) {
    const auto at = [&](std::size_t i) { return std::to_string(o.corners[i]); };
    text += "<object><name>" + o.name + "</name><difficult>" + (o.difficult ? "1" : "0") +
            "</difficult><bndbox><xmin>" + at(0) + "</xmin><ymin>" + at(1) + "</ymin><xmax>" +
            at(2) + "</xmax><ymax>" + at(3) + "</ymax></bndbox></object>";
  }
  return text + "</annotation>";
}

template <class F>
std::string refusal(F&& f) {
  try {
    f();
  } catch (const Error& error) {
    return error.what();
  }
  return "nothing";
}

/// The example of docs/detection/average_precision.md, with a class that others end like.
std::string worked_truths() {
  const std::string in = folder("voc");
  write(in, "b.xml", xml({{"light", {0, 0, 10, 10}}}));
  write(in, "a.xml", xml({{"light", {0, 0, 10, 10}}, {"light", {20, 0, 30, 10}}}));
  write(in, "c.xml", xml({{"light", {0, 0, 20, 20}}, {"traffic_light", {5, 5, 9, 9}, true}}));
  write(in, "d.xml", xml({}));
  write(in, "notes.txt", "not read");
  return in;
}

TEST(DetectionFolderTest, VocFromFilesToNumbers) {
  const auto data = io::read_voc_folder(worked_truths());
  ASSERT_EQ(data.images.size(), 4U);
  EXPECT_EQ(data.images[0].file_name, "a");
  EXPECT_EQ(data.images[3].width, 50U);
  ASSERT_EQ(data.categories.size(), 2U);
  EXPECT_EQ(data.categories[1].name, "traffic_light");
  EXPECT_TRUE(data.truths[4].ignore);
  EXPECT_EQ(data.truths[4].image, 3);

  const std::string results = folder("voc_results");
  write(results, "comp4_det_val_light.txt",
        "a 0.95 0 0 10 10\nb 0.90 5 0 15 10\r\na 0.85 1 0 11 10\n\na 0.80 20 0 30 8\n"
        "c 0.60 0 0 20 10\nb 0.40 0 0 10 9");
  write(results, "comp4_det_val_traffic_light.txt", "c 0.5 5 5 9 9\n");
  write(results, "comp4_det_val_dog.txt", "what is this\n");
  const auto found = io::read_voc_results(results, data);
  ASSERT_EQ(found.detections.size(), 7U);
  detection::VocOptions options;
  options.pixel = false;
  const auto classes = detection::evaluate_voc(data, found.detections, options);
  EXPECT_NEAR(classes[0].ap_all_points, 0.75, 1e-15);
  EXPECT_NEAR(classes[0].ap_11_points, 25.0 / 33, 1e-15);
  EXPECT_EQ(classes[1].curve.positives, 0);
  EXPECT_TRUE(classes[1].curve.precision.empty());
  // COCO's evaluation takes the same things.
  EXPECT_GT(detection::evaluate(data, found.detections).average_precision({.iou = 0.5}), 0.7);
}

TEST(DetectionFolderTest, VocRefusesWithThePlace) {
  const std::string in = worked_truths();
  EXPECT_NE(refusal([&] {
              (void)io::read_voc_folder(in, {.classes = {"light"}});
            }).find("c.xml: an object of the class 'traffic_light'"),
            std::string::npos);
  EXPECT_THROW((void)io::read_voc_folder(in, {.classes = {"a", "a"}}), ValueError);
  EXPECT_THROW((void)io::read_voc_folder(in + "/none"), IoError);
  const auto data = io::read_voc_folder(in);
  const auto tell = [&](const std::string& line) {
    const std::string results = folder("voc_bad");
    write(results, "light.txt", line);
    return refusal([&] { (void)io::read_voc_results(results, data); });
  };
  EXPECT_NE(tell("a 1 0 0 1 1\nz 1 0 0 1 1").find("light.txt:2:1: a detection on the unknown"),
            std::string::npos);
  EXPECT_NE(tell("a nan 0 0 1 1").find("light.txt:1:3: expected a number"), std::string::npos);
  EXPECT_NE(tell("a 1 0 0 1").find("got 5 words"), std::string::npos);
  EXPECT_NE(tell("a 1 0 0 1 1 1").find("got 7 words"), std::string::npos);
  EXPECT_NE(tell("a 1 5 0 1 1").find("negative size"), std::string::npos);
  EXPECT_EQ(tell("a 1 0 0 1 1 "), "nothing");
  const std::string twice = folder("voc_twice");
  write(twice, "x_light.txt", "");
  write(twice, "y_light.txt", "");
  EXPECT_THROW((void)io::read_voc_results(twice, data), ValueError);
}

TEST(DetectionFolderTest, YoloFromFilesToNumbers) {
  const std::string labels = folder("yolo"), results = folder("yolo_results");
  write(labels, "one.txt", "0 0.5 0.5 0.2 0.4\n2 0.2 0.2 0.1 0.1\n");
  write(labels, "two.txt", "");
  write(results, "one.txt", "0 0.5 0.5 0.2 0.4 0.9\n2 0.21 0.2 0.1 0.1 0.8\n");
  const auto shares = io::read_yolo_folder(labels);
  ASSERT_EQ(shares.categories.size(), 3U);
  EXPECT_EQ(shares.images[1].file_name, "two");
  const auto found = io::read_yolo_results(results, shares);
  const auto ap = detection::evaluate(shares, found.detections).average_precision({.iou = 0.5});
  EXPECT_NEAR(ap, 1, 1e-12);
  // In pixels: the same overlaps, areas that COCO's ranges mean, images without a file.
  io::FolderOptions options{.classes = {"cat", "dog", "bird", "fish"}};
  for (const char* name : {"two", "one", "zero"}) {
    detection::ImageInfo& image = options.images.emplace_back();
    image.id = static_cast<std::int64_t>(options.images.size()) * 10;
    image.width = 640, image.height = 480, image.file_name = name;
  }
  const auto data = io::read_yolo_folder(labels, options);
  EXPECT_EQ(data.images.size(), 3U);
  EXPECT_EQ(data.categories[3].name, "fish");
  EXPECT_EQ(data.truths[0].image, 20);
  EXPECT_DOUBLE_EQ(data.truths[0].area, 128 * 192);
  const auto again = io::read_yolo_results(results, data);
  const auto result = detection::evaluate(data, again.detections);
  EXPECT_NEAR(result.average_precision({.iou = 0.5}), ap, 1e-12);
  EXPECT_NEAR(result.average_precision({.area = "large"}), 1, 1e-12);
}

TEST(DetectionFolderTest, YoloRefusesWithThePlace) {
  const std::string labels = folder("yolo_bad");
  write(labels, "one.txt", "3 0.5 0.5 0.2 0.4\n");
  EXPECT_NE(refusal([&] {
              (void)io::read_yolo_folder(labels, {.classes = {"a"}});
            }).find("one.txt: an object of the unknown class 3"),
            std::string::npos);
  io::FolderOptions options;
  options.images.emplace_back().file_name = "two";
  EXPECT_NE(refusal([&] { (void)io::read_yolo_folder(labels, options); }).find("none of `images`"),
            std::string::npos);
  const auto data = io::read_yolo_folder(labels);
  const std::string results = folder("yolo_bad_results");
  write(results, "one.txt", "9 0.5 0.5 0.2 0.4 0.5\n");
  EXPECT_NE(refusal([&] { (void)io::read_yolo_results(results, data); }).find("unknown class 9"),
            std::string::npos);
  write(results, "other.txt", "");
  write(results, "one.txt", "3 0.5 0.5 0.2 0.4\n");
  EXPECT_NE(refusal([&] { (void)io::read_yolo_results(results, data); }).find("6 numbers"),
            std::string::npos);
  write(results, "one.txt", "");
  EXPECT_NE(refusal([&] { (void)io::read_yolo_results(results, data); }).find("a file of no image"),
            std::string::npos);
  write(labels, "one.txt", "1e15 0.5 0.5 0.2 0.4\n");
  EXPECT_THROW((void)io::read_yolo_folder(labels), ParseError);
}

}  // namespace
}  // namespace quern::test::io_detection_folder
