// SPDX-License-Identifier: Apache-2.0

/// \file
/// A prior for grids of codes: the gated PixelCNN (A. van den Oord, N. Kalchbrenner, O. Vinyals,
/// L. Espeholt, A. Graves, K. Kavukcuoglu, "Conditional image generation with PixelCNN decoders",
/// 2016), conditional on a class.
///
///   e = embedding of the codes, h = conv of e with mask A (nothing of the pixel itself),
///   h <- h + W (tanh(a) sigmoid(b)), (a | b) = conv of h with mask B + a row of the class, per
///   layer, logits = WO relu(h).
///
/// One stack of masked convolutions, where the paper has two: what lies above and to the right
/// beyond the first kernel's reach would never be seen ("blind spot"). So that kernel is as wide as
/// the grid needs: 2 W - 1 columns.

#ifndef QUERN_VQ_PIXELCNN_HPP
#define QUERN_VQ_PIXELCNN_HPP

#include "quern/core/checks.hpp"
#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/kernels/kernels.hpp"
#include "quern/nn/activation.hpp"
#include "quern/nn/conv.hpp"
#include "quern/nn/embedding.hpp"
#include "quern/nn/init.hpp"
#include "quern/nn/layer.hpp"
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
  Index layers = 6;        ///< gated ones, after the first convolution
  Index first_kernel = 7;  ///< rows of the first kernel; odd
  Index first_width = 0;   ///< its columns, odd; 0: 2 width - 1, from which on nothing is missed
  Index kernel = 3;        ///< of the gated layers; odd
  bool bias = true;
};

/// Logits of every code of a grid given those before it in raster order (and the class).
///
/// A layer: in (N, H W) holds codes as numbers, with classes (N, H W + 1), the class last; out
/// (N, H, W, K). Trained with nn::cross_entropy_loss against the codes themselves; the input has no
/// gradient.
template <class T>
class PixelCnn final : public nn::Layer<T> {
 public:
  /// ValueError for sizes below 1 and even kernels.
  explicit PixelCnn(const PixelCnnOptions& options = {}) : options_(options) {
    if (options_.first_width == 0) options_.first_width = 2 * options_.width - 1;
    for (const Index size : {options.codes, options.height, options.width, options.channels}) {
      if (size < 1) throw ValueError(error_text(type(), "sizes", "at least 1", size));
    }
    if (options.classes < 0 || options.layers < 0) {
      throw ValueError(error_text(type(), "classes, layers", "at least 0",
                                  (std::min)(options.classes, options.layers)));
    }
    const Index c = options.channels;
    add("embedding", std::make_unique<nn::Embedding<T>>(options.codes, c));
    add("first", conv(c, c, {options_.first_kernel, options_.first_width}, nn::ConvMask::a));
    for (Index k = 0; k < options.layers; ++k) {
      const std::string name = "layers." + std::to_string(k);
      add(name + ".gate", conv(c, 2 * c, options.kernel, nn::ConvMask::b));
      add(name + ".out", conv(c, c, 1, nn::ConvMask::none));
      if (options.classes > 0) classes_.emplace_back().resize({options.classes, 2 * c});
    }
    add("logits", conv(c, options.codes, 1, nn::ConvMask::none));
    PixelCnn::initialize(0);
  }

  [[nodiscard]] const PixelCnnOptions& options() const noexcept { return options_; }
  [[nodiscard]] Index pixels() const noexcept { return options_.height * options_.width; }
  [[nodiscard]] nn::Embedding<T>& embedding() const { return at<nn::Embedding<T>>(0); }
  [[nodiscard]] nn::Conv2d<T>& first() const { return at<nn::Conv2d<T>>(1); }
  [[nodiscard]] nn::Conv2d<T>& gate(Index k) const { return at<nn::Conv2d<T>>(gate_at(k)); }
  [[nodiscard]] nn::Conv2d<T>& gated_out(Index k) const {
    return at<nn::Conv2d<T>>(gate_at(k) + 1);
  }
  [[nodiscard]] nn::Conv2d<T>& logits() const { return at<nn::Conv2d<T>>(children_.size() - 1); }
  /// What layer k adds to its gates for each class: (classes, 2 channels).
  [[nodiscard]] nn::TensorView<const T> class_rows(Index k) const {
    return classes_[static_cast<std::size_t>(k)].view();
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
  void parameters(nn::ParameterList<T>& out, const std::string& prefix) override {
    for (const auto& child : children_) child.layer->parameters(out, prefix + child.name + ".");
    for (std::size_t k = 0; k < classes_.size(); ++k) {
      out.push_back({prefix + "layers." + std::to_string(k) + ".class", classes_[k].view()});
    }
  }
  void initialize(std::uint64_t seed, const std::string& prefix = {}) override {
    for (const auto& child : children_) child.layer->initialize(seed, prefix + child.name + ".");
    for (std::size_t k = 0; k < classes_.size(); ++k) {
      nn::init::normal(classes_[k].view(), Philox(seed, prefix + "class", k), 0.0, 0.02);
    }
  }
  [[nodiscard]] std::unique_ptr<nn::Layer<T>> clone() const override {
    auto copy = std::make_unique<PixelCnn>(options_);
    for (std::size_t k = 0; k < children_.size(); ++k) {
      copy->children_[k].layer = children_[k].layer->clone();
    }
    for (std::size_t k = 0; k < classes_.size(); ++k) copy->classes_[k] = classes_[k].clone();
    return copy;
  }

 protected:
  // Tensors of a cache: codes, embedded codes, h, then u and g of each layer, then relu(h).
  void compute(nn::TensorView<const T> in, nn::TensorView<T> out,
               nn::Cache<T>& cache) const override {
    const Index n = in.extent(0), c = options_.channels;
    split_input(in, cache);
    nn::TensorView<T> e =
        run(0, cache.tensor(0).view(), cache, 1, {n, options_.height, options_.width, c});
    nn::TensorView<T> h = run(1, e, cache, 2, e.shape());
    for (Index k = 0; k < options_.layers; ++k) {
      const std::size_t t = place_of(k);
      nn::Extents wide = h.shape();
      wide.back() = 2 * c;
      const nn::TensorView<T> u = run(gate_at(k), h, cache, t, wide);
      const nn::TensorView<T> g = cache.tensor(t + 1, h.extents()).view();
      for_samples(
          cache,
          [&](Index i, std::size_t rows, const T* add) {
            const Index from = i * static_cast<Index>(rows) * c;
            QUERN_DISPATCH(tanh_gate<T>(rows, static_cast<std::size_t>(c), u.data() + 2 * from, add,
                                        g.data() + from));
          },
          k);
      const nn::TensorView<T> r = run(gate_at(k) + 1, g, cache, t + 2, h.shape());
      QUERN_DISPATCH(axpy<T>(T(1), h.data(), static_cast<std::size_t>(h.size()), r.data()));
      h = r;
    }
    const nn::TensorView<T> z = cache.tensor(place_of(options_.layers), h.extents()).view();
    relu_.forward(h, z, cache.child(children_.size()), cache.mode);
    const std::size_t last = children_.size() - 1;
    children_[last].layer->forward(z, out, cache.child(last), cache.mode);
  }

  void differentiate(nn::TensorView<const T> dout, nn::TensorView<T> din, nn::Cache<T>& cache,
                     nn::GradientsView<T> gradients) const override {
    if (!din.null()) std::fill(din.begin(), din.end(), T{});
    const std::size_t last = children_.size() - 1, spare = place_of(options_.layers) + 1;
    const nn::Extents shape = cache.tensor(2).shape();
    nn::Extents wide = shape;
    wide.back() *= 2;
    nn::TensorView<T> dz = cache.tensor(spare, shape).view(),
                      dh = cache.tensor(spare + 1, shape).view();
    nn::TensorView<T> du = cache.tensor(spare + 2, wide).view(),
                      dg = cache.tensor(spare + 3, shape).view();
    back(last, dout, dz, cache, gradients);
    relu_.backward(dz, dh, cache.child_as_is(last + 1), {});
    for (Index k = options_.layers; k-- > 0;) {
      back(gate_at(k) + 1, dh, dg, cache, gradients);
      const nn::Tensor<T>& u = cache.tensor(place_of(k));
      for_samples(
          cache,
          [&](Index i, std::size_t rows, const T* add) {
            const Index from = i * static_cast<Index>(rows) * options_.channels;
            QUERN_DISPATCH(tanh_gate_gradient<T>(rows, static_cast<std::size_t>(options_.channels),
                                                 u.data() + 2 * from, add, dg.data() + from,
                                                 du.data() + 2 * from));
          },
          k);
      add_class_gradient(k, du, cache, gradients);
      back(gate_at(k), du, dz, cache, gradients);
      QUERN_DISPATCH(axpy<T>(T(1), dz.data(), static_cast<std::size_t>(dz.size()), dh.data()));
    }
    back(1, dh, dz, cache, gradients);
    back(0, dz, {}, cache, gradients);
  }

 private:
  struct Child {
    std::string name;
    std::unique_ptr<nn::Layer<T>> layer;
    std::size_t first = 0, count = 0;  ///< its parameters' numbers
  };

  void add(std::string name, std::unique_ptr<nn::Layer<T>> layer) {
    const std::size_t first =
        children_.empty() ? 0 : children_.back().first + children_.back().count;
    const std::size_t count = nn::parameter_count(*layer);
    children_.push_back({std::move(name), std::move(layer), first, count});
  }
  template <class L>
  [[nodiscard]] L& at(std::size_t k) const {
    return static_cast<L&>(*children_[k].layer);
  }
  static std::size_t gate_at(Index k) { return 2 + 2 * static_cast<std::size_t>(k); }
  static std::size_t place_of(Index k) { return 3 + 3 * static_cast<std::size_t>(k); }
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

  /// Codes into tensor 0, classes into integers 0. ValueError for a class that there is not.
  void split_input(nn::TensorView<const T> in, nn::Cache<T>& cache) const {
    const Index n = in.extent(0), all = in.extent(1);
    nn::Tensor<T>& codes = cache.tensor(0, {n, options_.height, options_.width});
    auto& classes = cache.integers(0);
    classes.assign(static_cast<std::size_t>(n), -1);
    for (Index i = 0; i < n; ++i) {
      std::copy_n(in.data() + i * all, pixels(), codes.data() + i * pixels());
      if (options_.classes == 0) continue;
      const T value = in[i * all + pixels()];
      if (!(value >= T(0) && value < static_cast<T>(options_.classes))) {
        throw ValueError(
            error_text(type(), "class", "0 to " + std::to_string(options_.classes - 1), value));
      }
      classes[static_cast<std::size_t>(i)] = static_cast<std::int64_t>(value);
    }
  }
  nn::TensorView<T> run(std::size_t child, nn::TensorView<const T> in, nn::Cache<T>& cache,
                        std::size_t place, const nn::Extents& shape) const {
    const nn::TensorView<T> out = cache.tensor(place, shape).view();
    children_[child].layer->forward(in, out, cache.child(child), cache.mode);
    return out;
  }
  void back(std::size_t child, nn::TensorView<const T> dout, nn::TensorView<T> din,
            nn::Cache<T>& cache, const nn::GradientsView<T>& gradients) const {
    const Child& c = children_[child];
    c.layer->backward(dout, din, cache.child_as_is(child), gradients.part(c.first, c.count));
  }
  /// f(sample, its pixels, the class's row of layer k or null).
  template <class F>
  void for_samples(nn::Cache<T>& cache, const F& f, Index k) const {
    const auto& classes = cache.integers(0);
    parallel_for(
        static_cast<Index>(classes.size()),
        [&](std::int64_t i) {
          const std::int64_t label = classes[static_cast<std::size_t>(i)];
          const T* const add =
              label < 0 ? nullptr : class_rows(k).data() + label * 2 * options_.channels;
          f(i, static_cast<std::size_t>(pixels()), add);
        },
        cache.context.threads);
  }
  void add_class_gradient(Index k, nn::TensorView<const T> du, nn::Cache<T>& cache,
                          const nn::GradientsView<T>& gradients) const {
    if (options_.classes == 0 || gradients.null()) return;
    const std::size_t parameter = children_.back().first + children_.back().count;
    const std::span<T> to = gradients[parameter + static_cast<std::size_t>(k)];
    const Index wide = 2 * options_.channels;
    std::vector<T> sums(static_cast<std::size_t>(wide));
    const auto& classes = cache.integers(0);
    for (std::size_t i = 0; i < classes.size(); ++i) {
      const T* const from = du.data() + static_cast<Index>(i) * pixels() * wide;
      QUERN_DISPATCH(column_sums<T>(static_cast<std::size_t>(pixels()),
                                    static_cast<std::size_t>(wide), from, wide, sums.data()));
      QUERN_DISPATCH(axpy<T>(T(1), sums.data(), sums.size(), to.data() + classes[i] * wide));
    }
  }

  PixelCnnOptions options_;
  std::vector<Child> children_;
  std::vector<nn::Tensor<T>> classes_;
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
