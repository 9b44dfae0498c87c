// SPDX-License-Identifier: Apache-2.0

/// \file
/// Links against their formulas, at every level; a row's bits do not depend on its neighbours.

#include "quern/boosting/transform.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <cstddef>
#include <cstdint>
#include <random>
#include <vector>

namespace quern::test::transform {
namespace {

using boosting::Link;

template <class T>
class Transform : public testing::Test {};
using Scalars = testing::Types<float, double>;
TYPED_TEST_SUITE(Transform, Scalars);

template <class T>
std::vector<T> applied(Link link, std::vector<T> margins, std::int64_t outputs) {
  const auto rows = static_cast<std::int64_t>(margins.size()) / outputs;
  boosting::apply_link(link, margins.data(), rows, outputs);
  margins.resize(static_cast<std::size_t>(rows * boosting::link_outputs(link, outputs)));
  return margins;
}

TYPED_TEST(Transform, Formulas) {
  using T = TypeParam;
  const std::vector<T> m = {-3, 0, T(0.5), 2, 2, T(-0.25)};
  EXPECT_EQ(applied<T>(Link::identity, m, 3), m);
  EXPECT_EQ(applied<T>(Link::hinge, m, 1), (std::vector<T>{0, 0, 1, 1, 1, 0}));
  EXPECT_EQ(applied<T>(Link::argmax, m, 3), (std::vector<T>{2, 0}));
  EXPECT_EQ(applied<T>(Link::argmax, m, 2), (std::vector<T>{1, 1, 0}));
  const std::vector<T> p = applied<T>(Link::logistic, m, 1),
                       e = applied<T>(Link::exponential, m, 2);
  for (std::size_t i = 0; i < m.size(); ++i) {
    EXPECT_EQ(p[i], static_cast<T>(1 / (1 + std::exp(-static_cast<double>(m[i])))));
    EXPECT_EQ(e[i], static_cast<T>(std::exp(static_cast<double>(m[i]))));
  }
}

TYPED_TEST(Transform, SoftmaxOfARowAloneAndAmongOthers) {
  using T = TypeParam;
  std::mt19937 random(1);
  std::normal_distribution<double> normal;
  for (const simd::Level level : simd::attainable_levels()) {
    simd::ScopedLevel force(level);
    SCOPED_TRACE(simd::name(level));
    for (const std::int64_t k : {2, 3, 10}) {
      std::vector<T> m;
      for (std::int64_t i = 0; i < 37 * k; ++i) m.push_back(static_cast<T>(3 * normal(random)));
      const std::vector<T> all = applied<T>(Link::softmax, m, k);
      for (std::size_t r = 0; r < 37; ++r) {
        const auto begin = m.begin() + static_cast<std::ptrdiff_t>(r) * k;
        const std::vector<T> row(begin, begin + k), one = applied<T>(Link::softmax, row, k);
        double sum = 0;
        for (T v : row) sum += std::exp(static_cast<double>(v));
        for (std::size_t i = 0; i < row.size(); ++i) {
          EXPECT_EQ(one[i], all[r * row.size() + i]);
          EXPECT_NEAR(static_cast<double>(one[i]), std::exp(static_cast<double>(row[i])) / sum,
                      1e-6);
        }
      }
    }
  }
}

TEST(Transform, Names) {
  EXPECT_EQ(boosting::link_of("binary:logistic"), Link::logistic);
  EXPECT_EQ(boosting::link_of("multi:softmax"), Link::argmax);
  EXPECT_EQ(boosting::link_of("count:poisson"), Link::exponential);
  EXPECT_EQ(boosting::link_of("rank:ndcg"), Link::identity);
  EXPECT_EQ(boosting::link_of("something else"), std::nullopt);
  EXPECT_EQ(boosting::link_outputs(Link::argmax, 5), 1);
  EXPECT_EQ(boosting::link_outputs(Link::softmax, 5), 5);
}

}  // namespace
}  // namespace quern::test::transform
