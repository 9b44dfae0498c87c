// SPDX-License-Identifier: Apache-2.0

/// \file
/// References of tests/reference/optim: little-endian NPY files of version 1, and the comparison.

#ifndef QUERN_TESTS_OPTIM_REFERENCE_HPP
#define QUERN_TESTS_OPTIM_REFERENCE_HPP

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstring>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <string>
#include <vector>

namespace quern::test {

/// The values of a file of floats or doubles.
inline std::vector<double> optim_reference(const std::string& name) {
  std::ifstream in(std::string(QUERN_TEST_REFERENCE_DIR) + "/optim/" + name + ".npy",
                   std::ios::binary);
  const std::string text{std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
  if (text.size() < 10) throw std::runtime_error("no reference " + name);
  const std::size_t begin = 10 + static_cast<unsigned char>(text[8]) +
                            256 * static_cast<std::size_t>(static_cast<unsigned char>(text[9]));
  const bool single = text.find("'<f4'") < begin;
  const std::size_t each = single ? 4 : 8;
  std::vector<double> values((text.size() - begin) / each);
  for (std::size_t i = 0; i < values.size(); ++i) {
    float narrow = 0;
    if (single) std::memcpy(&narrow, text.data() + begin + 4 * i, 4);
    if (!single) std::memcpy(&values[i], text.data() + begin + 8 * i, 8);
    if (single) values[i] = static_cast<double>(narrow);
  }
  return values;
}

/// max |error| <= tolerance max(1, max |expected|).
inline void expect_close(const std::vector<double>& got, const std::vector<double>& expected,
                         double tolerance) {
  ASSERT_EQ(got.size(), expected.size());
  double scale = 1, worst = 0;
  std::size_t where = 0;
  for (const double e : expected) scale = (std::max)(scale, std::fabs(e));
  for (std::size_t i = 0; i < got.size(); ++i) {
    const double error = std::fabs(got[i] - expected[i]);
    if (!(error <= worst)) worst = error, where = i;
  }
  EXPECT_LE(worst, tolerance * scale)
      << "element " << where << ": " << got[where] << " for " << expected[where];
}

}  // namespace quern::test

#endif  // QUERN_TESTS_OPTIM_REFERENCE_HPP
