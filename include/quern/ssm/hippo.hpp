// SPDX-License-Identifier: Apache-2.0

/// \file
/// HiPPO's transition matrices (Gu et al., arXiv:2008.07669 and arXiv:2206.12037), and their
/// normal-plus-low-rank form.
///
/// One convention for all: x' = A x + B u, so A is what is applied (eigenvalues left of the
/// imaginary axis), and orthonormal bases, except lmu. Published variants differ: hippo-code's
/// LegT and FouT are twice these (their window is 1 long, here it is 2, as in the S4 repository);
/// papers often print -A.

#ifndef QUERN_SSM_HIPPO_HPP
#define QUERN_SSM_HIPPO_HPP

#include "quern/core/checks.hpp"
#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/core/nd_array.hpp"
#include "quern/core/nd_view.hpp"

#include <Eigen/Core>
#include <Eigen/Eigenvalues>

#include <cmath>
#include <complex>
#include <numbers>
#include <string_view>
#include <vector>

QUERN_NAMESPACE_BEGIN
namespace ssm {

/// What is remembered, and in which basis.
enum class Measure {
  legs,   ///< the whole past evenly, Legendre polynomials (scaled: A/t, B/t)
  legt,   ///< a window of 2, Legendre polynomials
  lagt,   ///< an exponentially fading past, Laguerre functions
  glagt,  ///< Laguerre functions tilted by beta = 0.01
  fout,   ///< a window of 2, Fourier series
  lmu,    ///< a window of 1, Legendre polynomials that are not normalised (Voelker et al. 2019)
  foud,   ///< Fourier series under e^(-t/2)
  legsd   ///< the normal part of legs, which S4D starts from
};

/// "legs" and the like.
[[nodiscard]] constexpr std::string_view name(Measure measure) noexcept {
  constexpr std::string_view names[] = {"legs", "legt", "lagt", "glagt",
                                        "fout", "lmu",  "foud", "legsd"};
  return names[static_cast<int>(measure)];
}

/// A and B of x' = A x + B u.
struct Transition {
  NdArray<double, 2> a;  ///< (order, order)
  NdArray<double, 1> b;  ///< (order)
};

namespace detail {

/// Tilt of Measure::glagt.
inline constexpr double glagt_beta = 0.01;

inline double legendre_norm(Index n) { return std::sqrt(2.0 * static_cast<double>(n) + 1); }
/// (-1)^n.
inline double alternating(Index n) { return n % 2 == 0 ? 1 : -1; }
/// B of the Fourier measures: 1, 0, sqrt 2, 0, sqrt 2, 0, …
inline double fourier_input(Index n) { return n == 0 ? 1 : n % 2 == 0 ? std::numbers::sqrt2 : 0; }
/// The turning of sines and cosines: S[2m + 1, 2m] = m = -S[2m, 2m + 1].
inline double fourier_turn(Index i, Index j) {
  if (i / 2 != j / 2 || i == j) return 0;
  return i > j ? static_cast<double>(i / 2) : -static_cast<double>(i / 2);
}

inline double transition_a(Measure measure, Index i, Index j) {
  const double r = legendre_norm(i) * legendre_norm(j), pi = std::numbers::pi;
  const double below = i > j ? 1 : 0, same = i == j ? 1 : 0;
  const double legs = -(r * below + static_cast<double>(i + 1) * same);
  switch (measure) {
    case Measure::legs:
      return legs;
    case Measure::legsd:
      return legs + r / 2;
    case Measure::legt:
      return -r / 2 * (i < j ? alternating(i - j) : 1);
    case Measure::lagt:
      return -below - same / 2;
    case Measure::glagt:
      return -below - (1 + glagt_beta) / 2 * same;
    case Measure::lmu:
      return static_cast<double>(2 * i + 1) * (i < j ? -1 : alternating(i - j + 1));
    case Measure::fout:
      return pi * fourier_turn(i, j) - fourier_input(i) * fourier_input(j);
    case Measure::foud:
      return 2 * pi * fourier_turn(i, j) - same / 2;
  }
  return 0;
}

inline double transition_b(Measure measure, Index n) {
  switch (measure) {
    case Measure::legs:
      return legendre_norm(n);
    case Measure::legsd:
    case Measure::legt:
      return legendre_norm(n) / 2;
    case Measure::lagt:
      return 1;
    case Measure::glagt:
      return std::sqrt(glagt_beta);
    case Measure::lmu:
      return static_cast<double>(2 * n + 1) * alternating(n);
    case Measure::fout:
    case Measure::foud:
      return fourier_input(n);
  }
  return 0;
}

inline void expect_order(const char* function, Index order, Index least) {
  if (order >= least) return;
  throw ValueError(error_text(function, "order", "at least " + std::to_string(least), order));
}

}  // namespace detail

/// The matrices of a measure for `order` coefficients. ValueError for an order below 1.
[[nodiscard]] inline Transition hippo(Measure measure, Index order) {
  detail::expect_order("quern::ssm::hippo", order, 1);
  Transition t{NdArray<double, 2>({order, order}), NdArray<double, 1>({order})};
  for (Index i = 0; i < order; ++i) {
    for (Index j = 0; j < order; ++j) t.a(i, j) = detail::transition_a(measure, i, j);
    t.b(i) = detail::transition_b(measure, i);
  }
  return t;
}

/// Normal plus low rank: A = V (diag W - sum_k P_k P_k^*) V^*, B = V B', V unitary. Of each
/// conjugate pair one half is kept: V is [V, conj V] and W, P, B' go on with their conjugates.
struct NormalPlusLowRank {
  std::vector<std::complex<double>> w;  ///< order / 2
  NdArray<std::complex<double>, 2> p;   ///< (rank, order / 2); rank 0, 1 or 2
  std::vector<std::complex<double>> b;  ///< order / 2
  NdArray<std::complex<double>, 2> v;   ///< (order, order / 2)
};

namespace detail {

/// Real vectors p_k for which A + sum_k p_k p_k^T is normal.
inline Eigen::MatrixXd low_rank_part(Measure measure, Index order) {
  const Index rank = measure == Measure::legt                                ? 2
                     : measure == Measure::legsd || measure == Measure::foud ? 0
                                                                             : 1;
  Eigen::MatrixXd p = Eigen::MatrixXd::Zero(rank, order);
  for (Index n = 0; n < order; ++n) {
    const double r = legendre_norm(n) / std::numbers::sqrt2;
    switch (measure) {
      case Measure::legs:
        p(0, n) = r;
        break;
      case Measure::legt:
        p(1 - n % 2, n) = r;
        break;
      case Measure::lagt:
      case Measure::glagt:
        p(0, n) = 1 / std::numbers::sqrt2;
        break;
      case Measure::fout:
        p(0, n) = fourier_input(n);
        break;
      default:
        break;
    }
  }
  return p;
}

/// Orthonormal pairs (x, y) that span the planes in which a skew matrix turns: columns first[k] and
/// second[k] of q, by the real Schur form. Vectors that it does not turn are paired with each
/// other.
struct SkewPairs {
  Eigen::MatrixXd q;
  std::vector<Index> first, second;
};

template <class = void>
inline SkewPairs skew_pairs(const Eigen::MatrixXd& s) {
  const Eigen::RealSchur<Eigen::MatrixXd> schur(s);
  SkewPairs pairs{schur.matrixU(), {}, {}};
  const Eigen::MatrixXd& t = schur.matrixT();
  std::vector<Index> alone;
  for (Index k = 0; k < s.rows();) {
    if (k + 1 < s.rows() && t(k + 1, k) != 0) {
      pairs.first.push_back(k);
      pairs.second.push_back(k + 1);
      k += 2;
    } else {
      alone.push_back(k++);
    }
  }
  for (std::size_t k = 0; k + 1 < alone.size(); k += 2) {
    pairs.first.push_back(alone[k]);
    pairs.second.push_back(alone[k + 1]);
  }
  return pairs;
}

}  // namespace detail

/// The normal-plus-low-rank form of a measure's matrices. ValueError for an odd order and for lmu,
/// which has none (it is legt in another basis).
template <class = void>
[[nodiscard]] inline NormalPlusLowRank normal_plus_low_rank(Measure measure, Index order) {
  constexpr const char* function = "quern::ssm::normal_plus_low_rank";
  using Complex = std::complex<double>;
  detail::expect_order(function, order, 2);
  if (order % 2 != 0) throw ValueError(error_text(function, "order", "an even number", order));
  if (measure == Measure::lmu) {
    throw ValueError(error_text(function, "measure", "one that has such a form", "lmu"));
  }
  const Eigen::MatrixXd low = detail::low_rank_part(measure, order);
  Eigen::MatrixXd a(order, order);
  Eigen::VectorXd b(order);
  for (Index i = 0; i < order; ++i) {
    for (Index j = 0; j < order; ++j) a(i, j) = detail::transition_a(measure, i, j);
    b(i) = detail::transition_b(measure, i);
  }
  a += low.transpose() * low;
  const double shift = a.trace() / static_cast<double>(order);
  const Eigen::MatrixXd skew = (a - a.transpose()) / 2;
  const detail::SkewPairs pairs = detail::skew_pairs(skew);
  NormalPlusLowRank form;
  const Index half = order / 2;
  form.p.resize({low.rows(), half});
  form.v.resize({order, half});
  for (Index k = 0; k < half; ++k) {
    const auto at = static_cast<std::size_t>(k);
    const Eigen::VectorXd x = pairs.q.col(pairs.first[at]), y = pairs.q.col(pairs.second[at]);
    // For v = (x + i y) / sqrt 2, S v = i w v with w = x^T S y.
    double w = x.dot(skew * y);
    const double sign = w > 0 ? -1 : 1;  // the half below the real axis
    w *= sign;
    form.w.emplace_back(shift, w);
    const Eigen::VectorXd ys = sign * y;
    const auto project = [&](const Eigen::VectorXd& z) {  // v^* z
      return Complex(x.dot(z), -ys.dot(z)) / std::numbers::sqrt2;
    };
    for (Index i = 0; i < order; ++i) form.v(i, k) = Complex(x(i), ys(i)) / std::numbers::sqrt2;
    form.b.push_back(project(b));
    for (Index r = 0; r < low.rows(); ++r) {
      form.p(r, k) = project(low.row(r).transpose());
    }
  }
  return form;
}

}  // namespace ssm
QUERN_NAMESPACE_END

#endif  // QUERN_SSM_HIPPO_HPP
