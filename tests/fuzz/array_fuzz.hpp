// SPDX-License-Identifier: Apache-2.0

/// \file
/// What the fuzz targets of array files share: reading into several element types, also where the
/// reader has to convert or turn the elements around.

#ifndef QUERN_TESTS_FUZZ_ARRAY_FUZZ_HPP
#define QUERN_TESTS_FUZZ_ARRAY_FUZZ_HPP

#include "quern/core/error.hpp"
#include "quern/core/nd_array.hpp"

#include <cstddef>
#include <cstdint>
#include <cstdlib>

namespace quern::test {

/// `parse_any(T())` reads an array of any rank, `parse_matrix()` one of rank 2; what they accept
/// holds as many elements as its shape says.
template <class ParseAny, class ParseMatrix>
void fuzz_array(const ParseAny& parse_any, const ParseMatrix& parse_matrix) {
  const auto read = [&](auto like) {
    try {
      const auto array = parse_any(like);
      std::size_t count = 1;
      for (Index extent : array.shape) count *= static_cast<std::size_t>(extent);
      if (count != array.values.size()) std::abort();
    } catch (const Error&) {
    }
  };
  read(float{});
  read(std::int8_t{});
  read(std::uint64_t{});
  read(bool{});
  try {
    const auto matrix = parse_matrix();
    if (matrix.size() != matrix.extent(0) * matrix.extent(1)) std::abort();
  } catch (const Error&) {
  }
}

}  // namespace quern::test

#endif  // QUERN_TESTS_FUZZ_ARRAY_FUZZ_HPP
