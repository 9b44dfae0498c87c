// SPDX-License-Identifier: Apache-2.0

/// \file
/// Sums of powers and their moments: S4D's kernel and its gradient, a tile of channels.

#include "quern/kernels/kernels.hpp"

#include "quern/core/buffer.hpp"
#include "report.hpp"

#include <benchmark/benchmark.h>

#include <cstddef>

namespace {

template <class T>
struct Job {
  static constexpr std::size_t lanes = quern::kernels::power_lanes<T>;
  std::size_t modes, rows;
  quern::core::Buffer<T> q, out;
  quern::core::Buffer<double> block, g, p, r;

  Job(std::size_t m, std::size_t n)
      : modes(m),
        rows(n),
        q(m * 2 * lanes),
        out(n * lanes, quern::core::Fill::zero),
        block(m * 2 * lanes),
        g(m * 2 * lanes),
        p(m * 2 * lanes),
        r(m * 2 * lanes) {
    for (T& v : q) v = T{0.7F};
    for (double& v : block) v = 0.6;
    for (double& v : g) v = 1;
  }
};

template <class T>
void power_sum(benchmark::State& state) {
  Job<T> job(static_cast<std::size_t>(state.range(0)), 16384);
  const quern::kernels::PowerSumTask<T> task{job.modes,      job.rows,         Job<T>::lanes,
                                             job.q.data(),   job.block.data(), job.g.data(),
                                             job.out.data(), Job<T>::lanes,    false};
  for (auto _ : state) {
    QUERN_DISPATCH(power_sum<T>(task));
    benchmark::ClobberMemory();
  }
  bench::report(state, static_cast<double>(job.modes * job.rows * Job<T>::lanes),
                "ns/(row, mode, channel)");
}

template <class T>
void power_moments(benchmark::State& state) {
  Job<T> job(static_cast<std::size_t>(state.range(0)), 16384);
  const quern::kernels::PowerMomentsTask<T> task{
      job.modes,        job.rows,       Job<T>::lanes, job.q.data(), job.block.data(),
      job.block.data(), job.out.data(), Job<T>::lanes, job.p.data(), job.r.data()};
  for (auto _ : state) {
    QUERN_DISPATCH(power_moments<T>(task));
    benchmark::ClobberMemory();
  }
  bench::report(state, static_cast<double>(job.modes * job.rows * Job<T>::lanes),
                "ns/(row, mode, channel)");
}

}  // namespace

BENCHMARK(power_sum<float>)->Name("power_sum/float")->Arg(32);
BENCHMARK(power_sum<double>)->Name("power_sum/double")->Arg(32);
BENCHMARK(power_moments<float>)->Name("power_moments/float")->Arg(32);
