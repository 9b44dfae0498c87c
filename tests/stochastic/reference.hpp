// SPDX-License-Identifier: Apache-2.0

/// \file
/// Arrays of tests/reference/stochastic: small NPY files, version 1, little-endian.

#ifndef QUERN_TESTS_STOCHASTIC_REFERENCE_HPP
#define QUERN_TESTS_STOCHASTIC_REFERENCE_HPP

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <iterator>
#include <span>
#include <stdexcept>
#include <string>
#include <vector>

namespace quern::test {

/// The elements of a file of T, one after the other.
template <class T>
std::vector<T> stochastic_reference(const std::string& name) {
  std::ifstream in(std::string(QUERN_TEST_REFERENCE_DIR) + "/stochastic/" + name + ".npy",
                   std::ios::binary);
  const std::string all((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
  const std::string type = sizeof(T) == 8 ? "'<f8'" : "'<i4'";
  if (all.size() < 10 || all.find(type) == std::string::npos)
    throw std::runtime_error("no reference " + name);
  const std::size_t head =
      10 + static_cast<unsigned char>(all[8]) + 256U * static_cast<unsigned char>(all[9]);
  std::vector<T> values((all.size() - head) / sizeof(T));
  std::memcpy(values.data(), all.data() + head, values.size() * sizeof(T));
  return values;
}

/// Whether `got` agrees with a part of `expected` from `from` on, to `tolerance` relative to the
/// file's largest value.
inline void expect_reference(const std::vector<double>& expected, std::size_t from,
                             std::span<const double> got, double tolerance = 1e-12) {
  double scale = 0;
  for (const double x : expected) scale = (std::max)(scale, std::fabs(x));
  ASSERT_LE(from + got.size(), expected.size());
  for (std::size_t j = 0; j < got.size(); ++j) {
    ASSERT_NEAR(got[j], expected[from + j], tolerance * scale) << "at " << from + j;
  }
}

}  // namespace quern::test

#endif  // QUERN_TESTS_STOCHASTIC_REFERENCE_HPP
