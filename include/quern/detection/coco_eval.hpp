// SPDX-License-Identifier: Apache-2.0

/// \file
/// COCO's (and LVIS's) evaluation of detections, masks and key points: fed image by image or with a
/// whole data set, merged across threads and processes.
///
/// Order. Images count by ascending id, whatever the order in which they come; within an image and
/// class, detections by descending score, the earlier one first among equals; over all images equal
/// scores stay in that order. So the order of images and classes in the input does not matter, and
/// that of detections only among equal scores of one image and class.

#ifndef QUERN_DETECTION_COCO_EVAL_HPP
#define QUERN_DETECTION_COCO_EVAL_HPP

#include "quern/core/archive.hpp"
#include "quern/core/checks.hpp"
#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/core/parallel.hpp"
#include "quern/core/progress.hpp"
#include "quern/detection/coco_options.hpp"
#include "quern/detection/coco_result.hpp"
#include "quern/detection/data.hpp"
#include "quern/detection/detail/coco_accumulate.hpp"
#include "quern/detection/detail/coco_matcher.hpp"
#include "quern/detection/detail/coco_records.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <span>
#include <string>
#include <unordered_set>
#include <utility>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace detection {

/// Collects matched images. Keeps some 40 bytes a detection, none of the boxes.
class CocoEvaluator {
 public:
  /// `categories`: the classes' ids, in any order. ValueError for duplicates and bad options.
  explicit CocoEvaluator(const std::vector<std::int64_t>& categories, CocoOptions options = {})
      : o_(std::move(options)), categories_(categories) {
    check_options(o_);
    if (categories_.size() != categories.size()) {
      throw ValueError(error_text(function, "categories", "different ids", "an id twice"));
    }
    records_.words = detail::CocoMatcher(o_, categories_).words();
  }

  [[nodiscard]] const CocoOptions& options() const noexcept { return o_; }
  [[nodiscard]] const std::vector<std::int64_t>& categories() const noexcept {
    return categories_.ids();
  }
  [[nodiscard]] std::int64_t images() const noexcept {
    return static_cast<std::int64_t>(records_.images.size());
  }
  [[nodiscard]] const detail::CocoRecords& records() const noexcept { return records_; }

  /// One image with all its objects and detections, of all classes (their `image` is not looked
  /// at). `lvis`: its lists of classes. ValueError for an image that was added before, unknown
  /// classes, boxes that are not finite or of negative size, scores that are not finite.
  void add_image(std::int64_t image, std::span<const Truth> truths,
                 std::span<const Detection> detections, const ImageInfo* lvis = nullptr) {
    std::vector<const Truth*> t;
    std::vector<const Detection*> d;
    for (const Truth& x : truths) t.push_back(&x);
    for (const Detection& x : detections) d.push_back(&x);
    if (seen_.contains(image)) throw twice(image);
    detail::CocoRecords one;
    one.words = records_.words;
    detail::CocoMatcher(o_, categories_).add(image, t, d, lvis, one);
    records_.append(one);
    seen_.insert(image);
  }

  /// All images of a data set, also those that have neither objects nor detections; `only` (ids)
  /// restricts them. ValueError as add_image(), and for objects and detections of unknown images.
  void add(std::span<const ImageInfo> images, std::span<const Truth> truths,
           std::span<const Detection> detections, std::span<const std::int64_t> only = {},
           const ProgressCallback& progress = {});

  /// Takes what another evaluator of the same classes and options has collected. ValueError where
  /// those differ, or an image is in both.
  void merge(const CocoEvaluator& other) {
    if (setting() != other.setting() || categories() != other.categories()) {
      throw ValueError(error_text("quern::detection::CocoEvaluator::merge", "other",
                                  "the same classes and options", "ones that differ"));
    }
    for (const auto& image : other.records_.images) {
      if (seen_.contains(image.id)) throw twice(image.id);
    }
    records_.append(other.records_);
    seen_.insert(other.seen_.begin(), other.seen_.end());
  }

  /// The numbers of what was added so far.
  [[nodiscard]] CocoResult accumulate() const {
    return detail::accumulate(records_, o_, categories_.ids());
  }

  /// What was collected, to be sent to another process; the receiver makes an evaluator with the
  /// same classes and options and calls merge_bytes().
  [[nodiscard]] std::vector<std::byte> bytes() const;
  /// As merge(); ParseError for bytes that are not from bytes().
  void merge_bytes(std::span<const std::byte> bytes);

 private:
  static constexpr const char* function = "quern::detection::CocoEvaluator";

  [[nodiscard]] static ValueError twice(std::int64_t image) {
    return ValueError(error_text(function, "image", "each image once", image));
  }
  void check_new(std::span<const ImageInfo> images, const IdIndex& index) const {
    if (index.size() != images.size()) {
      throw ValueError(error_text(function, "images", "different ids", "an id twice"));
    }
  }

  /// What must agree between evaluators that are merged.
  [[nodiscard]] std::vector<double> setting() const {
    std::vector<double> s = {static_cast<double>(o_.target), static_cast<double>(o_.use_categories),
                             static_cast<double>(o_.compat), static_cast<double>(o_.lvis),
                             static_cast<double>(o_.max_detections.back())};
    s.insert(s.end(), o_.iou_thresholds.begin(), o_.iou_thresholds.end());
    for (const AreaRange& a : o_.areas) s.insert(s.end(), {a.low, a.high});
    if (o_.target == CocoTarget::keypoints) s.insert(s.end(), o_.sigmas.begin(), o_.sigmas.end());
    return s;
  }

  CocoOptions o_;
  IdIndex categories_;
  detail::CocoRecords records_;
  std::unordered_set<std::int64_t> seen_;
};

namespace detail {

/// Pointers to items, by image: those of image i are at [begin[i], begin[i + 1]).
template <class Item>
struct ByImage {
  std::vector<std::uint64_t> begin;
  std::vector<const Item*> items;

  ByImage(std::span<const Item> all, const IdIndex& images, const char* argument)
      : begin(images.size() + 1, 0), items(all.size()) {
    std::vector<std::int32_t> at(all.size());
    for (std::size_t i = 0; i < all.size(); ++i) {
      at[i] = images.find(all[i].image);
      if (at[i] < 0) {
        throw ValueError(error_text("quern::detection::CocoEvaluator", argument,
                                    "images of the data set", all[i].image));
      }
      ++begin[static_cast<std::size_t>(at[i]) + 1];
    }
    std::partial_sum(begin.begin(), begin.end(), begin.begin());
    std::vector<std::uint64_t> next(begin.begin(), begin.end() - 1);
    for (std::size_t i = 0; i < all.size(); ++i) {
      items[next[static_cast<std::size_t>(at[i])]++] = &all[i];
    }
  }
  [[nodiscard]] std::span<const Item* const> of(std::size_t image) const {
    return {items.data() + begin[image], static_cast<std::size_t>(begin[image + 1] - begin[image])};
  }
};

}  // namespace detail

inline void CocoEvaluator::add(std::span<const ImageInfo> images, std::span<const Truth> truths,
                               std::span<const Detection> detections,
                               std::span<const std::int64_t> only,
                               const ProgressCallback& progress) {
  std::vector<std::int64_t> ids;
  for (const ImageInfo& i : images) ids.push_back(i.id);
  const IdIndex index(std::move(ids));
  check_new(images, index);
  std::vector<const ImageInfo*> infos(index.size());
  for (const ImageInfo& i : images) infos[static_cast<std::size_t>(index.find(i.id))] = &i;
  std::vector<std::uint32_t> chosen;
  const IdIndex subset(std::vector<std::int64_t>(only.begin(), only.end()));
  for (std::uint32_t i = 0; i < index.size(); ++i) {
    if (!only.empty() && subset.find(index.ids()[i]) < 0) continue;
    if (seen_.contains(index.ids()[i])) throw twice(index.ids()[i]);
    chosen.push_back(i);
  }
  const detail::ByImage<Truth> of_truths(truths, index, "truths");
  const detail::ByImage<Detection> of_detections(detections, index, "detections");
  constexpr std::int64_t images_a_block = 32;
  // Rounds of blocks, so that what is done can be told and matched blocks are soon one array.
  constexpr std::int64_t blocks_a_round = 64;
  const std::int64_t n = static_cast<std::int64_t>(chosen.size());
  const std::int64_t blocks = block_count(n, images_a_block);
  detail::CocoRecords all;
  all.words = records_.words;
  all.reserve(detections.size());
  std::vector<detail::CocoMatcher> workers(static_cast<std::size_t>(worker_count(o_.threads)),
                                           detail::CocoMatcher(o_, categories_));
  for (std::int64_t first = 0; first < blocks; first += blocks_a_round) {
    const std::int64_t count = (std::min)(blocks_a_round, blocks - first);
    std::vector<detail::CocoRecords> parts(static_cast<std::size_t>(count));
    parallel_for(
        count,
        [&](std::int64_t block) {
          const BlockRange range = block_range(n, images_a_block, first + block);
          detail::CocoRecords& part = parts[static_cast<std::size_t>(block)];
          part.words = all.words;
          for (std::int64_t i = range.begin; i < range.end; ++i) {
            const std::size_t at = chosen[static_cast<std::size_t>(i)];
            workers[static_cast<std::size_t>(this_worker())].add(
                index.ids()[at], of_truths.of(at), of_detections.of(at), infos[at], part);
          }
        },
        o_.threads);
    for (const detail::CocoRecords& part : parts) all.append(part);
    const std::int64_t done = (std::min)(n, (first + count) * images_a_block);
    report(progress, function, {.what = "images", .done = done, .total = n});
  }
  if (records_.images.empty()) {
    records_ = std::move(all);
  } else {
    records_.append(all);
  }
  for (const std::uint32_t i : chosen) seen_.insert(index.ids()[i]);
}

inline std::vector<std::byte> CocoEvaluator::bytes() const {
  ArchiveWriter out("detection.coco", 1);
  out.array("setting", setting());
  out.array("categories", categories());
  std::vector<std::int64_t> ids;
  std::vector<std::uint64_t> detections_end, truths_end;
  for (const detail::CocoImage& i : records_.images) {
    ids.push_back(i.id);
    detections_end.push_back(i.detections_end);
    truths_end.push_back(i.truths_end);
  }
  out.array("images", ids);
  out.array("detections_end", detections_end);
  out.array("truths_end", truths_end);
  out.array("scores", records_.scores);
  out.array("detection_categories", records_.categories);
  out.array("ranks", records_.ranks);
  out.array("bits", records_.bits);
  std::vector<std::uint32_t> truth_categories, truth_areas;
  for (const detail::CocoTruth& t : records_.truths) {
    truth_categories.push_back(t.category);
    truth_areas.push_back(t.areas);
  }
  out.array("truth_categories", truth_categories);
  out.array("truth_areas", truth_areas);
  return out.bytes();
}

inline void CocoEvaluator::merge_bytes(std::span<const std::byte> bytes) {
  static constexpr const char* name = "quern::detection::CocoEvaluator::merge_bytes";
  const ArchiveReader in(bytes, "evaluator");
  in.expect("detection.coco", 1);
  if (in.array<double>("setting") != setting() ||
      in.array<std::int64_t>("categories") != categories()) {
    throw ValueError(error_text(name, "bytes", "the same classes and options", "ones that differ"));
  }
  CocoEvaluator other(categories(), o_);
  detail::CocoRecords& r = other.records_;
  const auto ids = in.array<std::int64_t>("images");
  const auto detections_end = in.array<std::uint64_t>("detections_end", ids.size());
  const auto truths_end = in.array<std::uint64_t>("truths_end", ids.size());
  r.scores = in.array<double>("scores");
  r.categories = in.array<std::uint32_t>("detection_categories", r.scores.size());
  r.ranks = in.array<std::uint32_t>("ranks", r.scores.size());
  r.bits = in.array<std::uint64_t>("bits", r.scores.size() * r.words);
  const auto truth_categories = in.array<std::uint32_t>("truth_categories");
  const auto truth_areas = in.array<std::uint32_t>("truth_areas", truth_categories.size());
  const std::size_t classes = o_.use_categories ? categories().size() : 1;
  bool sound = true;
  for (std::size_t i = 0; i < truth_categories.size(); ++i) {
    r.truths.push_back({truth_categories[i], truth_areas[i]});
    sound = sound && truth_categories[i] < classes;
  }
  for (const std::uint32_t c : r.categories) sound = sound && c < classes;
  for (const double s : r.scores) sound = sound && is_finite_bits(s);
  std::uint64_t detections = 0, truths = 0;
  for (std::size_t i = 0; i < ids.size(); ++i) {
    sound = sound && detections_end[i] >= detections && truths_end[i] >= truths;
    detections = detections_end[i], truths = truths_end[i];
    r.images.push_back({ids[i], detections, truths});
    sound = other.seen_.insert(ids[i]).second && sound;
  }
  if (!sound || detections != r.scores.size() || truths != r.truths.size()) {
    throw ParseError(std::string(name) + ": bytes: sections that do not fit each other");
  }
  merge(other);
}

/// The evaluation of a whole data set.
[[nodiscard]] inline CocoResult evaluate(const CocoDataset& data,
                                         std::span<const Detection> detections,
                                         const CocoOptions& options = {},
                                         const ProgressCallback& progress = {}) {
  std::vector<std::int64_t> categories;
  for (const Category& c : data.categories) categories.push_back(c.id);
  CocoEvaluator evaluator(categories, options);
  evaluator.add(data.images, data.truths, detections, {}, progress);
  return evaluator.accumulate();
}

}  // namespace detection
QUERN_NAMESPACE_END

#endif  // QUERN_DETECTION_COCO_EVAL_HPP
