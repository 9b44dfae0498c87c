// SPDX-License-Identifier: Apache-2.0

/// \file
/// Codes packed to bits: as many as a codebook needs, one code after the other, lowest bit first.

#ifndef QUERN_VQ_BITS_HPP
#define QUERN_VQ_BITS_HPP

#include "quern/core/checks.hpp"
#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/core/nd_view.hpp"

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace vq {

/// Bits that a code of a codebook of this size takes: ceil(log2 K), 0 for K = 1. ValueError unless
/// 1 <= codes <= 2^62.
[[nodiscard]] inline int bits_for_codes(std::int64_t codes) {
  expect_in_range("quern::vq::bits_for_codes", "codes", codes, std::int64_t{1},
                  std::int64_t{1} << 62);
  int bits = 0;
  while ((std::int64_t{1} << bits) < codes) ++bits;
  return bits;
}

/// Bytes that \p count codes of \p bits bits take.
[[nodiscard]] inline std::size_t packed_bytes(std::size_t count, int bits) {
  return (count * static_cast<std::size_t>(bits) + 7) / 8;
}

/// ValueError for bits outside 0..62 and for a code that does not fit them.
[[nodiscard]] inline std::vector<std::uint8_t> pack_codes(std::span<const std::int64_t> codes,
                                                          int bits) {
  constexpr const char* function = "quern::vq::pack_codes";
  expect_in_range(function, "bits", bits, 0, 62);
  std::vector<std::uint8_t> packed(packed_bytes(codes.size(), bits), 0);
  std::size_t at = 0;
  for (const std::int64_t code : codes) {
    if (code < 0 || (code >> bits) != 0) {
      throw ValueError(
          error_text(function, "codes", "codes of " + std::to_string(bits) + " bits", code));
    }
    for (int b = 0; b < bits; ++b, ++at) {
      const auto bit = static_cast<unsigned>(code >> b & 1) << (at % 8);
      packed[at / 8] = static_cast<std::uint8_t>(packed[at / 8] | bit);
    }
  }
  return packed;
}

/// The other way. ShapeError where the bytes are not those of that many codes.
inline void unpack_codes(std::span<const std::uint8_t> packed, int bits,
                         std::span<std::int64_t> codes) {
  constexpr const char* function = "quern::vq::unpack_codes";
  expect_in_range(function, "bits", bits, 0, 62);
  expect_size(function, "packed", static_cast<Index>(packed.size()),
              static_cast<Index>(packed_bytes(codes.size(), bits)), "bytes");
  std::size_t at = 0;
  for (std::int64_t& code : codes) {
    code = 0;
    for (int b = 0; b < bits; ++b, ++at) {
      code |= static_cast<std::int64_t>(packed[at / 8] >> (at % 8) & 1) << b;
    }
  }
}

}  // namespace vq
QUERN_NAMESPACE_END

#endif  // QUERN_VQ_BITS_HPP
