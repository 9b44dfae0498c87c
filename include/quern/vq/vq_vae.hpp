// SPDX-License-Identifier: Apache-2.0

/// \file
/// VQ-VAE as a ready model (van den Oord et al. 2017): residual convolutional encoder, quantiser,
/// residual decoder with any of the upsamplings; and its training loop.
///
///     vq::VqVae<float> model({.channels = 1});
///     vq::fit_vq_vae(model, images, {.epochs = 6});           // images (N, H, W, C), channels
///     last auto codes = model.encode(images);  auto again = model.decode(codes, h, w);

#ifndef QUERN_VQ_VQ_VAE_HPP
#define QUERN_VQ_VQ_VAE_HPP

#include "quern/core/checks.hpp"
#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/core/parallel.hpp"
#include "quern/core/progress.hpp"
#include "quern/nn/activation.hpp"
#include "quern/nn/containers.hpp"
#include "quern/nn/conv.hpp"
#include "quern/nn/layer.hpp"
#include "quern/nn/sequential.hpp"
#include "quern/nn/shuffle.hpp"
#include "quern/nn/upsample.hpp"
#include "quern/vq/code_layers.hpp"
#include "quern/vq/quantizer_layer.hpp"
#include "quern/vq/usage.hpp"
#include "quern/vq/vector_quantizer.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace vq {

/// How the decoder doubles height and width.
enum class DecoderUpsampling {
  transposed,     ///< transposed convolution, kernel 4, stride 2
  nearest,        ///< nearest, then a convolution of 3 x 3
  bilinear,       ///< bilinear, then a convolution
  bicubic,        ///< bicubic, then a convolution
  pixel_shuffle,  ///< a convolution to four times the channels, then their pixels
};

enum class Quantization {
  codebook,  ///< VectorQuantizer
  scalar,    ///< ScalarQuantizer (FSQ)
  none       ///< none at all: what discreteness costs
};

struct VqVaeOptions {
  Index channels = 1;                    ///< of images
  std::vector<Index> widths = {32, 64};  ///< channels after each halving of height and width
  Index residual_blocks = 2;
  Index residual_width = 32;
  /// Nothing but the halvings and doublings: the last halving gives the latent itself (its channels
  /// are the latent's), and the decoder starts from it.
  bool plain = false;
  DecoderUpsampling upsampling = DecoderUpsampling::transposed;
  Quantization quantization = Quantization::codebook;
  VectorQuantizerOptions codebook = {};  ///< its dim is the latent's, also without quantisation
  FsqOptions scalar = {};                ///< levels.size() is the latent's, where scalar
};

/// Autoencoder with a quantiser in the middle. A layer: images (N, H, W, C) to reconstructions of
/// the same shape; height and width multiples of 2 to the number of widths.
template <class T>
class VqVae final : public nn::Layer<T> {
 public:
  /// ValueError for options that do not go together.
  explicit VqVae(VqVaeOptions options = {}) : VqVae(options, made_quantizer(options)) {
    VqVae::initialize(0);
  }
  /// The same with any quantiser (or none: null), whatever options.quantization says, as it is: its
  /// dim() is the latent's.
  VqVae(VqVaeOptions options, std::unique_ptr<QuantizerLayer<T>> quantizer)
      : options_(std::move(options)), quantizer_(std::move(quantizer)) {
    if (options_.channels < 1 || options_.widths.empty()) {
      throw ValueError(
          error_text(type(), "channels, widths", "at least one of each", options_.channels));
    }
    dim_ = quantizer_ ? quantizer_->dim() : options_.codebook.dim;
    if (options_.plain) {
      options_.residual_blocks = 0;
      options_.widths.back() = dim_;
    }
    make_encoder();
    make_decoder();
    encoder_.initialize(0, "encoder.");
    decoder_.initialize(0, "decoder.");
  }

  [[nodiscard]] const VqVaeOptions& options() const noexcept { return options_; }
  [[nodiscard]] nn::Sequential<T>& encoder() noexcept { return encoder_; }
  [[nodiscard]] nn::Sequential<T>& decoder() noexcept { return decoder_; }
  /// Null without quantisation.
  [[nodiscard]] QuantizerLayer<T>* quantizer() const noexcept { return quantizer_.get(); }
  /// Pixels along one side of an image for one code.
  [[nodiscard]] Index stride() const noexcept { return Index{1} << options_.widths.size(); }
  /// Shape of the latent of these images.
  [[nodiscard]] nn::Extents latent_shape(const nn::Extents& images) const {
    check_images(images);
    return {images[0], images[1] / stride(), images[2] / stride(), dim_};
  }
  /// Perplexity of the codes of the last step of training.
  [[nodiscard]] double perplexity() const noexcept { return perplexity_; }

  /// Latents (N, h, w, dim) of images, before quantisation.
  [[nodiscard]] nn::Tensor<T> latents(nn::TensorView<const T> images, int threads = 0) const {
    nn::Tensor<T> z(latent_shape(images.shape()));
    in_batches(images, z.view(), encoder_, threads);
    return z;
  }
  /// Codes of images, N h w of them in raster order (quantizer()->codes_each() times that, those of
  /// a place together). ValueError without a quantiser.
  [[nodiscard]] std::vector<std::int64_t> encode(nn::TensorView<const T> images,
                                                 int threads = 0) const {
    expect_quantizer("quern::vq::VqVae::encode");
    const nn::Tensor<T> z = latents(images, threads);
    nn::Cache<T> cache;
    cache.context.threads = threads;
    nn::Tensor<T> q(z.shape(), core::Fill::none);
    quantizer_->forward(z.view(), q.view(), cache, nn::Mode::inference);
    const auto codes = QuantizerLayer<T>::codes_of(cache);
    return {codes.begin(), codes.end()};
  }
  /// Images of grids of h x w codes.
  [[nodiscard]] nn::Tensor<T> decode(std::span<const std::int64_t> codes, Index h, Index w,
                                     int threads = 0) const {
    constexpr const char* function = "quern::vq::VqVae::decode";
    expect_quantizer(function);
    expect_in_range(function, "h, w", (std::min)(h, w), Index{1}, Index{1} << 30);
    const Index count = static_cast<Index>(codes.size()), each = h * w * quantizer_->codes_each();
    if (count % each != 0) {
      throw ShapeError(
          error_text(function, "codes", "whole grids of " + std::to_string(each), count));
    }
    nn::Tensor<T> q({count / each, h, w, dim_});
    quantizer_->decode(codes, q.view().rows());
    nn::Tensor<T> images({count / each, h * stride(), w * stride(), options_.channels});
    in_batches(q.view(), images.view(), decoder_, threads);
    return images;
  }
  /// What images come back as.
  [[nodiscard]] nn::Tensor<T> reconstruct(nn::TensorView<const T> images, int threads = 0) const {
    nn::Tensor<T> out(images.shape(), core::Fill::none);
    in_batches(images, out.view(), *this, threads);
    return out;
  }

  [[nodiscard]] std::string_view type() const override { return "quern::vq::VqVae"; }
  [[nodiscard]] nn::Extents output_shape(const nn::Extents& in) const override {
    check_images(in);
    return in;
  }
  void parameters(nn::ParameterList<T>& out, const std::string& prefix) override {
    encoder_.parameters(out, prefix + "encoder.");
    if (quantizer_) quantizer_->parameters(out, prefix + "quantizer.");
    decoder_.parameters(out, prefix + "decoder.");
  }
  void buffers(nn::ParameterList<T>& out, const std::string& prefix) override {
    if (quantizer_) quantizer_->buffers(out, prefix + "quantizer.");
  }
  void initialize(std::uint64_t seed, const std::string& prefix = {}) override {
    encoder_.initialize(seed, prefix + "encoder.");
    if (quantizer_) quantizer_->initialize(seed, prefix + "quantizer.");
    decoder_.initialize(seed, prefix + "decoder.");
  }
  void update(std::span<nn::Cache<T>* const> shards) override {
    if (!quantizer_) return;
    CodeUsage usage(quantizer_->codes());
    std::vector<nn::Cache<T>*> own;
    for (nn::Cache<T>* const shard : shards) {
      own.push_back(&shard->child_as_is(1));
      usage.add(QuantizerLayer<T>::codes_of(*own.back()));
    }
    perplexity_ = usage.perplexity();
    quantizer_->update(own);
  }
  [[nodiscard]] std::unique_ptr<nn::Layer<T>> clone() const override {
    std::unique_ptr<QuantizerLayer<T>> quantizer;
    if (quantizer_) {
      quantizer.reset(static_cast<QuantizerLayer<T>*>(quantizer_->clone().release()));
    }
    auto copy = std::make_unique<VqVae>(options_, std::move(quantizer));
    copy->encoder_ = encoder_;
    copy->decoder_ = decoder_;
    return copy;
  }

  /// The quantiser's own loss in a forward with this cache, and its weight in backward.
  [[nodiscard]] double quantizer_loss(nn::Cache<T>& cache) const {
    return quantizer_ ? QuantizerLayer<T>::loss_of(cache.child_as_is(1)) : 0;
  }
  void set_quantizer_weight(nn::Cache<T>& cache, double weight) const {
    if (quantizer_) QuantizerLayer<T>::set_weight(cache.child_as_is(1), weight);
  }

 protected:
  void compute(nn::TensorView<const T> in, nn::TensorView<T> out,
               nn::Cache<T>& cache) const override {
    const nn::Extents shape = latent_shape(in.shape());
    const nn::TensorView<T> z = cache.tensor(0, shape).view();
    encoder_.forward(in, z, cache.child(0), cache.mode);
    nn::TensorView<T> q = z;
    if (quantizer_) {
      q = cache.tensor(1, shape).view();
      quantizer_->forward(z, q, cache.child(1), cache.mode);
    }
    decoder_.forward(q, out, cache.child(2), cache.mode);
  }
  void differentiate(nn::TensorView<const T> dout, nn::TensorView<T> din, nn::Cache<T>& cache,
                     nn::GradientsView<T> gradients) const override {
    const nn::Extents shape = cache.tensor(0).shape();
    nn::TensorView<T> dq = cache.tensor(2, shape).view(), dz = dq;
    const std::size_t first = encoder_parameters_, own = quantizer_parameters_;
    decoder_.backward(dout, dq, cache.child_as_is(2),
                      gradients.part(first + own, decoder_parameters_));
    if (quantizer_) {
      dz = cache.tensor(3, shape).view();
      quantizer_->backward(dq, dz, cache.child_as_is(1), gradients.part(first, own));
    }
    encoder_.backward(dz, din, cache.child_as_is(0), gradients.part(0, first));
  }

 private:
  static constexpr Index batch_rows = 128;

  static std::unique_ptr<QuantizerLayer<T>> made_quantizer(const VqVaeOptions& options) {
    if (options.quantization == Quantization::codebook) {
      return std::make_unique<VectorQuantizer<T>>(options.codebook);
    }
    if (options.quantization == Quantization::scalar) {
      return std::make_unique<ScalarQuantizer<T>>(options.scalar);
    }
    return nullptr;
  }
  void check_images(const nn::Extents& in) const {
    if (in.size() == 4 && in[3] == options_.channels && in[1] % stride() == 0 &&
        in[2] % stride() == 0 && in[1] > 0 && in[2] > 0) {
      return;
    }
    throw ShapeError(error_text(type(), "images",
                                "N x H x W x " + std::to_string(options_.channels) +
                                    " with H and W multiples of " + std::to_string(stride()),
                                nn::shape_text(in)));
  }
  void expect_quantizer(const char* function) const {
    if (quantizer_) return;
    throw ValueError(error_text(function, "quantization", "a quantiser", "none"));
  }
  static nn::Conv2dOptions square(Index kernel, Index stride = 1) {
    return {.kernel = kernel,
            .stride = stride,
            .padding = (kernel - 1) / 2,
            .layout = nn::Layout::channels_last};
  }
  void add_residual(nn::Sequential<T>& to, Index width) const {
    for (Index k = 0; k < options_.residual_blocks; ++k) {
      auto inner = std::make_unique<nn::Sequential<T>>();
      inner->template emplace<nn::ReLU<T>>();
      inner->template emplace<nn::Conv2d<T>>(width, options_.residual_width, square(3));
      inner->template emplace<nn::ReLU<T>>();
      inner->template emplace<nn::Conv2d<T>>(options_.residual_width, width, square(1));
      to.template emplace<nn::Residual<T>>(std::move(inner));
    }
  }
  void make_encoder() {
    Index width = options_.channels;
    for (std::size_t k = 0; k < options_.widths.size(); ++k) {
      const Index next = options_.widths[k];
      encoder_.template emplace<nn::Conv2d<T>>(width, next, square(4, 2));
      if (!options_.plain || k + 1 < options_.widths.size()) {
        encoder_.template emplace<nn::ReLU<T>>();
      }
      width = next;
    }
    if (!options_.plain) {
      encoder_.template emplace<nn::Conv2d<T>>(width, width, square(3));
      add_residual(encoder_, width);
      encoder_.template emplace<nn::ReLU<T>>();
      encoder_.template emplace<nn::Conv2d<T>>(width, dim_, square(1));
    }
    encoder_parameters_ = nn::parameter_count(encoder_);
    quantizer_parameters_ = quantizer_ ? nn::parameter_count(*quantizer_) : 0;
  }
  void make_decoder() {
    Index width = options_.widths.back();
    if (!options_.plain) {
      decoder_.template emplace<nn::Conv2d<T>>(dim_, width, square(3));
      add_residual(decoder_, width);
      decoder_.template emplace<nn::ReLU<T>>();
    }
    for (std::size_t k = options_.widths.size(); k-- > 0;) {
      const Index next = k > 0 ? options_.widths[k - 1] : options_.channels;
      add_doubling(width, next);
      if (k > 0) decoder_.template emplace<nn::ReLU<T>>();
      width = next;
    }
    decoder_parameters_ = nn::parameter_count(decoder_);
  }
  void add_doubling(Index in, Index out) {
    using nn::Interpolation;
    if (options_.upsampling == DecoderUpsampling::transposed) {
      decoder_.template emplace<nn::ConvTranspose2d<T>>(in, out, square(4, 2));
    } else if (options_.upsampling == DecoderUpsampling::pixel_shuffle) {
      decoder_.template emplace<nn::Conv2d<T>>(in, 4 * out, square(3));
      decoder_.template emplace<nn::PixelShuffle<T>>(2, nn::Layout::channels_last);
    } else {
      const bool bicubic = options_.upsampling == DecoderUpsampling::bicubic;
      const bool nearest = options_.upsampling == DecoderUpsampling::nearest;
      const Interpolation mode = bicubic   ? Interpolation::cubic
                                 : nearest ? Interpolation::nearest
                                           : Interpolation::linear;
      decoder_.template emplace<nn::Upsample<T>>(2.0, mode, nn::Layout::channels_last);
      decoder_.template emplace<nn::Conv2d<T>>(in, out, square(3));
    }
  }
  /// A layer over many samples, some at a time.
  static void in_batches(nn::TensorView<const T> in, nn::TensorView<T> out,
                         const nn::Layer<T>& layer, int threads) {
    const Index n = in.extent(0);
    parallel_for(
        block_count(n, batch_rows),
        [&](std::int64_t b) {
          const BlockRange r = block_range(n, batch_rows, b);
          nn::Cache<T> cache;
          layer.forward(in.slice(r.begin, r.size()), out.slice(r.begin, r.size()), cache,
                        nn::Mode::inference);
        },
        threads);
  }

  VqVaeOptions options_;
  std::unique_ptr<QuantizerLayer<T>> quantizer_;
  Index dim_ = 0;
  nn::Sequential<T> encoder_, decoder_;
  std::size_t encoder_parameters_ = 0, quantizer_parameters_ = 0, decoder_parameters_ = 0;
  double perplexity_ = 0;
};

}  // namespace vq
QUERN_NAMESPACE_END

#endif  // QUERN_VQ_VQ_VAE_HPP
