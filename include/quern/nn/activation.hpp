// SPDX-License-Identifier: Apache-2.0

/// \file
/// Activations as layers, and gated linear units.

#ifndef QUERN_NN_ACTIVATION_HPP
#define QUERN_NN_ACTIVATION_HPP

#include "quern/core/config.hpp"
#include "quern/core/parallel.hpp"
#include "quern/kernels/activation_types.hpp"
#include "quern/kernels/functors.hpp"
#include "quern/kernels/kernels.hpp"
#include "quern/nn/layer.hpp"

#include <algorithm>
#include <cstddef>
#include <memory>
#include <string>
#include <string_view>

QUERN_NAMESPACE_BEGIN
namespace nn {
namespace detail {

/// Elements of a task of something done to each element.
inline constexpr Index element_block = 32768;

/// fn(first, count) over the elements, in blocks of fixed size.
template <class F>
void for_elements(Index size, int threads, F&& fn) {
  if (size <= element_block) return fn(Index{0}, size);
  parallel_for(
      block_count(size, element_block),
      [&](Index block) {
        const BlockRange range = block_range(size, element_block, block);
        fn(range.begin, range.size());
      },
      threads);
}

template <class F>
struct ActivationName;
#define QUERN_ACTIVATION_NAME(F, Text)              \
  template <>                                       \
  struct ActivationName<F> {                        \
    static constexpr std::string_view value = Text; \
  };
QUERN_ACTIVATION_NAME(kernels::Relu, "quern::nn::ReLU")
QUERN_ACTIVATION_NAME(kernels::LeakyRelu<float>, "quern::nn::LeakyReLU")
QUERN_ACTIVATION_NAME(kernels::LeakyRelu<double>, "quern::nn::LeakyReLU")
QUERN_ACTIVATION_NAME(kernels::Elu<float>, "quern::nn::ELU")
QUERN_ACTIVATION_NAME(kernels::Elu<double>, "quern::nn::ELU")
QUERN_ACTIVATION_NAME(kernels::Gelu, "quern::nn::GELU")
QUERN_ACTIVATION_NAME(kernels::GeluTanh, "quern::nn::GELUTanh")
QUERN_ACTIVATION_NAME(kernels::Silu, "quern::nn::SiLU")
QUERN_ACTIVATION_NAME(kernels::Softplus, "quern::nn::Softplus")
QUERN_ACTIVATION_NAME(kernels::Tanh, "quern::nn::Tanh")
QUERN_ACTIVATION_NAME(kernels::Sigmoid, "quern::nn::Sigmoid")
QUERN_ACTIVATION_NAME(kernels::Identity, "quern::nn::Identity")
#undef QUERN_ACTIVATION_NAME

}  // namespace detail

/// out = f(in) for every element; any shape. F: a name of kernels/activation_types.hpp or
/// functors.hpp. Use the aliases below.
template <class T, class F>
class Activation final : public Layer<T> {
 public:
  explicit Activation(const F& f = {}) : f_(f) {}

  [[nodiscard]] std::string_view type() const override { return detail::ActivationName<F>::value; }
  [[nodiscard]] Extents output_shape(const Extents& in) const override { return in; }
  [[nodiscard]] std::unique_ptr<Layer<T>> clone() const override {
    return std::make_unique<Activation>(*this);
  }

 protected:
  void compute(TensorView<const T> in, TensorView<T> out, Cache<T>& cache) const override {
    detail::for_elements(in.size(), cache.context.threads, [&](Index first, Index count) {
      QUERN_DISPATCH(
          transform(f_, in.data() + first, static_cast<std::size_t>(count), out.data() + first));
    });
  }
  void differentiate(TensorView<const T> dout, TensorView<T> din, Cache<T>& cache,
                     GradientsView<T> /*gradients*/) const override {
    if (din.null()) return;
    const T* const x = cache.input.data();
    detail::for_elements(din.size(), cache.context.threads, [&](Index first, Index count) {
      QUERN_DISPATCH(transform_gradient(f_, x + first, dout.data() + first,
                                        static_cast<std::size_t>(count), din.data() + first));
    });
  }

 private:
  F f_;
};

template <class T>
using ReLU = Activation<T, kernels::Relu>;
template <class T>
using LeakyReLU = Activation<T, kernels::LeakyRelu<T>>;
template <class T>
using ELU = Activation<T, kernels::Elu<T>>;
/// x Phi(x) by erf; PyTorch's default.
template <class T>
using GELU = Activation<T, kernels::Gelu>;
/// PyTorch's approximate='tanh'.
template <class T>
using GELUTanh = Activation<T, kernels::GeluTanh>;
template <class T>
using SiLU = Activation<T, kernels::Silu>;
template <class T>
using Softplus = Activation<T, kernels::Softplus>;
template <class T>
using Tanh = Activation<T, kernels::Tanh>;
template <class T>
using Sigmoid = Activation<T, kernels::Sigmoid>;

/// Gated linear unit (Dauphin et al., arXiv:1612.08083): dimension `axis` is cut into halves a, b;
/// out = a f(b). F = Sigmoid is the original; Silu, Gelu, Relu give SwiGLU, GEGLU, ReGLU (Shazeer,
/// arXiv:2002.05202). `axis` counts from the end when negative, and is -1 by default; 1 for the
/// channels of NCHW.
template <class T, class F = kernels::Sigmoid>
class GatedUnit final : public Layer<T> {
 public:
  explicit GatedUnit(int axis = -1, const F& f = {}) : axis_(axis), f_(f) {}

  [[nodiscard]] std::string_view type() const override { return "quern::nn::GatedUnit"; }
  [[nodiscard]] Extents output_shape(const Extents& in) const override {
    const int rank = static_cast<int>(in.size());
    const int axis = axis_ < 0 ? axis_ + rank : axis_;
    if (axis < 0 || axis >= rank || in[static_cast<std::size_t>(axis)] % 2 != 0) {
      throw ShapeError(
          error_text(type(), "in", "an even extent " + std::to_string(axis_), shape_text(in)));
    }
    Extents out = in;
    out[static_cast<std::size_t>(axis)] /= 2;
    return out;
  }
  [[nodiscard]] std::unique_ptr<Layer<T>> clone() const override {
    return std::make_unique<GatedUnit>(*this);
  }

 protected:
  void compute(TensorView<const T> in, TensorView<T> out, Cache<T>& cache) const override {
    for_pieces(out, cache.context.threads, [&](Index a, Index b, Index at, std::size_t n) {
      QUERN_DISPATCH(gate(f_, in.data() + a, in.data() + b, n, out.data() + at));
    });
  }
  void differentiate(TensorView<const T> dout, TensorView<T> din, Cache<T>& cache,
                     GradientsView<T> /*gradients*/) const override {
    if (din.null()) return;
    const T* const x = cache.input.data();
    for_pieces(dout, cache.context.threads, [&](Index a, Index b, Index at, std::size_t n) {
      QUERN_DISPATCH(
          gate_gradient(f_, x + a, x + b, dout.data() + at, n, din.data() + a, din.data() + b));
    });
  }

 private:
  /// fn(a, b, out, count): places of adjacent elements in the input's halves and in the output.
  template <class U, class Fn>
  void for_pieces(const TensorView<U>& out, int threads, Fn&& fn) const {
    const int axis = axis_ < 0 ? axis_ + out.rank() : axis_;
    const Index outer = out.count(0, axis);
    const Index half = out.count(axis, out.rank());
    if (half == 0) return;
    const Index rows = (std::max)(Index{1}, detail::element_block / half);
    parallel_for(
        block_count(outer, rows),
        [&](Index block) {
          const BlockRange range = block_range(outer, rows, block);
          for (Index i = range.begin; i < range.end; ++i) {
            fn(2 * i * half, (2 * i + 1) * half, i * half, static_cast<std::size_t>(half));
          }
        },
        threads);
  }

  int axis_;
  F f_;
};

template <class T>
using GLU = GatedUnit<T, kernels::Sigmoid>;
template <class T>
using SwiGLU = GatedUnit<T, kernels::Silu>;
template <class T>
using GEGLU = GatedUnit<T, kernels::Gelu>;

}  // namespace nn
QUERN_NAMESPACE_END

#endif  // QUERN_NN_ACTIVATION_HPP
