// SPDX-License-Identifier: Apache-2.0

#include "quern/boosting/partial_dependence.hpp"

#include <gtest/gtest.h>

#include <cstdint>
#include <limits>
#include <span>
#include <vector>

#include "quern/core/random.hpp"

#include "sample_model.hpp"

namespace quern::test::partial_dependence {
namespace {

using boosting::partial_dependence;
using boosting::Predictor;

constexpr std::int64_t rows = 1100;  // three blocks

struct Data {
  std::vector<float> x;
  tree::Dataset dataset;

  Data() {
    Philox rng(1, "partial dependence test");
    for (std::int64_t i = 0; i < rows * 3; ++i) {
      x.push_back(i % 3 == 2 ? static_cast<float>(rng.integer(40)) : rng.normal<float>());
      if (rng.bernoulli(0.2)) x.back() = std::numeric_limits<float>::quiet_NaN();
    }
    dataset = tree::make_dataset(MatrixView<const float>(x.data(), {rows, 3}));
    for (std::int64_t i = 0; i < rows; ++i) dataset.weights.push_back(rng.uniform<float>());
  }
};

/// A row at a time, as the definition says.
double naive(const boosting::Model& m, const Data& d, const std::vector<std::int32_t>& columns,
             const std::vector<double>& values, std::size_t output, bool predictions) {
  const Predictor predictor(m);
  double sum = 0, weight = 0;
  for (std::int64_t r = 0; r < rows; ++r) {
    std::vector<float> row(d.x.begin() + 3 * r, d.x.begin() + 3 * r + 3);
    for (std::size_t c = 0; c < columns.size(); ++c)
      row[static_cast<std::size_t>(columns[c])] = static_cast<float>(values[c]);
    std::vector<double> out(static_cast<std::size_t>(m.outputs));
    if (predictions) {
      predictor.predict_row(std::span<const float>(row), std::span<double>(out));
    } else {
      predictor.margins_of_row(std::span<const float>(row), std::span<double>(out));
    }
    const double w = static_cast<double>(d.dataset.weights[static_cast<std::size_t>(r)]);
    sum += w * out[output];
    weight += w;
  }
  return sum / weight;
}

TEST(PartialDependence, IsTheMeanOverTheRows) {
  const Data d;
  const double nan = std::numeric_limits<double>::quiet_NaN();
  const std::vector<double> grid = {0, 33, 0.2, 1, nan, 5};
  const std::vector<std::int32_t> columns = {0, 2};
  const MatrixView<const double> points(grid.data(), {3, 2});
  for (const boosting::Model& m : {sample_model(), linear_sample_model()}) {
    for (const bool predictions : {false, true}) {
      NdArray<double, 2> first;
      for (const int threads : {1, 2, 3}) {
        const auto got = partial_dependence(m, d.dataset, columns, points,
                                            {.predictions = predictions, .threads = threads});
        ASSERT_EQ(got.extent(0), 3);
        ASSERT_EQ(got.extent(1), 2);
        if (threads == 1) first = got;
        for (Index p = 0; p < 3; ++p) {
          for (Index k = 0; k < 2; ++k) {
            EXPECT_EQ(got(p, k), first(p, k));
            EXPECT_NEAR(got(p, k),
                        naive(m, d, columns, {points(p, 0), points(p, 1)},
                              static_cast<std::size_t>(k), predictions),
                        1e-9);
          }
        }
      }
    }
  }
}

TEST(PartialDependence, SparseRowsMissWhatIsNotStored) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const std::vector<float> x = {nan, 1, 33, 0.5f, nan, nan}, values = {1, 33, 0.5f};
  const std::vector<std::int64_t> offsets = {0, 2, 3};
  const std::vector<std::int32_t> stored = {1, 2, 0}, columns = {1};
  const std::vector<double> grid = {0.5, -1};
  const MatrixView<const double> points(grid.data(), {2, 1});
  const boosting::Model m = linear_sample_model();
  const auto dense = partial_dependence(
      m, tree::make_dataset(MatrixView<const float>(x.data(), {2, 3})), columns, points);
  const auto sparse = partial_dependence(
      m, tree::make_dataset(tree::CsrView<float>{offsets, stored, values, 3}), columns, points);
  for (Index p = 0; p < 2; ++p) EXPECT_EQ(dense(p, 1), sparse(p, 1));
}

TEST(PartialDependence, RefusesWhatDoesNotFit) {
  Data d;
  const std::vector<double> grid = {0, 1};
  const MatrixView<const double> points(grid.data(), {2, 1});
  const boosting::Model m = sample_model();
  const std::vector<std::int32_t> good = {0}, outside = {3}, two = {0, 1}, none;
  EXPECT_NO_THROW((void)partial_dependence(m, d.dataset, good, points));
  EXPECT_THROW((void)partial_dependence(m, d.dataset, outside, points), ValueError);
  EXPECT_THROW((void)partial_dependence(m, d.dataset, two, points), ShapeError);
  EXPECT_THROW((void)partial_dependence(m, d.dataset, none, points), ShapeError);
  EXPECT_THROW((void)partial_dependence(m, d.dataset, good, points, {.rounds = 9}), ValueError);
  d.dataset.weights.assign(rows, 0.0f);
  EXPECT_THROW((void)partial_dependence(m, d.dataset, good, points), ValueError);
}

}  // namespace
}  // namespace quern::test::partial_dependence
