// SPDX-License-Identifier: Apache-2.0

/// \file
/// The kernels of RWKV's recurrences and of the scan with complex poles at every level: forward
/// against the recurrences written out, and the way back of every level and type against that of
/// double on one level, which tests/ssm holds against differences.

#include "quern/core/buffer.hpp"
#include "quern/kernels/kernels.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <cstddef>
#include <random>
#include <vector>

namespace quern::test::wkv_kernel {
namespace {

template <class T>
std::vector<T> drawn(std::ptrdiff_t n, unsigned seed, double scale = 1, double shift = 0) {
  std::mt19937_64 random(seed);
  std::normal_distribution<float> normal;
  std::vector<T> x(static_cast<std::size_t>(n));
  for (T& value : x) {
    value = static_cast<T>(static_cast<float>(scale * normal(random) + shift));
  }
  return x;
}

template <class T>
void expect_near(const std::vector<T>& got, const std::vector<double>& want, double tolerance,
                 const char* what) {
  double largest = 1;
  for (const double x : want) largest = (std::max)(largest, std::fabs(x));
  ASSERT_EQ(got.size(), want.size());
  for (std::size_t i = 0; i < got.size(); ++i) {
    ASSERT_NEAR(static_cast<double>(got[i]), want[i], tolerance * largest) << what << " at " << i;
  }
}

/// RWKV-4 forward and back over `steps` of `channels`.
template <class T>
struct Average {
  std::vector<T> y, dk, dv, dw, du, dstate;

  Average(std::ptrdiff_t steps, std::ptrdiff_t channels) {
    const std::ptrdiff_t size = steps * channels;
    const auto k = drawn<T>(size, 1, 3), v = drawn<T>(size, 2), dy = drawn<T>(size, 3);
    const auto u = drawn<T>(channels, 4);
    auto w = drawn<T>(channels, 5);
    for (T& x : w) x = -std::fabs(x);
    std::vector<T> state(static_cast<std::size_t>(3 * channels));
    for (std::ptrdiff_t i = 0; i < channels; ++i) {
      state[static_cast<std::size_t>(2 * channels + i)] = T(-1e38);
    }
    const std::ptrdiff_t tiles = (steps + kernels::wkv_tile - 1) / kernels::wkv_tile;
    std::vector<T> kept(static_cast<std::size_t>(3 * tiles * channels));
    for (std::vector<T>* x : {&y, &dk, &dv}) x->resize(static_cast<std::size_t>(size));
    for (std::vector<T>* x : {&dw, &du}) x->resize(static_cast<std::size_t>(channels));
    dstate = drawn<T>(2 * channels, 6);
    kernels::WkvTask<T> task;
    task.steps = steps;
    task.channels = channels;
    task.k = {k.data(), channels};
    task.v = {v.data(), channels};
    task.w = w.data();
    task.u = u.data();
    task.state = {state.data(), channels};
    task.y = {y.data(), channels};
    task.kept = {kept.data(), channels};
    EXPECT_TRUE(QUERN_DISPATCH(wkv<T>(task)));
    kernels::WkvVjpTask<T> back;
    back.wkv = task;
    back.dy = {dy.data(), channels};
    back.last = {state.data(), channels};
    back.dstate = {dstate.data(), channels};
    back.dk = {dk.data(), channels};
    back.dv = {dv.data(), channels};
    back.dw = dw.data();
    back.du = du.data();
    QUERN_DISPATCH(wkv_vjp<T>(back));
    for (std::ptrdiff_t i = 0; i < channels; ++i) written_out(i, steps, channels, k, v, w, u);
  }

  void written_out(std::ptrdiff_t i, std::ptrdiff_t steps, std::ptrdiff_t channels,
                   const std::vector<T>& k, const std::vector<T>& v, const std::vector<T>& w,
                   const std::vector<T>& u) {
    const auto c = static_cast<std::size_t>(i);
    for (std::ptrdiff_t t = 0; t < steps; ++t) {
      long double top = 0, under = 0;
      for (std::ptrdiff_t j = 0; j <= t; ++j) {
        const auto at = static_cast<std::size_t>(j * channels + i);
        const long double fading = static_cast<long double>(w[c]) * (t - 1 - j);
        const long double e = std::exp(static_cast<long double>(k[at]) +
                                       (j == t ? static_cast<long double>(u[c]) : fading));
        top += e * static_cast<long double>(v[at]);
        under += e;
      }
      const auto at = static_cast<std::size_t>(t * channels + i);
      ASSERT_NEAR(static_cast<double>(y[at]), static_cast<double>(top / under),
                  sizeof(T) == 4 ? 2e-5 : 1e-13);
    }
  }
};

TEST(WkvKernel, EveryLevel) {
  for (const std::ptrdiff_t channels : {1, 7, 16, 19}) {
    for (const std::ptrdiff_t steps : {0, 1, 33, 70}) {
      const Average<double> want(steps, channels);
      for (const simd::Level level : simd::attainable_levels()) {
        const simd::ScopedLevel force(level);
        SCOPED_TRACE(simd::name(level));
        const Average<float> f(steps, channels);
        const Average<double> d(steps, channels);
        const auto expect = [](const auto& got, const Average<double>& to, double tolerance) {
          expect_near(got.dk, to.dk, tolerance, "dk");
          expect_near(got.dv, to.dv, tolerance, "dv");
          expect_near(got.dw, to.dw, tolerance, "dw");
          expect_near(got.du, to.du, tolerance, "du");
          if (to.y.empty()) return;
          expect_near(got.dstate, to.dstate, tolerance, "dstate");
        };
        expect(f, want, 2e-5);
        expect(d, want, 1e-13);
      }
    }
  }
}

/// RWKV-7 forward and back of one head.
template <class T>
struct Delta {
  std::vector<T> y, dr, dw, dk, da, db, dv, dstate;

  Delta(std::ptrdiff_t steps, std::ptrdiff_t keys, std::ptrdiff_t values) {
    const std::ptrdiff_t size = steps * keys;
    const auto r = drawn<T>(size, 1), w = drawn<T>(size, 2, 0.05, 0.8), k = drawn<T>(size, 3);
    const auto a = drawn<T>(size, 4, 0.2), b = drawn<T>(size, 5, 0.2);
    const auto v = drawn<T>(steps * values, 6), dy = drawn<T>(steps * values, 7);
    auto state = drawn<T>(keys * values, 8);
    const std::vector<T> start = state;
    dstate = drawn<T>(keys * values, 9);
    const std::ptrdiff_t tiles = (steps + kernels::wkv7_tile - 1) / kernels::wkv7_tile;
    std::vector<T> kept(static_cast<std::size_t>(tiles * keys * values)), kept_sa(v.size());
    for (auto* x : {&dr, &dw, &dk, &da, &db}) x->resize(static_cast<std::size_t>(size));
    for (auto* x : {&y, &dv}) x->resize(v.size());
    core::Buffer<T> scratch(QUERN_DISPATCH(wkv7_scratch<T>(keys)));
    core::Buffer<T> back_scratch(QUERN_DISPATCH(wkv7_vjp_scratch<T>(keys)));
    kernels::Wkv7Task<T> task;
    task.steps = steps;
    task.keys = keys;
    task.values = values;
    task.r = {r.data(), keys};
    task.decay = {w.data(), keys};
    task.k = {k.data(), keys};
    task.a = {a.data(), keys};
    task.b = {b.data(), keys};
    task.v = {v.data(), values};
    task.state = {state.data(), values};
    task.y = {y.data(), values};
    task.kept = kept.data(), task.kept_sa = kept_sa.data();
    task.scratch = scratch.data();
    EXPECT_TRUE(QUERN_DISPATCH(wkv7<T>(task)));
    kernels::Wkv7VjpTask<T> back;
    back.wkv = task;
    back.dy = {dy.data(), values};
    back.dstate = {dstate.data(), values};
    back.dr = {dr.data(), keys};
    back.ddecay = {dw.data(), keys};
    back.dk = {dk.data(), keys};
    back.da = {da.data(), keys};
    back.db = {db.data(), keys};
    back.dv = {dv.data(), values};
    back.scratch = back_scratch.data();
    QUERN_DISPATCH(wkv7_vjp<T>(back));
    // One value's row of the state at a time.
    for (std::ptrdiff_t i = 0; i < values; ++i) {
      std::vector<double> s(static_cast<std::size_t>(keys));
      for (std::ptrdiff_t j = 0; j < keys; ++j) {
        s[static_cast<std::size_t>(j)] = start[static_cast<std::size_t>(j * values + i)];
      }
      for (std::ptrdiff_t t = 0; t < steps; ++t) {
        double sa = 0, o = 0;
        const auto at = [&](const std::vector<T>& x, std::size_t j) {
          return static_cast<double>(x[static_cast<std::size_t>(t * keys) + j]);
        };
        const double vt = v[static_cast<std::size_t>(t * values + i)];
        for (std::size_t j = 0; j < s.size(); ++j) sa += s[j] * at(a, j);
        for (std::size_t j = 0; j < s.size(); ++j) {
          s[j] = s[j] * at(w, j) + vt * at(k, j) + sa * at(b, j);
          o += s[j] * at(r, j);
        }
        EXPECT_NEAR(static_cast<double>(y[static_cast<std::size_t>(t * values + i)]), o,
                    sizeof(T) == 4 ? 5e-4 : 1e-11);
      }
    }
  }
};

TEST(Wkv7Kernel, EveryLevel) {
  struct Size {
    std::ptrdiff_t steps, keys, values;
  };
  for (const Size s : {Size{0, 3, 4}, {1, 1, 1}, {17, 5, 7}, {40, 8, 33}, {5, 4, 130}}) {
    const Delta<double> want(s.steps, s.keys, s.values);
    for (const simd::Level level : simd::attainable_levels()) {
      const simd::ScopedLevel force(level);
      SCOPED_TRACE(simd::name(level));
      const auto expect = [&](const auto& got, double tolerance) {
        expect_near(got.dr, want.dr, tolerance, "dr");
        expect_near(got.dw, want.dw, tolerance, "ddecay");
        expect_near(got.dk, want.dk, tolerance, "dk");
        expect_near(got.da, want.da, tolerance, "da");
        expect_near(got.db, want.db, tolerance, "db");
        expect_near(got.dv, want.dv, tolerance, "dv");
        expect_near(got.dstate, want.dstate, tolerance, "dstate");
      };
      expect(Delta<float>(s.steps, s.keys, s.values), 1e-4);
      expect(Delta<double>(s.steps, s.keys, s.values), 1e-12);
    }
  }
}

}  // namespace
}  // namespace quern::test::wkv_kernel
