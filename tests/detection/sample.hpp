// SPDX-License-Identifier: Apache-2.0

/// \file
/// Scenes and reference files that several tests of the room share.

#ifndef QUERN_TESTS_DETECTION_SAMPLE_HPP
#define QUERN_TESTS_DETECTION_SAMPLE_HPP

#include "quern/core/random.hpp"
#include "quern/detection/data.hpp"

#include <cstdint>
#include <fstream>
#include <string>
#include <vector>

#include <nlohmann/json.hpp>

namespace quern::test::detection_sample {

inline std::string reference(const std::string& name) {
  return std::string(QUERN_TEST_REFERENCE_DIR) + "/detection/" + name;
}

inline nlohmann::json load(const std::string& name) {
  std::ifstream file(reference(name));
  return nlohmann::json::parse(file);
}

struct Sample {
  detection::CocoDataset data;
  std::vector<detection::Detection> found;

  [[nodiscard]] std::vector<std::int64_t> categories() const {
    std::vector<std::int64_t> ids;
    for (const auto& c : data.categories) ids.push_back(c.id);
    return ids;
  }
};

struct SampleOptions {
  std::int64_t images = 90;
  bool perfect = false;  ///< every object is found once, exactly, and nothing else; no crowds
  bool ties = false;     ///< scores in tenths
};

inline void add_object(Philox& rng, const SampleOptions& options, std::int64_t image, Sample& s) {
  detection::Truth t;
  t.id = static_cast<std::int64_t>(s.data.truths.size()) + 1;
  t.image = image;
  t.category = static_cast<std::int64_t>(rng.integer(4)) * 3 + 1;
  t.box = {rng.uniform(0.0, 300.0), rng.uniform(0.0, 300.0), rng.uniform(5.0, 150.0),
           rng.uniform(5.0, 150.0)};
  t.area = t.box.area() * 0.7;
  t.crowd = !options.perfect && rng.bernoulli(0.1);
  s.data.truths.push_back(t);
  for (std::uint64_t k = options.perfect ? 1 : rng.integer(3); k > 0; --k) {
    detection::Detection d;
    d.image = image, d.category = t.category, d.score = rng.uniform<double>(), d.box = t.box;
    if (options.ties) d.score = static_cast<double>(rng.integer(10)) / 10;
    if (!options.perfect) {
      d.box.x += rng.normal() * 8, d.box.w += rng.uniform(0.0, 20.0);
      if (rng.bernoulli(0.1)) d.category = 1;
    }
    s.found.push_back(d);
  }
}

/// Images of up to six objects of four classes.
inline Sample sample(std::uint64_t seed, const SampleOptions& options = {}) {
  Philox rng(seed, "detection sample");
  Sample s;
  for (std::int64_t c = 0; c < 4; ++c) s.data.categories.push_back({c * 3 + 1, "c", 0});
  for (std::int64_t i = 0; i < options.images; ++i) {
    s.data.images.emplace_back();
    s.data.images.back().id = 7 * i + 2;
    for (std::uint64_t n = rng.integer(7); n > 0; --n) {
      add_object(rng, options, s.data.images.back().id, s);
    }
  }
  return s;
}

/// Two classes, one image: objects of class 1 at x = 0, 100, 200, of class 2 at 300; all 10 x 10.
inline detection::CocoDataset scene() {
  detection::CocoDataset data;
  data.categories = {{1, "a", 0}, {2, "b", 0}};
  data.images.emplace_back();
  data.images[0].id = 1;
  for (int i = 0; i < 4; ++i) {
    detection::Truth t;
    t.id = i + 1, t.image = 1, t.category = i < 3 ? 1 : 2;
    t.box = {100.0 * i, 0, 10, 10}, t.area = 100;
    data.truths.push_back(t);
  }
  return data;
}

/// A detection in that image.
inline detection::Detection at(double x, std::int64_t category, double score) {
  detection::Detection d;
  d.image = 1, d.category = category, d.score = score, d.box = {x, 0, 10, 10};
  return d;
}

}  // namespace quern::test::detection_sample

#endif  // QUERN_TESTS_DETECTION_SAMPLE_HPP
