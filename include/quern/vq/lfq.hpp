// SPDX-License-Identifier: Apache-2.0

/// \file
/// Lookup-free quantisation (L. Yu et al., "Language model beats diffusion: tokenizer is key to
/// visual generation", ICLR 2024): a row's code is the signs of its B numbers, and an entropy loss
/// keeps rows sure of their code and codes evenly used.
///
/// P_i = softmax over all 2^B codes c of 2 s z_i.c (s the inverse temperature) is a product over
/// the bits, p(+1) = sigmoid(4 s z_ij), so it is built up by B doublings rather than by products
/// with a codebook.

#ifndef QUERN_VQ_LFQ_HPP
#define QUERN_VQ_LFQ_HPP

#include "quern/core/checks.hpp"
#include "quern/core/config.hpp"
#include "quern/core/nd_view.hpp"
#include "quern/core/parallel.hpp"
#include "quern/vq/nearest.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace vq {

struct LfqOptions {
  double inverse_temperature = 100;
  double entropy_weight = 0.1;
  double diversity_gamma = 1;  ///< weight of the batch entropy, which is maximised
  double commitment_weight = 0.25;
  int threads = 0;
};

struct LfqLoss {
  double per_sample_entropy = 0;  ///< mean over rows of H(P_i), nats
  double batch_entropy = 0;       ///< H of the mean of P_i
  double commitment = 0;          ///< mean (z - sg q)^2
  /// entropy_weight (per_sample - diversity_gamma batch) + commitment_weight commitment
  double total = 0;
};

/// out = +1 where z > 0, else -1 (NaN stays NaN, its bit is 0), N x B; index = the row's bits, the
/// first number the most significant. ValueError for more than 62 columns.
template <class T>
void lfq_quantize(detail::InputMatrix<T> z, MatrixView<T> out,
                  std::span<std::int64_t> indices = {}) {
  constexpr const char* function = "quern::vq::lfq_quantize";
  expect_shape(function, "out", out, z.extents());
  expect_in_range(function, "columns of z", z.cols(), Index{0}, Index{62});
  if (!indices.empty()) {
    expect_size(function, "indices", static_cast<Index>(indices.size()), z.rows(),
                "indices, one a row, or none");
  }
  for (Index i = 0; i < z.rows(); ++i) {
    std::int64_t index = 0;
    for (Index j = 0; j < z.cols(); ++j) {
      const bool positive = z(i, j) > T(0);
      out(i, j) = positive ? T(1) : is_nan_bits(z(i, j)) ? z(i, j) : T(-1);
      index = index * 2 + (positive ? 1 : 0);
    }
    if (!indices.empty()) indices[static_cast<std::size_t>(i)] = index;
  }
}

/// The rows of \p indices again.
template <class T>
void lfq_decode(std::span<const std::int64_t> indices, MatrixView<T> out) {
  constexpr const char* function = "quern::vq::lfq_decode";
  expect_shape(function, "out", out, {static_cast<Index>(indices.size()), out.cols()});
  expect_in_range(function, "columns of out", out.cols(), Index{0}, Index{62});
  detail::expect_codes(function, indices, Index{1} << out.cols());
  for (Index i = 0; i < out.rows(); ++i) {
    for (Index j = 0; j < out.cols(); ++j) {
      const int shift = static_cast<int>(out.cols() - 1 - j);
      out(i, j) = (indices[static_cast<std::size_t>(i)] >> shift & 1) != 0 ? T(1) : T(-1);
    }
  }
}

namespace detail {

/// Rows whose probabilities are summed before blocks are added in order.
inline constexpr Index lfq_rows = 16;

inline double log_at_least(double p) { return std::log(p > 1e-5 ? p : 1e-5); }

/// P of one row over all codes.
template <class T>
void lfq_probabilities(const MatrixView<const T>& z, Index i, double s, std::vector<double>& p) {
  p[0] = 1;
  std::size_t done = 1;
  for (Index j = 0; j < z.cols(); ++j, done *= 2) {
    const double a = 4 * s * static_cast<double>(z(i, j));
    const double u = std::exp(-std::fabs(a));
    const double likely = 1 / (1 + u), unlikely = u / (1 + u);
    const double plus = a > 0 ? likely : unlikely, minus = a > 0 ? unlikely : likely;
    // Codes so far are the high bits: each splits into one with bit 0 and one with bit 1.
    for (std::size_t c = done; c-- > 0;) {
      p[2 * c + 1] = p[c] * plus;
      p[2 * c] = p[c] * minus;
    }
  }
}

inline std::size_t expect_lfq_bits(const char* function, Index cols) {
  expect_in_range(function, "columns of z", cols, Index{0}, Index{20});
  return std::size_t{1} << cols;
}

inline double expect_temperature(const char* function, const LfqOptions& options) {
  const double s = options.inverse_temperature;
  if (s > 0 && is_finite_bits(s)) return s;
  throw ValueError(error_text(function, "inverse_temperature", "a positive finite number", s));
}

/// Mean of P_i over all rows.
template <class T>
std::vector<double> lfq_mean(const MatrixView<const T>& z, std::size_t codes, double s,
                             int threads) {
  // Each block has a sum of its own, so there are at most 16 of them.
  const Index rows = (std::max)(16 * lfq_rows, (z.rows() + 15) / 16);
  std::vector<double> mean = parallel_reduce(
      block_count(z.rows(), rows), std::vector<double>(codes, 0.0),
      [&](std::int64_t b) {
        const BlockRange r = block_range(z.rows(), rows, b);
        std::vector<double> sum(codes, 0.0), p(codes);
        for (Index i = r.begin; i < r.end; ++i) {
          lfq_probabilities(z, i, s, p);
          for (std::size_t c = 0; c < codes; ++c) sum[c] += p[c];
        }
        return sum;
      },
      [](std::vector<double> a, const std::vector<double>& b) {
        for (std::size_t c = 0; c < a.size(); ++c) a[c] += b[c];
        return a;
      },
      threads);
  for (double& p : mean) p /= static_cast<double>((std::max)(z.rows(), Index{1}));
  return mean;
}

}  // namespace detail

/// The losses of rows \p z, N x B. Work and memory grow with 2^B: ValueError for B > 20. The
/// entropy is -sum p ln max(p, 1e-5), as published code has it.
template <class T>
[[nodiscard]] LfqLoss lfq_loss(detail::InputMatrix<T> z, const LfqOptions& options = {}) {
  constexpr const char* function = "quern::vq::lfq_loss";
  const std::size_t codes = detail::expect_lfq_bits(function, z.cols());
  detail::expect_temperature(function, options);
  LfqLoss loss;
  if (z.size() == 0) return loss;
  const std::vector<double> mean =
      detail::lfq_mean<T>(z, codes, options.inverse_temperature, options.threads);
  for (const double p : mean) loss.batch_entropy -= p * detail::log_at_least(p);
  struct Sums {
    double entropy = 0, squares = 0;
  };
  const Sums sums = parallel_reduce(
      block_count(z.rows(), detail::lfq_rows), Sums{},
      [&](std::int64_t b) {
        const BlockRange r = block_range(z.rows(), detail::lfq_rows, b);
        std::vector<double> p(codes);
        Sums part;
        for (Index i = r.begin; i < r.end; ++i) {
          detail::lfq_probabilities<T>(z, i, options.inverse_temperature, p);
          for (const double each : p) part.entropy -= each * detail::log_at_least(each);
          for (Index j = 0; j < z.cols(); ++j) {
            const double apart = std::fabs(static_cast<double>(z(i, j))) - 1;
            part.squares += apart * apart;
          }
        }
        return part;
      },
      [](const Sums& a, const Sums& b) {
        return Sums{a.entropy + b.entropy, a.squares + b.squares};
      },
      options.threads);
  loss.per_sample_entropy = sums.entropy / static_cast<double>(z.rows());
  loss.commitment = sums.squares / static_cast<double>(z.size());
  loss.total = options.entropy_weight *
                   (loss.per_sample_entropy - options.diversity_gamma * loss.batch_entropy) +
               options.commitment_weight * loss.commitment;
  return loss;
}

/// dz = dout (null: zero) + dloss times the gradient of lfq_loss's total. The quantised output
/// itself is passed straight through. The clamped part of an entropy has no gradient.
template <class T>
void lfq_loss_vjp(detail::InputMatrix<T> z, detail::InputMatrix<T> dout, double dloss,
                  MatrixView<T> dz, const LfqOptions& options = {}) {
  constexpr const char* function = "quern::vq::lfq_loss_vjp";
  const std::size_t codes = detail::expect_lfq_bits(function, z.cols());
  expect_shape(function, "dz", dz, z.extents());
  if (!dout.is_null()) expect_shape(function, "dout", dout, z.extents());
  const double s = detail::expect_temperature(function, options);
  const std::vector<double> mean = detail::lfq_mean<T>(z, codes, s, options.threads);
  const double rows = static_cast<double>(z.rows());
  const auto slope = [](double p) { return detail::log_at_least(p) + (p > 1e-5 ? 1 : 0); };
  std::vector<double> from_mean(codes);
  for (std::size_t c = 0; c < codes; ++c) from_mean[c] = options.diversity_gamma * slope(mean[c]);
  parallel_for(
      block_count(z.rows(), detail::lfq_rows),
      [&](std::int64_t b) {
        const BlockRange r = block_range(z.rows(), detail::lfq_rows, b);
        std::vector<double> p(codes), by_bit(static_cast<std::size_t>(z.cols()));
        for (Index i = r.begin; i < r.end; ++i) {
          detail::lfq_probabilities<T>(z, i, s, p);
          double along = 0;
          for (std::size_t c = 0; c < codes; ++c) along += p[c] * (from_mean[c] - slope(p[c]));
          for (std::size_t c = 0; c < codes; ++c) {
            p[c] *= from_mean[c] - slope(p[c]) - along;  // now the gradient of the logits
          }
          // Sums over codes with a bit set minus those without, folding from the lowest bit up.
          std::size_t left = codes;
          for (std::size_t j = by_bit.size(); j-- > 0; left /= 2) {
            by_bit[j] = 0;
            for (std::size_t c = 0; c < left / 2; ++c) {
              by_bit[j] += p[2 * c + 1] - p[2 * c];
              p[c] = p[2 * c + 1] + p[2 * c];
            }
          }
          for (Index j = 0; j < z.cols(); ++j) {
            const double value = static_cast<double>(z(i, j));
            const double entropy =
                options.entropy_weight * 2 * s * by_bit[static_cast<std::size_t>(j)] / rows;
            const double commitment = options.commitment_weight * 2 *
                                      (value - (value > 0 ? 1 : -1)) /
                                      static_cast<double>(z.size());
            const double above = dout.is_null() ? 0 : static_cast<double>(dout(i, j));
            dz(i, j) = static_cast<T>(above + dloss * (entropy + commitment));
          }
        }
      },
      options.threads);
}

}  // namespace vq
QUERN_NAMESPACE_END

#endif  // QUERN_VQ_LFQ_HPP
