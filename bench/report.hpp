// SPDX-License-Identifier: Apache-2.0

/// \file
/// Counters that many benchmarks show.

#ifndef QUERN_BENCH_REPORT_HPP
#define QUERN_BENCH_REPORT_HPP

#include <benchmark/benchmark.h>

namespace bench {

/// Nanoseconds for each of the \p each things that an iteration handles, named "ns/row" and such.
inline void report(benchmark::State& state, double each, const char* name) {
  using benchmark::Counter;
  state.counters[name] = Counter(static_cast<double>(state.iterations()) * each * 1e-9,
                                 Counter::kIsRate | Counter::kInvert);
}

/// GB/s of \p bytes that an iteration moves.
inline void report_bytes(benchmark::State& state, double bytes) {
  using benchmark::Counter;
  state.counters["GB/s"] =
      Counter(static_cast<double>(state.iterations()) * bytes * 1e-9, Counter::kIsRate);
}

}  // namespace bench

#endif  // QUERN_BENCH_REPORT_HPP
