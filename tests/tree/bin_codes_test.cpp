// SPDX-License-Identifier: Apache-2.0

#include "quern/tree/detail/bin_codes.hpp"

#include "quern/core/checks.hpp"
#include "quern/core/random.hpp"

#include <gtest/gtest.h>

#include <cstdint>
#include <limits>
#include <vector>

namespace quern::test::bin_codes {
namespace {

using tree::BinnedMatrix;
using tree::Cuts;

/// Two numeric features, a category, and one without cuts.
Cuts cuts() {
  Cuts c;
  c.offsets = {0, 2, 3, 5, 5};
  c.values = {-1, 1, 0.25, 4, 6};
  c.categorical = {0, 0, 1, 0};
  c.has_missing = {1, 1, 1, 1};
  return c;
}

/// 1 + the cuts that are not above x; categories: 1 + their place, else the last code.
template <class T>
std::uint8_t naive(const Cuts& c, std::int32_t f, T x) {
  if (is_nan_bits(x)) return tree::missing_code;
  int code = 1;
  for (std::int32_t b = 1; b < c.bins(f); ++b) {
    if (c.is_categorical(f) && static_cast<double>(x) == c.cut(f, b))
      return static_cast<std::uint8_t>(b);
    code += c.is_categorical(f) || c.cut(f, b) <= static_cast<double>(x) ? 1 : 0;
  }
  return static_cast<std::uint8_t>(code);
}

template <class T>
class BinCodesOf : public ::testing::Test {};
using Scalars = ::testing::Types<float, double>;
TYPED_TEST_SUITE(BinCodesOf, Scalars);

TYPED_TEST(BinCodesOf, DenseAndSparseAreTheCountOfCutsBelow) {
  using T = TypeParam;
  constexpr std::int64_t rows = 700;
  Philox rng(1, "bin codes test");
  std::vector<T> x;
  for (std::int64_t i = 0; i < rows * 4; ++i) {
    x.push_back(i % 4 == 2 ? static_cast<T>(rng.integer(8)) : rng.normal<T>());
    if (rng.bernoulli(0.3)) x.back() = static_cast<T>(i % 4 == 0 ? 1 : 0.25);
    if (i % 4 == 2 && x.back() < 1) x.back() = 6;
    if (rng.bernoulli(i % 4 == 3 ? 0.99 : 0.2)) x.back() = std::numeric_limits<T>::quiet_NaN();
  }
  std::vector<std::int64_t> offsets = {0};
  std::vector<std::int32_t> columns;
  std::vector<T> values;
  for (std::int64_t r = 0; r < rows; ++r) {
    for (std::int32_t f = 0; f < 4; ++f) {
      const T v = x[static_cast<std::size_t>(r * 4 + f)];
      if (is_nan_bits(v)) continue;
      columns.push_back(f);
      values.push_back(v);
    }
    offsets.push_back(static_cast<std::int64_t>(columns.size()));
  }
  for (const int threads : {1, 2, 3}) {
    BinnedMatrix dense, sparse;
    dense.rows = sparse.rows = rows;
    dense.cuts = sparse.cuts = cuts();
    tree::detail::bin_features(MatrixView<const T>(x.data(), {rows, 4}), {}, threads, dense);
    tree::detail::bin_features(tree::CsrView<T>{offsets, columns, values, 4}, {}, threads, sparse);
    for (std::int64_t r = 0; r < rows; ++r) {
      for (std::int32_t f = 0; f < 4; ++f) {
        const int expected = naive(dense.cuts, f, x[static_cast<std::size_t>(r * 4 + f)]);
        ASSERT_EQ(tree::code(dense, r, f), expected) << r << ", " << f;
        ASSERT_EQ(tree::code(sparse, r, f), expected) << r << ", " << f;
      }
    }
  }
}

TYPED_TEST(BinCodesOf, InfinityIsRefused) {
  using T = TypeParam;
  std::vector<T> x(8, T{0});
  x[4] = std::numeric_limits<T>::infinity();
  BinnedMatrix m;
  m.rows = 2;
  m.cuts = cuts();
  EXPECT_THROW(tree::detail::bin_features(MatrixView<const T>(x.data(), {2, 4}), {}, 1, m),
               ValueError);
}

}  // namespace
}  // namespace quern::test::bin_codes
