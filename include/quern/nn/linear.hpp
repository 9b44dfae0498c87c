// SPDX-License-Identifier: Apache-2.0

/// \file
/// nn::Linear: y = x Wᵀ + b over the last dimension.

#ifndef QUERN_NN_LINEAR_HPP
#define QUERN_NN_LINEAR_HPP

#include "quern/core/config.hpp"
#include "quern/kernels/functors.hpp"
#include "quern/kernels/gemm.hpp"
#include "quern/nn/detail/column_sums.hpp"
#include "quern/nn/init.hpp"
#include "quern/nn/layer.hpp"

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

QUERN_NAMESPACE_BEGIN
namespace nn {
namespace detail {

/// y = x wᵀ + bias.
template <class T>
void linear_forward(MatrixView<const T> x, MatrixView<const T> w, std::span<const T> bias,
                    MatrixView<T> y, int threads) {
  kernels::gemm_activated<T>(x, w.transposed(), y, {}, bias, kernels::Identity{}, threads);
}

/// dx = dy w (unless dx is null); dw += dyᵀ x; dbias += column sums (empty: left out).
template <class T>
void linear_backward(MatrixView<const T> x, MatrixView<const T> w, MatrixView<const T> dy,
                     MatrixView<T> dx, std::span<T> dw, std::span<T> dbias, int threads) {
  if (!dx.is_null()) kernels::gemm<T>(dy, w, dx, {.threads = threads});
  if (!dw.empty()) {
    const MatrixView<T> out(dw.data(), w.extents());
    kernels::gemm<T>(dy.transposed(), x, out, {.beta = T{1}, .threads = threads});
  }
  if (!dbias.empty()) add_column_sums<T>(dy, dbias, threads);
}

}  // namespace detail

/// y = x Wᵀ + b over the last dimension of any shape. Weight (outputs, inputs), bias (outputs), by
/// PyTorch's names and layout, and its initial values: uniform in ±1 / sqrt(inputs).
template <class T>
class Linear final : public Layer<T> {
 public:
  /// ValueError for sizes below 1. `bias` false: none.
  Linear(Index inputs, Index outputs, bool bias = true) : inputs_(inputs), outputs_(outputs) {
    if (inputs < 1) throw ValueError(error_text(type(), "inputs", "at least 1", inputs));
    if (outputs < 1) throw ValueError(error_text(type(), "outputs", "at least 1", outputs));
    weight_.resize({outputs, inputs});
    if (bias) bias_.resize({outputs});
    this->initialize(0);
  }

  [[nodiscard]] Index inputs() const noexcept { return inputs_; }
  [[nodiscard]] Index outputs() const noexcept { return outputs_; }
  [[nodiscard]] bool has_bias() const noexcept { return bias_.size() > 0; }
  [[nodiscard]] TensorView<T> weight() { return weight_.view(); }
  [[nodiscard]] TensorView<const T> weight() const { return weight_.view(); }
  [[nodiscard]] TensorView<T> bias() { return bias_.view(); }
  [[nodiscard]] TensorView<const T> bias() const { return bias_.view(); }

  [[nodiscard]] std::string_view type() const override { return "quern::nn::Linear"; }
  [[nodiscard]] Extents output_shape(const Extents& in) const override {
    if (in.empty() || in.back() != inputs_) {
      throw ShapeError(
          error_text(type(), "in", "last extent " + std::to_string(inputs_), shape_text(in)));
    }
    Extents out = in;
    out.back() = outputs_;
    return out;
  }
  void parameters(ParameterList<T>& out, const std::string& prefix) override {
    out.push_back({prefix + "weight", weight_.view()});
    if (has_bias())
      out.push_back({.name = prefix + "bias", .values = bias_.view(), .decay = false});
  }
  void initialize(std::uint64_t seed, const std::string& prefix = {}) override {
    init::pytorch_default(weight_.view(), bias_.view(), seed, prefix);
  }
  [[nodiscard]] std::unique_ptr<Layer<T>> clone() const override {
    auto copy = std::make_unique<Linear>(inputs_, outputs_, has_bias());
    copy->weight_ = weight_.clone();
    copy->bias_ = bias_.clone();
    return copy;
  }

 protected:
  void compute(TensorView<const T> in, TensorView<T> out, Cache<T>& cache) const override {
    detail::linear_forward<T>(in.rows(), weight().rows(), bias_.span(), out.rows(),
                              cache.context.threads);
  }
  void differentiate(TensorView<const T> dout, TensorView<T> din, Cache<T>& cache,
                     GradientsView<T> gradients) const override {
    const MatrixView<T> dx = din.null() ? MatrixView<T>() : din.rows();
    detail::linear_backward<T>(cache.input.rows(), weight().rows(), dout.rows(), dx, gradients[0],
                               has_bias() ? gradients[1] : std::span<T>(), cache.context.threads);
  }

 private:
  Index inputs_;
  Index outputs_;
  Tensor<T> weight_;
  Tensor<T> bias_;
};

}  // namespace nn
QUERN_NAMESPACE_END

#endif  // QUERN_NN_LINEAR_HPP
