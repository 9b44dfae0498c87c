// SPDX-License-Identifier: Apache-2.0

/// \file
/// What a detector does wrong: the confusion matrix with background, and TIDE's split of the lost
/// AP into kinds of errors (D. Bolya et al., "TIDE: A General Toolbox for Identifying Object
/// Detection Errors", arXiv:2008.08115). Of boxes.

#ifndef QUERN_DETECTION_ERRORS_HPP
#define QUERN_DETECTION_ERRORS_HPP

#include "quern/core/checks.hpp"
#include "quern/core/config.hpp"
#include "quern/core/nd_array.hpp"
#include "quern/detection/average_precision.hpp"
#include "quern/detection/box.hpp"
#include "quern/detection/coco_eval.hpp"
#include "quern/detection/data.hpp"
#include "quern/detection/matching.hpp"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <utility>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace detection {

struct ConfusionOptions {
  double iou_threshold = 0.5;
  double min_score = 0.5;  ///< detections below are left out
};

/// counts(i, j): objects of class i that were found as class j; the last row and column are the
/// background: false alarms and misses. Classes by ascending id.
struct Confusion {
  std::vector<std::int64_t> categories;
  NdArray<std::int64_t, 2> counts;  ///< (K + 1, K + 1)
};

/// The kinds of errors, in the order in which they are looked for.
enum class TideError : std::uint8_t {
  localization,
  classification,
  duplicate,
  background,
  both,
  missed
};
inline constexpr std::size_t tide_errors = 6;
inline constexpr std::array<const char*, tide_errors> tide_names = {
    "localization", "classification", "duplicate", "background", "both", "missed"};

struct TideOptions {
  double foreground = 0.5;           ///< IoU of a match
  double background = 0.1;           ///< IoU up to which a detection is on nothing
  std::size_t max_detections = 100;  ///< of an image
};

struct TideResult {
  double ap = -1;  ///< at the foreground threshold, 101 points
  std::array<std::int64_t, tide_errors> count{};
  std::array<double, tide_errors> gain{};  ///< AP won were only this kind of error mended
  double false_positive_gain = 0, false_negative_gain = 0;
};

namespace detail {

/// One image's truths and detections, the latter by descending score.
struct ErrorImage {
  std::vector<const Truth*> truths;
  std::vector<const Detection*> detections;
};

template <class F>
void for_each_image(const CocoDataset& data, std::span<const Detection> detections, F&& f) {
  std::vector<std::int64_t> ids;
  for (const ImageInfo& i : data.images) ids.push_back(i.id);
  const IdIndex images(std::move(ids));
  const ByImage<Truth> truths(data.truths, images, "truths");
  const ByImage<Detection> found(detections, images, "detections");
  for (std::size_t i = 0; i < images.size(); ++i) {
    ErrorImage image;
    image.truths.assign(truths.of(i).begin(), truths.of(i).end());
    image.detections.assign(found.of(i).begin(), found.of(i).end());
    for (const Detection* d : image.detections) {
      check_box("quern::detection::errors", "detections", d->box);
      expect_finite("quern::detection::errors", "scores", d->score);
    }
    std::stable_sort(image.detections.begin(), image.detections.end(),
                     [](const Detection* a, const Detection* b) { return a->score > b->score; });
    f(image);
  }
}

inline std::size_t class_place(const IdIndex& classes, std::int64_t id) {
  const std::int32_t k = classes.find(id);
  if (k < 0) {
    throw ValueError(
        error_text("quern::detection::errors", "category", "categories of the data set", id));
  }
  return static_cast<std::size_t>(k);
}

inline IdIndex classes_of(const CocoDataset& data) {
  std::vector<std::int64_t> ids;
  for (const Category& c : data.categories) ids.push_back(c.id);
  return IdIndex(std::move(ids));
}

}  // namespace detail

/// Each detection, by descending score, takes the free object of greatest IoU >= the threshold,
/// whatever its class (the same class first among equals). What is left over on a crowd or an
/// ignored object is not counted.
[[nodiscard]] inline Confusion confusion_matrix(const CocoDataset& data,
                                                std::span<const Detection> detections,
                                                const ConfusionOptions& options = {}) {
  const IdIndex classes = detail::classes_of(data);
  const Index background = static_cast<Index>(classes.size());
  Confusion c{classes.ids(), NdArray<std::int64_t, 2>({background + 1, background + 1})};
  detail::for_each_image(data, detections, [&](const detail::ErrorImage& image) {
    std::vector<bool> taken(image.truths.size(), false);
    for (const Detection* d : image.detections) {
      if (d->score < options.min_score) break;
      std::size_t best = image.truths.size();
      double most = -1;
      bool forgiven = false;
      for (std::size_t g = 0; g < image.truths.size(); ++g) {
        const Truth& t = *image.truths[g];
        const double iou = coco_iou(d->box, t.box, t.crowd);
        if (iou < options.iou_threshold) continue;
        if (t.crowd || t.ignore) {
          forgiven = true;
        } else if (!taken[g] && (iou > most || (iou == most && t.category == d->category &&
                                                image.truths[best]->category != d->category))) {
          most = iou;
          best = g;
        }
      }
      const Index found = static_cast<Index>(detail::class_place(classes, d->category));
      if (best < image.truths.size()) {
        taken[best] = true;
        const auto k = detail::class_place(classes, image.truths[best]->category);
        ++c.counts(static_cast<Index>(k), found);
      } else if (!forgiven) {
        ++c.counts(background, found);
      }
    }
    for (std::size_t g = 0; g < image.truths.size(); ++g) {
      const Truth& t = *image.truths[g];
      if (taken[g] || t.crowd || t.ignore) continue;
      ++c.counts(static_cast<Index>(detail::class_place(classes, t.category)), background);
    }
  });
  return c;
}

namespace detail {

/// A detection as TIDE sees it.
struct TideItem {
  std::size_t category = 0;
  double score = 0;
  bool right = false;
  TideError error = TideError::background;
  std::size_t mended = 0;     ///< class when mended
  std::int64_t target = -1;   ///< object that mending would find
  bool target_taken = false;  ///< … which a right detection found already
};

class Tide {
 public:
  Tide(const CocoDataset& data, std::span<const Detection> detections, const TideOptions& options)
      : o_(options), classes_(classes_of(data)), positives_(classes_.size(), 0) {
    for_each_image(data, detections, [this](ErrorImage& image) { add(image); });
  }

  TideResult run() {
    TideResult result;
    result.ap = ap(-1);
    if (result.ap < 0) return result;
    for (const TideItem& i : items_) {
      if (!i.right) ++result.count[static_cast<std::size_t>(i.error)];
    }
    find_missed();
    for (const std::int64_t n : missed_) result.count[tide_errors - 1] += n;
    for (std::size_t e = 0; e < tide_errors; ++e) {
      result.gain[e] = ap(static_cast<int>(e)) - result.ap;
    }
    result.false_positive_gain = ap(all_false) - result.ap;
    result.false_negative_gain = ap(all_missed) - result.ap;
    return result;
  }

 private:
  static constexpr int all_false = 100, all_missed = 101;

  void add(ErrorImage& image) {
    if (image.detections.size() > o_.max_detections) image.detections.resize(o_.max_detections);
    const std::size_t n = image.detections.size(), m = image.truths.size();
    std::vector<double> iou(n * m);
    std::vector<std::size_t> classes(m);
    for (std::size_t g = 0; g < m; ++g) {
      const Truth& t = *image.truths[g];
      classes[g] = class_place(classes_, t.category);
      for (std::size_t d = 0; d < n; ++d) {
        iou[d * m + g] = coco_iou(image.detections[d]->box, t.box, t.crowd);
      }
      if (!t.crowd && !t.ignore) ++positives_[classes[g]];
    }
    const std::vector<std::int32_t> match = matches(image, iou);
    std::vector<bool> taken(m, false);
    for (const std::int32_t g : match) {
      if (g >= 0) taken[static_cast<std::size_t>(g)] = true;
    }
    for (std::size_t d = 0; d < n; ++d) {
      const double* row = iou.data() + d * m;
      TideItem item;
      item.category = class_place(classes_, image.detections[d]->category);
      item.score = image.detections[d]->score;
      item.right = match[d] >= 0;
      if (item.right) {
        const Truth& t = *image.truths[static_cast<std::size_t>(match[d])];
        if (t.crowd || t.ignore) continue;
      } else {
        name_error(image, row, taken, classes, item);
      }
      items_.push_back(item);
    }
    for (std::size_t g = 0; g < m; ++g) {
      const Truth& t = *image.truths[g];
      objects_.push_back({classes[g], taken[g] || t.crowd || t.ignore});
    }
  }

  /// COCO's matching of each class.
  std::vector<std::int32_t> matches(const ErrorImage& image, const std::vector<double>& iou) const {
    const std::size_t n = image.detections.size(), m = image.truths.size();
    std::vector<std::int32_t> match(n, -1);
    std::vector<std::uint8_t> taken(m, 0), ignored(m), crowd(m);
    for (std::size_t g = 0; g < m; ++g) {
      crowd[g] = image.truths[g]->crowd ? 1 : 0;
      ignored[g] = image.truths[g]->crowd || image.truths[g]->ignore ? 1 : 0;
    }
    for (std::size_t d = 0; d < n; ++d) {
      std::vector<std::uint32_t> order;
      for (const bool last : {false, true}) {
        for (std::uint32_t g = 0; g < m; ++g) {
          const bool same = image.truths[g]->category == image.detections[d]->category;
          if (same && (ignored[g] != 0) == last) order.push_back(g);
        }
      }
      coco_match(iou.data() + d * m, 1, m, order, ignored.data(), crowd.data(), o_.foreground,
                 taken.data(), match.data() + d);
    }
    return match;
  }

  void name_error(const ErrorImage& image, const double* row, const std::vector<bool>& taken,
                  const std::vector<std::size_t>& classes, TideItem& item) const {
    std::int64_t same = -1, other = -1;
    double most_same = 0, most_other = 0;
    bool duplicate = false;
    for (std::size_t g = 0; g < image.truths.size(); ++g) {
      if (image.truths[g]->crowd || image.truths[g]->ignore) continue;
      const bool alike = classes[g] == item.category;
      double& most = alike ? most_same : most_other;
      if (row[g] > most) most = row[g], (alike ? same : other) = static_cast<std::int64_t>(g);
      duplicate = duplicate || (alike && taken[g] && row[g] >= o_.foreground);
    }
    std::int64_t target = -1;
    if (most_same >= o_.background && most_same < o_.foreground) {
      item.error = TideError::localization;
      target = same;
    } else if (most_other >= o_.foreground) {
      item.error = TideError::classification;
      target = other;
    } else if (duplicate) {
      item.error = TideError::duplicate;
    } else {
      item.error = (std::max)(most_same, most_other) <= o_.background ? TideError::background
                                                                      : TideError::both;
    }
    if (target < 0) return;
    item.mended = classes[static_cast<std::size_t>(target)];
    item.target_taken = taken[static_cast<std::size_t>(target)];
    item.target = static_cast<std::int64_t>(objects_.size()) + target;
  }

  /// Objects that no detection found, nor would find with the right place or class.
  void find_missed() {
    std::vector<bool> reached(objects_.size(), false);
    for (const TideItem& i : items_) {
      if (!i.right && i.target >= 0) reached[static_cast<std::size_t>(i.target)] = true;
    }
    missed_.assign(classes_.size(), 0);
    unfound_.assign(classes_.size(), 0);
    for (std::size_t g = 0; g < objects_.size(); ++g) {
      if (objects_[g].second) continue;
      ++unfound_[objects_[g].first];
      if (!reached[g]) ++missed_[objects_[g].first];
    }
  }

  /// AP with one kind of error mended (-1: none). Of several detections that would then find one
  /// object the best stays; the others, and those of objects found already, go.
  double ap(int mend) const {
    std::vector<std::vector<double>> scores(classes_.size());
    std::vector<std::vector<Verdict>> verdicts(classes_.size());
    std::vector<double> best(objects_.size(), -1e300);
    const auto mends = [&](const TideItem& i) {
      return !i.right && (mend == all_false || static_cast<int>(i.error) == mend);
    };
    std::vector<bool> given(objects_.size(), false);
    for (const TideItem& i : items_) {
      if (!mends(i) || i.target < 0 || mend == all_false) continue;
      double& b = best[static_cast<std::size_t>(i.target)];
      b = (std::max)(b, i.score);
    }
    for (const TideItem& i : items_) {
      std::size_t k = i.category;
      bool right = i.right;
      if (mends(i)) {
        const std::size_t g = static_cast<std::size_t>(i.target);
        if (mend == all_false || i.target < 0 || i.target_taken) continue;
        if (given[g] || i.score < best[g]) continue;
        given[g] = true;
        k = i.mended;
        right = true;
      }
      scores[k].push_back(i.score);
      verdicts[k].push_back(right ? Verdict::true_positive : Verdict::false_positive);
    }
    return mean_ap(mend, scores, verdicts);
  }

  double mean_ap(int mend, const std::vector<std::vector<double>>& scores,
                 const std::vector<std::vector<Verdict>>& verdicts) const {
    const std::vector<double> levels = coco_recall_levels();
    double sum = 0;
    std::int64_t count = 0;
    for (std::size_t k = 0; k < classes_.size(); ++k) {
      if (positives_[k] == 0) continue;
      std::int64_t positives = positives_[k];
      if (mend == static_cast<int>(TideError::missed)) positives -= missed_[k];
      if (mend == all_missed) positives -= unfound_[k];
      ++count;
      // A class all of whose objects are forgiven has lost nothing.
      sum += positives > 0
                 ? ap_at_levels(precision_recall(scores[k], verdicts[k], positives), levels)
                 : 1;
    }
    return count == 0 ? -1 : sum / static_cast<double>(count);
  }

  const TideOptions& o_;
  IdIndex classes_;
  std::vector<std::int64_t> positives_, missed_, unfound_;
  std::vector<TideItem> items_;
  std::vector<std::pair<std::size_t, bool>> objects_;  ///< class, found or ignored
};

}  // namespace detail

/// Splits what is lost of AP at one IoU into kinds of errors. A false positive is, in this order: a
/// localization error (right class, background <= IoU < foreground), a classification error
/// (another class, IoU >= foreground), a duplicate, on background, or wrong in both. Missed are
/// objects that mending localization and classification would not find either. Gains do not sum to
/// what is lost.
[[nodiscard]] inline TideResult tide(const CocoDataset& data, std::span<const Detection> detections,
                                     const TideOptions& options = {}) {
  expect_in_range("quern::detection::tide", "foreground", options.foreground, 0.0, 1.0);
  expect_in_range("quern::detection::tide", "background", options.background, 0.0,
                  options.foreground);
  return detail::Tide(data, detections, options).run();
}

}  // namespace detection
QUERN_NAMESPACE_END

#endif  // QUERN_DETECTION_ERRORS_HPP
