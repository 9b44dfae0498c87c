// SPDX-License-Identifier: Apache-2.0

/// \file
/// How COCO's files are read, and the parts that annotations and results have in common.

#ifndef QUERN_IO_COCO_SCAN_HPP
#define QUERN_IO_COCO_SCAN_HPP

#include "quern/core/config.hpp"
#include "quern/core/progress.hpp"
#include "quern/detection/box.hpp"
#include "quern/detection/coco_options.hpp"
#include "quern/detection/polygon.hpp"
#include "quern/detection/rle.hpp"
#include "quern/io/input.hpp"
#include "quern/io/json_scan.hpp"

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace io {

/// How COCO files are read.
struct CocoReadOptions {
  /// What of each object is kept: boxes always, masks or key points only when they are the target.
  detection::CocoTarget target = detection::CocoTarget::boxes;
  /// Results: categories that the data set does not have are kept rather than refused (the
  /// evaluator drops them with `compat`).
  bool unknown_categories = false;
  int threads = 1;              ///< 0: default_threads(); never changes a result
  ProgressCallback progress{};  ///< bytes read
  Limits limits{};
};

namespace detail {

using detection::CocoTarget;

/// A segmentation as it stands in the file.
struct CocoSegmentation {
  enum class Kind : std::uint8_t { none, polygons, runs, text } kind = Kind::none;
  std::vector<std::vector<double>> polygons;
  detection::Rle runs;
  std::size_t offset = 0;  ///< in the file

  void clear() {
    kind = Kind::none;
    polygons.clear();
    runs.counts.clear();
    runs.height = runs.width = 0;
  }
};

/// Reads the parts that annotations and results have in common.
class CocoScan {
 public:
  CocoScan(const Input& input, const CocoReadOptions& options) : json(input), options_(options) {}

  /// x y w h; for rotated boxes also cx cy w h degrees, which sets \p degrees.
  detection::Box box(double& degrees) {
    const std::size_t at = json.next_offset();
    std::array<double, 5> v{};
    std::size_t n = 0;
    json.array([&] {
      const double x = json.number();
      if (n < 5) v[n] = x;
      ++n;
    });
    const bool turned = options_.target == CocoTarget::rotated_boxes;
    if (n != 4 && !(turned && n == 5)) {
      json.fail_at(at, "a bbox of " + std::to_string(n) + " numbers, expected " +
                           (turned ? "5 (cx cy w h degrees) or 4" : "4 (x y w h)"));
    }
    if (v[2] < 0 || v[3] < 0) json.fail_at(at, "a bbox of negative size");
    degrees = v[4];
    if (n == 5) return {v[0] - v[2] / 2, v[1] - v[3] / 2, v[2], v[3]};
    return {v[0], v[1], v[2], v[3]};
  }

  std::vector<double> numbers() {
    std::vector<double> values;
    json.array([&] { values.push_back(json.number()); });
    return values;
  }

  std::vector<std::int64_t> integers() {
    std::vector<std::int64_t> values;
    json.array([&] { values.push_back(json.integer()); });
    return values;
  }

  std::vector<double> keypoints() {
    const std::size_t at = json.next_offset();
    std::vector<double> values = numbers();
    if (values.size() % 3 != 0 || values.empty()) {
      json.fail_at(at, "key points in other than threes: " + std::to_string(values.size()));
    }
    return values;
  }

  void segmentation(CocoSegmentation& s) {
    s.clear();
    const char c = json.peek();
    s.offset = json.offset();
    if (c == '[') {
      s.kind = CocoSegmentation::Kind::polygons;
      json.array([&] {
        const std::size_t at = json.next_offset();
        s.polygons.push_back(numbers());
        const std::vector<double>& xy = s.polygons.back();
        if (xy.size() < 6 || xy.size() % 2 != 0) {
          json.fail_at(at, "a polygon of " + std::to_string(xy.size()) + " numbers");
        }
        for (const double x : xy) {
          if (std::fabs(x) > detection::max_polygon_coordinate) {
            json.fail_at(at, "a polygon with a coordinate beyond 10^5");
          }
        }
      });
      if (s.polygons.empty()) s.kind = CocoSegmentation::Kind::none;
      return;
    }
    if (c != '{') json.unexpected("polygons or run lengths");
    rle(s);
  }

  /// Progress, every so many bytes; the first of \p pieces that are read at once tells for all.
  void tell(bool last = false, std::size_t pieces = 1) {
    if (!options_.progress || (!last && json.offset() < next_)) return;
    next_ = json.offset() + (std::size_t{1} << 22);
    report(options_.progress, "quern::io::coco",
           {.what = "bytes read",
            .done = static_cast<std::int64_t>((std::min)(json.offset() * pieces, json.size())),
            .total = static_cast<std::int64_t>(json.size())});
  }

  JsonScan json;

 private:
  static std::uint32_t side(JsonScan& json) {
    const std::size_t at = json.next_offset();
    const std::int64_t n = json.integer();
    if (n < 0 || n > 0x7fffffff) json.fail_at(at, "a size or a run outside 0..2147483647");
    return static_cast<std::uint32_t>(n);
  }

  void rle(CocoSegmentation& s) {
    text_ = {};
    std::size_t sides = 0, counts_at = s.offset;
    bool compressed = false, any = false;
    json.object([&](std::string_view key) {
      if (key == "size") {
        json.array([&] { (sides++ == 0 ? s.runs.height : s.runs.width) = side(json); });
      } else if (key == "counts") {
        any = true;
        compressed = json.peek() == '"';
        counts_at = json.offset();
        if (compressed) {
          text_ = json.string(buffer_);
        } else {
          json.array([&] { s.runs.counts.push_back(side(json)); });
        }
      } else {
        json.skip();
      }
    });
    if (sides != 2 || !any) json.fail_at(s.offset, "run lengths without a size of 2 or counts");
    if (s.runs.pixels() > 0x7fffffffU) json.fail_at(s.offset, "a mask of more than 2^31 pixels");
    s.kind = CocoSegmentation::Kind::runs;
    if (compressed) {
      std::size_t at = 0;
      if (detection::parse_compressed(text_, s.runs, at) != detection::RleFault::none) {
        json.fail_at(counts_at, "compressed counts that do not fit " + size_text(s.runs) +
                                    " pixels (character " + std::to_string(at) + ")");
      }
      return;
    }
    std::uint64_t sum = 0;
    for (const std::uint32_t c : s.runs.counts) sum += c;
    if (sum != s.runs.pixels()) {
      json.fail_at(counts_at, "counts of " + std::to_string(sum) + " pixels together, expected " +
                                  size_text(s.runs));
    }
  }

 public:
  static std::string size_text(const detection::Rle& m) {
    return std::to_string(m.height) + " x " + std::to_string(m.width);
  }

 private:
  const CocoReadOptions& options_;
  std::size_t next_ = 0;
  std::string buffer_;
  std::string_view text_;
};

}  // namespace detail
}  // namespace io
QUERN_NAMESPACE_END

#endif  // QUERN_IO_COCO_SCAN_HPP
