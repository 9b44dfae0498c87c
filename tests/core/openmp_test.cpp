// SPDX-License-Identifier: Apache-2.0

/// \file
/// The OpenMP executor where the compiler has OpenMP, and an empty header where not.

#include "quern/core/openmp.hpp"

#include <gtest/gtest.h>

#include <atomic>
#include <cstdint>

namespace quern::test::openmp {
namespace {

TEST(OpenMp, RunsEveryBlockOnce) {
  std::atomic<int> count{0};
  ParallelOptions options{.threads = 2};
#if defined(_OPENMP)
  OpenMpExecutor executor;
  options.executor = &executor;
  EXPECT_GE(executor.concurrency(), 1);
  EXPECT_THROW(parallel_for(
                   20, [](std::int64_t) { throw ValueError("x"); }, options),
               ValueError);
#endif
  parallel_for(
      20, [&](std::int64_t) { ++count; }, options);
  EXPECT_EQ(count.load(), 20);
}

}  // namespace
}  // namespace quern::test::openmp
