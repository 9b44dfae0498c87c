// SPDX-License-Identifier: Apache-2.0

/// \file
/// nn::Layer: what every part of a network is. Weights (the layer), what forward left behind
/// (Cache) and gradients (Gradients) are three things: inference is const and safe on many threads,
/// and shards of a batch train side by side.
///
///   nn::Cache<float> cache;
///   cache.context = {.seed = 1, .step = step};
///   layer.forward(x, y, cache, nn::Mode::training);
///   nn::Gradients<float> gradients(nn::parameters_of(layer));
///   layer.backward(dy, dx, cache, gradients);

#ifndef QUERN_NN_LAYER_HPP
#define QUERN_NN_LAYER_HPP

#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/nn/cache.hpp"
#include "quern/nn/parameter.hpp"
#include "quern/nn/tensor.hpp"

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <type_traits>

QUERN_NAMESPACE_BEGIN
namespace nn {

/// Base of layers. A new layer overrides type, output_shape, compute, differentiate and clone, and
/// parameters where it has some.
template <class T>
class Layer {
 public:
  using Scalar = T;

  virtual ~Layer() = default;

  /// The class's name for messages, such as "quern::nn::Linear".
  [[nodiscard]] virtual std::string_view type() const = 0;
  /// Shape of what comes out for what goes in. ShapeError where that does not fit.
  [[nodiscard]] virtual Extents output_shape(const Extents& in) const = 0;
  /// Appends the trained tensors; `prefix` ("encoder.0.") goes before each name.
  virtual void parameters(ParameterList<T>& /*out*/, const std::string& /*prefix*/) {}
  /// Appends what is saved but not trained by gradients: running statistics, codebooks.
  virtual void buffers(ParameterList<T>& /*out*/, const std::string& /*prefix*/) {}
  /// Draws all weights anew. `prefix` tells layers of one network apart: they draw differently.
  virtual void initialize(std::uint64_t /*seed*/, const std::string& prefix = {}) {
    static_cast<void>(prefix);
  }
  /// Once after a step of training: takes what the shards' forwards left in their caches, in the
  /// order given, into the buffers.
  virtual void update(std::span<Cache<T>* const> /*shards*/) {}
  /// A copy with weights of its own.
  [[nodiscard]] virtual std::unique_ptr<Layer> clone() const = 0;

  /// out = layer(in). `out` has output_shape() and is overwritten, memory apart from `in`. In
  /// training, `in` has to stay as it is until backward has run. ShapeError where shapes do not
  /// fit.
  void forward(TensorView<const T> in, TensorView<T> out, Cache<T>& cache, Mode mode) const {
    expect_extents(type(), "out of forward", out, output_shape(in.shape()));
    expect_separate(type(), "out of forward", out, in);
    cache.input = in;
    cache.mode = mode;
    compute(in, out, cache);
  }
  /// After a forward in training mode with this cache: din = gradient of the input (overwritten; a
  /// null view leaves it out), and the parameters' gradients are added to `gradients` (a null view
  /// leaves them out): one for each of parameters_of(layer), of its size, which is not checked
  /// here. ShapeError where other shapes do not fit, ValueError without that forward.
  void backward(TensorView<const T> dout, TensorView<T> din, Cache<T>& cache,
                GradientsView<T> gradients) const {
    if (!cache.keep()) {
      throw ValueError(error_text(type(), "cache of backward", "one of a forward in training mode",
                                  "one without"));
    }
    expect_extents(type(), "dout of backward", dout, output_shape(cache.input.shape()));
    if (!din.null()) {
      expect_extents(type(), "din of backward", din, cache.input.extents());
      expect_separate(type(), "din of backward", din, dout);
    }
    differentiate(dout, din, cache, gradients);
  }

 protected:
  Layer() = default;
  Layer(const Layer&) = default;
  Layer(Layer&&) noexcept = default;
  Layer& operator=(const Layer&) = default;
  Layer& operator=(Layer&&) noexcept = default;

  /// forward, shapes checked; cache.input and cache.mode are set.
  virtual void compute(TensorView<const T> in, TensorView<T> out, Cache<T>& cache) const = 0;
  /// backward, shapes checked. cache.input is the input of forward.
  virtual void differentiate(TensorView<const T> dout, TensorView<T> din, Cache<T>& cache,
                             GradientsView<T> gradients) const = 0;
};

/// All trained tensors of a layer, by PyTorch's names.
template <class T>
[[nodiscard]] ParameterList<T> parameters_of(Layer<T>& layer, const std::string& prefix = {}) {
  ParameterList<T> list;
  layer.parameters(list, prefix);
  return list;
}
/// All that is saved and not trained.
template <class T>
[[nodiscard]] ParameterList<T> buffers_of(Layer<T>& layer, const std::string& prefix = {}) {
  ParameterList<T> list;
  layer.buffers(list, prefix);
  return list;
}
/// How many tensors, and how many numbers, are trained.
template <class T>
[[nodiscard]] std::size_t parameter_count(Layer<T>& layer) {
  return parameters_of(layer).size();
}
template <class T>
[[nodiscard]] Index weight_count(Layer<T>& layer) {
  Index total = 0;
  for (const Parameter<T>& p : parameters_of(layer)) total += p.values.size();
  return total;
}

/// layer(in) for inference, with memory for the result. `cache` can be used again.
template <class T>
[[nodiscard]] Tensor<T> apply(const Layer<T>& layer, std::type_identity_t<TensorView<const T>> in,
                              Cache<T>& cache) {
  const Extents shape = layer.output_shape(in.shape());
  Tensor<T> out(shape, core::Fill::none);
  layer.forward(in, out.view(), cache, Mode::inference);
  return out;
}
template <class T>
[[nodiscard]] Tensor<T> apply(const Layer<T>& layer, std::type_identity_t<TensorView<const T>> in) {
  Cache<T> cache;
  return apply(layer, in, cache);
}

}  // namespace nn
QUERN_NAMESPACE_END

#endif  // QUERN_NN_LAYER_HPP
