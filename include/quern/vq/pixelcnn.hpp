// SPDX-License-Identifier: Apache-2.0

/// \file
/// A prior for grids of codes: the gated PixelCNN (A. van den Oord, N. Kalchbrenner, O. Vinyals,
/// L. Espeholt, A. Graves, K. Kavukcuoglu, "Conditional image generation with PixelCNN decoders",
/// 2016, equation 2 and figure 2), conditional on a class.
///
/// Two stacks, the paper's form, e the embedding of the codes, V and H its class rows:
///
///   u <- conv of v over rows (above; from the second layer on, the pixel's own too),
///   v <- gate(u + V), w = conv of h over columns to the left (and the pixel's own) + link u,
///   h <- h + W gate(w + H), gate(a | b) = tanh(a) sigmoid(b); at first v = h = e, without "h +";
///
/// logits = WO relu(h). What the vertical stack sees has no blind spot, and the link brings it in.
///
/// One stack: h = conv of e with mask A, h <- h + W gate(conv of h with mask B + class row). What
/// lies above and to the right beyond the first kernel's reach would never be seen, so that kernel
/// is as wide as the grid needs: 2 W - 1 columns.

#ifndef QUERN_VQ_PIXELCNN_HPP
#define QUERN_VQ_PIXELCNN_HPP

#include "quern/core/checks.hpp"
#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/nn/activation.hpp"
#include "quern/nn/conv.hpp"
#include "quern/nn/embedding.hpp"
#include "quern/nn/layer.hpp"
#include "quern/vq/detail/pixelcnn_network.hpp"
#include "quern/vq/nearest.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace vq {

struct PixelCnnOptions {
  Index codes = 512;
  Index height = 7, width = 7;  ///< of the grid
  Index classes = 0;            ///< conditions; 0: none
  Index channels = 64;
  Index layers = 6;        ///< gated ones, after the first
  Index first_kernel = 7;  ///< rows of the first kernel; odd
  /// Its columns, odd. 0: first_kernel, or with one stack 2 width - 1, from which on nothing is
  /// missed.
  Index first_width = 0;
  Index kernel = 3;  ///< of the gated layers; odd
  Index stacks = 2;  ///< 2: the paper's; 1: about half the work a layer
  bool bias = true;
};

/// Logits of every code of a grid given those before it in raster order (and the class).
///
/// A layer: in (N, H W) holds codes as numbers, with classes (N, H W + 1), the class last (-1:
/// none, no row is added anywhere); out (N, H, W, K). Trained with nn::cross_entropy_loss against
/// the codes themselves; the input has no gradient.
template <class T>
class PixelCnn final : public detail::PixelNetwork<T> {
  using Base = detail::PixelNetwork<T>;
  using View = nn::TensorView<T>;

 public:
  /// ValueError for sizes below 1, even kernels, and other numbers of stacks.
  explicit PixelCnn(const PixelCnnOptions& options = {})
      : Base(options.height * options.width, options.classes, options.channels), options_(options) {
    check();
    const Index c = options.channels;
    const bool two = options_.stacks == 2;
    if (options_.first_width == 0) {
      options_.first_width = two ? options_.first_kernel : 2 * options_.width - 1;
    }
    this->add("embedding", std::make_unique<nn::Embedding<T>>(options.codes, c));
    const nn::Pair first{options_.first_kernel, options_.first_width};
    if (!two) this->add("first", conv(c, c, first, nn::ConvMask::a));
    for (Index k = two ? -1 : 0; k < options.layers; ++k) {
      add_layer(two ? k + 1 : k, k < 0 ? first : nn::Pair(options_.kernel));
    }
    this->add("logits", conv(c, options.codes, 1, nn::ConvMask::none));
    this->initialize(0);
  }

  [[nodiscard]] const PixelCnnOptions& options() const noexcept { return options_; }
  [[nodiscard]] Index pixels() const noexcept { return options_.height * options_.width; }
  /// Gated layers: with two stacks the first is one of them.
  [[nodiscard]] Index gated_layers() const noexcept {
    return options_.layers + (options_.stacks == 2 ? 1 : 0);
  }
  [[nodiscard]] nn::Embedding<T>& embedding() const {
    return this->template at<nn::Embedding<T>>(0);
  }
  /// One stack: its first convolution, and layer k's.
  [[nodiscard]] nn::Conv2d<T>& first() const { return conv_at(1); }
  [[nodiscard]] nn::Conv2d<T>& gate(Index k) const { return conv_at(gate_at(k)); }
  /// Two stacks: layer k's convolutions.
  [[nodiscard]] nn::Conv2d<T>& vertical(Index k) const { return conv_at(vertical_at(k)); }
  [[nodiscard]] nn::Conv2d<T>& horizontal(Index k) const { return conv_at(vertical_at(k) + 1); }
  [[nodiscard]] nn::Conv2d<T>& link(Index k) const { return conv_at(vertical_at(k) + 2); }
  /// Of either.
  [[nodiscard]] nn::Conv2d<T>& gated_out(Index k) const { return conv_at(out_at(k)); }
  [[nodiscard]] nn::Conv2d<T>& logits() const { return conv_at(this->children_.size() - 1); }
  /// What layer k adds to its gates for each class: (classes, 2 channels).
  [[nodiscard]] nn::TensorView<const T> class_rows(Index k) const {
    return this->classes_[rows_at(k)].values.view();
  }
  /// Two stacks: the same of the vertical stack, k < layers.
  [[nodiscard]] nn::TensorView<const T> vertical_class_rows(Index k) const {
    return this->classes_[rows_at(k) + 1].values.view();
  }

  [[nodiscard]] std::string_view type() const override { return "quern::vq::PixelCnn"; }
  [[nodiscard]] nn::Extents output_shape(const nn::Extents& in) const override {
    const Index wants = pixels() + (options_.classes > 0 ? 1 : 0);
    if (in.size() != 2 || in[1] != wants) {
      throw ShapeError(
          error_text(type(), "in", "N x " + std::to_string(wants), nn::shape_text(in)));
    }
    return {in[0], options_.height, options_.width, options_.codes};
  }
  [[nodiscard]] std::unique_ptr<nn::Layer<T>> clone() const override {
    auto copy = std::make_unique<PixelCnn>(options_);
    copy->copy_weights(*this);
    return copy;
  }

 protected:
  void compute(nn::TensorView<const T> in, View out, nn::Cache<T>& cache) const override {
    this->split_input(in, {in.extent(0), options_.height, options_.width}, cache);
    const nn::Extents shape = {in.extent(0), options_.height, options_.width, options_.channels};
    const View e = this->run(0, cache.tensor(0).view(), cache, 1, shape);
    const View h = options_.stacks == 2 ? two_stacks(e, cache) : one_stack(e, cache);
    const View z = cache.tensor(spare(), shape).view();
    const std::size_t last = this->children_.size() - 1;
    relu_.forward(h, z, cache.child(last + 1), cache.mode);
    this->children_[last].layer->forward(z, out, cache.child(last), cache.mode);
  }

  void differentiate(nn::TensorView<const T> dout, View din, nn::Cache<T>& cache,
                     nn::GradientsView<T> gradients) const override {
    if (!din.null()) std::fill(din.begin(), din.end(), T{});
    const std::size_t last = this->children_.size() - 1;
    const View dz = gradient(cache, 0, false), dh = gradient(cache, 1, false);
    this->back(last, dout, dz, cache, gradients);
    relu_.backward(dz, dh, cache.child_as_is(last + 1), {});
    if (options_.stacks == 2) {
      two_stacks_back(cache, gradients);
    } else {
      one_stack_back(cache, gradients);
    }
    this->back(0, dz, {}, cache, gradients);
  }

 private:
  void check() const {
    for (const Index size : {options_.codes, options_.height, options_.width, options_.channels}) {
      if (size < 1) throw ValueError(error_text(type(), "sizes", "at least 1", size));
    }
    if (options_.classes < 0 || options_.layers < 0) {
      throw ValueError(error_text(type(), "classes, layers", "at least 0",
                                  (std::min)(options_.classes, options_.layers)));
    }
    if (options_.stacks != 1 && options_.stacks != 2) {
      throw ValueError(error_text(type(), "stacks", "1 or 2", options_.stacks));
    }
  }
  void add_layer(Index k, nn::Pair kernel) {
    using nn::ConvMask;
    const Index c = options_.channels;
    const std::string name = "layers." + std::to_string(k);
    const bool first = k == 0;
    if (options_.stacks == 1) {
      this->add(name + ".gate", conv(c, 2 * c, kernel, ConvMask::b));
    } else {
      this->add(name + ".vertical",
                conv(c, 2 * c, kernel, first ? ConvMask::rows_above : ConvMask::rows));
      this->add(name + ".horizontal",
                conv(c, 2 * c, {1, kernel.w}, first ? ConvMask::a : ConvMask::b));
      this->add(name + ".link", conv(2 * c, 2 * c, 1, ConvMask::none));
    }
    this->add(name + ".out", conv(c, c, 1, ConvMask::none));
    this->add_class_rows(name + ".class");
    // Nothing reads the last layer's vertical stack behind its gate.
    if (options_.stacks == 2 && k < options_.layers) this->add_class_rows(name + ".vertical_class");
  }
  [[nodiscard]] std::unique_ptr<nn::Layer<T>> conv(Index in, Index out, nn::Pair kernel,
                                                   nn::ConvMask mask) const {
    return std::make_unique<nn::Conv2d<T>>(
        in, out,
        nn::Conv2dOptions{.kernel = kernel,
                          .padding = nn::Pair(kernel.h / 2, kernel.w / 2),
                          .bias = options_.bias,
                          .mask = mask,
                          .layout = nn::Layout::channels_last});
  }
  [[nodiscard]] nn::Conv2d<T>& conv_at(std::size_t k) const {
    return this->template at<nn::Conv2d<T>>(k);
  }
  static std::size_t gate_at(Index k) { return 2 + 2 * static_cast<std::size_t>(k); }
  static std::size_t vertical_at(Index k) { return 1 + 4 * static_cast<std::size_t>(k); }
  [[nodiscard]] std::size_t out_at(Index k) const {
    return options_.stacks == 2 ? vertical_at(k) + 3 : gate_at(k) + 1;
  }
  [[nodiscard]] std::size_t rows_at(Index k) const {
    return static_cast<std::size_t>(options_.stacks * k);
  }
  // Tensors of a cache: codes, embedded codes, the first convolution's h (one stack), each layer's
  // five (u, v, w, g, h), relu(h), gradients.
  static std::size_t place_of(Index k) { return 3 + 5 * static_cast<std::size_t>(k); }
  [[nodiscard]] std::size_t spare() const { return place_of(gated_layers()); }
  [[nodiscard]] View gradient(nn::Cache<T>& cache, std::size_t k, bool wide) const {
    nn::Extents shape = cache.tensor(1).shape();
    if (wide) shape.back() *= 2;
    return cache.tensor(spare() + 1 + k, shape).view();
  }

  [[nodiscard]] View one_stack(nn::TensorView<const T> e, nn::Cache<T>& cache) const {
    const nn::Extents shape = e.shape();
    nn::Extents wide = shape;
    wide.back() *= 2;
    View h = this->run(1, e, cache, 2, shape);
    for (Index k = 0; k < options_.layers; ++k) {
      const std::size_t t = place_of(k);
      const View u = this->run(gate_at(k), h, cache, t, wide);
      const View g = cache.tensor(t + 3, shape).view();
      this->gate_forward(u, rows_at(k), g, cache);
      const View next = this->run(out_at(k), g, cache, t + 4, shape);
      Base::add_to(next, h);
      h = next;
    }
    return h;
  }
  void one_stack_back(nn::Cache<T>& cache, const nn::GradientsView<T>& gradients) const {
    const View dz = gradient(cache, 0, false), dh = gradient(cache, 1, false);
    const View dg = gradient(cache, 2, false), du = gradient(cache, 3, true);
    for (Index k = options_.layers; k-- > 0;) {
      this->back(out_at(k), dh, dg, cache, gradients);
      this->gate_backward(cache.tensor(place_of(k)).view(), rows_at(k), dg, du, cache, gradients);
      this->back(gate_at(k), du, dz, cache, gradients);
      Base::add_to(dh, dz);
    }
    this->back(1, dh, dz, cache, gradients);
  }

  [[nodiscard]] View two_stacks(View e, nn::Cache<T>& cache) const {
    const nn::Extents shape = e.shape();
    nn::Extents wide = shape;
    wide.back() *= 2;
    View h = e, v = e;
    for (Index k = 0; k < gated_layers(); ++k) {
      const std::size_t t = place_of(k), child = vertical_at(k);
      const View u = this->run(child, v, cache, t, wide);
      const View w = this->run(child + 1, h, cache, t + 2, wide);
      Base::add_to(w, this->run(child + 2, u, cache, spare() + 1, wide));
      const View g = cache.tensor(t + 3, shape).view();
      this->gate_forward(w, rows_at(k), g, cache);
      const View next = this->run(child + 3, g, cache, t + 4, shape);
      if (k > 0) Base::add_to(next, h);
      h = next;
      if (k + 1 == gated_layers()) break;
      v = cache.tensor(t + 1, shape).view();
      this->gate_forward(u, rows_at(k) + 1, v, cache);
    }
    return h;
  }
  void two_stacks_back(nn::Cache<T>& cache, const nn::GradientsView<T>& gradients) const {
    const View dv = gradient(cache, 0, false), dh = gradient(cache, 1, false);
    const View dg = gradient(cache, 2, false), dw = gradient(cache, 3, true);
    const View du = gradient(cache, 4, true), through = gradient(cache, 5, true);
    for (Index k = gated_layers(); k-- > 0;) {
      const std::size_t t = place_of(k), child = vertical_at(k);
      this->back(child + 3, dh, dg, cache, gradients);
      this->gate_backward(cache.tensor(t + 2).view(), rows_at(k), dg, dw, cache, gradients);
      this->back(child + 2, dw, du, cache, gradients);
      if (k + 1 < gated_layers()) {
        this->gate_backward(cache.tensor(t).view(), rows_at(k) + 1, dv, through, cache, gradients);
        Base::add_to(du, through);
      }
      this->back(child, du, dv, cache, gradients);
      this->back(child + 1, dw, dg, cache, gradients);
      Base::add_to(k > 0 ? dh : dv, dg);
    }
  }

  PixelCnnOptions options_;
  nn::ReLU<T> relu_;
};

/// Grids of codes (and their classes) as the network takes them. ShapeError where they are not
/// whole grids, one class each; ValueError for a code that there is not.
template <class T>
[[nodiscard]] nn::Tensor<T> pixelcnn_inputs(const char* function, const PixelCnn<T>& model,
                                            std::span<const std::int64_t> codes,
                                            std::span<const std::int64_t> classes) {
  const Index pixels = model.pixels(), count = static_cast<Index>(codes.size());
  const Index n = count / pixels, wide = pixels + (model.options().classes > 0 ? 1 : 0);
  if (count % pixels != 0) {
    throw ShapeError(
        error_text(function, "codes", "whole grids of " + std::to_string(pixels), count));
  }
  detail::expect_codes(function, codes, model.options().codes);
  expect_size(function, "classes", static_cast<Index>(classes.size()), wide > pixels ? n : 0,
              "classes, one a grid");
  nn::Tensor<T> in({n, wide});
  for (Index i = 0; i < n; ++i) {
    for (Index p = 0; p < pixels; ++p) {
      in[i * wide + p] = static_cast<T>(codes[static_cast<std::size_t>(i * pixels + p)]);
    }
    if (wide > pixels) in[i * wide + pixels] = static_cast<T>(classes[static_cast<std::size_t>(i)]);
  }
  return in;
}

}  // namespace vq
QUERN_NAMESPACE_END

#endif  // QUERN_VQ_PIXELCNN_HPP
