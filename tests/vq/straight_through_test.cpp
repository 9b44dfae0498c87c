// SPDX-License-Identifier: Apache-2.0

/// \file
/// The straight-through operator with every discretisation and surrogate; the rotation trick
/// against vector-quantize-pytorch.

#include "quern/vq/straight_through.hpp"

#include "reference.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

namespace quern::test::vq_straight_through {
namespace {

using vq::Surrogate;

TEST(VqStraightThrough, Discretisations) {
  NdArray<float, 2> x({2, 3}), out({2, 3});
  const std::vector<float> values = {0.5F, -1.5F, 2.4F, 0.0F, 3.0F, 3.0F};
  std::copy(values.begin(), values.end(), x.begin());
  const auto got = [&] { return std::vector<float>(out.begin(), out.end()); };
  vq::straight_through<float>(x.view(), out.view(), vq::RoundToInteger{});
  EXPECT_EQ(got(), (std::vector<float>{0, -2, 2, 0, 3, 3}));
  vq::straight_through<float>(x.view(), out.view(), vq::SignOf{});
  EXPECT_EQ(got(), (std::vector<float>{1, -1, 1, -1, 1, 1}));
  vq::straight_through<float>(x.view(), out.view(), vq::OneHotArgMax{});
  EXPECT_EQ(got(), (std::vector<float>{0, 0, 1, 0, 1, 0}));
  NdArray<float, 2> book({2, 3});
  for (Index j = 0; j < 3; ++j) book(1, j) = 2;
  const vq::CodeSearch<float> search(book.view());
  vq::straight_through<float>(x.view(), out.view(), vq::NearestCodeOf<float>{search});
  EXPECT_EQ(got(), (std::vector<float>{0, 0, 0, 2, 2, 2}));
  vq::straight_through<float>(x.view(), out.view(), [](const auto& in, const auto& to) {
    for (Index i = 0; i < in.rows(); ++i) {
      for (Index j = 0; j < in.cols(); ++j) to(i, j) = std::floor(in(i, j));
    }
  });
  EXPECT_EQ(got(), (std::vector<float>{0, -2, 2, 0, 3, 3}));
  EXPECT_THROW(vq::straight_through<float>(x.view(), x.view(), vq::SignOf{}), ShapeError);
}

TEST(VqStraightThrough, SurrogatesAreWhatTheySay) {
  const auto x = normal_matrix<double>(5, 4, 1), dout = normal_matrix<double>(5, 4, 2);
  NdArray<double, 2> dx({5, 4});
  vq::straight_through_vjp<double>(x.view(), dout.view(), dx.view());
  EXPECT_TRUE(std::equal(dx.begin(), dx.end(), dout.begin()));
  vq::straight_through_vjp<double>(x.view(), dout.view(), dx.view(),
                                   {.surrogate = Surrogate::clipped, .limit = 0.7});
  for (Index i = 0; i < x.size(); ++i) {
    EXPECT_EQ(dx.data()[i], std::fabs(x.data()[i]) <= 0.7 ? dout.data()[i] : 0);
  }
  const double temperature = 0.6;
  vq::straight_through_vjp<double>(x.view(), dout.view(), dx.view(),
                                   {.surrogate = Surrogate::softmax, .temperature = temperature});
  const auto loss = [&](const NdArray<double, 2>& at) {  // <dout, softmax(x / temperature)>
    double sum = 0;
    for (Index i = 0; i < 5; ++i) {
      double all = 0, part = 0;
      for (Index j = 0; j < 4; ++j) {
        all += std::exp(at(i, j) / temperature);
        part += dout(i, j) * std::exp(at(i, j) / temperature);
      }
      sum += part / all;
    }
    return sum;
  };
  for (Index i = 0; i < x.size(); ++i) {
    auto above = x, below = x;
    above.data()[i] += 1e-5;
    below.data()[i] -= 1e-5;
    EXPECT_NEAR(dx.data()[i], (loss(above) - loss(below)) / 2e-5, 1e-8);
  }
  EXPECT_THROW(
      vq::straight_through_vjp<double>(x.view(), dout.view(), dx.view(), {.temperature = 0}),
      ValueError);
}

template <class T>
void expect_rotation() {
  const auto x = vq_matrix<T>("x"), book = vq_matrix<T>("codebook"), w = vq_matrix<T>("rotation_w");
  NdArray<T, 2> q({200, 16}), out({200, 16}), dx({200, 16});
  vq::lookup_codes<T>(book.view(), vq_codes("idx"), q.view());
  for (const int threads : {1, 3}) {
    vq::rotation_trick<T>(x.view(), q.view(), out.view(), threads);
    vq::rotation_trick_vjp<T>(x.view(), q.view(), w.view(), dx.view(), threads);
    expect_close(out, vq_matrix<T>("rotation_out"));
    expect_close(out, q);
    expect_close(dx, vq_matrix<T>("rotation_grad_x"));
  }
}

TEST(VqStraightThrough, RotationOfTheReference) {
  expect_rotation<float>();
  expect_rotation<double>();
}

TEST(VqStraightThrough, RotationOfZeroRowsAndOppositeOnes) {
  NdArray<float, 2> x({3, 2}), q({3, 2}), out({3, 2}), dx({3, 2});
  q(0, 0) = 2;  // x zero
  x(1, 0) = 1;  // q zero
  x(2, 0) = 1;  // opposite directions
  q(2, 0) = -3;
  vq::rotation_trick<float>(x.view(), q.view(), out.view());
  for (Index i = 0; i < 6; ++i) EXPECT_EQ(out.data()[i], q.data()[i]) << i;
  const auto dout = normal_matrix<float>(3, 2, 3);
  vq::rotation_trick_vjp<float>(x.view(), q.view(), dout.view(), dx.view());
  for (Index i = 0; i < 4; ++i) EXPECT_EQ(dx.data()[i], dout.data()[i]);
  EXPECT_NEAR(std::hypot(dx(2, 0), dx(2, 1)), 3 * std::hypot(dout(2, 0), dout(2, 1)), 1e-5);
}

}  // namespace
}  // namespace quern::test::vq_straight_through
