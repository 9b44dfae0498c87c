// SPDX-License-Identifier: Apache-2.0

/// \file
/// Scan kernels against a scalar recurrence in double at every level: widths around the vector's,
/// constant multipliers, reversed time, steps around a block, and gradients.

#include "quern/kernels/kernels.hpp"

#include <gtest/gtest.h>

#include <complex>
#include <cstddef>
#include <limits>
#include <random>
#include <type_traits>
#include <vector>

namespace quern::test::scan_kernels {
namespace {

using Complex = std::complex<double>;

template <class T>
struct Case {
  std::size_t steps, channels;
  bool complex, constant, reverse;
  std::vector<T> a, b, h0, dout, dlast;

  [[nodiscard]] std::size_t scalars() const { return complex ? 2 : 1; }
  [[nodiscard]] Complex at(const std::vector<T>& x, std::size_t row, std::size_t c) const {
    const std::size_t i = (row * channels + c) * scalars();
    return complex ? Complex(x[i], x[i + 1]) : Complex(x[i], 0);
  }
};

template <class T>
Case<T> make(std::size_t steps, std::size_t channels, int kind) {
  Case<T> c{steps, channels, (kind & 1) != 0, (kind & 2) != 0, (kind & 4) != 0, {}, {}, {}, {}, {}};
  std::mt19937_64 random(steps * 1000 + channels);
  std::normal_distribution<double> normal;
  const auto fill = [&](std::vector<T>& x, std::size_t rows, double scale) {
    x.resize(rows * channels * c.scalars());
    for (T& v : x) v = static_cast<T>(normal(random) * scale);
  };
  fill(c.a, c.constant ? 1 : steps, 0.4);
  fill(c.b, steps, 1);
  fill(c.h0, 1, 1);
  fill(c.dout, steps, 1);
  fill(c.dlast, 1, 1);
  return c;
}

/// Everything by definition; rows of h in the order of memory.
struct Expected {
  std::vector<Complex> h, last, da, db, dh0;
};

template <class T>
Expected expected(const Case<T>& c) {
  const std::size_t n = c.channels, size = c.steps * n;
  Expected e{std::vector<Complex>(size), std::vector<Complex>(n),
             std::vector<Complex>(c.constant ? n : size), std::vector<Complex>(size),
             std::vector<Complex>(n)};
  for (std::size_t k = 0; k < n; ++k) {
    const auto row = [&](std::size_t t) { return c.reverse ? c.steps - 1 - t : t; };
    const auto a = [&](std::size_t t) { return c.at(c.a, c.constant ? 0 : row(t), k); };
    Complex h = c.at(c.h0, 0, k);
    for (std::size_t t = 0; t < c.steps; ++t) {
      h = a(t) * h + c.at(c.b, row(t), k);
      e.h[row(t) * n + k] = h;
    }
    e.last[k] = h;
    Complex g = c.at(c.dlast, 0, k);
    for (std::size_t t = c.steps; t-- > 0;) {
      g += c.at(c.dout, row(t), k);
      const Complex before = t > 0 ? e.h[row(t - 1) * n + k] : c.at(c.h0, 0, k);
      e.db[row(t) * n + k] = g;
      (c.constant ? e.da[k] : e.da[row(t) * n + k]) += std::conj(before) * g;
      g = std::conj(a(t)) * g;
    }
    e.dh0[k] = g;
  }
  return e;
}

template <class T>
void expect_near(const Case<T>& c, const std::vector<T>& got, const std::vector<Complex>& want,
                 const char* what) {
  SCOPED_TRACE(what);
  const double bound = 64 * std::numeric_limits<T>::epsilon();
  for (std::size_t i = 0; i < want.size(); ++i) {
    const double scale = bound * (8 + std::abs(want[i]));
    ASSERT_NEAR(got[i * c.scalars()], want[i].real(), scale) << i;
    if (c.complex) {
      ASSERT_NEAR(got[2 * i + 1], want[i].imag(), scale) << i;
    }
  }
}

template <class T>
void check(const Case<T>& c, const Expected& e) {
  const auto n = static_cast<std::ptrdiff_t>(c.channels);
  const std::ptrdiff_t stride = c.reverse ? -n : n;
  const std::size_t first = c.reverse && c.steps > 0 ? (c.steps - 1) * c.channels * c.scalars() : 0;
  std::vector<T> state = c.h0, out(c.b.size()), carry = c.dlast, da(c.a.size()), db(c.b.size());
  kernels::ScanTask<T> task{c.steps,
                            c.channels,
                            c.a.data() + (c.constant ? 0 : first),
                            c.constant ? 0 : stride,
                            c.b.data() + first,
                            stride,
                            state.data(),
                            out.data() + first,
                            stride};
  kernels::ScanVjpTask<T> vjp{c.steps,
                              c.channels,
                              task.a,
                              task.a_stride,
                              out.data() + first,
                              stride,
                              c.h0.data(),
                              c.dout.data() + first,
                              stride,
                              carry.data(),
                              da.data() + (c.constant ? 0 : first),
                              task.a_stride,
                              db.data() + first,
                              stride};
  if (c.complex) {
    QUERN_DISPATCH(scan_rows_complex<T>(task));
    QUERN_DISPATCH(scan_rows_complex_vjp<T>(vjp));
  } else {
    QUERN_DISPATCH(scan_rows<T>(task));
    QUERN_DISPATCH(scan_rows_vjp<T>(vjp));
  }
  expect_near(c, out, e.h, "h");
  expect_near(c, state, e.last, "last");
  expect_near(c, da, e.da, "da");
  expect_near(c, db, e.db, "db");
  expect_near(c, carry, e.dh0, "dinitial");
}

template <class T>
void check_all() {
  for (const std::size_t channels : {1U, 3U, 8U, 16U, 17U, 70U, 131U}) {
    for (const std::size_t steps : {0U, 1U, 5U, 64U, 130U}) {
      for (int kind = 0; kind < 8; ++kind) {
        const Case<T> c = make<T>(steps, channels, kind);
        const Expected e = expected(c);
        for (const simd::Level level : simd::attainable_levels()) {
          const simd::ScopedLevel force(level);
          SCOPED_TRACE(::testing::Message() << simd::name(level) << ' ' << channels << " channels, "
                                            << steps << " steps, kind " << kind);
          check(c, e);
          if (::testing::Test::HasFatalFailure()) return;
        }
      }
    }
  }
}

TEST(ScanKernels, LowPartOfAMultiplierNextToOne) {
  constexpr std::size_t steps = 20000, channels = 19;
  for (const simd::Level level : simd::attainable_levels()) {
    const simd::ScopedLevel force(level);
    SCOPED_TRACE(simd::name(level));
    std::vector<Complex> a(channels), h(channels), g(channels);
    std::vector<float> high(2 * channels), low(high), b(steps * 2 * channels), out(b), dout(b);
    std::vector<float> state(2 * channels), zero(2 * channels), carry(2 * channels);
    for (std::size_t k = 0; k < channels; ++k) {
      a[k] = std::polar(std::exp(-1e-4 * double(k + 1)), 0.1 * double(k));
      high[2 * k] = static_cast<float>(a[k].real()),
               high[2 * k + 1] = static_cast<float>(a[k].imag());
      low[2 * k] = static_cast<float>(a[k].real() - double(high[2 * k]));
      low[2 * k + 1] = static_cast<float>(a[k].imag() - double(high[2 * k + 1]));
    }
    for (std::size_t i = 0; i < b.size(); ++i)
      b[i] = static_cast<float>(i * 7919 % 1009) / 1009 - 0.5F;
    for (std::size_t t = 0; t < steps; ++t) {
      for (std::size_t k = 0; k < channels; ++k) {
        const std::size_t at = 2 * (t * channels + k), back = 2 * ((steps - 1 - t) * channels + k);
        h[k] = a[k] * h[k] + Complex(b[at], b[at + 1]);
        g[k] = std::conj(a[k]) * (g[k] + Complex(b[back], b[back + 1]));
      }
    }
    const auto n = static_cast<std::ptrdiff_t>(channels);
    kernels::ScanTask<float> task{steps, channels,     high.data(), 0, b.data(),
                                  n,     state.data(), out.data(),  n, low.data()};
    QUERN_DISPATCH(scan_rows_complex<float>(task));
    kernels::ScanVjpTask<float> vjp;
    vjp.steps = steps, vjp.channels = channels, vjp.a = high.data(), vjp.a_low = low.data();
    vjp.h = out.data(), vjp.h_stride = n, vjp.initial = zero.data(), vjp.dout = b.data();
    vjp.dout_stride = n, vjp.carry = carry.data();
    QUERN_DISPATCH(scan_rows_complex_vjp<float>(vjp));
    // Without fused multiply-add the product is rounded as well.
    const bool fused = level != simd::Level::scalar && level != simd::Level::emu128;
    const double bound = fused ? 1e-5 : 3e-4;
    for (std::size_t k = 0; k < channels; ++k) {
      EXPECT_LT(std::abs(Complex(state[2 * k], state[2 * k + 1]) - h[k]),
                bound * (1 + std::abs(h[k])));
      EXPECT_LT(std::abs(Complex(carry[2 * k], carry[2 * k + 1]) - g[k]),
                bound * (1 + std::abs(g[k])));
    }
  }
}

TEST(ScanKernels, ComplexProducts) {
  for (const simd::Level level : simd::attainable_levels()) {
    const simd::ScopedLevel force(level);
    for (const std::size_t n : {0U, 1U, 7U, 16U, 35U}) {
      std::vector<double> a(2 * n), b(2 * n), out(2 * n + 1, -7);
      for (std::size_t i = 0; i < 2 * n; ++i) a[i] = double(i) - 3, b[i] = 1.5 * double(i % 5);
      for (const bool conjugate : {false, true}) {
        QUERN_DISPATCH(multiply_complex<double>(n, a.data(), b.data(), conjugate, out.data()));
        for (std::size_t i = 0; i < n; ++i) {
          const Complex x(a[2 * i], a[2 * i + 1]), y(b[2 * i], b[2 * i + 1]);
          EXPECT_EQ(Complex(out[2 * i], out[2 * i + 1]), (conjugate ? std::conj(x) : x) * y);
        }
        EXPECT_EQ(out[2 * n], -7);
      }
    }
  }
}

TEST(ScanKernels, FloatAgainstRecurrence) { check_all<float>(); }
TEST(ScanKernels, DoubleAgainstRecurrence) { check_all<double>(); }

}  // namespace
}  // namespace quern::test::scan_kernels
