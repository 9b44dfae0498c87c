// SPDX-License-Identifier: Apache-2.0

/// \file
/// Matches the detections of one image with its truths, class by class, at every threshold and in
/// every range of areas, and appends what came out to records.

#ifndef QUERN_DETECTION_DETAIL_COCO_MATCHER_HPP
#define QUERN_DETECTION_DETAIL_COCO_MATCHER_HPP

#include "quern/core/checks.hpp"
#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/detection/coco_options.hpp"
#include "quern/detection/data.hpp"
#include "quern/detection/detail/coco_overlap.hpp"
#include "quern/detection/detail/coco_records.hpp"
#include "quern/detection/matching.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace detection {
namespace detail {

/// COCO's area of a detection: of its box, its mask, or the extent of its key points. `compat`: of
/// its box wherever it has one.
inline double detection_area(const Detection& d, CocoTarget target, bool compat) {
  const Box& b = d.box;
  const bool boxed = b.x != 0 || b.y != 0 || b.w != 0 || b.h != 0;
  if (is_box_target(target) || (compat && boxed)) return b.area();
  if (target == CocoTarget::masks) return static_cast<double>(area(*d.mask));
  double low[2] = {d.keypoints[0], d.keypoints[1]}, high[2] = {low[0], low[1]};
  for (std::size_t i = 3; i + 2 < d.keypoints.size(); i += 3) {
    for (std::size_t c = 0; c < 2; ++c) {
      low[c] = (std::min)(low[c], d.keypoints[i + c]);
      high[c] = (std::max)(high[c], d.keypoints[i + c]);
    }
  }
  return (high[0] - low[0]) * (high[1] - low[1]);
}

/// On cache lines of its own: each thread writes to its own matcher all the time.
class alignas(128) CocoMatcher {
 public:
  CocoMatcher(const CocoOptions& options, const IdIndex& categories)
      : o_(options), categories_(categories), thresholds_(options.iou_thresholds.size()) {
    const std::size_t pairs = thresholds_ * o_.areas.size();
    words_ = (2 * pairs + 63) / 64;
    outside_.assign(o_.areas.size() * words_, 0);
    all_ignored_.assign(words_, 0);
    for (std::size_t a = 0; a < o_.areas.size(); ++a) {
      for (std::size_t t = 0; t < thresholds_; ++t) {
        set(outside_.data() + a * words_, a, t, 2);
        set(all_ignored_.data(), a, t, 2);
      }
    }
    least_ = *std::min_element(o_.iou_thresholds.begin(), o_.iou_thresholds.end());
    least_ = (std::min)(least_, 1 - 1e-10);
  }

  [[nodiscard]] std::size_t words() const noexcept { return words_; }

  /// Appends one image. The lists are in the order of the input.
  void add(std::int64_t image, std::span<const Truth* const> truths,
           std::span<const Detection* const> detections, const ImageInfo* lvis, CocoRecords& to) {
    sort_truths(truths);
    sort_detections(detections);
    if (o_.lvis && o_.compat) drop_empty();
    if (o_.lvis) keep_lvis(lvis);
    std::size_t g = 0, d = 0;
    while (g < truths_.size() || d < detections_.size()) {
      const std::uint32_t group_g = g < truths_.size() ? truths_[g].group : ~0U;
      const std::uint32_t group_d = d < detections_.size() ? detections_[d].group : ~0U;
      const std::uint32_t group = (std::min)(group_g, group_d);
      std::size_t g_end = g, d_end = d;
      while (g_end < truths_.size() && truths_[g_end].group == group) ++g_end;
      while (d_end < detections_.size() && detections_[d_end].group == group) ++d_end;
      add_group(group, {truths_.data() + g, g_end - g}, {detections_.data() + d, d_end - d}, to);
      g = g_end, d = d_end;
    }
    to.images.push_back({image, to.scores.size(), to.truths.size()});
  }

 private:
  struct TruthAt {
    std::uint32_t group = 0;     ///< place of the class, 0 when classes are not told apart
    std::uint32_t category = 0;  ///< place of the class
    const Truth* truth = nullptr;
  };
  struct DetectionAt {
    std::uint32_t group = 0;
    std::uint32_t category = 0;
    double score = 0;
    const Detection* detection = nullptr;
    std::uint32_t order = 0;
  };

  void set(std::uint64_t* words, std::size_t a, std::size_t t, std::uint64_t bits) const {
    const std::size_t at = 2 * (a * thresholds_ + t);
    words[at / 64] |= bits << (at % 64);
  }

  std::int32_t category_of(std::int64_t id, const char* argument) const {
    const std::int32_t c = categories_.find(id);
    if (c < 0 && !o_.compat) {
      throw ValueError(error_text(function, argument, "categories of the data set", id));
    }
    return c;
  }

  void sort_truths(std::span<const Truth* const> truths) {
    truths_.clear();
    for (const Truth* t : truths) {
      const std::int32_t c = category_of(t->category, "truths");
      if (c < 0) continue;
      check_truth(*t);
      const std::uint32_t category = static_cast<std::uint32_t>(c);
      truths_.push_back({o_.use_categories ? category : 0, category, t});
    }
    if (truths_.size() < 2) return;
    std::stable_sort(truths_.begin(), truths_.end(),
                     [](const TruthAt& a, const TruthAt& b) { return a.category < b.category; });
  }

  void sort_detections(std::span<const Detection* const> detections) {
    detections_.clear();
    for (const Detection* d : detections) {
      const std::int32_t c = category_of(d->category, "detections");
      if (c < 0) continue;
      check_detection(*d);
      const std::uint32_t category = static_cast<std::uint32_t>(c);
      detections_.push_back({o_.use_categories ? category : 0, category, d->score, d,
                             static_cast<std::uint32_t>(detections_.size())});
    }
    if (o_.lvis) cut_image();
    std::sort(detections_.begin(), detections_.end(),
              [](const DetectionAt& a, const DetectionAt& b) {
                if (a.group != b.group) return a.group < b.group;
                if (a.score != b.score) return a.score > b.score;
                if (a.category != b.category) return a.category < b.category;
                return a.order < b.order;
              });
  }

  /// The best of an image over all classes.
  void cut_image() {
    const std::size_t most = static_cast<std::size_t>(o_.max_detections.back());
    if (detections_.size() <= most) return;
    std::stable_sort(detections_.begin(), detections_.end(),
                     [](const DetectionAt& a, const DetectionAt& b) { return a.score > b.score; });
    detections_.resize(most);
    for (std::size_t i = 0; i < most; ++i) detections_[i].order = static_cast<std::uint32_t>(i);
  }

  /// LVIS's tools look only at what has an area.
  void drop_empty() {
    std::erase_if(truths_, [](const TruthAt& t) { return !(truth_area(*t.truth) > 0); });
    std::erase_if(detections_, [this](const DetectionAt& d) {
      return !(detection_area(*d.detection, o_.target, true) > 0);
    });
  }

  /// LVIS: only classes that the image has, or is known not to have.
  void keep_lvis(const ImageInfo* info) {
    not_exhaustive_.clear();
    if (info != nullptr) {
      for (const std::int64_t id : info->not_exhaustive) not_exhaustive_.push_back(id);
    }
    const auto unknown = [&](const DetectionAt& d) {
      const std::int64_t id = d.detection->category;
      const auto has = [&](const TruthAt& t) { return t.truth->category == id; };
      if (std::any_of(truths_.begin(), truths_.end(), has)) return false;
      return info == nullptr ||
             std::find(info->negative.begin(), info->negative.end(), id) == info->negative.end();
    };
    detections_.erase(std::remove_if(detections_.begin(), detections_.end(), unknown),
                      detections_.end());
  }

  void check_truth(const Truth& t) const {
    check_box(function, "truths", t.box, t.degrees);
    if (!is_finite_bits(t.area) || (t.area < 0 && t.area != -1)) {
      throw ValueError(error_text(function, "truths", "finite areas >= 0, or -1", t.area));
    }
    check_shape("truths", t.mask, t.keypoints);
  }
  void check_detection(const Detection& d) const {
    if (!is_finite_bits(d.score)) {
      throw ValueError(error_text(function, "detections", "finite scores",
                                  is_nan_bits(d.score) ? "NaN" : "infinity"));
    }
    if (is_box_target(o_.target) || o_.compat) {
      check_box(function, "detections", d.box, d.degrees);
    }
    check_shape("detections", d.mask, d.keypoints);
  }
  void check_shape(const char* argument, const Rle* mask, std::span<const double> points) const {
    if (o_.target == CocoTarget::masks && mask == nullptr) {
      throw ValueError(error_text(function, argument, "a mask", "none"));
    }
    if (o_.target == CocoTarget::masks) check_rle(function, argument, *mask);
    if (o_.target != CocoTarget::keypoints) return;
    expect_size(function, argument, static_cast<Index>(points.size()),
                static_cast<Index>(3 * o_.sigmas.size()), "numbers of key points");
    for (const double x : points) expect_finite(function, argument, x);
  }

  void add_group(std::uint32_t group, std::span<const TruthAt> truths,
                 std::span<const DetectionAt> detections, CocoRecords& to) {
    const std::size_t most = static_cast<std::size_t>(o_.max_detections.back());
    if (detections.size() > most && !o_.lvis) detections = detections.first(most);
    const std::size_t first = to.bits.size();
    to.bits.resize(first + detections.size() * words_, 0);
    std::uint64_t* bits = to.bits.data() + first;
    if (!truths.empty() && !detections.empty() && !blind()) overlaps(truths, detections);
    areas_.resize(detections.size());
    for (std::size_t d = 0; d < detections.size(); ++d) {
      areas_[d] = detection_area(*detections[d].detection, o_.target, o_.compat);
      to.scores.push_back(detections[d].score);
      to.categories.push_back(group);
      to.ranks.push_back(static_cast<std::uint32_t>(d));
    }
    count_truths(group, truths, to);
    if (truths.empty() || blind()) {
      for (std::size_t d = 0; d < detections.size(); ++d) unmatched(d, detections[d], bits);
    } else if (!detections.empty()) {
      match(truths, detections, bits);
    }
  }

  /// pycocotools looks up key points of no class and finds none.
  [[nodiscard]] bool blind() const {
    return o_.compat && o_.target == CocoTarget::keypoints && !o_.use_categories;
  }

  /// Where unmatched: ignored in the areas that the detection is outside of.
  void unmatched(std::size_t d, const DetectionAt& at, std::uint64_t* bits) const {
    std::uint64_t* out = bits + d * words_;
    if (is_not_exhaustive(at)) {
      for (std::size_t w = 0; w < words_; ++w) out[w] |= all_ignored_[w];
      return;
    }
    for (std::size_t a = 0; a < o_.areas.size(); ++a) {
      if (!outside(d, a)) continue;
      for (std::size_t w = 0; w < words_; ++w) out[w] |= outside_[a * words_ + w];
    }
  }

  [[nodiscard]] bool outside(std::size_t d, std::size_t a) const {
    return areas_[d] < o_.areas[a].low || areas_[d] > o_.areas[a].high;
  }
  [[nodiscard]] bool is_not_exhaustive(const DetectionAt& at) const {
    return o_.lvis && std::find(not_exhaustive_.begin(), not_exhaustive_.end(),
                                at.detection->category) != not_exhaustive_.end();
  }
  [[nodiscard]] bool is_crowd(const Truth& t) const { return t.crowd && !o_.lvis; }

  /// Ignored whatever the area.
  [[nodiscard]] bool is_ignored(const Truth& t) const {
    if (is_crowd(t) || (t.ignore && (!o_.compat || o_.lvis))) return true;
    if (o_.target != CocoTarget::keypoints) return false;
    if (t.num_keypoints >= 0) return t.num_keypoints == 0;
    for (std::size_t i = 2; i < t.keypoints.size(); i += 3) {
      if (t.keypoints[i] > 0) return false;
    }
    return true;
  }

  void count_truths(std::uint32_t group, std::span<const TruthAt> truths, CocoRecords& to) {
    ignored_.assign(o_.areas.size() * truths.size(), 1);
    crowd_.resize(truths.size());
    for (std::size_t g = 0; g < truths.size(); ++g) {
      const Truth& t = *truths[g].truth;
      crowd_[g] = is_crowd(t) ? 1 : 0;
      std::uint32_t counts = 0;
      if (!is_ignored(t)) {
        const double area = truth_area(t);
        for (std::size_t a = 0; a < o_.areas.size(); ++a) {
          if (area < o_.areas[a].low || area > o_.areas[a].high) continue;
          counts |= 1U << a;
          ignored_[a * truths.size() + g] = 0;
        }
      }
      if (counts != 0) to.truths.push_back({group, counts});
    }
  }

  void overlaps(std::span<const TruthAt> truths, std::span<const DetectionAt> detections) {
    iou_.resize(truths.size() * detections.size());
    for (std::size_t d = 0; d < detections.size(); ++d) {
      for (std::size_t g = 0; g < truths.size(); ++g) {
        iou_[d * truths.size() + g] = overlap(*detections[d].detection, *truths[g].truth);
      }
    }
  }
  [[nodiscard]] double overlap(const Detection& d, const Truth& t) const {
    return coco_overlap(o_.target, d, t, is_crowd(t), o_.sigmas);
  }

  void match(std::span<const TruthAt> truths, std::span<const DetectionAt> detections,
             std::uint64_t* bits) {
    const std::size_t m = truths.size();
    const double highest = keep_near(detections, m, bits);
    const std::size_t n = near_.size();
    if (n == 0) return;
    matches_.resize(o_.areas.size() * thresholds_ * n);
    for (std::size_t a = 0; a < o_.areas.size(); ++a) {
      const std::size_t like = match_area(a, n, m, highest);
      const std::uint8_t* ignored = ignored_.data() + a * m;
      for (std::size_t t = 0; t < thresholds_; ++t) {
        const std::int32_t* match = matches_.data() + (like * thresholds_ + t) * n;
        for (std::size_t i = 0; i < n; ++i) {
          const std::size_t d = near_[i];
          const std::uint64_t verdict =
              verdict_bits(truths, detections[d], match[i], outside(d, a), ignored);
          if (verdict != 0) set(bits + d * words_, a, t, verdict);
        }
      }
    }
  }

  /// Lists in near_ the detections that reach a threshold with any truth, moves their IoU together,
  /// and is done with the others. Returns the greatest IoU.
  double keep_near(std::span<const DetectionAt> detections, std::size_t m, std::uint64_t* bits) {
    near_.clear();
    double highest = 0;
    for (std::size_t d = 0; d < detections.size(); ++d) {
      const double* row = iou_.data() + d * m;
      const double most = *std::max_element(row, row + m);
      if (most < least_) {
        unmatched(d, detections[d], bits);
        continue;
      }
      highest = (std::max)(highest, most);
      if (near_.size() < d) std::copy(row, row + m, iou_.data() + near_.size() * m);
      near_.push_back(static_cast<std::uint32_t>(d));
    }
    return highest;
  }

  /// Matches at every threshold, unless an earlier area has the same; returns which area's to take.
  std::size_t match_area(std::size_t a, std::size_t n, std::size_t m, double highest) {
    const std::uint8_t* ignored = ignored_.data() + a * m;
    const std::size_t like = same_area(a, m);
    if (like != a) return like;
    order_.clear();
    for (const bool last : {false, true}) {
      for (std::uint32_t g = 0; g < m; ++g) {
        if ((ignored[g] != 0) == last) order_.push_back(g);
      }
    }
    for (std::size_t t = 0; t < thresholds_; ++t) {
      std::int32_t* match = matches_.data() + (a * thresholds_ + t) * n;
      if (highest < (std::min)(o_.iou_thresholds[t], 1 - 1e-10)) {
        std::fill(match, match + n, -1);
        continue;
      }
      taken_.assign(m, 0);
      coco_match(iou_.data(), n, m, order_, ignored, crowd_.data(), o_.iou_thresholds[t],
                 taken_.data(), match);
    }
    return a;
  }

  /// The first area whose truths are matched as those of `a`: the same are ignored, or in either
  /// all or none, for then only their order decides.
  [[nodiscard]] std::size_t same_area(std::size_t a, std::size_t m) const {
    const auto alike = [m](const std::uint8_t* p) { return std::equal(p + 1, p + m, p); };
    const std::uint8_t* mine = ignored_.data() + a * m;
    const bool mine_alike = alike(mine);
    for (std::size_t b = 0; b < a; ++b) {
      const std::uint8_t* other = ignored_.data() + b * m;
      if (std::equal(mine, mine + m, other) || (mine_alike && alike(other))) return b;
    }
    return a;
  }

  /// Bit 0: matched, bit 1: ignored.
  [[nodiscard]] std::uint64_t verdict_bits(std::span<const TruthAt> truths, const DetectionAt& at,
                                           std::int32_t match, bool outside,
                                           const std::uint8_t* ignored) const {
    std::uint64_t verdict = 0;
    if (match >= 0) {
      const std::size_t g = static_cast<std::size_t>(match);
      verdict = ignored[g] != 0 ? 3 : 1;
      // An id of 0 reads as "not matched" there.
      if (o_.compat && truths[g].truth->id == 0) verdict &= 2;
    }
    if ((verdict & 1) == 0 && (outside || is_not_exhaustive(at))) verdict |= 2;
    return verdict;
  }

  static constexpr const char* function = "quern::detection::CocoEvaluator";
  const CocoOptions& o_;
  const IdIndex& categories_;
  std::size_t thresholds_;
  std::size_t words_ = 0;
  double least_ = 0;
  std::vector<std::uint64_t> outside_;  ///< by area: its ignored bits
  std::vector<std::uint64_t> all_ignored_;
  // Scratch of one image, then of one class.
  std::vector<TruthAt> truths_;
  std::vector<DetectionAt> detections_;
  std::vector<std::int64_t> not_exhaustive_;
  std::vector<double> areas_, iou_;
  std::vector<std::uint8_t> ignored_, crowd_, taken_;
  std::vector<std::uint32_t> order_, near_;
  std::vector<std::int32_t> matches_;  ///< by area, threshold, place in near_
};

}  // namespace detail
}  // namespace detection
QUERN_NAMESPACE_END

#endif  // QUERN_DETECTION_DETAIL_COCO_MATCHER_HPP
