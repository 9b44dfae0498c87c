// SPDX-License-Identifier: Apache-2.0

#include "quern/core/random.hpp"
#include "quern/kernels/kernels.hpp"

#include <gtest/gtest.h>

#include <cstdint>
#include <string>
#include <vector>

namespace quern::test::tree_histogram {
namespace {

/// A block of random codes, packed and full gradients, and the sums that a plain loop gives.
struct Case {
  std::int64_t rows, features, stride;
  std::vector<std::uint8_t> codes;
  std::vector<std::int32_t> offsets;
  std::vector<std::int64_t> packed, full;

  Case(std::int64_t rows_in, std::int64_t features_in)
      : rows(rows_in), features(features_in), stride((features_in + 7) / 8 * 8) {
    Philox rng(7, "histogram test", static_cast<std::uint64_t>(rows * 100 + features));
    codes.assign(static_cast<std::size_t>(rows * stride), 0);
    offsets.push_back(0);
    for (std::int64_t j = 0; j < features; ++j)
      offsets.push_back(offsets.back() + 1 + static_cast<std::int32_t>(rng.integer(256)));
    for (std::int64_t i = 0; i < rows; ++i) {
      for (std::int64_t j = 0; j < features; ++j)
        codes[static_cast<std::size_t>(i * stride + j)] =
            static_cast<std::uint8_t>(rng.integer(static_cast<std::uint64_t>(bins(j))));
      const std::int64_t g = static_cast<std::int64_t>(rng.integer(1 << 17)) - (1 << 16);
      const auto h = static_cast<std::int64_t>(rng.integer(1 << 17));
      packed.push_back(g * (std::int64_t{1} << 32) + h);
      full.push_back(g * (std::int64_t{1} << 20));
      full.push_back(h * (std::int64_t{1} << 20));
    }
  }

  [[nodiscard]] std::int32_t bins(std::int64_t j) const {
    const auto i = static_cast<std::size_t>(j);
    return offsets[i + 1] - offsets[i];
  }
  [[nodiscard]] kernels::DenseCodes dense() const {
    return {codes.data(), offsets.data(), stride, features};
  }

  /// Words a cell: 1 or 2.
  [[nodiscard]] std::vector<std::int64_t> naive(const std::vector<std::int32_t>& index,
                                                int words) const {
    std::vector<std::int64_t> cells(static_cast<std::size_t>(offsets.back() * words), 0);
    const std::vector<std::int64_t>& gradients = words == 1 ? packed : full;
    for (const std::int32_t row : index) {
      for (std::int64_t j = 0; j < features; ++j) {
        const std::int32_t cell = offsets[static_cast<std::size_t>(j)] +
                                  codes[static_cast<std::size_t>(row * stride + j)];
        for (int w = 0; w < words; ++w)
          cells[static_cast<std::size_t>(cell * words + w)] +=
              gradients[static_cast<std::size_t>(row * words + w)];
      }
    }
    return cells;
  }
};

std::vector<std::int32_t> every(std::int64_t rows, int step) {
  std::vector<std::int32_t> index;
  for (std::int32_t i = 0; i < rows; i += step) index.push_back(i);
  return index;
}

template <int kWords>
void check_dense(const Case& c, int step) {
  const std::vector<std::int32_t> index = every(c.rows, step);
  std::vector<std::int64_t> cells(static_cast<std::size_t>(c.offsets.back() * kWords), 0);
  const std::int64_t* gradients = kWords == 1 ? c.packed.data() : c.full.data();
  const kernels::RowList rows{step == 1 ? nullptr : index.data(), 0,
                              static_cast<std::int64_t>(index.size())};
  QUERN_DISPATCH(histogram_dense<kWords>(c.dense(), rows, gradients, cells.data()));
  EXPECT_EQ(cells, c.naive(index, kWords));
}

TEST(TreeHistogramKernel, DenseEqualsAPlainLoop) {
  for (const simd::Level level : simd::attainable_levels()) {
    const simd::ScopedLevel force(level);
    SCOPED_TRACE(std::string(simd::name(level)));
    for (const std::int64_t rows : {0, 1, 2, 15, 16, 17, 100, 1000}) {
      for (const std::int64_t features : {1, 2, 3, 4, 5, 7, 8, 28, 33}) {
        const Case c(rows, features);
        for (const int step : {1, 3, 4}) {
          check_dense<1>(c, step);
          check_dense<2>(c, step);
        }
      }
    }
    // Far apart, several groups of features and several copies of rows.
    for (const std::int64_t features : {28, 33, 64}) {
      const Case c(6001, features);
      check_dense<1>(c, 4);
      check_dense<2>(c, 5);
    }
  }
}

/// The dense codes that differ from each feature's default 0, as entries.
template <int kWords>
void check_sparse(const Case& c, int step) {
  std::vector<std::uint16_t> entries;
  std::vector<std::int64_t> row_offsets = {0};
  for (std::int64_t i = 0; i < c.rows; ++i) {
    for (std::int64_t j = 0; j < c.features; ++j) {
      const std::uint8_t code = c.codes[static_cast<std::size_t>(i * c.stride + j)];
      if (code % 4 != 0) continue;  // leave most out
      entries.push_back(static_cast<std::uint16_t>(c.offsets[static_cast<std::size_t>(j)] + code));
    }
    row_offsets.push_back(static_cast<std::int64_t>(entries.size()));
  }
  const std::int64_t total = c.offsets.back();
  std::vector<std::int64_t> cells(static_cast<std::size_t>((total + 1) * kWords), 0);
  std::vector<std::int64_t> expected = cells;
  const std::int64_t* gradients = kWords == 1 ? c.packed.data() : c.full.data();
  const std::vector<std::int32_t> index = every(c.rows, step);
  for (const std::int32_t row : index) {
    const auto r = static_cast<std::size_t>(row);
    for (int w = 0; w < kWords; ++w) {
      const std::int64_t g = gradients[row * kWords + w];
      for (std::int64_t e = row_offsets[r]; e < row_offsets[r + 1]; ++e)
        expected[static_cast<std::size_t>(entries[static_cast<std::size_t>(e)] * kWords + w)] += g;
      expected[static_cast<std::size_t>(total * kWords + w)] += g;
    }
  }
  const kernels::RowList rows{step == 1 ? nullptr : index.data(), 0,
                              static_cast<std::int64_t>(index.size())};
  QUERN_DISPATCH(histogram_sparse<kWords>({entries.data(), row_offsets.data()}, rows, gradients,
                                          total, cells.data()));
  EXPECT_EQ(cells, expected);
}

TEST(TreeHistogramKernel, SparseEqualsAPlainLoop) {
  for (const simd::Level level : simd::attainable_levels()) {
    const simd::ScopedLevel force(level);
    SCOPED_TRACE(std::string(simd::name(level)));
    for (const std::int64_t rows : {0, 1, 17, 300}) {
      for (const std::int64_t features : {1, 3, 20}) {
        const Case c(rows, features);
        for (const int step : {1, 3}) {
          check_sparse<1>(c, step);
          check_sparse<2>(c, step);
        }
      }
    }
  }
}

TEST(TreeHistogramKernel, SubtractionInEveryMixOfWords) {
  const std::int64_t cells = 37;
  Philox rng(3, "subtract");
  std::vector<std::int64_t> full[2], packed[2];
  for (int i = 0; i < 2; ++i) {  // the parent's sums exceed the child's
    for (std::int64_t c = 0; c < cells; ++c) {
      const std::int64_t g = static_cast<std::int64_t>(rng.integer(1000)) - 500;
      const auto h = static_cast<std::int64_t>(rng.integer(1000)) + 1000 * (1 - i);
      full[i].push_back(g);
      full[i].push_back(h);
      packed[i].push_back(g * (std::int64_t{1} << 32) + h);
    }
  }
  const auto difference = [&](std::int64_t c, int w) {
    const auto at = static_cast<std::size_t>(2 * c + w);
    return full[0][at] - full[1][at];
  };
  for (const simd::Level level : simd::attainable_levels()) {
    const simd::ScopedLevel force(level);
    struct Mix {
      int parent, child, sibling;
    };
    for (const Mix m : {Mix{1, 1, 1}, Mix{2, 1, 1}, Mix{2, 1, 2}, Mix{2, 2, 2}, Mix{2, 2, 1}}) {
      std::vector<std::int64_t> out(static_cast<std::size_t>(cells * m.sibling));
      const auto& parent = m.parent == 1 ? packed[0] : full[0];
      const auto& child = m.child == 1 ? packed[1] : full[1];
      QUERN_DISPATCH(subtract_histogram<std::int64_t>(parent.data(), m.parent, child.data(),
                                                      m.child, cells, out.data(), m.sibling));
      for (std::int64_t c = 0; c < cells; ++c) {
        const auto i = static_cast<std::size_t>(c * m.sibling);
        const std::int64_t g = m.sibling == 1 ? out[i] >> 32 : out[i];
        const std::int64_t h = m.sibling == 1 ? out[i] & 0xffffffff : out[i + 1];
        EXPECT_EQ(g, difference(c, 0));
        EXPECT_EQ(h, difference(c, 1));
      }
    }
  }
}

TEST(TreeHistogramKernel, WideningAddsBothSums) {
  const std::vector<std::int64_t> packed = {-5 * (std::int64_t{1} << 32) + 7, 0};
  for (const simd::Level level : simd::attainable_levels()) {
    const simd::ScopedLevel force(level);
    std::vector<std::int64_t> full = {100, 200, 300, 400};
    QUERN_DISPATCH(widen_histogram<1>(packed.data(), 2, full.data()));
    EXPECT_EQ(full, (std::vector<std::int64_t>{95, 207, 300, 400}));
    const std::vector<std::int64_t> more = {1, 2, 3, 4};
    QUERN_DISPATCH(widen_histogram<2>(more.data(), 2, full.data()));
    EXPECT_EQ(full, (std::vector<std::int64_t>{96, 209, 303, 404}));
  }
}

}  // namespace
}  // namespace quern::test::tree_histogram
