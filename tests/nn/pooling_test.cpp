// SPDX-License-Identifier: Apache-2.0

/// \file
/// Pooling: PyTorch's values and gradients, both layouts, places, ties and NaN.

#include "quern/nn/pooling.hpp"

#include "nn/gradients.hpp"
#include "nn/reference.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

namespace quern::test::nn_pooling {
namespace {

TEST(NnPooling, PyTorchsValuesAndGradients) {
  nn::MaxPool2d<double> max({.kernel = 3, .stride = 2, .padding = 1});
  check_reference(max, "max_pool", 1e-15);
  nn::MaxPool2d<double> ceil({.kernel = {2, 3}, .stride = 2, .dilation = {2, 1}, .ceil = true});
  check_reference(ceil, "max_pool_ceil", 1e-15);
  nn::AvgPool2d<double> mean({.kernel = 3, .stride = 2, .padding = 1});
  check_reference(mean, "avg_pool", 1e-15);
  nn::AvgPool2d<double> inside(
      {.kernel = 3, .stride = 2, .padding = 1, .ceil = true, .count_padding = false});
  check_reference(inside, "avg_pool_ceil", 1e-15);
}

TEST(NnPooling, GradientsInBothLayouts) {
  for (const nn::Layout layout : {nn::Layout::channels_first, nn::Layout::channels_last}) {
    nn::Tensor<double> x = random_tensor<double>({2, 6, 5, 4}, 3);
    nn::MaxPool2d<double> max({.kernel = 3, .stride = 2, .padding = 1, .layout = layout});
    nn::AvgPool2d<double> mean({.kernel = 2, .ceil = true, .layout = layout});
    nn::GlobalAvgPool<double> global(layout);
    check_gradients(max, x);
    check_gradients(mean, x);
    check_gradients(global, x);
  }
}

TEST(NnPooling, PlacesTiesAndNan) {
  nn::MaxPool2d<float> layer;
  nn::Tensor<float> x({1, 1, 2, 6}), y({1, 1, 1, 3});
  const float nan = std::numeric_limits<float>::quiet_NaN();
  const float values[] = {1, 5, 2, 2, nan, 7, 5, 0, 2, 2, 1, 1};
  std::copy(std::begin(values), std::end(values), x.span().begin());
  nn::Cache<float> cache;
  layer.forward(x.view(), y.view(), cache, nn::Mode::training);
  const auto places = nn::MaxPool2d<float>::indices(cache);
  EXPECT_EQ(y[0], 5);
  EXPECT_EQ(places[0], 1);
  EXPECT_EQ(places[1], 2);
  EXPECT_TRUE(std::isnan(y[2]));
  EXPECT_EQ(places[2], 4);
}

TEST(NnPooling, AWindowOfPaddingAloneIsMinusInfinity) {
  for (const nn::Layout layout : {nn::Layout::channels_first, nn::Layout::channels_last}) {
    const nn::MaxPool2d<float> layer(
        {.kernel = 2, .stride = 1, .padding = 1, .dilation = 3, .layout = layout});
    nn::Tensor<float> x({1, 2, 2, 1}), dx({1, 2, 2, 1});
    if (layout == nn::Layout::channels_first) x.resize({1, 1, 2, 2}), dx.resize({1, 1, 2, 2});
    const float values[] = {-5, -6, -7, -8};
    std::copy(std::begin(values), std::end(values), x.span().begin());
    nn::Cache<float> cache;
    nn::Tensor<float> y(layer.output_shape(x.shape()));
    layer.forward(x.view(), y.view(), cache, nn::Mode::training);
    ASSERT_EQ(y.size(), 1);
    EXPECT_EQ(y[0], -std::numeric_limits<float>::infinity());
    EXPECT_EQ(nn::MaxPool2d<float>::indices(cache)[0], -1);
    std::fill(y.span().begin(), y.span().end(), 1.0F);
    layer.backward(y.view(), dx.view(), cache, {});
    EXPECT_EQ(std::count(dx.span().begin(), dx.span().end(), 0.0F), 4);
  }
}

TEST(NnPooling, SameBitsForAnyThreads) {
  nn::MaxPool2d<float> layer({.kernel = 3, .stride = 1, .padding = 1});
  check_threads(layer, random_tensor<float>({3, 8, 50, 50}, 3));
}

TEST(NnPooling, WrongInput) {
  EXPECT_THROW(nn::MaxPool2d<float>({.kernel = 0}), ValueError);
  EXPECT_THROW(nn::MaxPool2d<float>({.kernel = 2, .padding = 2}), ValueError);
  EXPECT_THROW(nn::AvgPool2d<float>({.dilation = 2}), ValueError);
  nn::MaxPool2d<float> layer({.kernel = 3});
  EXPECT_THROW(static_cast<void>(layer.output_shape({1, 2, 2, 5})), ShapeError);
  EXPECT_THROW(static_cast<void>(layer.output_shape({2, 5, 5})), ShapeError);
}

}  // namespace
}  // namespace quern::test::nn_pooling
