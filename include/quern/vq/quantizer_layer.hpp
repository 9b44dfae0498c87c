// SPDX-License-Identifier: Apache-2.0

/// \file
/// Quantisation as layers of networks: QuantizerLayer is what models ask for. Kinds are
/// VectorQuantizer (a learned codebook), GroupedVectorQuantizer (several: product, residual, both),
/// ScalarQuantizer (FSQ), LookupFreeQuantizer and GumbelQuantizer.

#ifndef QUERN_VQ_QUANTIZER_LAYER_HPP
#define QUERN_VQ_QUANTIZER_LAYER_HPP

#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/core/nd_view.hpp"
#include "quern/nn/layer.hpp"

#include <cstdint>
#include <span>
#include <string>

QUERN_NAMESPACE_BEGIN
namespace vq {

/// A layer that replaces the numbers along its last dimension by a code. Its own loss is no output:
/// backward adds that loss's gradient, times weight(), to the input's.
template <class T>
class QuantizerLayer : public nn::Layer<T> {
 public:
  /// How many codes there are to choose from, and how many numbers a row has.
  [[nodiscard]] virtual std::int64_t codes() const = 0;
  [[nodiscard]] virtual Index dim() const = 0;
  /// How many codes stand for a row.
  [[nodiscard]] virtual Index codes_each() const { return 1; }
  /// What codes stand for: rows of dim() numbers, codes_each() codes a row.
  virtual void decode(std::span<const std::int64_t> codes, MatrixView<T> out) const = 0;
  /// Whether codes can start from data, and that: rows of dim() numbers.
  [[nodiscard]] virtual bool starts_from_data() const { return false; }
  virtual void fit_codebook(MatrixView<const T> /*rows*/, std::uint64_t seed = 0) {
    static_cast<void>(seed);
  }

  /// The codes of the last forward with this cache, codes_each() a row.
  [[nodiscard]] static std::span<const std::int64_t> codes_of(nn::Cache<T>& cache) {
    return cache.integers(0);
  }
  /// That forward's own loss (not weighted).
  [[nodiscard]] static double loss_of(nn::Cache<T>& cache) { return saved(cache).loss; }
  /// What the own loss counts in backward: 1, or a shard's share of its batch.
  static void set_weight(nn::Cache<T>& cache, double weight) { saved(cache).weight = weight; }

  [[nodiscard]] nn::Extents output_shape(const nn::Extents& in) const override {
    if (in.empty() || in.back() != dim()) {
      throw ShapeError(error_text(this->type(), "in", "last extent " + std::to_string(dim()),
                                  nn::shape_text(in)));
    }
    return in;
  }

 protected:
  struct Saved {
    double loss = 0;
    double weight = 1;
  };
  [[nodiscard]] static Saved& saved(nn::Cache<T>& cache) { return cache.template saved<Saved>(); }
};

}  // namespace vq
QUERN_NAMESPACE_END

#endif  // QUERN_VQ_QUANTIZER_LAYER_HPP
