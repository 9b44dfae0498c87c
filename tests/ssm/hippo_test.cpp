// SPDX-License-Identifier: Apache-2.0

/// \file
/// HiPPO's matrices and their normal-plus-low-rank form against the S4 repository's.

#include "quern/ssm/hippo.hpp"

#include "reference.hpp"

#include <gtest/gtest.h>

#include <complex>
#include <cstddef>
#include <string>

namespace quern::test::ssm_hippo {
namespace {

using ssm::Measure;
using Complex = std::complex<double>;

constexpr Measure all[] = {Measure::legs, Measure::legt, Measure::lagt, Measure::glagt,
                           Measure::fout, Measure::lmu,  Measure::foud, Measure::legsd};

TEST(SsmHippo, MatricesOfAllMeasures) {
  for (const Measure measure : all) {
    for (const Index order : {4, 8, 32}) {
      const std::string file =
          "hippo_" + std::string(name(measure)) + "_N" + std::to_string(order) + "__";
      const ssm::Transition t = ssm::hippo(measure, order);
      const auto a = ssm_reference<double>(file + "A"), b = ssm_reference<double>(file + "B");
      expect_close(t.a.data(), a.values, a.size(), 1e-14, file.c_str());
      expect_close(t.b.data(), b.values, b.size(), 1e-14, file.c_str());
    }
  }
}

/// A and B rebuilt from the form, and V unitary.
void check_form(const ssm::NormalPlusLowRank& form, const ssm::Transition& t, double tolerance) {
  const Index order = t.a.extent(0), half = order / 2;
  for (Index i = 0; i < order; ++i) {
    Complex b = 0;
    for (Index k = 0; k < half; ++k) b += 2 * std::real(form.v(i, k) * form.b[std::size_t(k)]);
    EXPECT_NEAR(b.real(), t.b(i), tolerance * 10);
    for (Index j = 0; j < order; ++j) {
      double a = 0, product = 0;
      for (Index k = 0; k < half; ++k) {
        const Complex pair = form.v(i, k) * std::conj(form.v(j, k));
        a += 2 * std::real(pair * form.w[static_cast<std::size_t>(k)]);
        product += 2 * std::real(pair);
      }
      for (Index r = 0; r < form.p.extent(0); ++r) {
        double pi = 0, pj = 0;
        for (Index k = 0; k < half; ++k) {
          pi += 2 * std::real(form.v(i, k) * form.p(r, k));
          pj += 2 * std::real(form.v(j, k) * form.p(r, k));
        }
        a -= pi * pj;
      }
      EXPECT_NEAR(a, t.a(i, j), tolerance * 100) << i << ' ' << j;
      EXPECT_NEAR(product, i == j ? 1 : 0, tolerance);
    }
  }
}

TEST(SsmHippo, NormalPlusLowRankRebuildsTheMatrices) {
  for (const Measure measure : all) {
    if (measure == Measure::lmu) continue;
    for (const Index order : {2, 16, 64}) {
      SCOPED_TRACE(::testing::Message() << name(measure) << ' ' << order);
      const auto form = ssm::normal_plus_low_rank(measure, order);
      check_form(form, ssm::hippo(measure, order), 1e-12);
      for (const Complex& w : form.w) EXPECT_LE(w.imag(), 1e-12);
    }
  }
}

TEST(SsmHippo, SpectrumIsThePeers) {
  for (const std::string kind : {"legs", "legt"}) {
    const auto form = ssm::normal_plus_low_rank(kind == "legs" ? Measure::legs : Measure::legt, 16);
    const auto w = ssm_reference<Complex>("nplr_" + kind + "__W");
    const auto p = ssm_reference<Complex>("nplr_" + kind + "__P");
    for (std::size_t k = 0; k < w.size(); ++k) {
      std::size_t nearest = 0;
      const auto apart = [&](std::size_t i) {
        return std::abs(Complex(form.w[i].real(), std::abs(form.w[i].imag())) -
                        Complex(w[k].real(), std::abs(w[k].imag())));
      };
      for (std::size_t i = 0; i < form.w.size(); ++i)
        nearest = apart(i) < apart(nearest) ? i : nearest;
      EXPECT_LT(apart(nearest), 1e-11);
      for (Index r = 0; r < form.p.extent(0); ++r) {
        EXPECT_NEAR(std::abs(form.p(r, static_cast<Index>(nearest))),
                    std::abs(p[static_cast<std::size_t>(r) * w.size() + k]), 1e-10);
      }
    }
  }
}

TEST(SsmHippo, BadInput) {
  EXPECT_THROW(static_cast<void>(ssm::hippo(Measure::legs, 0)), ValueError);
  EXPECT_THROW(static_cast<void>(ssm::normal_plus_low_rank(Measure::legs, 7)), ValueError);
  EXPECT_THROW(static_cast<void>(ssm::normal_plus_low_rank(Measure::lmu, 8)), ValueError);
}

}  // namespace
}  // namespace quern::test::ssm_hippo
