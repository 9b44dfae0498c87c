// SPDX-License-Identifier: Apache-2.0

/// \file
/// References of tests/reference/nn: little-endian NPY files of version 1 as tensors, and the
/// comparison.

#ifndef QUERN_TESTS_NN_REFERENCE_HPP
#define QUERN_TESTS_NN_REFERENCE_HPP

#include "quern/nn/layer.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <fstream>
#include <iterator>
#include <span>
#include <stdexcept>
#include <string>

namespace quern::test {

/// The array of a file of floats, doubles or 32-bit integers, as T.
template <class T>
nn::Tensor<T> nn_reference(const std::string& name) {
  std::ifstream in(std::string(QUERN_TEST_REFERENCE_DIR) + "/nn/" + name + ".npy",
                   std::ios::binary);
  const std::string text{std::istreambuf_iterator<char>(in), std::istreambuf_iterator<char>()};
  if (text.size() < 10) throw std::runtime_error("no reference " + name);
  const std::size_t begin = 10 + static_cast<unsigned char>(text[8]) +
                            256 * static_cast<std::size_t>(static_cast<unsigned char>(text[9]));
  const std::string header = text.substr(10, begin - 10);
  nn::Extents shape;
  const char* at = header.c_str() + header.find("'shape': (") + 10;
  while (*at != ')') {
    char* end = nullptr;
    shape.push_back(std::strtol(at, &end, 10));
    at = end;
    while (*at == ',' || *at == ' ') ++at;
  }
  nn::Tensor<T> values(shape);
  const char* from = text.data() + begin;
  for (T& value : values.span()) {
    if (header.find("'<f8'") != std::string::npos) {
      double number = 0;
      std::memcpy(&number, from, 8);
      value = static_cast<T>(number), from += 8;
    } else if (header.find("'<f4'") != std::string::npos) {
      float number = 0;
      std::memcpy(&number, from, 4);
      value = static_cast<T>(number), from += 4;
    } else {
      std::int32_t number = 0;
      std::memcpy(&number, from, 4);
      value = static_cast<T>(number), from += 4;
    }
  }
  return values;
}

/// max |error| <= tolerance max |expected|.
template <class T>
void expect_near_all(std::span<const T> got, std::span<const T> expected, double tolerance,
                     const std::string& what) {
  ASSERT_EQ(got.size(), expected.size()) << what;
  double scale = 0, worst = 0;
  std::size_t where = 0;
  for (std::size_t i = 0; i < got.size(); ++i) {
    scale = (std::max)(scale, std::fabs(static_cast<double>(expected[i])));
    const double error = std::fabs(static_cast<double>(got[i]) - static_cast<double>(expected[i]));
    if (!(error <= worst)) worst = error, where = i;
  }
  EXPECT_LE(worst, tolerance * scale) << what << ", element " << where;
}
template <class T>
void expect_near_all(const nn::Tensor<T>& got, const nn::Tensor<T>& expected, double tolerance,
                     const std::string& what) {
  ASSERT_EQ(got.shape(), expected.shape()) << what;
  expect_near_all<T>(got.span(), expected.span(), tolerance, what);
}

/// A layer in training against files NAME_x, _y, _gy, _gx and, for each parameter, _p.PARAMETER
/// and _g.PARAMETER.
template <class T>
void check_reference(nn::Layer<T>& layer, const std::string& name, double tolerance) {
  const nn::Tensor<T> x = nn_reference<T>(name + "_x"), dy = nn_reference<T>(name + "_gy");
  const auto parameters = nn::parameters_of(layer);
  for (const auto& p : parameters) {
    const nn::Tensor<T> values = nn_reference<T>(name + "_p." + p.name);
    ASSERT_EQ(values.shape(), p.values.shape()) << p.name;
    std::copy(values.span().begin(), values.span().end(), p.values.begin());
  }
  nn::Cache<T> cache;
  nn::Tensor<T> y(layer.output_shape(x.shape())), dx(x.shape());
  nn::Gradients<T> gradients(parameters);
  layer.forward(x.view(), y.view(), cache, nn::Mode::training);
  expect_near_all(y, nn_reference<T>(name + "_y"), tolerance, name + " y");
  layer.backward(dy.view(), dx.view(), cache, gradients);
  expect_near_all(dx, nn_reference<T>(name + "_gx"), tolerance, name + " gx");
  for (std::size_t k = 0; k < parameters.size(); ++k) {
    const nn::Tensor<T> g = nn_reference<T>(name + "_g." + parameters[k].name);
    expect_near_all<T>(gradients[k], g.span(), tolerance, name + " " + parameters[k].name);
  }
}

}  // namespace quern::test

#endif  // QUERN_TESTS_NN_REFERENCE_HPP
