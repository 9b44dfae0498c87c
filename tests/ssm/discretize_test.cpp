// SPDX-License-Identifier: Apache-2.0

/// \file
/// Discretisation against scipy.signal.cont2discrete, diagonal steps against matrices and their
/// derivatives against differences, values next to 0, bad steps.

#include "quern/ssm/discretize.hpp"

#include "reference.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <complex>
#include <limits>
#include <string>
#include <utility>

namespace quern::test::ssm_discretize {
namespace {

using ssm::Discretization;
using Complex = std::complex<double>;

constexpr std::pair<const char*, ssm::DiscretizationOptions> methods[] = {
    {"euler", {Discretization::forward_euler}},
    {"backward_diff", {Discretization::backward_euler}},
    {"bilinear", {Discretization::bilinear}},
    {"gbt", {Discretization::generalized_bilinear, 0.25}},
    {"zoh", {Discretization::zero_order_hold}}};

TEST(SsmDiscretize, MatricesAgainstScipy) {
  for (const std::string measure : {"legs", "legt", "fout"}) {
    const auto a = ssm_reference<double>("hippo_" + measure + "_N8__A");
    const auto b = ssm_reference<double>("hippo_" + measure + "_N8__B");
    for (const auto& [name, options] : methods) {
      for (const std::string dt : {"0.001", "0.01", "0.1"}) {
        const std::string file = "disc_" + measure + "_N8_" + name + "_dt" + dt + "__";
        NdArray<double, 2> ad({8, 8}), bd({8, 1});
        ssm::discretize<double>(a.view<2>(), {b.values.data(), {8, 1}}, std::stod(dt), options,
                                ad.view(), bd.view());
        expect_close(ad.data(), ssm_reference<double>(file + "Ad").values, 64, 1e-13, file.c_str());
        expect_close(bd.data(), ssm_reference<double>(file + "Bd").values, 8, 1e-13, file.c_str());
      }
    }
  }
}

TEST(SsmDiscretize, DiagonalStepsAndDerivatives) {
  for (const auto& [name, options] : methods) {
    for (const Complex lambda : {Complex(-0.5, 30), Complex(-3, 0), Complex(-1e-3, 0.2)}) {
      SCOPED_TRACE(name);
      const double dt = 0.05;
      const ssm::DiagonalStep step = ssm::diagonal_step(lambda, dt, options);
      // As the matrix of multiplication by lambda.
      NdArray<double, 2> a({2, 2}), b({2, 1}), ad({2, 2}), bd({2, 1});
      a(0, 0) = a(1, 1) = lambda.real();
      a(1, 0) = lambda.imag(), a(0, 1) = -lambda.imag();
      b(0, 0) = 1;
      ssm::discretize<double>(a.view(), b.view(), dt, options, ad.view(), bd.view());
      EXPECT_NEAR(std::abs(step.a - Complex(ad(0, 0), ad(1, 0))), 0, 1e-14);
      EXPECT_NEAR(std::abs(step.f - Complex(bd(0, 0), bd(1, 0))), 0, 1e-15);
      EXPECT_NEAR(std::abs(std::exp(step.log_a) - step.a), 0, 1e-14);
      const double h = 1e-6;
      const auto up = ssm::diagonal_step(lambda + h, dt, options);
      const auto down = ssm::diagonal_step(lambda - h, dt, options);
      EXPECT_NEAR(std::abs((up.a - down.a) / (2 * h * dt) - step.da_dz), 0, 1e-7);
      EXPECT_NEAR(std::abs((up.f - down.f) / (2 * h * dt * dt) - step.dg_dz), 0, 1e-7);
    }
  }
}

TEST(SsmDiscretize, HoldIsExactNextToZero) {
  const ssm::DiscretizationOptions hold{Discretization::zero_order_hold};
  EXPECT_EQ(ssm::diagonal_step(0, 0.1, hold).f, Complex(0.1));
  for (const double size : {1e-300, 1e-20, 1e-12, 1e-8, 1e-4}) {
    for (const Complex unit : {Complex(-1, 0), Complex(0, 1), Complex(-0.6, 0.8)}) {
      const Complex z = size * unit;
      const auto step = ssm::diagonal_step(z, 1, hold);
      // (e^z - 1) / z = 1 + z / 2 + z^2 / 6 + …
      const Complex series = 1.0 + z / 2.0 + z * z / 6.0 + z * z * z / 24.0;
      EXPECT_NEAR(std::abs(step.f - series), 0, 4e-16) << z;
      EXPECT_NEAR(std::abs(step.dg_dz - (0.5 + z / 3.0 + z * z / 8.0)), 0, 1e-12);
    }
  }
  for (const double dt : {1e-8, 1e-3, 1.0, 1e3}) {
    const auto step = ssm::diagonal_step({-0.5, 100}, dt, hold);
    EXPECT_TRUE(std::isfinite(std::abs(step.a)) && std::isfinite(std::abs(step.f)));
  }
  // Both branches of the derivative meet.
  const auto below = ssm::diagonal_step({-0.4999999, 0}, 1, hold);
  const auto above = ssm::diagonal_step({-0.5000001, 0}, 1, hold);
  EXPECT_NEAR(std::abs(below.dg_dz - above.dg_dz), 0, 1e-7);
}

TEST(SsmDiscretize, BadInput) {
  NdArray<double, 2> a({2, 2}), b({2, 1}), wide({2, 3});
  for (const double dt : {0.0, -1.0, std::numeric_limits<double>::infinity(),
                          std::numeric_limits<double>::quiet_NaN()}) {
    EXPECT_THROW(ssm::discretize<double>(a.view(), b.view(), dt, {}, a.view(), b.view()),
                 ValueError);
    EXPECT_THROW(static_cast<void>(ssm::diagonal_step(-1, dt, {})), ValueError);
  }
  EXPECT_THROW(ssm::discretize<double>(wide.view(), b.view(), 1, {}, wide.view(), b.view()),
               ShapeError);
  EXPECT_THROW(
      static_cast<void>(ssm::diagonal_step(-1, 1, {Discretization::generalized_bilinear, 2})),
      ValueError);
  a(0, 0) = 4, a(1, 1) = -1;  // I - dt a / 2 has no inverse
  NdArray<double, 2> ad({2, 2}), bd({2, 1});
  const auto run = [&](Discretization method) {
    ssm::discretize<double>(a.view(), b.view(), 0.5, {method}, ad.view(), bd.view());
  };
  EXPECT_THROW(run(Discretization::bilinear), ValueError);
  EXPECT_THROW(static_cast<void>(ssm::diagonal_step(4, 0.5, {Discretization::bilinear})),
               ValueError);
  run(Discretization::zero_order_hold);
  a(0, 1) = std::numeric_limits<double>::quiet_NaN();
  EXPECT_THROW(run(Discretization::zero_order_hold), ValueError);
  EXPECT_THROW(run(Discretization::bilinear), ValueError);
  EXPECT_THROW(static_cast<void>(ssm::diagonal_step(a(0, 1), 0.5, {})), ValueError);
}

}  // namespace
}  // namespace quern::test::ssm_discretize
