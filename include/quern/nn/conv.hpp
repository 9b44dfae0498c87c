// SPDX-License-Identifier: Apache-2.0

/// \file
/// Convolutions and transposed convolutions in one and two dimensions: stride, padding, dilation,
/// groups, causal and masked kernels, channels first or last. They compute cross-correlations (the
/// kernel is not flipped), with zero padding, and have PyTorch's names, layouts and initial values.
///
/// Channels last is the fastest: nothing is copied then. docs/nn/conv.md has the figures.

#ifndef QUERN_NN_CONV_HPP
#define QUERN_NN_CONV_HPP

#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/nn/detail/conv_geometry.hpp"
#include "quern/nn/detail/conv_pass.hpp"
#include "quern/nn/detail/conv_weights.hpp"
#include "quern/nn/init.hpp"
#include "quern/nn/layer.hpp"
#include "quern/nn/layout.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace nn {

/// Which taps of a kernel count, in the raster order of an image (van den Oord et al.,
/// arXiv:1601.06759): A those before the centre, B the centre too. A gated PixelCNN's vertical
/// stack takes whole rows: those above the centre's, or that one too.
enum class ConvMask { none, a, b, rows_above, rows };

/// Options of Conv2d and ConvTranspose2d.
struct Conv2dOptions {
  Pair kernel = 3;
  Pair stride = 1;
  Pair padding = 0;  ///< zeros on each side
  Pair dilation = 1;
  Pair output_padding = 0;  ///< transposed only: rows and columns more at the end
  Index groups = 1;
  bool bias = true;
  ConvMask mask = ConvMask::none;
  Layout layout = Layout::channels_first;
  ConvAlgorithm algorithm = ConvAlgorithm::automatic;
};

/// Options of Conv1d.
struct Conv1dOptions {
  Index kernel = 3;
  Index stride = 1;
  Index padding = 0;
  Index dilation = 1;
  Index groups = 1;
  bool bias = true;
  bool causal = false;  ///< (kernel - 1) dilation zeros before and none after; `padding` is 0 then
  Layout layout = Layout::channels_first;  ///< (N, C, L), or (N, L, C)
};

namespace detail {

/// What all convolutions are: kept apart from the classes that name them.
struct ConvPlan {
  Index inputs = 1, outputs = 1;
  Size2 kernel, stride, before{0, 0}, after{0, 0}, dilation, extra{0, 0};
  Index groups = 1;
  bool bias = true;
  bool transposed = false;
  bool one_dimension = false;
  ConvMask mask = ConvMask::none;
  bool channels_last = false;
  ConvAlgorithm algorithm = ConvAlgorithm::automatic;
};

inline void check_plan(std::string_view type, const ConvPlan& p) {
  const auto at_least = [&](const char* name, Index value, Index least) {
    if (value >= least) return;
    throw ValueError(error_text(type, name, "at least " + std::to_string(least), value));
  };
  at_least("inputs", p.inputs, 1);
  at_least("outputs", p.outputs, 1);
  at_least("groups", p.groups, 1);
  for (const Size2 s : {p.kernel, p.stride, p.dilation}) {
    at_least("kernel, stride, dilation", (std::min)(s.h, s.w), 1);
  }
  for (const Size2 s : {p.before, p.after, p.extra}) {
    at_least("padding, output_padding", (std::min)(s.h, s.w), 0);
  }
  if (p.inputs % p.groups != 0 || p.outputs % p.groups != 0) {
    throw ValueError(error_text(type, "groups", "a divisor of inputs and outputs", p.groups));
  }
  if (p.extra.h >= (std::max)(p.stride.h, p.dilation.h) ||
      p.extra.w >= (std::max)(p.stride.w, p.dilation.w)) {
    throw ValueError(error_text(type, "output_padding", "less than stride or dilation",
                                (std::max)(p.extra.h, p.extra.w)));
  }
  if (p.mask != ConvMask::none && (p.kernel.h % 2 == 0 || p.kernel.w % 2 == 0)) {
    throw ValueError(error_text(type, "mask", "a kernel with a centre (odd sizes)",
                                std::to_string(p.kernel.h) + " x " + std::to_string(p.kernel.w)));
  }
}

/// Layers of all kinds of convolutions.
template <class T>
class ConvLayer : public Layer<T> {
 public:
  [[nodiscard]] Index inputs() const noexcept { return plan_.inputs; }
  [[nodiscard]] Index outputs() const noexcept { return plan_.outputs; }
  /// (outputs, inputs / groups, kernel…); transposed: (inputs, outputs / groups, kernel…).
  [[nodiscard]] TensorView<T> weight() { return weight_.view(); }
  [[nodiscard]] TensorView<const T> weight() const { return weight_.view(); }
  /// (outputs), or nothing.
  [[nodiscard]] TensorView<T> bias() { return bias_.view(); }
  [[nodiscard]] TensorView<const T> bias() const { return bias_.view(); }

  [[nodiscard]] Extents output_shape(const Extents& in) const override {
    const ConvGeometry g = geometry(in);
    const Size2 out = plan_.transposed ? g.x : g.y;
    Extents shape = {g.batch};
    if (!plan_.channels_last) shape.push_back(plan_.outputs);
    if (!plan_.one_dimension) shape.push_back(out.h);
    shape.push_back(out.w);
    if (plan_.channels_last) shape.push_back(plan_.outputs);
    return shape;
  }
  void parameters(ParameterList<T>& out, const std::string& prefix) override {
    out.push_back({prefix + "weight", weight_.view()});
    if (plan_.bias) {
      out.push_back({.name = prefix + "bias", .values = bias_.view(), .decay = false});
    }
  }
  void initialize(std::uint64_t seed, const std::string& prefix = {}) override {
    init::pytorch_default(weight_.view(), bias_.view(), seed, prefix);
  }

 protected:
  ConvLayer(std::string_view type, const ConvPlan& plan) : plan_(plan) {
    check_plan(type, plan);
    const Index first = plan.transposed ? plan.inputs : plan.outputs;
    const Index second = (plan.transposed ? plan.outputs : plan.inputs) / plan.groups;
    if (plan.one_dimension) {
      weight_.resize({first, second, plan.kernel.w});
    } else {
      weight_.resize({first, second, plan.kernel.h, plan.kernel.w});
    }
    if (plan.bias) bias_.resize({plan.outputs});
    ConvLayer::initialize(0);
  }
  ConvLayer(const ConvLayer& other)
      : Layer<T>(other),
        plan_(other.plan_),
        weight_(other.weight_.clone()),
        bias_(other.bias_.clone()) {}

  void compute(TensorView<const T> in, TensorView<T> out, Cache<T>& cache) const override {
    const ConvGeometry g = geometry(in.shape());
    if (out.empty()) return;
    const T* const bias = plan_.bias ? bias_.data() : nullptr;
    const auto run = plan_.transposed ? &conv_backward_data<T> : &conv_forward<T>;
    run(g, in.data(), weight_.data(), bias, out.data(), cache.tensor(0), cache.context.threads);
  }
  void differentiate(TensorView<const T> dout, TensorView<T> din, Cache<T>& cache,
                     GradientsView<T> gradients) const override {
    const ConvGeometry g = geometry(cache.input.shape());
    const int threads = cache.context.threads;
    if (!din.empty()) {
      const auto run = plan_.transposed ? &conv_forward<T> : &conv_backward_data<T>;
      run(g, dout.data(), weight_.data(), nullptr, din.data(), cache.tensor(0), threads);
    }
    if (gradients.null() || dout.empty()) return;
    const T* const x = plan_.transposed ? dout.data() : cache.input.data();
    const T* const dy = plan_.transposed ? cache.input.data() : dout.data();
    conv_backward_weights<T>(g, x, dy, gradients[0], cache.tensor(1), threads);
    if (!plan_.bias) return;
    const ImageBatch<const T> image{dout.data(), plan_.transposed ? g.x : g.y, plan_.outputs,
                                    plan_.channels_last};
    add_channel_sums<T>(image, g.batch, gradients[1], threads);
  }

 private:
  /// Numbers of the convolution (of its mirror image when transposed: there `y` is the input).
  [[nodiscard]] ConvGeometry geometry(const Extents& in) const {
    const std::size_t rank = plan_.one_dimension ? 3 : 4;
    const std::size_t channel = plan_.channels_last ? rank - 1 : 1;
    if (in.size() != rank || in[channel] != plan_.inputs) {
      const std::string wants = std::to_string(rank) + " dimensions with " +
                                std::to_string(plan_.inputs) + " channels at " +
                                std::to_string(channel);
      throw ShapeError(error_text(this->type(), "in", wants, shape_text(in)));
    }
    const std::size_t space = plan_.channels_last ? 1 : 2;
    const Size2 size = plan_.one_dimension ? Size2{1, in[space]} : Size2{in[space], in[space + 1]};
    ConvGeometry g;
    g.batch = in[0];
    g.kernel = plan_.kernel;
    g.stride = plan_.stride;
    g.before = plan_.before;
    g.dilation = plan_.dilation;
    g.groups = plan_.groups;
    g.channels_last = plan_.channels_last;
    g.mask = mask();
    g.algorithm = plan_.algorithm;
    const Size2 other = plan_.transposed ? grown(size, in) : shrunk(size, in);
    g.x = plan_.transposed ? other : size;
    g.y = plan_.transposed ? size : other;
    g.x_channels = plan_.transposed ? plan_.outputs : plan_.inputs;
    g.y_channels = plan_.transposed ? plan_.inputs : plan_.outputs;
    return g;
  }
  /// A kernel's reach.
  [[nodiscard]] Size2 reach() const {
    return {(plan_.kernel.h - 1) * plan_.dilation.h + 1,
            (plan_.kernel.w - 1) * plan_.dilation.w + 1};
  }
  [[nodiscard]] Size2 shrunk(Size2 size, const Extents& in) const {
    const Index h = size.h + plan_.before.h + plan_.after.h - reach().h;
    const Index w = size.w + plan_.before.w + plan_.after.w - reach().w;
    if (h < 0 || w < 0) too_small(in);
    return {h / plan_.stride.h + 1, w / plan_.stride.w + 1};
  }
  [[nodiscard]] Size2 grown(Size2 size, const Extents& in) const {
    const Index h = (size.h - 1) * plan_.stride.h - plan_.before.h - plan_.after.h + reach().h;
    const Index w = (size.w - 1) * plan_.stride.w - plan_.before.w - plan_.after.w + reach().w;
    if (h + plan_.extra.h < 1 || w + plan_.extra.w < 1) too_small(in);
    return {h + plan_.extra.h, w + plan_.extra.w};
  }
  [[noreturn]] void too_small(const Extents& in) const {
    throw ShapeError(
        error_text(this->type(), "in", "an image that holds the kernel once", shape_text(in)));
  }
  [[nodiscard]] std::vector<std::uint8_t> mask() const {
    if (plan_.mask == ConvMask::none) return {};
    const Index taps = plan_.kernel.h * plan_.kernel.w, centre = taps / 2;
    const Index row = plan_.kernel.h / 2;
    const Index count = plan_.mask == ConvMask::a            ? centre
                        : plan_.mask == ConvMask::b          ? centre + 1
                        : plan_.mask == ConvMask::rows_above ? row * plan_.kernel.w
                                                             : (row + 1) * plan_.kernel.w;
    std::vector<std::uint8_t> mask(static_cast<std::size_t>(taps), 0);
    std::fill_n(mask.begin(), count, std::uint8_t{1});
    return mask;
  }

  ConvPlan plan_;
  Tensor<T> weight_;
  Tensor<T> bias_;
};

inline ConvPlan plan_of(Index inputs, Index outputs, const Conv2dOptions& o, bool transposed) {
  ConvPlan p;
  p.inputs = inputs;
  p.outputs = outputs;
  p.kernel = {o.kernel.h, o.kernel.w};
  p.stride = {o.stride.h, o.stride.w};
  p.before = p.after = {o.padding.h, o.padding.w};
  p.dilation = {o.dilation.h, o.dilation.w};
  p.extra = {o.output_padding.h, o.output_padding.w};
  p.groups = o.groups;
  p.bias = o.bias;
  p.transposed = transposed;
  p.mask = o.mask;
  p.channels_last = o.layout == Layout::channels_last;
  p.algorithm = o.algorithm;
  return p;
}

inline ConvPlan plan_of(Index inputs, Index outputs, const Conv1dOptions& o) {
  ConvPlan p;
  p.inputs = inputs;
  p.outputs = outputs;
  p.kernel = {1, o.kernel};
  p.stride = {1, o.stride};
  p.before = {0, o.causal ? (o.kernel - 1) * o.dilation : o.padding};
  p.after = {0, o.causal ? 0 : o.padding};
  p.dilation = {1, o.dilation};
  p.groups = o.groups;
  p.bias = o.bias;
  p.one_dimension = true;
  p.channels_last = o.layout == Layout::channels_last;
  return p;
}

}  // namespace detail

/// y[n, o, i, j] = b[o] + sum over c, u, v of w[o, c, u, v] x[n, c, i s - p + u d, j s - p + v d],
/// c over the channels of o's group, x zero outside. Output extents are
/// floor((in + 2 p - d (k - 1) - 1) / s) + 1. A masked kernel's other taps have no part in the
/// output, and gradient zero, whatever their weights are.
template <class T>
class Conv2d final : public detail::ConvLayer<T> {
 public:
  /// ValueError for options that do not fit each other.
  Conv2d(Index inputs, Index outputs, const Conv2dOptions& options = {})
      : detail::ConvLayer<T>("quern::nn::Conv2d",
                             detail::plan_of(inputs, outputs, options, false)) {
    if (options.output_padding.h != 0 || options.output_padding.w != 0) {
      throw ValueError(error_text(type(), "output_padding", "0 (it is for ConvTranspose2d)",
                                  options.output_padding.h));
    }
  }
  [[nodiscard]] std::string_view type() const override { return "quern::nn::Conv2d"; }
  [[nodiscard]] std::unique_ptr<Layer<T>> clone() const override {
    return std::make_unique<Conv2d>(*this);
  }
};

/// y[n, o, i s - p + u d, j s - p + v d] sums x[n, c, i, j] w[c, o, u, v]: the gradient of Conv2d
/// with respect to its input. Output extents are (in - 1) s - 2 p + d (k - 1) + 1 + output_padding.
template <class T>
class ConvTranspose2d final : public detail::ConvLayer<T> {
 public:
  ConvTranspose2d(Index inputs, Index outputs, const Conv2dOptions& options = {})
      : detail::ConvLayer<T>("quern::nn::ConvTranspose2d",
                             detail::plan_of(inputs, outputs, options, true)) {
    if (options.mask != ConvMask::none) {
      throw ValueError(error_text(type(), "mask", "none (it is for Conv2d)", "a mask"));
    }
  }
  [[nodiscard]] std::string_view type() const override { return "quern::nn::ConvTranspose2d"; }
  [[nodiscard]] std::unique_ptr<Layer<T>> clone() const override {
    return std::make_unique<ConvTranspose2d>(*this);
  }
};

/// The same in one dimension: weight (outputs, inputs / groups, kernel).
template <class T>
class Conv1d final : public detail::ConvLayer<T> {
 public:
  Conv1d(Index inputs, Index outputs, const Conv1dOptions& options = {})
      : detail::ConvLayer<T>("quern::nn::Conv1d", detail::plan_of(inputs, outputs, options)) {
    if (options.causal && options.padding != 0) {
      throw ValueError(error_text(type(), "padding", "0 where causal", options.padding));
    }
  }
  [[nodiscard]] std::string_view type() const override { return "quern::nn::Conv1d"; }
  [[nodiscard]] std::unique_ptr<Layer<T>> clone() const override {
    return std::make_unique<Conv1d>(*this);
  }
};

}  // namespace nn
QUERN_NAMESPACE_END

#endif  // QUERN_NN_CONV_HPP
