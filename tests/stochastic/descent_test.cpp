// SPDX-License-Identifier: Apache-2.0

#include "quern/stochastic/descent.hpp"
#include "quern/core/random.hpp"
#include "quern/stochastic/linear_objective.hpp"
#include "reference.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <span>
#include <type_traits>
#include <utility>
#include <vector>

namespace quern::test::descent {
namespace {

using namespace stochastic;

/// The references' logistic regression: 60 rows, 5 columns, l2 = .01, steps of .2.
struct Logistic {
  std::vector<double> x = stochastic_reference<double>("lr_X");
  std::vector<double> y = stochastic_reference<double>("lr_y");
  MatrixView<const double> rows{x.data(), {60, 5}};
  LinearObjective<double> linear{rows, y, {.l2 = 0.01}};

  /// The same as callables, so that every method takes its general form.
  auto callables() const {
    const auto value = [this](std::span<const double> w, Index i) {
      return linear.value(w, std::vector<std::int64_t>{i});
    };
    const auto gradient = [this](std::span<const double> w, Index i, std::span<double> out) {
      linear.gradient(w, std::vector<std::int64_t>{i}, out);
    };
    return finite_sum<double>(60, 5, value, gradient);
  }
  DescentOptions<double> options(Descent method, Index batch, Index epochs) const {
    DescentOptions<double> o;
    o.method = method;
    o.batch = batch;
    o.epochs = epochs;
    o.step = 0.2;
    o.order = RowOrder::given;
    for (const std::int32_t i : stochastic_reference<std::int32_t>("lr_order"))
      o.given_order.push_back(i);
    o.record_every = 1;
    return o;
  }
  [[nodiscard]] double gap(std::span<const double> w) const {
    return linear.value(w) - 0.6695410088114352;
  }
};

template <class F>
void expect_path(const F& f, const DescentOptions<double>& options, const char* name) {
  SCOPED_TRACE(name);
  const auto expected = stochastic_reference<double>(name);
  const auto r = minimise(f, std::vector<double>(5), options);
  ASSERT_EQ(static_cast<std::size_t>(r.path.size()) * 5, expected.size());
  for (Index k = 0; k < r.path.size(); ++k) {
    expect_reference(expected, static_cast<std::size_t>(5 * k), r.path.row(k));
  }
}

TEST(StochasticDescent, TrajectoriesAreTheReference) {
  const Logistic p;
  const auto callables = p.callables();
  expect_path(p.linear, p.options(Descent::gradient, 1, 1), "sgd");
  expect_path(callables, p.options(Descent::gradient, 1, 1), "sgd");
  expect_path(p.linear, p.options(Descent::gradient, 8, 1), "mbgd8");
  expect_path(callables, p.options(Descent::gradient, 8, 1), "mbgd8");
  expect_path(p.linear, p.options(Descent::gradient, 0, 20), "bgd");
  expect_path(callables, p.options(Descent::svrg, 1, 3), "svrg_3epochs");
  expect_path(p.linear, p.options(Descent::svrg, 1, 3), "svrg_3epochs");
  expect_path(callables, p.options(Descent::saga, 1, 3), "saga_3epochs");
  const auto optimum = stochastic_reference<double>("lr_optimum");
  EXPECT_NEAR(p.gap(optimum), 0, 1e-14);
}

TEST(StochasticDescent, PassesReachTheOptimum) {
  const Logistic p;
  // So are those of batches, but for rounding.
  for (const Index batch : {1, 8}) {
    DescentOptions<double> b = p.options(Descent::gradient, batch, 1);
    b.record_every = 0;
    const auto expected = stochastic_reference<double>(batch == 1 ? "sgd" : "mbgd8");
    const auto r = minimise(p.linear, std::vector<double>(5), b);
    expect_reference(expected, expected.size() - 5, r.w);
    EXPECT_EQ(r.updates, static_cast<std::int64_t>(expected.size() / 5));
  }
  // The passes of SVRG are the reference's steps; SAGA's keep l2 out of the table.
  DescentOptions<double> o = p.options(Descent::svrg, 1, 3);
  o.record_every = 0;
  const auto svrg = stochastic_reference<double>("svrg_3epochs");
  expect_reference(svrg, svrg.size() - 5, minimise(p.linear, std::vector<double>(5), o).w);
  for (const Descent method : {Descent::svrg, Descent::saga}) {
    DescentOptions<double> shuffled;
    shuffled.method = method;
    shuffled.epochs = 200;
    shuffled.values = true;
    shuffled.tolerance = 1e-15;
    const auto r = minimise(p.linear, std::vector<double>(5), shuffled);
    EXPECT_LT(p.gap(r.w), 1e-12);
    EXPECT_LT(r.epochs, 200);  // the tolerance stopped it
    EXPECT_EQ(r.values.size(), static_cast<std::size_t>(r.epochs));
  }
  DescentOptions<double> full;
  full.batch = 0;
  full.epochs = 2000;
  EXPECT_LT(p.gap(minimise(p.linear, std::vector<double>(5), full).w), 1e-9);
}

template <class T>
struct Data {
  NdArray<T, 2> x;
  std::vector<T> y;
  std::vector<std::int64_t> offsets = {0};
  std::vector<std::int32_t> columns;
  std::vector<T> values;
  SparseRows<T> sparse;

  /// A third of the values are not zero.
  Data(Index n, Index d) : x({n, d}) {
    Philox random(3, "rows");
    for (Index i = 0; i < n; ++i) {
      T margin{0};
      for (Index j = 0; j < d; ++j) {
        if (random.uniform() > 0.35) continue;
        x(i, j) = random.normal<T>();
        margin += x(i, j) * (j % 2 == 0 ? T{1} : T{-1});
        columns.push_back(static_cast<std::int32_t>(j));
        values.push_back(x(i, j));
      }
      offsets.push_back(static_cast<std::int64_t>(values.size()));
      y.push_back(margin + random.normal<T>() > 0 ? T{1} : T{0});
    }
    sparse = {n, d, offsets, columns, values};
  }
  [[nodiscard]] MatrixView<const T> dense() const { return x.view(); }
};

template <class T>
class StochasticLinear : public testing::Test {};
using Scalars = testing::Types<float, double>;
TYPED_TEST_SUITE(StochasticLinear, Scalars);

TYPED_TEST(StochasticLinear, SparseIsDense) {
  using T = TypeParam;
  const Data<T> data(300, 11);
  const double tolerance = std::is_same_v<T, float> ? 3e-5 : 1e-12;
  const std::vector<T> w(11, T(0.1));
  const std::vector<std::int64_t> batch = {5, 7, 7, 299, 0};
  for (const LinearLoss loss : {LinearLoss::logistic, LinearLoss::squared}) {
    const LinearObjectiveOptions o{.loss = loss, .l2 = 0.02};
    const LinearObjective<T> dense(data.dense(), data.y, o), sparse(data.sparse, data.y, o);
    EXPECT_NEAR(dense.value(w), sparse.value(w), tolerance);
    EXPECT_NEAR(dense.smoothness(), sparse.smoothness(), 1e-4);
    std::vector<T> a(11), b(11);
    for (const auto& rows : {batch, std::vector<std::int64_t>{}}) {
      dense.gradient(w, rows, a);
      sparse.gradient(w, rows, b);
      for (std::size_t j = 0; j < 11; ++j) ASSERT_NEAR(a[j], b[j], tolerance);
    }
    for (const Descent method : {Descent::gradient, Descent::svrg, Descent::saga}) {
      DescentOptions<T> d;
      d.method = method;
      d.batch = method == Descent::gradient ? 7 : 1;
      d.epochs = 3;
      const auto one = minimise(dense, w, d), other = minimise(sparse, w, d);
      for (std::size_t j = 0; j < 11; ++j) ASSERT_NEAR(one.w[j], other.w[j], 10 * tolerance);
    }
  }
}

TYPED_TEST(StochasticLinear, GradientIsTheSlopeOfTheValue) {
  using T = TypeParam;
  const Data<T> data(40, 6);
  std::vector<double> x(data.x.begin(), data.x.end()), y(data.y.begin(), data.y.end());
  for (const LinearLoss loss : {LinearLoss::logistic, LinearLoss::squared}) {
    const LinearObjectiveOptions o{.loss = loss, .l2 = 0.1};
    const LinearObjective<T> f(data.dense(), data.y, o);
    const LinearObjective<double> exact(MatrixView<const double>(x.data(), {40, 6}), y, o);
    std::vector<T> w(6, T(0.2)), g(6);
    f.gradient(w, {}, g);
    for (std::size_t j = 0; j < 6; ++j) {
      std::vector<double> up(6, double(T(0.2))), down = up;
      up[j] += 1e-5;
      down[j] -= 1e-5;
      EXPECT_NEAR(g[j], (exact.value(up) - exact.value(down)) / 2e-5, 2e-6);
    }
  }
}

TEST(StochasticLinearObjective, ThreadsGiveTheSameBits) {
  const Data<float> data(10000, 7);
  const std::vector<float> w(7, 0.3F);
  std::vector<float> one(7), more(7);
  const LinearObjective<float> f(data.dense(), data.y, {.threads = 1});
  f.gradient(w, {}, one);
  for (const int threads : {2, 3}) {
    const LinearObjective<float> g(data.dense(), data.y, {.threads = threads});
    g.gradient(w, {}, more);
    EXPECT_EQ(one, more);
    EXPECT_EQ(f.value(w), g.value(w));
    DescentOptions<float> o;
    o.method = Descent::svrg;
    o.epochs = 2;
    EXPECT_EQ(minimise(f, w, o).w, minimise(g, w, o).w);
  }
}

TEST(StochasticLinearObjective, AnyStridesAreRead) {
  const Data<double> data(50, 5);
  NdArray<double, 2> columns({5, 50});
  for (Index i = 0; i < 50; ++i) {
    for (Index j = 0; j < 5; ++j) columns(j, i) = data.x(i, j);
  }
  const LinearObjective<double> a(data.dense(), data.y),
      b(std::as_const(columns).view().transposed(), data.y);
  const std::vector<double> w(5, 0.5);
  EXPECT_EQ(a.value(w), b.value(w));
}

TEST(StochasticDescent, StatesAreTheDriver) {
  const Logistic p;
  StateOptions<double> state;
  state.batch = 7;
  state.seed = 4;
  StochasticGradient<double> method(60, std::vector<double>(5), state);
  std::vector<double> g(5);
  while (method.epoch() < 2) {
    p.linear.gradient(method.current(), method.batch(), g);
    method.step(g);
  }
  DescentOptions<double> o;
  o.batch = 7;
  o.seed = 4;
  o.epochs = 2;
  o.step = 0.1;
  o.average = true;
  const auto r = minimise(p.linear, std::vector<double>(5), o);
  EXPECT_EQ(r.w, std::vector<double>(method.current().begin(), method.current().end()));
  EXPECT_EQ(r.updates, 18);
  EXPECT_EQ(r.average->count(), 18);
}

TEST(StochasticDescent, OrdersOfRows) {
  Batches shuffled(10, 4, RowOrder::shuffled, 1), drawn(1000, 0, RowOrder::independent, 1);
  std::vector<int> seen(10);
  int batches = 0;
  do {
    for (const std::int64_t row : shuffled.current()) ++seen[static_cast<std::size_t>(row)];
    ++batches;
  } while (!shuffled.advance());
  EXPECT_EQ(batches, 3);
  EXPECT_EQ(shuffled.per_epoch(), 3);
  EXPECT_EQ(seen, std::vector<int>(10, 1));
  std::vector<int> counts(1000);
  for (const std::int64_t row : drawn.current()) ++counts[static_cast<std::size_t>(row)];
  EXPECT_GT(*std::max_element(counts.begin(), counts.end()), 1);
}

TEST(StochasticDescent, ProgressCancelsAndProjectionHolds) {
  const Logistic p;
  DescentOptions<double> o = p.options(Descent::gradient, 8, 50);
  o.progress = [](const Progress& progress) { return progress.done < 3; };
  EXPECT_THROW((void)minimise(p.linear, std::vector<double>(5), o), Cancelled);
  o.progress = nullptr;
  o.projection = project_on_ball(0.1);
  for (const Descent method : {Descent::gradient, Descent::svrg, Descent::saga}) {
    o.method = method;
    double squares = 0;
    for (const double w : minimise(p.linear, std::vector<double>(5), o).w) squares += w * w;
    EXPECT_LE(std::sqrt(squares), 0.1 + 1e-12);
  }
}

TEST(StochasticDescent, RefusesRowsAndSteps) {
  const std::vector<double> zero = {0}, huge = {1e308}, y = {1, 0}, x = {1, 2}, far = {1e200, 1};
  const LinearObjective<double> f(MatrixView<const double>(x.data(), {2, 1}), y);
  std::vector<double> out(1);
  for (const std::int64_t row : {std::int64_t{-1}, std::int64_t{2}}) {
    const std::vector<std::int64_t> rows = {0, row};
    EXPECT_THROW(f.gradient(zero, rows, out), ShapeError);
    EXPECT_THROW(f.batch_pass(rows, 2, zero, out), ShapeError);
  }
  for (const Index rows : {0, -1}) {
    EXPECT_THROW(StochasticGradient<double>(rows, zero), ValueError);
    EXPECT_THROW(Saga<double>(rows, zero), ValueError);
  }
  EXPECT_THROW(LinearObjective<double>(MatrixView<const double>(far.data(), {2, 1}), y),
               ValueError);
  StochasticGradient<double> method(2, zero, {.step = 10.0});
  EXPECT_THROW(method.step(huge), ValueError);
  EXPECT_EQ(method.steps(), 0);
  EXPECT_EQ(method.current()[0], 0);
}

TEST(StochasticDescent, RefusesBadInput) {
  const Logistic p;
  const std::vector<double> zeros(5);
  EXPECT_THROW((void)minimise(p.linear, std::vector<double>(4)), ShapeError);
  EXPECT_THROW((void)minimise(p.callables(), zeros), ValueError);  // no step, no smoothness
  DescentOptions<double> o = p.options(Descent::saga, 1, 2000);
  o.record_every = 0;
  o.step = 1e200;
  EXPECT_THROW((void)minimise(p.linear, zeros, o), ValueError);  // overflows
  o = {};
  o.epochs = -1;
  EXPECT_THROW((void)minimise(p.linear, zeros, o), ValueError);
  o = {};
  o.order = RowOrder::given;
  o.given_order = {60};
  EXPECT_THROW((void)minimise(p.linear, zeros, o), ShapeError);
  StochasticGradient<double> method(60, zeros);
  EXPECT_THROW(method.step(std::vector<double>(4)), ShapeError);
  EXPECT_THROW(method.step(std::vector<double>(5, std::nan(""))), ValueError);
  Svrg<double> svrg(60, zeros);
  EXPECT_THROW(svrg.step(zeros, zeros), ValueError);  // no snapshot
  std::vector<double> labels(60, 2.0);
  EXPECT_THROW(LinearObjective<double>(p.rows, labels), ValueError);
  EXPECT_THROW(LinearObjective<double>(p.rows, std::span<const double>(p.y).first(59)), ShapeError);
  EXPECT_THROW(LinearObjective<double>(p.rows, p.y, {.l2 = -1}), ValueError);
  std::vector<double> bad = p.x;
  bad[7] = std::nan("");
  EXPECT_THROW(LinearObjective<double>(MatrixView<const double>(bad.data(), {60, 5}), p.y),
               ValueError);
  const Data<double> data(50, 3);
  SparseRows<double> sparse = data.sparse;
  sparse.cols = 2;
  EXPECT_THROW(LinearObjective<double>(sparse, data.y), ShapeError);
  sparse = data.sparse;
  sparse.offsets = sparse.offsets.first(50);
  EXPECT_THROW(LinearObjective<double>(sparse, data.y), ShapeError);
}

}  // namespace
}  // namespace quern::test::descent
