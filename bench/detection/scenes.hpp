// SPDX-License-Identifier: Apache-2.0

/// \file
/// Detections of any number, for COCO's evaluation.

#ifndef QUERN_BENCH_DETECTION_SCENES_HPP
#define QUERN_BENCH_DETECTION_SCENES_HPP

#include "quern/core/random.hpp"
#include "quern/detection/data.hpp"

#include <cstdint>
#include <vector>

namespace bench {

struct Scenes {
  quern::detection::CocoDataset data;
  std::vector<quern::detection::Detection> found;
};

/// 100 detections an image, of 80 classes; 8 objects, each found at least once, more or less well.
inline Scenes scenes(std::int64_t detections) {
  quern::Philox rng(1, "coco bench");
  Scenes s;
  for (std::int64_t c = 1; c <= 80; ++c) s.data.categories.push_back({c, "", 0});
  s.found.reserve(static_cast<std::size_t>(detections));
  for (std::int64_t image = 0; image < detections / 100; ++image) {
    s.data.images.emplace_back();
    s.data.images.back().id = image;
    quern::detection::Truth t;
    quern::detection::Detection d;
    t.image = d.image = image;
    for (int k = 0; k < 100; ++k) {
      const bool near = k < 16 && k % 2 == 1;
      if (!near) {
        d.box = {rng.uniform(0.0, 500.0), rng.uniform(0.0, 400.0), rng.uniform(8.0, 140.0),
                 rng.uniform(8.0, 80.0)};
        d.category = static_cast<std::int64_t>(rng.integer(80)) + 1;
      }
      if (k < 16 && !near) {
        t.id = static_cast<std::int64_t>(s.data.truths.size()) + 1;
        t.category = d.category, t.box = d.box, t.area = d.box.area() * 0.6;
        s.data.truths.push_back(t);
        d.box.x += rng.uniform(0.0, 20.0);
      }
      d.score = near ? 1 - rng.uniform<double>() / 2 : rng.uniform<double>() * 0.7;
      s.found.push_back(d);
    }
  }
  return s;
}

}  // namespace bench

#endif  // QUERN_BENCH_DETECTION_SCENES_HPP
