// SPDX-License-Identifier: Apache-2.0

/// \file
/// TIDE: splits what a detector loses of AP at one IoU into kinds of errors, by mending one kind
/// after the other (D. Bolya et al., "TIDE: A General Toolbox for Identifying Object Detection
/// Errors", arXiv:2008.08115, section 2).

#ifndef QUERN_DETECTION_TIDE_HPP
#define QUERN_DETECTION_TIDE_HPP

#include "quern/core/checks.hpp"
#include "quern/core/config.hpp"
#include "quern/detection/average_precision.hpp"
#include "quern/detection/coco_options.hpp"
#include "quern/detection/data.hpp"
#include "quern/detection/detail/coco_overlap.hpp"
#include "quern/detection/detail/error_images.hpp"
#include "quern/detection/matching.hpp"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace detection {

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
  CocoTarget target = CocoTarget::boxes;  ///< boxes, masks or rotated boxes
  double foreground = 0.5;                ///< IoU of a match
  double background = 0.1;                ///< IoU up to which a detection is on nothing
  std::size_t max_detections = 100;       ///< of an image
  /// The numbers of the package tidecv where they are not the paper's: detections on a crowd are
  /// errors too; an object is mended by the best of its wrong detections of all kinds, not of the
  /// kind that is mended; classes without objects count as AP 0, as do those all of whose objects
  /// are forgiven; `ignore` is forgotten; gains are at least 0.
  bool compat = false;
};

struct TideResult {
  double ap = -1;  ///< at the foreground threshold, 101 points; -1 without objects
  std::array<std::int64_t, tide_errors> count{};
  std::array<double, tide_errors> gain{};  ///< AP won were only this kind of error mended
  double false_positive_gain = 0;          ///< … were there no false positives
  double false_negative_gain = 0;          ///< … were no object left unfound
};

namespace detail {

/// A detection as TIDE sees it.
struct TideItem {
  std::size_t category = 0;
  double score = 0;
  bool right = false;
  bool ignored = false;  ///< on a crowd: an error with `compat` alone, and then not in AP
  TideError error = TideError::background;
  std::size_t mended = 0;    ///< class when mended
  std::int64_t target = -1;  ///< unfound object that mending would find; -1: mending removes it
};

struct TideObject {
  std::size_t category = 0;
  bool open = false;  ///< counts, and is not found
};

/// Finds out what is wrong with each detection.
class TideSorter {
 public:
  explicit TideSorter(const IdIndex& classes, const TideOptions& options)
      : classes_(classes), o_(options), positives(classes.size(), 0) {}

  void add(const ErrorImage& image) {
    measure(image);
    match(image);
    const std::size_t n = classes_d_.size(), m = classes_t_.size();
    for (std::size_t d = 0; d < n; ++d) {
      TideItem item;
      item.category = classes_d_[d];
      item.score = image.detections[d]->score;
      const std::int32_t g = match_[d];
      item.right = g >= 0 && ignored_[static_cast<std::size_t>(g)] == 0;
      item.ignored = g >= 0 && !item.right;
      if (item.ignored && !o_.compat) continue;
      if (!item.right) name_error(iou_.data() + d * m, item);
      items.push_back(item);
    }
    for (std::size_t g = 0; g < m; ++g) {
      const bool counts = ignored_[g] == 0;
      if (counts) ++positives[classes_t_[g]];
      objects.push_back({classes_t_[g], counts && taken_[g] == 0});
    }
  }

 private:
  static constexpr const char* function = "quern::detection::tide";

  void measure(const ErrorImage& image) {
    const std::size_t n = (std::min)(image.detections.size(), o_.max_detections);
    const std::size_t m = image.truths.size();
    classes_d_.resize(n);
    classes_t_.resize(m);
    iou_.resize(n * m);
    crowd_.resize(m);
    ignored_.resize(m);
    for (std::size_t g = 0; g < m; ++g) {
      const Truth& t = *image.truths[g];
      classes_t_[g] = class_place(function, classes_, t.category);
      crowd_[g] = t.crowd ? 1 : 0;
      ignored_[g] = t.crowd || (t.ignore && !o_.compat) ? 1 : 0;
    }
    for (std::size_t d = 0; d < n; ++d) {
      const Detection& found = *image.detections[d];
      classes_d_[d] = class_place(function, classes_, found.category);
      for (std::size_t g = 0; g < m; ++g) {
        const Truth& t = *image.truths[g];
        iou_[d * m + g] = coco_overlap(o_.target, found, t, t.crowd);
      }
    }
  }

  void match(const ErrorImage& image) {
    const std::size_t n = classes_d_.size(), m = image.truths.size();
    match_.assign(n, -1);
    taken_.assign(m, 0);
    for (std::size_t d = 0; d < n; ++d) {
      order_.clear();
      for (const bool last : {false, true}) {
        for (std::uint32_t g = 0; g < m; ++g) {
          if (classes_t_[g] == classes_d_[d] && (ignored_[g] != 0) == last) order_.push_back(g);
        }
      }
      const double* row = iou_.data() + d * m;
      if (o_.compat) {
        match_[d] = match_as_tidecv(row);
      } else {
        coco_match(row, 1, m, order_, ignored_.data(), crowd_.data(), o_.foreground, taken_.data(),
                   &match_[d]);
      }
    }
  }

  /// The first of the greatest IoU; a crowd above the threshold, not at it.
  std::int32_t match_as_tidecv(const double* row) {
    std::int32_t best = -1;
    double most = 0;
    for (const std::uint32_t g : order_) {
      if (ignored_[g] != 0) {
        if (best < 0 && row[g] > o_.foreground) return static_cast<std::int32_t>(g);
      } else if (taken_[g] == 0 && row[g] >= o_.foreground && row[g] > most) {
        most = row[g];
        best = static_cast<std::int32_t>(g);
      }
    }
    if (best >= 0) taken_[static_cast<std::size_t>(best)] = 1;
    return best;
  }

  void name_error(const double* row, TideItem& item) const {
    std::int64_t same = -1, other = -1;
    double most_same = 0, most_other = 0;
    bool duplicate = false;
    for (std::size_t g = 0; g < classes_t_.size(); ++g) {
      if (ignored_[g] != 0) continue;
      const bool alike = classes_t_[g] == item.category;
      double& most = alike ? most_same : most_other;
      if (row[g] > most) most = row[g], (alike ? same : other) = static_cast<std::int64_t>(g);
      duplicate = duplicate || (alike && taken_[g] != 0 && row[g] >= o_.foreground);
    }
    const bool displaced = same >= 0 && most_same >= o_.background &&
                           (o_.compat ? most_same <= o_.foreground : most_same < o_.foreground);
    std::int64_t target = -1;
    if (displaced) {
      item.error = TideError::localization;
      target = same;
    } else if (other >= 0 && most_other >= o_.foreground) {
      item.error = TideError::classification;
      target = other;
    } else if (duplicate) {
      item.error = TideError::duplicate;
    } else {
      item.error = (std::max)(most_same, most_other) <= o_.background ? TideError::background
                                                                      : TideError::both;
    }
    if (target < 0 || taken_[static_cast<std::size_t>(target)] != 0) return;
    item.mended = classes_t_[static_cast<std::size_t>(target)];
    item.target = static_cast<std::int64_t>(objects.size()) + target;
  }

  const IdIndex& classes_;
  const TideOptions& o_;
  std::vector<std::size_t> classes_d_, classes_t_;
  std::vector<double> iou_;
  std::vector<std::uint8_t> crowd_, ignored_, taken_;
  std::vector<std::uint32_t> order_;
  std::vector<std::int32_t> match_;

 public:
  std::vector<std::int64_t> positives;  ///< objects that count, by class
  std::vector<TideItem> items;
  std::vector<TideObject> objects;
};

/// AP with kinds of errors mended.
class TideMender {
 public:
  TideMender(const TideSorter& sorted, const TideOptions& options)
      : s_(sorted), o_(options), missed_(sorted.positives.size(), 0), unfound_(missed_) {
    for (std::size_t i = 0; i < 101; ++i) levels_.push_back(static_cast<double>(i) / 100);
    if (!o_.compat) levels_ = coco_recall_levels();
    std::vector<bool> reached(s_.objects.size(), false);
    for (const TideItem& i : s_.items) {
      if (!i.right && i.target >= 0) reached[static_cast<std::size_t>(i.target)] = true;
    }
    for (std::size_t g = 0; g < s_.objects.size(); ++g) {
      if (!s_.objects[g].open) continue;
      ++unfound_[s_.objects[g].category];
      if (!reached[g]) ++missed_[s_.objects[g].category];
    }
  }

  TideResult run() const {
    TideResult result;
    result.ap = ap(nothing);
    if (result.ap < 0) return result;
    for (const TideItem& i : s_.items) {
      if (!i.right) ++result.count[static_cast<std::size_t>(i.error)];
    }
    for (const std::int64_t n : missed_) result.count[tide_errors - 1] += n;
    for (std::size_t e = 0; e < tide_errors; ++e) {
      result.gain[e] = ap(static_cast<int>(e)) - result.ap;
      if (o_.compat) result.gain[e] = (std::max)(result.gain[e], 0.0);
    }
    result.false_positive_gain = ap(all_false) - result.ap;
    result.false_negative_gain = ap(all_missed) - result.ap;
    return result;
  }

 private:
  static constexpr int nothing = -1, all_false = 100, all_missed = 101;

  [[nodiscard]] bool mends(int what, const TideItem& i) const {
    return !i.right && static_cast<int>(i.error) == what;
  }

  /// Of the detections that would find an object once mended, the one of the greatest score, the
  /// first among equals.
  [[nodiscard]] std::vector<std::int64_t> best_of(int what) const {
    std::vector<std::int64_t> best(s_.objects.size(), -1);
    for (std::size_t i = 0; i < s_.items.size(); ++i) {
      const TideItem& item = s_.items[i];
      if (item.right || item.target < 0 || (!o_.compat && !mends(what, item))) continue;
      std::int64_t& b = best[static_cast<std::size_t>(item.target)];
      if (b < 0 || item.score > s_.items[static_cast<std::size_t>(b)].score) {
        b = static_cast<std::int64_t>(i);
      }
    }
    return best;
  }

  [[nodiscard]] double ap(int what) const {
    std::vector<std::vector<double>> scores(missed_.size());
    std::vector<std::vector<Verdict>> verdicts(missed_.size());
    const std::vector<std::int64_t> best = best_of(what);
    const auto push = [&](std::size_t k, double score, bool right) {
      scores[k].push_back(score);
      verdicts[k].push_back(right ? Verdict::true_positive : Verdict::false_positive);
    };
    // There the false ones come first among equal scores, but in the AP that gains are taken from.
    const bool apart = o_.compat && what != nothing;
    for (const bool right_ones : {false, true}) {
      if (right_ones && !apart) break;
      for (std::size_t i = 0; i < s_.items.size(); ++i) {
        const TideItem& item = s_.items[i];
        if (apart && item.right != right_ones) continue;
        if (mends(what, item)) {
          const bool wins = item.target >= 0 && best[static_cast<std::size_t>(item.target)] ==
                                                    static_cast<std::int64_t>(i);
          if (wins) push(item.mended, item.score, true);
        } else if (what == all_false) {
          if (item.right || (apart && !item.ignored)) {
            push(item.category, item.right ? 1 : 0, item.right);
          }
        } else if (!item.ignored) {
          push(item.category, item.score, item.right);
        }
      }
    }
    return mean_ap(what, scores, verdicts);
  }

  [[nodiscard]] double mean_ap(int what, const std::vector<std::vector<double>>& scores,
                               const std::vector<std::vector<Verdict>>& verdicts) const {
    double sum = 0;
    std::int64_t count = 0;
    for (std::size_t k = 0; k < missed_.size(); ++k) {
      std::int64_t positives = s_.positives[k];
      if (positives == 0 && !o_.compat) continue;
      if (what == static_cast<int>(TideError::missed)) positives -= missed_[k];
      if (what == all_missed) positives -= unfound_[k];
      if (positives == 0 && scores[k].empty() && o_.compat) continue;
      ++count;
      // A class all of whose objects are forgiven has lost nothing.
      sum += positives > 0
                 ? ap_at_levels(precision_recall(scores[k], verdicts[k], positives), levels_)
                 : (o_.compat ? 0 : 1);
    }
    return count == 0 ? -1 : sum / static_cast<double>(count);
  }

  const TideSorter& s_;
  const TideOptions& o_;
  std::vector<double> levels_;
  std::vector<std::int64_t> missed_, unfound_;  ///< by class
};

}  // namespace detail

/// Splits what is lost of AP at one IoU into kinds of errors. A false positive is, in this order: a
/// localization error (right class, background <= IoU < foreground), a classification error
/// (another class, IoU >= foreground), a duplicate, on background, or wrong in both. Missed are
/// objects that mending localization and classification would not find either. Of several
/// detections that would find one object once mended the best stays, the others go. Gains do not
/// sum to what is lost. ValueError for options out of range, key points as target, boxes and scores
/// that are not finite, unknown images and classes.
[[nodiscard]] inline TideResult tide(const CocoDataset& data, std::span<const Detection> detections,
                                     const TideOptions& options = {}) {
  static constexpr const char* function = "quern::detection::tide";
  expect_in_range(function, "foreground", options.foreground, 0.0, 1.0);
  expect_in_range(function, "background", options.background, 0.0, options.foreground);
  const IdIndex classes = detail::classes_of(data);
  detail::TideSorter sorter(classes, options);
  detail::for_each_image(function, data, detections, options.target,
                         [&](const detail::ErrorImage& image) { sorter.add(image); });
  return detail::TideMender(sorter, options).run();
}

}  // namespace detection
QUERN_NAMESPACE_END

#endif  // QUERN_DETECTION_TIDE_HPP
