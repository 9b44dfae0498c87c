// SPDX-License-Identifier: Apache-2.0

/// \file
/// Layers whose codes need no search: ScalarQuantizer (FSQ), LookupFreeQuantizer (signs, with the
/// entropy loss) and GumbelQuantizer (a code drawn from logits, with a codebook).

#ifndef QUERN_VQ_CODE_LAYERS_HPP
#define QUERN_VQ_CODE_LAYERS_HPP

#include "quern/core/checks.hpp"
#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/core/nd_array.hpp"
#include "quern/core/parallel.hpp"
#include "quern/core/random.hpp"
#include "quern/kernels/gemm.hpp"
#include "quern/kernels/kernels.hpp"
#include "quern/nn/init.hpp"
#include "quern/nn/layer.hpp"
#include "quern/nn/linear.hpp"
#include "quern/vq/code_sums.hpp"
#include "quern/vq/fsq.hpp"
#include "quern/vq/gumbel.hpp"
#include "quern/vq/lfq.hpp"
#include "quern/vq/nearest.hpp"
#include "quern/vq/quantizer_layer.hpp"

#include <algorithm>
#include <cmath>
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

/// Finite scalar quantisation of the last dimension's numbers, straight through; see fsq.hpp.
template <class T>
class ScalarQuantizer final : public QuantizerLayer<T> {
 public:
  explicit ScalarQuantizer(FsqOptions options = {}) : fsq_(std::move(options)) {}

  [[nodiscard]] std::int64_t codes() const override { return fsq_.codes(); }
  [[nodiscard]] Index dim() const override { return fsq_.cols(); }
  void decode(std::span<const std::int64_t> codes, MatrixView<T> out) const override {
    fsq_.decode(codes, out);
  }
  [[nodiscard]] std::string_view type() const override { return "quern::vq::ScalarQuantizer"; }
  [[nodiscard]] std::unique_ptr<nn::Layer<T>> clone() const override {
    return std::make_unique<ScalarQuantizer>(*this);
  }

 protected:
  void compute(nn::TensorView<const T> in, nn::TensorView<T> out,
               nn::Cache<T>& cache) const override {
    auto& codes = cache.integers(0);
    codes.resize(static_cast<std::size_t>(in.rows().rows()));
    fsq_.quantize(in.rows(), out.rows(), codes);
  }
  void differentiate(nn::TensorView<const T> dout, nn::TensorView<T> din, nn::Cache<T>& cache,
                     nn::GradientsView<T> /*gradients*/) const override {
    if (!din.null()) fsq_.quantize_vjp(cache.input.rows(), dout.rows(), din.rows());
  }

 private:
  FiniteScalarQuantizer<T> fsq_;
};

/// Lookup-free quantisation of the last dimension's B numbers: their signs, straight through, with
/// the entropy and commitment losses of lfq.hpp as the layer's own. The batch's entropy is that of
/// a shard: shards of a batch do not see each other.
template <class T>
class LookupFreeQuantizer final : public QuantizerLayer<T> {
 public:
  /// \p bits numbers a row: 2^bits codes. ValueError outside 1 to 20.
  explicit LookupFreeQuantizer(Index bits, const LfqOptions& options = {})
      : bits_(bits), options_(options) {
    expect_in_range(type(), "bits", bits, Index{1}, Index{20});
  }

  [[nodiscard]] const LfqOptions& options() const noexcept { return options_; }
  [[nodiscard]] std::int64_t codes() const override { return std::int64_t{1} << bits_; }
  [[nodiscard]] Index dim() const override { return bits_; }
  void decode(std::span<const std::int64_t> codes, MatrixView<T> out) const override {
    lfq_decode<T>(codes, out);
  }
  [[nodiscard]] std::string_view type() const override { return "quern::vq::LookupFreeQuantizer"; }
  [[nodiscard]] std::unique_ptr<nn::Layer<T>> clone() const override {
    return std::make_unique<LookupFreeQuantizer>(*this);
  }

 protected:
  void compute(nn::TensorView<const T> in, nn::TensorView<T> out,
               nn::Cache<T>& cache) const override {
    auto& codes = cache.integers(0);
    codes.resize(static_cast<std::size_t>(in.rows().rows()));
    lfq_quantize<T>(in.rows(), out.rows(), codes);
    if (!cache.keep()) return;
    this->saved(cache).loss = lfq_loss<T>(in.rows(), threaded(cache)).total;
  }
  void differentiate(nn::TensorView<const T> dout, nn::TensorView<T> din, nn::Cache<T>& cache,
                     nn::GradientsView<T> /*gradients*/) const override {
    if (din.null()) return;
    lfq_loss_vjp<T>(cache.input.rows(), dout.rows(), this->saved(cache).weight, din.rows(),
                    threaded(cache));
  }

 private:
  [[nodiscard]] LfqOptions threaded(const nn::Cache<T>& cache) const {
    LfqOptions options = options_;
    options.threads = cache.context.threads;
    return options;
  }

  Index bits_;
  LfqOptions options_;
};

struct GumbelQuantizerOptions {
  Index codes = 512;
  Index dim = 64;
  GumbelOptions gumbel = {};
  /// Weight of the layer's own loss, the mean over rows of KL(softmax(logits) || uniform), nats (A.
  /// Ramesh et al., "Zero-shot text-to-image generation", 2021).
  double kl_weight = 0;
};

/// logits = x P^T + b along the last dimension, a code drawn from them by Gumbel-softmax, and the
/// code's row of a trained codebook. (…, d) -> (…, d). In training noise is drawn for every row of
/// seed, step and sample, and the gradient is the softmax's (straight through where hard); in
/// inference it is the likeliest code.
template <class T>
class GumbelQuantizer final : public QuantizerLayer<T> {
 public:
  /// ValueError for sizes below 1 or a temperature that is not positive.
  explicit GumbelQuantizer(const GumbelQuantizerOptions& options = {})
      : options_(options), projection_(options.dim, options.codes) {
    set_temperature(options.gumbel.temperature);
    codebook_.resize({options.codes, options.dim});
    this->initialize(0);
  }

  [[nodiscard]] const GumbelQuantizerOptions& options() const noexcept { return options_; }
  /// For schedules.
  void set_temperature(double temperature) {
    if (!(temperature > 0)) {
      throw ValueError(error_text(type(), "temperature", "a positive number", temperature));
    }
    options_.gumbel.temperature = temperature;
  }
  [[nodiscard]] MatrixView<const T> codebook() const { return codebook_.view().rows(); }
  [[nodiscard]] std::int64_t codes() const override { return options_.codes; }
  [[nodiscard]] Index dim() const override { return options_.dim; }
  void decode(std::span<const std::int64_t> codes, MatrixView<T> out) const override {
    lookup_codes<T>(codebook(), codes, out);
  }
  [[nodiscard]] std::string_view type() const override { return "quern::vq::GumbelQuantizer"; }
  void parameters(nn::ParameterList<T>& out, const std::string& prefix) override {
    projection_.parameters(out, prefix + "projection.");
    out.push_back({.name = prefix + "codebook", .values = codebook_.view(), .decay = false});
  }
  void initialize(std::uint64_t seed, const std::string& prefix = {}) override {
    projection_.initialize(seed, prefix + "projection.");
    nn::init::normal(codebook_.view(), Philox(seed, prefix + "codebook"), 0.0, 1.0);
  }
  [[nodiscard]] std::unique_ptr<nn::Layer<T>> clone() const override {
    auto copy = std::make_unique<GumbelQuantizer>(options_);
    std::copy(projection_.weight().begin(), projection_.weight().end(),
              copy->projection_.weight().begin());
    std::copy(projection_.bias().begin(), projection_.bias().end(),
              copy->projection_.bias().begin());
    copy->codebook_ = codebook_.clone();
    return copy;
  }

 protected:
  // Tensors of a cache: logits, soft, noise, gradient of the choice.
  void compute(nn::TensorView<const T> in, nn::TensorView<T> out,
               nn::Cache<T>& cache) const override {
    const MatrixView<T> logits = rows_of(cache, 0, in), soft = rows_of(cache, 1, in);
    projection_.forward(in, cache.tensor(0).view(), cache.child(0), cache.mode);
    auto& codes = cache.integers(0);
    codes.resize(static_cast<std::size_t>(logits.rows()));
    MatrixView<T> noise;
    if (cache.keep()) {
      noise = rows_of(cache, 2, in);
      draw_noise(noise, in.extent(0), cache.context);
    }
    gumbel_softmax<T>(logits, noise, soft, codes, {}, threaded(cache));
    if (cache.keep() && !options_.gumbel.hard) {
      kernels::gemm<T>(soft, codebook(), out.rows(), {.threads = cache.context.threads});
    } else {
      lookup_codes<T>(codebook(), codes, out.rows(), cache.context.threads);
    }
    if (cache.keep()) this->saved(cache).loss = kl(logits, {}, 0, cache.context.threads);
  }
  void differentiate(nn::TensorView<const T> dout, nn::TensorView<T> din, nn::Cache<T>& cache,
                     nn::GradientsView<T> gradients) const override {
    const MatrixView<const T> above = dout.rows();
    const MatrixView<T> soft = cache.tensor(1).view().rows(),
                        dlogits = rows_of(cache, 3, cache.input);
    const int threads = cache.context.threads;
    if (!gradients.null()) {
      const std::span<T> to = gradients[2];
      const MatrixView<T> dcodebook(to.data(), codebook().extents());
      if (options_.gumbel.hard) {
        NdArray<T, 2> sums(codebook().extents(), core::Fill::none);
        sum_by_code<T>(above, RowsByCode(this->codes_of(cache), options_.codes), sums.view(),
                       threads);
        QUERN_DISPATCH(axpy<T>(T(1), sums.data(), to.size(), to.data()));
      } else {
        kernels::gemm<T>(soft.transposed(), above, dcodebook, {.beta = T(1), .threads = threads});
      }
    }
    kernels::gemm<T>(above, codebook().transposed(), dlogits, {.threads = threads});
    gumbel_softmax_vjp<T>(soft, dlogits, dlogits, threaded(cache));
    kl(cache.tensor(0).view().rows(), dlogits, this->saved(cache).weight, threads);
    projection_.backward(cache.tensor(3).view(), din, cache.child_as_is(0), gradients.part(0, 2));
  }

 private:
  [[nodiscard]] MatrixView<T> rows_of(nn::Cache<T>& cache, std::size_t k,
                                      nn::TensorView<const T> in) const {
    nn::Extents shape = in.shape();
    shape.back() = options_.codes;
    return cache.tensor(k, shape).view().rows();
  }
  [[nodiscard]] GumbelOptions threaded(const nn::Cache<T>& cache) const {
    GumbelOptions options = options_.gumbel;
    options.threads = cache.context.threads;
    return options;
  }
  /// A stream a sample, so that shards draw what the batch would.
  static void draw_noise(MatrixView<T> noise, Index samples, const nn::Context& context) {
    const Index each = samples > 0 ? noise.rows() / samples : 0;
    parallel_for(
        samples,
        [&](std::int64_t i) {
          Philox random = context.random(i);
          gumbel_noise<T>(noise.slice(0, i * each, each), random.next_u64());
        },
        context.threads);
  }
  /// The own loss; where \p dlogits is given, \p weight times its gradient is added there.
  double kl(MatrixView<const T> logits, MatrixView<T> dlogits, double weight, int threads) const {
    if (options_.kl_weight == 0 || logits.rows() == 0) return 0;
    const double each = options_.kl_weight / static_cast<double>(logits.rows());
    const double uniform = std::log(static_cast<double>(options_.codes));
    return parallel_reduce(
        block_count(logits.rows(), detail::search_rows), 0.0,
        [&](std::int64_t b) {
          const BlockRange r = block_range(logits.rows(), detail::search_rows, b);
          double part = 0;
          for (Index i = r.begin; i < r.end; ++i) {
            const T* const row = logits.row_data(i);
            const auto cols = static_cast<std::size_t>(logits.cols());
            const double largest = static_cast<double>(QUERN_DISPATCH(max_value<T>(row, cols)));
            double sum = 0, inner = 0;
            for (Index j = 0; j < logits.cols(); ++j) {
              const double e = std::exp(static_cast<double>(row[j]) - largest);
              sum += e;
              inner += e * (static_cast<double>(row[j]) - largest);
            }
            const double log_sum = std::log(sum), minus_entropy = inner / sum - log_sum;
            part += each * (minus_entropy + uniform);
            for (Index j = 0; !dlogits.is_null() && j < logits.cols(); ++j) {
              const double log_p = static_cast<double>(row[j]) - largest - log_sum;
              dlogits(i, j) +=
                  static_cast<T>(weight * each * std::exp(log_p) * (log_p - minus_entropy));
            }
          }
          return part;
        },
        [](double a, double b) { return a + b; }, threads);
  }

  GumbelQuantizerOptions options_;
  nn::Linear<T> projection_;
  nn::Tensor<T> codebook_;
};

}  // namespace vq
QUERN_NAMESPACE_END

#endif  // QUERN_VQ_CODE_LAYERS_HPP
