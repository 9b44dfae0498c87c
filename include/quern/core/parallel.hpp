// SPDX-License-Identifier: Apache-2.0

/// \file
/// Loops over blocks on several threads: parallel_for, parallel_reduce, executors, thread counts.
///
/// Work is cut into blocks by shapes and options alone, never by the number of threads, so that
/// results have the same bits for any number of them. Blocks are handed out in ascending order.

#ifndef QUERN_CORE_PARALLEL_HPP
#define QUERN_CORE_PARALLEL_HPP

#include "quern/core/config.hpp"
#include "quern/core/detail/thread_pool.hpp"
#include "quern/core/error.hpp"

#include <algorithm>
#include <atomic>
#include <concepts>
#include <cstdint>
#include <cstdlib>
#include <exception>
#include <limits>
#include <memory>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

QUERN_NAMESPACE_BEGIN

/// Where parallel_for runs: quern's own pool, or the caller's threads behind this interface.
class Executor {
 public:
  virtual ~Executor() = default;
  /// Most tasks that run at the same time, the calling thread's included; at least 1.
  [[nodiscard]] virtual int concurrency() const = 0;
  /// Calls fn(context, i) once for every i in [0, blocks), in any order, on any threads, and
  /// returns when all have returned. `fn` does not throw. Tasks may not wait for each other's
  /// start: running them one after the other in the calling thread is correct too.
  virtual void run(std::int64_t blocks, void (*fn)(void*, std::int64_t), void* context) = 0;
};

/// How blocks go to threads. Neither changes results.
enum class Schedule {
  dynamic_blocks,  ///< each thread takes the next block that is left
  static_blocks    ///< thread w of t takes the w-th of t ranges: the same memory each time
};

/// Polled between blocks, possibly from several threads at once; true cancels.
class CancelHook {
 public:
  CancelHook() = default;
  CancelHook(std::nullptr_t) {}                               // NOLINT: implicit
  CancelHook(const std::atomic<bool>* flag) : flag_(flag) {}  // NOLINT: implicit
  template <class F>
  requires(std::is_invocable_r_v<bool, F&> && !std::same_as<std::remove_cvref_t<F>, CancelHook>)
      CancelHook(F&& poll) {  // NOLINT: implicit
    if constexpr (requires { poll == nullptr; }) {
      if (poll == nullptr) return;
    }
    poll_ = std::make_shared<PollOf<std::decay_t<F>>>(std::forward<F>(poll));
  }

  [[nodiscard]] bool operator()() const {
    return (flag_ != nullptr && flag_->load(std::memory_order_relaxed)) || (poll_ && poll_->ask());
  }

 private:
  /// A callable whose type is forgotten. (std::function would cost every program more to compile.)
  struct Poll {
    Poll() = default;
    Poll(const Poll&) = delete;
    Poll& operator=(const Poll&) = delete;
    virtual ~Poll() = default;
    virtual bool ask() = 0;
  };
  template <class F>
  struct PollOf final : Poll {
    explicit PollOf(F f) : poll(std::move(f)) {}
    bool ask() override { return static_cast<bool>(poll()); }
    F poll;
  };

  const std::atomic<bool>* flag_ = nullptr;
  std::shared_ptr<Poll> poll_;
};

/// Options of one call.
struct ParallelOptions {
  int threads = 0;  ///< 0: the executor's concurrency, or default_threads()
  Schedule schedule = Schedule::dynamic_blocks;
  Executor* executor = nullptr;  ///< null: the one of set_executor(), else quern's pool
  CancelHook cancel = {};
};

namespace detail {

/// What this thread is doing inside a parallel_for.
struct ParallelState {
  int worker = 0;
  bool inside = false;
};
inline thread_local ParallelState parallel_state;

/// Sets the state for a scope.
class ParallelScope {
 public:
  explicit ParallelScope(int worker) noexcept : before_(parallel_state) {
    parallel_state = {worker, true};
  }
  ParallelScope(const ParallelScope&) = delete;
  ParallelScope& operator=(const ParallelScope&) = delete;
  ~ParallelScope() { parallel_state = before_; }

 private:
  ParallelState before_;
};

inline std::atomic<int> default_threads_set{0};
inline std::atomic<Executor*> executor_set{nullptr};

inline int checked_threads(const char* function, int threads) {
  if (threads < 0 || threads > max_threads) {
    throw ValueError(error_text(function, "threads", "0..1024 (0: default)", threads));
  }
  return threads;
}

/// Value of QUERN_NUM_THREADS, 0 when it is unset or empty.
inline int parse_threads(const char* text) {
  if (text == nullptr || *text == '\0') return 0;
  int value = 0;
  for (const char* c = text; *c != '\0'; ++c) {
    const bool digit = *c >= '0' && *c <= '9';
    if (digit && value <= max_threads) value = value * 10 + (*c - '0');
    if (!digit || value > max_threads || value == 0) {
      throw ValueError(error_text("quern::default_threads", "environment QUERN_NUM_THREADS",
                                  "a number 1..1024", "'" + std::string(text) + "'"));
    }
  }
  return value;
}

/// One parallel_for: what its tasks share.
class BlockJob {
 public:
  using BlockFunction = void (*)(void*, std::int64_t);

  BlockJob(std::int64_t blocks, int workers, BlockFunction fn, void* context,
           const ParallelOptions& options)
      : blocks_(blocks), workers_(workers), fn_(fn), context_(context), options_(options) {}

  /// Task `worker` of `workers_`: never throws. `self` is the job.
  static void task(void* self, std::int64_t worker) {
    BlockJob& job = *static_cast<BlockJob*>(self);
    const ParallelScope scope(static_cast<int>(worker));
    if (job.options_.schedule == Schedule::static_blocks) {
      // 128-bit free: blocks up to 2^63 / 1024 are far more than there is work.
      const std::int64_t each = job.blocks_ / job.workers_;
      const std::int64_t rest = job.blocks_ % job.workers_;
      const std::int64_t begin = worker * each + (std::min)(worker, rest);
      const std::int64_t end = begin + each + (worker < rest ? 1 : 0);
      for (std::int64_t b = begin; b < end; ++b) {
        if (!job.block(b)) break;
      }
    } else {
      while (job.block(job.next_.fetch_add(1, std::memory_order_relaxed))) {
      }
    }
  }

  /// After the join: throws what the lowest block threw, or Cancelled.
  void finish() {
    if (error_) std::rethrow_exception(std::exchange(error_, nullptr));
    if (cancelled_.load(std::memory_order_relaxed)) {
      throw Cancelled("quern::parallel_for: cancelled between blocks");
    }
  }

 private:
  /// Runs block b; false when this task need not go on to higher ones.
  bool block(std::int64_t b) {
    if (b >= blocks_ || b > lowest_failed_.load(std::memory_order_relaxed)) return false;
    if (cancelled_.load(std::memory_order_relaxed)) return false;
    try {
      if (options_.cancel()) {
        cancelled_.store(true, std::memory_order_relaxed);
        return false;
      }
      fn_(context_, b);
    } catch (...) {
      const BriefGuard lock(failing_);
      if (b < lowest_failed_.load(std::memory_order_relaxed)) {
        lowest_failed_.store(b, std::memory_order_relaxed);
        error_ = std::current_exception();
      }
      return false;
    }
    return true;
  }

  std::int64_t blocks_;
  int workers_;
  BlockFunction fn_;
  void* context_;
  const ParallelOptions& options_;
  std::exception_ptr error_;
  BriefLock failing_;
  std::atomic<bool> cancelled_{false};
  std::atomic<std::int64_t> lowest_failed_{(std::numeric_limits<std::int64_t>::max)()};
  // Written at every block by every thread: away from what all of them read.
  alignas(64) std::atomic<std::int64_t> next_{0};
};

}  // namespace detail

/// Sets how many threads calls with `threads = 0` use; 0 goes back to the environment's
/// QUERN_NUM_THREADS or the hardware's. ValueError outside 0..1024.
inline void set_default_threads(int threads) {
  detail::default_threads_set.store(detail::checked_threads("quern::set_default_threads", threads));
}

/// Threads of a call that does not say: set_default_threads(), else the environment variable
/// QUERN_NUM_THREADS (read once; ValueError when it is not a number 1..1024), else the hardware's.
[[nodiscard]] inline int default_threads() {
  if (const int set = detail::default_threads_set.load(std::memory_order_relaxed)) return set;
  static const int from_environment = detail::parse_threads(std::getenv("QUERN_NUM_THREADS"));
  if (from_environment != 0) return from_environment;
  static const int hardware = (std::clamp)(detail::hardware_threads(), 1, detail::max_threads);
  return hardware;
}

/// Makes every call without an executor of its own run on this one; null: quern's own pool. The
/// executor must outlive its use.
inline void set_executor(Executor* executor) { detail::executor_set.store(executor); }
[[nodiscard]] inline Executor* current_executor() { return detail::executor_set.load(); }

/// Index of the calling thread within the innermost parallel_for, 0 outside of any: an index for
/// scratch memory of worker_count() places. Two blocks that run at once never see the same.
[[nodiscard]] inline int this_worker() noexcept { return detail::parallel_state.worker; }

/// One more than the highest this_worker() that a parallel_for with these options can show.
[[nodiscard]] inline int worker_count(const ParallelOptions& options) {
  const int asked = detail::checked_threads("quern::parallel_for", options.threads);
  if (detail::parallel_state.inside) return 1;
  const Executor* executor = options.executor ? options.executor : current_executor();
  if (executor == nullptr) return asked > 0 ? asked : default_threads();
  const int has = (std::clamp)(executor->concurrency(), 1, detail::max_threads);
  return asked > 0 ? (std::min)(asked, has) : has;
}
[[nodiscard]] inline int worker_count(int threads = 0) {
  return worker_count(ParallelOptions{.threads = threads});
}

namespace detail {

/// parallel_for with its types taken away, so that a call site costs little to compile.
inline void run_blocks(std::int64_t blocks, BlockJob::BlockFunction fn, void* context,
                       const ParallelOptions& options) {
  const int allowed = worker_count(options);
  if (blocks <= 0) return;
  const int workers = static_cast<int>((std::min)(static_cast<std::int64_t>(allowed), blocks));
  // A lone block shares nothing, so what it calls may use the threads.
  if (blocks == 1 && allowed > 1 && !options.cancel()) return fn(context, 0);
  BlockJob job(blocks, workers, fn, context, options);
  Executor* executor = options.executor ? options.executor : current_executor();
  if (workers == 1) {
    BlockJob::task(&job, 0);
  } else if (executor != nullptr) {
    executor->run(workers, &BlockJob::task, &job);
  } else if (ThreadPool* pool = thread_pool()) {
    pool->run(workers, &BlockJob::task, &job);
  } else {
    for (int w = 0; w < workers; ++w) BlockJob::task(&job, w);
  }
  job.finish();
}

}  // namespace detail

/// Calls fn(block) once for every block in [0, blocks), on several threads, and returns when all
/// are done. `fn` may throw: no block above the failing one is started any more, all below it run,
/// and the exception of the lowest is rethrown. Nested calls run in the calling thread.
/// Throws Cancelled when the hook of the options says so, ValueError for a bad thread count.
template <class F>
void parallel_for(std::int64_t blocks, F&& fn, const ParallelOptions& options) {
  using Function = std::remove_reference_t<F>;
  detail::run_blocks(
      blocks, [](void* context, std::int64_t block) { (*static_cast<Function*>(context))(block); },
      const_cast<void*>(static_cast<const void*>(std::addressof(fn))), options);
}
/// threads: 0 for the default.
template <class F>
void parallel_for(std::int64_t blocks, F&& fn, int threads = 0) {
  parallel_for(blocks, std::forward<F>(fn), ParallelOptions{.threads = threads});
}

/// map(block) for every block on several threads, then combine(combine(init, map(0)), map(1))…
/// in block order in the calling thread: the same bits for any number of threads. The blocks'
/// results are kept until then, so let a block be many elements.
template <class T, class Map, class Combine>
[[nodiscard]] T parallel_reduce(std::int64_t blocks, T init, Map&& map, Combine&& combine,
                                const ParallelOptions& options) {
  struct Part {  // not std::vector<bool>
    T value;
  };
  std::vector<Part> parts(static_cast<std::size_t>((std::max)(blocks, std::int64_t{0})),
                          Part{init});
  parallel_for(
      blocks, [&](std::int64_t b) { parts[static_cast<std::size_t>(b)].value = map(b); }, options);
  for (Part& part : parts) init = combine(std::move(init), std::move(part.value));
  return init;
}
template <class T, class Map, class Combine>
[[nodiscard]] T parallel_reduce(std::int64_t blocks, T init, Map&& map, Combine&& combine,
                                int threads = 0) {
  return parallel_reduce(blocks, std::move(init), std::forward<Map>(map),
                         std::forward<Combine>(combine), ParallelOptions{.threads = threads});
}

/// Elements [begin, end) of a block.
struct BlockRange {
  std::int64_t begin = 0;
  std::int64_t end = 0;
  [[nodiscard]] constexpr std::int64_t size() const noexcept { return end - begin; }
};

/// How many blocks of `block_size` (>= 1) cover `n` elements.
[[nodiscard]] constexpr std::int64_t block_count(std::int64_t n, std::int64_t block_size) noexcept {
  return n <= 0 ? 0 : (n - 1) / block_size + 1;
}

/// The b-th of them; the last one is shorter where `n` is no multiple.
[[nodiscard]] constexpr BlockRange block_range(std::int64_t n, std::int64_t block_size,
                                               std::int64_t b) noexcept {
  const std::int64_t begin = b * block_size;
  return {begin, n - begin < block_size ? n : begin + block_size};
}

QUERN_NAMESPACE_END

#endif  // QUERN_CORE_PARALLEL_HPP
