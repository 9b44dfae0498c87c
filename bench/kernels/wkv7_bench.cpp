// SPDX-License-Identifier: Apache-2.0

/// \file
/// RWKV-7's recurrence for one head, forward and back, on one thread.

#include "quern/core/buffer.hpp"
#include "quern/kernels/kernels.hpp"
#include "quern/kernels/wkv_types.hpp"
#include "report.hpp"

#include <benchmark/benchmark.h>

#include <cstddef>
#include <vector>

namespace {

using quern::core::Buffer;

template <class T>
void wkv7(benchmark::State& state) {
  const std::ptrdiff_t steps = state.range(0), dim = state.range(1);
  const bool back = state.range(2) != 0;
  const auto size = static_cast<std::size_t>(steps * dim);
  const std::vector<T> x(size, T(0.05)), decay(size, T(0.95));
  std::vector<T> y(size), gradients(6 * size), sums(static_cast<std::size_t>(dim * dim));
  std::vector<T> dstate(sums.size());
  std::vector<T> kept(static_cast<std::size_t>((steps + 15) / 16) * sums.size());
  std::vector<T> kept_sa(size);
  Buffer<T> scratch(QUERN_DISPATCH(wkv7_scratch<T>(dim)));
  Buffer<T> back_scratch(QUERN_DISPATCH(wkv7_vjp_scratch<T>(dim)));
  quern::kernels::Wkv7VjpTask<T> task;
  task.wkv.steps = steps;
  task.wkv.keys = task.wkv.values = dim;
  task.wkv.r = task.wkv.k = task.wkv.a = task.wkv.b = task.wkv.v = {x.data(), dim};
  task.wkv.decay = {decay.data(), dim};
  task.wkv.state = {sums.data(), dim};
  task.wkv.y = {y.data(), dim};
  task.wkv.kept = kept.data(), task.wkv.kept_sa = kept_sa.data();
  task.wkv.scratch = scratch.data();
  task.dy = {x.data(), dim};
  task.dstate = {dstate.data(), dim};
  quern::kernels::ScanRows<T>* const parts[] = {&task.dr, &task.ddecay, &task.dk,
                                                &task.da, &task.db,     &task.dv};
  for (std::size_t i = 0; i < 6; ++i) *parts[i] = {gradients.data() + i * size, dim};
  task.scratch = back_scratch.data();
  QUERN_DISPATCH(wkv7<T>(task.wkv));
  for (auto _ : state) {
    if (back) {
      QUERN_DISPATCH(wkv7_vjp<T>(task));
    } else {
      QUERN_DISPATCH(wkv7<T>(task.wkv));
    }
    benchmark::ClobberMemory();
  }
  bench::report(state, static_cast<double>(size), "ns/(step, channel)");
}

}  // namespace

BENCHMARK(wkv7<float>)->Name("wkv7/float")->Args({1024, 64, 0})->Args({1024, 64, 1});
BENCHMARK(wkv7<double>)->Name("wkv7/double")->Args({256, 64, 0});
