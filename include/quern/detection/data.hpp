// SPDX-License-Identifier: Apache-2.0

/// \file
/// Objects that are there (Truth), objects that a detector reports (Detection), and data sets of
/// both, as COCO describes them.

#ifndef QUERN_DETECTION_DATA_HPP
#define QUERN_DETECTION_DATA_HPP

#include "quern/core/config.hpp"
#include "quern/detection/box.hpp"
#include "quern/detection/rle.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <limits>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace detection {

/// An annotated object. Masks and key points belong to somebody else (a CocoDataset, or you).
struct Truth {
  std::int64_t id = 0;
  std::int64_t image = 0;
  std::int64_t category = 0;
  Box box{};
  double area = -1;     ///< what area ranges look at, COCO's is the mask's; -1: of mask or box
  bool crowd = false;   ///< a region of many: matches any number of detections, which are ignored
  bool ignore = false;  ///< detections matched to it count neither way
  std::int32_t num_keypoints = -1;      ///< labelled ones; -1: those with v > 0
  const Rle* mask = nullptr;            ///< for masks
  std::span<const double> keypoints{};  ///< for key points: x y v each
  double degrees = 0;  ///< for rotated boxes: turn of the box about its centre, counter-clockwise
};

/// A reported object.
struct Detection {
  std::int64_t image = 0;
  std::int64_t category = 0;
  double score = 0;
  Box box{};
  const Rle* mask = nullptr;
  std::span<const double> keypoints{};
  double degrees = 0;
};

struct ImageInfo {
  std::int64_t id = 0;
  std::uint32_t width = 0;  ///< 0: not known
  std::uint32_t height = 0;
  std::string file_name;
  // LVIS: categories that are known to be absent, and those of which not every object is annotated.
  std::vector<std::int64_t> negative;
  std::vector<std::int64_t> not_exhaustive;
};

struct Category {
  std::int64_t id = 0;
  std::string name;
  char frequency = 0;  ///< LVIS: r, c or f
};

/// Where masks and key points live: addresses stay when it is moved, so it is not copied.
struct ShapeStore {
  ShapeStore() = default;
  ShapeStore(ShapeStore&&) = default;
  ShapeStore& operator=(ShapeStore&&) = default;
  std::deque<Rle> masks;
  std::deque<std::vector<double>> keypoints;
  std::vector<ShapeStore> parts;  ///< of a file that was read in pieces
};

/// Ground truth.
struct CocoDataset {
  std::vector<ImageInfo> images;
  std::vector<Category> categories;
  std::vector<Truth> truths;
  ShapeStore shapes;
};

/// A detector's results.
struct CocoResults {
  std::vector<Detection> detections;
  ShapeStore shapes;
};

/// Numbers ids 0, 1, … in ascending order; finds an id's number quickly.
class IdIndex {
 public:
  IdIndex() = default;
  /// Duplicates are kept once.
  explicit IdIndex(std::vector<std::int64_t> ids) : ids_(std::move(ids)) {
    std::sort(ids_.begin(), ids_.end());
    ids_.erase(std::unique(ids_.begin(), ids_.end()), ids_.end());
    if (ids_.empty()) return;
    const std::uint64_t spread =
        static_cast<std::uint64_t>(ids_.back()) - static_cast<std::uint64_t>(ids_.front());
    // A table while it is small beside the ids or at all (COCO's image ids are below 600,000).
    if (spread < 64 * ids_.size() + (std::size_t{1} << 20)) {
      table_.assign(static_cast<std::size_t>(spread) + 1, -1);
      for (std::size_t i = 0; i < ids_.size(); ++i) {
        table_[offset(ids_[i])] = static_cast<std::int32_t>(i);
      }
    } else {
      for (std::size_t i = 0; i < ids_.size(); ++i) {
        map_.emplace(ids_[i], static_cast<std::int32_t>(i));
      }
    }
  }

  /// -1 for an id that is not there.
  [[nodiscard]] std::int32_t find(std::int64_t id) const noexcept {
    if (!table_.empty()) {
      const std::size_t at = offset(id);
      return at < table_.size() ? table_[at] : -1;
    }
    const auto found = map_.find(id);
    return found == map_.end() ? -1 : found->second;
  }
  [[nodiscard]] const std::vector<std::int64_t>& ids() const noexcept { return ids_; }
  [[nodiscard]] std::size_t size() const noexcept { return ids_.size(); }

 private:
  [[nodiscard]] std::size_t offset(std::int64_t id) const noexcept {
    return static_cast<std::size_t>(static_cast<std::uint64_t>(id) -
                                    static_cast<std::uint64_t>(ids_.front()));
  }

  std::vector<std::int64_t> ids_;
  std::vector<std::int32_t> table_;
  std::unordered_map<std::int64_t, std::int32_t> map_;
};

}  // namespace detection
QUERN_NAMESPACE_END

#endif  // QUERN_DETECTION_DATA_HPP
