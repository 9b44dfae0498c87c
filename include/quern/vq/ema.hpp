// SPDX-License-Identifier: Apache-2.0

/// \file
/// Codebooks that follow their rows by exponential moving averages instead of gradients (van den
/// Oord et al. 2017, appendix A.1).
///
/// Per code: N <- decay N + (1 - decay) count, m <- decay m + (1 - decay) sum of its rows; the code
/// becomes m / N', where N' = (N + eps) / (n + K eps) n with n = sum N (Laplace smoothing). Two
/// conventions are published, see EmaConvention.

#ifndef QUERN_VQ_EMA_HPP
#define QUERN_VQ_EMA_HPP

#include "quern/core/checks.hpp"
#include "quern/core/config.hpp"
#include "quern/core/nd_array.hpp"
#include "quern/core/nd_view.hpp"
#include "quern/vq/code_sums.hpp"
#include "quern/vq/nearest.hpp"

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <span>
#include <string>
#include <utility>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace vq {

enum class EmaConvention {
  debiased,  ///< sonnet's: averages start at 0 and are divided by 1 - decay^t. A code that no row
             ///< has had yet becomes the zero vector
  plain      ///< vector-quantize-pytorch's: sizes start at 1, sums at the codes; not debiased
};

struct EmaOptions {
  double decay = 0.99;
  double epsilon = 1e-5;
  EmaConvention convention = EmaConvention::debiased;
  int threads = 0;
};

/// A codebook and its averages. A step's codes and losses use the codebook before update().
template <class T>
class EmaCodebook {
 public:
  /// \p start is K x d. ValueError for a decay outside [0, 1) or a negative epsilon.
  explicit EmaCodebook(MatrixView<const T> start, const EmaOptions& options = {})
      : options_(options),
        codebook_(start),
        sums_(start.extents()),
        sizes_(static_cast<std::size_t>(start.rows()), T(0)) {
    constexpr const char* function = "quern::vq::EmaCodebook";
    expect_in_range(function, "decay", options.decay, 0.0, 1.0);
    if (options.decay == 1) {
      throw ValueError(error_text(function, "decay", "below 1", options.decay));
    }
    expect_in_range(function, "epsilon", options.epsilon, 0.0, 1.0);
    if (options.convention == EmaConvention::plain) {
      std::fill(sizes_.begin(), sizes_.end(), T(1));
      sums_ = codebook_;
    }
  }

  [[nodiscard]] MatrixView<const T> codebook() const { return codebook_.view(); }
  /// Raw moving averages of counts and of sums.
  [[nodiscard]] std::span<const T> cluster_sizes() const { return sizes_; }
  [[nodiscard]] MatrixView<const T> cluster_sums() const { return sums_.view(); }
  [[nodiscard]] std::int64_t steps() const noexcept { return steps_; }
  [[nodiscard]] const EmaOptions& options() const noexcept { return options_; }

  /// Sizes as the codes are divided by: debiased where the convention is, smoothed.
  [[nodiscard]] std::vector<double> smoothed_sizes() const {
    std::vector<double> sizes(sizes_.begin(), sizes_.end());
    const double bias = debias();
    for (double& size : sizes) size /= bias;
    const double n = std::accumulate(sizes.begin(), sizes.end(), 0.0);
    const double all = n + static_cast<double>(sizes.size()) * options_.epsilon;
    for (double& size : sizes) size = all > 0 ? (size + options_.epsilon) / all * n : 0;
    return sizes;
  }

  /// One step from a batch: \p x is N x d, any strides, \p codes its rows' codes.
  void update(MatrixView<const T> x, std::span<const std::int64_t> codes) {
    constexpr const char* function = "quern::vq::EmaCodebook::update";
    expect_shape(function, "x", x, {static_cast<Index>(codes.size()), codebook_.extent(1)});
    const RowsByCode by_code(codes, codebook_.extent(0));
    NdArray<T, 2> sums(codebook_.extents(), core::Fill::none);
    sum_by_code<T>(x, by_code, sums.view(), options_.threads);
    std::vector<std::int64_t> counts(sizes_.size());
    for (std::size_t k = 0; k < counts.size(); ++k)
      counts[k] = by_code.count(static_cast<Index>(k));
    update_from(counts, sums.view());
  }

  /// The same from counts and sums (K and K x d), which may come from several batches added up.
  void update_from(std::span<const std::int64_t> counts, MatrixView<const T> sums) {
    constexpr const char* function = "quern::vq::EmaCodebook::update_from";
    expect_size(function, "counts", static_cast<Index>(counts.size()), codebook_.extent(0),
                "counts, one a code");
    expect_shape(function, "sums", sums, codebook_.extents());
    ++steps_;
    const double keep = options_.decay;
    for (std::size_t k = 0; k < sizes_.size(); ++k) {
      sizes_[k] = static_cast<T>(keep * static_cast<double>(sizes_[k]) +
                                 (1 - keep) * static_cast<double>(counts[k]));
      for (Index j = 0; j < codebook_.extent(1); ++j) {
        T& sum = sums_(static_cast<Index>(k), j);
        sum = static_cast<T>(keep * static_cast<double>(sum) +
                             (1 - keep) * static_cast<double>(sums(static_cast<Index>(k), j)));
      }
    }
    const std::vector<double> sizes = smoothed_sizes();
    const double bias = debias();
    for (std::size_t k = 0; k < sizes.size(); ++k) {
      const double factor = sizes[k] > 0 ? 1 / (bias * sizes[k]) : 0;
      for (Index j = 0; j < codebook_.extent(1); ++j) {
        const Index row = static_cast<Index>(k);
        codebook_(row, j) = static_cast<T>(static_cast<double>(sums_(row, j)) * factor);
      }
    }
  }

  /// Puts code \p k at \p row, as if it had held \p size rows there all along. For dead codes.
  void restart(Index k, NdView<const T, 1> row, double size = 1) {
    constexpr const char* function = "quern::vq::EmaCodebook::restart";
    expect_in_range(function, "k", k, Index{0}, codebook_.extent(0) - 1);
    expect_shape(function, "row", row, {codebook_.extent(1)});
    const double held = size * debias();
    sizes_[static_cast<std::size_t>(k)] = static_cast<T>(held);
    for (Index j = 0; j < row.extent(0); ++j) {
      codebook_(k, j) = row(j);
      sums_(k, j) = static_cast<T>(held * static_cast<double>(row(j)));
    }
  }

  /// What a saved codebook consists of, for who keeps it in arrays of their own (nn's buffers).
  void set_state(MatrixView<const T> codebook, std::span<const T> sizes, MatrixView<const T> sums,
                 std::int64_t steps) {
    constexpr const char* function = "quern::vq::EmaCodebook::set_state";
    expect_shape(function, "codebook", codebook, codebook_.extents());
    expect_shape(function, "sums", sums, sums_.extents());
    expect_size(function, "sizes", static_cast<Index>(sizes.size()), codebook_.extent(0), "sizes");
    codebook_ = NdArray<T, 2>(codebook);
    sums_ = NdArray<T, 2>(sums);
    sizes_.assign(sizes.begin(), sizes.end());
    steps_ = steps;
  }

 private:
  [[nodiscard]] double debias() const {
    if (options_.convention == EmaConvention::plain || steps_ == 0) return 1;
    return 1 - std::pow(options_.decay, static_cast<double>(steps_));
  }

  EmaOptions options_;
  NdArray<T, 2> codebook_;
  NdArray<T, 2> sums_;
  std::vector<T> sizes_;
  std::int64_t steps_ = 0;
};

}  // namespace vq
QUERN_NAMESPACE_END

#endif  // QUERN_VQ_EMA_HPP
