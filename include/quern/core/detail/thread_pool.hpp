// SPDX-License-Identifier: Apache-2.0

/// \file
/// The pool of threads behind parallel_for. Private: use parallel.hpp.
///
/// Each worker has a mailbox of its own (one atomic word on its own cache line). A caller claims
/// idle workers, posts one task to each, does a share itself and collects the workers again; a task
/// that its worker has not begun by then it takes back and does itself. So several callers share
/// the workers without a queue, nobody waits for somebody else's work nor, on a busy machine, for a
/// worker to be given a core, and a job is posted without a lock. Boosting posts thousands of jobs
/// a second: workers spin for a moment before they sleep.

#ifndef QUERN_CORE_DETAIL_THREAD_POOL_HPP
#define QUERN_CORE_DETAIL_THREAD_POOL_HPP

#include "quern/core/config.hpp"
#include "quern/core/detail/system_thread.hpp"

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>

QUERN_NAMESPACE_BEGIN

namespace detail {

/// Most threads that one call may ask for.
inline constexpr int max_threads = 1024;

/// fn(context, index): never throws.
using TaskFunction = void (*)(void*, std::int64_t);

/// Waits until `word` differs from `seen`: spins for `spin` nanoseconds, then sleeps. Whoever
/// changes the word from a value that somebody may sleep on notifies it.
inline std::uint32_t wait_for_change(const std::atomic<std::uint32_t>& word, std::uint32_t seen,
                                     std::int64_t spin) {
  std::uint32_t now = word.load(std::memory_order_acquire);
  if (now != seen) return now;
  if (spin > 0) {
    const std::int64_t end = monotonic_ns() + spin;
    do {
      for (int i = 0; i < 16; ++i) {
        now = word.load(std::memory_order_acquire);
        if (now != seen) return now;
        spin_pause();
      }
    } while (monotonic_ns() < end);
  }
  while ((now = word.load(std::memory_order_acquire)) == seen) {
    word.wait(seen, std::memory_order_acquire);
  }
  return now;
}

/// A thread and its mailbox.
struct alignas(64) PoolWorker {
  /// idle -> claimed (a caller fills in the task) -> posted -> running -> done -> idle;
  /// posted -> idle (the caller takes the task back); idle -> stop.
  enum State : std::uint32_t { idle, claimed, posted, running, done, stop };

  std::atomic<std::uint32_t> state{idle};
  TaskFunction fn = nullptr;
  void* context = nullptr;
  std::int64_t task = 0;
  std::int64_t spin = 0;  ///< nanoseconds
  SystemThread<PoolWorker> thread;

  void loop() {
    std::int64_t patience = 0;  // `spin` is the callers' until a task is posted
    for (;;) {
      std::uint32_t now = state.load(std::memory_order_acquire);
      if (now == stop) return;
      if (now != posted) {
        wait_for_change(state, now, patience);
        continue;
      }
      if (!state.compare_exchange_strong(now, running, std::memory_order_acquire)) continue;
      fn(context, task);
      patience = spin;
      state.store(done, std::memory_order_release);
      state.notify_one();
    }
  }
};

/// Threads that grow on demand and never shrink; it starts with none.
class ThreadPool {
 public:
  ThreadPool() = default;
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  /// Calls fn(context, i) once for every i in [0, tasks): task 0 and whatever no worker was free
  /// for in the calling thread. Returns when all are done. 1 <= tasks <= max_threads.
  void run(int tasks, TaskFunction fn, void* context) {
    std::array<PoolWorker*, max_threads> helping;
    const std::int64_t spin = spin_time(tasks);
    const int helpers = claim(tasks - 1, helping.data());
    for (int i = 0; i < helpers; ++i) {
      PoolWorker& w = *helping[static_cast<std::size_t>(i)];
      w.fn = fn;
      w.context = context;
      w.task = i + 1;
      w.spin = spin;
      w.state.store(PoolWorker::posted, std::memory_order_release);
      w.state.notify_one();
    }
    fn(context, 0);
    for (int i = helpers + 1; i < tasks; ++i) fn(context, i);
    for (int i = 0; i < helpers; ++i) {
      PoolWorker& w = *helping[static_cast<std::size_t>(i)];
      std::uint32_t expected = PoolWorker::posted;
      if (w.state.compare_exchange_strong(expected, PoolWorker::idle)) {
        fn(context, i + 1);
        continue;
      }
      wait_for_change(w.state, PoolWorker::running, spin);
      w.state.store(PoolWorker::idle, std::memory_order_release);
    }
  }

  /// Ends the idle workers; called when the program exits. A worker that is busy then belongs to a
  /// thread that still runs (or that called exit inside a block): waiting for it could be for ever.
  void close() {
    closed_.store(true, std::memory_order_seq_cst);
    const BriefGuard lock(growing_);
    const int n = size_.load(std::memory_order_acquire);
    for (int i = 0; i < n; ++i) {
      PoolWorker& w = *workers_[static_cast<std::size_t>(i)];
      std::uint32_t expected = PoolWorker::idle;
      if (w.state.compare_exchange_strong(expected, PoolWorker::stop)) {
        w.state.notify_one();
        w.thread.join();
      } else {
        w.thread.detach();
      }
    }
  }

  /// Threads started so far (without the callers').
  [[nodiscard]] int size() const { return size_.load(std::memory_order_acquire); }

 private:
  /// Spinning helps when every thread has a core of its own, and harms when not.
  static std::int64_t spin_time(int tasks) {
    static const int cores = hardware_threads();
    return tasks <= cores ? 40000 : 0;
  }

  int claim(int wanted, PoolWorker** claimed) {
    int got = 0;
    if (closed_.load(std::memory_order_seq_cst)) return 0;
    if (size() < wanted) grow(wanted);
    const int n = size();
    for (int i = 0; i < n && got < wanted; ++i) {
      PoolWorker& w = *workers_[static_cast<std::size_t>(i)];
      std::uint32_t expected = PoolWorker::idle;
      if (w.state.load(std::memory_order_relaxed) == PoolWorker::idle &&
          w.state.compare_exchange_strong(expected, PoolWorker::claimed,
                                          std::memory_order_acquire)) {
        claimed[got++] = &w;
      }
    }
    return got;
  }

  void grow(int wanted) {
    const BriefGuard lock(growing_);
    if (closed_.load(std::memory_order_seq_cst)) return;
    for (int n = size(); n < wanted; ++n) {
      // No more threads or memory to be had: the work is done with those there are.
      std::unique_ptr<PoolWorker> w(new (std::nothrow) PoolWorker);
      if (!w || !w->thread.start(w.get())) return;
      workers_[static_cast<std::size_t>(n)] = w.release();
      size_.store(n + 1, std::memory_order_release);
    }
  }

  std::array<PoolWorker*, max_threads> workers_{};
  std::atomic<int> size_{0};
  std::atomic<bool> closed_{false};
  BriefLock growing_;
};

/// The pool of the process. It is never destroyed: what runs after main may still call it, and then
/// finds it closed and works alone. In a forked child, where no worker lives on, a new one starts.
struct PoolSlot {
  std::atomic<ThreadPool*> pool{nullptr};
  /// Left behind by fork; kept so that leak checkers see a pointer to it.
  std::atomic<ThreadPool*> abandoned{nullptr};
  std::atomic<bool> watching_fork{false};
  std::atomic<bool> exited{false};

  constexpr PoolSlot() = default;
  PoolSlot(const PoolSlot&) = delete;
  PoolSlot& operator=(const PoolSlot&) = delete;
  ~PoolSlot() {
    exited.store(true);
    if (ThreadPool* p = pool.load()) p->close();
  }
};

inline PoolSlot pool_slot;

/// The pool, made on first use; null once the program has exited without ever needing it.
inline ThreadPool* thread_pool() {
  if (ThreadPool* p = pool_slot.pool.load(std::memory_order_acquire)) return p;
  if (pool_slot.exited.load()) return nullptr;
#if defined(QUERN_DETAIL_POSIX_THREADS)
  if (!pool_slot.watching_fork.exchange(true)) {
    pthread_atfork(nullptr, nullptr,
                   [] { pool_slot.abandoned.store(pool_slot.pool.exchange(nullptr)); });
  }
#endif
  auto fresh = std::make_unique<ThreadPool>();
  ThreadPool* other = nullptr;
  if (pool_slot.pool.compare_exchange_strong(other, fresh.get())) return fresh.release();
  return other;
}

}  // namespace detail

QUERN_NAMESPACE_END

#endif  // QUERN_CORE_DETAIL_THREAD_POOL_HPP
