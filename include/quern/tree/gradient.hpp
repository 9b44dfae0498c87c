// SPDX-License-Identifier: Apache-2.0

/// \file
/// Gradients of a loss, and the fixed-point form in which histograms and nodes sum them.
///
/// Sums of integers do not depend on their order, so a tree has the same bits for any number of
/// threads or processes. Two precisions: histograms, which only choose splits, add 17-bit gradients
/// and hessians with one 64-bit addition; node sums, hence leaf values, use nearly all of 63 bits.

#ifndef QUERN_TREE_GRADIENT_HPP
#define QUERN_TREE_GRADIENT_HPP

#include "quern/core/buffer.hpp"
#include "quern/core/config.hpp"
#include "quern/core/parallel.hpp"
#include "quern/kernels/kernels.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>

QUERN_NAMESPACE_BEGIN
namespace tree {

/// First and second derivative of the loss with respect to a row's margin, times its weight.
struct GradientPair {
  float g = 0;
  float h = 0;
};

/// How exactly histograms sum. Leaf values do not depend on it.
enum class HistogramPrecision : std::uint8_t {
  automatic,  ///< packed, unless some row's gradient dwarfs the mean one (see
              ///< `full_precision_ratio`)
  packed,     ///< 17 bits a row, 8 bytes a cell
  full,       ///< 62 bits a sum, 16 bytes a cell
};

/// `automatic` turns to full precision where max|g| > ratio * mean|g|, or the same of h: there 17
/// bits would leave an average row fewer than about 7.
inline constexpr double full_precision_ratio = 1024;

/// Rows that a packed sum can hold: 2^14 hessians of 17 bits stay below 2^31.
inline constexpr std::int64_t packed_rows = std::int64_t{1} << 14;

/// A sum of gradients and hessians, in fixed point or in the loss's own units.
template <class T>
struct GradientSum {
  T g = 0;
  T h = 0;

  GradientSum& operator+=(const GradientSum& other) noexcept {
    g += other.g;
    h += other.h;
    return *this;
  }
};

namespace detail {

/// Rows of one block of a pass over gradients; fixed, so that results do not depend on threads.
inline constexpr std::int64_t gradient_block = std::int64_t{1} << 15;

struct GradientRange {
  double max_g = 0, max_h = 0, sum_g = 0, sum_h = 0;
};

inline GradientRange gradient_range(std::span<const GradientPair> gradients, std::int64_t begin,
                                    std::int64_t end) {
  // Four sums of each, the same ones at every SIMD level, so that additions need not wait.
  constexpr std::size_t lanes = 4;
  float max_g[lanes] = {}, max_h[lanes] = {};
  double sum_g[lanes] = {}, sum_h[lanes] = {};
  const auto add = [&](std::size_t lane, const GradientPair& p) {
    const float magnitude = std::fabs(p.g);
    max_g[lane] = magnitude > max_g[lane] ? magnitude : max_g[lane];
    max_h[lane] = p.h > max_h[lane] ? p.h : max_h[lane];
    sum_g[lane] += static_cast<double>(magnitude);
    sum_h[lane] += static_cast<double>(p.h);
  };
  const GradientPair* p = gradients.data() + begin;
  const GradientPair* const last = gradients.data() + end;
  for (; last - p >= static_cast<std::ptrdiff_t>(lanes); p += lanes) {
    add(0, p[0]);
    add(1, p[1]);
    add(2, p[2]);
    add(3, p[3]);
  }
  for (; p != last; ++p) add(0, *p);
  return {static_cast<double>((std::max)({max_g[0], max_g[1], max_g[2], max_g[3]})),
          static_cast<double>((std::max)({max_h[0], max_h[1], max_h[2], max_h[3]})),
          (sum_g[0] + sum_g[1]) + (sum_g[2] + sum_g[3]),
          (sum_h[0] + sum_h[1]) + (sum_h[2] + sum_h[3])};
}

/// Exponent e with 2^(e-1) <= x < 2^e; 0 stands for itself.
inline int exponent_of(double x) {
  int e = 0;
  std::frexp(x, &e);
  return e;
}

/// Towards zero: one instruction, where rounding to nearest would be a call at plain -O2. What is
/// cut off is below 2^-40 of the largest gradient for a million rows.
inline std::int64_t to_fixed(double x) noexcept { return static_cast<std::int64_t>(x); }

}  // namespace detail

/// One tree's gradients in fixed point, a row after the other. With one word a row the gradient is
/// in the upper and the hessian in the lower half (packed); with two they follow each other (full).
template <class = void>
class BasicQuantisedGradients {
 public:
  /// \p gradients (rows): every g finite, every h finite and >= 0.
  void assign(std::span<const GradientPair> gradients, HistogramPrecision precision, int threads) {
    const detail::GradientRange range = measure(gradients, threads);
    const auto rows = static_cast<double>((std::max)(gradients.size(), std::size_t{1}));
    const bool skewed = range.max_g * rows > full_precision_ratio * range.sum_g ||
                        range.max_h * rows > full_precision_ratio * range.sum_h;
    const bool full = precision == HistogramPrecision::full ||
                      (precision == HistogramPrecision::automatic && skewed);
    words_ = full ? 2 : 1;
    // Sums of all rows stay below 2^62 in either precision.
    const int row_bits = detail::exponent_of(rows);
    sum_scale_.g = std::ldexp(1.0, 62 - row_bits - detail::exponent_of(range.max_g));
    sum_scale_.h = std::ldexp(1.0, 62 - row_bits - detail::exponent_of(range.max_h));
    scale_ = full ? sum_scale_
                  : GradientSum<double>{std::ldexp(1.0, 16 - detail::exponent_of(range.max_g)),
                                        std::ldexp(1.0, 17 - detail::exponent_of(range.max_h))};
    quantise(gradients, threads);
  }

  /// 64-bit words a row: 1 packed, 2 full.
  [[nodiscard]] int words() const noexcept { return words_; }
  [[nodiscard]] const std::int64_t* data() const noexcept { return data_.data(); }
  /// Fixed-point units of histograms per unit of the loss.
  [[nodiscard]] const GradientSum<double>& scale() const noexcept { return scale_; }
  /// Fixed-point units of node sums per unit of the loss.
  [[nodiscard]] const GradientSum<double>& sum_scale() const noexcept { return sum_scale_; }

  /// Fixed-point value of one row at the scale of node sums.
  [[nodiscard]] GradientSum<std::int64_t> exact(GradientPair p) const noexcept {
    return {detail::to_fixed(static_cast<double>(p.g) * sum_scale_.g),
            detail::to_fixed(static_cast<double>(p.h) * sum_scale_.h)};
  }

 private:
  static detail::GradientRange measure(std::span<const GradientPair> gradients, int threads) {
    const auto rows = static_cast<std::int64_t>(gradients.size());
    const std::int64_t blocks = (rows + detail::gradient_block - 1) / detail::gradient_block;
    core::Buffer<detail::GradientRange> parts(static_cast<std::size_t>(blocks));
    parallel_for(
        blocks,
        [&](std::int64_t b) {
          const std::int64_t begin = b * detail::gradient_block;
          parts[static_cast<std::size_t>(b)] = detail::gradient_range(
              gradients, begin, (std::min)(rows, begin + detail::gradient_block));
        },
        threads);
    detail::GradientRange all;
    for (std::int64_t b = 0; b < blocks; ++b) {
      const detail::GradientRange& part = parts[static_cast<std::size_t>(b)];
      all.max_g = (std::max)(all.max_g, part.max_g);
      all.max_h = (std::max)(all.max_h, part.max_h);
      all.sum_g += part.sum_g;
      all.sum_h += part.sum_h;
    }
    return all;
  }

  void quantise(std::span<const GradientPair> gradients, int threads) {
    const auto rows = static_cast<std::int64_t>(gradients.size());
    const std::size_t needed = gradients.size() * static_cast<std::size_t>(words_);
    if (data_.size() < needed) data_ = core::Buffer<std::int64_t>(needed);
    const std::int64_t blocks = (rows + detail::gradient_block - 1) / detail::gradient_block;
    parallel_for(
        blocks,
        [&](std::int64_t b) {
          const std::int64_t begin = b * detail::gradient_block;
          const std::int64_t end = (std::min)(rows, begin + detail::gradient_block);
          if (words_ == 1) {
            const float* pairs = &gradients[static_cast<std::size_t>(begin)].g;
            QUERN_DISPATCH(pack_gradients<float>(pairs, end - begin, static_cast<float>(scale_.g),
                                                 static_cast<float>(scale_.h),
                                                 data_.data() + begin));
            return;
          }
          for (std::int64_t i = begin; i < end; ++i) {
            const GradientSum<std::int64_t> p = exact(gradients[static_cast<std::size_t>(i)]);
            data_[static_cast<std::size_t>(2 * i)] = p.g;
            data_[static_cast<std::size_t>(2 * i + 1)] = p.h;
          }
        },
        threads);
  }

  core::Buffer<std::int64_t> data_;
  GradientSum<double> scale_, sum_scale_;
  int words_ = 1;
};
/// (A template, so that a program compiles it only where it uses it.)
using QuantisedGradients = BasicQuantisedGradients<>;

}  // namespace tree
QUERN_NAMESPACE_END

#endif  // QUERN_TREE_GRADIENT_HPP
