// SPDX-License-Identifier: Apache-2.0

/// \file
/// Initial values of weights: uniform, normal, Kaiming (He et al., arXiv:1502.01852), Xavier
/// (Glorot and Bengio, AISTATS 2010), orthogonal (Saxe et al., arXiv:1312.6120), PyTorch's
/// defaults. All draw from a Philox stream, so the same seed gives the same weights everywhere.

#ifndef QUERN_NN_INIT_HPP
#define QUERN_NN_INIT_HPP

#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/core/random.hpp"
#include "quern/nn/tensor.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <string>
#include <type_traits>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace nn {
namespace init {

/// How many inputs an output sums over, and how many outputs an input reaches: for weights of
/// (outputs, inputs, kernel…), as PyTorch counts.
struct Fans {
  double in = 0;
  double out = 0;
};
/// ShapeError below two dimensions.
template <class T>
[[nodiscard]] Fans fans(const TensorView<T>& w) {
  if (w.rank() < 2) {
    throw ShapeError(error_text("quern::nn::init::fans", "w", "two dimensions or more",
                                shape_text(w.extents())));
  }
  const auto field = static_cast<double>(w.count(2, w.rank()));
  return {static_cast<double>(w.extent(1)) * field, static_cast<double>(w.extent(0)) * field};
}

template <class T>
void constant(TensorView<T> w, std::type_identity_t<T> value) {
  std::fill(w.begin(), w.end(), value);
}
/// Uniform in [low, high).
template <class T>
void uniform(TensorView<T> w, Philox random, double low, double high) {
  for (T& x : w) x = static_cast<T>(random.uniform(low, high));
}
template <class T>
void normal(TensorView<T> w, Philox random, double mean = 0, double deviation = 1) {
  for (T& x : w) x = static_cast<T>(random.normal(mean, deviation));
}
/// Normal, drawn again outside mean ± cut · deviation.
template <class T>
void truncated_normal(TensorView<T> w, Philox random, double mean = 0, double deviation = 1,
                      double cut = 2) {
  for (T& x : w) {
    double z = random.normal();
    while (!(z >= -cut && z <= cut)) z = random.normal();
    x = static_cast<T>(mean + deviation * z);
  }
}

/// Gain after which an activation keeps the variance: PyTorch's calculate_gain.
inline constexpr double gain_linear = 1;
inline constexpr double gain_tanh = 5.0 / 3.0;
inline constexpr double gain_relu = 1.4142135623730951;
/// Of leaky ReLU with this slope.
[[nodiscard]] inline double gain_leaky_relu(double slope) {
  return std::sqrt(2 / (1 + slope * slope));
}

/// Which side's variance Kaiming keeps.
enum class Fan { in, out };

/// Uniform with variance gain^2 / fan.
template <class T>
void kaiming_uniform(TensorView<T> w, Philox random, double gain = gain_relu, Fan fan = Fan::in) {
  const Fans n = fans(w);
  const double bound = gain * std::sqrt(3 / (fan == Fan::in ? n.in : n.out));
  uniform(w, random, -bound, bound);
}
/// Normal with variance gain^2 / fan.
template <class T>
void kaiming_normal(TensorView<T> w, Philox random, double gain = gain_relu, Fan fan = Fan::in) {
  const Fans n = fans(w);
  normal(w, random, 0, gain / std::sqrt(fan == Fan::in ? n.in : n.out));
}
/// Uniform with variance 2 gain^2 / (fan in + fan out).
template <class T>
void xavier_uniform(TensorView<T> w, Philox random, double gain = 1) {
  const Fans n = fans(w);
  const double bound = gain * std::sqrt(6 / (n.in + n.out));
  uniform(w, random, -bound, bound);
}
template <class T>
void xavier_normal(TensorView<T> w, Philox random, double gain = 1) {
  const Fans n = fans(w);
  normal(w, random, 0, gain * std::sqrt(2 / (n.in + n.out)));
}

/// Rows (or columns, the fewer) are orthonormal times gain: Gram and Schmidt twice over normal
/// draws, in double. The tensor is a matrix of its first dimension by the rest.
template <class T>
void orthogonal(TensorView<T> w, Philox random, double gain = 1) {
  if (w.empty()) return;
  const Index rows = w.rank() < 2 ? 1 : w.extent(0), cols = w.size() / rows;
  const Index few = (std::min)(rows, cols), many = (std::max)(rows, cols);
  const auto width = static_cast<std::size_t>(many);
  std::vector<double> q(static_cast<std::size_t>(few) * width);
  const auto dot = [&](const double* a, const double* b) {
    double sum = 0;
    for (std::size_t i = 0; i < width; ++i) sum += a[i] * b[i];
    return sum;
  };
  for (std::size_t k = 0; k < static_cast<std::size_t>(few); ++k) {
    double* const row = q.data() + k * width;
    for (std::size_t i = 0; i < width; ++i) row[i] = random.normal();
    // Once more for what rounding left of the first time.
    for (int pass = 0; pass < 2; ++pass) {
      for (std::size_t before = 0; before < k; ++before) {
        const double* const other = q.data() + before * width;
        const double along = dot(row, other);
        for (std::size_t i = 0; i < width; ++i) row[i] -= along * other[i];
      }
      const double norm = std::sqrt(dot(row, row));
      for (std::size_t i = 0; i < width; ++i) row[i] /= norm;
    }
  }
  for (Index i = 0; i < rows; ++i) {
    for (Index j = 0; j < cols; ++j) {
      const Index at = rows <= cols ? i * many + j : j * many + i;
      w[i * cols + j] = static_cast<T>(gain * q[static_cast<std::size_t>(at)]);
    }
  }
}

/// PyTorch's default of linear and convolutional layers: weights and bias uniform in
/// ±1 / sqrt(fan in), which is Kaiming's with the gain of a leaky ReLU of slope sqrt(5).
template <class T>
void pytorch_default(TensorView<T> weight, TensorView<T> bias, std::uint64_t seed,
                     const std::string& name) {
  const Fans n = fans(weight);
  const double bound = n.in > 0 ? 1 / std::sqrt(n.in) : 0;
  uniform(weight, Philox(seed, name + "weight"), -bound, bound);
  if (!bias.null()) uniform(bias, Philox(seed, name + "bias"), -bound, bound);
}

}  // namespace init
}  // namespace nn
QUERN_NAMESPACE_END

#endif  // QUERN_NN_INIT_HPP
