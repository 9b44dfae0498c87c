// SPDX-License-Identifier: Apache-2.0

/// \file
/// COCO's and LVIS's JSON: ground truth (images, categories, annotations) and a detector's results
/// (https://cocodataset.org/#format-data, #format-results), plain or gzip.

#ifndef QUERN_IO_COCO_HPP
#define QUERN_IO_COCO_HPP

#include "quern/core/config.hpp"
#include "quern/core/parallel.hpp"
#include "quern/detection/coco_options.hpp"
#include "quern/detection/data.hpp"
#include "quern/detection/detail/coco_overlap.hpp"
#include "quern/detection/polygon.hpp"
#include "quern/detection/rle.hpp"
#include "quern/io/coco_scan.hpp"
#include "quern/io/detail/coco_results.hpp"
#include "quern/io/input.hpp"
#include "quern/io/json_scan.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace io {

namespace detail {

/// A polygon that waits for its image's size.
struct PendingPolygons {
  std::size_t truth = 0;
  std::size_t mask = 0;
  std::size_t offset = 0;
  std::vector<std::vector<double>> polygons;
};

/// Parses ground truth.
class CocoTruthReader {
 public:
  CocoTruthReader(const Input& input, const CocoReadOptions& options)
      : scan_(input, options), json_(scan_.json), o_(options) {}

  detection::CocoDataset read() {
    bool images = false, categories = false;
    json_.object([&](std::string_view key) {
      if (key == "images") {
        images = true;
        json_.array([&] { image(); });
      } else if (key == "categories") {
        categories = true;
        json_.array([&] { category(); });
      } else if (key == "annotations") {
        json_.array([&] { annotation(); });
      } else {
        json_.skip();
      }
    });
    json_.end();
    if (!images) json_.fail("no \"images\"");
    if (!categories) json_.fail("no \"categories\"");
    finish();
    scan_.tell(true);
    return std::move(data_);
  }

 private:
  void image() {
    const std::size_t at = json_.next_offset();
    detection::ImageInfo info;
    bool id = false;
    json_.object([&](std::string_view key) {
      if (key == "id") {
        info.id = json_.integer();
        id = true;
      } else if (key == "width") {
        info.width = pixels();
      } else if (key == "height") {
        info.height = pixels();
      } else if (key == "file_name" && json_.peek() == '"') {
        info.file_name = json_.string(buffer_);
      } else if (key == "neg_category_ids") {
        info.negative = scan_.integers();
      } else if (key == "not_exhaustive_category_ids") {
        info.not_exhaustive = scan_.integers();
      } else {
        json_.skip();
      }
    });
    if (!id) json_.fail_at(at, "an image without id");
    image_offsets_.emplace_back(info.id, at);
    data_.images.push_back(std::move(info));
  }

  std::uint32_t pixels() {
    const std::size_t at = json_.next_offset();
    const std::int64_t n = json_.integer();
    if (n < 0 || n > 0x7fffffff) json_.fail_at(at, "expected a size of 0 … 2^31 - 1 pixels");
    return static_cast<std::uint32_t>(n);
  }

  void category() {
    const std::size_t at = json_.next_offset();
    detection::Category c;
    bool id = false;
    json_.object([&](std::string_view key) {
      if (key == "id") {
        c.id = json_.integer();
        id = true;
      } else if (key == "name") {
        c.name = json_.string(buffer_);
      } else if (key == "frequency") {
        const std::string_view f = json_.string(buffer_);
        if (f != "r" && f != "c" && f != "f") json_.fail("a frequency other than r, c, f");
        c.frequency = f[0];
      } else {
        json_.skip();
      }
    });
    if (!id) json_.fail_at(at, "a category without id");
    category_offsets_.emplace_back(c.id, at);
    data_.categories.push_back(std::move(c));
  }

  void annotation() {
    const std::size_t at = json_.next_offset();
    detection::Truth t;
    bool id = false, image = false, category = false, box = false, area = false;
    segmentation_.clear();
    json_.object([&](std::string_view key) {
      if (key == "id") {
        t.id = json_.integer();
        id = true;
      } else if (key == "image_id") {
        t.image = json_.integer();
        image = true;
      } else if (key == "category_id") {
        t.category = json_.integer();
        category = true;
      } else if (key == "bbox") {
        t.box = scan_.box(t.degrees);
        box = true;
      } else if (key == "area") {
        t.area = json_.number();
        if (t.area < 0) json_.fail("a negative area before this");
        area = true;
      } else if (key == "iscrowd") {
        t.crowd = json_.flag();
      } else if (key == "ignore") {
        t.ignore = json_.flag();
      } else if (key == "segmentation" && o_.target == CocoTarget::masks) {
        scan_.segmentation(segmentation_);
      } else if (key == "keypoints" && o_.target == CocoTarget::keypoints) {
        t.keypoints = data_.shapes.keypoints.emplace_back(scan_.keypoints());
      } else if (key == "num_keypoints") {
        t.num_keypoints =
            static_cast<std::int32_t>((std::min)(json_.integer(), std::int64_t{0x7fffffff}));
      } else {
        json_.skip();
      }
    });
    if (!id || !image || !category)
      json_.fail_at(at, "an annotation without id, image_id or category_id");
    if (!box && o_.target != CocoTarget::masks) json_.fail_at(at, "an annotation without bbox");
    keep_mask(t, at);
    if (o_.target == CocoTarget::keypoints && t.keypoints.empty()) {
      json_.fail_at(at, "an annotation without keypoints");
    }
    if (!area) no_area_.push_back(data_.truths.size());
    data_.truths.push_back(t);
    offsets_.push_back(at);
    scan_.tell();
  }

  void keep_mask(detection::Truth& t, std::size_t at) {
    if (o_.target != CocoTarget::masks) return;
    using Kind = CocoSegmentation::Kind;
    if (segmentation_.kind == Kind::none) json_.fail_at(at, "an annotation without segmentation");
    const std::size_t mask = data_.shapes.masks.size();
    t.mask = &data_.shapes.masks.emplace_back(segmentation_.runs);
    if (segmentation_.kind == Kind::polygons) {
      pending_.push_back(
          {data_.truths.size(), mask, segmentation_.offset, std::move(segmentation_.polygons)});
    }
  }

  void finish() {
    const detection::IdIndex images = unique(image_offsets_, "an image id twice");
    const detection::IdIndex categories = unique(category_offsets_, "a category id twice");
    std::vector<std::pair<std::int64_t, std::size_t>> ids;
    for (std::size_t i = 0; i < data_.truths.size(); ++i) {
      const detection::Truth& t = data_.truths[i];
      if (images.find(t.image) < 0) {
        json_.fail_at(offsets_[i], "an annotation of the unknown image " + std::to_string(t.image));
      }
      if (categories.find(t.category) < 0) {
        json_.fail_at(offsets_[i],
                      "an annotation of the unknown category " + std::to_string(t.category));
      }
      ids.emplace_back(t.id, offsets_[i]);
    }
    (void)unique(ids, "an annotation id twice");
    rasterize(images);
    for (const std::size_t i : no_area_) {
      data_.truths[i].area = detection::detail::truth_area(data_.truths[i]);
    }
  }

  detection::IdIndex unique(const std::vector<std::pair<std::int64_t, std::size_t>>& ids,
                            const char* message) const {
    std::vector<std::pair<std::int64_t, std::size_t>> sorted = ids;
    std::sort(sorted.begin(), sorted.end());
    std::vector<std::int64_t> plain;
    for (std::size_t i = 0; i < sorted.size(); ++i) {
      if (i > 0 && sorted[i].first == sorted[i - 1].first) {
        json_.fail_at(sorted[i].second,
                      std::string(message) + ": " + std::to_string(sorted[i].first));
      }
      plain.push_back(sorted[i].first);
    }
    return detection::IdIndex(std::move(plain));
  }

  /// Masks of polygons, now that the sizes of images are known; and checks of the others'.
  void rasterize(const detection::IdIndex& images) {
    std::vector<const detection::ImageInfo*> infos(images.size());
    for (const auto& info : data_.images) {
      infos[static_cast<std::size_t>(images.find(info.id))] = &info;
    }
    const auto info_of = [&](const detection::Truth& t) -> const detection::ImageInfo& {
      return *infos[static_cast<std::size_t>(images.find(t.image))];
    };
    parallel_for(
        static_cast<std::int64_t>(pending_.size()),
        [&](std::int64_t i) {
          const PendingPolygons& p = pending_[static_cast<std::size_t>(i)];
          const detection::ImageInfo& info = info_of(data_.truths[p.truth]);
          if (info.width == 0 || info.height == 0 ||
              std::uint64_t{info.width} * info.height > 0x7fffffffU) {
            json_.fail_at(p.offset, "polygons of an image without a size");
          }
          data_.shapes.masks[p.mask] =
              detection::from_polygons(p.polygons, info.height, info.width);
        },
        o_.threads);
    for (std::size_t i = 0; i < data_.truths.size(); ++i) {
      const detection::Truth& t = data_.truths[i];
      if (t.mask == nullptr) continue;
      const detection::ImageInfo& info = info_of(t);
      if (info.width == 0 || (t.mask->width == info.width && t.mask->height == info.height))
        continue;
      json_.fail_at(offsets_[i], "a mask of " + CocoScan::size_text(*t.mask) + " on an image of " +
                                     std::to_string(info.height) + " x " +
                                     std::to_string(info.width));
    }
  }

  CocoScan scan_;
  JsonScan& json_;
  const CocoReadOptions& o_;
  detection::CocoDataset data_;
  CocoSegmentation segmentation_;
  std::vector<std::size_t> offsets_, no_area_;
  std::vector<std::pair<std::int64_t, std::size_t>> image_offsets_, category_offsets_;
  std::vector<PendingPolygons> pending_;
  std::string buffer_;
};

}  // namespace detail

/// Ground truth of a file. ParseError with line and column for what is malformed, cut short, has
/// ids that are unknown or occur twice, boxes of negative size, masks that do not fit their image;
/// IoError when the system refuses.
[[nodiscard]] inline detection::CocoDataset read_coco(const std::string& path,
                                                      const CocoReadOptions& options = {}) {
  const Input input = Input::file(path, options.limits, "quern::io::read_coco");
  return detail::CocoTruthReader(input, options).read();
}
/// The same of memory; `name` stands for the file in messages.
[[nodiscard]] inline detection::CocoDataset parse_coco(std::string_view text,
                                                       const CocoReadOptions& options = {},
                                                       std::string_view name = "memory") {
  const Input input = Input::memory(text, name, options.limits, "quern::io::parse_coco");
  return detail::CocoTruthReader(input, options).read();
}

/// A detector's results on the images of `data`.
[[nodiscard]] inline detection::CocoResults read_coco_results(const std::string& path,
                                                              const detection::CocoDataset& data,
                                                              const CocoReadOptions& options = {}) {
  const Input input = Input::file(path, options.limits, "quern::io::read_coco_results");
  return detail::CocoResultReader(input, data, options).read();
}
[[nodiscard]] inline detection::CocoResults parse_coco_results(std::string_view text,
                                                               const detection::CocoDataset& data,
                                                               const CocoReadOptions& options = {},
                                                               std::string_view name = "memory") {
  const Input input = Input::memory(text, name, options.limits, "quern::io::parse_coco_results");
  return detail::CocoResultReader(input, data, options).read();
}

}  // namespace io
QUERN_NAMESPACE_END

#endif  // QUERN_IO_COCO_HPP
