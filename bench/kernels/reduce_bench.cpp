// SPDX-License-Identifier: Apache-2.0

/// \file
/// Reductions, from L1 and from memory: GB/s read, for the long arrays as a fraction of the memory
/// limit too.

#include "limits.hpp"
#include "quern/kernels/kernels.hpp"

#include <benchmark/benchmark.h>

#include <cstddef>
#include <vector>

namespace {

constexpr std::int64_t kShort = 2048, kLong = std::int64_t{1} << 24;

/// What is measured; `arrays` are read.
struct Sum {
  static constexpr int arrays = 1;
  template <class T>
  static double run(const T* x, const T* /*y*/, std::size_t n) {
    return QUERN_DISPATCH(sum(x, n));
  }
};
struct Dot {
  static constexpr int arrays = 2;
  template <class T>
  static double run(const T* x, const T* y, std::size_t n) {
    return QUERN_DISPATCH(dot(x, y, n));
  }
};
struct MaxValue {
  static constexpr int arrays = 1;
  template <class T>
  static double run(const T* x, const T* /*y*/, std::size_t n) {
    return QUERN_DISPATCH(max_value(x, n));
  }
};
struct ArgMax {
  static constexpr int arrays = 1;
  template <class T>
  static double run(const T* x, const T* /*y*/, std::size_t n) {
    return static_cast<double>(QUERN_DISPATCH(arg_max(x, n)));
  }
};

template <class Reduction, class T>
void reduction(benchmark::State& state) {
  const auto n = static_cast<std::size_t>(state.range(0));
  std::vector<T> x(n), y(n, T{2});
  for (std::size_t i = 0; i < n; ++i) x[i] = static_cast<T>(i * 7919 % n);
  for (auto _ : state) benchmark::DoNotOptimize(Reduction::run(x.data(), y.data(), n));
  const double bytes = Reduction::arrays * static_cast<double>(state.iterations()) *
                       static_cast<double>(n * sizeof(T));
  using benchmark::Counter;
  state.counters["GB/s"] = Counter(bytes * 1e-9, Counter::kIsRate);
  if (state.range(0) == kLong) {
    state.counters["of_limit"] = Counter(bytes * 1e-9 / bench::limits(1).read, Counter::kIsRate);
  }
}
#define QUERN_REDUCE_BENCH(Name)                                       \
  BENCHMARK(reduction<Name, float>)->Arg(64)->Arg(kShort)->Arg(kLong); \
  BENCHMARK(reduction<Name, double>)->Arg(64)->Arg(kShort)->Arg(kLong);
QUERN_REDUCE_BENCH(Sum)
QUERN_REDUCE_BENCH(Dot)
QUERN_REDUCE_BENCH(MaxValue)
QUERN_REDUCE_BENCH(ArgMax)
#undef QUERN_REDUCE_BENCH

}  // namespace
