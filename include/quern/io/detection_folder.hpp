// SPDX-License-Identifier: Apache-2.0

/// \file
/// Whole data sets that lie in folders, one file an image (Pascal VOC's XML, YOLO's text), and
/// detectors' results on them (the VOC development kit's one text a class, YOLO's one an image), as
/// what every evaluation here takes: CocoDataset and Detection.

#ifndef QUERN_IO_DETECTION_FOLDER_HPP
#define QUERN_IO_DETECTION_FOLDER_HPP

#include "quern/core/checks.hpp"
#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/detection/data.hpp"
#include "quern/io/input.hpp"
#include "quern/io/number.hpp"
#include "quern/io/quote.hpp"
#include "quern/io/voc_xml.hpp"
#include "quern/io/yolo.hpp"

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <string>
#include <string_view>
#include <system_error>
#include <utility>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace io {

/// How folders of annotations are read.
struct FolderOptions {
  /// Names of the classes in the order of their numbers: VOC's are 1, 2, …, YOLO's 0, 1, …. Empty:
  /// VOC the names that occur, sorted; YOLO "0", "1", … up to the greatest that occurs.
  std::vector<std::string> classes = {};
  /// YOLO: the images (file_name without its ending, width, height), of which some may have no
  /// file: they hold no objects. Empty: one image a file, boxes stay shares of its size.
  std::vector<detection::ImageInfo> images = {};
  Limits limits{};
};

namespace detail {

/// Files of a folder with this ending (".xml"): name without the ending, and path; sorted by name.
inline std::vector<std::pair<std::string, std::string>> files_of(const char* function,
                                                                 const std::string& folder,
                                                                 std::string_view ending) {
  namespace fs = std::filesystem;
  std::error_code error;
  std::vector<std::pair<std::string, std::string>> files;
  fs::directory_iterator at(folder, error);
  for (; !error && at != fs::directory_iterator(); at.increment(error)) {
    const fs::path& path = at->path();
    if (path.extension() == ending) files.emplace_back(path.stem().string(), path.string());
  }
  if (error) {
    throw IoError(error_text(function, "folder", "one that can be read",
                             quote_text(folder) + ": " + error.message()));
  }
  std::sort(files.begin(), files.end());
  return files;
}

/// Numbers of names; -1 for one that is not there. ValueError for a name that occurs twice.
class NameIndex {
 public:
  explicit NameIndex(const char* function) : function_(function) {}
  void add(const char* argument, const std::string& name, std::int64_t number) {
    if (!numbers_.emplace(name, number).second) {
      throw ValueError(
          error_text(function_, argument, "different names", quote_text(name) + " twice"));
    }
  }
  [[nodiscard]] std::int64_t find(const std::string& name) const {
    const auto found = numbers_.find(name);
    return found == numbers_.end() ? -1 : found->second;
  }

 private:
  const char* function_;
  std::map<std::string, std::int64_t, std::less<>> numbers_;
};

/// VOC's corners as x y w h; evaluate_voc() turns them back.
inline detection::Box box_of_corners(const detection::CornerBox& b) {
  return {b.x1, b.y1, b.x2 - b.x1, b.y2 - b.y1};
}

/// Five numbers after a name: one line of the development kit's results.
inline detection::Detection voc_result_line(const Input& input, std::size_t begin, std::size_t end,
                                            const NameIndex& images) {
  const std::string_view text = input.text();
  detection::Detection d;
  std::array<double, 5> v{};
  std::size_t words = 0;
  const auto blank = [](char c) { return c == ' ' || c == '\t' || c == '\r'; };
  for (std::size_t at = begin; at < end; ++words) {
    while (at < end && blank(text[at])) ++at;
    if (at == end) break;
    std::size_t stop = at;
    while (stop < end && !blank(text[stop])) ++stop;
    const std::string_view word = text.substr(at, stop - at);
    if (words == 0) {
      d.image = images.find(std::string(word));
      if (d.image < 0) input.fail_at(at, "a detection on the unknown image " + quote_text(word));
    } else if (words < 6) {
      const Number<double> n = parse_whole_number<double>(word);
      if (n.status != NumberStatus::ok || !is_finite_bits(n.value)) {
        input.fail_at(at, "expected a number, got " + quote_text(word));
      }
      v[words - 1] = n.value;
    }
    at = stop;
  }
  if (words != 6) {
    input.fail_at(begin,
                  "expected image, score, x1, y1, x2, y2, got " + std::to_string(words) + " words");
  }
  if (v[3] < v[1] || v[4] < v[2]) input.fail_at(begin, "a box of negative size");
  if (!is_finite_bits(v[3] - v[1]) || !is_finite_bits(v[4] - v[2])) {
    input.fail_at(begin, "a box too large for a double");
  }
  d.score = v[0];
  d.box = box_of_corners({v[1], v[2], v[3], v[4]});
  return d;
}

/// Calls each(begin, end) for every line that is not blank.
template <class F>
void for_lines(std::string_view text, F&& each) {
  for (std::size_t begin = 0; begin < text.size();) {
    const std::size_t end = (std::min)(text.find('\n', begin), text.size());
    const std::string_view line = text.substr(begin, end - begin);
    if (line.find_first_not_of(" \t\r") != std::string_view::npos) each(begin, end);
    begin = end + 1;
  }
}

}  // namespace detail

/// A folder of VOC's XML: images 1, 2, … by ascending file name (which is ImageInfo::file_name,
/// without its ending), difficult objects as Truth::ignore. ParseError as read_voc_xml(), and for
/// a class that is not among `options.classes`; IoError for a folder that cannot be read.
[[nodiscard]] inline detection::CocoDataset read_voc_folder(const std::string& folder,
                                                            const FolderOptions& options = {}) {
  static constexpr const char* function = "quern::io::read_voc_folder";
  std::vector<VocAnnotation> files;
  std::vector<std::string> paths, names = options.classes;
  detection::CocoDataset data;
  for (const auto& [name, path] : detail::files_of(function, folder, ".xml")) {
    files.push_back(read_voc_xml(path, options.limits));
    paths.push_back(path);
    detection::ImageInfo& image = data.images.emplace_back();
    image.id = static_cast<std::int64_t>(data.images.size());
    image.width = static_cast<std::uint32_t>((std::min)(files.back().width, 0x1p31));
    image.height = static_cast<std::uint32_t>((std::min)(files.back().height, 0x1p31));
    image.file_name = name;
    if (!options.classes.empty()) continue;
    for (const VocObject& o : files.back().objects) names.push_back(o.name);
  }
  if (options.classes.empty()) {
    std::sort(names.begin(), names.end());
    names.erase(std::unique(names.begin(), names.end()), names.end());
  }
  detail::NameIndex index(function);
  for (const std::string& name : names) {
    data.categories.push_back({static_cast<std::int64_t>(data.categories.size()) + 1, name, 0});
    index.add("classes", name, data.categories.back().id);
  }
  for (std::size_t i = 0; i < files.size(); ++i) {
    for (const VocObject& o : files[i].objects) {
      detection::Truth t;
      t.id = static_cast<std::int64_t>(data.truths.size()) + 1;
      t.image = data.images[i].id;
      t.category = index.find(o.name);
      if (t.category < 0) {
        throw ParseError(std::string(function) + ": " + paths[i] + ": an object of the class " +
                         quote_text(o.name) + ", which is none of `classes`");
      }
      t.box = detail::box_of_corners(o.box);
      t.area = t.box.area();
      t.ignore = o.difficult;
      data.truths.push_back(t);
    }
  }
  return data;
}

/// Results as the VOC development kit takes them: for each class a file that ends in "_CLASS.txt"
/// (such as comp4_det_test_car.txt) or is "CLASS.txt", of lines "image score x1 y1 x2 y2", the
/// image by ImageInfo::file_name. Files of no class of `data` are passed over; a class may have no
/// file. ParseError with line and column for what is malformed, images that are not known and boxes
/// of negative size; ValueError where a class has two files.
[[nodiscard]] inline detection::CocoResults read_voc_results(const std::string& folder,
                                                             const detection::CocoDataset& data,
                                                             const Limits& limits = {}) {
  static constexpr const char* function = "quern::io::read_voc_results";
  detail::NameIndex images(function), seen(function);
  for (const auto& i : data.images) images.add("images", i.file_name, i.id);
  detection::CocoResults results;
  for (const auto& [name, path] : detail::files_of(function, folder, ".txt")) {
    // Of "light" and "traffic_light" the longer one is meant.
    const detection::Category* found = nullptr;
    for (const auto& c : data.categories) {
      const std::string ending = "_" + c.name;
      const bool fits =
          name == c.name || (name.size() > ending.size() &&
                             name.compare(name.size() - ending.size(), ending.size(), ending) == 0);
      if (fits && (found == nullptr || c.name.size() > found->name.size())) found = &c;
    }
    if (found == nullptr) continue;
    seen.add("folder (classes of its files)", found->name, 0);
    const Input input = Input::file(path, limits, function);
    detail::for_lines(input.text(), [&](std::size_t begin, std::size_t end) {
      results.detections.push_back(detail::voc_result_line(input, begin, end, images));
      results.detections.back().category = found->id;
    });
  }
  return results;
}

namespace detail {

/// The images of a YOLO data set by name.
inline NameIndex yolo_images(const char* function,
                             const std::vector<detection::ImageInfo>& images) {
  NameIndex index(function);
  for (std::size_t i = 0; i < images.size(); ++i) {
    index.add("images", images[i].file_name, static_cast<std::int64_t>(i));
  }
  return index;
}

/// The objects of one file, in pixels where the image has a size.
inline std::vector<YoloObject> yolo_file(const std::string& path, const detection::ImageInfo& image,
                                         bool scores, const Limits& limits) {
  const bool sized = image.width > 0 && image.height > 0;
  return read_yolo(path, {.width = sized ? static_cast<double>(image.width) : 1,
                          .height = sized ? static_cast<double>(image.height) : 1,
                          .scores = scores,
                          .limits = limits});
}

[[noreturn]] inline void unknown_class(const char* function, const std::string& path,
                                       std::int64_t category) {
  throw ParseError(std::string(function) + ": " + path + ": an object of the unknown class " +
                   std::to_string(category));
}

}  // namespace detail

/// A folder of YOLO's text. Without `options.images` the images are the files, numbered 1, 2, … by
/// ascending name; areas are then shares of the image, so that COCO's area ranges mean nothing.
/// ParseError as read_yolo(), for a class beyond `options.classes` and a file of no image.
[[nodiscard]] inline detection::CocoDataset read_yolo_folder(const std::string& folder,
                                                             const FolderOptions& options = {}) {
  static constexpr const char* function = "quern::io::read_yolo_folder";
  const auto files = detail::files_of(function, folder, ".txt");
  detection::CocoDataset data;
  data.images = options.images;
  for (const auto& file : files) {
    if (!options.images.empty()) break;
    detection::ImageInfo& image = data.images.emplace_back();
    image.id = static_cast<std::int64_t>(data.images.size());
    image.file_name = file.first;
  }
  const detail::NameIndex images = detail::yolo_images(function, data.images);
  std::int64_t classes = static_cast<std::int64_t>(options.classes.size());
  for (const auto& [name, path] : files) {
    const std::int64_t at = images.find(name);
    if (at < 0) {
      throw ParseError(std::string(function) + ": " + path + ": a file of none of `images`");
    }
    const detection::ImageInfo& image = data.images[static_cast<std::size_t>(at)];
    for (const YoloObject& o : detail::yolo_file(path, image, false, options.limits)) {
      if (!options.classes.empty() && o.category >= classes) {
        detail::unknown_class(function, path, o.category);
      }
      detection::Truth t;
      t.id = static_cast<std::int64_t>(data.truths.size()) + 1;
      t.image = image.id;
      t.category = o.category;
      t.box = o.box;
      t.area = o.box.area();
      data.truths.push_back(t);
    }
  }
  for (const detection::Truth& t : data.truths) {
    // A class number is no size: a stray 10^15 must not take the memory.
    if (t.category >= 1'000'000) detail::unknown_class(function, folder, t.category);
    classes = (std::max)(classes, t.category + 1);
  }
  for (std::int64_t c = 0; c < classes; ++c) {
    const bool named = c < static_cast<std::int64_t>(options.classes.size());
    data.categories.push_back(
        {c, named ? options.classes[static_cast<std::size_t>(c)] : std::to_string(c), 0});
  }
  return data;
}

/// Results in YOLO's form, one file an image of `data` (the score as sixth number of a line); an
/// image may have none. ParseError as read_yolo(), and for classes and images that are not known.
[[nodiscard]] inline detection::CocoResults read_yolo_results(const std::string& folder,
                                                              const detection::CocoDataset& data,
                                                              const Limits& limits = {}) {
  static constexpr const char* function = "quern::io::read_yolo_results";
  const detail::NameIndex images = detail::yolo_images(function, data.images);
  std::vector<std::int64_t> ids;
  for (const auto& c : data.categories) ids.push_back(c.id);
  const detection::IdIndex classes(std::move(ids));
  detection::CocoResults results;
  for (const auto& [name, path] : detail::files_of(function, folder, ".txt")) {
    const std::int64_t at = images.find(name);
    if (at < 0) throw ParseError(std::string(function) + ": " + path + ": a file of no image");
    const detection::ImageInfo& image = data.images[static_cast<std::size_t>(at)];
    for (const YoloObject& o : detail::yolo_file(path, image, true, limits)) {
      if (classes.find(o.category) < 0) detail::unknown_class(function, path, o.category);
      detection::Detection d;
      d.image = image.id;
      d.category = o.category;
      d.score = o.score;
      d.box = o.box;
      results.detections.push_back(d);
    }
  }
  return results;
}

}  // namespace io
QUERN_NAMESPACE_END

#endif  // QUERN_IO_DETECTION_FOLDER_HPP
