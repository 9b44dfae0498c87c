// SPDX-License-Identifier: Apache-2.0

/// \file
/// quern's side of the area "detection": COCO's evaluation of files and of memory.

#include "peers/protocol.hpp"

#include "quern/core/parallel.hpp"
#include "quern/detection/coco_eval.hpp"
#include "quern/io/coco.hpp"
#include "quern/version.hpp"

#include "detection/scenes.hpp"

#include <chrono>
#include <optional>
#include <stdexcept>
#include <string>

namespace {

namespace detection = quern::detection;

class DetectionDriver : public peers::Driver {
 public:
  [[nodiscard]] std::string describe() const override {
    return std::string("quern ") + QUERN_VERSION;
  }

  peers::Reply prepare(const peers::Command& command) override {
    if (key_ != command.text("found")) load(command);
    key_ = command.text("found");
    return {};
  }

  peers::Reply run(const peers::Command& command) override {
    if (command.name() == "memory") {
      const double before = peers::memory(true)["rss_mb"];
      load(command);
      evaluate(command);
      return {{"value", peers::memory(false)["peak_mb"] - before}};
    }
    if (command.name() == "growth") {
      const double few = seconds_of(command.integer("detections", 0) / 10);
      return {{"value", seconds_of(command.integer("detections", 0)) / few / 10}};
    }
    const bool whole = command.name() == "whole";
    return {{"seconds", peers::seconds_per_call(command.inner(), [&] {
               if (whole) load(command);
               evaluate(command);
             })}};
  }

  [[nodiscard]] const peers::Array& output() const override { return out_; }
  void forget() override {
    Driver::forget();
    data_.reset();
    found_.reset();
    key_.clear();
  }

 private:
  static detection::CocoTarget target(const peers::Command& command) {
    const std::string kind = command.text("kind");
    return kind == "segm"        ? detection::CocoTarget::masks
           : kind == "keypoints" ? detection::CocoTarget::keypoints
                                 : detection::CocoTarget::boxes;
  }

  void load(const peers::Command& command) {
    const quern::io::CocoReadOptions read{.target = target(command), .threads = 0};
    found_.reset();
    data_ = quern::io::read_coco(command.text("truths"), read);
    found_ = quern::io::read_coco_results(command.text("found"), *data_, read);
  }

  void evaluate(const peers::Command& command) {
    auto options = detection::CocoOptions::of(target(command));
    options.threads = 0;
    const auto stats =
        detection::coco_stats(detection::evaluate(*data_, found_->detections, options));
    out_ = peers::Array("<f8", {static_cast<std::int64_t>(stats.size())});
    for (std::size_t i = 0; i < stats.size(); ++i) out_.data<double>()[i] = stats[i].value;
  }

  /// Evaluates so many detections.
  static double seconds_of(std::int64_t detections) {
    const bench::Scenes scenes = bench::scenes(detections);
    detection::CocoOptions options;
    options.threads = 0;
    const auto start = std::chrono::steady_clock::now();
    (void)detection::evaluate(scenes.data, scenes.found, options);
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  }

  std::optional<detection::CocoDataset> data_;
  std::optional<detection::CocoResults> found_;
  std::string key_;
  peers::Array out_;
};

}  // namespace

int main() {
  DetectionDriver driver;
  return peers::serve(driver);
}
