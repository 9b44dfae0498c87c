// SPDX-License-Identifier: Apache-2.0

/// \file
/// RWKV's mixing of a step with the one before, and the gradients of that.

#include "quern/kernels/kernels.hpp"
#include "report.hpp"

#include <benchmark/benchmark.h>

#include <cstddef>
#include <vector>

namespace {

template <class T>
void mixing(benchmark::State& state) {
  const std::size_t n = 2048;
  const std::vector<T> now(n, T(0.3)), past(n, T(0.2)), mix(n, T(0.5));
  std::vector<T> out(n), apart(n), amount(n);
  const auto which = state.range(0);
  for (auto _ : state) {
    if (which == 0) QUERN_DISPATCH(mix_rows<T>(now.data(), past.data(), mix.data(), n, out.data()));
    if (which == 1) {
      QUERN_DISPATCH(
          mix_rows_gradient<T>(now.data(), past.data(), mix.data(), n, true, out.data()));
    }
    if (which == 2) {
      QUERN_DISPATCH(blend_rows<T>(now.data(), past.data(), mix.data(), now.data(), n, out.data()));
    }
    if (which == 3) {
      QUERN_DISPATCH(blend_rows_gradient<T>(now.data(), past.data(), mix.data(), now.data(), n,
                                            out.data(), apart.data(), amount.data()));
    }
    benchmark::ClobberMemory();
  }
  bench::report(state, static_cast<double>(n), "ns/number");
  bench::report_bytes(state, static_cast<double>(n * sizeof(T)) * (which == 3 ? 9 : 5));
}

}  // namespace

BENCHMARK(mixing<float>)->Name("mixing/float")->DenseRange(0, 3);
BENCHMARK(mixing<double>)->Name("mixing/double")->Arg(0);
