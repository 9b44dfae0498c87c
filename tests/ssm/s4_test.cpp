// SPDX-License-Identifier: Apache-2.0

/// \file
/// S4 against annotated-s4's kernels; convolution = recurrence = steps = pieces, gradients through
/// both, ranks 0 to 2, odd lengths of truncated kernels, float against double, bad input.

#include "quern/ssm/s4.hpp"

#include "gradient.hpp"
#include "quern/ssm/hippo.hpp"
#include "recurrences.hpp"
#include "reference.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <complex>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <utility>
#include <vector>

namespace quern::test::ssm_s4 {
namespace {

using Complex = std::complex<double>;

TEST(SsmS4, KernelsAgainstReferences) {
  for (const std::string size : {"N8_L64", "N16_L256"}) {
    const std::string file = "s4_" + size + "__";
    const auto lambda = ssm_reference<Complex>(file + "Lambda"),
               p = ssm_reference<Complex>(file + "P");
    const auto b = ssm_reference<Complex>(file + "B"), cb = ssm_reference<Complex>(file + "Cb");
    const auto tilde = ssm_reference<Complex>(file + "Ctilde");
    const auto dt = ssm_reference<double>(file + "dt");
    const auto want = ssm_reference<double>(file + "K_dplr");
    const Index modes = static_cast<Index>(lambda.size());
    std::vector<Complex> row(tilde.values);
    for (Complex& z : row) z = std::conj(z);
    ssm::S4Parameters<double> q{.lambda = {lambda.values.data(), {1, modes}},
                                .p = {p.values.data(), {1, 1, modes}},
                                .b = {b.values.data(), {1, modes}},
                                .c = {cb.values.data(), {1, modes}},
                                .dt = {dt.values.data(), {1}}};
    const Index length = static_cast<Index>(want.size());
    NdArray<double, 2> kernel({length, 1});
    ssm::s4_kernel<double>(q, kernel.view(), {.conjugate = false});
    expect_close(kernel.data(), want.values, want.size(), 1e-11, "by the circle");
    q.c = {row.data(), {1, modes}};
    ssm::s4_kernel<double>(q, kernel.view(), {.conjugate = false, .truncated = length});
    expect_close(kernel.data(), want.values, want.size(), 1e-12, "truncated");
    const auto power = ssm_reference<Complex>(file + "K_power");
    for (Index t = 0; t < length; ++t) {
      EXPECT_NEAR(kernel(t, 0), power[static_cast<std::size_t>(t)].real(), 1e-11);
    }
  }
}

/// LegS's or LegT's normal-plus-low-rank form in every channel.
template <class T>
struct Model {
  NdArray<std::complex<T>, 2> lambda, b, c, back;
  NdArray<std::complex<T>, 3> p;
  NdArray<T, 1> dt, d;

  Model(ssm::Measure measure, Index channels, Index modes, bool both)
      : lambda({channels, modes}),
        b({channels, modes}),
        c(ssm_random<std::complex<T>, 2>({channels, modes}, 2)),
        dt({channels}),
        d(ssm_random<T, 1>({channels}, 3)) {
    const auto form = ssm::normal_plus_low_rank(measure, 2 * modes);
    const Index rank = form.p.extent(0);
    p.resize({channels, rank, modes});
    for (Index k = 0; k < channels; ++k) {
      dt(k) = static_cast<T>(0.02) * static_cast<T>(k + 1);
      for (Index n = 0; n < modes; ++n) {
        const auto at = static_cast<std::size_t>(n);
        // lagt's poles are on the axis: differences must not push them over.
        lambda(k, n) = std::complex<T>(form.w[at] - (form.w[at].real() > -0.1 ? 0.1 : 0.0));
        b(k, n) = std::complex<T>(form.b[at]);
        for (Index r = 0; r < rank; ++r) p(k, r, n) = std::complex<T>(form.p(r, n));
      }
    }
    if (both) back = ssm_random<std::complex<T>, 2>({channels, modes}, 4);
  }
  [[nodiscard]] ssm::S4Parameters<T> view() const {
    ssm::S4Parameters<T> q{.lambda = lambda.view(),
                           .p = p.view(),
                           .b = b.view(),
                           .c = c.view(),
                           .dt = dt.view(),
                           .d = d.view()};
    if (!back.empty()) q.c_back = back.view();
    return q;
  }
};

void check_gradients(ssm::Measure measure, bool both, bool states, ssm::S4Options options) {
  SCOPED_TRACE(::testing::Message() << name(measure) << both << states << options.truncated);
  const Index channels = 2, modes = 3, length = 7;
  const std::vector<std::int64_t> offsets = {0, 3, 3, 7};
  const bool packed = states;
  if (packed) options.offsets = offsets;
  const Index batch = packed ? 1 : 2, sequences = packed ? 3 : 2;
  Model<double> m(measure, channels, modes, both);
  auto u = ssm_random<double, 3>({batch, length, channels}, 5);
  const auto w = ssm_random<double, 3>({batch, length, channels}, 6);
  auto x0 = ssm_random<Complex, 2>({sequences, channels * modes}, 7);
  const auto v = ssm_random<Complex, 2>({sequences, channels * modes}, 8);
  const NdView<const Complex, 2> none;
  const auto loss = [&] {
    NdArray<double, 3> y(u.extents());
    NdArray<Complex, 2> last(x0.extents());
    ssm::s4<double>(u.view(), m.view(), states ? std::as_const(x0).view() : none, y.view(),
                    states ? last.view() : NdView<Complex, 2>(), options);
    return ssm_inner(w, y) + (states ? ssm_inner(v, last) : 0.0);
  };
  NdArray<double, 3> du(u.extents());
  NdArray<Complex, 2> dlambda(m.b.extents()), db(m.b.extents()), dc(m.b.extents()),
      dback(m.b.extents());
  NdArray<Complex, 2> dx0(x0.extents());
  NdArray<Complex, 3> dp(m.p.extents());
  NdArray<double, 1> ddt(m.dt.extents()), dd(m.d.extents());
  ssm::S4Gradients<double> g{
      .lambda = dlambda.view(), .b = db.view(), .c = dc.view(), .dt = ddt.view(), .d = dd.view()};
  if (!dp.empty()) g.p = dp.view();
  if (both) g.c_back = dback.view();
  ssm::s4_vjp<double>(u.view(), m.view(), states ? std::as_const(x0).view() : none, w.view(),
                      states ? v.view() : none, du.view(), g,
                      states ? dx0.view() : NdView<Complex, 2>(), options);
  expect_ssm_gradient(u, du, loss, "u");
  expect_ssm_gradient(m.lambda, dlambda, loss, "lambda");
  expect_ssm_gradient(m.p, dp, loss, "p");
  expect_ssm_gradient(m.b, db, loss, "b");
  expect_ssm_gradient(m.c, dc, loss, "c");
  expect_ssm_gradient(m.dt, ddt, loss, "dt");
  expect_ssm_gradient(m.d, dd, loss, "d");
  if (both) expect_ssm_gradient(m.back, dback, loss, "c_back");
  if (states) expect_ssm_gradient(x0, dx0, loss, "initial");
}

TEST(SsmS4, GradientsAgainstDifferences) {
  check_gradients(ssm::Measure::legs, false, false, {});
  check_gradients(ssm::Measure::legt, true, false, {});
  check_gradients(ssm::Measure::legsd, false, false, {.conjugate = false, .truncated = 7});
  check_gradients(ssm::Measure::legs, false, true, {});
  check_gradients(ssm::Measure::legt, false, true, {});
  check_gradients(ssm::Measure::legt, false, true, {.conjugate = false});
}

template <class T>
void check_forms(ssm::Measure measure, double tolerance) {
  const Index channels = 11, modes = 8, length = 100, batch = 2;
  const Model<T> m(measure, channels, modes, false);
  const auto u = ssm_random<T, 3>({batch, length, channels}, 5);
  NdArray<T, 3> whole(u.extents()), steps(u.extents()), parts(u.extents());
  NdArray<std::complex<T>, 2> state({batch, channels * modes}), piece(state.extents());
  ssm::s4<T>(u.view(), m.view(), {}, whole.view());
  for (Index t = 0; t < length; ++t) {
    ssm::s4_step<T>(u.view().subview(t, 1), m.view(), state.view(), steps.view().subview(t, 1));
  }
  const ssm::S4Stepper<T> stepper(m.view());
  NdArray<std::complex<T>, 2> moving(state.extents());
  NdArray<T, 2> y({batch, channels});
  for (Index t = 0; t < length; ++t) {
    stepper.step(u.view().subview(t, 1), moving.view(), y.view());
    for (Index k = 0; k < channels; ++k) ASSERT_EQ(y(1, k), steps(1, t, k));
  }
  for (Index t = 0; t < length; t += 37) {
    const Index n = (std::min)(Index{37}, length - t);
    ssm::s4<T>(u.view().slice(1, t, n), m.view(), std::as_const(piece).view(),
               parts.view().slice(1, t, n), piece.view());
  }
  const auto size = static_cast<std::size_t>(u.size());
  expect_close(steps.data(), whole.data(), size, tolerance, "steps");
  expect_close(parts.data(), whole.data(), size, tolerance, "pieces");
  expect_close(piece.data(), state.data(), static_cast<std::size_t>(state.size()), tolerance,
               "state");
}

TEST(SsmS4, ConvolutionStepsAndPiecesAgree) {
  check_forms<double>(ssm::Measure::legs, 1e-10);
  check_forms<double>(ssm::Measure::legt, 1e-10);
  check_forms<float>(ssm::Measure::legs, 1e-5);
}

TEST(SsmS4, FloatKernelAtLength16384IsDoubles) {
  const Index length = 16384, channels = 2;
  Model<float> m(ssm::Measure::legs, channels, 32, false);
  Model<double> m2(ssm::Measure::legs, channels, 32, false);
  const auto copy = [](const auto& from, auto& to) {
    for (Index i = 0; i < to.size(); ++i) to.data()[i] = from.data()[i];
  };
  m.dt(0) = 1e-4F, m.dt(1) = 1e-3F;
  copy(m.lambda, m2.lambda);
  copy(m.p, m2.p);
  copy(m.b, m2.b);
  copy(m.c, m2.c);
  copy(m.dt, m2.dt);
  copy(m.d, m2.d);
  NdArray<float, 2> kernel({length, channels});
  NdArray<double, 2> exact({length, channels});
  ssm::s4_kernel<float>(m.view(), kernel.view());
  ssm::s4_kernel<double>(m2.view(), exact.view());
  expect_close(kernel.data(), exact.data(), static_cast<std::size_t>(kernel.size()), 1e-6, "K");
}

TEST(SsmS4, EveryStepSizeIsFinite) {
  for (const double dt : {1e-8, 1e-3, 1.0, 1e3}) {
    Model<float> m(ssm::Measure::legs, 2, 4, false);
    m.dt.fill(static_cast<float>(dt));
    const auto u = ssm_random<float, 3>({1, 50, 2}, 1);
    NdArray<float, 3> y(u.extents());
    NdArray<std::complex<float>, 2> dlambda(m.b.extents());
    NdArray<float, 1> ddt({2});
    ssm::s4<float>(u.view(), m.view(), {}, y.view());
    ssm::s4_vjp<float>(u.view(), m.view(), {}, std::as_const(y).view(), {}, {},
                       {.lambda = dlambda.view(), .dt = ddt.view()});
    EXPECT_TRUE(ssm::detail::all_finite(y.view()) && ssm::detail::all_finite(dlambda.view()));
    EXPECT_TRUE(ssm::detail::all_finite(ddt.view()));
  }
}

TEST(SsmS4, BadInput) {
  Model<double> m(ssm::Measure::legs, 2, 3, false);
  const auto u = ssm_random<double, 3>({1, 9, 2}, 1);
  NdArray<double, 3> y(u.extents());
  NdArray<Complex, 2> narrow({1, 5}), state({1, 6});
  const auto run = [&](const ssm::S4Options& options = {}) {
    ssm::s4<double>(u.view(), m.view(), {}, y.view(), {}, options);
  };
  run();
  EXPECT_THROW(ssm::s4<double>(u.view(), m.view(), narrow.view(), y.view()), ShapeError);
  EXPECT_THROW(run({.truncated = 8}), ShapeError);
  EXPECT_THROW(run({.truncated = -2}), ShapeError);
  EXPECT_THROW(ssm::s4<double>(u.view(), m.view(), state.view(), y.view(), {}, {.truncated = 9}),
               ShapeError);
  m.lambda(1, 1).real(0.5);
  EXPECT_THROW(run(), ValueError);
  run({.clip_poles = true});
  m.lambda(1, 1).real(-0.5);
  m.dt(1) = 0;
  EXPECT_THROW(run(), ValueError);
  m.dt(1) = 0.1;
  NdArray<double, 3> none({1, 0, 2});
  ssm::s4<double>(none.view(), m.view(), {}, none.view());
  // No step keeps the state; one is the step.
  NdArray<Complex, 2> last({1, 6});
  state(0, 4) = {2, 1};
  ssm::s4<double>(none.view(), m.view(), std::as_const(state).view(), none.view(), last.view());
  EXPECT_EQ(last(0, 4), Complex(2, 1));
  expect_words("quern::ssm::s4: u: expected finite numbers, got NaN or infinity at (0, 5, 1)", [&] {
    auto bad = NdArray<double, 3>(u);
    bad(0, 5, 1) = std::numeric_limits<double>::infinity();
    ssm::s4<double>(bad.view(), m.view(), {}, y.view());
  });
  state(0, 5) = {0, std::nan("")};
  expect_words("initial: expected finite numbers, got NaN or infinity at (0, 5)",
               [&] { ssm::s4<double>(u.view(), m.view(), std::as_const(state).view(), y.view()); });
  m.c(1, 2) = std::nan("");
  expect_words("c: expected finite numbers, got NaN or infinity at (1, 2)", [&] { run(); });
}

}  // namespace
}  // namespace quern::test::ssm_s4
