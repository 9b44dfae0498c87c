// SPDX-License-Identifier: Apache-2.0

#include "quern/core/random.hpp"
#include "quern/kernels/kernels.hpp"
#include "quern/kernels/linear_rows_types.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <vector>

namespace quern::test::linear_rows {
namespace {

template <class T>
struct Problem {
  std::size_t n, d, stride;
  std::vector<T> x, w, y, r;
  std::vector<std::int64_t> order;

  Problem(std::size_t rows, std::size_t columns)
      : n(rows), d(columns), stride(columns + 3), x(n * stride + 1), w(d), y(n), r(n) {
    Philox random(rows * 100 + columns, "linear rows");
    for (T& v : x) v = random.normal<T>();
    for (T& v : w) v = random.normal<T>();
    for (T& v : r) v = random.normal<T>();
    for (T& v : y) v = static_cast<T>(random.integer(2));
    for (std::size_t i = 0; i < n; ++i) {
      order.push_back(static_cast<std::int64_t>(random.integer(n)));
    }
  }
  /// Rows that begin at an odd address.
  [[nodiscard]] kernels::RowSet<T> set() const {
    return {x.data() + 1, static_cast<std::ptrdiff_t>(stride), order.data(), n, d};
  }
};

template <class T>
class LinearRows : public testing::Test {};
using Scalars = testing::Types<float, double>;
TYPED_TEST_SUITE(LinearRows, Scalars);

template <class T>
constexpr double tolerance() {
  return 200 * double(std::numeric_limits<T>::epsilon());
}

TYPED_TEST(LinearRows, ProductsAndGradients) {
  using T = TypeParam;
  for (const simd::Level level : simd::attainable_levels()) {
    const simd::ScopedLevel force(level);
    SCOPED_TRACE(simd::name(level));
    for (const std::size_t n : {1u, 3u, 4u, 9u}) {
      for (const std::size_t d : {1u, 5u, 8u, 16u, 31u, 64u, 100u, 131u}) {
        const Problem<T> p(n, d);
        const kernels::RowSet<T> set = p.set();
        std::vector<T> m(n), g(d, T{1});
        QUERN_DISPATCH(rows_times_vector<T>(set, p.w.data(), m.data()));
        QUERN_DISPATCH(add_vector_times_rows<T>(set, p.r.data(), g.data()));
        std::vector<double> gradient(d, 1.0);
        for (std::size_t i = 0; i < n; ++i) {
          double sum = 0;
          for (std::size_t j = 0; j < d; ++j) {
            sum += double(set.row(i)[j]) * double(p.w[j]);
            gradient[j] += double(p.r[i]) * double(set.row(i)[j]);
          }
          ASSERT_NEAR(m[i], sum, tolerance<T>());
          // A row's bits do not depend on the rows beside it.
          kernels::RowSet<T> one = set;
          one.rows += i;
          one.count = 1;
          T alone{0};
          QUERN_DISPATCH(rows_times_vector<T>(one, p.w.data(), &alone));
          ASSERT_EQ(alone, m[i]);
        }
        for (std::size_t j = 0; j < d; ++j) ASSERT_NEAR(g[j], gradient[j], tolerance<T>());
      }
    }
  }
}

TYPED_TEST(LinearRows, Derivatives) {
  using T = TypeParam;
  for (const simd::Level level : simd::attainable_levels()) {
    const simd::ScopedLevel force(level);
    SCOPED_TRACE(simd::name(level));
    const Problem<T> p(37, 1);
    std::vector<T> r(37);
    for (const bool logistic : {false, true}) {
      QUERN_DISPATCH(
          loss_derivatives<T>(logistic, p.r.data(), p.y.data(), T(0.5), std::size_t{37}, r.data()));
      for (std::size_t i = 0; i < 37; ++i) {
        const double m = double(p.r[i]);
        const double expected = 0.5 * ((logistic ? 1 / (1 + std::exp(-m)) : m) - double(p.y[i]));
        ASSERT_NEAR(r[i], expected, tolerance<T>());
      }
    }
  }
}

template <class T>
void plain_pass(const kernels::VarianceReducedPass<T>& pass) {
  const kernels::RowSet<T>& set = pass.rows;
  for (std::size_t k = 0; k < set.count; ++k) {
    const auto i = static_cast<std::size_t>(set.rows[k]);
    double m = 0;
    for (std::size_t j = 0; j < set.columns; ++j) m += double(set.row(k)[j]) * double(pass.w[j]);
    const double s = (pass.logistic ? 1 / (1 + std::exp(-m)) : m) - double(pass.labels[i]);
    const double delta = s - double(pass.table[i]);
    for (std::size_t j = 0; j < set.columns; ++j) {
      const double x = double(set.row(k)[j]), mean = double(pass.mean[j]);
      const double w = double(pass.w[j]);
      pass.w[j] =
          T((1 - double(pass.step) * double(pass.l2)) * w - double(pass.step) * (delta * x + mean));
      if (pass.saga) pass.mean[j] = T(mean + double(pass.share) * delta * x);
    }
    if (pass.saga) pass.table[i] = T(s);
  }
}

TYPED_TEST(LinearRows, Passes) {
  using T = TypeParam;
  for (const simd::Level level : simd::attainable_levels()) {
    const simd::ScopedLevel force(level);
    SCOPED_TRACE(simd::name(level));
    for (const std::size_t d : {1u, 7u, 16u, 29u, 100u}) {
      for (const bool saga : {false, true}) {
        Problem<T> p(20, d);
        std::vector<T> table(20, T(0.1)), mean(d, T(0.2)), w = p.w;
        std::vector<T> table2 = table, mean2 = mean, w2 = w;
        kernels::VarianceReducedPass<T> pass{p.set(),     p.y.data(), d % 2 == 1, saga,
                                             T(0.01),     T(0.5),     T(0.05),    table.data(),
                                             mean.data(), w.data()};
        QUERN_DISPATCH(variance_reduced_pass<T>(pass));
        pass.table = table2.data();
        pass.mean = mean2.data();
        pass.w = w2.data();
        plain_pass(pass);
        for (std::size_t j = 0; j < d; ++j) {
          ASSERT_NEAR(w[j], w2[j], tolerance<T>());
          ASSERT_NEAR(mean[j], mean2[j], tolerance<T>());
        }
        for (std::size_t i = 0; i < 20; ++i) ASSERT_NEAR(table[i], table2[i], tolerance<T>());
      }
    }
  }
}

template <class T>
std::vector<double> plain_batches(const kernels::BatchPass<T>& pass) {
  const kernels::RowSet<T>& set = pass.rows;
  std::vector<double> w(pass.w, pass.w + set.columns);
  for (std::size_t begin = 0, k = 0; begin < set.count; begin += pass.batch, ++k) {
    const std::size_t size = (std::min)(pass.batch, set.count - begin);
    std::vector<double> g(set.columns);
    for (std::size_t i = begin; i < begin + size; ++i) {
      double m = 0;
      for (std::size_t j = 0; j < set.columns; ++j) m += double(set.row(i)[j]) * w[j];
      const double s =
          1 / (1 + std::exp(-m)) - double(pass.labels[static_cast<std::size_t>(set.rows[i])]);
      for (std::size_t j = 0; j < set.columns; ++j) {
        g[j] += s * double(set.row(i)[j]) / double(size);
      }
    }
    for (std::size_t j = 0; j < set.columns; ++j) {
      w[j] -= double(pass.steps[k]) * (g[j] + double(pass.l2) * w[j]);
    }
  }
  return w;
}

TYPED_TEST(LinearRows, BatchPasses) {
  using T = TypeParam;
  for (const simd::Level level : simd::attainable_levels()) {
    const simd::ScopedLevel force(level);
    SCOPED_TRACE(simd::name(level));
    for (const std::size_t d : {1u, 16u, 100u}) {
      for (const std::size_t batch : {1u, 7u, 20u}) {
        Problem<T> p(20, d);
        const std::vector<T> steps(20, T(0.05));
        const kernels::BatchPass<T> pass{p.set(),      p.y.data(), true,      batch,
                                         steps.data(), T(0.3),     p.w.data()};
        const std::vector<double> expected = plain_batches(pass);
        QUERN_DISPATCH(batch_pass<T>(pass));
        for (std::size_t j = 0; j < d; ++j) ASSERT_NEAR(p.w[j], expected[j], tolerance<T>());
      }
    }
  }
}

}  // namespace
}  // namespace quern::test::linear_rows
