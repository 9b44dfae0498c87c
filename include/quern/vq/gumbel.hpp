// SPDX-License-Identifier: Apache-2.0

/// \file
/// Gumbel-softmax (E. Jang, S. Gu, B. Poole, "Categorical reparameterization with Gumbel-softmax",
/// ICLR 2017; C. Maddison, A. Mnih, Y. W. Teh, 2017): a code drawn from logits, with a gradient.

#ifndef QUERN_VQ_GUMBEL_HPP
#define QUERN_VQ_GUMBEL_HPP

#include "quern/core/checks.hpp"
#include "quern/core/config.hpp"
#include "quern/core/nd_view.hpp"
#include "quern/core/parallel.hpp"
#include "quern/core/random.hpp"
#include "quern/kernels/kernels.hpp"
#include "quern/vq/loss.hpp"
#include "quern/vq/nearest.hpp"

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace vq {

struct GumbelOptions {
  double temperature = 1;
  bool hard = true;  ///< forward gives the one-hot code; false: the softmax itself
  int threads = 0;
};

/// Standard Gumbel noise, -ln(-ln u). Row i is stream first_row + i of the seed, so noise does not
/// depend on how rows are cut into batches.
template <class T>
void gumbel_noise(MatrixView<T> noise, std::uint64_t seed, std::uint64_t first_row = 0) {
  for (Index i = 0; i < noise.rows(); ++i) {
    Philox random(seed, "gumbel", first_row + static_cast<std::uint64_t>(i));
    for (Index j = 0; j < noise.cols(); ++j) {
      noise(i, j) = static_cast<T>(-std::log(random.exponential<double>() + 1e-300));
    }
  }
}

/// soft = softmax((logits + noise) / temperature), codes = its arg-max (the first of equals),
/// out = one-hot of the codes, or soft where not hard. N x K, rows contiguous; \p noise may be null
/// (none), and so may \p out. ValueError for a temperature that is not positive.
template <class T>
void gumbel_softmax(detail::InputMatrix<T> logits, detail::InputMatrix<T> noise, MatrixView<T> soft,
                    std::span<std::int64_t> codes, std::type_identity_t<MatrixView<T>> out,
                    const GumbelOptions& options = {}) {
  constexpr const char* function = "quern::vq::gumbel_softmax";
  expect_shape(function, "soft", soft, logits.extents());
  if (!noise.is_null()) expect_shape(function, "noise", noise, logits.extents());
  if (!out.is_null()) expect_shape(function, "out", out, logits.extents());
  expect_size(function, "codes", static_cast<Index>(codes.size()), logits.rows(), "codes");
  detail::expect_rows_contiguous(function, "soft", soft);
  const auto least = static_cast<double>((std::numeric_limits<T>::min)());
  if (!(options.temperature >= least && is_finite_bits(options.temperature))) {
    throw ValueError(
        error_text(function, "temperature", "a positive finite number", options.temperature));
  }
  const T factor = static_cast<T>(1 / options.temperature);
  parallel_for(
      block_count(logits.rows(), detail::search_rows),
      [&](std::int64_t b) {
        const BlockRange r = block_range(logits.rows(), detail::search_rows, b);
        const auto cols = static_cast<std::size_t>(logits.cols());
        for (Index i = r.begin; i < r.end; ++i) {
          T* const row = soft.row_data(i);
          for (Index j = 0; j < logits.cols(); ++j) {
            row[j] = (logits(i, j) + (noise.is_null() ? T(0) : noise(i, j))) * factor;
          }
          const std::size_t code = QUERN_DISPATCH(arg_max<T>(row, cols));
          codes[static_cast<std::size_t>(i)] = static_cast<std::int64_t>(code);
          QUERN_DISPATCH(softmax_rows<T>(std::size_t{1}, cols, row, 0, row, 0));
          for (Index j = 0; !out.is_null() && j < logits.cols(); ++j) {
            const T one_hot = static_cast<std::size_t>(j) == code ? T(1) : T(0);
            out(i, j) = options.hard ? one_hot : row[j];
          }
        }
      },
      options.threads);
}

/// dlogits = soft (dout - sum dout soft) / temperature: the softmax's gradient, also where forward
/// gave the one-hot code (straight through). dlogits may be dout.
template <class T>
void gumbel_softmax_vjp(detail::InputMatrix<T> soft, detail::InputMatrix<T> dout,
                        MatrixView<T> dlogits, const GumbelOptions& options = {}) {
  constexpr const char* function = "quern::vq::gumbel_softmax_vjp";
  expect_shape(function, "dout", dout, soft.extents());
  expect_shape(function, "dlogits", dlogits, soft.extents());
  parallel_for(
      block_count(soft.rows(), detail::search_rows),
      [&](std::int64_t b) {
        const BlockRange r = block_range(soft.rows(), detail::search_rows, b);
        for (Index i = r.begin; i < r.end; ++i) {
          double along = 0;
          for (Index j = 0; j < soft.cols(); ++j) {
            along += static_cast<double>(dout(i, j)) * static_cast<double>(soft(i, j));
          }
          for (Index j = 0; j < soft.cols(); ++j) {
            dlogits(i, j) =
                static_cast<T>(static_cast<double>(soft(i, j)) *
                               (static_cast<double>(dout(i, j)) - along) / options.temperature);
          }
        }
      },
      options.threads);
}

}  // namespace vq
QUERN_NAMESPACE_END

#endif  // QUERN_VQ_GUMBEL_HPP
