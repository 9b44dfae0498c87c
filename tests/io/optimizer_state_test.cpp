// SPDX-License-Identifier: Apache-2.0

#include "quern/io/optimizer_state.hpp"

#include "quern/core/error.hpp"

#include <gtest/gtest.h>

#include <cstddef>
#include <cstdio>
#include <string>
#include <vector>

namespace quern::test::io_optimizer_state {
namespace {

TEST(OptimizerState, IsTheSameAfterTheDisk) {
  optim::OptimizerState state;
  state.words["quern.method"] = "adamw";
  state.words["quern.group.0.lr"] = "0.1";
  state.tensors.push_back({"w.exp_avg",
                           optim::StateType::bfloat16,
                           {2, 1},
                           {std::byte{1}, std::byte{2}, std::byte{3}, std::byte{4}}});
  state.tensors.push_back(
      {"w.exp_avg_sq", optim::StateType::float64, {1}, std::vector<std::byte>(8, std::byte{9})});
  const std::string path = testing::TempDir() + "quern_optimizer_state.safetensors";
  io::save_optimizer_state(path, state);
  const optim::OptimizerState back = io::load_optimizer_state(path);
  EXPECT_EQ(back.words, state.words);
  ASSERT_EQ(back.tensors.size(), 2U);
  for (const auto& t : back.tensors) {
    const auto& other = state.tensors[t.name == "w.exp_avg" ? 0 : 1];
    EXPECT_EQ(t.name, other.name);
    EXPECT_EQ(t.type, other.type);
    EXPECT_EQ(t.shape, other.shape);
    EXPECT_EQ(t.bytes, other.bytes);
  }
  io::SafetensorsWriter writer;
  const std::vector<std::uint8_t> u = {1};
  writer.add("u", view(u));
  writer.write(path);
  EXPECT_THROW((void)io::load_optimizer_state(path), ParseError);
  std::remove(path.c_str());
}

}  // namespace
}  // namespace quern::test::io_optimizer_state
