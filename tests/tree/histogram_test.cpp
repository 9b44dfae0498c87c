// SPDX-License-Identifier: Apache-2.0

#include "quern/tree/histogram.hpp"

#include "quern/core/random.hpp"
#include "quern/tree/binning.hpp"

#include <gtest/gtest.h>

#include <cstdint>
#include <limits>
#include <vector>

namespace quern::test::histogram {
namespace {

using tree::GradientPair;

/// Features of which some are nearly always zero, so that both layouts of blocks occur.
Eigen::MatrixXf features(std::int64_t rows) {
  Philox rng(2, "histogram test");
  Eigen::MatrixXf x(rows, 80);
  for (std::int64_t i = 0; i < rows; ++i) {
    for (std::int64_t j = 0; j < 80; ++j) {
      x(i, j) = j < 10 || rng.bernoulli(0.05) ? rng.normal<float>() : 0.0f;
      if (rng.bernoulli(0.02)) x(i, j) = std::numeric_limits<float>::quiet_NaN();
    }
  }
  return x;
}

void expect_sums(const tree::BinnedMatrix& data, const tree::HistogramBuilder& builder,
                 const tree::NodeHistogram& histogram, const tree::QuantisedGradients& q,
                 const std::vector<std::int32_t>& rows) {
  for (std::int32_t f = 0; f < data.features(); ++f) {
    const std::int64_t first = builder.first_cell(f);
    if (first < 0) continue;  // a constant column has no cells
    std::vector<std::int64_t> g(256, 0), h(256, 0);
    for (const std::int32_t r : rows) {
      const std::int64_t* at = q.data() + std::int64_t{r} * q.words();
      const std::uint8_t c = tree::code(data, r, f);
      g[c] += q.words() == 1 ? at[0] >> 32 : at[0];
      h[c] += q.words() == 1 ? at[0] & 0xffffffff : at[1];
    }
    for (std::int32_t b = 0; b <= data.cuts.bins(f); ++b) {
      const auto sum = histogram.sum(first + b, first + b + 1);
      ASSERT_EQ(sum.g, g[static_cast<std::size_t>(b)]) << "feature " << f << ", code " << b;
      ASSERT_EQ(sum.h, h[static_cast<std::size_t>(b)]) << "feature " << f << ", code " << b;
    }
  }
}

TEST(Histogram, BuiltAndSubtractedEqualAPlainSum) {
  bool sparse = false;
  for (const std::int64_t rows : {60, 20000}) {
    const Eigen::MatrixXf x = features(rows);
    const tree::BinnedMatrix data = tree::bin(tree::make_dataset(x), 64);
    for (const tree::FeatureBlock& b : data.blocks)
      sparse = sparse || b.layout == tree::BlockLayout::sparse;
    Philox rng(3, "gradients");
    std::vector<GradientPair> gradients;
    std::vector<std::int32_t> part[2], all;
    for (std::int32_t i = 0; i < rows; ++i) {
      gradients.push_back({rng.normal<float>(), rng.uniform<float>()});
      part[i % 5 == 0 ? 0 : 1].push_back(i);
      all.push_back(i);
    }
    for (const auto precision :
         {tree::HistogramPrecision::packed, tree::HistogramPrecision::full}) {
      for (const int threads : {1, 2, 3}) {
        tree::QuantisedGradients q;
        q.assign(gradients, precision, threads);
        tree::HistogramBuilder builder(data, threads);
        tree::NodeHistogram parent, child, sibling;
        const tree::HistogramBuilder::Request requests[] = {
            {{nullptr, 0, rows}, &parent},
            {{part[0].data(), 0, static_cast<std::int64_t>(part[0].size())}, &child}};
        builder.build(q, requests);
        expect_sums(data, builder, parent, q, all);
        expect_sums(data, builder, child, q, part[0]);
        const tree::HistogramBuilder::Subtraction s{&parent, &child, &sibling,
                                                    static_cast<std::int64_t>(part[1].size())};
        builder.subtract(q, {&s, 1});
        expect_sums(data, builder, sibling, q, part[1]);
      }
    }
  }
  EXPECT_TRUE(sparse);  // else this tested one layout
}

}  // namespace
}  // namespace quern::test::histogram
