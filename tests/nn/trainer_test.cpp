// SPDX-License-Identifier: Apache-2.0

/// \file
/// The training loop: it learns, has the same bits for any number of threads and after an
/// interruption, stops early, is cancelled, survives NaN; shards, groups, averages, loading order.

#include "quern/nn/trainer.hpp"

#include "nn/gradients.hpp"
#include "quern/nn/activation.hpp"
#include "quern/nn/channel_norm.hpp"
#include "quern/nn/dropout.hpp"
#include "quern/nn/linear.hpp"
#include "quern/nn/loss.hpp"
#include "quern/nn/sequential.hpp"
#include "quern/optim/optimizer.hpp"

#include <gtest/gtest.h>

#include <cmath>
#include <cstdint>
#include <limits>
#include <set>
#include <vector>

namespace quern::test::nn_trainer {
namespace {

using Adam = optim::Optimizer<optim::AdamW, float>;

/// Two rings of points.
struct Data {
  nn::Tensor<float> x = nn::Tensor<float>({200, 2});
  std::vector<std::int64_t> labels;

  Data() {
    Philox random(4, "rings");
    for (Index i = 0; i < 200; ++i) {
      const double angle = random.uniform(0.0, 6.283185307), radius = i % 2 == 0 ? 1 : 2;
      x[2 * i] = static_cast<float>(radius * std::cos(angle) + 0.1 * random.normal());
      x[2 * i + 1] = static_cast<float>(radius * std::sin(angle) + 0.1 * random.normal());
      labels.push_back(i % 2);
    }
  }
  [[nodiscard]] nn::Trainer<float>::Loss loss() const {
    return [this](const nn::Shard& shard, nn::TensorView<const float> out,
                  nn::TensorView<float> dout) {
      std::vector<std::int64_t> mine;
      for (const Index i : shard.samples) mine.push_back(labels[static_cast<std::size_t>(i)]);
      return nn::cross_entropy_loss<float>(
          out, mine, dout, {.loss = {.divisor = static_cast<double>(shard.batch_size)}});
    };
  }
};

nn::Sequential<float> network() {
  nn::Sequential<float> net;
  net.emplace<nn::Linear<float>>(2, 24);
  net.emplace<nn::BatchNorm<float>>(24);
  net.emplace<nn::SiLU<float>>();
  net.emplace<nn::Dropout<float>>(0.1);
  net.emplace<nn::Linear<float>>(24, 2);
  net.initialize(1);
  return net;
}

std::vector<float> weights_of(nn::Layer<float>& net) {
  std::vector<float> all;
  auto list = nn::parameters_of(net);
  net.buffers(list, "");
  for (const auto& p : list) all.insert(all.end(), p.values.begin(), p.values.end());
  return all;
}

nn::TrainerOptions small_options() {
  nn::TrainerOptions o;
  o.epochs = 30;
  o.batch = 64;
  o.seed = 5;
  return o;
}

double accuracy(const nn::Layer<float>& net, const Data& data) {
  const nn::Tensor<float> out = nn::apply(net, data.x.view());
  int right = 0;
  for (Index i = 0; i < 200; ++i) {
    right += (out[2 * i + 1] > out[2 * i]) == (data.labels[static_cast<std::size_t>(i)] == 1);
  }
  return right / 200.0;
}

TEST(NnTrainer, LearnsWithTheSameBitsForAnyThreads) {
  const Data data;
  std::vector<std::vector<float>> results;
  for (const int threads : {1, 2, 3}) {
    nn::Sequential<float> net = network();
    nn::TrainerOptions options = small_options();
    options.threads = threads;
    nn::Trainer<float> trainer(net, options);
    Adam adam({.threads = threads});
    trainer.add_groups(adam, optim::AdamW{.lr = 2e-2});
    const nn::TrainReport report = trainer.fit(adam, data.x.view(), data.loss());
    EXPECT_EQ(report.status, nn::TrainStatus::finished);
    EXPECT_EQ(report.steps, 30 * 4);
    EXPECT_LT(report.loss, 0.55) << "0.69 is chance";
    EXPECT_GT(accuracy(net, data), 0.95);
    results.push_back(weights_of(net));
  }
  EXPECT_TRUE(results[0] == results[1]);
  EXPECT_TRUE(results[0] == results[2]);
}

TEST(NnTrainer, ShardsAreTheBatchCut) {
  const Data data;
  nn::Sequential<double> net;
  net.emplace<nn::Linear<double>>(2, 3);
  nn::Tensor<double> x = random_tensor<double>({13, 2}, 1);
  std::vector<Index> rows = {5, 1, 12, 0, 3, 7, 9};
  std::vector<std::vector<double>> results;
  for (const int shards : {1, 3, 20}) {
    nn::DataParallel<double> parallel(net, shards);
    std::set<Index> seen;
    const double loss = parallel.run(rows, 0, 0, 1, [&](const nn::Shard& s, auto& cache, auto g) {
      nn::Tensor<double> in;
      nn::gather_samples<double>(x.view(), s.samples, in);
      EXPECT_EQ(s.batch_size, 7);
      for (const Index i : s.samples) EXPECT_TRUE(seen.insert(i).second);
      nn::Tensor<double> out({s.size(), 3}), dout({s.size(), 3}), zero({s.size(), 3});
      net.forward(in.view(), out.view(), cache, nn::Mode::training);
      const double part = nn::mse_loss<double>(out, zero, dout.view(), {.divisor = 21});
      net.backward(dout.view(), {}, cache, g);
      return part;
    });
    EXPECT_EQ(seen.size(), 7u);
    std::vector<double> all = {loss};
    const auto memory = parallel.gradients().memory();
    all.insert(all.end(), memory.begin(), memory.end());
    results.push_back(all);
  }
  for (std::size_t i = 0; i < results[0].size(); ++i) {
    EXPECT_NEAR(results[1][i], results[0][i], 1e-14);
    EXPECT_NEAR(results[2][i], results[0][i], 1e-14);
  }
}

TEST(NnTrainer, GroupsFollowDecayAndRate) {
  nn::Sequential<float> net = network();
  nn::Trainer<float> trainer(net);
  Adam adam;
  trainer.add_groups(adam, optim::AdamW{.lr = 0.5});
  ASSERT_EQ(adam.groups(), 2u);
  EXPECT_EQ(adam.parameters(0).size(), 2u) << "weights decay";
  EXPECT_EQ(adam.parameters(1).size(), 4u) << "biases and norms do not";
  EXPECT_EQ(adam.parameters(0)[1].name, "4.weight");
}

TEST(NnTrainer, CancelledAndContinuedHasTheSameBits) {
  const Data data;
  nn::Sequential<float> whole = network(), cut = network();
  nn::TrainerOptions options = small_options();
  options.epochs = 5;
  options.average = 0.9;
  nn::Trainer<float> trainer(whole, options);
  Adam adam;
  trainer.add_groups(adam, optim::AdamW{});
  trainer.fit(adam, data.x.view(), data.loss());
  options.progress = [](const Progress& p) { return p.done != 7; };
  nn::Trainer<float> first(cut, options);
  Adam adam_first;
  first.add_groups(adam_first, optim::AdamW{});
  EXPECT_EQ(first.fit(adam_first, data.x.view(), data.loss()).status, nn::TrainStatus::cancelled);
  EXPECT_EQ(first.state().epoch, 1);
  EXPECT_EQ(first.state().batch, 3);
  EXPECT_EQ(first.fit(adam_first, data.x.view(), data.loss()).status, nn::TrainStatus::finished);
  EXPECT_TRUE(weights_of(whole) == weights_of(cut));
  EXPECT_TRUE(std::ranges::equal(trainer.average()->average(0), first.average()->average(0)));
}

TEST(NnTrainer, CancelledAtTheEndOfAnEpochDoesNotRepeatIt) {
  const Data data;
  nn::Sequential<float> whole = network();
  nn::TrainerOptions options = small_options();
  options.epochs = 3;
  nn::Trainer<float> trainer(whole, options);
  Adam adam;
  trainer.add_groups(adam, optim::AdamW{});
  const std::int64_t steps = trainer.fit(adam, data.x.view(), data.loss()).steps;
  for (std::int64_t stop = 1; stop <= steps; ++stop) {
    nn::Sequential<float> cut = network();
    options.progress = [stop](const Progress& p) { return p.done != stop; };
    nn::Trainer<float> part(cut, options);
    Adam adam_part;
    part.add_groups(adam_part, optim::AdamW{});
    EXPECT_EQ(part.fit(adam_part, data.x.view(), data.loss()).status, nn::TrainStatus::cancelled);
    const nn::TrainReport report = part.fit(adam_part, data.x.view(), data.loss());
    EXPECT_EQ(report.status, nn::TrainStatus::finished) << stop;
    EXPECT_EQ(report.steps, steps) << stop;
    EXPECT_TRUE(weights_of(whole) == weights_of(cut)) << stop;
  }
}

TEST(NnTrainer, StopsEarlyAndKeepsTheBest) {
  const Data data;
  nn::Sequential<float> net = network();
  nn::TrainerOptions options = small_options();
  options.patience = 2;
  options.keep_best = true;
  nn::Trainer<float> trainer(net, options);
  Adam adam;
  trainer.add_groups(adam, optim::AdamW{});
  const double values[] = {3, 2, 1, 1.5, 1.2, 0};
  std::size_t at = 0;
  std::vector<float> best;
  trainer.validate = [&] {
    if (at == 2) best = weights_of(net);
    return values[at++];
  };
  const nn::TrainReport report = trainer.fit(adam, data.x.view(), data.loss());
  EXPECT_EQ(report.status, nn::TrainStatus::early);
  EXPECT_EQ(at, 5u);
  EXPECT_EQ(report.best, 1);
  EXPECT_TRUE(weights_of(net) == best);
}

TEST(NnTrainer, NanStopsAndKeepsTheLastGoodWeights) {
  const Data data;
  nn::Sequential<float> net = network();
  nn::Trainer<float> trainer(net, small_options());
  Adam adam;
  trainer.add_groups(adam, optim::AdamW{});
  std::vector<float> good;
  int epochs = 0;
  trainer.on_epoch = [&] {
    good = weights_of(net);
    ++epochs;
  };
  const auto loss = data.loss();
  const nn::TrainReport report =
      trainer.fit(adam, data.x.view(), [&](const nn::Shard& s, auto out, auto dout) {
        const double value = loss(s, out, dout);
        if (s.step == 10) dout[0] = std::numeric_limits<float>::quiet_NaN();
        return value;
      });
  EXPECT_EQ(report.status, nn::TrainStatus::not_finite);
  EXPECT_EQ(epochs, 2);
  EXPECT_TRUE(weights_of(net) == good);
  EXPECT_EQ(trainer.state().epoch, 2);
  EXPECT_EQ(trainer.state().batch, 0);
}

// The optimiser's moments and the average go back too: from there training ends with the bits of a
// run that never met the NaN, also where it met it in the first epoch.
TEST(NnTrainer, AfterANanTrainingGoesOnAsIfItHadNotBeen) {
  const Data data;
  const auto loss = data.loss();
  for (const std::uint64_t bad : {2U, 10U}) {
    nn::Sequential<float> whole = network(), broken = network();
    nn::TrainerOptions options = small_options();
    options.average = 0.9;
    nn::Trainer<float> trainer(whole, options), other(broken, options);
    Adam adam, adam_other;
    trainer.add_groups(adam, optim::AdamW{});
    other.add_groups(adam_other, optim::AdamW{});
    trainer.fit(adam, data.x.view(), loss);
    const auto stopped =
        other.fit(adam_other, data.x.view(), [&](const nn::Shard& s, auto out, auto dout) {
          const double value = loss(s, out, dout);
          return s.step == bad ? std::numeric_limits<double>::infinity() : value;
        });
    EXPECT_EQ(stopped.status, nn::TrainStatus::not_finite);
    EXPECT_EQ(other.fit(adam_other, data.x.view(), loss).status, nn::TrainStatus::finished);
    EXPECT_TRUE(weights_of(whole) == weights_of(broken)) << bad;
    EXPECT_TRUE(std::ranges::equal(trainer.average()->average(0), other.average()->average(0)));
  }
}

TEST(NnTrainer, ScheduleAndOptions) {
  const Data data;
  nn::Sequential<float> net = network();
  nn::TrainerOptions options = small_options();
  options.epochs = 1;
  options.schedule = [](std::int64_t) { return 0.0; };
  nn::Trainer<float> trainer(net, options);
  Adam adam;
  trainer.add_groups(adam, optim::AdamW{});
  const float before = nn::parameters_of<float>(net)[0].values[0];
  trainer.fit(adam, data.x.view(), data.loss());
  EXPECT_EQ(nn::parameters_of<float>(net)[0].values[0], before) << "a rate of zero";
  EXPECT_THROW(nn::Trainer<float>(net, {.batch = 0}), ValueError);
  EXPECT_THROW(nn::Trainer<float>(net, {.shards = 0}), ValueError);
  EXPECT_THROW(nn::Trainer<float>(net, {.average = 1}), ValueError);
}

}  // namespace
}  // namespace quern::test::nn_trainer
