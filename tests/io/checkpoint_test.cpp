// SPDX-License-Identifier: Apache-2.0

/// \file
/// Networks and checkpoints as files: PyTorch's file is read, values come back, training goes on to
/// the same bits, other models' and damaged files are refused with nothing changed.

#include "quern/io/checkpoint.hpp"

#include "quern/core/file.hpp"
#include "quern/io/network.hpp"
#include "quern/nn/activation.hpp"
#include "quern/nn/channel_norm.hpp"
#include "quern/nn/conv.hpp"
#include "quern/nn/linear.hpp"
#include "quern/nn/loss.hpp"
#include "quern/nn/sequential.hpp"
#include "quern/optim/optimizer.hpp"
#include "quern/vq/training.hpp"

#include <gtest/gtest.h>

#include <algorithm>
#include <cstddef>
#include <string>
#include <vector>

namespace quern::test::nn_checkpoint {
namespace {

using Adam = optim::Optimizer<optim::AdamW, float>;

std::string scratch_file(const char* name) { return ::testing::TempDir() + "quern_" + name; }

nn::Sequential<float> network(Index width = 8) {
  nn::Sequential<float> net;
  net.emplace<nn::Linear<float>>(3, width);
  net.emplace<nn::BatchNorm<float>>(width);
  net.emplace<nn::ReLU<float>>();
  net.emplace<nn::Linear<float>>(width, 2);
  net.initialize(2);
  return net;
}

std::vector<float> weights_of(nn::Layer<float>& net) {
  std::vector<float> all;
  for (const auto& p : io::detail::network_tensors(net)) {
    all.insert(all.end(), p.values.begin(), p.values.end());
  }
  return all;
}

nn::Tensor<float> samples() {
  nn::Tensor<float> x({40, 3});
  Philox random(3, "samples");
  for (float& value : x.span()) value = random.normal<float>();
  return x;
}

double squares(const nn::Shard& shard, nn::TensorView<const float> out,
               nn::TensorView<float> dout) {
  nn::Tensor<float> target(out.extents());
  return nn::mse_loss<float>(out, target, dout,
                             {.divisor = static_cast<double>(2 * shard.batch_size)});
}

TEST(IoNetwork, ComesBackAndIntoDouble) {
  const std::string path = scratch_file("network.safetensors");
  nn::Sequential<float> net = network(), other = network();
  for (auto& p : io::detail::network_tensors<float>(net)) p.values[0] += 1;
  io::save_network(path, net);
  io::load_network(path, other);
  EXPECT_TRUE(weights_of(net) == weights_of(other));
  nn::Sequential<double> wide;
  wide.emplace<nn::Linear<double>>(3, 8);
  wide.emplace<nn::BatchNorm<double>>(8);
  wide.emplace<nn::ReLU<double>>();
  wide.emplace<nn::Linear<double>>(8, 2);
  io::load_network(path, wide);
  const auto narrow = weights_of(net);
  std::size_t at = 0;
  for (const auto& p : io::detail::network_tensors<double>(wide)) {
    for (const double value : p.values) EXPECT_EQ(value, static_cast<double>(narrow[at++]));
  }
}

/// tests/reference/nn/make_nn.py wrote it with torch and safetensors, and stores its output.
TEST(IoNetwork, PyTorchsFileAndOutput) {
  const std::string folder = std::string(QUERN_TEST_REFERENCE_DIR) + "/nn/";
  nn::Sequential<float> net;
  net.emplace<nn::Conv2d<float>>(1, 4, nn::Conv2dOptions{.kernel = 3, .padding = 1});
  net.emplace<nn::BatchNorm<float>>(4);
  net.emplace<nn::ReLU<float>>();
  net.emplace<nn::ConvTranspose2d<float>>(4, 2, nn::Conv2dOptions{.kernel = 2, .stride = 2});
  io::load_network(folder + "torch_network.safetensors", net);
  const io::Safetensors data = io::Safetensors::read(folder + "torch_network_data.safetensors");
  const std::vector<float> x = data.values<float>("x"), y = data.values<float>("y");
  const nn::TensorView<const float> in(x.data(), {2, 1, 5, 6});
  const nn::Tensor<float> out = nn::apply(net, in);
  ASSERT_EQ(static_cast<std::size_t>(out.size()), y.size());
  for (std::size_t i = 0; i < y.size(); ++i) {
    EXPECT_NEAR(out[static_cast<Index>(i)], y[i], 1e-6);
  }
  EXPECT_EQ(nn::buffers_of<float>(net)[2].values[0], 3) << "batches that torch counted";
}

// Codebook, its averages and the step count are buffers; the prior's class rows are parameters.
TEST(IoNetwork, AVqVaeAndItsPriorComeBack) {
  const std::string path = scratch_file("vqvae.safetensors");
  nn::Tensor<float> images({16, 8, 8, 1});
  Philox random(5, "images");
  for (float& value : images.span()) value = random.uniform<float>();
  vq::VqVaeOptions options;
  options.widths = {4, 6};
  options.codebook.codes = 8;
  options.codebook.dim = 4;
  vq::VqVae<float> model(options), other(options);
  vq::fit_vq_vae<float>(model, images.view(), {.epochs = 2, .batch = 8});
  other.initialize(7);
  io::save_network(path, model);
  io::load_network(path, other);
  const auto codes = model.encode(images.view());
  EXPECT_EQ(codes, other.encode(images.view()));
  EXPECT_TRUE(std::ranges::equal(model.reconstruct(images.view()).span(),
                                 other.reconstruct(images.view()).span()));
  // Training goes on alike: averages and steps came back too.
  vq::fit_vq_vae<float>(model, images.view(), {.epochs = 1, .batch = 8});
  vq::fit_vq_vae<float>(other, images.view(), {.epochs = 1, .batch = 8});
  EXPECT_TRUE(weights_of(model) == weights_of(other));

  vq::PixelCnn<float> prior({.codes = 8,
                             .height = 2,
                             .width = 2,
                             .classes = 2,
                             .channels = 4,
                             .layers = 1,
                             .first_kernel = 3}),
      again(prior.options());
  prior.initialize(3);
  io::save_network(path, prior);
  io::load_network(path, again);
  const auto in = vq::pixelcnn_inputs<float>("test", prior, codes,
                                             std::vector<std::int64_t>(codes.size() / 4, 1));
  EXPECT_TRUE(std::ranges::equal(nn::apply<float>(prior, in.view()).span(),
                                 nn::apply<float>(again, in.view()).span()));
  options.codebook.codes = 9;
  vq::VqVae<float> wider(options);
  EXPECT_THROW(io::load_network(path, wider), ParseError) << "another model's file";
}

TEST(IoCheckpoint, GoesOnToTheSameBits) {
  const std::string path = scratch_file("checkpoint.safetensors");
  const nn::Tensor<float> x = samples();
  nn::TrainerOptions options;
  options.epochs = 6;
  options.batch = 16;
  options.average = 0.9;
  nn::Sequential<float> whole = network(), cut = network();
  {
    nn::Trainer<float> trainer(whole, options);
    Adam adam;
    trainer.add_groups(adam, optim::AdamW{});
    trainer.fit(adam, x.view(), squares);
  }
  {
    options.progress = [](const Progress& p) { return p.done < 8; };
    nn::Trainer<float> trainer(cut, options);
    Adam adam;
    trainer.add_groups(adam, optim::AdamW{});
    EXPECT_EQ(trainer.fit(adam, x.view(), squares).status, nn::TrainStatus::cancelled);
    io::save_checkpoint(path, trainer, adam);
  }
  nn::Sequential<float> later = network();
  later.initialize(99);
  options.progress = {};
  nn::Trainer<float> trainer(later, options);
  Adam adam;
  trainer.add_groups(adam, optim::AdamW{});
  io::load_checkpoint(path, trainer, adam);
  EXPECT_EQ(trainer.state().step, 8);
  trainer.fit(adam, x.view(), squares);
  EXPECT_TRUE(weights_of(whole) == weights_of(later));
}

TEST(IoCheckpoint, OthersAreRefusedAndNothingChanges) {
  const std::string path = scratch_file("other.safetensors");
  nn::Sequential<float> net = network(), wider = network(9);
  nn::Trainer<float> trainer(net), other(wider), average(net, {.average = 0.5});
  Adam adam, adam_other, adam_average;
  trainer.add_groups(adam, optim::AdamW{});
  other.add_groups(adam_other, optim::AdamW{});
  average.add_groups(adam_average, optim::AdamW{});
  io::save_checkpoint(path, trainer, adam);
  const std::vector<float> before = weights_of(wider);
  try {
    io::load_checkpoint(path, other, adam_other);
    FAIL();
  } catch (const ParseError& e) {
    EXPECT_STREQ(e.what(),
                 "quern::io::load_checkpoint: tensor 'model.0.weight': expected 9 x 3, as the "
                 "network has it, got 8 x 3: a checkpoint of another model");
  }
  EXPECT_TRUE(weights_of(wider) == before);
  EXPECT_THROW(io::load_checkpoint(path, average, adam_average), ParseError) << "no average in it";
  optim::Optimizer<optim::Sgd, float> sgd;
  trainer.add_groups(sgd, optim::Sgd{});
  EXPECT_THROW(io::load_checkpoint(path, trainer, sgd), ParseError);
  EXPECT_THROW(io::load_network(path, net), ParseError) << "a checkpoint is no network";
}

TEST(IoCheckpoint, DamagedFiles) {
  const std::string path = scratch_file("damaged.safetensors");
  nn::Sequential<float> net = network();
  nn::Trainer<float> trainer(net);
  Adam adam;
  trainer.add_groups(adam, optim::AdamW{});
  io::save_checkpoint(path, trainer, adam);
  const std::vector<std::byte> bytes = read_file(path, 1 << 20);
  const std::vector<float> before = weights_of(net);
  for (std::size_t size = 0; size < bytes.size(); size += 97) {
    write_file_atomically(path, std::span(bytes).first(size));
    EXPECT_THROW(io::load_checkpoint(path, trainer, adam), ParseError) << size;
  }
  for (std::size_t at = 0; at < bytes.size(); at += 7) {
    if (bytes[at] == std::byte{' '}) continue;  // between the header and the numbers
    std::vector<std::byte> damaged = bytes;
    damaged[at] ^= std::byte{0x11};
    EXPECT_THROW(io::load_checkpoint(io::Safetensors::from_bytes(damaged), trainer, adam),
                 ParseError)
        << at;
    EXPECT_TRUE(weights_of(net) == before) << at;
  }
}

}  // namespace
}  // namespace quern::test::nn_checkpoint
