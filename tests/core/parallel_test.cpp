// SPDX-License-Identifier: Apache-2.0

/// \file
/// parallel_for and parallel_reduce: every block once, errors, cancelling, nesting, executors.

#include "quern/core/parallel.hpp"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <limits>
#include <memory>
#include <numeric>
#include <string>
#include <thread>
#include <vector>

#if defined(__unix__)
#include <sys/wait.h>
#include <unistd.h>
#endif

#if defined(__SANITIZE_THREAD__)
#define QUERN_TEST_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define QUERN_TEST_TSAN 1
#endif
#endif

namespace quern::test::parallel {
namespace {

constexpr auto dynamic_blocks = Schedule::dynamic_blocks;
constexpr auto static_blocks = Schedule::static_blocks;

/// An executor that keeps count and runs everything in the caller, last task first.
class SerialExecutor final : public Executor {
 public:
  explicit SerialExecutor(int concurrency) : concurrency_(concurrency) {}
  [[nodiscard]] int concurrency() const override { return concurrency_; }
  void run(std::int64_t blocks, void (*fn)(void*, std::int64_t), void* context) override {
    ++runs;
    for (std::int64_t i = blocks; i-- > 0;) fn(context, i);
  }
  int runs = 0;

 private:
  int concurrency_;
};

void set_when_at_least(std::atomic<int>& highest, int value) {
  int seen = highest.load();
  while (seen < value && !highest.compare_exchange_weak(seen, value)) {
  }
}

class ParallelFor : public ::testing::TestWithParam<int> {};
INSTANTIATE_TEST_SUITE_P(Threads, ParallelFor, ::testing::Values(1, 2, 3, 7));

TEST_P(ParallelFor, RunsEveryBlockOnce) {
  for (Schedule schedule : {dynamic_blocks, static_blocks}) {
    for (std::int64_t blocks : {0, 1, 2, 3, 5, 64, 1000}) {
      std::vector<std::atomic<int>> seen(static_cast<std::size_t>(blocks));
      parallel_for(blocks, [&](std::int64_t b) { ++seen[static_cast<std::size_t>(b)]; },
                   {.threads = GetParam(), .schedule = schedule});
      for (const auto& count : seen) EXPECT_EQ(count.load(), 1);
    }
  }
}

TEST_P(ParallelFor, WorkerIndicesAreExclusive) {
  const int workers = worker_count(GetParam());
  EXPECT_EQ(workers, GetParam());
  std::vector<std::atomic<int>> busy(static_cast<std::size_t>(workers));
  std::atomic<int> wrong{0};
  for (int round = 0; round < 50; ++round) {
    parallel_for(
        40,
        [&](std::int64_t) {
          const int w = this_worker();
          if (w < 0 || w >= workers) {
            ++wrong;
            return;
          }
          if (++busy[static_cast<std::size_t>(w)] != 1) ++wrong;
          --busy[static_cast<std::size_t>(w)];
        },
        GetParam());
  }
  EXPECT_EQ(wrong.load(), 0);
  EXPECT_EQ(this_worker(), 0);
}

TEST_P(ParallelFor, LowestBlocksErrorIsRethrown) {
  for (Schedule schedule : {dynamic_blocks, static_blocks}) {
    for (int round = 0; round < 30; ++round) {
      std::vector<std::atomic<int>> seen(100);
      try {
        parallel_for(100,
                     [&](std::int64_t b) {
                       ++seen[static_cast<std::size_t>(b)];
                       if (b == 37 || b == 38 || b >= 60) throw ValueError(std::to_string(b));
                     },
                     {.threads = GetParam(), .schedule = schedule});
        FAIL();
      } catch (const ValueError& error) {
        EXPECT_STREQ(error.what(), "37");
      }
      for (std::size_t b = 0; b <= 37; ++b) EXPECT_EQ(seen[b].load(), 1) << b;
    }
  }
  // The pool is whole afterwards.
  std::atomic<int> count{0};
  parallel_for(
      10, [&](std::int64_t) { ++count; }, GetParam());
  EXPECT_EQ(count.load(), 10);
}

TEST_P(ParallelFor, ReduceHasTheSameBitsForAnyThreads) {
  std::vector<float> values(100000);
  for (std::size_t i = 0; i < values.size(); ++i) {
    values[i] = 1.0F / static_cast<float>(i * 7919 % 10007 + 1);
  }
  const auto sum = [&](int threads) {
    const auto n = static_cast<std::int64_t>(values.size());
    return parallel_reduce(
        block_count(n, 1000), 0.0F,
        [&](std::int64_t b) {
          const BlockRange r = block_range(n, 1000, b);
          return std::accumulate(values.begin() + r.begin, values.begin() + r.end, 0.0F);
        },
        std::plus<>{}, threads);
  };
  EXPECT_EQ(sum(GetParam()), sum(1));
}

TEST_P(ParallelFor, NestedCallsRunInTheCallingThread) {
  std::atomic<int> wrong{0};
  std::atomic<int> inner{0};
  parallel_for(
      8,
      [&](std::int64_t) {
        const auto here = std::this_thread::get_id();
        const int outer_worker = this_worker();
        if (worker_count(4) != 1) ++wrong;
        parallel_for(
            5,
            [&](std::int64_t) {
              ++inner;
              if (std::this_thread::get_id() != here || this_worker() != 0) ++wrong;
            },
            4);
        if (this_worker() != outer_worker) ++wrong;
      },
      GetParam());
  EXPECT_EQ(inner.load(), 40);
  EXPECT_EQ(wrong.load(), 0);
}

TEST_P(ParallelFor, NestedErrorsComeThrough) {
  EXPECT_THROW(
      parallel_for(
          4,
          [&](std::int64_t) { parallel_for(3, [](std::int64_t) { throw ShapeError("inner"); }); },
          GetParam()),
      ShapeError);
  EXPECT_EQ(worker_count(3), 3);  // the nesting state is unwound
}

TEST_P(ParallelFor, Cancels) {
  std::atomic<bool> flag{false};
  std::atomic<std::int64_t> ran{0};
  const auto body = [&](std::int64_t) {
    if (++ran >= 5) flag = true;
  };
  EXPECT_THROW(parallel_for(100000, body, {.threads = GetParam(), .cancel = &flag}), Cancelled);
  EXPECT_LT(ran.load(), 100000);
  ran = 0;
  EXPECT_THROW(
      parallel_for(100000, body,
                   {.threads = GetParam(), .cancel = CancelHook([&] { return ran.load() >= 5; })}),
      Cancelled);
  EXPECT_LT(ran.load(), 100000);
  EXPECT_THROW(parallel_for(1, body, {.threads = GetParam(), .cancel = &flag}), Cancelled);
  flag = false;
  ran = -1000;
  EXPECT_NO_THROW(parallel_for(10, body, {.threads = GetParam(), .cancel = &flag}));
}

TEST(Parallel, LoneBlockMayUseTheThreads) {
  std::atomic<int> inner{0};
  int workers = 0;
  parallel_for(
      1,
      [&](std::int64_t) {
        workers = worker_count(3);
        parallel_for(
            6, [&](std::int64_t) { ++inner; }, 3);
      },
      3);
  EXPECT_EQ(workers, 3);
  EXPECT_EQ(inner.load(), 6);
}

TEST(Parallel, UsesSeveralThreads) {
  std::atomic<int> inside{0};
  std::atomic<int> most{0};
  // Each block waits for company, but not for ever: a busy machine must not fail this.
  parallel_for(
      2,
      [&](std::int64_t) {
        set_when_at_least(most, ++inside);
        const auto end = std::chrono::steady_clock::now() + std::chrono::seconds(20);
        while (most.load() < 2 && std::chrono::steady_clock::now() < end) {
          std::this_thread::yield();
        }
        --inside;
      },
      2);
  EXPECT_EQ(most.load(), 2);
}

TEST(Parallel, SeveralCallersShareThePool) {
  std::atomic<std::int64_t> total{0};
  std::vector<std::thread> callers;
  for (int c = 0; c < 4; ++c) {
    callers.emplace_back([&] {
      for (int round = 0; round < 200; ++round) {
        parallel_for(
            16, [&](std::int64_t b) { total += b; }, 3);
      }
    });
  }
  for (std::thread& caller : callers) caller.join();
  EXPECT_EQ(total.load(), 4 * 200 * 120);
}

TEST(Parallel, SleepingWorkersWake) {
  for (int round = 0; round < 20; ++round) {
    std::atomic<int> count{0};
    parallel_for(
        4, [&](std::int64_t) { ++count; }, 2);
    EXPECT_EQ(count.load(), 4);
    std::this_thread::sleep_for(std::chrono::milliseconds(2));
  }
}

TEST(Parallel, Executors) {
  SerialExecutor executor(4);
  std::vector<int> seen(50, 0);
  const auto body = [&](std::int64_t b) { ++seen[static_cast<std::size_t>(b)]; };
  EXPECT_EQ(worker_count({.executor = &executor}), 4);
  EXPECT_EQ(worker_count({.threads = 9, .executor = &executor}), 4);
  parallel_for(50, body, {.executor = &executor});
  parallel_for(50, body, {.schedule = static_blocks, .executor = &executor});
  EXPECT_EQ(executor.runs, 2);
  set_executor(&executor);
  EXPECT_EQ(worker_count(), 4);
  parallel_for(50, body);
  parallel_for(50, body, 1);  // one worker needs no executor
  set_executor(nullptr);
  EXPECT_EQ(executor.runs, 3);
  for (int count : seen) EXPECT_EQ(count, 4);
  EXPECT_THROW(
      parallel_for(5, [](std::int64_t) { throw ValueError("x"); }, {.executor = &executor}),
      ValueError);
}

TEST(Parallel, ThreadCounts) {
  const int before = default_threads();
  EXPECT_GE(before, 1);
  set_default_threads(5);
  EXPECT_EQ(default_threads(), 5);
  EXPECT_EQ(worker_count(), 5);
  set_default_threads(0);
  EXPECT_EQ(default_threads(), before);
  EXPECT_THROW(set_default_threads(-1), ValueError);
  EXPECT_THROW(set_default_threads(1025), ValueError);
  EXPECT_THROW(parallel_for(
                   0, [](std::int64_t) {}, -2),
               ValueError);
  EXPECT_THROW((void)worker_count(2000), ValueError);
}

TEST(Parallel, EnvironmentIsValidated) {
  EXPECT_EQ(detail::parse_threads(nullptr), 0);
  EXPECT_EQ(detail::parse_threads(""), 0);
  EXPECT_EQ(detail::parse_threads("12"), 12);
  EXPECT_EQ(detail::parse_threads("1024"), 1024);
  for (const char* bad : {"0", "-1", "two", "3 ", "1025", "99999999999999999999", "1e2"}) {
    EXPECT_THROW((void)detail::parse_threads(bad), ValueError) << bad;
  }
}

TEST(Parallel, ReduceKinds) {
  const auto all_even = parallel_reduce(
      10, true, [](std::int64_t b) { return b % 2 == 0; }, std::logical_and<>{}, 2);
  EXPECT_FALSE(all_even);
  const auto text = parallel_reduce(
      5, std::string(">"), [](std::int64_t b) { return std::to_string(b); }, std::plus<>{}, 3);
  EXPECT_EQ(text, ">01234");
  EXPECT_EQ(parallel_reduce(
                0, 7, [](std::int64_t) { return 1; }, std::plus<>{}),
            7);
}

TEST(Parallel, BlockRanges) {
  EXPECT_EQ(block_count(0, 8), 0);
  EXPECT_EQ(block_count(1, 8), 1);
  EXPECT_EQ(block_count(16, 8), 2);
  EXPECT_EQ(block_count(17, 8), 3);
  EXPECT_EQ(block_range(17, 8, 2).begin, 16);
  EXPECT_EQ(block_range(17, 8, 2).size(), 1);
  constexpr std::int64_t most = (std::numeric_limits<std::int64_t>::max)();
  EXPECT_EQ(block_range(most, most / 2 + 1, 1).end, most);
  EXPECT_EQ(block_count(most, 1), most);
}

#if defined(__unix__) && !defined(QUERN_TEST_TSAN)
int exit_status(pid_t child) {
  int status = 0;
  waitpid(child, &status, 0);
  return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

TEST(Parallel, ForkedChildHasAPoolOfItsOwn) {
  parallel_for(
      8, [](std::int64_t) {}, 3);
  std::fflush(nullptr);
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    std::atomic<int> count{0};
    parallel_for(
        8, [&](std::int64_t) { ++count; }, 3);
    std::_Exit(count.load() == 8 ? 7 : 1);
  }
  EXPECT_EQ(exit_status(child), 7);
}

/// exit() inside a block must end the program, not wait for it.
TEST(Parallel, ExitInsideABlockEnds) {
  std::fflush(nullptr);
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    alarm(30);
    parallel_for(
        2,
        [](std::int64_t b) {
          if (b == 0) std::exit(9);
          std::this_thread::sleep_for(std::chrono::milliseconds(1));
        },
        2);
  }
  EXPECT_EQ(exit_status(child), 9);
}
#endif

}  // namespace
}  // namespace quern::test::parallel

#undef QUERN_TEST_TSAN
