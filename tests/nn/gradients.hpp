// SPDX-License-Identifier: Apache-2.0

/// \file
/// What tests of layers share: random tensors, and backward held against finite differences in
/// double.

#ifndef QUERN_TESTS_NN_GRADIENTS_HPP
#define QUERN_TESTS_NN_GRADIENTS_HPP

#include "quern/core/random.hpp"
#include "quern/nn/layer.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace quern::test {

template <class T>
nn::Tensor<T> random_tensor(const nn::Extents& shape, std::uint64_t seed, double scale = 1) {
  nn::Tensor<T> x(shape);
  Philox random(seed, "test");
  for (T& value : x.span()) value = static_cast<T>(scale * random.normal());
  return x;
}

struct GradientCheck {
  double step = 1e-5;
  double tolerance = 2e-8;  ///< of the largest derivative, absolute below 1
  std::uint64_t seed = 1;
  std::uint64_t step_number = 3;
};

/// The sum of out times weights: what is differentiated.
inline double weighted_output(const nn::Layer<double>& layer, const nn::Tensor<double>& in,
                              const nn::Tensor<double>& weights, const nn::Context& context) {
  nn::Cache<double> cache;
  cache.context = context;
  nn::Tensor<double> out(layer.output_shape(in.shape()));
  layer.forward(in.view(), out.view(), cache, nn::Mode::training);
  double sum = 0;
  for (Index i = 0; i < out.size(); ++i) sum += out[i] * weights[i];
  return sum;
}

inline void expect_derivatives(std::span<double> values, std::span<const double> derivative,
                               double step, double tolerance, const std::string& what,
                               const auto& objective) {
  double scale = 1;
  for (const double g : derivative) scale = (std::max)(scale, std::fabs(g));
  for (std::size_t i = 0; i < values.size(); ++i) {
    const double before = values[i];
    values[i] = before + step;
    const double above = objective();
    values[i] = before - step;
    const double below = objective();
    values[i] = before;
    ASSERT_NEAR(derivative[i], (above - below) / (2 * step), tolerance * scale)
        << what << ", element " << i;
  }
}

/// Backward of a layer at this input: the input's gradient and every parameter's, all elements.
/// Also: parameters' gradients are added to, a null din or null gradients change nothing else.
inline void check_gradients(nn::Layer<double>& layer, nn::Tensor<double>& in,
                            const GradientCheck& options = {}) {
  nn::Context context;
  context.seed = options.seed;
  context.step = options.step_number;
  const nn::Tensor<double> weights =
      random_tensor<double>(layer.output_shape(in.shape()), 77 + options.seed);
  nn::Cache<double> cache;
  cache.context = context;
  nn::Tensor<double> out(layer.output_shape(in.shape())), din(in.shape());
  layer.forward(in.view(), out.view(), cache, nn::Mode::training);
  const auto parameters = nn::parameters_of(layer);
  nn::Gradients<double> gradients(parameters), twice(parameters);
  std::fill(din.span().begin(), din.span().end(), 1e300);
  layer.backward(weights.view(), din.view(), cache, gradients);
  const auto objective = [&] { return weighted_output(layer, in, weights, context); };
  expect_derivatives(in.span(), din.span(), options.step, options.tolerance, "input", objective);
  for (std::size_t k = 0; k < parameters.size(); ++k) {
    expect_derivatives(parameters[k].values.span(), gradients[k], options.step, options.tolerance,
                       parameters[k].name, objective);
  }
  layer.forward(in.view(), out.view(), cache, nn::Mode::training);
  nn::Tensor<double> alone(in.shape());
  layer.backward(weights.view(), alone.view(), cache, {});
  for (Index i = 0; i < in.size(); ++i) ASSERT_EQ(alone[i], din[i]) << "without gradients";
  layer.backward(weights.view(), {}, cache, twice);
  layer.backward(weights.view(), {}, cache, twice);
  for (std::size_t k = 0; k < parameters.size(); ++k) {
    for (std::size_t i = 0; i < gradients[k].size(); ++i) {
      const double tolerance = 1e-11 * (1 + std::fabs(gradients[k][i]));
      ASSERT_NEAR(twice[k][i], 2 * gradients[k][i], tolerance) << parameters[k].name;
    }
  }
}

/// Equal bits of output, input gradient and parameter gradients for 1, 2 and 3 threads.
template <class T>
void check_threads(nn::Layer<T>& layer, const nn::Tensor<T>& in) {
  std::vector<std::vector<T>> results;
  for (const int threads : {1, 2, 3}) {
    nn::Cache<T> cache;
    cache.context.threads = threads;
    nn::Tensor<T> out(layer.output_shape(in.shape())), din(in.shape());
    nn::Gradients<T> gradients(nn::parameters_of(layer));
    layer.forward(in.view(), out.view(), cache, nn::Mode::training);
    const nn::Tensor<T> dout = random_tensor<T>(out.shape(), 5);
    layer.backward(dout.view(), din.view(), cache, gradients);
    std::vector<T> all(out.span().begin(), out.span().end());
    all.insert(all.end(), din.span().begin(), din.span().end());
    all.insert(all.end(), gradients.memory().begin(), gradients.memory().end());
    results.push_back(std::move(all));
  }
  EXPECT_TRUE(results[0] == results[1]) << "two threads";
  EXPECT_TRUE(results[0] == results[2]) << "three threads";
}

}  // namespace quern::test

#endif  // QUERN_TESTS_NN_GRADIENTS_HPP
