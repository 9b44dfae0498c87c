// SPDX-License-Identifier: Apache-2.0

/// \file
/// nn::Embedding: rows of a table by their number.

#ifndef QUERN_NN_EMBEDDING_HPP
#define QUERN_NN_EMBEDDING_HPP

#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/core/parallel.hpp"
#include "quern/core/random.hpp"
#include "quern/nn/init.hpp"
#include "quern/nn/layer.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace nn {

/// out[…, :] = weight[in[…], :]. The input holds whole numbers as T (exact up to 2^24 in float);
/// its gradient is zero, for it has none. Weight (rows, dim), normal at first as PyTorch's.
template <class T>
class Embedding final : public Layer<T> {
 public:
  /// `padding`: this row is zero at first and gets no gradient; -1: none. ValueError for sizes
  /// below 1 and a padding row that is not there.
  Embedding(Index rows, Index dim, Index padding = -1) : rows_(rows), dim_(dim), padding_(padding) {
    if (rows < 1) throw ValueError(error_text(type(), "rows", "at least 1", rows));
    if (dim < 1) throw ValueError(error_text(type(), "dim", "at least 1", dim));
    if (padding < -1 || padding >= rows) {
      throw ValueError(error_text(type(), "padding", "a row, or -1", padding));
    }
    weight_.resize({rows, dim});
    this->initialize(0);
  }

  [[nodiscard]] TensorView<T> weight() { return weight_.view(); }
  [[nodiscard]] TensorView<const T> weight() const { return weight_.view(); }

  [[nodiscard]] std::string_view type() const override { return "quern::nn::Embedding"; }
  [[nodiscard]] Extents output_shape(const Extents& in) const override {
    if (in.size() >= static_cast<std::size_t>(max_rank)) {
      throw ShapeError(error_text(type(), "in", "at most 5 dimensions", shape_text(in)));
    }
    Extents out = in;
    out.push_back(dim_);
    return out;
  }
  void parameters(ParameterList<T>& out, const std::string& prefix) override {
    out.push_back({prefix + "weight", weight_.view()});
  }
  void initialize(std::uint64_t seed, const std::string& prefix = {}) override {
    init::normal(weight_.view(), Philox(seed, prefix + "weight"));
    if (padding_ >= 0) std::fill_n(weight_.data() + padding_ * dim_, dim_, T{});
  }
  [[nodiscard]] std::unique_ptr<Layer<T>> clone() const override {
    auto copy = std::make_unique<Embedding>(rows_, dim_, padding_);
    copy->weight_ = weight_.clone();
    return copy;
  }

 protected:
  void compute(TensorView<const T> in, TensorView<T> out, Cache<T>& cache) const override {
    std::vector<std::int64_t>& rows = cache.integers(0);
    rows.resize(static_cast<std::size_t>(in.size()));
    for (std::size_t i = 0; i < rows.size(); ++i) rows[i] = row_number(in[static_cast<Index>(i)]);
    for (std::size_t i = 0; i < rows.size(); ++i) {
      std::copy_n(weight_.data() + rows[i] * dim_, dim_, out.data() + static_cast<Index>(i) * dim_);
    }
  }
  void differentiate(TensorView<const T> dout, TensorView<T> din, Cache<T>& cache,
                     GradientsView<T> gradients) const override {
    if (!din.null()) std::fill(din.begin(), din.end(), T{});
    if (gradients.null()) return;
    const std::vector<std::int64_t>& rows = cache.integers(0);
    // Each task adds the positions of its own rows of the table, in order.
    const Index each = (rows_ + 15) / 16;
    T* const dw = gradients[0].data();
    parallel_for(
        block_count(rows_, each),
        [&](Index block) {
          const BlockRange mine = block_range(rows_, each, block);
          for (std::size_t i = 0; i < rows.size(); ++i) {
            if (rows[i] < mine.begin || rows[i] >= mine.end || rows[i] == padding_) continue;
            const T* const g = dout.data() + static_cast<Index>(i) * dim_;
            T* const to = dw + rows[i] * dim_;
            for (Index k = 0; k < dim_; ++k) to[k] += g[k];
          }
        },
        cache.context.threads);
  }

 private:
  [[nodiscard]] std::int64_t row_number(T value) const {
    // Not a comparison with the cast alone: casting NaN or a huge number is undefined.
    if (value >= T{0} && value < static_cast<T>(rows_)) {
      const auto row = static_cast<std::int64_t>(value);
      if (static_cast<T>(row) == value && row < rows_) return row;
    }
    throw ValueError(
        error_text(type(), "in", "whole numbers from 0 to " + std::to_string(rows_ - 1), value));
  }

  Index rows_;
  Index dim_;
  Index padding_;
  Tensor<T> weight_;
};

}  // namespace nn
QUERN_NAMESPACE_END

#endif  // QUERN_NN_EMBEDDING_HPP
