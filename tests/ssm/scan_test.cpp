// SPDX-License-Identifier: Apache-2.0

/// \file
/// ssm::scan against references and finite differences; packed sequences, pieces, bad input.

#include "quern/ssm/scan.hpp"

#include "reference.hpp"

#include <gtest/gtest.h>

#include <complex>
#include <cstddef>
#include <limits>
#include <random>
#include <span>
#include <string>
#include <vector>

namespace quern::test::ssm_scan {
namespace {

template <class T>
NdArray<T, 3> random_array(Shape<3> shape, unsigned seed, double scale) {
  NdArray<T, 3> x(shape);
  std::mt19937_64 random(seed);
  std::normal_distribution<double> normal(0, scale);
  for (T& v : x) {
    if constexpr (std::is_same_v<T, ssm::RealOf<T>>) {
      v = static_cast<T>(normal(random));
    } else {
      v = T(static_cast<ssm::RealOf<T>>(normal(random)),
            static_cast<ssm::RealOf<T>>(normal(random)));
    }
  }
  return x;
}

template <class T>
NdView<const T, 3> as_batch(const SsmArray<T>& x) {
  return {x.values.data(), {1, x.extents[0], x.extents[1]}};
}

TEST(SsmScan, References) {
  const auto a = ssm_reference<double>("scan__a"), b = ssm_reference<double>("scan__b");
  const auto h0 = ssm_reference<double>("scan__h0");
  NdArray<double, 3> out({1, a.extents[0], a.extents[1]});
  const NdView<const double, 2> initial(h0.values.data(), {1, a.extents[1]});
  ssm::scan(as_batch(a), as_batch(b), initial, out.view());
  expect_close(out.data(), ssm_reference<double>("scan__fwd").values, a.size(), 1e-14, "fwd");
  ssm::scan(as_batch(a), as_batch(b), initial, out.view(), {}, {.reverse = true});
  expect_close(out.data(), ssm_reference<double>("scan__rev").values, a.size(), 1e-14, "rev");
  const auto offsets = ssm_reference<std::int64_t>("scan__cu_seqlens");
  ssm::scan(as_batch(a), as_batch(b), {}, out.view(), {}, {.offsets = offsets.values});
  expect_close(out.data(), ssm_reference<double>("scan__segmented").values, a.size(), 1e-14,
               "segmented");
}

/// sum Re(conj(w) out) + sum Re(conj(v) last), as a function of all inputs.
template <class T>
struct Loss {
  NdArray<T, 3> a, b, w;
  NdArray<T, 2> h0, v;
  ssm::ScanOptions options;

  [[nodiscard]] double value() const {
    NdArray<T, 3> out(b.extents());
    NdArray<T, 2> last(h0.extents());
    ssm::scan<T>(a.view(), b.view(), h0.view(), out.view(), last.view(), options);
    double sum = 0;
    for (Index i = 0; i < out.size(); ++i) sum += std::real(std::conj(w.data()[i]) * out.data()[i]);
    for (Index i = 0; i < v.size(); ++i) sum += std::real(std::conj(v.data()[i]) * last.data()[i]);
    return sum;
  }
};

template <class T>
void expect_gradient(Loss<T>& loss, T* x, const T* gradient, Index n, const char* what) {
  const double step = 1e-6;
  for (Index i = 0; i < n; ++i) {
    for (int part = 0; part < static_cast<int>(sizeof(T) / sizeof(double)); ++part) {
      double& value = reinterpret_cast<double*>(x)[i * static_cast<Index>(sizeof(T) / 8) + part];
      const double got =
          reinterpret_cast<const double*>(gradient)[i * static_cast<Index>(sizeof(T) / 8) + part];
      const double before = value;
      value = before + step;
      const double up = loss.value();
      value = before - step;
      const double down = loss.value();
      value = before;
      ASSERT_NEAR(got, (up - down) / (2 * step), 1e-7 * (1 + std::fabs(got))) << what << ' ' << i;
    }
  }
}

template <class T>
void check_gradients(bool reverse, std::span<const std::int64_t> offsets) {
  const Index batch = offsets.empty() ? 2 : 1;
  const Index sequences = offsets.empty() ? 2 : static_cast<Index>(offsets.size()) - 1;
  const Shape<3> shape{batch, 7, 3};
  Loss<T> loss{random_array<T>(shape, 1, 0.7), random_array<T>(shape, 2, 1),
               random_array<T>(shape, 3, 1),   NdArray<T, 2>({sequences, 3}),
               NdArray<T, 2>({sequences, 3}),  {.reverse = reverse, .offsets = offsets}};
  const auto more = random_array<T>({1, sequences, 3}, 4, 1);
  std::copy(more.begin(), more.end(), loss.h0.begin());
  std::copy(more.begin(), more.end(), loss.v.begin());
  NdArray<T, 3> out(shape), da(shape), db(shape);
  NdArray<T, 2> dh0({sequences, 3});
  ssm::scan<T>(loss.a.view(), loss.b.view(), loss.h0.view(), out.view(), {}, loss.options);
  ssm::scan_vjp<T>(loss.a.view(), out.view(), loss.h0.view(), std::as_const(loss.w).view(),
                   loss.v.view(), da.view(), db.view(), dh0.view(), loss.options);
  expect_gradient(loss, loss.a.data(), da.data(), da.size(), "a");
  expect_gradient(loss, loss.b.data(), db.data(), db.size(), "b");
  expect_gradient(loss, loss.h0.data(), dh0.data(), dh0.size(), "h0");
}

TEST(SsmScan, GradientsAgainstFiniteDifferences) {
  const std::vector<std::int64_t> offsets = {0, 3, 3, 7};
  for (const bool reverse : {false, true}) {
    check_gradients<double>(reverse, {});
    check_gradients<std::complex<double>>(reverse, {});
    check_gradients<double>(reverse, offsets);
    check_gradients<std::complex<double>>(reverse, offsets);
  }
}

TEST(SsmScan, ConstantMultipliersSumTheirGradient) {
  using T = std::complex<double>;
  const Shape<3> shape{2, 9, 5};
  const NdArray<T, 3> a = random_array<T>({1, 1, 5}, 1, 0.7), b = random_array<T>(shape, 2, 1);
  const NdView<const T, 3> same(a.data(), shape, {0, 0, 1});
  NdArray<T, 3> full(shape), out(shape), other(shape), da(shape), db(shape), sums({2, 1, 5});
  for (Index i = 0; i < full.size(); ++i) full.data()[i] = a.data()[i % 5];
  ssm::scan<T>(same, b.view(), {}, out.view());
  ssm::scan<T>(full.view(), b.view(), {}, other.view());
  EXPECT_TRUE(std::equal(out.begin(), out.end(), other.begin()));
  const NdView<T, 3> summed(sums.data(), shape, {5, 0, 1});
  ssm::scan_vjp<T>(same, out.view(), {}, b.view(), {}, summed, {}, {});
  ssm::scan_vjp<T>(full.view(), out.view(), {}, b.view(), {}, da.view(), db.view(), {});
  for (Index n = 0; n < 2; ++n) {
    for (Index c = 0; c < 5; ++c) {
      T sum = 0;
      for (Index t = 0; t < 9; ++t) sum += da(n, t, c);
      EXPECT_LT(std::abs(sum - sums(n, 0, c)), 1e-12 * (1 + std::abs(sum)));
    }
  }
}

TEST(SsmScan, PiecesAndThreadsGiveTheSameBits) {
  using T = std::complex<float>;
  const Shape<3> shape{3, 200, 300};
  const auto a = random_array<T>(shape, 1, 0.5), b = random_array<T>(shape, 2, 1);
  NdArray<T, 3> whole(shape), parts(shape);
  NdArray<T, 2> last({3, 300}), state({3, 300});
  ssm::scan<T>(a.view(), b.view(), {}, whole.view(), last.view(), {.threads = 1});
  for (const int threads : {2, 3}) {
    NdArray<T, 3> again(shape);
    ssm::scan<T>(a.view(), b.view(), {}, again.view(), {}, {.threads = threads});
    EXPECT_TRUE(std::equal(whole.begin(), whole.end(), again.begin()));
  }
  for (Index t = 0; t < 200; t += 67) {
    const Index n = (std::min)(Index{67}, 200 - t);
    ssm::scan<T>(a.view().slice(1, t, n), b.view().slice(1, t, n), state.view(),
                 parts.view().slice(1, t, n), state.view());
  }
  EXPECT_TRUE(std::equal(whole.begin(), whole.end(), parts.begin()));
  EXPECT_TRUE(std::equal(last.begin(), last.end(), state.begin()));
}

template <class F>
std::string message_of(F&& f) {
  try {
    f();
  } catch (const Error& error) {
    return error.what();
  }
  return "nothing thrown";
}

TEST(SsmScan, BadInputIsNamed) {
  const auto a = random_array<float>({2, 20, 4}, 1, 0.5);
  auto b = random_array<float>({2, 20, 4}, 2, 1);
  NdArray<float, 3> out({2, 20, 4});
  NdArray<float, 2> state({3, 4});
  const auto run = [&](const ssm::ScanOptions& options = {}) {
    ssm::scan<float>(a.view(), b.view(), {}, out.view(), {}, options);
  };
  b(1, 7, 2) = std::numeric_limits<float>::quiet_NaN();
  EXPECT_NE(message_of(run).find("b: expected finite numbers, got NaN or infinity at (1, 7, 2)"),
            std::string::npos)
      << message_of(run);
  EXPECT_THROW(ssm::scan<float>(a.view(), b.view(), state.view(), out.view()), ShapeError);
  const std::vector<std::int64_t> offsets = {0, 20};
  EXPECT_THROW(run({.offsets = offsets}), ShapeError);
  EXPECT_THROW(ssm::scan<float>(a.view(), b.view().slice(1, 0, 3), {}, out.view()), ShapeError);
  NdArray<float, 3> none({2, 0, 4});
  NdArray<float, 2> before({2, 4}), after({2, 4});
  before.fill(3);
  ssm::scan<float>(none.view(), none.view(), before.view(), none.view(), after.view());
  EXPECT_EQ(after(1, 3), 3);
}

template <class T, class Wide>
void check_long_scan() {
  const Shape<3> shape{1, 16384, 3};
  const NdArray<T, 3> b = random_array<T>(shape, 2, 1);
  NdArray<T, 3> a(shape), out(shape);
  NdArray<Wide, 3> a64(shape), b64(shape), want(shape);
  for (Index i = 0; i < a.size(); ++i) {
    a.data()[i] = T(1 - 1e-4F * static_cast<float>(i % 7));
    a64.data()[i] = Wide(a.data()[i]), b64.data()[i] = Wide(b.data()[i]);
  }
  ssm::scan<T>(a.view(), b.view(), {}, out.view());
  ssm::scan<Wide>(a64.view(), b64.view(), {}, want.view());
  expect_close(out.data(), want.data(), static_cast<std::size_t>(out.size()), 1e-5, "out");
}

TEST(SsmScan, FloatAtLength16384IsDoubles) {
  check_long_scan<float, double>();
  check_long_scan<std::complex<float>, std::complex<double>>();
}

}  // namespace
}  // namespace quern::test::ssm_scan
