// SPDX-License-Identifier: Apache-2.0

/// \file
/// The layer with several codebooks: product, residual and grouped residual quantisation (see
/// product.hpp), learned with the network.

#ifndef QUERN_VQ_GROUPED_QUANTIZER_HPP
#define QUERN_VQ_GROUPED_QUANTIZER_HPP

#include "quern/core/checks.hpp"
#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/core/nd_array.hpp"
#include "quern/core/parallel.hpp"
#include "quern/kernels/kernels.hpp"
#include "quern/nn/layer.hpp"
#include "quern/vq/nearest.hpp"
#include "quern/vq/quantizer_layer.hpp"
#include "quern/vq/straight_through.hpp"
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

struct GroupedVectorQuantizerOptions {
  Index groups = 1;  ///< of consecutive numbers: a divisor of codebook.dim
  Index stages = 1;  ///< codebooks one after the other on what is left
  /// Of each codebook; dim is that of a whole row. Euclidean.
  VectorQuantizerOptions codebook = {};
};

/// Groups of a row's numbers, each the sum of `stages` codes, the first the nearest to the group,
/// the next to what that leaves over, and so on: N x groups x stages codes. stages = 1: product
/// quantisation; groups = 1: residual quantisation.
///
/// Straight through from the sum of all stages to the row (or the rotation of each group onto its
/// sum). The own loss adds up each stage's losses on what is left there, r = x - sg(codes so far),
/// as means over rows and numbers.
template <class T>
class GroupedVectorQuantizer final : public QuantizerLayer<T> {
 public:
  /// ValueError for sizes below 1, groups that do not divide dim, or the cosine.
  explicit GroupedVectorQuantizer(const GroupedVectorQuantizerOptions& options = {})
      : options_(options) {
    expect_in_range(type(), "stages", options.stages, Index{1}, Index{1} << 20);
    const Index dim = options.codebook.dim;
    if (options.groups < 1 || dim % options.groups != 0) {
      throw ValueError(error_text(type(), "groups", "a divisor of dim", options.groups));
    }
    if (options.codebook.nearest.metric != Distance::euclidean) {
      throw ValueError(error_text(type(), "codebook.nearest.metric", "euclidean", "cosine"));
    }
    VectorQuantizerOptions each = options.codebook;
    each.dim = dim / options.groups;
    each.rotation = false;
    for (Index k = 0; k < options.groups * options.stages; ++k) {
      books_.push_back(std::make_unique<VectorQuantizer<T>>(each));
    }
    this->initialize(0);
  }

  [[nodiscard]] const GroupedVectorQuantizerOptions& options() const noexcept { return options_; }
  [[nodiscard]] VectorQuantizer<T>& book(Index group, Index stage) const {
    return *books_[index(group, stage)];
  }
  [[nodiscard]] std::int64_t codes() const override { return options_.codebook.codes; }
  [[nodiscard]] Index dim() const override { return options_.codebook.dim; }
  [[nodiscard]] Index codes_each() const override { return options_.groups * options_.stages; }
  /// ValueError for a code that there is not.
  void decode(std::span<const std::int64_t> codes, MatrixView<T> out) const override {
    constexpr const char* function = "quern::vq::GroupedVectorQuantizer::decode";
    const Index each = codes_each(), rows = out.rows(), w = width();
    expect_size(function, "codes", static_cast<Index>(codes.size()), rows * each,
                "codes, groups x stages a row");
    expect_shape(function, "out", out, {rows, dim()});
    detail::expect_rows_contiguous(function, "out", out);
    detail::expect_codes(function, codes, this->codes());
    for (Index i = 0; i < rows; ++i) {
      std::fill_n(out.row_data(i), dim(), T(0));
      for (Index k = 0; k < each; ++k) {
        const auto code = codes[static_cast<std::size_t>(i * each + k)];
        QUERN_DISPATCH(axpy<T>(T(1), books_[static_cast<std::size_t>(k)]->codebook().row_data(code),
                               static_cast<std::size_t>(w),
                               out.row_data(i) + k / options_.stages * w));
      }
    }
  }
  [[nodiscard]] bool starts_from_data() const override { return true; }
  /// Group by group, stage by stage on what is left: k-means++ and a few of Lloyd's rounds.
  /// ValueError where a stage has fewer different rows than there are codes.
  void fit_codebook(MatrixView<const T> rows, std::uint64_t seed = 0) override {
    std::vector<std::int64_t> found(static_cast<std::size_t>(rows.rows()));
    NdArray<T, 2> chosen({rows.rows(), width()}, core::Fill::none);
    for (Index g = 0; g < options_.groups; ++g) {
      NdArray<T, 2> rest(rows.slice(1, g * width(), width()));
      for (Index q = 0; q < options_.stages; ++q) {
        VectorQuantizer<T>& stage = book(g, q);
        stage.fit_codebook(rest.view(), seed + index(g, q));
        nearest_codes<T>(rest.view(), stage.codebook(), found, {}, options_.codebook.nearest);
        lookup_codes<T>(stage.codebook(), found, chosen.view());
        QUERN_DISPATCH(
            axpy<T>(T(-1), chosen.data(), static_cast<std::size_t>(rest.size()), rest.data()));
      }
    }
  }

  [[nodiscard]] std::string_view type() const override {
    return "quern::vq::GroupedVectorQuantizer";
  }
  void parameters(nn::ParameterList<T>& out, const std::string& prefix) override {
    for (std::size_t k = 0; k < books_.size(); ++k) books_[k]->parameters(out, prefix + name_of(k));
  }
  void buffers(nn::ParameterList<T>& out, const std::string& prefix) override {
    for (std::size_t k = 0; k < books_.size(); ++k) books_[k]->buffers(out, prefix + name_of(k));
  }
  void initialize(std::uint64_t seed, const std::string& prefix = {}) override {
    for (std::size_t k = 0; k < books_.size(); ++k) {
      books_[k]->initialize(seed, prefix + name_of(k));
    }
  }
  void update(std::span<nn::Cache<T>* const> shards) override {
    std::vector<nn::Cache<T>*> own(shards.size());
    for (std::size_t k = 0; k < books_.size(); ++k) {
      for (std::size_t s = 0; s < shards.size(); ++s) own[s] = &shards[s]->child_as_is(k);
      books_[k]->update(own);
    }
  }
  [[nodiscard]] std::unique_ptr<nn::Layer<T>> clone() const override {
    auto copy = std::make_unique<GroupedVectorQuantizer>(options_);
    for (std::size_t k = 0; k < books_.size(); ++k) {
      copy->books_[k].reset(static_cast<VectorQuantizer<T>*>(books_[k]->clone().release()));
    }
    return copy;
  }

 protected:
  // Tensors of a cache: the output, what each codebook was given, what it chose, gradients.
  void compute(nn::TensorView<const T> in, nn::TensorView<T> out,
               nn::Cache<T>& cache) const override {
    const Index n = in.rows().rows(), w = width(), each = codes_each();
    auto& codes = cache.integers(0);
    codes.resize(static_cast<std::size_t>(n * each));
    std::fill(out.begin(), out.end(), T(0));
    double loss = 0;
    for (std::size_t k = 0; k < books_.size(); ++k) {
      const Index column = static_cast<Index>(k) / options_.stages * w;
      const bool first = static_cast<Index>(k) % options_.stages == 0;
      const nn::TensorView<T> rest = cache.tensor(k + 1, {n, w}).view();
      if (first) {
        copy_columns(in.rows().slice(1, column, w), rest.rows());
      } else {
        const T* const before = cache.tensor(k).data();
        const T* const taken = cache.tensor(scratch()).data();
        QUERN_DISPATCH(three_terms<T>(T(1), before, T(-1), taken, T(0), taken,
                                      static_cast<std::size_t>(rest.size()), rest.data()));
      }
      const nn::TensorView<T> chosen = cache.tensor(scratch(), {n, w}).view();
      nn::Cache<T>& own = cache.child(k);
      books_[k]->forward(rest, chosen, own, cache.mode);
      add_columns(chosen.rows(), out.rows().slice(1, column, w));
      loss += this->loss_of(own) / static_cast<double>(options_.groups);
      const auto found = this->codes_of(own);
      for (std::size_t i = 0; i < found.size(); ++i) codes[i * books_.size() + k] = found[i];
    }
    this->saved(cache).loss = loss;
    if (cache.keep() && options_.codebook.rotation) cache.tensor(0).assign(out);
  }

  void differentiate(nn::TensorView<const T> dout, nn::TensorView<T> din, nn::Cache<T>& cache,
                     nn::GradientsView<T> gradients) const override {
    const Index n = dout.rows().rows(), w = width();
    const double weight = this->saved(cache).weight / static_cast<double>(options_.groups);
    const nn::TensorView<T> above = cache.tensor(scratch() + 1, {n, w}).view();
    const nn::TensorView<T> below = din.null() ? din : cache.tensor(scratch() + 2, {n, w}).view();
    if (!din.null()) std::fill(din.begin(), din.end(), T(0));
    std::size_t parameter = 0;
    for (std::size_t k = 0; k < books_.size(); ++k) {
      const Index column = static_cast<Index>(k) / options_.stages * w;
      if (static_cast<Index>(k) % options_.stages != 0) {
        std::fill(above.begin(), above.end(), T(0));
      } else if (options_.codebook.rotation) {
        rotation_trick_vjp<T>(cache.input.rows().slice(1, column, w),
                              std::as_const(cache.tensor(0)).view().rows().slice(1, column, w),
                              dout.rows().slice(1, column, w), above.rows(), cache.context.threads);
      } else {
        copy_columns(dout.rows().slice(1, column, w), above.rows());
      }
      nn::Cache<T>& own = cache.child_as_is(k);
      this->set_weight(own, weight);
      const std::size_t count = nn::parameter_count(*books_[k]);
      books_[k]->backward(above, below, own, gradients.part(parameter, count));
      parameter += count;
      if (!din.null()) add_columns(below.rows(), din.rows().slice(1, column, w));
    }
  }

 private:
  [[nodiscard]] Index width() const { return options_.codebook.dim / options_.groups; }
  [[nodiscard]] std::size_t index(Index group, Index stage) const {
    return static_cast<std::size_t>(group * options_.stages + stage);
  }
  [[nodiscard]] std::size_t scratch() const { return books_.size() + 1; }
  [[nodiscard]] std::string name_of(std::size_t k) const {
    const auto stages = static_cast<std::size_t>(options_.stages);
    return "codebooks." + std::to_string(k / stages) + "." + std::to_string(k % stages) + ".";
  }
  static void copy_columns(MatrixView<const T> from, MatrixView<T> to) {
    for (Index i = 0; i < from.rows(); ++i) {
      std::copy_n(from.row_data(i), from.cols(), to.row_data(i));
    }
  }
  static void add_columns(MatrixView<const T> from, MatrixView<T> to) {
    for (Index i = 0; i < from.rows(); ++i) {
      QUERN_DISPATCH(
          axpy<T>(T(1), from.row_data(i), static_cast<std::size_t>(from.cols()), to.row_data(i)));
    }
  }

  GroupedVectorQuantizerOptions options_;
  std::vector<std::unique_ptr<VectorQuantizer<T>>> books_;
};

}  // namespace vq
QUERN_NAMESPACE_END

#endif  // QUERN_VQ_GROUPED_QUANTIZER_HPP
