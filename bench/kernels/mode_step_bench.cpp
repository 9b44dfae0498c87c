// SPDX-License-Identifier: Apache-2.0

/// \file
/// Steps of one channel's complex modes, in the cache. Arguments: modes, rank.

#include "quern/kernels/kernels.hpp"
#include "quern/kernels/mode_step_types.hpp"
#include "report.hpp"

#include <benchmark/benchmark.h>

#include <cstddef>
#include <vector>

namespace {

template <class T>
void mode_steps(benchmark::State& state) {
  constexpr std::size_t steps = 64;
  const std::vector<T> rows(static_cast<std::size_t>(state.range(0)) * 4, T(-0.01));
  const std::vector<T> u(steps, T(0.3));
  std::vector<T> x(rows.size()), y(steps);
  quern::kernels::ModeStepTask<T> task;
  task.steps = steps;
  task.modes = state.range(0);
  task.rank = state.range(1);
  task.less = task.in = task.out = task.from = task.to = rows.data();
  task.gain = u.data();
  task.x = x.data();
  task.u = u.data();
  task.y = y.data();
  for (auto _ : state) {
    QUERN_DISPATCH(mode_steps<T>(task));
    benchmark::ClobberMemory();
  }
  bench::report(state, static_cast<double>(steps), "ns/step");
}

}  // namespace

BENCHMARK(mode_steps<float>)->Name("mode_steps/float")->Args({32, 0})->Args({32, 1});
BENCHMARK(mode_steps<double>)->Name("mode_steps/double")->ArgsProduct({{32, 128}, {0, 1, 2}});
