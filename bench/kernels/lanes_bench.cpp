// SPDX-License-Identifier: Apache-2.0

/// \file
/// Whole vectors and the rest of a row: what a tail costs, in sums of products over short rows.

#include "quern/kernels/kernels.hpp"
#include "report.hpp"

#include <benchmark/benchmark.h>

#include <cstddef>
#include <vector>

namespace {

template <class T>
void tails(benchmark::State& state) {
  const auto n = static_cast<std::size_t>(state.range(0));
  const std::vector<T> a(n, T(0.3)), b(n, T(0.2));
  std::vector<T> sums(n);
  for (auto _ : state) {
    QUERN_DISPATCH(add_products<T>(a.data(), b.data(), n, sums.data()));
    benchmark::ClobberMemory();
  }
  bench::report(state, 1, "ns/row");
}

}  // namespace

BENCHMARK(tails<float>)->Name("lanes/float")->Arg(1)->Arg(15)->Arg(16)->Arg(17)->Arg(64)->Arg(65);
BENCHMARK(tails<double>)->Name("lanes/double")->Arg(8)->Arg(9);
