// SPDX-License-Identifier: Apache-2.0

/// \file
/// Networks and checkpoints from anything: taken whole or refused with nothing changed.

#include "quern/io/checkpoint.hpp"
#include "quern/io/network.hpp"
#include "quern/nn/channel_norm.hpp"
#include "quern/nn/linear.hpp"
#include "quern/nn/sequential.hpp"
#include "quern/optim/methods.hpp"
#include "quern/optim/optimizer.hpp"
#include "target.hpp"

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <span>
#include <vector>

namespace quern::test::network_fuzz {

inline std::vector<float> values_of(nn::Layer<float>& net) {
  std::vector<float> all;
  for (const auto& p : io::detail::network_tensors(net)) {
    all.insert(all.end(), p.values.begin(), p.values.end());
  }
  return all;
}

QUERN_FUZZ_TARGET(network) {
  nn::Sequential<float> net;
  net.emplace<nn::Linear<float>>(2, 3);
  net.emplace<nn::BatchNorm<float>>(3);
  nn::Trainer<float> trainer(net, {.shards = 1});
  optim::Optimizer<optim::Sgd, float> sgd;
  trainer.add_groups(sgd, optim::Sgd{.lr = 0.1, .momentum = 0.9});
  const std::vector<float> before = values_of(net);
  const auto unchanged = [&] {
    const std::vector<float> after = values_of(net);
    if (std::memcmp(after.data(), before.data(), before.size() * sizeof(float)) != 0) std::abort();
  };
  try {
    const io::Safetensors file = io::Safetensors::from_bytes(std::as_bytes(std::span(data, size)));
    try {
      io::load_checkpoint(file, trainer, sgd);
      return 0;
    } catch (const ParseError&) {
      unchanged();
    }
    try {
      sgd.load_state(io::detail::optimizer_part(file, "fuzz"));
    } catch (const ParseError&) {
    }
    try {
      io::load_network(file, net);
    } catch (const ParseError&) {
      unchanged();
    }
  } catch (const ParseError&) {
  }
  return 0;
}

}  // namespace quern::test::network_fuzz
