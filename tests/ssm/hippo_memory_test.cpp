// SPDX-License-Identifier: Apache-2.0

/// \file
/// Online memories: LegS against references after up to a million steps, O(order) steps against
/// whole matrices, signals rebuilt, pieces, gradients, bad input.

#include "quern/ssm/hippo_memory.hpp"

#include "reference.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <limits>
#include <numbers>
#include <string>
#include <vector>

namespace quern::test::ssm_hippo_memory {
namespace {

using ssm::Discretization;
using ssm::HippoMemory;
using ssm::Measure;

TEST(SsmHippoMemory, LegsAgainstReferences) {
  const auto u = ssm_reference<double>("legs_online_N32_L2000__u");
  const auto snaps = ssm_reference<std::int64_t>("legs_online_N32_L2000__snaps");
  const std::pair<const char*, Discretization> methods[] = {
      {"forward", Discretization::forward_euler},
      {"backward", Discretization::backward_euler},
      {"bilinear", Discretization::bilinear},
      {"zoh", Discretization::zero_order_hold}};
  for (const auto& [name, method] : methods) {
    const auto want = ssm_reference<double>(std::string("legs_online_N32_L2000__coef_") + name);
    HippoMemory<double> memory(32, 1, {.discretization = {method}});
    const std::size_t rows = want.size() / 32;
    for (std::size_t row = 0; row < rows; ++row) {
      const Index take = static_cast<Index>(snaps[row]) - memory.seen();
      memory.update({u.values.data() + memory.seen(), {take, 1}});
      // Forward Euler diverges: what rounding adds grows as the answer does.
      const double tolerance = method == Discretization::forward_euler ? 1e-8 : 1e-11;
      expect_close(memory.coefficients().data(), want.values.data() + 32 * row, 32, tolerance,
                   name);
    }
    if (method != Discretization::bilinear) continue;
    const auto rebuilt = ssm_reference<double>("legs_online_N32_L2000__recon_bilinear");
    std::vector<double> ages;
    for (std::size_t i = 0; i < rebuilt.size(); ++i) {
      ages.push_back(static_cast<double>(rebuilt.size() - 1 - i));
    }
    expect_close(memory.reconstruct(ages).data(), rebuilt.values, rebuilt.size(), 1e-10, "rebuilt");
  }
}

template <class T>
void check_million(double tolerance) {
  const std::string file = "legs_long_N64_L1000000__";
  const auto want = ssm_reference<double>(file + "coef_f64");
  const auto snaps = ssm_reference<std::int64_t>(file + "snaps");
  const auto freq = ssm_reference<double>(file + "freq");
  const double length = 1e6;
  HippoMemory<T> memory(64, 1);
  std::vector<T> inputs;
  for (std::size_t row = 0; row < snaps.size(); ++row) {
    inputs.clear();
    for (std::int64_t i = memory.seen(); i < snaps[row]; ++i) {
      const double t = static_cast<double>(i) / length;
      inputs.push_back(static_cast<T>(std::sin(2 * std::numbers::pi * freq[0] * t) + t * t));
    }
    memory.update({inputs.data(), {static_cast<Index>(inputs.size()), 1}});
    expect_close(memory.coefficients().data(), want.values.data() + 64 * row, 64, tolerance,
                 "coefficients");
  }
}

TEST(SsmHippoMemory, AMillionStepsInDouble) { check_million<double>(1e-10); }
TEST(SsmHippoMemory, AMillionStepsInFloat) { check_million<float>(2e-4); }

/// Some smooth signals, (steps, channels).
template <class T>
NdArray<T, 2> signals(Index steps, Index channels) {
  NdArray<T, 2> u({steps, channels});
  for (Index t = 0; t < steps; ++t) {
    for (Index c = 0; c < channels; ++c) {
      const double x = static_cast<double>(t) / static_cast<double>(steps);
      u(t, c) = static_cast<T>(std::sin(5 * x + static_cast<double>(c)) + 0.3 * x);
    }
  }
  return u;
}

/// Steps by whole matrices.
NdArray<double, 2> dense(Measure measure, Index order, const NdArray<double, 2>& u, double dt,
                         const ssm::DiscretizationOptions& options) {
  const ssm::Transition t = ssm::hippo(measure, order);
  NdArray<double, 2> a({order, order}), b({order, 1}), x({order, u.extent(1)}), next = x;
  for (Index s = 0; s < u.extent(0); ++s) {
    if (measure == Measure::legs && s == 0) {
      for (Index c = 0; c < u.extent(1); ++c) x(0, c) = u(0, c);
      continue;
    }
    const double step = measure == Measure::legs ? 1 / static_cast<double>(s) : dt;
    ssm::discretize<double>(t.a.view(), {t.b.data(), {order, 1}}, step, options, a.view(),
                            b.view());
    for (Index c = 0; c < u.extent(1); ++c) {
      for (Index i = 0; i < order; ++i) {
        next(i, c) = b(i, 0) * u(s, c);
        for (Index j = 0; j < order; ++j) next(i, c) += a(i, j) * x(j, c);
      }
    }
    std::swap(x, next);
  }
  return x;
}

TEST(SsmHippoMemory, EveryMeasureEqualsItsMatrices) {
  const auto u = signals<double>(40, 37);
  for (const Measure measure : {Measure::legs, Measure::legt, Measure::lagt, Measure::glagt,
                                Measure::fout, Measure::lmu, Measure::foud, Measure::legsd}) {
    for (const ssm::DiscretizationOptions method :
         {ssm::DiscretizationOptions{Discretization::bilinear},
          ssm::DiscretizationOptions{Discretization::generalized_bilinear, 0.7},
          ssm::DiscretizationOptions{Discretization::backward_euler}}) {
      for (const double dt : {1e-3, 0.3}) {
        SCOPED_TRACE(::testing::Message() << name(measure) << " dt " << dt);
        HippoMemory<double> memory(12, 37,
                                   {.measure = measure, .dt = dt, .discretization = method});
        memory.update(u.view());
        const auto want = dense(measure, 12, u, dt, method);
        expect_close(memory.coefficients().data(), want.data(), 12 * 37, 1e-12, "coefficients");
      }
    }
  }
}

TEST(SsmHippoMemory, RebuildsSmoothSignals) {
  const auto u = signals<double>(2000, 3);
  struct Kind {
    Measure measure;
    double dt, oldest, tolerance;
  };
  for (const Kind& kind :
       {Kind{Measure::legs, 1, 1999, 3e-3}, Kind{Measure::legt, 2e-3, 990, 3e-3},
        Kind{Measure::lmu, 1e-3, 990, 3e-3}, Kind{Measure::lagt, 2e-2, 100, 5e-2},
        Kind{Measure::fout, 2e-3, 800, 0.15}}) {
    SCOPED_TRACE(name(kind.measure));
    HippoMemory<double> memory(32, 3, {.measure = kind.measure, .dt = kind.dt});
    memory.update(u.view());
    for (double age = kind.oldest / 10; age <= kind.oldest; age += kind.oldest / 10) {
      const double ages[] = {std::floor(age)};
      const auto rebuilt = memory.reconstruct(ages);
      const Index at = 1999 - static_cast<Index>(ages[0]);
      for (Index c = 0; c < 3; ++c) {
        EXPECT_NEAR(rebuilt(0, c), u(at, c), kind.tolerance) << "age " << age;
      }
    }
  }
}

TEST(SsmHippoMemory, PiecesAndThreadsGiveTheSameBits) {
  const auto u = signals<float>(50, 150);
  for (const Measure measure : {Measure::legs, Measure::legt, Measure::lagt}) {
    HippoMemory<float> whole(16, 150, {.measure = measure, .threads = 1});
    HippoMemory<float> first(16, 150, {.measure = measure, .threads = 2});
    HippoMemory<float> second(16, 150, {.measure = measure, .threads = 3});
    whole.update(u.view());
    first.update(u.view().slice(0, 0, 1));
    first.update(u.view().slice(0, 1, 22));
    second.restore(first.coefficients(), first.seen());
    second.update(u.view().slice(0, 23, 27));
    EXPECT_EQ(second.seen(), 50);
    const float* a = whole.coefficients().data();
    EXPECT_TRUE(std::equal(a, a + 16 * 150, second.coefficients().data()));
  }
}

TEST(SsmHippoMemory, GradientsAreTheAdjoint) {
  const auto u = signals<double>(9, 5);
  for (const Measure measure : {Measure::legs, Measure::legt, Measure::fout}) {
    for (const auto method : {Discretization::bilinear, Discretization::zero_order_hold}) {
      // <w, steps(x, u)> = <steps^T w, (x, u)> since steps are linear.
      HippoMemory<double> memory(6, 5, {.measure = measure, .dt = 0.1, .discretization = {method}});
      NdArray<double, 2> x({6, 5}), w({6, 5}), du({9, 5});
      for (Index i = 0; i < 30; ++i) x.data()[i] = std::cos(static_cast<double>(i));
      for (Index i = 0; i < 30; ++i) w.data()[i] = std::sin(1.7 * static_cast<double>(i));
      for (const Index before : {Index{0}, Index{4}}) {
        if (before == 0) x.fill(0);
        if (before > 0) x(2, 3) = 1;
        memory.restore(x.view(), before);
        memory.update(u.view());
        double left = 0, right = 0;
        NdArray<double, 2> g = w;
        for (Index i = 0; i < 30; ++i) left += w.data()[i] * memory.coefficients().data()[i];
        memory.update_vjp(9, g.view(), du.view());
        for (Index i = 0; i < 30; ++i) right += g.data()[i] * x.data()[i];
        for (Index i = 0; i < 45; ++i) right += du.data()[i] * u.data()[i];
        EXPECT_NEAR(left, right, 1e-11) << name(measure) << ' ' << before;
      }
    }
  }
}

TEST(SsmHippoMemory, EveryStepSizeIsFinite) {
  using ssm::Measure;
  const auto u = signals<float>(200, 2);
  for (const Measure measure : {Measure::legt, Measure::lmu, Measure::lagt, Measure::glagt,
                                Measure::fout, Measure::foud, Measure::legsd}) {
    for (const double dt : {1e-8, 1e-3, 1.0, 1e3}) {
      HippoMemory<float> memory(16, 2, {.measure = measure, .dt = dt});
      memory.update(u.view());
      EXPECT_TRUE(ssm::detail::all_finite(memory.coefficients())) << name(measure) << ' ' << dt;
    }
  }
}

TEST(SsmHippoMemory, BadInput) {
  EXPECT_THROW(HippoMemory<float>(0, 1), ValueError);
  EXPECT_THROW(HippoMemory<float>(4, 0), ValueError);
  EXPECT_THROW(HippoMemory<float>(4, 1, {.dt = 0}), ValueError);
  HippoMemory<float> memory(4, 2, {.measure = Measure::legt, .dt = 0.1});
  auto u = signals<float>(6, 2);
  u(3, 1) = std::numeric_limits<float>::quiet_NaN();
  try {
    memory.update(u.view());
    FAIL();
  } catch (const ValueError& error) {
    EXPECT_NE(std::string(error.what()).find("(3, 1)"), std::string::npos) << error.what();
  }
  EXPECT_EQ(memory.seen(), 0);
  const double far[] = {21.0};
  EXPECT_THROW(static_cast<void>(memory.reconstruct(far)), ValueError);
  EXPECT_THROW(memory.update(u.view().slice(1, 0, 1)), ShapeError);
  memory.update(u.view().slice(0, 0, 0));
  EXPECT_EQ(memory.coefficients()(0, 0), 0);
}

}  // namespace
}  // namespace quern::test::ssm_hippo_memory
