// SPDX-License-Identifier: Apache-2.0

/// \file
/// References of tests/reference/attention: one folder a case, one little-endian NPY file of
/// version 1 an array; comparisons; finite differences.

#ifndef QUERN_TESTS_ATTENTION_REFERENCE_HPP
#define QUERN_TESTS_ATTENTION_REFERENCE_HPP

#include "quern/core/nd_array.hpp"
#include "quern/core/nd_view.hpp"
#include "quern/core/random.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <functional>
#include <iterator>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace quern::test {

/// An array of a reference: its elements as doubles, and its extents.
struct AttentionArray {
  std::vector<Index> extents;
  std::vector<double> values;

  /// As an array of rank `Rank`; ones are put in front where the file has fewer dimensions.
  template <class T, int Rank>
  [[nodiscard]] NdArray<T, Rank> as() const {
    Shape<Rank> shape;
    shape.fill(1);
    if (extents.size() > shape.size()) throw std::runtime_error("reference: rank");
    std::copy(extents.begin(), extents.end(),
              shape.end() - static_cast<std::ptrdiff_t>(extents.size()));
    NdArray<T, Rank> a(shape);
    std::transform(values.begin(), values.end(), a.begin(),
                   [](double x) { return static_cast<T>(x); });
    return a;
  }
};

namespace reference_detail {

template <class E>
void read_elements(const std::string& text, std::size_t begin, std::vector<double>& values) {
  values.resize((text.size() - begin) / sizeof(E));
  for (std::size_t i = 0; i < values.size(); ++i) {
    E e{};
    std::memcpy(&e, text.data() + begin + i * sizeof(E), sizeof(E));
    values[i] = static_cast<double>(e);
  }
}

}  // namespace reference_detail

/// Array `name` of case `folder`.
inline AttentionArray attention_reference_array(const std::string& folder,
                                                const std::string& name) {
  const std::string root = std::string(QUERN_TEST_REFERENCE_DIR) + "/attention/";
  std::string path = root + folder + "/" + name + ".npy";
  std::ifstream in(path, std::ios::binary);
  if (!in) {
    path = root + "common/" + name + ".npy";
    in.open(path, std::ios::binary);
  }
  const std::string text{std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
  if (text.size() < 10) throw std::runtime_error("no reference " + path);
  const std::size_t begin = 10 + static_cast<unsigned char>(text[8]) +
                            256 * static_cast<std::size_t>(static_cast<unsigned char>(text[9]));
  const std::string header = text.substr(10, begin - 10);
  AttentionArray a;
  if (header.find("'<f4'") != std::string::npos) {
    reference_detail::read_elements<float>(text, begin, a.values);
  } else if (header.find("'<f8'") != std::string::npos) {
    reference_detail::read_elements<double>(text, begin, a.values);
  } else if (header.find("'<i4'") != std::string::npos) {
    reference_detail::read_elements<std::int32_t>(text, begin, a.values);
  } else if (header.find("'|u1'") != std::string::npos) {
    reference_detail::read_elements<std::uint8_t>(text, begin, a.values);
  } else {
    throw std::runtime_error("reference " + path + ": " + header);
  }
  const char* at = header.c_str() + header.find("'shape': (") + 10;
  while (*at != ')') {
    char* end = nullptr;
    const long extent = std::strtol(at, &end, 10);
    if (end == at) break;
    a.extents.push_back(extent);
    at = end;
    while (*at == ',' || *at == ' ') ++at;
  }
  return a;
}
template <class T, int Rank>
NdArray<T, Rank> attention_reference(const std::string& folder, const std::string& name) {
  return attention_reference_array(folder, name).as<T, Rank>();
}

/// max |got - expected| <= tolerance max |expected|, over all elements.
template <class Got, class Expected>
void expect_attention_near(const Got& got, const Expected& expected, double tolerance,
                           std::string_view what) {
  ASSERT_EQ(static_cast<Index>(got.size()), static_cast<Index>(expected.size())) << what;
  double scale = 1e-2, worst = 0;
  Index where = 0;
  for (const auto e : expected) scale = (std::max)(scale, std::fabs(static_cast<double>(e)));
  auto e = expected.begin();
  Index i = 0;
  for (const auto g : got) {
    const double error = std::fabs(static_cast<double>(g) - static_cast<double>(*e++));
    if (!(error <= worst)) worst = error, where = i;
    ++i;
  }
  EXPECT_LE(worst, tolerance * scale) << what << ", element " << where;
}

/// Tolerances of the references for float (they are float32 numbers), and for double.
template <class T>
constexpr double attention_output_tolerance = sizeof(T) == 4 ? 2e-5 : 2e-7;
template <class T>
constexpr double attention_gradient_tolerance = sizeof(T) == 4 ? 1e-4 : 1e-6;

/// Standard normal numbers.
template <class T, int Rank>
NdArray<T, Rank> attention_normal(const Shape<Rank>& extents, std::uint64_t seed,
                                  double deviation = 1) {
  NdArray<T, Rank> a(extents);
  Philox random(seed, "attention tests");
  for (T& x : a) x = static_cast<T>(deviation * random.normal());
  return a;
}

/// The gradient of sum(out * dout) by `input` against central differences of a few of its elements.
/// `f` computes out from what `input` then holds.
template <class In, class Out>
void expect_attention_gradient(In& input, const In& gradient, const Out& dout,
                               const std::function<void(Out&)>& f, std::string_view what,
                               double tolerance = 2e-7) {
  Out out(dout.extents());
  const auto loss = [&] {
    f(out);
    double sum = 0;
    for (Index i = 0; i < out.size(); ++i) sum += out.data()[i] * dout.data()[i];
    return sum;
  };
  double scale = 1e-3;
  for (const double g : gradient) scale = (std::max)(scale, std::fabs(g));
  const Index step = (std::max)(Index{1}, input.size() / 17);
  for (Index i = step / 2; i < input.size(); i += step) {
    const double x = input.data()[i], h = 1e-5;
    input.data()[i] = x + h;
    const double above = loss();
    input.data()[i] = x - h;
    const double below = loss();
    input.data()[i] = x;
    EXPECT_NEAR(gradient.data()[i], (above - below) / (2 * h), tolerance * scale)
        << what << ", element " << i;
  }
}

}  // namespace quern::test

#endif  // QUERN_TESTS_ATTENTION_REFERENCE_HPP
