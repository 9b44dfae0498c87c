// SPDX-License-Identifier: Apache-2.0

/// \file
/// The layer with one learned codebook: by averages or by gradients, Euclidean or by the cosine,
/// straight through or with the rotation trick.

#ifndef QUERN_VQ_VECTOR_QUANTIZER_HPP
#define QUERN_VQ_VECTOR_QUANTIZER_HPP

#include "quern/core/checks.hpp"
#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/core/nd_array.hpp"
#include "quern/core/random.hpp"
#include "quern/kernels/kernels.hpp"
#include "quern/nn/layer.hpp"
#include "quern/vq/code_sums.hpp"
#include "quern/vq/ema.hpp"
#include "quern/vq/kmeans.hpp"
#include "quern/vq/loss.hpp"
#include "quern/vq/nearest.hpp"
#include "quern/vq/quantizer_layer.hpp"
#include "quern/vq/straight_through.hpp"

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

enum class CodebookLearning {
  ema,      ///< averages of the rows that have a code: no gradient, no optimiser
  gradient  ///< the codebook loss, by whatever optimiser trains the network
};

struct VectorQuantizerOptions {
  Index codes = 512;
  Index dim = 64;
  double beta = 0.25;  ///< weight of the commitment loss
  CodebookLearning learning = CodebookLearning::ema;
  EmaOptions ema = {};
  bool rotation = false;  ///< the rotation trick instead of straight through
  /// EMA: codes whose average count falls below this move to rows of the batch; 0: never.
  double dead_below = 0.01;
  NearestOptions nearest = {};  ///< metric cosine: see VectorQuantizer
};

/// Rows along the last dimension become their nearest code. (…, d) -> (…, d): channels last. With
/// EMA the codebook is a buffer that update() moves once a step, from all shards in order.
///
/// With the cosine, rows and codes count with length 1: the output is the code of length 1, losses
/// and averages are those of the rows of length 1 (as in vector-quantize-pytorch's
/// use_cosine_sim), averaged codes are brought back to length 1, and gradients go through the
/// division by the length. A row of zeros has no direction: its gradient is zero.
template <class T>
class VectorQuantizer final : public QuantizerLayer<T> {
 public:
  /// ValueError for sizes below 1. The codebook is uniform in ±1/K until fit_codebook().
  explicit VectorQuantizer(const VectorQuantizerOptions& options = {}) : options_(options) {
    if (options.codes < 1) throw ValueError(error_text(type(), "codes", ">= 1", options.codes));
    if (options.dim < 1) throw ValueError(error_text(type(), "dim", ">= 1", options.dim));
    codebook_.resize({options.codes, options.dim});
    sums_.resize({options.codes, options.dim});
    sizes_.resize({options.codes});
    steps_.resize({1}, core::Fill::zero);
    this->initialize(0);
  }

  [[nodiscard]] const VectorQuantizerOptions& options() const noexcept { return options_; }
  [[nodiscard]] MatrixView<const T> codebook() const { return codebook_.view().rows(); }
  [[nodiscard]] std::int64_t codes() const override { return options_.codes; }
  [[nodiscard]] Index dim() const override { return options_.dim; }
  void decode(std::span<const std::int64_t> codes, MatrixView<T> out) const override {
    lookup_codes<T>(cosine() ? unit_codes().view() : codebook(), codes, out);
  }

  /// Codes from data: k-means++ and a few of Lloyd's rounds. ValueError where \p rows has fewer
  /// different rows than there are codes.
  void fit_codebook(MatrixView<const T> rows, std::uint64_t seed, int iterations) {
    NdArray<T, 2> unit;
    if (cosine()) {
      unit = NdArray<T, 2>(rows);
      to_unit_rows(unit.view());
      rows = unit.view();
    }
    NearestOptions nearest = options_.nearest;
    nearest.metric = Distance::euclidean;
    kmeans_plus_plus<T>(rows, codebook_.view().rows(), seed, nearest.threads);
    lloyd<T>(rows, codebook_.view().rows(), {.iterations = iterations, .nearest = nearest});
    if (cosine()) to_unit_rows(codebook_.view().rows());
    start_averages();
  }
  [[nodiscard]] bool starts_from_data() const override { return true; }
  void fit_codebook(MatrixView<const T> rows, std::uint64_t seed = 0) override {
    fit_codebook(rows, seed, 5);
  }

  [[nodiscard]] std::string_view type() const override { return "quern::vq::VectorQuantizer"; }
  void parameters(nn::ParameterList<T>& out, const std::string& prefix) override {
    if (options_.learning == CodebookLearning::gradient) {
      out.push_back({.name = prefix + "codebook", .values = codebook_.view(), .decay = false});
    }
  }
  void buffers(nn::ParameterList<T>& out, const std::string& prefix) override {
    if (options_.learning == CodebookLearning::gradient) return;
    out.push_back({prefix + "codebook", codebook_.view()});
    out.push_back({prefix + "cluster_size", sizes_.view()});
    out.push_back({prefix + "cluster_sum", sums_.view()});
    out.push_back({.name = prefix + "steps", .values = steps_.view(), .integer = true});
  }
  void initialize(std::uint64_t seed, const std::string& prefix = {}) override {
    Philox random(seed, prefix + "codebook");
    const T bound = T(1) / static_cast<T>(options_.codes);
    for (T& value : codebook_.span()) value = random.uniform<T>(-bound, bound);
    if (cosine()) to_unit_rows(codebook_.view().rows());
    start_averages();
  }
  void update(std::span<nn::Cache<T>* const> shards) override {
    if (options_.learning == CodebookLearning::gradient || shards.empty()) return;
    EmaCodebook<T> book(codebook(), options_.ema);
    book.set_state(codebook(), sizes_.span(), sums_.view().rows(),
                   static_cast<std::int64_t>(steps_[0]));
    const auto k = static_cast<std::size_t>(options_.codes);
    std::vector<std::int64_t> counts(k, 0);
    NdArray<T, 2> total({options_.codes, options_.dim}), part(total.extents());
    for (nn::Cache<T>* const shard : shards) {
      const RowsByCode by_code(this->codes_of(*shard), options_.codes);
      sum_by_code<T>(rows_of(*shard), by_code, part.view(), options_.nearest.threads);
      for (std::size_t c = 0; c < k; ++c) counts[c] += by_code.count(static_cast<Index>(c));
      for (Index i = 0; i < total.size(); ++i) total.data()[i] += part.data()[i];
    }
    book.update_from(counts, total.view());
    if (options_.dead_below > 0) {
      restart_dead_codes<T>(book, rows_of(*shards.front()), options_.dead_below,
                            shards.front()->context.seed, static_cast<std::uint64_t>(book.steps()));
    }
    keep(book);
  }
  [[nodiscard]] std::unique_ptr<nn::Layer<T>> clone() const override {
    auto copy = std::make_unique<VectorQuantizer>(options_);
    copy->codebook_ = codebook_.clone();
    copy->sums_ = sums_.clone();
    copy->sizes_ = sizes_.clone();
    copy->steps_ = steps_.clone();
    return copy;
  }

 protected:
  void compute(nn::TensorView<const T> in, nn::TensorView<T> out,
               nn::Cache<T>& cache) const override {
    if (cosine()) {
      cache.tensor(1).assign(in);
      to_unit_rows(cache.tensor(1).view().rows());
    }
    const MatrixView<const T> x = rows_of(cache);
    auto& codes = cache.integers(0);
    codes.resize(static_cast<std::size_t>(x.rows()));
    NearestOptions nearest = options_.nearest;
    nearest.threads = cache.context.threads;
    const CodeSearch<T> search(codebook(), nearest);
    search.find(x, codes);
    lookup_codes<T>(search.table(), codes, out.rows(), nearest.threads);
    this->saved(cache).loss = vq_loss<T>(x, out.rows(), loss_options(cache)).total;
    if (cache.keep()) cache.tensor(0).assign(out);
  }
  void differentiate(nn::TensorView<const T> dout, nn::TensorView<T> din, nn::Cache<T>& cache,
                     nn::GradientsView<T> gradients) const override {
    const MatrixView<const T> x = rows_of(cache), q = std::as_const(cache.tensor(0)).view().rows();
    const double weight = this->saved(cache).weight;
    MatrixView<T> dx, dcodebook;
    MatrixView<const T> above = dout.rows();
    if (!din.null()) {
      dx = din.rows();
      if (options_.rotation) {
        rotation_trick_vjp<T>(x, q, above, dx, cache.context.threads);
        above = dx;
      }
    }
    NdArray<T, 2> dunit;
    const bool learned = options_.learning == CodebookLearning::gradient && !gradients.null();
    if (learned && cosine()) {
      dunit.resize({options_.codes, options_.dim});
      dcodebook = dunit.view();
    } else if (learned) {
      dcodebook = MatrixView<T>(gradients[0].data(), {options_.codes, options_.dim});
    }
    vq_loss_vjp<T>(x, q, this->codes_of(cache), above, weight, dx, dcodebook, loss_options(cache));
    if (!cosine()) return;
    if (!dx.is_null()) through_length(cache.input.rows(), dx);
    if (!learned) return;
    through_length(codebook(), dcodebook);
    QUERN_DISPATCH(axpy<T>(T(1), dunit.data(), gradients[0].size(), gradients[0].data()));
  }

 private:
  [[nodiscard]] VqLossOptions loss_options(const nn::Cache<T>& cache) const {
    const bool learned = options_.learning == CodebookLearning::gradient;
    return {.beta = options_.beta,
            .codebook_weight = learned ? 1.0 : 0.0,
            .threads = cache.context.threads};
  }
  [[nodiscard]] bool cosine() const { return options_.nearest.metric == Distance::cosine; }
  /// What is quantised: the input's rows, or those of length 1.
  [[nodiscard]] MatrixView<const T> rows_of(nn::Cache<T>& cache) const {
    return cosine() ? std::as_const(cache.tensor(1)).view().rows() : cache.input.rows();
  }
  static void to_unit_rows(MatrixView<T> rows) {
    QUERN_DISPATCH(
        unit_rows<T>(rows.data(), rows.row_stride(), static_cast<std::size_t>(rows.rows()),
                     static_cast<std::size_t>(rows.cols()), rows.data(), rows.row_stride()));
  }
  /// Gradients of rows from those of the rows of length 1, in place.
  static void through_length(MatrixView<const T> x, MatrixView<T> gradient) {
    QUERN_DISPATCH(unit_rows_gradient<T>(
        x.data(), x.row_stride(), static_cast<std::size_t>(x.rows()),
        static_cast<std::size_t>(x.cols()), gradient.data(), gradient.row_stride()));
  }
  [[nodiscard]] NdArray<T, 2> unit_codes() const {
    NdArray<T, 2> unit(codebook());
    to_unit_rows(unit.view());
    return unit;
  }
  void start_averages() {
    const bool plain = options_.ema.convention == EmaConvention::plain;
    std::fill(sizes_.span().begin(), sizes_.span().end(), plain ? T(1) : T(0));
    std::fill(sums_.span().begin(), sums_.span().end(), T(0));
    if (plain) std::copy(codebook_.span().begin(), codebook_.span().end(), sums_.data());
    steps_[0] = T(0);
  }
  void keep(const EmaCodebook<T>& book) {
    const MatrixView<const T> codes = book.codebook(), sums = book.cluster_sums();
    std::copy_n(codes.data(), codes.size(), codebook_.data());
    if (cosine()) to_unit_rows(codebook_.view().rows());
    std::copy_n(sums.data(), sums.size(), sums_.data());
    std::copy(book.cluster_sizes().begin(), book.cluster_sizes().end(), sizes_.data());
    steps_[0] = static_cast<T>(book.steps());
  }

  VectorQuantizerOptions options_;
  nn::Tensor<T> codebook_, sums_, sizes_, steps_;
};

}  // namespace vq
QUERN_NAMESPACE_END

#endif  // QUERN_VQ_VECTOR_QUANTIZER_HPP
