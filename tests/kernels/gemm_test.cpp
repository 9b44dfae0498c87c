// SPDX-License-Identifier: Apache-2.0

#include "quern/kernels/gemm.hpp"

#include "quern/core/random.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <string>
#include <tuple>
#include <utility>
#include <vector>

namespace quern::test::gemm {
namespace {

/// Memory for a matrix in some order, with gaps, and a view on it.
template <class T>
struct Storage {
  enum class Order { row, col, row_gaps, scattered, backwards };

  Storage(Index rows, Index cols, Order order, std::uint64_t seed = 1)
      : values(static_cast<std::size_t>(2 * (rows + 3) * (2 * cols + 3) + 8)) {
    Philox rng(seed, "gemm_test", static_cast<std::uint64_t>(rows * 1000 + cols));
    for (T& v : values) v = static_cast<T>(rng.uniform() * 2 - 1);
    T* at = values.data() + 1;  // not aligned
    switch (order) {
      case Order::row:
        view = {at, {rows, cols}, {cols, 1}};
        break;
      case Order::col:
        view = {at, {rows, cols}, {1, rows}};
        break;
      case Order::row_gaps:
        view = {at, {rows, cols}, {cols + 3, 1}};
        break;
      case Order::scattered:
        view = {at, {rows, cols}, {2 * cols + 1, 2}};
        break;
      case Order::backwards:
        at += (std::max)(rows - 1, Index{0}) * cols;
        view = {at, {rows, cols}, {-cols, 1}};
        break;
    }
  }

  std::vector<T> values;
  MatrixView<T> view;
};

template <class T>
T tolerance(Index k) {
  return static_cast<T>(k + 8) * std::numeric_limits<T>::epsilon();
}

/// alpha a b + beta c in double.
template <class T>
std::vector<double> reference(MatrixView<const T> a, MatrixView<const T> b, MatrixView<const T> c,
                              double alpha, double beta) {
  std::vector<double> out;
  for (Index i = 0; i < c.rows(); ++i) {
    for (Index j = 0; j < c.cols(); ++j) {
      double sum = 0;
      for (Index p = 0; p < a.cols(); ++p) {
        sum += static_cast<double>(a(i, p)) * static_cast<double>(b(p, j));
      }
      out.push_back(alpha * sum + (beta == 0 ? 0 : beta * static_cast<double>(c(i, j))));
    }
  }
  return out;
}

template <class T>
void expect_near(MatrixView<const T> got, const std::vector<double>& want, Index k) {
  std::size_t at = 0;
  for (Index i = 0; i < got.rows(); ++i) {
    for (Index j = 0; j < got.cols(); ++j, ++at) {
      ASSERT_NEAR(static_cast<double>(got(i, j)), want[at], static_cast<double>(tolerance<T>(k)))
          << i << ", " << j;
    }
  }
}

template <class T>
bool same_bits(MatrixView<const T> x, MatrixView<const T> y) {
  for (Index i = 0; i < x.rows(); ++i) {
    for (Index j = 0; j < x.cols(); ++j) {
      if (std::memcmp(&x(i, j), &y(i, j), sizeof(T)) != 0) return false;
    }
  }
  return true;
}

template <class F>
void at_every_level(F&& f) {
  for (const simd::Level level : simd::attainable_levels()) {
    const simd::ScopedLevel force(level);
    SCOPED_TRACE(std::string(simd::name(level)));
    f();
  }
}

template <class T>
class Gemm : public ::testing::Test {};
using Scalars = ::testing::Types<float, double>;
TYPED_TEST_SUITE(Gemm, Scalars, );

TYPED_TEST(Gemm, EverySmallSize) {
  using T = TypeParam;
  using Order = typename Storage<T>::Order;
  const Index sizes[] = {0, 1, 2, 3, 5, 7, 8, 9, 15, 16, 17, 31, 33};
  at_every_level([&] {
    for (const Index m : sizes) {
      for (const Index n : sizes) {
        for (const Index k : {0, 1, 3, 8, 17}) {
          SCOPED_TRACE(std::to_string(m) + " " + std::to_string(n) + " " + std::to_string(k));
          const Storage<T> a(m, k, Order::row, 1), b(k, n, Order::row, 2);
          Storage<T> c(m, n, Order::row, 3);
          const auto want = reference<T>(a.view, b.view, c.view, 1.5, -0.5);
          kernels::gemm<T>(a.view, b.view, c.view, {.alpha = T(1.5), .beta = T(-0.5)});
          expect_near<T>(c.view, want, k);
        }
      }
    }
  });
}

TYPED_TEST(Gemm, EveryOrderOfEveryOperand) {
  using T = TypeParam;
  using Order = typename Storage<T>::Order;
  const Order orders[] = {Order::row, Order::col, Order::row_gaps, Order::scattered,
                          Order::backwards};
  const std::tuple<Index, Index, Index> shapes[] = {
      {5, 70, 9}, {67, 6, 300}, {53, 129, 33}, {1, 40, 20}, {40, 1, 20}};
  at_every_level([&] {
    for (const auto& [m, n, k] : shapes) {
      for (const Order oa : orders) {
        for (const Order ob : orders) {
          for (const Order oc : orders) {
            const Storage<T> a(m, k, oa, 1), b(k, n, ob, 2);
            Storage<T> c(m, n, oc, 3);
            const std::vector<T> before = c.values;
            const auto want = reference<T>(a.view, b.view, c.view, 1, 0);
            kernels::gemm<T>(a.view, b.view, c.view);
            expect_near<T>(c.view, want, k);
            // Nothing beside c is written.
            for (Index i = 0; i < m; ++i) {
              for (Index j = 0; j < n; ++j) {
                c.view(i, j) = before[static_cast<std::size_t>(&c.view(i, j) - c.values.data())];
              }
            }
            ASSERT_EQ(c.values, before);
          }
        }
      }
    }
  });
}

TYPED_TEST(Gemm, LargeWithSeveralBlocksOfDepth) {
  using T = TypeParam;
  using Order = typename Storage<T>::Order;
  const std::tuple<Index, Index, Index> shapes[] = {
      {130, 150, 700}, {301, 97, 256}, {17, 400, 513}};
  at_every_level([&] {
    for (const auto& [m, n, k] : shapes) {
      const Storage<T> a(m, k, Order::row, 1), b(n, k, Order::row, 2);
      Storage<T> c(m, n, Order::col, 3);
      const auto want = reference<T>(a.view, b.view.transposed(), c.view, -1, 2);
      kernels::gemm<T>(a.view, b.view.transposed(), c.view, {.alpha = T(-1), .beta = T(2)});
      expect_near<T>(c.view, want, k);
    }
  });
}

TYPED_TEST(Gemm, BetaZeroDoesNotReadWhatWasThere) {
  using T = TypeParam;
  using Order = typename Storage<T>::Order;
  at_every_level([&] {
    for (const Index k : {0, 5, 600}) {
      const Storage<T> a(13, k, Order::row), b(k, 37, Order::row);
      Storage<T> c(13, 37, Order::row);
      const auto want = reference<T>(a.view, b.view, c.view, 1, 0);
      std::fill(c.values.begin(), c.values.end(), std::numeric_limits<T>::quiet_NaN());
      kernels::gemm<T>(a.view, b.view, c.view);
      expect_near<T>(c.view, want, k);
    }
  });
}

TYPED_TEST(Gemm, ThreadsDoNotChangeBits) {
  using T = TypeParam;
  using Order = typename Storage<T>::Order;
  const std::tuple<Index, Index, Index> shapes[] = {{200, 180, 300}, {16, 900, 64}, {900, 7, 64}};
  at_every_level([&] {
    for (const auto& [m, n, k] : shapes) {
      const Storage<T> a(m, k, Order::row), b(k, n, Order::row);
      Storage<T> one(m, n, Order::row), other(m, n, Order::row);
      kernels::gemm<T>(a.view, b.view, one.view, {.threads = 1});
      for (const int threads : {2, 3}) {
        kernels::gemm<T>(a.view, b.view, other.view, {.threads = threads});
        EXPECT_TRUE(same_bits<T>(one.view, other.view)) << threads;
      }
    }
  });
}

TYPED_TEST(Gemm, AnElementHasTheSameBitsWhateverItIsComputedWith) {
  using T = TypeParam;
  using Order = typename Storage<T>::Order;
  const Index m = 120, n = 140, k = 520;
  at_every_level([&] {
    const Storage<T> a(m, k, Order::row), b(k, n, Order::row);
    Storage<T> whole(m, n, Order::row), part(m, n, Order::row), turned(m, n, Order::col);
    kernels::gemm<T>(a.view, b.view, whole.view);
    for (Index i = 0; i < m; i += 7) {  // rows alone: nothing is packed
      kernels::gemm<T>(a.view.block(i, 0, 1, k), b.view, part.view.block(i, 0, 1, n));
      EXPECT_TRUE(same_bits<T>(part.view.block(i, 0, 1, n), whole.view.block(i, 0, 1, n))) << i;
    }
    for (Index j = 0; j < n; j += 9) {  // columns alone, five at a time
      const Index count = (std::min)(Index{5}, n - j);
      kernels::gemm<T>(a.view, b.view.block(0, j, k, count), part.view.block(0, j, m, count));
      EXPECT_TRUE(same_bits<T>(part.view.block(0, j, m, count), whole.view.block(0, j, m, count)));
    }
    kernels::gemm<T>(a.view, b.view, turned.view);
    EXPECT_TRUE(same_bits<T>(turned.view, whole.view));
    const kernels::PackedMatrix<T> packed(b.view);
    kernels::gemm<T>(a.view, packed, part.view);
    EXPECT_TRUE(same_bits<T>(part.view, whole.view));
    kernels::gemm<T>(a.view, packed, turned.view);
    EXPECT_TRUE(same_bits<T>(turned.view, whole.view));
  });
}

TYPED_TEST(Gemm, PackedMatrixKeepsItsLevel) {
  using T = TypeParam;
  using Order = typename Storage<T>::Order;
  const Storage<T> a(30, 50, Order::row), b(50, 60, Order::col);
  at_every_level([&] {
    const kernels::PackedMatrix<T> packed(b.view);
    Storage<T> here(30, 60, Order::row), there(30, 60, Order::row);
    kernels::gemm<T>(a.view, packed, here.view);
    const simd::ScopedLevel other(simd::attainable_levels().back());
    kernels::gemm<T>(a.view, packed, there.view);
    EXPECT_TRUE(same_bits<T>(here.view, there.view));
  });
  const kernels::PackedMatrix<T> nothing(MatrixView<const T>(nullptr, {0, 20}));
  const Storage<T> empty(4, 0, Order::row);
  Storage<T> c(4, 20, Order::row);
  kernels::gemm<T>(empty.view, nothing, c.view);
  for (Index j = 0; j < 20; ++j) EXPECT_EQ(c.view(3, j), T(0));
}

TYPED_TEST(Gemm, BatchedIsEachAlone) {
  using T = TypeParam;
  for (const Index batch : {0, 1, 3, 20}) {
    std::vector<T> a(static_cast<std::size_t>(batch * 40 * 30)),
        b(static_cast<std::size_t>(batch * 30 * 50));
    std::vector<T> c(static_cast<std::size_t>(batch * 40 * 50)), want(c.size());
    Philox rng(1, "batched", 0);
    for (T& v : a) v = static_cast<T>(rng.uniform());
    for (T& v : b) v = static_cast<T>(rng.uniform());
    const NdView<T, 3> va(a.data(), {batch, 40, 30}), vb(b.data(), {batch, 30, 50});
    const NdView<T, 3> vc(c.data(), {batch, 40, 50}), vw(want.data(), {batch, 40, 50});
    for (Index i = 0; i < batch; ++i) {
      kernels::gemm<T>(va.subview(i), vb.subview(i), vw.subview(i));
    }
    for (const int threads : {1, 2, 3}) {
      kernels::gemm_batched<T>(va, vb, vc, {.threads = threads});
      EXPECT_EQ(c, want);
    }
  }
}

TYPED_TEST(Gemm, BiasAndActivation) {
  using T = TypeParam;
  using Order = typename Storage<T>::Order;
  at_every_level([&] {
    for (const Order order : {Order::row, Order::col, Order::scattered}) {
      for (const Index n : {3, 50, 200}) {
        const Storage<T> a(37, 300, Order::row), b(300, n, Order::row), bias(1, n + 37, Order::row);
        const T* const values = bias.view.data();
        Storage<T> c(37, n, order);
        auto want = reference<T>(a.view, b.view, c.view, 1, 0);
        for (Index i = 0; i < 37; ++i) {
          for (Index j = 0; j < n; ++j) {
            double& w = want[static_cast<std::size_t>(i * n + j)];
            w = std::tanh(w + static_cast<double>(values[n + i]) + static_cast<double>(values[j]));
          }
        }
        kernels::gemm_activated<T>(a.view, b.view, c.view, {values + n, 37},
                                   {values, static_cast<std::size_t>(n)}, kernels::Tanh{});
        expect_near<T>(c.view, want, 300);
      }
    }
  });
}

/// C's order decides whether the transposed product runs; no bit may tell.
TYPED_TEST(Gemm, ActivationsDoNotDependOnTheOrderOfC) {
  using T = TypeParam;
  using Order = typename Storage<T>::Order;
  at_every_level([&] {
    for (const auto& [m, n] : {std::pair<Index, Index>{37, 29}, {40, 3}, {3, 40}}) {
      const Storage<T> a(m, 50, Order::row), b(50, n, Order::row), biases(1, 100, Order::row);
      const std::span<const T> row_bias(biases.view.data(), static_cast<std::size_t>(m));
      const std::span<const T> col_bias(biases.view.data() + 50, static_cast<std::size_t>(n));
      Storage<T> by_rows(m, n, Order::row), by_cols(m, n, Order::col);
      for (Storage<T>* c : {&by_rows, &by_cols}) {
        kernels::gemm_activated<T>(a.view, b.view, c->view, row_bias, col_bias,
                                   kernels::Softplus{});
      }
      for (Index i = 0; i < m; ++i) {
        for (Index j = 0; j < n; ++j) ASSERT_EQ(by_rows.view(i, j), by_cols.view(i, j));
      }
    }
  });
}

TYPED_TEST(Gemm, ArgMinIsThatOfTheProduct) {
  using T = TypeParam;
  using Order = typename Storage<T>::Order;
  const std::tuple<Index, Index, Index> shapes[] = {
      {1, 1, 3}, {50, 97, 64}, {130, 5, 16}, {70, 300, 400}};
  at_every_level([&] {
    for (const auto& [m, n, k] : shapes) {
      const Storage<T> a(m, k, Order::row), codes(n, k, Order::row), half(1, n, Order::row);
      const std::span<const T> offsets(half.view.data(), static_cast<std::size_t>(n));
      Storage<T> product(m, n, Order::row);
      for (Index i = 0; i < m; ++i) {
        for (Index j = 0; j < n; ++j) product.view(i, j) = offsets[static_cast<std::size_t>(j)];
      }
      kernels::gemm<T>(a.view, codes.view.transposed(), product.view,
                       {.alpha = T(-1), .beta = T(1)});
      std::vector<T> want_value;
      std::vector<std::int64_t> want;
      for (Index i = 0; i < m; ++i) {
        Index best = 0;
        for (Index j = 1; j < n; ++j) best = product.view(i, j) < product.view(i, best) ? j : best;
        want.push_back(best);
        want_value.push_back(product.view(i, best));
      }
      const kernels::PackedMatrix<T> packed(codes.view.transposed());
      for (const int threads : {1, 2, 3}) {
        std::vector<T> value(static_cast<std::size_t>(m));
        std::vector<std::int64_t> found(static_cast<std::size_t>(m), -1);
        kernels::gemm_argmin<T>(a.view, packed, T(-1), offsets, found, value, threads);
        EXPECT_EQ(found, want);
        for (std::size_t i = 0; i < value.size(); ++i) {
          EXPECT_NEAR(value[i], want_value[i], tolerance<T>(k));
        }
      }
    }
  });
}

TYPED_TEST(Gemm, ArgMinTiesAndNan) {
  using T = TypeParam;
  at_every_level([&] {
    const Index n = 71;
    std::vector<T> zeros(static_cast<std::size_t>(n), T(0)), one(1, T(0));
    const kernels::PackedMatrix<T> codes(MatrixView<const T>(zeros.data(), {1, n}));
    std::vector<T> offsets(static_cast<std::size_t>(n), T(3)), value(1);
    std::vector<std::int64_t> found(1);
    const MatrixView<const T> row(one.data(), {1, 1});
    const auto run = [&] { kernels::gemm_argmin<T>(row, codes, T(1), offsets, found, value); };
    run();
    EXPECT_EQ(found[0], 0);
    offsets[40] = offsets[17] = offsets[70] = T(-2);
    run();
    EXPECT_EQ(found[0], 17);
    EXPECT_EQ(value[0], T(-2));
    offsets[17] = offsets[0] = std::numeric_limits<T>::quiet_NaN();
    run();
    EXPECT_EQ(found[0], 40);
    std::fill(offsets.begin(), offsets.end(), std::numeric_limits<T>::quiet_NaN());
    run();
    EXPECT_EQ(found[0], 0);
  });
}

TYPED_TEST(Gemm, WrongShapesAreNamed) {
  using T = TypeParam;
  using Order = typename Storage<T>::Order;
  const Storage<T> a(3, 4, Order::row), b(5, 2, Order::row), fits(4, 2, Order::row);
  Storage<T> c(3, 2, Order::row), wide(3, 3, Order::row), square(4, 4, Order::row);
  EXPECT_THROW(kernels::gemm<T>(a.view, b.view, c.view), ShapeError);
  EXPECT_THROW(kernels::gemm<T>(a.view, fits.view, wide.view), ShapeError);
  EXPECT_THROW(kernels::gemm<T>(square.view, fits.view, square.view.block(0, 0, 4, 2)), ShapeError);
  EXPECT_THROW(kernels::gemm_activated<T>(a.view, fits.view, c.view, {a.view.data(), 2}, {},
                                          kernels::Identity{}),
               ShapeError);
  try {
    kernels::gemm<T>(a.view, b.view, c.view);
  } catch (const ShapeError& error) {
    EXPECT_NE(std::string(error.what()).find("3 x 4 times 5 x 2"), std::string::npos)
        << error.what();
  }
}

}  // namespace
}  // namespace quern::test::gemm
