// SPDX-License-Identifier: Apache-2.0

/// \file
/// YOLO's text: refused with a ParseError, or objects with sizes that are not negative.

#include "quern/io/yolo.hpp"
#include "target.hpp"

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

namespace quern::test::yolo_fuzz {

QUERN_FUZZ_TARGET(yolo) {
  for (const bool scores : {false, true}) {
    quern::io::YoloOptions options;
    options.scores = scores;
    options.width = 640, options.height = 480;
    try {
      const auto objects = quern::io::parse_yolo(
          std::string_view(reinterpret_cast<const char*>(data), size), options);
      for (const auto& o : objects) {
        if (!(o.box.w >= 0) || !(o.box.h >= 0) || o.category < 0) std::abort();
      }
    } catch (const quern::ParseError&) {
    }
  }
  return 0;
}

}  // namespace quern::test::yolo_fuzz
