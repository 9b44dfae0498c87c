// SPDX-License-Identifier: Apache-2.0

/// \file
/// The linear recurrent unit against a reference; steps, pieces, gradients, bad input.

#include "quern/ssm/lru.hpp"

#include "gradient.hpp"
#include "reference.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <complex>
#include <cstddef>
#include <cstdint>
#include <type_traits>
#include <utility>
#include <vector>

namespace quern::test::ssm_lru {
namespace {

using Complex = std::complex<double>;

struct Model {
  NdArray<double, 1> nu_log, theta_log, gamma_log, d;
  NdArray<Complex, 2> b, c;
  [[nodiscard]] ssm::LruParameters<double> view() const {
    return {.nu_log = nu_log.view(),
            .theta_log = theta_log.view(),
            .gamma_log = gamma_log.view(),
            .b = b.view(),
            .c = c.view(),
            .d = d.view()};
  }
};

NdArray<double, 1> vector_of(const SsmArray<double>& x) {
  return NdArray<double, 1>(
      NdView<const double, 1>(x.values.data(), {static_cast<Index>(x.size())}));
}
NdArray<Complex, 2> matrix_of(const char* re, const char* im) {
  const auto x = ssm_reference<double>(re), y = ssm_reference<double>(im);
  NdArray<Complex, 2> m({x.extents[0], x.extents[1]});
  for (std::size_t i = 0; i < x.size(); ++i) m.data()[i] = {x[i], y[i]};
  return m;
}

Model reference_model() {
  return {vector_of(ssm_reference<double>("lru__nu_log")),
          vector_of(ssm_reference<double>("lru__theta_log")),
          vector_of(ssm_reference<double>("lru__gamma_log")),
          vector_of(ssm_reference<double>("lru__D")),
          matrix_of("lru__B_re", "lru__B_im"),
          matrix_of("lru__C_re", "lru__C_im")};
}

TEST(SsmLru, Reference) {
  const Model m = reference_model();
  const auto u = ssm_reference<double>("lru__u"), want = ssm_reference<double>("lru__y");
  const Index batch = u.extents.size() == 3 ? u.extents[0] : 1;
  const Index channels = u.extents.back(), length = static_cast<Index>(u.size()) / batch / channels;
  const NdView<const double, 3> us(u.values.data(), {batch, length, channels});
  NdArray<double, 3> y(us.extents()), steps(us.extents());
  NdArray<Complex, 2> last({batch, m.b.extent(0)}), state(last.extents());
  ssm::lru<double>(us, m.view(), {}, y.view(), last.view());
  expect_close(y.data(), want.values, want.size(), 1e-12, "y");
  const auto h = ssm_reference<Complex>("lru__h_last");
  expect_close(last.data(), h.values, h.size(), 1e-12, "last");
  for (Index t = 0; t < length; ++t) {
    ssm::lru_step<double>(us.subview(t, 1), m.view(), state.view(), steps.view().subview(t, 1));
  }
  expect_close(steps.data(), y.data(), u.size(), 1e-13, "steps");
}

TEST(SsmLru, GradientsAgainstDifferences) {
  const Index states = 3, channels = 2;
  Model m{
      ssm_random<double, 1>({states}, 1, 0.5),       ssm_random<double, 1>({states}, 2, 0.5),
      ssm_random<double, 1>({states}, 3, 0.5),       ssm_random<double, 1>({channels}, 4),
      ssm_random<Complex, 2>({states, channels}, 5), ssm_random<Complex, 2>({channels, states}, 6)};
  auto u = ssm_random<double, 3>({2, 8, channels}, 7);
  const auto w = ssm_random<double, 3>({2, 8, channels}, 8);
  auto x0 = ssm_random<Complex, 2>({2, states}, 9);
  const auto v = ssm_random<Complex, 2>({2, states}, 10);
  const auto loss = [&] {
    NdArray<double, 3> y(u.extents());
    NdArray<Complex, 2> last(x0.extents());
    ssm::lru<double>(u.view(), m.view(), x0.view(), y.view(), last.view());
    return ssm_inner(w, y) + ssm_inner(v, last);
  };
  NdArray<double, 1> dnu({states}), dtheta({states}), dgamma({states}), dd({channels});
  NdArray<Complex, 2> db(m.b.extents()), dc(m.c.extents()), dx0(x0.extents());
  NdArray<double, 3> du(u.extents());
  ssm::lru_vjp<double>(u.view(), m.view(), std::as_const(x0).view(), w.view(), v.view(), du.view(),
                       {.nu_log = dnu.view(),
                        .theta_log = dtheta.view(),
                        .gamma_log = dgamma.view(),
                        .b = db.view(),
                        .c = dc.view(),
                        .d = dd.view()},
                       dx0.view());
  expect_ssm_gradient(u, du, loss, "u");
  expect_ssm_gradient(m.nu_log, dnu, loss, "nu_log");
  expect_ssm_gradient(m.theta_log, dtheta, loss, "theta_log");
  expect_ssm_gradient(m.gamma_log, dgamma, loss, "gamma_log");
  expect_ssm_gradient(m.b, db, loss, "b");
  expect_ssm_gradient(m.c, dc, loss, "c");
  expect_ssm_gradient(m.d, dd, loss, "d");
  expect_ssm_gradient(x0, dx0, loss, "initial");
}

TEST(SsmLru, BadInput) {
  Model m = reference_model();
  NdArray<double, 3> u({1, 4, m.b.extent(1)}), y(u.extents());
  NdArray<Complex, 2> wide({1, m.b.extent(0) + 1});
  EXPECT_THROW(ssm::lru<double>(u.view(), m.view(), wide.view(), y.view()), ShapeError);
  u(0, 2, 0) = std::nan("");
  EXPECT_THROW(ssm::lru<double>(u.view(), m.view(), {}, y.view()), ValueError);
  ssm::lru<double>(u.view(), m.view(), {}, y.view(), {}, {.check_finite = false});
  EXPECT_FALSE(std::isfinite(y(0, 3, 0)));
  NdArray<double, 3> none({1, 0, m.b.extent(1)});
  NdArray<Complex, 2> first({1, m.b.extent(0)}), last(first.extents());
  first(0, 1) = 3;
  ssm::lru<double>(none.view(), m.view(), std::as_const(first).view(), none.view(), last.view());
  EXPECT_EQ(last(0, 1), Complex(3));
  m.nu_log = NdArray<double, 1>({2});
  EXPECT_THROW(ssm::lru<double>(u.view(), m.view(), {}, y.view()), ShapeError);
}

/// The reference's model as float, and those floats as double.
struct FloatModel {
  NdArray<float, 1> nu_log, theta_log, gamma_log, d;
  NdArray<std::complex<float>, 2> b, c;

  explicit FloatModel(Model& m) {
    const auto copy = [](auto& from, auto& to) {
      using To = std::remove_reference_t<decltype(*to.data())>;
      to.resize(from.extents());
      for (Index i = 0; i < from.size(); ++i) {
        to.data()[i] = To(from.data()[i]);
        from.data()[i] = to.data()[i];
      }
    };
    copy(m.nu_log, nu_log), copy(m.theta_log, theta_log), copy(m.gamma_log, gamma_log);
    copy(m.d, d), copy(m.b, b), copy(m.c, c);
  }
  [[nodiscard]] ssm::LruParameters<float> view() const {
    return {.nu_log = nu_log.view(),
            .theta_log = theta_log.view(),
            .gamma_log = gamma_log.view(),
            .b = b.view(),
            .c = c.view(),
            .d = d.view()};
  }
};

TEST(SsmLru, FloatAtLength16384IsDoublesForAnyDecay) {
  for (const double nu_log : {-18.0, -7.0, 0.0, 7.0}) {
    Model m = reference_model();
    m.nu_log.fill(nu_log);
    const FloatModel f(m);
    const auto u = ssm_random<float, 3>({1, 16384, m.b.extent(1)}, 5);
    NdArray<double, 3> u64(u.extents()), want(u.extents());
    for (Index i = 0; i < u.size(); ++i) u64.data()[i] = u.data()[i];
    NdArray<float, 3> y(u.extents());
    ssm::lru<float>(u.view(), f.view(), {}, y.view());
    ssm::lru<double>(u64.view(), m.view(), {}, want.view());
    expect_close(y.data(), want.data(), static_cast<std::size_t>(y.size()), 1e-5, "y");
  }
}

TEST(SsmLru, PacksAndPiecesAreTheWhole) {
  Model m = reference_model();
  const FloatModel f(m);
  const Index channels = m.b.extent(1), states = m.b.extent(0), length = 150;
  const auto u = ssm_random<float, 3>({1, length, channels}, 5);
  const std::vector<std::int64_t> offsets = {0, 70, 70, 71, length};
  NdArray<float, 3> packed(u.extents()), alone(u.extents());
  NdArray<std::complex<float>, 2> first = ssm_random<std::complex<float>, 2>({4, states}, 6);
  NdArray<std::complex<float>, 2> last(first.extents()), end({1, states});
  ssm::lru<float>(u.view(), f.view(), std::as_const(first).view(), packed.view(), last.view(),
                  {.offsets = offsets});
  for (Index s = 0; s < 4; ++s) {
    const Index begin = offsets[static_cast<std::size_t>(s)];
    const Index n = offsets[static_cast<std::size_t>(s) + 1] - begin;
    ssm::lru<float>(u.view().slice(1, begin, n), f.view(),
                    std::as_const(first).view().slice(0, s, 1), alone.view().slice(1, begin, n),
                    end.view());
    for (Index k = 0; k < states; ++k) EXPECT_NEAR(std::abs(end(0, k) - last(s, k)), 0, 1e-5);
  }
  expect_close(alone.data(), packed.data(), static_cast<std::size_t>(u.size()), 3e-6, "packed");
}

}  // namespace
}  // namespace quern::test::ssm_lru
