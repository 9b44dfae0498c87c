// SPDX-License-Identifier: Apache-2.0

/// \file
/// The kernels of the selective scan at every level: forward against the recurrence written out in
/// double, and the way back of every level and type against that of double on one level (which
/// tests/ssm holds against differences). Sizes around the vector width, strided rows, no steps.

#include "quern/core/buffer.hpp"
#include "quern/kernels/kernels.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <cstddef>
#include <random>
#include <vector>

namespace quern::test::selective_scan_kernel {
namespace {

using kernels::ScanRows;
using kernels::SelectiveScanTask;
using kernels::SelectiveScanVjpTask;

/// Rows three elements longer than they need to be.
template <class T>
struct Rows {
  std::ptrdiff_t rows, cols;
  std::vector<T> values;

  Rows(std::ptrdiff_t r, std::ptrdiff_t c)
      : rows(r), cols(c), values(static_cast<std::size_t>(r * (c + 3))) {}
  template <class U>
  explicit Rows(const Rows<U>& from)
      : rows(from.rows), cols(from.cols), values(from.values.begin(), from.values.end()) {}
  [[nodiscard]] ScanRows<T> view() { return {values.data(), cols + 3}; }
  [[nodiscard]] ScanRows<const T> view() const { return {values.data(), cols + 3}; }
  [[nodiscard]] T at(std::ptrdiff_t i, std::ptrdiff_t j) const {
    return values[static_cast<std::size_t>(i * (cols + 3) + j)];
  }
};

template <class T>
struct Case {
  std::ptrdiff_t steps, channels, states;
  Rows<T> u, delta, z, b, c, a, h, dy, dh, skip, bias;

  Case(std::ptrdiff_t l, std::ptrdiff_t d, std::ptrdiff_t n, bool fixed)
      : steps(l),
        channels(d),
        states(n),
        u(l, d),
        delta(l, d),
        z(l, d),
        b(fixed ? n : l, fixed ? d : n),
        c(fixed ? n : l, fixed ? d : n),
        a(n, d),
        h(n, d),
        dy(l, d),
        dh(n, d),
        skip(1, d),
        bias(1, d) {
    std::mt19937_64 random(static_cast<unsigned>(l * 100 + d));
    std::normal_distribution<float> normal;
    for (Rows<T>* x : {&u, &delta, &z, &b, &c, &a, &h, &dy, &dh, &skip, &bias}) {
      for (T& value : x->values) value = static_cast<T>(normal(random));
    }
    for (T& value : a.values) value = static_cast<T>(-std::exp(static_cast<float>(value)));
  }
  template <class U>
  explicit Case(const Case<U>& f)
      : steps(f.steps),
        channels(f.channels),
        states(f.states),
        u(f.u),
        delta(f.delta),
        z(f.z),
        b(f.b),
        c(f.c),
        a(f.a),
        h(f.h),
        dy(f.dy),
        dh(f.dh),
        skip(f.skip),
        bias(f.bias) {}

  [[nodiscard]] SelectiveScanTask<T> task(bool fixed) const {
    SelectiveScanTask<T> t;
    t.steps = steps;
    t.channels = channels;
    t.states = states;
    t.u = u.view();
    t.delta = delta.view();
    t.z = z.view();
    t.b = b.view();
    t.c = c.view();
    t.fixed = fixed;
    t.a = a.view();
    t.skip = skip.values.data();
    t.bias = bias.values.data();
    t.softplus = true;
    return t;
  }
};

template <class T>
void written_out(const Case<T>& x, bool fixed, Rows<double>& y, Rows<double>& h) {
  for (std::ptrdiff_t i = 0; i < x.channels; ++i) {
    for (std::ptrdiff_t n = 0; n < x.states; ++n) {
      double state = x.h.at(n, i);
      for (std::ptrdiff_t t = 0; t < x.steps; ++t) {
        const double raw = static_cast<double>(x.delta.at(t, i)) + x.bias.at(0, i);
        const double dt = std::log1p(std::exp(-std::fabs(raw))) + (raw > 0 ? raw : 0);
        const double b = fixed ? x.b.at(n, i) : x.b.at(t, n),
                     c = fixed ? x.c.at(n, i) : x.c.at(t, n);
        state = std::exp(dt * x.a.at(n, i)) * state + dt * x.u.at(t, i) * b;
        y.view().row(t)[i] += state * c;
      }
      h.view().row(n)[i] = state;
    }
    for (std::ptrdiff_t t = 0; t < x.steps; ++t) {
      const double z = x.z.at(t, i);
      double& out = y.view().row(t)[i];
      out = (out + static_cast<double>(x.skip.at(0, i)) * x.u.at(t, i)) * z / (1 + std::exp(-z));
    }
  }
}

template <class T>
void expect_near(const Rows<T>& got, const Rows<double>& want, double tolerance, const char* what) {
  double scale = 1;
  for (std::ptrdiff_t i = 0; i < want.rows; ++i) {
    for (std::ptrdiff_t j = 0; j < want.cols; ++j)
      scale = (std::max)(scale, std::fabs(want.at(i, j)));
  }
  for (std::ptrdiff_t i = 0; i < want.rows; ++i) {
    for (std::ptrdiff_t j = 0; j < want.cols; ++j) {
      ASSERT_NEAR(static_cast<double>(got.at(i, j)), want.at(i, j), tolerance * scale)
          << what << " at " << i << ", " << j;
    }
  }
}

/// Gradients of all that a case has.
template <class T>
struct Gradients {
  Rows<T> y, h, du, ddelta, dz, db, dc, da, dh, dskip, dbias;

  Gradients(const Case<T>& x, bool fixed)
      : y(x.steps, x.channels),
        h(x.h),
        du(x.u.rows, x.u.cols),
        ddelta(du),
        dz(du),
        db(x.b.rows, x.b.cols),
        dc(db),
        da(x.states, x.channels),
        dh(x.dh),
        dskip(1, x.channels),
        dbias(dskip) {
    const std::ptrdiff_t tiles =
        (x.steps + kernels::selective_scan_tile - 1) / kernels::selective_scan_tile;
    Rows<T> kept(tiles * x.states, x.channels);
    SelectiveScanTask<T> forward = x.task(fixed);
    forward.h = h.view();
    forward.y = y.view();
    forward.kept = kept.view();
    forward.kept_tile = x.states * (x.channels + 3);
    EXPECT_EQ(QUERN_DISPATCH(selective_scan<T>(forward)), kernels::scan_fine);
    SelectiveScanVjpTask<T> back;
    back.scan = forward;
    back.dy = x.dy.view();
    back.dh = dh.view();
    back.du = du.view();
    back.ddelta = ddelta.view();
    back.dz = dz.view();
    back.db = db.view();
    back.dc = dc.view();
    back.da = da.view();
    back.dskip = dskip.values.data();
    back.dbias = dbias.values.data();
    core::Buffer<T> scratch(QUERN_DISPATCH(selective_scan_vjp_scratch<T>(x.channels)));
    back.scratch = scratch.data();
    QUERN_DISPATCH(selective_scan_vjp<T>(back));
  }
};

template <class T>
void expect_gradients(const Gradients<T>& g, const Gradients<double>& want, double tolerance) {
  expect_near(g.du, want.du, tolerance, "du");
  expect_near(g.ddelta, want.ddelta, tolerance, "ddelta");
  expect_near(g.dz, want.dz, tolerance, "dz");
  expect_near(g.db, want.db, tolerance, "db");
  expect_near(g.dc, want.dc, tolerance, "dc");
  expect_near(g.da, want.da, tolerance, "da");
  expect_near(g.dh, want.dh, tolerance, "dh");
  expect_near(g.dskip, want.dskip, tolerance, "dskip");
  expect_near(g.dbias, want.dbias, tolerance, "dbias");
}

TEST(SelectiveScanKernel, EveryLevel) {
  struct Size {
    std::ptrdiff_t steps, channels, states;
  };
  for (const Size size :
       {Size{0, 5, 3}, {1, 1, 1}, {33, 7, 4}, {40, 16, 6}, {70, 17, 5}, {5, 40, 9}}) {
    for (const bool fixed : {false, true}) {
      const Case<float> x(size.steps, size.channels, size.states, fixed);
      const Case<double> x64(x);
      Rows<double> y(size.steps, size.channels), h(size.states, size.channels);
      written_out(x, fixed, y, h);
      const Gradients<double> want(x64, fixed);
      for (const simd::Level level : simd::attainable_levels()) {
        const simd::ScopedLevel force(level);
        SCOPED_TRACE(simd::name(level));
        const Gradients<float> g(x, fixed);
        const Gradients<double> g64(x64, fixed);
        // Sums of up to 70 steps times 9 states, each term right to a few units.
        expect_near(g.y, y, 5e-6, "y");
        expect_near(g.h, h, 5e-6, "h");
        expect_near(g64.y, y, 1e-14, "y");
        expect_near(g64.h, h, 1e-14, "h");
        expect_gradients(g, want, 2e-5);
        expect_gradients(g64, want, 1e-13);
      }
    }
  }
}

TEST(SelectiveScanKernel, SaysWhatItFound) {
  Case<float> x(20, 11, 2, false);
  Rows<float> y(20, 11), h(x.h);
  SelectiveScanTask<float> task = x.task(false);
  task.h = h.view();
  task.y = y.view();
  task.softplus = false;
  task.bias = nullptr;
  for (float& d : x.delta.values) d = 0.1F;
  for (const simd::Level level : simd::attainable_levels()) {
    const simd::ScopedLevel force(level);
    SCOPED_TRACE(simd::name(level));
    EXPECT_EQ(QUERN_DISPATCH(selective_scan<float>(task)), kernels::scan_fine);
    x.delta.view().row(13)[10] = 0;
    EXPECT_EQ(QUERN_DISPATCH(selective_scan<float>(task)), kernels::scan_bad_step);
    x.delta.view().row(13)[10] = 0.1F;
    x.b.view().row(19)[1] = INFINITY;
    EXPECT_EQ(QUERN_DISPATCH(selective_scan<float>(task)), kernels::scan_not_finite);
    x.b.view().row(19)[1] = 1;
    h = Rows<float>(x.h);
    task.h = h.view();
  }
}

}  // namespace
}  // namespace quern::test::selective_scan_kernel
