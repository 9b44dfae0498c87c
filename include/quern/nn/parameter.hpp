// SPDX-License-Identifier: Apache-2.0

/// \file
/// Parameters of layers and their gradients: Parameter, Gradients and GradientsView. Weights belong
/// to the layer, gradients to whoever trains it, so that several threads can each have their own.

#ifndef QUERN_NN_PARAMETER_HPP
#define QUERN_NN_PARAMETER_HPP

#include "quern/core/buffer.hpp"
#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/nn/tensor.hpp"

#include <algorithm>
#include <cstddef>
#include <span>
#include <string>
#include <utility>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace nn {

/// One trained tensor of a layer (or, in Layer::buffers, one that is saved and not trained).
template <class T>
struct Parameter {
  std::string name;      ///< by PyTorch's names: "0.weight"
  TensorView<T> values;  ///< belongs to the layer
  bool decay = true;     ///< false: weight decay leaves it alone (biases, norms, time steps)
  double lr_scale = 1;   ///< its rate as a multiple of the others'
  bool integer = false;  ///< a buffer that counts: saved as a whole number
};

template <class T>
using ParameterList = std::vector<Parameter<T>>;

/// The gradients that a layer's backward adds to: one array a parameter, in the order of
/// parameters(). A light view; the default one is null, and then none is wanted.
template <class T>
class GradientsView {
 public:
  GradientsView() noexcept = default;
  explicit GradientsView(std::span<const std::span<T>> arrays) noexcept
      : arrays_(arrays), null_(false) {}

  /// True where no gradient of a parameter is wanted.
  [[nodiscard]] bool null() const noexcept { return null_; }
  [[nodiscard]] std::size_t size() const noexcept { return arrays_.size(); }
  /// Gradient of parameter k, its elements in row-major order; empty when null.
  [[nodiscard]] std::span<T> operator[](std::size_t k) const {
    return null_ ? std::span<T>() : arrays_[k];
  }
  /// Those of a child layer: `count` from `first` on.
  [[nodiscard]] GradientsView part(std::size_t first, std::size_t count) const {
    if (null_) return {};
    if (first > size() || count > size() - first) {
      throw ShapeError(error_text("quern::nn::GradientsView", "gradients",
                                  "one for each parameter of the layer", size()));
    }
    return GradientsView(arrays_.subspan(first, count));
  }

 private:
  std::span<const std::span<T>> arrays_;
  bool null_ = true;
};

/// Owns the gradients of some parameters, in one piece of memory.
template <class T>
class Gradients {
 public:
  Gradients() = default;
  /// Zeros for each parameter.
  explicit Gradients(const ParameterList<T>& parameters) {
    constexpr std::size_t line = core::buffer_alignment / sizeof(T);
    std::size_t total = 0;
    for (const Parameter<T>& p : parameters) {
      total += (static_cast<std::size_t>(p.values.size()) + line - 1) / line * line;
    }
    memory_ = core::Buffer<T>(total, core::Fill::zero);
    std::size_t at = 0;
    for (const Parameter<T>& p : parameters) {
      const auto size = static_cast<std::size_t>(p.values.size());
      arrays_.emplace_back(memory_.data() + at, size);
      at += (size + line - 1) / line * line;
    }
  }

  [[nodiscard]] std::size_t size() const noexcept { return arrays_.size(); }
  [[nodiscard]] std::span<T> operator[](std::size_t k) { return arrays_[k]; }
  [[nodiscard]] std::span<const T> operator[](std::size_t k) const { return arrays_[k]; }
  /// All of them side by side (with zeros between, so that each starts on a cache line).
  [[nodiscard]] std::span<T> memory() { return memory_.span(); }
  [[nodiscard]] std::span<const T> memory() const { return memory_.span(); }
  void zero() { std::fill(memory_.begin(), memory_.end(), T{}); }
  [[nodiscard]] GradientsView<T> view() const {
    return GradientsView<T>(std::span<const std::span<T>>(arrays_));
  }
  operator GradientsView<T>() const { return view(); }  // NOLINT: implicit

 private:
  core::Buffer<T> memory_;
  std::vector<std::span<T>> arrays_;
};

}  // namespace nn
QUERN_NAMESPACE_END

#endif  // QUERN_NN_PARAMETER_HPP
