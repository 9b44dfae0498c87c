// SPDX-License-Identifier: Apache-2.0

/// \file
/// Lines of the VOC development kit's results: refused with a ParseError, or a detection on a known
/// image with a finite score and a box of a size that is not negative.

#include "quern/core/checks.hpp"
#include "quern/io/detection_folder.hpp"
#include "target.hpp"

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

namespace quern::test::voc_results_fuzz {

QUERN_FUZZ_TARGET(voc_results) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  quern::io::detail::NameIndex images("fuzz");
  images.add("images", "000001", 1);
  images.add("images", "a", 2);
  try {
    const auto input = quern::io::Input::memory(text, "fuzz", {}, "fuzz");
    quern::io::detail::for_lines(input.text(), [&](std::size_t begin, std::size_t end) {
      const auto d = quern::io::detail::voc_result_line(input, begin, end, images);
      const bool known = d.image == 1 || d.image == 2;
      const auto size_ok = [](double x) { return quern::is_finite_bits(x) && x >= 0; };
      if (!known || !quern::is_finite_bits(d.score) || !size_ok(d.box.w) || !size_ok(d.box.h)) {
        std::abort();
      }
    });
  } catch (const quern::ParseError&) {
  }
  return 0;
}

}  // namespace quern::test::voc_results_fuzz
