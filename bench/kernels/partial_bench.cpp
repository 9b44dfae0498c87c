// SPDX-License-Identifier: Apache-2.0

/// \file
/// Arrays shorter than a vector or a little longer: what the loads and stores of a part of a vector
/// cost, ns a call.

#include "quern/kernels/functors.hpp"
#include "quern/kernels/kernels.hpp"
#include "report.hpp"

#include <benchmark/benchmark.h>

#include <cstddef>

namespace {

template <class T>
void partial(benchmark::State& state) {
  const auto n = static_cast<std::size_t>(state.range(0));
  T x[64] = {}, y[64];
  for (auto _ : state) {
    QUERN_DISPATCH(transform(quern::kernels::Square{}, x, n, y));
    benchmark::DoNotOptimize(y);
  }
  bench::report(state, 1, "ns/call");
}

}  // namespace

BENCHMARK(partial<float>)->Name("partial/float")->Arg(1)->Arg(7)->Arg(15)->Arg(16)->Arg(63);
BENCHMARK(partial<double>)->Name("partial/double")->Arg(1)->Arg(3)->Arg(7)->Arg(31);
