// SPDX-License-Identifier: Apache-2.0

/// \file
/// nn::Shuffler: in which order samples are seen. The order of an epoch follows from seed and
/// epoch, so training that is resumed sees what it would have seen.

#ifndef QUERN_NN_LOADER_HPP
#define QUERN_NN_LOADER_HPP

#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/core/nd_view.hpp"
#include "quern/core/random.hpp"
#include "quern/nn/tensor.hpp"

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <span>
#include <string>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace nn {

/// Batches of the numbers 0 to samples - 1, each once an epoch.
class Shuffler {
 public:
  /// `drop_last`: a batch that is not whole is left out. ValueError for sizes below 1 (or no whole
  /// batch).
  Shuffler(Index samples, Index batch, std::uint64_t seed = 0, bool shuffle = true,
           bool drop_last = false)
      : batch_(batch), seed_(seed), shuffle_(shuffle) {
    constexpr const char* function = "quern::nn::Shuffler";
    if (batch < 1) throw ValueError(error_text(function, "batch", "at least 1", batch));
    if (samples < (drop_last ? batch : 1)) {
      throw ValueError(error_text(function, "samples", "at least one batch", samples));
    }
    batches_ = drop_last ? samples / batch : (samples + batch - 1) / batch;
    order_.resize(static_cast<std::size_t>(samples));
    draw();
  }

  [[nodiscard]] Index samples() const noexcept { return static_cast<Index>(order_.size()); }
  [[nodiscard]] Index batches() const noexcept { return batches_; }
  /// The samples of a batch of an epoch.
  [[nodiscard]] std::span<const Index> batch(Index epoch, Index number) {
    if (epoch != epoch_) {
      epoch_ = epoch;
      draw();
    }
    const Index begin = number * batch_, count = (std::min)(batch_, samples() - begin);
    return std::span<const Index>(order_).subspan(static_cast<std::size_t>(begin),
                                                  static_cast<std::size_t>(count));
  }

 private:
  void draw() {
    std::iota(order_.begin(), order_.end(), Index{0});
    if (!shuffle_) return;
    Philox random(seed_, "quern.nn.shuffle", static_cast<std::uint64_t>(epoch_));
    random.shuffle(order_);
  }

  Index batch_;
  std::uint64_t seed_;
  bool shuffle_;
  Index batches_ = 0;
  Index epoch_ = 0;
  std::vector<Index> order_;
};

/// Copies samples (elements of the first dimension) side by side. `out` is resized.
template <class T>
void gather_samples(const TensorView<const T>& all, std::span<const Index> rows, Tensor<T>& out) {
  Extents shape = all.shape();
  if (shape.empty()) {
    throw ShapeError(error_text("quern::nn::gather_samples", "all", "a dimension", "a scalar"));
  }
  const Index each = shape[0] == 0 ? 0 : all.size() / shape[0];
  shape[0] = static_cast<Index>(rows.size());
  out.resize(shape);
  for (std::size_t k = 0; k < rows.size(); ++k) {
    std::copy_n(all.data() + rows[k] * each, each, out.data() + static_cast<Index>(k) * each);
  }
}

}  // namespace nn
QUERN_NAMESPACE_END

#endif  // QUERN_NN_LOADER_HPP
