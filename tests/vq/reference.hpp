// SPDX-License-Identifier: Apache-2.0

/// \file
/// Arrays of tests/reference/vq (small NPY files, version 1, little-endian), and arrays of made
/// data.

#ifndef QUERN_TESTS_VQ_REFERENCE_HPP
#define QUERN_TESTS_VQ_REFERENCE_HPP

#include "quern/core/nd_array.hpp"
#include "quern/core/random.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <vector>

namespace quern::test {

/// The elements of a file, one after the other.
template <class Stored>
std::vector<Stored> vq_elements(const std::string& name) {
  std::ifstream in(std::string(QUERN_TEST_REFERENCE_DIR) + "/vq/" + name + ".npy",
                   std::ios::binary);
  const std::string all((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
  const std::string type = std::string("'<") + (std::is_integral_v<Stored> ? "i" : "f") +
                           std::to_string(sizeof(Stored)) + "'";
  if (all.size() < 10 || all.find(type) == std::string::npos)
    throw std::runtime_error("no reference " + name + " of " + type);
  const std::size_t head =
      10 + static_cast<unsigned char>(all[8]) + 256U * static_cast<unsigned char>(all[9]);
  std::vector<Stored> values((all.size() - head) / sizeof(Stored));
  std::memcpy(values.data(), all.data() + head, values.size() * sizeof(Stored));
  return values;
}

/// A file of floats as an array of T with this many columns.
template <class T>
NdArray<T, 2> vq_matrix(const std::string& name, Index cols = 16) {
  const std::vector<float> values = vq_elements<float>(name);
  NdArray<T, 2> matrix({static_cast<Index>(values.size()) / cols, cols});
  std::transform(values.begin(), values.end(), matrix.begin(), [](float v) { return T(v); });
  return matrix;
}

inline std::vector<std::int64_t> vq_codes(const std::string& name) {
  const std::vector<std::int32_t> values = vq_elements<std::int32_t>(name);
  return {values.begin(), values.end()};
}

/// Every element within `tolerance` times the largest of what is expected.
template <class T>
void expect_close(const NdArray<T, 2>& got, const NdArray<T, 2>& expected,
                  double tolerance = 1e-5) {
  ASSERT_EQ(got.extents(), expected.extents());
  double scale = 0;
  for (const T value : expected) scale = (std::max)(scale, std::fabs(static_cast<double>(value)));
  for (Index i = 0; i < got.size(); ++i) {
    ASSERT_NEAR(got.data()[i], expected.data()[i], tolerance * scale) << "at " << i;
  }
}

/// Normal numbers.
template <class T>
NdArray<T, 2> normal_matrix(Index rows, Index cols, std::uint64_t seed, double mean = 0) {
  NdArray<T, 2> matrix({rows, cols});
  Philox random(seed, "test data");
  for (T& value : matrix) value = static_cast<T>(mean + random.normal());
  return matrix;
}

}  // namespace quern::test

#endif  // QUERN_TESTS_VQ_REFERENCE_HPP
