// SPDX-License-Identifier: Apache-2.0

/// \file
/// S5 against its authors' code, also sampled at uneven times and in both directions; step = scan,
/// pieces equal the whole, gradients of everything, threads, float at length 16,384, bad input.

#include "quern/ssm/s5.hpp"

#include "gradient.hpp"
#include "recurrences.hpp"
#include "reference.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <complex>
#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace quern::test::ssm_s5 {
namespace {

using Complex = std::complex<double>;
using ssm::Discretization;

/// A file's array with a batch of 1 in front, if it has none.
NdView<const double, 3> batched(const SsmArray<double>& x) {
  if (x.extents.size() == 3) return x.view<3>();
  return {x.values.data(), {1, x.extents[0], x.extents[1]}};
}

TEST(SsmS5, References) {
  for (const std::string method : {"zoh", "bilinear"}) {
    const std::string file = "s5_" + method + "__";
    const auto lambda = ssm_reference<Complex>(file + "Lambda"),
               b = ssm_reference<Complex>(file + "B");
    const auto c = ssm_reference<Complex>(file + "C"),
               both = ssm_reference<Complex>(file + "C_bidir");
    const auto d = ssm_reference<double>(file + "D"), dt = ssm_reference<double>(file + "step");
    const auto u = ssm_reference<double>(file + "u");
    const NdView<const double, 1> dts(dt.values.data(), {static_cast<Index>(dt.size())});
    const NdView<const double, 1> ds(d.values.data(), {static_cast<Index>(d.size())});
    ssm::S5Parameters<double> p{
        .lambda = lambda.view<1>(), .b = b.view<2>(), .c = c.view<2>(), .dt = dts, .d = ds};
    ssm::S5Options options{.discretization = {method == "zoh" ? Discretization::zero_order_hold
                                                              : Discretization::bilinear}};
    const NdView<const double, 3> us = batched(u);
    NdArray<double, 3> y(us.extents());
    NdArray<Complex, 2> last({us.extent(0), p.lambda.extent(0)});
    ssm::s5<double>(us, p, {}, y.view(), last.view(), options);
    expect_close(y.data(), ssm_reference<double>(file + "y_conj").values, u.size(), 1e-12, "conj");
    const auto x_last = ssm_reference<Complex>(file + "x_last");
    expect_close(last.data(), x_last.values, x_last.size(), 1e-12, "last");
    options.conjugate = false;
    ssm::s5<double>(us, p, {}, y.view(), {}, options);
    expect_close(y.data(), ssm_reference<double>(file + "y_noconj").values, u.size(), 1e-12, "re");
    options.conjugate = true;
    p.c = both.view<2>();
    ssm::s5<double>(us, p, {}, y.view(), {}, options);
    expect_close(y.data(), ssm_reference<double>(file + "y_bidir").values, u.size(), 1e-12, "both");
    if (method != "zoh") continue;
    const auto intervals = ssm_reference<double>("s5_irregular_zoh__dt_k");
    p.c = c.view<2>();
    p.intervals = {intervals.values.data(), {us.extent(0), us.extent(1)}};
    ASSERT_EQ(intervals.size(), static_cast<std::size_t>(us.extent(0) * us.extent(1)));
    ssm::s5<double>(us, p, {}, y.view(), last.view(), options);
    expect_close(y.data(), ssm_reference<double>("s5_irregular_zoh__y").values, u.size(), 1e-12,
                 "uneven");
    expect_close(last.data(), ssm_reference<Complex>("s5_irregular_zoh__x_last").values,
                 x_last.size(), 1e-12, "uneven last");
  }
}

template <class T>
struct Model {
  NdArray<std::complex<T>, 1> lambda;
  NdArray<std::complex<T>, 2> b, c;
  NdArray<T, 1> dt, d;
  NdArray<T, 2> intervals;

  Model(Index states, Index channels, bool both, double slow = 0.3)
      : lambda(ssm_random<std::complex<T>, 1>({states}, 1)),
        b(ssm_random<std::complex<T>, 2>({states, channels}, 2)),
        c(ssm_random<std::complex<T>, 2>({channels, both ? 2 * states : states}, 3)),
        dt({states}),
        d(ssm_random<T, 1>({channels}, 4)) {
    for (auto& x : lambda)
      x = {static_cast<T>(-slow) - std::abs(x.real()) * static_cast<T>(0.1), 3 * x.imag()};
    for (Index k = 0; k < states; ++k) dt(k) = static_cast<T>(0.05) * static_cast<T>(k % 5 + 1);
  }
  void sample_unevenly(Index batch, Index length) {
    intervals = ssm_random<T, 2>({batch, length}, 9);
    for (T& x : intervals) x = static_cast<T>(0.5) + std::abs(x);
  }
  [[nodiscard]] ssm::S5Parameters<T> view() const {
    ssm::S5Parameters<T> p{
        .lambda = lambda.view(), .b = b.view(), .c = c.view(), .dt = dt.view(), .d = d.view()};
    if (!intervals.empty()) p.intervals = intervals.view();
    return p;
  }
};

void check_gradients(bool both, bool uneven, const std::vector<std::int64_t>& offsets,
                     Index batch) {
  SCOPED_TRACE(::testing::Message() << both << uneven << batch);
  const Index states = 3, channels = 2, length = 9;
  const Index sequences = offsets.empty() ? batch : static_cast<Index>(offsets.size()) - 1;
  const ssm::S5Options options{.offsets = offsets};
  Model<double> m(states, channels, both);
  if (uneven) m.sample_unevenly(batch, length);
  auto u = ssm_random<double, 3>({batch, length, channels}, 5);
  const auto w = ssm_random<double, 3>({batch, length, channels}, 6);
  auto x0 = ssm_random<Complex, 2>({sequences, states}, 7);
  const auto v = ssm_random<Complex, 2>({sequences, states}, 8);
  const NdView<const Complex, 2> none;
  const auto loss = [&] {
    NdArray<double, 3> y(u.extents());
    NdArray<Complex, 2> last(x0.extents());
    ssm::s5<double>(u.view(), m.view(), both ? none : std::as_const(x0).view(), y.view(),
                    both ? NdView<Complex, 2>() : last.view(), options);
    return ssm_inner(w, y) + (both ? 0.0 : ssm_inner(v, last));
  };
  NdArray<double, 3> du(u.extents());
  NdArray<Complex, 1> dlambda(m.lambda.extents());
  NdArray<Complex, 2> db(m.b.extents()), dc(m.c.extents()), dx0(x0.extents());
  NdArray<double, 1> ddt(m.dt.extents()), dd(m.d.extents());
  NdArray<double, 2> dintervals(m.intervals.extents());
  ssm::S5Gradients<double> g{
      .lambda = dlambda.view(), .b = db.view(), .c = dc.view(), .dt = ddt.view(), .d = dd.view()};
  if (uneven) g.intervals = dintervals.view();
  ssm::s5_vjp<double>(u.view(), m.view(), both ? none : std::as_const(x0).view(), w.view(),
                      both ? none : v.view(), du.view(), g,
                      both ? NdView<Complex, 2>() : dx0.view(), options);
  expect_ssm_gradient(u, du, loss, "u");
  expect_ssm_gradient(m.lambda, dlambda, loss, "lambda");
  expect_ssm_gradient(m.b, db, loss, "b");
  expect_ssm_gradient(m.c, dc, loss, "c");
  expect_ssm_gradient(m.dt, ddt, loss, "dt");
  expect_ssm_gradient(m.d, dd, loss, "d");
  if (uneven) expect_ssm_gradient(m.intervals, dintervals, loss, "intervals");
  if (!both) expect_ssm_gradient(x0, dx0, loss, "initial");
}

TEST(SsmS5, GradientsAgainstDifferences) {
  check_gradients(false, false, {}, 2);
  check_gradients(false, true, {0, 4, 4, 9}, 1);
  check_gradients(true, true, {}, 5);
  check_gradients(true, false, {0, 3, 9}, 1);
}

template <class T>
void check_forms(double tolerance) {
  const Index states = 9, channels = 7, length = 300, batch = 2;
  Model<T> m(states, channels, false);
  m.sample_unevenly(batch, length);
  const auto u = ssm_random<T, 3>({batch, length, channels}, 5);
  NdArray<T, 3> whole(u.extents()), steps(u.extents()), parts(u.extents());
  NdArray<std::complex<T>, 2> last({batch, states}), state(last.extents()), piece(last.extents());
  ssm::s5<T>(u.view(), m.view(), {}, whole.view(), last.view());
  const auto at = [&](Index t, Index n) {
    ssm::S5Parameters<T> p = m.view();
    p.intervals = p.intervals.slice(1, t, n);
    return p;
  };
  for (Index t = 0; t < length; ++t) {
    ssm::s5_step<T>(u.view().subview(t, 1), at(t, 1), state.view(), steps.view().subview(t, 1));
  }
  for (Index t = 0; t < length; t += 130) {
    const Index n = (std::min)(Index{130}, length - t);
    ssm::s5<T>(u.view().slice(1, t, n), at(t, n), std::as_const(piece).view(),
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

TEST(SsmS5, StepsAndPiecesEqualTheWhole) {
  check_forms<double>(1e-13);
  check_forms<float>(3e-6);
}

TEST(SsmS5, FloatAtLength16384IsDoubles) {
  const Index states = 16, channels = 3, length = 16384;
  const Model<float> m(states, channels, false, 1e-3);
  Model<double> m2(states, channels, false);
  const auto copy = [](const auto& from, auto& to) {
    for (Index i = 0; i < to.size(); ++i) to.data()[i] = from.data()[i];
  };
  copy(m.lambda, m2.lambda);
  copy(m.b, m2.b);
  copy(m.c, m2.c);
  copy(m.dt, m2.dt);
  copy(m.d, m2.d);
  const auto u = ssm_random<float, 3>({1, length, channels}, 5);
  NdArray<double, 3> u2(u.extents()), y2(u.extents());
  NdArray<float, 3> y(u.extents());
  copy(u, u2);
  ssm::s5<float>(u.view(), m.view(), {}, y.view());
  ssm::s5<double>(u2.view(), m2.view(), {}, y2.view());
  expect_close(y.data(), y2.data(), static_cast<std::size_t>(y.size()), 1e-5, "y");
}

TEST(SsmS5, ThreadsGiveTheSameBits) {
  const Model<float> m(20, 30, false);
  for (const Index batch : {1, 9}) {
    const auto u = ssm_random<float, 3>({batch, 200, 30}, 5);
    std::vector<NdArray<float, 3>> ys;
    std::vector<NdArray<std::complex<float>, 2>> dbs;
    for (const int threads : {1, 2, 3}) {
      ys.emplace_back(u.extents());
      dbs.emplace_back(m.b.extents());
      ssm::s5<float>(u.view(), m.view(), {}, ys.back().view(), {}, {.threads = threads});
      ssm::s5_vjp<float>(u.view(), m.view(), {}, u.view(), {}, {}, {.b = dbs.back().view()}, {},
                         {.threads = threads});
      EXPECT_TRUE(std::equal(ys[0].begin(), ys[0].end(), ys.back().begin()));
      EXPECT_TRUE(std::equal(dbs[0].begin(), dbs[0].end(), dbs.back().begin()));
    }
  }
}

TEST(SsmS5, EveryStepSizeIsFinite) {
  for (const double dt : {1e-8, 1e-3, 1.0, 1e3}) {
    Model<float> m(4, 2, false);
    m.dt.fill(static_cast<float>(dt));
    const auto u = ssm_random<float, 3>({1, 50, 2}, 1);
    NdArray<float, 3> y(u.extents());
    NdArray<std::complex<float>, 1> dlambda(m.lambda.extents());
    NdArray<float, 1> ddt({4});
    ssm::s5<float>(u.view(), m.view(), {}, y.view());
    ssm::s5_vjp<float>(u.view(), m.view(), {}, std::as_const(y).view(), {}, {},
                       {.lambda = dlambda.view(), .dt = ddt.view()});
    EXPECT_TRUE(ssm::detail::all_finite(y.view()) && ssm::detail::all_finite(dlambda.view()));
    EXPECT_TRUE(ssm::detail::all_finite(ddt.view()));
  }
}

TEST(SsmS5, BadInput) {
  Model<double> m(3, 2, false);
  auto u = ssm_random<double, 3>({2, 5, 2}, 1);
  NdArray<double, 3> y(u.extents());
  NdArray<Complex, 2> wide({2, 4});
  const auto run = [&](const ssm::S5Options& options = {}) {
    ssm::s5<double>(u.view(), m.view(), {}, y.view(), {}, options);
  };
  run();
  EXPECT_THROW(ssm::s5<double>(u.view(), m.view(), wide.view(), y.view()), ShapeError);
  m.lambda(2) = {0.1, 1};
  EXPECT_THROW(run(), ValueError);
  run({.clip_poles = true});
  m.lambda(2) = {-0.1, 1};
  m.dt(1) = -1;
  expect_words("quern::ssm::s5: dt: expected finite numbers above 0, got -1 at 1", [&] { run(); });
  m.dt(1) = 0.1;
  u(1, 3, 0) = std::nan("");
  try {
    run();
    FAIL();
  } catch (const ValueError& error) {
    EXPECT_NE(std::string(error.what())
                  .find("u: expected finite numbers, got NaN or infinity at "
                        "(1, 3, 0)"),
              std::string::npos)
        << error.what();
  }
  NdArray<double, 3> none({2, 0, 2});
  NdArray<Complex, 2> before({2, 3}), after({2, 3});
  before(1, 2) = 5;
  ssm::s5<double>(none.view(), m.view(), before.view(), none.view(), after.view());
  EXPECT_EQ(after(1, 2), Complex(5));
}

}  // namespace
}  // namespace quern::test::ssm_s5
