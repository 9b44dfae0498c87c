// SPDX-License-Identifier: Apache-2.0

/// \file
/// Finite scalar quantisation (F. Mentzer, D. Minnen, E. Agustsson, M. Tschannen, "Finite scalar
/// quantization: VQ-VAE made simple", ICLR 2024): each of a few numbers is squashed and rounded to
/// one of its levels. No codebook, nothing to collapse.
///
/// With L levels: h = floor(L / 2), half = (L - 1)(1 + eps) / 2, offset = 1/2 for even L, shift =
/// atanh(offset / half), code = round(tanh(z + shift) half - offset) / h, halves to the even. The
/// symmetric variant: code = 2 / (L - 1) floor((L - 1)(tanh z + 1) / 2 + 1/2) - 1. The first number
/// is the least significant digit of the index.

#ifndef QUERN_VQ_FSQ_HPP
#define QUERN_VQ_FSQ_HPP

#include "quern/core/buffer.hpp"
#include "quern/core/checks.hpp"
#include "quern/core/config.hpp"
#include "quern/core/nd_view.hpp"
#include "quern/core/parallel.hpp"
#include "quern/kernels/functors.hpp"
#include "quern/kernels/kernels.hpp"
#include "quern/vq/nearest.hpp"

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <string>
#include <utility>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace vq {

struct FsqOptions {
  std::vector<int> levels = {8, 5, 5, 5};  ///< one a number: d of them, each at least 2
  bool preserve_symmetry = false;
  double epsilon = 1e-3;
  int threads = 0;
};

/// Quantiser of rows of d = levels.size() numbers.
template <class T>
class FiniteScalarQuantizer {
 public:
  /// ValueError for no levels, one below 2, an epsilon that is not positive, or more than 2^62
  /// codes.
  explicit FiniteScalarQuantizer(FsqOptions options = {}) : options_(std::move(options)) {
    constexpr const char* function = "quern::vq::FiniteScalarQuantizer";
    expect_in_range(function, "number of levels", options_.levels.size(), std::size_t{1},
                    std::size_t{62});
    if (!(options_.epsilon > 0 && is_finite_bits(options_.epsilon))) {
      throw ValueError(
          error_text(function, "epsilon", "a positive finite number", options_.epsilon));
    }
    std::int64_t basis = 1;
    for (const int levels : options_.levels) {
      expect_in_range(function, "levels", levels, 2, 1 << 24);
      const double half = (levels - 1) * (1 + options_.epsilon) / 2;
      const double offset = levels % 2 == 0 ? 0.5 : 0;
      const bool symmetric = options_.preserve_symmetry;
      columns_.push_back(
          {levels, levels / 2, half, offset, symmetric ? 0 : std::atanh(offset / half), basis});
      if (basis > (std::numeric_limits<std::int64_t>::max)() / 2 / levels) {
        throw ValueError(error_text(function, "levels", "at most 2^62 codes", "more"));
      }
      basis *= levels;
    }
    codes_ = basis;
  }

  [[nodiscard]] Index cols() const noexcept { return static_cast<Index>(columns_.size()); }
  /// Size of the codebook there would be.
  [[nodiscard]] std::int64_t codes() const noexcept { return codes_; }

  /// out = quantised z in [-1, 1], both N x d; \p indices, one a row, where given. NaN stays NaN
  /// (its digit is 0).
  void quantize(MatrixView<const T> z, MatrixView<T> out,
                std::span<std::int64_t> indices = {}) const {
    constexpr const char* function = "quern::vq::FiniteScalarQuantizer::quantize";
    expect_shape(function, "z", z, {z.rows(), cols()});
    expect_shape(function, "out", out, z.extents());
    if (!indices.empty()) {
      expect_size(function, "indices", static_cast<Index>(indices.size()), z.rows(),
                  "indices, one a row, or none");
    }
    for_tanh(z, [&](Index i, const T* tanh) {
      std::int64_t index = 0;
      for (std::size_t j = 0; j < columns_.size(); ++j) {
        const Column& c = columns_[j];
        const std::int64_t digit = digit_of(c, static_cast<double>(tanh[j]));
        out(i, static_cast<Index>(j)) = is_nan_bits(tanh[j]) ? tanh[j] : value_of(c, digit);
        index += digit * c.basis;
      }
      if (!indices.empty()) indices[static_cast<std::size_t>(i)] = index;
    });
  }

  /// dz = dout times the derivative of the squashing alone: rounding counts as the identity
  /// (straight through). dz may be dout.
  void quantize_vjp(MatrixView<const T> z, MatrixView<const T> dout, MatrixView<T> dz) const {
    constexpr const char* function = "quern::vq::FiniteScalarQuantizer::quantize_vjp";
    expect_shape(function, "z", z, {z.rows(), cols()});
    expect_shape(function, "dout", dout, z.extents());
    expect_shape(function, "dz", dz, z.extents());
    for_tanh(z, [&](Index i, const T* tanh) {
      for (std::size_t j = 0; j < columns_.size(); ++j) {
        const Column& c = columns_[j];
        const double t = static_cast<double>(tanh[j]);
        const double slope = options_.preserve_symmetry ? 1 : c.half / c.scale;
        const Index at = static_cast<Index>(j);
        dz(i, at) = static_cast<T>(static_cast<double>(dout(i, at)) * (1 - t * t) * slope);
      }
    });
  }

  /// The quantised rows of these indices, N x d. ValueError for one outside 0..codes() - 1.
  void decode(std::span<const std::int64_t> indices, MatrixView<T> out) const {
    constexpr const char* function = "quern::vq::FiniteScalarQuantizer::decode";
    expect_shape(function, "out", out, {static_cast<Index>(indices.size()), cols()});
    detail::expect_codes(function, indices, codes_);
    for (std::size_t i = 0; i < indices.size(); ++i) {
      for (std::size_t j = 0; j < columns_.size(); ++j) {
        const Column& c = columns_[j];
        out(static_cast<Index>(i), static_cast<Index>(j)) =
            value_of(c, indices[i] / c.basis % c.levels);
      }
    }
  }

 private:
  struct Column {
    int levels;
    int scale;  ///< h
    double half;
    double offset;
    double shift;
    std::int64_t basis;
  };

  [[nodiscard]] std::int64_t digit_of(const Column& c, double tanh) const {
    double digit = 0;
    if (options_.preserve_symmetry) {
      digit = std::floor((c.levels - 1) * (tanh + 1) / 2 + 0.5);
    } else {
      digit = std::nearbyint(tanh * c.half - c.offset) + c.scale;
    }
    const double top = c.levels - 1;
    return static_cast<std::int64_t>(digit > 0 ? (digit < top ? digit : top) : 0);
  }
  [[nodiscard]] T value_of(const Column& c, std::int64_t digit) const {
    const double d = static_cast<double>(digit);
    const double value =
        options_.preserve_symmetry ? 2 * d / (c.levels - 1) - 1 : (d - c.scale) / c.scale;
    return static_cast<T>(value);
  }

  /// f(row, tanh(z + shift) of that row) for all rows.
  template <class F>
  void for_tanh(const MatrixView<const T>& z, const F& f) const {
    const std::size_t width = columns_.size();
    parallel_for(
        block_count(z.rows(), detail::search_rows),
        [&](std::int64_t b) {
          const BlockRange r = block_range(z.rows(), detail::search_rows, b);
          core::Buffer<T> values(static_cast<std::size_t>(r.size()) * width);
          T* to = values.data();
          for (Index i = r.begin; i < r.end; ++i) {
            for (std::size_t j = 0; j < width; ++j, ++to) {
              *to = static_cast<T>(static_cast<double>(z(i, static_cast<Index>(j))) +
                                   columns_[j].shift);
            }
          }
          QUERN_DISPATCH(transform<kernels::Tanh, T>(kernels::Tanh{}, values.data(), values.size(),
                                                     values.data()));
          for (Index i = r.begin; i < r.end; ++i) {
            f(i, values.data() + static_cast<std::size_t>(i - r.begin) * width);
          }
        },
        options_.threads);
  }

  FsqOptions options_;
  std::vector<Column> columns_;
  std::int64_t codes_ = 0;
};

}  // namespace vq
QUERN_NAMESPACE_END

#endif  // QUERN_VQ_FSQ_HPP
