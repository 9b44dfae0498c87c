// SPDX-License-Identifier: Apache-2.0

/// \file
/// One step of a recurrence in place: the state is read and written once.

#include "quern/kernels/kernels.hpp"
#include "quern/kernels/recurrence_step_types.hpp"
#include "report.hpp"

#include <benchmark/benchmark.h>

#include <cstddef>
#include <vector>

namespace {

namespace kernels = quern::kernels;

/// `heads` states of dim x dim, one after the other. Arguments: dim, heads.
void recurrence_step(benchmark::State& state) {
  const std::ptrdiff_t dim = state.range(0), heads = state.range(1);
  const auto sized = [](std::ptrdiff_t n) {
    return std::vector<float>(static_cast<std::size_t>(n), 0.01F);
  };
  std::vector<float> write = sized(dim), read = sized(dim), values = sized(dim), out = sized(dim);
  std::vector<float> sums = sized(heads * dim * dim), normaliser = sized(heads * dim);
  float total = 0;
  kernels::RecurrenceStep<float> step;
  step.rows = step.lanes = step.stride = dim;
  step.write = write.data(), step.read = read.data(), step.values = values.data();
  step.out = out.data(), step.total = &total;
  for (auto _ : state) {
    for (std::ptrdiff_t h = 0; h < heads; ++h) {
      step.state = sums.data() + h * dim * dim;
      step.normaliser = normaliser.data() + h * dim;
      QUERN_DISPATCH(recurrence_step<float>(step));
    }
    benchmark::ClobberMemory();
  }
  bench::report(state, 1, "ns/step");
}

}  // namespace

BENCHMARK(recurrence_step)->Name("recurrence_step/float")->ArgsProduct({{64, 128}, {1, 8}});
