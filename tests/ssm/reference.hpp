// SPDX-License-Identifier: Apache-2.0

/// \file
/// References of tests/reference/ssm: little-endian NPY files of version 1, CASE__ARRAY.npy, of
/// doubles, complex doubles or 64-bit integers; and how they are compared.

#ifndef QUERN_TESTS_SSM_REFERENCE_HPP
#define QUERN_TESTS_SSM_REFERENCE_HPP

#include "quern/core/nd_array.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <complex>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <stdexcept>
#include <string>
#include <type_traits>
#include <vector>

namespace quern::test {

/// Elements and extents of a file.
template <class T>
struct SsmArray {
  std::vector<T> values;
  std::vector<Index> extents;

  template <int Rank>
  [[nodiscard]] NdView<const T, Rank> view() const {
    Shape<Rank> shape{};
    if (static_cast<std::size_t>(Rank) != extents.size()) throw std::runtime_error("rank");
    std::copy(extents.begin(), extents.end(), shape.begin());
    return {values.data(), shape};
  }
  [[nodiscard]] const T& operator[](std::size_t i) const { return values[i]; }
  [[nodiscard]] std::size_t size() const { return values.size(); }
};

/// Complex floats, widened.
template <class T>
void read_single(std::vector<T>& to, const std::string& bytes, std::size_t at) {
  if constexpr (std::is_same_v<T, std::complex<double>>) {
    for (std::complex<double>& z : to) {
      float parts[2];
      std::memcpy(parts, bytes.data() + at, sizeof parts);
      z = {static_cast<double>(parts[0]), static_cast<double>(parts[1])};
      at += sizeof parts;
    }
  }
}

/// T is double, std::complex<double> (also from a file of complex floats) or std::int64_t.
template <class T>
SsmArray<T> ssm_reference(const std::string& name) {
  std::ifstream in(std::string(QUERN_TEST_REFERENCE_DIR) + "/ssm/" + name + ".npy",
                   std::ios::binary);
  const std::string all((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
  const std::string type = std::is_same_v<T, double>         ? "'<f8'"
                           : std::is_same_v<T, std::int64_t> ? "'<i8'"
                                                             : "'<c16'";
  const bool single = !std::is_floating_point_v<T> && all.find("'<c8'") != std::string::npos;
  if (all.size() < 10 || (all.find(type) == std::string::npos && !single))
    throw std::runtime_error("no reference " + name);
  const std::size_t head =
      10 + static_cast<unsigned char>(all[8]) + 256U * static_cast<unsigned char>(all[9]);
  SsmArray<T> array;
  array.values.resize((all.size() - head) / (single ? sizeof(T) / 2 : sizeof(T)));
  if (single) {
    read_single(array.values, all, head);
  } else if (!array.values.empty()) {
    std::memcpy(static_cast<void*>(array.values.data()), all.data() + head,
                array.values.size() * sizeof(T));
  }
  std::size_t at = all.find("'shape': (") + 10;
  while (all[at] != ')') {
    char* end = nullptr;
    array.extents.push_back(std::strtoll(all.c_str() + at, &end, 10));
    at = static_cast<std::size_t>(end - all.c_str());
    while (all[at] == ',' || all[at] == ' ') ++at;
  }
  return array;
}

/// Whether `got` is `want` to `tolerance` of the largest of want.
template <class A, class B>
void expect_close(const A& got, const B& want, std::size_t n, double tolerance, const char* what) {
  double scale = 0;
  for (std::size_t i = 0; i < n; ++i) {
    scale = (std::max)(scale, static_cast<double>(std::abs(want[i])));
  }
  for (std::size_t i = 0; i < n; ++i) {
    const auto apart = std::complex<double>(got[i]) - std::complex<double>(want[i]);
    ASSERT_LE(std::abs(apart), tolerance * scale) << what << " at " << i << ": " << got[i];
  }
}

}  // namespace quern::test

#endif  // QUERN_TESTS_SSM_REFERENCE_HPP
