// SPDX-License-Identifier: Apache-2.0

#include "../common/picture.hpp"

#include "quern/core/error.hpp"
#include "quern/core/random.hpp"
#include "quern/io/idx.hpp"
#include "segment.hpp"

#include <algorithm>
#include <array>

namespace segment {
namespace {

constexpr Index item_size = 28;
/// A pixel of a piece of clothing is brighter than this.
constexpr int visible = 24;

/// One piece of clothing on the canvas of scene `n`.
void place(Scenes& scenes, Index n, const std::uint8_t* item, std::int64_t label,
           quern::Philox& random) {
  const auto room = static_cast<std::uint64_t>(scene_size - item_size + 1);
  const auto top = static_cast<Index>(random.integer(room));
  const auto left = static_cast<Index>(random.integer(room));
  const bool mirrored = random.bernoulli(0.5);
  for (Index i = 0; i < item_size; ++i) {
    for (Index j = 0; j < item_size; ++j) {
      const int value = item[i * item_size + (mirrored ? item_size - 1 - j : j)];
      if (value <= visible) continue;
      const Index at = (n * scene_size + top + i) * scene_size + left + j;
      scenes.images[at] = static_cast<float>(value) / 255;
      scenes.classes[static_cast<std::size_t>(at)] = label + 1;
    }
  }
}

/// A colour for each class: background dark, clothes apart in hue.
std::array<std::uint8_t, 3> colour(std::int64_t label) {
  constexpr std::uint8_t table[][3] = {{24, 26, 30},   {11, 102, 195},  {200, 80, 42},
                                       {44, 138, 75},  {138, 79, 184},  {224, 185, 60},
                                       {92, 200, 210}, {235, 120, 170}, {150, 110, 70},
                                       {170, 200, 60}, {220, 220, 220}};
  const auto& c = table[label];
  return {c[0], c[1], c[2]};
}

}  // namespace

Scenes make_scenes(const std::string& folder, const std::string& part, Index count,
                   std::uint64_t seed) {
  const auto items =
      quern::io::read_idx<std::uint8_t, 3>(folder + "/" + part + "-images-idx3-ubyte.gz");
  const auto labels =
      quern::io::read_idx<std::uint8_t, 1>(folder + "/" + part + "-labels-idx1-ubyte.gz");
  if (items.extent(1) != item_size || items.extent(2) != item_size ||
      labels.extent(0) != items.extent(0) || items.extent(0) == 0) {
    throw quern::ValueError(quern::error_text("segment", folder + ": " + part,
                                              "pictures of 28 x 28 with a label each",
                                              quern::shape_text(items.extents())));
  }
  Scenes scenes;
  scenes.images = nn::Tensor<float>({count, scene_size, scene_size, 1});
  scenes.classes.assign(static_cast<std::size_t>(scenes.images.size()), 0);
  const auto all = static_cast<std::uint64_t>(items.extent(0));
  for (Index n = 0; n < count; ++n) {
    quern::Philox random(seed, "segment.scene." + part, static_cast<std::uint64_t>(n));
    for (Index p = 0; p < scene_size * scene_size; ++p) {
      scenes.images[n * scene_size * scene_size + p] = 0.1F * random.uniform<float>();
    }
    const std::uint64_t pieces = 1 + random.integer(4);
    for (std::uint64_t k = 0; k < pieces; ++k) {
      const auto pick = static_cast<Index>(random.integer(all));
      const std::int64_t label = labels(pick);
      if (label > 9) throw quern::ValueError("segment: a label above 9");
      place(scenes, n, items.data() + pick * item_size * item_size, label, random);
    }
  }
  return scenes;
}

std::string sample_sheet(const Scenes& test, const std::vector<Result>& results, Index count) {
  constexpr Index gap = 4, step = scene_size + gap, pixels = scene_size * scene_size;
  count = (std::min)(count, test.count());
  const Index width = step * (2 + static_cast<Index>(results.size())), height = step * count;
  std::vector<std::uint8_t> image(static_cast<std::size_t>(3 * width * height), 255);
  const auto put = [&](Index row, Index column, Index p, const std::array<std::uint8_t, 3>& c) {
    const Index at = (row * step + p / scene_size) * width + column * step + p % scene_size;
    std::copy(c.begin(), c.end(), image.begin() + 3 * at);
  };
  for (Index n = 0; n < count; ++n) {
    for (Index p = 0; p < pixels; ++p) {
      const auto grey = static_cast<std::uint8_t>(255 * test.images[n * pixels + p]);
      put(n, 0, p, {grey, grey, grey});
      const auto at = static_cast<std::size_t>(n * pixels + p);
      put(n, 1, p, colour(test.classes[at]));
      for (std::size_t k = 0; k < results.size(); ++k) {
        put(n, 2 + static_cast<Index>(k), p, colour(results[k].sample.at(at)));
      }
    }
  }
  return page::png(image, height, width, 3);
}

}  // namespace segment
