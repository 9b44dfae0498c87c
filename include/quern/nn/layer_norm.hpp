// SPDX-License-Identifier: Apache-2.0

/// \file
/// Normalisation of each row: layer norm (Ba, Kiros, Hinton, arXiv:1607.06450) and RMS norm (Zhang
/// and Sennrich, arXiv:1910.07467).

#ifndef QUERN_NN_LAYER_NORM_HPP
#define QUERN_NN_LAYER_NORM_HPP

#include "quern/core/checks.hpp"
#include "quern/core/config.hpp"
#include "quern/core/parallel.hpp"
#include "quern/kernels/kernels.hpp"
#include "quern/nn/layer.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace nn {

/// Options of LayerNorm and RMSNorm.
struct RowNormOptions {
  double eps = 1e-5;   ///< added to the variance (RMS: to the mean square)
  bool gain = true;    ///< a weight an element, 1 at first
  bool offset = true;  ///< LayerNorm: a bias an element, 0 at first; needs the gain
};

namespace detail {

/// Rows of a task, so that a task is about 32 K elements whatever their length.
[[nodiscard]] inline Index norm_rows(Index length) {
  return (std::max)(Index{1}, Index{32768} / (std::max)(length, Index{1}));
}

/// y and the statistics of each row: its mean (0 unless centred) and 1 / deviation.
template <class T>
void row_norm_forward(const T* x, Index rows, Index length, bool centred, double eps, const T* gain,
                      const T* offset, T* y, T* means, T* scales, int threads) {
  const auto n = static_cast<std::size_t>(length);
  const Index step = norm_rows(length);
  parallel_for(
      block_count(rows, step),
      [&](Index block) {
        const BlockRange range = block_range(rows, step, block);
        for (Index i = range.begin; i < range.end; ++i) {
          const T* const row = x + i * length;
          const double count = static_cast<double>(length);
          const T mean = centred ? static_cast<T>(QUERN_DISPATCH(sum(row, n)) / count) : T{};
          const double square = QUERN_DISPATCH(squared_deviation(row, n, mean)) / count;
          const T scale = static_cast<T>(1 / std::sqrt(square + eps));
          means[i] = mean;
          scales[i] = scale;
          QUERN_DISPATCH(norm_row(row, n, mean, scale, gain, offset, y + i * length));
        }
      },
      threads);
}

/// dx (null: left out), dgain += and doffset += (null: left out).
template <class T>
void row_norm_backward(const T* x, const T* dy, Index rows, Index length, bool centred,
                       const T* gain, const T* means, const T* scales, T* dx, T* dgain, T* doffset,
                       int threads) {
  const auto n = static_cast<std::size_t>(length);
  const Index step = (std::max)(norm_rows(length), (rows + 63) / 64);
  const Index blocks = block_count(rows, step);
  std::vector<T> parts(dgain == nullptr ? 0 : static_cast<std::size_t>(blocks) * n * 2);
  parallel_for(
      blocks,
      [&](Index block) {
        const BlockRange range = block_range(rows, step, block);
        for (Index i = range.begin; i < range.end; ++i) {
          const T* const row = x + i * length;
          const T* const g = dy + i * length;
          if (dx != nullptr) {
            double sums[2];
            QUERN_DISPATCH(norm_gradient_sums(row, g, gain, n, means[i], sums));
            const double r = static_cast<double>(scales[i]), count = static_cast<double>(length);
            const T b = static_cast<T>(-r * r * r * sums[1] / count);
            const T c = centred ? static_cast<T>(-r * sums[0] / count) : T{};
            QUERN_DISPATCH(
                norm_row_gradient(row, g, gain, n, means[i], scales[i], b, c, dx + i * length));
          }
          if (dgain != nullptr) {
            T* const part = parts.data() + static_cast<std::size_t>(block) * n * 2;
            QUERN_DISPATCH(norm_row_parameters(row, g, n, means[i], scales[i], part,
                                               doffset == nullptr ? nullptr : part + n));
          }
        }
      },
      threads);
  if (dgain == nullptr) return;
  for (std::size_t j = 0; j < n; ++j) {
    double gain_sum = 0, offset_sum = 0;
    for (std::size_t at = j; at < parts.size(); at += 2 * n) {
      gain_sum += static_cast<double>(parts[at]);
      offset_sum += static_cast<double>(parts[at + n]);
    }
    dgain[j] += static_cast<T>(gain_sum);
    if (doffset != nullptr) doffset[j] += static_cast<T>(offset_sum);
  }
}

/// Layers of both.
template <class T>
class RowNorm : public Layer<T> {
 public:
  [[nodiscard]] Extents output_shape(const Extents& in) const override {
    const bool fits =
        in.size() >= shape_.size() && std::equal(shape_.begin(), shape_.end(), in.end() - rank());
    if (!fits) {
      throw ShapeError(
          error_text(this->type(), "in", "last extents " + shape_text(shape_), shape_text(in)));
    }
    return in;
  }
  void parameters(ParameterList<T>& out, const std::string& prefix) override {
    if (weight_.size() == 0) return;
    out.push_back({.name = prefix + "weight", .values = weight_.view(), .decay = false});
    if (bias_.size() == 0) return;
    out.push_back({.name = prefix + "bias", .values = bias_.view(), .decay = false});
  }
  void initialize(std::uint64_t /*seed*/, const std::string& /*prefix*/ = {}) override {
    std::fill(weight_.span().begin(), weight_.span().end(), T{1});
    std::fill(bias_.span().begin(), bias_.span().end(), T{});
  }
  [[nodiscard]] TensorView<T> weight() { return weight_.view(); }
  [[nodiscard]] TensorView<T> bias() { return bias_.view(); }

 protected:
  RowNorm(std::string_view type, Extents shape, const RowNormOptions& options, bool centred)
      : shape_(std::move(shape)), options_(options), centred_(centred) {
    if (shape_.empty() || size_of(shape_) == 0) {
      throw ValueError(error_text(type, "shape", "extents above 0", shape_text(shape_)));
    }
    if (!(options.eps >= 0) || !is_finite_bits(options.eps)) {
      throw ValueError(error_text(type, "eps", "a finite number of at least 0", options.eps));
    }
    if (options.gain) weight_.resize(shape_);
    if (options.gain && options.offset && centred) bias_.resize(shape_);
    RowNorm::initialize(0);
  }
  RowNorm(const RowNorm& other)
      : Layer<T>(other),
        shape_(other.shape_),
        options_(other.options_),
        centred_(other.centred_),
        weight_(other.weight_.clone()),
        bias_(other.bias_.clone()) {}

  void compute(TensorView<const T> in, TensorView<T> out, Cache<T>& cache) const override {
    const Index length = size_of(shape_), rows = in.size() / length;
    Tensor<T>& means = cache.tensor(0, {rows});
    Tensor<T>& scales = cache.tensor(1, {rows});
    row_norm_forward<T>(in.data(), rows, length, centred_, options_.eps, data_of(weight_),
                        data_of(bias_), out.data(), means.data(), scales.data(),
                        cache.context.threads);
  }
  void differentiate(TensorView<const T> dout, TensorView<T> din, Cache<T>& cache,
                     GradientsView<T> gradients) const override {
    const Index length = size_of(shape_), rows = dout.size() / length;
    const bool wanted = !gradients.null() && weight_.size() > 0;
    T* const dgain = wanted ? gradients[0].data() : nullptr;
    T* const doffset = wanted && bias_.size() > 0 ? gradients[1].data() : nullptr;
    row_norm_backward<T>(cache.input.data(), dout.data(), rows, length, centred_, data_of(weight_),
                         cache.tensor(0).data(), cache.tensor(1).data(), din.data(), dgain, doffset,
                         cache.context.threads);
  }

 private:
  [[nodiscard]] std::ptrdiff_t rank() const { return static_cast<std::ptrdiff_t>(shape_.size()); }
  static const T* data_of(const Tensor<T>& t) { return t.size() == 0 ? nullptr : t.data(); }

  Extents shape_;
  RowNormOptions options_;
  bool centred_;
  Tensor<T> weight_;
  Tensor<T> bias_;
};

}  // namespace detail

/// y = (x - mean) / sqrt(variance + eps) weight + bias, over the last dimension or dimensions of
/// the given extents; the variance is that of the population.
template <class T>
class LayerNorm final : public detail::RowNorm<T> {
 public:
  explicit LayerNorm(Index length, const RowNormOptions& options = {})
      : LayerNorm(Extents{length}, options) {}
  explicit LayerNorm(Extents shape, const RowNormOptions& options = {})
      : detail::RowNorm<T>("quern::nn::LayerNorm", std::move(shape), options, true) {}
  [[nodiscard]] std::string_view type() const override { return "quern::nn::LayerNorm"; }
  [[nodiscard]] std::unique_ptr<Layer<T>> clone() const override {
    return std::make_unique<LayerNorm>(*this);
  }
};

/// y = x / sqrt(mean of x^2 + eps) weight. There is no bias. (PyTorch's default for eps is the
/// type's machine epsilon; here it is 1e-5 as for layer norm.)
template <class T>
class RMSNorm final : public detail::RowNorm<T> {
 public:
  explicit RMSNorm(Index length, const RowNormOptions& options = {})
      : RMSNorm(Extents{length}, options) {}
  explicit RMSNorm(Extents shape, const RowNormOptions& options = {})
      : detail::RowNorm<T>("quern::nn::RMSNorm", std::move(shape), options, false) {}
  [[nodiscard]] std::string_view type() const override { return "quern::nn::RMSNorm"; }
  [[nodiscard]] std::unique_ptr<Layer<T>> clone() const override {
    return std::make_unique<RMSNorm>(*this);
  }
};

}  // namespace nn
QUERN_NAMESPACE_END

#endif  // QUERN_NN_LAYER_NORM_HPP
