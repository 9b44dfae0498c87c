// SPDX-License-Identifier: Apache-2.0

/// \file
/// Causal convolutions against sums by definition: kernels shorter and longer than the sequence,
/// packed sequences, a kernel that looks ahead, gradients, precision in float, threads, bad input.

#include "quern/ssm/convolution.hpp"

#include "reference.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <random>
#include <span>
#include <string>
#include <vector>

namespace quern::test::ssm_convolution {
namespace {

template <class T, int Rank>
NdArray<T, Rank> random_array(const Shape<Rank>& shape, unsigned seed) {
  NdArray<T, Rank> x(shape);
  std::mt19937_64 random(seed);
  std::normal_distribution<double> normal;
  for (T& v : x) v = static_cast<T>(normal(random));
  return x;
}

/// All results by definition, in double.
struct Direct {
  NdArray<double, 3> y, du;
  NdArray<double, 2> dk, da;
};

template <class T>
Direct direct(const NdArray<T, 3>& u, const NdArray<T, 2>& k, const NdArray<T, 2>& a,
              const NdArray<T, 3>& dy, std::span<const std::int64_t> offsets) {
  Direct d{NdArray<double, 3>(u.extents()), NdArray<double, 3>(u.extents()),
           NdArray<double, 2>(k.extents()), NdArray<double, 2>(a.extents())};
  const ssm::detail::Sequences sequences("test", offsets, u.extent(0), u.extent(1));
  for (Index q = 0; q < sequences.size(); ++q) {
    const auto [n, begin, length] = sequences[q];
    for (Index t = 0; t < length; ++t) {
      for (Index s = 0; s < length; ++s) {
        for (Index c = 0; c < u.extent(2); ++c) {
          const double x = u(n, begin + s, c), g = dy(n, begin + t, c);
          if (s <= t && t - s < k.extent(0)) {
            d.y(n, begin + t, c) += k(t - s, c) * x;
            d.du(n, begin + s, c) += k(t - s, c) * g;
            d.dk(t - s, c) += x * g;
          }
          if (s > t && s - t - 1 < a.extent(0)) {
            d.y(n, begin + t, c) += a(s - t - 1, c) * x;
            d.du(n, begin + s, c) += a(s - t - 1, c) * g;
            d.da(s - t - 1, c) += x * g;
          }
        }
      }
    }
  }
  return d;
}

template <class T>
void check(const Shape<3>& shape, Index taps, Index ahead, std::span<const std::int64_t> offsets) {
  SCOPED_TRACE(::testing::Message() << shape_text(shape) << ", " << taps << " and " << ahead
                                    << " taps, " << offsets.size() << " offsets");
  const auto u = random_array<T, 3>(shape, 1), dy = random_array<T, 3>(shape, 2);
  const auto k = random_array<T, 2>({taps, shape[2]}, 3);
  const auto a = random_array<T, 2>({ahead, shape[2]}, 4);
  const NdView<const T, 2> maybe = ahead > 0 ? a.view() : NdView<const T, 2>();
  NdArray<T, 3> y(shape), du(shape);
  NdArray<T, 2> dk(k.extents()), da(a.extents());
  const ssm::ConvolutionOptions options{.offsets = offsets};
  ssm::causal_convolution<T>(u.view(), k.view(), y.view(), maybe, options);
  ssm::causal_convolution_vjp<T>(u.view(), k.view(), dy.view(), du.view(), dk.view(), maybe,
                                 ahead > 0 ? da.view() : NdView<T, 2>(), options);
  const Direct d = direct(u, k, a, dy, offsets);
  const double bound = std::is_same_v<T, float> ? 3e-6 : 1e-14;
  const auto size = [](const auto& x) { return static_cast<std::size_t>(x.size()); };
  expect_close(y.data(), d.y.data(), size(y), bound, "y");
  expect_close(du.data(), d.du.data(), size(du), bound, "du");
  expect_close(dk.data(), d.dk.data(), size(dk), bound, "dk");
  if (ahead > 0) expect_close(da.data(), d.da.data(), size(da), bound, "da");
}

TEST(SsmConvolution, AgainstSums) {
  check<double>({2, 37, 5}, 37, 0, {});
  check<double>({3, 200, 19}, 10, 0, {});  // many blocks
  check<double>({1, 70, 3}, 33, 0, {});
  check<double>({1, 5, 2}, 90, 0, {});  // taps that have no effect
  check<double>({9, 1, 2}, 1, 0, {});
  check<double>({0, 5, 2}, 3, 0, {});
  check<double>({2, 0, 2}, 3, 0, {});
  check<float>({2, 200, 33}, 100, 0, {});
}

TEST(SsmConvolution, LooksAhead) {
  check<double>({2, 64, 5}, 64, 64, {});
  check<double>({2, 50, 3}, 7, 90, {});
  check<float>({1, 33, 17}, 40, 3, {});
}

TEST(SsmConvolution, PackedSequences) {
  const std::vector<std::int64_t> offsets = {0, 3, 3, 70, 71, 160};
  check<double>({1, 160, 4}, 200, 0, offsets);
  check<double>({1, 160, 4}, 9, 0, offsets);
  check<double>({1, 160, 2}, 20, 12, offsets);
}

TEST(SsmConvolution, FloatEqualsDoubleAtLength16384) {
  const Shape<3> shape{1, 16384, 2};
  const auto u = random_array<double, 3>(shape, 1), k3 = random_array<double, 3>(shape, 2);
  NdArray<float, 3> uf(shape), yf(shape);
  NdArray<double, 3> ud(shape), y(shape);
  NdArray<float, 2> kf({16384, 2});
  NdArray<double, 2> kd({16384, 2});
  for (Index i = 0; i < u.size(); ++i) {
    uf.data()[i] = static_cast<float>(u.data()[i]);
    ud.data()[i] = uf.data()[i];
    kf.data()[i] = static_cast<float>(k3.data()[i] * std::exp(-1e-4 * static_cast<double>(i)));
    kd.data()[i] = kf.data()[i];
  }
  ssm::causal_convolution<float>(uf.view(), kf.view(), yf.view());
  ssm::causal_convolution<double>(ud.view(), kd.view(), y.view());
  expect_close(yf.data(), y.data(), 2 * 16384, 1e-6, "y");
}

TEST(SsmConvolution, ThreadsGiveTheSameBits) {
  const Shape<3> shape{6, 90, 40};
  const auto u = random_array<float, 3>(shape, 1), dy = random_array<float, 3>(shape, 2);
  const auto k = random_array<float, 2>({90, 40}, 3);
  std::vector<NdArray<float, 3>> results;
  std::vector<NdArray<float, 2>> gradients;
  for (const int threads : {1, 2, 3}) {
    results.emplace_back(shape);
    gradients.emplace_back(k.extents());
    ssm::causal_convolution<float>(u.view(), k.view(), results.back().view(), {},
                                   {.threads = threads});
    ssm::causal_convolution_vjp<float>(u.view(), k.view(), dy.view(), {}, gradients.back().view(),
                                       {}, {}, {.threads = threads});
    EXPECT_TRUE(std::equal(results[0].begin(), results[0].end(), results.back().begin()));
    EXPECT_TRUE(std::equal(gradients[0].begin(), gradients[0].end(), gradients.back().begin()));
  }
}

TEST(SsmConvolution, StridesAndBadInput) {
  auto u = random_array<double, 3>({2, 12, 3}, 1);
  const auto k = random_array<double, 2>({12, 3}, 2);
  NdArray<double, 3> turned({2, 3, 12}), y({2, 12, 3}), same({2, 12, 3});
  for (Index n = 0; n < 2; ++n) {
    for (Index t = 0; t < 12; ++t) {
      for (Index c = 0; c < 3; ++c) turned(n, c, t) = u(n, t, c);
    }
  }
  ssm::causal_convolution<double>(u.view(), k.view(), y.view());
  ssm::causal_convolution<double>(turned.view().permuted({0, 2, 1}), k.view(), same.view());
  EXPECT_TRUE(std::equal(y.begin(), y.end(), same.begin()));
  u(1, 4, 2) = std::numeric_limits<double>::infinity();
  try {
    ssm::causal_convolution<double>(u.view(), k.view(), y.view());
    FAIL();
  } catch (const ValueError& error) {
    EXPECT_NE(std::string(error.what())
                  .find("u: expected finite numbers, got NaN or infinity at "
                        "(1, 4, 2)"),
              std::string::npos)
        << error.what();
  }
  EXPECT_THROW(ssm::causal_convolution<double>(u.view(), k.view(), u.view()), ShapeError);
  EXPECT_THROW(ssm::causal_convolution<double>(u.view(), k.view().slice(0, 0, 0), y.view()),
               ShapeError);
  EXPECT_THROW(ssm::causal_convolution<double>(u.view(), k.view().slice(1, 0, 2), y.view()),
               ShapeError);
}

}  // namespace
}  // namespace quern::test::ssm_convolution
