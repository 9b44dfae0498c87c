// SPDX-License-Identifier: Apache-2.0

/// \file
/// A thread, a lock and a clock as the system has them. Private: use parallel.hpp.
///
/// <thread>, <mutex> and <chrono> would do, but every program that includes quern would read them,
/// and the streams behind them: a third of a second each time. They serve where there is no POSIX.

#ifndef QUERN_CORE_DETAIL_SYSTEM_THREAD_HPP
#define QUERN_CORE_DETAIL_SYSTEM_THREAD_HPP

#include "quern/core/config.hpp"

#include <atomic>
#include <cstdint>

#if defined(__unix__) || defined(__APPLE__)
#define QUERN_DETAIL_POSIX_THREADS 1
#include <pthread.h>
#include <signal.h>
#include <time.h>
#include <unistd.h>
#else
#include <chrono>
#include <exception>
#include <thread>
#endif

QUERN_NAMESPACE_BEGIN
namespace detail {

/// For what is held for moments and hardly ever contended.
class BriefLock {
 public:
  void lock() noexcept {
    while (held_.exchange(true, std::memory_order_acquire))
      held_.wait(true, std::memory_order_relaxed);
  }
  void unlock() noexcept {
    held_.store(false, std::memory_order_release);
    held_.notify_one();
  }

 private:
  std::atomic<bool> held_{false};
};

/// Holds a lock for a scope.
class BriefGuard {
 public:
  explicit BriefGuard(BriefLock& lock) noexcept : lock_(lock) { lock_.lock(); }
  BriefGuard(const BriefGuard&) = delete;
  BriefGuard& operator=(const BriefGuard&) = delete;
  ~BriefGuard() { lock_.unlock(); }

 private:
  BriefLock& lock_;
};

#if defined(QUERN_DETAIL_POSIX_THREADS)

/// Nanoseconds of a clock that never goes back.
inline std::int64_t monotonic_ns() noexcept {
  timespec now{};
  clock_gettime(CLOCK_MONOTONIC, &now);
  return std::int64_t{now.tv_sec} * 1000000000 + now.tv_nsec;
}

/// Threads that run at the same time; 0 when that cannot be told.
inline int hardware_threads() noexcept {
  const long online = sysconf(_SC_NPROCESSORS_ONLN);
  return online > 0 ? static_cast<int>(online) : 0;
}

/// Runs self->loop(). It takes no signals: handlers run in the user's own threads.
template <class Self>
class SystemThread {
 public:
  /// False when the system has no thread to give.
  bool start(Self* self) noexcept {
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    started_ = pthread_create(&thread_, nullptr, &run, self) == 0;
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
    return started_;
  }
  void join() noexcept {
    if (started_) pthread_join(thread_, nullptr);
    started_ = false;
  }
  void detach() noexcept {
    if (started_) pthread_detach(thread_);
    started_ = false;
  }

 private:
  static void* run(void* self) noexcept {
    static_cast<Self*>(self)->loop();
    return nullptr;
  }

  pthread_t thread_{};
  bool started_ = false;
};

#else

inline std::int64_t monotonic_ns() noexcept {
  return std::chrono::nanoseconds(std::chrono::steady_clock::now().time_since_epoch()).count();
}

inline int hardware_threads() noexcept {
  return static_cast<int>(std::thread::hardware_concurrency());
}

template <class Self>
class SystemThread {
 public:
  bool start(Self* self) noexcept {
    try {
      thread_ = std::thread([self] { self->loop(); });
    } catch (const std::exception&) {
      return false;
    }
    return true;
  }
  void join() {
    if (thread_.joinable()) thread_.join();
  }
  void detach() {
    if (thread_.joinable()) thread_.detach();
  }

 private:
  std::thread thread_;
};

#endif

/// Tells the core that this is a waiting loop.
inline void spin_pause() noexcept {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield" ::: "memory");
#elif !defined(QUERN_DETAIL_POSIX_THREADS)
  std::this_thread::yield();
#endif
}

}  // namespace detail
QUERN_NAMESPACE_END

#endif  // QUERN_CORE_DETAIL_SYSTEM_THREAD_HPP
