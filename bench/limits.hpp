// SPDX-License-Identifier: Apache-2.0

/// \file
/// What this machine can do at most, measured: multiply-adds from registers, reading, copying,
/// triad and update in memory. Benchmarks show their figures as fractions of these.
///
/// Independent of quern's own kernels, so that a slow kernel cannot flatter itself.

#ifndef QUERN_BENCH_LIMITS_HPP
#define QUERN_BENCH_LIMITS_HPP

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <new>
#include <thread>
#include <utility>
#include <vector>

#if defined(__x86_64__)
#include <immintrin.h>
#endif
#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace bench {

/// Best of a few trials on `threads` threads. GFLOP/s (a multiply-add is two) and GB/s.
struct Limits {
  double fma_f32 = 0;
  double fma_f64 = 0;
  double read = 0;
  double copy = 0;    ///< bytes read plus bytes written
  double triad = 0;   ///< a = b + s * c: two read, one written
  double update = 0;  ///< three arrays read and written in place, as optimisers do
};

namespace detail {

/// Keeps \p value from being optimised away.
template <class T>
inline void keep(const T& value) {
  asm volatile("" : : "m"(value) : "memory");
}

/// Vectors that the loops below work on, spelled in the compilers' own vector types: a * b + c is
/// one instruction where the function's target has it.
template <class T, int bytes>
struct Vector {
  typedef T type __attribute__((vector_size(bytes)));
};

/// Multiply-adds of `rounds` rounds over twelve independent accumulators: four cycles of latency,
/// two ports, and some to spare. They start apart, or the compiler would make them one.
#define QUERN_BENCH_FMA_BODY(T, bytes)                                                    \
  using V = typename Vector<T, bytes>::type;                                              \
  const V x = V{} + static_cast<T>(0.999), y = V{} + static_cast<T>(1e-3);                \
  V a0 = x, a1 = a0 + x, a2 = a1 + x, a3 = a2 + x, a4 = a3 + x, a5 = a4 + x, a6 = a5 + x; \
  V a7 = a6 + x, a8 = a7 + x, a9 = a8 + x, b0 = a9 + x, b1 = b0 + x;                      \
  for (std::int64_t i = 0; i < rounds; ++i) {                                             \
    a0 = a0 * x + y, a1 = a1 * x + y, a2 = a2 * x + y, a3 = a3 * x + y, a4 = a4 * x + y;  \
    a5 = a5 * x + y, a6 = a6 * x + y, a7 = a7 * x + y, a8 = a8 * x + y, a9 = a9 * x + y;  \
    b0 = b0 * x + y, b1 = b1 * x + y;                                                     \
    asm volatile("" ::: "memory");                                                        \
  }                                                                                       \
  const V sum = a0 + a1 + a2 + a3 + a4 + a5 + a6 + a7 + a8 + a9 + b0 + b1;                \
  keep(sum);                                                                              \
  return 24.0 * static_cast<double>(rounds) * (bytes / static_cast<int>(sizeof(T)))

template <class T>
double multiply_adds_base(std::int64_t rounds) {
  QUERN_BENCH_FMA_BODY(T, 16);
}
#if defined(__x86_64__)
template <class T>
__attribute__((target("avx2,fma"))) double multiply_adds_avx2(std::int64_t rounds) {
  QUERN_BENCH_FMA_BODY(T, 32);
}
template <class T>
__attribute__((target("avx512f"))) double multiply_adds_avx512(std::int64_t rounds) {
  QUERN_BENCH_FMA_BODY(T, 64);
}
#endif
#undef QUERN_BENCH_FMA_BODY

/// Floating-point operations that were done.
template <class T>
double multiply_adds(std::int64_t rounds) {
#if defined(__x86_64__)
  if (__builtin_cpu_supports("avx512f")) return multiply_adds_avx512<T>(rounds);
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))
    return multiply_adds_avx2<T>(rounds);
#endif
  return multiply_adds_base<T>(rounds);
}

/// Runs work(thread) on all threads; the best units per nanosecond of `trials`.
template <class Work>
double best_rate(int threads, int trials, Work&& work) {
  double best = 0;
  for (int trial = 0; trial < trials; ++trial) {
    std::vector<double> units(static_cast<std::size_t>(threads));
    const auto start = std::chrono::steady_clock::now();
    std::vector<std::thread> others;
    for (int t = 1; t < threads; ++t)
      others.emplace_back([&, t] { units[static_cast<std::size_t>(t)] = work(t); });
    units[0] = work(0);
    for (std::thread& other : others) other.join();
    const std::chrono::duration<double, std::nano> taken = std::chrono::steady_clock::now() - start;
    double sum = 0;
    for (const double u : units) sum += u;
    best = (std::max)(best, sum / taken.count());
  }
  return best;
}

/// Memory in large pages where the system has them: with small ones the walks through the page
/// tables would be measured.
class Pages {
 public:
  explicit Pages(std::size_t bytes)
      : data_(std::aligned_alloc(page, (bytes + page - 1) & ~(page - 1))) {
    if (data_ == nullptr) throw std::bad_alloc();
#if defined(__linux__)
    madvise(data_, (bytes + page - 1) & ~(page - 1), MADV_HUGEPAGE);
#endif
  }
  Pages(Pages&& other) noexcept : data_(std::exchange(other.data_, nullptr)) {}
  Pages(const Pages&) = delete;
  Pages& operator=(const Pages&) = delete;
  Pages& operator=(Pages&&) = delete;
  ~Pages() { std::free(data_); }
  [[nodiscard]] double* doubles() const { return static_cast<double*>(data_); }

 private:
  static constexpr std::size_t page = std::size_t{2} << 20;
  void* data_;
};

/// Stores past the caches where the machine can: a store that reads its line first would move more
/// than is counted. \p to is 16-byte aligned.
inline void stream_pair(double* to, double first, double second) {
#if defined(__x86_64__)
  _mm_stream_pd(to, _mm_set_pd(second, first));
#else
  to[0] = first;
  to[1] = second;
#endif
}

/// Three arrays a thread, well beyond the last-level cache together.
class MemoryTrial {
 public:
  explicit MemoryTrial(int threads) : each_((std::size_t{48} << 20) / sizeof(double)) {
    for (int t = 0; t < 3 * threads; ++t) {
      arrays_.emplace_back(each_ * sizeof(double));
      std::fill_n(arrays_.back().doubles(), each_, 1.0);
    }
  }

  double read(int t) {
    const Pair* a = pairs(t, 0);
    const Pair* b = pairs(t, 1);
    const Pair* c = pairs(t, 2);
    Pair s0{}, s1{}, s2{}, s3{}, s4{}, s5{};
    for (std::size_t i = 0; i < each_ / 2; i += 4) {  // two loads a cache line are enough
      s0 += a[i];
      s1 += b[i];
      s2 += c[i];
      s3 += a[i + 2];
      s4 += b[i + 2];
      s5 += c[i + 2];
    }
    const Pair sum = s0 + s1 + s2 + s3 + s4 + s5;
    keep(sum);
    return 3 * bytes();
  }
  double copy(int t) {
    const double* a = array(t, 0);
    double* b = array(t, 1);
    for (std::size_t i = 0; i < each_; i += 2) stream_pair(b + i, a[i], a[i + 1]);
    keep(*b);
    return 2 * bytes();
  }
  double triad(int t) {
    double* a = array(t, 0);
    const double* b = array(t, 1);
    const double* c = array(t, 2);
    for (std::size_t i = 0; i < each_; i += 2)
      stream_pair(a + i, b[i] + 0.5 * c[i], b[i + 1] + 0.5 * c[i + 1]);
    keep(*a);
    return 3 * bytes();
  }
  double update(int t) {
    Pair* a = pairs(t, 0);
    Pair* b = pairs(t, 1);
    Pair* c = pairs(t, 2);
    const Pair half = Pair{} + 0.5;
    for (std::size_t i = 0; i < each_ / 2; ++i) {
      a[i] = half * a[i] + half;
      b[i] = half * b[i] + half;
      c[i] = half * c[i] + half;
    }
    keep(*a);
    return 6 * bytes();
  }

 private:
  using Pair = Vector<double, 16>::type;

  Pair* pairs(int t, int which) { return reinterpret_cast<Pair*>(array(t, which)); }
  double* array(int t, int which) {
    return arrays_[static_cast<std::size_t>(3 * t + which)].doubles();
  }
  [[nodiscard]] double bytes() const { return static_cast<double>(each_ * sizeof(double)); }

  std::size_t each_;
  std::vector<Pages> arrays_;
};

}  // namespace detail

/// Measures in about a second; takes 144 MiB a thread meanwhile.
inline Limits measure_limits(int threads) {
  constexpr std::int64_t rounds = 4'000'000;
  Limits limits;
  limits.fma_f32 =
      detail::best_rate(threads, 5, [](int) { return detail::multiply_adds<float>(rounds); });
  limits.fma_f64 =
      detail::best_rate(threads, 5, [](int) { return detail::multiply_adds<double>(rounds); });
  detail::MemoryTrial memory(threads);
  limits.read = detail::best_rate(threads, 5, [&](int t) { return memory.read(t); });
  limits.copy = detail::best_rate(threads, 5, [&](int t) { return memory.copy(t); });
  limits.triad = detail::best_rate(threads, 5, [&](int t) { return memory.triad(t); });
  limits.update = detail::best_rate(threads, 5, [&](int t) { return memory.update(t); });
  return limits;
}

/// The limits of one thread count, measured once a process.
inline const Limits& limits(int threads) {
  static std::vector<std::pair<int, Limits>> known;
  for (const auto& [count, measured] : known)
    if (count == threads) return measured;
  known.reserve(64);  // references stay valid
  return known.emplace_back(threads, measure_limits(threads)).second;
}

}  // namespace bench

#endif  // QUERN_BENCH_LIMITS_HPP
