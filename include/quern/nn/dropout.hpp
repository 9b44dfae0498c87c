// SPDX-License-Identifier: Apache-2.0

/// \file
/// nn::Dropout (Srivastava et al., JMLR 15, 2014).

#ifndef QUERN_NN_DROPOUT_HPP
#define QUERN_NN_DROPOUT_HPP

#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/core/parallel.hpp"
#include "quern/core/random.hpp"
#include "quern/nn/layer.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <string_view>

QUERN_NAMESPACE_BEGIN
namespace nn {

/// In training each element is zero with probability p, else it is divided by 1 - p; in inference
/// the identity. What is dropped follows from the context's seed and step, the layer's place in the
/// network, and the row's number in the batch (the first dimension).
template <class T>
class Dropout final : public Layer<T> {
 public:
  /// ValueError unless 0 <= p < 1.
  explicit Dropout(double p = 0.5) : p_(p) {
    if (!(p >= 0 && p < 1)) throw ValueError(error_text(type(), "p", "0 <= p < 1", p));
  }

  [[nodiscard]] std::string_view type() const override { return "quern::nn::Dropout"; }
  [[nodiscard]] Extents output_shape(const Extents& in) const override { return in; }
  [[nodiscard]] std::unique_ptr<Layer<T>> clone() const override {
    return std::make_unique<Dropout>(*this);
  }

 protected:
  void compute(TensorView<const T> in, TensorView<T> out, Cache<T>& cache) const override {
    if (!cache.keep() || p_ == 0) {
      std::copy(in.begin(), in.end(), out.begin());
      return;
    }
    Tensor<T>& mask = cache.tensor(0, in.extents());
    const Index rows = in.rank() == 0 ? 1 : in.extent(0);
    const Index length = rows == 0 ? 0 : in.size() / rows;
    // Compared as whole numbers: 32 bits decide.
    const auto dropped = static_cast<std::uint32_t>(p_ * 4294967296.0);
    const T scale = static_cast<T>(1 / (1 - p_));
    parallel_for(
        rows,
        [&](Index row) {
          Philox random = cache.context.random(row);
          for (Index i = row * length; i < (row + 1) * length; ++i) {
            mask[i] = random.next_u32() < dropped ? T{} : scale;
            out[i] = in[i] * mask[i];
          }
        },
        cache.context.threads);
  }
  void differentiate(TensorView<const T> dout, TensorView<T> din, Cache<T>& cache,
                     GradientsView<T> /*gradients*/) const override {
    if (din.null()) return;
    if (p_ == 0) {
      std::copy(dout.begin(), dout.end(), din.begin());
      return;
    }
    const Tensor<T>& mask = cache.tensor(0);
    for (Index i = 0; i < din.size(); ++i) din[i] = dout[i] * mask[i];
  }

 private:
  double p_;
};

}  // namespace nn
QUERN_NAMESPACE_END

#endif  // QUERN_NN_DROPOUT_HPP
