// SPDX-License-Identifier: Apache-2.0

/// \file
/// Pascal VOC's XML: refused with a ParseError, or objects with names and boxes.

#include "quern/io/voc_xml.hpp"

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  try {
    const auto a =
        quern::io::parse_voc_xml(std::string_view(reinterpret_cast<const char*>(data), size));
    for (const auto& o : a.objects) {
      if (!(o.box.x1 <= o.box.x2) || !(o.box.y1 <= o.box.y2)) std::abort();
    }
  } catch (const quern::ParseError&) {
  }
  return 0;
}
