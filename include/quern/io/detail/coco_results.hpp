// SPDX-License-Identifier: Apache-2.0

/// \file
/// Reads a detector's results, one array of objects, in pieces side by side: a piece begins where
/// an object seems to, and is believed once the piece before it ends exactly there. Where that
/// fails, or anything is wrong, the text is read from front to back, so faults are told as by one
/// reader.

#ifndef QUERN_IO_DETAIL_COCO_RESULTS_HPP
#define QUERN_IO_DETAIL_COCO_RESULTS_HPP

#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/core/parallel.hpp"
#include "quern/detection/data.hpp"
#include "quern/detection/detail/coco_overlap.hpp"
#include "quern/detection/polygon.hpp"
#include "quern/detection/rle.hpp"
#include "quern/io/coco_scan.hpp"
#include "quern/io/input.hpp"
#include "quern/io/json_scan.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <deque>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace io {
namespace detail {

/// What results may name.
struct CocoNames {
  detection::IdIndex images, categories;
  std::vector<const detection::ImageInfo*> infos;

  explicit CocoNames(const detection::CocoDataset& data) {
    std::vector<std::int64_t> ids;
    for (const auto& i : data.images) ids.push_back(i.id);
    images = detection::IdIndex(std::move(ids));
    infos.resize(images.size());
    for (const auto& i : data.images) infos[static_cast<std::size_t>(images.find(i.id))] = &i;
    std::vector<std::int64_t> classes;
    for (const auto& c : data.categories) classes.push_back(c.id);
    categories = detection::IdIndex(std::move(classes));
  }
};

/// Reads objects one after the other. On cache lines of its own: each thread writes to its own.
class alignas(128) CocoResultPiece {
 public:
  CocoResultPiece(const Input& input, const CocoNames& names, const CocoReadOptions& options)
      : scan_(input, options), json_(scan_.json), names_(names), o_(options) {}

  /// The whole text.
  void read_all() {
    end_ = json_.size();
    json_.array([this] {
      one();
      scan_.tell();
    });
    json_.end();
    scan_.tell(true);
  }

  /// The objects from \p begin (0: the array's first) up to \p end (the text's: its last); whether
  /// the last of them ends where another begins at \p end. \p pieces: of equal size, read at once;
  /// told for all of them by the first.
  [[nodiscard]] bool read_piece(std::size_t begin, std::size_t end, std::size_t pieces) {
    const bool last = end == json_.size();
    first_ = begin;
    // The others' detections are joined to those of the first.
    end_ = begin == 0 ? json_.size() : end;
    if (begin != 0) {
      json_.jump_into_array(begin);
    } else if (!json_.enter_array()) {
      return false;
    }
    for (;;) {
      one();
      if (begin == 0) scan_.tell(false, pieces);
      if (!json_.next_element()) {
        json_.end();
        return last;
      }
      if (!last && json_.next_offset() >= end) return json_.offset() == end;
    }
  }

  [[nodiscard]] detection::CocoResults& results() noexcept { return results_; }

 private:
  static constexpr std::size_t sample = 256;

  void one() {
    const std::size_t at = json_.next_offset();
    detection::Detection d;
    bool image = false, category = false, score = false, box = false;
    segmentation_.clear();
    json_.object([&](std::string_view key) {
      if (key == "image_id") {
        d.image = json_.integer();
        image = true;
      } else if (key == "category_id") {
        d.category = json_.integer();
        category = true;
      } else if (key == "bbox") {
        d.box = scan_.box(d.degrees);
        box = true;
      } else if (key == "score") {
        d.score = json_.number();
        score = true;
      } else if (key == "segmentation" && o_.target == CocoTarget::masks) {
        scan_.segmentation(segmentation_);
      } else if (key == "keypoints" && o_.target == CocoTarget::keypoints) {
        d.keypoints = results_.shapes.keypoints.emplace_back(scan_.keypoints());
      } else {
        json_.skip();
      }
    });
    if (!image || !category || !score) {
      json_.fail_at(at, "a detection without image_id, category_id or score");
    }
    if (!box && detection::detail::is_box_target(o_.target)) {
      json_.fail_at(at, "a detection without bbox");
    }
    const std::int32_t place = names_.images.find(d.image);
    if (place < 0) {
      json_.fail_at(at, "a detection on the unknown image " + std::to_string(d.image));
    }
    if (!o_.unknown_categories && names_.categories.find(d.category) < 0) {
      json_.fail_at(at, "a detection of the unknown category " + std::to_string(d.category));
    }
    if (o_.target == CocoTarget::masks) mask(d, *names_.infos[static_cast<std::size_t>(place)], at);
    if (o_.target == CocoTarget::keypoints && d.keypoints.empty()) {
      json_.fail_at(at, "a detection without keypoints");
    }
    if (results_.detections.size() == sample) expect_more(at);
    results_.detections.push_back(d);
  }

  /// Memory for as many as there will be, at the size that the first ones had.
  void expect_more(std::size_t at) {
    const std::size_t bytes = (at - first_) / sample + 1;
    results_.detections.reserve((end_ - at) / bytes + (end_ - at) / bytes / 16 + 2 * sample);
  }

  void mask(detection::Detection& d, const detection::ImageInfo& info, std::size_t at) {
    using Kind = CocoSegmentation::Kind;
    if (segmentation_.kind == Kind::none) json_.fail_at(at, "a detection without segmentation");
    if (segmentation_.kind == Kind::polygons) {
      if (info.width == 0 || info.height == 0 ||
          std::uint64_t{info.width} * info.height > 0x7fffffffU) {
        json_.fail_at(at, "polygons on an image without a size");
      }
      segmentation_.runs =
          detection::from_polygons(segmentation_.polygons, info.height, info.width);
    }
    const detection::Rle& m = segmentation_.runs;
    if (info.width != 0 && (m.width != info.width || m.height != info.height)) {
      json_.fail_at(at, "a mask of " + CocoScan::size_text(m) + " on an image of " +
                            std::to_string(info.height) + " x " + std::to_string(info.width));
    }
    d.mask = &results_.shapes.masks.emplace_back(m);
  }

  CocoScan scan_;
  JsonScan& json_;
  const CocoNames& names_;
  const CocoReadOptions& o_;
  std::size_t first_ = 0, end_ = 0;  ///< of what is read
  detection::CocoResults results_;
  CocoSegmentation segmentation_;
};

/// Parses results.
class CocoResultReader {
 public:
  /// \p least: bytes that a piece is worth.
  CocoResultReader(const Input& input, const detection::CocoDataset& data,
                   const CocoReadOptions& options, std::size_t least = std::size_t{1} << 20)
      : input_(input), names_(data), o_(options), least_(least) {}

  detection::CocoResults read() {
    detection::CocoResults results;
    if (read_pieces(results)) return results;
    CocoResultPiece whole(input_, names_, o_);
    whole.read_all();
    return std::move(whole.results());
  }

 private:
  /// Where the objects after an even share of the text seem to begin.
  [[nodiscard]] std::vector<std::size_t> starts(std::size_t pieces) const {
    const std::string_view text = input_.text();
    std::vector<std::size_t> found = {0};
    for (std::size_t k = 1; k < pieces; ++k) {
      std::size_t at = (std::max)(text.size() / pieces * k, found.back());
      while ((at = text.find('}', at)) != std::string_view::npos) {
        const std::size_t comma = text.find_first_not_of(" \n\r\t", ++at);
        if (comma == std::string_view::npos || text[comma] != ',') continue;
        const std::size_t next = text.find_first_not_of(" \n\r\t", comma + 1);
        if (next == std::string_view::npos || text[next] != '{') continue;
        found.push_back(next);
        break;
      }
    }
    found.push_back(text.size());
    return found;
  }

  [[nodiscard]] bool read_pieces(detection::CocoResults& to) const {
    const std::size_t workers = static_cast<std::size_t>(worker_count(o_.threads));
    const std::size_t wanted = (std::min)(workers, input_.text().size() / least_);
    if (wanted < 2) return false;
    const std::vector<std::size_t> begin = starts(wanted);
    const std::size_t pieces = begin.size() - 1;
    if (pieces < 2) return false;
    std::deque<CocoResultPiece> readers;
    for (std::size_t k = 0; k < pieces; ++k) readers.emplace_back(input_, names_, o_);
    std::vector<std::uint8_t> good(pieces, 0);
    parallel_for(
        static_cast<std::int64_t>(pieces),
        [&](std::int64_t block) {
          const std::size_t k = static_cast<std::size_t>(block);
          try {
            good[k] = readers[k].read_piece(begin[k], begin[k + 1], pieces) ? 1 : 0;
          } catch (const ParseError&) {
            // Told by the one that reads from front to back.
          }
        },
        o_.threads);
    if (std::find(good.begin(), good.end(), 0) != good.end()) return false;
    join(readers, to);
    return true;
  }

  static void join(std::deque<CocoResultPiece>& readers, detection::CocoResults& to) {
    std::size_t n = 0;
    for (CocoResultPiece& r : readers) n += r.results().detections.size();
    to.detections = std::move(readers.front().results().detections);
    to.detections.reserve(n);
    for (CocoResultPiece& r : readers) {
      // The first one's are empty now.
      auto& part = r.results().detections;
      to.detections.insert(to.detections.end(), part.begin(), part.end());
      part = {};
      to.shapes.parts.push_back(std::move(r.results().shapes));
    }
  }

  const Input& input_;
  CocoNames names_;
  const CocoReadOptions& o_;
  std::size_t least_;
};

}  // namespace detail
}  // namespace io
QUERN_NAMESPACE_END

#endif  // QUERN_IO_DETAIL_COCO_RESULTS_HPP
