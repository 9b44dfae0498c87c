// SPDX-License-Identifier: Apache-2.0

/// \file
/// From continuous time x' = A x + B u to steps x_k = A_d x_{k-1} + B_d u_k: Euler's two methods,
/// the bilinear one (Tustin), their generalisation, and the zero-order hold; for matrices, and for
/// diagonal A with its derivatives. Everything is worked out in double.

#ifndef QUERN_SSM_DISCRETIZE_HPP
#define QUERN_SSM_DISCRETIZE_HPP

#include "quern/core/checks.hpp"
#include "quern/core/config.hpp"
#include "quern/core/error.hpp"
#include "quern/core/nd_view.hpp"

#include <Eigen/Core>
#include <Eigen/LU>

#include <algorithm>
#include <cmath>
#include <complex>
#include <string_view>

QUERN_NAMESPACE_BEGIN
namespace ssm {

/// How a step is made. All but the last are the generalised bilinear transform (GBT) for a weight
/// alpha of the step's end: A_d = (I - alpha dt A)^-1 (I + (1 - alpha) dt A), B_d = (I - alpha dt
/// A)^-1 dt B.
enum class Discretization {
  forward_euler,         ///< alpha = 0; unstable for stiff A (LegS)
  backward_euler,        ///< alpha = 1
  bilinear,              ///< alpha = 1/2: stable whenever A is
  generalized_bilinear,  ///< the given alpha
  zero_order_hold        ///< exact for input that is constant within a step
};

/// A method and, for generalized_bilinear, its weight of the step's end.
struct DiscretizationOptions {
  Discretization method = Discretization::bilinear;
  double alpha = 0.5;  ///< in [0, 1]; only generalized_bilinear reads it
};

namespace detail {

using Matrix = Eigen::MatrixXd;

/// Weight of the step's end. ValueError for one outside [0, 1].
inline double gbt_alpha(const char* function, const DiscretizationOptions& options) {
  switch (options.method) {
    case Discretization::forward_euler:
      return 0;
    case Discretization::backward_euler:
      return 1;
    case Discretization::generalized_bilinear:
      expect_in_range(function, "alpha", options.alpha, 0, 1);
      return options.alpha;
    default:
      return 0.5;
  }
}

/// ValueError unless dt is a finite number above 0.
inline void expect_step(const char* function, double dt) {
  if (is_finite_bits(dt) && dt > 0) return;
  throw ValueError(error_text(function, "dt", "a finite number above 0", dt));
}

/// The same for each of several, with the place of the first that is none.
template <class T>
void expect_steps(const char* function, const NdView<const T, 1>& dt) {
  for (Index k = 0; k < dt.extent(0); ++k) {
    if (is_finite_bits(dt(k)) && dt(k) > T{0}) continue;
    throw ValueError(error_text(function, "dt", "finite numbers above 0",
                                quern::detail::text_of(dt(k)) + " at " + std::to_string(k)));
  }
}

/// e^x by scaling, a Padé approximant of degree 13, and squaring (Higham 2005).
template <class = void>
inline Matrix matrix_exponential(const Matrix& x) {
  static constexpr double b[] = {64764752532480000.,
                                 32382376266240000.,
                                 7771770303897600.,
                                 1187353796428800.,
                                 129060195264000.,
                                 10559470521600.,
                                 670442572800.,
                                 33522128640.,
                                 1323241920.,
                                 40840800.,
                                 960960.,
                                 16380.,
                                 182.,
                                 1.};
  const double norm = x.size() == 0 ? 0 : x.cwiseAbs().colwise().sum().maxCoeff();
  int squarings = 0;
  if (norm > 5.371920351148152) std::frexp(norm / 5.371920351148152, &squarings);
  const Matrix a = std::ldexp(1.0, -squarings) * x;
  const Matrix eye = Matrix::Identity(x.rows(), x.cols());
  const Matrix a2 = a * a, a4 = a2 * a2, a6 = a4 * a2;
  const Matrix odd = a * (a6 * (b[13] * a6 + b[11] * a4 + b[9] * a2) + b[7] * a6 + b[5] * a4 +
                          b[3] * a2 + b[1] * eye);
  const Matrix even =
      a6 * (b[12] * a6 + b[10] * a4 + b[8] * a2) + b[6] * a6 + b[4] * a4 + b[2] * a2 + b[0] * eye;
  Matrix result = (even - odd).partialPivLu().solve(even + odd);
  for (int k = 0; k < squarings; ++k) result = (result * result).eval();
  return result;
}

/// ValueError that names the place of the first entry that is NaN or infinite.
inline void expect_finite_matrix(const char* function, const char* argument, const Matrix& m) {
  for (Index i = 0; i < m.rows(); ++i) {
    for (Index j = 0; j < m.cols(); ++j) {
      if (is_finite_bits(m(i, j))) continue;
      throw ValueError(
          error_text(function, argument, "finite numbers",
                     "NaN or infinity at (" + std::to_string(i) + ", " + std::to_string(j) + ")"));
    }
  }
}

/// A_d and B_d in double. ValueError for dt out of range or with which I - alpha dt a is singular,
/// and for entries that are not finite, ShapeError unless a is square and b fits.
template <class = void>
inline void discretize(const char* function, const Matrix& a, const Matrix& b, double dt,
                       const DiscretizationOptions& options, Matrix& ad, Matrix& bd) {
  expect_step(function, dt);
  if (a.rows() != a.cols()) {
    throw ShapeError(
        error_text(function, "a", "a square matrix", shape_text(Shape<2>{a.rows(), a.cols()})));
  }
  expect_size(function, "b", b.rows(), a.rows(), "rows, those of a");
  const Index n = a.rows(), inputs = b.cols();
  expect_finite_matrix(function, "a", a);
  expect_finite_matrix(function, "b", b);
  if (options.method == Discretization::zero_order_hold) {
    Matrix whole = Matrix::Zero(n + inputs, n + inputs);
    whole.topLeftCorner(n, n) = dt * a;
    whole.topRightCorner(n, inputs) = dt * b;
    const Matrix e = matrix_exponential(whole);
    ad = e.topLeftCorner(n, n);
    bd = e.topRightCorner(n, inputs);
    return;
  }
  const double alpha = gbt_alpha(function, options);
  const Matrix eye = Matrix::Identity(n, n);
  const Eigen::PartialPivLU<Matrix> left(eye - alpha * dt * a);
  if (n > 0 && !(left.rcond() >= 1e-16)) {
    throw ValueError(
        error_text(function, "dt", "one with which I - alpha dt a is not singular", dt));
  }
  ad = left.solve(eye + (1 - alpha) * dt * a);
  bd = left.solve(dt * b);
}

template <class T>
Matrix to_matrix(const NdView<const T, 2>& v) {
  Matrix m(v.extent(0), v.extent(1));
  for (Index i = 0; i < m.rows(); ++i) {
    for (Index j = 0; j < m.cols(); ++j) m(i, j) = static_cast<double>(v(i, j));
  }
  return m;
}
template <class T>
void from_matrix(const Matrix& m, const NdView<T, 2>& v) {
  for (Index i = 0; i < m.rows(); ++i) {
    for (Index j = 0; j < m.cols(); ++j) v(i, j) = static_cast<T>(m(i, j));
  }
}

/// e^z - 1 without cancellation near 0.
inline std::complex<double> expm1(std::complex<double> z) {
  const double s = std::sin(z.imag() / 2), cosine_less_1 = -2 * s * s;
  const double e = std::expm1(z.real());
  return {e * (cosine_less_1 + 1) + cosine_less_1, (e + 1) * std::sin(z.imag())};
}

}  // namespace detail

/// a_d (states, states) and b_d (states, inputs) for a step dt of x' = a x + b u. Views of any
/// strides; computed in double. ShapeError where shapes do not fit; ValueError for dt that is not
/// above 0, for alpha outside [0, 1], for entries of a and b that are not finite, and where
/// I - alpha dt a has no inverse.
template <class T>
void discretize(NdView<const T, 2> a, std::type_identity_t<NdView<const T, 2>> b, double dt,
                const DiscretizationOptions& options, std::type_identity_t<NdView<T, 2>> a_d,
                std::type_identity_t<NdView<T, 2>> b_d) {
  constexpr const char* function = "quern::ssm::discretize";
  expect_shape(function, "a_d", a_d, a.extents());
  expect_shape(function, "b_d", b_d, b.extents());
  detail::Matrix ad, bd;
  detail::discretize(function, detail::to_matrix(a), detail::to_matrix(b), dt, options, ad, bd);
  detail::from_matrix(ad, a_d);
  detail::from_matrix(bd, b_d);
}

/// A step of x' = lambda x + b u for one complex lambda, and derivatives: x_k = a x_{k-1} + f b
/// u_k.
struct DiagonalStep {
  std::complex<double> a;      ///< multiplier
  std::complex<double> f;      ///< factor of b
  std::complex<double> log_a;  ///< logarithm of the multiplier, imaginary part not reduced (zoh)
  std::complex<double> da_dz;  ///< of a, by z = lambda dt
  std::complex<double> dg_dz;  ///< of g = f / dt, by z
};

/// The step of lambda over dt. Right to rounding also where lambda dt is 0 or nearly.
/// ValueError for a dt that is not above 0, for alpha outside [0, 1], for a lambda that is not
/// finite, and where alpha lambda dt is 1.
[[nodiscard]] inline DiagonalStep diagonal_step(std::complex<double> lambda, double dt,
                                                const DiscretizationOptions& options) {
  constexpr const char* function = "quern::ssm::diagonal_step";
  using Complex = std::complex<double>;
  detail::expect_step(function, dt);
  if (!is_finite_bits(lambda.real()) || !is_finite_bits(lambda.imag())) {
    throw ValueError(error_text(function, "lambda", "a finite number", "NaN or infinity"));
  }
  const Complex z = lambda * dt;
  DiagonalStep step;
  if (options.method == Discretization::zero_order_hold) {
    step.log_a = z;
    step.a = std::polar(std::exp(z.real()), z.imag());
    step.da_dz = step.a;
    const bool tiny = std::abs(z) < 0.5;
    const Complex g = std::abs(z) < 1e-300 ? Complex(1) : detail::expm1(z) / z;
    step.f = dt * g;
    if (!tiny) {
      step.dg_dz = (step.a - g) / z;
    } else {  // sum of k z^(k-1) / (k+1)!
      Complex sum = 0;
      double factorial = 6402373705728000.;  // 18!
      for (int k = 17; k >= 1; --k) {
        sum = sum * z + static_cast<double>(k) / factorial;
        factorial /= static_cast<double>(k + 1);
      }
      step.dg_dz = sum;
    }
    return step;
  }
  const double alpha = detail::gbt_alpha(function, options);
  if (alpha * z == 1.0) {
    throw ValueError(error_text(function, "dt", "one with which alpha lambda dt is not 1", dt));
  }
  const Complex inverse = 1.0 / (1.0 - alpha * z);
  step.a = (1.0 + (1 - alpha) * z) * inverse;
  step.log_a = std::log(step.a);
  step.f = dt * inverse;
  step.da_dz = inverse * inverse;
  step.dg_dz = alpha * inverse * inverse;
  return step;
}

}  // namespace ssm
QUERN_NAMESPACE_END

#endif  // QUERN_SSM_DISCRETIZE_HPP
