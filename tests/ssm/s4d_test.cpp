// SPDX-License-Identifier: Apache-2.0

/// \file
/// S4D against the S4 repository's kernels and outputs; step = convolution, pieces equal the whole,
/// gradients of everything, both directions, packed sequences, float at length 16,384, bad input.

#include "quern/ssm/s4d.hpp"

#include "gradient.hpp"
#include "recurrences.hpp"
#include "reference.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <complex>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <string>
#include <vector>

namespace quern::test::ssm_s4d {
namespace {

using Complex = std::complex<double>;
using ssm::Discretization;

TEST(SsmS4d, KernelsAgainstReferences) {
  for (const std::string kind : {"lin", "inv", "legs", "real", "quad"}) {
    const auto a = ssm_reference<Complex>("s4d_" + kind + "__A");
    const auto c = ssm_reference<Complex>("s4d_" + kind + "__C");
    const auto dt = ssm_reference<double>("s4d_" + kind + "__dt");
    const ssm::S4dParameters<double> p{.a = a.view<2>(), .c = c.view<2>(), .dt = dt.view<1>()};
    for (const std::string method : {"zoh", "bilinear"}) {
      const auto want = ssm_reference<double>("s4d_" + kind + "__K_" + method);
      const Index length = want.extents[1], channels = want.extents[0];
      NdArray<double, 2> kernel({length, channels}), turned({channels, length});
      ssm::s4d_kernel<double>(p, kernel.view(),
                              {.discretization = {method == "zoh" ? Discretization::zero_order_hold
                                                                  : Discretization::bilinear}});
      for (Index k = 0; k < channels; ++k) {
        for (Index l = 0; l < length; ++l) turned(k, l) = kernel(l, k);
      }
      expect_close(turned.data(), want.values, want.size(), 1e-12, kind.c_str());
    }
  }
  const auto a = ssm_reference<Complex>("s4d_lin__A"), c = ssm_reference<Complex>("s4d_lin__C");
  const auto dt = ssm_reference<double>("s4d_lin__dt"), u = ssm_reference<double>("s4d_lin__u");
  const auto want = ssm_reference<double>("s4d_lin__y_zoh");
  NdArray<double, 3> y({u.extents[0], u.extents[2], u.extents[1]}),
      turned({u.extents[0], u.extents[1], u.extents[2]});
  ssm::s4d<double>(u.view<3>().permuted({0, 2, 1}),
                   {.a = a.view<2>(), .c = c.view<2>(), .dt = dt.view<1>()}, {}, y.view());
  for (Index b = 0; b < y.extent(0); ++b) {
    for (Index k = 0; k < y.extent(2); ++k) {
      for (Index t = 0; t < y.extent(1); ++t) turned(b, k, t) = y(b, t, k);
    }
  }
  expect_close(turned.data(), want.values, want.size(), 1e-12, "y");
}

/// A model with all that there can be.
template <class T>
struct Model {
  NdArray<std::complex<T>, 2> a, c, back;
  NdArray<T, 1> dt, d;

  Model(Index channels, Index modes, bool both)
      : a(ssm_random<std::complex<T>, 2>({channels, modes}, 1)),
        c(ssm_random<std::complex<T>, 2>({channels, modes}, 2)),
        dt({channels}),
        d(ssm_random<T, 1>({channels}, 3)) {
    for (auto& x : a) x = {-static_cast<T>(0.1) - std::abs(x.real()), 3 * x.imag()};
    for (Index k = 0; k < channels; ++k) dt(k) = static_cast<T>(0.05) * static_cast<T>(k + 1);
    if (both) back = ssm_random<std::complex<T>, 2>({channels, modes}, 4);
  }
  [[nodiscard]] ssm::S4dParameters<T> view() const {
    ssm::S4dParameters<T> p{.a = a.view(), .c = c.view(), .dt = dt.view(), .d = d.view()};
    if (!back.empty()) p.c_back = back.view();
    return p;
  }
};

void check_gradients(Discretization method, bool both, bool states,
                     const std::vector<std::int64_t>& offsets) {
  SCOPED_TRACE(::testing::Message() << static_cast<int>(method) << both << states);
  const Index channels = 3, modes = 2, length = 11;
  const Index batch = offsets.empty() ? 2 : 1;
  const Index sequences = offsets.empty() ? 2 : static_cast<Index>(offsets.size()) - 1;
  const ssm::S4dOptions options{.discretization = {method, 0.3}, .offsets = offsets};
  Model<double> m(channels, modes, both);
  auto u = ssm_random<double, 3>({batch, length, channels}, 5);
  const auto w = ssm_random<double, 3>({batch, length, channels}, 6);
  auto x0 = ssm_random<Complex, 2>({sequences, channels * modes}, 7);
  const auto v = ssm_random<Complex, 2>({sequences, channels * modes}, 8);
  const NdView<const Complex, 2> none;
  const auto loss = [&] {
    NdArray<double, 3> y(u.extents());
    NdArray<Complex, 2> last(x0.extents());
    ssm::s4d<double>(u.view(), m.view(), states ? std::as_const(x0).view() : none, y.view(),
                     states ? last.view() : NdView<Complex, 2>(), options);
    return ssm_inner(w, y) + (states ? ssm_inner(v, last) : 0.0);
  };
  NdArray<double, 3> du(u.extents());
  NdArray<Complex, 2> da(m.a.extents()), dc(m.c.extents()), dback(m.a.extents());
  NdArray<Complex, 2> dx0(x0.extents());
  NdArray<double, 1> ddt(m.dt.extents()), dd(m.d.extents());
  ssm::S4dGradients<double> g{.a = da.view(), .c = dc.view(), .dt = ddt.view(), .d = dd.view()};
  if (both) g.c_back = dback.view();
  ssm::s4d_vjp<double>(u.view(), m.view(), states ? std::as_const(x0).view() : none, w.view(),
                       states ? v.view() : none, du.view(), g,
                       states ? dx0.view() : NdView<Complex, 2>(), options);
  expect_ssm_gradient(u, du, loss, "u");
  expect_ssm_gradient(m.a, da, loss, "a");
  expect_ssm_gradient(m.c, dc, loss, "c");
  expect_ssm_gradient(m.dt, ddt, loss, "dt");
  expect_ssm_gradient(m.d, dd, loss, "d");
  if (both) expect_ssm_gradient(m.back, dback, loss, "c_back");
  if (states) expect_ssm_gradient(x0, dx0, loss, "initial");
}

TEST(SsmS4d, GradientsAgainstDifferences) {
  check_gradients(Discretization::zero_order_hold, false, true, {});
  check_gradients(Discretization::bilinear, false, true, {0, 4, 4, 5, 11});
  check_gradients(Discretization::generalized_bilinear, true, false, {});
}

template <class T>
void check_forms(double tolerance) {
  const Index channels = 19, modes = 5, length = 70, batch = 2;
  const Model<T> m(channels, modes, false);
  const auto u = ssm_random<T, 3>({batch, length, channels}, 5);
  NdArray<T, 3> whole(u.extents()), steps(u.extents()), parts(u.extents());
  NdArray<std::complex<T>, 2> last({batch, channels * modes}), state(last.extents()), piece = state;
  ssm::s4d<T>(u.view(), m.view(), {}, whole.view(), last.view());
  for (Index t = 0; t < length; ++t) {
    ssm::s4d_step<T>(u.view().subview(t, 1), m.view(), state.view(), steps.view().subview(t, 1));
  }
  const ssm::S4dStepper<T> stepper(m.view());
  NdArray<std::complex<T>, 2> moving(last.extents());
  NdArray<T, 2> y({batch, channels});
  for (Index t = 0; t < length; ++t) {
    stepper.step(u.view().subview(t, 1), moving.view(), y.view());
    for (Index k = 0; k < channels; ++k) ASSERT_EQ(y(1, k), steps(1, t, k));
  }
  for (Index t = 0; t < length; t += 33) {
    const Index n = (std::min)(Index{33}, length - t);
    ssm::s4d<T>(u.view().slice(1, t, n), m.view(), std::as_const(piece).view(),
                parts.view().slice(1, t, n), piece.view());
  }
  const auto size = static_cast<std::size_t>(u.size());
  expect_close(steps.data(), whole.data(), size, tolerance, "steps");
  expect_close(parts.data(), whole.data(), size, tolerance, "pieces");
  expect_close(state.data(), last.data(), static_cast<std::size_t>(last.size()), tolerance,
               "state");
  expect_close(piece.data(), last.data(), static_cast<std::size_t>(last.size()), tolerance,
               "piece");
}

TEST(SsmS4d, StepsAndPiecesEqualTheWhole) {
  check_forms<double>(1e-13);
  check_forms<float>(3e-6);
}

TEST(SsmS4d, FloatKernelAtLength16384) {
  const Index channels = 4, modes = 32, length = 16384;
  NdArray<std::complex<float>, 2> a({channels, modes}), c({channels, modes});
  NdArray<Complex, 2> a2(a.extents()), c2(a.extents());
  NdArray<float, 1> dt({channels});
  NdArray<double, 1> dt2({channels});
  for (Index k = 0; k < channels; ++k) {
    dt2(k) = dt(k) = static_cast<float>(1e-4 * std::pow(10, static_cast<double>(k) / 2));
    for (Index n = 0; n < modes; ++n) {
      a2(k, n) = a(k, n) = {-0.5F, 3.1415927F * static_cast<float>(n)};
      c2(k, n) = c(k, n) = {std::cos(static_cast<float>(n)), std::sin(static_cast<float>(k + n))};
    }
  }
  NdArray<float, 2> kernel({length, channels});
  NdArray<double, 2> exact({length, channels});
  ssm::s4d_kernel<float>({.a = a.view(), .c = c.view(), .dt = dt.view()}, kernel.view());
  ssm::s4d_kernel<double>({.a = a2.view(), .c = c2.view(), .dt = dt2.view()}, exact.view());
  expect_close(kernel.data(), exact.data(), static_cast<std::size_t>(kernel.size()), 2e-6, "K");
  // And double's by definition at its end.
  for (Index k = 0; k < channels; ++k) {
    Complex sum = 0;
    for (Index n = 0; n < modes; ++n) {
      const auto s = ssm::diagonal_step(a2(k, n), dt2(k), {Discretization::zero_order_hold});
      sum += 2.0 * c2(k, n) * s.f * std::exp(double(length - 1) * dt2(k) * a2(k, n));
    }
    EXPECT_NEAR(exact(length - 1, k), sum.real(), 1e-11 * std::abs(exact(0, k)));
  }
}

TEST(SsmS4d, EveryStepSizeIsFinite) {
  for (const double dt : {1e-8, 1e-3, 1.0, 1e3}) {
    Model<float> m(2, 3, false);
    m.dt.fill(static_cast<float>(dt));
    const auto u = ssm_random<float, 3>({1, 50, 2}, 1);
    NdArray<float, 3> y(u.extents()), du(u.extents());
    NdArray<std::complex<float>, 2> da(m.a.extents());
    NdArray<float, 1> ddt({2});
    ssm::s4d<float>(u.view(), m.view(), {}, y.view());
    ssm::s4d_vjp<float>(u.view(), m.view(), {}, std::as_const(y).view(), {}, du.view(),
                        {.a = da.view(), .dt = ddt.view()});
    EXPECT_TRUE(ssm::detail::all_finite(y.view()) && ssm::detail::all_finite(du.view()));
    EXPECT_TRUE(ssm::detail::all_finite(da.view()) && ssm::detail::all_finite(ddt.view()));
  }
}

TEST(SsmS4d, BadInput) {
  Model<double> m(2, 3, false);
  const auto u = ssm_random<double, 3>({1, 5, 2}, 1);
  NdArray<double, 3> y(u.extents());
  NdArray<Complex, 2> state({1, 6}), narrow({1, 5});
  const auto run = [&](const ssm::S4dOptions& options = {}) {
    ssm::s4d<double>(u.view(), m.view(), {}, y.view(), {}, options);
  };
  run();
  EXPECT_THROW(ssm::s4d<double>(u.view(), m.view(), narrow.view(), y.view()), ShapeError);
  m.a(1, 2).real(0.1);
  try {
    run();
    FAIL();
  } catch (const ValueError& error) {
    EXPECT_NE(std::string(error.what()).find("(1, 2)"), std::string::npos) << error.what();
  }
  run({.clip_poles = true});
  m.a(1, 2).real(-0.1);
  m.dt(0) = 0;
  expect_words("quern::ssm::s4d: dt: expected finite numbers above 0, got 0 at 0", [&] { run(); });
  m.dt(0) = std::numeric_limits<double>::infinity();
  EXPECT_THROW(run(), ValueError);
  m.dt(0) = 0.1;
  NdArray<double, 3> none({1, 0, 2});
  state(0, 3) = 2;
  NdArray<Complex, 2> after({1, 6});
  ssm::s4d<double>(none.view(), m.view(), state.view(), none.view(), after.view());
  EXPECT_EQ(after(0, 3), Complex(2));
  expect_words("quern::ssm::s4d: u: expected finite numbers, got NaN or infinity at (0, 4, 1)",
               [&] {
                 auto bad = NdArray<double, 3>(u);
                 bad(0, 4, 1) = std::numeric_limits<double>::infinity();
                 ssm::s4d<double>(bad.view(), m.view(), {}, y.view());
               });
  state(0, 5) = {0, std::nan("")};
  expect_words("initial: expected finite numbers, got NaN or infinity at (0, 5)", [&] {
    ssm::s4d<double>(u.view(), m.view(), std::as_const(state).view(), y.view());
  });
  m.c(1, 2) = std::nan("");
  expect_words("c: expected finite numbers, got NaN or infinity at (1, 2)", [&] { run(); });
}

}  // namespace
}  // namespace quern::test::ssm_s4d
