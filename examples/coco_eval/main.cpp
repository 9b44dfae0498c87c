// SPDX-License-Identifier: Apache-2.0

/// \file
/// coco_eval: scores a detector's results against ground truth, as COCO's and LVIS's tools do. Exit
/// codes: 0 good, 1 an error, 2 wrong usage.

#include "report.hpp"

#include "quern/core/file.hpp"
#include "quern/detection/voc_eval.hpp"
#include "quern/io/coco.hpp"
#include "quern/io/detection_folder.hpp"
#include "quern/version.hpp"

#include <CLI/CLI.hpp>

#include <algorithm>
#include <cstdio>
#include <exception>
#include <new>
#include <span>
#include <string>
#include <vector>

#include <unistd.h>

namespace coco_eval {
namespace {

namespace detection = quern::detection;
using detection::CocoTarget;

struct Settings {
  std::string truths, found, compare, json_path, html_path, title, type = "bbox", format = "coco";
  int threads = 0;
  int replicates = 0;
  bool lvis = false, compat = false, quiet = false;
};

/// Percentages on a terminal; nothing elsewhere.
quern::ProgressCallback progress_of(const Settings& s, const std::string& what) {
  if (s.quiet || ::isatty(STDERR_FILENO) != 1) return {};
  return [what](const quern::Progress& p) {
    const double share =
        p.total > 0 ? static_cast<double>(p.done) / static_cast<double>(p.total) : 1;
    std::fprintf(stderr, "\r%s: %3.0f %%%s", what.c_str(), 100 * share, share >= 1 ? "\n" : "");
    return true;
  };
}

CocoTarget target_of(const Settings& s) {
  return s.type == "segm"        ? CocoTarget::masks
         : s.type == "keypoints" ? CocoTarget::keypoints
         : s.type == "rotated"   ? CocoTarget::rotated_boxes
                                 : CocoTarget::boxes;
}

/// Images by objects missed and false alarms at IoU 0.5, among detections of at least the score.
std::vector<WorstImage> worst_images(const detection::CocoDataset& data,
                                     const detection::CocoEvaluator& evaluator, double score) {
  const auto& r = evaluator.records();
  std::vector<WorstImage> images;
  std::uint64_t d = 0, t = 0;
  for (const auto& image : r.images) {
    WorstImage w;
    w.id = image.id;
    for (; t < image.truths_end; ++t) w.missed += r.truths[t].areas & 1U;
    for (; d < image.detections_end; ++d) {
      if (r.scores[d] < score) continue;
      const auto verdict = r.bits[d * r.words] & 3;
      if (verdict == 1) --w.missed;
      if (verdict == 0) ++w.false_alarms;
    }
    if (w.missed + w.false_alarms > 0) images.push_back(w);
  }
  std::stable_sort(images.begin(), images.end(), [](const WorstImage& a, const WorstImage& b) {
    return a.missed + a.false_alarms > b.missed + b.false_alarms;
  });
  if (images.size() > 20) images.resize(20);
  for (WorstImage& w : images) {
    for (const auto& info : data.images) {
      if (info.id == w.id) w.file_name = info.file_name;
    }
  }
  return images;
}

detection::CocoEvaluator evaluator_of(const detection::CocoDataset& data, const Settings& s) {
  auto options = s.lvis ? detection::CocoOptions::lvis_of(target_of(s))
                        : detection::CocoOptions::of(target_of(s));
  options.compat = s.compat;
  options.threads = s.threads;
  std::vector<std::int64_t> categories;
  for (const auto& c : data.categories) categories.push_back(c.id);
  return detection::CocoEvaluator(categories, options);
}

/// VOC's mean average precisions at IoU 0.5, over the classes that have objects.
VocMeans voc_means(const detection::CocoDataset& data,
                   const std::vector<detection::Detection>& found) {
  VocMeans means;
  int classes = 0;
  for (const auto& c : detection::evaluate_voc(data, found)) {
    if (c.curve.positives == 0) continue;
    ++classes;
    means.all_points += c.ap_all_points;
    means.eleven_points += c.ap_11_points;
  }
  if (classes > 0) means.all_points /= classes, means.eleven_points /= classes;
  return means;
}

detection::CocoDataset read_truths(const Settings& s) {
  if (s.format == "voc") return quern::io::read_voc_folder(s.truths);
  if (s.format == "yolo") return quern::io::read_yolo_folder(s.truths);
  return quern::io::read_coco(s.truths, {.target = target_of(s),
                                         .threads = s.threads,
                                         .progress = progress_of(s, "reading " + s.truths)});
}

detection::CocoResults read_results(const detection::CocoDataset& data, const std::string& path,
                                    const Settings& s) {
  if (s.format == "voc") return quern::io::read_voc_results(path, data);
  if (s.format == "yolo") return quern::io::read_yolo_results(path, data);
  const quern::io::CocoReadOptions read{.target = target_of(s),
                                        .unknown_categories = s.compat,
                                        .threads = s.threads,
                                        .progress = progress_of(s, "reading " + path)};
  return quern::io::read_coco_results(path, data, read);
}

Findings judge(const detection::CocoDataset& data, const std::string& path, const Settings& s,
               detection::CocoEvaluator& evaluator) {
  const auto found = read_results(data, path, s);
  evaluator.add(data.images, data.truths, found.detections, {}, progress_of(s, "matching"));
  Findings f;
  f.name = path.substr(path.find_last_of('/') + 1);
  f.result = evaluator.accumulate();
  f.stats =
      s.lvis ? detection::lvis_stats(f.result, data.categories) : detection::coco_stats(f.result);
  f.f1 = detection::macro_f1(evaluator);
  f.worst = worst_images(data, evaluator, f.f1.score);
  if (s.format == "voc") f.voc = voc_means(data, found.detections);
  // Of key points there is no IoU, and of LVIS not every object is known.
  if (target_of(s) != CocoTarget::keypoints && !s.lvis) {
    f.tide = detection::tide(data, found.detections, {.target = target_of(s), .compat = s.compat});
    f.confusion = detection::confusion_matrix(data, found.detections,
                                              {.min_score = f.f1.score, .target = target_of(s)});
  }
  if (s.replicates > 0) {
    f.interval =
        detection::bootstrap_ap(evaluator, {.replicates = s.replicates, .threads = s.threads});
  }
  return f;
}

void write(const std::string& path, const std::string& text) {
  if (path.empty()) return;
  quern::write_file_atomically(path, std::as_bytes(std::span<const char>(text)));
}

int evaluate(const Settings& s) {
  const auto data = read_truths(s);
  Report report;
  report.title = s.title.empty() ? "Detection scores" : s.title;
  report.categories = data.categories;
  auto first = evaluator_of(data, s);
  report.detectors.push_back(judge(data, s.found, s, first));
  if (!s.compare.empty()) {
    auto second = evaluator_of(data, s);
    report.detectors.push_back(judge(data, s.compare, s, second));
    report.comparison = detection::compare_ap(
        first, second,
        {.replicates = s.replicates > 0 ? s.replicates : 1000, .threads = s.threads});
    report.detectors[0].interval = report.comparison->first;
    report.detectors[1].interval = report.comparison->second;
  }
  for (const Findings& f : report.detectors) {
    std::printf("%s\n%s", f.name.c_str(), table(f).c_str());
  }
  std::printf("%s", comparison_text(report).c_str());
  write(s.json_path, json(report));
  write(s.html_path, html(report));
  return 0;
}

int run(int argc, char** argv) {
  CLI::App app("Scores detections against ground truth, as COCO's and LVIS's tools do.",
               "coco_eval");
  app.set_version_flag("--version", std::string("coco_eval of quern ") + QUERN_VERSION);
  Settings s;
  app.add_option("truths", s.truths,
                 "COCO's or LVIS's annotation file (JSON, gzip or not), or a folder")
      ->required();
  app.add_option("results", s.found, "the detector's results (JSON), or a folder")->required();
  app.add_option("--format", s.format,
                 "coco: JSON; voc: folders of XML and of the development kit's results (a file a "
                 "class); yolo: folders of text")
      ->check(CLI::IsMember({"coco", "voc", "yolo"}))
      ->capture_default_str();
  app.add_option("--compare", s.compare,
                 "results of a second detector, compared by paired bootstrap");
  app.add_option("--type", s.type, "what overlap is of")
      ->check(CLI::IsMember({"bbox", "segm", "keypoints", "rotated"}))
      ->capture_default_str();
  app.add_option("--json", s.json_path, "where to write all numbers");
  app.add_option("--html", s.html_path, "where to write a self-contained page");
  app.add_option("--title", s.title, "of the page");
  app.add_option("--bootstrap", s.replicates,
                 "resampled sets of images for the interval of AP; 0: none")
      ->check(CLI::Range(0, 1000000))
      ->capture_default_str();
  app.add_option("--threads", s.threads, "0: all cores; never changes a number")
      ->check(CLI::NonNegativeNumber);
  app.add_flag("--lvis", s.lvis, "LVIS's rules");
  app.add_flag("--compat", s.compat, "pycocotools' and tidecv's numbers also where they are wrong");
  app.add_flag("-q,--quiet", s.quiet, "no progress");
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& error) {
    if (error.get_exit_code() == 0) return app.exit(error);
    std::fprintf(stderr, "coco_eval: %s (coco_eval --help says more)\n", error.what());
    return 2;
  }
  if (s.format != "coco" && (s.type != "bbox" || s.lvis)) {
    std::fprintf(stderr, "coco_eval: --format %s has boxes alone\n", s.format.c_str());
    return 2;
  }
  return evaluate(s);
}

}  // namespace
}  // namespace coco_eval

int main(int argc, char** argv) {
  try {
    return coco_eval::run(argc, argv);
  } catch (const std::bad_alloc&) {
    std::fprintf(stderr, "coco_eval: not enough memory\n");
  } catch (const std::exception& error) {
    std::fprintf(stderr, "coco_eval: %s\n", error.what());
  }
  return 1;
}
