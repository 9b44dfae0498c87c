// SPDX-License-Identifier: Apache-2.0

/// \file
/// Pascal VOC's XML: refused with a ParseError, or objects with names and boxes.

#include "quern/io/voc_xml.hpp"
#include "target.hpp"

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

namespace quern::test::voc_xml_fuzz {

QUERN_FUZZ_TARGET(voc_xml) {
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

}  // namespace quern::test::voc_xml_fuzz
