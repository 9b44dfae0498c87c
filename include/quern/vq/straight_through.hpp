// SPDX-License-Identifier: Apache-2.0

/// \file
/// Straight-through estimation for any discretisation: forward applies it, backward passes the
/// gradient through something that has one (Y. Bengio, N. Léonard, A. Courville, "Estimating or
/// propagating gradients through stochastic neurons", 2013). So these vjps are not gradients of
/// their forwards, which have none worth having: each says what it returns.

#ifndef QUERN_VQ_STRAIGHT_THROUGH_HPP
#define QUERN_VQ_STRAIGHT_THROUGH_HPP

#include "quern/core/checks.hpp"
#include "quern/core/config.hpp"
#include "quern/core/nd_view.hpp"
#include "quern/core/parallel.hpp"
#include "quern/kernels/kernels.hpp"
#include "quern/vq/nearest.hpp"

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace vq {

/// To the nearest whole number, halves to the even one.
struct RoundToInteger {
  template <class T>
  void operator()(MatrixView<const T> x, MatrixView<T> out) const {
    for (Index i = 0; i < x.rows(); ++i) {
      for (Index j = 0; j < x.cols(); ++j) out(i, j) = std::nearbyint(x(i, j));
    }
  }
};
/// +1 for x > 0, else -1.
struct SignOf {
  template <class T>
  void operator()(MatrixView<const T> x, MatrixView<T> out) const {
    for (Index i = 0; i < x.rows(); ++i) {
      for (Index j = 0; j < x.cols(); ++j) out(i, j) = x(i, j) > T(0) ? T(1) : T(-1);
    }
  }
};
/// 1 at each row's largest element (the first of equals), 0 elsewhere.
struct OneHotArgMax {
  template <class T>
  void operator()(MatrixView<const T> x, MatrixView<T> out) const {
    for (Index i = 0; i < x.rows(); ++i) {
      Index best = 0;
      for (Index j = 1; j < x.cols(); ++j) best = x(i, j) > x(i, best) ? j : best;
      for (Index j = 0; j < x.cols(); ++j) out(i, j) = j == best ? T(1) : T(0);
    }
  }
};
/// The nearest code of a codebook. The search must outlive its use.
template <class T>
struct NearestCodeOf {
  const CodeSearch<T>& search;
  void operator()(MatrixView<const T> x, MatrixView<T> out) const {
    std::vector<std::int64_t> codes(static_cast<std::size_t>(x.rows()));
    search.find(x, codes);
    lookup_codes<T>(search.table(), codes, out);
  }
};

/// What backward takes for the discretisation's derivative.
enum class Surrogate {
  identity,  ///< 1: the gradient passes as it is
  clipped,   ///< 1 where |x| <= limit, else 0 (M. Courbariaux et al., binarised networks, 2016)
  softmax    ///< the softmax of each row at a temperature (for arg-max)
};

struct SurrogateOptions {
  Surrogate surrogate = Surrogate::identity;
  double limit = 1;        ///< of clipped
  double temperature = 1;  ///< of softmax
  int threads = 0;
};

/// out = f(x), both N x d. \p f is called on blocks of whole rows, f(block of x, block of out),
/// from several threads at once: one of the above, or any callable on such views.
template <class T, class F>
void straight_through(detail::InputMatrix<T> x, MatrixView<T> out, const F& f, int threads = 0) {
  constexpr const char* function = "quern::vq::straight_through";
  expect_shape(function, "out", out, x.extents());
  expect_apart(function, "out", out, "x", x);
  parallel_for(
      block_count(x.rows(), detail::search_rows),
      [&](std::int64_t b) {
        const BlockRange r = block_range(x.rows(), detail::search_rows, b);
        f(x.slice(0, r.begin, r.size()), out.slice(0, r.begin, r.size()));
      },
      threads);
}

namespace detail {

template <class T>
void softmax_surrogate_row(const MatrixView<const T>& x, const MatrixView<const T>& dout, Index i,
                           double temperature, std::vector<double>& p, const MatrixView<T>& dx) {
  const Index cols = x.cols();
  double largest = static_cast<double>(x(i, 0)), sum = 0, dot = 0;
  for (Index j = 1; j < cols; ++j) largest = (std::max)(largest, static_cast<double>(x(i, j)));
  for (Index j = 0; j < cols; ++j) {
    double& value = p[static_cast<std::size_t>(j)];
    value = std::exp((static_cast<double>(x(i, j)) - largest) / temperature);
    sum += value;
    dot += value * static_cast<double>(dout(i, j));
  }
  for (Index j = 0; j < cols; ++j) {
    const double y = p[static_cast<std::size_t>(j)] / sum;
    dx(i, j) = static_cast<T>(y * (static_cast<double>(dout(i, j)) - dot / sum) / temperature);
  }
}

}  // namespace detail

/// dx = dout times the surrogate's derivative at x. dx may be dout itself unless the surrogate is
/// softmax. ValueError for a temperature or limit that is not positive.
template <class T>
void straight_through_vjp(detail::InputMatrix<T> x, detail::InputMatrix<T> dout, MatrixView<T> dx,
                          const SurrogateOptions& options = {}) {
  constexpr const char* function = "quern::vq::straight_through_vjp";
  expect_shape(function, "dout", dout, x.extents());
  expect_shape(function, "dx", dx, x.extents());
  for (const double value : {options.limit, options.temperature}) {
    if (!(value > 0)) {
      throw ValueError(error_text(function, "limit, temperature", "positive numbers", value));
    }
  }
  parallel_for(
      block_count(x.rows(), detail::search_rows),
      [&](std::int64_t b) {
        const BlockRange r = block_range(x.rows(), detail::search_rows, b);
        std::vector<double> p(static_cast<std::size_t>(x.cols()));
        const T limit = static_cast<T>(options.limit);
        for (Index i = r.begin; i < r.end; ++i) {
          if (options.surrogate == Surrogate::softmax && x.cols() > 0) {
            detail::softmax_surrogate_row<T>(x, dout, i, options.temperature, p, dx);
            continue;
          }
          const bool clips = options.surrogate == Surrogate::clipped;
          for (Index j = 0; j < x.cols(); ++j) {
            const bool outside = clips && !(x(i, j) <= limit && x(i, j) >= -limit);
            dx(i, j) = outside ? T(0) : dout(i, j);
          }
        }
      },
      options.threads);
}

/// The rotation trick (C. Fifty et al., "Restructuring vector quantization with the rotation
/// trick", ICLR 2025): each row of \p x is rotated and scaled onto its code, row of \p q, by a map
/// that counts as constant in the gradient. out = q up to rounding; where a row of x or q is zero
/// there is no such map and out = q.
template <class T>
void rotation_trick(detail::InputMatrix<T> x, detail::InputMatrix<T> q, MatrixView<T> out,
                    int threads = 0);

/// dx row = that map's transpose applied to dout's row (the identity where there is no map): angles
/// between gradient and code carry over to gradient and row.
template <class T>
void rotation_trick_vjp(detail::InputMatrix<T> x, detail::InputMatrix<T> q,
                        detail::InputMatrix<T> dout, MatrixView<T> dx, int threads = 0);

namespace detail {

template <class T>
void rotate_rows(const char* function, const MatrixView<const T>& x, const MatrixView<const T>& q,
                 const MatrixView<const T>& w, const MatrixView<T>& out, bool transposed,
                 int threads) {
  expect_shape(function, "q", q, x.extents());
  expect_shape(function, "dout", w, x.extents());
  expect_shape(function, "out", out, x.extents());
  const auto plain = [](const auto& v) { return v.last_stride_is_one(); };
  if (!plain(x) || !plain(q) || !plain(w) || !plain(out)) {
    throw ShapeError(error_text(function, "rows", "contiguous rows", "a column stride"));
  }
  const auto cols = static_cast<std::size_t>(x.cols());
  parallel_for(
      block_count(x.rows(), search_rows),
      [&](std::int64_t b) {
        const BlockRange r = block_range(x.rows(), search_rows, b);
        for (Index i = r.begin; i < r.end; ++i) {
          QUERN_DISPATCH(rotate_row<T>(x.row_data(i), q.row_data(i), w.row_data(i), cols,
                                       transposed, out.row_data(i)));
        }
      },
      threads);
}

}  // namespace detail

template <class T>
void rotation_trick(detail::InputMatrix<T> x, detail::InputMatrix<T> q, MatrixView<T> out,
                    int threads) {
  detail::rotate_rows<T>("quern::vq::rotation_trick", x, q, x, out, false, threads);
  for (Index i = 0; i < x.rows(); ++i) {
    bool zero = true;
    for (Index j = 0; zero && j < x.cols(); ++j) zero = x(i, j) == T(0);
    bool nothing = true;
    for (Index j = 0; nothing && j < x.cols(); ++j) nothing = q(i, j) == T(0);
    if (!zero && !nothing) continue;
    for (Index j = 0; j < x.cols(); ++j) out(i, j) = q(i, j);
  }
}

template <class T>
void rotation_trick_vjp(detail::InputMatrix<T> x, detail::InputMatrix<T> q,
                        detail::InputMatrix<T> dout, MatrixView<T> dx, int threads) {
  detail::rotate_rows<T>("quern::vq::rotation_trick_vjp", x, q, dout, dx, true, threads);
}

}  // namespace vq
QUERN_NAMESPACE_END

#endif  // QUERN_VQ_STRAIGHT_THROUGH_HPP
