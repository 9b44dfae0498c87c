// SPDX-License-Identifier: Apache-2.0

/// \file
/// Scratch memory: reused when it comes back, never shared by two leases at once.

#include "quern/tree/scratch.hpp"

#include "quern/core/parallel.hpp"

#include <gtest/gtest.h>

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <list>
#include <set>

namespace quern::test::scratch {
namespace {

using tree::detail::ScratchLease;
using tree::detail::ScratchPool;

TEST(Scratch, GrowsAndIsReused) {
  ScratchPool pool;
  std::byte* at = nullptr;
  {
    const ScratchLease lease(pool);
    at = lease.scratch().at_least(1000);
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(at) % 64, 0U);
    at[999] = std::byte{1};
    EXPECT_EQ(lease.scratch().at_least(500), at);
  }
  const ScratchLease again(pool);
  EXPECT_EQ(again.scratch().at_least(1000), at);
}

TEST(Scratch, MoreLeasesAtOnceThanThePoolKeeps) {
  ScratchPool pool;
  for (int round = 0; round < 2; ++round) {
    std::list<ScratchLease> leases;
    std::set<const void*> blocks;
    for (int i = 0; i < 100; ++i) blocks.insert(leases.emplace_back(pool).scratch().at_least(64));
    EXPECT_EQ(blocks.size(), 100U);
  }
}

TEST(Scratch, ManyThreads) {
  ScratchPool pool;
  std::atomic<int> wrong{0};
  parallel_for(
      500,
      [&](std::int64_t b) {
        const ScratchLease lease(pool);
        auto* values = reinterpret_cast<std::int64_t*>(lease.scratch().at_least(4096));
        for (int i = 0; i < 512; ++i) values[i] = b;
        for (int i = 0; i < 512; ++i) wrong += values[i] != b;
      },
      3);
  EXPECT_EQ(wrong, 0);
}

}  // namespace
}  // namespace quern::test::scratch
