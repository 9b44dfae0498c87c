// SPDX-License-Identifier: Apache-2.0

/// \file
/// Batch norm and group norm: PyTorch's values, gradients in both layouts, running statistics from
/// shards, threads.

#include "quern/nn/channel_norm.hpp"

#include "nn/gradients.hpp"
#include "nn/reference.hpp"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace quern::test::nn_channel_norm {
namespace {

constexpr nn::Layout last = nn::Layout::channels_last;

void shift_weights(nn::Layer<double>& layer) {
  for (auto& p : nn::parameters_of(layer)) {
    for (Index i = 0; i < p.values.size(); ++i) p.values[i] += 0.1 * static_cast<double>(i);
  }
}

TEST(NnChannelNorm, Gradients) {
  nn::BatchNorm<double> batch(6), batch_last(6, {.layout = last}), plain(6, {.affine = false});
  nn::GroupNorm<double> group(3, 6), group_last(2, 6, {.layout = last}), instance(6, 6);
  nn::Tensor<double> x = random_tensor<double>({3, 6, 4, 2}, 1);
  nn::Tensor<double> x_last = random_tensor<double>({3, 4, 2, 6}, 1);
  nn::Tensor<double> flat = random_tensor<double>({9, 6}, 1);
  for (nn::Layer<double>* layer :
       std::vector<nn::Layer<double>*>{&batch, &batch_last, &group, &group_last}) {
    shift_weights(*layer);
  }
  const GradientCheck loose{.tolerance = 1e-7};
  check_gradients(batch, x, loose);
  check_gradients(batch_last, x_last, loose);
  check_gradients(plain, x, loose);
  check_gradients(batch, flat, loose);
  check_gradients(group, x, loose);
  check_gradients(group_last, x_last, loose);
  check_gradients(instance, x, loose);
  check_gradients(group, flat, loose);
}

TEST(NnChannelNorm, PyTorchsValuesAndGradients) {
  nn::BatchNorm<double> batch(6);
  check_reference(batch, "batch_norm", 1e-12);
  nn::GroupNorm<double> group(3, 6);
  check_reference(group, "group_norm", 1e-12);
}

TEST(NnChannelNorm, RunningStatisticsAsPyTorch) {
  nn::BatchNorm<double> layer(6);
  const nn::Tensor<double> x = nn_reference<double>("batch_norm_x");
  nn::Cache<double> cache;
  nn::Tensor<double> y(x.shape());
  layer.forward(x.view(), y.view(), cache, nn::Mode::training);
  nn::Cache<double>* const one[] = {&cache};
  layer.update(one);
  const auto buffers = nn::buffers_of<double>(layer);
  ASSERT_EQ(buffers.size(), 3u);
  EXPECT_EQ(buffers[2].name, "num_batches_tracked");
  EXPECT_EQ(buffers[2].values[0], 1);
  const nn::Tensor<double> mean = nn_reference<double>("batch_norm_running_mean");
  const nn::Tensor<double> variance = nn_reference<double>("batch_norm_running_var");
  expect_near_all<double>(buffers[0].values.span(), mean.span(), 1e-12, "mean");
  expect_near_all<double>(buffers[1].values.span(), variance.span(), 1e-12, "variance");
  expect_near_all(nn::apply(layer, x.view()), nn_reference<double>("batch_norm_eval"), 1e-12,
                  "inference");
}

TEST(NnChannelNorm, ShardsGiveTheBatchsStatistics) {
  const nn::Tensor<double> x = random_tensor<double>({7, 3, 5}, 4);
  nn::BatchNorm<double> whole(3), cut(3);
  std::vector<nn::Cache<double>> caches(3);
  std::vector<nn::Cache<double>*> shards;
  nn::Cache<double> cache;
  nn::Tensor<double> y(x.shape());
  whole.forward(x.view(), y.view(), cache, nn::Mode::training);
  nn::Cache<double>* const one[] = {&cache};
  whole.update(one);
  const Index first[] = {0, 2, 4, 7};
  for (std::size_t s = 0; s < 3; ++s) {
    const nn::TensorView<const double> part = x.view().slice(first[s], first[s + 1] - first[s]);
    nn::Tensor<double> out(part.shape());
    cut.forward(part, out.view(), caches[s], nn::Mode::training);
    shards.push_back(&caches[s]);
  }
  cut.update(shards);
  for (Index c = 0; c < 3; ++c) {
    EXPECT_NEAR(cut.running_mean()[c], whole.running_mean()[c], 1e-14);
    EXPECT_NEAR(cut.running_variance()[c], whole.running_variance()[c], 1e-14);
  }
}

TEST(NnChannelNorm, SameBitsForAnyThreadsAndLayouts) {
  nn::BatchNorm<float> first(20), channels_last(20, {.layout = last});
  nn::GroupNorm<float> group(4, 20);
  check_threads(first, random_tensor<float>({6, 20, 30, 30}, 2));
  check_threads(channels_last, random_tensor<float>({6, 30, 30, 20}, 2));
  check_threads(group, random_tensor<float>({6, 20, 30, 30}, 2));
}

TEST(NnChannelNorm, WrongInput) {
  EXPECT_THROW(nn::BatchNorm<float>(0), ValueError);
  EXPECT_THROW(nn::BatchNorm<float>(3, {.momentum = 2}), ValueError);
  EXPECT_THROW(nn::GroupNorm<float>(4, 6), ValueError);
  nn::BatchNorm<float> layer(3);
  EXPECT_THROW(static_cast<void>(layer.output_shape({3})), ShapeError);
  EXPECT_THROW(static_cast<void>(layer.output_shape({5, 4, 3})), ShapeError);
  nn::Tensor<float> x({1, 3}), y({1, 3});
  nn::Cache<float> cache;
  EXPECT_THROW(layer.forward(x.view(), y.view(), cache, nn::Mode::training), ValueError);
  EXPECT_NO_THROW(layer.forward(x.view(), y.view(), cache, nn::Mode::inference));
}

}  // namespace
}  // namespace quern::test::nn_channel_norm
