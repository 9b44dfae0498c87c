// SPDX-License-Identifier: Apache-2.0

/// \file
/// From records of matches to precision, recall and scores.

#ifndef QUERN_DETECTION_DETAIL_COCO_ACCUMULATE_HPP
#define QUERN_DETECTION_DETAIL_COCO_ACCUMULATE_HPP

#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/core/parallel.hpp"
#include "quern/detection/coco_options.hpp"
#include "quern/detection/coco_result.hpp"
#include "quern/detection/detail/coco_records.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <span>
#include <string>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace detection {
namespace detail {

/// The detections of each class in the order in which equal scores stay: images by ascending id,
/// then by rank.
struct ClassLists {
  std::vector<std::uint64_t> begin;  ///< K + 1
  std::vector<std::uint64_t> place;
  std::vector<std::uint32_t> image;  ///< place of each one's image in `images`

  [[nodiscard]] std::span<const std::uint64_t> places(std::size_t k) const {
    return {place.data() + begin[k], static_cast<std::size_t>(begin[k + 1] - begin[k])};
  }
};

/// Places of images by ascending id.
inline std::vector<std::uint32_t> images_by_id(const CocoRecords& records) {
  std::vector<std::uint32_t> order(records.images.size());
  std::iota(order.begin(), order.end(), 0U);
  std::sort(order.begin(), order.end(), [&](std::uint32_t a, std::uint32_t b) {
    return records.images[a].id < records.images[b].id;
  });
  return order;
}

inline ClassLists lists_of(const CocoRecords& records, std::size_t classes, bool with_images) {
  ClassLists lists;
  lists.begin.assign(classes + 1, 0);
  for (const std::uint32_t c : records.categories) ++lists.begin[c + 1];
  std::partial_sum(lists.begin.begin(), lists.begin.end(), lists.begin.begin());
  std::vector<std::uint64_t> next(lists.begin.begin(), lists.begin.end() - 1);
  lists.place.resize(records.scores.size());
  if (with_images) lists.image.resize(records.scores.size());
  for (const std::uint32_t i : images_by_id(records)) {
    const std::uint64_t from = i == 0 ? 0 : records.images[i - 1].detections_end;
    for (std::uint64_t d = from; d < records.images[i].detections_end; ++d) {
      const std::uint64_t at = next[records.categories[d]]++;
      lists.place[at] = d;
      if (with_images) lists.image[at] = i;
    }
  }
  return lists;
}

/// Accumulates one class after another; one object a thread, for its memory.
class alignas(128) ClassAccumulator {
 public:
  ClassAccumulator(const CocoRecords& records, const CocoOptions& options, CocoResult& to)
      : records_(records), o_(options), to_(to), words_(records.words) {}

  /// `positives`: objects that count, by area.
  void run(std::size_t k, std::span<const std::uint64_t> places,
           std::span<const std::int64_t> positives) {
    sort(places);
    const std::size_t limits = o_.max_detections.size();
    for (std::size_t m = limits; m-- > 0;) {
      const bool same = m + 1 < limits && highest_rank_ < o_.max_detections[m];
      if (!same) cut(o_.max_detections[m]);
      for (std::size_t a = 0; a < o_.areas.size(); ++a) {
        if (positives[a] == 0) continue;
        if (same) {
          copy(k, a, m);
        } else {
          area(k, a, m, positives[a]);
        }
      }
    }
  }

 private:
  struct Scored {
    double score = 0;
    std::uint32_t order = 0;
  };

  /// Scores, ranks and bits by descending score.
  void sort(std::span<const std::uint64_t> places) {
    const std::size_t n = places.size();
    sorted_.resize(n);
    for (std::size_t i = 0; i < n; ++i) {
      sorted_[i] = {records_.scores[places[i]], static_cast<std::uint32_t>(i)};
    }
    std::sort(sorted_.begin(), sorted_.end(), [](const Scored& a, const Scored& b) {
      return a.score != b.score ? a.score > b.score : a.order < b.order;
    });
    ranks_.resize(n);
    bits_.resize(n * words_);
    highest_rank_ = -1;
    for (std::size_t i = 0; i < n; ++i) {
      const std::uint64_t place = places[sorted_[i].order];
      ranks_[i] = records_.ranks[place];
      highest_rank_ = (std::max)(highest_rank_, std::int64_t{ranks_[i]});
      for (std::size_t w = 0; w < words_; ++w) {
        bits_[i * words_ + w] = records_.bits[place * words_ + w];
      }
    }
  }

  /// Leaves those of lower rank than the limit, in place: limits come in descending order.
  void cut(std::int64_t limit) {
    if (highest_rank_ < limit) return;
    std::size_t kept = 0;
    for (std::size_t i = 0; i < ranks_.size(); ++i) {
      if (std::int64_t{ranks_[i]} >= limit) continue;
      sorted_[kept] = sorted_[i];
      ranks_[kept] = ranks_[i];
      for (std::size_t w = 0; w < words_; ++w) bits_[kept * words_ + w] = bits_[i * words_ + w];
      ++kept;
    }
    sorted_.resize(kept);
    ranks_.resize(kept);
    bits_.resize(kept * words_);
    highest_rank_ = limit - 1;
  }

  /// Nothing was cut: the numbers of the limit above.
  void copy(std::size_t k, std::size_t a, std::size_t m) {
    const Index at_k = static_cast<Index>(k), at_a = static_cast<Index>(a);
    const Index at_m = static_cast<Index>(m);
    for (Index t = 0; t < to_.precision.extent(0); ++t) {
      to_.recall(t, at_k, at_a, at_m) = to_.recall(t, at_k, at_a, at_m + 1);
      for (Index r = 0; r < to_.precision.extent(1); ++r) {
        to_.precision(t, r, at_k, at_a, at_m) = to_.precision(t, r, at_k, at_a, at_m + 1);
        to_.scores(t, r, at_k, at_a, at_m) = to_.scores(t, r, at_k, at_a, at_m + 1);
      }
    }
  }

  void area(std::size_t k, std::size_t a, std::size_t m, std::int64_t positives) {
    needed(positives);
    walk(a, positives);
    const Index at_k = static_cast<Index>(k), at_a = static_cast<Index>(a);
    const Index at_m = static_cast<Index>(m);
    for (std::size_t t = 0; t < found_.size(); ++t) {
      const std::size_t found = found_[t];
      const double* reached = precision_.data() + t * stride_;
      const std::uint32_t* where = where_.data() + t * stride_;
      const Index at_t = static_cast<Index>(t);
      to_.recall(at_t, at_k, at_a, at_m) =
          static_cast<double>(found) / static_cast<double>(positives);
      for (std::size_t r = 0; r < needed_.size(); ++r) {
        double precision = 0, score = 0;
        if (needed_[r] == 0 && !sorted_.empty()) {
          precision = found > 0 ? reached[0] : 0;
          score = sorted_[0].score;
        } else if (needed_[r] > 0 && needed_[r] <= found) {
          precision = reached[needed_[r] - 1];
          score = sorted_[where[needed_[r] - 1]].score;
        }
        to_.precision(at_t, static_cast<Index>(r), at_k, at_a, at_m) = precision;
        to_.scores(at_t, static_cast<Index>(r), at_k, at_a, at_m) = score;
      }
    }
  }

  /// How many true positives reach each level of recall.
  void needed(std::int64_t positives) {
    needed_.resize(o_.recall_levels.size());
    const double all = static_cast<double>(positives);
    std::size_t count = 0;
    for (std::size_t r = 0; r < needed_.size(); ++r) {
      while (static_cast<double>(count) / all < o_.recall_levels[r]) ++count;
      needed_[r] = count;
    }
  }

  /// Precision at every true positive of every threshold, made non-increasing; how many there are
  /// goes to found_. Between them precision only falls, so the others are not needed.
  void walk(std::size_t a, std::int64_t positives) {
    const std::size_t thresholds = o_.iou_thresholds.size();
    // Each object is found once at most.
    stride_ = (std::min)(sorted_.size(), static_cast<std::size_t>(positives));
    if (precision_.size() < thresholds * stride_) {
      precision_.resize(thresholds * stride_);
      where_.resize(thresholds * stride_);
    }
    found_.assign(thresholds, 0);
    seen_.assign(thresholds, 0);
    if (stride_ == 0) return;
    for (std::size_t t = 0; t < thresholds;) {
      // Those whose bits lie in one word.
      const std::size_t bit = 2 * (a * thresholds + t);
      const std::size_t count = (std::min)(thresholds - t, (64 - bit % 64) / 2);
      walk_word(bit, t, count);
      t += count;
    }
    for (std::size_t t = 0; t < thresholds; ++t) {
      double* p = precision_.data() + t * stride_;
      for (std::size_t i = found_[t]; i-- > 1;) p[i - 1] = (std::max)(p[i - 1], p[i]);
    }
  }

  /// `count` thresholds from `first` on. Nearly every detection is the same at all of them, false
  /// or ignored: it costs one comparison.
  void walk_word(std::size_t bit, std::size_t first, std::size_t count) {
    const std::uint64_t mask = ~std::uint64_t{0} >> (64 - 2 * count);
    const std::uint64_t ignored = mask & 0xAAAAAAAAAAAAAAAAU;
    const std::uint64_t* bits = bits_.data() + bit / 64;
    const std::size_t shift = bit % 64, n = sorted_.size();
    std::size_t false_at_all = 0;
    for (std::size_t i = 0; i < n; ++i) {
      const std::uint64_t verdicts = bits[i * words_] >> shift & mask;
      if (verdicts == 0) {
        ++false_at_all;
        continue;
      }
      if (verdicts == ignored) continue;
      for (std::size_t t = 0; t < count; ++t) {
        const std::uint64_t verdict = verdicts >> 2 * t & 3;
        if (verdict < 2) count_one(first + t, i, verdict == 1, false_at_all);
      }
    }
  }

  /// One that is not ignored, after `before` that are not in seen_.
  void count_one(std::size_t t, std::size_t i, bool right, std::size_t before) {
    const std::size_t seen = ++seen_[t] + before, found = found_[t];
    if (!right || found == stride_) return;
    precision_[t * stride_ + found] =
        static_cast<double>(found + 1) / (static_cast<double>(seen) + 0x1p-52);
    where_[t * stride_ + found] = static_cast<std::uint32_t>(i);
    ++found_[t];
  }

  const CocoRecords& records_;
  const CocoOptions& o_;
  CocoResult& to_;
  std::size_t words_;
  std::int64_t highest_rank_ = -1;
  std::vector<Scored> sorted_;
  std::vector<std::uint32_t> ranks_;
  std::vector<std::uint64_t> bits_;
  std::vector<std::size_t> needed_;
  // By threshold, then by true positive.
  std::size_t stride_ = 0;
  std::vector<std::size_t> found_, seen_;
  std::vector<double> precision_;
  std::vector<std::uint32_t> where_;
};

/// Objects that count, (K, A).
inline std::vector<std::int64_t> positives_of(const CocoRecords& records, std::size_t classes,
                                              std::size_t areas) {
  std::vector<std::int64_t> positives(classes * areas, 0);
  for (const CocoTruth& t : records.truths) {
    for (std::size_t a = 0; a < areas; ++a) positives[t.category * areas + a] += t.areas >> a & 1U;
  }
  return positives;
}

inline CocoResult accumulate(const CocoRecords& records, const CocoOptions& options,
                             const std::vector<std::int64_t>& categories) {
  CocoResult result;
  result.options = options;
  result.categories = options.use_categories ? categories : std::vector<std::int64_t>{-1};
  const std::size_t classes = result.categories.size(), areas = options.areas.size();
  const Index t = static_cast<Index>(options.iou_thresholds.size());
  const Index r = static_cast<Index>(options.recall_levels.size());
  const Index k = static_cast<Index>(classes), a = static_cast<Index>(areas);
  const Index m = static_cast<Index>(options.max_detections.size());
  result.precision = NdArray<double, 5>({t, r, k, a, m});
  result.scores = NdArray<double, 5>({t, r, k, a, m});
  result.recall = NdArray<double, 4>({t, k, a, m});
  result.precision.fill(-1);
  result.scores.fill(-1);
  result.recall.fill(-1);
  result.images = static_cast<std::int64_t>(records.images.size());
  result.detections = static_cast<std::int64_t>(records.scores.size());
  const std::vector<std::int64_t> positives = positives_of(records, classes, areas);
  for (std::size_t c = 0; c < classes; ++c) result.truths.push_back(positives[c * areas]);
  const ClassLists lists = lists_of(records, classes, false);
  const ParallelOptions parallel{.threads = options.threads};
  std::vector<ClassAccumulator> workers(static_cast<std::size_t>(worker_count(parallel)),
                                        ClassAccumulator(records, options, result));
  parallel_for(
      k,
      [&](std::int64_t block) {
        const std::size_t c = static_cast<std::size_t>(block);
        workers[static_cast<std::size_t>(this_worker())].run(c, lists.places(c),
                                                             {positives.data() + c * areas, areas});
      },
      parallel);
  return result;
}

}  // namespace detail
}  // namespace detection
QUERN_NAMESPACE_END

#endif  // QUERN_DETECTION_DETAIL_COCO_ACCUMULATE_HPP
